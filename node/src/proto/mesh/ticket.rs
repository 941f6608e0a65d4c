//! What `pimesh invite` prints: `pimesh1:` and base64url of a payload with a checksum.
//!
//! A ticket says where the inviter is and proves to it that the bearer was invited. Whoever has
//! it can enter the mesh once; so it is a secret, and is never logged.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libp2p_identity::PeerId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Address, DecodeError, array, certificate::MeshId, decode, peer};

/// 128 random bits that prove an invitation.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; 16]>);

impl Secret {
    /// Takes 16 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns what the inviter keeps instead of the secret: its SHA-256.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(*self.0).into()
    }

    /// Returns the 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An invitation into a mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The mesh to enter.
    pub mesh: MeshId,
    /// The node that made the ticket and will issue the certificate.
    pub inviter: PeerId,
    /// Where it is, best first.
    pub addresses: Vec<Address>,
    /// The proof.
    pub secret: Secret,
    /// When it ends, Unix ms by the inviter's clock.
    pub expires_ms: u64,
}

/// Why a text is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not begin as tickets do.
    #[error("a ticket begins with `{PREFIX}`")]
    Prefix,
    /// A character is missing, doubled or wrong.
    #[error("the ticket is damaged: was all of it copied?")]
    Damaged,
    /// It was made by another version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

const PREFIX: &str = "pimesh1:";

/// Bytes of SHA-256 of the payload in front of it: enough to notice a slip of the hand.
const CHECKSUM_BYTES: usize = 4;

impl Ticket {
    /// Most addresses in a ticket; more would make the QR code hard to scan.
    pub const ADDRESSES_MAX: usize = 8;

    /// Longest ticket, in characters.
    const TEXT_MAX: usize = 4096;

    /// Writes the ticket as text.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let payload = Payload {
            mesh: self.mesh.as_bytes().to_vec(),
            inviter: self.inviter.to_bytes(),
            secret: self.secret.as_bytes().to_vec(),
            expires_ms: self.expires_ms,
            addresses: self
                .addresses
                .iter()
                .take(Self::ADDRESSES_MAX)
                .map(|a| a.as_str().to_owned())
                .collect(),
        };
        let payload = Zeroizing::new(prost::Message::encode_to_vec(&payload));
        let bytes = Zeroizing::new([&checksum(&payload)[..], &payload].concat());
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*bytes)))
    }

    /// Reads a ticket; blanks and line breaks inside are forgiven.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn from_text(text: &str) -> Result<Self, TicketError> {
        let text: Zeroizing<String> = Zeroizing::new(
            text.chars()
                .filter(|c| !c.is_whitespace())
                .take(Self::TEXT_MAX + 1)
                .collect(),
        );
        let body = text.strip_prefix(PREFIX).ok_or(TicketError::Prefix)?;
        let bytes = Zeroizing::new(
            URL_SAFE_NO_PAD
                .decode(body)
                .map_err(|_| TicketError::Damaged)?,
        );
        let (sum, payload) = bytes
            .split_at_checked(CHECKSUM_BYTES)
            .ok_or(TicketError::Damaged)?;
        if sum != checksum(payload) {
            return Err(TicketError::Damaged);
        }
        Ok(decode::<Payload>(TICKET, payload)?.into_ticket()?)
    }
}

const TICKET: &str = "ticket";

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(payload));
    [a, b, c, d]
}

#[derive(Clone, PartialEq, prost::Message, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
struct Payload {
    #[prost(bytes = "vec", tag = "1")]
    mesh: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    inviter: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    secret: Vec<u8>,
    #[prost(uint64, tag = "4")]
    expires_ms: u64,
    #[prost(string, repeated, tag = "5")]
    addresses: Vec<String>,
}

impl Payload {
    fn into_ticket(self) -> Result<Ticket, DecodeError> {
        super::at_most(
            TICKET,
            "addresses",
            self.addresses.len(),
            Ticket::ADDRESSES_MAX,
        )?;
        Ok(Ticket {
            mesh: MeshId::from_bytes(&self.mesh)?,
            inviter: peer(TICKET, "inviter", &self.inviter)?,
            addresses: self
                .addresses
                .iter()
                .filter_map(|a| Address::new(a.as_str()))
                .collect(),
            secret: Secret::new(array(TICKET, "secret", &self.secret)?),
            expires_ms: self.expires_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mesh::certificate::MeshKey;

    fn ticket() -> Ticket {
        Ticket {
            mesh: MeshKey::from_seed(&[1; 32]).mesh(),
            inviter: crate::proto::mesh::peer_of_seed(5),
            addresses: vec![
                Address::new("/ip4/192.168.1.7/udp/4630/quic-v1").expect("an address"),
                Address::new("/ip4/192.168.1.7/tcp/4630").expect("an address"),
            ],
            secret: Secret::new([9; 16]),
            expires_ms: 1_800_000_000_000,
        }
    }

    #[test]
    fn a_ticket_survives_being_copied_with_line_breaks() {
        let ticket = ticket();
        let text = ticket.to_text();
        let (a, b) = text.split_at(40);

        assert_eq!(Ticket::from_text(&text), Ok(ticket.clone()));
        assert_eq!(Ticket::from_text(&format!(" {a}\n  {b}\r\n")), Ok(ticket));
    }

    #[test]
    fn a_ticket_with_any_character_changed_or_cut_is_refused() {
        let text = ticket().to_text();

        for at in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("still ASCII");
            assert!(
                Ticket::from_text(&changed).is_err(),
                "character {at} changed"
            );
            assert!(Ticket::from_text(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_secret_is_not_printed() {
        let printed = format!("{:?}", ticket());

        assert!(printed.contains("Secret(..)"), "{printed}");
        assert!(!printed.contains("9, 9"), "{printed}");
    }
}
