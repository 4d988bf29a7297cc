//! Runs the short form of `make chaos`: the same campaign, with a seed whose faults hit every part.
//!
//! This test has its own binary, which cargo runs alone: the test depends on time, and no other test must use the
//! processors meanwhile.

// Tests stop at the first broken expectation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{sync::Mutex, time::Duration};

use campaign::Campaign;

/// The faults of this seed, in 42 s: status writes delayed until the leader that sent them is stopped past its Lease, a
/// deleted namespace, a namespace without permissions for a while, a stopped API server, responses with 500, SIGTERM to
/// a leader, labels from other clients, and a relist of hundreds of Subscribers while other clients change some.
const SEED: u64 = 46_844;

#[tokio::test(flavor = "multi_thread")]
async fn chaos_loses_nothing_and_repeats_nothing_without_a_cause() {
    let folder = std::env::temp_dir().join(format!("tidings-chaos-test-{}", std::process::id()));
    let campaign = Campaign {
        binary: env!("CARGO_BIN_EXE_tidings").into(),
        seed: SEED,
        duration: Duration::from_secs(42),
        rate: 10,
        only: Vec::new(),
        folder: folder.clone(),
    };
    let lines = std::sync::Arc::new(Mutex::new(Vec::new()));
    let output = lines.clone();
    let report = campaign.run(move |line| output.lock().unwrap().push(line.to_owned())).await;
    let output = lines.lock().unwrap().join("\n");
    let report = report.unwrap_or_else(|error| panic!("{error}\n{output}\nlogs: {}", folder.display()));
    assert!(report.is_clean(), "{output}\n{report}\nlogs: {}", folder.display());
    // With fewer, the run would prove nothing.
    assert!(report.delivered() > 100 && report.takeovers() >= 3 && report.outlived() > 0, "{output}\n{report}");
    std::fs::remove_dir_all(folder).unwrap();
}
