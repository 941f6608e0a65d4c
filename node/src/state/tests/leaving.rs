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

/// Leaves as far as the disk; returns what is written there in one go.
pub(super) fn leave_to_disk(state: &mut State) -> (Ticket, Vec<Record>) {
    let staged = leave(state, true);
    let [Output::KeyFile(ticket, KeyFile::Stage(_))] = &staged[..] else {
        panic!("first the new key is put aside, not {staged:?}");
    };
    let storing = feed(state, Input::Stored(*ticket));
    let [Output::Store(ticket, records)] = &storing[..] else {
        panic!("then the new membership is written, not {storing:?}");
    };
    (*ticket, records.clone())
}

/// Starts the node with seed 1 from what was written when its membership changed.
fn start_from(records: &[Record]) -> State {
    let mut loaded = Loaded::default();
    for record in records {
        match record {
            Record::JoinedMesh { certificate } => loaded.certificate = Some(certificate.clone()),
            Record::Statement { statement, .. } => loaded.statements.push(statement.clone()),
            Record::Member { certificate, .. } => loaded.members.push(certificate.clone()),
            _ => {}
        }
    }
    let setup = setup(1);
    let mut state = State::new(setup, loaded, NOW).expect("a state");
    outputs(&mut state);
    state
}

/// Leaves up to the goodbye; returns the outputs of the last step.
fn leave_on_disk(state: &mut State) -> Vec<Output> {
    let (ticket, records) = leave_to_disk(state);
    assert!(matches!(records[0], Record::JoinedMesh { .. }));
    feed(state, Input::Stored(ticket))
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
    assert!(!awaits_dial(&mut state), "nobody is dialled");
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

/// Returns what the answer to a member's `hello` says of having left, as another member reads it.
fn left_of(answer: Response) -> Statement {
    match answer {
        Response::Left(left) => Statement::decode(&left, &mesh_key().mesh()).expect("good"),
        answer => panic!("it says that it left, not {answer:?}"),
    }
}

#[test]
fn a_goodbye_that_nobody_heard_is_said_to_each_member_that_dials() {
    let mut state = state(Settings::default());
    // The power goes before anybody is told.
    let (_, records) = leave_to_disk(&mut state);
    let mut state = start_from(&records);

    let (answer, opened) = hello(&mut state, peer_of_seed(2), certificate(2).encode());

    assert!(!opened);
    assert_eq!(left_of(answer).peer(), peer_of_seed(1));
    for (peer, shown) in [(3, certificate(2)), (2, foreign_certificate(2))] {
        let (answer, _) = hello(&mut state, peer_of_seed(peer), shown.encode());
        let nothing = Response::Refused(Refusal::NotAMember);
        assert_eq!(answer, nothing, "nobody else is told");
    }
}

fn foreign_certificate(seed: u8) -> Certificate {
    MeshKey::from_seed(&[8; 32]).issue(certificate(seed).terms().clone())
}

#[test]
fn a_goodbye_outlasts_the_next_mesh_and_a_further_one() {
    let mut state = state(Settings::default());
    let (ticket, _) = leave_to_disk(&mut state);
    feed(&mut state, Input::Stored(ticket));
    state.handle_timeout(later(Duration::from_secs(2)));
    outputs(&mut state);
    for number in 0..membership::GOODBYES_MAX {
        let joined = joining::join_mesh_of(&mut state, 20 + u8::try_from(number).expect("few"));
        let mut restarted = start_from(&joined);
        let (answer, _) = hello(&mut restarted, peer_of_seed(2), certificate(2).encode());
        assert_eq!(left_of(answer).peer(), peer_of_seed(1), "mesh {number}");
        let (ticket, _) = leave_to_disk(&mut state);
        feed(&mut state, Input::Stored(ticket));
        state.handle_timeout(later(Duration::from_secs(2)));
        outputs(&mut state);
    }
    let (answer, _) = hello(&mut state, peer_of_seed(2), certificate(2).encode());
    let nothing = Response::Refused(Refusal::NotAMember);
    assert_eq!(answer, nothing, "the oldest gave way");
}

#[test]
fn a_member_that_dials_one_that_left_believes_it_and_dials_no_more() {
    let mut state = state(Settings::default());
    let left = Statement::left(&certificate(2), NOW.unix_ms(), &messaging_key(2));
    let id = dialled(&mut state, NOW);
    let result = Ok(Response::Left(left.encode()).encode());

    let outputs = feed(&mut state, Input::Net(NetInput::Response { id, result }));

    assert!(!state.membership.is_known(&peer_of_seed(2)));
    assert!(!awaits_dial(&mut state));
    let is_told = |o: &Output| matches!(o, Output::Event(Event::MemberLeft { .. }));
    assert!(outputs.iter().any(is_told), "{outputs:?}");
}

#[test]
fn who_left_by_a_clock_that_was_ahead_stays_a_member_when_it_comes_back() {
    let mut state = state(Settings::default());
    let (_, secret) = tickets::invite(&mut state, None);
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let left = Statement::left(&certificate(2), later(year).unix_ms(), &messaging_key(2));
    let request = Join {
        secret: secret.clone(),
        name: "pi-2".parse().expect("a name"),
        messaging_key: *messaging_key(2).public(),
        proof: messaging_key(2).sign(&Join::proof_payload(&peer_of_seed(2), &secret)),
        left: Some(left.encode()),
    };

    let (outputs, refusal) = join_with(&mut state, 2, request, NOW);

    assert_eq!(refusal, None);
    let is_closed = |o: &Output| matches!(o, Output::Net(NetOutput::Close { .. }));
    assert!(!outputs.iter().any(is_closed), "{outputs:?}");
    let ticket = Ticket(state.effects.last_ticket());
    feed(&mut state, Input::Stored(ticket));
    state.learn_told_statements(vec![left.encode()], NOW);
    let terms = state.membership.terms(&peer_of_seed(2)).expect("a member");
    assert_eq!(terms.name.as_str(), "pi-2", "its old name was free");
    assert!(terms.issued_ms > left.at_ms());
}

#[test]
fn only_the_word_of_whoever_joins_counts_for_having_left() {
    let mut state = state(Settings::default());
    let (_, secret) = tickets::invite(&mut state, None);
    let left = Statement::left(&certificate(2), NOW.unix_ms(), &messaging_key(2));
    let request = Join {
        secret: secret.clone(),
        name: "pi-3".parse().expect("a name"),
        messaging_key: *messaging_key(3).public(),
        proof: messaging_key(3).sign(&Join::proof_payload(&peer_of_seed(3), &secret)),
        left: Some(left.encode()),
    };

    join_with(&mut state, 3, request, NOW);

    assert!(state.membership.is_known(&peer_of_seed(2)));
}

#[test]
fn nothing_is_believed_of_who_joins_without_a_good_ticket() {
    let mut state = state(Settings::default());
    let secret = Secret::new([7; 16]);
    let left = Statement::left(&certificate(2), NOW.unix_ms(), &messaging_key(2));
    let request = Join {
        secret: secret.clone(),
        name: "pi-2".parse().expect("a name"),
        messaging_key: *messaging_key(2).public(),
        proof: messaging_key(2).sign(&Join::proof_payload(&peer_of_seed(2), &secret)),
        left: Some(left.encode()),
    };

    join_with(&mut state, 2, request, NOW);

    assert!(state.membership.is_known(&peer_of_seed(2)));
}

#[test]
fn a_node_that_is_alone_and_has_lost_the_mesh_key_leaves_for_a_mesh_that_it_holds() {
    let loaded = Loaded {
        certificate: Some(certificate(1).encode()),
        ..Loaded::default()
    };
    let mut state = State::new(setup(1), loaded, NOW).expect("a state");
    outputs(&mut state);
    let warning = state.mesh_key_warning().expect("a warning");
    assert!(warning.todo.contains("pimesh leave"), "{}", warning.todo);

    let (stored, _) = leave_to_disk(&mut state);
    feed(&mut state, Input::Stored(stored));

    assert_eq!(state.membership.holders(), [peer_of_seed(1)]);
    assert!(state.mesh_key_warning().is_none());
}

/// Says whether somebody is to be dialled at some time.
fn awaits_dial(state: &mut State) -> bool {
    let is_dial = |timer: &Timer| matches!(timer, Timer::Dial(_));
    let mut timers = state.effects.timers().take_due(Duration::MAX, is_dial);
    timers.pop_first().is_some()
}
