//! Retention: finished Notifications are deleted when their time is over.
//!
//! In memory there are key, uid and deadline of those that have one, and nothing of the others. What was due is read
//! again before it is deleted, and the delete is bound to what was read: a replay in between wins.

mod deadlines;
mod listing;

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use self::{
    deadlines::{Deadlines, Decision, Due, Rules, decide},
    listing::{Listed, Lister},
};
use super::{Unfinished, in_time, stored::Stored};
use crate::{api::NotificationStatus, dispatch::Backoff, metrics::Metrics};

/// Deletes under way at once: outcomes come first, retention takes what is left.
const AT_ONCE: usize = 2;
/// One that somebody changed between the read and the delete is looked at again after this.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);
/// One that could not be deleted is looked at again after this.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// After failures in a row nothing is deleted for so long.
const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) };
/// The clock is looked at this often at least: it may be set while we wait.
const LOOK: Duration = Duration::from_secs(60);

/// Deletes finished Notifications.
pub struct Retention {
    client: Client,
    metrics: Metrics,
    rules: Rules,
    deadlines: Deadlines,
    news: mpsc::UnboundedReceiver<Finished>,
    handle: RetentionHandle,
}

/// Tells retention what this process finishes; the listings find the rest.
#[derive(Clone)]
pub struct RetentionHandle {
    rules: Rules,
    news: mpsc::UnboundedSender<Finished>,
}

/// One that was finished and is to be deleted.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// When it became Delivered or Failed.
    pub completed: Timestamp,
    /// Its `ttlSecondsAfterFinished`.
    pub ttl: Option<u32>,
    /// Whether it was made with generateName.
    pub generated: bool,
}

/// What became of one that was due.
enum Looked {
    /// There is nothing more to do.
    Done,
    /// It is to be looked at again then.
    Again(Timestamp),
}

/// The way from the clock of deadlines to the one of timers.
struct Clock {
    now: Timestamp,
    instant: Instant,
}

impl RetentionHandle {
    /// `status` was written over `read`. Costs nothing unless that finishes it and gives it a time to be deleted at.
    pub fn finished(&self, read: &Unfinished, status: &NotificationStatus) {
        let metadata = &read.metadata;
        let (Some(completed), Some(namespace), Some(name), Some(uid)) =
            (&status.completion_time, &metadata.namespace, &metadata.name, &metadata.uid)
        else {
            return;
        };
        let (ttl, generated) = (read.spec.ttl_seconds_after_finished, metadata.generate_name.is_some());
        if self.rules.deadline(ttl, generated, completed.0).is_some() {
            let (namespace, name, uid) = (namespace.as_str().into(), name.as_str().into(), uid.as_str().into());
            // It fails only when the operator ends; the next start lists.
            let _ = self.news.send(Finished { namespace, name, uid, completed: completed.0, ttl, generated });
        }
    }
}

impl Retention {
    /// Deletes by `client`, which should not retry by itself. Those made with generateName and without a time of their
    /// own are kept for `generated_ttl` seconds; 0 keeps them for good.
    pub fn new(client: Client, metrics: Metrics, generated_ttl: u32) -> Self {
        let rules = Rules { generated_ttl: (generated_ttl > 0).then_some(generated_ttl) };
        let (sender, news) = mpsc::unbounded_channel();
        let handle = RetentionHandle { rules, news: sender };
        Self { client, metrics, rules, deadlines: Deadlines::default(), news, handle }
    }

    /// To be told what this process finishes.
    pub fn handle(&self) -> RetentionHandle {
        self.handle.clone()
    }

    /// Deletes what is due in these namespaces (None: in all) until `shutdown`.
    pub async fn run(mut self, namespaces: Vec<Option<String>>, shutdown: impl Future<Output = ()>) {
        let (told, listed) = mpsc::channel(1);
        let lister = Lister { client: self.client.clone(), namespaces, rules: self.rules, told };
        tokio::select! {
            () = lister.run() => {}
            () = self.work(listed) => {}
            () = shutdown => {}
        }
    }

    async fn work(&mut self, mut listed: mpsc::Receiver<Listed>) {
        let eraser = Eraser { client: self.client.clone(), metrics: self.metrics.clone(), rules: self.rules };
        let mut count = Count::default();
        let mut looking = FuturesUnordered::new();
        let (mut failures, mut not_before) = (0, Instant::now());
        loop {
            let clock = Clock::read();
            while looking.len() < AT_ONCE
                && clock.instant >= not_before
                && let Some(due) = self.deadlines.take_due(clock.now)
            {
                looking.push(eraser.look(due));
            }
            let wake = clock.wake(self.deadlines.next()).max(not_before);
            tokio::select! {
                Some(finished) = self.news.recv() => self.learn(finished),
                Some(listed) = listed.recv() => self.observe(listed, &mut count),
                Some((due, looked)) = looking.next() => match looked {
                    Ok(Looked::Done) => failures = 0,
                    Ok(Looked::Again(at)) => {
                        failures = 0;
                        self.deadlines.add(&Due { at, ..due });
                    }
                    Err(error) => {
                        failures += 1;
                        not_before = Instant::now() + BACKOFF.wait(failures, rand::random());
                        warn!(notification = %due, %error, "could not be deleted yet; it is tried again");
                        self.deadlines.add(&Due { at: after(AFTER_FAILURE), ..due });
                    }
                },
                // With both hands full there is nothing to wake up for.
                () = sleep_until(wake), if looking.len() < AT_ONCE => {}
            }
        }
    }

    fn learn(&mut self, finished: Finished) {
        let Finished { namespace, name, uid, completed, ttl, generated } = finished;
        if let Some(at) = self.rules.deadline(ttl, generated, completed) {
            self.deadlines.add(&Due { at, uid, namespace, name });
        }
    }

    fn observe(&mut self, listed: Listed, count: &mut Count) {
        match listed {
            Listed::Begun => {
                self.deadlines.begin_listing();
                *count = Count { before: self.metrics.finished_stored(), listed: 0 };
            }
            Listed::Page(stored, due) => {
                count.listed += stored;
                due.iter().for_each(|due| self.deadlines.add(due));
            }
            Listed::Complete => {
                self.deadlines.end_listing();
                // What came and went since the listing began is in the gauge already.
                self.metrics.finished_stored_changed(count.listed - count.before);
            }
        }
    }
}

/// A count under way.
#[derive(Default)]
struct Count {
    /// What the gauge said when the listing began.
    before: i64,
    listed: i64,
}

impl Clock {
    fn read() -> Self {
        Self { now: Timestamp::now(), instant: Instant::now() }
    }

    /// When to look at the clock again if `next` is the next deadline.
    fn wake(&self, next: Option<Timestamp>) -> Instant {
        let wait = next.map_or(LOOK, |next| Duration::try_from(next.duration_since(self.now)).unwrap_or_default());
        self.instant + wait.min(LOOK)
    }
}

/// Looks at one that is due and deletes it.
struct Eraser {
    client: Client,
    metrics: Metrics,
    rules: Rules,
}

impl Eraser {
    async fn look(&self, due: Due) -> (Due, Result<Looked, kube::Error>) {
        let looked = self.erase(&due).await;
        (due, looked)
    }

    async fn erase(&self, due: &Due) -> Result<Looked, kube::Error> {
        let api: Api<Stored> = Api::namespaced(self.client.clone(), &due.namespace);
        let Some(read) = in_time(api.get_opt(&due.name)).await? else {
            return Ok(Looked::Done);
        };
        match decide(&read, &due.uid, self.rules, Timestamp::now()) {
            Decision::Forget => return Ok(Looked::Done),
            Decision::Later(at) => return Ok(Looked::Again(at)),
            Decision::Delete => {}
        }
        let preconditions = Some(Preconditions {
            uid: read.metadata.uid.clone(),
            resource_version: read.metadata.resource_version.clone(),
        });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        match in_time(api.delete(&due.name, &params)).await {
            Ok(_) => {
                self.metrics.finished_stored_changed(-1);
                debug!(notification = %due, "deleted: its time is over");
                Ok(Looked::Done)
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(Looked::Done),
            Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(Looked::Again(after(AFTER_CONFLICT))),
            Err(error) => Err(error),
        }
    }
}

/// The time `wait` from now; the last there is if that is beyond the calendar.
fn after(wait: Duration) -> Timestamp {
    Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX)
}

impl std::fmt::Display for Due {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
