//! Answers and bodies without end, line by line.

use std::pin::Pin;

use futures::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Method,
    body::{Bytes, Frame},
};

use super::{
    Client, ClientError,
    transport::{decode, whole, with_query},
};
use crate::control::api::{EventBody, EventQuery, StreamQuery, Streamed};

/// Longest line of a stream, in bytes: an event with a message of 1 MiB, escaped.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The lines of an answer.
pub(super) type LineStream = Pin<Box<dyn Stream<Item = Result<String, ClientError>> + Send>>;

impl Client {
    /// Follows everything that happens. Once this returns, nothing is missed.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn events(
        &self,
    ) -> Result<impl Stream<Item = Result<EventBody, ClientError>> + use<>, ClientError> {
        self.follow("/v1/events").await
    }

    /// Follows events of these [`KINDS`](EventBody::KINDS); [`EventBody::Lagged`] comes in any
    /// case. Once this returns, nothing is missed.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn events_of(
        &self,
        kinds: &[&str],
    ) -> Result<impl Stream<Item = Result<EventBody, ClientError>> + use<>, ClientError> {
        let kinds = Some(kinds.join(","));
        self.follow(&with_query("/v1/events", &EventQuery { kinds })?)
            .await
    }

    /// Follows integers, each as one line of JSON. Once this returns, nothing is missed.
    ///
    /// # Errors
    /// See [`Self::status`].
    pub async fn integer_lines(
        &self,
    ) -> Result<impl Stream<Item = Result<String, ClientError>> + use<>, ClientError> {
        self.lines("/v1/integers/stream").await
    }

    /// Broadcasts integers that come piece by piece, as text with white space between them; returns
    /// when the last one is out. That takes as long as the text does, and as the node's budget needs.
    ///
    /// # Errors
    /// See [`Self::status`]. What came before the error is out.
    pub async fn publish_stream(
        &self,
        query: &StreamQuery,
        text: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<Streamed, ClientError> {
        let path = with_query("/v1/integers/stream", query)?;
        let frames = futures::StreamExt::map(text, |piece| piece.map(Frame::data));
        let body = BodyExt::boxed_unsync(StreamBody::new(frames));
        let answer = self.request(Method::POST, &path, body).await?;
        decode(&self.collect(answer).await?)
    }

    async fn follow(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<EventBody, ClientError>> + use<>, ClientError> {
        let lines = self.lines(path).await?;
        let events = futures::StreamExt::filter_map(lines, |line| async {
            match line {
                Ok(line) => line.strip_prefix("data: ").map(|d| decode(d.as_bytes())),
                Err(error) => Some(Err(error)),
            }
        });
        Ok(Box::pin(events))
    }

    /// Reads the lines of an answer without end. The first line says that it has begun.
    pub(super) async fn lines(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<String, ClientError>> + use<>, ClientError> {
        let answer = self.request(Method::GET, path, whole(Vec::new()));
        let body = self.in_time(false, answer).await??;
        let start = (self.clone(), body, Lines::default());
        let mut lines = Box::pin(futures::stream::try_unfold(
            start,
            |(client, mut body, mut lines)| async move {
                loop {
                    if let Some(line) = lines.next() {
                        return Ok(Some((line, (client, body, lines))));
                    }
                    let Some(data) = client.piece(&mut body).await? else {
                        return Ok(None);
                    };
                    lines.push(&data)?;
                }
            },
        ));
        // Wait for the first line: from then on the node has this reader on its list.
        futures::StreamExt::next(&mut lines).await.transpose()?;
        Ok(lines)
    }
}

/// Cuts lines out of pieces. Each byte is looked at once and moved once, however long a piece is.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    taken: usize,
    searched: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Result<(), ClientError> {
        self.bytes.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        // What is left is the beginning of one line.
        if self.bytes.len() > LINE_BYTES_MAX {
            return Err(ClientError::TooLong(LINE_BYTES_MAX));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn next(&mut self) -> Option<String> {
        let rest = &self.bytes[self.searched..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let end = self.searched + end;
        let line = String::from_utf8_lossy(&self.bytes[self.taken..end]);
        let line = line.trim_end().to_owned();
        self.taken = end + 1;
        self.searched = self.taken;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_wherever_the_answer_is_cut() {
        let text = "one\n\ntwo\r\nthree\n";

        for cut in 0..=text.len() {
            let (mut lines, mut all) = (Lines::default(), Vec::new());
            for piece in [&text[..cut], &text[cut..]] {
                lines.push(piece.as_bytes()).expect("short");
                all.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(all, ["one", "", "two", "three"], "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; LINE_BYTES_MAX];

        assert!(lines.push(&piece).is_ok());
        assert!(lines.push(&piece).is_ok() && lines.next().is_none());
        assert!(matches!(lines.push(&piece), Err(ClientError::TooLong(_))));
    }
}
