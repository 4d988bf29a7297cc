//! The `tidings` program: parses the command line, runs the operator or prints the manifests.

use std::{
    error::Error,
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use clap::Parser;
use tidings::{
    cli::{self, Cli, Command},
    operator, telemetry,
};

fn main() -> ExitCode {
    // Before anything else: the standard library's panic messages quote values.
    telemetry::log_panics();
    let result = match Cli::parse().command {
        Command::Run(flags) => run(*flags),
        Command::Crds => print_crds(),
        Command::Check(flags) => check(flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "tidings: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: cli::Run) -> Result<(), Box<dyn Error + Send + Sync>> {
    operator::in_workers(flags.threads(), async move {
        let telemetry = telemetry::init(flags.log_format, flags.log_level, flags.traces()?.as_ref())?;
        let result = operator::run(flags.into()).await;
        telemetry.shut_down().await;
        Ok(result?)
    })?
}

/// Says that the operator can work in this cluster, or why it cannot.
fn check(flags: cli::Check) -> Result<(), Box<dyn Error + Send + Sync>> {
    operator::in_workers(1, operator::check(cli::named(flags.watch_namespaces), flags.lease.named()))??;
    Ok(writeln!(io::stdout(), "the API server serves what the operator needs and permits what the operator does")?)
}

/// Prints the manifests as YAML documents. A reader that closes the pipe early, such as `head`, is not an error.
fn print_crds() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut out = io::stdout().lock();
    for manifest in tidings_api::manifests()? {
        match write!(out, "---\n{}", serde_yaml::to_string(&manifest)?) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(format!("cannot write to standard output: {error}").into()),
        }
    }
    Ok(())
}
