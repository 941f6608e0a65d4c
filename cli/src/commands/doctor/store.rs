//! Whether the store is whole.

use std::path::PathBuf;

use anyhow::Context;
use pimesh_node::store;

use super::Check;

/// Says that the store is whole, and what beside it may go.
fn whole(copies: &[PathBuf]) -> String {
    let names = copies.iter().filter_map(|copy| copy.file_name());
    let names: Vec<String> = names
        .map(|name| format!("`{}`", name.to_string_lossy()))
        .collect();
    if names.is_empty() {
        return "every page is whole".to_owned();
    }
    format!(
        "every page is whole; {} beside it is what an earlier pimesh reads, and may be deleted",
        names.join(" and ")
    )
}

/// Reads the whole store. It may be in use meanwhile.
pub(super) async fn check(path: PathBuf) -> anyhow::Result<Check> {
    if !path.exists() {
        return Ok(Check::ok("store", "there is none yet"));
    }
    let copies = store::copies(&path);
    let checking = tokio::task::spawn_blocking(move || store::check(&path));
    Ok(match checking.await.context("read the store")? {
        Ok(()) => Check::ok("store", whole(&copies)),
        Err(error) => {
            let todo = error.hint();
            let todo = todo.unwrap_or_else(|| "look at the disk and its cable".to_owned());
            Check::fail("store", error.to_string(), todo)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_an_earlier_format_is_named() {
        let copy = PathBuf::from("/home/pi/pimesh.db.format-5");

        assert_eq!(whole(&[]), "every page is whole");
        assert_eq!(
            whole(&[copy]),
            "every page is whole; `pimesh.db.format-5` beside it is what an earlier pimesh reads, \
             and may be deleted"
        );
    }
}
