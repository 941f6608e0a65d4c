//! Which keys there are, and what is said of one that there is not.

use std::fmt::Write;

use super::{
    ClockSection, ConfigError, ControlSection, File, IdentitySection, IntegersSection, LogSection,
    MessagesSection, NetworkSection, NodeSection, gateway, section::Key,
};

/// Returns the sections, in the order of the example.
fn sections() -> impl Iterator<Item = (&'static str, &'static [Key])> {
    const FIRST: [(&str, &[Key]); 6] = [
        ("node", NodeSection::KEYS),
        ("network", NetworkSection::KEYS),
        ("messages", MessagesSection::KEYS),
        ("integers", IntegersSection::KEYS),
        ("identity", IdentitySection::KEYS),
        ("control", ControlSection::KEYS),
    ];
    const LAST: [(&str, &[Key]); 2] = [("clock", ClockSection::KEYS), ("log", LogSection::KEYS)];
    let gateways = gateway::SECTIONS.into_iter().flatten().copied();
    FIRST.into_iter().chain(gateways).chain(LAST)
}

/// What stands above the sections in the example.
const HEAD: &str = "\
## Every key of `pimesh.toml` with its default. Lines that begin with `# ` are settings that are
## not used as long as they stand there; take the `# ` away to use them.
";

/// Returns a configuration with every key, its default and what it means.
#[must_use]
pub fn example() -> String {
    let mut text = HEAD.to_owned();
    let defaults = toml::Value::try_from(File::default());
    let defaults = defaults.expect("the defaults are TOML, as a test shows");
    for (section, keys) in sections() {
        let within = |table: Option<toml::Value>, name: &str| table?.get(name).cloned();
        let defaults = section.split('.').fold(Some(defaults.clone()), within);
        write!(text, "\n[{section}]\n").expect("writing to a string");
        for key in keys {
            let default = defaults.as_ref().and_then(|table| table.get(key.name));
            if let Some(toml::Value::Table(_)) = default {
                // A section of its own.
                continue;
            }
            for line in key.meaning {
                writeln!(text, "##{line}").expect("writing to a string");
            }
            match default {
                Some(value) => writeln!(text, "{} = {value}", key.name),
                None => writeln!(text, "# {} = {}", key.name, key.example),
            }
            .expect("writing to a string");
        }
    }
    text
}

/// Returns every key with its section.
#[must_use]
pub fn keys() -> Vec<String> {
    let of = |(section, keys): (&str, &'static [Key])| {
        let section = section.to_owned();
        keys.iter()
            .map(move |key| format!("{section}.{}", key.name))
    };
    sections().flat_map(of).collect()
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
