//! Connections: when they are dialled and ended, and what is said on them.

use super::*;
use crate::proto::mesh::sync::Response as SyncResponse;

/// How an attempt to be connected with a member ends.
enum Attempt {
    Fails,
    LastsMs(u64),
}

/// Goes through these attempts, each as soon as it is due; returns the wait after each.
fn waits(seed: u8, attempts: &[Attempt]) -> Vec<Duration> {
    let mut state = state_knowing(&certificate(2), [seed; 32], Settings::default());
    let (mut now, mut waits) = (NOW, Vec::new());
    for attempt in attempts {
        match attempt {
            Attempt::Fails => fail_to_dial(&mut state, now),
            Attempt::LastsMs(ms) => now = stay_connected(&mut state, now, *ms),
        }
        let wait = wait_of(&mut state, now);
        now.mono += wait;
        state.handle_timeout(now);
        let dials = |o: &Output| matches!(o, Output::Net(NetOutput::Dial { .. }));
        assert!(outputs(&mut state).iter().any(dials), "nobody dials");
        waits.push(wait);
    }
    waits
}

fn fail_to_dial(state: &mut State, now: Now) {
    let (peer, reason) = (peer_of_seed(2), "no route".to_owned());
    let failed = NetInput::DialFailed {
        peer,
        reason,
        tried: Vec::new(),
    };
    feed_at(state, Input::Net(failed), now);
}

fn stay_connected(state: &mut State, now: Now, ms: u64) -> Now {
    let hello = dialled(state, now);
    let result = Ok(Response::Hello(certificate(2).encode()).encode());
    let answered = NetInput::Response { id: hello, result };
    let ready = asked(&feed_at(state, Input::Net(answered), now));
    let result = Ok(Response::Ok.encode());
    let answered = NetInput::Response { id: ready, result };
    feed_at(state, Input::Net(answered), now);
    let ends = Now {
        mono: now.mono + Duration::from_millis(ms),
        ..now
    };
    let gone = NetInput::Disconnected {
        peer: peer_of_seed(2),
        connection: Connection(1),
        reason: "gone".to_owned(),
    };
    feed_at(state, Input::Net(gone), ends);
    ends
}

/// Returns how long the node waits before it dials the member with seed 2.
fn wait_of(state: &mut State, now: Now) -> Duration {
    let outputs = feed_at(state, Input::Control(RequestId(1), Command::Peers), now);
    let wait = outputs.iter().find_map(|output| match output {
        Output::Reply(_, Ok(Reply::Peers(peers))) => peers[1].next_dial_ms,
        _ => None,
    });
    // Told in whole milliseconds, cut off.
    Duration::from_millis(wait.expect("a wait") + 1)
}

#[test]
fn the_backoff_doubles_to_a_minute_and_begins_anew_after_a_connection_of_a_minute() {
    use Attempt::{Fails, LastsMs};
    let attempts = [
        (Fails, 1),
        (Fails, 2),
        (Fails, 4),
        (Fails, 8),
        (Fails, 16),
        (Fails, 32),
        (Fails, 60),
        (Fails, 60),
        (LastsMs(59_999), 60),
        (LastsMs(60_000), 1),
        (Fails, 2),
        (LastsMs(59_999), 4),
        (Fails, 8),
        (LastsMs(3_600_000), 1),
    ];
    let (attempts, ceilings): (Vec<Attempt>, Vec<u64>) = attempts.into_iter().unzip();

    let runs: Vec<Vec<Duration>> = (0..100).map(|seed| waits(seed, &attempts)).collect();

    for (at, ceiling) in ceilings.into_iter().enumerate() {
        let ceiling = Duration::from_secs(ceiling);
        let waits = || runs.iter().map(|waits| waits[at]);
        let (least, most) = (waits().min(), waits().max());
        let is_full_jitter = least < Some(ceiling / 10) && most > Some(ceiling * 9 / 10);
        let cut_off = Duration::from_millis(1);
        assert!(
            is_full_jitter && most <= Some(ceiling + cut_off),
            "{at}: {least:?} {most:?}"
        );
    }
}

#[test]
fn a_second_hello_closes_the_connection_and_the_peer_is_known_to_be_gone() {
    let mut state = state(Settings::default());
    open(&mut state);
    let (peer, connection) = (peer_of_seed(2), Connection(1));

    let outputs = feed(
        &mut state,
        Input::Net(NetInput::MemberRequest {
            connection,
            id: InboundId(3),
            bytes: Request::Hello(certificate(2).encode()).encode(),
        }),
    );
    let closes = |o: &Output| matches!(o, Output::Net(NetOutput::Close { connection: c, .. }) if *c == connection);
    assert!(outputs.iter().any(closes), "{outputs:?}");
    let gone = NetInput::Disconnected {
        peer,
        connection,
        reason: "closed".to_owned(),
    };
    let outputs = feed(&mut state, Input::Net(gone));

    let down = |o: &Output| matches!(o, Output::Event(Event::PeerDown { .. }));
    assert!(outputs.iter().any(down), "{outputs:?}");
}

#[test]
fn a_request_that_is_none_is_refused_with_the_reason_or_ended() {
    let mut state = state(Settings::default());
    open(&mut state);
    let ask = |state: &mut State, protocol| {
        let input = NetInput::Request {
            peer: peer_of_seed(2),
            protocol,
            id: InboundId(9),
            bytes: vec![0xff; 9],
        };
        feed(state, Input::Net(input))
    };

    let (status, _) = answer_of(&ask(&mut state, Protocol::Direct));
    assert_eq!(status, Some(Status::Malformed));
    let outputs = ask(&mut state, Protocol::Sync);
    let ended = |o: &Output| matches!(o, Output::Net(NetOutput::Refuse { id: InboundId(9) }));
    assert!(outputs.iter().any(ended), "{outputs:?}");
}

#[test]
fn a_member_whose_certificate_is_over_is_heard_no_longer_on_an_open_connection() {
    let left_ms = certificate(2).terms().expires_ms - NOW.unix_ms();
    let ends = later(Duration::from_millis(left_ms));
    let mut state = state(Settings::default());
    open(&mut state);

    let integer = Head {
        sent_ms: ends.unix_ms(),
        ..head(1)
    };
    let heard = hear(&mut state, &[iid(2, 1)], integer, ends);
    let told = sync(&mut state, &SyncRequest::default(), ends);
    let input = NetInput::Request {
        peer: peer_of_seed(2),
        protocol: Protocol::Direct,
        id: InboundId(9),
        bytes: message(2, 1, 2, 1).encode(),
    };
    let (status, ticket) = answer_of(&feed_at(&mut state, Input::Net(input), ends));

    assert_eq!(verdict(&heard), Verdict::Ignore);
    assert!(
        matches!(
            told[..],
            [
                Output::Event(Event::Refused { .. }),
                Output::Net(NetOutput::Refuse { .. })
            ]
        ),
        "{told:?}"
    );
    assert_eq!((status, ticket), (Some(Status::TryAgain), None));
}

#[test]
fn clocks_are_compared_at_once_when_integers_seem_to_be_of_another_time() {
    let mut state = state(Settings::default());
    open(&mut state);
    let future = Head {
        sent_ms: NOW.unix_ms() + 3_600_000,
        ..head(1)
    };

    let refused = hear(&mut state, &[iid(2, 1)], future, NOW);
    let again = hear(&mut state, &[iid(2, 1)], future, NOW);
    let [(id, request)] = &told(&refused)[..] else {
        panic!("clocks are compared, not {refused:?}");
    };
    let answer = SyncResponse {
        received_us: NOW.unix_us + 3_600_000_000,
        sent_us: NOW.unix_us + 3_600_000_000,
        boot: None,
    };
    let (id, result) = (*id, Ok(answer.encode()));
    feed(&mut state, Input::Net(NetInput::Response { id, result }));
    let compared = hear(&mut state, &[iid(2, 1)], future, NOW);

    assert!(!request.has_news(), "{request:?}");
    assert_eq!(told(&again), [], "a flood of hints is no flood of requests");
    assert_eq!(verdict(&refused), Verdict::Ignore);
    assert_eq!(verdict(&compared), Verdict::Accept);
}

#[test]
fn news_that_got_lost_are_told_again_while_the_connection_stands() {
    let mut state = state(Settings::default());
    let opened = open(&mut state);
    let [(id, _)] = told(&opened)[..] else {
        panic!("everything is told, not {opened:?}");
    };

    let result = Err("timed out".to_owned());
    feed(&mut state, Input::Net(NetInput::Response { id, result }));
    state.handle_timeout(later(Duration::from_secs(5)));
    let again = told(&outputs(&mut state));

    let [(_, request)] = &again[..] else {
        panic!("told once, not {again:?}");
    };
    assert!(request.certificates.contains(&certificate(1).encode()));
}

#[test]
fn keys_are_exchanged_anew_when_a_member_comes_back() {
    // Of two peers the smaller one begins.
    let seed = (3..50).find(|&seed| peer_of_seed(1) < peer_of_seed(seed));
    let seed = seed.expect("one of them is larger");
    let mut state = state(Settings::default());
    let own = crate::proto::p2sn::Fingerprint([7; 32]);
    feed(&mut state, Input::Net(NetInput::P2snReady(own)));
    let begins = |o: &Output| matches!(o, Output::Net(NetOutput::P2snOpen { .. }));
    let peer = peer_of_seed(seed);

    for _ in 0..2 {
        hello(&mut state, peer, certificate(seed).encode());
        let ready = NetInput::MemberRequest {
            connection: Connection(1),
            id: InboundId(2),
            bytes: Request::Ready.encode(),
        };
        let opened = feed(&mut state, Input::Net(ready));
        assert_eq!(opened.iter().filter(|o| begins(o)).count(), 1);
        state.p2sn_established(super::io::SessionId::Ours(1), peer);
        outputs(&mut state);
        let gone = NetInput::Disconnected {
            peer,
            connection: Connection(1),
            reason: "closed".to_owned(),
        };
        feed(&mut state, Input::Net(gone));
    }
}

/// Says for a peer how often it was told to be up, less how often to be down.
fn ups(outputs: &[Output]) -> i32 {
    outputs
        .iter()
        .map(|output| match output {
            Output::Event(Event::PeerUp { .. }) => 1,
            Output::Event(Event::PeerDown { .. }) => -1,
            _ => 0,
        })
        .sum()
}

#[test]
fn a_member_that_is_removed_is_told_to_be_down_as_it_was_told_to_be_up() {
    let mut state = state(Settings::default());
    let mut outputs = open(&mut state);
    assert_eq!(ups(&outputs), 1);

    let peer = "pi-2".to_owned();
    outputs.extend(carried_out(&mut state, Command::Remove { peer }));
    outputs.extend(feed(&mut state, Input::Net(gone())));

    assert_eq!(ups(&outputs), 0, "{outputs:?}");
}

fn gone() -> NetInput {
    NetInput::Disconnected {
        peer: peer_of_seed(2),
        connection: Connection(1),
        reason: "gone".to_owned(),
    }
}

fn closes(outputs: &[Output]) -> bool {
    let close = |o: &Output| matches!(o, Output::Net(NetOutput::Close { .. }));
    outputs.iter().any(close)
}

#[test]
fn a_member_that_floods_loses_its_connection_for_a_while() {
    let mut state = state(Settings::default());
    open(&mut state);
    let source = peer_of_seed(2);
    let bytes = vec![0xff; 8];
    let lines = |state: &mut State, count: u32| {
        let mut outputs = Vec::new();
        for _ in 0..count {
            let bytes = bytes.clone();
            outputs.extend(feed(state, Input::Net(NetInput::Live { source, bytes })));
        }
        outputs
    };
    assert!(!closes(&lines(&mut state, 5_000)), "within the limit");

    let outputs = lines(&mut state, 1);
    assert!(closes(&outputs), "{outputs:?}");
    let told = |o: &Output| {
        matches!(
            o,
            Output::Event(Event::Refused {
                what: "member",
                why: "flood",
                ..
            })
        )
    };
    assert_eq!(outputs.iter().filter(|o| told(o)).count(), 1);
    assert!(!lines(&mut state, 100).iter().any(told), "told once");
    feed(&mut state, Input::Net(gone()));

    let up = |connection| NetInput::Connected {
        peer: source,
        connection: Connection(connection),
        direction: Direction::Accepted,
        address: Address::new("somewhere").expect("legal"),
        transport: Transport::Tcp,
    };
    let soon = later(Duration::from_secs(59));
    assert!(closes(&feed_at(&mut state, Input::Net(up(2)), soon)));
    let later = later(Duration::from_secs(61));
    assert!(!closes(&feed_at(&mut state, Input::Net(up(3)), later)));
}

#[test]
fn a_node_that_was_removed_waits_for_nothing_that_it_will_not_do() {
    let mut state = state(Settings::default());
    open(&mut state);
    let revocation = mesh_key().revoke(peer_of_seed(1), NOW.unix_ms());
    let request = SyncRequest {
        revocations: vec![revocation.encode()],
        ..SyncRequest::default()
    };
    sync(&mut state, &request, NOW);
    let gone = NetInput::Disconnected {
        peer: peer_of_seed(2),
        connection: Connection(1),
        reason: "removed".to_owned(),
    };
    feed(&mut state, Input::Net(gone));
    assert!(state.membership.is_revoked());

    for seconds in [2, 4, 100] {
        let now = later(Duration::from_secs(seconds));
        state.handle_timeout(now);

        let dials = |o: &Output| matches!(o, Output::Net(NetOutput::Dial { .. }));
        assert!(!outputs(&mut state).iter().any(dials), "it dials");
        let due = state.poll_timeout();
        assert!(due.is_none_or(|due| due > now.mono), "it is due for ever");
    }
}
