//! Messages that are on disk: read whole however many they are, and deleted.

use std::sync::{Arc, Mutex};

use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    control::{
        api::{Deletion, HistoryQuery, HistoryRow, Way},
        limit::WRITE_TIME,
    },
    proto::mesh::peer_of_seed,
    state::io::{Incoming, Outgoing, OutgoingKind, Party, Record, Selection, Ticket, Via},
};

impl Fixture {
    /// Puts records on the disk.
    fn write(&self, records: Vec<Record>) {
        self.store.write(Ticket(0), records).expect("room");
        let mut completions = self.completions.iter();
        assert!(completions.any(|c| matches!(c, Completion::Stored(_))));
    }

    fn receive(&self, count: u64, bytes: usize) {
        let record = |number: u64| {
            Record::Incoming(Incoming {
                id: MessageId(u128::from(number).to_be_bytes()),
                sender: Party::Member(peer()),
                user: None,
                mark: Some((1, number)),
                created_ms: number,
                received_ms: number,
                via: Via::Direct,
                text: "x".repeat(bytes),
                encoding: Encoding::Utf8,
            })
        };
        self.write((1..=count).map(record).collect());
    }
}

fn no_members() -> Fixture {
    Fixture::serving(|_| Ok(Reply::Names(Vec::new())))
}

fn rows(rows: &[HistoryRow]) -> Vec<i64> {
    rows.iter().map(|row| row.row).collect()
}

#[tokio::test]
async fn history_is_asked_with_every_field_and_rows_of_strangers_keep_their_peer_id() {
    let fixture = no_members();
    for (number, text) in [(1, "door & window"), (2, "door & window"), (3, "window")] {
        fixture.write(vec![Record::Outgoing(Outgoing {
            id: MessageId([number; 16]),
            recipient: peer().into(),
            epoch: 1,
            sequence: number.into(),
            created_ms: number.into(),
            expires_ms: 9,
            kind: OutgoingKind::Member,
            text: text.to_owned(),
        })]);
    }
    let query = HistoryQuery {
        way: Way::Sent,
        id: None,
        peer: Some(peer().to_string()),
        since_ms: Some(1),
        before_ms: Some(3),
        after: Some(1),
        search: Some("door & window".to_owned()),
        limit: Some(10),
        all: false,
    };

    let found = fixture.client.history(&query).await.expect("reads");

    assert_eq!(rows(&found), [2]);
    assert_eq!(found[0].name, peer().to_string());
    assert_eq!(found[0].text, "door & window");
}

#[tokio::test]
async fn history_shows_the_name_of_now_and_the_one_of_then() {
    let names = |member: bool| report::Names {
        peer_id: peer(),
        name: "cellar".to_owned(),
        earlier: vec!["kitchen".to_owned()],
        member,
    };
    for member in [true, false] {
        let fixture = Fixture::serving(move |_| Ok(Reply::Names(vec![names(member)])));
        fixture.write(vec![Record::Name {
            peer: peer(),
            name: "kitchen".to_owned(),
        }]);
        fixture.receive(1, 1);
        for from in ["cellar", "kitchen"] {
            let query = HistoryQuery {
                peer: Some(from.to_owned()),
                ..HistoryQuery::default()
            };
            let rows = fixture.client.history(&query).await.expect("reads");
            let shown = (rows[0].name.as_str(), rows[0].name_then.as_deref());
            assert_eq!(shown, ("cellar", Some("kitchen")));
        }
    }
}

#[tokio::test]
async fn as_many_messages_are_returned_as_are_asked_for() {
    let fixture = no_members();
    fixture.receive(2500, 1);
    let ask = |limit, all| HistoryQuery {
        limit,
        all,
        ..HistoryQuery::default()
    };

    for (query, expected) in [
        (ask(None, false), 2401..=2500),
        (ask(Some(2000), false), 501..=2500),
        (ask(Some(9999), false), 1..=2500),
        (ask(None, true), 1..=2500),
    ] {
        let listed = fixture.client.history(&query).await.expect("reads");
        let streamed = fixture.client.history_stream(&query).await.expect("reads");
        let streamed: Vec<HistoryRow> = streamed.try_collect().await.expect("whole");

        assert_eq!(rows(&listed), expected.collect::<Vec<i64>>());
        assert_eq!(rows(&streamed), rows(&listed));
        let counted = fixture.client.count_history(&query).await.expect("counts");
        assert_eq!(counted.count, 2500);
    }
}

#[tokio::test]
async fn an_inbox_without_messages_is_an_empty_list() {
    let fixture = no_members();

    let listed = fixture.client.history(&HistoryQuery::default()).await;

    assert_eq!(listed.expect("reads"), []);
}

#[tokio::test]
async fn large_messages_come_one_by_one() {
    let fixture = no_members();
    fixture.receive(4, 1024 * 1024);
    let query = HistoryQuery {
        all: true,
        ..HistoryQuery::default()
    };
    let mut pages = fixture.handle.history(query.clone()).await.expect("reads");

    let page = pages.next().await.expect("reads").expect("a page");
    let mut lines = fixture.client.history_stream(&query).await.expect("reads");
    let first = lines.next().await.expect("a line").expect("reads");

    assert_eq!(page.len(), 1, "one message fills a page");
    assert_eq!(first.row, 1);
}

#[tokio::test]
async fn one_message_is_asked_for_by_its_id() {
    let fixture = no_members();
    fixture.receive(3, 1);
    let ask = |number: u128| HistoryQuery {
        id: Some(MessageId(number.to_be_bytes())),
        limit: Some(1),
        ..HistoryQuery::default()
    };

    let second = fixture.client.history(&ask(2)).await.expect("reads");
    let none = fixture.client.history(&ask(9)).await.expect("reads");

    assert_eq!(rows(&second), [2]);
    assert!(none.is_empty());
}

/// The limit of a connection that nobody reads is counted by a clock that jumps.
#[tokio::test(start_paused = true)]
async fn a_reader_who_pauses_gets_all_messages_once_and_in_order() {
    let fixture = no_members();
    fixture.receive(12, 512 * 1024);
    for (limit, all, expected) in [(None, true, 1..=12), (Some(11), false, 2..=12)] {
        let query = HistoryQuery {
            all,
            limit,
            ..HistoryQuery::default()
        };
        let mut rows = fixture.client.history_stream(&query).await.expect("reads");

        let mut read = Vec::new();
        while let Some(row) = rows.next().await {
            read.push(row.expect("goes on").row);
            if read.len() % 4 == 1 {
                tokio::time::sleep(WRITE_TIME * 3).await;
            }
        }

        assert_eq!(read, expected.collect::<Vec<i64>>());
    }
}

/// The same, and that only what is still wanted is asked for again.
#[tokio::test]
async fn a_stream_that_breaks_off_is_asked_for_again_behind_its_last_message() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n";
    let line = |row: i64| {
        let row = HistoryRow {
            row,
            id: MessageId([7; 16]),
            name: "a".to_owned(),
            name_then: None,
            peer_id: "a".to_owned(),
            created_ms: 1,
            at_ms: 1,
            via: "direct".to_owned(),
            outcome: String::new(),
            text: String::new(),
            encoding: Encoding::Utf8,
        };
        let line = serde_json::to_string(&row).expect("encodes");
        format!("{:x}\r\n{line}\n\r\n", line.len() + 1)
    };
    let answers = [
        // Cut within a line; whole; without anything.
        format!("{HEAD}{}{}", line(4), &line(5)[..20]),
        format!("{HEAD}{}{}", line(5), line(6)),
        HEAD.to_owned(),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("binds");
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.expect("reads");
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            asked.push(request.lines().next().unwrap_or_default().to_owned());
            stream.write_all(answer.as_bytes()).await.expect("writes");
        }
        asked
    });

    let query = HistoryQuery::default();
    let rows = Client::new(path).history_stream(&query).await;
    let rows: Vec<_> = rows.expect("begins").collect().await;

    assert!(matches!(
        &rows[..],
        [Ok(first), Ok(second), Ok(third), Err(ClientError::Broken(_))]
            if (first.row, second.row, third.row) == (4, 5, 6)
    ));
    let path = |what: &str| format!("GET /v1/messages/stream?{what}way=received HTTP/1.1");
    assert_eq!(
        asked.await.expect("ends"),
        ["limit=100&", "after=4&limit=99&", "after=6&limit=97&"].map(path)
    );
}

#[tokio::test]
async fn only_what_was_counted_is_deleted() {
    let asked: Arc<Mutex<Vec<Selection>>> = Arc::default();
    let chosen = Arc::clone(&asked);
    let fixture = Fixture::serving(move |command| match command {
        Command::DeleteHistory(selection) => {
            chosen.lock().expect("alive").push(selection);
            Ok(Reply::HistoryDeleted)
        }
        _ => Ok(Reply::Names(Vec::new())),
    });
    fixture.receive(3, 1);
    let mut deletion = Deletion {
        peer: Some(peer().to_string()),
        before_ms: Some(3),
        dry_run: true,
        ..Deletion::default()
    };

    let counted = fixture.client.delete_history(&deletion).await;
    deletion.dry_run = false;
    let deleted = fixture.client.delete_history(&deletion).await;
    let nobody = Deletion {
        peer: Some(peer_of_seed(9).to_string()),
        ..Deletion::default()
    };
    let of_nobody = fixture.client.delete_history(&nobody).await;
    let everything = fixture.client.delete_history(&Deletion::default()).await;

    let expected = crate::control::api::Deleted { count: 2, up_to: 2 };
    assert_eq!(counted.expect("counts"), expected);
    assert_eq!(deleted.expect("deletes"), expected);
    assert_eq!(of_nobody.expect("deletes").count, 0);
    assert!(failure(everything).message.contains("say which messages"));
    let selection = Selection {
        peer: Some(Party::Member(peer())),
        before_ms: Some(3),
        up_to: Some(2),
        ..Selection::default()
    };
    assert_eq!(*asked.lock().expect("alive"), [selection]);
}
