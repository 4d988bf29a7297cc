//! Runs the operator as a separate process, as a cluster would.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::loopback::{free_address, get};
use crate::process::{Process, Program};

/// Longer than the operator may take to finish the requests in flight.
const TERMINATION_LIMIT: Duration = Duration::from_secs(75);

/// A running operator. It is killed with SIGKILL when it is dropped or when this process ends.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    admin: SocketAddr,
    health: SocketAddr,
    /// The folder of the log, unless the log must outlive the operator.
    _folder: Option<Folder>,
}

/// Prints the end of the operator's log if the test fails.
impl Drop for Operator {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.process.log_tail(50));
        }
    }
}

impl Operator {
    /// Starts `tidings run` with free ports of 127.0.0.1 as `--admin-addr` and `--health-addr`, followed by `args`, and
    /// with the permissions of `kubeconfig`.
    ///
    /// # Errors
    /// When the process cannot be started. Use [`Operator::ready`] to wait until the operator is ready.
    pub async fn start(binary: &Path, kubeconfig: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<Self> {
        let folder = Folder::new("operator")?;
        let log = folder.path().join("operator.log");
        Self::start_in(Some(folder), Program::new("operator", binary, log), kubeconfig, args, env).await
    }

    /// The same with the log in this file, which outlives the operator.
    ///
    /// # Errors
    /// As [`Operator::start`].
    pub async fn start_logging_to(
        log: &Path,
        binary: &Path,
        kubeconfig: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        Self::start_in(None, Program::new("operator", binary, log), kubeconfig, args, env).await
    }

    async fn start_in(
        folder: Option<Folder>,
        program: Program,
        kubeconfig: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let (admin, health) = (free_address()?, free_address()?);
        let own = ["run", "--admin-addr", &admin.to_string(), "--health-addr", &health.to_string()];
        let program = program.args(own).args(args).env("KUBECONFIG", kubeconfig);
        let program = env.iter().fold(program, |program, (name, value)| program.env(name, value));
        Ok(Self { process: Process::start(program).await?, admin, health, _folder: folder })
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// When the operator is not ready within `limit`, or has exited: with the last lines of its log.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let answer = get(self.health, "/readyz", Duration::from_secs(2)).await;
            if matches!(answer, Ok((200, _))) {
                return Ok(());
            }
            let what = match self.process.exit_code() {
                Some(code) => format!("the operator exited with code {code}"),
                None if Instant::now() > end => format!("the operator is not ready after {limit:?}: {answer:?}"),
                None => {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            return Err(Error::new(format!("{what}\n{}", self.process.log_tail(30))));
        }
    }

    /// The address of the metrics.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The address of the health and readiness probes.
    #[must_use]
    pub fn health_address(&self) -> SocketAddr {
        self.health
    }

    /// The process, for its pid, signals (`STOP`, `CONT`) and log file.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills the operator with SIGKILL and waits until it has exited.
    ///
    /// # Errors
    /// When it does not exit.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill().await
    }

    /// Sends SIGTERM, waits until the operator exits and returns the exit code.
    ///
    /// # Errors
    /// When it has exited already or does not exit in time.
    pub async fn terminate(&self) -> Result<i32> {
        self.process.signal("TERM").await?;
        self.process.wait(TERMINATION_LIMIT).await
    }

    /// Kills the operator if it is running and starts it again with the same arguments. The log continues in the same
    /// file.
    ///
    /// # Errors
    /// As [`Operator::kill`] and [`Operator::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.process.restart().await
    }

    /// The whole log.
    #[must_use]
    pub fn logs(&self) -> String {
        self.process.log()
    }

    /// Fetches `/metrics`.
    ///
    /// # Errors
    /// When there is no response, or its status is not 200.
    pub async fn metrics(&self) -> Result<String> {
        match get(self.admin, "/metrics", Duration::from_secs(5)).await? {
            (200, metrics) => Ok(metrics),
            (status, body) => Err(Error::new(format!("/metrics answered {status}: {body}"))),
        }
    }
}
