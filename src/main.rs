//! The `tidings` program: parse, wire, run.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use tidings::{
    cli::{Cli, Command},
    operator, telemetry,
};

fn main() -> ExitCode {
    // First of all, so that no panic is ever told in the standard library's way, which quotes values.
    telemetry::log_panics();
    let result = match Cli::parse().command {
        Command::Run(flags) => run(*flags),
        Command::Crds => print_crds(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "tidings: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: tidings::cli::Run) -> Result<(), Box<dyn Error>> {
    telemetry::init(flags.log_format, flags.log_level)?;
    Ok(operator::in_workers(flags.threads(), operator::run(flags.into()))??)
}

fn print_crds() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for manifest in tidings_api::manifests()? {
        write!(out, "---\n{}", serde_yaml::to_string(&manifest)?)?;
    }
    Ok(())
}
