//! Names that change, and what they were before.

use super::*;

fn rename(state: &mut State, peer: Option<&str>, name: &str) -> Vec<Output> {
    let command = Command::Rename {
        peer: peer.map(str::to_owned),
        name: name.to_owned(),
    };
    feed(state, Input::Control(RequestId(1), command))
}

/// Returns the certificate of the member with seed 2 under another name, as the mesh key's holder
/// would issue it.
fn renamed(seed: u8, name: &str) -> Certificate {
    mesh_key().issue(Terms {
        name: name.parse().expect("a name"),
        issued_ms: NOW.unix_ms(),
        ..certificate(seed).terms().clone()
    })
}

fn learn(state: &mut State, certificate: &Certificate) -> Vec<Output> {
    let request = SyncRequest {
        certificates: vec![certificate.encode()],
        ..SyncRequest::default()
    };
    sync(state, &request, NOW)
}

fn names_of(state: &mut State, seed: u8) -> (String, Vec<String>) {
    let outputs = feed(state, Input::Control(RequestId(2), Command::Names));
    let [Output::Reply(_, Ok(Reply::Names(names)))] = &outputs[..] else {
        panic!("names, not {outputs:?}");
    };
    let names = names.iter().find(|n| n.peer_id == peer_of_seed(seed));
    let names = names.expect("known").clone();
    (names.name, names.earlier)
}

#[test]
fn a_member_is_certified_again_and_only_its_name_and_times_change() {
    let mut state = state(Settings::default());
    open(&mut state);

    let before = rename(&mut state, Some("pi-2"), "kitchen");
    let outputs = feed(&mut state, Input::Stored(stored(&before)));

    let told = told(&outputs);
    let [(_, request)] = &told[..] else {
        panic!("one member is told, not {told:?}");
    };
    let issued = Certificate::decode(&request.certificates[0], &mesh_key().mesh()).expect("legal");
    let expected = Terms {
        name: "kitchen".parse().expect("a name"),
        issued_ms: certificate(2).terms().issued_ms + 1,
        expires_ms: NOW.unix_ms() + 10 * 365 * 24 * 3_600_000,
        ..certificate(2).terms().clone()
    };
    assert_eq!(*issued.terms(), expected);
    let [Output::Store(..)] = &before[..] else {
        panic!("nobody hears of it before it is on disk: {before:?}");
    };
    let Some(Output::Reply(_, Ok(Reply::Renamed(report)))) = outputs.last() else {
        panic!("an answer, not {outputs:?}");
    };
    assert_eq!(
        (report.was.as_str(), report.name.as_str()),
        ("pi-2", "kitchen")
    );
    assert_eq!(
        names_of(&mut state, 2),
        ("kitchen".into(), vec!["pi-2".into()])
    );
    let event = outputs.iter().any(|output| {
        matches!(output, Output::Event(Event::MemberRenamed { was, name, .. })
            if was == "pi-2" && name == "kitchen")
    });
    assert!(event, "{outputs:?}");
}

#[test]
fn a_node_renames_itself_and_the_same_name_again_changes_nothing() {
    let mut state = state(Settings::default());

    let outputs = rename(&mut state, None, "hall");
    feed(&mut state, Input::Stored(stored(&outputs)));
    let again = rename(&mut state, None, "hall");

    assert_eq!(
        names_of(&mut state, 1),
        ("hall".into(), vec!["pi-1".into()])
    );
    assert!(
        matches!(again[..], [Output::Reply(_, Ok(Reply::Renamed(_)))]),
        "{again:?}"
    );
}

#[test]
fn a_name_that_somebody_has_or_is_to_have_is_refused() {
    let mut state = state(Settings::default());
    tickets::invite(&mut state, Some("cellar"));

    for (peer, name) in [
        (Some("pi-2"), "pi-1"),
        (None, "pi-2"),
        (Some("pi-2"), "cellar"),
    ] {
        let outputs = rename(&mut state, peer, name);
        let failure = failure(&outputs).expect("refused");
        assert!(failure.message.contains(name), "{failure:?}");
    }
    let illegal = rename(&mut state, None, "a b");
    assert!(failure(&illegal).is_some_and(|f| f.message.contains("' '")));
}

#[test]
fn history_keeps_the_name_of_a_member_that_was_removed() {
    let mut state = state(Settings::default());
    let peer = "pi-2".to_owned();

    let removal = feed(
        &mut state,
        Input::Control(RequestId(1), Command::Remove { peer }),
    );
    feed(&mut state, Input::Stored(stored(&removal)));

    assert_eq!(state.name_of(&peer_of_seed(2)), "pi-2");
    assert_eq!(names_of(&mut state, 2), ("pi-2".into(), vec![]));
}

#[test]
fn names_of_members_that_are_on_disk_already_are_written_down_once() {
    let holder = || Setup {
        mesh_key: Some(mesh_key()),
        ..setup(1)
    };
    let names = |seeds: [u8; 2]| {
        seeds
            .map(|seed| (peer_of_seed(seed), format!("pi-{seed}")))
            .to_vec()
    };
    let loaded = Loaded {
        certificate: Some(certificate(1).encode()),
        members: vec![certificate(2).encode()],
        ..Loaded::default()
    };
    let records = |loaded: Loaded| {
        let mut state = State::new(holder(), loaded, NOW).expect("a state");
        let outputs = outputs(&mut state);
        let named = outputs.iter().flat_map(|output| match output {
            Output::Store(_, records) => records.clone(),
            _ => Vec::new(),
        });
        let mut named: Vec<(PeerId, String)> = named
            .filter_map(|record| match record {
                Record::Name { peer, name } => Some((peer, name)),
                _ => None,
            })
            .collect();
        named.sort();
        named
    };

    let first = records(loaded.clone());
    let second = records(Loaded {
        names: names([1, 2]),
        ..loaded
    });

    let mut both = names([1, 2]);
    both.sort();
    assert_eq!(first, both);
    assert_eq!(second, []);
}

#[test]
fn messages_that_cross_a_new_name_are_not_lost() {
    let mut state = state(Settings::default());
    open(&mut state);
    learn(&mut state, &renamed(1, "hall"));
    learn(&mut state, &renamed(2, "kitchen"));

    // The member has not heard of the new names.
    let (early, _) = receive(&mut state, &message(2, 1, 2, 1));
    assert_eq!(early, None, "on its way to the disk");
}

#[test]
fn a_message_of_a_member_whose_new_name_is_not_known_yet_is_tried_again() {
    let mut state = state(Settings::default());
    open(&mut state);
    let message = |from: &str| {
        let content = syft::seal(
            "hello",
            messaging_key(1).public(),
            &syft::SealChance::from_rng(&mut rand_chacha::ChaCha20Rng::from_seed([1; 32])),
        );
        let text = syft::Message::signed(from, "pi-1", content, NOW.unix_ms(), &messaging_key(2));
        let frame = Frame {
            id: MessageId([1; 16]),
            sender: peer_of_seed(2),
            recipient: peer_of_seed(1),
            epoch: 5,
            sequence: 1,
            created_ms: NOW.unix_ms(),
            expires_ms: NOW.unix_ms() + 1000,
            syft: text.encode(),
            kind: crate::proto::mesh::direct::Kind::Member,
        };
        DirectRequest {
            messages: vec![frame.sign(&messaging_key(2))],
        }
    };

    let (unknown, _) = receive(&mut state, &message("kitchen"));
    let (another, _) = receive(&mut state, &message("pi-1"));
    learn(&mut state, &renamed(2, "kitchen"));
    let (known, ticket) = receive(&mut state, &message("kitchen"));

    assert_eq!(unknown, Some(Status::TryAgain));
    assert_eq!(another, Some(Status::WrongSender));
    assert!(
        known.is_none() && ticket.is_some(),
        "on its way to the disk"
    );
}

#[test]
fn a_peer_id_is_nobodys_name() {
    let id = peer_of_seed(2).to_string();
    let mut state = state(Settings::default());
    open(&mut state);

    let outputs = rename(&mut state, None, &id);

    assert!(failure(&outputs).is_some_and(|f| f.message.contains("name")));
    // One that an older program gave means nobody.
    let impostor = mesh_key().issue(Terms {
        name: id.parse().expect("a legal name"),
        ..certificate(5).terms().clone()
    });
    state.learn_statements(vec![impostor.encode()], vec![], NOW);
    assert_eq!(state.resolve(&id), Ok(peer_of_seed(2)));
    let wished = id.parse().expect("a legal name");
    assert_eq!(
        state.membership.free_name(&wished, |_| false).as_str(),
        format!("{id}-2")
    );
}

#[test]
fn a_holder_that_missed_a_removal_does_not_undo_it_with_a_new_name() {
    let mut state = state(Settings::default());
    open(&mut state);
    // It was removed after it had been certified, and this node was away.
    let until = certificate(2).terms().issued_ms + 1_000;
    let removed = mesh_key().revoke(peer_of_seed(2), until);

    rename(&mut state, Some("pi-2"), "kitchen");
    state.learn_statements(vec![], vec![removed.encode()], NOW);

    assert!(!state.membership.is_known(&peer_of_seed(2)));
}

#[test]
fn of_two_names_given_at_once_all_nodes_choose_the_same() {
    let names = ["kitchen", "cellar"].map(|name| renamed(2, name));
    let mut chosen = Vec::new();
    for order in [[0, 1], [1, 0]] {
        let mut state = state(Settings::default());
        open(&mut state);
        for at in order {
            learn(&mut state, &names[at]);
        }
        chosen.push(state.name_of(&peer_of_seed(2)));
    }
    assert_eq!(chosen[0], chosen[1]);

    // The same for the one whose name it is.
    let own = ["kitchen", "cellar"].map(|name| renamed(1, name));
    let mut state = state(Settings::default());
    open(&mut state);
    for at in [0, 1, 0] {
        learn(&mut state, &own[at]);
    }
    let last = state.membership.own_terms().name.to_string();
    let newest = own.iter().max_by_key(|certificate| certificate.encode());
    assert_eq!(newest.map(|c| c.terms().name.to_string()), Some(last));
}
