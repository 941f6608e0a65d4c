//! The node at a glance, as `pimesh status` shows it.

use super::{CLOCK_SET_MS, State, io::Now, millis, report::Status};

impl State {
    pub(super) fn status(&self, now: Now) -> Status {
        let terms = self.membership.own_terms();
        Status {
            name: terms.name.to_string(),
            peer_id: self.own.peer,
            mesh: self.membership.mesh().to_string(),
            index: terms.index,
            further: self.membership.further_of(&terms.peer),
            mesh_key_holders: self.holder_names(),
            mesh_key_exported: self.membership.is_exported(),
            mesh_key_warning: self.mesh_key_warning(),
            may_invite: self.membership.may_invite() && !self.membership.is_revoked(),
            revoked: self.membership.is_revoked(),
            messaging_key: self.own.key.public().to_base64(),
            rsa_fingerprint: self.keys.own_fingerprint().map(|f| f.to_string()),
            certificate_expires_ms: terms.expires_ms,
            addresses: self.own.addresses(),
            members: self.membership.members().count() + 1,
            connected: self.links.open_peers().count(),
            invites: self.membership.open_invites(now),
            outbox_count: self.messages.count() + self.clients.count(),
            outbox_bytes: self.messages.bytes(),
            received: self.messages.received(),
            integers_received: self.integers.received(),
            integers_sent: self.integers.sent(),
            uptime_ms: millis(now.mono.saturating_sub(self.started.mono)),
            clock_set: now.unix_ms() >= CLOCK_SET_MS,
            clock_doubted: self.calendar.is_doubted(),
            clock_spread_us: self.sync.spread_us(self.links.open_peers()),
            copied: self.copied_names(),
            own_copied: self.copies.is_copied(&self.own.peer),
        }
    }
}
