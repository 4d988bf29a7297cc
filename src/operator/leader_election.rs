//! Leader election from the view of this process: standing by, leading, and releasing the Lease.

use std::sync::Arc;

use tokio::task::{JoinError, JoinHandle};

use super::Error;
use crate::{
    cluster::SingleTry,
    metrics::Metrics,
    ownership::{Candidate, Leadership},
};

/// How this process becomes the leader and stops being the leader.
pub(super) struct LeaderElection {
    leadership: Leadership,
    /// None: no leader election; the operator runs as a single replica.
    candidate: Option<Arc<Candidate>>,
    /// Returns the identity of the operator that leads now.
    lost: JoinHandle<String>,
}

impl LeaderElection {
    /// Starts to stand by for the Lease with this namespace and name. Without a Lease, the operator leads immediately.
    pub(super) fn begin(lease: Option<&(String, String)>, client: &SingleTry, metrics: &Metrics) -> Self {
        let candidate =
            lease.map(|(namespace, name)| Candidate::new(client, namespace, name, identity(), metrics.clone()));
        let candidate = candidate.map(Arc::new);
        let leadership = candidate.as_ref().map_or_else(Leadership::alone, |candidate| candidate.leadership());
        // In a separate task, so that renewals continue while the last attempts in flight end.
        let lease_state = candidate.clone();
        let lost = tokio::spawn(async move {
            match lease_state {
                Some(candidate) => candidate.run().await,
                None => std::future::pending().await,
            }
        });
        Self { leadership, candidate, lost }
    }

    pub(super) fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    pub(super) fn has_lease(&self) -> bool {
        self.candidate.is_some()
    }

    /// Stands by until this operator leads (true), or must stop before that (false).
    pub(super) async fn gained(&mut self, ends: impl Future<Output = ()>) -> Result<bool, Error> {
        let mut leadership = self.leadership();
        tokio::select! {
            () = leadership.regained() => Ok(true),
            // The candidate returns only after it has led.
            error = self.lost() => Err(error),
            () = ends => Ok(false),
        }
    }

    /// Returns when another operator leads.
    pub(super) async fn lost(&mut self) -> Error {
        lost_to((&mut self.lost).await)
    }

    /// Releases the Lease, after the last renewal.
    pub(super) async fn resign(self) {
        let Some(candidate) = self.candidate else { return };
        if !self.lost.is_finished() {
            self.lost.abort();
            drop(self.lost.await);
        }
        candidate.release().await;
    }
}

fn lost_to(holder: Result<String, JoinError>) -> Error {
    holder.map_or(Error::PartEnded, |holder| Error::LeaseLost { holder })
}

/// Returns a name that is unique among all candidates for the Lease, earlier processes in the same Pod included.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "tidings".into());
    format!("{host:.200}_{:016x}", rand::random::<u64>())
}
