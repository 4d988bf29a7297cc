//! The queue: watch events and gates go in, attempts come out, what they wrote goes back into the queue.

use std::{
    collections::HashMap,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{info, warn};

use super::{
    WATCH_SECONDS,
    attempt::{Attempts, Ended, Job, NotStarted},
    index::{Index, News, Uid},
    registry::{Gate, GateChange, Registry},
    unfinished::{SELECTOR, Unfinished},
};
use crate::{
    dispatch::{LaneKey, Scheduler},
    metrics::Metrics,
    webhook::Target,
};

/// Pages of this many objects; each is put to work as it arrives.
const PAGE: u32 = 500;
/// One whose webhook may not be dialled is looked at again after this.
const AFTER_DENIED: Duration = Duration::from_secs(30);
/// One that could not be read is tried again after this.
const AFTER_UNREAD: Duration = Duration::from_secs(5);

/// Owns the queue of unfinished Notifications.
pub struct Notifications {
    attempts: Arc<Attempts>,
    registry: Arc<Registry>,
    metrics: Metrics,
    index: Index,
    scheduler: Scheduler<Uid>,
    targets: HashMap<LaneKey, Arc<Target>>,
    running: JoinSet<(Uid, Ended)>,
}

/// One watch: of a namespace, or of all.
struct Scope {
    namespace: Option<String>,
    /// The number of its listing under way.
    listing: u64,
    synced: bool,
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
            targets: HashMap::new(),
            running: JoinSet::new(),
        }
    }

    /// Works until `shutdown`, then lets what is in flight end and be written. `synced` is called once every
    /// unfinished Notification is known.
    pub async fn run(
        mut self,
        client: &Client,
        namespaces: &[Option<String>],
        mut gates: mpsc::UnboundedReceiver<GateChange>,
        synced: impl FnOnce(),
        shutdown: impl Future<Output = ()>,
    ) {
        let mut scopes: Vec<_> = namespaces.iter().cloned().map(Scope::new).collect();
        let mut events = stream::select_all(scopes.iter().enumerate().map(|(n, scope)| watch(client, scope, n)));
        let mut synced = Some(synced);
        let mut shutdown = pin!(shutdown);
        loop {
            self.start_due();
            self.metrics.queue(self.index.len(), self.scheduler.in_flight());
            let wake = self.scheduler.wake_at();
            tokio::select! {
                Some((scope, event)) = events.next() => {
                    self.observe(&mut scopes[scope], event);
                    if scopes.iter().all(|scope| scope.synced) && let Some(synced) = synced.take() {
                        info!(unfinished = self.index.len(), "every unfinished Notification is known");
                        synced();
                    }
                }
                Some((lane, gate)) = gates.recv() => self.set_gate(&lane, gate),
                Some(ended) = self.running.join_next() => self.ended(ended),
                () = until(wake) => {}
                () = &mut shutdown => break,
            }
        }
        info!(in_flight = self.running.len(), "shutting down: nothing new starts, what is in flight ends");
        while let Some(ended) = self.running.join_next().await {
            self.ended(ended);
        }
    }

    fn start_due(&mut self) {
        while let Some(uid) = self.scheduler.next(Instant::now()) {
            let Some(job) = self.job(&uid) else {
                self.scheduler.end(&uid);
                continue;
            };
            let attempts = self.attempts.clone();
            self.running.spawn(async move { (uid, attempts.run(job).await) });
        }
    }

    fn job(&mut self, uid: &Uid) -> Option<Job> {
        let object = self.index.take_object(uid);
        let entry = self.index.get(uid)?;
        let target = self.targets.get(&entry.lane)?.clone();
        Some(Job { lane: entry.lane.clone(), name: entry.name.clone(), uid: uid.clone(), object, target })
    }

    fn observe(&mut self, scope: &mut Scope, event: watcher::Result<Event<Unfinished>>) {
        match event {
            Ok(Event::Init) => scope.listing = self.index.begin_listing(),
            Ok(Event::InitApply(object) | Event::Apply(object)) => self.observe_object(object),
            Ok(Event::InitDone) => {
                let scheduler = &self.scheduler;
                let namespace = scope.namespace.as_deref();
                let gone = self.index.end_listing(scope.listing, namespace, |uid| scheduler.is_in_flight(uid));
                gone.iter().for_each(|uid| self.scheduler.remove(uid));
                scope.synced = true;
            }
            Ok(Event::Delete(object)) => {
                if let Some(uid) = object.metadata.uid.as_deref() {
                    let uid: Uid = uid.into();
                    let in_flight = self.scheduler.is_in_flight(&uid);
                    self.index.observe_gone(&uid, object.version(), in_flight);
                    self.scheduler.remove(&uid);
                }
            }
            Err(error) => warn!(%error, "watching Notifications; the watch begins anew"),
        }
    }

    /// New, changed by somebody else, or old news.
    fn observe_object(&mut self, object: Unfinished) {
        let due = due(&object, self.attempts.backoff.longest());
        let cancelled = object.is_being_deleted();
        if let News::Changed(uid) = self.index.observe(object) {
            if cancelled {
                self.scheduler.remove(&uid);
            } else if let Some(entry) = self.index.get(&uid) {
                self.scheduler.add(uid, entry.lane.clone(), due);
            }
        }
    }

    fn set_gate(&mut self, lane: &LaneKey, gate: Gate) {
        match gate {
            Gate::Open(target) => {
                self.scheduler.open(lane, target.max_in_flight);
                self.targets.insert(lane.clone(), target);
            }
            Gate::Closed => {
                self.scheduler.close(lane);
                self.targets.remove(lane);
            }
        }
    }

    fn ended(&mut self, ended: Result<(Uid, Ended), tokio::task::JoinError>) {
        let (uid, ended) = match ended {
            Ok(ended) => ended,
            // An attempt catches its own panics; one outside of them must not be survived with a lost slot.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let left = self.index.get(&uid).is_none_or(|entry| entry.left.is_some());
        match ended {
            Ended::Finished(version) => {
                self.scheduler.end(&uid);
                self.index.finished(&uid, version);
            }
            Ended::Gone => {
                self.scheduler.end(&uid);
                self.index.forget(&uid);
            }
            _ if left => {
                self.scheduler.end(&uid);
                self.index.forget(&uid);
            }
            Ended::Retry(version, wait) => {
                self.index.wrote(&uid, version);
                self.scheduler.retry(&uid, Instant::now() + wait);
            }
            Ended::Unread => self.scheduler.retry(&uid, Instant::now() + AFTER_UNREAD),
            Ended::Superseded(current) if current.is_finished() || current.is_being_deleted() => {
                self.scheduler.end(&uid);
                self.index.finished(&uid, current.version());
            }
            Ended::Superseded(current) => {
                self.index.wrote(&uid, current.version());
                let due = due(&current, self.attempts.backoff.longest());
                self.scheduler.retry(&uid, due.unwrap_or_else(Instant::now));
            }
            Ended::NotStarted(object, why) => self.not_started(&uid, object, why),
        }
    }

    /// The lane closes until its Subscriber was looked at again; the Notification is first in line, or, where the way
    /// is denied, a while later, so that a name that resolves now so, now otherwise makes no storm.
    fn not_started(&mut self, uid: &Uid, object: Box<Unfinished>, why: NotStarted) {
        let Some(lane) = self.index.get(uid).map(|entry| entry.lane.clone()) else {
            return self.scheduler.end(uid);
        };
        if object.status.attempts == 0 {
            self.index.return_object(uid, object);
        }
        self.set_gate(&lane, Gate::Closed);
        match why {
            NotStarted::NoToken => self.scheduler.put_back(uid),
            NotStarted::EgressDenied => self.scheduler.retry(uid, Instant::now() + AFTER_DENIED),
        }
        self.registry.look_again(&lane);
    }
}

impl Scope {
    fn new(namespace: Option<String>) -> Self {
        Self { namespace, listing: 0, synced: false }
    }
}

/// A paged list, which is a consistent read, then a watch; begun anew after any error.
fn watch(
    client: &Client,
    scope: &Scope,
    number: usize,
) -> impl Stream<Item = (usize, watcher::Result<Event<Unfinished>>)> + Unpin + use<> {
    let api: Api<Unfinished> = match &scope.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let config = watcher::Config::default().fields(SELECTOR).page_size(PAGE).timeout(WATCH_SECONDS);
    watcher(api, config).default_backoff().map(move |event| (number, event)).boxed()
}

/// When the next attempt is due (None: now). A time written by a wrong clock is not trusted past the longest wait.
fn due(object: &Unfinished, longest: Duration) -> Option<Instant> {
    let next = object.status.next_attempt_time.as_ref()?.0;
    let wait = Duration::try_from(next.duration_since(Timestamp::now())).ok()?;
    (!wait.is_zero()).then(|| Instant::now() + wait.min(longest))
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
