//! A request and how it ends.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// One request, complete.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its head was here.
    pub arrived: Instant,
    /// The same by the clock on the wall.
    pub arrived_at: SystemTime,
    /// The client's end of the connection: equal for two requests that came over the same one.
    pub peer: SocketAddr,
    /// GET, POST, OPTIONS…
    pub method: Method,
    /// The path without its query.
    pub path: String,
    /// What follows the `?`.
    pub query: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// What goes back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// Headers besides those that HTTP itself needs.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// How a request ends.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With an HTTP response.
    Reply(Reply),
    /// Never: the connection stays open and silent.
    Hang,
    /// With a TCP reset.
    Reset,
}

impl Reply {
    /// A reply without headers and body.
    ///
    /// # Panics
    /// When `status` is no HTTP status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// Adds a header.
    ///
    /// # Panics
    /// When it cannot be one.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        self
    }

    /// Adds a `WebHook-Allowed-Origin`: a receiver's consent to deliveries from this origin, or from all by `*`
    /// (CloudEvents web hooks, section 4.2.1).
    ///
    /// # Panics
    /// When it cannot be a header's value.
    #[must_use]
    pub fn allow_origin(self, origin: &str) -> Self {
        self.header("webhook-allowed-origin", origin)
    }

    /// Adds a `WebHook-Allowed-Rate`: how many requests a minute the receiver grants, or `*` (section 4.2.2).
    ///
    /// # Panics
    /// When it cannot be a header's value.
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
