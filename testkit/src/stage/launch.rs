//! Configures and starts an operator.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Result;
use crate::operator::Operator;

/// The configuration of an operator to start: its program, permissions and flags.
#[derive(Clone, Debug)]
pub struct Launch {
    binary: PathBuf,
    kubeconfig: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: Option<PathBuf>,
}

impl Launch {
    /// The operator `binary` with the permissions of `kubeconfig`.
    pub(super) fn new(binary: &Path, kubeconfig: &Path) -> Self {
        let (binary, kubeconfig) = (binary.to_owned(), kubeconfig.to_owned());
        Self { binary, kubeconfig, args: Vec::new(), env: Vec::new(), log: None }
    }

    /// Adds flags and their values.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Allows deliveries to loopback, where the endpoints of the kit listen.
    #[must_use]
    pub fn to_loopback(self) -> Self {
        self.args(&["--egress-allow-cidr", "127.0.0.0/8"])
    }

    /// Enables leader election with a Lease in this namespace.
    #[must_use]
    pub fn lease_in(self, namespace: &str) -> Self {
        self.args(&["--lease-namespace", namespace])
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses another kubeconfig, for example to connect to the API server through a proxy.
    #[must_use]
    pub fn kubeconfig(mut self, kubeconfig: &Path) -> Self {
        kubeconfig.clone_into(&mut self.kubeconfig);
        self
    }

    /// Writes the log to this file, which outlives the operator.
    #[must_use]
    pub fn log_to(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    /// Starts the operator.
    ///
    /// # Errors
    /// As [`Operator::start`].
    pub async fn start(&self) -> Result<Operator> {
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        let env: Vec<_> = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match &self.log {
            Some(log) => Operator::start_logging_to(log, &self.binary, &self.kubeconfig, &args, &env).await,
            None => Operator::start(&self.binary, &self.kubeconfig, &args, &env).await,
        }
    }

    /// Starts the operator and waits until it is ready.
    ///
    /// # Errors
    /// As [`Operator::start`] and [`Operator::ready`].
    pub async fn ready(&self, limit: Duration) -> Result<Operator> {
        let operator = self.start().await?;
        operator.ready(limit).await?;
        Ok(operator)
    }
}
