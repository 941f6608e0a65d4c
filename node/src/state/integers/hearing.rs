//! Integers of other members: whether they are good, and news.

use libp2p_identity::PeerId;

use super::{Heard, Integers, Last};
use crate::{
    proto::{
        iid::{
            Iid, Index,
            native::{Entry, Message},
            refusal::{Ignored, Refusal, Rejected},
        },
        mesh::sync::LastInteger,
    },
    state::{
        State,
        io::{GossipId, NetOutput, Now, Verdict},
    },
};

/// Which way a message came. What is published goes both ways, and either may be the faster one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// On the line of its author.
    Line,
    Gossip,
}

/// Why integers are not handed out.
enum NotTaken {
    /// They came the same way before.
    Again,
    /// They came the other way, or what is far ahead of them did. The sender did no wrong.
    Overtaken(Option<&'static str>),
    /// They are not of this moment, by the clocks as they are known.
    OtherTime(&'static str),
    /// They are not good, for this reason.
    Refused(Verdict, &'static str),
}

impl From<Refusal> for NotTaken {
    fn from(refusal: Refusal) -> Self {
        let why = refusal.name();
        match refusal {
            Refusal::Ignore(Ignored::Future { .. } | Ignored::Expired { .. }) => {
                Self::OtherTime(why)
            }
            // News of the index's owner may be on its way, so the peer that passed it on is not blamed.
            Refusal::Ignore(_) | Refusal::Reject(Rejected::Index(_)) => {
                Self::Refused(Verdict::Ignore, why)
            }
            Refusal::Reject(_) => Self::Refused(Verdict::Reject, why),
        }
    }
}

impl Integers {
    /// Judges a message by the clock of its source: whether it is good, and news.
    fn judge(
        &mut self,
        source: &PeerId,
        message: &Message,
        way: Way,
        may_send: impl Fn(Index, Entry) -> bool,
        source_now_ms: u64,
    ) -> Result<(), NotTaken> {
        let checked = self
            .receiver
            .check(source, message, may_send, source_now_ms);
        let was_known = matches!(
            checked,
            Err(Refusal::Ignore(Ignored::Duplicate(_) | Ignored::TooOld(_)))
        );
        if checked.is_ok() || was_known {
            // On a line nothing is lost or overtaken, so there nothing comes twice.
            let is_again = way == Way::Line
                && (self.lines)
                    .receive(source, message, |_, _| true, source_now_ms)
                    .is_err();
            match checked {
                Err(Refusal::Ignore(Ignored::Duplicate(_))) if is_again => {
                    return Err(NotTaken::Again);
                }
                Err(Refusal::Ignore(Ignored::Duplicate(_))) => {
                    return Err(NotTaken::Overtaken(None));
                }
                Err(refusal) if was_known && !is_again => {
                    return Err(NotTaken::Overtaken(Some(refusal.name())));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(checked?)
    }

    /// Takes a good message in: what comes of it again is known.
    fn take(
        &mut self,
        source: PeerId,
        message: &Message,
        source_now_ms: u64,
    ) -> Result<(), NotTaken> {
        self.receiver
            .receive(&source, message, |_, _| true, source_now_ms)?;
        for frame in message.frames() {
            self.received += frame.iids().len() as u64;
            let iids: Vec<Iid> = frame.iids().collect();
            self.remember(source, &frame.head(), &iids);
        }
        Ok(())
    }
}

impl State {
    /// Takes integers that a connected member sent itself. They may have come as gossip before.
    pub(in crate::state) fn live(&mut self, source: PeerId, bytes: &[u8], now: Now) {
        match self.receive_integers(source, bytes, Way::Line, now) {
            Ok(()) | Err(NotTaken::Overtaken(None)) => {}
            Err(NotTaken::Overtaken(Some(why))) => {
                self.effects.refused(Some(source), "integer", why);
            }
            Err(NotTaken::Again) => self.useless(source, now),
            Err(NotTaken::OtherTime(why) | NotTaken::Refused(_, why)) => {
                self.effects.refused(Some(source), "integer", why);
                self.useless(source, now);
            }
        }
    }

    /// A connected member sent more in one piece than can be integers.
    pub(in crate::state) fn live_too_long(&mut self, source: PeerId, now: Now) {
        self.effects.refused(Some(source), "integer", "too_long");
        self.useless(source, now);
    }

    pub(in crate::state) fn gossip(
        &mut self,
        source: PeerId,
        from: PeerId,
        id: GossipId,
        bytes: &[u8],
        now: Now,
    ) {
        let verdict = match self.receive_integers(source, bytes, Way::Gossip, now) {
            // Gossip has its own memory of what came before. What is new to it and came here
            // already came straight from its author, and others may still wait for it.
            Ok(()) | Err(NotTaken::Again | NotTaken::Overtaken(None)) => Verdict::Accept,
            Err(NotTaken::Overtaken(Some(why))) => {
                self.effects.refused(Some(source), "integer", why);
                Verdict::Ignore
            }
            Err(NotTaken::OtherTime(why)) => {
                self.effects.refused(Some(source), "integer", why);
                self.useless(from, now);
                Verdict::Ignore
            }
            Err(NotTaken::Refused(verdict, why)) => {
                self.effects.refused(Some(source), "integer", why);
                self.useless(from, now);
                verdict
            }
        };
        self.effects.net(NetOutput::Verdict { id, verdict });
    }

    fn receive_integers(
        &mut self,
        source: PeerId,
        bytes: &[u8],
        way: Way,
        now: Now,
    ) -> Result<(), NotTaken> {
        if !self.membership.is_good(&source, self.believed(now)) {
            // Its certificate may be on its way to us; others judge for themselves.
            return Err(NotTaken::Refused(Verdict::Ignore, "not_a_member"));
        }
        let message = Message::decode(bytes)?;
        let may_send = |index, entry| {
            self.membership
                .may_speak(&source, index, entry == Entry::Bridged)
        };
        // Judged by the sender's clock, as far as it was measured: Pis disagree about the time.
        let offset_ms = self.sync.offset_us(&source).unwrap_or(0) / 1000;
        let source_now_ms = now.unix_ms().saturating_add_signed(offset_ms);
        let judged = self
            .integers
            .judge(&source, &message, way, may_send, source_now_ms);
        if let Err(NotTaken::OtherTime(_)) = judged {
            self.compare_clocks(source, now);
        }
        judged?;
        let frames = message.frames();
        let count = frames.iter().map(|frame| frame.iids().len()).sum::<usize>();
        let budgets = &mut self.integers.budgets;
        if !budgets.spend(source, count, &self.settings, now.mono) {
            return Err(NotTaken::Refused(Verdict::Ignore, "over_budget"));
        }
        self.integers.take(source, &message, source_now_ms)?;
        for frame in message.frames() {
            let head = frame.head();
            let heard = Heard {
                source,
                sent_ms: head.sent_ms,
                held: head.held,
                bridged: head.entry == Entry::Bridged,
                client: None,
                last_known: false,
                iids: frame.iids().collect(),
            };
            self.deliver(heard, now);
        }
        Ok(())
    }

    /// Takes over a member's own last values if they are newer. Its values of other sources are ignored:
    /// they are not signed.
    pub(in crate::state) fn learn_last_values(
        &mut self,
        teller: PeerId,
        last: Vec<LastInteger>,
        now: Now,
    ) {
        for integer in last {
            let LastInteger {
                iid,
                source,
                sent_ms,
            } = integer;
            let is_news = self.integers.last.get(iid.index).is_none_or(|known| {
                let Last { integer: known, .. } = known;
                // A date to come holds for its own source alone, and keeps no other one out.
                let is_ahead = known.source != source && known.sent_ms > now.unix_ms();
                known.sent_ms < sent_ms || is_ahead
            });
            // The message does not say how the integer entered the mesh. If the index is not the
            // member's own, it came through the member's gateway.
            let may_speak = |bridged| self.membership.may_speak(&source, iid.index, bridged);
            let bridged = !may_speak(false);
            if !is_news || source != teller || (bridged && !may_speak(true)) {
                continue;
            }
            self.integers.last.keep(Last {
                integer,
                sequence: None,
                bridged,
            });
            let heard = Heard {
                source,
                sent_ms,
                held: false,
                bridged,
                client: None,
                last_known: true,
                iids: vec![iid],
            };
            self.deliver(heard, now);
        }
    }
}
