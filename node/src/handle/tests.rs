//! Followers of a node, with a store of its own and a task in the place of its loop.

use std::{sync::mpsc::Receiver, time::Duration};

use libp2p_identity::PeerId;

use super::*;
use crate::{
    proto::mesh::{MessageId, peer_of_seed},
    state::{
        io::{
            Encoding, FailureKind, Incoming, Outcome, Outgoing, OutgoingKind, Party, Record,
            Ticket, Via,
        },
        report,
    },
    store::{Completion, Store},
};

struct Fixture {
    node: NodeHandle,
    commands: mpsc::Receiver<Asked>,
    events: events::Events,
    store: Store,
    completions: Receiver<Completion>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (stored, completions) = std::sync::mpsc::channel();
        let done = move |completion| drop(stored.send(completion));
        let (store, _) = Store::open(folder.path(), done).expect("a store");
        let events = events::Events::new(peer());
        let (node, commands) = NodeHandle::new(Surroundings {
            home: folder.path().to_owned(),
            listeners: Arc::default(),
            events: events.clone(),
            keys: Arc::new(KeyRing::new(folder.path().to_owned(), None)),
            history: Arc::new(store.history().expect("a history")),
            letters: Arc::new(|_, _| Err("no letters here".to_owned())),
            room: Room::default(),
            clock: Clock::start(),
            rsa: watch::channel(None).1,
        });
        Self {
            node,
            commands,
            events,
            store,
            completions,
            _folder: folder,
        }
    }

    fn write(&self, record: Record) {
        self.store.write(Ticket(0), vec![record]).expect("room");
        let mut completions = self.completions.iter();
        assert!(completions.any(|c| matches!(c, Completion::Stored(_))));
    }

    /// Puts a message on the disk, and tells nobody.
    fn receive(&self, number: u8) {
        self.write(Record::Incoming(Incoming {
            id: MessageId([number; 16]),
            sender: Party::Member(peer()),
            user: None,
            mark: Some((1, number.into())),
            created_ms: 1,
            received_ms: 1,
            via: Via::Direct,
            text: number.to_string(),
            encoding: Encoding::Utf8,
        }));
    }

    /// Tells that some message came.
    fn tell_received(&self) {
        self.events.tell(Event::Received(report::Received {
            id: MessageId([0; 16]),
            from: "pi-2".to_owned(),
            peer_id: Party::Member(peer()),
            created_ms: 1,
            received_ms: 1,
            via: Via::Direct,
            text: String::new(),
            encoding: Encoding::Utf8,
        }));
    }

    /// Tells so much of something else that a reader loses the oldest.
    fn tell_too_much(&self) {
        for _ in 0..5_000 {
            self.events.tell(Event::ClockBelieved);
        }
    }

    /// Carries on while something is asked of the node.
    async fn answering<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(asked) = self.commands.recv() => answer(asked),
            }
        }
    }

    async fn inbox(&mut self, begin: Begin) -> Inbox {
        let node = self.node.clone();
        self.answering(node.inbox(begin)).await.expect("reads")
    }

    async fn next(&mut self, inbox: &mut Inbox) -> Option<String> {
        let message = self.answering(inbox.next()).await.expect("reads");
        message.map(|message| message.text)
    }

    async fn sending(&mut self) -> Sending {
        let node = self.node.clone();
        let sending = self.answering(node.send("pi-2", "hello")).await;
        sending.expect("accepted")
    }

    fn tell_sent(&self, outcome: Outcome) {
        self.events.tell(Event::Sent(report::Sent {
            id: MessageId([9; 16]),
            to: "pi-2".to_owned(),
            peer_id: Party::Member(peer()),
            outcome,
            at_ms: 1,
            attempted: true,
            warning: None,
        }));
    }
}

fn answer((command, reply): Asked) {
    let answer = match command {
        Command::Names => Reply::Names(Vec::new()),
        Command::Outbox => Reply::Outbox(Vec::new()),
        Command::Send { .. } => Reply::Accepted(vec![report::Accepted {
            id: MessageId([9; 16]),
            to: "pi-2".to_owned(),
            peer_id: Party::Member(peer()),
            expires_ms: 2,
            via: Via::Direct,
            warning: None,
        }]),
        other => panic!("not answered: {other:?}"),
    };
    drop(reply.send(Ok(answer)));
}

fn peer() -> PeerId {
    peer_of_seed(1)
}

#[tokio::test]
async fn an_inbox_begins_where_it_is_told_and_goes_on_with_what_comes() {
    let mut node = Fixture::new();
    for number in 1..=3 {
        node.receive(number);
    }
    let mut oldest = node.inbox(Begin::Oldest).await;
    let mut behind = node.inbox(Begin::After(2)).await;
    let mut now = node.inbox(Begin::Now).await;

    for text in ["1", "2", "3"] {
        assert_eq!(node.next(&mut oldest).await.as_deref(), Some(text));
    }
    assert_eq!(node.next(&mut behind).await.as_deref(), Some("3"));
    node.receive(4);
    node.tell_received();
    for inbox in [&mut oldest, &mut behind, &mut now] {
        assert_eq!(node.next(inbox).await.as_deref(), Some("4"));
    }
}

#[tokio::test]
async fn an_inbox_misses_nothing_when_events_are_lost() {
    let mut node = Fixture::new();
    let mut inbox = node.inbox(Begin::Oldest).await;
    node.receive(1);
    assert_eq!(node.next(&mut inbox).await.as_deref(), Some("1"));

    node.receive(2);
    node.tell_received();
    node.tell_too_much();

    assert_eq!(node.next(&mut inbox).await.as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn an_inbox_that_is_dropped_in_the_middle_of_a_wait_misses_nothing() {
    let mut node = Fixture::new();
    let mut inbox = node.inbox(Begin::Oldest).await;
    let second = Duration::from_secs(1);
    let nothing = tokio::time::timeout(second, inbox.next());
    assert!(node.answering(nothing).await.is_err());
    node.receive(1);
    node.tell_received();

    // It has heard of the message, and asks for names; nobody waits for the answer.
    tokio::select! {
        message = inbox.next() => panic!("{message:?}"),
        Some(asked) = node.commands.recv() => answer(asked),
    }

    assert_eq!(node.next(&mut inbox).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn followers_end_when_the_node_has_stopped() {
    let mut node = Fixture::new();
    let mut inbox = node.inbox(Begin::Oldest).await;
    let mut events = node.node.subscribe();
    let mut sending = node.sending().await;
    node.events.tell(Event::Revoked);
    drop(node.commands);

    let before = events.next().await.expect("not lost");
    assert!(matches!(before.as_deref(), Some(Event::Revoked)));
    assert!(matches!(events.next().await, Ok(None)));
    assert!(matches!(inbox.next().await, Ok(None)));
    let failure = sending
        .delivered(Duration::MAX)
        .await
        .expect_err("it stops");
    assert_eq!(failure.kind, FailureKind::Unavailable);
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_what_it_lost_and_goes_on() {
    let node = Fixture::new();
    let mut events = node.node.subscribe();
    node.tell_too_much();

    assert!(matches!(events.next().await, Err(EventsLost(904))));
    assert!(matches!(events.next().await, Ok(Some(_))));
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_message_is_told_by_its_event() {
    for (outcome, kind) in [
        (Outcome::Delivered, None),
        (Outcome::Expired, Some(FailureKind::TimedOut)),
        (
            Outcome::Refused("mailbox_full".to_owned()),
            Some(FailureKind::Refused),
        ),
    ] {
        let mut node = Fixture::new();
        let mut sending = node.sending().await;

        let early = sending.delivered(Duration::from_secs(5)).await;
        node.tell_sent(outcome.clone());
        let then = sending.delivered(Duration::from_secs(5)).await;
        let again = sending.delivered(Duration::ZERO).await;

        let early = early.expect_err("too early");
        assert_eq!(early.kind, FailureKind::TimedOut);
        assert_eq!(early.to_string(), "not delivered to pi-2 within 5s");
        assert_eq!(then.as_ref().err().map(|failure| failure.kind), kind);
        assert_eq!(again, then);
    }
}

#[tokio::test]
async fn what_became_of_a_message_is_read_from_the_disk_when_its_event_is_lost() {
    for (outcome, kind) in [
        (Some(Outcome::Delivered), None),
        (Some(Outcome::Expired), Some(FailureKind::TimedOut)),
        (
            Some(Outcome::Refused("mailbox_full".to_owned())),
            Some(FailureKind::Refused),
        ),
        (None, Some(FailureKind::NotFound)),
    ] {
        let mut node = Fixture::new();
        let mut sending = node.sending().await;
        if let Some(outcome) = outcome {
            let id = MessageId([9; 16]);
            node.write(Record::Outgoing(Outgoing {
                id,
                recipient: peer().into(),
                epoch: 1,
                sequence: 1,
                created_ms: 1,
                expires_ms: 2,
                kind: OutgoingKind::Member,
                text: "hello".to_owned(),
            }));
            node.write(Record::Outcome {
                id,
                outcome,
                at_ms: 1,
            });
        }
        node.tell_too_much();

        let delivered = node.answering(sending.delivered(Duration::MAX)).await;

        assert_eq!(delivered.err().map(|failure| failure.kind), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_was_told_and_is_not_on_the_disk_yet_is_waited_for() {
    let mut node = Fixture::new();
    let mut sending = node.sending().await;
    let id = MessageId([9; 16]);
    node.write(Record::Outgoing(Outgoing {
        id,
        recipient: peer().into(),
        epoch: 1,
        sequence: 1,
        created_ms: 1,
        expires_ms: 2,
        kind: OutgoingKind::Member,
        text: "hello".to_owned(),
    }));
    node.tell_sent(Outcome::Delivered);
    node.tell_too_much();

    let early = sending.delivered(Duration::from_secs(5));
    let early = node.answering(early).await.expect_err("not yet");
    node.write(Record::Outcome {
        id,
        outcome: Outcome::Delivered,
        at_ms: 1,
    });
    let then = node.answering(sending.delivered(Duration::MAX)).await;

    assert_eq!(early.kind, FailureKind::TimedOut);
    assert_eq!(then, Ok(()));
}

#[tokio::test]
async fn a_row_that_no_message_got_yet_is_refused() {
    let mut node = Fixture::new();
    node.receive(1);
    let handle = node.node.clone();

    let known = node.answering(handle.inbox(Begin::After(1))).await;
    let later = node.answering(handle.inbox(Begin::After(2))).await;

    assert!(known.is_ok());
    assert_eq!(
        later.map(drop).map_err(|failure| failure.kind),
        Err(FailureKind::Conflict)
    );
}
