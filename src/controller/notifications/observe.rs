//! What the watches, the registry and the signals of attempts tell the queue.

use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tracing::warn;

use super::{Lane, Notifications};
use crate::{
    api::NotificationReason,
    controller::{
        WATCH_SECONDS,
        attempt::{Signal, Signalled},
        in_namespace,
        index::{News, Uid},
        registry::{Change, Passage},
        unfinished::{PAGE, SELECTOR, Unfinished},
    },
    dispatch::{Gate, LaneKey},
};

/// No `nextAttemptTime` is believed beyond this while its Subscriber is not known: 1.2 × the most that maxSeconds may be.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400 * 12 / 10);

/// One watch: of a namespace, or of all.
pub(super) struct Scope {
    namespace: Option<String>,
    /// The number of its listing under way.
    listing: u64,
    pub(super) synced: bool,
}

impl Scope {
    pub(super) fn new(namespace: Option<String>) -> Self {
        Self { namespace, listing: 0, synced: false }
    }
}

/// A paged list, which is a consistent read, then a watch; begun anew after any error.
pub(super) fn watch(
    client: &Client,
    scope: &Scope,
    number: usize,
) -> impl Stream<Item = (usize, watcher::Result<Event<Unfinished>>)> + Unpin + use<> {
    let api = in_namespace::<Unfinished>(client, scope.namespace.as_deref());
    let config = watcher::Config::default().fields(SELECTOR).page_size(PAGE).timeout(WATCH_SECONDS);
    watcher(api, config).default_backoff().map(move |event| (number, event)).boxed()
}

impl Notifications {
    pub(super) fn observe(&mut self, scope: &mut Scope, event: watcher::Result<Event<Unfinished>>) {
        match event {
            Ok(Event::Init) => scope.listing = self.index.begin_listing(),
            Ok(Event::InitApply(object) | Event::Apply(object)) => self.observe_object(object),
            Ok(Event::InitDone) => {
                let scheduler = &self.scheduler;
                let namespace = scope.namespace.as_deref();
                let gone = self.index.end_listing(scope.listing, namespace, |uid| scheduler.is_in_flight(uid));
                for (uid, expires) in gone {
                    self.scheduler.remove(&uid);
                    self.expiries.set(&uid, expires, None);
                }
                scope.synced = true;
            }
            Ok(Event::Delete(object)) => {
                if let Some(uid) = object.metadata.uid.as_deref() {
                    let uid: Uid = uid.into();
                    self.disarm(&uid);
                    let in_flight = self.scheduler.is_in_flight(&uid);
                    self.index.observe_gone(&uid, object.version(), in_flight);
                    self.scheduler.remove(&uid);
                }
            }
            Err(error) => warn!(%error, "watching Notifications; the watch begins anew"),
        }
    }

    /// New, moved by somebody else, or old news.
    fn observe_object(&mut self, object: Unfinished) {
        let cancelled = object.is_being_deleted();
        let told = gate_told(&object.status.reason);
        let due = self.due(&object);
        if let News::Changed(uid) = self.index.observe(object) {
            if cancelled || self.expiring.contains(&uid) {
                self.disarm(&uid);
                self.scheduler.remove(&uid);
            } else if let Some(entry) = self.index.get(&uid) {
                self.scheduler.add(uid.clone(), entry.lane.clone(), due, told, Instant::now());
                self.arm(&uid);
            }
        }
    }

    /// When the next attempt is due (None: now). A time written by a wrong clock is not trusted past the longest wait.
    pub(super) fn due(&self, object: &Unfinished) -> Option<Instant> {
        let next = object.status.next_attempt_time.as_ref()?.0;
        let wait = Duration::try_from(next.duration_since(Timestamp::now())).ok()?;
        let lane = LaneKey {
            namespace: object.metadata.namespace.as_deref().unwrap_or_default().into(),
            name: object.spec.subscriber_ref.name.as_str().into(),
        };
        let route = self.lanes.get(&lane).and_then(|lane| lane.route.as_ref());
        let longest = route.map_or(LONGEST_WAIT, |route| route.backoff.longest());
        (!wait.is_zero()).then(|| Instant::now() + wait.min(longest))
    }

    /// The registry's word on a Subscriber.
    pub(super) fn change(&mut self, change: Change) {
        let (lane, spec, passage, pause, reset) = match change {
            Change::Passage { lane, spec, passage, pause, reset } => (lane, spec, passage, pause, reset),
            Change::Paused(lane, until) => return self.scheduler.pause(&lane, until),
            Change::Listed(namespace) => {
                self.unlisted.remove(&namespace);
                return;
            }
        };
        if reset {
            self.scheduler.reset(&lane);
        }
        let (known, gate) = match passage {
            Passage::Open(route) => {
                self.scheduler.open(&lane, route.limits);
                (Lane { expire_after: route.expire_after, route: Some(route), spec }, None)
            }
            Passage::Closed(gate, expire_after) => {
                self.scheduler.close(&lane, gate);
                (Lane { route: None, expire_after, spec }, Some(gate))
            }
        };
        if let Some(until) = pause {
            self.scheduler.pause(&lane, until);
        }
        let old = self.lanes.insert(lane.clone(), known);
        if old.as_ref().is_none_or(|old| old.route.is_none()) {
            self.shorten_waits(&lane);
        }
        let lifetime_changed = old.is_none_or(|old| old.expire_after != self.lanes[&lane].expire_after);
        if lifetime_changed || matches!(gate, Some(Gate::EndpointGone | Gate::SubscriberNotFound)) {
            for uid in self.scheduler.ids_of(&lane) {
                self.arm(&uid);
            }
        }
        if gate == Some(Gate::SubscriberNotFound) {
            self.lanes.remove(&lane);
        }
    }

    /// Now that the backoff is known, no wait read before is longer than it allows, whatever clock wrote it.
    fn shorten_waits(&mut self, lane: &LaneKey) {
        let Some(longest) = self.lanes.get(lane).and_then(|lane| lane.route.as_ref()).map(|r| r.backoff.longest())
        else {
            return;
        };
        for uid in self.scheduler.ids_of(lane) {
            let next = self.index.get(&uid).and_then(|entry| entry.next);
            if next.is_some_and(|next| next.duration_since(Timestamp::now()).unsigned_abs() > longest)
                && next > Some(Timestamp::now())
            {
                let now = Instant::now();
                self.scheduler.add(uid, lane.clone(), Some(now + longest), None, now);
            }
        }
    }

    /// What an attempt learned of its Subscriber; of another spec than the present one it says nothing.
    pub(super) fn signal(&mut self, signalled: &Signalled) {
        let Signalled { uid, lane, spec, signal } = signalled;
        let present = self.lanes.get(lane).and_then(|lane| lane.spec.as_ref());
        if present.is_some_and(|present| present != spec) {
            return;
        }
        match *signal {
            Signal::Health(health) => self.scheduler.report(uid, health, Instant::now()),
            Signal::Gone => self.close(lane, Gate::EndpointGone),
        }
    }

    /// Closes a lane before its reconciler does.
    pub(super) fn close(&mut self, lane: &LaneKey, gate: Gate) {
        self.scheduler.close(lane, gate);
        if let Some(known) = self.lanes.get_mut(lane) {
            known.route = None;
        }
    }
}

/// The gate that a Notification's status tells of already.
fn gate_told(reason: &str) -> Option<Gate> {
    GATES.iter().find(|(_, told)| told.as_str() == reason).map(|(gate, _)| *gate)
}

/// Each gate and the reason that tells it.
pub(super) const GATES: [(Gate, NotificationReason); 6] = [
    (Gate::SubscriberNotFound, NotificationReason::SubscriberNotFound),
    (Gate::SubscriberNotReady, NotificationReason::SubscriberNotReady),
    (Gate::Suspended, NotificationReason::Suspended),
    (Gate::EndpointGone, NotificationReason::EndpointGone),
    (Gate::Paused, NotificationReason::Paused),
    (Gate::CircuitOpen, NotificationReason::CircuitOpen),
];
