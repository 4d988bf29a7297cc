//! Retention: deletes finished Notifications when their TTL expires.
//!
//! Memory holds the name, uid, resourceVersion and deadline of Notifications that have a deadline, and nothing of the
//! others. Each deletion has uid and resourceVersion as preconditions: if a replay or another change comes first, the
//! deletion is refused, and the operator reads the Notification and decides again.
//!
//! The namespaces take turns. A deletion that fails is retried with growing waits, and its namespace pauses, while the
//! other namespaces continue.

mod clock;
mod deadlines;
mod deleter;
mod finished_count;
mod listing;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::jiff::Timestamp;
use tidings_api::NotificationStatus;
use tidings_queue::Backoff;
use tokio::{
    sync::{Semaphore, mpsc},
    time::sleep,
};
use tracing::warn;

pub use self::finished_count::FinishedCount;
use self::{
    clock::{ClockReading, SteadyClock},
    deadlines::{Deadlines, Due, RetentionRules},
    deleter::{Deleter, DeletionResult},
    listing::{Listed, ListedScope, Lister},
};
use super::wire::Unfinished;
use crate::{
    cluster::{SingleTry, call::plain},
    metrics::Metrics,
};

/// The maximum number of pages that listings read concurrently.
const PAGES_AT_ONCE: usize = 4;
/// The wait before a failed deletion is retried.
const OF_ONE: Backoff = Backoff { initial: Duration::from_secs(30), max: Duration::from_secs(3600) };
/// The pause of a namespace after consecutive failures.
const OF_NAMESPACE: Backoff = Backoff { initial: Duration::from_millis(200), max: Duration::from_secs(10) };
/// How often the clock is read at least, because an administrator may set it.
const LOOK: Duration = Duration::from_secs(60);

/// Deletes finished Notifications when their TTL expires. [`Self::run`] is the loop. It learns which Notifications
/// finished immediately from its [`RetentionHandle`]s, and from listings at startup and every day.
pub struct Retention {
    client: SingleTry,
    metrics: Metrics,
    rules: RetentionRules,
    deadlines: Deadlines,
    /// The deletions in progress.
    listings: HashMap<ListedScope, Listing>,
    news: mpsc::UnboundedReceiver<Due>,
    handle: RetentionHandle,
}

/// Receives what this process finishes; the listings find the rest.
#[derive(Clone)]
pub struct RetentionHandle {
    rules: RetentionRules,
    finished_count: FinishedCount,
    news: mpsc::UnboundedSender<Due>,
}

struct Listing {
    number: u64,
    /// The count of the scope when the listing began.
    before: i64,
    listed: i64,
}

impl RetentionHandle {
    /// Records that `status` was written to `read` and finishes it. `version` is the resourceVersion of that write, or
    /// None if the Notification must be read again before it is deleted.
    pub fn finished(&self, read: &Unfinished, status: &NotificationStatus, version: Option<u64>) {
        let metadata = &read.metadata;
        let (Some(completed), Some(namespace), Some(name), Some(uid)) =
            (&status.completion_time, &metadata.namespace, &metadata.name, &metadata.uid)
        else {
            return;
        };
        self.finished_count.changed(namespace, 1);
        let (ttl, generated) = (read.spec.ttl_seconds_after_finished, metadata.generate_name.is_some());
        if let Some(at) = self.rules.deadline(ttl, generated, completed.0) {
            let (namespace, name, uid) = (namespace.as_str().into(), name.as_str().into(), uid.as_str().into());
            // This fails only when the operator stops; the next start lists everything.
            let _ = self.news.send(Due { at, uid, namespace, name, version, failures: 0 });
        }
    }
}

impl Retention {
    /// Deletes with `client`. Notifications that were created with generateName and without their own TTL are kept for
    /// `generated_ttl` seconds; 0 keeps them forever.
    pub fn new(client: SingleTry, metrics: Metrics, generated_ttl: u32) -> Self {
        let rules = RetentionRules { generated_ttl: (generated_ttl > 0).then_some(generated_ttl) };
        let (sender, news) = mpsc::unbounded_channel();
        let handle = RetentionHandle { rules, finished_count: FinishedCount::new(metrics.clone()), news: sender };
        Self { client, metrics, rules, deadlines: Deadlines::default(), listings: HashMap::new(), news, handle }
    }

    /// Returns the handle that receives what this process finishes.
    pub fn handle(&self) -> RetentionHandle {
        self.handle.clone()
    }

    /// Returns the count of finished Notifications, which replays reduce.
    pub fn finished_count(&self) -> FinishedCount {
        self.handle.finished_count.clone()
    }

    /// Deletes Notifications that are due in these namespaces (None: in all) until `shutdown`.
    pub async fn run(mut self, namespaces: Vec<ListedScope>, shutdown: impl Future<Output = ()>) {
        let (news, listed) = mpsc::channel(1);
        let pages = Arc::new(Semaphore::new(PAGES_AT_ONCE));
        let lister = |scope| {
            let (client, pages, news) = (self.client.clone().into(), pages.clone(), news.clone());
            Lister::new(client, scope, self.rules, pages, news).run()
        };
        let mut listers: FuturesUnordered<_> = namespaces.into_iter().map(lister).collect();
        tokio::select! {
            () = async { while listers.next().await.is_some() {} } => {}
            () = self.work(listed) => {}
            () = shutdown => {}
        }
    }

    async fn work(&mut self, mut listed: mpsc::Receiver<(ListedScope, Listed)>) {
        let deleter =
            Deleter::new(self.client.clone(), self.handle.finished_count.clone(), self.metrics.clone(), self.rules);
        let mut clock = SteadyClock::new(Timestamp::now(), Instant::now());
        let mut under_way = FuturesUnordered::new();
        loop {
            let instant = Instant::now();
            let ClockReading { now, has_jumped } = clock.read(Timestamp::now(), instant);
            if has_jumped {
                warn!(
                    "the system clock jumped ahead; the operator uses the new time for deletions once the clock has kept it for 10 minutes"
                );
            }
            while under_way.len() < self.deadlines.at_once(now)
                && let Some(due) = self.deadlines.take_due(now, instant)
            {
                under_way.push(deleter.handle(due, now));
            }
            let wait = self.deadlines.wait(now, instant).map_or(LOOK, |wait| wait.min(LOOK));
            tokio::select! {
                Some(due) = self.news.recv() => self.deadlines.add(&due),
                Some((scope, listed)) = listed.recv() => self.observe(scope, listed),
                Some((due, result)) = under_way.next() => self.settle(due, result, now),
                // While all slots are taken, there is nothing to wake up for.
                () = sleep(wait), if under_way.len() < self.deadlines.at_once(now) => {}
            }
        }
    }

    fn settle(&mut self, due: Due, result: Result<DeletionResult, kube::Error>, now: Timestamp) {
        let pause = |failures| OF_NAMESPACE.wait(failures, rand::random());
        let failed = result.is_err();
        let namespace = due.namespace.clone();
        match result {
            Ok(DeletionResult::Done) => {}
            Ok(DeletionResult::Again(at)) => self.deadlines.add(&Due { at, version: None, failures: 0, ..due }),
            Err(error) => {
                let failures = due.failures.saturating_add(1);
                let wait = OF_ONE.wait(failures, rand::random());
                warn!(namespace = due.namespace, name = due.name, uid = due.uid, error = %plain(&error), "cannot delete the Notification yet; retrying in {} s", wait.as_secs());
                let at = now.checked_add(wait).unwrap_or(Timestamp::MAX);
                self.deadlines.add(&Due { at, failures, ..due });
            }
        }
        self.deadlines.end(&namespace, failed, Instant::now(), pause);
    }

    fn observe(&mut self, scope: ListedScope, listed: Listed) {
        match listed {
            Listed::Begun => {
                let (number, before) =
                    (self.deadlines.begin_listing(), self.handle.finished_count.of(scope.as_deref()));
                self.listings.insert(scope, Listing { number, before, listed: 0 });
            }
            Listed::Page(stored, due) => {
                due.iter().for_each(|due| self.deadlines.add(due));
                if let Some(listing) = self.listings.get_mut(&scope) {
                    listing.listed += stored;
                }
            }
            Listed::Complete => {
                if let Some(Listing { number, before, listed }) = self.listings.remove(&scope) {
                    self.deadlines.end_listing(number, scope.as_deref());
                    self.handle.finished_count.counted(scope.as_deref(), before, listed);
                }
            }
        }
    }
}
