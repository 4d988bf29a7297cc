//! One delivery over HTTP: an event and a [`target`] go in, an outcome comes out ([`deliver`], judged by [`verdict`]); before
//! the first one, the webhook is asked for its consent ([`validation`]).

mod deliver;
mod header;
mod target;
mod validation;
mod verdict;

pub use deliver::{Clearance, Delivery, NotCleared, Unauthorized};
pub use header::{InvalidHeader, MAX_HEADER_VALUE, MAX_HEADERS, extra_header};
pub use target::Target;
pub use validation::{NoValidationResponse, ValidationResponse, request_validation};
pub use verdict::{Outcome, Verdict};
