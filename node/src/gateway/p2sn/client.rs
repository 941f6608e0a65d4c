//! One connection of a P2SN client, from accept to close.

use std::net::SocketAddr;

use tokio::{net::TcpStream, time::timeout};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{P2snGateway, budgets::Turn};
use crate::{
    gateway::visit::Visit,
    limits::Source,
    p2sn_session::{Ended, Owner, run_server},
    proto::{
        mesh::MessageId,
        p2sn::{ACKNOWLEDGEMENT, Fingerprint, PinAddress, PublicKey, Reason, UNEXPECTED_ERROR},
    },
    state::{
        clients::{Answer, Question},
        io::{ClientName, Command, Failure, Reply},
    },
};

/// A connected client.
pub(super) struct Client<'a> {
    gateway: &'a P2snGateway,
    address: PinAddress,
    source: Source,
    /// The key that it showed.
    key: Option<Fingerprint>,
    visit: Visit,
    turn: Turn<'a>,
    /// Who it is, from the moment its key was accepted, and the size of that key.
    name: Option<(ClientName, usize)>,
    /// Whether it has completed an exchange.
    signed_in: bool,
    /// What it was given in the place of an acknowledgement and may not have yet.
    handing: Option<MessageId>,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        gateway: &'a P2snGateway,
        address: SocketAddr,
        visit: Visit,
        turn: Turn<'a>,
    ) -> Self {
        Self {
            gateway,
            address: PinAddress::client(address.ip()),
            source: address.ip().into(),
            key: None,
            visit,
            turn,
            name: None,
            signed_in: false,
            handing: None,
        }
    }

    /// Serves it until it goes or is sent away.
    pub(super) async fn run(mut self, stream: TcpStream) {
        // On a small machine the first RSA key takes a while.
        let terms = timeout(self.gateway.config.exchange_time, self.gateway.terms()).await;
        let Ok(Some(terms)) = terms else {
            return self.visit.refuse("no_key_yet");
        };
        let kicked = self.visit.kicked();
        let ended = tokio::select! {
            ended = run_server(stream.compat(), terms, &mut self) => ended,
            // The visit knows why.
            () = kicked => return,
        };
        if is_failure(&ended, self.signed_in) {
            self.turn.failed(self.key);
        }
        match ended {
            Ended::Closed
            | Ended::Broken(_)
            | Ended::Stopping
            | Ended::Session(Reason::Ended | Reason::IdleTimeout) => self.visit.leave(ended.name()),
            Ended::Session(_) | Ended::NotRead | Ended::Send(_) => {
                if let Some(more) = self.gateway.budgets.log(self.source, ended.name()) {
                    let source = self.source;
                    tracing::info!(%source, reason = %ended, more, "a P2SN client was sent away");
                }
                self.visit.refuse(ended.name());
            }
        }
    }

    async fn ask(&self, question: Question) -> Result<Reply, Failure> {
        self.gateway.node.ask(Command::P2sn(question)).await
    }

    /// Has a message written to disk, here or in the outbox for a member.
    async fn deliver(&self, client: ClientName, bytes: Vec<u8>) -> Result<(), &'static str> {
        if !self.gateway.budgets.may_send(self.source) {
            return Err("p2sn_message_over_budget");
        }
        let to = self.gateway.config.deliver_to.clone();
        match self.ask(Question::Deliver { client, to, bytes }).await {
            Ok(_) => Ok(()),
            Err(failure) => {
                tracing::debug!(reason = %failure.message, "a P2SN message was not taken");
                Err("p2sn_message_not_taken")
            }
        }
    }
}

impl Owner for Client<'_> {
    async fn judge(&mut self, key: &PublicKey) -> bool {
        self.key = Some(key.fingerprint());
        if !self.gateway.budgets.may_use(self.source, key.fingerprint()) {
            self.gateway.node.count("p2sn_failed_too_often");
            return false;
        }
        let question = Question::Judge {
            address: self.address.clone(),
            fingerprint: key.fingerprint(),
            bits: key.bits(),
            strict: self.gateway.config.pin_clients,
        };
        let name = self.address.client_name(&key.fingerprint());
        self.name = name
            .and_then(ClientName::new)
            .map(|name| (name, key.bits()));
        let judged = self.ask(question).await;
        matches!(judged, Ok(Reply::P2sn(Answer::Judged(true)))) && self.name.is_some()
    }

    async fn established(&mut self) -> Option<Vec<u8>> {
        // A second exchange on the same connection does not sign in again.
        if let Some((name, bits)) = &self.name
            && !self.signed_in
        {
            self.signed_in = true;
            self.turn.succeeded();
            self.visit.signed_in(name.as_str(), format!("{bits} bits"));
        }
        None
    }

    async fn message(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let (client, _) = self.name.clone()?;
        self.visit.received(1);
        if let Err(why) = self.deliver(client.clone(), bytes).await {
            self.gateway.node.count(why);
            return Some(UNEXPECTED_ERROR.to_vec());
        }
        match self.ask(Question::Take { client }).await {
            Ok(Reply::P2sn(Answer::Taken(Some((id, bytes))))) => {
                self.handing = Some(id);
                Some(bytes)
            }
            _ => Some(ACKNOWLEDGEMENT.to_vec()),
        }
    }

    async fn answered(&mut self) {
        self.visit.sent(1);
        if let Some(id) = self.handing.take() {
            // If the node is stopping, the client gets it once more.
            drop(self.ask(Question::Handed { id }).await);
        }
    }

    async fn replied(&mut self, _: Vec<u8>) {}
}

/// Says whether an end counts against an address: rule P2SN-FAILURES.
///
/// A changed key does not: it is the owner's to judge, and often an honest program's.
const fn is_failure(ended: &Ended, signed_in: bool) -> bool {
    match ended {
        Ended::Session(reason) => match reason {
            Reason::Ended | Reason::PeerRefused => !signed_in,
            Reason::IdleTimeout | Reason::KeyRefused | Reason::ReplyTimeout => false,
            Reason::OutOfOrder
            | Reason::TooLong
            | Reason::BadKey(_)
            | Reason::CheckFailed
            | Reason::BadBlock
            | Reason::ExchangeTimeout => true,
        },
        Ended::Closed | Ended::Broken(_) => !signed_in,
        Ended::NotRead => true,
        Ended::Send(_) | Ended::Stopping => false,
    }
}
