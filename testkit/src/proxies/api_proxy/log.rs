//! Records the requests that pass through the proxy.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::Method;
use jiff::Timestamp;

/// A request that was delayed and has reached the API server ([`Treatment::Late`](super::Treatment::Late)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// When it arrived at the proxy.
    pub from: Timestamp,
    /// When the proxy passed it on.
    pub to: Timestamp,
    /// The status of its response.
    pub status: u16,
}

impl Late {
    /// Whether the proxy was holding the request at this time.
    #[must_use]
    pub fn spans(&self, at: Timestamp) -> bool {
        self.from < at && at < self.to
    }
}

#[derive(Default)]
pub(super) struct Log {
    /// The number of requests by treatment.
    pub(super) treated: Mutex<BTreeMap<&'static str, usize>>,
    /// The number of requests that are being held.
    pub(super) held: Mutex<usize>,
    pub(super) late: Mutex<Vec<Late>>,
    /// The requests that were answered with 403, and when.
    pub(super) forbidden: Mutex<Vec<(Timestamp, String)>>,
}

impl Log {
    pub(super) fn forbidden(&self, method: &Method, path: &str) {
        self.forbidden.lock().unwrap().push((Timestamp::now(), format!("{method} {path}")));
    }

    /// Records that a request that was held since `from` was passed on. `status` is the status of the response, if the
    /// API server responded.
    pub(super) fn went_on(&self, from: Timestamp, to: Timestamp, status: Option<u16>) {
        *self.held.lock().unwrap() -= 1;
        self.late.lock().unwrap().extend(status.map(|status| Late { from, to, status }));
    }
}
