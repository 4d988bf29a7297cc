//! What several of the checks go by.

use jiff::{SignedDuration, Timestamp};

use crate::record::Record;

/// How much later than it began a POST may arrive, and than it was recorded a version may be seen. A pause or a time
/// counts so much later, and ends so much earlier.
pub(super) const TOLERANCE: SignedDuration = SignedDuration::from_millis(1000);
/// A watch that is half open is found within this: so long a change may go unheard of.
pub(super) const UNHEARD: SignedDuration = SignedDuration::from_secs(60);

/// The latest of these times that something started again, or recovered, for a namespace: `from`, and until `to` a
/// takeover, the end of a stop, of an API server's start, or of a time without rights. From then on all must be heard
/// of within [`UNHEARD`].
pub(super) fn heard_from(record: &Record, subscriber: &str, from: Timestamp, to: Timestamp) -> Timestamp {
    let windows = record.namespaces.get(subscriber).and_then(|namespace| record.barred.get(namespace));
    let ends =
        windows.into_iter().flatten().chain(&record.stops).chain(&record.unready).map(|window| window.to.min(to));
    let times = ends.chain(record.takeovers.iter().copied()).filter(|at| (from..=to).contains(at));
    times.max().unwrap_or(from)
}

/// The Subscriber of a Notification, which is named after it.
pub(super) fn subscriber_of(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(subscriber, _)| subscriber)
}
