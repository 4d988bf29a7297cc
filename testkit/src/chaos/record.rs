//! What a campaign has seen, from four witnesses: the clients that created, the receiver, etcd, and who made the faults.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::api_proxy::Late;

/// All of it. Notifications are known by their name, which is their event's id too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// What the API server confirmed to have created, and when.
    pub(crate) accepted: BTreeMap<String, Timestamp>,
    /// What somebody else than the operator deletes.
    pub(crate) deleted: BTreeSet<String>,
    /// What other clients set back to Pending.
    pub(crate) set_back: BTreeSet<String>,
    /// Where other clients wrote another number of attempts.
    pub(crate) recounted: BTreeSet<String>,
    /// The value of `tidings.dev/replay` that was set, and when the API server had confirmed that.
    pub(crate) replays: BTreeMap<String, (String, Timestamp)>,
    /// Requests to open what is closed (`tidings.dev/reconcile-requested-at`), by Subscriber: they end a pause.
    pub(crate) openings: BTreeMap<String, Vec<Timestamp>>,
    /// The POSTs that arrived, in their order.
    pub(crate) posts: Vec<Post>,
    /// Every version of each Notification that etcd had, in order.
    pub(crate) changes: BTreeMap<String, Vec<Change>>,
    /// Every value of `pausedUntilTime` that etcd had, by Subscriber, in order.
    pub(crate) pauses: BTreeMap<String, Vec<Pause>>,
    /// Whether each Subscriber's status said that the token service refuses the client, and since when.
    pub(crate) refusals: BTreeMap<String, Vec<(Timestamp, bool)>>,
    /// Who held the Lease, and from when etcd had that; nobody (no name): it was given back.
    pub(crate) holders: Vec<(Timestamp, String)>,
    /// What the API server lists at the end.
    pub(crate) listed: BTreeMap<String, State>,
    /// When an operator began to lead.
    pub(crate) takeovers: Vec<Timestamp>,
    /// When an operator was stopped, and continued.
    pub(crate) stops: Vec<Window>,
    /// When the way to the webhooks was bad.
    pub(crate) bad_ways: Vec<Window>,
    /// From when the token service took another client secret alone, until the Secret had it.
    pub(crate) rotations: Vec<Window>,
    /// From the end of an API server until another was ready: one that is not takes nobody's rights for granted.
    pub(crate) unready: Vec<Window>,
    /// The status writes that were held up on their way.
    pub(crate) late: Vec<Late>,
    /// What the API server refused the operators for want of a right, and when.
    pub(crate) forbidden: Vec<(Timestamp, String)>,
    /// At most so many attempts may be under way at once.
    pub(crate) in_flight: usize,
    /// When the record ended.
    pub(crate) ended: Timestamp,
}

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl Window {
    /// From now on, and not over yet.
    pub(crate) fn open() -> Self {
        Self { from: Timestamp::now(), to: Timestamp::MAX }
    }

    pub(crate) fn meets(&self, from: Timestamp, to: Timestamp) -> bool {
        self.from <= to && from <= self.to
    }

    /// Over by now, if it was not before.
    pub(crate) fn close(&mut self) {
        self.to = self.to.min(Timestamp::now());
    }
}

/// A POST that arrived at the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Post {
    pub(crate) id: String,
    pub(crate) subscriber: String,
    pub(crate) arrived: Timestamp,
    /// The status of the answer, from when it was handed to the connection; none before, and for a hang or a reset.
    pub(crate) answered: Option<u16>,
}

/// A value of a Subscriber's `pausedUntilTime`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pause {
    /// When it was seen first: never before it was recorded.
    pub(crate) since: Timestamp,
    pub(crate) until: Option<Timestamp>,
    /// What `tidings.dev/reconcile-requested-at` said then.
    pub(crate) asked: Option<String>,
    /// The request that the status called handled in the last version with this value.
    pub(crate) handled: Option<String>,
}

/// A version of a Notification, with the time at which it was seen: never before it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) at: Timestamp,
    /// None: it was deleted.
    pub(crate) state: Option<State>,
}

/// What a Notification's status says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) phase: String,
    pub(crate) reason: String,
    pub(crate) attempts: u64,
    pub(crate) next: Option<Timestamp>,
    pub(crate) replayed: Option<Timestamp>,
    pub(crate) handled: Option<String>,
    /// Whether it deletes itself after it is finished.
    pub(crate) has_ttl: bool,
    /// Whether it fails by itself when it is not delivered in time.
    pub(crate) expires: bool,
}

impl Post {
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.answered.is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether the answer redirects.
    pub(crate) fn is_redirected(&self) -> bool {
        self.answered.is_some_and(|status| (300..400).contains(&status))
    }

    /// Whether the answer says that the event itself is not wanted.
    pub(crate) fn is_rejected(&self) -> bool {
        matches!(self.answered, Some(400 | 405 | 413 | 414 | 415 | 422 | 431))
    }

    /// Whether nothing is to be sent after such an answer.
    pub(crate) fn is_final(&self) -> bool {
        self.is_acknowledged() || self.is_redirected() || self.is_rejected()
    }
}

impl State {
    /// Of a Notification as Kubernetes keeps it.
    pub(crate) fn of(object: &Value) -> Self {
        let status = &object["status"];
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        Self {
            phase: text("phase"),
            reason: text("reason"),
            attempts: status["attempts"].as_u64().unwrap_or_default(),
            next: time(&status["nextAttemptTime"]),
            replayed: time(&status["replayTime"]),
            handled: status["lastHandledReplay"].as_str().map(str::to_owned),
            has_ttl: object["spec"]["ttlSecondsAfterFinished"].is_u64(),
            expires: object["spec"]["expireAfterSeconds"].is_u64(),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.is_delivered() || self.phase == "Failed"
    }

    pub(crate) fn is_delivered(&self) -> bool {
        self.phase == "Delivered"
    }

    /// Whether this is a later life of the same Notification than `before`: a replay lies between.
    pub(crate) fn is_replay_of(&self, before: &Self) -> bool {
        self.replayed > before.replayed
    }
}

impl Record {
    /// Takes in a version of a Subscriber that was seen now.
    pub(crate) fn see_subscriber(&mut self, name: &str, subscriber: &Value, now: Timestamp) {
        let status = &subscriber["status"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (until, handled) = (time(&status["pausedUntilTime"]), text(&status["lastHandledRequest"]));
        let pauses = self.pauses.entry(name.to_owned()).or_default();
        match pauses.last_mut().filter(|last| last.until == until) {
            Some(last) => last.handled = handled,
            None => {
                let asked = text(&subscriber["metadata"]["annotations"]["tidings.dev/reconcile-requested-at"]);
                pauses.push(Pause { since: now, until, asked, handled });
            }
        }
        let conditions = status["conditions"].as_array().map_or(&[][..], |conditions| conditions);
        let refused = conditions.iter().any(|c| c["type"] == "TokenAvailable" && c["reason"] == "TokenRejected");
        let refusals = self.refusals.entry(name.to_owned()).or_default();
        if refusals.last().is_none_or(|(_, last)| *last != refused) {
            refusals.push((now, refused));
        }
    }

    /// Takes in a version of the Lease that was seen now.
    pub(crate) fn see_holder(&mut self, holder: String, now: Timestamp) {
        if self.holders.last().is_none_or(|(_, last)| *last != holder) {
            self.holders.push((now, holder));
        }
    }
}

/// A time as Kubernetes writes it.
pub(crate) fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}
