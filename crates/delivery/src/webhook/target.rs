//! The target of one Subscriber's events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use url::Url;

use super::{ResponseRules, Signer};
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
    /// What the webhook's status codes mean.
    pub rules: ResponseRules,
    /// Whether the webhook may redirect because of the token.
    pub token_doubt: TokenDoubt,
    /// Signs each POST. None: POSTs are not signed.
    pub signer: Option<Signer>,
    /// The value of `WebHook-Request-Origin` (CloudEvents web hooks, section 4.1.1).
    pub origin: HeaderValue,
}

/// Remembers that the token was renewed because of a response that may speak of the token.
///
/// A proxy answers a token that it does not accept with a redirect to a login page, or with 405 from that page. So does a
/// webhook that has moved: without a success in between, the token is renewed only once.
#[derive(Debug, Default)]
pub struct TokenDoubt(AtomicBool);

impl TokenDoubt {
    /// Whether the next attempt needs a new token after a response with this status and Retry-After.
    pub(super) fn is_raised_by(&self, status: StatusCode, retry_after: Option<Duration>) -> bool {
        match status {
            StatusCode::FORBIDDEN => retry_after.is_none(),
            StatusCode::METHOD_NOT_ALLOWED => !self.0.swap(true, Ordering::Relaxed),
            _ if status.is_redirection() => !self.0.swap(true, Ordering::Relaxed),
            _ => {
                if status.is_success() {
                    self.0.store(false, Ordering::Relaxed);
                }
                false
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_or_a_405_raises_the_doubt_once_until_a_success_and_a_403_always_without_retry_after() {
        let doubt = TokenDoubt::default();
        let raised = |status: u16| doubt.is_raised_by(StatusCode::from_u16(status).unwrap(), None);
        assert!(raised(302) && !raised(302) && !raised(405) && !raised(307));
        assert!(!raised(500) && !raised(404) && !raised(302), "no success");
        assert!(!raised(204) && raised(405) && !raised(302));
        assert!(raised(403) && raised(403));
        assert!(!doubt.is_raised_by(StatusCode::FORBIDDEN, Some(Duration::from_secs(120))), "a quota, not the token");
    }
}
