//! Lists the finished Notifications of one namespace, or of all, at the start and every day: those that this process did not
//! finish itself.

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

/// From the end of one listing to the begin of the next. The process itself hears of all that it finishes: a listing finds
/// only what others finished after the start, or deleted.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// From the first listing to the second one. The second one finds the outcomes of a former leader that arrived after the first.
const SOON: Duration = Duration::from_secs(10 * 60);
/// The waits after a page that could not be read.
const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) };

/// News of a listing.
pub enum Listed {
    /// One begins, from the start.
    Begun,
    /// A page: how many there are, and those that are to be deleted.
    Page(i64, Vec<Due>),
    /// All were shown.
    Complete,
}

/// What is listed: one namespace, or all (None).
pub type ListedScope = Option<String>;

/// Lists one scope again and again. Each scope has its own lister, so that one which cannot be listed delays no other.
pub struct Lister {
    client: Client,
    scope: ListedScope,
    /// Which of them are to be deleted.
    rules: RetentionRules,
    /// How many pages are read at once, over all listers: it bounds their memory.
    pages: Arc<Semaphore>,
    /// Receives the news. The next page is read once this one was taken.
    news: mpsc::Sender<(ListedScope, Listed)>,
}

/// Why a listing broke off.
enum BrokenOff {
    /// The API server no longer has the state that the first page showed.
    TooOld,
    /// The receiver is gone.
    Unheard,
}

impl Lister {
    /// Lists `scope` by `client`, with as many pages at once, over all listers, as `pages` has room for. `news` receives what
    /// it finds; the next page is read once the one before was taken.
    pub fn new(
        client: Client,
        scope: ListedScope,
        rules: RetentionRules,
        pages: Arc<Semaphore>,
        news: mpsc::Sender<(ListedScope, Listed)>,
    ) -> Self {
        Self { client, scope, rules, pages, news }
    }

    /// Lists at once, again after ten minutes, and then every day, until nothing receives the news.
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

    /// A page that cannot be read is tried again, and the pages before it are not read twice.
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
                    warn!(namespace, error = %plain(&error), "cannot list the finished Notifications; the operator tries again");
                    if matches!(&error, kube::Error::Api(status) if status.code == 410) {
                        return Err(BrokenOff::TooOld);
                    }
                    failures += 1;
                    sleep(BACKOFF.wait(failures, rand::random())).await;
                }
            }
        }
    }

    /// One page, of which only what is needed is kept when the turn ends.
    async fn page(&self, pager: &mut Pager<StoredNotification>) -> Result<(Listed, bool), kube::Error> {
        let _turn = self.pages.acquire().await;
        let page = pager.next().await?;
        let count = i64::try_from(page.items.len()).unwrap_or(i64::MAX);
        let due = page.items.into_iter().filter_map(|stored| self.due(stored)).collect();
        Ok((Listed::Page(count, due), page.is_last))
    }

    fn due(&self, stored: StoredNotification) -> Option<Due> {
        let at = self.rules.deadline_of(&stored)?;
        // A replay that is asked for comes first, and changes the version.
        let is_settled = stored.replay_asked_for().is_none() && !stored.is_being_deleted();
        let version = Some(version(&stored.metadata)).filter(|version| is_settled && *version > 0);
        let metadata = stored.metadata;
        let (uid, namespace, name) = (metadata.uid?.into(), metadata.namespace?.into(), metadata.name?.into());
        Some(Due { at, uid, namespace, name, version, failures: 0 })
    }

    async fn send(&self, news: Listed) -> Result<(), BrokenOff> {
        self.news.send((self.scope.clone(), news)).await.map_err(|_error| BrokenOff::Unheard)
    }
}
