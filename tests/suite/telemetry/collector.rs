//! An OpenTelemetry collector that decodes what it receives (OTLP 1.x): gRPC over HTTP/2 and Protobuf over HTTP/1.1, on one
//! port.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use testkit::Authority;
use tokio::{
    net::TcpListener,
    task::AbortHandle,
    time::{Duration, Instant, sleep},
};
use tokio_rustls::TlsAcceptor;

use crate::world::PATIENCE;

/// A running collector. It stops when it is dropped.
pub struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    serving: AbortHandle,
}

/// All that a collector has received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub spans: Vec<Span>,
    /// The attributes of the resource, of each export.
    pub resources: Vec<Vec<KeyValue>>,
    pub headers: Vec<HeaderMap>,
    pub paths: Vec<String>,
    pub bytes: Vec<u8>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    /// Starts a collector, with a certificate of this authority if there is one.
    pub async fn start(authority: Option<&Authority>) -> Self {
        let tls = authority.map(|authority| {
            let mut config = (*authority.server_config(&[])).clone();
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, received) = (listener.local_addr().unwrap(), Arc::<Mutex<Received>>::default());
        let serving = tokio::spawn(serve(listener, tls, received.clone())).abort_handle();
        Self { address, received, serving }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn received(&self) -> Received {
        self.received.lock().unwrap().clone()
    }

    /// Waits until the spans are as wanted, and returns all of them.
    pub async fn until(&self, wanted: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let end = Instant::now() + PATIENCE;
        loop {
            let spans = self.received().spans;
            if wanted(&spans) {
                return spans;
            }
            assert!(Instant::now() < end, "the spans are not as expected: {spans:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, received: Arc<Mutex<Received>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, received) = (tls.clone(), received.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| export(request, received.clone()));
            let server = auto::Builder::new(TokioExecutor::new());
            // The exporter reports connections that break.
            match tls {
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                }
                None => drop(server.serve_connection(TokioIo::new(stream), service).await),
            }
        });
    }
}

async fn export(
    request: Request<Incoming>,
    received: Arc<Mutex<Received>>,
) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let content_type = head.headers["content-type"].to_str().unwrap().to_owned();
    let is_grpc = content_type == "application/grpc";
    // A gRPC message follows a flag for compression and its length.
    let message = if is_grpc { body.slice(5..) } else { body };
    assert!(is_grpc || content_type == "application/x-protobuf", "{content_type}");
    let decoded = ExportTraceServiceRequest::decode(&*message).unwrap();
    let mut received = received.lock().unwrap();
    for resource in decoded.resource_spans {
        received.resources.push(resource.resource.unwrap().attributes);
        received.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    received.headers.push(head.headers);
    received.paths.push(head.uri.path().to_owned());
    received.bytes.extend_from_slice(&message);
    // The empty message of the response.
    let body = if is_grpc { Bytes::from_static(&[0; 5]) } else { Bytes::new() };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(body).with_trailers(async move { is_grpc.then_some(Ok(trailers)) }).boxed();
    Ok(Response::builder().header("content-type", content_type).body(body).unwrap())
}

/// An attribute as text. Numbers must be sent as numbers.
pub fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    let is_number = name.ends_with("status_code") || ["server.port", "tidings.attempt"].contains(&name);
    assert_eq!(matches!(found.value, Some(AnyValue { value: Some(Value::IntValue(_)) })), is_number, "{name}");
    match &found.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text.clone()),
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}
