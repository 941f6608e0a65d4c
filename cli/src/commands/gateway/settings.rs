//! Changes settings in `pimesh.toml` and leaves everything else in it as it is, comments included.

use std::{io::Write, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path};

use anyhow::Context;
use pimesh_node::config::{Config, FILE_NAME, read_file};
use toml_edit::{DocumentMut, Item, Table, Value};

/// Opens or closes a door in the configuration of a home folder.
pub(super) fn set(
    home: &Path,
    section: &str,
    enabled: bool,
    listen: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let path = home.join(FILE_NAME);
    let shown = path.display();
    let text = if path.exists() {
        read_file(&path).with_context(|| format!("read {shown}"))?
    } else {
        String::new()
    };
    let changed = with(&text, section, enabled, listen)?;
    Config::parse(&changed).with_context(|| format!("{shown} would not be legal"))?;
    pimesh_node::identity::prepare_home(home)?;
    write(home, &path, &changed).with_context(|| format!("write {shown}"))
}

fn with(
    text: &str,
    section: &str,
    enabled: bool,
    listen: Option<SocketAddr>,
) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse().context("the file is no TOML")?;
    let mut gateway = Table::new();
    gateway.set_implicit(true);
    let gateway = document.entry("gateway").or_insert(Item::Table(gateway));
    let gateway = gateway
        .as_table_like_mut()
        .context("`gateway` is a section")?;
    let door = gateway
        .entry(section)
        .or_insert(Item::Table(Table::new()))
        .as_table_like_mut()
        .with_context(|| format!("`gateway.{section}` is a section"))?;
    door.insert("enabled", Item::Value(Value::from(enabled)));
    if let Some(listen) = listen {
        door.insert("listen", Item::Value(Value::from(listen.to_string())));
    }
    Ok(document.to_string())
}

/// Replaces the file as a whole, so that a power cut leaves the old one or the new one.
fn write(home: &Path, path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(home)?;
    let mode = path.metadata().map_or(0o600, |m| m.permissions().mode());
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_enabled_and_everything_else_stays_as_it_was() {
        let before =
            "# mine\n[node]\nname = \"pi-1\" # kitchen\n\n[gateway.syft]\nenabled = true\n";

        let after = with(before, "iid", true, Some(([0, 0, 0, 0], 4615).into())).expect("legal");

        assert_eq!(
            after,
            format!("{before}\n[gateway.iid]\nenabled = true\nlisten = \"0.0.0.0:4615\"\n")
        );
        let closed = with(&after, "iid", false, None).expect("legal");
        assert_eq!(
            closed,
            after.replace("enabled = true\nlisten", "enabled = false\nlisten")
        );
        assert_eq!(
            with("", "iid", true, None).expect("legal"),
            "[gateway.iid]\nenabled = true\n"
        );
    }
}
