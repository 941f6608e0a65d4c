//! Letters that begin here: of a user of this gateway, and of this node to one of them.

use libp2p_identity::PeerId;

use crate::{
    proto::{
        mesh::MessageId,
        syft::{
            self, UserId,
            letter::{Addressee, Fingerprint, Letter},
        },
    },
    state::{
        After, State,
        capacity::NoRoom,
        io::{
            Endpoint, Failure, Incoming, Now, Outgoing, OutgoingKind, Place, Record, Reply,
            RequestId,
        },
        post::{LetterRecord, Posted, Told},
    },
};

/// A letter on its way to the disk.
pub(in crate::state) struct Posting {
    request: RequestId,
    here: Option<LetterRecord>,
    read: Option<Incoming>,
    carried: Vec<Outgoing>,
    fingerprint: Fingerprint,
}

impl State {
    /// Carries a letter of a user of this gateway. Who brings it has checked its signature.
    pub(in crate::state) fn post(
        &mut self,
        request: RequestId,
        user: &UserId,
        letter: Letter,
        now: Now,
    ) {
        match self.try_post(request, user, letter, now) {
            Ok(None) => {}
            Ok(Some(posted)) => {
                self.effects.count("letter_duplicate", 1);
                self.effects
                    .reply(request, Reply::Told(Told::Posted(posted)));
            }
            Err((why, failure)) => {
                self.effects.refused(None, "letter", why);
                self.effects.fail(request, failure);
            }
        }
    }

    fn try_post(
        &mut self,
        request: RequestId,
        user: &UserId,
        letter: Letter,
        now: Now,
    ) -> Result<Option<Posted>, (&'static str, Failure)> {
        let here = self.own.peer;
        let sender = self.local(&letter.from);
        if sender.as_ref() != Some(user) {
            let text = format!("You are {user} and cannot write as {}.", letter.from);
            return Err(("from", Failure::bad_request(text)));
        }
        let is_meant = self.meant(&letter.from) == Some(Endpoint::user(user.clone(), here));
        if !is_meant {
            let text = "Your name belongs to another node of the mesh: log in as user@node.";
            return Err(("name_taken", Failure::conflict(text)));
        }
        let no_room = |no_room: NoRoom| (no_room.name(), no_room.failure());
        self.check_disk().map_err(no_room)?;
        let fingerprint = letter.fingerprint();
        if self.letters.seen.contains(&fingerprint) {
            return Ok(Some(Posted::Repeated));
        }
        let mut posting = Posting {
            request,
            here: None,
            read: None,
            carried: Vec::new(),
            fingerprint,
        };
        let id = MessageId(self.effects.random());
        let frame = letter.encode();
        match &letter.to {
            Addressee::Broadcast => {
                posting.here = Some(self.kept(&letter, id, here, None, Some(user), now)?);
                let members = self.membership.members().map(|(peer, _)| peer);
                let gateways: Vec<PeerId> = members.filter(|p| self.users.is_gateway(*p)).collect();
                for node in gateways {
                    posting
                        .carried
                        .push(self.carried(node, frame.clone(), now)?);
                }
            }
            Addressee::User(name) => match self.meant(name) {
                None => {
                    let text = format!("There is no user {name}.");
                    return Err(("unknown_recipient", Failure::not_found(text)));
                }
                Some(Endpoint::Node(peer)) if peer == here => {
                    let opened = self.open_letter(&letter, id, here, user, now);
                    let opened = opened.map_err(|why| {
                        let text = format!("{name} cannot open the message.");
                        (why, Failure::bad_request(text))
                    })?;
                    let taken = self.take_share(&opened.sender, opened.text.len(), now);
                    taken.map_err(no_room)?;
                    posting.read = Some(opened);
                }
                Some(Endpoint::User(to, node)) if node == here => {
                    let kept = self.kept(&letter, id, here, Some(&to), Some(user), now)?;
                    posting.here = Some(kept);
                }
                Some(Endpoint::Node(node) | Endpoint::User(_, Place::Node(node))) => {
                    posting.carried.push(self.carried(node, frame, now)?);
                }
                // A letter is sealed for a key of the mesh, and neither of these has one.
                Some(Endpoint::User(_, Place::Server(_)) | Endpoint::Client(..)) => {
                    let text = format!("{name} takes no messages of users.");
                    return Err(("unknown_recipient", Failure::bad_request(text)));
                }
            },
        }
        self.begin_posting(posting);
        Ok(None)
    }

    fn begin_posting(&mut self, posting: Posting) {
        self.letters.see(posting.fingerprint);
        let mut records = Vec::new();
        if let Some(letter) = &posting.here {
            self.letters.keep(letter);
            records.push(Record::Letter(Box::new(letter.clone())));
        } else {
            records.push(Record::Seen(posting.fingerprint));
        }
        records.extend(posting.read.iter().cloned().map(Record::Incoming));
        records.extend(posting.carried.iter().cloned().map(Record::Outgoing));
        self.messages.reserve(&posting.carried);
        self.effects
            .store(records, Some(After::Posted(Box::new(posting))));
    }

    pub(in crate::state) fn posted(&mut self, posting: Posting, now: Now) {
        let Posting {
            request,
            here,
            read,
            carried,
            ..
        } = posting;
        let accepted = Reply::Told(Told::Posted(Posted::Accepted));
        self.effects.reply(request, accepted);
        if let Some(letter) = here {
            self.letter_is_here(&letter);
        }
        if let Some(message) = read {
            self.report_received(message);
        }
        self.queue_all(carried, now);
    }

    pub(in crate::state) fn not_posted(&mut self, posting: &Posting, reason: &str) {
        self.letters.forget(posting.fingerprint);
        if let Some(letter) = &posting.here {
            self.letters.drop_again(letter);
        }
        if let Some(message) = &posting.read {
            self.give_back_share(&message.sender, message.text.len());
        }
        self.messages.release(&posting.carried);
        self.effects
            .fail(posting.request, Failure::not_stored(reason));
    }

    /// Makes the message that carries a letter to another gateway.
    fn carried(
        &mut self,
        node: PeerId,
        frame: String,
        now: Now,
    ) -> Result<Outgoing, (&'static str, Failure)> {
        self.check_room(1, frame.len())
            .map_err(|failure| ("outbox_full", failure))?;
        let expiry = self.settings.expiry;
        Ok(self.outgoing(Place::Node(node), OutgoingKind::Letter, frame, expiry, now))
    }

    /// Makes a letter from this node itself to a user of this very gateway.
    pub(in crate::state) fn own_letter(
        &mut self,
        message: &Outgoing,
        user: &UserId,
        now: Now,
    ) -> Result<LetterRecord, Failure> {
        let here = self.own.peer;
        let no_user = || Failure::not_found(format!("there is no user `{user}`"));
        let key = self
            .key_of(&Endpoint::user(user.clone(), here))
            .ok_or_else(no_user)?;
        let to = self.known_as(user, here);
        let from = self.membership.own_terms().name.as_str();
        let own = (from, &self.own.key);
        let sealed = seal_to_user(message, &to, &key, own, &mut self.effects.rng);
        let letter = Letter::of(sealed)
            .map_err(|error| Failure::bad_request(format!("the message is none: {error}")))?;
        let kept = self.kept(&letter, message.id, here, Some(user), None, now);
        kept.map_err(|(_, failure)| failure)
    }
}

/// Seals a text of this node for a user, and signs it with the messaging key as `own` says.
pub(in crate::state) fn seal_to_user(
    message: &Outgoing,
    to: &UserId,
    key: &syft::PublicKey,
    own: (&str, &syft::SigningKey),
    rng: &mut impl rand_core::CryptoRng,
) -> syft::Message {
    let chance = syft::SealChance::from_rng(rng);
    let content = syft::seal(&message.text, key, &chance);
    syft::Message::signed(own.0, to.as_str(), content, message.created_ms, own.1)
}
