//! The findings of the checker, and how they are reported.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

/// What the checker found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) created: usize,
    pub(crate) delivered: usize,
    /// By reason.
    pub(crate) failed: BTreeMap<String, usize>,
    /// Deleted by others before they were finished.
    pub(crate) deleted: usize,
    pub(crate) posts: usize,
    pub(crate) repeats: BTreeMap<Cause, usize>,
    pub(crate) replays: usize,
    pub(crate) pauses: usize,
    pub(crate) takeovers: usize,
    /// Changes of the Lease's holder after it was given back, and after it ran out.
    pub(crate) given_back: usize,
    pub(crate) ran_out: usize,
    /// Status writes that arrived after another operator led, and how many of them the API server accepted.
    pub(crate) outlived: usize,
    pub(crate) outlived_taken: usize,
    pub(crate) rotations: usize,
    /// How many times a Subscriber reported that its client is refused, and how many times that ended without a
    /// request.
    pub(crate) refused: usize,
    pub(crate) taken_up: usize,
    /// The most that a takeover had repeated.
    pub(crate) most_after_takeover: usize,
    /// POSTs at a wrong time or without a cause that a stop had caught in the middle.
    pub(crate) midway: usize,
    /// The longest that an operator took to end, in seconds.
    pub(crate) longest_end: usize,
    /// Notifications that expired without a POST.
    pub(crate) expired_unsent: usize,
    /// Notifications that others changed to be days older or younger.
    pub(crate) aged: usize,
    /// Generations of Subscribers after their first.
    pub(crate) respecified: usize,
    pub(crate) violations: Vec<Violation>,
}

/// Why an event was sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The webhook answered with something else than 2xx.
    Refused,
    /// The webhook answered nothing: it reset, hung, or its client was gone.
    Unanswered,
    /// The label requested it.
    Replay,
    /// Another client had set it back to Pending.
    SetBack,
    /// Another client had written a number of attempts: an outcome other than success gives way to that.
    GaveWay,
    /// The answer was lost on a bad way.
    AnswerLost,
    /// The operator was stopped when the answer came.
    OperatorStopped,
    /// The operators had no right to record the outcome.
    Barred,
    /// Another operator followed, which did not know of the POST: its outcome was not written yet.
    Takeover,
}

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Accepted, and neither Delivered nor Failed nor deleted by others.
    Lost {
        id: String,
        state: String,
    },
    /// Failed without a reason, or with a reason that no response supports.
    NoReason {
        id: String,
        reason: String,
    },
    /// Delivered, and the webhook never said so.
    NeverAcknowledged {
        id: String,
    },
    /// A requested replay was not done.
    ReplayLost {
        id: String,
    },
    /// Delivered and later no longer Delivered, without a request.
    Undone {
        id: String,
        at: Timestamp,
    },
    PostInPause {
        id: String,
        at: Timestamp,
        until: Timestamp,
    },
    PostAfterDelivered {
        id: String,
        at: Timestamp,
        delivered: Timestamp,
    },
    PostAfterFailed {
        id: String,
        at: Timestamp,
        failed: Timestamp,
    },
    PostBeforeTime {
        id: String,
        at: Timestamp,
        next: Timestamp,
    },
    /// Sent when its deletion must have been seen.
    PostAfterDeletion {
        id: String,
        at: Timestamp,
        deleted: Timestamp,
    },
    /// Sent after its own time, or its Subscriber's, was over.
    PostAfterExpiry {
        id: String,
        at: Timestamp,
        ended: Timestamp,
    },
    /// Failed as `Expired` before that.
    ExpiredEarly {
        id: String,
        at: Timestamp,
        ends: Option<Timestamp>,
    },
    /// Sent by a spec that had been replaced long before, or while the Subscriber was suspended.
    PostByOldSpec {
        id: String,
        at: Timestamp,
        path: String,
    },
    /// A change of a Subscriber's spec did not reach its status.
    NotTakenUp {
        subscriber: String,
        generation: i64,
        since: Timestamp,
        until: Timestamp,
    },
    /// Finished, and not deleted when its time to live was over.
    Kept {
        id: String,
        finished: Timestamp,
    },
    /// A recorded pause became shorter, or vanished, before its end.
    PauseCutShort {
        subscriber: String,
        until: Timestamp,
        at: Timestamp,
        now: Option<Timestamp>,
    },
    /// A POST of an event that was never created, or to another Subscriber's webhook.
    Stray {
        id: String,
        subscriber: String,
    },
    Unexplained {
        id: String,
        at: Timestamp,
        before: Timestamp,
    },
    /// Repeated although the previous leader had released the Lease, and so had written every outcome.
    RepeatedAfterRelease {
        id: String,
        at: Timestamp,
        before: Timestamp,
    },
    /// The Secret has a new client secret, and the Subscriber still uses the old one.
    StillRefused {
        subscriber: String,
        since: Timestamp,
        until: Timestamp,
    },
    /// The chart's Role does not permit what the operator does.
    Forbidden {
        request: String,
        at: Timestamp,
    },
    /// After SIGTERM, an operator took long to exit while it held the Lease.
    SlowEnd {
        signalled: Timestamp,
        ended: Timestamp,
    },
    /// A takeover had more repeated than could have been under way.
    TooManyRepeats {
        takeover: Timestamp,
        repeats: usize,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "after a response other than 2xx",
            Self::Unanswered => "after no response",
            Self::Replay => "replay",
            Self::SetBack => "set back to Pending by another client",
            Self::GaveWay => "the outcome gave way to what another client wrote",
            Self::AnswerLost => "the answer was lost on a bad way",
            Self::OperatorStopped => "the operator was stopped when the response came",
            Self::Barred => "the operators had no right to write the outcome",
            Self::Takeover => "takeover before the outcome was written",
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { id, state } => write!(f, "{id} is lost: {state}"),
            Self::NoReason { id, reason } => write!(f, "{id} failed: {reason:?}, which no answer bears out"),
            Self::NeverAcknowledged { id } => write!(f, "{id} is Delivered, but no POST of it was answered with 2xx"),
            Self::ReplayLost { id } => write!(f, "the replay of {id} was not done"),
            Self::Undone { id, at } => write!(f, "{id} was Delivered and, at {at}, not any more"),
            Self::PostInPause { id, at, until } => write!(f, "{id} was sent at {at}, in a pause until {until}"),
            Self::PostAfterDelivered { id, at, delivered } => {
                write!(f, "{id} was sent at {at}, recorded as Delivered since {delivered}")
            }
            Self::PostAfterFailed { id, at, failed } => {
                write!(f, "{id} was sent at {at}, recorded as Failed since {failed}")
            }
            Self::PostBeforeTime { id, at, next } => write!(f, "{id} was sent at {at}, due at {next}"),
            Self::PostAfterDeletion { id, at, deleted } => write!(f, "{id} was sent at {at}, deleted at {deleted}"),
            Self::PostAfterExpiry { id, at, ended } => write!(f, "{id} was sent at {at}, expired at {ended}"),
            Self::ExpiredEarly { id, at, ends } => {
                let ends = ends.map_or_else(|| "never".to_owned(), |ends| format!("at {ends}"));
                write!(f, "{id} was Failed with Expired at {at}, and expires {ends}")
            }
            Self::PostByOldSpec { id, at, path } => {
                write!(f, "{id} was sent at {at} to /{path}, by a spec that was replaced long before")
            }
            Self::NotTakenUp { subscriber, generation, since, until } => {
                write!(
                    f,
                    "generation {generation} of {subscriber}, there since {since}, was not taken up until {until}"
                )
            }
            Self::Kept { id, finished } => write!(f, "{id} is finished since {finished}, and not deleted"),
            Self::PauseCutShort { subscriber, until, at, now } => {
                let now = now.map_or_else(|| "none".to_owned(), |now| format!("one until {now}"));
                write!(f, "the pause of {subscriber} until {until} was {now} from {at} on")
            }
            Self::Stray { id, subscriber } => write!(f, "{id} arrived at {subscriber}, where it does not belong"),
            Self::Unexplained { id, at, before } => write!(f, "{id} was sent at {at}, and at {before} with success"),
            Self::RepeatedAfterRelease { id, at, before } => {
                write!(f, "{id} was sent at {at}, and at {before} by an operator that released the Lease later")
            }
            Self::StillRefused { subscriber, since, until } => {
                write!(f, "{subscriber} did not find its new client secret, there since {since}, until {until}")
            }
            Self::Forbidden { request, at } => write!(f, "{request}: the operator has no right to it, at {at}"),
            Self::SlowEnd { signalled, ended } => {
                write!(f, "an operator received SIGTERM at {signalled} and exited at {ended}")
            }
            Self::TooManyRepeats { takeover, repeats } => {
                write!(f, "the takeover at {takeover} had {repeats} events repeated")
            }
        }
    }
}
