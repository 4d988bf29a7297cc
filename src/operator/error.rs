//! Why the operator does not run, or ends.

use std::{io, net::SocketAddr};

use tidings_delivery::egress::NoRoots;

use crate::cluster::call::plain;

/// Why the operator does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cluster is configured.
    #[error("no Kubernetes cluster is configured: set KUBECONFIG, or run inside a cluster ({0})")]
    Config(#[from] kube::config::InferConfigError),
    /// The client could not be made.
    #[error("cannot create the Kubernetes client: {}", plain(.0))]
    Client(#[source] kube::Error),
    /// The API server refuses what the operator needs.
    #[error("request to the API server failed: {}", plain(.0))]
    Api(#[source] kube::Error),
    /// The CustomResourceDefinitions are missing or too old.
    #[error("the CustomResourceDefinitions of {group} are missing or too old: apply the crds/ of this version ({why})", group = tidings_api::GROUP, why = plain(source))]
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
    #[error("a part of the operator stopped unexpectedly; see the panic in the log")]
    PartEnded,
    /// Another operator took over.
    #[error("lost leadership to {holder}; exiting to restart as standby")]
    LeaseLost {
        /// Who leads.
        holder: String,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] io::Error),
}
