//! Logs: to standard error, as text or JSON. What they must never hold is kept out here, whatever the level.

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

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; call it once.
pub fn init(format: LogFormat, level: LevelFilter) -> Result<(), TryInitError> {
    // The Kubernetes client quotes whole answers, Secrets among them, when it cannot parse one.
    let filter = Targets::new()
        .with_default(level)
        // Its spans would stand before each of our lines.
        .with_target("kube_runtime", if level > LevelFilter::INFO { level } else { level.min(LevelFilter::WARN) })
        .with_target("kube_client::client", level.min(LevelFilter::ERROR))
        // It tells which address a name led to.
        .with_target("hyper_util", level.min(LevelFilter::WARN));
    let layer = fmt::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
}

/// Has every panic from now on told by its place and thread, and never by its message: that may quote a value, and the
/// value may be a secret. Call it before anything can panic; until [`init`] it goes to standard error as it is.
pub fn log_panics() {
    panic::set_hook(Box::new(log_panic));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    if dispatcher::has_been_set() {
        error!(place, thread, "a panic: this is a bug; its message is withheld, for it may quote a secret");
    } else {
        let _ = writeln!(io::stderr(), "tidings: a panic at {place} in thread {thread}: this is a bug");
    }
}
