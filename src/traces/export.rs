//! Exports spans to an OpenTelemetry collector (OTLP). The collector is the administrator's, named by a flag: like the API
//! server, it is not subject to the egress policy, which is for endpoints that tenants name.

use std::{
    env, fs, io,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol as Wire, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData},
};
use tidings_delivery::{
    egress::{Authorities, TrustError, tls_config},
    spans::TARGET,
};
use tokio::{runtime::Handle, task::spawn_blocking, time::timeout};
use tonic::transport::Endpoint as Channel;
use tracing::{Subscriber, level_filters::LevelFilter, warn};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};
use url::Url;

/// The maximum time of one export, with its repetitions.
const EXPORT: Duration = Duration::from_secs(10);
/// The time to send the last spans when the operator stops.
const LAST_EXPORT: Duration = Duration::from_secs(5);
/// The log names a failed export at most this often.
const FAILURES_EVERY: Duration = Duration::from_secs(60);
/// Where a collector receives traces over HTTP (OTLP 1.x, section "OTLP/HTTP Request").
const PATH: &str = "v1/traces";

/// The settings of the export, as the flags have them.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportSettings {
    /// The collector.
    pub endpoint: Endpoint,
    /// The protocol.
    pub protocol: Protocol,
    /// A file with certificate authorities (PEM) to trust for an https endpoint in addition to the public authorities.
    pub ca_file: Option<PathBuf>,
    /// The share of traces to export.
    pub sampling: Sampling,
}

/// The URL of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

/// The variants of OTLP, with the names of the OpenTelemetry specification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    #[default]
    Grpc,
    /// Protobuf over HTTP.
    HttpProtobuf,
}

/// The share of attempts to export, from 0 to 1, of those whose event does not say whether its trace is sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling(f64);

/// Why traces cannot be exported as the flags say. The errors name the flag.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTraces {
    /// The endpoint is no URL of a collector.
    #[error("--otlp-endpoint: {0}")]
    Endpoint(&'static str),
    /// The file has no meaning without an endpoint.
    #[error("--otlp-ca-file requires --otlp-endpoint: set --otlp-endpoint or remove --otlp-ca-file")]
    CaAlone,
    /// A path has no meaning for gRPC.
    #[error("--otlp-endpoint must have no path with --otlp-protocol=grpc: remove the path, or use http/protobuf")]
    Path,
    /// The file has no meaning for http.
    #[error("--otlp-ca-file requires an https URL in --otlp-endpoint: correct the URL or remove the file")]
    CaWithoutTls,
    /// The file with the certificate authorities cannot be read.
    #[error("--otlp-ca-file: the file cannot be read ({0})")]
    CaFile(io::ErrorKind),
    /// The file with the certificate authorities holds none, or a broken one.
    #[error("--otlp-ca-file: {0}")]
    Ca(TrustError),
    /// The exporter rejects its settings, such as an environment variable.
    #[error("--otlp-endpoint: traces cannot be exported: {0}")]
    Exporter(#[from] ExporterBuildError),
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or("must be an http or https URL, for example http://collector.monitoring.svc:4317")?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not contain credentials: use the environment variable OTEL_EXPORTER_OTLP_HEADERS");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must not contain a query or a fragment");
        }
        Ok(Self(url))
    }
}

impl FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" => Ok(Self::HttpProtobuf),
            _ => Err("must be grpc or http/protobuf"),
        }
    }
}

impl FromStr for Sampling {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ratio = text.parse().ok().filter(|ratio: &f64| (0.0..=1.0).contains(ratio));
        ratio.map(Self).ok_or("must be a number from 0 to 1, for example 0.1")
    }
}

impl Endpoint {
    fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Where to send traces over HTTP: below the URL, as the variable `OTEL_EXPORTER_OTLP_ENDPOINT` of the specification
    /// means it.
    fn of_http(&self) -> String {
        format!("{}/{PATH}", self.0.as_str().trim_end_matches('/'))
    }
}

/// Exports the spans of a process. Spans wait in a queue of bounded size; a span for which there is no room is dropped.
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Makes the exporter, which connects when it has spans. Call it in the runtime.
    ///
    /// # Errors
    /// When the settings, or the environment variables of OpenTelemetry, cannot be used.
    pub fn new(settings: &ExportSettings) -> Result<Self, InvalidTraces> {
        let exporter = BoundedExporter {
            exporter: Arc::new(span_exporter(settings)?),
            runtime: Handle::current(),
            last_failure: Mutex::default(),
        };
        let name = env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
        let resource = Resource::builder()
            .with_service_name(name.unwrap_or_else(|| "tidings".into()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sampling.0)));
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(sampler)
            .with_span_processor(BatchSpanProcessor::builder(exporter).build())
            .build();
        Ok(Self { provider })
    }

    /// The layer that records the spans of deliveries, and nothing else, whatever the level of the log.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer: SdkTracer = self.provider.tracer("tidings");
        // No attributes of the source code, threads or timings of tasks.
        let layer = OpenTelemetryLayer::new(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false);
        layer.with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
    }

    /// Sends the spans that wait, for a bounded time.
    pub async fn shut_down(self) {
        let shut_down = spawn_blocking(move || self.provider.shutdown_with_timeout(LAST_EXPORT));
        if !matches!(shut_down.await, Ok(Ok(()))) {
            warn!("the last traces could not be exported");
        }
    }
}

fn span_exporter(settings: &ExportSettings) -> Result<SpanExporter, InvalidTraces> {
    let ExportSettings { endpoint, protocol, .. } = settings;
    let https =
        HttpsConnectorBuilder::new().with_tls_config(tls_config(authorities(settings)?).map_err(InvalidTraces::Ca)?);
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(EXPORT));
    match protocol {
        Protocol::Grpc => {
            if endpoint.0.path() != "/" {
                return Err(InvalidTraces::Path);
            }
            let connector: HttpsConnector<_> = https.https_or_http().enable_http2().wrap_connector(tcp);
            let channel = Channel::from_shared(endpoint.0.to_string())
                .map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))?
                .timeout(EXPORT);
            let exporter = SpanExporter::builder().with_tonic();
            Ok(exporter.with_channel(channel.connect_with_connector_lazy(connector)).build()?)
        }
        Protocol::HttpProtobuf => {
            let connector = https.https_or_http().enable_http1().wrap_connector(tcp);
            let exporter = SpanExporter::builder().with_http().with_protocol(Wire::HttpBinary);
            let exporter = exporter.with_endpoint(endpoint.of_http());
            Ok(exporter.with_http_client(HyperClient::new(connector, EXPORT, None)).build()?)
        }
    }
}

fn authorities(settings: &ExportSettings) -> Result<Authorities, InvalidTraces> {
    let Some(file) = &settings.ca_file else { return Ok(Authorities::Public) };
    if !settings.endpoint.is_https() {
        return Err(InvalidTraces::CaWithoutTls);
    }
    Ok(Authorities::PublicAnd(fs::read(file).map_err(|error| InvalidTraces::CaFile(error.kind()))?))
}

/// Exports in a task of the runtime, since the SDK calls it in a thread of its own. Bounds each export in time, and logs
/// failures, which do not concern deliveries.
#[derive(Debug)]
struct BoundedExporter {
    exporter: Arc<SpanExporter>,
    runtime: Handle,
    last_failure: Mutex<Option<Instant>>,
}

impl opentelemetry_sdk::trace::SpanExporter for BoundedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (exporter, count) = (self.exporter.clone(), batch.len());
        let export = async move { timeout(EXPORT, exporter.export(batch)).await };
        let result = match self.runtime.spawn(export).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(EXPORT)),
            // The runtime has ended.
            Err(_) => Err(OTelSdkError::AlreadyShutdown),
        };
        if let Err(error) = &result {
            self.report(error, count);
        }
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        // The exporter is shared only during an export.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

impl BoundedExporter {
    fn report(&self, error: &OTelSdkError, spans: usize) {
        let mut last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= FAILURES_EVERY) {
            *last = Some(Instant::now());
            warn!(%error, spans, "cannot export traces; dropping these spans. Deliveries continue; the next line about this follows in a minute at the earliest");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str, protocol: &str) -> ExportSettings {
        ExportSettings {
            endpoint: endpoint.parse().unwrap(),
            protocol: protocol.parse().unwrap(),
            ca_file: None,
            sampling: "1".parse().unwrap(),
        }
    }

    #[test]
    fn an_endpoint_is_a_url_without_credentials_query_or_fragment() {
        for (text, fault) in [
            ("collector:4317", "must be an http or https URL"),
            ("grpc://collector:4317", "must be an http or https URL"),
            ("http://", "must be an http or https URL"),
            ("http://user@collector", "must not contain credentials"),
            ("http://:password@collector", "must not contain credentials"),
            ("http://collector?a", "must not contain a query"),
            ("http://collector#a", "must not contain a query"),
        ] {
            assert!(text.parse::<Endpoint>().unwrap_err().starts_with(fault), "{text}");
        }
        let http = |text: &str| text.parse::<Endpoint>().unwrap().of_http();
        assert_eq!(http("http://collector:4318"), "http://collector:4318/v1/traces");
        assert_eq!(http("https://collector/otlp/"), "https://collector/otlp/v1/traces");
    }

    #[test]
    fn a_sampling_is_a_number_from_0_to_1() {
        for text in ["0", "1", "0.25", "1e-3"] {
            assert!(text.parse::<Sampling>().is_ok(), "{text}");
        }
        for text in ["", "-0.1", "1.1", "NaN", "inf", "10%"] {
            assert!(text.parse::<Sampling>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn settings_that_contradict_each_other_are_refused_with_the_flag() {
        let with_ca =
            |endpoint, file: &str| ExportSettings { ca_file: Some(file.into()), ..settings(endpoint, "grpc") };
        for (settings, fault) in [
            (settings("http://collector:4317/v1/traces", "grpc"), "--otlp-endpoint must have no path"),
            (with_ca("http://collector:4317", "/none"), "--otlp-ca-file requires an https URL"),
            (with_ca("https://collector:4317", "/none"), "--otlp-ca-file: the file cannot be read"),
            (with_ca("https://collector:4317", "/dev/null"), "--otlp-ca-file: there is no PEM certificate"),
        ] {
            let error = Exporter::new(&settings).map(drop).unwrap_err().to_string();
            assert!(error.starts_with(fault), "{error}");
        }
    }
}
