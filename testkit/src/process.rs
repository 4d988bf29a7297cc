//! Runs child processes that never outlive the process that started them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::error::{Error, Result};

/// Runs the program `$2…` with its output appended to `$1`, and prints its pid and, after it has exited, its exit code.
///
/// The standard input of this guard is a pipe whose other end only this process holds. The kernel closes that end when
/// this process ends, even on SIGKILL. Then the guard kills its whole process group: the program, the program's
/// children, and itself.
const GUARD: &str = r#"
log=$1; shift
exec 3<&0 </dev/null
"$@" >>"$log" 2>&1 3<&- &
pid=$!
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
exec 3<&-
echo "$pid"
wait "$pid"
echo "$?"
"#;

/// What to run: a program with its arguments, environment and log file.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    log: PathBuf,
}

/// A program that is running or has exited. It is killed when it is dropped or when this process ends.
#[derive(Debug)]
pub struct Process {
    program: Program,
    pid: u32,
    exit: watch::Receiver<Option<i32>>,
    /// The pipe to the guard: closing it kills the program.
    _lifeline: ChildStdin,
}

impl Program {
    /// A program that runs `path`, is called `name` in error messages, and appends standard output and error to `log`.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), args: Vec::new(), env: Vec::new(), log: log.into() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds an environment variable to those of this process.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }
}

impl Process {
    /// Starts the program.
    ///
    /// # Errors
    /// When the guard cannot be started. A program that does not exist "exits" with code 127.
    pub async fn start(program: Program) -> Result<Self> {
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&program.log)
            .arg(&program.path)
            .args(&program.args)
            .envs(program.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A separate group: the guard kills all of it, and Ctrl-C in a terminal reaches only this process.
            .process_group(0)
            .spawn()
            .map_err(|error| Error::new(format!("cannot start {}: {error}", program.name)))?;
        let lifeline = guard.stdin.take().expect("stdin is piped");
        let (pid_to, pid) = oneshot::channel();
        let (exit_to, exit) = watch::channel(None);
        // A thread rather than a task: the process may outlive the runtime of the test that started it.
        thread::spawn(move || follow(guard, pid_to, &exit_to));
        let pid = pid.await.map_err(|_error| Error::new(format!("the guard of {} exited early", program.name)))?;
        Ok(Self { program, pid, exit, _lifeline: lifeline })
    }

    /// The process id of the program itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal by its name: `STOP`, `CONT`, `KILL`, `TERM`.
    ///
    /// # Errors
    /// When the program has exited.
    pub async fn signal(&self, signal: &str) -> Result<()> {
        if let Some(code) = self.exit_code() {
            return Err(Error::new(format!(
                "cannot send {signal} to {}: it exited with code {code}",
                self.program.name
            )));
        }
        let script = r#"kill -s "$1" "$2""#;
        let mut kill = tokio::process::Command::new("sh");
        let status = kill.args(["-c", script, "kill", signal]).arg(self.pid.to_string()).status().await?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::new(format!("kill -s {signal} for {} failed", self.program.name))),
        }
    }

    /// The exit code if the program has exited, as a shell reports it: 128 + n if signal n killed it.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        *self.exit.borrow()
    }

    /// Waits until the program has exited and returns its exit code, as [`Process::exit_code`].
    ///
    /// # Errors
    /// When it is still running after `limit`.
    pub async fn wait(&self, limit: Duration) -> Result<i32> {
        let mut exit = self.exit.clone();
        match timeout(limit, exit.wait_for(Option::is_some)).await {
            Ok(Ok(code)) => Ok(code.unwrap_or_default()),
            Ok(Err(_)) => Err(Error::new(format!("the guard of {} was killed", self.program.name))),
            Err(_) => Err(Error::new(format!(
                "{} is still running after {limit:?}\n{}",
                self.program.name,
                self.log_tail(20)
            ))),
        }
    }

    /// Kills the program with SIGKILL and waits until it has exited. Does nothing if it has exited already.
    ///
    /// # Errors
    /// When it does not exit within ten seconds.
    pub async fn kill(&self) -> Result<()> {
        if self.exit_code().is_none() && self.signal("KILL").await.is_err() && self.exit_code().is_none() {
            return Err(Error::new(format!("cannot kill {}", self.program.name)));
        }
        self.wait(Duration::from_secs(10)).await.map(drop)
    }

    /// Kills the program if it is running and starts it again with the same arguments. The log continues in the same
    /// file.
    ///
    /// # Errors
    /// As [`Process::kill`] and [`Process::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        *self = Self::start(self.program.clone()).await?;
        Ok(())
    }

    /// The log file.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.program.log
    }

    /// The whole output of the program so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.program.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The last lines of the log with a heading, for error messages.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let skip = log.lines().count().saturating_sub(lines);
        let tail: Vec<_> = log.lines().skip(skip).collect();
        format!("--- {}, last lines of {}:\n{}", self.program.name, self.program.log.display(), tail.join("\n"))
    }
}

/// Reads the output of the guard: the pid, then the exit code. Returns after the guard has exited.
fn follow(mut guard: Child, pid_to: oneshot::Sender<u32>, exit_to: &watch::Sender<Option<i32>>) {
    let printed = BufReader::new(guard.stdout.take().expect("stdout is piped"));
    let mut numbers = printed.lines().map_while(|line| line.ok()?.parse::<i32>().ok());
    if let Some(pid) = numbers.next().and_then(|pid| u32::try_from(pid).ok()) {
        // If the test was canceled while it started the program, the receivers are gone.
        let _ = pid_to.send(pid);
    }
    if let Some(code) = numbers.next() {
        let _ = exit_to.send(Some(code));
    }
    let _ = guard.wait();
}
