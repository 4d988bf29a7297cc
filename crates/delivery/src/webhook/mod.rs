//! One delivery over HTTP: sends an event to a [`target`] ([`deliver`]) and judges the response ([`verdict`]). Before
//! the first delivery, the webhook is validated ([`validation`]). Requests may be signed ([`signature`]).

mod deliver;
mod header;
mod rules;
mod signature;
mod target;
mod validation;
mod verdict;

pub use deliver::{Clearance, Delivery, NotCleared, TraceHeaders, Unauthorized};
pub use header::{InvalidHeader, MAX_HEADER_VALUE, MAX_HEADERS, extra_header};
pub use rules::{Consequence, ResponseRules};
pub use signature::{InvalidSigningKey, Signer, SigningKey};
pub use target::{Target, TokenDoubt};
pub use validation::{NoValidationResponse, ValidationResponse, request_validation};
pub use verdict::{Outcome, Verdict};
