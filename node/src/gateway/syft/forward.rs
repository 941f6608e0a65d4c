//! Requests over HTTP that a user's own agent answers (`proto-specs/syft.md`, section 8).
//!
//! ```text
//!   POST /direct-message/ ─▶ turn of the user ─▶ newest session ─▶ agent
//!                     200 ◀─ first frame that may answer ◀──────────┘
//! ```
//!
//! An answer does not say what it answers. So a user has one request under way, and the next one
//! waits until the answer came, even when the asker has gone or was told that it took too long:
//! a late answer must not become that of the next request. Nothing of this is stored.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::hub::Hub;
use crate::proto::syft::{Message, UserId, forward::may_answer};

/// How long an asker waits for its turn, and then for the answer; the old server gave 30 s.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// How much longer an answer may come that nobody waits for any more.
const LATE_TIME: Duration = Duration::from_secs(30);

/// Requests of one user that are under way or wait.
const REQUESTS_PER_USER_MAX: usize = 8;

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ForwardError {
    /// Too many of them.
    #[error("{REQUESTS_PER_USER_MAX} requests of this user wait already")]
    Busy,
    /// There is no session that could answer.
    #[error("No agent of this user is connected")]
    NotConnected,
    /// The agent said nothing.
    #[error("Request timed out waiting for response")]
    TimedOut,
}

impl ForwardError {
    /// Returns a short constant for counters.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NotConnected => "not_connected",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Requests that wait for agents. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Forwards {
    agents: Arc<Mutex<BTreeMap<UserId, Arc<Agent>>>>,
}

/// What waits for the agent of one user.
#[derive(Default)]
struct Agent {
    turn: tokio::sync::Mutex<()>,
    answer: Mutex<Option<oneshot::Sender<String>>>,
}

/// A request's place in the table; an agent that nothing waits for has none.
struct Place {
    forwards: Forwards,
    user: UserId,
    agent: Arc<Agent>,
}

impl Forwards {
    /// Sends a frame to a user's agent, and returns the content of its answer.
    pub(super) async fn ask(
        &self,
        hub: Arc<Hub>,
        user: UserId,
        frame: String,
    ) -> Result<String, ForwardError> {
        let place = self.place(user).ok_or(ForwardError::Busy)?;
        let (answer, answered) = oneshot::channel();
        // A task of its own: an asker that goes away does not take the turn with it.
        tokio::spawn(place.carry_out(hub, frame, answer));
        // The task always answers, unless the program ends.
        answered.await.unwrap_or(Err(ForwardError::TimedOut))
    }

    /// Takes a frame of a user, who logged in under this name, for the answer of his agent; returns
    /// it if it cannot be one.
    pub(super) fn sift(&self, user: &UserId, name: &UserId, message: Message) -> Option<Message> {
        if message.from != name.as_str() || !may_answer(&message) {
            return Some(message);
        }
        let agent = self.agents().get(user).cloned();
        if let Some(waiting) = agent.and_then(|agent| agent.answer().take()) {
            // Who waited may have gone.
            drop(waiting.send(message.content));
        }
        None
    }

    fn place(&self, user: UserId) -> Option<Place> {
        let mut agents = self.agents();
        let agent = Arc::clone(agents.entry(user.clone()).or_default());
        // The table and this one hold it, too.
        let is_free = Arc::strong_count(&agent) <= REQUESTS_PER_USER_MAX + 1;
        drop(agents);
        let forwards = self.clone();
        is_free.then_some(Place {
            forwards,
            user,
            agent,
        })
    }

    fn agents(&self) -> MutexGuard<'_, BTreeMap<UserId, Arc<Agent>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    fn answer(&self) -> MutexGuard<'_, Option<oneshot::Sender<String>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    async fn carry_out(
        self,
        hub: Arc<Hub>,
        frame: String,
        told: oneshot::Sender<Result<String, ForwardError>>,
    ) {
        let turn = timeout(ANSWER_TIME, self.agent.turn.lock()).await;
        let Ok(_turn) = turn else {
            drop(told.send(Err(ForwardError::TimedOut)));
            return;
        };
        if told.is_closed() {
            return;
        }
        let (answer, mut answered) = oneshot::channel();
        *self.agent.answer() = Some(answer);
        if !hub.forward(&self.user, frame) {
            self.agent.answer().take();
            drop(told.send(Err(ForwardError::NotConnected)));
            return;
        }
        match timeout(ANSWER_TIME, &mut answered).await {
            Ok(Ok(content)) => drop(told.send(Ok(content))),
            Ok(Err(_)) | Err(_) => {
                drop(told.send(Err(ForwardError::TimedOut)));
                drop(timeout(LATE_TIME, answered).await);
                self.agent.answer().take();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut agents = self.forwards.agents();
        if Arc::strong_count(&self.agent) == 2 {
            agents.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::syft::hub::{Line, Word},
        proto::syft::http::TokenId,
    };

    struct TestGateway {
        forwards: Forwards,
        hub: Arc<Hub>,
    }

    impl TestGateway {
        fn new() -> (Self, Arc<Line>) {
            let hub = Arc::new(Hub::default());
            let line = hub.join(alice(), TokenId([1; 16]));
            let forwards = Forwards::default();
            (Self { forwards, hub }, line)
        }

        fn ask(&self, frame: &str) -> tokio::task::JoinHandle<Result<String, ForwardError>> {
            let (forwards, hub) = (self.forwards.clone(), Arc::clone(&self.hub));
            let frame = frame.to_owned();
            tokio::spawn(async move { forwards.ask(hub, alice(), frame).await })
        }

        fn answers(&self, content: &str) -> bool {
            let sifted = self.forwards.sift(&alice(), &alice(), answer(content));
            sifted.is_none()
        }
    }

    fn alice() -> UserId {
        "alice".parse().expect("an id")
    }

    fn answer(content: &str) -> Message {
        Message {
            id: None,
            from: "alice".to_owned(),
            to: "alice".to_owned(),
            timestamp: None,
            content: content.to_owned(),
            status: None,
            signature: None,
            is_forward_message: true,
        }
    }

    /// Waits until a frame is there for the agent.
    async fn next(line: &Line) -> String {
        loop {
            if let Some(Word::Forward(frame)) = line.next_word() {
                return frame;
            }
            line.woken().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_gets_its_own_answer_one_by_one() {
        let (gateway, line) = TestGateway::new();
        let first = gateway.ask("one");
        assert_eq!(next(&line).await, "one");
        let second = gateway.ask("two");
        tokio::task::yield_now().await;
        assert!(line.next_word().is_none(), "the second waits for its turn");

        assert!(gateway.answers("1"));
        assert_eq!(first.await.expect("no panic"), Ok("1".to_owned()));
        assert_eq!(next(&line).await, "two");
        assert!(gateway.answers("2"));
        assert_eq!(second.await.expect("no panic"), Ok("2".to_owned()));
        tokio::task::yield_now().await;
        assert!(gateway.forwards.agents().is_empty(), "nothing stays behind");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_not_that_of_the_next_request() {
        let (gateway, line) = TestGateway::new();
        let first = gateway.ask("one");
        assert_eq!(next(&line).await, "one");
        assert_eq!(first.await.expect("no panic"), Err(ForwardError::TimedOut));
        let second = gateway.ask("two");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(
            line.next_word().is_none(),
            "the first may still be answered"
        );

        assert!(gateway.answers("1"));
        assert_eq!(next(&line).await, "two");
        assert!(gateway.answers("2"));
        assert_eq!(second.await.expect("no panic"), Ok("2".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_never_answers_is_asked_again_after_a_while() {
        let (gateway, line) = TestGateway::new();
        let first = gateway.ask("one");
        assert_eq!(next(&line).await, "one");
        assert_eq!(first.await.expect("no panic"), Err(ForwardError::TimedOut));
        tokio::time::sleep(LATE_TIME).await;
        let second = gateway.ask("two");
        assert_eq!(next(&line).await, "two");
        assert!(gateway.answers("2"));
        assert_eq!(second.await.expect("no panic"), Ok("2".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_asker_that_has_gone_keeps_its_turn_until_the_answer() {
        let (gateway, line) = TestGateway::new();
        let first = gateway.ask("one");
        assert_eq!(next(&line).await, "one");
        first.abort();
        let second = gateway.ask("two");
        tokio::task::yield_now().await;
        assert!(line.next_word().is_none());
        assert!(gateway.answers("1"));
        assert_eq!(next(&line).await, "two");
        assert!(gateway.answers("2"));
        assert_eq!(second.await.expect("no panic"), Ok("2".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_without_an_agent_and_too_many_are_refused() {
        let (gateway, line) = TestGateway::new();
        let waiting: Vec<_> = (0..REQUESTS_PER_USER_MAX)
            .map(|_| gateway.ask("x"))
            .collect();
        assert_eq!(next(&line).await, "x");
        assert_eq!(
            gateway.ask("y").await.expect("no panic"),
            Err(ForwardError::Busy)
        );
        for request in waiting {
            assert_eq!(
                request.await.expect("no panic"),
                Err(ForwardError::TimedOut)
            );
        }

        let (gateway, line) = TestGateway::new();
        gateway.hub.leave(&line);
        let refused = gateway.ask("x").await.expect("no panic");
        assert_eq!(refused, Err(ForwardError::NotConnected));
    }

    #[tokio::test]
    async fn an_answer_that_nobody_waits_for_is_no_letter_and_another_frame_is_none() {
        let (gateway, _line) = TestGateway::new();
        assert!(gateway.answers("x"));
        let mut other = answer("x");
        other.from = "bob".to_owned();
        other.to = "bob".to_owned();
        let mut letter = answer("x");
        letter.to = "bob".to_owned();
        for frame in [other, letter] {
            let sifted = gateway.forwards.sift(&alice(), &alice(), frame.clone());
            assert_eq!(sifted, Some(frame));
        }
    }
}
