//! Leader election by a Lease (coordination.k8s.io/v1): only the operator that holds the Lease may act for Subscribers.
//!
//! The leader renews the Lease. A candidate takes the Lease when it is free, or when the candidate has seen it
//! unchanged for the whole lease duration, measured by the candidate's own monotonic clock. Each write names the
//! resourceVersion that was read, so only one of two candidates succeeds. A leader that cannot renew stops starting new
//! work well before another operator may take over.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use tidings_queue::{SubscriberKey, Term};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::lease_observation::{LIFE, LeaseDecision, LeaseObservation, READ_INTERVAL};
use crate::{
    cluster::{
        SingleTry,
        call::{found, plain, within},
    },
    metrics::{LeaseRenewal, Metrics, WriteResult, WrittenKind},
};

/// A leader that could not renew for this long starts no new work.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often a leader renews the Lease.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// One of this many consecutive failures is logged: one every half minute.
const LOG_EVERY: u32 = 30;
/// A request to the API server that takes longer than this has failed.
const CALL: Duration = Duration::from_secs(4);

/// A leader that was cut off and did not release the Lease may still write outcomes later. The next leader allows for
/// such writes for this long after the takeover.
const CONTESTED: Duration = Duration::from_secs(60);
/// The annotation of a Lease that is released within that time: the remaining seconds, for the next leader.
const CONTESTED_ANNOTATION: &str = "tidings.dev/contested-seconds";

/// Whether this process may act for a Subscriber now: one Lease covers all Subscribers. Clones share the state.
#[derive(Clone, Debug)]
pub struct Leadership {
    lease_state: watch::Sender<LeaseState>,
    /// Notifies when the Lease is gained or lapses, but not of each renewal.
    changes: watch::Receiver<LeaseState>,
}

/// What this process knows of the Lease: until when it holds the Lease, how often it gained the Lease, and whether the
/// previous leader may still be writing. This is the value of a `watch` channel; no code waits while it is borrowed.
#[derive(Clone, Copy, Debug, Default)]
struct LeaseState {
    /// No new work may start after this instant (None: the Lease is not held).
    until: Option<Instant>,
    /// Whether the Lease was held at the last notification.
    is_announced: bool,
    /// How many times the Lease was gained.
    epoch: u64,
    contest: Contest,
}

impl LeaseState {
    /// Whether the Lease is held at `now`. A leader that cannot renew loses the Lease by the clock, even if it does not
    /// notice.
    fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn is_contested(&self, now: Instant) -> bool {
        self.contest.until.is_some_and(|until| now < until)
    }

    /// Records that the Lease is held until `until`. Returns whether the Lease was gained rather than renewed.
    fn renewed(&mut self, until: Instant) -> bool {
        self.until = Some(until);
        let gained = !std::mem::replace(&mut self.is_announced, true);
        self.epoch += u64::from(gained);
        gained
    }

    /// Returns whether the Lease lapsed since the last notification.
    fn lapsed(&mut self, now: Instant) -> bool {
        !self.holds(now) && std::mem::replace(&mut self.is_announced, false)
    }
}

/// Whether the previous leader may still be writing.
#[derive(Clone, Copy, Debug, Default)]
struct Contest {
    /// Until when its writes may arrive (None: the Lease was free).
    until: Option<Instant>,
    /// Whether everything was listed since the Lease was taken.
    is_listed: bool,
}

impl Contest {
    /// Returns how long the next leader must allow for such writes, if the Lease is released at `now`.
    fn left(&self, now: Instant) -> Duration {
        match self.until {
            None => Duration::ZERO,
            // Objects that were not listed yet may have been written at any time since.
            Some(_) if !self.is_listed => CONTESTED,
            Some(until) => until.saturating_duration_since(now),
        }
    }
}

impl Leadership {
    /// The leadership of an operator that runs without leader election: it may always act.
    pub fn alone() -> Self {
        let mut lease_state = LeaseState::default();
        lease_state.renewed(Instant::now() + Duration::from_secs(u32::MAX.into()));
        Self::new(&watch::Sender::new(lease_state))
    }

    fn new(lease_state: &watch::Sender<LeaseState>) -> Self {
        Self { lease_state: lease_state.clone(), changes: lease_state.subscribe() }
    }

    /// The leadership of an operator that took the Lease from a leader that may still be writing.
    #[cfg(test)]
    pub fn contested() -> Self {
        let alone = Self::alone();
        alone.lease_state.send_modify(|lease_state| lease_state.contest.until = Some(Instant::now() + CONTESTED));
        alone
    }

    /// Returns the term in which this process acts for a Subscriber now (None: it does not act). While one Lease covers
    /// all Subscribers, this is [`Leadership::term_of_all`].
    pub fn term(&self, _of: &SubscriberKey) -> Option<Term> {
        self.term_of_all()
    }

    /// Returns the term in which this process acts for all Subscribers now (None: it does not act).
    pub fn term_of_all(&self) -> Option<Term> {
        let (lease_state, now) = (*self.lease_state.borrow(), Instant::now());
        lease_state.holds(now).then(|| Term { epoch: lease_state.epoch, contested: lease_state.is_contested(now) })
    }

    /// Whether this process may act for a Subscriber now.
    pub fn holds(&self, of: &SubscriberKey) -> bool {
        self.term(of).is_some()
    }

    /// Records that all Notifications were listed since this operator became the leader.
    pub fn all_are_listed(&self) {
        self.lease_state.send_if_modified(|lease_state| {
            lease_state.contest.is_listed = true;
            false
        });
    }

    /// Returns when the Lease is gained, or gained again after it lapsed.
    pub async fn regained(&mut self) {
        while self.changes.changed().await.is_ok() {
            if self.changes.borrow_and_update().is_announced {
                return;
            }
        }
        std::future::pending().await
    }
}

/// Returns what a step of the leader means for its Lease.
fn renewal(step: &Result<LeaseDecision, kube::Error>) -> LeaseRenewal {
    match step {
        Ok(LeaseDecision::Renew) => LeaseRenewal::Renewed,
        Err(kube::Error::Api(status)) if status.code == 409 => LeaseRenewal::Conflict,
        Ok(_) => LeaseRenewal::Conflict,
        Err(_) => LeaseRenewal::Error,
    }
}

/// One candidate in the leader election.
pub struct Candidate {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    lease_state: watch::Sender<LeaseState>,
    metrics: Metrics,
}

impl Candidate {
    /// Makes a candidate for the Lease with this name. Each candidate needs a unique `identity`.
    pub fn new(client: &SingleTry, namespace: &str, name: &str, identity: String, metrics: Metrics) -> Self {
        let (api, lease_state) = (client.namespaced(namespace), watch::Sender::default());
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { api, namespace, name, identity, lease_state, metrics }
    }

    /// Returns the leadership of this candidate.
    pub fn leadership(&self) -> Leadership {
        Leadership::new(&self.lease_state)
    }

    /// Stands by until this candidate leads, and leads until it no longer holds the Lease. Returns the identity of the
    /// new leader. Other operators may have led and released the Lease while this process was cut off or stopped, so
    /// what this process knows is stale.
    pub async fn run(&self) -> String {
        let (mut observation, mut led, mut failures) = (LeaseObservation::default(), false, 0_u32);
        loop {
            let began = Instant::now();
            let result = self.step(&mut observation, led).await;
            if led {
                self.metrics.lease_renewal(renewal(&result));
            }
            failures = if result.is_ok() { 0 } else { failures.saturating_add(1) };
            let wait = match result {
                Ok(next) if led && next != LeaseDecision::Renew => return self.holder().await,
                Ok(LeaseDecision::Wait(wait)) => wait,
                Ok(_) => {
                    // Also covers a takeover whose response was lost.
                    if !led {
                        info!(lease = self.name, identity = self.identity, "became the leader");
                    }
                    led = true;
                    let renewed = |lease_state: &mut LeaseState| lease_state.renewed(began + RENEW_DEADLINE);
                    if self.lease_state.send_if_modified(renewed) {
                        self.metrics.lease_taken();
                        self.metrics.leading(true);
                    }
                    RENEW_EVERY
                }
                // Another candidate was faster: read again who leads.
                Err(kube::Error::Api(status)) if status.code == 409 => Duration::from_millis(100),
                Err(error) => {
                    if failures % LOG_EVERY == 1 {
                        self.log(&error);
                    }
                    READ_INTERVAL
                }
            };
            if self.lease_state.send_if_modified(|lease_state| lease_state.lapsed(Instant::now())) {
                self.metrics.leading(false);
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn log(&self, error: &kube::Error) {
        let (lease, namespace, error_text) = (&self.name, &self.namespace, plain(error));
        if matches!(error, kube::Error::Api(status) if status.code == 404) {
            warn!(lease, namespace, error = %error_text, "cannot create the Lease: the namespace does not exist; create it, or change --lease-namespace; retrying");
        } else {
            warn!(lease, namespace, error = %error_text, "cannot read or write the Lease; retrying");
        }
    }

    /// Releases the Lease, if this candidate holds it, so that another operator takes over immediately.
    pub async fn release(&self) {
        self.lease_state.send_if_modified(|lease_state| {
            lease_state.until = None;
            false
        });
        let released = match self.give_back().await {
            // A renewal was still in flight.
            Err(kube::Error::Api(status)) if status.code == 409 => self.give_back().await,
            released => released,
        };
        match released {
            Ok(()) => debug!(lease = self.name, "released the Lease"),
            Err(error) => {
                warn!(lease = self.name, error = %plain(&error), "cannot release the Lease; it expires by itself")
            }
        }
    }

    async fn give_back(&self) -> Result<(), kube::Error> {
        let Some(lease) = self.read().await? else { return Ok(()) };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if holder != Some(self.identity.as_str()) {
            return Ok(());
        }
        let left = self.lease_state.borrow().contest.left(Instant::now());
        self.replace(&lease, "", left).await
    }

    /// Reads the Lease and acts on it. A candidate that has led overwrites no Lease except its own.
    async fn step(&self, observation: &mut LeaseObservation, led: bool) -> Result<LeaseDecision, kube::Error> {
        let lease = self.read().await?;
        let next = observation.judge(&self.identity, lease.as_ref(), Instant::now());
        if led && next != LeaseDecision::Renew {
            return Ok(next);
        }
        let contested = match next {
            LeaseDecision::TakeOver => CONTESTED,
            LeaseDecision::Take => lease.as_ref().map_or(Duration::ZERO, handed_on),
            _ => Duration::ZERO,
        };
        if !contested.is_zero() {
            // Before the write, because its response may be lost.
            self.lease_state.send_if_modified(|lease_state| {
                lease_state.contest = Contest { until: Some(Instant::now() + contested), is_listed: false };
                false
            });
        }
        match (next, &lease) {
            (LeaseDecision::Create, _) => {
                let spec = self.spec(None, &self.identity);
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec) };
                self.counted(within(CALL, self.api.create(&PostParams::default(), &lease)).await)?;
            }
            (LeaseDecision::Take | LeaseDecision::TakeOver | LeaseDecision::Renew, Some(lease)) => {
                self.replace(lease, &self.identity, Duration::ZERO).await?;
            }
            _ => {}
        }
        Ok(next)
    }

    async fn read(&self) -> Result<Option<Lease>, kube::Error> {
        found(within(CALL, self.api.get(&self.name)).await)
    }

    /// Replaces the Lease that was read, by its resourceVersion. `contested` is how long the next leader must allow for
    /// late writes.
    async fn replace(&self, read: &Lease, holder: &str, contested: Duration) -> Result<(), kube::Error> {
        let mut metadata = read.metadata.clone();
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.remove(CONTESTED_ANNOTATION);
        if !contested.is_zero() {
            annotations.insert(CONTESTED_ANNOTATION.into(), contested.as_secs().saturating_add(1).to_string());
        }
        let lease = Lease { metadata, spec: Some(self.spec(read.spec.as_ref(), holder)) };
        self.counted(within(CALL, self.api.replace(&self.name, &PostParams::default(), &lease)).await)
    }

    /// Counts a write of the Lease.
    fn counted(&self, written: Result<Lease, kube::Error>) -> Result<(), kube::Error> {
        let result = match &written {
            Ok(_) => WriteResult::Recorded,
            Err(kube::Error::Api(status)) if status.code == 409 => WriteResult::Conflict,
            Err(_) => WriteResult::Error,
        };
        self.metrics.api_write(WrittenKind::Lease, result);
        written.map(drop)
    }

    fn spec(&self, old: Option<&LeaseSpec>, holder: &str) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let is_renewal = old.and_then(|old| old.holder_identity.as_deref()) == Some(holder);
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(LIFE.as_secs()).ok(),
            renew_time: now.clone(),
            acquire_time: if is_renewal { old.and_then(|old| old.acquire_time.clone()) } else { now },
            lease_transitions: Some(if is_renewal { transitions } else { transitions.saturating_add(1) }),
            ..old.cloned().unwrap_or_default()
        }
    }

    async fn holder(&self) -> String {
        let lease = self.read().await.ok().flatten();
        let holder = lease.and_then(|lease| lease.spec?.holder_identity).filter(|holder| !holder.is_empty());
        holder.unwrap_or_else(|| "another operator".into())
    }
}

/// Returns what the previous leader passed on with the Lease that it released.
fn handed_on(lease: &Lease) -> Duration {
    let seconds = lease.metadata.annotations.as_ref().and_then(|all| all.get(CONTESTED_ANNOTATION)?.parse().ok());
    Duration::from_secs(seconds.unwrap_or_default()).min(CONTESTED)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(holder: &str, version: &str) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec) }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_was_seen_unchanged_for_its_whole_life() {
        let (mut observation, now) = (LeaseObservation::default(), Instant::now());
        assert_eq!(observation.judge("me", None, now), LeaseDecision::Create);
        assert_eq!(observation.judge("me", Some(&lease("", "1")), now), LeaseDecision::Take);
        assert_eq!(observation.judge("me", Some(&lease("me", "1")), now), LeaseDecision::Renew);
        assert_eq!(observation.judge("me", Some(&lease("other", "1")), now), LeaseDecision::Wait(SECOND));
        assert!(matches!(
            observation.judge("me", Some(&lease("other", "1")), now + 14 * SECOND),
            LeaseDecision::Wait(_)
        ));
        // Renewed: the lease duration starts again, whatever times the Lease names.
        assert!(matches!(
            observation.judge("me", Some(&lease("other", "2")), now + 14 * SECOND),
            LeaseDecision::Wait(_)
        ));
        assert!(matches!(
            observation.judge("me", Some(&lease("other", "2")), now + 28 * SECOND),
            LeaseDecision::Wait(_)
        ));
        assert_eq!(observation.judge("me", Some(&lease("other", "2")), now + 29 * SECOND), LeaseDecision::TakeOver);
    }

    #[test]
    fn a_lease_that_was_deleted_is_made_again_only_after_its_whole_life() {
        let (mut observation, now) = (LeaseObservation::default(), Instant::now());
        observation.judge("me", Some(&lease("other", "1")), now);
        assert!(matches!(observation.judge("me", None, now), LeaseDecision::Wait(_)), "its leader has not noticed yet");
        assert!(matches!(observation.judge("me", None, now + 14 * SECOND), LeaseDecision::Wait(_)));
        assert_eq!(observation.judge("me", None, now + 15 * SECOND), LeaseDecision::Create);
        observation.judge("me", Some(&lease("other", "2")), now + 15 * SECOND);
        assert!(matches!(observation.judge("me", None, now + 16 * SECOND), LeaseDecision::Wait(_)), "deleted again");
    }

    #[test]
    fn a_contested_lease_is_handed_on_with_what_is_left_and_whole_where_not_all_was_listed() {
        let now = Instant::now();
        let contest = |until, is_listed| Contest { until, is_listed };
        assert_eq!(contest(None, false).left(now), Duration::ZERO);
        assert_eq!(contest(Some(now + 20 * SECOND), true).left(now), 20 * SECOND);
        assert_eq!(contest(Some(now), true).left(now + SECOND), Duration::ZERO);
        assert_eq!(contest(Some(now), false).left(now + SECOND), CONTESTED);
        let mut free = lease("", "1");
        assert_eq!(handed_on(&free), Duration::ZERO);
        for (value, expected) in
            [("21", 21 * SECOND), ("100000", CONTESTED), ("soon", Duration::ZERO), ("-1", Duration::ZERO)]
        {
            free.metadata.annotations = Some([(CONTESTED_ANNOTATION.to_owned(), value.to_owned())].into());
            assert_eq!(handed_on(&free), expected, "{value}");
        }
    }

    #[test]
    fn a_leader_stops_starting_work_before_another_may_take_over() {
        assert!(RENEW_DEADLINE + CALL < LIFE);
        let term = |until| {
            let lease_state = LeaseState { until, is_announced: true, ..LeaseState::default() };
            Leadership::new(&watch::Sender::new(lease_state)).term_of_all()
        };
        assert!(term(Some(Instant::now() + SECOND)).is_some());
        assert_eq!((term(Some(Instant::now())), term(None)), (None, None), "even without a notification");
        assert_eq!(Leadership::alone().term_of_all(), Some(Term { epoch: 1, contested: false }));
    }

    #[test]
    fn a_lease_that_is_gained_again_begins_another_term_and_a_renewal_does_not() {
        let (mut lease_state, now) = (LeaseState::default(), Instant::now());
        assert!(!lease_state.lapsed(now) && lease_state.renewed(now + 10 * SECOND));
        assert!(!lease_state.renewed(now + 12 * SECOND) && !lease_state.lapsed(now + 11 * SECOND));
        assert_eq!(lease_state.epoch, 1);
        assert!(lease_state.lapsed(now + 12 * SECOND) && !lease_state.lapsed(now + 13 * SECOND), "notified once");
        assert!(lease_state.renewed(now + 23 * SECOND));
        assert_eq!(lease_state.epoch, 2);
    }

    #[tokio::test]
    async fn waiting_for_the_lease_ends_when_it_is_gained_and_not_by_renewals() {
        let lease_state = watch::Sender::<LeaseState>::default();
        let mut leadership = Leadership::new(&lease_state);
        let renew = || lease_state.send_if_modified(|lease_state| lease_state.renewed(Instant::now() + SECOND));
        assert!(renew() && !renew());
        leadership.regained().await;
        renew();
        leadership.all_are_listed();
        assert!(leadership.regained().now_or_never().is_none());
    }
}
