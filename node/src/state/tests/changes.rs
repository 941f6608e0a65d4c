//! What commands change: on the disk first, one after the other where one depends on the other, and
//! what comes in between is not lost.

use super::{
    gateway::{ask, done, gateway, hear as hear_users, id, register, ticket, told_user},
    *,
};
use crate::{
    proto::{
        mesh::users::{ToldUser, USERS_PER_GATEWAY_MAX},
        p2sn::Fingerprint,
        syft::{Descriptions, http::NewUser},
    },
    state::{
        clients::{Answer, Question},
        post::{Ask, Told, UserRecord},
    },
};

fn command(state: &mut State, request: u64, command: Command) -> Vec<Output> {
    feed(state, Input::Control(RequestId(request), command))
}

fn invite() -> Command {
    Command::Invite(Wanted::default())
}

fn rename(peer: Option<&str>, name: &str) -> Command {
    Command::Rename {
        peer: peer.map(str::to_owned),
        name: name.to_owned(),
    }
}

fn fail_store(state: &mut State, outputs: &[Output]) -> Vec<Output> {
    let failed = Input::StoreFailed(stored(outputs), "disk full".to_owned());
    feed(state, failed)
}

#[test]
fn nobody_hears_of_a_change_before_it_is_on_disk() {
    let mut state = state(Settings::default());
    open(&mut state);

    let asked = command(&mut state, 1, rename(Some("pi-2"), "kitchen"));
    let early = state.name_of(&peer_of_seed(2));
    let done = feed(&mut state, Input::Stored(stored(&asked)));

    assert!(told(&asked).is_empty(), "{asked:?}");
    assert_eq!(early, "pi-2");
    assert_eq!(told(&done).len(), 1, "{done:?}");
    assert_eq!(state.name_of(&peer_of_seed(2)), "kitchen");
}

#[test]
fn two_tickets_that_are_asked_for_at_once_give_two_indices() {
    let mut state = state(Settings::default());

    let first = command(&mut state, 1, invite());
    let second = command(&mut state, 2, invite());
    let done = feed(&mut state, Input::Stored(stored(&first)));
    let done_too = feed(&mut state, Input::Stored(stored(&done)));

    assert!(second.is_empty(), "it waits: {second:?}");
    let index = |outputs: &[Output]| {
        let invited = outputs.iter().find_map(|output| match output {
            Output::Reply(_, Ok(Reply::Invited(invite))) => Some(invite.index),
            _ => None,
        });
        invited.expect("a ticket")
    };
    assert_ne!(index(&done), index(&done_too));
}

#[test]
fn a_change_that_waited_is_judged_by_what_came_of_the_one_before_it() {
    for fails in [false, true] {
        let mut state = state(Settings::default());
        let first = command(&mut state, 1, rename(None, "kitchen"));
        command(&mut state, 2, rename(Some("pi-2"), "kitchen"));

        let outputs = if fails {
            fail_store(&mut state, &first)
        } else {
            feed(&mut state, Input::Stored(stored(&first)))
        };

        let second = outputs.iter().find_map(|output| match output {
            Output::Reply(RequestId(2), reply) => Some(reply.is_err()),
            _ => None,
        });
        // Either the name is taken, or it is free again, and the second one is being written.
        assert_eq!(second, (!fails).then_some(true), "{outputs:?}");
        let writes = |o: &Output| matches!(o, Output::Store(..));
        assert_eq!(outputs.iter().any(writes), fails);
    }
}

#[test]
fn only_so_many_changes_wait_for_the_disk() {
    let mut state = state(Settings::default());
    command(&mut state, 0, invite());

    let refused = (1..=65).map(|request| command(&mut state, request, invite()));
    let refused: Vec<bool> = refused.map(|outputs| failure(&outputs).is_some()).collect();

    assert_eq!(refused.iter().position(|refused| *refused), Some(64));
}

#[test]
fn a_certificate_that_comes_while_another_one_is_written_does_not_win_on_the_disk_alone() {
    let mut state = state(Settings::default());
    let asked = command(&mut state, 1, rename(Some("pi-2"), "kitchen"));
    let by_another_holder = ["cellar", "hall", "attic", "loft"].map(|name| {
        mesh_key().issue(Terms {
            name: name.parse().expect("a name"),
            issued_ms: certificate(2).terms().issued_ms + 1,
            ..certificate(2).terms().clone()
        })
    });
    let mut behind: Vec<Record> = Vec::new();
    for certificate in by_another_holder {
        let request = SyncRequest {
            certificates: vec![certificate.encode()],
            ..SyncRequest::default()
        };
        behind.extend(written(&sync(&mut state, &request, NOW)));
    }

    behind.extend(written(&feed(&mut state, Input::Stored(stored(&asked)))));

    let last = behind.iter().rev().find_map(|record| match record {
        Record::Member { certificate, .. } => Some(certificate.clone()),
        _ => None,
    });
    let last = Certificate::decode(&last.expect("written"), &mesh_key().mesh()).expect("good");
    let known = state.membership.terms(&peer_of_seed(2)).expect("a member");
    assert_eq!(last.terms().name, known.name);
}

fn written(outputs: &[Output]) -> Vec<Record> {
    let records = outputs.iter().filter_map(|output| match output {
        Output::Store(_, records) => Some(records.clone()),
        _ => None,
    });
    records.flatten().collect()
}

fn users(records: &[Record]) -> Vec<UserRecord> {
    let users = records.iter().filter_map(|record| match record {
        Record::User(user) => Some((**user).clone()),
        _ => None,
    });
    users.collect()
}

#[test]
fn what_is_told_of_a_user_while_his_key_is_accepted_is_not_lost() {
    let mut state = gateway();
    hear_users(&mut state, vec![told_user("carol", 5)]);
    let other = ToldUser {
        key: *messaging_key(9).public(),
        ..told_user("carol", 5)
    };
    hear_users(&mut state, vec![other.clone()]);
    let trust = Command::Trust {
        who: "carol".to_owned(),
        name: false,
    };
    let asked = command(&mut state, 1, trust);
    let third = ToldUser {
        key: *messaging_key(8).public(),
        ..other
    };
    let behind = hear_users(&mut state, vec![third]);

    let done = feed(&mut state, Input::Stored(stored(&asked)));

    let entry = state
        .users
        .get(&id("carol"), peer_of_seed(2))
        .expect("known");
    assert_eq!(entry.record.key, *messaging_key(9).public());
    let mut all = users(&written(&behind));
    all.extend(users(&written(&done)));
    assert_eq!(all.last(), Some(&entry.record));
}

#[test]
fn a_user_who_is_forgotten_while_he_is_described_does_not_come_back_on_the_disk() {
    let mut state = gateway();
    register(&mut state, "amy").expect("registered");
    let forget = ask(
        &mut state,
        Ask::Forget {
            user: "amy".to_owned(),
        },
    );
    let described = ask(
        &mut state,
        Ask::Describe {
            name: id("amy"),
            descriptions: Descriptions::default(),
        },
    );

    feed(&mut state, Input::Stored(ticket(&forget).expect("records")));
    let behind = ticket(&described).expect("records");
    let outputs = feed(&mut state, Input::Stored(behind));

    let gone = |record: &Record| matches!(record, Record::ForgetUser { .. });
    assert!(written(&outputs).iter().any(gone), "{outputs:?}");
}

#[test]
fn who_gave_way_to_a_user_that_could_not_be_written_is_still_there() {
    let mut state = gateway();
    let name = |number: usize| format!("u{number}");
    let new = |number: usize, stays| Ask::Register {
        user: NewUser {
            id: id(&name(number)),
            title: String::new(),
            key: *messaging_key(1).public(),
        },
        stays,
    };
    done(&mut state, new(0, false)).expect("registered");
    let mut number = 0;
    while state.users.count_of(peer_of_seed(1)) < USERS_PER_GATEWAY_MAX {
        number += 1;
        done(&mut state, new(number, true)).expect("registered");
    }

    let asked = ask(&mut state, new(9_999, true));
    let failed = fail_store(&mut state, &asked);

    assert!(failure(&failed).is_some());
    let here = |state: &State, number| {
        state
            .users
            .get(&id(&name(number)), peer_of_seed(1))
            .is_some()
    };
    assert!(here(&state, 0) && !here(&state, 9_999));
    let Ok(Told::Registered) = done(&mut state, new(9_999, true)) else {
        panic!("there is a place");
    };
    assert!(!here(&state, 0) && here(&state, 9_999));
}

#[test]
fn of_two_keys_that_a_server_shows_at_once_the_first_one_counts_until_the_disk_refuses_it() {
    let mut state = state(Settings::default());
    let judge = |key: u8| {
        Command::P2sn(Question::Judge {
            address: "host:5050".parse().expect("an address"),
            fingerprint: Fingerprint([key; 32]),
            bits: 2048,
            strict: true,
        })
    };
    let judged = |outputs: &[Output]| {
        outputs.iter().find_map(|output| match output {
            Output::Reply(_, Ok(Reply::P2sn(Answer::Judged(may)))) => Some(*may),
            _ => None,
        })
    };

    let first = command(&mut state, 1, judge(1));
    let second = command(&mut state, 2, judge(2));
    let failed = fail_store(&mut state, &first);
    let again = command(&mut state, 3, judge(2));
    let done = feed(&mut state, Input::Stored(stored(&again)));

    assert_eq!((judged(&first), judged(&second)), (None, Some(false)));
    assert!(failure(&failed).is_some());
    assert_eq!(judged(&done), Some(true));
}

#[test]
fn statements_and_removals_that_come_while_others_are_written_do_not_win_on_the_disk_alone() {
    let issued = certificate(2).terms().issued_ms;
    let mut state = state(Settings::default());
    let first = mesh_key().state_indices(peer_of_seed(2), "5".parse().expect("legal"), issued + 1);
    let other = mesh_key().state_indices(peer_of_seed(2), "6".parse().expect("legal"), issued + 2);
    let tell = |state: &mut State, statement: &Statement| {
        let request = SyncRequest {
            statements: vec![statement.encode()],
            ..SyncRequest::default()
        };
        written(&sync(state, &request, NOW))
    };
    tell(&mut state, &first);
    let asked = command(
        &mut state,
        1,
        Command::GiveIndices {
            peer: "pi-2".to_owned(),
            further: "100..109".parse().expect("legal"),
        },
    );

    let mut behind = tell(&mut state, &other);
    behind.extend(written(&feed(&mut state, Input::Stored(stored(&asked)))));

    let last = behind.iter().rev().find_map(|record| match record {
        Record::Statement { statement, .. } => Some(statement.clone()),
        _ => None,
    });
    let last = Statement::decode(&last.expect("written"), &mesh_key().mesh()).expect("good");
    assert!(matches!(last.says(), Says::Indices(ranges) if ranges.contains(Index(100))));
}

#[test]
fn a_user_who_registers_between_two_that_forget_him_stays() {
    let mut state = gateway();
    register(&mut state, "amy").expect("registered");
    let forget = || Ask::Forget {
        user: "amy".to_owned(),
    };
    let first = ask(&mut state, forget());
    let second = ask(&mut state, forget());
    feed(&mut state, Input::Stored(ticket(&first).expect("records")));
    let user = NewUser {
        id: id("amy"),
        title: String::new(),
        key: *messaging_key(9).public(),
    };
    let again = ask(&mut state, Ask::Register { user, stays: true });

    feed(&mut state, Input::Stored(ticket(&second).expect("records")));
    feed(&mut state, Input::Stored(ticket(&again).expect("records")));

    assert!(state.users.get(&id("amy"), peer_of_seed(1)).is_some());
}

#[test]
fn a_ticket_that_is_cancelled_gives_its_index_once_that_is_on_disk() {
    let mut state = state(Settings::default());
    let five = || {
        Command::Invite(Wanted {
            index: Some(Index(5)),
            ..Wanted::default()
        })
    };
    let first = command(&mut state, 1, five());
    feed(&mut state, Input::Stored(stored(&first)));

    let cancel = command(&mut state, 2, Command::CancelInvites { which: None });
    let waits = command(&mut state, 3, five());
    let failed = fail_store(&mut state, &cancel);

    assert!(waits.is_empty(), "{waits:?}");
    let refused = failed.iter().any(|output| {
        matches!(output, Output::Reply(RequestId(3), Err(failure)) if failure.message.contains("index 5"))
    });
    assert!(refused, "the first ticket is good again: {failed:?}");
}

#[test]
fn a_node_that_joins_waits_for_the_one_before_it_and_gets_another_name() {
    let mut state = state(Settings::default());
    let secrets = [(); 2].map(|()| tickets::invite(&mut state, None).1);
    let mut come = |seed: u8, secret: &Secret| {
        join_with(&mut state, seed, join_request(seed, secret, seed), NOW).0
    };
    let first = come(3, &secrets[0]);
    let second = come(4, &secrets[1]);
    assert!(written(&second).is_empty(), "it waits: {second:?}");

    let welcomed = feed(&mut state, Input::Stored(stored(&first)));
    for output in welcomed {
        if let Output::Store(ticket, _) = output {
            feed(&mut state, Input::Stored(ticket));
        }
    }

    let names = [3, 4].map(|seed| state.name_of(&peer_of_seed(seed)));
    assert_eq!(names, ["guest", "guest-2"]);
}
