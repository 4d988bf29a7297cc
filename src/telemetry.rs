//! Logs to standard error, as text or JSON, and keeps secrets out of the logs at every level. Starts the export of traces.

use std::{
    io::{self, Write},
    panic::{self, PanicHookInfo},
    thread,
};

use clap::ValueEnum;
use tidings_delivery::spans;
use tracing::{dispatcher, error, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt,
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

use crate::traces::{ExportSettings, Exporter, InvalidTraces};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human-readable text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The log and the export of traces of the process.
pub struct Telemetry(Option<Exporter>);

/// Why there is no log, or no export of traces.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTelemetry {
    /// The log has been started.
    #[error("cannot start the log: {0}")]
    Log(#[from] TryInitError),
    /// Traces cannot be exported as the flags say.
    #[error(transparent)]
    Traces(#[from] InvalidTraces),
}

/// Starts logging, and the export of traces (None: no export). Call it once, in the runtime.
///
/// # Errors
/// When the settings of the export cannot be used.
pub fn init(
    format: LogFormat,
    level: LevelFilter,
    traces: Option<&ExportSettings>,
) -> Result<Telemetry, InvalidTelemetry> {
    // What the exporter logs when it reads the certificate authorities.
    let until_then = tracing_subscriber::registry().with(log(format, level));
    let exporter = tracing::subscriber::with_default(until_then, || traces.map(Exporter::new).transpose())?;
    let registry = tracing_subscriber::registry();
    match &exporter {
        Some(exporter) => registry.with(exporter.layer()).with(log(format, level)).try_init()?,
        // A layer without a filter, even a layer that does nothing, would enable all spans.
        None => registry.with(log(format, level)).try_init()?,
    }
    Ok(Telemetry(exporter))
}

impl Telemetry {
    /// Sends the traces that wait, for a bounded time.
    pub async fn shut_down(self) {
        if let Some(exporter) = self.0 {
            exporter.shut_down().await;
        }
    }
}

fn log<S>(format: LogFormat, level: LevelFilter) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    // The Kubernetes client quotes whole responses, including Secrets, that it cannot parse.
    let filter = Targets::new()
        .with_default(level)
        // Its spans would be printed before each line of the operator.
        .with_target("kube_runtime", if level > LevelFilter::INFO { level } else { level.min(LevelFilter::WARN) })
        .with_target("kube_client::client", level.min(LevelFilter::ERROR))
        // It logs the address that a name resolved to.
        .with_target("hyper_util", level.min(LevelFilter::WARN))
        // The spans of deliveries are for traces.
        .with_target(spans::TARGET, LevelFilter::OFF);
    let layer = fmt::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    layer.with_filter(filter)
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
