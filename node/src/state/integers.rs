//! Integers: who may speak for an index, how much, and the last value of each.
//!
//! Specified in `proto-specs/iid.md`, section 9. Integers are live: they are neither stored nor
//! sent again. A message that is refused costs its author in gossipsub's scores only if it says
//! what its author may not say; one that is merely late, repeated or too much is passed over.

mod budget;
mod hearing;
mod last;

use std::{collections::BTreeSet, ops::RangeInclusive};

use libp2p_identity::PeerId;

use self::{budget::Budgets, last::LastValues};
use super::{
    State,
    io::{At, ClientId, Event, Failure, NetOutput, Now, Reply, RequestId},
    millis, report,
};
use crate::proto::{
    iid::{
        Date, Iid, Index, Value,
        native::{Entry, FRAME_IIDS_MAX, Frame, Head, Sequence, TTL_MS_MAX, Ttl},
        receiver::{Receiver, WINDOW_SEQUENCES},
    },
    mesh::{sync::LastInteger, vouched::Vouched},
};

/// Most values of one command: what one gossip message carries.
pub const VALUES_MAX: usize = 60 * FRAME_IIDS_MAX;

/// Latest time for which an integer may be meant: the longest time to live, less the usual one.
const AT_AHEAD_MAX_MS: u64 = TTL_MS_MAX as u64 - 10_000;

/// The last integer of an index.
#[derive(Clone, Debug)]
struct Last {
    integer: LastInteger,
    /// Its frame's place in the sender's numbering, unless it was handed over.
    sequence: Option<u64>,
    bridged: bool,
}

impl Last {
    /// Says whether a live integer of the same sender was sent before this one, and was overtaken.
    fn overtook(&self, live: &Self) -> bool {
        if self.integer.source != live.integer.source {
            return false;
        }
        // A sender whose clock went back numbers and dates anew from far below; that is no delay.
        let (behind, most) = match (self.sequence, live.sequence) {
            (Some(known), Some(live)) => (known.saturating_sub(live), WINDOW_SEQUENCES),
            _ => (
                self.integer.sent_ms.saturating_sub(live.integer.sent_ms),
                u64::from(Ttl::DEFAULT.as_ms()),
            ),
        };
        (1..most).contains(&behind)
    }
}

/// Integers for the listeners of this node.
struct Heard {
    source: PeerId,
    sent_ms: u64,
    held: bool,
    bridged: bool,
    client: Option<ClientId>,
    last_known: bool,
    iids: Vec<Iid>,
}

/// What is known of integers.
pub(super) struct Integers {
    receiver: Receiver,
    /// What came on the lines, whether it was news or not.
    lines: Receiver,
    next_sequence: u64,
    last: LastValues,
    /// Indices that clients of this node's gateways may speak for.
    of_clients: BTreeSet<Index>,
    budgets: Budgets,
    received: u64,
    sent: u64,
}

impl Integers {
    pub(super) fn new(now: Now) -> Self {
        Self {
            receiver: Receiver::new(),
            lines: Receiver::new(),
            // A restart never goes back, and no node sends a frame each microsecond.
            next_sequence: now.unix_us,
            last: LastValues::default(),
            of_clients: BTreeSet::new(),
            budgets: Budgets::default(),
            received: 0,
            sent: 0,
        }
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn set_client_indices(&mut self, indices: BTreeSet<Index>) {
        self.of_clients = indices;
    }

    /// Says whether clients of a gateway are known to speak for an index: of this node's gateways, or
    /// of another one that was heard.
    pub(super) fn is_of_clients(&self, index: Index) -> bool {
        self.of_clients.contains(&index) || self.last.get(index).is_some_and(|last| last.bridged)
    }

    /// Returns the first index of a range for which clients of a gateway are known to speak.
    pub(super) fn first_of_clients(&self, range: RangeInclusive<i32>) -> Option<Index> {
        let wanted = Index(*range.start())..=Index(*range.end());
        let allowed = self.of_clients.range(wanted).next().copied();
        let heard = self.last.values().filter(|last| last.bridged);
        let heard = heard.map(|last| last.integer.iid.index);
        let heard = heard.filter(|index| range.contains(&index.0)).min();
        allowed.into_iter().chain(heard).min()
    }

    /// Returns the last integer of each index that came from a source.
    pub(super) fn last_values_of(&self, source: &PeerId) -> Vec<LastInteger> {
        let all = self.last.values().map(|last| &last.integer);
        all.filter(|last| last.source == *source).cloned().collect()
    }

    /// Forgets what was heard in a mesh that was left.
    pub(super) fn leave_mesh(&mut self) {
        let Self {
            last,
            budgets,
            // What a peer sent before is not taken again, whichever mesh it was in.
            receiver: _,
            lines: _,
            // This node numbers on, and counts since its start.
            next_sequence: _,
            received: _,
            sent: _,
            // What this node's own gateways let in.
            of_clients: _,
        } = self;
        *last = LastValues::default();
        *budgets = Budgets::default();
    }

    /// Remembers the last integer of each index in a frame.
    fn remember(&mut self, source: PeerId, head: &Head, iids: &[Iid]) {
        // Of those in a row with one index, only the last can be it.
        for run in iids.chunk_by(|one, next| one.index == next.index) {
            let Some(&iid) = run.last() else { continue };
            let integer = LastInteger {
                iid,
                source,
                sent_ms: head.sent_ms,
            };
            let last = Last {
                integer,
                sequence: Some(head.sequence.0),
                bridged: head.entry == Entry::Bridged,
            };
            let known = self.last.get(iid.index);
            if known.is_none_or(|known| !known.overtook(&last)) {
                self.last.keep(last);
            }
        }
    }
}

impl State {
    pub(super) fn publish(
        &mut self,
        request: RequestId,
        index: Option<Index>,
        values: &[Value],
        at: Option<At>,
        now: Now,
    ) {
        let index = index.unwrap_or(self.membership.own_terms().index);
        match self.check_publish(index, values, at, now) {
            Ok((date, entry)) => {
                let held = at.is_some();
                let iids: Vec<Iid> = values
                    .iter()
                    .map(|&value| Iid { index, value, date })
                    .collect();
                let count = iids.len();
                self.send_iids(&iids, entry, held, now);
                self.hear_own(iids, entry, held, None, now);
                let connected = self.links.open_peers().count();
                let published = report::Published {
                    index,
                    count,
                    connected,
                    date,
                };
                self.effects.reply(request, Reply::Published(published));
            }
            Err(failure) => self.effects.fail(request, failure),
        }
    }

    fn check_publish(
        &mut self,
        index: Index,
        values: &[Value],
        at: Option<At>,
        now: Now,
    ) -> Result<(Date, Entry), Failure> {
        self.check_count(values.len())?;
        let entry = self.entry_of(index)?;
        let date = match at {
            None => now.unix_ms(),
            Some(At::InMs(ms)) => now.unix_ms().saturating_add(ms),
            Some(At::UnixMs(ms)) => ms,
        };
        if date > now.unix_ms() + AT_AHEAD_MAX_MS {
            return Err(Failure::bad_request(
                "an integer may be meant for 590 s from now at most",
            ));
        }
        let budgets = &mut self.integers.budgets;
        budgets.spend_own(values.len(), &self.settings, now.mono)?;
        Ok((Date(date), entry))
    }

    /// Returns as what this node speaks for an index: as its owner, or as a gateway.
    fn entry_of(&self, index: Index) -> Result<Entry, Failure> {
        let may_speak = |bridged| self.membership.may_speak(&self.own.peer, index, bridged);
        if may_speak(false) {
            return Ok(Entry::Native);
        }
        if may_speak(true) {
            return Ok(Entry::Bridged);
        }
        let own = self.membership.own_terms();
        let further = self.membership.further_of(&own.peer);
        let owned = if further.is_empty() {
            format!("index {}", own.index)
        } else {
            format!("the indices {},{further}", own.index)
        };
        let for_clients = match own.vouched {
            Vouched::NONE => "for no other".to_owned(),
            Vouched::ALL => "as a gateway for every index that no member owns".to_owned(),
            range => format!("as a gateway for those of {range} that no member owns"),
        };
        let hint = format!("this node owns {owned}, and speaks {for_clients}");
        let owner = self.membership.owner(index);
        let text = match owner.filter(|owner| owner.peer != own.peer) {
            Some(owner) => format!("index {index} is that of `{}`", owner.name),
            None => format!("index {index} is not this node's"),
        };
        Err(Failure::conflict(text).with_hint(hint))
    }

    fn check_count(&self, count: usize) -> Result<(), Failure> {
        if self.membership.is_revoked() {
            return Err(Failure::conflict("this node was removed from its mesh"));
        }
        if count == 0 || count > VALUES_MAX {
            return Err(Failure::bad_request(format!(
                "between 1 and {VALUES_MAX} integers go at once, got {count}"
            )));
        }
        Ok(())
    }

    /// Publishes what a client said at a gateway of this node: all of it or nothing.
    pub(super) fn bridge(
        &mut self,
        request: RequestId,
        client: Option<ClientId>,
        iids: Vec<Iid>,
        now: Now,
    ) {
        match self.check_bridged(&iids) {
            Ok(()) => {
                let published = iids.len();
                // What the other nodes would refuse is not sent; the clients here hear it all the
                // same. The rest of the budget is this node's own.
                let budgets = &mut self.integers.budgets;
                if budgets.spend_bridged(published, &self.settings, now.mono) {
                    self.send_iids(&iids, Entry::Bridged, false, now);
                } else {
                    let dropped = u64::try_from(published).unwrap_or(u64::MAX);
                    self.effects.count("bridged_over_budget", dropped);
                }
                self.hear_own(iids, Entry::Bridged, false, client, now);
                self.effects.reply(request, Reply::Bridged { published });
            }
            Err(failure) => self.effects.fail(request, failure),
        }
    }

    fn check_bridged(&self, iids: &[Iid]) -> Result<(), Failure> {
        self.check_count(iids.len())?;
        let refused = |iid: &&Iid| !self.membership.may_speak(&self.own.peer, iid.index, true);
        let Some(Iid { index, .. }) = iids.iter().find(refused) else {
            return Ok(());
        };
        let own = self.membership.own_terms();
        let owner = self.membership.owner(*index);
        Err(match owner.filter(|owner| owner.peer != own.peer) {
            Some(owner) => Failure::conflict(format!("index {index} is that of `{}`", owner.name))
                .with_hint("no gateway speaks for a member; give the client another index"),
            None => Failure::conflict(format!("this node does not vouch for index {index}"))
                .with_hint(format!(
                    "`pimesh peers vouch {} all`, at a node that holds the mesh key, lets it",
                    own.name
                )),
        })
    }

    /// Sends integers of this node to the others.
    fn send_iids(&mut self, iids: &[Iid], entry: Entry, held: bool, now: Now) {
        let ttl_ms = u32::try_from(millis(self.settings.integer_ttl)).unwrap_or(TTL_MS_MAX);
        let usual = Ttl::from_ms(ttl_ms).unwrap_or(Ttl::DEFAULT);
        let needs_relay = self
            .membership
            .members()
            .any(|(member, _)| !self.links.is_open(&member));
        for chunk in iids.chunks(FRAME_IIDS_MAX) {
            let head = Head {
                entry,
                held,
                ttl: if held {
                    Ttl::of_held(chunk, now.unix_ms())
                } else {
                    usual
                },
                sequence: Sequence(self.integers.next_sequence),
                sent_ms: now.unix_ms(),
            };
            self.integers.next_sequence += 1;
            self.integers.remember(self.own.peer, &head, chunk);
            if let Ok(frame) = Frame::new(head, chunk.to_vec()) {
                let frame = frame.encode();
                self.effects.net(NetOutput::Publish { frame, needs_relay });
            }
        }
        self.integers.sent += iids.len() as u64;
    }

    /// Hands integers of this node to its own listeners.
    fn hear_own(
        &mut self,
        iids: Vec<Iid>,
        entry: Entry,
        held: bool,
        client: Option<ClientId>,
        now: Now,
    ) {
        let heard = Heard {
            source: self.own.peer,
            sent_ms: now.unix_ms(),
            held,
            bridged: entry == Entry::Bridged,
            client,
            last_known: false,
            iids,
        };
        self.deliver(heard, now);
    }

    fn deliver(&mut self, heard: Heard, now: Now) {
        let Heard {
            source,
            sent_ms,
            held,
            bridged,
            client,
            last_known,
            iids,
        } = heard;
        let name = if source == self.own.peer {
            self.membership.own_terms().name.to_string()
        } else {
            self.name_of(&source)
        };
        self.effects.event(Event::Integers(report::Integers {
            clock_offset_us: self.sync.offset_us(&source),
            source,
            name,
            sent_ms,
            received_us: now.unix_us,
            held,
            bridged,
            client,
            last_known,
            iids,
        }));
    }

    pub(super) fn report_last(&self) -> Vec<report::Integer> {
        let own = self.membership.own_terms();
        let last = self.integers.last.values();
        last.map(|known| (&known.integer, known.bridged))
            .map(|(last, bridged)| report::Integer {
                index: last.iid.index,
                value: last.iid.value,
                date: last.iid.date,
                from: if last.source == self.own.peer {
                    own.name.to_string()
                } else {
                    self.name_of(&last.source)
                },
                peer_id: last.source,
                sent_ms: last.sent_ms,
                received_us: last.sent_ms.saturating_mul(1000),
                clock_offset_us: self.sync.offset_us(&last.source),
                held: false,
                bridged,
                last_known: true,
            })
            .collect()
    }
}
