//! Which sessions are to look after their letters, and what they are to be told.
//!
//! One task follows the node's events; with a thousand sessions, a thousand followers would each
//! hear everything. Events may be lost to a slow follower, so none carries a letter: it only says
//! that somebody is to look, and after a loss everybody looks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::{
    proto::syft::{UserId, http::TokenId},
    state::io::Event,
};

/// Words that wait for one session; further ones are dropped.
const WORDS_MAX: usize = 32;

/// What a session sends that is no letter.
pub(super) enum Word {
    /// The gateway itself says something.
    System(String),
    /// The frame of a request that the agent is to answer.
    Forward(String),
}

/// What reaches one session from outside.
pub(super) struct Line {
    user: UserId,
    token: TokenId,
    wake: Notify,
    words: Mutex<VecDeque<Word>>,
    /// Ends the session: its token or its user is gone.
    pub(super) ended: CancellationToken,
}

impl Line {
    /// Waits until there may be something.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Has the gateway itself say something to the user.
    pub(super) fn tell(&self, text: String) {
        self.say(Word::System(text));
    }

    /// Returns whether there was room for it.
    fn say(&self, word: Word) -> bool {
        let mut words = self.words();
        let has_room = words.len() < WORDS_MAX;
        if has_room {
            words.push_back(word);
        }
        drop(words);
        self.wake();
        has_room
    }

    pub(super) fn next_word(&self) -> Option<Word> {
        self.words().pop_front()
    }

    fn words(&self) -> MutexGuard<'_, VecDeque<Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All sessions.
#[derive(Default)]
pub(super) struct Hub {
    lines: Mutex<BTreeMap<UserId, Vec<Arc<Line>>>>,
}

impl Hub {
    /// Opens the line of a new session.
    pub(super) fn join(&self, user: UserId, token: TokenId) -> Arc<Line> {
        let line = Arc::new(Line {
            user: user.clone(),
            token,
            wake: Notify::new(),
            words: Mutex::default(),
            ended: CancellationToken::new(),
        });
        self.lines()
            .entry(user)
            .or_default()
            .push(Arc::clone(&line));
        line
    }

    pub(super) fn leave(&self, line: &Arc<Line>) {
        let mut lines = self.lines();
        if let Some(of_user) = lines.get_mut(&line.user) {
            of_user.retain(|other| !Arc::ptr_eq(other, line));
            if of_user.is_empty() {
                lines.remove(&line.user);
            }
        }
    }

    /// Ends the sessions of a token.
    pub(super) fn end_token(&self, token: TokenId) {
        for line in self.lines().values().flatten() {
            if line.token == token {
                line.ended.cancel();
            }
        }
    }

    /// Sends a frame over the newest session of a user, as the old server did. Returns whether there
    /// is one that takes it.
    pub(super) fn forward(&self, user: &UserId, frame: String) -> bool {
        let newest = self
            .lines()
            .get(user)
            .and_then(|of_user| of_user.last().cloned());
        newest.is_some_and(|line| line.say(Word::Forward(frame)))
    }

    pub(super) async fn follow(&self, mut events: broadcast::Receiver<Arc<Event>>) {
        loop {
            match events.recv().await {
                Ok(event) => self.heard(&event),
                Err(broadcast::error::RecvError::Lagged(_)) => self.wake_all(),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn heard(&self, event: &Event) {
        match event {
            Event::LetterWaits { user: Some(user) } => self.each(user, |line| line.wake()),
            Event::LetterWaits { user: None } => self.wake_all(),
            Event::TellUser { user, text } => {
                self.each(user, |line| line.tell(text.clone()));
            }
            Event::UserGone { user } => self.each(user, |line| line.ended.cancel()),
            _ => {}
        }
    }

    fn each(&self, user: &UserId, act: impl Fn(&Line)) {
        for line in self.lines().get(user).into_iter().flatten() {
            act(line);
        }
    }

    fn wake_all(&self) {
        for line in self.lines().values().flatten() {
            line.wake();
        }
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<UserId, Vec<Arc<Line>>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn user(name: &str) -> UserId {
        name.parse().expect("an id")
    }

    fn looks(line: &Line) -> bool {
        line.woken().now_or_never().is_some()
    }

    #[test]
    fn all_sessions_of_a_user_look_and_those_of_others_do_not() {
        let hub = Hub::default();
        let first = hub.join(user("alice"), TokenId([1; 16]));
        let second = hub.join(user("alice"), TokenId([2; 16]));
        let other = hub.join(user("bob"), TokenId([3; 16]));

        hub.heard(&Event::LetterWaits {
            user: Some(user("alice")),
        });
        assert!(looks(&first) && looks(&second) && !looks(&other));
        hub.heard(&Event::LetterWaits { user: None });
        assert!(looks(&first) && looks(&second) && looks(&other));

        hub.leave(&first);
        hub.heard(&Event::LetterWaits { user: None });
        assert!(!looks(&first) && looks(&second));
    }

    #[tokio::test]
    async fn after_lost_events_everybody_looks() {
        let hub = Hub::default();
        let line = hub.join(user("alice"), TokenId([1; 16]));
        let (sender, events) = broadcast::channel(1);
        for _ in 0..5 {
            let event = Event::Counted {
                what: "x",
                times: 1,
            };
            sender.send(Arc::new(event)).expect("followed");
        }
        drop(sender);
        hub.follow(events).await;
        assert!(looks(&line));
    }

    #[test]
    fn the_sessions_of_a_revoked_token_end_and_others_go_on() {
        let hub = Hub::default();
        let first = hub.join(user("alice"), TokenId([1; 16]));
        let second = hub.join(user("alice"), TokenId([2; 16]));
        hub.end_token(TokenId([1; 16]));
        assert!(first.ended.is_cancelled() && !second.ended.is_cancelled());
    }

    #[test]
    fn texts_for_a_session_that_does_not_read_are_bounded() {
        let line = Hub::default().join(user("alice"), TokenId([1; 16]));
        for _ in 0..100 {
            line.tell("slow down".to_owned());
        }
        assert_eq!(std::iter::from_fn(|| line.next_word()).count(), WORDS_MAX);
    }
}
