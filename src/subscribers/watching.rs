//! The loop that keeps up with the Subscribers: watch events, marks, passes that end, time.

use std::{
    collections::VecDeque,
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
    initial_status::{INITIAL_STATUS_AFTER, InitialStatuses},
    reconcile::{Ended, ReconcileError, Reconciler},
    reconcile_queue::ReconcileQueue,
    reconcile_requests::ReconcileCause,
    roster::Roster,
    stored_subscriber::StoredSubscriber,
    watch_config::watch_config,
    watched_subscribers::{WatchChange, WatchedScope, WatchedSubscribers},
};
use crate::{cluster::call::in_namespace, metrics::Metrics};

/// After an error of the API server.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The most first statuses that are written at once.
const INITIAL_STATUSES: usize = 4;

/// A pass that ended: whose, and how (None: it panicked).
type EndedPass = (SubscriberKey, Option<Result<Ended, ReconcileError>>);

/// The loop and its state.
pub(super) struct Watching {
    roster: Arc<Roster>,
    reconciler: Arc<Reconciler>,
    initial_statuses: Arc<InitialStatuses>,
    metrics: Metrics,
    watched_subscribers: WatchedSubscribers,
    reconcile_queue: ReconcileQueue,
    running: JoinSet<EndedPass>,
    /// Subscribers that were new a short time ago, and when to see whether their status is still empty.
    newcomers: VecDeque<(Instant, SubscriberKey)>,
    writing: JoinSet<()>,
}

/// One watch, and what became of its listing.
struct SubscriberWatch {
    scope: WatchedScope,
    /// Its first listing is complete, or was refused.
    reported: bool,
    refused: bool,
}

impl Watching {
    /// Nothing is known yet. `metrics` count the namespaces whose Subscribers cannot be listed.
    pub(super) fn new(
        roster: Arc<Roster>,
        reconciler: Arc<Reconciler>,
        initial_statuses: Arc<InitialStatuses>,
        metrics: Metrics,
    ) -> Self {
        Self {
            watched_subscribers: WatchedSubscribers::new(roster.clone()),
            roster,
            reconciler,
            initial_statuses,
            metrics,
            reconcile_queue: ReconcileQueue::default(),
            running: JoinSet::new(),
            newcomers: VecDeque::new(),
            writing: JoinSet::new(),
        }
    }

    /// Reconciles the Subscribers of these namespaces (None: of all) until `shutdown`, then waits for the passes under way.
    /// `synced` is called once for each namespace: when all Subscribers that exist there are known, or when the API server
    /// refuses to list them.
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

    /// Begins the looks, and the first words, whose time has come.
    fn begin(&mut self) {
        let now = Instant::now();
        while let Some(key) = self.reconcile_queue.next(now) {
            let Some(subscriber) = self.watched_subscribers.get(&key).cloned() else {
                self.reconcile_queue.ended(&key, None);
                continue;
            };
            let (reconciler, roster) = (self.reconciler.clone(), self.roster.clone());
            self.running.spawn(async move {
                let (key, uid) = (subscriber.key(), subscriber.id().uid);
                let ended = guarded(reconciler.reconcile(&subscriber)).await;
                roster.set_step(&key, &uid, None);
                (key, ended)
            });
        }
        while self.writing.len() < INITIAL_STATUSES && self.newcomers.front().is_some_and(|(at, _)| *at <= now) {
            let newcomer = self.newcomers.pop_front().and_then(|(_, key)| self.watched_subscribers.get(&key));
            if let Some(subscriber) = newcomer.filter(|subscriber| self.initial_statuses.are_missing_for(subscriber)) {
                let (initial_statuses, subscriber) = (self.initial_statuses.clone(), subscriber.clone());
                self.writing.spawn(async move { initial_statuses.write(&subscriber).await });
            }
        }
    }

    /// When time alone lets something begin.
    fn wake_at(&self) -> Option<Instant> {
        let newcomer = self.newcomers.front().filter(|_| self.writing.len() < INITIAL_STATUSES).map(|(at, _)| *at);
        self.reconcile_queue.wake_at().into_iter().chain(newcomer).min()
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

    /// Takes in what a watch shows. True: for the first time, the Subscribers of its namespace are known or refused.
    fn observe(&mut self, of: &mut SubscriberWatch, event: watcher::Result<Event<StoredSubscriber>>) -> bool {
        let namespace = of.scope.name().to_owned();
        match event {
            Ok(event) => {
                let listed = matches!(event, Event::InitDone);
                for news in self.watched_subscribers.observe(&mut of.scope, event) {
                    self.hear(news);
                }
                if !listed {
                    return false;
                }
                if std::mem::take(&mut of.refused) {
                    info!(namespace, "the Subscribers of the namespace can be listed again");
                }
            }
            Err(error) if is_refusal(&error) => {
                of.refused = true;
                warn!(namespace, %error, "the API server refuses to list the Subscribers of this namespace: nothing is delivered there until the operator's Role, or the namespace, is restored; the operator tries again");
            }
            Err(error) => {
                warn!(namespace, %error, "watching Subscribers; the watch begins again");
                return false;
            }
        }
        !std::mem::replace(&mut of.reported, true)
    }

    fn hear(&mut self, news: WatchChange) {
        match news {
            WatchChange::New(key) => {
                self.reconcile_queue.mark(&key);
                self.newcomers.push_back((Instant::now() + INITIAL_STATUS_AFTER, key));
            }
            WatchChange::Changed(key) => self.reconcile_queue.mark(&key),
            WatchChange::Gone(key) => self.reconcile_queue.forget(&key),
        }
    }

    fn ended(&mut self, ended: Result<EndedPass, JoinError>) {
        // Passes are never aborted while this runs, and their panics are caught.
        let Ok((key, ended)) = ended else { return };
        let now = Instant::now();
        let again = match ended {
            Some(Ok(Ended::Done(again))) => again,
            Some(Ok(Ended::Interrupted)) => {
                debug!(subscriber = %key, "the reconcile was interrupted: the operator does not lead, or is to end");
                Some(TRY_AGAIN)
            }
            Some(Err(error)) => {
                warn!(subscriber = %key, %error, "will look at the Subscriber again");
                Some(TRY_AGAIN)
            }
            None => {
                error!(subscriber = %key, "the operator failed while it looked at the Subscriber: this is a bug; it will look again");
                return self.reconcile_queue.panicked(&key, now, rand::random());
            }
        };
        self.reconcile_queue.ended(&key, again.map(|again| now + again));
    }
}

/// What `look` found; None: it panicked. That is the trouble of its Subscriber alone, and the hook has logged the place.
async fn guarded<T>(look: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(look).catch_unwind().await.ok()
}

/// A paged list, then a watch; begun again after any error.
fn watch(
    client: &Client,
    namespace: &Option<String>,
    number: usize,
) -> impl Stream<Item = (usize, watcher::Result<Event<StoredSubscriber>>)> + Unpin + Send + use<> {
    let api = in_namespace::<StoredSubscriber>(client, namespace.as_deref());
    watcher(api, watch_config()).default_backoff().map(move |event| (number, event)).boxed()
}

/// Whether the API server does not serve the namespace to this operator: its Role or the definition is not there.
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
    async fn a_look_that_panics_ends_and_takes_nothing_with_it() {
        let mut running = JoinSet::new();
        running.spawn(guarded(async { panic!("a look") }));
        assert_eq!(running.join_next().await.unwrap().unwrap(), None::<()>);
        assert_eq!(guarded(async { 7 }).await, Some(7));
    }

    #[test]
    fn what_the_api_server_does_not_serve_to_the_operator_is_told_from_what_fails_for_now() {
        let refused = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            is_refusal(&watcher::Error::InitialListFailed(kube::Error::Api(status.boxed())))
        };
        assert!(refused(403) && refused(404));
        assert!(!refused(410) && !refused(429) && !refused(500));
    }
}
