//! The requests that an endpoint receives and the answers that it sends.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio_rustls::rustls::pki_types::CertificateDer;

/// One complete request.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its head arrived.
    pub arrived: Instant,
    /// The same as a wall-clock time.
    pub arrived_at: SystemTime,
    /// The client's end of the connection: equal for two requests over the same connection.
    pub peer: SocketAddr,
    /// The client certificate of the connection, if the TLS configuration demands one.
    pub certificate: Option<CertificateDer<'static>>,
    /// GET, POST, OPTIONS…
    pub method: Method,
    /// The path without its query.
    pub path: String,
    /// The query, after the `?`.
    pub query: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// An HTTP response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// Headers in addition to those that HTTP itself needs.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// How a request ends.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With an HTTP response.
    Reply(Reply),
    /// Not at all: the connection stays open and silent.
    Hang,
    /// With a TCP reset.
    Reset,
}

impl Reply {
    /// A reply without headers or body.
    ///
    /// # Panics
    /// When `status` is not an HTTP status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Adds a header.
    ///
    /// # Panics
    /// When the name or the value is invalid.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        self
    }

    /// Adds a `WebHook-Allowed-Origin`: the receiver allows deliveries from this origin, or from all origins (`*`)
    /// (CloudEvents web hooks, section 4.2.1).
    ///
    /// # Panics
    /// When the value is not a valid header value.
    #[must_use]
    pub fn allow_origin(self, origin: &str) -> Self {
        self.header("webhook-allowed-origin", origin)
    }

    /// Adds a `WebHook-Allowed-Rate`: the requests per minute that the receiver allows, or `*` (section 4.2.2).
    ///
    /// # Panics
    /// When the value is not a valid header value.
    #[must_use]
    pub fn allow_rate(self, rate: &str) -> Self {
        self.header("webhook-allowed-rate", rate)
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}
