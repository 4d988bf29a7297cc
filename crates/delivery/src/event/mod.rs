//! An event: checked once ([`checked`]), then put into a request ([`mod@encode`]).

mod checked;
mod encode;

pub use checked::{Defaults, Event, InvalidEvent};
pub use encode::{Encoding, encode};
