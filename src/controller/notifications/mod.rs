//! The queue: watch events, passages and signals go in, attempts come out, what they wrote goes back into the queue.
//!
//! [`observe`] takes in what the watches show, [`settle`] what attempts report; [`timers`] writes what time alone brings:
//! expiries, and the courtesy of saying why a Notification waits.

mod census;
mod observe;
mod settle;
mod timers;

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::Instant,
};

use futures::{StreamExt, stream};
use kube::Client;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tracing::info;

use self::{
    observe::{Scope, watch},
    settle::Done,
};
use super::{
    attempt::{Attempts, Job, Signalled},
    expiry::Expiries,
    index::{Index, Uid},
    registry::{Change, Registry, Spec},
    resolve::Route,
    subscribers::{CENSUS, Census},
};
use crate::{
    dispatch::{LaneKey, Scheduler},
    metrics::Metrics,
};

/// Owns the queue of unfinished Notifications.
pub struct Notifications {
    attempts: Arc<Attempts>,
    registry: Arc<Registry>,
    metrics: Metrics,
    index: Index,
    scheduler: Scheduler<Uid>,
    lanes: HashMap<LaneKey, Lane>,
    expiries: Expiries,
    /// Those whose expiry is being written.
    expiring: HashSet<Uid>,
    /// The namespaces (None: all) whose Subscribers are not all known yet.
    unlisted: HashSet<Option<String>>,
    running: JoinSet<(Uid, Done)>,
}

/// What the queue knows of a Subscriber.
struct Lane {
    /// The way, while it is open.
    route: Option<Arc<Route>>,
    /// After what time those that may expire do so.
    expire_after: std::time::Duration,
    /// Which spec was looked at last (None: none yet).
    spec: Option<Spec>,
}

/// What the queue listens to.
pub struct Inputs {
    /// From the registry.
    pub changes: mpsc::UnboundedReceiver<Change>,
    /// From attempts.
    pub signals: mpsc::UnboundedReceiver<Signalled>,
    /// Where the queue tells how it stands.
    pub census: watch::Sender<Vec<(LaneKey, Census)>>,
}

impl Notifications {
    /// An empty queue. At most `max_in_flight` attempts are under way at once, and at most `event_bytes` of untried
    /// events are kept in memory; the others are read again when their turn comes.
    pub fn new(
        attempts: Attempts,
        registry: Arc<Registry>,
        metrics: Metrics,
        max_in_flight: usize,
        event_bytes: usize,
    ) -> Self {
        Self {
            attempts: Arc::new(attempts),
            registry,
            metrics,
            index: Index::new(event_bytes),
            scheduler: Scheduler::new(max_in_flight),
            lanes: HashMap::new(),
            expiries: Expiries::default(),
            expiring: HashSet::new(),
            unlisted: HashSet::new(),
            running: JoinSet::new(),
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
        let mut scopes: Vec<_> = namespaces.iter().cloned().map(Scope::new).collect();
        let mut events = stream::select_all(scopes.iter().enumerate().map(|(n, scope)| watch(client, scope, n)));
        self.unlisted = namespaces.iter().cloned().collect();
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
                    self.observe(&mut scopes[scope], event);
                    if scopes.iter().all(|scope| scope.synced) && let Some(synced) = synced.take() {
                        info!(unfinished = self.index.len(), "every unfinished Notification is known");
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
                _ = counts.tick(), if synced.is_none() && self.unlisted.is_empty() => {
                    inputs.census.send_replace(self.census());
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
                self.scheduler.end(&uid);
                continue;
            };
            let attempts = self.attempts.clone();
            self.running.spawn(async move { (uid, Done::Attempt(attempts.run(job).await)) });
        }
    }

    fn job(&mut self, uid: &Uid) -> Option<Job> {
        // While a leader before may still write outcomes, what a listing told may be old by now.
        let in_memory = self.index.take_object(uid).filter(|_| !self.attempts.leadership.is_contested());
        let entry = self.index.get(uid)?;
        let route = self.lanes.get(&entry.lane)?.route.clone()?;
        let (lane, name, attempts) = (entry.lane.clone(), entry.name.clone(), entry.attempts);
        Some(Job { lane, name, uid: uid.clone(), attempts, object: in_memory, route })
    }

    fn wake_at(&self) -> Option<Instant> {
        let timers =
            if self.unlisted.is_empty() { [self.next_expiry(), self.scheduler.courtesy_at()] } else { [None; 2] };
        self.scheduler.wake_at().into_iter().chain(timers.into_iter().flatten()).min()
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
