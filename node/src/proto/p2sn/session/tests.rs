//! What both roles do in every order, and the known answers.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde::Deserialize;

use super::*;
use crate::{
    proto::p2sn::{Fingerprint, KeyError},
    vectors::{checked, load},
};

#[derive(Deserialize)]
struct Exchange {
    keys: Vec<Key>,
    decrypt: Vec<Decrypt>,
}

#[derive(Deserialize)]
struct Key {
    id: String,
    bits: usize,
    private_pem: String,
    public_pem: String,
    server_pubkey_frame_hex: String,
    client_pubkey_frame_hex: String,
}

#[derive(Deserialize)]
struct Decrypt {
    key: String,
    plaintext_hex: String,
    frame_hex: String,
}

#[derive(Deserialize)]
struct Rejects {
    frames: Vec<RejectedFrame>,
    public_keys: Vec<RejectedKey>,
}

#[derive(Deserialize)]
struct RejectedFrame {
    key: String,
    why: String,
    frame_hex: Option<String>,
    kind: String,
}

#[derive(Deserialize)]
struct RejectedKey {
    why: String,
    pem: Option<String>,
}

const ANY_SIZE: KeyPolicy = KeyPolicy { bits_min: 1024 };
const NOW: Duration = Duration::ZERO;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([1; 32])
}

fn keys() -> Vec<Key> {
    load::<Exchange>("p2sn/exchange.json").keys
}

fn private(keys: &[Key], id: &str) -> PrivateKey {
    let key = keys
        .iter()
        .find(|key| key.id == id)
        .expect("the key is in the file");
    PrivateKey::from_foreign_pem(&key.private_pem).expect("a private key")
}

fn server(key: &PrivateKey, policy: KeyPolicy) -> Session {
    Session::server(key.clone(), policy, Limits::default(), NOW)
}

fn client(key: &PrivateKey, policy: KeyPolicy) -> Session {
    Session::client(key.clone(), policy, Limits::default(), NOW)
}

/// Two sessions joined by a wire that cuts everything into pieces of `piece` bytes.
struct Pair {
    client: Session,
    server: Session,
    piece: usize,
    rng: ChaCha20Rng,
    log: Vec<(Role, Output)>,
}

impl Pair {
    fn new(client_key: &PrivateKey, server_key: &PrivateKey, piece: usize) -> Self {
        Self {
            client: client(client_key, ANY_SIZE),
            server: server(server_key, ANY_SIZE),
            piece,
            rng: rng(),
            log: Vec::new(),
        }
    }

    /// Carries bytes to and fro, and accepts keys, until both sides rest.
    fn run(&mut self) {
        loop {
            let (role, output) = if let Some(output) = self.client.poll_output() {
                (Role::Client, output)
            } else if let Some(output) = self.server.poll_output() {
                (Role::Server, output)
            } else {
                return;
            };
            let (own, other) = match role {
                Role::Client => (&mut self.client, &mut self.server),
                Role::Server => (&mut self.server, &mut self.client),
            };
            match &output {
                Output::Write(bytes) => {
                    for piece in bytes.chunks(self.piece) {
                        other.handle_input(piece, &mut self.rng, NOW);
                    }
                }
                Output::PeerKey(_) => own.accept_key(&mut self.rng, NOW),
                Output::Established | Output::Message(_) | Output::Reply(_) | Output::Closed(_) => {
                }
            }
            if !matches!(output, Output::Write(_)) {
                self.log.push((role, output));
            }
        }
    }
}

fn outputs(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll_output()).collect()
}

fn written(output: &Output) -> Vec<u8> {
    let Output::Write(bytes) = output else {
        panic!("expected a write, got {output:?}")
    };
    bytes.clone()
}

#[test]
fn the_exchange_and_a_message_work_in_every_segmentation() {
    let keys = keys();
    let (small, large) = (private(&keys, "dev-1024"), private(&keys, "dev-2048"));

    for piece in [1, 7, 64, 10_000] {
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
fn a_message_without_end_and_two_in_one_segment_are_taken() {
    let keys = keys();
    let (own, peer) = (private(&keys, "dev-1024"), private(&keys, "dev-2048"));
    let mut pair = Pair::new(&peer, &own, 10_000);
    pair.run();
    pair.log.clear();
    let mut block = |text: &[u8]| {
        own.public()
            .seal(text, &mut pair.rng)
            .expect("short")
            .into_bytes()
    };
    let bare = block(b"bare");
    let two = [block(b"one"), vec![END], block(b"two"), vec![END]].concat();

    pair.server.handle_input(&bare, &mut rng(), NOW);
    assert_eq!(
        outputs(&mut pair.server),
        [Output::Message(b"bare".to_vec())]
    );
    pair.server.reply(b"", &mut rng(), NOW);
    outputs(&mut pair.server);
    pair.server.handle_input(&[END], &mut rng(), NOW);
    assert_eq!(outputs(&mut pair.server), []);
    pair.server.handle_input(&two, &mut rng(), NOW);
    assert_eq!(
        outputs(&mut pair.server),
        [Output::Message(b"one".to_vec())]
    );
    pair.server.reply(b"", &mut rng(), NOW);
    let [Output::Write(_), second] = &outputs(&mut pair.server)[..] else {
        panic!("two outputs")
    };
    assert_eq!(second, &Output::Message(b"two".to_vec()));
}

#[test]
fn a_new_pubkey_in_the_message_phase_begins_a_new_exchange() {
    let keys = keys();
    let own = private(&keys, "dev-1024");
    let mut pair = Pair::new(&own, &own, 10_000);
    pair.run();

    pair.server
        .handle_input(b"P2SN:PUBKEY\x04", &mut rng(), NOW);

    let pem = [own.public().to_pem().as_bytes(), &[END]].concat();
    assert_eq!(outputs(&mut pair.server), [Output::Write(pem)]);
}

#[test]
fn a_refused_key_ends_the_session_before_anything_secret_is_sent() {
    let keys = keys();
    let own = private(&keys, "dev-2048");
    let mut session = client(&own, ANY_SIZE);
    outputs(&mut session);
    let pem = [own.public().to_pem().as_bytes(), &[END]].concat();
    session.handle_input(&pem, &mut rng(), NOW);
    assert_eq!(
        outputs(&mut session),
        [Output::PeerKey(own.public().clone())]
    );

    session.refuse_key();

    assert_eq!(outputs(&mut session), [Output::Closed(Reason::KeyRefused)]);
    assert_eq!(
        session.send(b"x", &mut rng(), NOW),
        Err(SendError::NotReady)
    );
}

#[test]
fn small_keys_are_refused_unless_the_door_opted_in() {
    let keys = keys();
    let small = private(&keys, "dev-1024");
    let mut session = client(&private(&keys, "dev-2048"), KeyPolicy::default());
    outputs(&mut session);

    let pem = [small.public().to_pem().as_bytes(), &[END]].concat();
    session.handle_input(&pem, &mut rng(), NOW);

    assert_eq!(outputs(&mut session), [Output::Closed(Reason::BadKey)]);
}

#[test]
fn the_longest_message_passes_and_one_byte_more_is_refused_with_the_limit() {
    let keys = keys();
    let (own, peer) = (private(&keys, "dev-2048"), private(&keys, "dev-1024"));
    let mut pair = Pair::new(&own, &peer, 10_000);
    pair.run();

    let refused = pair.client.send(&[0; 118], &mut rng(), NOW);
    assert_eq!(refused, Err(SendError::TooLong { max: 117, got: 118 }));
    assert_eq!(pair.client.send(&[7; 117], &mut rng(), NOW), Ok(()));
    pair.run();
    assert_eq!(
        pair.log.last(),
        Some(&(Role::Server, Output::Message(vec![7; 117])))
    );
}

#[test]
fn slow_and_silent_peers_are_cut_off() {
    let keys = keys();
    let own = private(&keys, "dev-1024");
    let mut silent = server(&own, ANY_SIZE);
    assert_eq!(silent.poll_timeout(), Some(Duration::from_secs(10)));
    silent.handle_timeout(Duration::from_millis(9_999));
    assert_eq!(outputs(&mut silent), []);
    silent.handle_timeout(Duration::from_secs(10));
    assert_eq!(
        outputs(&mut silent),
        [Output::Closed(Reason::ExchangeTimeout)]
    );
    assert_eq!(silent.poll_timeout(), None);

    let mut pair = Pair::new(&own, &own, 10_000);
    pair.run();
    pair.server.handle_timeout(Duration::from_secs(300));
    assert_eq!(
        outputs(&mut pair.server),
        [Output::Closed(Reason::IdleTimeout)]
    );
    pair.client.send(b"x", &mut rng(), NOW).expect("ready");
    pair.client.handle_timeout(Duration::from_secs(10));
    let last = outputs(&mut pair.client).pop();
    assert_eq!(last, Some(Output::Closed(Reason::ReplyTimeout)));
}

#[test]
fn any_bytes_at_all_end_in_a_state_and_not_in_a_panic() {
    let keys = keys();
    let own = private(&keys, "dev-1024");
    bolero::check!()
        .with_type::<Vec<u8>>()
        .with_iterations(500)
        .for_each(|bytes| {
            for mut session in [server(&own, ANY_SIZE), client(&own, ANY_SIZE)] {
                session.handle_input(b"P2SN:PUBKEY\x04", &mut rng(), NOW);
                session.handle_input(bytes, &mut rng(), NOW);
                outputs(&mut session);
            }
            drop(PublicKey::from_pem(
                &String::from_utf8_lossy(bytes),
                ANY_SIZE,
            ));
        });
}

mod vectors {
    use super::*;

    #[test]
    fn both_roles_send_their_key_byte_for_byte_as_the_real_programs() {
        let keys = keys();
        for key in &keys {
            let own = PrivateKey::from_foreign_pem(&key.private_pem).expect("a private key");
            assert_eq!(own.public().to_pem(), key.public_pem, "{}", key.id);
            assert_eq!(own.public().bits(), key.bits, "{}", key.id);

            let mut session = server(&own, ANY_SIZE);
            session.handle_input(b"P2SN:PUBKEY\x04", &mut rng(), NOW);
            let frame = written(&outputs(&mut session)[0]);
            assert_eq!(
                hex::encode(frame),
                key.server_pubkey_frame_hex,
                "{}",
                key.id
            );

            let mut session = client(&own, ANY_SIZE);
            let pem = [own.public().to_pem().as_bytes(), &[END]].concat();
            session.handle_input(&pem, &mut rng(), NOW);
            session.accept_key(&mut rng(), NOW);
            session.handle_input(b"P2SN:PUBKEY\x04", &mut rng(), NOW);
            let frame = written(outputs(&mut session).last().expect("a write"));
            assert_eq!(
                hex::encode(frame),
                key.client_pubkey_frame_hex,
                "{}",
                key.id
            );
        }
        checked("p2sn/exchange.json keys", keys.len());
    }

    #[test]
    fn blocks_of_the_real_programs_open() {
        let file: Exchange = load("p2sn/exchange.json");
        for case in &file.decrypt {
            let own = private(&file.keys, &case.key);
            let frame = hex::decode(&case.frame_hex).expect("hex");
            let block = frame.strip_suffix(&[END]).expect("an end");
            let opened = own.open(block, &mut rng()).expect("opens");
            assert_eq!(hex::encode(opened), case.plaintext_hex);
        }
        checked("p2sn/exchange.json decrypt", file.decrypt.len());
    }

    /// Plays a session up to the key check, and gives it the frame in that place.
    #[test]
    fn bad_frames_end_the_session_with_one_constant_answer() {
        let keys = keys();
        let file: Rejects = load("p2sn/reject.json");
        for case in &file.frames {
            let own = private(&keys, &case.key);
            let frame = case
                .frame_hex
                .as_ref()
                .map_or(vec![b'A'; 70_000], |f| hex::decode(f).expect("hex"));
            let mut session = server(&own, ANY_SIZE);
            session.handle_input(b"P2SN:PUBKEY\x04", &mut rng(), NOW);
            outputs(&mut session);
            session.handle_input(&frame, &mut rng(), NOW);
            let answer = outputs(&mut session);
            if case.kind == "size" {
                assert_eq!(answer, [Output::Closed(Reason::TooLong)], "{}", case.why);
            } else {
                let errorkey = Output::Write(b"P2SN:ERRORKEY\x04".to_vec());
                let closed = Output::Closed(Reason::CheckFailed);
                assert_eq!(answer, [errorkey, closed], "{} ({})", case.why, case.kind);
            }
        }
        checked("p2sn/reject.json frames", file.frames.len());
    }

    #[test]
    fn bad_public_keys_are_refused() {
        let file: Rejects = load("p2sn/reject.json");
        for case in &file.public_keys {
            let read = PublicKey::from_pem(case.pem.as_deref().unwrap_or(""), ANY_SIZE);
            assert_eq!(read, Err(KeyError::Pem), "{}", case.why);
        }
        checked("p2sn/reject.json keys", file.public_keys.len());
    }

    #[test]
    fn a_private_key_is_not_printed() {
        let own = private(&keys(), "dev-1024");
        let expected = format!("PrivateKey(of {})", own.public().fingerprint());

        assert_eq!(format!("{own:?}"), expected);
        assert_eq!(Fingerprint([0xab; 32]).to_string(), "ab".repeat(32));
    }
}
