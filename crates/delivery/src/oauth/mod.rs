//! Access tokens with the OAuth 2.0 client credentials grant (RFC 6749, section 4.4).
//!
//! [`client`] sends one token [`request`]: [`form`] encodes the request, and [`answer`] parses the response (both pure;
//! [`encoding`] unpacks its body). [`policy`] decides when to request a token, when to use the stored one and when to
//! fail (pure). [`source`] does this for one key, with at most one request in flight. [`cache`] keeps one source for
//! each key; [`lineage`] says which sources may use each other's token.

mod answer;
mod cache;
mod client;
mod encoding;
mod error;
mod form;
mod lineage;
mod policy;
mod request;
mod secret_header;
mod source;

pub use answer::Token;
pub use cache::{TokenCache, TokenKey};
pub use error::{NoToken, TokenError};
pub use request::{AuthMethod, Credentials, CredentialsFingerprint, RequestOutline, TokenRequest};
pub use source::{Acceptance, TokenSource};
