//! A clock that leaps ahead deletes nothing and ends no message until something confirms it.

use super::{io::Outcome, *};
use crate::{
    proto::mesh::sync::Response as SyncResponse,
    state::io::{
        Gateway, GatewayRecord, Keep, Outgoing, OutgoingKind, RecordChange, RecordKey, RecordValue,
    },
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEARS: Duration = Duration::from_secs(11 * 365 * 24 * 60 * 60);

/// Both clocks some time after [`NOW`], with the calendar so far ahead.
fn ahead(time: Duration, ahead: Duration) -> Now {
    let later = later(time);
    Now {
        unix_us: later.unix_us + micros(ahead),
        ..later
    }
}

fn timeout(state: &mut State, now: Now) -> Vec<Output> {
    state.handle_timeout(now);
    outputs(state)
}

/// A node that starts with a message for pi-2 that has seven days from [`NOW`], which is the date
/// that it knew last.
fn restarted(now: Now) -> State {
    let setup = Setup {
        mesh_key: Some(mesh_key()),
        ..setup(1)
    };
    let waiting = Outgoing {
        id: MessageId([1; 16]),
        recipient: peer_of_seed(2).into(),
        epoch: 1,
        sequence: 1,
        created_ms: NOW.unix_ms(),
        expires_ms: NOW.unix_ms() + millis(7 * DAY),
        kind: OutgoingKind::Member,
        text: "hello".to_owned(),
    };
    let loaded = Loaded {
        certificate: Some(certificate(1).encode()),
        members: vec![certificate(2).encode()],
        outbox: vec![waiting],
        date_ms: Some(NOW.unix_ms()),
        ..Loaded::default()
    };
    let mut state = State::new(setup, loaded, now).expect("a state");
    outputs(&mut state);
    state
}

/// A node that knows a date that is so far ahead of [`NOW`], which its clock says.
fn knowing(ahead: Duration) -> State {
    let mut state = restarted(NOW);
    let date_ms = NOW.unix_ms() + millis(ahead);
    state.calendar = super::super::calendar::Calendar::new(Some(date_ms), NOW);
    state
}

/// Says whether a leap of a year, after this time, is believed at once.
fn believes_a_leap(state: &mut State, time: Duration) -> bool {
    let leapt = ahead(time, Duration::from_secs(366 * 24 * 60 * 60));
    timeout(state, leapt);
    state.believed(leapt) == leapt
}

/// Opens the connection to pi-2 at a time; returns what follows.
fn open_at(state: &mut State, now: Now) -> Vec<Output> {
    let up = NetInput::Connected {
        peer: peer_of_seed(2),
        connection: Connection(1),
        direction: Direction::Accepted,
        address: Address::new("somewhere").expect("legal"),
        transport: Transport::Tcp,
    };
    feed_at(state, Input::Net(up), now);
    let mut all = Vec::new();
    for (id, request) in [
        (1, Request::Hello(certificate(2).encode())),
        (2, Request::Ready),
    ] {
        let input = NetInput::MemberRequest {
            connection: Connection(1),
            id: InboundId(id),
            bytes: request.encode(),
        };
        all.extend(feed_at(state, Input::Net(input), now));
    }
    all
}

/// Lets pi-2 answer what it was told by its own clock.
fn answer(state: &mut State, told_it: &[Output], clock: Now, now: Now) -> Vec<Output> {
    let (id, _) = told(told_it).first().expect("told something").clone();
    let answer = SyncResponse {
        received_us: clock.unix_us,
        sent_us: clock.unix_us,
        boot: None,
    };
    let result = Ok(answer.encode());
    feed_at(state, Input::Net(NetInput::Response { id, result }), now)
}

fn has_expired(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| {
        matches!(output, Output::Event(Event::Sent(sent)) if sent.outcome == Outcome::Expired)
    })
}

/// Returns up to when history is deleted.
fn pruned_before(outputs: &[Output]) -> Option<u64> {
    let records = outputs.iter().filter_map(|output| match output {
        Output::Store(_, records) => Some(records),
        _ => None,
    });
    records.flatten().find_map(|record| match record {
        Record::Prune { before_ms, .. } => Some(*before_ms),
        _ => None,
    })
}

#[test]
fn history_is_deleted_by_the_date_that_can_be_and_not_by_a_clock_that_leapt() {
    let mut state = state(Settings::default());
    timeout(&mut state, NOW);
    let hour = Duration::from_secs(60 * 60);

    let leapt = timeout(&mut state, ahead(hour, YEARS));
    let back = timeout(&mut state, later(2 * hour));

    let a_year_before = |now: Now| now.unix_ms() - millis(365 * DAY);
    assert_eq!(pruned_before(&leapt), Some(a_year_before(later(hour))));
    assert_eq!(pruned_before(&back), Some(a_year_before(later(2 * hour))));
}

#[test]
fn what_came_before_the_clock_was_set_gets_the_date_as_soon_as_it_is() {
    let mut state = state(Settings::default());
    timeout(&mut state, NOW);
    let restamped = |outputs: &[Output]| {
        outputs.iter().find_map(|output| match output {
            Output::Store(_, records) => match records[..] {
                [Record::Restamp { unix_ms }, Record::Prune { .. }, ..] => Some(unix_ms),
                _ => None,
            },
            _ => None,
        })
    };
    let unset = Now {
        unix_us: 5_000_000,
        ..later(Duration::from_secs(60))
    };
    let set = later(Duration::from_secs(120));
    let hour = later(Duration::from_secs(120 + 60 * 60));

    let before = timeout(&mut state, unset);
    let at_once = timeout(&mut state, set);
    let an_hour_later = timeout(&mut state, hour);

    assert_eq!(restamped(&before), None);
    assert_eq!(restamped(&at_once), Some(set.unix_ms()));
    assert!(pruned_before(&an_hour_later).is_some());
    assert_eq!(restamped(&an_hour_later), None);
}

#[test]
fn a_clock_that_goes_on_evenly_for_a_day_is_believed_and_history_ages() {
    let mut state = state(Settings::default());
    for hour in 0..24 {
        timeout(&mut state, ahead(Duration::from_secs(hour * 3600), YEARS));
    }

    let outputs = timeout(&mut state, ahead(DAY, YEARS));

    let expected = ahead(DAY, YEARS).unix_ms() - millis(365 * DAY);
    assert_eq!(pruned_before(&outputs), Some(expected));
}

#[test]
fn a_known_date_years_ahead_is_given_up_when_the_clock_goes_on_evenly_for_a_day() {
    let mut state = knowing(YEARS);
    timeout(&mut state, later(Duration::from_secs(23 * 3600)));
    assert!(believes_a_leap(&mut state, Duration::from_secs(23 * 3600)));

    let mut state = knowing(YEARS);
    let day = timeout(&mut state, later(DAY));

    let date = day.iter().find_map(|output| match output {
        Output::Store(_, records) => records.iter().find_map(|record| match record {
            Record::Date { unix_ms } => Some(*unix_ms),
            _ => None,
        }),
        _ => None,
    });
    assert_eq!(date, Some(later(DAY).unix_ms()), "the next start knows it");
    let hour = Duration::from_secs(3600);
    assert!(!believes_a_leap(&mut state, DAY + hour));
}

#[test]
fn a_known_date_years_ahead_is_given_up_when_a_member_agrees_with_the_clock() {
    for (members_clock, is_given_up) in [(NOW, true), (ahead(Duration::ZERO, YEARS), false)] {
        let mut state = knowing(YEARS);
        let opened = open_at(&mut state, NOW);

        answer(&mut state, &opened, members_clock, NOW);

        let minute = Duration::from_secs(60);
        assert_eq!(!believes_a_leap(&mut state, minute), is_given_up);
    }
}

#[test]
fn a_message_outlives_a_leap_at_the_start() {
    for leap in [8 * DAY, YEARS] {
        let mut state = restarted(ahead(Duration::ZERO, leap));

        let early = timeout(&mut state, ahead(Duration::from_secs(60), leap));
        let back = timeout(&mut state, later(Duration::from_secs(120)));

        assert!(!has_expired(&early) && !has_expired(&back));
        assert_eq!(state.messages.count(), 1);
    }
}

#[test]
fn a_message_whose_time_is_over_by_an_ntp_server_too_expires() {
    let start = ahead(Duration::ZERO, 8 * DAY);
    let mut state = restarted(start);

    let mut outputs = feed_at(&mut state, Input::ClockConfirmed, start);
    outputs.extend(timeout(&mut state, start));

    assert!(has_expired(&outputs));
}

#[test]
fn a_message_in_doubt_waits_for_the_recipients_clock_and_ends_if_that_agrees() {
    let start = ahead(Duration::ZERO, 8 * DAY);
    let mut state = restarted(start);

    let opened = open_at(&mut state, start);
    assert!(
        sent(&opened).is_none(),
        "not before the clocks are compared"
    );
    let compared = answer(&mut state, &opened, start, start);

    assert!(has_expired(&compared));
}

#[test]
fn a_message_in_doubt_goes_if_the_recipients_clock_disagrees_or_says_nothing() {
    let start = ahead(Duration::ZERO, 8 * DAY);
    let mut state = restarted(start);
    let opened = open_at(&mut state, start);
    let compared = answer(&mut state, &opened, NOW, start);
    assert!(!has_expired(&compared) && sent(&compared).is_some());

    let mut state = restarted(start);
    open_at(&mut state, start);
    let silent = timeout(&mut state, ahead(Duration::from_secs(10), 8 * DAY));
    assert!(!has_expired(&silent) && sent(&silent).is_some());
}

#[test]
fn members_stay_members_while_the_clock_is_beyond_their_certificates() {
    let mut state = state(Settings::default());
    let leapt = ahead(Duration::from_secs(60), YEARS);

    let opened = open_at(&mut state, leapt);

    let opens = |o: &Output| matches!(o, Output::Net(NetOutput::Open { .. }));
    assert!(opened.iter().any(opens), "{opened:?}");
}

#[test]
fn a_message_whose_clock_leaps_while_it_is_written_keeps_its_time() {
    let mut state = state(Settings::default());
    let (_, ticket) = send(&mut state, "hello");
    let leapt = ahead(Duration::from_secs(1), YEARS);

    feed_at(&mut state, Input::Stored(ticket.expect("a ticket")), leapt);

    let outputs = timeout(&mut state, ahead(Duration::from_secs(2), YEARS));
    assert!(!has_expired(&outputs));
    assert_eq!(state.messages.count(), 1);
}

/// A node with a record of a gateway that ends 25 hours after [`NOW`], and one without an end.
fn with_records(now: Now) -> State {
    let mut state = restarted(now);
    let record = |name: &str, ends_ms| {
        RecordChange::Put(GatewayRecord {
            key: RecordKey::new(name).expect("short"),
            value: RecordValue::default(),
            ends_ms,
        })
    };
    let ends = record("ends", Some(NOW.unix_ms() + 25 * 3_600_000));
    let changes = Keep::Change(vec![ends, record("stays", None)]);
    carried_out(&mut state, Command::Keep(Gateway::Syft, changes));
    state
}

fn kept(state: &mut State) -> usize {
    let all = Keep::List(RecordKey::new("").expect("short"));
    let outputs = carried_out(state, Command::Keep(Gateway::Syft, all));
    let found = outputs.into_iter().find_map(|output| match output {
        Output::Reply(_, Ok(Reply::Kept(found))) => Some(found.len()),
        _ => None,
    });
    found.expect("an answer")
}

fn deletes_record(outputs: &[Output]) -> bool {
    let is_deletion =
        |record: &Record| matches!(record, Record::OfGateway(_, RecordChange::Delete(_)));
    outputs.iter().any(|output| match output {
        Output::Store(_, records) => records.iter().any(is_deletion),
        _ => false,
    })
}

#[test]
fn a_record_goes_at_its_end_here_and_on_the_disk() {
    let mut state = with_records(NOW);

    let early = timeout(&mut state, later(DAY));
    assert!(!deletes_record(&early));
    assert_eq!(kept(&mut state), 2);
    let late = timeout(&mut state, later(DAY + Duration::from_secs(2 * 3600)));
    assert!(deletes_record(&late));
    assert_eq!(kept(&mut state), 1);
}

#[test]
fn no_record_ends_by_a_clock_that_leapt() {
    let mut state = with_records(NOW);

    let leapt = timeout(&mut state, ahead(DAY, YEARS));

    assert!(!deletes_record(&leapt));
    assert_eq!(kept(&mut state), 2, "also when the clock is back");
}
