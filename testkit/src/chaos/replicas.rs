//! Two operators that take turns by a Lease, each with a way of its own to the API server, and what keeps them running.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::sleep;

use std::sync::Arc;

use super::stage::NAMESPACE;
use crate::api_proxy::ApiProxy;
use crate::control_plane::ControlPlane;
use crate::error::{Error, Result};
use crate::loopback::get;
use crate::operator::Operator;
use crate::tcp_proxy::TcpProxy;

/// An operator that ended is started again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// How each begins the name under which it holds the Lease.
pub(crate) const NAMES: [&str; 2] = ["first", "second"];
/// What both are told.
const FLAGS: [&str; 6] =
    ["--watch-namespace", NAMESPACE, "--lease-namespace", NAMESPACE, "--egress-allow-cidr", "127.0.0.0/8"];

/// See the module.
pub(crate) struct Replicas([Replica; 2]);

struct Replica {
    operator: Arc<Mutex<Operator>>,
    link: TcpProxy,
}

impl Replicas {
    /// Starts both with the rights of a token; their logs are in the folder `logs`.
    pub(crate) async fn start(
        binary: &Path,
        plane: &ControlPlane,
        api: &ApiProxy,
        token: &str,
        logs: &Path,
    ) -> Result<Self> {
        let start = async |name: &'static str| {
            let link = TcpProxy::start(api.address()).await?;
            let kubeconfig = plane.kubeconfig_through(name, link.address(), api.ca_file(), Some(token))?;
            let log = logs.join(format!("operator-{name}.log"));
            let operator = Operator::start_logging_to(&log, binary, &kubeconfig, &FLAGS, &[("HOSTNAME", name)]).await?;
            Ok::<_, Error>(Replica { operator: Arc::new(Mutex::new(operator)), link })
        };
        Ok(Self([start(NAMES[0]).await?, start(NAMES[1]).await?]))
    }

    /// Starts again whoever ended, for ever.
    pub(crate) async fn supervise(&self) {
        loop {
            for replica in &self.0 {
                let mut operator = replica.operator.lock().await;
                if operator.process().exit_code().is_some() {
                    // It fails only when the machine has no more processes; then it is tried again.
                    let _ = operator.restart().await;
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Holds the process of one: nobody else signals or restarts it meanwhile.
    pub(crate) async fn hold(&self, number: usize) -> OwnedMutexGuard<Operator> {
        Arc::clone(&self.0[number].operator).lock_owned().await
    }

    /// The way to the API server of one.
    pub(crate) fn link(&self, number: usize) -> &TcpProxy {
        &self.0[number].link
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &TcpProxy> {
        self.0.iter().map(|replica| &replica.link)
    }

    /// When one of them began to lead, by what they logged.
    pub(crate) async fn takeovers(&self) -> Vec<Timestamp> {
        let logs = [self.hold(0).await.logs(), self.hold(1).await.logs()];
        let mut takeovers: Vec<_> = logs
            .iter()
            .flat_map(|log| log.lines())
            .filter(|line| line.contains("this operator leads"))
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect();
        takeovers.sort_unstable();
        takeovers
    }

    /// Has both go on, if they were stopped.
    pub(crate) async fn go_on(&self) {
        for number in 0..self.0.len() {
            // One that ended needs no signal.
            let _ = self.hold(number).await.process().signal("CONT").await;
        }
    }

    /// Waits until one of them leads.
    pub(crate) async fn lead(&self, limit: Duration) -> Result<()> {
        let wait = async {
            while !self.0[0].leads().await && !self.0[1].leads().await {
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(limit, wait).await.map_err(|_| Error::new(format!("no operator leads after {limit:?}")))
    }
}

impl Replica {
    /// Whether it says that it leads; one that is stopped says nothing.
    async fn leads(&self) -> bool {
        let admin = self.operator.lock().await.admin_address();
        let metrics = get(admin, "/metrics", Duration::from_millis(500)).await;
        metrics.is_ok_and(|(_, metrics)| metrics.lines().any(|line| line == "tidings_leading 1"))
    }
}
