//! Runs kstatus, the library with which Flux and other tools decide whether an object is ready.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::binaries;
use crate::error::{Error, Result};

/// Returns the status that kstatus computes for each object, for example `Current`.
///
/// `flags` may contain the health check expressions of a Flux Kustomization (`-current EXPRESSION`, `-failed`,
/// `-in-progress`). Flux evaluates them instead of kstatus.
///
/// # Errors
/// When the program is missing (the error says how to install it), or fails for an object or an expression.
pub fn compute(objects: &[&Value], flags: &[&str]) -> Result<Vec<String>> {
    let mut kstatus = Command::new(binaries::tool("bin/kstatus", "TIDINGS_KSTATUS")?)
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let input: String = objects.iter().map(|object| format!("{object}\n")).collect();
    let mut stdin = kstatus.stdin.take().expect("stdin is piped");
    // A program that failed has closed the pipe; its exit status is the error.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = kstatus.wait_with_output()?;
    let _ = writer.join();
    if !output.status.success() {
        return Err(Error::new(format!("kstatus failed: {}", String::from_utf8_lossy(&output.stderr))));
    }
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(lines.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect())
}
