//! Logs: to standard error, as text or JSON.

use std::io;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
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
        .with_target("kube_client::client", level.min(LevelFilter::ERROR));
    let layer = fmt::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
}
