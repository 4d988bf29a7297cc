//! One delivery over HTTP: an event and a target go in, an outcome comes out ([`deliver`], judged by [`verdict`]).

mod deliver;
mod verdict;

pub use deliver::{Delivery, Target};
pub use verdict::{Outcome, Verdict};
