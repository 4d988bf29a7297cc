//! What a campaign has seen, from four witnesses: the clients that created, the receiver, etcd, and who made the
//! faults.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use testkit::proxies::Late;

const A_DAY: SignedDuration = SignedDuration::from_hours(24);

/// All of it. Notifications are known by their name, which is their event's id too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// What the API server confirmed to have created, and when.
    pub(crate) accepted: BTreeMap<String, Timestamp>,
    /// The namespace of each Subscriber that has Notifications.
    pub(crate) namespaces: BTreeMap<String, String>,
    /// Objects that other programs delete.
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
    /// What etcd had of each Subscriber's spec, and how far its status had come, in order.
    pub(crate) specs: BTreeMap<String, Vec<Spec>>,
    /// When the operators had no right to a namespace.
    pub(crate) barred: BTreeMap<String, Vec<Window>>,
    /// Who held the Lease, and since when by etcd; no name: the Lease was released.
    pub(crate) holders: Vec<(Timestamp, String)>,
    /// What the API server lists at the end.
    pub(crate) listed: BTreeMap<String, State>,
    /// When an operator began to lead.
    pub(crate) takeovers: Vec<Timestamp>,
    /// From SIGTERM until the operator had exited.
    pub(crate) ends: Vec<Window>,
    /// When an operator was stopped, and continued.
    pub(crate) stops: Vec<Window>,
    /// When the way to the webhooks was bad.
    pub(crate) bad_ways: Vec<Window>,
    /// From when the token service took another client secret alone, until the Secret had it.
    pub(crate) rotations: Vec<Window>,
    /// From the end of an API server until the next one was ready: an API server that is not ready knows no rights.
    pub(crate) unready: Vec<Window>,
    /// The status writes that were held up on their way.
    pub(crate) late: Vec<Late>,
    /// What the API server refused the operators for want of a right, and when.
    pub(crate) forbidden: Vec<(Timestamp, String)>,
    /// The maximum number of concurrent attempts.
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

/// The windows that are still open end now.
pub(crate) fn close(windows: &mut [Window]) {
    windows.iter_mut().for_each(Window::close);
}

/// A POST that arrived at the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Post {
    pub(crate) id: String,
    /// The Subscriber whose webhook it reached, and the path there.
    pub(crate) subscriber: String,
    pub(crate) path: String,
    pub(crate) arrived: Timestamp,
    /// The status of the answer, from when it was handed to the connection; none before, and for a hang or a reset.
    pub(crate) answered: Option<u16>,
}

/// A version of a Subscriber, as far as its spec and the status about that spec go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spec {
    /// When it was seen first: never before it was recorded.
    pub(crate) at: Timestamp,
    pub(crate) generation: i64,
    /// The generation that the status is about.
    pub(crate) observed: i64,
    pub(crate) suspended: bool,
    /// The path of the webhook's URL.
    pub(crate) path: String,
    /// `delivery.expireAfterSeconds`, with the default of the API server.
    pub(crate) lifetime: i64,
    /// The Subscriber was deleted.
    pub(crate) deleted: bool,
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
    /// What its expiry counts from: its replay or its creation. A replay of days ago, or in days, makes it older or
    /// younger.
    pub(crate) began: Option<Timestamp>,
    /// Its own `expireAfterSeconds`.
    pub(crate) own_life: Option<i64>,
}

impl Post {
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.answered.is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether the answer says that the event itself is not wanted.
    pub(crate) fn is_rejected(&self) -> bool {
        matches!(self.answered, Some(400 | 413 | 414 | 415 | 422 | 431))
    }

    /// Whether nothing is to be sent after such an answer.
    pub(crate) fn is_final(&self) -> bool {
        self.is_acknowledged() || self.is_rejected()
    }
}

impl State {
    /// Of a Notification as Kubernetes keeps it.
    pub(crate) fn of(object: &Value) -> Self {
        let status = &object["status"];
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let (created, began) = (time(&object["metadata"]["creationTimestamp"]), time(&status["replayTime"]));
        // Others write a time of days ago, or in days; no campaign takes so long.
        let is_age = |at: &Timestamp| created.is_some_and(|created| at.duration_since(created).abs() > A_DAY);
        Self {
            phase: text("phase"),
            reason: text("reason"),
            attempts: status["attempts"].as_u64().unwrap_or_default(),
            next: time(&status["nextAttemptTime"]),
            replayed: began.filter(|at| !is_age(at)),
            handled: status["lastHandledReplay"].as_str().map(str::to_owned),
            has_ttl: object["spec"]["ttlSecondsAfterFinished"].is_u64(),
            began: began.or(created),
            own_life: object["spec"]["expireAfterSeconds"].as_i64(),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.is_delivered() || self.phase == "Failed"
    }

    pub(crate) fn is_delivered(&self) -> bool {
        self.phase == "Delivered"
    }

    /// When it expires, under a Subscriber whose Notifications live for `lifetime` seconds: its own time always counts,
    /// the Subscriber's only for what was tried.
    pub(crate) fn ends(&self, lifetime: i64) -> Option<Timestamp> {
        let tried = (self.attempts > 0).then_some(lifetime);
        let life = self.own_life.into_iter().chain(tried).min()?;
        self.began?.checked_add(SignedDuration::from_secs(life)).ok()
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

    /// Takes in a version of a Subscriber (None: it was deleted), or of its status, that was seen now.
    pub(crate) fn see_spec(&mut self, name: &str, subscriber: Option<&Value>, now: Timestamp) {
        let specs = self.specs.entry(name.to_owned()).or_default();
        let last = specs.last().cloned().unwrap_or_default();
        let seen = match subscriber {
            None => Spec { deleted: true, ..last.clone() },
            Some(Value::Object(object)) => {
                let (spec, status) = (&object["spec"], object.get("status"));
                let url = spec["webhook"]["url"].as_str().unwrap_or_default();
                let path = url.split('/').skip(3).collect::<Vec<_>>().join("/");
                Spec {
                    at: now,
                    generation: object["metadata"]["generation"].as_i64().unwrap_or_default(),
                    observed: status.and_then(|status| status["observedGeneration"].as_i64()).unwrap_or(-1),
                    suspended: spec["suspend"].as_bool().unwrap_or_default(),
                    path,
                    lifetime: spec["delivery"]["expireAfterSeconds"].as_i64().unwrap_or(A_DAY.as_secs()),
                    deleted: false,
                }
            }
            Some(_) => return,
        };
        if (Spec { at: last.at, ..seen.clone() }) != last {
            specs.push(Spec { at: now, ..seen });
        }
    }

    /// How many seconds the Notifications of a Subscriber live.
    pub(crate) fn lifetime(&self, subscriber: &str) -> i64 {
        let last = self.specs.get(subscriber).and_then(|specs| specs.last());
        last.map_or(A_DAY.as_secs(), |spec| spec.lifetime)
    }

    /// Whether the operators had no right to the namespace of a Subscriber at some time between these.
    pub(crate) fn is_barred(&self, subscriber: &str, from: Timestamp, to: Timestamp) -> bool {
        let windows = self.namespaces.get(subscriber).and_then(|namespace| self.barred.get(namespace));
        windows.is_some_and(|windows| windows.iter().any(|window| window.meets(from, to)))
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
