//! What a proxy remembers of the requests that went through it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::Method;
use jiff::Timestamp;

/// A request that was held up, once it had reached the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// When it came.
    pub from: Timestamp,
    /// When it went on.
    pub to: Timestamp,
    /// The status of its answer.
    pub status: u16,
}

impl Late {
    /// Whether it was under way at this time.
    #[must_use]
    pub fn spans(&self, at: Timestamp) -> bool {
        self.from < at && at < self.to
    }
}

#[derive(Default)]
pub(super) struct Log {
    /// How many were treated in each way.
    pub(super) treated: Mutex<BTreeMap<&'static str, usize>>,
    /// How many are held up now.
    pub(super) held: Mutex<usize>,
    pub(super) late: Mutex<Vec<Late>>,
    /// What was answered with 403, and when.
    pub(super) forbidden: Mutex<Vec<(Timestamp, String)>>,
}

impl Log {
    pub(super) fn forbidden(&self, method: &Method, path: &str) {
        self.forbidden.lock().unwrap().push((Timestamp::now(), format!("{method} {path}")));
    }

    /// One that was held up since `from` goes on; `status` is what it is answered, if the API server is there.
    pub(super) fn went_on(&self, from: Timestamp, to: Timestamp, status: Option<u16>) {
        *self.held.lock().unwrap() -= 1;
        self.late.lock().unwrap().extend(status.map(|status| Late { from, to, status }));
    }
}
