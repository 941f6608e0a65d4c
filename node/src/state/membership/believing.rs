//! Statements of the mesh key that came from here or from elsewhere, and what follows from them.

use std::collections::BTreeSet;

use super::Learned;
use crate::{
    proto::mesh::certificate::{Certificate, Revocation},
    state::{
        After, State,
        io::{Event, Now, Record},
    },
};

impl State {
    /// Learns what another member told; returns what was new, to be told on.
    pub(in crate::state) fn learn_statements(
        &mut self,
        certificates: Vec<Vec<u8>>,
        revocations: Vec<Vec<u8>>,
        now: Now,
    ) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        // The new membership is on its way to the disk: what came behind it there would be taken for
        // a part of the new mesh.
        if self.leaving {
            return (Vec::new(), Vec::new());
        }
        let mesh = *self.membership.mesh();
        // Mostly all of it is known; comparing costs far less than verifying a signature.
        let known: BTreeSet<Vec<u8>> = self.membership.revocations().into_iter().collect();
        let mut new_revocations = Vec::new();
        for bytes in revocations {
            if known.contains(&bytes) {
                continue;
            }
            match Revocation::decode(&bytes, &mesh) {
                Ok(revocation) => {
                    if self.revoke(revocation, None, now) {
                        new_revocations.push(bytes);
                    }
                }
                Err(error) => self.effects.refused(None, "revocation", error.name()),
            }
        }
        let known: BTreeSet<Vec<u8>> = self.membership.certificates().into_iter().collect();
        let mut new_certificates = Vec::new();
        for bytes in certificates {
            if known.contains(&bytes) {
                continue;
            }
            match Certificate::decode(&bytes, &mesh) {
                Ok(certificate) => {
                    if self.keep_certificate(certificate, None, now) {
                        new_certificates.push(bytes);
                    }
                }
                Err(error) => self.effects.refused(None, "certificate", error.name()),
            }
        }
        (new_certificates, new_revocations)
    }

    /// Keeps a certificate if it is new, and gets to know the member; `after` happens once it is
    /// on disk.
    pub(in crate::state) fn keep_certificate(
        &mut self,
        certificate: Certificate,
        after: Option<After>,
        now: Now,
    ) -> bool {
        let peer = certificate.terms().peer;
        let name = certificate.terms().name.to_string();
        let was = self.called(&peer);
        let encoded = certificate.encode();
        let record = if peer == self.own.peer {
            Record::Renewed {
                certificate: encoded,
            }
        } else {
            Record::Member {
                peer,
                certificate: encoded,
            }
        };
        match self.membership.learn(certificate) {
            Learned::Nothing => return false,
            Learned::Renewed => {
                if let Some(was) = was.filter(|was| *was != name) {
                    let name = name.clone();
                    self.effects.event(Event::MemberRenamed { peer, was, name });
                }
            }
            Learned::Added { name, index } => {
                self.peers.add(peer, now);
                self.effects.event(Event::MemberAdded { peer, name, index });
                self.dial_due(now);
            }
        }
        let renamed = self.names.note(peer, &name);
        self.effects
            .store([record].into_iter().chain(renamed).collect(), after);
        true
    }

    /// Believes a revocation: keeps it, hangs up, gives up what waits for the peer.
    pub(super) fn revoke(
        &mut self,
        revocation: Revocation,
        after: Option<After>,
        now: Now,
    ) -> bool {
        let peer = revocation.peer();
        let name = self.name_of(&peer);
        let was_member = self.membership.is_known(&peer);
        let was_revoked = self.membership.is_revoked();
        let record = Record::Revocation {
            peer,
            revocation: revocation.encode(),
        };
        if !self.membership.learn_revocation(revocation) {
            return false;
        }
        self.effects.store(vec![record], after);
        if self.membership.is_revoked() && !was_revoked {
            self.effects.event(Event::Revoked);
            self.close_all("this node was removed from the mesh");
        }
        if was_member && !self.membership.is_known(&peer) {
            self.close_peer(&peer, "removed from the mesh");
            self.peers.forget(&peer);
            self.give_up_messages_to(peer, "removed", now);
            self.effects.event(Event::MemberRemoved { peer, name });
        }
        true
    }
}
