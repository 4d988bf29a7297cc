//! An event: checked once ([`checked`]), then put into a request ([`mod@encode`]).

mod checked;
mod encode;

pub use checked::{CheckedEvent, Defaults, InvalidEvent};
pub use encode::{Encoding, encode};
