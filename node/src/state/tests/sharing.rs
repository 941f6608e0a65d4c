//! The mesh key in several hands.

use super::{io::KeyFile, *};
use crate::proto::mesh::key::{Answer, Request as KeyRequest};

/// A node with seed 2 that holds no mesh key and knows the member with seed 1.
fn member() -> State {
    let setup = setup(2);
    let loaded = Loaded {
        certificate: Some(certificate(2).encode()),
        members: vec![certificate(1).encode()],
        ..Loaded::default()
    };
    let mut state = State::new(setup, loaded, NOW).expect("a state");
    outputs(&mut state);
    state
}

fn share(state: &mut State, peer: &str) -> Vec<Output> {
    let peer = peer.to_owned();
    feed(
        state,
        Input::Control(RequestId(4), Command::ShareMeshKey { peer }),
    )
}

/// Returns the request with the key among these outputs.
fn sealed(outputs: &[Output]) -> (OutboundId, Vec<u8>) {
    let sealed = outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::Request {
            protocol: Protocol::Key,
            id,
            bytes,
            ..
        }) => Some((*id, bytes.clone())),
        _ => None,
    });
    sealed.expect("a request")
}

/// Lets the member with seed 1 bring the key.
fn bring(state: &mut State, bytes: Vec<u8>) -> Vec<Output> {
    let input = NetInput::Request {
        peer: peer_of_seed(1),
        protocol: Protocol::Key,
        id: InboundId(6),
        bytes,
    };
    feed(state, Input::Net(input))
}

fn answer(outputs: &[Output]) -> Option<Answer> {
    outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::Respond { bytes, .. }) => Answer::decode(bytes).ok(),
        _ => None,
    })
}

fn kept(outputs: &[Output]) -> Option<Ticket> {
    outputs.iter().find_map(|output| match output {
        Output::KeyFile(ticket, KeyFile::Keep(key)) => {
            assert_eq!(key.mesh(), mesh_key().mesh());
            Some(*ticket)
        }
        _ => None,
    })
}

fn key_for(seed: u8, key: &MeshKey) -> Vec<u8> {
    let chance = syft::SealChance::from_rng(&mut rand_chacha::ChaCha20Rng::from_seed([1; 32]));
    KeyRequest::seal(key, messaging_key(seed).public(), &chance).encode()
}

fn warning(state: &mut State) -> Option<String> {
    let outputs = feed(state, Input::Control(RequestId(1), Command::Status));
    match outputs.into_iter().next() {
        Some(Output::Reply(_, Ok(Reply::Status(status)))) => {
            status.mesh_key_warning.map(|warning| warning.problem)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_key_is_said_to_be_shared_once_it_is_on_the_other_disk_and_not_before() {
    let (mut holder, mut member) = (state(Settings::default()), member());
    open(&mut holder);

    let (id, bytes) = sealed(&share(&mut holder, "pi-2"));
    let brought = bring(&mut member, bytes);
    let early = answer(&brought);
    let may_early = member.membership.may_invite();
    let stored = feed(&mut member, Input::Stored(kept(&brought).expect("kept")));
    let result = Ok(answer(&stored).expect("answered").encode());
    let told = feed(&mut holder, Input::Net(NetInput::Response { id, result }));

    assert_eq!((early, may_early), (None, false));
    assert_eq!(answer(&stored), Some(Answer::Stored));
    assert!(member.membership.may_invite(), "without a restart");
    assert!(stored.iter().any(
        |o| matches!(o, Output::Event(Event::MeshKeyReceived { name, .. }) if name == "pi-1")
    ));
    assert!(matches!(
        told.last(),
        Some(Output::Reply(_, Ok(Reply::KeyShared(shared)))) if shared.name == "pi-2"
    ));
}

#[test]
fn a_key_that_cannot_be_written_is_not_held() {
    let mut member = member();

    let brought = bring(&mut member, key_for(2, &mesh_key()));
    let again = bring(&mut member, key_for(2, &mesh_key()));
    let failed = Input::StoreFailed(kept(&brought).expect("kept"), "disk full".to_owned());
    let outputs = feed(&mut member, failed);

    assert_eq!(answer(&again), Some(Answer::TryAgain), "one at a time");
    assert_eq!(answer(&outputs), Some(Answer::TryAgain));
    assert!(!member.membership.may_invite());
}

#[test]
fn nobody_can_do_harm_with_a_key_that_was_not_asked_for() {
    let mut member = member();
    let foreign = key_for(2, &MeshKey::from_seed(&[8; 32]));
    let for_another = key_for(3, &mesh_key());
    for bytes in [foreign, for_another] {
        let outputs = bring(&mut member, bytes);
        assert_eq!(answer(&outputs), Some(Answer::Refused));
        assert_eq!(kept(&outputs), None);
    }
    let mut holder = state(Settings::default());
    let input = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Key,
        id: InboundId(6),
        bytes: key_for(1, &mesh_key()),
    };
    let outputs = feed(&mut holder, Input::Net(input));
    assert_eq!(answer(&outputs), Some(Answer::Stored), "held already");
    assert_eq!(kept(&outputs), None, "nothing is written");
}

#[test]
fn all_know_who_holds_the_key_and_one_holder_without_an_export_is_warned_of() {
    let mut holder = state(Settings::default());
    assert_eq!(
        warning(&mut holder).as_deref(),
        Some("`pi-1` alone holds the mesh key, and never exported it")
    );

    let second = mesh_key().state_holder(peer_of_seed(2), false, NOW.unix_ms());
    let request = SyncRequest {
        statements: vec![second.encode()],
        ..SyncRequest::default()
    };
    sync(&mut holder, &request, NOW);
    assert_eq!(holder.holder_names(), ["pi-1", "pi-2"]);
    assert_eq!(warning(&mut holder), None);
    let peer = "pi-2".to_owned();
    carried_out(&mut holder, Command::Remove { peer });
    assert_eq!(holder.holder_names(), ["pi-1"], "a removed one is none");

    let mut member = member();
    assert_eq!(
        warning(&mut member).as_deref(),
        Some("no member is known to hold the mesh key")
    );
}

#[test]
fn an_export_is_told_to_all_and_ends_the_warning() {
    let mut holder = state(Settings::default());
    open(&mut holder);

    let command = Command::MeshKeyFile {
        key: Some(mesh_key()),
        exported: true,
    };
    let outputs = feed(&mut holder, Input::Control(RequestId(1), command));

    assert_eq!(warning(&mut holder), None);
    let told = told(&outputs);
    let statement = Statement::decode(&told[0].1.statements[0], &mesh_key().mesh());
    let says = statement.expect("legal").says().clone();
    assert_eq!(says, Says::Holder { exported: true });
}

#[test]
fn who_cannot_do_it_is_told_who_can() {
    let mut member = member();
    let first = mesh_key().state_holder(peer_of_seed(1), false, NOW.unix_ms());
    member.learn_told_statements(vec![first.encode()], NOW);
    outputs(&mut member);
    let command = Command::Rename {
        peer: None,
        name: "kitchen".to_owned(),
    };

    let outputs = feed(&mut member, Input::Control(RequestId(1), command));

    let hint = failure(&outputs).expect("refused").hint.clone();
    assert!(
        hint.is_some_and(|hint| hint.contains("`pi-1` can")),
        "{outputs:?}"
    );
}

#[test]
fn a_holder_that_is_removed_still_has_the_key_and_that_is_said() {
    let mut state = state(Settings::default());
    state.learn_statements(vec![certificate(3).encode()], vec![], NOW);
    let holders = [2, 3].map(|seed| {
        let holder = mesh_key().state_holder(peer_of_seed(seed), true, NOW.unix_ms());
        holder.encode()
    });
    state.learn_told_statements(holders.to_vec(), NOW);
    outputs(&mut state);
    assert_eq!(warning(&mut state), None);

    let mut removed = |peer: &str| {
        let command = Command::Remove {
            peer: peer.to_owned(),
        };
        let outputs = carried_out(&mut state, command);
        let held = outputs.iter().find_map(|output| match output {
            Output::Reply(_, Ok(Reply::Removed(removed))) => Some(removed.held_mesh_key),
            _ => None,
        });
        (held, warning(&mut state).unwrap_or_default())
    };
    let (held, said) = removed("pi-2");
    let (_, of_both) = removed("pi-3");

    assert_eq!(held, Some(true));
    assert!(said.contains("`pi-2` was removed and still has"), "{said}");
    assert!(of_both.contains("`pi-2`, `pi-3`"), "{of_both}");
}

#[test]
fn a_member_that_left_without_the_key_before_it_was_removed_is_no_holder() {
    let mut state = state(Settings::default());
    let holder = mesh_key().state_holder(peer_of_seed(2), false, certificate(2).terms().issued_ms);
    let left = Statement::left(&certificate(2), NOW.unix_ms(), &messaging_key(2));
    let revocation = mesh_key().revoke(peer_of_seed(2), NOW.unix_ms() + 1);
    state.learn_told_statements(vec![holder.encode(), left.encode()], NOW);
    state.learn_statements(vec![], vec![revocation.encode()], NOW);
    outputs(&mut state);

    assert_eq!(warning(&mut state), None);
}
