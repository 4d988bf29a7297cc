//! Three operators that take turns by a Lease, each with a way of its own to the API server, and what keeps them
//! running.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use testkit::loopback::get;
use testkit::process::Process;
use testkit::{ApiProxy, Error, Operator, Result, Stage, TcpProxy};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::sleep;

use std::sync::Arc;

use crate::record::{Window, close};
use crate::spaces;

/// An operator that ended is started again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// `terminationGracePeriodSeconds` of the chart.
const GRACE: Duration = Duration::from_secs(75);

/// How each begins the name under which it holds the Lease.
pub(crate) const NAMES: [&str; 3] = ["first", "second", "third"];

/// See the module.
pub(crate) struct Replicas([Replica; 3]);

struct Replica {
    running: Arc<Mutex<Running>>,
    link: TcpProxy,
}

/// One operator, and what a kubelet remembers of it.
pub(crate) struct Running {
    operator: Operator,
    /// When the operator received SIGTERM.
    terminated: Option<Instant>,
    /// From SIGTERM until the operator had exited, or was killed.
    ends: Vec<Window>,
}

impl Running {
    pub(crate) fn process(&self) -> &Process {
        self.operator.process()
    }

    /// Starts the grace period. An operator that has exited needs no signal.
    pub(crate) async fn terminate(&mut self) {
        if self.terminated.is_none() && self.process().signal("TERM").await.is_ok() {
            self.terminated = Some(Instant::now());
            self.ends.push(Window::open());
        }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        let has_ended = self.process().exit_code().is_some();
        if has_ended {
            close(&mut self.ends);
        }
        has_ended
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.operator.kill().await
    }

    /// Starts it again if it ended, or if its grace period is over.
    async fn supervise(&mut self) {
        let overstays = self.terminated.is_some_and(|at| at.elapsed() > GRACE);
        if self.has_ended() || overstays {
            close(&mut self.ends);
            self.terminated = None;
            // It fails only when the machine has no more processes; then it is tried again.
            let _ = self.operator.restart().await;
        }
    }
}

impl Replicas {
    /// Starts all for the namespaces of the scene; their logs are in the folder `logs`.
    pub(crate) async fn start(binary: &Path, scene: &Stage, api: &ApiProxy, logs: &Path) -> Result<Self> {
        let launch = scene.operator(binary).to_loopback().lease_in(spaces::CORE);
        let start = async |name: &'static str| {
            let link = TcpProxy::start(api.address()).await?;
            let kubeconfig = scene.kubeconfig_through(name, link.address(), api.ca_file())?;
            let log = logs.join(format!("operator-{name}.log"));
            let operator = launch.clone().kubeconfig(&kubeconfig).log_to(&log).env("HOSTNAME", name).start().await?;
            let running = Running { operator, terminated: None, ends: Vec::new() };
            Ok::<_, Error>(Replica { running: Arc::new(Mutex::new(running)), link })
        };
        let [first, second, third] = NAMES;
        Ok(Self([start(first).await?, start(second).await?, start(third).await?]))
    }

    /// Restarts operators that exit, until it is dropped.
    pub(crate) async fn supervise(&self) {
        loop {
            for replica in &self.0 {
                // A process that a fault holds is not restarted.
                if let Ok(mut running) = replica.running.try_lock() {
                    running.supervise().await;
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Holds the process of one operator: no other fault signals or restarts it.
    pub(crate) async fn hold(&self, number: usize) -> OwnedMutexGuard<Running> {
        Arc::clone(&self.0[number].running).lock_owned().await
    }

    /// The way to the API server of one.
    pub(crate) fn link(&self, number: usize) -> &TcpProxy {
        &self.0[number].link
    }

    /// The numbers of all but one.
    pub(crate) fn others(&self, number: usize) -> Vec<usize> {
        (0..self.0.len()).filter(|other| *other != number).collect()
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &TcpProxy> {
        self.0.iter().map(|replica| &replica.link)
    }

    /// When one of them began to lead, by what they logged.
    pub(crate) async fn takeovers(&self) -> Vec<Timestamp> {
        let mut logs = Vec::new();
        for number in 0..self.0.len() {
            logs.push(self.hold(number).await.operator.logs());
        }
        let mut takeovers: Vec<_> = logs
            .iter()
            .flat_map(|log| log.lines())
            .filter(|line| line.contains("became the leader"))
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect();
        takeovers.sort_unstable();
        takeovers
    }

    /// From SIGTERM to exit, for each operator.
    pub(crate) async fn ends(&self) -> Vec<Window> {
        let mut ends = Vec::new();
        for number in 0..self.0.len() {
            ends.extend(self.hold(number).await.ends.iter().copied());
        }
        ends
    }

    /// Has all go on, if they were stopped.
    pub(crate) async fn go_on(&self) {
        for number in 0..self.0.len() {
            // An operator that has exited needs no signal.
            let _ = self.hold(number).await.process().signal("CONT").await;
        }
    }

    /// Waits until one of them leads.
    pub(crate) async fn lead(&self, limit: Duration) -> Result<()> {
        let wait = async {
            loop {
                for replica in &self.0 {
                    if replica.leads().await {
                        return;
                    }
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(limit, wait)
            .await
            .map_err(|_error| Error::new(format!("no operator leads after {limit:?}")))
    }
}

impl Replica {
    /// Whether the operator reports that it leads; a stopped operator reports nothing.
    async fn leads(&self) -> bool {
        let admin = self.running.lock().await.operator.admin_address();
        let metrics = get(admin, "/metrics", Duration::from_millis(500)).await;
        metrics.is_ok_and(|(_, metrics)| metrics.lines().any(|line| line == "tidings_leading 1"))
    }
}
