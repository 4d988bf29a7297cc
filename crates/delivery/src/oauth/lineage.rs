//! Relates the sources of token keys to each other.

use super::CredentialsFingerprint;

/// Which tokens a source may use in addition to its own.
pub(super) struct Lineage {
    /// Equal for keys that may use the same tokens: those for the same Secret object, client id and rights.
    pub(super) tokens: [u8; 32],
    /// The content of the credentials.
    pub(super) credentials: CredentialsFingerprint,
}
