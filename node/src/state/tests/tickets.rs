//! Tickets that are listed and cancelled.

use super::*;

fn ask(state: &mut State, command: Command) -> Vec<Output> {
    feed(state, Input::Control(RequestId(3), command))
}

/// Makes a ticket with this name, on disk; returns what was answered, and its secret.
pub(super) fn invite(state: &mut State, name: Option<&str>) -> (report::Invite, Secret) {
    let command = Command::Invite(Wanted {
        name: name.map(str::to_owned),
        index: None,
        further: Ranges::default(),
        vouched: Vouched::ALL,
        lifetime: None,
    });
    let ticket = stored(&ask(state, command));
    let outputs = feed(state, Input::Stored(ticket));
    let invite = outputs.into_iter().find_map(|output| match output {
        Output::Reply(_, Ok(Reply::Invited(invite))) => Some(invite),
        _ => None,
    });
    let invite = invite.expect("a ticket");
    let ticket = crate::proto::mesh::ticket::Ticket::from_text(&invite.ticket);
    let secret = ticket.expect("legal").secret;
    (invite, secret)
}

fn open_ids(state: &mut State) -> Vec<String> {
    let outputs = ask(state, Command::Invites);
    match &outputs[..] {
        [Output::Reply(_, Ok(Reply::Invites(invites)))] => {
            invites.iter().map(|invite| invite.id.clone()).collect()
        }
        outputs => panic!("a list, not {outputs:?}"),
    }
}

fn cancel(state: &mut State, which: Option<&str>) -> Vec<Output> {
    let which = which.map(str::to_owned);
    ask(state, Command::CancelInvites { which })
}

/// The clocks after this time, with the calendar set forward by hand.
fn set_forward(passed: Duration, forward: Duration) -> Now {
    Now {
        unix_us: later(passed + forward).unix_us,
        ..later(passed)
    }
}

#[test]
fn a_ticket_is_good_for_the_time_that_really_passes() {
    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    for (passed, forward, refused) in [
        (14 * MINUTE, Duration::ZERO, None),
        (14 * MINUTE, DAY, None),
        (16 * MINUTE, Duration::ZERO, Some(Refusal::TicketExpired)),
        (16 * MINUTE, DAY, Some(Refusal::TicketExpired)),
    ] {
        let mut state = state(Settings::default());
        let (_, secret) = invite(&mut state, None);
        let now = set_forward(passed, forward);

        assert_eq!(join(&mut state, 5, &secret, 5, now), refused, "{passed:?}");
    }

    // Set back, it ends no later.
    let mut state = state(Settings::default());
    let (_, secret) = invite(&mut state, None);
    let set_back = Now {
        unix_us: NOW.unix_us,
        ..later(16 * MINUTE)
    };
    let refused = join(&mut state, 5, &secret, 5, set_back);
    assert_eq!(refused, Some(Refusal::TicketExpired));
}

#[test]
fn a_ticket_is_listed_with_its_end_by_the_clock_of_today() {
    let mut state = state(Settings::default());
    invite(&mut state, None);
    let (passed, forward) = (Duration::from_secs(60), Duration::from_secs(7_000));
    let now = set_forward(passed, forward);

    let outputs = feed_at(
        &mut state,
        Input::Control(RequestId(3), Command::Invites),
        now,
    );

    let [Output::Reply(_, Ok(Reply::Invites(invites)))] = &outputs[..] else {
        panic!("a list, not {outputs:?}");
    };
    assert_eq!(invites[0].expires_ms, now.unix_ms() + 14 * 60_000);
}

#[test]
fn a_cancelled_ticket_frees_its_index_and_whoever_comes_with_it_is_told() {
    let mut state = state(Settings::default());
    let (first, secret) = invite(&mut state, Some("kitchen"));

    let outputs = cancel(&mut state, Some("kitchen"));
    let before_disk = outputs.iter().any(|o| matches!(o, Output::Reply(..)));
    let replied = feed(&mut state, Input::Stored(stored(&outputs)));
    let refused = join(&mut state, 5, &secret, 5, NOW);
    let (second, _) = invite(&mut state, Some("kitchen"));

    assert!(!before_disk, "nobody hears of it before it is on disk");
    let [Output::Reply(_, Ok(Reply::InvitesCancelled(cancelled)))] = &replied[..] else {
        panic!("an answer, not {replied:?}");
    };
    assert_eq!(cancelled[0].id, first.id);
    assert_eq!(refused, Some(Refusal::TicketCancelled));
    assert_eq!(second.index, first.index);
    assert_eq!(open_ids(&mut state), [second.id]);
}

#[test]
fn a_ticket_whose_cancelling_cannot_be_written_is_as_good_as_before() {
    let mut state = state(Settings::default());
    let (invite, secret) = invite(&mut state, None);

    let ticket = stored(&cancel(&mut state, Some(&invite.id)));
    let failed = Input::StoreFailed(ticket, "disk full".to_owned());
    let outputs = feed(&mut state, failed);

    assert!(failure(&outputs).is_some_and(|f| f.message.contains("disk full")));
    assert_eq!(open_ids(&mut state), [invite.id]);
    assert_eq!(join(&mut state, 5, &secret, 5, NOW), None);
}

#[test]
fn all_open_tickets_are_cancelled_at_once_and_used_ones_are_not_among_them() {
    let mut state = state(Settings::default());
    let (_, used) = invite(&mut state, None);
    let (welcomed, _) = join_with(&mut state, 5, join_request(5, &used, 5), NOW);
    feed(&mut state, Input::Stored(stored(&welcomed)));
    let (one, _) = invite(&mut state, None);
    let (two, _) = invite(&mut state, None);

    let listed: std::collections::BTreeSet<String> = open_ids(&mut state).into_iter().collect();
    let ticket = stored(&cancel(&mut state, None));
    feed(&mut state, Input::Stored(ticket));

    assert_eq!(listed, [one.id, two.id].into());
    assert_eq!(open_ids(&mut state), Vec::<String>::new());
    let second = join(&mut state, 6, &used, 6, NOW);
    assert_eq!(second, Some(Refusal::TicketUnknown), "used, not cancelled");
}

#[test]
fn no_more_cancelled_tickets_are_remembered_than_may_be_open() {
    let mut state = state(Settings::default());
    let (_, first) = invite(&mut state, None);
    let ticket = stored(&cancel(&mut state, None));
    feed(&mut state, Input::Stored(ticket));
    for _ in 0..64 {
        invite(&mut state, None);
    }

    let ticket = stored(&cancel(&mut state, None));
    feed(&mut state, Input::Stored(ticket));

    let refused = join(&mut state, 5, &first, 5, NOW);
    assert!(
        matches!(
            refused,
            Some(Refusal::TicketUnknown | Refusal::TicketCancelled)
        ),
        "{refused:?}"
    );
    assert_eq!(state.membership.remembered_invites(), 64);
}

#[test]
fn a_ticket_that_is_not_there_cannot_be_cancelled() {
    let mut state = state(Settings::default());
    invite(&mut state, Some("kitchen"));

    let outputs = cancel(&mut state, Some("cellar"));

    let failure = failure(&outputs).expect("refused");
    assert!(failure.message.contains("`cellar`"), "{failure:?}");
    let text = failure.hint.as_deref().unwrap_or_default();
    assert!(text.contains("invite --list"), "{failure:?}");
}

#[test]
fn a_used_ticket_lets_nobody_in_again_who_was_removed_or_left() {
    let revocation = mesh_key().revoke(peer_of_seed(5), NOW.unix_ms() + 1_000);
    for is_removed in [false, true] {
        let mut state = state(Settings::default());
        let (_, secret) = invite(&mut state, None);
        assert_eq!(join(&mut state, 5, &secret, 5, NOW), None);
        let ticket = Ticket(state.effects.last_ticket());
        feed(&mut state, Input::Stored(ticket));
        assert!(state.membership.is_known(&peer_of_seed(5)));

        if is_removed {
            state.learn_statements(vec![], vec![revocation.encode()], NOW);
        } else {
            let mesh = *state.membership.mesh();
            let all = state.membership.certificates().into_iter();
            let own = all
                .map(|bytes| Certificate::decode(&bytes, &mesh).expect("legal"))
                .find(|certificate| certificate.terms().peer == peer_of_seed(5))
                .expect("a member");
            let left = Statement::left(&own, NOW.unix_ms() + 1_000, &messaging_key(5));
            state.learn_told_statements(vec![left.encode()], NOW);
        }
        outputs(&mut state);

        let refused = join(&mut state, 5, &secret, 5, NOW);

        assert_eq!(refused, Some(Refusal::TicketUnknown), "{is_removed}");
    }
}
