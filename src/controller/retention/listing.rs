//! Lists the finished Notifications at the start and every hour: what another process, or nobody, told of.

use std::time::Duration;

use kube::{Api, Client, api::ListParams};
use tokio::{sync::mpsc, time::sleep};
use tracing::warn;

use super::deadlines::{Due, Rules};
use crate::{
    api::Phase,
    controller::{in_namespace, in_time, stored::Stored},
    dispatch::Backoff,
};

/// From the end of one listing to the begin of the next.
const EVERY: Duration = Duration::from_secs(3600);
/// The waits after a listing that broke off.
const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(60) };
/// Pages of this many objects, which may be large: they come with their events.
const PAGE: u32 = 32;

/// News of a listing.
pub enum Listed {
    /// One begins, from the start.
    Begun,
    /// A page: how many there are, and those that are to be deleted.
    Page(i64, Vec<Due>),
    /// All were shown.
    Complete,
}

/// Lists again and again.
pub struct Lister {
    /// Reads.
    pub client: Client,
    /// Where: one namespace, or all (None).
    pub namespaces: Vec<Option<String>>,
    /// Which of them are to be deleted.
    pub rules: Rules,
    /// Who is told. The next page is read once this one was taken.
    pub told: mpsc::Sender<Listed>,
}

/// Why a listing broke off.
enum BrokenOff {
    Api(kube::Error),
    /// Nobody listens any more.
    Unheard,
}

impl Lister {
    /// Lists at once, and then every hour.
    pub async fn run(self) {
        let mut failures = 0;
        loop {
            match self.list().await {
                Ok(()) => {
                    failures = 0;
                    sleep(EVERY).await;
                }
                Err(BrokenOff::Api(error)) => {
                    warn!(%error, "listing the finished Notifications; it begins anew");
                    failures += 1;
                    sleep(BACKOFF.wait(failures, rand::random())).await;
                }
                Err(BrokenOff::Unheard) => return,
            }
        }
    }

    async fn list(&self) -> Result<(), BrokenOff> {
        self.tell(Listed::Begun).await?;
        for namespace in &self.namespaces {
            let api = in_namespace(&self.client, namespace.as_deref());
            for phase in [Phase::Delivered, Phase::Failed] {
                self.list_phase(&api, phase).await?;
            }
        }
        self.tell(Listed::Complete).await
    }

    /// No version is named, so the first page is a consistent read and the others show the same moment.
    async fn list_phase(&self, api: &Api<Stored>, phase: Phase) -> Result<(), BrokenOff> {
        let mut params = ListParams::default().fields(&format!("status.phase={}", phase.as_str())).limit(PAGE);
        loop {
            let page = in_time(api.list(&params)).await.map_err(BrokenOff::Api)?;
            let count = i64::try_from(page.items.len()).unwrap_or(i64::MAX);
            let due = page.items.into_iter().filter_map(|stored| self.due(stored)).collect();
            self.tell(Listed::Page(count, due)).await?;
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    fn due(&self, stored: Stored) -> Option<Due> {
        let at = self.rules.deadline_of(&stored)?;
        let metadata = stored.metadata;
        Some(Due { at, uid: metadata.uid?.into(), namespace: metadata.namespace?.into(), name: metadata.name?.into() })
    }

    async fn tell(&self, news: Listed) -> Result<(), BrokenOff> {
        self.told.send(news).await.map_err(|_| BrokenOff::Unheard)
    }
}
