//! The reference: plain lists of what was said and accepted, and the rules that a node's judgement
//! of each message is held against.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p_identity::PeerId;

use super::{disk::Disk, gossip::Gossip, machine::budget_of};
use crate::{
    proto::{
        iid::{native::Message, receiver::WINDOW_SEQUENCES},
        mesh::MessageId,
    },
    state::io::{Connection, OutboundId, Verdict},
};

/// Longest time that a gossip message is under way on a link that stays up.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What a gossip message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tale {
    /// This one of those that were said.
    Said(usize),
    /// A lie; it must be refused with this verdict for this reason.
    Lie(Verdict, &'static str),
}

/// What a machine made of a gossip message.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) verdict: Option<Verdict>,
    pub(super) why: Option<&'static str>,
    pub(super) values: Vec<i32>,
}

/// Integers that were said together.
struct Said {
    by: usize,
    values: Vec<i32>,
    sequences: Vec<u64>,
    at: Duration,
    /// Who was connected then, and has yet to hear it.
    due: BTreeSet<usize>,
}

/// What one machine remembers of another since it was switched on.
#[derive(Default)]
struct Memory {
    sequences: BTreeSet<u64>,
    budget: Option<(f64, Duration)>,
    newest: Option<usize>,
    newest_straight: Option<(Connection, usize)>,
    /// When it last compared clocks, in a request that was answered.
    compared: Option<Duration>,
}

/// What has to be.
#[derive(Default)]
pub(super) struct Model {
    accepted: BTreeMap<(PeerId, PeerId), Vec<(MessageId, String)>>,
    /// What came back as refused, and ended for its sender.
    refused: BTreeSet<MessageId>,
    said: Vec<Said>,
    memory: BTreeMap<(usize, usize), Memory>,
    /// Who has heard what since it was switched on.
    heard: BTreeSet<(usize, usize)>,
    comparing: BTreeMap<(usize, OutboundId), (usize, Duration)>,
    jumped: BTreeMap<usize, Duration>,
}

impl Model {
    pub(super) fn accepted(&mut self, from: PeerId, to: PeerId, id: MessageId, text: String) {
        let accepted = self.accepted.entry((from, to)).or_default();
        accepted.push((id, text));
    }

    pub(super) fn refused(&mut self, id: MessageId) {
        self.refused.insert(id);
    }

    pub(super) fn accepted_count(&self) -> usize {
        self.accepted.values().map(Vec::len).sum()
    }

    /// Notes a message that a machine published, and gives it a number.
    pub(super) fn said(
        &mut self,
        by: usize,
        bytes: &[u8],
        told: Vec<i32>,
        due: BTreeSet<usize>,
        at: Duration,
    ) -> usize {
        let message = Message::decode(bytes).expect("legal");
        let frames = message.frames();
        let values = frames.iter().flat_map(|f| f.iids()).map(|iid| iid.value.0);
        let values: Vec<i32> = values.collect();
        assert_eq!(told, values, "own listeners hear the same");
        self.said.push(Said {
            by,
            values,
            sequences: frames.iter().map(|f| f.head().sequence.0).collect(),
            at,
            due,
        });
        self.said.len() - 1
    }

    /// Returns what a machine said last.
    pub(super) fn last_said(&self, by: usize) -> &[i32] {
        let last = self.said.iter().rfind(|said| said.by == by);
        last.map_or(&[], |said| &said.values)
    }

    /// Holds what a machine made of a gossip message against the rules; returns what to count, and
    /// whether the message came after a later one.
    pub(super) fn heard(
        &mut self,
        at: usize,
        gossip: &Gossip,
        heard: &Heard,
        mono: Duration,
    ) -> (&'static str, bool) {
        let tale = match gossip.tale {
            Tale::Said(tale) => tale,
            Tale::Lie(verdict, why) => {
                let right = heard.verdict == Some(verdict) && heard.why == Some(why);
                assert!(
                    right && heard.values.is_empty(),
                    "believed a lie: {heard:?}"
                );
                return ("lies_refused", false);
            }
        };
        // Live integers are for this machine alone, so nobody waits for a verdict.
        let verdict = |verdict| (!gossip.is_live()).then_some(verdict);
        if !heard.values.is_empty() {
            assert_eq!(heard.verdict, verdict(Verdict::Accept), "{heard:?}");
            let reordered = self.heard_well(at, tale, gossip.straight, heard, mono);
            return ("integers_heard", reordered);
        }
        // What came the other way before is passed on all the same, and not complained about.
        let why = heard.why.unwrap_or("duplicate");
        let expected = if heard.why.is_none() {
            Verdict::Accept
        } else {
            Verdict::Ignore
        };
        assert_eq!(heard.verdict, verdict(expected), "{heard:?}");
        self.check_refusal(at, tale, why, mono);
        self.said[tale].due.remove(&at);
        let what = match why {
            "duplicate" => "integers_refused_as_duplicate",
            "over_budget" => "integers_refused_over_budget",
            "too_old" => "integers_refused_too_old",
            _ => "integers_refused_by_the_clock",
        };
        (what, false)
    }

    fn heard_well(
        &mut self,
        at: usize,
        tale: usize,
        straight: Option<Connection>,
        heard: &Heard,
        mono: Duration,
    ) -> bool {
        let said = &mut self.said[tale];
        assert_eq!(heard.values, said.values, "other values than were said");
        assert!(self.heard.insert((at, tale)), "{at} heard {tale} twice");
        said.due.remove(&at);
        let memory = self.memory.entry((at, said.by)).or_default();
        let count = said.values.len();
        assert!(
            memory.spend(at, count, mono),
            "{count} more than the budget"
        );
        memory.sequences.extend(&said.sequences);
        if let Some(connection) = straight {
            let before = memory.newest_straight.replace((connection, tale));
            let in_order = before.is_none_or(|(on, before)| on != connection || before < tale);
            assert!(in_order, "{tale} came after {before:?}");
        }
        let reordered = memory.newest > Some(tale);
        memory.newest = memory.newest.max(Some(tale));
        reordered
    }

    fn check_refusal(&mut self, at: usize, tale: usize, why: &str, mono: Duration) {
        let said = &self.said[tale];
        let (jumped, by) = (&self.jumped, said.by);
        let jumped = |place: &usize| jumped.get(place).copied().unwrap_or_default();
        let last_jump = jumped(&at).max(jumped(&by));
        let memory = self.memory.entry((at, by)).or_default();
        let highest = memory.sequences.last().copied().unwrap_or_default();
        let is_right = match why {
            "duplicate" => said.sequences.iter().any(|s| memory.sequences.contains(s)),
            "over_budget" => !memory.spend(at, said.values.len(), mono),
            // It was said by another clock than the one that was compared since.
            "future" | "expired" => {
                said.at <= last_jump || memory.compared.is_none_or(|at| at <= last_jump)
            }
            "too_old" => said.sequences[0] + WINDOW_SEQUENCES <= highest,
            _ => false,
        };
        assert!(is_right, "{at} refused {tale} of {by} as {why}");
    }

    /// What is on the way between two machines is lost; what should have come before is not.
    pub(super) fn link_broken(&mut self, a: usize, b: usize, now: Duration) {
        for said in &mut self.said {
            for (by, to) in [(a, b), (b, a)] {
                if said.by == by && said.due.remove(&to) {
                    let values = &said.values;
                    assert!(now <= said.at + UNDER_WAY, "{to} never heard {values:?}");
                }
            }
        }
    }

    /// Windows are not stored: a copy that is still under way may be heard again in the next life.
    pub(super) fn power_cut(&mut self, at: usize) {
        self.heard.retain(|(of, _)| *of != at);
        self.memory.retain(|(of, _), _| *of != at);
        self.comparing.retain(|(of, _), _| *of != at);
    }

    pub(super) fn clock_jumped(&mut self, at: usize, now: Duration) {
        self.jumped.insert(at, now);
    }

    pub(super) fn clocks_asked(&mut self, at: usize, of: usize, id: OutboundId, now: Duration) {
        self.comparing.insert((at, id), (of, now));
    }

    pub(super) fn clocks_answered(&mut self, at: usize, id: OutboundId) {
        if let Some((of, asked)) = self.comparing.remove(&(at, id)) {
            let memory = self.memory.entry((at, of)).or_default();
            memory.compared = memory.compared.max(Some(asked));
        }
    }

    pub(super) fn has_jumped(&self, at: usize) -> bool {
        self.jumped.contains_key(&at)
    }

    /// Returns the values that may stand for a sender in what a machine knows as last: the last
    /// one of each message from the newest on that it heard.
    pub(super) fn last_values(&self, at: usize, by: usize) -> Option<Vec<i32>> {
        let newest = self.memory.get(&(at, by))?.newest?;
        let since = self.said[newest..].iter().filter(|said| said.by == by);
        Some(since.filter_map(|s| s.values.last().copied()).collect())
    }

    /// Compares the disks with what was accepted.
    pub(super) fn check_messages(&self, disk_of: impl Fn(&PeerId) -> Disk) {
        for ((from, to), accepted) in &self.accepted {
            let disk = disk_of(to);
            let inbox = disk.inbox.iter();
            let got: Vec<&String> = inbox
                .filter(|message| message.sender == *from)
                .map(|message| &message.text)
                .collect();
            let distinct: BTreeSet<&String> = got.iter().copied().collect();
            assert_eq!(distinct.len(), got.len(), "something came twice: {got:?}");
            // What was on disk when the power went may have been sent without having been said.
            let said = |text: &&String| accepted.iter().any(|(_, known)| known == *text);
            let said: Vec<&String> = got.into_iter().filter(said).collect();
            // What was refused may have come all the same, if the power went before that was
            // written down.
            let due = accepted
                .iter()
                .filter(|(id, text)| !self.refused.contains(id) || distinct.contains(text));
            let due: Vec<&String> = due.map(|(_, text)| text).collect();
            assert_eq!(said, due, "{from} to {to}");
        }
    }

    pub(super) fn check_integers(&self) {
        for said in &self.said {
            let (values, due) = (&said.values, &said.due);
            assert!(due.is_empty(), "{due:?} never heard {values:?}");
        }
    }
}

impl Memory {
    /// Takes integers out of the budget, if there are as many left.
    fn spend(&mut self, at: usize, count: usize, mono: Duration) -> bool {
        let (per_second, burst) = budget_of(at);
        let burst = f64::from(burst);
        let (left, filled) = self.budget.unwrap_or((burst, mono));
        let more = (mono - filled).as_secs_f64() * f64::from(per_second);
        let left = (left + more).min(burst);
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        let cost = count as f64;
        let enough = left >= cost;
        self.budget = Some((if enough { left - cost } else { left }, mono));
        enough
    }
}
