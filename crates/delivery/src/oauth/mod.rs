//! Access tokens with the OAuth 2.0 client credentials grant (RFC 6749, section 4.4).
//!
//! [`client`] sends one token [`request`]: [`form`] encodes the request, with an [`assertion`] that a [`signing_key`]
//! signs if the client has one, and [`answer`] parses the response (all pure; [`encoding`] unpacks its body). Where
//! another party issues the assertion, [`client`] gets it first ([`issued_assertion`]). [`policy`] decides when to
//! request a token, when to use the stored one and when to fail (pure). [`source`] does this for one key, with at most
//! one request in flight. [`cache`] keeps one source for each key; [`lineage`] says which sources may use each other's
//! token.

mod answer;
mod assertion;
mod cache;
mod client;
mod encoding;
mod error;
mod fingerprint;
mod form;
mod issued_assertion;
mod lineage;
mod policy;
mod request;
mod secret_header;
mod signing_key;
mod source;

pub use answer::Token;
pub use assertion::{AssertionIssuer, KeyNames};
pub use cache::{TokenCache, TokenKey};
pub use error::{NoToken, TokenError};
pub use fingerprint::CredentialsFingerprint;
pub use issued_assertion::{AssertionProvider, IssuedAssertions, NoAssertion};
pub use request::{AuthMethod, ClientProof, Credentials, RequestOutline, TokenRequest};
pub use signing_key::{ClientKey, JwsAlgorithm, KeyFault, KeyType};
pub use source::{Acceptance, TokenSource};
