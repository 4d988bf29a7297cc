//! Events: checks an event once ([`checked`]) and encodes it into a request ([`mod@encode`]).

mod checked;
mod encode;

pub use checked::{CheckedEvent, Defaults, InvalidEvent};
pub(crate) use encode::percent_encoded;
pub use encode::{Encoding, encode};
