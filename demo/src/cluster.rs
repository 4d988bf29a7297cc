//! The cluster of the demo: one of its own, or the one that `KUBECONFIG` names.

use std::env;
use std::path::PathBuf;

use testkit::control_plane::Kubectl;
use testkit::stage::Cluster;
use testkit::{ControlPlane, Result};

use crate::say::say;

/// Where the examples are applied.
pub(crate) const NAMESPACE: &str = "tidings-demo";

/// Starts a control plane, or finds the cluster of `KUBECONFIG`.
pub(crate) async fn open() -> Result<Cluster> {
    match env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
        Some(kubeconfig) => {
            let kubectl = Kubectl::of_user(&PathBuf::from(kubeconfig));
            let context = kubectl.run(&["config", "current-context"]).await?.ok()?;
            say(format!("Using the cluster of KUBECONFIG, context {}", context.trim()));
            say("The operator, the webhook and the token service run on this machine, not in the cluster");
            say(format!("The namespace {NAMESPACE} is the demo's own: it is emptied now and removed at the end"));
            Ok(kubectl.into())
        }
        None => {
            say("Starting a control plane of its own: etcd and kube-apiserver on 127.0.0.1");
            Ok(ControlPlane::start().await?.into())
        }
    }
}

/// A cluster of its own ends with the process; another one is left as it was, but for the definitions.
pub(crate) async fn clear(cluster: &Cluster) -> Result<()> {
    if let Cluster::Existing(kubectl) = cluster {
        say(format!("Removing the namespace {NAMESPACE}; the CustomResourceDefinitions stay"));
        kubectl.run(&["delete", "namespace", NAMESPACE, "--wait=false"]).await?.ok()?;
    }
    Ok(())
}
