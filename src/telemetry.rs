//! Logs to standard error, as text or JSON, and keeps secrets out of the logs at every level.

use std::{
    io::{self, Write},
    panic::{self, PanicHookInfo},
    thread,
};

use clap::ValueEnum;
use tracing::{dispatcher, error, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt,
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human-readable text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. Call it once.
pub fn init(format: LogFormat, level: LevelFilter) -> Result<(), TryInitError> {
    // The Kubernetes client quotes whole responses, including Secrets, that it cannot parse.
    let filter = Targets::new()
        .with_default(level)
        // Its spans would be printed before each line of the operator.
        .with_target("kube_runtime", if level > LevelFilter::INFO { level } else { level.min(LevelFilter::WARN) })
        .with_target("kube_client::client", level.min(LevelFilter::ERROR))
        // It logs the address that a name resolved to.
        .with_target("hyper_util", level.min(LevelFilter::WARN));
    let layer = fmt::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
}

/// Reports every panic by location and thread, never by its message, which may quote a secret value. Call it before
/// anything can panic. Until [`init`] the report is plain text on standard error.
pub fn log_panics() {
    panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    if dispatcher::has_been_set() {
        error!(
            place,
            thread, "a panic occurred: this is a bug; the message is withheld because it may contain a secret"
        );
    } else {
        let _ = writeln!(io::stderr(), "tidings: a panic occurred at {place} in thread {thread}: this is a bug");
    }
}
