//! The queue: watch events, updates and signals go in, attempts come out, what they wrote goes back into the queue.
//!
//! [`observe`] takes in what the watches show, [`settle`] what attempts report; [`timers`] writes what time alone brings:
//! expiries, and the courtesy of saying why a Notification waits.

pub mod attempt;
mod census;
pub mod clearance;
mod event_memory;
mod expiry;
pub mod index;
mod lane;
mod observe;
mod scopes;
mod settle;
mod timers;

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::Instant,
};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tidings_queue::{LaneSnapshot, Scheduler, SubscriberKey};
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tracing::info;

use self::{
    attempt::{Attempts, Job, Signalled},
    clearance::{Permit, Permits},
    expiry::Expiries,
    index::{Index, Uid},
    lane::Lane,
    scopes::Scopes,
    settle::Done,
};
use crate::{
    contract::{LANES_EVERY, Report, Update},
    metrics::Metrics,
    notifications::watch,
};

/// Owns the queue of unfinished Notifications.
pub struct Notifications {
    attempts: Arc<Attempts>,
    signals: mpsc::UnboundedReceiver<Signalled>,
    reports: mpsc::UnboundedSender<Report>,
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
    permits: Permits,
    scopes: Scopes,
    running: JoinSet<(Uid, Done)>,
    /// How each lane stood when that was reported last.
    counted: HashMap<SubscriberKey, LaneSnapshot>,
    /// Lanes that changed before they could be counted.
    uncounted: HashSet<SubscriberKey>,
}

impl Notifications {
    /// An empty queue for these namespaces (None: all); `signals` are those of the attempts. At most `max_in_flight` attempts are under way at once. Of
    /// `event_bytes`, half is for the events that are being sent, and half for untried ones that are kept in memory; the
    /// others are read again when their turn comes.
    pub fn new(
        attempts: Attempts,
        signals: mpsc::UnboundedReceiver<Signalled>,
        metrics: Metrics,
        namespaces: &[Option<String>],
        max_in_flight: usize,
        event_bytes: usize,
    ) -> Self {
        let by_namespace = namespaces.iter().any(Option::is_some);
        // What is left of an outcome of a leader before is asked about when the queue begins.
        let scopes = Scopes::new(namespaces, attempts.leadership.is_contested());
        Self {
            reports: attempts.reports.clone(),
            attempts: Arc::new(attempts),
            signals,
            metrics,
            index: Index::new(event_bytes / 2, by_namespace),
            scheduler: Scheduler::new(max_in_flight, event_bytes / 2),
            lanes: HashMap::new(),
            expiries: Expiries::default(),
            expiring: HashSet::new(),
            missing: HashMap::new(),
            permits: Permits::default(),
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
        mut updates: mpsc::UnboundedReceiver<Update>,
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
        let mut counts = tokio::time::interval(LANES_EVERY);
        counts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leadership = self.attempts.leadership.clone();
        loop {
            let leads = leadership.term_of_all().is_some();
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
                Some(update) = updates.recv() => {
                    self.signals();
                    self.update(update);
                }
                Some(signalled) = self.signals.recv() => self.signal(signalled),
                Some(done) = self.running.join_next() => {
                    // What an attempt signalled comes before its end.
                    self.signals();
                    while let Ok(update) = updates.try_recv() {
                        self.update(update);
                    }
                    self.settle(done);
                }
                _ = counts.tick() => {
                    let changed = self.census();
                    if !changed.is_empty() {
                        let _ = self.reports.send(Report::Lanes(changed));
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

    /// What attempts signalled comes before what the Subscribers' side makes of their reports.
    fn signals(&mut self) {
        while let Ok(signalled) = self.signals.try_recv() {
            self.signal(signalled);
        }
    }

    fn start_due(&mut self) {
        while let Some(uid) = self.scheduler.next(Instant::now()) {
            let Some(job) = self.job(&uid) else {
                self.scheduler.withdraw(&uid);
                continue;
            };
            let (attempts, lane) = (self.attempts.clone(), job.lane.clone());
            self.running.spawn(async move { (uid, Done::Attempt(lane, attempts.run(job).await)) });
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
        let route = self.lanes.get(&entry.lane)?.route()?.clone();
        let (lane, name, attempts) = (entry.lane.clone(), entry.name.clone(), entry.attempts);
        let scope = self.scopes.of(&lane.namespace);
        let may_be_old =
            self.attempts.leadership.is_contested() || scope.is_some_and(|scope| scope.may_be_old(Instant::now()));
        let object = self.index.take_object(uid).filter(|_| !may_be_old);
        let permit = Arc::new(Permit::until(expires));
        self.permits.insert(&lane, uid.clone(), permit.clone());
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
