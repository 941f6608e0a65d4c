//! Nodes that do not answer, or never end.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use super::*;

/// A socket behind which something takes one connection, reads the request, sends this, and then
/// repeats this piece for ever or is silent.
fn node(begin: &'static str, piece: &'static [u8]) -> (tempfile::TempDir, Client) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.sock");
    let listener = UnixListener::bind(&path).expect("binds");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut request = [0; 4096];
        let _read = stream.read(&mut request).await.expect("reads");
        stream.write_all(begin.as_bytes()).await.expect("writes");
        if piece.is_empty() {
            std::future::pending::<()>().await;
        }
        while stream.write_all(piece).await.is_ok() {}
    });
    (folder, Client::new(path))
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[\n";

#[tokio::test]
async fn a_node_that_is_silent_is_given_up() {
    let soon = Duration::from_millis(50);
    for begin in ["", ANSWER] {
        let (_folder, client) = node(begin, b"");

        let silent = client.patient(soon).outbox().await;

        assert!(
            matches!(silent, Err(ClientError::Silent { may_act: false, .. })),
            "{silent:?}"
        );
    }
    let (_folder, client) = node("", b"");
    let integers = NewIntegers {
        index: None,
        values: vec![Value(1)],
        at: None,
    };
    let silent = client.patient(soon).publish(&integers).await;
    let error = silent.expect_err("silent");
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("may still do what was asked"), "{hint}");
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_given_up() {
    use futures::StreamExt;
    let (_folder, client) = node(ANSWER, b"");
    let client = client.patient(Duration::from_millis(50));
    let mut lines = Box::pin(client.integer_lines().await.expect("begins"));

    let silent = lines.next().await.expect("an error");

    assert!(
        matches!(silent, Err(ClientError::Silent { .. })),
        "{silent:?}"
    );
}

#[tokio::test]
async fn an_endless_answer_is_given_up() {
    let (_folder, client) = node(ANSWER, &[b' '; 64 * 1024]);

    let endless = client.outbox().await;

    assert!(
        matches!(endless, Err(ClientError::TooLong(_))),
        "{endless:?}"
    );
}
