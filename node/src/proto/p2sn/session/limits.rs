//! How much a session takes, and how long.

use super::{
    pair::{NOW, Pair, asking, client, feed, frame, opened, outputs, sealed, server, write},
    *,
};
use crate::proto::p2sn::samples::{large, rng, small};

#[test]
fn messages_of_no_byte_and_of_the_most_bytes_pass_and_one_more_is_refused_with_the_limit() {
    let mut pair = Pair::established(&large(), &small());

    let refused = pair.client.send(&[0; 118], &mut rng(), NOW);
    assert_eq!(refused, Err(SendError::TooLong { max: 117, got: 118 }));
    for message in [vec![7; 117], Vec::new()] {
        assert_eq!(pair.client.send(&message, &mut rng(), NOW), Ok(()));
        pair.run();
        assert_eq!(
            pair.log.pop(),
            Some((Role::Server, Output::Message(message)))
        );
        pair.server.reply(b"", &mut rng(), NOW);
        pair.run();
        assert_eq!(
            pair.log.pop(),
            Some((Role::Client, Output::Reply(Vec::new())))
        );
    }
}

#[test]
fn a_reply_that_is_too_long_for_the_clients_key_is_cut() {
    let mut pair = Pair::established(&small(), &large());
    pair.client.send(b"x", &mut pair.rng, NOW).expect("ready");
    pair.run();

    pair.server.reply(&[9; 200], &mut pair.rng, NOW);
    pair.run();

    assert_eq!(
        pair.log.last(),
        Some(&(Role::Client, Output::Reply(vec![9; 117])))
    );
}

#[test]
fn a_frame_of_the_exchange_has_at_most_8_kib() {
    let (own, peer) = (large(), small());
    let pem = peer.public().to_pem();
    let padded = |length: usize| " ".repeat(length - pem.len()) + &pem;
    let mut session = asking(&own);
    let expected = [Output::PeerKey(peer.public().clone())];
    assert_eq!(feed(&mut session, &frame(padded(8_192))), expected);

    let closed = feed(&mut asking(&own), &frame(padded(8_193)));
    assert_eq!(closed, [Output::Closed(Reason::TooLong)]);

    let mut session = asking(&own);
    let refused =
        (0..8_194).find(|_| feed(&mut session, b"x") == [Output::Closed(Reason::TooLong)]);
    assert_eq!(refused, Some(8_193));
}

#[test]
fn an_exchange_takes_at_most_10_s_however_busy_the_peer_is() {
    let own = large();
    let second = Duration::from_secs(1);
    let mut session = server(&own);
    assert_eq!(session.poll_timeout(), Some(10 * second));
    session.handle_timeout(10 * second - Duration::from_millis(1));
    assert_eq!(outputs(&mut session), []);

    session.handle_input(b"P2SN:PUB", &mut rng(), 8 * second);
    session.handle_input(b"KEY\x04", &mut rng(), 9 * second);
    assert_eq!(outputs(&mut session), [write(own.public().to_pem())]);
    assert_eq!(session.poll_timeout(), Some(10 * second));
    let check = frame(sealed(&own, KEYCHECK));
    session.handle_input(&check, &mut rng(), 10 * second);

    assert_eq!(
        outputs(&mut session),
        [Output::Closed(Reason::ExchangeTimeout)]
    );
    assert_eq!(session.poll_timeout(), None);
    session.handle_timeout(11 * second);
    assert_eq!(outputs(&mut session), []);
}

#[test]
fn a_new_exchange_has_its_own_10_s() {
    let second = Duration::from_secs(1);
    let mut session = Pair::established(&small(), &large()).server;

    session.handle_input(b"P2SN:PUBKEY\x04", &mut rng(), 100 * second);

    assert_eq!(session.poll_timeout(), Some(110 * second));
}

#[test]
fn a_key_that_is_accepted_too_late_is_not_used() {
    let (own, peer) = (small(), large());
    let mut session = client(&own);
    outputs(&mut session);
    feed(&mut session, &frame(peer.public().to_pem()));

    session.accept_key(&mut rng(), Duration::from_secs(10));

    assert_eq!(
        outputs(&mut session),
        [Output::Closed(Reason::ExchangeTimeout)]
    );
}

#[test]
fn an_idle_session_ends_and_each_message_starts_its_time_anew() {
    let second = Duration::from_secs(1);
    let mut pair = Pair::established(&small(), &large());
    assert_eq!(pair.server.poll_timeout(), Some(300 * second));
    let message = frame(sealed(&large(), b"x"));
    pair.server.handle_input(&message, &mut rng(), 299 * second);
    pair.server.reply(b"", &mut rng(), 300 * second);
    outputs(&mut pair.server);

    assert_eq!(pair.server.poll_timeout(), Some(600 * second));
    pair.server.handle_timeout(600 * second);

    assert_eq!(
        outputs(&mut pair.server),
        [Output::Closed(Reason::IdleTimeout)]
    );
}

#[test]
fn a_client_waits_for_a_reply_so_long_and_no_longer() {
    let mut session = Pair::established(&small(), &large()).client;
    session
        .send(b"x", &mut rng(), Duration::from_secs(5))
        .expect("ready");
    outputs(&mut session);
    assert_eq!(session.poll_timeout(), Some(Duration::from_secs(15)));

    let late = frame(sealed(&small(), b"late"));
    session.handle_input(&late, &mut rng(), Duration::from_secs(15));

    assert_eq!(
        outputs(&mut session),
        [Output::Closed(Reason::ReplyTimeout)]
    );
}

/// Rule P2SN-REPLY-IN-TIME: it would take a late reply for the answer to its next message.
#[test]
fn an_old_client_gets_its_reply_within_2_5_s_or_is_disconnected() {
    let (own, peer) = (small(), large());
    let session_after = |answered: Duration| {
        let mut session = Pair::established(&peer, &own).server;
        session.limits = Limits::old_clients();
        feed(&mut session, &frame(sealed(&own, b"x")));
        session.reply(b"P2SN:OK", &mut rng(), answered);
        outputs(&mut session)
    };

    let [reply] = &session_after(Duration::from_millis(2_499))[..] else {
        panic!("one output")
    };
    assert_eq!(opened(reply, &peer), b"P2SN:OK");
    let late = session_after(Duration::from_millis(2_500));
    assert_eq!(late, [Output::Closed(Reason::ReplyTimeout)]);
}
