//! Where the programs are that the kit starts.

use std::env::consts::{ARCH, OS};
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::error::{Error, Result};

/// Where `make controlplane` puts what it builds: a folder for each version and platform.
const BUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/k8s");

/// Where `make tools` puts the other tools.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/bin");

/// The path of `kube-apiserver`, `etcd` or `kubectl`: in `KUBEBUILDER_ASSETS` where that is set (the convention of
/// envtest), else where `make controlplane` puts them.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    let (folder, remedy) = match env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()) {
        Some(folder) => (PathBuf::from(folder), "KUBEBUILDER_ASSETS must name a folder that holds it"),
        None => (newest_built(), "run `make controlplane`"),
    };
    let path = folder.join(name);
    match path.is_file() {
        true => Ok(path.canonicalize()?),
        false => Err(Error::new(format!("there is no {}: {remedy}", path.display()))),
    }
}

/// The path of a tool that `make tools` builds: what the environment variable names, else its usual place.
pub(crate) fn tool(name: &str, variable: &str) -> Result<PathBuf> {
    let named = env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = named.unwrap_or_else(|| Path::new(TOOLS).join(name));
    match path.is_file() {
        true => Ok(path.canonicalize()?),
        false => Err(Error::new(format!("there is no {}: run `make tools`", path.display()))),
    }
}

/// The folder that was written last for this platform; the folder of all if there is none.
fn newest_built() -> PathBuf {
    let arch = if ARCH == "x86_64" { "amd64" } else { "arm64" };
    let platform = format!("-{OS}-{arch}");
    let entries = fs::read_dir(BUILT).into_iter().flatten().flatten().map(|entry| entry.path());
    let built = entries.filter(|path| path.to_string_lossy().ends_with(&platform));
    let modified = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
    built.max_by_key(modified).unwrap_or_else(|| Path::new(BUILT).to_owned())
}
