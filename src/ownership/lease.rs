//! Which process may act for Subscribers: of several operators, the one that holds a Lease (coordination.k8s.io/v1).
//!
//! The leader renews the Lease. A candidate takes the Lease when it is free, or when the candidate has seen it unchanged for
//! the whole life of the Lease, by a clock of its own that never jumps. Each write names the resourceVersion that was read, so
//! that of two candidates one fails. A leader that cannot renew starts nothing more, well before another may take over.

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

use crate::cluster::{
    SingleTry,
    call::{plain, within},
};

/// A Lease that was not renewed for this long may be taken.
const LIFE: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long starts nothing more.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// A leader renews this often, a standby looks this often.
const RENEW_EVERY: Duration = Duration::from_secs(2);
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// Of failures in a row one in this many is logged: one each half a minute.
const LOG_EVERY: u32 = 30;
/// A call to the API server that takes longer has failed.
const CALL: Duration = Duration::from_secs(4);

/// A leader that was cut off, and did not give the Lease back, may have outcomes in hand that it writes when it is back,
/// or that are on their way. For so long after a takeover the next one reckons with them.
const CONTESTED: Duration = Duration::from_secs(60);
/// On a Lease that is given back within that time: the seconds that are left of it, for the next leader.
const CONTESTED_ANNOTATION: &str = "tidings.dev/contested-seconds";

/// Whether this process may act for a Subscriber now. Today one Lease is for all Subscribers; clones share what is known of it.
#[derive(Clone, Debug)]
pub struct Leadership {
    lease_state: watch::Sender<LeaseState>,
    /// Is notified when the Lease is gained or lapses, and not of each renewal.
    changes: watch::Receiver<LeaseState>,
}

/// What this process knows of the Lease: until when it holds the Lease, how often it gained the Lease, and whether the leader before
/// may still be writing. It is the value of a `watch` channel; nothing waits while it is borrowed.
#[derive(Clone, Copy, Debug, Default)]
struct LeaseState {
    /// Nothing may be started after this, whatever else is known (None: the Lease is not held).
    until: Option<Instant>,
    /// Whether the Lease was held when that was last announced.
    is_announced: bool,
    /// How often the Lease was gained.
    epoch: u64,
    contest: Contest,
}

impl LeaseState {
    /// The clock has the last word: a leader that cannot renew, and notices nothing, holds nothing all the same.
    fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn is_contested(&self, now: Instant) -> bool {
        self.contest.until.is_some_and(|until| now < until)
    }

    /// The Lease is held until then. Returns whether it was gained by that, rather than renewed.
    fn renewed(&mut self, until: Instant) -> bool {
        self.until = Some(until);
        let gained = !std::mem::replace(&mut self.is_announced, true);
        self.epoch += u64::from(gained);
        gained
    }

    /// Returns whether the Lease lapsed since that was last announced.
    fn lapsed(&mut self, now: Instant) -> bool {
        !self.holds(now) && std::mem::replace(&mut self.is_announced, false)
    }
}

/// What a leader before may still be writing.
#[derive(Clone, Copy, Debug, Default)]
struct Contest {
    /// Until when it may arrive (None: the Lease was free).
    until: Option<Instant>,
    /// Everything was listed since the Lease was taken.
    is_listed: bool,
}

impl Contest {
    /// What the next leader has to reckon with, if the Lease is given back at `now`.
    fn left(&self, now: Instant) -> Duration {
        match self.until {
            None => Duration::ZERO,
            // What was not listed yet may have been written at any time since.
            Some(_) if !self.is_listed => CONTESTED,
            Some(until) => until.saturating_duration_since(now),
        }
    }
}

impl Leadership {
    /// Of an operator without a Lease, which is alone: it always may act.
    pub fn alone() -> Self {
        let mut lease_state = LeaseState::default();
        lease_state.renewed(Instant::now() + Duration::from_secs(u32::MAX.into()));
        Self::new(&watch::Sender::new(lease_state))
    }

    fn new(lease_state: &watch::Sender<LeaseState>) -> Self {
        Self { lease_state: lease_state.clone(), changes: lease_state.subscribe() }
    }

    /// Of an operator that took the Lease over from one that may still be writing.
    #[cfg(test)]
    pub fn contested() -> Self {
        let alone = Self::alone();
        alone.lease_state.send_modify(|lease_state| lease_state.contest.until = Some(Instant::now() + CONTESTED));
        alone
    }

    /// The term in which this process acts for a Subscriber now (None: it does not). While one Lease is for all, it is
    /// [`Leadership::term_of_all`].
    pub fn term(&self, _of: &SubscriberKey) -> Option<Term> {
        self.term_of_all()
    }

    /// The term in which this process acts for all Subscribers now (None: it does not).
    pub fn term_of_all(&self) -> Option<Term> {
        let (lease_state, now) = (*self.lease_state.borrow(), Instant::now());
        lease_state.holds(now).then(|| Term { epoch: lease_state.epoch, contested: lease_state.is_contested(now) })
    }

    /// Whether this process may act for a Subscriber now.
    pub fn holds(&self, of: &SubscriberKey) -> bool {
        self.term(of).is_some()
    }

    /// All Notifications were listed since this operator leads.
    pub fn all_are_listed(&self) {
        self.lease_state.send_if_modified(|lease_state| {
            lease_state.contest.is_listed = true;
            false
        });
    }

    /// Returns when the Lease was taken, or taken up again after a time in which it could not be renewed.
    pub async fn regained(&mut self) {
        while self.changes.changed().await.is_ok() {
            if self.changes.borrow_and_update().is_announced {
                return;
            }
        }
        std::future::pending().await
    }
}

/// What a candidate does about the Lease as it read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseDecision {
    /// It is not there: make it.
    Create,
    /// It is free: take it.
    Take,
    /// Its holder did not renew it for its whole life: take it over.
    TakeOver,
    /// It is ours.
    Renew,
    /// Somebody else holds it; look again after this, at the latest.
    Wait(Duration),
}

/// What a candidate remembers of the Lease.
#[derive(Debug, Default)]
struct LeaseObservation {
    version: Option<String>,
    since: Option<Instant>,
    /// Whether there was one.
    was_there: bool,
    /// Since when it is missing.
    missing_since: Option<Instant>,
}

impl LeaseObservation {
    /// Decides by what was read at `now`.
    fn judge(&mut self, identity: &str, lease: Option<&Lease>, now: Instant) -> LeaseDecision {
        let Some(lease) = lease else { return self.judge_missing(now) };
        (self.was_there, self.missing_since) = (true, None);
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder == identity {
            return LeaseDecision::Renew;
        }
        if holder.is_empty() {
            return LeaseDecision::Take;
        }
        if self.version != lease.metadata.resource_version {
            self.version.clone_from(&lease.metadata.resource_version);
            self.since = Some(now);
        }
        let life = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        let life = life.map_or(LIFE, Duration::from_secs);
        let left = self.since.map_or(life, |since| (since + life).saturating_duration_since(now));
        if left.is_zero() { LeaseDecision::TakeOver } else { LeaseDecision::Wait(left.min(READ_INTERVAL)) }
    }

    /// A Lease that was deleted may still have a leader, which goes on until it notices the deletion.
    fn judge_missing(&mut self, now: Instant) -> LeaseDecision {
        if !self.was_there {
            return LeaseDecision::Create;
        }
        let left = (*self.missing_since.get_or_insert(now) + LIFE).saturating_duration_since(now);
        if left.is_zero() { LeaseDecision::Create } else { LeaseDecision::Wait(left.min(READ_INTERVAL)) }
    }
}

/// One operator that wants to lead.
pub struct Candidate {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    lease_state: watch::Sender<LeaseState>,
}

impl Candidate {
    /// A candidate for the Lease of this name. No two have one `identity`.
    pub fn new(client: &SingleTry, namespace: &str, name: &str, identity: String) -> Self {
        let (api, lease_state) = (client.namespaced(namespace), watch::Sender::default());
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { api, namespace, name, identity, lease_state }
    }

    /// Whether it leads.
    pub fn leadership(&self) -> Leadership {
        Leadership::new(&self.lease_state)
    }

    /// Stands by until it leads, and leads until it finds the Lease anything but its own: returns who leads then. Others may
    /// have led, and given the Lease back, while this process was cut off or stood still: what it knows is old.
    pub async fn run(&self) -> String {
        let (mut observation, mut led, mut failures) = (LeaseObservation::default(), false, 0_u32);
        loop {
            let began = Instant::now();
            let result = self.step(&mut observation, led).await;
            failures = if result.is_ok() { 0 } else { failures.saturating_add(1) };
            let wait = match result {
                Ok(next) if led && next != LeaseDecision::Renew => return self.holder().await,
                Ok(LeaseDecision::Wait(wait)) => wait,
                Ok(_) => {
                    // Also where the answer to the write that took it was lost, and it is only found to be ours.
                    if !led {
                        info!(lease = self.name, identity = self.identity, "this operator leads");
                    }
                    led = true;
                    self.lease_state.send_if_modified(|lease_state| lease_state.renewed(began + RENEW_DEADLINE));
                    RENEW_EVERY
                }
                // Somebody else was faster; who leads is read again.
                Err(kube::Error::Api(status)) if status.code == 409 => Duration::from_millis(100),
                Err(error) => {
                    if failures % LOG_EVERY == 1 {
                        self.log(&error);
                    }
                    READ_INTERVAL
                }
            };
            self.lease_state.send_if_modified(|lease_state| lease_state.lapsed(Instant::now()));
            tokio::time::sleep(wait).await;
        }
    }

    fn log(&self, error: &kube::Error) {
        let (lease, namespace, why) = (&self.name, &self.namespace, plain(error));
        if matches!(error, kube::Error::Api(status) if status.code == 404) {
            warn!(lease, namespace, %why, "cannot create the Lease: the namespace does not exist; create it, or change --lease-namespace; retrying");
        } else {
            warn!(lease, namespace, %why, "cannot read or write the Lease; retrying");
        }
    }

    /// Gives the Lease back, if it is ours, so that another operator takes over at once.
    pub async fn release(&self) {
        self.lease_state.send_if_modified(|lease_state| {
            lease_state.until = None;
            false
        });
        let released = match self.give_back().await {
            // A renewal that was still on its way.
            Err(kube::Error::Api(status)) if status.code == 409 => self.give_back().await,
            released => released,
        };
        match released {
            Ok(()) => debug!(lease = self.name, "the Lease is given back"),
            Err(error) => {
                warn!(lease = self.name, error = %plain(&error), "the Lease could not be given back; it runs out by itself")
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

    /// Reads the Lease and does about it what is to be done. One that led writes over no Lease but its own.
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
            // Before the write: its answer may be lost.
            self.lease_state.send_if_modified(|lease_state| {
                lease_state.contest = Contest { until: Some(Instant::now() + contested), is_listed: false };
                false
            });
        }
        match (next, &lease) {
            (LeaseDecision::Create, _) => {
                let spec = self.spec(None, &self.identity);
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                within(CALL, self.api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) })).await?;
            }
            (LeaseDecision::Take | LeaseDecision::TakeOver | LeaseDecision::Renew, Some(lease)) => {
                self.replace(lease, &self.identity, Duration::ZERO).await?;
            }
            _ => {}
        }
        Ok(next)
    }

    async fn read(&self) -> Result<Option<Lease>, kube::Error> {
        within(CALL, self.api.get_opt(&self.name)).await
    }

    /// Writes over what was read, and only over that: it carries the resourceVersion. `contested` is what the next leader
    /// has to reckon with.
    async fn replace(&self, read: &Lease, holder: &str, contested: Duration) -> Result<(), kube::Error> {
        let mut metadata = read.metadata.clone();
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.remove(CONTESTED_ANNOTATION);
        if !contested.is_zero() {
            annotations.insert(CONTESTED_ANNOTATION.into(), contested.as_secs().saturating_add(1).to_string());
        }
        let lease = Lease { metadata, spec: Some(self.spec(read.spec.as_ref(), holder)) };
        within(CALL, self.api.replace(&self.name, &PostParams::default(), &lease)).await.map(drop)
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

/// What the leader before hands on with a Lease that it gave back.
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
        // Renewed: its life begins anew, whatever times it names.
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
        assert!(
            matches!(observation.judge("me", None, now), LeaseDecision::Wait(_)),
            "its leader believes in it still"
        );
        assert!(matches!(observation.judge("me", None, now + 14 * SECOND), LeaseDecision::Wait(_)));
        assert_eq!(observation.judge("me", None, now + 15 * SECOND), LeaseDecision::Create);
        observation.judge("me", Some(&lease("other", "2")), now + 15 * SECOND);
        assert!(
            matches!(observation.judge("me", None, now + 16 * SECOND), LeaseDecision::Wait(_)),
            "deleted once more"
        );
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
    fn a_leader_stops_starting_before_anybody_may_take_over() {
        assert!(RENEW_DEADLINE + CALL < LIFE);
        let term = |until| {
            let lease_state = LeaseState { until, is_announced: true, ..LeaseState::default() };
            Leadership::new(&watch::Sender::new(lease_state)).term_of_all()
        };
        assert!(term(Some(Instant::now() + SECOND)).is_some());
        assert_eq!((term(Some(Instant::now())), term(None)), (None, None), "though nothing has announced that");
        assert_eq!(Leadership::alone().term_of_all(), Some(Term { epoch: 1, contested: false }));
    }

    #[test]
    fn a_lease_that_is_gained_again_begins_another_term_and_a_renewal_does_not() {
        let (mut lease_state, now) = (LeaseState::default(), Instant::now());
        assert!(!lease_state.lapsed(now) && lease_state.renewed(now + 10 * SECOND));
        assert!(!lease_state.renewed(now + 12 * SECOND) && !lease_state.lapsed(now + 11 * SECOND));
        assert_eq!(lease_state.epoch, 1);
        assert!(
            lease_state.lapsed(now + 12 * SECOND) && !lease_state.lapsed(now + 13 * SECOND),
            "that is announced once"
        );
        assert!(lease_state.renewed(now + 23 * SECOND));
        assert_eq!(lease_state.epoch, 2);
    }

    #[tokio::test]
    async fn who_waits_for_the_lease_hears_of_its_gain_and_not_of_its_renewals() {
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
