//! How it stands with each member, as `pimesh peers` shows it.

use super::Reach;
use crate::state::{State, io::Now, links::Link, micros, millis, report};

impl State {
    pub(in crate::state) fn report_peers(&self, now: Now) -> Vec<report::Peer> {
        let own = self.membership.own_terms();
        let holders = self.membership.holders();
        let mut peers = vec![report::Peer {
            name: own.name.to_string(),
            peer_id: self.own.peer,
            index: own.index,
            further: self.membership.further_of(&own.peer),
            vouched: own.vouched,
            holds_mesh_key: holders.contains(&own.peer),
            state: report::PeerState::Own,
            address: None,
            transport: None,
            direction: None,
            round_trip_us: None,
            clock_offset_us: None,
            since_ms: None,
            next_dial_ms: None,
            attempts: 0,
            last_error: None,
            addresses: self.own.addresses(),
            outbox_count: 0,
            rsa_fingerprint: self.keys.own_fingerprint().map(|f| f.to_string()),
            rsa_changed: None,
            certificate_expires_ms: own.expires_ms,
            copied: self.copies.is_copied(&self.own.peer),
        }];
        let members = self.membership.members();
        peers.extend(members.map(|(peer, terms)| {
            let link = self.links.open_link(&peer);
            let entry = self.peers.peers.get(&peer);
            let state = match entry.map(|e| e.reach) {
                _ if link.is_some() => report::PeerState::Up,
                Some(Reach::Trying(_)) => report::PeerState::Connecting,
                _ => report::PeerState::Down,
            };
            report::Peer {
                name: terms.name.to_string(),
                peer_id: peer,
                index: terms.index,
                further: self.membership.further_of(&peer),
                vouched: terms.vouched,
                holds_mesh_key: holders.contains(&peer),
                state,
                address: link.map(|l| l.address().clone()),
                transport: link.map(Link::transport),
                direction: link.map(Link::direction),
                round_trip_us: link.and_then(|l| l.last_round_trip()).map(micros),
                clock_offset_us: self.sync.offset_us(&peer),
                since_ms: link.map(Link::opened_ms).or_else(|| entry?.changed_ms),
                next_dial_ms: entry.filter(|e| !e.addresses.is_empty()).and_then(|e| {
                    match e.reach {
                        Reach::Due(at) => Some(millis(at.saturating_sub(now.mono))),
                        Reach::Trying(_) | Reach::Up => None,
                    }
                }),
                attempts: entry.map_or(0, |e| e.attempts),
                last_error: entry.and_then(|e| e.last_error.clone()),
                addresses: self.peers.addresses(&peer),
                outbox_count: self.messages.count_for(&peer),
                rsa_fingerprint: self.keys.pinned(&peer).map(|f| f.to_string()),
                rsa_changed: self.keys.changed(&peer).map(|f| f.to_string()),
                certificate_expires_ms: terms.expires_ms,
                copied: self.copies.is_copied(&peer),
            }
        }));
        peers
    }
}
