//! Leaving the mesh, and members that leave.

use super::{io::KeyFile, *};

fn leave(state: &mut State, sure: bool) -> Vec<Output> {
    feed(state, Input::Control(RequestId(4), Command::Leave { sure }))
}

/// Makes the other member a holder of the mesh key.
fn second_holder(state: &mut State) {
    let second = mesh_key().state_holder(peer_of_seed(2), false, NOW.unix_ms());
    state.learn_told_statements(vec![second.encode()], NOW);
    outputs(state);
}

/// Leaves up to the goodbye; returns the outputs of the last step.
fn leave_on_disk(state: &mut State) -> Vec<Output> {
    let staged = leave(state, true);
    let [Output::KeyFile(ticket, KeyFile::Stage(_))] = &staged[..] else {
        panic!("first the new key is put aside, not {staged:?}");
    };
    let storing = feed(state, Input::Stored(*ticket));
    let [Output::Store(ticket, records)] = &storing[..] else {
        panic!("then the new membership is written, not {storing:?}");
    };
    assert!(matches!(records[..], [Record::JoinedMesh { .. }]));
    feed(state, Input::Stored(*ticket))
}

fn reply(outputs: &[Output]) -> Option<&report::Left> {
    outputs.iter().find_map(|output| match output {
        Output::Reply(_, Ok(Reply::Left(left))) => Some(left),
        _ => None,
    })
}

#[test]
fn the_only_holder_is_warned_and_must_be_sure() {
    let mut state = state(Settings::default());

    let outputs = leave(&mut state, false);

    let refused = failure(&outputs).expect("refused");
    assert!(refused.message.contains("nobody else"), "{refused:?}");
    let hint = refused.hint.clone().unwrap_or_default();
    assert!(
        hint.contains("mesh-key share") && hint.contains("--yes"),
        "{hint}"
    );
    second_holder(&mut state);
    let outputs = leave(&mut state, false);
    assert_eq!(failure(&outputs), None);
}

#[test]
fn a_node_that_leaves_is_in_a_mesh_of_its_own_and_tells_the_others() {
    let mut state = state(Settings::default());
    open(&mut state);
    let old = *state.membership.mesh();

    let outputs = leave_on_disk(&mut state);
    let told = told(&outputs);
    let [(id, goodbye)] = &told[..] else {
        panic!("one member is told, not {told:?}");
    };
    let left = Statement::decode(&goodbye.statements[0], &old).expect("legal");
    let early = reply(&outputs).cloned();
    let mut answered = |id| {
        let answer = crate::proto::mesh::sync::Response {
            received_us: 1,
            sent_us: 1,
            boot: None,
        };
        let result = Ok(answer.encode());
        feed(&mut state, Input::Net(NetInput::Response { id, result }))
    };
    // What was asked before is answered first.
    let before: Vec<Output> = (0..id.0)
        .flat_map(|id| answered(io::OutboundId(id)))
        .collect();
    let heard = answered(*id);

    assert_eq!((left.peer(), left.says()), (peer_of_seed(1), &Says::Left));
    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, Output::KeyFile(_, KeyFile::Adopt)))
    );
    assert_eq!(early, None, "the goodbye is under way");
    assert_eq!(reply(&before), None, "the goodbye is under way");
    let report = reply(&heard).expect("answered");
    assert_eq!(report.told, ["pi-2"]);
    assert!(report.not_told.is_empty(), "{report:?}");
    assert!(
        heard
            .iter()
            .any(|o| matches!(o, Output::Net(NetOutput::Close { .. })))
    );
    assert_eq!(state.membership.members().count(), 0);
    assert!(state.membership.may_invite());
    assert_ne!(*state.membership.mesh(), old);
    assert_eq!(state.membership.own_terms().name.as_str(), "pi-1");
    assert_eq!(state.name_of(&peer_of_seed(2)), "pi-2", "names stay");
    assert!(state.peers.next_dial().is_none(), "nobody is dialled");
}

#[test]
fn a_goodbye_that_nobody_answers_ends_after_two_seconds() {
    let mut state = state(Settings::default());
    open(&mut state);

    let outputs = leave_on_disk(&mut state);
    state.handle_timeout(later(Duration::from_secs(2)));
    let timed_out = super::outputs(&mut state);

    assert_eq!(reply(&outputs), None);
    let report = reply(&timed_out).expect("answered");
    assert_eq!(report.not_told, ["pi-2"]);
}

#[test]
fn a_node_that_cannot_write_stays_a_member() {
    for fails_at in [0, 1] {
        let mut state = state(Settings::default());
        let mut outputs = leave(&mut state, true);
        if fails_at == 1 {
            let Some(Output::KeyFile(ticket, _)) = outputs.first() else {
                panic!("a key, not {outputs:?}");
            };
            let ticket = *ticket;
            outputs = feed(&mut state, Input::Stored(ticket));
        }
        let ticket = outputs.iter().find_map(|output| match output {
            Output::KeyFile(ticket, _) | Output::Store(ticket, _) => Some(*ticket),
            _ => None,
        });
        let failed = Input::StoreFailed(ticket.expect("a ticket"), "disk full".to_owned());

        let outputs = feed(&mut state, failed);

        assert!(failure(&outputs).is_some_and(|f| f.message.contains("disk full")));
        assert_eq!(state.membership.members().count(), 1);
        assert_eq!(*state.membership.mesh(), mesh_key().mesh());
        assert!(!leave(&mut state, true).is_empty(), "it may be tried again");
    }
}

#[test]
fn a_member_that_left_is_no_member_and_may_come_back_with_a_ticket() {
    let mut state = state(Settings::default());
    open(&mut state);
    let (_, secret) = tickets::invite(&mut state, None);
    let left = Statement::left(&certificate(2), NOW.unix_ms() + 5_000, &messaging_key(2));
    let request = SyncRequest {
        statements: vec![left.encode()],
        ..SyncRequest::default()
    };

    let outputs = sync(&mut state, &request, NOW);

    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, Output::Event(Event::MemberLeft { name, .. }) if name == "pi-2"))
    );
    assert!(!state.membership.is_known(&peer_of_seed(2)));
    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, Output::Net(NetOutput::Close { .. })))
    );
    let certificates = vec![certificate(2).encode()];
    state.learn_statements(certificates, vec![], NOW);
    assert!(
        !state.membership.is_known(&peer_of_seed(2)),
        "told by others"
    );
    super::outputs(&mut state);
    feed(
        &mut state,
        Input::Net(NetInput::Disconnected {
            peer: peer_of_seed(2),
            connection: Connection(1),
            reason: "gone".to_owned(),
        }),
    );
    assert_eq!(join(&mut state, 2, &secret, 2, NOW), None);
    let ticket = Ticket(state.effects.last_ticket());
    feed(&mut state, Input::Stored(ticket));
    assert!(state.membership.is_known(&peer_of_seed(2)));
    let issued_ms = state
        .membership
        .terms(&peer_of_seed(2))
        .map(|t| t.issued_ms);
    assert_eq!(issued_ms, Some(NOW.unix_ms() + 5_001));
}

#[test]
fn there_is_nothing_to_leave_in_a_mesh_of_its_own() {
    let mut state = state(Settings::default());
    let left = Statement::left(&certificate(2), NOW.unix_ms(), &messaging_key(2));
    state.learn_told_statements(vec![left.encode()], NOW);
    outputs(&mut state);

    let outputs = leave(&mut state, true);

    assert!(failure(&outputs).is_some_and(|f| f.message.contains("nothing to leave")));
}

#[test]
fn nothing_of_the_old_mesh_is_written_behind_the_new_membership() {
    let mut state = state(Settings::default());
    open(&mut state);
    let staged = leave(&mut state, true);
    let [Output::KeyFile(ticket, KeyFile::Stage(_))] = &staged[..] else {
        panic!("first the new key is put aside, not {staged:?}");
    };
    let storing = feed(&mut state, Input::Stored(*ticket));

    let renamed = mesh_key().issue(Terms {
        name: "cellar".parse().expect("a name"),
        issued_ms: NOW.unix_ms(),
        ..certificate(1).terms().clone()
    });
    let request = SyncRequest {
        certificates: vec![renamed.encode(), certificate(5).encode()],
        statements: vec![
            mesh_key()
                .state_holder(peer_of_seed(2), false, NOW.unix_ms())
                .encode(),
        ],
        ..SyncRequest::default()
    };
    let told = sync(&mut state, &request, NOW);
    let command = Command::Rename {
        peer: None,
        name: "cellar".to_owned(),
    };
    let asked = feed(&mut state, Input::Control(RequestId(5), command));

    assert!(matches!(storing[..], [Output::Store(..)]));
    assert!(
        !told.iter().any(|o| matches!(o, Output::Store(..))),
        "{told:?}"
    );
    assert!(failure(&asked).is_some_and(|f| f.message.contains("leaving")));
}
