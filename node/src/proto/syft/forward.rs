//! Requests over HTTP that a user's own agent answers over its WebSocket (`proto-specs/syft.md`,
//! section 8).
//!
//! The server makes a frame from the user to himself, with the forward flag; the agent's answer is
//! such a frame, too. Both hold JSON in JSON in JSON. Neither is signed nor sealed, and nothing in
//! an answer says which request it answers: who asks keeps one request under way for each user.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    message::{FRAME_BYTES_MAX, Message},
    time::Timestamp,
    user::UserId,
};

/// Longest body of such a request, in bytes: half a frame. Quotes in it are escaped three times on
/// their way into the frame, so a shorter one may be too long, too; that is looked at by itself.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;

/// The type of a frame's content, and of a request for an answer to a question.
const FORWARD: &str = "forward";

/// The types of requests to store a document and to add to one.
const REGISTER: &str = "register_document";
const APPEND: &str = "append_document";

/// The type with which an agent says that it has stored a document.
const STORED: &str = "register_document_success";

/// What an agent can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `POST /direct-message/`: the answer to a question.
    Query,
    /// `POST /register-document/`: to store a document.
    Register,
    /// `POST /append-document/`: to add to a document.
    Append,
}

/// A request that an agent can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    kind: Kind,
    /// What the agent reads.
    inner: String,
}

/// Why a body is no request. The texts are those of the old server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No JSON object of the kind.
    #[error("Invalid JSON payload")]
    Malformed,
    /// A question of another type.
    #[error("Type must be 'forward'")]
    Type,
    /// No question.
    #[error("Either query or message field is required")]
    NoQuery,
    /// No document.
    #[error("Filename and content are required")]
    NoDocument,
    /// More than fits into a frame.
    #[error("The request makes a frame of more than {FRAME_BYTES_MAX} bytes")]
    TooLong,
}

/// Why an answer cannot be passed on. The texts are those of the old server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The content of the frame is none.
    #[error("Error parsing response")]
    Outer,
    /// What is in it is none.
    #[error("Error parsing forward response")]
    Inner,
}

#[derive(Deserialize)]
struct QueryBody {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    query: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct DocumentBody {
    #[serde(default)]
    filename: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    filename: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

/// Both layers of a content, and what an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Said {
    r#type: String,
    message: String,
}

/// What an agent answered, as it goes to who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To a question.
    Query {
        /// Always.
        success: bool,
        /// What the agent says.
        answer: String,
    },
    /// To a document.
    Document {
        /// Whether the agent has stored it.
        success: bool,
        /// What the agent says of it.
        message: String,
        /// The kind of its answer.
        r#type: String,
    },
}

impl Request {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn read(kind: Kind, body: &[u8]) -> Result<Self, RequestError> {
        let inner = match kind {
            Kind::Query => {
                let body: QueryBody = parse(body)?;
                if body.r#type != FORWARD {
                    return Err(RequestError::Type);
                }
                let texts = [body.query, body.message];
                let text = texts.into_iter().find(|text| !text.is_empty());
                said(FORWARD, text.ok_or(RequestError::NoQuery)?)
            }
            Kind::Register | Kind::Append => {
                let body: DocumentBody = parse(body)?;
                if body.filename.trim().is_empty() || body.content.trim().is_empty() {
                    return Err(RequestError::NoDocument);
                }
                json(&Document {
                    r#type: match kind {
                        Kind::Append => APPEND,
                        _ => REGISTER,
                    },
                    filename: &body.filename,
                    content: &body.content,
                    metadata: body.metadata,
                })
            }
        };
        Ok(Self { kind, inner })
    }

    /// Returns the frame for the user's agent.
    ///
    /// # Errors
    /// Returns [`RequestError::TooLong`] if the agent could not take it.
    pub fn frame(&self, user: &UserId, unix_ms: u64) -> Result<String, RequestError> {
        let message = Message {
            id: Some(0),
            from: user.to_string(),
            to: user.to_string(),
            timestamp: Some(Timestamp::on_grid(unix_ms).as_str().to_owned()),
            content: said(FORWARD, self.inner.clone()),
            status: Some("pending".to_owned()),
            signature: None,
            is_forward_message: true,
        };
        let frame = String::from_utf8(message.encode()).expect("JSON is UTF-8");
        if frame.len() > FRAME_BYTES_MAX {
            return Err(RequestError::TooLong);
        }
        Ok(frame)
    }

    /// Reads the content of the frame with which an agent answers this request.
    ///
    /// # Errors
    /// Returns what about it cannot be read.
    pub fn answer(&self, content: &str) -> Result<Answer, AnswerError> {
        let outer: Said = serde_json::from_str(content).map_err(|_| AnswerError::Outer)?;
        let said: Said = serde_json::from_str(&outer.message).map_err(|_| AnswerError::Inner)?;
        Ok(match self.kind {
            Kind::Query => Answer::Query {
                success: true,
                answer: said.message,
            },
            Kind::Register | Kind::Append => Answer::Document {
                success: said.r#type == STORED,
                message: said.message,
                r#type: said.r#type,
            },
        })
    }
}

/// Says whether a frame can be the answer of an agent: from a user to himself, with the flag or with
/// the type of an answer.
#[must_use]
pub fn may_answer(message: &Message) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    let is_typed = || {
        let typed = serde_json::from_str::<Typed>(&message.content);
        typed.is_ok_and(|typed| typed.r#type == "forward_response")
    };
    message.from == message.to && (message.is_forward_message || is_typed())
}

/// Says whether a text has a Go client do what only its own user may ask for: it looks at the type of
/// a content and not at the flag, and reads names without regard to case.
pub(super) fn is_request(content: &str) -> bool {
    let Ok(Value::Object(members)) = serde_json::from_str(content) else {
        return false;
    };
    members.iter().any(|(name, value)| {
        let kind = value.as_str().unwrap_or_default();
        name.eq_ignore_ascii_case("type") && [FORWARD, REGISTER, APPEND].contains(&kind)
    })
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RequestError> {
    serde_json::from_slice(body).map_err(|_| RequestError::Malformed)
}

fn said(r#type: &str, message: String) -> String {
    json(&Said {
        r#type: r#type.to_owned(),
        message,
    })
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts under texts are JSON")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(kind: Kind, body: &Value) -> Result<Request, RequestError> {
        Request::read(kind, body.to_string().as_bytes())
    }

    fn frame(request: &Request) -> Value {
        let user = "alice@example.org".parse().expect("an id");
        let frame = request.frame(&user, 1_747_396_800_123).expect("fits");
        serde_json::from_str(&frame).expect("JSON")
    }

    #[test]
    fn a_question_is_in_two_layers_from_the_user_to_himself() {
        let asked = json!({"type": "forward", "query": "is the \"door\" open?"});
        let request = read(Kind::Query, &asked).expect("a request");
        let expected = json!({
            "id": 0,
            "from": "alice@example.org",
            "to": "alice@example.org",
            "timestamp": "2025-05-16T12:00:00.120Z",
            "content": r#"{"type":"forward","message":"{\"type\":\"forward\",\"message\":\"is the \\\"door\\\" open?\"}"}"#,
            "status": "pending",
            "is_forward_message": true,
        });
        assert_eq!(frame(&request), expected);
    }

    #[test]
    fn the_query_comes_before_the_message() {
        let both = json!({"type": "forward", "query": "one", "message": "two"});
        let message = json!({"type": "forward", "query": "", "message": "two"});
        let inner = |body| read(Kind::Query, body).expect("a request").inner;
        assert_eq!(inner(&both), r#"{"type":"forward","message":"one"}"#);
        assert_eq!(inner(&message), r#"{"type":"forward","message":"two"}"#);
    }

    #[test]
    fn a_document_has_its_name_its_text_and_what_is_said_of_it() {
        let body = json!({"filename": "a.txt", "content": "open", "metadata": {"by": "alice"}});
        for (kind, name) in [
            (Kind::Register, "register_document"),
            (Kind::Append, "append_document"),
        ] {
            let content = frame(&read(kind, &body).expect("a request"))["content"].clone();
            let outer: Value =
                serde_json::from_str(content.as_str().expect("a text")).expect("one");
            assert_eq!(outer["type"], "forward");
            let inner: Value =
                serde_json::from_str(outer["message"].as_str().expect("a text")).expect("one");
            let mut expected = body.clone();
            expected["type"] = json!(name);
            assert_eq!(inner, expected);
        }
    }

    #[test]
    fn what_is_no_request_is_refused_in_the_words_of_the_old_server() {
        for (kind, body, error) in [
            (Kind::Query, json!([1]), RequestError::Malformed),
            (Kind::Query, json!({"query": "x"}), RequestError::Type),
            (
                Kind::Query,
                json!({"type": "forward"}),
                RequestError::NoQuery,
            ),
            (
                Kind::Register,
                json!({"filename": 1}),
                RequestError::Malformed,
            ),
            (
                Kind::Append,
                json!({"filename": "a", "content": " "}),
                RequestError::NoDocument,
            ),
        ] {
            assert_eq!(read(kind, &body), Err(error), "{body}");
        }
    }

    #[test]
    fn a_request_whose_quotes_fill_more_than_a_frame_is_refused() {
        let body = json!({"type": "forward", "query": "\"".repeat(BODY_BYTES_MAX / 3)});
        let request = read(Kind::Query, &body).expect("a request");
        let user = "alice".parse().expect("an id");
        assert_eq!(request.frame(&user, 0), Err(RequestError::TooLong));
    }

    #[test]
    fn an_answer_is_taken_out_of_its_two_layers() {
        let query = read(Kind::Query, &json!({"type": "forward", "query": "?"}));
        let document = read(Kind::Append, &json!({"filename": "a", "content": "b"}));
        let (query, document) = (query.expect("one"), document.expect("one"));
        let answer = |kind: &str, text| said(FORWARD, said(kind, str::to_owned(text)));
        let told = |request: &Request, content: &str| {
            let answer = request.answer(content)?;
            Ok(serde_json::to_value(answer).expect("JSON"))
        };

        assert_eq!(
            told(&query, &answer("forward_response", "yes")),
            Ok(json!({"success": true, "answer": "yes"}))
        );
        for (kind, success) in [(STORED, true), ("register_document_error", false)] {
            assert_eq!(
                told(&document, &answer(kind, "so")),
                Ok(json!({"success": success, "message": "so", "type": kind}))
            );
        }
        assert_eq!(told(&query, "yes"), Err(AnswerError::Outer));
        assert_eq!(
            told(&query, &said(FORWARD, "yes".into())),
            Err(AnswerError::Inner)
        );
    }

    #[test]
    fn only_a_user_himself_can_answer_for_himself() {
        let message = |from: &str, to: &str, content: &str, flag| Message {
            id: None,
            from: from.to_owned(),
            to: to.to_owned(),
            timestamp: None,
            content: content.to_owned(),
            status: None,
            signature: None,
            is_forward_message: flag,
        };
        let typed = r#"{"type":"forward_response","message":"x"}"#;
        for (message, expected) in [
            (message("alice", "alice", "x", true), true),
            (message("alice", "alice", typed, false), true),
            (message("alice", "alice", "x", false), false),
            (
                message("alice", "alice", r#"{"type":"forward"}"#, false),
                false,
            ),
            (message("alice", "bob", typed, true), false),
        ] {
            assert_eq!(may_answer(&message), expected, "{message:?}");
        }
    }
}
