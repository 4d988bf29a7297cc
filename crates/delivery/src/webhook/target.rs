//! The target of one Subscriber's events.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use url::Url;

use crate::{
    egress::{Client, Response, SendError},
    event::Encoding,
    oauth::TokenSource,
};

/// How much of a response is read, so that the connection can be reused. The content is ignored.
const ANSWER_LIMIT: usize = 16 * 1024;

/// The target of one Subscriber's events, resolved and checked.
pub struct Target {
    /// The URL of the webhook.
    pub url: Url,
    /// How events are encoded.
    pub encoding: Encoding,
    /// The headers that the user adds.
    pub headers: HeaderMap,
    /// The timeout of one exchange with the webhook.
    pub timeout: Duration,
    /// The HTTP client.
    pub http: Arc<Client>,
    /// The source of the bearer token.
    pub tokens: Arc<TokenSource>,
    /// The value of `WebHook-Request-Origin` (CloudEvents web hooks, section 4.1.1).
    pub origin: HeaderValue,
}

impl Target {
    /// Sends one request to the webhook, with `headers`, the origin, and the headers that the user adds.
    pub(super) async fn exchange(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
        may_repeat: &(dyn Fn() -> bool + Sync),
    ) -> Result<Response, SendError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.url.as_str().parse().map_err(|_error| SendError::Broken)?;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().extend(headers);
        request.headers_mut().insert("webhook-request-origin", self.origin.clone());
        self.http.send(request, ANSWER_LIMIT, timeout, may_repeat).await
    }
}
