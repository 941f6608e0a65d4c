//! Secrets that anybody can look up: whoever signs in with one proves nothing.
//!
//! The published servers let some of them in as index −42 and as others; sample clients, prefabs
//! and descriptions hold the rest (`proto-specs/iid.md`, section 5.4). They are refused under any
//! index, whatever a list says. Keys that were published without their private half are not here.

use super::address::Address;

/// Is a set of secrets that count as published.
#[derive(Debug)]
pub struct Published {
    /// Ethereum addresses in EIP-55 spelling.
    ethereum: &'static [&'static str],
    /// SHA-256 of the moduli of RSA keys ([`super::address::RsaAddress::fingerprint`]).
    rsa: &'static [&'static str],
    /// SHA-256 of passwords, which are the passwords themselves to these servers.
    passwords: &'static [&'static str],
}

/// All that are known, by the repositories of `EloiStree` that hold them or held them once.
pub const KNOWN: Published = Published {
    ethereum: &[
        // 2025_01_01_APIntPushIID, RunServer.py: −42, "shared keys for video guide".
        "0x9e85522e84c970431cEac4031Fbd2c24D8943527",
        // 2025_03_14_WsNtpIntRaspberryPiClientPyJS, Keys/PrivateKey.txt and RunClient.html.
        "0x24f917bE56be75F13BC5d8A1612e2eff2aF090d4",
        // The same, earlier.
        "0x28F3fD5936154907Ee4C649340253f23581B6c70",
        // 2025_01_01_MegaMaskSignInHandshake_Python, ClientSampleListenerRun.py.
        "0x4Cc09fF8746b962b02B42d373A3217a8E4359203",
    ],
    rsa: &[
        // OpenUPM_WsAsymAuth, Prefab/Ws Asym Auth Client RSA with ETH Variant: −42.
        "33be746538ab759efd4b7d6d56b6b327f9a159d98c7c0b6f7c8ecd83a933ce91",
        // 2025_01_01_APIntPushIID, README.md, and Prefab/Ws Asym Auth Client RSA Variant.
        "c46cfef1eeb1d5f8224bf66697f1459be84d8063906c9ea624f4b760461e4905",
        // OpenUPM_WsAsymAuth, Prefab/Multiple Connection.
        "ebe3914fe416196473d59789c41cc40f09c95622d35e88039ca9e378a2f4cced",
        // OpenUPM_AsymmetricalClipboardCoaster, Scene/Demo/Demo Asym Signer; once −99 on a server.
        "71bdf5f7e400d9f4eb18d3968e59419f10188efc636f83ba776fb319157955cd",
        // 2025_01_01_pBit4096B58Pkcs1SHA256, Bit4096B58Pkcs1SHA256.py: three keys.
        "a3258e5caeaa289fd3409450644280fc5ee2e4388767521294491a633fe11131",
        "e60bf25ccfada6c3b2dbe3f9bdd96eec8ef8940d52d432e1d530f209c5432a6a",
        "b237ca835a5abacba2bcae50a66887e6ba6c1f2290b49ded35bfa4ac08873024",
    ],
    // 2025_01_01_APIntPushIID: RunServer.py, README.md and AuthSoloDefaultUser, today and earlier.
    passwords: &[
        // "Potato": −42.
        "6d61374da4b4df53c6f8fbf4c9b05576d647a07da7498b400abaf7e1f4f44124",
        // "Patato".
        "7074ce50c023524f306f63ed875fb9d244b606a54e0fae5e2f1d4d3359f59649",
        // "HelloWorld"; the Unity prefab with a password has it, too.
        "872e4e50ce9990d8b041330c47c9ddd11bec6b503ae9386a99da8584e9bb12c4",
        // "BonjourIID": once −42.
        "cdc166e605ed058f1cd21fc61aa8b098827cef38297ad4c042a224719a217294",
        // "VanLobby".
        "e33ae5c1f7eb2ef969157514e1c4f6c5ae81600b5b890da00037bce1d5d3a43a",
    ],
};

/// Nothing counts as published: for known answers that were made with published secrets.
#[cfg(test)]
pub(crate) const NONE: Published = Published {
    ethereum: &[],
    rsa: &[],
    passwords: &[],
};

/// What AuthSoloDefaultUser/pBit4096B58Pkcs1SHA256.txt of the published server lets in as −42.
#[cfg(test)]
pub(crate) const RSA_DEMONSTRATION: &str = "pBit4096B58Pkcs1SHA2568arQkFZ8ZJYKVVkCiefn9ckvmUDmF9Qts8E6dKRN3JxwC1zGbSjVJzqygu6EtfHYaZbk5STKiuMwZgQ2fJqp5HQDFU3QX9ZkUR5PS62Zd4PHaj2AgCTNVRsFbAVemuQNSo5nqAko2MLjARPoV3j7avTcS7wmvA3L2ffCHfxskV46aqr8eKy5oNXmqoajscSiT1MF93aMUoSu6TqfgrkKUjUnUhAY37TcCCk7JjvPrapd8UeEnemKrf7as37R7Fi5stM7ngDi8mvQXfvY7fejvbDLuXf64H22UEzwVYgnerZG8A6SpaZW7hgAADFNZrUfyeybFrQFuYnH";

impl Published {
    /// Says whether anybody can sign as this address.
    #[must_use]
    pub fn has_address(&self, address: &Address) -> bool {
        match address {
            Address::Ethereum(ethereum) => self.ethereum.contains(&&*ethereum.to_string()),
            Address::Rsa(rsa) => self.rsa.contains(&&*hex::encode(rsa.fingerprint())),
        }
    }

    /// Says whether anybody can know the password of this hash.
    #[must_use]
    pub fn has_password(&self, hash: &[u8; 32]) -> bool {
        self.passwords.contains(&&*hex::encode(hash))
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::{super::address::EthereumKey, *};

    #[test]
    fn the_secrets_that_the_published_servers_ship_are_known() {
        let ethereum = Address::parse("0x9e85522e84c970431ceac4031fbd2c24d8943527");
        let rsa = Address::parse(RSA_DEMONSTRATION);

        assert!(KNOWN.has_address(&ethereum.expect("an address")));
        assert!(KNOWN.has_address(&rsa.expect("an address")));
        for password in ["Potato", "Patato", "HelloWorld", "BonjourIID", "VanLobby"] {
            assert!(
                KNOWN.has_password(&Sha256::digest(password).into()),
                "{password}"
            );
        }
    }

    #[test]
    fn the_addresses_are_those_of_the_published_keys() {
        let keys = [
            "7c970571a47942b8e06bd011881f401d71a38bd3d3d8c14441d0f8d7e2d8ac8c",
            "514a308cfd57bb45162555ad235ffcd8c25c216306825068f115b47c1e4e10d3",
            "df2541a2a722be6211bacfd1f8b15993445914ac8b75b419664c544c7e27323e",
        ];
        for key in keys {
            let address = EthereumKey::from_hex(key).expect("a key").address();
            assert!(KNOWN.has_address(&Address::Ethereum(address)), "{address}");
        }
    }
}
