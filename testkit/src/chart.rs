//! The chart, as Helm renders it.

use std::process::Command;

use crate::binaries;
use crate::error::{Error, Result};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/tidings");

/// The manifests of a release `tidings` in `namespace`, with further arguments for `helm template`.
///
/// # Errors
/// When Helm is missing (it says how to get it), or refuses the values.
pub fn render(namespace: &str, args: &[&str]) -> Result<String> {
    let mut helm = Command::new(binaries::tool("helm", "TIDINGS_HELM")?);
    let output = helm.args(["template", "tidings", CHART, "--namespace", namespace]).args(args).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(Error::new(text(&output.stderr))),
    }
}
