//! `make demo`: a Notification applied with kubectl reaches a webhook, on a real API server, before your eyes.
//!
//! `TIDINGS_BIN` (or the first argument) names the operator's binary. With `KUBECONFIG` set, that cluster is used in
//! place of a local control plane. With `KEEP=1` all is left running to try it by hand.

// A program for the terminal.
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
        Ok(()) => say(format!("All delivered. Total time: {:.1} s", started.elapsed().as_secs_f32())),
        Err(_) => diagnosis::print(&stage).await,
    }
    if result.is_ok() && env::var("KEEP").is_ok_and(|keep| !matches!(keep.as_str(), "" | "0")) {
        by_hand::until_interrupted(&stage).await?;
    }
    let cleared = stage.clear().await;
    result.and(cleared)
}

/// The examples: applied, awaited, shown.
async fn deliver(stage: &Stage) -> Result<()> {
    let notifications = stage.apply_examples().await?;
    stage.wait_for_outcomes().await?;
    transcript::print(stage, &notifications).await
}

fn operator_binary() -> Result<PathBuf> {
    let named = env::args_os().nth(1).or_else(|| env::var_os("TIDINGS_BIN")).map(PathBuf::from);
    let binary =
        named.ok_or_else(|| Error::new("say where the operator's binary is: TIDINGS_BIN=target/debug/tidings"))?;
    binary.canonicalize().map_err(|error| Error::new(format!("the operator's binary {}: {error}", binary.display())))
}
