//! The clients of the token service, and where the operators find them.

/// The operators' client at the token service: its id, and its first secret.
pub(crate) const CLIENT: (&str, &str) = ("acme", "s3cr3t-for-the-campaign");
/// The usual path of the token service.
pub(crate) const TOKEN_PATH: &str = "/oauth2/token";
/// The Secret that holds both.
pub(crate) const SECRET: &str = "acme-oauth";

/// The client of all namespaces but the operators' own; its secret is never rotated.
pub(crate) const OTHER_CLIENT: (&str, &str) = ("other", "s3cr3t-of-the-others");
/// Where the token service hangs.
pub(crate) const HANGING_PATH: &str = "/oauth2/hanging";
