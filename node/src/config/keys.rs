//! Which keys there are, and what is said of one that there is not.

use super::{ConfigError, EXAMPLE};

/// Returns every key with its section, as the example names them.
#[must_use]
pub fn keys() -> Vec<String> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in EXAMPLE.lines() {
        let line = line.trim_start_matches("# ").trim();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once(" = ")
            && key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            keys.push(format!("{section}.{key}"));
        }
    }
    keys
}

/// Refuses keys that do not exist, with their line and the nearest one that does.
pub(super) fn check_keys(text: &str) -> Result<(), ConfigError> {
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| ConfigError::Toml(e.to_string().trim_end().to_owned()))?;
    let known = keys();
    let Some(key) = leaves(&table).find(|key| !known.contains(key)) else {
        return Ok(());
    };
    let likeness = |known: &&String| (strsim::jaro_winkler(known, &key) * 1e6) as u64;
    let nearest = known
        .iter()
        .max_by_key(likeness)
        .filter(|n| likeness(n) > 800_000);
    Err(ConfigError::UnknownKey {
        line: line_of(text, &key),
        nearest: nearest.cloned(),
        key,
    })
}

/// Returns the keys in a table and in the tables within it, each with its section.
fn leaves(table: &toml::Table) -> impl Iterator<Item = String> {
    let mut waiting: Vec<(String, &toml::Value)> = table
        .iter()
        .map(|(key, value)| (key.clone(), value))
        .collect();
    std::iter::from_fn(move || {
        loop {
            match waiting.pop()? {
                (section, toml::Value::Table(table)) => {
                    let inner = table.iter();
                    waiting.extend(inner.map(|(key, value)| (format!("{section}.{key}"), value)));
                }
                (key, _) => return Some(key),
            }
        }
    })
}

fn line_of(text: &str, key: &str) -> usize {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut current = String::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            header.trim().clone_into(&mut current);
        } else if current == section
            && line
                .split_once('=')
                .is_some_and(|(key, _)| key.trim() == name)
        {
            return number;
        }
    }
    1
}
