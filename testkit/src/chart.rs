//! Installs what an administrator installs: the CustomResourceDefinitions, and the chart as Helm renders it.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::binaries;
use crate::control_plane::{ControlPlane, Kubectl};
use crate::error::{Error, Result};

const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");
/// The folder of the chart.
pub const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/tidings");
/// The least that an installation sets.
const VALUES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/tidings/ci/default-values.yaml");

/// The time within which the API server must serve the CustomResourceDefinitions.
const SERVED_LIMIT: Duration = Duration::from_secs(60);

/// Longer than the longest fault campaign.
const TOKEN_LIFE: &str = "--duration=48h";

/// Applies `crds/` and waits until the API server serves them.
///
/// # Errors
/// When kubectl fails.
pub async fn install_crds(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", CRDS]).await?.ok()?;
    let crds = ["crd/subscribers.tidings.dev", "crd/notifications.tidings.dev"];
    let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
    kubectl.run(&[&wait[..], &crds].concat()).await?.ok()?;
    // The API server may refuse the first request for a new kind.
    let end = Instant::now() + SERVED_LIMIT;
    for kind in ["subscribers", "notifications"] {
        let mut output = kubectl.run(&["get", kind]).await?;
        while !output.success && Instant::now() < end {
            output = kubectl.run(&["get", kind]).await?;
        }
        output.ok()?;
    }
    Ok(())
}

/// Applies the CustomResourceDefinitions of External Secrets and of Flux.
///
/// # Errors
/// When they are missing (the error says how to download them), and when kubectl fails.
pub async fn install_gitops_crds(kubectl: &Kubectl) -> Result<()> {
    let file = binaries::tool("crds/gitops.yaml", "TIDINGS_GITOPS_CRDS")?;
    let file = file.to_str().ok_or_else(|| Error::new("the path of the CustomResourceDefinitions is not UTF-8"))?;
    kubectl.run(&["apply", "--server-side", "-f", file]).await?.ok()?;
    let crds = ["crd/externalsecrets.external-secrets.io", "crd/kustomizations.kustomize.toolkit.fluxcd.io"];
    let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
    kubectl.run(&[&wait[..], &crds].concat()).await?.ok().map(drop)
}

/// As [`install_crds`], but only once for each control plane: further calls do nothing.
///
/// # Errors
/// As [`install_crds`].
pub async fn install_crds_once(plane: &ControlPlane) -> Result<()> {
    plane.definitions().get_or_try_init(|| install_crds(plane.admin())).await.copied()
}

/// Installs the chart in `namespace`, for an operator that watches the namespaces `watched`. The
/// CustomResourceDefinitions and the hooks are not installed.
///
/// # Errors
/// As [`render`], and when kubectl fails.
pub async fn install(plane: &ControlPlane, namespace: &str, watched: &[&str]) -> Result<()> {
    let watched = format!("watchNamespaces={{{}}}", watched.join(","));
    let chart = render(namespace, &["--set", &watched, "--set", "crds.install=false", "--no-hooks"])?;
    plane.admin().apply(&chart, &[]).await.map(drop)
}

/// Requests a token of the chart's ServiceAccount (TokenRequest), which has the permissions of the operator.
///
/// # Errors
/// When kubectl fails.
pub async fn token(plane: &ControlPlane, namespace: &str) -> Result<String> {
    let create = ["create", "token", "tidings", "-n", namespace, TOKEN_LIFE];
    Ok(plane.kubectl(&create).await?.ok()?.trim().to_owned())
}

/// Renders the manifests of a release `tidings` in `namespace`, with further arguments for `helm template`.
///
/// # Errors
/// When Helm is missing (the error says how to install it) or rejects the values.
pub fn render(namespace: &str, args: &[&str]) -> Result<String> {
    helm(&["template", "tidings", PATH, "--namespace", namespace, "--values", VALUES], args)
}

/// Renders the notes that Helm prints after the installation of a release `tidings` in `namespace`, with further
/// arguments for `helm install`.
///
/// # Errors
/// As [`render`].
pub fn notes(namespace: &str, args: &[&str]) -> Result<String> {
    let install = ["install", "tidings", PATH, "--namespace", namespace, "--values", VALUES, "--dry-run=client"];
    let printed = helm(&install, args)?;
    Ok(printed.split_once("\nNOTES:\n").map(|(_, notes)| notes.to_owned()).unwrap_or_default())
}

/// Runs Helm with these arguments for a release of the chart on `plane`; a new release needs an image, and
/// `install` and `upgrade` need [`PATH`]. Returns what it prints.
///
/// # Errors
/// As [`helm`].
pub fn release(plane: &ControlPlane, command: &[&str], args: &[&str]) -> Result<String> {
    let kubeconfig = plane.admin_kubeconfig().display().to_string();
    helm(&[command, &["--kubeconfig", &kubeconfig]].concat(), args)
}

/// Runs Helm with these arguments. Returns what it prints.
///
/// # Errors
/// When Helm is missing (the error says how to install it) or fails.
pub fn helm(command: &[&str], args: &[&str]) -> Result<String> {
    let mut helm = Command::new(binaries::tool("bin/helm", "TIDINGS_HELM")?);
    let output = helm.args(command).args(args).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(Error::new(text(&output.stderr))),
    }
}
