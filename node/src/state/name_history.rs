//! What members are called, and what they were called before: history is read by names, and outlasts
//! renaming, removal and leaving.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;

use super::{io::Record, report};
use crate::proto::mesh::sync::MEMBERS_MAX;

/// Most names that are remembered of one member, the latest of them.
pub const NAMES_PER_MEMBER_MAX: usize = 16;

/// Most members whose names are remembered: those of the largest mesh, eight times over, because
/// former ones count, too.
const REMEMBERED_MAX: usize = 8 * MEMBERS_MAX;

/// The names of all members that ever were known here, each with the latest one last.
#[derive(Debug, Default)]
pub(super) struct NameHistory {
    names: BTreeMap<PeerId, Vec<String>>,
}

impl NameHistory {
    pub(super) fn load(names: Vec<(PeerId, String)>) -> Self {
        let mut history = Self::default();
        for (peer, name) in names {
            history.note(peer, &name);
        }
        history
    }

    /// Returns the record of what a member is called, if that is news and there is room for it.
    pub(super) fn news(&self, peer: PeerId, name: &str) -> Option<Record> {
        let known = self.names.get(&peer);
        let has_room = known.is_some() || self.names.len() < REMEMBERED_MAX;
        let is_known = self.last(&peer) == Some(name);
        (has_room && !is_known).then(|| Record::Name {
            peer,
            name: name.to_owned(),
        })
    }

    /// Notes what a member is called; returns the record of it, if that is news.
    pub(super) fn note(&mut self, peer: PeerId, name: &str) -> Option<Record> {
        let record = self.news(peer, name)?;
        let names = self.names.entry(peer).or_default();
        names.push(name.to_owned());
        if names.len() > NAMES_PER_MEMBER_MAX {
            names.remove(0);
        }
        Some(record)
    }

    /// Returns what a member is or was called last.
    pub(super) fn last(&self, peer: &PeerId) -> Option<&str> {
        self.names.get(peer)?.last().map(String::as_str)
    }

    /// Says whether a member has or had this name.
    pub(super) fn had(&self, peer: &PeerId, name: &str) -> bool {
        let names = self.names.get(peer);
        names.is_some_and(|names| names.iter().any(|known| known == name))
    }

    /// Says whether any member has or had this name.
    pub(super) fn anybody_had(&self, name: &str) -> bool {
        self.names.keys().any(|peer| self.had(peer, name))
    }

    pub(super) fn report(&self) -> Vec<report::Names> {
        let all = self.names.iter();
        all.filter_map(|(peer, names)| {
            let (name, earlier) = names.split_last()?;
            Some(report::Names {
                peer_id: *peer,
                name: name.clone(),
                earlier: earlier.to_vec(),
                member: false,
            })
        })
        .collect()
    }
}
