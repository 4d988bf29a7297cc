//! `make bench`: the operator beside what the API server itself can do, measured in the same run.
//!
//! `QUICK=1` does everything on a small scale, to see that it works; its figures mean little and are not written to
//! `docs/performance.md`.

// A bench stops at the first thing that goes wrong, and says what it measures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

mod bare;
mod bare_loop;
mod latency;
mod memory;
mod receiver;
mod report;
mod scale;
mod stage;
mod throughput;
mod usage;

#[allow(dead_code)]
#[path = "../../tests/suite/cluster.rs"]
mod cluster;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use self::report::Report;

/// How much of everything.
pub struct Scale {
    /// Rounds of bare and measured runs, of which the median counts.
    rounds: usize,
    /// Notifications for each bare and measured run.
    run: usize,
    /// Samples of latency.
    samples: usize,
    /// Samples of latency alone and beside a backlog, in each of several runs; and beside large events.
    neighbours: usize,
    /// The backlog of a dead endpoint.
    backlog: usize,
    /// How long the operator is left alone before its memory is read.
    rest: Duration,
    /// Subscribers of one operator.
    subscribers: usize,
    /// Pending Notifications of small events.
    pending: usize,
    /// 1 MiB events in flight in each of two namespaces.
    large: usize,
    /// Subscribers whose token service hangs.
    hanging: usize,
    /// Deliveries to a server that stalls TLS handshakes.
    stalled: usize,
    /// Notifications that have expired while no operator ran.
    expired: usize,
    /// How long Notifications finish and are deleted at once.
    retention: Duration,
}

const FULL: Scale = Scale {
    rounds: 15,
    run: 3_000,
    samples: 2_000,
    neighbours: 500,
    backlog: 100_000,
    rest: Duration::from_secs(30),
    subscribers: 10_000,
    pending: 300_000,
    large: 128,
    hanging: 300,
    stalled: 2_000,
    expired: 300,
    retention: Duration::from_secs(60),
};
const QUICK: Scale = Scale {
    rounds: 1,
    run: 500,
    samples: 200,
    neighbours: 100,
    backlog: 5_000,
    rest: Duration::from_secs(5),
    subscribers: 300,
    pending: 2_000,
    large: 16,
    hanging: 60,
    stalled: 200,
    expired: 60,
    retention: Duration::from_secs(6),
};

/// What `ONLY` may name, separated by commas.
const PARTS: [&str; 4] = ["throughput", "latency", "memory", "scale"];

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if let [_, command, folder] = &args[..]
        && command == "receiver"
    {
        // One thread: it is to take as little as may be from what is measured.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(receiver::serve(Path::new(folder)));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let quick = match variable("QUICK").as_str() {
        "" | "0" => false,
        "1" => true,
        other => panic!("QUICK={other}: it is 1 for a small run, or not set"),
    };
    let only = variable("ONLY");
    if let Some(part) = only.split(',').find(|part| !part.is_empty() && !PARTS.contains(part)) {
        panic!("ONLY={part}: the parts are {}", PARTS.join(", "));
    }
    runtime.block_on(run(if quick { &QUICK } else { &FULL }, quick, &only));
}

async fn run(scale: &Scale, quick: bool, only: &str) {
    let begun = Instant::now();
    let mut report = Report::default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|word| word == part);
    let idle = memory::idle(scale, &mut report).await;
    if wanted("throughput") {
        throughput::measure(scale, &mut report).await;
    }
    if wanted("latency") {
        latency::measure(scale, &mut report).await;
    }
    if wanted("memory") {
        memory::measure(scale, idle, &mut report).await;
    }
    if wanted("scale") {
        scale::measure(scale, idle, &mut report).await;
    }
    let table = report.table(begun.elapsed());
    println!("\n{table}");
    if !quick && only.is_empty() {
        report::write(&table);
        say("written to docs/performance.md");
    }
}

/// Tells how far it is.
pub fn say(what: impl std::fmt::Display) {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let elapsed = BEGUN.get_or_init(Instant::now).elapsed();
    eprintln!("[{:>4} s] {what}", elapsed.as_secs());
}
