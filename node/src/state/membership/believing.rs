//! Statements of the mesh key that came from here or from elsewhere, and what follows from them.

use std::collections::BTreeSet;

use super::Learned;
use crate::{
    proto::mesh::certificate::{Certificate, Revocation},
    state::{
        State,
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
        if self.under_way.leaving {
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
                    if self.revoke(revocation, now) {
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
                    if self.keep_certificate(certificate, now) {
                        new_certificates.push(bytes);
                    }
                }
                Err(error) => self.effects.refused(None, "certificate", error.name()),
            }
        }
        (new_certificates, new_revocations)
    }

    /// Keeps a certificate that a member told, if it is new, and gets to know the member.
    pub(in crate::state) fn keep_certificate(
        &mut self,
        certificate: Certificate,
        now: Now,
    ) -> bool {
        let records = self.records_of(&certificate);
        let is_new = self.believe_certificate(certificate, now);
        if is_new {
            self.effects.store(records, None);
        }
        is_new
    }

    /// Returns the records of a certificate, and of a name that is new with it.
    pub(super) fn records_of(&self, certificate: &Certificate) -> Vec<Record> {
        let peer = certificate.terms().peer;
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
        let renamed = self.names.news(peer, certificate.terms().name.as_str());
        [record].into_iter().chain(renamed).collect()
    }

    /// Gets to know a member by its certificate, if that is new.
    fn believe_certificate(&mut self, certificate: Certificate, now: Now) -> bool {
        let peer = certificate.terms().peer;
        let name = certificate.terms().name.to_string();
        let was = self.called(&peer);
        match self.membership.learn(certificate) {
            Learned::Nothing => return false,
            Learned::Renewed => {
                if let Some(was) = was.filter(|was| *was != name) {
                    let name = name.clone();
                    self.effects.event(Event::MemberRenamed { peer, was, name });
                }
            }
            Learned::Added { name, index } => {
                self.peers.add(peer, &mut self.effects, now);
                self.effects.event(Event::MemberAdded { peer, name, index });
                self.dial_due(now);
            }
        }
        self.names.note(peer, &name);
        true
    }

    /// A certificate that was issued here is on the disk.
    pub(in crate::state) fn certificate_issued(&mut self, certificate: Certificate, now: Now) {
        let encoded = certificate.encode();
        let terms = certificate.terms();
        // Another holder of the mesh key may have issued one meanwhile, which was written behind this.
        let known = self.membership.issued_ms(&terms.peer);
        let was_overtaken = known.is_some_and(|known| known >= terms.issued_ms);
        let records = self.records_of(&certificate);
        if self.believe_certificate(certificate, now) && was_overtaken {
            self.effects.store(records, None);
        }
        self.tell_everybody(vec![encoded], vec![], now);
    }

    /// A removal that was decided here is on the disk.
    pub(in crate::state) fn revocation_issued(&mut self, revocation: Revocation, now: Now) {
        let bytes = revocation.encode();
        let record = revocation_record(&revocation);
        // One of another holder may have come meanwhile, and been written behind this one.
        let may_be_overtaken = self.membership.revocations.contains_key(&revocation.peer());
        if self.believe_revocation(revocation, now) && may_be_overtaken {
            self.effects.store(vec![record], None);
        }
        self.tell_everybody(vec![], vec![bytes], now);
    }

    /// Keeps a revocation that a member told, if it is new.
    fn revoke(&mut self, revocation: Revocation, now: Now) -> bool {
        let record = revocation_record(&revocation);
        let is_new = self.believe_revocation(revocation, now);
        if is_new {
            self.effects.store(vec![record], None);
        }
        is_new
    }

    /// Believes a revocation: hangs up, gives up what waits for the peer.
    fn believe_revocation(&mut self, revocation: Revocation, now: Now) -> bool {
        let peer = revocation.peer();
        let name = self.name_of(&peer);
        let was_member = self.membership.is_known(&peer);
        let was_revoked = self.membership.is_revoked();
        if !self.membership.learn_revocation(revocation) {
            return false;
        }
        if self.membership.is_revoked() && !was_revoked {
            self.effects.event(Event::Revoked);
            self.close_all("this node was removed from the mesh");
        }
        if was_member && !self.membership.is_known(&peer) {
            self.close_peer(&peer, "removed from the mesh");
            self.peers.forget(peer, &mut self.effects);
            self.copies.forget(&peer);
            self.give_up_messages_to(peer, "removed", now);
            self.effects.event(Event::MemberRemoved { peer, name });
        }
        true
    }
}

/// Returns the record of a revocation.
pub(super) fn revocation_record(revocation: &Revocation) -> Record {
    Record::Revocation {
        peer: revocation.peer(),
        revocation: revocation.encode(),
    }
}
