//! The gateway for Syft agents: names, letters, and what members tell each other of their users.

use super::*;
use crate::{
    proto::{
        mesh::{
            direct::Kind,
            users::{Request as UsersRequest, ToldUser},
        },
        syft::{
            Reader, UserId,
            http::NewUser,
            letter::{Letter, rendered},
        },
    },
    state::{
        io::FailureKind,
        post::{Ask, Posted, Stage, Told},
    },
};

pub(super) fn id(text: &str) -> UserId {
    text.parse().expect("a user id")
}

/// The key of a user: made of the first letter of his name.
pub(super) fn user_key(name: &str) -> syft::SigningKey {
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

pub(in crate::state) fn gateway_with(settings: Settings) -> State {
    let mut state = state(settings);
    open_and_hear(&mut state);
    for name in ["alice", "bob"] {
        assert_eq!(register(&mut state, name), Ok(Told::Registered));
    }
    state
}

/// Opens the connection of the member with seed 2, and lets it hear what it is told at once.
fn open_and_hear(state: &mut State) {
    let opened = open(state);
    for (id, _) in requests(&opened) {
        let result = Ok(Vec::new());
        feed(state, Input::Net(NetInput::Response { id, result }));
    }
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
        ..UsersRequest::default()
    };
    hear_request(state, &request)
}

fn hear_request(state: &mut State, request: &UsersRequest) -> Vec<Output> {
    hear_from(state, 2, request)
}

pub(super) fn hear_from(state: &mut State, seed: u8, request: &UsersRequest) -> Vec<Output> {
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
    open_and_hear(&mut state);
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
    open_and_hear(&mut state);
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
    assert!(rendered(3, &letter.encode(), Reader::Go).starts_with(r#"{"id":3,"from":"alice""#));
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
