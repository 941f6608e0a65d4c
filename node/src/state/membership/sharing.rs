//! Who holds the mesh key: a holder gives it to another member, and all know who has it.

use libp2p_identity::PeerId;

use crate::{
    proto::mesh::{
        certificate::MeshKey,
        key::{Answer, Request},
        statement::{Kind, Says},
    },
    state::{
        After, Asked, State,
        io::{Event, Failure, InboundId, KeyFile, NetOutput, Now, Protocol, Reply, RequestId},
        report,
    },
};

/// The mesh key on its way to this node's disk.
pub(in crate::state) struct KeyComing {
    peer: PeerId,
    inbound: InboundId,
    key: MeshKey,
}

impl State {
    /// Gives the mesh key to a member: sealed, at once or not at all.
    pub(in crate::state) fn share_mesh_key(&mut self, request: RequestId, text: &str) {
        match self.make_share(text) {
            Ok((peer, sealed)) => {
                let id = self.effects.ask(Asked::Key { peer, request });
                self.effects.net(NetOutput::Request {
                    peer,
                    protocol: Protocol::Key,
                    id,
                    bytes: sealed.encode(),
                });
            }
            Err(failure) => self.effects.fail(request, failure),
        }
    }

    fn make_share(&mut self, text: &str) -> Result<(PeerId, Request), Failure> {
        let key = self.require_mesh_key("share the mesh key")?.clone();
        let terms = self.terms_of(text)?;
        let (peer, to, name) = (terms.peer, terms.messaging_key, terms.name.to_string());
        if peer == self.own.peer {
            return Err(Failure::bad_request("this node holds the mesh key already"));
        }
        if !self.links.is_open(&peer) {
            return Err(
                Failure::unavailable(format!("`{name}` is not connected")).with_hint(
                    "the key is given at once or not at all; `pimesh peers` shows who is up",
                ),
            );
        }
        let chance = crate::proto::syft::SealChance::from_rng(&mut self.effects.rng);
        Ok((peer, Request::seal(&key, &to, &chance)))
    }

    /// The member has the key on disk, or why not.
    pub(in crate::state) fn key_answered(
        &mut self,
        peer: &PeerId,
        request: RequestId,
        result: Result<Vec<u8>, String>,
    ) {
        let name = self.name_of(peer);
        let answer = result.and_then(|bytes| Answer::decode(&bytes).map_err(|e| e.to_string()));
        let failure = match answer {
            Ok(Answer::Stored) => {
                let reply = Reply::KeyShared(report::KeyShared {
                    name,
                    peer_id: *peer,
                });
                return self.effects.reply(request, reply);
            }
            Ok(Answer::TryAgain) => {
                Failure::unavailable(format!("`{name}` could not put the mesh key on its disk"))
                    .with_hint("its log says why; try again afterwards")
            }
            Ok(Answer::Refused) => Failure::conflict(format!("`{name}` refused the mesh key"))
                .with_hint("its log says why"),
            Err(reason) => Failure::unavailable(format!(
                "`{name}` did not answer for the mesh key: {reason}"
            ))
            .with_hint(
                "an older pimesh does not know how to take it: update it, or use `pimesh \
                         mesh-key export` and `import`",
            ),
        };
        self.effects.fail(request, failure);
    }

    /// A member gives this node the mesh key. Only the key of this very mesh is taken, so a
    /// member can do no harm with it. It counts when it is on disk.
    pub(in crate::state) fn key_request(
        &mut self,
        peer: PeerId,
        id: InboundId,
        bytes: &[u8],
        now: Now,
    ) {
        let read = || Request::decode(bytes);
        let Some(request) = self.request_of(peer, id, "mesh_key", read, now) else {
            return;
        };
        let key = request.open(&self.own.key);
        let key = key.filter(|key| key.mesh() == *self.membership.mesh());
        let Some(key) = key.filter(|_| !self.membership.is_revoked()) else {
            self.effects
                .refused(Some(peer), "mesh_key", "not_this_mesh");
            return self.answer_key(id, Answer::Refused);
        };
        if self.membership.key.is_some() {
            return self.answer_key(id, Answer::Stored);
        }
        if self.under_way.key_coming || self.under_way.leaving {
            return self.answer_key(id, Answer::TryAgain);
        }
        self.under_way.key_coming = true;
        let coming = KeyComing {
            peer,
            inbound: id,
            key: key.clone(),
        };
        let after = After::KeyKept(Box::new(coming));
        self.effects.key_file(KeyFile::Keep(key), Some(after));
    }

    pub(in crate::state) fn mesh_key_kept(&mut self, coming: KeyComing, now: Now) {
        let KeyComing { peer, inbound, key } = coming;
        self.under_way.key_coming = false;
        if key.mesh() == *self.membership.mesh() {
            let name = self.name_of(&peer);
            self.membership.key = Some(key);
            self.effects.event(Event::MeshKeyReceived { peer, name });
            self.announce_holding(now);
        }
        self.answer_key(inbound, Answer::Stored);
    }

    pub(in crate::state) fn mesh_key_not_kept(&mut self, coming: &KeyComing) {
        self.under_way.key_coming = false;
        self.answer_key(coming.inbound, Answer::TryAgain);
    }

    /// The file of a mesh key that was shared would come behind that of another mesh.
    pub(super) fn check_key_is_kept(&self) -> Result<(), Failure> {
        if self.under_way.key_coming {
            let text = "the mesh key that another member shared is being written";
            return Err(Failure::conflict(text).with_hint("try again in a few seconds"));
        }
        Ok(())
    }

    fn answer_key(&mut self, id: InboundId, answer: Answer) {
        let bytes = answer.encode();
        self.effects.net(NetOutput::Respond { id, bytes });
    }

    /// The key file was looked at again: a key of this mesh counts from here on.
    pub(in crate::state) fn mesh_key_file(
        &mut self,
        key: Option<MeshKey>,
        exported: bool,
        now: Now,
    ) {
        if let Some(key) = key.filter(|key| key.mesh() == *self.membership.mesh()) {
            self.membership.key = Some(key);
            self.membership.key_exported = exported;
        }
        self.announce_holding(now);
    }

    /// States that this node holds the mesh key, if it does and that is not stated yet.
    pub(in crate::state) fn announce_holding(&mut self, now: Now) {
        let Some(key) = self.membership.key.clone() else {
            return;
        };
        // Of a mesh that is being left, nothing is stated any more.
        if self.membership.is_revoked() || self.under_way.leaving {
            return;
        }
        let exported = self.membership.key_exported;
        let stated = self.membership.said(Kind::Holder, &self.own.peer);
        if stated.is_some_and(|stated| *stated.says() == Says::Holder { exported }) {
            return;
        }
        let after = stated.map_or(0, |stated| stated.at_ms().saturating_add(1));
        let issued_ms = self.membership.own_terms().issued_ms;
        let at_ms = now.unix_ms().max(after).max(issued_ms);
        let statement = key.state_holder(self.own.peer, exported, at_ms);
        let told = statement.encode();
        let is_alone = self.membership.members().next().is_none();
        if self.keep_statement(statement, now) && !is_alone {
            self.tell_statements(vec![told], now);
        }
    }

    /// Returns the names of those who are known to hold the mesh key.
    pub(in crate::state) fn holder_names(&self) -> Vec<String> {
        let holders = self.membership.holders();
        holders.iter().map(|peer| self.name_of_any(peer)).collect()
    }

    /// Says what is wrong with where the mesh key is.
    pub(in crate::state) fn mesh_key_warning(&self) -> Option<report::MeshKeyWarning> {
        if self.membership.is_revoked() {
            return None;
        }
        let warnings = [self.too_few_holders(), self.removed_holders()];
        let (problems, todos): (Vec<String>, Vec<String>) = warnings.into_iter().flatten().unzip();
        (!problems.is_empty()).then(|| report::MeshKeyWarning {
            problem: problems.join("; and "),
            todo: todos.join("; and "),
        })
    }

    /// Says what is wrong, and what to do, if the key may be lost.
    fn too_few_holders(&self) -> Option<(String, String)> {
        if self.membership.members().next().is_none() {
            return self.membership.key.is_none().then(|| {
                (
                    "this node is alone in its mesh and does not hold the mesh key, so it can invite \
                     nobody"
                        .to_owned(),
                    "`pimesh mesh-key import FILE` brings an exported key back; without one, \
                     `pimesh leave` makes a new mesh, and `pimesh join TICKET` enters another"
                        .to_owned(),
                )
            });
        }
        match self.holder_names().as_slice() {
            [] => Some((
                "no member is known to hold the mesh key".to_owned(),
                "if the machine that held it is lost: let one member `pimesh leave` and invite \
                 the others into its new mesh"
                    .to_owned(),
            )),
            [name] if !self.membership.is_exported() => Some((
                format!("`{name}` alone holds the mesh key, and never exported it"),
                "if it is lost, nobody can invite or remove: run `pimesh mesh-key share NAME` or \
                 `pimesh mesh-key export FILE` there"
                    .to_owned(),
            )),
            _ => None,
        }
    }

    /// Says what is wrong, and what to do, if somebody who is no member has the key.
    fn removed_holders(&self) -> Option<(String, String)> {
        let holders = self.membership.removed_holders();
        let names: Vec<String> = holders.iter().map(|peer| self.name_of_any(peer)).collect();
        (!names.is_empty()).then(|| {
            (
                format!(
                    "`{}` was removed and still has the mesh key: with it, others can be let in \
                     and members removed",
                    names.join("`, `")
                ),
                "if that is not to be, found a new mesh: `pimesh leave` on one member, and invite \
                 the others into its mesh"
                    .to_owned(),
            )
        })
    }
}
