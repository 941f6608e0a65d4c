//! Bytes that no peer sends: cut, flipped and made up. Each ends in a state, none in a panic.

use super::{
    pair::{NOW, Pair, asking, checking, feed, frame, outputs, sealed},
    *,
};
use crate::proto::p2sn::samples::{ANY_SIZE, large, rng, small};

/// Returns the bytes with every `step`th bit flipped in turn.
fn flips(bytes: &[u8], step: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).step_by(step).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

/// Puts a session back to where it waits for the client's key, which saves a decryption.
fn ask_again(session: &mut Session) {
    session.phase = Phase::Asking;
    session.frames = Frames::default();
}

/// Returns how the session ended; `None` if it goes on.
fn ending(outputs: &[Output]) -> Option<Reason> {
    match outputs.last() {
        Some(Output::Closed(reason)) => Some(*reason),
        _ => None,
    }
}

#[test]
fn a_key_check_that_is_cut_or_flipped_never_passes() {
    let own = small();
    let block = sealed(&own, KEYCHECK).into_bytes();
    // The `=` at the end may be missing: it says nothing.
    let cuts = (0..block.len() - 1).map(|length| block[..length].to_vec());

    for bad in cuts.chain(flips(&block, 9)).filter(|bad| *bad != block) {
        let end = ending(&feed(&mut checking(&own), &frame(&bad)));
        let passed = end.is_none() && !bad.contains(&END);
        assert!(!passed, "{}", String::from_utf8_lossy(&bad));
    }
}

#[test]
fn a_key_that_is_cut_is_never_taken_for_another() {
    let (own, peer) = (large(), small());
    let pem = peer.public().to_pem();
    let whole_from = pem.len() - 1;

    let mut session = asking(&own);
    for length in 0..pem.len() {
        ask_again(&mut session);
        let out = feed(&mut session, &frame(&pem[..length]));
        if length < whole_from {
            assert!(is_bad_key(ending(&out)), "{length}");
        } else {
            assert_eq!(out, [Output::PeerKey(peer.public().clone())], "{length}");
        }
    }
    let encoded = STANDARD.encode(&pem);
    for length in 0..encoded.len() - 4 {
        ask_again(&mut session);
        let end = ending(&feed(&mut session, &frame(&encoded[..length])));
        assert!(is_bad_key(end), "{length}");
    }
}

#[test]
fn a_key_with_any_bit_flipped_ends_in_a_refusal_or_before_the_owner() {
    let mut session = asking(&large());
    let template = frame(small().public().to_pem());

    for flipped in flips(&template, 1) {
        ask_again(&mut session);
        let out = feed(&mut session, &flipped);
        let judged = matches!(out.last(), Some(Output::PeerKey(_)));
        let waits = out.is_empty();
        assert!(judged || waits || is_bad_key(ending(&out)), "{out:?}");
    }
}

#[test]
fn any_order_of_events_ends_in_a_state_and_not_in_a_panic() {
    let own = small();
    let steps = bolero::check!().with_type::<Vec<(u8, Vec<u8>)>>();
    steps.with_iterations(200).for_each(|steps| {
        let mut pair = Pair::new(&own, &own, usize::MAX);
        let mut now = NOW;
        for (step, bytes) in steps {
            let Pair {
                client,
                server,
                rng,
                ..
            } = &mut pair;
            let session = if step % 2 == 0 { client } else { server };
            match step / 2 % 8 {
                0 => session.handle_input(bytes, rng, now),
                1 => session.handle_input(&frame(bytes), rng, now),
                2 => session.accept_key(rng, now),
                3 => session.refuse_key(),
                4 => drop(session.send(bytes, rng, now)),
                5 => session.reply(bytes, rng, now),
                6 => {
                    now += Duration::from_millis(100 * bytes.len() as u64);
                    session.handle_timeout(now);
                }
                _ => pair.run(),
            }
        }
        pair.log.clear();
        holds(&mut pair.client);
        holds(&mut pair.server);
    });
}

/// What is true of every session at every time.
fn holds(session: &mut Session) {
    let outputs = outputs(session);
    let is_closed = matches!(session.phase, Phase::Closed);
    let ends = outputs
        .iter()
        .filter(|output| matches!(output, Output::Closed(_)))
        .count();
    assert!(ends <= 1, "{outputs:?}");
    if ends == 1 {
        assert!(is_closed, "{outputs:?}");
        assert!(
            matches!(outputs.last(), Some(Output::Closed(_))),
            "{outputs:?}"
        );
    }
    assert_eq!(session.poll_timeout().is_none(), is_closed);
}

mod fuzz {
    use super::*;
    use crate::fuzz::{bytes_of, bytes_of_hex, fuzz, recorded};

    #[test]
    fn any_bytes_at_any_point_end_in_a_state_and_not_in_a_panic() {
        let own = small();
        let mut corpus = bytes_of(["P2SN:PUBKEY\x04", "P2SN:ERRORKEY\x04", "P2SN:NULL\x04"]);
        corpus.push(frame(own.public().to_pem()));
        corpus.push(frame(sealed(&own, KEYCHECK)));
        for member in ["client_pubkey_frame_hex", "frame_hex"] {
            corpus.extend(bytes_of_hex(recorded("p2sn/exchange.json", member)));
        }
        corpus.extend(bytes_of_hex(recorded("p2sn/reject.json", "frame_hex")));
        fuzz(bolero::check!(), &corpus, |bytes| {
            let key = || own.public().clone();
            let points = [
                (Role::Client, Phase::Start),
                (Role::Client, Phase::Judging(key())),
                (Role::Client, Phase::Checked(key())),
                (Role::Client, Phase::Shown(key())),
                (Role::Client, Phase::Ready(key())),
                (Role::Client, Phase::Replying(key())),
                (Role::Server, Phase::Start),
                (Role::Server, Phase::Checking),
                (Role::Server, Phase::Asking),
                (Role::Server, Phase::Judging(key())),
                (Role::Server, Phase::Ready(key())),
                (Role::Server, Phase::Replying(key())),
            ];
            let mut goes_on = false;
            for (role, phase) in points {
                let mut session = Session::new(role, own.clone(), ANY_SIZE, Limits::default(), NOW);
                session.phase = phase;
                session.handle_input(bytes, &mut rng(), NOW);
                goes_on |= !matches!(session.phase, Phase::Closed);
                holds(&mut session);
            }
            goes_on
        });
    }
}

fn is_bad_key(ending: Option<Reason>) -> bool {
    matches!(ending, Some(Reason::BadKey(_)))
}
