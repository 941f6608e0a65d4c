//! The name of a certificate: the SHA-256 of its DER, as browsers and `openssl x509 -fingerprint
//! -sha256` show it. Whether a server has that certificate is judged in `gateway`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertificateSha256(pub [u8; 32]);

/// A text is no SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the SHA-256 of a certificate is 64 hexadecimal digits, with colons or without; got `{0}`")]
pub struct NoSha256(String);

impl FromStr for CertificateSha256 {
    type Err = NoSha256;

    fn from_str(text: &str) -> Result<Self, NoSha256> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        let mut bytes = [0; 32];
        hex::decode_to_slice(&digits, &mut bytes)
            .map_err(|_| NoSha256(text.chars().take(128).collect()))?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for CertificateSha256 {
    type Error = NoSha256;

    fn try_from(text: String) -> Result<Self, NoSha256> {
        text.parse()
    }
}

impl From<CertificateSha256> for String {
    fn from(sha256: CertificateSha256) -> Self {
        sha256.to_string()
    }
}

impl fmt::Display for CertificateSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for CertificateSha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateSha256({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_browsers_show_it_and_as_we_do() {
        let bytes = [0xab; 32];
        let plain = "ab".repeat(32);
        let colons = ["AB"; 32].join(":");
        for text in [&plain, &colons] {
            assert_eq!(text.parse(), Ok(CertificateSha256(bytes)));
        }
        assert_eq!(CertificateSha256(bytes).to_string(), plain);
        for text in [
            "",
            "ab",
            &plain[..62],
            &format!("{plain}ab"),
            &"g".repeat(64),
        ] {
            assert!(text.parse::<CertificateSha256>().is_err(), "{text}");
        }
    }
}
