//! Where one Subscriber's events go.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use url::Url;

use crate::{
    egress::{Client, Response, SendError},
    event::Encoding,
    oauth::TokenSource,
};

/// This much of an answer is read, so that its connection can be used again; what it says is ignored.
const ANSWER_LIMIT: usize = 16 * 1024;

/// Where one Subscriber's events go: everything resolved and checked.
pub struct Target {
    /// The webhook.
    pub url: Url,
    /// How events are put into requests.
    pub encoding: Encoding,
    /// The headers that the user adds.
    pub headers: HeaderMap,
    /// What one exchange with the webhook may take.
    pub timeout: Duration,
    /// The way out.
    pub http: Arc<Client>,
    /// Where the bearer token comes from.
    pub tokens: Arc<TokenSource>,
    /// The value of `WebHook-Request-Origin` (CloudEvents web hooks, section 4.1.1).
    pub origin: HeaderValue,
}

impl Target {
    /// Sends one request to the webhook: `headers` and, besides, the origin and what the user adds.
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
