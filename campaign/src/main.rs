//! `make chaos`: a fault campaign of bounded length. It prints its seed, and the same seed repeats its faults and its
//! load.
//!
//! `TIDINGS_BIN` (or the first argument) names the operator's binary. `DURATION` (90s, 10m), `SEED` and `RATE`
//! (Notifications a second) may be given, and in ONLY texts, separated by commas, that the descriptions of the wanted
//! faults hold.

// A program for the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use testkit::{Error, Result};
use tidings_campaign::Campaign;

const DURATION: Duration = Duration::from_secs(150);
const RATE: u32 = 15;
/// A shorter campaign has hardly a fault in it.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(86_400);

#[tokio::main]
async fn main() -> ExitCode {
    match chaos().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("\nNo campaign, or none to its end: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn chaos() -> Result<bool> {
    let campaign = campaign()?;
    let (seed, seconds) = (campaign.seed, campaign.duration.as_secs());
    println!("==> A fault campaign of {seconds} s, seed {seed}");
    let (folder, rate) = (campaign.folder.clone(), campaign.rate);
    // Of an earlier run with this seed.
    let _ = fs::remove_dir_all(&folder);
    println!("==> Logs and records will be in {}", folder.display());
    let report = campaign.run(|line| println!("{line}")).await;
    let clean = report.as_ref().is_ok_and(|report| report.is_clean());
    if let Ok(report) = &report {
        println!("\n{report}");
    }
    if !clean && folder.exists() {
        eprintln!("To repeat it: make chaos SEED={seed} DURATION={seconds}s RATE={rate}; logs: {}", folder.display());
    }
    report.map(|_| clean)
}

fn campaign() -> Result<Campaign> {
    let binary = env::args_os().nth(1).or_else(|| env::var_os("TIDINGS_BIN")).map(PathBuf::from);
    let binary =
        binary.ok_or_else(|| Error::new("say where the operator's binary is: TIDINGS_BIN=target/debug/tidings"))?;
    let seed = match given("SEED") {
        Some(seed) => {
            seed.parse().map_err(|_error| Error::new(format!("SEED={seed}: say a whole number, such as 7")))?
        }
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::from(now.subsec_nanos())),
    };
    let duration = given("DURATION").map_or(Ok(DURATION), |text| duration(&text))?;
    let rate = given("RATE").map_or(Ok(RATE), |text| rate(&text))?;
    let folder = env::temp_dir().join(format!("tidings-chaos-{seed}"));
    let only =
        given("ONLY").map(|only| only.split(',').map(|text| text.trim().to_owned()).collect()).unwrap_or_default();
    let found = binary.canonicalize();
    let binary = found.map_err(|error| Error::new(format!("TIDINGS_BIN={}: {error}", binary.display())))?;
    Ok(Campaign { binary, seed, duration, rate, only, folder })
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
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match seconds.map(Duration::from_secs) {
        Some(duration) if (SHORTEST..=LONGEST).contains(&duration) => Ok(duration),
        _ => Err(Error::new(format!("DURATION={text}: say 90s or 10m, from 10s to 1440m"))),
    }
}

/// Notifications a second.
fn rate(text: &str) -> Result<u32> {
    match text.parse() {
        Ok(rate @ 1..=200) => Ok(rate),
        _ => Err(Error::new(format!("RATE={text}: say how many Notifications a second, from 1 to 200"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_seconds_or_minutes() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600)] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["1h", "", "0s", "9s", "1441m", "400000000000000000m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_some_a_second() {
        assert_eq!(rate("15").unwrap(), 15);
        assert!(rate("0").is_err() && rate("many").is_err() && rate("201").is_err());
    }
}
