//! Identifies credentials by their content.

use std::{fmt, sync::LazyLock};

use http::HeaderMap;
use sha2::{Digest, Sha256};

/// Identifies the content of credentials within this process: a SHA-256 with a random key of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CredentialsFingerprint(pub(super) [u8; 32]);

/// Shows enough of it to distinguish fingerprints in a log.
impl fmt::Debug for CredentialsFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

impl CredentialsFingerprint {
    /// Returns the fingerprint of additional headers, whose values may be secret.
    pub fn of_headers(headers: &HeaderMap) -> Self {
        Self::of(headers.iter().flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]))
    }

    /// Hashes each part with its length, so that no two lists of parts produce the same text.
    pub(super) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        static KEY: LazyLock<[u8; 32]> = LazyLock::new(rand::random);
        let mut hash = Sha256::new_with_prefix(*KEY);
        for part in parts {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}
