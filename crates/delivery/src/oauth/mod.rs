//! Access tokens by the OAuth 2.0 client credentials grant (RFC 6749, section 4.4).
//!
//! [`client`] asks the token endpoint once with a [`request`]: [`form`] is what it sends, [`answer`] how it reads what
//! comes back (both pure). [`policy`] says when to ask, to serve and to refuse (pure); [`source`] does so for one key, with one request
//! under way at most; [`cache`] keeps one source for each key.

mod answer;
mod cache;
mod client;
mod error;
mod form;
mod policy;
mod request;
mod secret_header;
mod source;

pub use answer::Token;
pub use cache::{TokenCache, TokenKey};
pub use error::{NoToken, TokenError};
pub use request::{AuthMethod, Credentials, TokenRequest};
pub use source::TokenSource;
