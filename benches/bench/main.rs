//! `make bench`: the operator beside what the API server itself can do, measured in the same run.
//!
//! `QUICK=1` does everything on a small scale, to see that it works; its figures mean little and are not written to
//! `docs/performance.md`.

// A bench stops at the first thing that goes wrong, and says what it measures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

mod amounts;
mod api_server;
mod bare;
mod bare_loop;
mod latency;
mod memory;
mod objects;
mod queue;
mod receiver;
mod report;
mod say;
mod scale;
mod stage;
mod throughput;
mod usage;

use std::{path::Path, time::Instant};

use self::{
    amounts::{FULL, QUICK, Scale},
    report::Report,
    say::say,
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
    if wanted("memory") {
        queue::measure(&mut report);
    }
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
