//! `make chaos`: a fault campaign of bounded length. It tells its seed, and the same seed repeats its faults and its load.
//!
//! `TIDINGS_BIN` (or the first argument) names the operator's binary. `DURATION` (90s, 10m), `SEED` and `RATE`
//! (Notifications a second) may be given.

// A program for the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidings_testkit::chaos::Campaign;
use tidings_testkit::{Error, Result};

const DURATION: Duration = Duration::from_secs(120);
const RATE: u32 = 15;

#[tokio::main]
async fn main() -> ExitCode {
    match chaos().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nThe campaign failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn chaos() -> Result<bool> {
    let campaign = campaign()?;
    let (seed, seconds) = (campaign.seed, campaign.duration.as_secs());
    println!("==> A fault campaign of {seconds} s, seed {seed}");
    let folder = campaign.folder.clone();
    println!("==> Logs and records will be in {}", folder.display());
    let report = campaign.run(|line| println!("{line}")).await;
    let clean = report.as_ref().is_ok_and(|report| report.is_clean());
    if let Ok(report) = &report {
        println!("\n{report}");
    }
    if !clean {
        eprintln!("To repeat it: make chaos SEED={seed} DURATION={seconds}s; logs: {}", folder.display());
    }
    report.map(|_| clean)
}

fn campaign() -> Result<Campaign> {
    let binary = env::args_os().nth(1).or_else(|| env::var_os("TIDINGS_BIN")).map(PathBuf::from);
    let binary =
        binary.ok_or_else(|| Error::new("say where the operator's binary is: TIDINGS_BIN=target/debug/tidings"))?;
    let seed = match given("SEED") {
        Some(seed) => seed.parse().map_err(|error| Error::new(format!("SEED={seed}: {error}")))?,
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::from(now.subsec_nanos())),
    };
    let duration = given("DURATION").map_or(Ok(DURATION), |text| duration(&text))?;
    let rate = match given("RATE") {
        Some(rate) => rate.parse().map_err(|error| Error::new(format!("RATE={rate}: {error}")))?,
        None => RATE,
    };
    let folder = env::temp_dir().join(format!("tidings-chaos-{seed}"));
    Ok(Campaign { binary: binary.canonicalize()?, seed, duration, rate, folder })
}

fn given(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Seconds or minutes: `90`, `90s`, `10m`.
fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: u64 = number.parse().map_err(|_| Error::new(format!("DURATION={text}: say 90s or 10m")))?;
    Ok(Duration::from_secs(number * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_seconds_or_minutes() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600)] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        assert!(duration("1h").is_err() && duration("").is_err());
    }
}
