//! Registering, logging in and logging out (`proto-specs/syft.md`, section 5).

use std::sync::Arc;

use axum::{http::StatusCode, response::IntoResponse};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Request,
    refusal::{Answer, Refusal, invalid, too_many_failures, unexpected},
};
use crate::{
    gateway::syft::{SyftGateway, rate, tokens::TokenError},
    proto::syft::{
        UserId,
        http::{Answered, Challenge, ChallengeBody, Login, Registration, TokenBody},
    },
    rng::random,
    state::post::{Ask, Told},
};

impl Request {
    pub(super) async fn register(self) -> Answer {
        if !self.gateway.config.open_registration {
            let text = "Registration is closed: the operator of this node adds users";
            return Err(Refusal::new(StatusCode::FORBIDDEN, text));
        }
        let (gateway, address) = (Arc::clone(&self.gateway), self.caller.address.ip());
        let registration: Registration = self.json("Invalid JSON").await?;
        let user = registration.check();
        let user = user.map_err(|error| Refusal::bad(&format!("Registration error: {error}")))?;
        let (units, now) = (rate::REGISTRATION_UNITS, gateway.now());
        if !gateway
            .registrations
            .take_units(&address.into(), units, now)
        {
            let text = "Too many registrations from this address";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, text));
        }
        let registered = gateway
            .node
            .ask_gateway(Ask::Register { user, stays: false })
            .await;
        registered.map_err(|failure| {
            let Refusal(status, text) = failure.into();
            Refusal(status, format!("Registration error: {text}"))
        })?;
        Ok((StatusCode::CREATED, "User registered successfully").into_response())
    }

    pub(super) async fn login(self) -> Answer {
        let query = self.parts.uri.query().unwrap_or_default();
        let is_answer = query.split('&').any(|pair| pair == "verify=true");
        let (gateway, caller) = (Arc::clone(&self.gateway), Arc::clone(&self.caller));
        let login: Login = self.json("Invalid JSON").await?;
        // The first step says nothing about who exists.
        let id = login.user_id.parse::<UserId>().ok();
        if !is_answer {
            return challenge(&gateway, id.as_ref());
        }
        let address = caller.address.ip();
        if !gateway.failures.has(&address.into(), gateway.now()) {
            return Err(too_many_failures());
        }
        let answered = verify(&gateway, id, login.signature.as_deref()).await;
        if answered.is_err() {
            gateway.count("login", "refused");
            gateway.failures.take(&address.into(), gateway.now());
        }
        answered
    }

    /// Ends a token, and the sessions that entered with it.
    pub(super) async fn logout(self) -> Answer {
        let claims = self.claims()?;
        let token = claims.id().ok_or_else(|| invalid(TokenError::Foreign))?;
        let until_ms = self.gateway.tokens.end_ms(&claims);
        self.gateway.revoked.add(token, until_ms).await?;
        self.gateway.hub.end_token(token);
        Ok("Logged out".into_response())
    }
}

/// Opens a challenge; for a user id that cannot exist one that nobody can answer.
fn challenge(gateway: &SyftGateway, id: Option<&UserId>) -> Answer {
    let bytes = random::<32>();
    let opened = match id {
        Some(id) => {
            let mut challenges = gateway
                .challenges
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            challenges.open(id, bytes, gateway.now())
        }
        None => Some(Challenge::text(&bytes)),
    };
    let busy = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Too many open logins");
    let challenge = opened.ok_or_else(busy)?;
    Ok(axum::Json(ChallengeBody { challenge }).into_response())
}

async fn verify(gateway: &SyftGateway, id: Option<UserId>, signature: Option<&str>) -> Answer {
    let unknown = || Refusal::unauthorized("User not found");
    let name = id.ok_or_else(unknown)?;
    let local = Ask::Local { name: name.clone() };
    let Told::Found(found) = gateway.node.ask_gateway(local).await? else {
        return Err(unexpected());
    };
    let key = found.ok_or_else(unknown)?.key;
    let signature = STANDARD
        .decode(signature.unwrap_or_default())
        .map_err(|_| Refusal::bad("Invalid signature encoding"))?;
    // A signature of another length answers nothing, and uses a challenge up like any wrong one.
    let signature: [u8; 64] = signature.try_into().unwrap_or([0; 64]);
    let answered = {
        let mut challenges = gateway
            .challenges
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        challenges.answer(&name, &key, &signature, gateway.now())
    };
    match answered {
        Answered::NoChallenge => Err(Refusal::bad("No challenge found")),
        Answered::Wrong => Err(Refusal::unauthorized("Authentication failed")),
        Answered::Right => {
            let token = gateway.tokens.issue(name.as_str(), &key, gateway.unix_ms());
            let token = token.ok_or_else(unexpected)?;
            Ok(axum::Json(TokenBody { token }).into_response())
        }
    }
}
