//! Lists and watches the unfinished Notifications of one namespace, or of all.

use std::{sync::Arc, time::Duration};

use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use kube::{
    Api, Client,
    api::{WatchEvent, WatchParams},
    runtime::watcher::Event,
};
use tidings_queue::Backoff;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};

use super::wire::{SELECTOR, Unfinished};
use crate::cluster::{
    call::{WATCH_SECONDS, in_namespace, in_time},
    pager::Pager,
};

/// The waits after consecutive errors.
const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(800), max: Duration::from_secs(30) };
/// After a watch that the API server ends sooner than this, the next watch does not start immediately.
const SHORTEST: Duration = Duration::from_secs(1);
/// The maximum number of pages in memory, over all namespaces.
const PAGES: usize = 4;

type WatchStream = BoxStream<'static, Result<WatchEvent<Unfinished>, kube::Error>>;

/// One list and watch: a paged list, which is a consistent read, then a watch of all later changes.
struct Watcher {
    api: Api<Unfinished>,
    pager: Pager<Unfinished>,
    pages: Arc<Semaphore>,
    /// The number of consecutive errors.
    failures: u32,
    /// The wait before the next request.
    wait: Option<Duration>,
    state: WatchState,
}

enum WatchState {
    /// A list starts.
    Begin,
    /// A page was read.
    Listing {
        items: std::vec::IntoIter<Unfinished>,
        /// The resourceVersion of the list, if this is its last page.
        complete: Option<String>,
        /// Bounds the pages in memory.
        _permit: Option<OwnedSemaphorePermit>,
    },
    /// Watches what changed after `version`.
    Watching { version: String, events: Option<(WatchStream, Instant)> },
}

/// Bounds the pages that several lists have in memory.
pub(crate) fn pages() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(PAGES))
}

/// Returns what the list and then the watch of `namespace` (None: of all) show. After an error the stream continues:
/// the list with the same page, the watch from its last version or, if the API server no longer has that version, with
/// a new list.
pub(crate) fn watch(
    client: &Client,
    namespace: Option<&str>,
    pages: Arc<Semaphore>,
) -> impl Stream<Item = Result<Event<Unfinished>, kube::Error>> + Send + use<> {
    let watcher = Watcher {
        api: in_namespace(client, namespace),
        pager: Pager::new(client.clone(), namespace, SELECTOR),
        pages,
        failures: 0,
        wait: None,
        state: WatchState::Begin,
    };
    stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await;
        Some((event, watcher))
    })
}

impl Watcher {
    async fn next(&mut self) -> Result<Event<Unfinished>, kube::Error> {
        if let Some(wait) = self.wait.take() {
            sleep(wait).await;
        }
        loop {
            let event = match &self.state {
                WatchState::Begin => Some(self.begin()),
                WatchState::Listing { .. } => self.listed().await.transpose()?,
                WatchState::Watching { .. } => self.watched().await.transpose()?,
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    fn begin(&mut self) -> Event<Unfinished> {
        self.pager.restart();
        self.state = WatchState::Listing { items: Vec::new().into_iter(), complete: None, _permit: None };
        Event::Init
    }

    async fn listed(&mut self) -> Option<Result<Event<Unfinished>, kube::Error>> {
        let WatchState::Listing { items, complete, _permit } = &mut self.state else { return None };
        if let Some(object) = items.next() {
            return Some(Ok(Event::InitApply(object)));
        }
        *_permit = None;
        if let Some(version) = complete.take() {
            self.state = WatchState::Watching { version, events: None };
            return Some(Ok(Event::InitDone));
        }
        let permit = self.pages.clone().acquire_owned().await.ok();
        match self.pager.next().await {
            Ok(page) => {
                let complete = page.is_last.then_some(page.version);
                self.state = WatchState::Listing { items: page.items.into_iter(), complete, _permit: permit };
                None
            }
            Err(error) => Some(Err(self.failed(error))),
        }
    }

    async fn watched(&mut self) -> Option<Result<Event<Unfinished>, kube::Error>> {
        let WatchState::Watching { version, events } = &mut self.state else { return None };
        let Some((watched, since)) = events else {
            let params = WatchParams::default().fields(SELECTOR).timeout(WATCH_SECONDS);
            return match in_time(self.api.watch(&params, version)).await {
                Ok(watched) => {
                    *events = Some((watched.into_stream().boxed(), Instant::now()));
                    None
                }
                Err(error) => Some(Err(self.failed(error))),
            };
        };
        let event = match watched.next().await {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => Event::Apply(object),
            Some(Ok(WatchEvent::Deleted(object))) => Event::Delete(object),
            Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                *version = bookmark.metadata.resource_version;
                self.failures = 0;
                return None;
            }
            Some(Ok(WatchEvent::Error(status))) => return Some(Err(self.failed(kube::Error::Api(status)))),
            // One object cannot be read: the watch continues.
            Some(Err(error @ kube::Error::SerdeError(_))) => return Some(Err(error)),
            Some(Err(error)) => return Some(Err(self.failed(error))),
            None => {
                let is_short = since.elapsed() < SHORTEST;
                *events = None;
                if is_short {
                    sleep(SHORTEST).await;
                }
                return None;
            }
        };
        self.failures = 0;
        if let Event::Apply(object) | Event::Delete(object) = &event {
            object.metadata.resource_version.as_ref().inspect(|shown| version.clone_from(shown));
        }
        Some(Ok(event))
    }

    /// Continues after a wait, with a new list if the API server no longer has the version of this one.
    fn failed(&mut self, error: kube::Error) -> kube::Error {
        self.failures += 1;
        self.wait = Some(BACKOFF.wait(self.failures, rand::random()));
        if matches!(&error, kube::Error::Api(status) if matches!(status.code, 400 | 410)) {
            self.state = WatchState::Begin;
        } else if let WatchState::Watching { events, .. } = &mut self.state {
            *events = None;
        }
        error
    }
}
