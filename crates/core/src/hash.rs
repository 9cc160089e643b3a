//! quickXorHash, the one content hash that every kind of drive reports.
//!
//! It is not cryptographic: it detects truncation and accidents, not malice.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quickxorhash::QuickXorHash as Algorithm;
use serde::{Deserialize, Serialize};

/// Length of a hash in bytes (160 bits).
pub const HASH_BYTES: usize = 20;

/// A content hash as the service reports it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QuickXorHash([u8; HASH_BYTES]);

impl QuickXorHash {
    /// Wraps the twenty raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// The twenty raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// Parses the base64 text of the service; `None` when it is not a hash.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Hashes a body that is in memory.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        let mut hash = HashAccumulator::new();
        hash.update(data);
        hash.finish()
    }

    /// Tells whether the hash is all zero, which the service also sends for "not known yet".
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; HASH_BYTES]
    }
}

impl fmt::Display for QuickXorHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for QuickXorHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QuickXorHash({self})")
    }
}

impl From<QuickXorHash> for String {
    fn from(hash: QuickXorHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for QuickXorHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a quickXorHash is 28 characters of base64")
    }
}

/// Hashes a body piece by piece, in order.
pub struct HashAccumulator(Algorithm);

impl HashAccumulator {
    /// Starts with the empty body.
    #[must_use]
    pub fn new() -> Self {
        Self(Algorithm::new())
    }

    /// Appends the next bytes of the body.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The hash of everything appended.
    #[must_use]
    pub fn finish(mut self) -> QuickXorHash {
        QuickXorHash(self.0.finalize())
    }
}

impl Default for HashAccumulator {
    fn default() -> Self {
        Self::new()
    }
}
