//! Tokens that are good no longer, because somebody logged out.

use std::time::Duration;

use super::Users;
use crate::{
    proto::syft::http::TokenId,
    state::{
        State,
        changes::Change,
        io::{Now, Record, Reply, RequestId},
        millis,
        post::Told,
    },
};

/// Most revoked tokens that are remembered. A token that was revoked before so many others ends
/// by itself sooner or later.
const REVOKED_MAX: usize = 16_384;

/// How long a revoked token is remembered after its end. The date that was believed then may have been
/// ahead by two hours, and the clock be set back.
const REVOKED_LONGER: Duration = Duration::from_secs(24 * 60 * 60);

impl Users {
    /// Returns the revoked tokens that end first, if there is no room for so many more.
    fn ended_first(&self, more: usize) -> Vec<TokenId> {
        let too_many = (self.revoked.len() + more).saturating_sub(REVOKED_MAX);
        if too_many == 0 {
            return Vec::new();
        }
        let mut by_end: Vec<(u64, TokenId)> = self
            .revoked
            .iter()
            .map(|(token, until)| (*until, *token))
            .collect();
        by_end.sort_unstable();
        let first = by_end.into_iter().take(too_many);
        first.map(|(_, token)| token).collect()
    }
}

impl State {
    pub(super) fn revoke_token(&mut self, request: RequestId, token: TokenId, until_ms: u64) {
        let asked = Some((request, Reply::Told(Told::Done)));
        let mut records = vec![Record::Revoked { token, until_ms }];
        let tokens = self.users.ended_first(1);
        if !tokens.is_empty() {
            records.push(Record::ForgetTokens { tokens });
        }
        self.change(asked, records, Change::RevokeToken(token, until_ms));
    }

    /// That a token is revoked is on the disk.
    pub(in crate::state) fn token_revoked(&mut self, token: TokenId, until_ms: u64) {
        for token in self.users.ended_first(1) {
            self.users.revoked.remove(&token);
        }
        self.users.revoked.insert(token, until_ms);
    }

    /// Forgets revoked tokens that have ended by themselves, here and on the disk.
    pub(in crate::state) fn prune_tokens(&mut self, believed: Now) {
        let longer_ms = millis(REVOKED_LONGER);
        let is_over = |until_ms: u64| until_ms.saturating_add(longer_ms) <= believed.unix_ms();
        let revoked = self.users.revoked.iter();
        let over = revoked.filter(|(_, until_ms)| is_over(**until_ms));
        let mut tokens: Vec<TokenId> = over.map(|(token, _)| *token).collect();
        // An earlier version kept all of them on the disk.
        tokens.extend(self.users.ended_first(0));
        if tokens.is_empty() {
            return;
        }
        for token in &tokens {
            self.users.revoked.remove(token);
        }
        let forget = Record::ForgetTokens { tokens };
        self.effects.store(vec![forget], None);
    }
}
