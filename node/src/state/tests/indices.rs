//! Members that own several indices, and what this node may speak for.

use super::*;

fn ranges(text: &str) -> Ranges {
    text.parse().expect("legal")
}

fn invite(state: &mut State, index: Option<i32>, further: &str) -> Vec<Output> {
    let command = Command::Invite(Wanted {
        index: index.map(Index),
        further: ranges(further),
        ..Wanted::default()
    });
    feed(state, Input::Control(RequestId(1), command))
}

/// States that a member owns further indices, and lets this node hear of it.
fn give(state: &mut State, seed: u8, further: &str, at_ms: u64) {
    let statement = mesh_key().state_indices(peer_of_seed(seed), ranges(further), at_ms);
    tell(state, &[statement]);
}

fn tell(state: &mut State, statements: &[Statement]) -> Vec<Output> {
    let request = SyncRequest {
        statements: statements.iter().map(Statement::encode).collect(),
        ..SyncRequest::default()
    };
    sync(state, &request, NOW)
}

/// Publishes under an index; returns the frame's entry, or why not.
fn publish(state: &mut State, index: i32) -> Result<Entry, Failure> {
    let command = Command::Integers {
        index: Some(Index(index)),
        values: vec![Value(20)],
        at: None,
    };
    let outputs = feed(state, Input::Control(RequestId(1), command));
    if let Some(failure) = failure(&outputs) {
        return Err(failure.clone());
    }
    let frame = outputs.iter().find_map(|output| match output {
        Output::Net(NetOutput::Publish { frame, .. }) => Some(frame.clone()),
        _ => None,
    });
    let frame = frame.expect("a frame");
    let message = crate::proto::iid::native::Message::decode(&frame).expect("legal");
    Ok(message.frames()[0].head().entry)
}

#[test]
fn a_ticket_with_several_indices_makes_a_member_that_owns_them_all() {
    let mut state = state(Settings::default());
    open(&mut state);
    let outputs = invite(&mut state, Some(7), "100..109");
    let replied = feed(&mut state, Input::Stored(stored(&outputs)));
    let Some(Output::Reply(_, Ok(Reply::Invited(report)))) = replied.first() else {
        panic!("a ticket, not {replied:?}");
    };
    assert_eq!(
        (report.index, &report.further),
        (Index(7), &ranges("100..109"))
    );
    let ticket = crate::proto::mesh::ticket::Ticket::from_text(&report.ticket);
    let secret = ticket.expect("legal").secret;

    assert_eq!(join(&mut state, 5, &secret, 5, NOW), None);
    let ticket = Ticket(state.effects.last_ticket());
    let outputs = feed(&mut state, Input::Stored(ticket));

    let told = told(&outputs);
    let statement = told
        .iter()
        .flat_map(|(_, request)| &request.statements)
        .next();
    let statement = Statement::decode(statement.expect("told"), &mesh_key().mesh());
    let statement = statement.expect("legal");
    assert_eq!(statement.peer(), peer_of_seed(5));
    assert_eq!(*statement.says(), Says::Indices(ranges("100..109")));
    let speaks = |index| {
        state
            .membership
            .may_speak(&peer_of_seed(5), Index(index), false)
    };
    assert_eq!(
        [7, 100, 109, 110, 8].map(speaks),
        [true, true, true, false, false]
    );
    assert!(
        !state
            .membership
            .may_speak(&peer_of_seed(2), Index(105), true)
    );
    let peers = state.report_peers(NOW);
    let shown = peers.iter().find(|peer| peer.peer_id == peer_of_seed(5));
    assert_eq!(shown.expect("a member").further, ranges("100..109"));
}

#[test]
fn indices_that_are_anybodys_are_not_given_again_and_the_reason_says_whose_they_are() {
    let mut state = state(Settings::default());
    give(&mut state, 2, "100..109", NOW.unix_ms());
    let outputs = invite(&mut state, Some(50), "60..69");
    feed(&mut state, Input::Stored(stored(&outputs)));

    for (index, further, said) in [
        (Some(2), "", "index 2 is taken: it is that of `pi-2`"),
        (Some(105), "", "index 105 is taken: it is that of `pi-2`"),
        (
            Some(200),
            "90..100",
            "index 100 is taken: it is that of `pi-2`",
        ),
        (
            Some(200),
            "69,300",
            "index 69 is taken: an open ticket gives it",
        ),
        (Some(50), "", "index 50 is taken: an open ticket gives it"),
        (Some(200), "199..201", "index 200 is named twice"),
    ] {
        let outputs = invite(&mut state, index, further);
        let failure = failure(&outputs).expect("refused");
        assert!(failure.message.contains(said), "{failure:?}");
    }
}

#[test]
fn the_lowest_free_index_is_none_of_those_that_are_given_beside_it() {
    let mut state = state(Settings::default());

    let outputs = invite(&mut state, None, "3..5");
    let replied = feed(&mut state, Input::Stored(stored(&outputs)));

    let Some(Output::Reply(_, Ok(Reply::Invited(report)))) = replied.first() else {
        panic!("a ticket, not {replied:?}");
    };
    assert_eq!(report.index, Index(6));
}

#[test]
fn a_node_speaks_for_its_indices_and_as_a_gateway_for_what_it_vouches() {
    let mut state = state(Settings::default());
    give(&mut state, 1, "7,100..109", NOW.unix_ms());
    let vouched = mesh_key().issue(Terms {
        vouched: Vouched::range(300, 399).expect("legal"),
        issued_ms: NOW.unix_ms(),
        ..certificate(1).terms().clone()
    });
    let request = SyncRequest {
        certificates: vec![vouched.encode()],
        ..SyncRequest::default()
    };
    sync(&mut state, &request, NOW);

    assert_eq!(publish(&mut state, 1), Ok(Entry::Native));
    assert_eq!(publish(&mut state, 109), Ok(Entry::Native));
    assert_eq!(publish(&mut state, 350), Ok(Entry::Bridged));
    let other = publish(&mut state, 2).expect_err("another's");
    assert!(other.message.contains("`pi-2`"), "{other:?}");
    let nobody = publish(&mut state, 400).expect_err("nobody's");
    let hint = nobody.hint.unwrap_or_default();
    assert!(
        hint.contains("1,7,100..109") && hint.contains("those of 300..399 that no member owns"),
        "{hint}"
    );
}

#[test]
fn further_indices_end_with_the_membership_and_do_not_come_back_with_a_new_one() {
    let mut state = state(Settings::default());
    give(&mut state, 2, "100..109", NOW.unix_ms());
    let removed = mesh_key().revoke(peer_of_seed(2), NOW.unix_ms());
    let again = mesh_key().issue(Terms {
        issued_ms: NOW.unix_ms() + 1,
        ..certificate(2).terms().clone()
    });
    let speaks = |state: &State| {
        state
            .membership
            .may_speak(&peer_of_seed(2), Index(105), false)
    };
    assert!(speaks(&state));

    state.learn_statements(vec![again.encode()], vec![removed.encode()], NOW);

    assert!(state.membership.is_known(&peer_of_seed(2)));
    assert!(!speaks(&state));
}

#[test]
fn a_statement_that_is_older_or_forged_changes_nothing() {
    let mut state = state(Settings::default());
    give(&mut state, 2, "100", NOW.unix_ms());
    let older = mesh_key().state_indices(peer_of_seed(2), ranges("200"), NOW.unix_ms() - 1);
    let foreign = MeshKey::from_seed(&[8; 32]);
    let forged = foreign.state_indices(peer_of_seed(2), ranges("300"), NOW.unix_ms() + 1);

    let outputs = tell(&mut state, &[older, forged]);

    let owns = |index| {
        state
            .membership
            .may_speak(&peer_of_seed(2), Index(index), false)
    };
    assert_eq!([100, 200, 300].map(owns), [true, false, false]);
    assert!(!outputs.iter().any(|o| matches!(o, Output::Store(..))));
    assert!(
        state
            .membership
            .said(Kind::Indices, &peer_of_seed(2))
            .is_some()
    );
}

/// Has this node state what a member owns; returns the outputs once it is on disk.
fn give_by_command(state: &mut State, peer: &str, further: &str) -> Result<Vec<Output>, Failure> {
    let command = Command::GiveIndices {
        peer: peer.to_owned(),
        further: ranges(further),
    };
    let mut outputs = feed(state, Input::Control(RequestId(1), command));
    if let Some(failure) = failure(&outputs) {
        return Err(failure.clone());
    }
    outputs.extend(feed(state, Input::Stored(stored(&outputs))));
    Ok(outputs)
}

fn speaks(state: &State, seed: u8, indices: &[i32]) -> Vec<bool> {
    let peer = peer_of_seed(seed);
    let may = |index: &i32| state.membership.may_speak(&peer, Index(*index), false);
    indices.iter().map(may).collect()
}

#[test]
fn a_member_is_given_further_indices_and_they_are_taken_back() {
    let mut state = state(Settings::default());
    open(&mut state);

    let given = give_by_command(&mut state, "pi-2", "100..109").expect("free");
    let first = speaks(&state, 2, &[2, 100, 109, 200]);
    give_by_command(&mut state, "pi-2", "109,200").expect("its own may be named again");
    let second = speaks(&state, 2, &[2, 100, 109, 200]);
    give_by_command(&mut state, "pi-2", "").expect("none");
    let none = speaks(&state, 2, &[2, 100, 109, 200]);

    let told = told(&given);
    let statement = Statement::decode(&told[0].1.statements[0], &mesh_key().mesh());
    let statement = statement.expect("good");
    assert_eq!(*statement.says(), Says::Indices(ranges("100..109")));
    assert!(given.iter().any(|output| matches!(
        output,
        Output::Reply(RequestId(1), Ok(Reply::IndicesGiven(given)))
            if given.name == "pi-2" && given.further == ranges("100..109")
    )));
    assert_eq!(first, [true, true, true, false]);
    assert_eq!(second, [true, false, true, true]);
    assert_eq!(none, [true, false, false, false]);
}

#[test]
fn an_index_that_is_somebodys_is_not_given_to_a_member() {
    let mut state = state(Settings::default());
    open(&mut state);
    give_by_command(&mut state, "pi-1", "50..59").expect("this node's, too");
    let outputs = invite(&mut state, Some(7), "");
    feed(&mut state, Input::Stored(stored(&outputs)));
    for (further, why) in [
        ("1", "`pi-1`"),
        ("2", "`pi-2` already"),
        ("55..70", "index 55 is taken"),
        ("6..8", "an open ticket"),
    ] {
        let refused = give_by_command(&mut state, "pi-2", further).expect_err(further);
        assert!(refused.message.contains(why), "{further}: {refused:?}");
        assert!(refused.hint.is_some(), "{refused:?}");
    }
    assert_eq!(speaks(&state, 1, &[1, 55]), [true, true]);
}

#[test]
fn indices_of_an_earlier_membership_do_not_come_back_with_a_ticket() {
    let mut state = state(Settings::default());
    let (_, secret) = tickets::invite(&mut state, None);
    // The member left when this was not known yet, by a clock that was behind.
    give(&mut state, 2, "100..109", NOW.unix_ms());
    let left = Statement::left(&certificate(2), NOW.unix_ms() - 1, &messaging_key(2));
    tell(&mut state, &[left]);

    assert_eq!(join(&mut state, 2, &secret, 2, NOW), None);
    let ticket = Ticket(state.effects.last_ticket());
    feed(&mut state, Input::Stored(ticket));

    let peer = peer_of_seed(2);
    let own = state.membership.terms(&peer).expect("a member").index.0;
    assert_eq!(speaks(&state, 2, &[own, 100]), [true, false]);
}
