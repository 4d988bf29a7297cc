//! What the operator needs of its process: signals, open files.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

use super::Error;

/// The signals that end the operator.
pub(super) struct Signals {
    terminated: Signal,
    interrupted: Signal,
}

impl Signals {
    /// From now on SIGTERM and SIGINT are received here, and do not end the process.
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

/// Allows this process as many file descriptors as the system lets it have; a connection takes one.
pub(super) fn raise_descriptor_limit(max_in_flight: usize) {
    /// Watches, idle connections, files.
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
