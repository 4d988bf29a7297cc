//! Opens the cluster of the demo: a local control plane, or the cluster that `KUBECONFIG` names.

use std::env;
use std::path::PathBuf;

use testkit::control_plane::Kubectl;
use testkit::stage::Cluster;
use testkit::{ControlPlane, Result};

use crate::say::say;

/// The namespace that the examples are applied to.
pub(crate) const NAMESPACE: &str = "tidings-demo";

/// Starts a local control plane, or connects to the cluster of `KUBECONFIG`.
pub(crate) async fn open() -> Result<Cluster> {
    match env::var_os("KUBECONFIG").filter(|value| !value.is_empty()) {
        Some(kubeconfig) => {
            let kubectl = Kubectl::of_user(&PathBuf::from(kubeconfig));
            let context = kubectl.run(&["config", "current-context"]).await?.ok()?;
            say(format!("Using the cluster in KUBECONFIG, context {}", context.trim()));
            say("The operator, the webhook and the token service run on this machine, not in the cluster");
            say(format!("The demo empties the namespace {NAMESPACE} now and removes it at the end"));
            Ok(kubectl.into())
        }
        None => {
            say("Starting a local control plane: etcd and kube-apiserver on 127.0.0.1");
            Ok(ControlPlane::start().await?.into())
        }
    }
}

/// Removes the namespace from a user's cluster; the CustomResourceDefinitions stay. A local control plane stops with
/// this process.
pub(crate) async fn clear(cluster: &Cluster) -> Result<()> {
    if let Cluster::Existing(kubectl) = cluster {
        say(format!("Removing the namespace {NAMESPACE}; the CustomResourceDefinitions stay"));
        kubectl.run(&["delete", "namespace", NAMESPACE, "--wait=false"]).await?.ok()?;
    }
    Ok(())
}
