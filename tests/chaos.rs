//! The short form of `make chaos`: the same campaign, with a seed whose faults meet all parts.
//!
//! A test binary of its own, which cargo runs by itself: it judges by the clock, and shares the processors with no
//! other.

// Tests stop at the first broken expectation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{sync::Mutex, time::Duration};

use campaign::Campaign;

/// In 42 s: status writes held up until the leader that sent them is stopped past its Lease, a namespace deleted,
/// another one without rights for a while, the API server stopped, 500, a leader that receives SIGTERM, other clients'
/// labels, hundreds of Subscribers listed again while others change some.
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
    // Else it proved nothing.
    assert!(report.delivered() > 100 && report.takeovers() >= 3 && report.outlived() > 0, "{output}\n{report}");
    std::fs::remove_dir_all(folder).unwrap();
}
