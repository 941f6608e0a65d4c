//! Whether the store is whole.

use std::path::PathBuf;

use anyhow::Context;
use pimesh_node::store;

use super::Check;

/// Reads the whole store. It may be in use meanwhile.
pub(super) async fn check(path: PathBuf) -> anyhow::Result<Check> {
    if !path.exists() {
        return Ok(Check::ok("store", "there is none yet"));
    }
    let checking = tokio::task::spawn_blocking(move || store::check(&path));
    Ok(match checking.await.context("read the store")? {
        Ok(()) => Check::ok("store", "every page is whole"),
        Err(error) => {
            let todo = error.hint();
            let todo = todo.unwrap_or_else(|| "look at the disk and its cable".to_owned());
            Check::fail("store", error.to_string(), todo)
        }
    })
}
