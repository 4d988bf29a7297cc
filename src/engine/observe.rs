//! What the watches, the Subscribers' side and the signals of attempts tell the queue.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use tidings_api::NotificationReason;
use tidings_queue::{Gate, SpecVersion, SubscriberKey};
use tracing::warn;

use super::{
    Notifications,
    attempt::{Signal, Signalled},
    expiry::MISSING_FOR,
    index::{News, Uid},
};
use crate::{
    cluster::call::plain,
    contract::{Route, Update},
    notifications::wire::Unfinished,
};

/// No `nextAttemptTime` is believed beyond this while its Subscriber is not known: 1.2 × the most that maxSeconds may be.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400 * 12 / 10);

impl Notifications {
    /// What the watch of the scope with this number shows.
    pub(super) fn observe(&mut self, number: usize, event: Result<Event<Unfinished>, kube::Error>) {
        let Some(scope) = self.scopes.numbered(number) else { return };
        match event {
            Ok(Event::Init) => {
                scope.listing = self.index.begin_listing();
                scope.listing_since = Some(Instant::now());
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => self.observe_object(object),
            Ok(Event::InitDone) => {
                scope.is_listed(Instant::now());
                let (scheduler, namespace) = (&self.scheduler, scope.namespace.as_deref());
                let gone = self.index.end_listing(scope.listing, namespace, |uid| scheduler.is_in_flight(uid));
                for (uid, expires) in gone {
                    self.scheduler.remove(&uid);
                    self.expiries.set(&uid, expires, None);
                }
            }
            Ok(Event::Delete(object)) => {
                if let Some(uid) = object.metadata.uid.as_deref() {
                    self.observe_gone(&uid.into(), object.version());
                }
            }
            Err(error) => {
                scope.failed(Instant::now());
                let namespace = scope.namespace.as_deref().unwrap_or("(all)");
                if matches!(&error, kube::Error::Api(status) if matches!(status.code, 403 | 404)) {
                    scope.is_refused = true;
                    warn!(namespace, error = %plain(&error), "cannot list Notifications; grant the operator its Role there, or remove the namespace from --watch-namespace; retrying");
                } else {
                    warn!(namespace, error = %plain(&error), "watching Notifications failed; retrying");
                }
            }
        }
    }

    /// Finished, or deleted.
    fn observe_gone(&mut self, uid: &Uid, version: u64) {
        let in_flight = self.scheduler.is_in_flight(uid);
        if in_flight || self.index.get(uid).is_none_or(|entry| entry.version <= version) {
            self.revoke(uid);
            self.disarm(uid);
            self.scheduler.remove(uid);
        }
        self.index.observe_gone(uid, version, in_flight);
    }

    /// What an attempt at it has not sent yet, it does not send.
    fn revoke(&self, uid: &Uid) {
        if let Some(entry) = self.index.get(uid) {
            self.permits.revoke(&entry.lane, uid);
        }
    }

    /// New, moved by somebody else, or old news.
    fn observe_object(&mut self, object: Unfinished) {
        let cancelled = object.is_being_deleted();
        let told = gate_told(&object.status.reason);
        let due = self.due(&object);
        let known = object.metadata.uid.as_deref().and_then(|uid| self.index.get(uid));
        let is_replayed = known.is_some_and(|known| known.began != object.began());
        if let News::Changed(uid) = self.index.observe(object) {
            if cancelled || self.expiring.contains(&uid) {
                if cancelled {
                    self.revoke(&uid);
                }
                self.disarm(&uid);
                self.scheduler.remove(&uid);
            } else if let Some(entry) = self.index.get(&uid) {
                let (lane, bytes) = (entry.lane.clone(), entry.bytes as usize);
                if !self.lanes.contains_key(&lane) && self.subscribers_since(&lane).is_none() {
                    // Whether there is such a Subscriber is not known yet.
                    self.scheduler.close(&lane, Gate::SubscriberNotReady);
                }
                if is_replayed {
                    // The replay took its reason away: it is explained once more.
                    self.scheduler.remove(&uid);
                }
                self.scheduler.add(uid.clone(), lane, due, told, bytes, Instant::now());
                self.arm(&uid);
            }
        }
    }

    /// When the next attempt is due (None: now). A time written by a wrong clock is not trusted past the longest wait.
    pub(super) fn due(&self, object: &Unfinished) -> Option<Instant> {
        let next = object.status.next_attempt_time.as_ref()?.0;
        let wait = Duration::try_from(next.duration_since(Timestamp::now())).ok()?;
        let lane = SubscriberKey {
            namespace: object.metadata.namespace.as_deref().unwrap_or_default().into(),
            name: object.spec.subscriber_ref.name.as_str().into(),
        };
        let route = self.lanes.get(&lane).and_then(|lane| lane.route());
        let longest = route.map_or(LONGEST_WAIT, |route| route.backoff.longest());
        (!wait.is_zero()).then(|| Instant::now() + wait.min(longest))
    }

    /// Since when all Subscribers in its namespace are known.
    pub(super) fn subscribers_since(&self, lane: &SubscriberKey) -> Option<Timestamp> {
        self.scopes.of(&lane.namespace).and_then(|scope| scope.subscribers_since)
    }

    /// News of a Subscriber.
    pub(super) fn update(&mut self, update: Update) {
        match update {
            Update::Open { of, route, .. } => self.open(of, route),
            Update::Closed { of, version, gate, lifetime } => self.close(of, version, gate, lifetime),
            Update::Paused { of, until } => self.pause(&of, until),
            Update::Reset { of } => {
                self.scheduler.reset(&of);
                if let Some(lane) = self.lanes.get_mut(&of) {
                    lane.reset();
                }
            }
            Update::Listed(namespace) => self.subscribers_are_known(namespace.as_deref()),
            // The leadership itself is asked.
            Update::Owned(_) => {}
        }
    }

    fn open(&mut self, of: SubscriberKey, route: Arc<Route>) {
        let lane = self.lanes.entry(of.clone()).or_default();
        let (before, known) = (lane.longest_wait(), lane.lifetime());
        let (limits, longest, lifetime) = (route.limits, route.backoff.longest(), route.expire_after);
        let is_another = lane.version() != Some(&route.version);
        let is_gone = !lane.open(route);
        if is_gone {
            self.scheduler.close(&of, Gate::EndpointGone);
        } else {
            self.scheduler.open(&of, limits);
        }
        if is_another {
            self.permits.revoke_all(&of);
        }
        self.missing.remove(&of);
        if before.is_none_or(|before| longest < before) {
            self.shorten_waits(&of, longest);
        }
        if is_gone || known != Some(lifetime) {
            self.arm_all(&of);
        }
    }

    fn close(&mut self, of: SubscriberKey, version: Option<SpecVersion>, gate: Gate, lifetime: Option<Duration>) {
        self.scheduler.close(&of, gate);
        self.permits.revoke_all(&of);
        if gate == Gate::SubscriberNotFound {
            self.lanes.remove(&of);
            self.is_missing(of.clone());
            return self.arm_all(&of);
        }
        self.missing.remove(&of);
        let is_new = !self.lanes.contains_key(&of);
        let lane = self.lanes.entry(of.clone()).or_default();
        let known = lane.lifetime();
        lane.close(version, lifetime);
        if is_new || known != lifetime || gate == Gate::EndpointGone {
            self.arm_all(&of);
        }
    }

    fn pause(&mut self, of: &SubscriberKey, until: Instant) {
        self.scheduler.pause(of, until);
        self.permits.revoke_all(of);
    }

    /// A Notification that names a Subscriber of this scope that was not listed names a missing Subscriber.
    fn subscribers_are_known(&mut self, namespace: Option<&str>) {
        self.scopes.subscribers_are_known(namespace, Timestamp::now());
        let in_scope = |lane: &SubscriberKey| namespace.is_none_or(|namespace| namespace == &*lane.namespace);
        for lane in self.scheduler.lane_keys() {
            if in_scope(&lane) && !self.lanes.contains_key(&lane) {
                self.scheduler.close(&lane, Gate::SubscriberNotFound);
                self.arm_all(&lane);
            }
        }
    }

    /// The Subscriber is missing from now on.
    fn is_missing(&mut self, lane: SubscriberKey) {
        let now = Timestamp::now();
        // Swept when it has doubled, not with each deletion.
        if self.missing.len().is_power_of_two() {
            self.missing
                .retain(|_, since| Duration::try_from(now.duration_since(*since)).is_ok_and(|age| age < MISSING_FOR));
        }
        self.missing.insert(lane, now);
    }

    fn arm_all(&mut self, lane: &SubscriberKey) {
        for uid in self.scheduler.ids_of(lane) {
            self.arm(&uid);
        }
    }

    /// Now that the backoff is known, no wait read before is longer than it allows, whatever clock wrote it.
    fn shorten_waits(&mut self, lane: &SubscriberKey, longest: Duration) {
        let clock = Timestamp::now();
        for uid in self.scheduler.ids_of(lane) {
            let Some(entry) = self.index.get(&uid) else { continue };
            let wait = entry.next.and_then(|next| Duration::try_from(next.duration_since(clock)).ok());
            if wait.is_some_and(|wait| wait > longest) {
                let (now, bytes) = (Instant::now(), entry.bytes as usize);
                self.scheduler.add(uid, lane.clone(), Some(now + longest), None, bytes, now);
            }
        }
    }

    /// What an attempt learned of its Subscriber; of another spec than the present one it says nothing.
    pub(super) fn signal(&mut self, Signalled { uid, lane: of, version, signal }: Signalled) {
        let Some(lane) = self.lanes.get_mut(&of).filter(|lane| version.concerns(lane.version())) else { return };
        match signal {
            Signal::Health(health) => self.scheduler.report(&uid, health, Instant::now()),
            Signal::Paused(until) => self.pause(&of, until),
            Signal::Gone => {
                lane.is_gone(version);
                self.hold(&of, Gate::EndpointGone);
            }
        }
    }

    /// Closes a lane before its reconciler does.
    pub(super) fn hold(&mut self, of: &SubscriberKey, gate: Gate) {
        self.scheduler.close(of, gate);
        self.permits.revoke_all(of);
        if let Some(lane) = self.lanes.get_mut(of) {
            lane.hold();
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
