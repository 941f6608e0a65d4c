//! `/pimesh/users/1`: what a gateway tells the other members about its users.
//!
//! A gateway speaks for its own users only, so what it says needs no signature: the connection says
//! who it is. Everything is told when a connection opens, and what changed afterwards; one request
//! is under way at a time.

use super::{ClientName, DecodeError, MessageId, array, decode};
use crate::proto::syft::{Descriptions, PublicKey, TITLE_BYTES_MAX, UserId};

/// Longest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 512 * 1024;

/// Longest answer, in bytes; it is empty.
pub const RESPONSE_BYTES_MAX: usize = 64;

/// Most users in one request.
pub const USERS_MAX: usize = 512;

/// Bytes of users that one request gathers.
pub const GATHERED_BYTES_MAX: usize = 256 * 1024;

/// Most read letters in one request.
pub const READ_MAX: usize = 4096;

/// Most clients in one request.
pub const CLIENTS_MAX: usize = 512;

/// Most clients of one node that another node hears of: they have no key, so anything that reaches the
/// gateway may be one.
pub const CLIENTS_PER_NODE_MAX: usize = 1024;

/// Most users of one gateway.
pub const USERS_PER_GATEWAY_MAX: usize = 4096;

/// A user of the gateway that tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldUser {
    /// His id.
    pub id: UserId,
    /// His name for people.
    pub title: String,
    /// His key.
    pub key: PublicKey,
    /// When he registered, by the gateway's clock, Unix ms; 0 if that clock was not set.
    pub registered_ms: u64,
    /// What he says he can do.
    pub descriptions: Descriptions,
    /// Whether a client of his is connected.
    pub online: bool,
}

impl ToldUser {
    /// Returns about how many bytes it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = self.descriptions.as_slice();
        128 + self.id.as_str().len()
            + self.title.len()
            + texts.iter().map(|text| text.len() + 4).sum::<usize>()
    }
}

/// A client of the sending node. It has no key, so the receiver pins nothing for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldClient {
    /// Its name at that node.
    pub name: ClientName,
    /// True if it was removed.
    pub is_gone: bool,
}

/// What a gateway tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Users that are new or changed.
    pub users: Vec<ToldUser>,
    /// Letters of the other side that users here have read.
    pub read: Vec<MessageId>,
    /// Clients that are new or gone.
    pub clients: Vec<ToldClient>,
    /// True in the first request on a connection: the receiver forgets the clients that it was told
    /// earlier. All that exist follow.
    pub begins: bool,
}

impl Request {
    /// Encodes what is told.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let user = |user: &ToldUser| WireUser {
            id: user.id.to_string(),
            title: user.title.clone(),
            key: user.key.as_bytes().to_vec(),
            registered_ms: user.registered_ms,
            descriptions: user.descriptions.as_slice().to_vec(),
            online: user.online,
        };
        prost::Message::encode_to_vec(&WireRequest {
            users: self.users.iter().map(user).collect(),
            read: self.read.iter().map(|id| id.0.to_vec()).collect(),
            clients: self.clients.iter().map(client_to_wire).collect(),
            begins: self.begins,
        })
    }

    /// Decodes what is told. Users that cannot be are left out: one spoils no other.
    ///
    /// # Errors
    /// Returns what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        const WHAT: &str = "users request";
        super::at_most(WHAT, "bytes", bytes.len(), REQUEST_BYTES_MAX)?;
        let wire: WireRequest = decode(WHAT, bytes)?;
        super::at_most(WHAT, "users", wire.users.len(), USERS_MAX)?;
        super::at_most(WHAT, "read letters", wire.read.len(), READ_MAX)?;
        super::at_most(WHAT, "clients", wire.clients.len(), CLIENTS_MAX)?;
        let read = wire
            .read
            .iter()
            .map(|id| Ok(MessageId(array(WHAT, "read", id)?)));
        Ok(Self {
            users: wire.users.into_iter().filter_map(user).collect(),
            read: read.collect::<Result<_, DecodeError>>()?,
            clients: wire.clients.into_iter().filter_map(client).collect(),
            begins: wire.begins,
        })
    }
}

fn client_to_wire(client: &ToldClient) -> WireClient {
    WireClient {
        name: client.name.to_string(),
        is_gone: client.is_gone,
    }
}

fn client(wire: WireClient) -> Option<ToldClient> {
    Some(ToldClient {
        name: ClientName::new(wire.name)?,
        is_gone: wire.is_gone,
    })
}

fn user(wire: WireUser) -> Option<ToldUser> {
    let key: [u8; 32] = wire.key.try_into().ok()?;
    (wire.title.len() <= TITLE_BYTES_MAX).then_some(())?;
    Some(ToldUser {
        id: wire.id.parse().ok()?,
        title: wire.title,
        key: PublicKey::from_bytes(&key).ok()?,
        registered_ms: wire.registered_ms,
        descriptions: wire.descriptions.try_into().ok()?,
        online: wire.online,
    })
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRequest {
    #[prost(message, repeated, tag = "1")]
    users: Vec<WireUser>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    read: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "3")]
    clients: Vec<WireClient>,
    #[prost(bool, tag = "4")]
    begins: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireClient {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    is_gone: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireUser {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    title: String,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(uint64, tag = "4")]
    registered_ms: u64,
    #[prost(string, repeated, tag = "5")]
    descriptions: Vec<String>,
    #[prost(bool, tag = "6")]
    online: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::syft::SigningKey;

    fn told() -> ToldUser {
        ToldUser {
            id: "alice@example.org".parse().expect("an id"),
            title: "Alice".to_owned(),
            key: *SigningKey::from_seed(&[7; 32]).public(),
            registered_ms: 5,
            descriptions: vec!["cooks".to_owned()].try_into().expect("short"),
            online: true,
        }
    }

    #[test]
    fn what_a_gateway_tells_survives_the_journey() {
        let request = Request {
            users: vec![told()],
            read: vec![MessageId([1; 16])],
            clients: vec![ToldClient {
                name: ClientName::new("p2sn:10.0.0.7/5d41402abc4b2a76").expect("a name"),
                is_gone: true,
            }],
            begins: true,
        };
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn a_user_that_cannot_be_spoils_no_other() {
        let mut wire = WireRequest::default();
        let good = Request {
            users: vec![told()],
            ..Request::default()
        };
        let good = WireRequest::decode_good(&good.encode());
        for bad in [
            WireUser {
                id: "a|b".to_owned(),
                ..good.clone()
            },
            WireUser {
                key: vec![0; 32],
                ..good.clone()
            },
            WireUser {
                title: "x".repeat(257),
                ..good.clone()
            },
            WireUser {
                descriptions: vec![String::new(); 65],
                ..good.clone()
            },
        ] {
            wire.users.push(bad);
        }
        wire.users.push(good);
        let read = Request::decode(&prost::Message::encode_to_vec(&wire)).expect("a request");
        assert_eq!(read.users, [told()]);
    }

    impl WireRequest {
        fn decode_good(bytes: &[u8]) -> WireUser {
            let mut wire: Self = prost::Message::decode(bytes).expect("a request");
            wire.users.remove(0)
        }
    }

    #[test]
    fn more_than_a_request_may_carry_is_refused() {
        let request = Request {
            read: vec![MessageId([1; 16]); READ_MAX + 1],
            ..Request::default()
        };
        let refused = Request::decode(&request.encode());
        assert!(matches!(refused, Err(DecodeError::TooLarge { .. })));
    }
}
