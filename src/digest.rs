//! BLAKE3 hashes: of contents ([`Digest`]) and of what decides a rerun ([`ActionKey`]).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Declares a newtype over 32 hash bytes that reads and writes as 64 hexadecimal digits.
macro_rules! hash_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// The raw hash.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first twelve digits, enough for a person to tell hashes apart.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(12);
                text
            }
        }

        impl From<blake3::Hash> for $name {
            fn from(hash: blake3::Hash) -> Self {
                Self(*hash.as_bytes())
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }

        impl FromStr for $name {
            type Err = blake3::HexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                blake3::Hash::from_hex(text).map(Self::from)
            }
        }

        impl TryFrom<String> for $name {
            type Error = blake3::HexError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(hash: $name) -> String {
                hash.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
    };
}

hash_newtype! {
    /// What bytes are: the BLAKE3 hash of a file, or of a folder's names and contents.
    Digest
}

hash_newtype! {
    /// What decides a rerun: see [`crate::fingerprint`].
    ActionKey
}
