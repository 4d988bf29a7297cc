//! Finds the programs that the kit starts.

use std::env::consts::{ARCH, OS};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::error::{Error, Result};

/// The folder in which `make controlplane` creates a folder for each version and platform.
const BUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/k8s");

/// The folder in which `make tools` installs the other tools.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools");

/// The path of `kube-apiserver`, `etcd` or `kubectl`: in `KUBEBUILDER_ASSETS` if it is set (the convention of envtest),
/// otherwise in the folder of `make controlplane`.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    let (folder, remedy) = match env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()) {
        Some(folder) => (PathBuf::from(folder), "set KUBEBUILDER_ASSETS to a folder that contains it"),
        None => (newest_built(), "run `make controlplane`"),
    };
    let path = folder.join(name);
    match path.is_file() {
        true => Ok(path.canonicalize()?),
        false => Err(Error::new(format!("there is no {}: {remedy}", path.display()))),
    }
}

/// The path of what `make tools` builds at `name` in `.tools`. The environment variable `variable` overrides the
/// default path.
pub(crate) fn tool(name: &str, variable: &str) -> Result<PathBuf> {
    tool_of("make tools", name, variable)
}

/// The path of a tool that this command installs. The environment variable `variable` overrides the default path.
pub(crate) fn tool_of(command: &str, name: &str, variable: &str) -> Result<PathBuf> {
    let named = env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = named.unwrap_or_else(|| Path::new(TOOLS).join(name));
    match path.is_file() {
        true => Ok(path.canonicalize()?),
        false => Err(Error::new(format!("there is no {}: run `{command}`", path.display()))),
    }
}

/// The value of `PATH` with which a shell finds kubectl and Helm first.
///
/// # Errors
/// When one of them is missing (the error says how to install it).
pub fn search_path() -> Result<OsString> {
    let own = [find("kubectl")?, tool("bin/helm", "TIDINGS_HELM")?];
    let own = own.iter().filter_map(|path| path.parent()).map(Path::to_owned);
    let others = env::var_os("PATH").unwrap_or_default();
    env::join_paths(own.chain(env::split_paths(&others))).map_err(|error| Error::new(error.to_string()))
}

/// The newest folder for this platform; the parent folder if there is none.
fn newest_built() -> PathBuf {
    let arch = if ARCH == "x86_64" { "amd64" } else { "arm64" };
    let platform = format!("-{OS}-{arch}");
    let entries = fs::read_dir(BUILT).into_iter().flatten().flatten().map(|entry| entry.path());
    let built = entries.filter(|path| path.to_string_lossy().ends_with(&platform));
    let modified = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
    built.max_by_key(modified).unwrap_or_else(|| Path::new(BUILT).to_owned())
}
