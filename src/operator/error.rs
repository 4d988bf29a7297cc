//! Why the operator cannot run, or stops.

use std::{io, net::SocketAddr};

use tidings_delivery::egress::{InvalidProxy, NoRoots};

use crate::cluster::call::plain;

/// Why the operator cannot run, or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cluster is configured.
    #[error("no Kubernetes cluster is configured: set KUBECONFIG, or run inside a cluster ({})", unquoted(.0))]
    Config(#[from] kube::config::InferConfigError),
    /// The Kubernetes client could not be created.
    #[error("cannot create the Kubernetes client: {}", plain(.0))]
    Client(#[source] kube::Error),
    /// The API server refused a request that the operator depends on, or did not respond.
    #[error("{}", of_request(.0))]
    Api(#[source] kube::Error),
    /// The CustomResourceDefinitions are missing or too old.
    #[error("the CustomResourceDefinitions of {group} are missing or too old: apply the crds/ of this version ({why})", group = tidings_api::GROUP, why = plain(source))]
    Crds {
        /// The error of the API server.
        source: kube::Error,
    },
    /// This account lacks permissions that the operator needs.
    #[error(
        "the API server does not let this account do what the operator does: {missing}: grant it the Role or ClusterRole of the chart"
    )]
    Permissions {
        /// What is missing.
        missing: String,
    },
    /// The certificate authorities that an administrator named cannot be read.
    #[error(transparent)]
    Roots(#[from] NoRoots),
    /// The egress proxy cannot be used as the flags say.
    #[error(transparent)]
    Proxy(#[from] InvalidProxy),
    /// The operator cannot listen on one of its addresses.
    #[error("cannot listen on {address} ({flag}): {source}")]
    Address {
        /// The flag that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// A part that must run until the operator stops has ended. This is a bug; its panic is in the log.
    #[error("a part of the operator stopped unexpectedly; see the panic in the log")]
    PartEnded,
    /// Another operator took the Lease over.
    #[error("lost leadership to {holder}; exiting to restart as standby")]
    LeaseLost {
        /// The identity of the new leader.
        holder: String,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] io::Error),
}

fn of_request(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(_) => format!("the API server refused a request: {}", plain(error)),
        _ => format!("cannot reach the API server: {}: check that the cluster of KUBECONFIG runs", plain(error)),
    }
}

/// The client library prints a path as `'"/path"'`: the quotes of debug output inside its own.
fn unquoted(error: &kube::config::InferConfigError) -> String {
    error.to_string().replace("'\"", "'").replace("\"'", "'")
}
