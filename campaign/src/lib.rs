//! The fault campaign: the whole operator, three times, on a real control plane, under load, while everything goes
//! wrong that `docs/delivery.md` promises to survive; then a checker joins what was accepted, what arrived and what was
//! recorded.

// A test library: a broken invariant of the campaign itself should stop it at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod checker;
mod client;
mod credentials;
mod faults;
mod findings;
mod history;
mod install;
mod lease;
mod many;
mod others;
mod plan;
mod random;
mod record;
mod relist;
mod replicas;
mod report;
mod rights;
mod spaces;
mod stage;
mod webhooks;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use testkit::{Error, Result};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, sleep_until, timeout};

use self::plan::plan;
use self::random::Random;
use self::record::Record;
pub use self::report::Report;
use self::stage::Stage;

/// All that is needed runs within this.
const SET_LIMIT: Duration = Duration::from_secs(180);
/// After the last fault everything must be finished within this.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);
/// And what the last listing brings, within this.
const LAST_LIMIT: Duration = Duration::from_secs(80);
/// What is up to heal, and what is still on its way, takes no longer.
const REST_LIMIT: Duration = Duration::from_secs(180);
/// What arrives when nothing should arrive any more, arrives within this.
const QUIET: Duration = Duration::from_secs(3);
/// How often the counts are printed.
const COUNTS_EVERY: Duration = Duration::from_secs(10);

/// What a campaign is.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The operator's binary.
    pub binary: PathBuf,
    /// The faults, their times and the load follow from it.
    pub seed: u64,
    /// How long there are faults and load.
    pub duration: Duration,
    /// Notifications created each second.
    pub rate: u32,
    /// Faults whose description holds one of these texts come alone; none: all.
    pub only: Vec<String>,
    /// Where to leave logs and records; made if it is not there.
    pub folder: PathBuf,
}

impl Campaign {
    /// Runs the campaign and reports its progress to `say`, one line at a time.
    ///
    /// # Errors
    /// When the campaign could not run to its end. Findings are in the report, not in the error. What logs and records
    /// there are by then are in the folder.
    pub async fn run(&self, say: impl Fn(&str) + Send + Sync + 'static) -> Result<Report> {
        fs::create_dir_all(&self.folder)?;
        say("starting etcd, kube-apiserver, a webhook, a token service, three operators, and proxies between them");
        let stage = Stage::set(&self.binary, self.seed, &self.folder);
        let stage = Arc::new(within(SET_LIMIT, "starting", stage).await?);
        let began = Instant::now();
        let say = Arc::new(say);
        let report = move |what: String| say(&format!("{:>6.1} s  {what}", began.elapsed().as_secs_f32()));
        let supervised = Arc::clone(&stage);
        let mut background = JoinSet::new();
        background.spawn(async move { supervised.replicas.supervise().await });
        background.spawn(counts(Arc::clone(&stage), report.clone()));
        let limit = self.duration + SETTLE_LIMIT + LAST_LIMIT + REST_LIMIT;
        let result = within(limit, "the campaign", Box::pin(self.disturb(&stage, began, report))).await;
        let complete = stage.finish().await;
        background.shutdown().await;
        let record = stage.record.lock().unwrap().clone();
        self.leave(&record)?;
        let (faults, settled) = result?;
        complete?;
        let findings = checker::check(&record);
        let treated = stage.api.treated();
        let report = Report { seed: self.seed, duration: self.duration, settled, faults, treated, findings };
        fs::write(self.folder.join("report.txt"), report.to_string())?;
        let violations = report.findings.violations.iter().map(|violation| format!("{violation}\n"));
        fs::write(self.folder.join("violations.txt"), violations.collect::<String>())?;
        Ok(report)
    }

    /// Faults and load, then neither, until all is finished. Returns how many faults, and how long the last part took.
    async fn disturb(
        &self,
        stage: &Arc<Stage>,
        began: Instant,
        report: impl Fn(String) + Clone + Send + 'static,
    ) -> Result<(usize, Duration)> {
        let mut load = JoinSet::new();
        load.spawn(others::create(Arc::clone(stage), self.rate, self.duration));
        let meddling = [load.spawn(others::meddle(Arc::clone(stage))), load.spawn(others::nap(Arc::clone(stage)))];
        let mut faults = JoinSet::new();
        let steps = plan(self.seed, self.duration, &self.only);
        for (number, step) in (0..).zip(&steps) {
            sleep_until((began + step.at).into()).await;
            report(format!("{}", step.fault));
            let (stage, fault) = (Arc::clone(stage), step.fault);
            faults.spawn(async move { faults::make(&stage, number, fault).await });
        }
        sleep_until((began + self.duration).into()).await;
        report("the faults end".to_owned());
        meddling.iter().for_each(AbortHandle::abort);
        // A fault that is aborted midway is unmade by what follows.
        faults.shutdown().await;
        stage.heal().await?;
        rights::give_back(stage).await;
        let healed = Instant::now();
        let settled = async {
            others::suspend(stage, false).await;
            while load.join_next().await.is_some() {}
            rights::sweep(stage).await;
            others::settle(stage, SETTLE_LIMIT, report.clone()).await;
            // One more of this kind, which no other fault covers up.
            let last = u64::try_from(steps.len()).unwrap_or_default();
            Box::pin(relist::relist(stage, last, Random::of(self.seed, "fault", last))).await;
            others::settle(stage, LAST_LIMIT, report.clone()).await
        };
        let open = settled.await;
        report(match open.len() {
            0 => "everything is finished".to_owned(),
            count => format!("{count} are not finished: {}", open[..count.min(10)].join(", ")),
        });
        let settled = healed.elapsed();
        // What a fault held up may arrive long after it.
        while stage.api.held() > 0 {
            sleep(QUIET).await;
        }
        sleep(QUIET).await;
        Ok((steps.len(), settled))
    }

    /// Leaves the records in the folder, where the logs are from the beginning.
    fn leave(&self, record: &Record) -> Result<()> {
        let text = |lines: Vec<String>| lines.join("\n") + "\n";
        let posts = record.posts.iter().map(|post| format!("{} {} {:?}", post.arrived, post.id, post.answered));
        fs::write(self.folder.join("posts.txt"), text(posts.collect()))?;
        let changes = record.changes.iter().flat_map(|(id, changes)| {
            changes.iter().map(move |change| format!("{id} {} {:?}", change.at, change.state))
        });
        fs::write(self.folder.join("changes.txt"), text(changes.collect()))?;
        let mut rest = record.clone();
        (rest.posts, rest.changes, rest.listed) = Default::default();
        fs::write(self.folder.join("rest.txt"), format!("{rest:#?}\n"))?;
        Ok(())
    }
}

/// What takes longer has failed.
async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(Error::new(format!("{what} has no end after {limit:?}"))))
}

/// Prints the counts periodically, until it is dropped.
async fn counts(stage: Arc<Stage>, report: impl Fn(String) + Send) {
    loop {
        sleep(COUNTS_EVERY).await;
        let created = stage.record.lock().unwrap().accepted.len();
        let (arrived, open) = (stage.receiver().requests().len(), stage.history.unfinished().len());
        report(format!("{created} created, {open} of them not finished, {arrived} requests arrived"));
    }
}
