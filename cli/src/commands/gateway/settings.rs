//! Changes settings in `pimesh.toml` and leaves everything else in it as it is, comments included.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, path::Path};

use anyhow::Context;
use pimesh_node::{
    config::{Config, FILE_NAME, read_file},
    files,
    proto::server::ServerUrl,
};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

/// Opens or closes a gateway in the configuration of a home folder.
pub(super) fn set(
    home: &Path,
    section: &str,
    enabled: bool,
    listen: Option<SocketAddr>,
) -> anyhow::Result<()> {
    change(home, |document| enable(document, section, enabled, listen))
}

fn enable(
    document: &mut DocumentMut,
    section: &str,
    enabled: bool,
    listen: Option<SocketAddr>,
) -> anyhow::Result<()> {
    let gateway = gateway(document, section)?;
    gateway.insert("enabled", Item::Value(Value::from(enabled)));
    if let Some(listen) = listen {
        gateway.insert("listen", Item::Value(Value::from(listen.to_string())));
    }
    Ok(())
}

/// Returns the text of `pimesh.toml`, if there is one.
pub(super) fn text(home: &Path) -> anyhow::Result<Option<String>> {
    let path = home.join(FILE_NAME);
    let shown = path.display();
    let exists = path.exists();
    let text = exists.then(|| read_file(&path));
    text.transpose().with_context(|| format!("read {shown}"))
}

/// Puts an earlier text back into `pimesh.toml`, unless somebody else has changed the file since;
/// says whether it did.
pub(super) fn put_back(
    home: &Path,
    before: Option<&str>,
    written: Option<&str>,
) -> anyhow::Result<bool> {
    let Some(before) = before else {
        return Ok(false);
    };
    if text(home)?.as_deref() != written {
        return Ok(false);
    }
    write(&home.join(FILE_NAME), before)?;
    Ok(true)
}

/// Changes the list of servers that a gateway is a client of, in the configuration of a home folder.
pub(super) fn change_servers(
    home: &Path,
    section: &str,
    what: impl FnOnce(&mut Array) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    change(home, |document| what(servers(document, section)?))
}

/// Returns the servers that a gateway is a client of.
fn servers<'a>(document: &'a mut DocumentMut, section: &str) -> anyhow::Result<&'a mut Array> {
    gateway(document, section)?
        .entry("servers")
        .or_insert(Item::Value(Value::from(Array::new())))
        .as_array_mut()
        .with_context(|| format!("`gateway.{section}.servers` is a list"))
}

/// Takes the servers out in which a key has this value; says whether there was one.
pub(super) fn remove(servers: &mut Array, key: &str, value: &str) -> bool {
    remove_if(servers, key, |found| found == value)
}

/// Takes a server out, however the file spells its URL; says whether there was one.
pub(super) fn remove_url(servers: &mut Array, url: &ServerUrl) -> bool {
    remove_if(servers, "url", |found| found.parse().as_ref() == Ok(url))
}

fn remove_if(servers: &mut Array, key: &str, is_it: impl Fn(&str) -> bool) -> bool {
    let before = servers.len();
    let value = |entry: &Value| {
        let value = entry.as_inline_table()?.get(key)?.as_str()?;
        Some(is_it(value))
    };
    servers.retain(|entry| value(entry) != Some(true));
    servers.len() < before
}

/// Returns the section of a gateway, made if it is not there.
fn gateway<'a>(
    document: &'a mut DocumentMut,
    section: &str,
) -> anyhow::Result<&'a mut dyn TableLike> {
    let mut gateway = Table::new();
    gateway.set_implicit(true);
    let gateway = document.entry("gateway").or_insert(Item::Table(gateway));
    let gateway = gateway
        .as_table_like_mut()
        .context("`gateway` is a section")?;
    gateway
        .entry(section)
        .or_insert(Item::Table(Table::new()))
        .as_table_like_mut()
        .with_context(|| format!("`gateway.{section}` is a section"))
}

fn change(
    home: &Path,
    change: impl FnOnce(&mut DocumentMut) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = home.join(FILE_NAME);
    let shown = path.display();
    let text = if path.exists() {
        read_file(&path).with_context(|| format!("read {shown}"))?
    } else {
        String::new()
    };
    let mut document: DocumentMut = text.parse().context("the file is no TOML")?;
    change(&mut document)?;
    let text = document.to_string();
    Config::parse(&text).with_context(|| format!("{shown} would not be legal"))?;
    pimesh_node::identity::prepare_home(home)?;
    write(&path, &text).with_context(|| format!("write {shown}"))
}

/// Replaces a file as a whole, so that a power cut leaves the old one or the new one.
pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    files::create_folder(folder)?;
    let mode = path.metadata().map(|found| found.permissions().mode());
    let mode = mode.unwrap_or(files::OWNER_ONLY);
    Ok(files::replace(path, text.as_bytes(), mode & 0o777)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, change: impl FnOnce(&mut DocumentMut) -> anyhow::Result<()>) -> String {
        let home = tempfile::tempdir().expect("a folder");
        std::fs::write(home.path().join(FILE_NAME), text).expect("written");
        super::change(home.path(), change).expect("legal");
        read_file(&home.path().join(FILE_NAME)).expect("read")
    }

    #[test]
    fn a_gateway_is_enabled_and_everything_else_stays_as_it_was() {
        let before =
            "# mine\n[node]\nname = \"pi-1\" # kitchen\n\n[gateway.syft]\nenabled = true\n";
        let listen = Some(([0, 0, 0, 0], 4615).into());

        let after = with(before, |d| enable(d, "iid", true, listen));

        assert_eq!(
            after,
            format!("{before}\n[gateway.iid]\nenabled = true\nlisten = \"0.0.0.0:4615\"\n")
        );
        let closed = with(&after, |d| enable(d, "iid", false, None));
        assert_eq!(
            closed,
            after.replace("enabled = true\nlisten", "enabled = false\nlisten")
        );
        assert_eq!(
            with("", |d| enable(d, "iid", true, None)),
            "[gateway.iid]\nenabled = true\n"
        );
    }
}
