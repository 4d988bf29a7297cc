//! Traces: one span for an attempt, with children for the token, the connection and each request. `docs/tracing.md`
//! describes the spans.
//!
//! [`context`] reads the trace context of an event, [`AttemptTrace`] is the span of an attempt, and [`export`] sends the
//! spans to a collector. `tidings_delivery::spans` has the target of all spans: where no traces are exported, a span is
//! disabled where it is created.

mod context;
mod export;

use std::fmt::Display;

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::TextMapPropagator,
    trace::{SpanContext, TraceContextExt},
};
use opentelemetry_http::HeaderInjector;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tidings_delivery::{event::CheckedEvent, spans::TARGET};
use tracing::{Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use self::context::{EventContext, TRACESTATE};
pub use self::export::{Endpoint, ExportSettings, Exporter, InvalidTraces, Protocol, Sampling};

/// The longest text of an event, in characters, that a span has as an attribute.
const LONGEST: usize = 256;

/// The trace of one attempt to deliver one event.
pub struct AttemptTrace {
    span: Span,
    /// The context of the event, if the event has a valid one.
    event: Option<EventContext>,
}

impl AttemptTrace {
    /// Begins the span of an attempt. `name` and `uid` are the Notification's; `number` counts attempts from 1.
    pub fn begin(namespace: &str, subscriber: &str, name: &dyn Display, uid: &str, number: u32) -> Self {
        let span = info_span!(
            target: TARGET,
            "deliver",
            otel.kind = "consumer",
            otel.status_code = Empty,
            k8s.namespace.name = namespace,
            tidings.subscriber.name = subscriber,
            tidings.notification.name = %name,
            tidings.notification.uid = uid,
            tidings.attempt = i64::from(number),
            cloudevents.event_id = Empty,
            cloudevents.event_type = Empty,
            http.response.status_code = Empty,
            error.type = Empty,
        );
        Self { span, event: None }
    }

    /// The span of the attempt.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Reads the context of the event, which becomes the parent of the span. Call it before the span has children.
    pub fn of_event(&mut self, event: &CheckedEvent) {
        self.event = EventContext::of(event.attribute("traceparent"), event.attribute("tracestate"));
        if self.span.is_disabled() {
            return;
        }
        let id = event.id();
        let type_ = event.attribute("type").unwrap_or_default();
        self.span.record("cloudevents.event_id", format_args!("{id:.LONGEST$}"));
        self.span.record("cloudevents.event_type", format_args!("{type_:.LONGEST$}"));
        if let Some(parent) = self.event.as_ref().and_then(EventContext::parsed) {
            // It fails only after the span has started.
            let _ = self.span.set_parent(Context::new().with_remote_span_context(parent));
        }
    }

    /// Adds the headers of W3C Trace Context to a request with this span. Where no traces are exported, the headers of the
    /// event are passed on.
    pub fn add_headers(&self, request: &Span, headers: &mut HeaderMap) {
        if !request.is_disabled() {
            TraceContextPropagator::new().inject_context(&request.context(), &mut HeaderInjector(headers));
            if headers.get(TRACESTATE).is_some_and(http::HeaderValue::is_empty) {
                headers.remove(TRACESTATE);
            }
        } else if let Some(event) = &self.event {
            event.add_to(headers);
        }
    }

    /// Writes the result into the span. `failure` is the reason, if the event was not delivered.
    pub fn end(&self, status: Option<u16>, failure: Option<&'static str>) {
        if let Some(status) = status {
            self.span.record("http.response.status_code", i64::from(status));
        }
        if let Some(reason) = failure {
            self.span.record("error.type", reason);
            self.span.record("otel.status_code", "ERROR");
        }
    }

    /// The id of the trace: the event's, or that of the span (None: the event has none, and no traces are exported).
    pub fn id(&self) -> Option<String> {
        if let Some(event) = &self.event {
            return Some(event.trace_id().to_owned());
        }
        let of_span = |context: &SpanContext| context.is_valid().then(|| context.trace_id().to_string());
        (!self.span.is_disabled()).then(|| of_span(self.span.context().span().span_context())).flatten()
    }
}
