//! Telling what happened: a line in the log, a counter, and whoever follows.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use libp2p_identity::PeerId;
use tokio::sync::broadcast;

use crate::{
    limits::LogLimit,
    metrics::Metrics,
    state::{io::Event, report::COPIED_HINT},
};

/// Events that a slow reader may be behind; then it loses the oldest.
const EVENTS: usize = 4096;

/// Where events are told. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    own: PeerId,
    metrics: Arc<Metrics>,
    began: Instant,
    /// The lines that others can provoke: one of a kind and origin in a minute.
    provoked: Arc<Mutex<LogLimit<Kind>>>,
    followers: broadcast::Sender<Arc<Event>>,
}

impl Events {
    pub(crate) fn new(own: PeerId) -> Self {
        Self {
            own,
            metrics: Arc::default(),
            began: Instant::now(),
            provoked: Arc::default(),
            followers: broadcast::channel(EVENTS).0,
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        if let Some(more) = self.admit(&event) {
            log(&event, (more > 0).then_some(more));
        }
        self.metrics.count(&event, &self.own);
        // Nobody may be following.
        drop(self.followers.send(Arc::new(event)));
    }

    /// Returns how many lines of the same kind were left out, if this one is to be written.
    fn admit(&self, event: &Event) -> Option<u64> {
        let Some(kind) = provoked(event) else {
            return Some(0);
        };
        let mut limit = self.provoked.lock().unwrap_or_else(PoisonError::into_inner);
        limit.admit(kind, self.began.elapsed())
    }

    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.followers.subscribe()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// What makes two lines the same for a reader: what they say, and of whom.
type Kind = (&'static str, &'static str, String);

/// Returns the kind of a line that can come many times in a moment.
fn provoked(event: &Event) -> Option<Kind> {
    let of = match event {
        Event::Refused { peer, what, why } => {
            let peer = peer.map(|peer| peer.to_string());
            return Some((what, why, peer.unwrap_or_default()));
        }
        Event::ClientKicked { address, why, .. } => {
            return Some((event.kind(), why, address.ip().to_string()));
        }
        Event::KeyChanged { name, .. }
        | Event::Copied { name, .. }
        | Event::KeyExchanged { name, .. }
        | Event::UserKeyChanged { name, .. } => name.clone(),
        Event::ClientKeyChanged { address, .. } => address.clone(),
        Event::NameConflict { name, .. } => name.to_string(),
        // A disk that fails does so for each record.
        Event::StoreFailed { .. } => String::new(),
        Event::PeerUp { .. }
        | Event::PeerDown { .. }
        | Event::MemberAdded { .. }
        | Event::MemberRenamed { .. }
        | Event::MemberRemoved { .. }
        | Event::MemberLeft { .. }
        | Event::Left { .. }
        | Event::MeshKeyReceived { .. }
        | Event::JoinTries { .. }
        | Event::JoinTried { .. }
        | Event::Joined { .. }
        | Event::Revoked
        | Event::CopyGone { .. }
        | Event::Received(_)
        | Event::Sent(_)
        | Event::Integers(_)
        | Event::Presence { .. }
        | Event::LetterWaits { .. }
        | Event::TellUser { .. }
        | Event::Letter(_)
        | Event::UserGone { .. }
        | Event::Counted { .. }
        | Event::ClockDoubted { .. }
        | Event::ClockBelieved
        | Event::DiskSpace { .. }
        | Event::ClientSignedIn { .. }
        | Event::ClientLeft { .. }
        | Event::Lagged { .. } => return None,
    };
    Some((event.kind(), "", of))
}

/// Writes the line that a person would want to read. Bodies of messages are never in it. `more` is
/// how many of its kind were left out since the last one.
fn log(event: &Event, more: Option<u64>) {
    match event {
        Event::PeerUp {
            name,
            address,
            transport,
            ..
        } => {
            tracing::info!(peer = %name, %address, ?transport, "peer up");
        }
        Event::PeerDown { name, reason, .. } => tracing::info!(peer = %name, %reason, "peer down"),
        Event::MemberAdded { name, index, .. } => {
            tracing::info!(member = %name, %index, "member added");
        }
        Event::MemberRenamed { was, name, .. } => {
            tracing::info!(member = %name, %was, "member renamed");
        }
        Event::MemberRemoved { name, .. } => tracing::info!(member = %name, "member removed"),
        Event::JoinTries { addresses, .. } => {
            tracing::info!(addresses = addresses.len(), "joining a mesh");
        }
        Event::JoinTried { address, reason } => {
            tracing::info!(%address, %reason, "the inviter was not reached here");
        }
        Event::MemberLeft { name, .. } => tracing::info!(member = %name, "member left"),
        Event::Left { mesh } => tracing::warn!(%mesh, "this node left its mesh"),
        Event::MeshKeyReceived { name, .. } => {
            tracing::warn!(from = %name, "this node holds the mesh key from here on: it can invite, rename and remove");
        }
        Event::Joined { name, .. } => tracing::info!(%name, "joined a mesh"),
        Event::Revoked => tracing::warn!("this node was removed from its mesh"),
        Event::Copied {
            name, own, told_by, ..
        } => {
            let told_by = told_by.as_deref().unwrap_or("this node");
            let hint = COPIED_HINT;
            if *own {
                tracing::error!(%name, %told_by, hint, "ANOTHER MACHINE RUNS WITH THE IDENTITY OF THIS NODE");
            } else {
                tracing::error!(%name, %told_by, hint, "TWO MACHINES RUN WITH THE IDENTITY OF ONE MEMBER");
            }
        }
        Event::CopyGone { name, .. } => {
            tracing::info!(%name, "two machines with one identity were not seen any more");
        }
        Event::Received(received) => {
            tracing::debug!(peer = %received.from, id = %received.id, "message received");
        }
        Event::Sent(sent) => {
            tracing::debug!(peer = %sent.to, id = %sent.id, outcome = ?sent.outcome, "message sent");
        }
        Event::Integers(integers) => {
            tracing::trace!(peer = %integers.name, count = integers.iids.len(), "integers");
        }
        Event::KeyChanged {
            name,
            pinned,
            shown,
            ..
        } => {
            tracing::warn!(peer = %name, %pinned, %shown, more, "the RSA key changed and is refused");
        }
        Event::ClientKeyChanged {
            address,
            pinned,
            shown,
        } => {
            tracing::warn!(%address, %pinned, %shown, more, "the P2SN key at an address changed and is refused");
        }
        Event::KeyExchanged { name, bits, .. } => {
            tracing::info!(peer = %name, bits, more, "P2SN keys exchanged");
        }
        Event::Presence { name, online } => tracing::debug!(user = %name, online, "presence"),
        Event::LetterWaits { .. } | Event::TellUser { .. } | Event::Lagged { .. } => {}
        Event::Letter(news) => {
            tracing::debug!(from = %news.from, to = %news.to, stage = ?news.stage, "letter");
        }
        Event::UserGone { user } => tracing::info!(%user, "user taken out"),
        Event::NameConflict { name, node, means } => tracing::warn!(
            %name, %node, %means, more,
            "another node has a user of a name that is in use; `pimesh who` shows both"
        ),
        Event::UserKeyChanged {
            name,
            pinned,
            shown,
        } => {
            tracing::warn!(user = %name, %pinned, %shown, more, "a user's key changed and is refused");
        }
        Event::Refused { peer, what, why } => {
            let peer = peer.map(|peer| peer.to_string());
            tracing::info!(
                peer = peer.as_deref().unwrap_or("-"),
                what,
                why,
                more,
                "refused"
            );
        }
        Event::Counted { what, times } => tracing::debug!(what, times, "counted"),
        Event::ClockDoubted { ahead_ms } => tracing::warn!(
            ahead_ms,
            "the clock leapt ahead; nothing is deleted by its date until something confirms it"
        ),
        Event::ClockBelieved => tracing::info!("the clock is believed again"),
        Event::StoreFailed { reason } => {
            tracing::error!(%reason, more, "could not write to disk");
        }
        Event::DiskSpace {
            is_low: true,
            free_bytes,
            reserve_bytes,
        } => {
            tracing::warn!(
                free_mib = free_bytes >> 20,
                reserve_mib = reserve_bytes >> 20,
                "the disk is nearly full: nothing is taken from others until there is room; \
                 `pimesh inbox delete` makes some"
            );
        }
        Event::DiskSpace { free_bytes, .. } => {
            tracing::info!(free_mib = free_bytes >> 20, "the disk has room again");
        }
        Event::ClientSignedIn {
            gateway,
            name,
            address,
            ..
        } => tracing::info!(gateway = gateway.name(), %name, %address, "client signed in"),
        Event::ClientLeft {
            gateway,
            name,
            reason,
            ..
        } => tracing::info!(gateway = gateway.name(), %name, reason, "client left"),
        Event::ClientKicked {
            gateway,
            name,
            address,
            why,
            ..
        } => {
            let name = name.as_deref().unwrap_or("-");
            tracing::info!(gateway = gateway.name(), %name, %address, why, more, "client kicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_writes_one_line_of_a_kind_in_a_minute() {
        let own = PeerId::random();
        let events = Events::new(own);
        let refused = |peer, why| Event::Refused {
            peer: Some(peer),
            what: "integer",
            why,
        };
        let (one, other) = (PeerId::random(), PeerId::random());

        assert_eq!(events.admit(&refused(one, "malformed")), Some(0));
        assert_eq!(events.admit(&refused(one, "malformed")), None);
        assert_eq!(events.admit(&refused(one, "too_old")), Some(0));
        assert_eq!(events.admit(&refused(other, "malformed")), Some(0));
        let full = |free: u8| Event::StoreFailed {
            reason: format!("{free} KiB are left"),
        };
        assert_eq!(events.admit(&full(9)), Some(0));
        assert_eq!(
            events.admit(&full(8)),
            None,
            "one line for a disk that fails"
        );
        assert_eq!(events.admit(&Event::Revoked), Some(0));
        assert_eq!(events.admit(&Event::Revoked), Some(0), "nobody provokes it");
    }
}
