//! The control plane that all tests of this binary share, with the CRDs installed. Each test has its own namespace.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use testkit::ControlPlane;

/// The shared control plane.
pub async fn cluster() -> &'static ControlPlane {
    let plane = ControlPlane::shared().await.unwrap();
    testkit::chart::install_crds_once(plane).await.unwrap();
    plane
}

/// Applies `crds/` and waits until the API server serves them.
pub async fn install_crds(plane: &ControlPlane) {
    testkit::chart::install_crds(plane.admin()).await.unwrap();
}

/// The client configuration of a kubeconfig.
pub async fn config(kubeconfig: &Path) -> Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// A unique name for a namespace, starting with `name`.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Creates a namespace with a unique name that starts with `name`.
pub async fn namespace(plane: &ControlPlane, name: &str) -> String {
    let name = unique(name);
    plane.kubectl(&["create", "namespace", &name]).await.unwrap().ok().unwrap();
    name
}

/// The chart rendered by Helm for a release `tidings` in `namespace`.
pub fn render_chart(namespace: &str, args: &[&str]) -> Result<String, String> {
    testkit::chart::render(namespace, args).map_err(|error| error.to_string())
}

/// The root folder of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The manifests in a folder of the repository, each with name and content.
pub fn files(folder: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no manifests in {folder}");
    files
}
