//! What the bench says while it runs.

use std::time::Instant;

/// Prints the progress.
pub fn say(what: impl std::fmt::Display) {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let elapsed = BEGUN.get_or_init(Instant::now).elapsed();
    eprintln!("[{:>4} s] {what}", elapsed.as_secs());
}
