//! Access tokens by the OAuth 2.0 client credentials grant (RFC 6749, section 4.4).
//!
//! [`client`] asks the token endpoint once; [`cache`] keeps what it answered, good or bad, and asks again in time.

mod cache;
mod client;

pub use cache::{NoToken, TokenCache, TokenKey, TokenSource};
pub use client::{ClientAuthentication, Credentials, Token, TokenError, TokenRequest};
