//! What both roles do, with peers that behave and with peers that err.

use super::{
    pair::{
        NOW, Pair, asking, checking, client, feed, frame, opened, outputs, sealed, server, write,
    },
    *,
};
use crate::proto::p2sn::samples::{large, rng, small};

/// A client that has sent its key check.
fn checked(own: &PrivateKey, peer: &PrivateKey) -> Session {
    let mut session = client(own);
    feed(&mut session, &frame(peer.public().to_pem()));
    session.accept_key(&mut rng(), NOW);
    outputs(&mut session);
    session
}

/// A client that has shown its key.
fn shown(own: &PrivateKey, peer: &PrivateKey) -> Session {
    let mut session = checked(own, peer);
    feed(&mut session, b"P2SN:PUBKEY\x04");
    session
}

#[test]
fn the_exchange_and_a_message_work_in_every_segmentation() {
    let (small, large) = (small(), large());

    for piece in [1, 2, 7, 64, 171, 172, 173, 10_000] {
        let mut pair = Pair::new(&small, &large, piece);
        pair.run();
        pair.client
            .send(b"door open", &mut pair.rng, NOW)
            .expect("ready");
        pair.run();
        pair.server.reply(b"P2SN:OK", &mut pair.rng, NOW);
        pair.run();

        assert_eq!(
            pair.log,
            [
                (Role::Client, Output::PeerKey(large.public().clone())),
                (Role::Server, Output::PeerKey(small.public().clone())),
                (Role::Client, Output::Established),
                (Role::Server, Output::Established),
                (Role::Server, Output::Message(b"door open".to_vec())),
                (Role::Client, Output::Reply(b"P2SN:OK".to_vec())),
            ],
            "pieces of {piece}"
        );
    }
}

#[test]
fn the_server_takes_the_steps_of_the_table() {
    let (own, peer) = (large(), small());
    let mut session = server(&own);
    assert_eq!(outputs(&mut session), []);

    assert_eq!(
        feed(&mut session, b"P2SN:PUBKEY\x04"),
        [write(own.public().to_pem())]
    );
    let check = frame(sealed(&own, KEYCHECK));
    assert_eq!(feed(&mut session, &check), [write("P2SN:PUBKEY")]);
    let key = frame(STANDARD.encode(peer.public().to_pem()));
    assert_eq!(
        feed(&mut session, &key),
        [Output::PeerKey(peer.public().clone())]
    );
    session.accept_key(&mut rng(), NOW);
    let [check, Output::Established] = &outputs(&mut session)[..] else {
        panic!("two outputs")
    };
    assert_eq!(opened(check, &peer), KEYCHECK);

    let message = frame(sealed(&own, b"door open"));
    assert_eq!(
        feed(&mut session, &message),
        [Output::Message(b"door open".to_vec())]
    );
    session.reply(b"P2SN:OK", &mut rng(), NOW);
    let [reply] = &outputs(&mut session)[..] else {
        panic!("one output")
    };
    assert_eq!(opened(reply, &peer), b"P2SN:OK");
}

#[test]
fn the_client_takes_the_steps_of_the_table() {
    let (own, peer) = (small(), large());
    let mut session = client(&own);
    assert_eq!(outputs(&mut session), [write("P2SN:PUBKEY")]);

    let key = frame(peer.public().to_pem());
    assert_eq!(
        feed(&mut session, &key),
        [Output::PeerKey(peer.public().clone())]
    );
    session.accept_key(&mut rng(), NOW);
    let [check] = &outputs(&mut session)[..] else {
        panic!("one output")
    };
    assert_eq!(opened(check, &peer), KEYCHECK);
    let key = STANDARD.encode(own.public().to_pem());
    assert_eq!(feed(&mut session, b"P2SN:PUBKEY\x04"), [write(key)]);
    assert_eq!(
        feed(&mut session, &frame(sealed(&own, KEYCHECK))),
        [Output::Established]
    );

    session.send(b"door open", &mut rng(), NOW).expect("ready");
    let [message] = &outputs(&mut session)[..] else {
        panic!("one output")
    };
    assert_eq!(opened(message, &peer), b"door open");
    let reply = frame(sealed(&own, b"P2SN:OK"));
    assert_eq!(
        feed(&mut session, &reply),
        [Output::Reply(b"P2SN:OK".to_vec())]
    );
}

/// Rule P2SN-KEY-FRAME: the standard says base64 where the program sends a PEM.
#[test]
fn both_roles_take_a_key_as_pem_and_as_base64_of_it() {
    let (own, peer) = (large(), small());
    let pem = peer.public().to_pem();

    for key in [frame(&pem), frame(STANDARD.encode(&pem))] {
        let mut client = client(&own);
        outputs(&mut client);
        for session in [&mut client, &mut asking(&own)] {
            assert_eq!(
                feed(session, &key),
                [Output::PeerKey(peer.public().clone())]
            );
        }
    }
}

#[test]
fn a_key_with_a_message_behind_it_in_the_same_segment_is_taken() {
    let (own, peer) = (large(), small());
    let mut session = asking(&own);
    let both = [frame(peer.public().to_pem()), frame(sealed(&own, b"early"))].concat();

    assert_eq!(
        feed(&mut session, &both),
        [Output::PeerKey(peer.public().clone())]
    );
    session.accept_key(&mut rng(), NOW);

    let [_check, Output::Established, Output::Message(message)] = &outputs(&mut session)[..] else {
        panic!("three outputs")
    };
    assert_eq!(message, b"early");
}

#[test]
fn messages_in_one_segment_are_given_out_one_by_one_as_they_are_answered() {
    let (own, peer) = (small(), large());
    let mut session = Pair::established(&peer, &own).server;
    let texts = [b"one", b"two", b"six", b"ten"];
    let segment: Vec<u8> = texts
        .iter()
        .flat_map(|text| frame(sealed(&own, *text)))
        .collect();

    session.handle_input(&segment, &mut rng(), NOW);

    for text in texts {
        assert_eq!(
            outputs(&mut session).pop(),
            Some(Output::Message(text.to_vec()))
        );
        session.reply(b"", &mut rng(), NOW);
    }
}

#[test]
fn a_peer_that_sends_on_and_on_without_waiting_for_replies_is_cut_off() {
    let (own, peer) = (small(), large());
    let mut session = Pair::established(&peer, &own).server;
    let block = frame(sealed(&own, b"more"));

    // One is given out, four may wait.
    assert_eq!(
        feed(&mut session, &block.repeat(5)),
        [Output::Message(b"more".to_vec())]
    );

    assert_eq!(feed(&mut session, b"P"), [Output::Closed(Reason::TooLong)]);
}

#[test]
fn old_clients_send_bare_blocks_and_a_late_end_is_swallowed() {
    let (own, peer) = (small(), large());
    let mut session = Pair::established(&peer, &own).server;

    let bare = sealed(&own, b"bare");
    assert_eq!(
        feed(&mut session, bare.as_bytes()),
        [Output::Message(b"bare".to_vec())]
    );
    session.reply(b"", &mut rng(), NOW);
    outputs(&mut session);
    assert_eq!(feed(&mut session, &[END]), []);

    let bare = sealed(&own, b"again").into_bytes();
    assert_eq!(
        feed(&mut session, &bare),
        [Output::Message(b"again".to_vec())]
    );
    session.reply(b"", &mut rng(), NOW);
    outputs(&mut session);
    assert_eq!(
        feed(&mut session, b"P2SN:PUBKEY\x04"),
        [write(own.public().to_pem())]
    );
}

#[test]
fn a_reply_without_end_is_taken_and_its_late_end_swallowed() {
    let (own, peer) = (small(), large());
    let mut session = Pair::established(&own, &peer).client;
    session.send(b"one", &mut rng(), NOW).expect("ready");
    outputs(&mut session);

    let reply = sealed(&own, b"first");
    assert_eq!(
        feed(&mut session, reply.as_bytes()),
        [Output::Reply(b"first".to_vec())]
    );
    assert_eq!(feed(&mut session, &[END]), []);
    session.send(b"two", &mut rng(), NOW).expect("ready");
    outputs(&mut session);
    let reply = frame(sealed(&own, b"second"));
    assert_eq!(
        feed(&mut session, &reply),
        [Output::Reply(b"second".to_vec())]
    );
}

#[test]
fn a_reply_that_nobody_asked_for_ends_the_session() {
    let (own, peer) = (small(), large());
    let mut session = Pair::established(&own, &peer).client;

    let closed = feed(&mut session, &frame(sealed(&own, b"unasked")));

    assert_eq!(closed, [Output::Closed(Reason::OutOfOrder)]);
}

#[test]
fn a_new_pubkey_in_the_message_phase_begins_a_new_exchange_whose_key_is_judged_again() {
    let (own, first, second) = (large(), large(), small());
    let mut session = Pair::established(&first, &own).server;

    assert_eq!(
        feed(&mut session, b"P2SN:PUBKEY\x04"),
        [write(own.public().to_pem())]
    );
    feed(&mut session, &frame(sealed(&own, KEYCHECK)));
    let key = frame(second.public().to_pem());
    assert_eq!(
        feed(&mut session, &key),
        [Output::PeerKey(second.public().clone())]
    );
    session.accept_key(&mut rng(), NOW);
    outputs(&mut session);

    feed(&mut session, &frame(sealed(&own, b"x")));
    session.reply(b"to the second key", &mut rng(), NOW);
    assert_eq!(
        opened(&outputs(&mut session)[0], &second),
        b"to the second key"
    );
}

#[test]
fn nothing_is_written_until_the_owner_has_accepted_the_key() {
    let (own, peer) = (small(), large());
    let mut session = client(&own);
    outputs(&mut session);

    let key = [frame(peer.public().to_pem()), frame(PUBKEY)].concat();
    assert_eq!(
        feed(&mut session, &key),
        [Output::PeerKey(peer.public().clone())]
    );
    session.refuse_key();

    assert_eq!(outputs(&mut session), [Output::Closed(Reason::KeyRefused)]);
    assert_eq!(
        session.send(b"x", &mut rng(), NOW),
        Err(SendError::NotReady)
    );
}

#[test]
fn a_server_says_errorkey_to_a_refused_key() {
    let (own, peer) = (large(), small());
    let mut session = asking(&own);
    feed(&mut session, &frame(peer.public().to_pem()));

    session.refuse_key();

    let expected = [write("P2SN:ERRORKEY"), Output::Closed(Reason::KeyRefused)];
    assert_eq!(outputs(&mut session), expected);
}

#[test]
fn words_that_are_not_due_change_nothing() {
    let (own, peer) = (small(), large());
    let mut pair = Pair::established(&own, &peer);

    for session in [&mut pair.client, &mut pair.server] {
        session.accept_key(&mut rng(), NOW);
        session.refuse_key();
        session.reply(b"unasked", &mut rng(), NOW);
        assert_eq!(outputs(session), []);
    }
    assert_eq!(
        pair.server.send(b"x", &mut rng(), NOW),
        Err(SendError::NotReady)
    );

    pair.client
        .send(b"still alive", &mut pair.rng, NOW)
        .expect("ready");
    assert_eq!(
        pair.client.send(b"second", &mut rng(), NOW),
        Err(SendError::NotReady)
    );
    pair.run();
    pair.server.reply(b"yes", &mut pair.rng, NOW);
    pair.run();
    assert_eq!(
        pair.log.last(),
        Some(&(Role::Client, Output::Reply(b"yes".to_vec())))
    );
}

#[test]
fn a_wrong_key_check_is_answered_by_the_server_and_not_by_the_client() {
    let (own, peer) = (large(), small());
    let wrong = frame(sealed(&own, b"P2SN:KEYCHECX"));
    let refused = [write("P2SN:ERRORKEY"), Output::Closed(Reason::CheckFailed)];
    assert_eq!(feed(&mut checking(&own), &wrong), refused);
    let for_another = frame(sealed(&peer, KEYCHECK));
    assert_eq!(feed(&mut checking(&own), &for_another), refused);
    let plain = frame(KEYCHECK);
    assert_eq!(feed(&mut checking(&own), &plain), refused);

    for wrong in [wrong, for_another, plain] {
        let closed = feed(&mut shown(&own, &peer), &wrong);
        assert_eq!(closed, [Output::Closed(Reason::CheckFailed)]);
    }
}

#[test]
fn errorkey_and_null_end_the_session_at_every_point() {
    let (own, peer) = (large(), small());
    let sessions = || {
        let pair = Pair::established(&own, &peer);
        let mut waiting = Pair::established(&own, &peer).client;
        waiting.send(b"x", &mut rng(), NOW).expect("ready");
        outputs(&mut waiting);
        let mut begun = client(&own);
        outputs(&mut begun);
        [
            begun,
            checked(&own, &peer),
            shown(&own, &peer),
            pair.client,
            waiting,
            server(&own),
            checking(&own),
            asking(&own),
            pair.server,
        ]
    };

    for mut session in sessions() {
        let closed = feed(&mut session, b"P2SN:ERRORKEY\x04P2SN:ERRORKEY\x04");
        assert_eq!(closed, [Output::Closed(Reason::PeerRefused)], "{session:?}");
    }
    for mut session in sessions() {
        let closed = feed(&mut session, b"P2SN:NULL\x04");
        assert_eq!(closed, [Output::Closed(Reason::Ended)], "{session:?}");
    }
}

#[test]
fn frames_out_of_order_end_the_session() {
    let (own, peer) = (large(), small());
    let closed = [Output::Closed(Reason::OutOfOrder)];

    assert_eq!(feed(&mut server(&own), b"hello\x04"), closed);
    assert_eq!(feed(&mut server(&own), b"\x04"), closed);
    assert_eq!(feed(&mut checked(&own, &peer), b"hello\x04"), closed);
}

#[test]
fn small_keys_are_refused_unless_the_gateway_opted_in() {
    let (own, tiny) = (large(), small());
    let key = frame(tiny.public().to_pem());
    let limits = Limits::default();

    let mut session = Session::client(own.clone(), KeyPolicy::default(), limits, NOW);
    outputs(&mut session);
    let small = Reason::BadKey(KeyError::Small {
        bits: 1024,
        min: 2048,
    });
    assert_eq!(feed(&mut session, &key), [Output::Closed(small)]);
    let text = "the peer's RSA key is refused: an RSA key has at least 2048 bits here, got 1024";
    assert_eq!(small.to_string(), text);

    let mut session = Session::server(own.clone(), KeyPolicy::default(), limits, NOW);
    feed(&mut session, b"P2SN:PUBKEY\x04");
    feed(&mut session, &frame(sealed(&own, KEYCHECK)));
    let refused = [write("P2SN:ERRORKEY"), Output::Closed(small)];
    assert_eq!(feed(&mut session, &key), refused);

    assert_eq!(
        feed(&mut asking(&own), &key),
        [Output::PeerKey(tiny.public().clone())]
    );
}

#[test]
fn a_message_with_wrong_padding_is_given_out_like_any_other() {
    let (own, peer) = (small(), large());
    let mut session = Pair::established(&peer, &own).server;
    let mut bytes = STANDARD.decode(sealed(&own, b"x")).expect("base64");
    bytes[64] ^= 1;
    let block = STANDARD.encode(bytes);
    assert_eq!(own.open_checked(block.as_bytes(), &mut rng()), Ok(None));

    let [Output::Message(_)] = &feed(&mut session, &frame(block))[..] else {
        panic!("one output")
    };
    session.reply(b"P2SN:UNEXPECTEDERROR", &mut rng(), NOW);

    assert_eq!(
        opened(&outputs(&mut session)[0], &peer),
        b"P2SN:UNEXPECTEDERROR"
    );
}

#[test]
fn a_message_that_is_no_block_ends_the_session() {
    let (own, peer) = (small(), large());
    let refused = [write("P2SN:ERRORKEY"), Output::Closed(Reason::BadBlock)];

    for bad in ["", "hello", "AAAA", &"/".repeat(172)] {
        let mut session = Pair::established(&peer, &own).server;
        assert_eq!(feed(&mut session, &frame(bad)), refused, "{bad}");
        let mut session = Pair::established(&own, &peer).client;
        session.send(b"x", &mut rng(), NOW).expect("ready");
        outputs(&mut session);
        let closed = feed(&mut session, &frame(bad));
        assert_eq!(closed, [Output::Closed(Reason::BadBlock)], "{bad}");
    }
}

#[test]
fn nothing_comes_out_of_a_closed_session() {
    let (own, peer) = (small(), large());
    let mut session = server(&own);
    assert_eq!(
        feed(&mut session, b"P2SN:NULL\x04"),
        [Output::Closed(Reason::Ended)]
    );

    session.handle_input(b"P2SN:PUBKEY\x04", &mut rng(), NOW);
    session.handle_input(&frame(peer.public().to_pem()), &mut rng(), NOW);
    session.accept_key(&mut rng(), NOW);
    session.refuse_key();
    session.reply(b"x", &mut rng(), NOW);
    session.handle_timeout(Duration::MAX);

    assert_eq!(outputs(&mut session), []);
}

#[test]
fn a_session_may_travel_to_another_thread_and_prints_no_message() {
    fn is_send<T: Send + 'static>(value: T) -> T {
        value
    }
    let own = small();
    let mut session = is_send(Pair::established(&large(), &own).server);
    session.handle_input(sealed(&own, b"door open").as_bytes(), &mut rng(), NOW);

    let printed = format!("{session:?}");

    assert!(printed.contains("outputs: [Message(9 bytes)]"), "{printed}");
    assert!(
        printed.contains("frames: Frames(0 bytes wait)"),
        "{printed}"
    );
    assert!(printed.contains("own: PrivateKey(of b01bb153"), "{printed}");
    assert_eq!(
        format!("{:?}", Output::Reply(b"yes".to_vec())),
        "Reply(3 bytes)"
    );
}

#[test]
fn the_names_of_reasons_are_stable() {
    let names = [
        (Reason::Ended, "ended"),
        (Reason::PeerRefused, "peer_refused"),
        (Reason::OutOfOrder, "out_of_order"),
        (Reason::TooLong, "too_long"),
        (Reason::BadKey(KeyError::Pem), "bad_key"),
        (Reason::KeyRefused, "key_refused"),
        (Reason::CheckFailed, "check_failed"),
        (Reason::BadBlock, "bad_block"),
        (Reason::ExchangeTimeout, "exchange_timeout"),
        (Reason::ReplyTimeout, "reply_timeout"),
        (Reason::IdleTimeout, "idle_timeout"),
    ];

    for (reason, name) in names {
        assert_eq!(reason.name(), name);
    }
}
