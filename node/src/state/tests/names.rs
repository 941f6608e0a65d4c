//! Whom a name means, what others claim, and the owner's word on it.

use super::{
    gateway::{
        bring, done, gateway, gateway_with, hear, hear_from, id, letter_of, post, register, ticket,
        told_user, user_key,
    },
    *,
};
use crate::{
    proto::mesh::{
        NodeName,
        users::{Request as UsersRequest, ToldUser},
    },
    state::{
        io::{Endpoint, FailureKind, Party},
        post::{Ask, Posted, Told},
    },
};

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
        ..UsersRequest::default()
    };
    hear_from(state, seed, &request)
}

/// The mesh of [`gateway`], with a third member.
fn three() -> State {
    let mut state = gateway();
    state.learn_statements(vec![certificate(3).encode()], vec![], NOW);
    outputs(&mut state);
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

    let Ok(Endpoint::User(user, server)) = state.recipient("carol@work") else {
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
        Ok(Endpoint::Node(peer_of_seed(3)))
    );
    let user = Endpoint::user(id("pi-3"), peer_of_seed(2));
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
fn what_a_node_tells_of_its_users_is_heard_once_it_is_on_disk() {
    let answered = |outputs: &[Output]| {
        let is_answer = |o: &Output| matches!(o, Output::Net(NetOutput::Respond { .. }));
        outputs.iter().any(is_answer)
    };
    let mut state = three();
    let asked = claim(&mut state, 2, "carol", 1);
    assert!(!answered(&asked));
    let failed = Input::StoreFailed(ticket(&asked).expect("records"), "full".to_owned());
    assert!(!answered(&feed(&mut state, failed)), "it is told again");

    // Messages may wait for her by now, so she stays known, and is written when she is told again.
    assert!(found_key(&mut state, "carol").is_some());
    let asked = claim(&mut state, 2, "carol", 1);
    assert!(!answered(&asked), "it is not on the disk yet");
    let overlapping = claim(&mut state, 2, "carol", 1);
    assert!(
        ticket(&overlapping).is_some(),
        "nor is it for who asks meanwhile"
    );
    let stored = Input::Stored(ticket(&asked).expect("records"));
    assert!(answered(&feed(&mut state, stored)));
    let again = claim(&mut state, 2, "carol", 1);
    assert!(
        answered(&again) && ticket(&again).is_none(),
        "it is on the disk"
    );
    claim(&mut state, 3, "carol", 2);
    assert_eq!(known_as(&mut state, "carol", "pi-2"), "carol");

    // A change that was not written is written when it is told once more.
    let mut titled = told_user("dora", 1);
    let tell = |state: &mut State, user: &ToldUser| {
        let request = UsersRequest {
            users: vec![user.clone()],
            ..UsersRequest::default()
        };
        let outputs = hear_from(state, 2, &request);
        ticket(&outputs)
    };
    let first = tell(&mut state, &titled).expect("records");
    feed(&mut state, Input::Stored(first));
    titled.title = "Dora".to_owned();
    let failed = tell(&mut state, &titled).expect("records");
    feed(&mut state, Input::StoreFailed(failed, "full".to_owned()));
    let written = tell(&mut state, &titled).expect("records");
    feed(&mut state, Input::Stored(written));
    assert!(tell(&mut state, &titled).is_none(), "it was written");
}

#[test]
fn trust_means_whom_send_means() {
    let mut state = gateway();
    claim(&mut state, 2, "pi-3", 1);
    state.learn_statements(vec![certificate(3).encode()], vec![], NOW);
    let mut trust = |who: &str| {
        let who = who.to_owned();
        let command = Command::Trust { who, name: false };
        let mut outputs = feed(&mut state, Input::Control(RequestId(1), command));
        if let Some(ticket) = ticket(&outputs) {
            outputs.extend(feed(&mut state, Input::Stored(ticket)));
        }
        outputs
            .into_iter()
            .find_map(|output| match output {
                Output::Reply(_, Ok(Reply::Trusted(trusted))) => Some(Ok(trusted.peer_id)),
                Output::Reply(_, Err(failure)) => Some(Err(failure.kind)),
                _ => None,
            })
            .expect("an answer")
    };

    assert_eq!(trust("pi-3"), Err(FailureKind::Conflict));
    assert_eq!(trust("pi-3@pi-3"), Ok(Party::Member(peer_of_seed(3))));
    assert_eq!(trust("pi-3@pi-2"), Ok(Party::Member(peer_of_seed(2))));
    assert_eq!(
        trust(&peer_of_seed(3).to_string()),
        Ok(Party::Member(peer_of_seed(3)))
    );
    assert_eq!(trust("nobody"), Err(FailureKind::NotFound));
}

#[test]
fn a_node_that_gets_the_name_of_a_user_is_warned_of() {
    let mut state = three();
    claim(&mut state, 2, "kitchen", 1);
    let mut rename = |name: &str| {
        let (peer, name) = (Some("pi-3".to_owned()), name.to_owned());
        let asked = feed(
            &mut state,
            Input::Control(RequestId(1), Command::Rename { peer, name }),
        );
        let stored = feed(&mut state, Input::Stored(ticket(&asked).expect("records")));
        let renamed = stored.into_iter().find_map(|output| match output {
            Output::Reply(_, Ok(Reply::Renamed(renamed))) => Some(renamed),
            _ => None,
        });
        renamed.expect("renamed").warning
    };

    let warning = rename("kitchen");

    assert!(warning.is_some_and(|text| text.contains("`kitchen@kitchen`")));
}

#[test]
fn the_lowest_free_index_lies_between_whatever_is_taken() {
    let mut state = gateway();
    state.learn_statements(vec![certificate(3).encode()], vec![], NOW);
    let clients = (4..=200_000).filter(|index| *index != 150_000);
    let command = Command::ClientIndices(clients.map(Index).collect());
    feed(&mut state, Input::Control(RequestId(1), command));
    let mut free = |further: &str| {
        let command = Command::Invite(Wanted {
            further: further.parse().expect("legal"),
            ..Wanted::default()
        });
        let asked = feed(&mut state, Input::Control(RequestId(2), command));
        let stored = feed(&mut state, Input::Stored(ticket(&asked).expect("records")));
        let invited = stored.into_iter().find_map(|output| match output {
            Output::Reply(_, Ok(Reply::Invited(invite))) => Some(invite.index.0),
            _ => None,
        });
        invited.expect("a ticket")
    };

    assert_eq!(free("149990..150010"), 200_001);
    assert_eq!(free(""), 200_002, "the range before is that of a ticket");
}

#[test]
fn what_a_node_writes_to_a_user_arrives_also_where_a_user_is_called_like_the_node() {
    let mut state = state(Settings::default());
    for name in ["pi-2", "bob"] {
        // Registered before this node heard of the other one.
        let user = crate::state::post::UserRecord {
            id: id(name),
            place: peer_of_seed(1).into(),
            title: String::new(),
            key: *user_key(name).public(),
            shown: None,
            registered_ms: 1,
            descriptions: syft::Descriptions::default(),
            taken: 0,
            written_ms: 0,
            stays: true,
            holds_name: true,
        };
        state.letters.begin(&user);
        state.users.insert(user);
    }
    open(&mut state);
    let chance = &mut rand_chacha::ChaCha20Rng::from_seed([1; 32]);
    let chance = syft::SealChance::from_rng(chance);
    let content = syft::seal("hello", user_key("bob").public(), &chance);
    let message = syft::Message::signed("pi-2", "bob", content, NOW.unix_ms(), &messaging_key(2));
    let letter = crate::proto::syft::letter::Letter::of(message).expect("a letter");

    assert_eq!(bring(&mut state, &letter, 1), Status::Stored);
}

#[test]
fn a_user_whose_full_name_somebody_else_has_is_named_with_the_peer_id() {
    let mut state = gateway();
    register(&mut state, "dora@pi-3").expect("no node is called so");
    state.learn_statements(vec![certificate(3).encode()], vec![], NOW);
    claim(&mut state, 2, "dora", 1);
    claim(&mut state, 3, "dora", 1);

    let name = known_as(&mut state, "dora", "pi-3");

    assert_eq!(name, format!("dora@{}", peer_of_seed(3)));
    let dora = Endpoint::user(id("dora"), peer_of_seed(3));
    assert_eq!(state.recipient(&name), Ok(dora));
    let refused = register(&mut state, &format!("x@{}", peer_of_seed(9)));
    assert_eq!(refused.map_err(|f| f.kind), Err(FailureKind::Conflict));
    let own = Some(*user_key("dora@pi-3").public());
    assert_eq!(found_key(&mut state, "dora@pi-3"), own);
}
