//! Prints the steps of the demo.

/// Prints one step.
pub(crate) fn say(what: impl AsRef<str>) {
    println!("==> {}", what.as_ref());
}
