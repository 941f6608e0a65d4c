//! Tokens that are good no longer, because somebody logged out: records of this gateway.

use std::time::Duration;

use crate::{
    gateway::records::Records,
    proto::syft::http::TokenId,
    state::io::{Failure, GatewayRecord, RecordKey, RecordValue},
};

/// How long a revoked token is remembered after its end. The date that was believed then may have been
/// ahead by two hours, and the clock be set back.
const LONGER: Duration = Duration::from_secs(24 * 60 * 60);

/// The tokens that were revoked. Where there are too many, those that end first are forgotten.
pub(super) struct Revoked(Records);

impl Revoked {
    pub(super) const fn new(records: Records) -> Self {
        Self(records)
    }

    /// Says whether a token was revoked.
    pub(super) async fn has(&self, token: TokenId) -> Result<bool, Failure> {
        Ok(self.0.get(key(token)?).await?.is_some())
    }

    /// Revokes a token that would end by itself at this date, Unix ms.
    pub(super) async fn add(&self, token: TokenId, end_ms: u64) -> Result<(), Failure> {
        let longer = u64::try_from(LONGER.as_millis()).unwrap_or(u64::MAX);
        self.0
            .put(GatewayRecord {
                key: key(token)?,
                value: RecordValue::default(),
                ends_ms: Some(end_ms.saturating_add(longer)),
            })
            .await
    }
}

fn key(token: TokenId) -> Result<RecordKey, Failure> {
    Ok(RecordKey::new([&b"revoked/"[..], &token.0].concat())?)
}
