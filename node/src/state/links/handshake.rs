//! The handshake on a connection (`proto::mesh::member`): who shows what, and what is answered.

use libp2p_identity::PeerId;

use super::Phase;
use crate::{
    proto::mesh::{
        certificate::Certificate,
        member::{Refusal, Request, Response},
    },
    state::{
        Asked, State,
        io::{Connection, InboundId, NetOutput, Now, Opening},
        membership::NotAMember,
    },
};

impl State {
    pub(super) fn ask_member(&mut self, connection: Connection, asked: Asked, bytes: Vec<u8>) {
        self.links.advance(connection, Phase::Asked);
        let id = self.effects.ask(asked);
        self.effects.net(NetOutput::MemberRequest {
            connection,
            id,
            bytes,
        });
    }

    /// Answers a peer on `/pimesh/member/1`.
    pub(in crate::state) fn member_request(
        &mut self,
        connection: Connection,
        id: InboundId,
        bytes: &[u8],
        now: Now,
    ) {
        let Some(peer) = self.links.peer(connection) else {
            return;
        };
        match Request::decode(bytes) {
            // The dialler speaks first, and once.
            Ok(Request::Hello(_) | Request::Join(_)) if !self.links.is_new(connection) => {
                self.effects
                    .refused(Some(peer), "member_request", "out_of_turn");
                self.close(connection, "a handshake out of turn");
            }
            Ok(Request::Hello(certificate)) => {
                self.hello_requested(connection, id, peer, &certificate, now);
            }
            Ok(Request::Ready) => self.ready_requested(connection, id, now),
            Ok(Request::Join(join)) => self.join_requested(connection, id, peer, &join, now),
            Err(_) => {
                self.effects
                    .refused(Some(peer), "member_request", "malformed");
                self.close(connection, "malformed request");
            }
        }
    }

    fn hello_requested(
        &mut self,
        connection: Connection,
        id: InboundId,
        peer: PeerId,
        certificate: &[u8],
        now: Now,
    ) {
        if let Some(left) = self.membership.goodbye_to(&peer, certificate) {
            let bytes = Response::Left(left).encode();
            return self.effects.net(NetOutput::MemberRespond {
                connection,
                id,
                bytes,
            });
        }
        if self.membership.is_revoked() {
            return self.close(connection, "this node was removed from the mesh");
        }
        let believed = self.believed(now);
        let certificate = match self.membership.judge(certificate, &peer, believed) {
            Ok(certificate) => certificate,
            Err(reason) => {
                self.effects
                    .refused(Some(peer), "certificate", reason.name());
                let bytes = self.why_not(&peer, &reason).encode();
                return self.effects.net(NetOutput::MemberRespond {
                    connection,
                    id,
                    bytes,
                });
            }
        };
        if self.own.peer < peer && self.links.has_own_dial(&peer, now) {
            return self.refuse(connection, id, Refusal::OtherConnection);
        }
        self.learn_from_hello(certificate, now);
        self.links.answered(connection);
        self.effects.net(NetOutput::Open {
            connection,
            opening: Opening::Inbound,
        });
        let bytes = Response::Hello(self.membership.own_certificate()).encode();
        self.effects.net(NetOutput::MemberRespond {
            connection,
            id,
            bytes,
        });
    }

    /// Tells a removed member that it was removed, and anybody else nothing.
    fn why_not(&self, peer: &PeerId, reason: &NotAMember) -> Response {
        match self.membership.revocation_of(peer) {
            Some(revocation) if *reason == NotAMember::Revoked => Response::Revoked(revocation),
            _ => Response::Refused(Refusal::NotAMember),
        }
    }

    fn refuse(&mut self, connection: Connection, id: InboundId, refusal: Refusal) {
        let bytes = Response::Refused(refusal).encode();
        self.effects.net(NetOutput::MemberRespond {
            connection,
            id,
            bytes,
        });
    }

    fn learn_from_hello(&mut self, certificate: Certificate, now: Now) {
        let encoded = certificate.encode();
        if self.keep_certificate(certificate, now) {
            self.tell_everybody(vec![encoded], vec![], now);
        }
    }

    fn ready_requested(&mut self, connection: Connection, id: InboundId, now: Now) {
        if !self.links.is_answered(connection) {
            return self.close(connection, "ready without hello");
        }
        self.effects.net(NetOutput::Open {
            connection,
            opening: Opening::Both,
        });
        let bytes = Response::Ok.encode();
        self.effects.net(NetOutput::MemberRespond {
            connection,
            id,
            bytes,
        });
        self.opened(connection, now);
    }

    pub(in crate::state) fn hello_answered(
        &mut self,
        connection: Connection,
        result: Result<Vec<u8>, String>,
        now: Now,
    ) {
        let Some(peer) = self.links.peer(connection) else {
            return;
        };
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(reason) => return self.close(connection, reason),
        };
        match Response::decode(&bytes) {
            Ok(Response::Hello(_)) if self.links.is_healthy(&peer) => {
                self.close(connection, "another connection is open");
            }
            Ok(Response::Hello(certificate)) => {
                let believed = self.believed(now);
                match self.membership.judge(&certificate, &peer, believed) {
                    Ok(certificate) => {
                        self.learn_from_hello(certificate, now);
                        self.open_as_dialler(connection);
                    }
                    Err(reason) => {
                        self.effects
                            .refused(Some(peer), "certificate", reason.name());
                        self.close(connection, "its certificate is not good");
                    }
                }
            }
            Ok(Response::Refused(Refusal::OtherConnection)) => {
                self.close(connection, "the peer prefers its own connection");
            }
            Ok(Response::Revoked(revocation)) => {
                self.learn_statements(vec![], vec![revocation], now);
                self.close(connection, "the peer says that this node was removed");
            }
            Ok(Response::Left(left)) => {
                self.told_left(left, now);
                self.close(connection, "the peer has left the mesh");
            }
            Ok(Response::Refused(_)) => {
                self.close(connection, "the peer does not take this node for a member");
            }
            Ok(Response::Ok | Response::Welcome(_)) | Err(_) => {
                self.effects
                    .refused(Some(peer), "member_answer", "malformed");
                self.close(connection, "malformed answer");
            }
        }
    }

    pub(in crate::state) fn ready_answered(
        &mut self,
        connection: Connection,
        result: Result<Vec<u8>, String>,
        now: Now,
    ) {
        match result.map(|bytes| Response::decode(&bytes)) {
            Ok(Ok(Response::Ok)) => self.opened(connection, now),
            Ok(_) => self.close(connection, "no answer to ready"),
            Err(reason) => self.close(connection, reason),
        }
    }

    /// Sends `Ready` on a connection that is open on our side.
    pub(in crate::state) fn open_as_dialler(&mut self, connection: Connection) {
        self.effects.net(NetOutput::Open {
            connection,
            opening: Opening::Both,
        });
        let ready = Request::Ready.encode();
        self.ask_member(connection, Asked::Ready(connection), ready);
    }
}
