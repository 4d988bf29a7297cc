//! Lists the finished Notifications of one namespace, or of all, at startup and every day, to find Notifications that
//! this process did not finish itself.

use std::{sync::Arc, time::Duration};

use kube::Client;
use tidings_api::Phase;
use tidings_queue::Backoff;
use tokio::{
    sync::{Semaphore, mpsc},
    time::sleep,
};
use tracing::warn;

use super::deadlines::{Due, RetentionRules};
use crate::{
    cluster::{
        call::{plain, version},
        pager::Pager,
    },
    notifications::stored::StoredNotification,
};

/// The time between listings. This process knows what it finishes itself: a listing finds only Notifications that
/// others finished after startup, or deleted.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// The time between the first and the second listing. The second listing finds outcomes of a former leader that arrived
/// after the first.
const SOON: Duration = Duration::from_secs(10 * 60);
/// The waits after a page that could not be read.
const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) };

/// The progress of a listing.
pub enum Listed {
    /// A listing starts from the first page.
    Begun,
    /// One page: how many Notifications it has, and the ones to delete.
    Page(i64, Vec<Due>),
    /// The listing is complete.
    Complete,
}

/// What is listed: one namespace, or all (None).
pub type ListedScope = Option<String>;

/// Lists one scope periodically. Each scope has its own lister, so that a scope that cannot be listed does not delay
/// the others.
pub struct Lister {
    client: Client,
    scope: ListedScope,
    /// Decides which Notifications to delete.
    rules: RetentionRules,
    /// Bounds the pages that all listers read concurrently, and so their memory.
    pages: Arc<Semaphore>,
    /// Receives the progress. The next page is read once the receiver has taken this one.
    news: mpsc::Sender<(ListedScope, Listed)>,
}

/// Why a listing stopped.
enum BrokenOff {
    /// The API server no longer has the state of the first page.
    TooOld,
    /// The receiver is gone.
    Unheard,
}

impl Lister {
    /// Lists `scope` with `client`. `pages` bounds the concurrent pages of all listers. `news` receives the progress;
    /// the next page is read once the receiver has taken the previous one.
    pub fn new(
        client: Client,
        scope: ListedScope,
        rules: RetentionRules,
        pages: Arc<Semaphore>,
        news: mpsc::Sender<(ListedScope, Listed)>,
    ) -> Self {
        Self { client, scope, rules, pages, news }
    }

    /// Lists immediately, again after ten minutes, and then every day, until the receiver is dropped.
    pub async fn run(self) {
        let (mut failures, mut wait) = (0, SOON);
        loop {
            match self.list().await {
                Ok(()) => {
                    failures = 0;
                    sleep(std::mem::replace(&mut wait, EVERY)).await;
                }
                Err(BrokenOff::TooOld) => {
                    failures += 1;
                    sleep(BACKOFF.wait(failures, rand::random())).await;
                }
                Err(BrokenOff::Unheard) => return,
            }
        }
    }

    async fn list(&self) -> Result<(), BrokenOff> {
        self.send(Listed::Begun).await?;
        for phase in [Phase::Delivered, Phase::Failed] {
            self.list_phase(phase).await?;
        }
        self.send(Listed::Complete).await
    }

    /// Lists the Notifications of one phase. A page that cannot be read is retried; the pages before it are not read
    /// again.
    async fn list_phase(&self, phase: Phase) -> Result<(), BrokenOff> {
        let selector = format!("status.phase={}", phase.as_str());
        let mut pager = Pager::new(self.client.clone(), self.scope.as_deref(), selector);
        let mut failures = 0;
        loop {
            match self.page(&mut pager).await {
                Ok((page, is_last)) => {
                    failures = 0;
                    self.send(page).await?;
                    if is_last {
                        return Ok(());
                    }
                }
                Err(error) => {
                    let namespace = self.scope.as_deref().unwrap_or("(all)");
                    warn!(namespace, error = %plain(&error), "cannot list the finished Notifications; retrying");
                    if matches!(&error, kube::Error::Api(status) if status.code == 410) {
                        return Err(BrokenOff::TooOld);
                    }
                    failures += 1;
                    sleep(BACKOFF.wait(failures, rand::random())).await;
                }
            }
        }
    }

    /// Reads one page and keeps only what is needed of it.
    async fn page(&self, pager: &mut Pager<StoredNotification>) -> Result<(Listed, bool), kube::Error> {
        let _turn = self.pages.acquire().await;
        let page = pager.next().await?;
        let count = i64::try_from(page.items.len()).unwrap_or(i64::MAX);
        let due = page.items.into_iter().filter_map(|stored| self.due(stored)).collect();
        Ok((Listed::Page(count, due), page.is_last))
    }

    fn due(&self, stored: StoredNotification) -> Option<Due> {
        let at = self.rules.deadline_of(&stored)?;
        // A requested replay comes first, and changes the version.
        let is_settled = stored.requested_replay().is_none() && !stored.is_being_deleted();
        let version = Some(version(&stored.metadata)).filter(|version| is_settled && *version > 0);
        let metadata = stored.metadata;
        let (uid, namespace, name) = (metadata.uid?.into(), metadata.namespace?.into(), metadata.name?.into());
        Some(Due { at, uid, namespace, name, version, failures: 0 })
    }

    async fn send(&self, news: Listed) -> Result<(), BrokenOff> {
        self.news.send((self.scope.clone(), news)).await.map_err(|_error| BrokenOff::Unheard)
    }
}
