//! An event: checked once ([`event`]), then put into a request ([`encode`]).

mod encode;
mod event;

pub use encode::{Encoding, encode};
pub use event::{Defaults, Event, InvalidEvent};
