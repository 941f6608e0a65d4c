//! Whom a name means, and what somebody is called.
//!
//! Members and users share one name space (`proto-specs/syft.md`, section 14): a name belongs to
//! the gateway where it was registered first; whoever registered it elsewhere at the same time, while
//! the gateways could not hear each other, is `user@node`.

use libp2p_identity::PeerId;

use super::{
    State,
    io::{Failure, Party},
};
use crate::proto::{
    mesh::{certificate::Terms, parse_peer},
    syft::{PublicKey, UserId},
};

/// Longest text that may name somebody, in bytes: a user, `@`, and a node.
const NAMED_BYTES_MAX: usize = 320;

/// Whom a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// A member node itself.
    Member(PeerId),
    /// A user, and his gateway.
    User(UserId, PeerId),
}

impl State {
    /// Finds a member by name or peer id.
    pub(super) fn resolve(&self, text: &str) -> Result<PeerId, Failure> {
        if text.len() > NAMED_BYTES_MAX {
            let length = text.len();
            return Err(Failure::bad_request(format!(
                "a name or peer id has at most {NAMED_BYTES_MAX} bytes, not {length}"
            ))
            .with_hint("`pimesh peers` lists the members"));
        }
        // A peer id is never a name, whatever a member is called.
        let as_peer = parse_peer(text);
        let by_name =
            |&(_, terms): &(PeerId, &Terms)| as_peer.is_none() && terms.name.as_str() == text;
        let named: Vec<PeerId> = self
            .membership
            .members()
            .filter(by_name)
            .map(|(peer, _)| peer)
            .collect();
        match named.as_slice() {
            [peer] => return Ok(*peer),
            [] => {}
            _ => {
                return Err(
                    Failure::conflict(format!("several members are named `{text}`"))
                        .with_hint("name it by its peer id, which `pimesh peers --json` shows"),
                );
            }
        }
        if let Some(peer) = as_peer.filter(|peer| self.membership.is_known(peer)) {
            return Ok(peer);
        }
        let own = self.membership.own_terms();
        if as_peer.map_or(text == own.name.as_str(), |peer| peer == own.peer) {
            return Err(
                Failure::bad_request(format!("`{text}` is this node itself"))
                    .with_hint("`pimesh peers` lists the other members"),
            );
        }
        let failure = Failure::not_found(format!("no member is named `{text}`"));
        let names = self
            .membership
            .members()
            .map(|(_, terms)| terms.name.as_str());
        let nearest = names.map(|name| (strsim::jaro_winkler(name, text), name));
        let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0));
        Err(match nearest {
            Some((likeness, name)) if likeness > 0.75 => {
                failure.with_hint(format!("did you mean `{name}`?"))
            }
            _ => failure.with_hint("`pimesh peers` lists the members"),
        })
    }

    /// Finds a member by name or peer id, or a user.
    pub(super) fn recipient(&self, text: &str) -> Result<Meant, Failure> {
        match self.resolve(text) {
            Ok(peer) => Ok(Meant::Member(peer)),
            Err(failure) => match text.parse().ok().and_then(|name| self.meant(&name)) {
                Some(Meant::Member(peer)) if peer == self.own.peer => Err(failure),
                Some(meant) => Ok(meant),
                None => self.meant_at_server(text).ok_or_else(|| {
                    // A name with `@` is meant for a user, whatever member is called alike.
                    if text.contains('@') {
                        Failure::not_found(format!("there is no user `{text}`"))
                            .with_hint("`pimesh gateway syft users` lists the users")
                    } else {
                        failure
                    }
                }),
            },
        }
    }

    /// Finds whom a name means, in the whole mesh.
    pub(super) fn meant(&self, name: &UserId) -> Option<Meant> {
        if let Some(&member) = self.members_named(name.as_str()).first() {
            return Some(Meant::Member(member));
        }
        if let Some(node) = self.owner(name) {
            return Some(Meant::User(name.clone(), node));
        }
        let (user, node) = name.split()?;
        self.members_named(node).into_iter().find_map(|member| {
            if self.users.get(&user, member).is_some() {
                Some(Meant::User(user.clone(), member))
            } else {
                (user.as_str() == node).then_some(Meant::Member(member))
            }
        })
    }

    /// Finds the gateway to which a bare name belongs.
    pub(super) fn owner(&self, name: &UserId) -> Option<PeerId> {
        let named = self.users.named(name);
        let here = named.filter(|entry| self.is_gateway_here(&entry.record.node));
        here.min_by_key(|entry| entry.rank())
            .map(|entry| entry.record.node)
    }

    /// Returns the members with this name, the one that had it first in front.
    pub(super) fn members_named(&self, name: &str) -> Vec<PeerId> {
        let own = self.membership.own_terms();
        let all = self.membership.members().map(|(_, terms)| terms);
        let mut named: Vec<_> = all
            .chain([own])
            .filter(|terms| terms.name.as_str() == name)
            .map(|terms| (terms.issued_ms, terms.peer))
            .collect();
        named.sort_unstable();
        named.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Returns the user of this gateway that a login name means: his id, or `user@node` with this node.
    pub(super) fn local(&self, name: &UserId) -> Option<UserId> {
        let here = self.own.peer;
        if self.users.get(name, here).is_some() {
            return Some(name.clone());
        }
        let (user, node) = name.split()?;
        let is_own = self.membership.own_terms().name.as_str() == node;
        (is_own && self.users.get(&user, here).is_some()).then_some(user)
    }

    /// Returns the name under which the mesh knows a user.
    pub(super) fn known_as(&self, user: &UserId, node: PeerId) -> UserId {
        if self.meant(user) == Some(Meant::User(user.clone(), node)) {
            return user.clone();
        }
        user.at(&self.gateway_name(&node))
            .unwrap_or_else(|_| user.clone())
    }

    /// Returns `user@node`.
    pub(super) fn full_name(&self, user: &UserId, node: PeerId) -> String {
        format!("{user}@{}", self.gateway_name(&node))
    }

    /// Returns the name of a member, the last name of a former one, or the peer id of a stranger.
    pub(super) fn name_of(&self, peer: &PeerId) -> String {
        match self.membership.terms(peer) {
            Some(terms) => terms.name.to_string(),
            None => self
                .names
                .last(peer)
                .map_or_else(|| peer.to_string(), str::to_owned),
        }
    }

    /// Returns the name of this node, or of a member.
    pub(super) fn name_of_any(&self, peer: &PeerId) -> String {
        if *peer == self.own.peer {
            return self.membership.own_terms().name.to_string();
        }
        self.name_of(peer)
    }

    /// Returns the name of a member, or of a client.
    pub(super) fn name_of_party(&self, party: &Party) -> String {
        match party {
            Party::Member(peer) => self.name_of(peer),
            Party::Client(name) => name.to_string(),
        }
    }

    /// Returns the name of a gateway in `user@node`.
    pub(super) fn gateway_name(&self, node: &PeerId) -> String {
        if *node == self.own.peer {
            self.membership.own_terms().name.to_string()
        } else if let Some(server) = self.server_name(node) {
            server.to_string()
        } else {
            self.name_of(node)
        }
    }

    pub(super) fn is_gateway_here(&self, node: &PeerId) -> bool {
        *node == self.own.peer || self.membership.is_known(node)
    }

    /// Returns the key of a member or user.
    pub(super) fn key_of(&self, meant: &Meant) -> Option<PublicKey> {
        match meant {
            Meant::Member(peer) if *peer == self.own.peer => Some(*self.own.key.public()),
            Meant::Member(peer) => self.membership.terms(peer).map(|terms| terms.messaging_key),
            Meant::User(user, node) => self.users.get(user, *node).map(|entry| entry.record.key),
        }
    }
}
