//! Runs the real kubectl, as a user would.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::binaries;
use crate::error::{Error, Result};

/// The time limit of every command, whatever it waits for.
const LIMIT: Duration = Duration::from_secs(120);

/// kubectl with a kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// The cache folder of kubectl; the default folder if absent.
    cache: Option<PathBuf>,
}

/// The output and result of a kubectl command.
#[derive(Clone, Debug)]
pub struct Output {
    /// Whether the exit code was 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error: warnings and refusals.
    pub stderr: String,
    command: String,
}

impl Kubectl {
    /// The control plane's kubectl (otherwise the kubectl on the `PATH`) with a kubeconfig of the kit, in a folder of
    /// the kit.
    #[must_use]
    pub fn new(kubeconfig: &Path) -> Self {
        // Next to the kubeconfig, so that the home folder does not fill up with the caches of removed control planes.
        let cache = kubeconfig.parent().map(|folder| folder.join("cache"));
        Self { cache, ..Self::of_user(kubeconfig) }
    }

    /// The same with the kubeconfig of a user: a path, or several paths in the format of `KUBECONFIG`.
    #[must_use]
    pub fn of_user(kubeconfig: &Path) -> Self {
        let program = binaries::find("kubectl").unwrap_or_else(|_| PathBuf::from("kubectl"));
        Self { program, kubeconfig: kubeconfig.to_owned(), cache: None }
    }

    /// The path of the program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The path of the kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl with these arguments.
    ///
    /// # Errors
    /// When kubectl cannot be started or does not exit in time. A failed command is not an error: see
    /// [`Output::success`].
    pub async fn run(&self, args: &[&str]) -> Result<Output> {
        self.run_with_input(args, "").await
    }

    /// Runs kubectl with these arguments and `input` on its standard input, for `-f -`.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub async fn run_with_input(&self, args: &[&str], input: &str) -> Result<Output> {
        let mut kubectl = Command::new(&self.program);
        kubectl.args(args);
        self.finish(kubectl, format!("kubectl {}", args.join(" ")), input).await
    }

    /// Runs the commands of a page in `folder` with bash, which stops at the first command that fails. kubectl uses this
    /// kubeconfig.
    ///
    /// # Errors
    /// As [`Kubectl::run`] and [`binaries::search_path`].
    pub async fn shell(&self, folder: &Path, script: &str) -> Result<Output> {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", script]).current_dir(folder).env("PATH", binaries::search_path()?);
        self.finish(bash, script.to_owned(), "").await
    }

    /// Runs `command`, described by `shown`, with this kubeconfig and `input` on its standard input.
    async fn finish(&self, mut command: Command, shown: String, input: &str) -> Result<Output> {
        let run = async {
            let mut child = command
                .env("KUBECONFIG", &self.kubeconfig)
                .envs(self.cache.iter().map(|cache| ("KUBECACHEDIR", cache)))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let mut stdin = child.stdin.take().expect("stdin is piped");
            let write = async move {
                // A command that does not read its input closes the pipe, which is not an error.
                let _ = stdin.write_all(input.as_bytes()).await;
                drop(stdin);
            };
            let ((), output) = tokio::join!(write, child.wait_with_output());
            output
        };
        let output = timeout(LIMIT, run)
            .await
            .map_err(|_error| Error::new(format!("`{shown}` is still running after {LIMIT:?}")))?
            .map_err(|error| Error::new(format!("cannot run `{shown}` ({}): {error}", self.program.display())))?;
        Ok(Output {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            command: shown,
        })
    }

    /// `kubectl apply -f -` with further arguments (`-n NAMESPACE`, `--server-side`).
    ///
    /// # Errors
    /// When the command fails, with the output of kubectl; and as [`Kubectl::run`].
    pub async fn apply(&self, manifests: &str, args: &[&str]) -> Result<String> {
        let args = [&["apply", "-f", "-"], args].concat();
        self.run_with_input(&args, manifests).await?.ok()
    }
}

impl Output {
    /// Returns the standard output of a command that must succeed.
    ///
    /// # Errors
    /// When the command failed, with its output.
    pub fn ok(self) -> Result<String> {
        match self.success {
            true => Ok(self.stdout),
            false => Err(Error::new(format!("`{}` failed\n{}{}", self.command, self.stdout, self.stderr))),
        }
    }
}
