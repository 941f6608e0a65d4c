//! Whom a name means, and what somebody is called.
//!
//! Members and users share one name space (`proto-specs/syft.md`, section 14). A bare name means
//! whom this node heard of first under it, and at a gateway always its own user; everybody else of
//! that name is `user@node`, until the owner of this node says otherwise (`pimesh trust --name`).
//! Nothing that a claimant writes decides.

use libp2p_identity::PeerId;

use super::{
    State,
    io::{Endpoint, Failure, Party, Place, ServerId},
    users::Entry,
};
use crate::proto::{
    mesh::{ClientName, NodeName, certificate::Terms, parse_peer},
    syft::{PublicKey, UserId},
};

/// Longest text that may name somebody, in bytes: a user, `@`, and a node.
const NAMED_BYTES_MAX: usize = 320;

/// Where to look for a member's name.
const MEMBERS_HINT: &str = "`pimesh peers` lists the members";

/// Refuses a text that is too long to name somebody.
pub(super) fn check_length(text: &str) -> Result<(), Failure> {
    let length = text.len();
    if length <= NAMED_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "a name or peer id has at most {NAMED_BYTES_MAX} bytes, not {length}"
    ))
    .with_hint("`pimesh who` lists everybody"))
}

impl State {
    /// Finds a member by name or peer id.
    pub(super) fn resolve(&self, text: &str) -> Result<PeerId, Failure> {
        check_length(text)?;
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
            _ => failure.with_hint(MEMBERS_HINT),
        })
    }

    /// Finds a member by name or peer id, a user, or a user of a foreign server.
    pub(super) fn recipient(&self, text: &str) -> Result<Endpoint, Failure> {
        // The owner of this node named the server, and nobody else can.
        if let Some(endpoint) = self
            .meant_at_server(text)
            .or_else(|| self.client_called(text))
        {
            return Ok(endpoint);
        }
        let name = text.parse::<UserId>().ok();
        let meant = name.as_ref().and_then(|name| self.meant(name));
        match (self.resolve(text), meant) {
            (Ok(_), Some(Endpoint::User(user, node))) if parse_peer(text).is_none() => {
                let (user, node) = (self.full_name(&user, node), format!("{text}@{text}"));
                Err(
                    Failure::conflict(format!("`{text}` is a node and also a user")).with_hint(
                        format!("`{node}` is the node, `{user}` the user; name one of them"),
                    ),
                )
            }
            (Ok(peer), _) => Ok(Endpoint::Node(peer)),
            (Err(failure), Some(Endpoint::Node(peer))) if peer == self.own.peer => Err(failure),
            (Err(_), Some(meant)) => Ok(meant),
            (Err(failure), None) => Err(name.map_or(failure, |name| self.not_meant(&name))),
        }
    }

    /// Finds a client that has no key: of this node by its name or, if there is one alone, its address;
    /// of any node as `client@node`.
    fn client_called(&self, text: &str) -> Option<Endpoint> {
        if let Some(client) = self.clients.find_name(text) {
            return Some(Endpoint::Client(client, self.own.peer));
        }
        let (client, node) = text.rsplit_once('@')?;
        let client = ClientName::new(client)?;
        let own_user = text
            .parse()
            .is_ok_and(|id| self.users.get(&id, self.own.peer).is_some());
        if own_user {
            return None;
        }
        let has = |node: &PeerId| {
            self.users.has_client(node, &client)
                || (*node == self.own.peer && self.clients.has(&client))
        };
        let node = self.nodes_called(node).into_iter().find(has)?;
        Some(Endpoint::Client(client, node))
    }

    /// Says why a name means nobody.
    pub(super) fn not_meant(&self, name: &UserId) -> Failure {
        let claimants = self.claimants(name, None);
        let claimants: Vec<String> = claimants
            .iter()
            .map(|node| format!("`{}`", self.full_name(name, *node)))
            .collect();
        if claimants.is_empty() {
            return match (name.split(), self.resolve(name.as_str())) {
                (None, Err(no_member)) if no_member.hint.as_deref() == Some(MEMBERS_HINT) => {
                    no_member.with_hint("`pimesh who` lists everybody")
                }
                (None, Err(no_member)) => no_member,
                _ => Failure::not_found(format!("there is no user `{name}`"))
                    .with_hint("`pimesh who` lists everybody"),
            };
        }
        let claimants = claimants.join(" and ");
        let text = match self.holder_gone(name) {
            Some(gone) => format!(
                "`{name}` meant `{}`, whose node is no member any more; {claimants} has the same \
                 name",
                self.full_name(name, gone)
            ),
            None => format!("`{name}` may be {claimants}"),
        };
        Failure::conflict(text).with_hint(
            "write the full name, or say for good whom the short one means: \
             `pimesh trust --name USER@NODE`",
        )
    }

    /// Finds whom a name means, in the whole mesh.
    pub(super) fn meant(&self, name: &UserId) -> Option<Endpoint> {
        if self.meant_at_server(name.as_str()).is_some() {
            return None;
        }
        let own = self.own.peer;
        let is_by_peer_id = name
            .split()
            .is_some_and(|(_, node)| parse_peer(node).is_some());
        if self.users.get(name, own).is_some() && !is_by_peer_id {
            return Some(Endpoint::user(name.clone(), own));
        }
        // A full name never means anybody else, also while its node has no such user.
        if let Some((_, node)) = name.split()
            && !self.nodes_called(node).is_empty()
        {
            return self.meant_in_full(name);
        }
        let member = || self.members_named(name.as_str()).first().copied();
        self.holder(name)
            .map(|node| Endpoint::user(name.clone(), node))
            .or_else(|| member().map(Endpoint::Node))
    }

    /// Finds whom `user@node` means: with `node@node` the node, else the user of that node.
    fn meant_in_full(&self, name: &UserId) -> Option<Endpoint> {
        let (user, node) = name.split()?;
        self.nodes_called(node).into_iter().find_map(|member| {
            if user.as_str() == node {
                return Some(Endpoint::Node(member));
            }
            let is_known = self.users.get(&user, member).is_some();
            is_known.then(|| Endpoint::user(user.clone(), member))
        })
    }

    /// Returns the nodes with this name or peer id, this one included.
    fn nodes_called(&self, text: &str) -> Vec<PeerId> {
        match parse_peer(text) {
            Some(peer) => Some(peer)
                .filter(|peer| self.is_gateway_here(peer))
                .into_iter()
                .collect(),
            None => self.members_named(text),
        }
    }

    /// Finds the node whose user a bare name means.
    pub(super) fn holder(&self, name: &UserId) -> Option<PeerId> {
        let here = self.own.peer;
        if self.users.get(name, here).is_some() {
            return Some(here);
        }
        let mut named = self.users.named(name);
        let holder = |entry: &Entry| {
            let node = entry.record.place.node()?;
            (entry.record.holds_name && self.is_gateway_here(&node)).then_some(node)
        };
        named.find_map(holder)
    }

    /// Finds the former member whose user a bare name means. The name stays reserved, so that old senders
    /// do not reach somebody else.
    pub(super) fn holder_gone(&self, name: &UserId) -> Option<PeerId> {
        let holder = self
            .users
            .named(name)
            .find(|entry| entry.record.holds_name)?;
        let node = holder.record.place.node()?;
        (!self.is_gateway_here(&node)).then_some(node)
    }

    /// Returns true if a user that this node hears of may have a bare name: no node, user or server has
    /// or had it, and it does not look like `user@node` or a peer id.
    pub(super) fn is_name_free(&self, name: &UserId) -> bool {
        let behind = name.split().map(|(_, behind)| behind);
        let of_node = |name: &str| {
            parse_peer(name).is_some()
                || !self.members_named(name).is_empty()
                || self.names.anybody_had(name)
        };
        let mut named = self.users.named(name);
        !of_node(name.as_str())
            && !behind.is_some_and(|behind| of_node(behind) || self.is_server_name(behind))
            && named.all(|entry| entry.record.place.is_server())
    }

    /// Says whether a node or a foreign server has this name.
    pub(super) fn is_node_or_server(&self, name: &str) -> bool {
        !self.nodes_called(name).is_empty() || self.is_server_name(name)
    }

    /// Says whether a foreign server is called so, or was while keys of its users are still pinned.
    fn is_server_name(&self, name: &str) -> bool {
        let server = name.parse().ok().map(|name| ServerId::of(&name));
        let has_pins = server.is_some_and(|server| self.users.is_gateway(Place::Server(server)));
        has_pins || self.settings.servers.iter().any(|s| s.as_str() == name)
    }

    /// Returns true if a node of this name could be confused with a user of any node, with the part
    /// behind the `@` of a user's id, or with a foreign server.
    pub(super) fn is_name_in_use(&self, name: &NodeName) -> bool {
        let end = format!("@{name}");
        let mut users = self.users.all().map(|entry| &entry.record);
        self.is_server_name(name.as_str())
            || users.any(|user| {
                let id = user.id.as_str();
                !user.place.is_server() && (id == name.as_str() || id.ends_with(&end))
            })
    }

    /// Returns the nodes that have a user of this name, but one.
    pub(super) fn claimants(&self, name: &UserId, but: Option<PeerId>) -> Vec<PeerId> {
        let named = self.users.named(name);
        named
            .filter_map(|entry| entry.record.place.node())
            .filter(|node| Some(*node) != but && self.is_gateway_here(node))
            .collect()
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

    /// Returns the shortest name that means a user: `user`, `user@node`, or with the node's peer id; of a
    /// foreign server's user `user@server`.
    pub(super) fn known_as(&self, user: &UserId, place: impl Into<Place>) -> UserId {
        let place = place.into();
        let full = || user.at(&self.place_name(&place)).ok();
        let Place::Node(node) = place else {
            return full().unwrap_or_else(|| user.clone());
        };
        let it = Some(Endpoint::user(user.clone(), node));
        if self.meant(user) == it {
            return user.clone();
        }
        full()
            .filter(|name| self.meant(name) == it)
            .or_else(|| user.at(&node.to_string()).ok())
            .unwrap_or_else(|| user.clone())
    }

    /// Returns the name of a node, or `user@node`.
    pub(super) fn full_name_of(&self, endpoint: &Endpoint) -> String {
        match endpoint {
            Endpoint::Node(peer) => self.name_of_any(peer),
            Endpoint::User(user, place) => self.full_name(user, *place),
            Endpoint::Client(client, node) => format!("{client}@{}", self.name_of_any(node)),
        }
    }

    /// Returns `user@node`, or `user@server`.
    pub(super) fn full_name(&self, user: &UserId, place: impl Into<Place>) -> String {
        format!("{user}@{}", self.place_name(&place.into()))
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
            Party::Server(server) => self.place_name(&Place::Server(*server)),
            Party::Client(name) => name.to_string(),
        }
    }

    /// Returns what stands behind the `@` in the names of the users of a place.
    pub(super) fn place_name(&self, place: &Place) -> String {
        match place {
            Place::Node(node) => self.name_of_any(node),
            Place::Server(server) => match self.server_name(*server) {
                Some(name) => name.to_string(),
                None => server.to_string(),
            },
        }
    }

    pub(super) fn is_gateway_here(&self, node: &PeerId) -> bool {
        *node == self.own.peer || self.membership.is_known(node)
    }

    /// Returns the key of a member or user.
    pub(super) fn key_of(&self, meant: &Endpoint) -> Option<PublicKey> {
        match meant {
            Endpoint::Node(peer) if *peer == self.own.peer => Some(*self.own.key.public()),
            Endpoint::Node(peer) => self.membership.terms(peer).map(|terms| terms.messaging_key),
            Endpoint::User(user, place) => {
                self.users.get(user, *place).map(|entry| entry.record.key)
            }
            Endpoint::Client(..) => None,
        }
    }
}
