//! What holds for all bytes and texts that come as the native protocols (see [`crate::fuzz`]).

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::{
    certificate::{Certificate, CertificateError, MeshId, MeshKey, Revocation, Terms},
    direct, key,
    member::{self, Join, Refusal, Welcome},
    peer_of_seed,
    ranges::Ranges,
    signed::{Label, Signed},
    statement::{Says, Statement},
    sync::{self, LastInteger},
    ticket::{Secret, Ticket},
    users::{self, ToldUser},
    vouched::Vouched,
    *,
};
use crate::{
    fuzz::{bytes_of, bytes_of_hex, fuzz, recorded, round_trip},
    proto::{
        iid::{Date, Iid, Index, Value},
        syft,
    },
};

const SEED: [u8; 32] = [1; 32];

static KEY: LazyLock<MeshKey> = LazyLock::new(|| MeshKey::from_seed(&SEED));

/// The key that signs messages, certified by all [`certificates`].
static MESSAGING: LazyLock<syft::SigningKey> =
    LazyLock::new(|| syft::SigningKey::from_seed(&[7; 32]));

fn certificates() -> Vec<Certificate> {
    let node = Terms {
        peer: peer_of_seed(5),
        messaging_key: *MESSAGING.public(),
        name: "pi-1".parse().expect("a legal name"),
        index: Index(1),
        vouched: Vouched::NONE,
        issued_ms: 1_000,
        expires_ms: 2_000,
    };
    let gateway = Terms {
        name: "x".repeat(63).parse().expect("a legal name"),
        index: Index(i32::MIN),
        vouched: Vouched::range(-5, i32::MAX).expect("legal"),
        expires_ms: u64::MAX,
        ..node
    };
    [node, gateway].map(|terms| KEY.issue(terms)).to_vec()
}

fn revocations() -> Vec<Revocation> {
    vec![
        KEY.revoke(peer_of_seed(5), 0),
        KEY.revoke(peer_of_seed(6), u64::MAX),
    ]
}

fn addresses(count: usize) -> Vec<Address> {
    let texts = ["/ip4/192.168.1.7/udp/4630/quic-v1", "/ip6/::1/tcp/1"];
    let addresses = texts.map(|text| Address::new(text).expect("an address"));
    addresses.into_iter().cycle().take(count).collect()
}

fn tickets() -> Vec<Ticket> {
    let ticket = |count| Ticket {
        mesh: KEY.mesh(),
        inviter: peer_of_seed(5),
        addresses: addresses(count),
        secret: Secret::new([9; 16]),
        expires_ms: 1_800_000_000_000,
    };
    vec![ticket(0), ticket(2), ticket(Ticket::ADDRESSES_MAX)]
}

fn frames() -> Vec<Signed> {
    let frame = |syft: &[u8]| direct::Frame {
        id: MessageId([1; 16]),
        sender: peer_of_seed(5),
        recipient: peer_of_seed(6),
        epoch: u64::MAX,
        sequence: 8,
        created_ms: 9,
        expires_ms: 10,
        syft: syft.to_vec(),
        kind: direct::Kind::Letter,
    };
    [
        &b""[..],
        b"{}",
        b"{\"from\":\"a\",\"to\":\"b\",\"content\":\"c\"}",
    ]
    .map(|syft| frame(syft).sign(&MESSAGING))
    .to_vec()
}

/// A third field that is there and holds nothing.
const EMPTY_THIRD: &[u8] = &[0x1a, 0];

/// Puts a payload under a signature that nobody will look at.
fn unsigned(payload: &[u8]) -> Signed {
    Signed {
        payload: payload.to_vec(),
        signature: Vec::new(),
    }
}

/// Puts a payload under the signature of the mesh key.
fn signed(label: Label, payload: &[u8]) -> Vec<u8> {
    let key = ed25519_dalek::SigningKey::from_bytes(&SEED);
    Signed::sign(label, payload.to_vec(), &key).encode()
}

fn statements() -> Vec<Statement> {
    let ranges = "-5..-1,7,100..109".parse().expect("legal");
    vec![
        KEY.state_holder(peer_of_seed(5), true, 7),
        KEY.state_indices(peer_of_seed(5), ranges, u64::MAX),
        Statement::left(&certificates()[1], 8, &MESSAGING),
    ]
}

#[test]
fn no_statement_is_believed_but_the_issued_ones() {
    let issued = statements();
    let mut corpus: Vec<_> = issued.iter().map(Statement::encode).collect();
    corpus.extend(certificates().iter().map(Certificate::encode));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Ok(read) = Statement::decode(bytes, &KEY.mesh()) else {
            return false;
        };
        assert!(issued.contains(&read), "{read:?}");
        assert!(bytes.len() <= Statement::BYTES_MAX);
        true
    });
}

#[test]
fn what_the_mesh_key_signs_as_further_indices_is_legal_or_refused() {
    let issued = statements();
    let outer = issued[1].encode();
    // The statement is one field: its number and kind, its length in two bytes or one, and a
    // `Signed`.
    let inner = Signed::decode(&outer[2..]).or_else(|_| Signed::decode(&outer[3..]));
    let corpus = [inner.expect("a signed payload").payload];
    fuzz(bolero::check!(), &corpus, |payload| {
        let signed = signed(Label::INDICES, payload);
        let mut bytes = vec![0x12];
        prost::encode_length_delimiter(signed.len(), &mut bytes).expect("room");
        bytes.extend(signed);
        let Ok(read) = Statement::decode(&bytes, &KEY.mesh()) else {
            return false;
        };
        let Says::Indices(ranges) = read.says() else {
            panic!("another kind: {read:?}");
        };
        assert!(ranges.iter().count() <= Ranges::MAX);
        assert_eq!(ranges.to_string().parse::<Ranges>().as_ref(), Ok(ranges));
        true
    });
}

#[test]
fn a_key_request_and_its_answer_say_the_same_again() {
    let request = key::Request {
        sealed: "{\"a\":1}".to_owned(),
    };
    let corpus = [request.encode(), key::Answer::Stored.encode()];
    fuzz(bolero::check!(), &corpus, |bytes| {
        let read = round_trip(bytes, key::Request::decode, key::Request::encode);
        if let Some(request) = &read {
            assert!(request.open(&MESSAGING).is_none());
        }
        let answer = round_trip(bytes, key::Answer::decode, |answer| answer.encode());
        read.is_some() || answer.is_some()
    });
}

#[test]
fn no_certificate_is_believed_but_the_issued_ones() {
    let issued = certificates();
    let corpus: Vec<_> = issued.iter().map(Certificate::encode).collect();
    fuzz(bolero::check!(), &corpus, |bytes| {
        let claimed = Certificate::mesh_of(bytes);
        let Ok(read) = Certificate::decode(bytes, &KEY.mesh()) else {
            return false;
        };
        assert!(issued.contains(&read), "{read:?}");
        assert_eq!(claimed, Ok(KEY.mesh()));
        assert!(bytes.len() <= Certificate::BYTES_MAX);
        true
    });
}

#[test]
fn what_the_mesh_key_signs_as_a_certificate_is_legal_or_refused() {
    let one_index = Terms {
        vouched: Vouched::range(5, 5).expect("legal"),
        ..certificates()[0].terms().clone()
    };
    let mut issued = certificates();
    issued.push(KEY.issue(one_index));
    let mut corpus: Vec<_> = issued.iter().map(|c| c.signed().payload.clone()).collect();
    // A range that ends below its beginning.
    let mut empty_range = corpus[2].clone();
    let range = empty_range
        .windows(4)
        .position(|w| w == [0x30, 10, 0x38, 10]);
    empty_range[range.expect("field 6 and field 7, 5 as sint32") + 3] = 8;
    corpus.push(empty_range);
    fuzz(bolero::check!(), &corpus, |payload| {
        let bytes = signed(Label::CERTIFICATE, payload);
        let decode = |bytes: &[u8]| {
            let read = Certificate::decode(bytes, &KEY.mesh())?;
            Ok::<_, CertificateError>(read.terms().clone())
        };
        let terms = round_trip(&bytes, decode, |terms| KEY.issue(terms.clone()).encode());
        let Some(terms) = terms else { return false };
        assert!(
            terms
                .vouched
                .ends()
                .is_none_or(|(first, last)| first <= last)
        );
        assert_eq!(terms.name.as_str().parse(), Ok(terms.name));
        true
    });
}

#[test]
fn no_revocation_is_believed_but_the_issued_ones() {
    let issued = revocations();
    let mut corpus: Vec<_> = issued.iter().map(Revocation::encode).collect();
    corpus.extend(certificates().iter().map(Certificate::encode));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Ok(read) = Revocation::decode(bytes, &KEY.mesh()) else {
            return false;
        };
        assert!(issued.contains(&read), "{read:?}");
        assert!(bytes.len() <= Revocation::BYTES_MAX);
        true
    });
}

#[test]
fn what_the_mesh_key_signs_as_a_revocation_is_legal_or_refused() {
    let payload = |r: &Revocation| Signed::decode(&r.encode()).expect("a pair").payload;
    let corpus: Vec<_> = revocations().iter().map(payload).collect();
    fuzz(bolero::check!(), &corpus, |payload| {
        let bytes = signed(Label::REVOCATION, payload);
        let decode = |bytes: &[u8]| {
            let read = Revocation::decode(bytes, &KEY.mesh())?;
            Ok::<_, CertificateError>((read.peer(), read.until_ms()))
        };
        round_trip(&bytes, decode, |(peer, ms)| KEY.revoke(*peer, *ms).encode()).is_some()
    });
}

#[test]
fn a_mesh_id_is_the_bytes_it_came_in() {
    let mut corpus = bytes_of_hex(recorded("syft/identity.json", "ed25519_public"));
    corpus.push(KEY.mesh().as_bytes().to_vec());
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Ok(mesh) = MeshId::from_bytes(bytes) else {
            return false;
        };
        assert_eq!(mesh.as_bytes(), bytes);
        let key = ed25519_dalek::VerifyingKey::from_bytes(mesh.as_bytes());
        assert!(key.is_ok_and(|key| !key.is_weak()), "{mesh}");
        let issued = certificates().remove(0).encode();
        let read = Certificate::decode(&issued, &mesh);
        assert_eq!(read.is_ok(), mesh == KEY.mesh(), "{mesh}");
        true
    });
}

#[test]
fn a_ticket_is_read_as_it_was_written_or_not_at_all() {
    let tickets = tickets();
    let mut corpus = bytes_of(tickets.iter().map(|t| t.to_text().to_string()));
    corpus.push(corpus[0].iter().flat_map(|b| [*b, b'\n']).collect());
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Ok(read) = Ticket::from_text(&text) else {
            return false;
        };
        assert!(tickets.contains(&read), "{read:?}");
        let solid: String = text.split_whitespace().collect();
        assert_eq!(solid, *read.to_text());
        true
    });
}

#[test]
fn a_ticket_whose_checksum_is_right_is_legal_or_refused() {
    let payload = |ticket: &Ticket| {
        let body = &ticket.to_text()["pimesh1:".len()..];
        URL_SAFE_NO_PAD.decode(body).expect("base64")[4..].to_vec()
    };
    let corpus: Vec<_> = tickets().iter().map(payload).collect();
    fuzz(bolero::check!(), &corpus, |payload| {
        let sum = &Sha256::digest(payload)[..4];
        let body = URL_SAFE_NO_PAD.encode([sum, payload].concat());
        let text = format!("pimesh1:{body}").into_bytes();
        let decode = |text: &[u8]| Ticket::from_text(str::from_utf8(text).expect("ASCII"));
        let encode = |ticket: &Ticket| ticket.to_text().as_bytes().to_vec();
        let Some(read) = round_trip(&text, decode, encode) else {
            return false;
        };
        assert!(read.addresses.len() <= Ticket::ADDRESSES_MAX);
        true
    });
}

#[test]
fn a_member_request_says_the_same_again() {
    let join = Join {
        secret: Secret::new([3; 16]),
        name: "pi-2".parse().expect("a legal name"),
        messaging_key: *MESSAGING.public(),
        proof: [5; 64],
        left: Some(statements()[0].encode()),
    };
    let mut corpus = [
        member::Request::Hello(certificates()[0].encode()),
        member::Request::Hello(vec![0; member::REQUEST_BYTES_MAX]),
        member::Request::Ready,
        member::Request::Join(Box::new(join)),
    ]
    .map(|request| request.encode())
    .to_vec();
    corpus.push(EMPTY_THIRD.to_vec());
    fuzz(bolero::check!(), &corpus, |bytes| {
        let read = round_trip(bytes, member::Request::decode, member::Request::encode);
        assert!(read.is_none() || bytes.len() <= member::REQUEST_BYTES_MAX);
        read.is_some()
    });
}

#[test]
fn a_member_answer_says_the_same_again() {
    let certificates = certificates();
    let welcome = Welcome {
        certificate: certificates[0].encode(),
        inviter: certificates[1].encode(),
    };
    let corpus = [
        member::Response::Hello(certificates[1].encode()),
        member::Response::Hello(vec![0; member::RESPONSE_BYTES_MAX]),
        member::Response::Ok,
        member::Response::Welcome(welcome),
        member::Response::Refused(Refusal::MeshFull),
        member::Response::Revoked(revocations()[0].encode()),
        member::Response::Left(statements()[0].encode()),
    ]
    .map(|response| response.encode());
    fuzz(bolero::check!(), &corpus, |bytes| {
        let read = round_trip(bytes, member::Response::decode, member::Response::encode);
        assert!(read.is_none() || bytes.len() <= member::RESPONSE_BYTES_MAX);
        read.is_some()
    });
}

#[test]
fn a_sync_request_says_the_same_again_and_keeps_its_limits() {
    let last = LastInteger {
        iid: Iid {
            index: Index(-1),
            value: Value(i32::MIN),
            date: Date(u64::MAX),
        },
        source: peer_of_seed(5),
        sent_ms: 5,
    };
    let sighting = sync::Sighting {
        peer: peer_of_seed(5),
        boot: sync::BootId::new(2),
        outlived: vec![sync::BootId::new(3); sync::BOOTS_PER_PEER_MAX],
    };
    let copied = sync::Copied {
        peer: peer_of_seed(5),
        age_ms: 1,
    };
    let request = sync::Request {
        certificates: certificates().iter().map(Certificate::encode).collect(),
        revocations: revocations().iter().map(Revocation::encode).collect(),
        addresses: vec![(peer_of_seed(5), addresses(sync::ADDRESSES_PER_PEER_MAX + 1))],
        last: vec![last; 3],
        boot: Some(sync::BootId::new(1)),
        sightings: vec![sighting; 2],
        copied: vec![copied; 2],
        statements: statements().iter().map(Statement::encode).collect(),
    };
    let full = sync::Request {
        certificates: vec![vec![]; sync::MEMBERS_MAX],
        revocations: vec![vec![]; sync::REVOCATIONS_MAX],
        ..sync::Request::default()
    };
    let corpus = [sync::Request::default(), request, full].map(|request| request.encode());
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Some(read) = round_trip(bytes, sync::Request::decode, sync::Request::encode) else {
            return false;
        };
        assert!(read.certificates.len() <= 256 && read.revocations.len() <= 1024);
        assert!(read.addresses.len() <= 256 && read.last.len() <= 4096);
        assert!(read.statements.len() <= 768);
        assert!(read.addresses.iter().all(|(_, listed)| listed.len() <= 16));
        assert!(read.sightings.len() <= 256 && read.copied.len() <= 256);
        assert!(read.sightings.iter().all(|seen| seen.outlived.len() <= 8));
        true
    });
}

#[test]
fn a_sync_answer_says_the_same_again() {
    let answer = sync::Response {
        received_us: 1,
        sent_us: u64::MAX,
        boot: Some(sync::BootId::new(4)),
    };
    let corpus = [1, sync::RESPONSE_BYTES_MAX].map(|times| answer.encode().repeat(times));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let read = round_trip(bytes, sync::Response::decode, |answer| answer.encode());
        assert!(read.is_none() || bytes.len() <= sync::RESPONSE_BYTES_MAX);
        read.is_some()
    });
}

#[test]
fn a_direct_request_says_the_same_again_and_keeps_its_limits() {
    let many = vec![frames().remove(0); direct::MESSAGES_MAX];
    let corpus = [frames(), many].map(|messages| direct::Request { messages }.encode());
    fuzz(bolero::check!(), &corpus, |bytes| {
        let read = round_trip(bytes, direct::Request::decode, direct::Request::encode);
        read.is_some_and(|read| {
            assert!(read.messages.len() <= 128);
            true
        })
    });
}

#[test]
fn no_frame_verifies_but_the_signed_ones() {
    let signed = frames();
    let mut corpus: Vec<_> = signed.iter().map(Signed::encode).collect();
    corpus.extend(certificates().iter().map(Certificate::encode));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let Some(read) = round_trip(bytes, Signed::decode, Signed::encode) else {
            return false;
        };
        let verified = direct::Frame::verify(&read, MESSAGING.public()).is_ok();
        assert_eq!(verified, signed.contains(&read), "{read:?}");
        verified
    });
}

#[test]
fn a_direct_frame_says_the_same_again() {
    let corpus: Vec<_> = frames().into_iter().map(|signed| signed.payload).collect();
    fuzz(bolero::check!(), &corpus, |payload| {
        let decode = |payload: &[u8]| direct::Frame::decode(&unsigned(payload));
        let encode = |frame: &direct::Frame| frame.clone().sign(&MESSAGING).payload;
        round_trip(payload, decode, encode).is_some()
    });
}

#[test]
fn a_direct_answer_says_the_same_again_and_keeps_its_limits() {
    let every = (0..=8).map(|code| direct::Status::try_from(code).expect("a status"));
    let many = vec![direct::Status::Stored; direct::MESSAGES_MAX];
    let corpus = [every.collect(), many].map(|statuses| direct::Response(statuses).encode());
    fuzz(bolero::check!(), &corpus, |bytes| {
        let read = round_trip(bytes, direct::Response::decode, direct::Response::encode);
        read.is_some_and(|read| {
            assert!(read.0.len() <= 128);
            true
        })
    });
}

#[test]
fn names_ids_and_addresses_are_the_texts_they_came_in() {
    let mut corpus = bytes_of(["pi-1", "Küche 1", "Pi_4.local", "broadcast", "all"]);
    corpus.extend(["x", "ab"].map(|text| text.repeat(16).into_bytes()));
    corpus.extend(bytes_of(addresses(2).iter().map(Address::as_str)));
    fuzz(bolero::check!(), &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let made = NodeName::from_any(&text);
        for legal in [&made, &made.numbered(0), &made.numbered(u32::MAX)] {
            assert_eq!(legal.as_str().parse().as_ref(), Ok(legal));
        }
        let name = text.parse::<NodeName>().ok();
        let id = text.parse::<MessageId>().ok();
        let address = Address::new(&*text);
        if let Some(name) = &name {
            assert!(name.as_str() == text && text.len() <= 63);
        }
        if let Some(id) = id {
            assert_eq!(id.to_string(), text.to_ascii_lowercase());
        }
        if let Some(address) = &address {
            assert!(address.as_str() == text && text.len() <= 256);
            assert!(text.bytes().all(|b| b.is_ascii_graphic()));
        }
        name.is_some() || id.is_some() || address.is_some()
    });
}

#[test]
fn what_a_gateway_tells_of_its_users_is_legal_or_refused() {
    let told = |id: &str| ToldUser {
        id: id.parse().expect("an id"),
        title: "Alice".to_owned(),
        key: *MESSAGING.public(),
        registered_ms: u64::MAX,
        descriptions: vec!["cooks".to_owned()].try_into().expect("short"),
        online: true,
    };
    let requests = [
        users::Request::default(),
        users::Request {
            users: vec![told("alice"), told("bob@example.org")],
            read: vec![MessageId([1; 16])],
            clients: vec![users::ToldClient {
                name: ClientName::new("p2sn:10.0.0.7/5d41402abc4b2a76").expect("a name"),
                is_gone: false,
            }],
            begins: true,
        },
    ];
    let corpus: Vec<_> = requests.iter().map(users::Request::encode).collect();
    fuzz(bolero::check!(), &corpus, |bytes| {
        let read = round_trip(bytes, users::Request::decode, users::Request::encode);
        let Some(request) = read else { return false };
        for user in &request.users {
            assert!(!user.id.as_str().contains('|'), "{user:?}");
            assert!(user.title.len() <= syft::TITLE_BYTES_MAX);
        }
        true
    });
}
