//! Who can be written to, as one list: nodes, users of their gateways, users of foreign servers, and
//! old clients of this node. And the owner's word on whom a name or a key belongs to.

use libp2p_identity::PeerId;

use super::{
    State,
    changes::Change,
    io::{Endpoint, Failure, Gateway, Party, Place, Record, Reply, RequestId},
    names::check_length,
    report::{PeerState, Trusted, Who},
    users::Entry,
};
use crate::{proto::syft::UserId, state::io::Now};

impl State {
    /// Returns everybody whom `pimesh send` can write to, and this node itself.
    pub(super) fn report_who(&self, now: Now) -> Vec<Who> {
        let nodes = self.report_peers(now).into_iter().map(|peer| {
            let meant = Endpoint::Node(peer.peer_id);
            let user = peer
                .name
                .parse()
                .ok()
                .and_then(|name| self.holder(&name).zip(Some(name)));
            let user = user.map(|(node, name)| self.full_name(&name, node));
            Who {
                name: match &user {
                    Some(_) => format!("{0}@{0}", peer.name),
                    None => peer.name.clone(),
                },
                node: peer.name,
                gateway: None,
                server: None,
                present: Some(matches!(peer.state, PeerState::Own | PeerState::Up)),
                since_ms: peer.since_ms,
                sealed: true,
                key: self.key_of(&meant).map(|key| key.to_base64()),
                offered_key: peer.rsa_changed,
                has_short_name: user.is_none(),
                short_name_means: user,
                waiting: peer.outbox_count,
            }
        });
        let users = self.users.all().filter_map(|entry| self.report_user(entry));
        let clients = self.report_keys().into_iter().filter(|key| !key.refused);
        let own = self.name_of_any(&self.own.peer);
        let clients = clients.filter_map(|key| {
            Some(Who {
                name: key.name?,
                node: own.clone(),
                gateway: Some(Gateway::P2sn.name().to_owned()),
                server: None,
                present: None,
                since_ms: None,
                sealed: false,
                key: Some(key.fingerprint),
                offered_key: None,
                has_short_name: true,
                short_name_means: None,
                waiting: key.waiting,
            })
        });
        let elsewhere = self.users.clients();
        let elsewhere = elsewhere.filter(|(node, _)| self.is_gateway_here(node));
        let elsewhere = elsewhere.map(|(node, client)| Who {
            name: self.full_name_of(&Endpoint::Client(client.clone(), node)),
            node: self.name_of_any(&node),
            gateway: Some(client.gateway().to_owned()),
            server: None,
            present: None,
            since_ms: None,
            sealed: false,
            key: None,
            offered_key: None,
            has_short_name: false,
            short_name_means: None,
            waiting: 0,
        });
        nodes.chain(users).chain(clients).chain(elsewhere).collect()
    }

    fn report_user(&self, entry: &Entry) -> Option<Who> {
        let record = &entry.record;
        let endpoint = Endpoint::User(record.id.clone(), record.place);
        let (server, here) = match record.place {
            Place::Server(server) => (Some(self.server_name(server)?.to_string()), self.own.peer),
            Place::Node(node) if self.is_gateway_here(&node) => (None, node),
            Place::Node(_) => return None,
        };
        let is_own = record.place == self.own.peer;
        let node_of_name = self.members_named(record.id.as_str()).first().copied();
        let short_name_means = match (&server, self.meant(&record.id)) {
            (Some(_), _) => None,
            (None, Some(other)) if other != endpoint => Some(self.full_name_of(&other)),
            // `pimesh send` asks which of the two is meant.
            (None, _) => node_of_name.map(|node| self.name_of_any(&node)),
        };
        let known_as = self.known_as(&record.id, record.place);
        let has_short_name =
            server.is_some() || (known_as == record.id && short_name_means.is_none());
        Some(Who {
            name: match &server {
                Some(server) => format!("{}@{server}", record.id),
                None if node_of_name.is_some() => self.full_name(&record.id, record.place),
                None => known_as.to_string(),
            },
            node: self.name_of_any(&here),
            gateway: Some(Gateway::Syft.name().to_owned()),
            // A server does not say who is there.
            present: server.is_none().then_some(entry.clients > 0),
            since_ms: entry.since_ms,
            sealed: true,
            key: Some(record.key.to_base64()),
            offered_key: record.shown.map(|key| key.to_base64()),
            has_short_name,
            short_name_means,
            waiting: self.letters.count_for(&record.id, is_own),
            server,
        })
    }

    /// Accepts the key that was offered for a member or a user in the place of the pinned one.
    pub(super) fn trust_key(&mut self, request: RequestId, text: &str) {
        match self.recipient(text) {
            Ok(Endpoint::Node(peer)) => self.trust_member(request, peer),
            Ok(Endpoint::User(user, node)) => self.trust_user(request, &user, node),
            Ok(Endpoint::Client(client, _)) => {
                let text =
                    format!("`{client}` is a client of a gateway, and no key of it is kept here");
                let hint =
                    "`pimesh p2sn trust ADDRESS` accepts the key of a P2SN client of this node";
                self.effects
                    .fail(request, Failure::conflict(text).with_hint(hint));
            }
            Err(failure) => self.effects.fail(request, failure),
        }
    }

    fn trust_user(&mut self, request: RequestId, user: &UserId, place: Place) {
        let Some(entry) = self.users.get(user, place) else {
            let text = format!("no key is known for `{}`", self.full_name(user, place));
            return self.effects.fail(request, Failure::not_found(text));
        };
        let before = entry.record.clone();
        let mut after = before.clone();
        if let Some(key) = after.shown.take() {
            after.key = key;
        }
        let reply = Reply::Trusted(Trusted {
            name: self.known_as(user, place).to_string(),
            peer_id: place.into(),
            fingerprint: Some(after.key.to_base64()),
        });
        self.change_user(Some((request, reply)), before, after);
    }

    /// Has a bare name mean this user from now on, as the owner of this node says.
    pub(super) fn trust_name(&mut self, request: RequestId, text: &str) {
        match self.check_trust_name(text) {
            Ok((user, node)) => {
                let changed = self.users.named(&user).filter_map(|entry| {
                    let mut after = entry.record.clone();
                    after.holds_name = entry.record.place == node;
                    (after != entry.record).then(|| (entry.record.clone(), after))
                });
                let changed: Vec<_> = changed.collect();
                let records = changed
                    .iter()
                    .map(|(_, after)| Record::User(Box::new(after.clone())))
                    .collect();
                let trusted = Reply::Trusted(Trusted {
                    name: self.full_name(&user, node),
                    peer_id: Party::Member(node),
                    fingerprint: self
                        .key_of(&Endpoint::user(user, node))
                        .map(|key| key.to_base64()),
                });
                self.change(Some((request, trusted)), records, Change::Name(changed));
            }
            Err(failure) => self.effects.fail(request, failure),
        }
    }

    /// Takes a name from all others who got it while the owner's word was on its way to the disk.
    pub(super) fn only_holder(&mut self, name: &UserId, node: PeerId) {
        let others = self.users.named(name).map(|entry| &entry.record);
        let others = others.filter(|other| other.holds_name && other.place != node);
        let others: Vec<Place> = others.map(|other| other.place).collect();
        for other in others {
            if let Some(entry) = self.users.get_mut(name, other) {
                entry.record.holds_name = false;
                let record = Record::User(Box::new(entry.record.clone()));
                self.effects.store(vec![record], None);
            }
        }
    }

    fn check_trust_name(&self, text: &str) -> Result<(UserId, PeerId), Failure> {
        check_length(text)?;
        if self.meant_at_server(text).is_some() {
            let text = format!("`{text}` is a user of a server, and has no shorter name");
            return Err(Failure::conflict(text));
        }
        let name = text.parse::<UserId>().ok();
        let meant = name.as_ref().and_then(|name| self.meant(name));
        let Some(Endpoint::User(user, Place::Node(node))) = meant else {
            let hint = "`pimesh who` lists everybody; name a user as USER@NODE";
            return Err(Failure::not_found(format!("there is no user `{text}`")).with_hint(hint));
        };
        if node != self.own.peer && self.users.get(&user, self.own.peer).is_some() {
            let text = format!("`{user}` is a user of this node's gateway and keeps the name here");
            return Err(Failure::conflict(text).with_hint(format!(
                "take him out first: `pimesh gateway syft forget {user}`"
            )));
        }
        if let Some(member) = self.members_named(user.as_str()).first() {
            let text = format!("`{user}` is the node {}", self.name_of_any(member));
            return Err(
                Failure::conflict(text).with_hint("`pimesh rename` gives the node another name")
            );
        }
        let behind = user.split().map(|(_, behind)| behind);
        if let Some(other) = behind.filter(|other| self.is_node_or_server(other)) {
            let text = format!("`{user}` looks like a user of `{other}`, and has no shorter name");
            return Err(Failure::conflict(text));
        }
        Ok((user, node))
    }
}
