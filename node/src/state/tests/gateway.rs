//! The gateway for Syft agents: names, letters, and what members tell each other of their users.

use super::*;
use crate::{
    proto::{
        mesh::{
            NodeName,
            direct::Kind,
            users::{Request as UsersRequest, ToldUser},
        },
        syft::{
            UserId,
            http::NewUser,
            letter::{Letter, numbered},
        },
    },
    state::{
        io::FailureKind,
        names::Meant,
        post::{Ask, Posted, Stage, Told},
    },
};

pub(super) fn id(text: &str) -> UserId {
    text.parse().expect("a user id")
}

/// The key of a user: made of the first letter of his name.
fn user_key(name: &str) -> syft::SigningKey {
    syft::SigningKey::from_seed(&[name.as_bytes()[0]; 32])
}

pub(super) fn ask(state: &mut State, ask: Ask) -> Vec<Output> {
    feed(state, Input::Control(RequestId(7), ask.into()))
}

fn told(outputs: &[Output]) -> Option<Result<Told, Failure>> {
    outputs.iter().find_map(|output| match output {
        Output::Reply(_, Ok(Reply::Told(told))) => Some(Ok(told.clone())),
        Output::Reply(_, Err(failure)) => Some(Err(failure.clone())),
        _ => None,
    })
}

pub(super) fn ticket(outputs: &[Output]) -> Option<Ticket> {
    outputs.iter().find_map(ticket_of)
}

pub(super) fn ticket_of(output: &Output) -> Option<Ticket> {
    match output {
        Output::Store(ticket, _) => Some(*ticket),
        _ => None,
    }
}

/// Asks, and writes to disk what is to be written.
pub(super) fn done(state: &mut State, what: Ask) -> Result<Told, Failure> {
    let mut outputs = ask(state, what);
    let tickets: Vec<Ticket> = outputs.iter().filter_map(ticket_of).collect();
    for ticket in tickets {
        outputs.extend(feed(state, Input::Stored(ticket)));
    }
    told(&outputs).expect("an answer")
}

fn new_user(name: &str) -> Ask {
    let user = NewUser {
        id: id(name),
        title: String::new(),
        key: *user_key(name).public(),
    };
    Ask::Register { user, stays: true }
}

pub(super) fn register(state: &mut State, name: &str) -> Result<Told, Failure> {
    done(state, new_user(name))
}

/// Returns what happens when a registration is on disk.
fn registered(state: &mut State, name: &str) -> Vec<Output> {
    let outputs = ask(state, new_user(name));
    let ticket = ticket(&outputs).expect("records");
    feed(state, Input::Stored(ticket))
}

/// The requests in which members are told of users and of letters that were read.
fn requests(outputs: &[Output]) -> Vec<(OutboundId, UsersRequest)> {
    let request = |output: &Output| match output {
        Output::Net(NetOutput::Request {
            protocol: Protocol::Users,
            id,
            bytes,
            ..
        }) => Some((*id, UsersRequest::decode(bytes).expect("a request"))),
        _ => None,
    };
    outputs.iter().filter_map(request).collect()
}

pub(super) fn letter_of(from: &str, to: &str, number: u64, signer: &str) -> Letter {
    let content = if to == "broadcast" {
        "hello".to_owned()
    } else {
        let chance = &mut rand_chacha::ChaCha20Rng::from_seed([1; 32]);
        let key = *user_key(to).public();
        syft::seal("hello", &key, &syft::SealChance::from_rng(chance))
    };
    let unix_ms = NOW.unix_ms() + 4 * number;
    let message = syft::Message::signed(from, to, content, unix_ms, &user_key(signer));
    Letter::of(message).expect("a letter")
}

pub(super) fn post(from: &str, to: &str, number: u64) -> Ask {
    Ask::Post {
        user: id(from),
        letter: Box::new(letter_of(from, to, number, from)),
    }
}

/// A message of a user of the node to the node itself.
pub(super) fn post_to_node(from: &str, number: u64) -> Command {
    let chance = &mut rand_chacha::ChaCha20Rng::from_seed([1; 32]);
    let chance = syft::SealChance::from_rng(chance);
    let content = syft::seal("hello", messaging_key(1).public(), &chance);
    let unix_ms = NOW.unix_ms() + 4 * number;
    let message = syft::Message::signed(from, "pi-1", content, unix_ms, &user_key(from));
    let ask = Ask::Post {
        user: id(from),
        letter: Box::new(Letter::of(message).expect("a letter")),
    };
    ask.into()
}

/// A node with a gateway, and the member with seed 2 connected.
pub(super) fn gateway() -> State {
    gateway_with(Settings::default())
}

pub(super) fn gateway_with(settings: Settings) -> State {
    let mut state = state(settings);
    open(&mut state);
    for name in ["alice", "bob"] {
        assert_eq!(register(&mut state, name), Ok(Told::Registered));
    }
    state
}

pub(super) fn told_user(name: &str, registered_ms: u64) -> ToldUser {
    ToldUser {
        id: id(name),
        title: String::new(),
        key: *user_key(name).public(),
        registered_ms,
        descriptions: syft::Descriptions::default(),
        online: true,
    }
}

/// Has the member with seed 2 tell of its users.
pub(super) fn hear(state: &mut State, users: Vec<ToldUser>) -> Vec<Output> {
    let request = UsersRequest {
        users,
        read: Vec::new(),
    };
    hear_request(state, &request)
}

fn hear_request(state: &mut State, request: &UsersRequest) -> Vec<Output> {
    hear_from(state, 2, request)
}

fn hear_from(state: &mut State, seed: u8, request: &UsersRequest) -> Vec<Output> {
    feed(
        state,
        Input::Net(NetInput::Request {
            peer: peer_of_seed(seed),
            protocol: Protocol::Users,
            id: InboundId(50),
            bytes: request.encode(),
        }),
    )
}

/// Has the member with seed 2 bring a letter; returns what becomes of it.
pub(super) fn bring(state: &mut State, letter: &Letter, sequence: u64) -> Status {
    let request = brought(letter, sequence);
    let mut outputs = feed(
        state,
        Input::Net(NetInput::Request {
            peer: peer_of_seed(2),
            protocol: Protocol::Direct,
            id: InboundId(9),
            bytes: request.encode(),
        }),
    );
    if let Some(ticket) = ticket(&outputs) {
        outputs = feed(state, Input::Stored(ticket));
    }
    answer_of(&outputs).0.expect("an answer")
}

/// The request in which the member with seed 2 brings a letter.
pub(super) fn brought(letter: &Letter, sequence: u64) -> DirectRequest {
    let frame = Frame {
        id: MessageId([9; 16]),
        sender: peer_of_seed(2),
        recipient: peer_of_seed(1),
        epoch: 5,
        sequence,
        created_ms: NOW.unix_ms(),
        expires_ms: NOW.unix_ms() + 1000,
        syft: letter.encode().into_bytes(),
        kind: Kind::Letter,
    };
    DirectRequest {
        messages: vec![frame.sign(&messaging_key(2))],
    }
}

fn known_as(state: &mut State, user: &str, node: &str) -> String {
    let Ok(Told::Everybody(users)) = done(state, Ask::Everybody) else {
        panic!("everybody")
    };
    let fits = |u: &&crate::state::post::User| u.user == user && u.node == node;
    users.iter().find(fits).expect("known").name.clone()
}

/// Has the member with this seed tell of a user, whose key it chose.
fn claim(state: &mut State, seed: u8, name: &str, registered_ms: u64) -> Vec<Output> {
    let mut user = told_user(name, registered_ms);
    user.key = *syft::SigningKey::from_seed(&[seed; 32]).public();
    let request = UsersRequest {
        users: vec![user],
        read: Vec::new(),
    };
    hear_from(state, seed, &request)
}

/// The mesh of [`gateway`], with a third member.
fn three() -> State {
    let mut state = gateway();
    state.learn_statements(vec![certificate(3).encode()], vec![], NOW);
    state
}

fn found_key(state: &mut State, name: &str) -> Option<syft::PublicKey> {
    match done(state, Ask::Find { name: id(name) }) {
        Ok(Told::Found(found)) => found.map(|found| found.key),
        other => panic!("found or not, not {other:?}"),
    }
}

fn conflicts(outputs: &[Output]) -> usize {
    let is_news = |o: &&Output| matches!(o, Output::Event(Event::NameConflict { .. }));
    outputs.iter().filter(is_news).count()
}

#[test]
fn a_name_means_whom_this_node_heard_of_first_whatever_the_others_write() {
    let mut state = three();
    let first = *syft::SigningKey::from_seed(&[2; 32]).public();
    assert_eq!(conflicts(&claim(&mut state, 2, "carol", 5_000)), 0);

    for registered_ms in [0, 5, 4_999, NOW.unix_ms(), u64::MAX] {
        let outputs = claim(&mut state, 3, "carol", registered_ms);

        assert_eq!(found_key(&mut state, "carol"), Some(first));
        assert_eq!(known_as(&mut state, "carol", "pi-2"), "carol");
        assert_eq!(known_as(&mut state, "carol", "pi-3"), "carol@pi-3");
        // It is told when it is heard of, and not each time.
        assert_eq!(conflicts(&outputs), usize::from(registered_ms == 0));
    }
}

#[test]
fn nobody_takes_a_name_from_a_user_at_his_own_gateway() {
    for registered_ms in [0, 5, NOW.unix_ms() - 1] {
        let mut state = three();
        let outputs = claim(&mut state, 2, "alice", registered_ms);

        let own = Some(*user_key("alice").public());
        assert_eq!(found_key(&mut state, "alice"), own);
        assert_eq!(known_as(&mut state, "alice", "pi-2"), "alice@pi-2");
        assert_eq!(conflicts(&outputs), 1);
        let told = outputs.iter().find_map(|output| match output {
            Output::Event(Event::TellUser { user, text }) => Some((user.as_str(), text)),
            _ => None,
        });
        let (user, text) = told.expect("she has to know");
        assert_eq!(user, "alice");
        assert!(
            text.contains("alice@pi-1") && text.contains("node pi-2"),
            "{text}"
        );
        // A third claim is no news for her.
        let again = claim(&mut state, 3, "alice", 0);
        let tells = |o: &Output| matches!(o, Output::Event(Event::TellUser { .. }));
        assert!(!again.iter().any(tells));
        let posted = done(&mut state, post("alice", "bob", 1));
        assert_eq!(
            posted,
            Ok(Told::Posted(Posted::Accepted)),
            "she writes as before"
        );
    }
}

#[test]
fn a_name_whose_node_is_gone_means_nobody_until_the_owner_says_whom() {
    let mut state = three();
    claim(&mut state, 2, "carol", 1);
    claim(&mut state, 3, "carol", 2);
    let until = certificate(2).terms().issued_ms;
    let removed = mesh_key().revoke(peer_of_seed(2), until);
    state.learn_statements(vec![], vec![removed.encode()], NOW);
    outputs(&mut state);

    assert_eq!(found_key(&mut state, "carol"), None);
    let refused = state.recipient("carol").expect_err("nobody knows whom");
    assert_eq!(refused.kind, FailureKind::Conflict);
    assert!(refused.message.contains("carol@pi-3"), "{refused:?}");
    assert!(state.recipient("carol@pi-3").is_ok());

    let trust = Command::Trust {
        who: "carol@pi-3".to_owned(),
        name: true,
    };
    let asked = feed(&mut state, Input::Control(RequestId(1), trust.clone()));
    let failed = ticket(&asked).expect("records");
    feed(&mut state, Input::StoreFailed(failed, "full".to_owned()));
    assert_eq!(found_key(&mut state, "carol"), None, "it is not on disk");

    let asked = feed(&mut state, Input::Control(RequestId(2), trust));
    feed(&mut state, Input::Stored(ticket(&asked).expect("records")));
    let third = *syft::SigningKey::from_seed(&[3; 32]).public();
    assert_eq!(found_key(&mut state, "carol"), Some(third));
    assert_eq!(known_as(&mut state, "carol", "pi-3"), "carol");
}

#[test]
fn the_owner_s_word_moves_a_name_but_never_from_an_own_user_or_a_node() {
    let mut state = three();
    claim(&mut state, 2, "carol", 1);
    claim(&mut state, 3, "carol", 2);
    claim(&mut state, 2, "alice", 1);
    claim(&mut state, 2, "pi-3", 1);
    let mut trust = |who: &str| {
        let who = who.to_owned();
        let command = Command::Trust { who, name: true };
        let asked = feed(&mut state, Input::Control(RequestId(1), command));
        match ticket(&asked) {
            Some(ticket) => feed(&mut state, Input::Stored(ticket)),
            None => asked,
        }
    };

    let moved = trust("carol@pi-3");
    for who in ["alice@pi-2", "pi-3@pi-2", "nobody@pi-2", "pi-2"] {
        assert!(failure(&trust(who)).is_some(), "{who}");
    }

    assert!(matches!(
        moved.last(),
        Some(Output::Reply(_, Ok(Reply::Trusted(_))))
    ));
    assert_eq!(known_as(&mut state, "carol", "pi-3"), "carol");
    assert_eq!(known_as(&mut state, "carol", "pi-2"), "carol@pi-2");
}

#[test]
fn a_user_called_like_a_node_or_like_another_s_full_name_takes_nothing() {
    let mut state = three();
    claim(&mut state, 2, "bob@pi-1", 0);
    claim(&mut state, 2, "pi-3", 0);
    claim(&mut state, 3, "dora", 0);
    claim(&mut state, 2, "dora@pi-3", 0);

    let key = |seed| Some(*syft::SigningKey::from_seed(&[seed; 32]).public());
    assert_eq!(
        found_key(&mut state, "bob@pi-1"),
        Some(*user_key("bob").public())
    );
    assert_eq!(
        found_key(&mut state, "pi-3"),
        Some(*messaging_key(3).public())
    );
    assert_eq!(found_key(&mut state, "dora@pi-3"), key(3));
}

#[test]
fn a_user_of_a_configured_server_is_nobody_else() {
    let mut state = gateway_with(Settings {
        servers: vec!["work".parse().expect("a name")],
        ..Settings::default()
    });
    claim(&mut state, 2, "carol@work", 0);

    let Ok(Meant::User(user, server)) = state.recipient("carol@work") else {
        panic!("the owner of this node named the server")
    };
    assert_eq!(user, id("carol"));
    assert_ne!(server, peer_of_seed(2));
    assert_eq!(found_key(&mut state, "carol@work"), None);
    let refused = register(&mut state, "dora@work").map_err(|failure| failure.kind);
    assert_eq!(refused, Err(FailureKind::Conflict));
}

#[test]
fn a_node_that_is_called_like_a_user_takes_no_messages_of_his() {
    let mut state = gateway();
    claim(&mut state, 2, "pi-3", 1);
    state.learn_statements(vec![certificate(3).encode()], vec![], NOW);

    let refused = state.recipient("pi-3").expect_err("either could be meant");
    assert_eq!(refused.kind, FailureKind::Conflict);
    assert_eq!(
        state.recipient("pi-3@pi-3"),
        Ok(Meant::Member(peer_of_seed(3)))
    );
    let user = Meant::User(id("pi-3"), peer_of_seed(2));
    assert_eq!(state.recipient("pi-3@pi-2"), Ok(user.clone()));
    // Who asks for a user goes on to find the one that he has written to all the time.
    assert_eq!(state.meant(&id("pi-3")), Some(user));
}

#[test]
fn a_user_keeps_an_id_that_ends_like_a_new_node_s_name() {
    let mut state = three();
    register(&mut state, "alice@pi-9").expect("no node is called so");
    let evil = mesh_key().issue(Terms {
        name: "pi-9".parse().expect("a name"),
        ..certificate(3).terms().clone()
    });
    let later = Terms {
        issued_ms: evil.terms().issued_ms + 1,
        ..evil.terms().clone()
    };
    state.learn_statements(vec![mesh_key().issue(later).encode()], vec![], NOW);
    claim(&mut state, 3, "alice", 1);

    let own = Some(*user_key("alice@pi-9").public());
    assert_eq!(found_key(&mut state, "alice@pi-9"), own);
    assert_eq!(
        done(&mut state, post("alice@pi-9", "bob", 1)),
        Ok(Told::Posted(Posted::Accepted))
    );
}

#[test]
fn a_sender_whose_name_means_nobody_holds_up_no_other_message() {
    let mut state = gateway_with(Settings {
        servers: vec!["work".parse().expect("a name")],
        ..Settings::default()
    });
    hear(&mut state, vec![told_user("x@work", 1)]);

    let letter = letter_of("x@work", "bob", 1, "x@work");

    assert_eq!(bring(&mut state, &letter, 1), Status::WrongSender);
}

#[test]
fn names_of_former_nodes_peer_ids_and_earlier_claims_are_free_for_nobody() {
    let mut state = three();
    let until = certificate(3).terms().issued_ms;
    let removed = mesh_key().revoke(peer_of_seed(3), until);
    state.learn_statements(vec![], vec![removed.encode()], NOW);
    let peer_id = peer_of_seed(9).to_string();
    for name in ["pi-3", "dora@pi-3", &peer_id] {
        claim(&mut state, 2, name, 0);
        assert_eq!(found_key(&mut state, name), None, "{name}");
        assert!(
            register(&mut state, name).is_ok() == (name != peer_id),
            "{name}"
        );
    }
    // One that was heard before, and had the name from nobody, is no worse than a later one.
    let mut state = three();
    claim(&mut state, 2, "pi-4", 0);
    let entry = state.users.get_mut(&id("pi-4"), peer_of_seed(2));
    entry.expect("heard").record.holds_name = false;
    claim(&mut state, 3, "pi-4", 0);
    assert_eq!(found_key(&mut state, "pi-4"), None);
}

#[test]
fn no_newcomer_gets_a_name_or_an_index_that_somebody_behind_a_gateway_has() {
    let mut state = three();
    claim(&mut state, 2, "kitchen", 1);
    let wished = "kitchen".parse().expect("a name");
    claim(&mut state, 2, "dora@example", 1);
    for used in ["kitchen", "example"] {
        assert!(
            state.is_name_in_use(&used.parse().expect("a name")),
            "{used}"
        );
    }
    let is_used = |name: &NodeName| state.is_name_in_use(name);
    assert_eq!(
        state.membership.free_name(&wished, is_used).as_str(),
        "kitchen-2"
    );
    let command = Command::ClientIndices([Index(4), Index(5)].into());
    feed(&mut state, Input::Control(RequestId(1), command));
    let mut invite = |index: Option<i32>, name: Option<&str>| {
        let command = Command::Invite(Wanted {
            index: index.map(Index),
            name: name.map(str::to_owned),
            ..Wanted::default()
        });
        let asked = feed(&mut state, Input::Control(RequestId(2), command));
        let stored = feed(&mut state, Input::Stored(ticket(&asked).expect("records")));
        let invited = stored.into_iter().find_map(|output| match output {
            Output::Reply(_, Ok(Reply::Invited(invite))) => Some(invite),
            _ => None,
        });
        let invite = invited.expect("a ticket");
        (invite.index.0, invite.warning.unwrap_or_default())
    };

    let (free, _) = invite(None, None);
    let (wanted, warning) = invite(Some(5), Some("kitchen"));

    assert_eq!(free, 6, "1 to 3 are members'");
    assert_eq!(wanted, 5, "what is asked for is given");
    assert!(
        warning.contains("index 5") && warning.contains("`kitchen`"),
        "{warning}"
    );
}

#[test]
fn no_name_is_given_that_means_somebody_already() {
    let mut state = gateway();
    hear(&mut state, vec![told_user("carol", NOW.unix_ms())]);
    for name in ["carol", "pi-1", "pi-2", "x@pi-2", "x@pi-1"] {
        let refused = register(&mut state, name).map_err(|failure| failure.kind);
        assert_eq!(refused, Err(FailureKind::Conflict), "{name}");
    }
}

#[test]
fn a_user_who_registers_again_has_the_same_key_or_is_refused() {
    let mut state = gateway();
    let user = NewUser {
        id: id("alice"),
        title: String::new(),
        key: *user_key("xavier").public(),
    };
    assert_eq!(register(&mut state, "alice"), Ok(Told::Registered));
    let refused = done(&mut state, Ask::Register { user, stays: false }).map_err(|f| f.kind);
    assert_eq!(refused, Err(FailureKind::Conflict));
    let Ok(Told::Found(Some(found))) = done(&mut state, Ask::Find { name: id("alice") }) else {
        panic!("alice is known")
    };
    assert_eq!(
        found.key,
        *user_key("alice").public(),
        "the first key stays"
    );
}

#[test]
fn a_letter_is_accepted_once_it_is_on_disk_and_not_before() {
    let mut state = gateway();
    let outputs = ask(&mut state, post("alice", "bob", 1));
    assert_eq!(told(&outputs), None);
    let ticket = ticket(&outputs).expect("records");
    let outputs = feed(&mut state, Input::Stored(ticket));
    let accepted = Ok(Told::Posted(Posted::Accepted));
    assert_eq!(told(&outputs), Some(accepted));

    let outputs = ask(&mut state, post("alice", "bob", 2));
    let failed = self::ticket(&outputs).expect("records");
    let input = Input::StoreFailed(failed, "full".to_owned());
    let outputs = feed(&mut state, input);
    assert!(matches!(told(&outputs), Some(Err(_))));
    let again = done(&mut state, post("alice", "bob", 2));
    assert_eq!(again, Ok(Told::Posted(Posted::Accepted)), "it is not known");
}

#[test]
fn a_letter_that_comes_again_is_carried_once() {
    let mut state = gateway();
    let first = done(&mut state, post("alice", "bob", 1));
    assert_eq!(first, Ok(Told::Posted(Posted::Accepted)));
    let again = ask(&mut state, post("alice", "bob", 1));
    assert_eq!(told(&again), Some(Ok(Told::Posted(Posted::Repeated))));
    assert_eq!(ticket(&again), None);
}

#[test]
fn a_full_mailbox_is_told_and_has_room_again_when_letters_were_taken() {
    let mut state = gateway();
    state.settings.letters.count_max = 2;
    for number in 0..2 {
        done(&mut state, post("alice", "bob", number)).expect("room");
    }
    let full = done(&mut state, post("alice", "bob", 3)).map_err(|f| f.kind);
    assert_eq!(full, Err(FailureKind::Unavailable));
    let outputs = ask(
        &mut state,
        Ask::Taken {
            user: id("bob"),
            row: 1,
        },
    );
    let read = outputs.iter().filter(
        |output| matches!(output, Output::Event(Event::Letter(news)) if news.stage == Stage::Read),
    );
    assert_eq!(read.count(), 1);
    assert!(done(&mut state, post("alice", "bob", 3)).is_ok());
}

#[test]
fn a_mailbox_holds_as_many_bytes_as_it_may_and_not_one_more() {
    let bytes = |number| letter_of("alice", "bob", number, "alice").encode().len();
    for (missing, expected) in [(0, None), (1, Some(FailureKind::Unavailable))] {
        let mut state = gateway();
        state.settings.letters.bytes_max = bytes(1) + bytes(2) - missing;
        done(&mut state, post("alice", "bob", 1)).expect("room");
        let second = done(&mut state, post("alice", "bob", 2));
        assert_eq!(second.err().map(|f| f.kind), expected, "{missing} missing");
    }
}

#[test]
fn the_node_itself_opens_signed_letters_only() {
    let letter = |from: &str, is_signed: bool| {
        let chance = &mut rand_chacha::ChaCha20Rng::from_seed([1; 32]);
        let chance = syft::SealChance::from_rng(chance);
        let content = syft::seal("hello", messaging_key(1).public(), &chance);
        let key = user_key(from);
        let mut message = syft::Message::signed(from, "pi-1", content, NOW.unix_ms(), &key);
        message.signature = message.signature.filter(|_| is_signed);
        Letter::of(message).expect("a letter")
    };
    let mut state = gateway();
    hear(&mut state, vec![told_user("carol", NOW.unix_ms())]);
    let mut post = |is_signed| {
        let ask = Ask::Post {
            user: id("alice"),
            letter: Box::new(letter("alice", is_signed)),
        };
        done(&mut state, ask).map_err(|f| f.kind)
    };
    assert_eq!(post(false), Err(FailureKind::BadRequest));
    assert_eq!(post(true), Ok(Told::Posted(Posted::Accepted)));
    let unsigned = bring(&mut state, &letter("carol", false), 1);
    assert_eq!(unsigned, Status::CannotOpen);
    let signed = bring(&mut state, &letter("carol", true), 2);
    assert_eq!(signed, Status::Stored);
}

#[test]
fn what_a_gateway_brings_is_judged_by_the_pinned_key_of_its_own_users() {
    let mut state = gateway();
    let letter = |from: &str, number, signer: &str| letter_of(from, "bob", number, signer);
    // Its news of carol may still be on the way.
    let early = bring(&mut state, &letter("carol", 1, "carol"), 1);
    assert_eq!(early, Status::TryAgain);
    hear(&mut state, vec![told_user("carol", NOW.unix_ms())]);
    let cases = [
        ("carol", "carol", Status::Stored),
        ("carol", "xavier", Status::WrongSignature),
        ("alice", "alice", Status::WrongSender),
        ("pi-1", "alice", Status::WrongSender),
        ("pi-2", "alice", Status::WrongSignature),
    ];
    for (sequence, (from, signer, expected)) in (10..).zip(cases) {
        let status = bring(&mut state, &letter(from, 5, signer), sequence);
        assert_eq!(status, expected, "{from} signed by {signer}");
    }
    let mut changed = told_user("carol", NOW.unix_ms());
    changed.key = *user_key("xavier").public();
    let outputs = hear(&mut state, vec![changed]);
    let is_news = |o: &Output| matches!(o, Output::Event(Event::UserKeyChanged { .. }));
    assert!(outputs.iter().any(is_news));
    let status = bring(&mut state, &letter("carol", 6, "xavier"), 99);
    assert_eq!(status, Status::WrongSignature, "the first key counts");
}

#[test]
fn a_letter_that_two_gateways_bring_is_kept_once_and_its_mark_moves() {
    let mut state = gateway();
    hear(&mut state, vec![told_user("carol", NOW.unix_ms())]);
    let letter = letter_of("carol", "bob", 1, "carol");
    assert_eq!(bring(&mut state, &letter, 1), Status::Stored);
    assert_eq!(bring(&mut state, &letter, 2), Status::Stored);
    assert_eq!(bring(&mut state, &letter, 2), Status::Duplicate);
    assert_eq!(state.letters.count_for(&id("bob"), true), 1);
}

#[test]
fn members_are_told_of_users_one_request_at_a_time() {
    let mut state = state(Settings::default());
    open(&mut state);
    let mut all = Vec::new();
    for name in ["alice", "bob", "carol"] {
        all.extend(registered(&mut state, name));
    }
    let first = requests(&all);
    assert_eq!(first.len(), 1, "{first:?}");
    // It gets lost; everything goes again half a second later.
    let result = Err("lost".to_owned());
    let id = first[0].0;
    let outputs = feed(&mut state, Input::Net(NetInput::Response { id, result }));
    assert!(requests(&outputs).is_empty());
    state.handle_timeout(later(Duration::from_millis(500)));
    let again = requests(&super::outputs(&mut state));
    assert_eq!(again.len(), 1);
    let names: Vec<&str> = again[0].1.users.iter().map(|u| u.id.as_str()).collect();
    assert_eq!(names, ["alice", "bob", "carol"]);
}

#[test]
fn that_a_letter_was_read_is_noted_where_it_is_from() {
    let mut state = state(Settings::default());
    open(&mut state);
    let under_way = requests(&registered(&mut state, "alice"))[0].0;
    registered(&mut state, "bob");
    hear(&mut state, vec![told_user("carol", NOW.unix_ms())]);
    let brought = bring(&mut state, &letter_of("carol", "bob", 1, "carol"), 1);
    assert_eq!(brought, Status::Stored);
    done(&mut state, post("alice", "bob", 2)).expect("room");

    let (user, row) = (id("bob"), 2);
    let outputs = ask(&mut state, Ask::Taken { user, row });

    let carols = MessageId([9; 16]);
    let is_alices = |record: &Record| matches!(record, Record::Read { id, .. } if *id != carols);
    let is_carols = |record: &Record| matches!(record, Record::Read { id, .. } if *id == carols);
    let records = outputs.iter().find_map(|output| match output {
        Output::Store(_, records) => Some(records),
        _ => None,
    });
    let records = records.expect("that he has them");
    assert!(records.iter().any(is_alices) && !records.iter().any(is_carols));
    // What is under way gets lost, and the next request tells of the other letter, too.
    let result = Err("lost".to_owned());
    let lost = NetInput::Response {
        id: under_way,
        result,
    };
    feed(&mut state, Input::Net(lost));
    state.handle_timeout(later(Duration::from_millis(500)));
    let told = requests(&super::outputs(&mut state));
    assert_eq!(told[0].1.read, [carols]);
}

#[test]
fn when_a_connection_is_lost_the_users_behind_it_are_offline() {
    let mut state = gateway();
    hear(&mut state, vec![told_user("carol", NOW.unix_ms())]);
    let outputs = feed(
        &mut state,
        Input::Net(NetInput::Disconnected {
            peer: peer_of_seed(2),
            connection: Connection(1),
            reason: "pulled".to_owned(),
        }),
    );
    let is_offline = |o: &Output| matches!(o, Output::Event(Event::Presence { name, online: false }) if name == "carol");
    assert!(outputs.iter().any(is_offline));
}

#[test]
fn the_numbers_of_frames_are_rows() {
    let letter = letter_of("alice", "bob", 1, "alice");
    assert!(numbered(3, &letter.encode()).starts_with(r#"{"id":3,"from":"alice""#));
}

#[test]
fn broadcasts_beyond_the_limit_go_and_the_oldest_first() {
    let mut state = gateway();
    for number in 0..1000 {
        done(&mut state, post("alice", "broadcast", number)).expect("room");
    }
    let outputs = ask(&mut state, post("alice", "broadcast", 1000));
    let ticket = ticket(&outputs).expect("it goes to the disk");

    let outputs = feed(&mut state, Input::Stored(ticket));

    let gone = outputs.iter().find_map(|output| match output {
        Output::Store(_, records) => match &records[..] {
            [Record::LettersGone { rows }] => Some(rows.clone()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(gone, Some(vec![1]));
}

fn only_registers(state: &mut State, name: &str) -> Result<Told, Failure> {
    let Ask::Register { user, .. } = new_user(name) else {
        panic!("a registration");
    };
    done(state, Ask::Register { user, stays: false })
}

fn admit(name: &str) -> Ask {
    Ask::Admit {
        name: id(name),
        key: syft::http::key_name(user_key(name).public()),
        token: syft::http::TokenId([1; 16]),
    }
}

fn is_known(state: &mut State, name: &str) -> bool {
    let found = done(state, Ask::Find { name: id(name) });
    matches!(found, Ok(Told::Found(Some(_))))
}

/// Lets so many hours pass, with what is due in each.
fn hours(state: &mut State, from: u64, to: u64) {
    const HOUR: Duration = Duration::from_secs(3600);
    for hour in from..=to {
        state.handle_timeout(Now {
            mono: NOW.mono + HOUR * u32::try_from(hour).expect("few"),
            ..NOW
        });
        outputs(state);
    }
}

#[test]
fn users_who_never_log_in_are_forgotten_after_a_day_and_others_stay() {
    let mut state = state(Settings::default());
    for name in ["alice", "bob"] {
        only_registers(&mut state, name).expect("registered");
    }
    register(&mut state, "carol").expect("added by the operator");
    done(&mut state, admit("alice")).expect("logged in");

    hours(&mut state, 1, 23);
    assert!(is_known(&mut state, "bob"), "not yet");
    hours(&mut state, 24, 25);

    assert!(!is_known(&mut state, "bob"));
    assert!(is_known(&mut state, "alice"));
    assert!(is_known(&mut state, "carol"));
}

#[test]
fn whoever_never_logs_in_makes_room_for_others() {
    let mut state = state(Settings::default());
    let name = |number: usize| format!("user-{number}");
    for number in 0..crate::proto::mesh::users::USERS_PER_GATEWAY_MAX {
        only_registers(&mut state, &name(number)).expect("registered");
    }
    done(&mut state, admit("user-0")).expect("logged in");

    only_registers(&mut state, "alice").expect("there is room");

    assert!(is_known(&mut state, "alice") && is_known(&mut state, "user-0"));
    assert!(!is_known(&mut state, "user-1"));
}
