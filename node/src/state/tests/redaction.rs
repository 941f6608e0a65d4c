//! `Debug` prints no text of a message, no ticket and no key: it may end in a log or a panic.

use super::*;
use crate::{
    proto::{
        mesh::NodeName,
        syft::{Message, UserId, letter::Fingerprint},
    },
    state::{
        clients::{Answer, Question},
        io::{
            ClientName, Encoding, ForClient, Incoming, Outgoing, OutgoingKind, Party, SessionId,
            Via,
        },
        post::{Fetched, LetterRecord, ToServer},
        report,
    },
};

/// What nothing may print.
const HIDDEN: &str = "hunter2";

fn hidden() -> String {
    HIDDEN.to_owned()
}

fn bytes() -> Vec<u8> {
    HIDDEN.into()
}

/// Checks that neither the text nor its bytes are in what is printed; returns that.
fn printed(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    let bytes = format!("{:?}", HIDDEN.as_bytes());
    assert!(!text.contains(HIDDEN), "{text}");
    assert!(!text.contains(bytes.trim_matches(['[', ']'])), "{text}");
    text
}

const ID: MessageId = MessageId([7; 16]);

fn client() -> ClientName {
    ClientName::new("p2sn:10.0.0.7".to_owned()).expect("a client")
}

fn alice() -> UserId {
    super::gateway::id("alice")
}

#[test]
fn commands_and_answers_print_how_long_a_text_is_and_not_the_text() {
    let join = Command::Join { ticket: hidden() };
    assert_eq!(printed(&join), "Join { ticket: 7 bytes }");
    let send = Command::Send {
        to: Recipients::All,
        text: hidden(),
        via: SendVia::Direct,
        expiry: None,
    };
    assert_eq!(
        printed(&send),
        "Send { to: All, text: 7 bytes, via: Direct, expiry: None }"
    );
    let deliver = Question::Deliver {
        client: client(),
        to: None,
        bytes: bytes(),
    };
    assert!(printed(&Command::P2sn(deliver)).contains("bytes: 7 bytes"));
    let taken = Reply::P2sn(Answer::Taken(Some((ID, bytes()))));
    assert!(printed(&taken).contains("Taken(Some("));
}

#[test]
fn records_print_how_long_a_text_is_and_not_the_text() {
    let outgoing = Outgoing {
        id: ID,
        recipient: peer_of_seed(2).into(),
        epoch: 1,
        sequence: 2,
        created_ms: 3,
        expires_ms: 4,
        kind: OutgoingKind::Member,
        text: hidden(),
    };
    assert!(printed(&Record::Outgoing(outgoing)).contains("text: 7 bytes"));
    let for_client = ForClient {
        id: ID,
        client: client(),
        created_ms: 3,
        expires_ms: 4,
        text: hidden(),
        encoding: Encoding::Utf8,
    };
    assert!(printed(&Record::ForClient(for_client)).contains("text: 7 bytes"));
    let incoming = Incoming {
        id: ID,
        sender: Party::Member(peer_of_seed(2)),
        user: None,
        mark: None,
        created_ms: 3,
        received_ms: 4,
        via: Via::Direct,
        text: hidden(),
        encoding: Encoding::Utf8,
    };
    assert!(printed(&Record::Incoming(incoming)).contains("text: 7 bytes"));
    let letter = LetterRecord {
        row: 1,
        id: ID,
        user: None,
        sender: None,
        from: "alice".to_owned(),
        node: peer_of_seed(2),
        at_ms: 3,
        fingerprint: Fingerprint([1; 16]),
        frame: hidden(),
        bytes: 7,
    };
    assert!(printed(&Record::Letter(Box::new(letter))).contains("frame: 7 bytes"));
}

#[test]
fn events_and_what_servers_bring_print_no_text() {
    let received = report::Received {
        id: ID,
        from: "pi-2".to_owned(),
        peer_id: Party::Member(peer_of_seed(2)),
        created_ms: 1,
        received_ms: 2,
        via: Via::Direct,
        text: hidden(),
        encoding: Encoding::Utf8,
    };
    assert!(printed(&Event::<&str>::Received(received)).contains("text: 7 bytes"));
    let server: NodeName = "work".parse().expect("a name");
    printed(&ToServer::Received {
        server,
        from: alice(),
        text: hidden(),
        fingerprint: Fingerprint([1; 16]),
    });
    printed(&Fetched {
        id: ID,
        user: alice(),
        text: hidden(),
        created_ms: 1,
    });
    let broadcast = Message {
        id: None,
        from: "alice".to_owned(),
        to: "broadcast".to_owned(),
        timestamp: None,
        content: hidden(),
        status: None,
        signature: None,
        is_forward_message: false,
    };
    assert!(printed(&broadcast).contains("content: 7 bytes"));
}

#[test]
fn what_goes_to_and_from_the_network_prints_no_bytes_of_messages() {
    let (connection, peer) = (Connection(1), peer_of_seed(2));
    for input in [
        NetInput::MemberRequest {
            connection,
            id: InboundId(1),
            bytes: bytes(),
        },
        NetInput::Request {
            peer,
            protocol: Protocol::Direct,
            id: InboundId(1),
            bytes: bytes(),
        },
        NetInput::Response {
            id: OutboundId(1),
            result: Ok(bytes()),
        },
        NetInput::P2snMessage {
            session: SessionId::Ours(1),
            peer,
            bytes: bytes(),
        },
        NetInput::P2snReplied {
            session: SessionId::Ours(1),
            bytes: bytes(),
        },
    ] {
        printed(&Input::Net(input));
    }
    for output in [
        NetOutput::MemberRequest {
            connection,
            id: OutboundId(1),
            bytes: bytes(),
        },
        NetOutput::MemberRespond {
            connection,
            id: InboundId(1),
            bytes: bytes(),
        },
        NetOutput::Request {
            peer,
            protocol: Protocol::Direct,
            id: OutboundId(1),
            bytes: bytes(),
        },
        NetOutput::Respond {
            id: InboundId(1),
            bytes: bytes(),
        },
        NetOutput::P2snOpen {
            session: SessionId::Ours(1),
            peer,
            message: Some(bytes()),
        },
        NetOutput::P2snReply {
            session: SessionId::Ours(1),
            bytes: bytes(),
        },
    ] {
        printed(&Output::Net(output));
    }
}
