//! The process of the operator: signals and open files.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

use super::Error;

/// The signals that stop the operator.
pub(super) struct Signals {
    terminated: Signal,
    interrupted: Signal,
}

impl Signals {
    /// Receives SIGTERM and SIGINT from now on; they no longer end the process.
    pub(super) fn receive() -> Result<Self, Error> {
        let of = |kind| signal(kind).map_err(Error::Signals);
        Ok(Self { terminated: of(SignalKind::terminate())?, interrupted: of(SignalKind::interrupt())? })
    }

    /// Returns when a signal comes.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminated.recv() => {}
            _ = self.interrupted.recv() => {}
        }
    }
}

/// Raises the limit of open files to what the system allows. Each connection needs one.
pub(super) fn raise_descriptor_limit(max_in_flight: usize) {
    /// File descriptors for watches, idle connections and files.
    const BESIDES: u64 = 512;
    let needed = u64::try_from(max_in_flight).unwrap_or(u64::MAX).saturating_add(BESIDES);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < needed => warn!(
            limit,
            needed,
            "the limit of open files is too low for --max-in-flight: raise it (ulimit -Hn), or lower --max-in-flight"
        ),
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot raise the limit of open files"),
    }
}
