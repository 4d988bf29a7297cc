//! Runs the reconcile loop: handles watch events, marks, passes that end, and timers.

use std::{
    collections::{HashSet, VecDeque},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, StreamExt, stream};
use kube::{
    Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tidings_queue::SubscriberKey;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, error, info, warn};

use super::{
    progress::{CHECK_EVERY, TURN_AFTER},
    progress_statuses::ProgressStatuses,
    reconcile::{Ended, ReconcileError, Reconciler},
    reconcile_queue::ReconcileQueue,
    reconcile_requests::ReconcileCause,
    roster::Roster,
    stored_subscriber::StoredSubscriber,
    watch_config::watch_config,
    watched_subscribers::{WatchChange, WatchedScope, WatchedSubscribers},
};
use crate::{
    cluster::call::{in_namespace, plain_watch},
    metrics::{Metrics, WatchedKind},
};

/// The wait before a pass is repeated after an error or an interruption.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The maximum number of statuses that are written at the same time to say what their Subscribers wait for.
const PROGRESS_WRITES: usize = 4;

/// A pass that ended: the Subscriber, and the result (None: the pass panicked).
type EndedPass = (SubscriberKey, Option<Result<Ended, ReconcileError>>);

/// The reconcile loop and its state.
pub(super) struct Watching {
    roster: Arc<Roster>,
    reconciler: Arc<Reconciler>,
    progress: Arc<ProgressStatuses>,
    metrics: Metrics,
    watched_subscribers: WatchedSubscribers,
    reconcile_queue: ReconcileQueue,
    running: JoinSet<EndedPass>,
    /// New Subscribers, and when to check whether they still wait for their turn.
    newcomers: VecDeque<(Instant, SubscriberKey)>,
    /// The Subscribers with a pass under way, and when to check whether its step takes long.
    under_way: VecDeque<(Instant, SubscriberKey)>,
    /// The Subscribers in `under_way`.
    checked: HashSet<SubscriberKey>,
    /// The Subscribers whose status must be written.
    noted: VecDeque<SubscriberKey>,
    writing: JoinSet<()>,
}

/// One watch, and the state of its list.
struct SubscriberWatch {
    scope: WatchedScope,
    /// Whether the first list is complete or was refused.
    reported: bool,
    /// Whether the API server refuses the list now.
    refused: bool,
}

impl Watching {
    /// A loop that knows no Subscribers yet. `metrics` learns which Subscribers there are, how long reconciles take
    /// and which namespaces cannot be listed.
    pub(super) fn new(
        roster: Arc<Roster>,
        reconciler: Arc<Reconciler>,
        progress: Arc<ProgressStatuses>,
        metrics: Metrics,
    ) -> Self {
        Self {
            watched_subscribers: WatchedSubscribers::new(roster.clone()),
            roster,
            reconciler,
            progress,
            metrics,
            reconcile_queue: ReconcileQueue::default(),
            running: JoinSet::new(),
            newcomers: VecDeque::new(),
            under_way: VecDeque::new(),
            checked: HashSet::new(),
            noted: VecDeque::new(),
            writing: JoinSet::new(),
        }
    }

    /// Reconciles the Subscribers of these namespaces (None: of all namespaces) until `shutdown` completes, then waits
    /// for the passes under way. Calls `synced` once for each namespace: when all Subscribers that exist there are
    /// known, or when the API server refuses to list them.
    pub(super) async fn run(
        mut self,
        client: Client,
        namespaces: Vec<Option<String>>,
        synced: impl Fn() + Send,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let mut events = stream::select_all(namespaces.iter().enumerate().map(|(n, of)| watch(&client, of, n)));
        let scoped =
            |namespace| SubscriberWatch { scope: WatchedScope::new(namespace), reported: false, refused: false };
        let mut watched: Vec<_> = namespaces.into_iter().map(scoped).collect();
        let roster = self.roster.clone();
        let mut shutdown = pin!(shutdown);
        loop {
            self.begin();
            let wake = self.wake_at();
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = self.running.join_next() => self.ended(ended),
                marked = roster.marked() => self.mark(marked),
                Some((number, event)) = events.next() => {
                    let was_refused = watched[number].refused;
                    if self.observe(&mut watched[number], event) {
                        synced();
                    }
                    if watched[number].refused != was_refused {
                        self.metrics.namespaces_refused(watched.iter().filter(|of| of.refused).count());
                    }
                }
                Some(_) = self.writing.join_next() => {}
                () = until(wake) => {}
            }
        }
        while self.running.join_next().await.is_some() {}
    }

    /// Starts the passes and the writes of progress that are due.
    fn begin(&mut self) {
        let now = Instant::now();
        while let Some(key) = self.reconcile_queue.next(now) {
            let Some(subscriber) = self.watched_subscribers.get(&key).cloned() else {
                self.reconcile_queue.ended(&key, None);
                continue;
            };
            if self.checked.insert(key.clone()) {
                self.under_way.push_back((now + CHECK_EVERY, key));
            }
            let (reconciler, roster, metrics) = (self.reconciler.clone(), self.roster.clone(), self.metrics.clone());
            self.running.spawn(async move {
                let (key, uid) = (subscriber.key(), subscriber.id().uid);
                let ended = guarded(Box::pin(reconciler.reconcile(&subscriber))).await;
                metrics.reconciled(now.elapsed());
                roster.set_step(&key, &uid, None);
                (key, ended)
            });
        }
        self.note_progress(now);
        while self.writing.len() < PROGRESS_WRITES
            && let Some(key) = self.noted.pop_front()
        {
            if let Some(subscriber) = self.watched_subscribers.get(&key).cloned() {
                let progress = self.progress.clone();
                self.writing.spawn(async move { progress.write(&subscriber).await });
            }
        }
    }

    /// Notes what the Subscribers wait for that are due for a check.
    fn note_progress(&mut self, now: Instant) {
        let due = |of: &mut VecDeque<(Instant, SubscriberKey)>| {
            let is_due = of.front().is_some_and(|(at, _)| *at <= now);
            if is_due { of.pop_front() } else { None }
        };
        while let Some((_, key)) = due(&mut self.newcomers) {
            self.note(key, now);
        }
        while let Some((_, key)) = due(&mut self.under_way) {
            let uid = self.watched_subscribers.get(&key).map(|subscriber| subscriber.id().uid);
            if uid.is_some_and(|uid| self.roster.is_at_a_step(&key, &uid)) {
                self.under_way.push_back((now + CHECK_EVERY, key.clone()));
                self.note(key, now);
            } else {
                self.checked.remove(&key);
            }
        }
    }

    fn note(&mut self, key: SubscriberKey, now: Instant) {
        let subscriber = self.watched_subscribers.get(&key);
        if subscriber.is_some_and(|subscriber| self.progress.note(subscriber, now)) {
            self.noted.push_back(key);
        }
    }

    /// When the next timer fires.
    fn wake_at(&self) -> Option<Instant> {
        let checks = [&self.newcomers, &self.under_way].map(|of| of.front().map(|(at, _)| *at));
        self.reconcile_queue.wake_at().into_iter().chain(checks.into_iter().flatten()).min()
    }

    fn mark(&mut self, marked: Vec<(SubscriberKey, ReconcileCause)>) {
        let now = Instant::now();
        for (key, cause) in marked.into_iter().filter(|(key, _)| self.watched_subscribers.get(key).is_some()) {
            match cause {
                ReconcileCause::Change => self.reconcile_queue.mark(&key),
                ReconcileCause::Trouble => self.reconcile_queue.trouble(&key, now),
            }
        }
    }

    /// Processes a watch event. Returns true when the Subscribers of the namespace are known or refused for the first
    /// time.
    fn observe(&mut self, of: &mut SubscriberWatch, event: watcher::Result<Event<StoredSubscriber>>) -> bool {
        let namespace = of.scope.name().to_owned();
        match event {
            Ok(event) => {
                let listed = matches!(event, Event::InitDone);
                for change in self.watched_subscribers.observe(&mut of.scope, event) {
                    self.apply(change);
                }
                if !listed {
                    return false;
                }
                if std::mem::take(&mut of.refused) {
                    info!(namespace, "listed the Subscribers of this namespace again");
                }
            }
            Err(error) if is_refusal(&error) => {
                self.metrics.watch_restarted(WatchedKind::Subscriber);
                of.refused = true;
                warn!(namespace, error = %plain_watch(&error), "the API server refused to list the Subscribers of this namespace; no events are delivered there until the operator's Role or the namespace is restored; retrying");
            }
            Err(error) => {
                self.metrics.watch_restarted(WatchedKind::Subscriber);
                warn!(namespace, error = %plain_watch(&error), "the watch of Subscribers failed; restarting it");
                return false;
            }
        }
        !std::mem::replace(&mut of.reported, true)
    }

    fn apply(&mut self, change: WatchChange) {
        match change {
            WatchChange::New(key) => {
                self.metrics.add_subscriber(&key);
                self.reconcile_queue.mark(&key);
                self.newcomers.push_back((Instant::now() + TURN_AFTER, key));
            }
            WatchChange::Changed(key) => self.reconcile_queue.mark(&key),
            WatchChange::Gone(key) => {
                self.metrics.remove_subscriber(&key);
                self.reconcile_queue.forget(&key);
            }
        }
    }

    fn ended(&mut self, ended: Result<EndedPass, JoinError>) {
        // Passes are never aborted while the loop runs, and their panics are caught.
        let Ok((key, ended)) = ended else { return };
        let now = Instant::now();
        let again = match ended {
            Some(Ok(Ended::Done(again))) => again,
            Some(Ok(Ended::Interrupted)) => {
                debug!(namespace = %key.namespace, subscriber = %key.name, "reconcile interrupted: the operator does not lead or is stopping");
                Some(TRY_AGAIN)
            }
            Some(Err(error)) => {
                warn!(namespace = %key.namespace, subscriber = %key.name, %error, "reconcile failed; retrying");
                Some(TRY_AGAIN)
            }
            None => {
                error!(namespace = %key.namespace, subscriber = %key.name, "the reconcile panicked: this is a bug, please report it with this log; retrying");
                return self.reconcile_queue.panicked(&key, now, rand::random());
            }
        };
        self.reconcile_queue.ended(&key, again.map(|again| now + again));
    }
}

/// Returns the result of `pass`, or None if it panicked. A panic affects only this Subscriber. The panic hook has
/// logged its location.
async fn guarded<T>(pass: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(pass).catch_unwind().await.ok()
}

/// A paged list, then a watch. Starts again after any error.
fn watch(
    client: &Client,
    namespace: &Option<String>,
    number: usize,
) -> impl Stream<Item = (usize, watcher::Result<Event<StoredSubscriber>>)> + Unpin + Send + use<> {
    let api = in_namespace::<StoredSubscriber>(client, namespace.as_deref());
    watcher(api, watch_config()).default_backoff().map(move |event| (number, event)).boxed()
}

/// Whether the API server refuses to serve the namespace to this operator, because the operator's Role or the
/// CustomResourceDefinition is missing.
fn is_refusal(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchError, WatchStartFailed};
    let code = match error {
        InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) => status.code,
        WatchError(status) => status.code,
        _ => return false,
    };
    matches!(code, 403 | 404)
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pass_that_panics_ends_and_affects_nothing_else() {
        let mut running = JoinSet::new();
        running.spawn(guarded(async { panic!("a pass") }));
        assert_eq!(running.join_next().await.unwrap().unwrap(), None::<()>);
        assert_eq!(guarded(async { 7 }).await, Some(7));
    }

    #[test]
    fn a_refusal_of_the_api_server_is_distinguished_from_a_temporary_failure() {
        let refused = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            is_refusal(&watcher::Error::InitialListFailed(kube::Error::Api(status.boxed())))
        };
        assert!(refused(403) && refused(404));
        assert!(!refused(410) && !refused(429) && !refused(500));
    }
}
