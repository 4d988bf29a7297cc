//! Why the operator does not run, or ends.

use std::{io, net::SocketAddr};

use tidings_delivery::egress::NoRoots;

/// Why the operator does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cluster is configured.
    #[error("no Kubernetes cluster is configured: set KUBECONFIG, or run inside a cluster ({0})")]
    Config(#[from] kube::config::InferConfigError),
    /// The client could not be made.
    #[error("the Kubernetes client: {0}")]
    Client(#[source] kube::Error),
    /// The API server refuses what the operator needs.
    #[error("the API server: {0}")]
    Api(#[source] kube::Error),
    /// The CustomResourceDefinitions are missing or too old.
    #[error("the CustomResourceDefinitions of {group} are missing or too old: apply the crds/ of this version ({source})", group = tidings_api::GROUP)]
    Crds {
        /// What the API server said.
        source: kube::Error,
    },
    /// The certificate authorities that an administrator named cannot be read.
    #[error(transparent)]
    Roots(#[from] NoRoots),
    /// An address of the operator's own cannot be used.
    #[error("{flag} {address}: {source}")]
    Address {
        /// The flag that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A part that works until the end has ended: there is a bug, and its panic is in the log.
    #[error("a part of the operator ended by itself; the log says why")]
    PartEnded,
    /// Another operator took over.
    #[error("{holder} leads now: this operator ends, so that it starts anew and stands by")]
    LeaseLost {
        /// Who leads.
        holder: String,
    },
    /// Signals cannot be received.
    #[error("receiving signals: {0}")]
    Signals(#[source] io::Error),
}
