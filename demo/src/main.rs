//! `make demo`: applies Notifications with kubectl and shows how they reach a webhook. The API server is real.
//!
//! `TIDINGS_BIN` (or the first argument) names the operator's binary. `KUBECONFIG` names a cluster to use instead of a
//! local control plane. `KEEP=1` keeps everything running, so that you can try it by hand.

// The demo writes to the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod by_hand;
mod cluster;
mod diagnosis;
mod examples;
mod say;
mod stage;
mod transcript;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use testkit::{Error, Result};

use crate::say::say;
use crate::stage::Stage;

#[tokio::main]
async fn main() -> ExitCode {
    match demo().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<()> {
    let started = Instant::now();
    let binary = operator_binary()?;
    let cluster = cluster::open().await?;
    let stage = Stage::set(cluster, &binary).await?;
    let result = deliver(&stage).await;
    match &result {
        Ok(()) => {
            say(format!("All Notifications were delivered. Total time: {:.1} s", started.elapsed().as_secs_f32()))
        }
        Err(_) => diagnosis::print(&stage).await,
    }
    if result.is_ok() && env::var("KEEP").is_ok_and(|keep| !matches!(keep.as_str(), "" | "0")) {
        by_hand::until_interrupted(&stage).await?;
    }
    let cleared = stage.clear().await;
    result.and(cleared)
}

/// Applies the examples, waits for the results, and shows them.
async fn deliver(stage: &Stage) -> Result<()> {
    let notifications = stage.apply_examples().await?;
    stage.wait_for_outcomes().await?;
    transcript::print(stage, &notifications).await
}

fn operator_binary() -> Result<PathBuf> {
    let named = env::args_os().nth(1).or_else(|| env::var_os("TIDINGS_BIN")).map(PathBuf::from);
    let binary = named
        .ok_or_else(|| Error::new("set TIDINGS_BIN to the path of the operator: TIDINGS_BIN=target/debug/tidings"))?;
    binary
        .canonicalize()
        .map_err(|error| Error::new(format!("cannot find the operator's binary {}: {error}", binary.display())))
}
