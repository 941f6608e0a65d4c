//! Lets a group use the control socket.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use crate::files;

/// Where groups and their numbers are.
const GROUPS: &str = "/etc/group";

/// Longest list of groups, in bytes.
const GROUPS_BYTES_MAX: u64 = 1024 * 1024;

/// Permissions of a socket that its owner and its group may use.
const GROUP_TOO: u32 = 0o660;

/// Gives the socket to a group, by its name or number.
///
/// # Errors
/// Returns why not: there is no such group, or this process may not give anything to it.
pub(crate) fn share(socket: &Path, group: &str) -> io::Result<()> {
    let number = number_of(group)?;
    chown(socket, None, Some(number)).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::new(
            error.kind(),
            format!("the node's user is not in the group `{group}` of `control.socket_group`"),
        ),
        _ => error,
    })?;
    fs::set_permissions(socket, fs::Permissions::from_mode(GROUP_TOO))?;
    if let Some(folder) = socket.parent()
        && !may_enter(folder, number)?
    {
        tracing::warn!(
            folder = %folder.display(),
            group,
            "the group cannot enter the folder of the control socket; put the socket elsewhere, \
             such as into /run/pimesh (`control.socket`)"
        );
    }
    Ok(())
}

fn may_enter(folder: &Path, group: u32) -> io::Result<bool> {
    let found = fs::metadata(folder)?;
    let bits = if found.gid() == group { 0o010 } else { 0o001 };
    Ok(found.permissions().mode() & bits != 0)
}

fn number_of(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = files::read_bounded(Path::new(GROUPS), GROUPS_BYTES_MAX)?;
    find(&groups, group).ok_or_else(|| {
        let text = format!("there is no group `{group}` (`control.socket_group`)");
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

/// Finds the number of a group in a list as in group(5).
fn find(groups: &str, group: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        let number = parts.nth(1)?;
        (name == group).then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\npimesh-x:x:990:\n\npimesh:x:991:pi,anna\nbroken\n";

        assert_eq!(find(groups, "pimesh"), Some(991));
        assert_eq!(find(groups, "pi"), None);
        assert!(number_of("no-such-group-here").is_err());
        assert_eq!(number_of("991").expect("a number"), 991);
    }

    #[test]
    fn the_socket_is_for_its_owner_and_the_group() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let _socket = std::os::unix::net::UnixListener::bind(&path).expect("binds");
        let own = fs::metadata(&path).expect("there").gid().to_string();

        share(&path, &own).expect("its own group");

        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
    }
}
