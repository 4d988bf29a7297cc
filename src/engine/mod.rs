//! The queue: watch events, passages and signals go in, attempts come out, what they wrote goes back into the queue.
//!
//! [`observe`] takes in what the watches show, [`settle`] what attempts report; [`timers`] writes what time alone brings:
//! expiries, and the courtesy of saying why a Notification waits.

pub mod attempt;
mod census;
pub mod clearance;
mod event_memory;
mod expiry;
pub mod index;
mod observe;
mod scopes;
mod settle;
mod timers;

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tidings_queue::{Scheduler, SpecVersion, SubscriberKey};
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tracing::info;

use self::{
    attempt::{Attempts, Job, Signalled},
    clearance::Permit,
    expiry::Expiries,
    index::{Index, Uid},
    scopes::Scopes,
    settle::Done,
};
use crate::{
    metrics::Metrics,
    notifications::watch,
    subscribers::{
        CENSUS, Census, Counted,
        registry::{Change, Registry},
        resolve::Route,
    },
};

/// Owns the queue of unfinished Notifications.
pub struct Notifications {
    attempts: Arc<Attempts>,
    registry: Arc<Registry>,
    metrics: Metrics,
    index: Index,
    scheduler: Scheduler<Uid>,
    lanes: HashMap<SubscriberKey, Lane>,
    expiries: Expiries,
    /// Those whose expiry is being written.
    expiring: HashSet<Uid>,
    /// When Subscribers that are missing were deleted, for the first hour after it.
    missing: HashMap<SubscriberKey, Timestamp>,
    /// What the queue has to say to attempts under way.
    permits: HashMap<Uid, Arc<Permit>>,
    scopes: Scopes,
    running: JoinSet<(Uid, Done)>,
    /// The last census that was sent, by lane and uid.
    counted: HashMap<SubscriberKey, (Arc<str>, Census)>,
    /// Lanes that changed before they could be counted.
    uncounted: HashSet<SubscriberKey>,
}

/// What the queue knows of a Subscriber.
struct Lane {
    /// The way, while it is open.
    route: Option<Arc<Route>>,
    /// The longest wait of the last route: no wait that is read is longer.
    longest_wait: Option<Duration>,
    /// After what time those that may expire do so (None: that is not known).
    expire_after: Option<Duration>,
    /// Which spec was looked at last (None: none yet).
    spec: Option<SpecVersion>,
}

/// What the queue listens to.
pub struct Inputs {
    /// From the registry.
    pub changes: mpsc::UnboundedReceiver<Change>,
    /// From attempts.
    pub signals: mpsc::UnboundedReceiver<Signalled>,
    /// Where the queue tells how it stands.
    pub census: mpsc::UnboundedSender<Vec<Counted>>,
}

impl Notifications {
    /// An empty queue for these namespaces (None: all). At most `max_in_flight` attempts are under way at once. Of
    /// `event_bytes`, half is for the events that are being sent, and half for untried ones that are kept in memory; the
    /// others are read again when their turn comes.
    pub fn new(
        attempts: Attempts,
        registry: Arc<Registry>,
        metrics: Metrics,
        namespaces: &[Option<String>],
        max_in_flight: usize,
        event_bytes: usize,
    ) -> Self {
        let by_namespace = namespaces.iter().any(Option::is_some);
        // What is left of an outcome of a leader before is asked about when the queue begins.
        let scopes = Scopes::new(namespaces, attempts.leadership.is_contested());
        Self {
            attempts: Arc::new(attempts),
            registry,
            metrics,
            index: Index::new(event_bytes / 2, by_namespace),
            scheduler: Scheduler::new(max_in_flight, event_bytes / 2),
            lanes: HashMap::new(),
            expiries: Expiries::default(),
            expiring: HashSet::new(),
            missing: HashMap::new(),
            permits: HashMap::new(),
            scopes,
            running: JoinSet::new(),
            counted: HashMap::new(),
            uncounted: HashSet::new(),
        }
    }

    /// Works until `shutdown`, then lets what is in flight end and be written. `synced` is called once every
    /// unfinished Notification is known.
    pub async fn run(
        mut self,
        client: &Client,
        namespaces: &[Option<String>],
        mut inputs: Inputs,
        synced: impl FnOnce(),
        shutdown: impl Future<Output = ()>,
    ) {
        let pages = watch::pages();
        let watches = namespaces.iter().enumerate().map(|(number, namespace)| {
            watch::watch(client, namespace.as_deref(), pages.clone()).map(move |event| (number, event)).boxed()
        });
        let mut events = stream::select_all(watches);
        let mut synced = Some(synced);
        let mut shutdown = pin!(shutdown);
        let mut counts = tokio::time::interval(CENSUS);
        counts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leadership = self.attempts.leadership.clone();
        loop {
            let leads = leadership.holds();
            if leads {
                self.start_due();
                self.write_due();
            }
            self.metrics.queue(self.index.len(), self.scheduler.in_flight());
            let wake = if leads { self.wake_at() } else { None };
            tokio::select! {
                Some((scope, event)) = events.next() => {
                    self.observe(scope, event);
                    if synced.is_some() && self.scopes.are_synced() && let Some(synced) = synced.take() {
                        info!(unfinished = self.index.len(), "every unfinished Notification is known");
                        self.attempts.leadership.all_are_listed();
                        synced();
                    }
                }
                Some(change) = inputs.changes.recv() => self.change(change),
                Some(signalled) = inputs.signals.recv() => self.signal(&signalled),
                Some(done) = self.running.join_next() => {
                    // What an attempt signalled comes before its end.
                    while let Ok(change) = inputs.changes.try_recv() {
                        self.change(change);
                    }
                    while let Ok(signalled) = inputs.signals.try_recv() {
                        self.signal(&signalled);
                    }
                    self.settle(done);
                }
                _ = counts.tick() => {
                    let changed = self.census();
                    if !changed.is_empty() {
                        let _ = inputs.census.send(changed);
                    }
                }
                () = leadership.regained() => {}
                () = until(wake) => {}
                () = &mut shutdown => break,
            }
        }
        info!(in_flight = self.running.len(), "shutting down: nothing new starts, what is in flight ends");
        while let Some(done) = self.running.join_next().await {
            self.settle(done);
        }
    }

    fn start_due(&mut self) {
        while let Some(uid) = self.scheduler.next(Instant::now()) {
            let Some(job) = self.job(&uid) else {
                self.scheduler.withdraw(&uid);
                continue;
            };
            let attempts = self.attempts.clone();
            self.running.spawn(async move { (uid, Done::Attempt(attempts.run(job).await)) });
        }
    }

    fn job(&mut self, uid: &Uid) -> Option<Job> {
        let expires = self.ends(uid);
        if expires.is_some_and(|at| at <= Timestamp::now()) {
            // It is not sent any more; that it expired is written when its turn comes.
            self.arm(uid);
            return None;
        }
        let entry = self.index.get(uid)?;
        let route = self.lanes.get(&entry.lane)?.route.clone()?;
        let (lane, name, attempts) = (entry.lane.clone(), entry.name.clone(), entry.attempts);
        let scope = self.scopes.of(&lane.namespace);
        let may_be_old =
            self.attempts.leadership.is_contested() || scope.is_some_and(|scope| scope.may_be_old(Instant::now()));
        let object = self.index.take_object(uid).filter(|_| !may_be_old);
        let permit = Arc::new(Permit::until(expires));
        self.permits.insert(uid.clone(), permit.clone());
        Some(Job { lane, name, uid: uid.clone(), attempts, object, route, permit })
    }

    fn wake_at(&self) -> Option<Instant> {
        let timers = [self.next_expiry(), self.scheduler.courtesy_at()];
        self.scheduler.wake_at().into_iter().chain(timers.into_iter().flatten()).min()
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
