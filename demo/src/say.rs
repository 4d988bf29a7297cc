//! What the demo says of itself.

/// Says what is being done.
pub(crate) fn say(what: impl AsRef<str>) {
    println!("==> {}", what.as_ref());
}
