//! Reads a response, up to limits of size and time.

use http::{HeaderMap, StatusCode};
use secrecy::zeroize::Zeroizing;
use tokio::time::{Instant, timeout_at};

use super::SendError;

/// The maximum length of the headers in a response.
const HEADER_LIMIT: usize = 32 * 1024;

/// A response. It has no Debug, because the body of a token response is a secret.
pub struct Response {
    /// The HTTP status code.
    pub status: StatusCode,
    /// The response headers.
    pub headers: HeaderMap,
    /// The body, up to the limits of size and time.
    pub body: Zeroizing<Vec<u8>>,
    /// Whether the body is complete.
    pub complete: bool,
}

/// Reads the response until the deadline.
pub(super) async fn answer(
    mut response: reqwest::Response,
    body_limit: usize,
    deadline: Instant,
) -> Result<Response, SendError> {
    let headers: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > HEADER_LIMIT {
        return Err(SendError::Broken);
    }
    let mut body = Zeroizing::default();
    let complete = timeout_at(deadline, read(&mut response, &mut body, body_limit)).await.unwrap_or(false);
    Ok(Response { status: response.status(), headers: std::mem::take(response.headers_mut()), body, complete })
}

async fn read(response: &mut reqwest::Response, body: &mut Zeroizing<Vec<u8>>, limit: usize) -> bool {
    while let Ok(chunk) = response.chunk().await {
        let Some(chunk) = chunk else {
            return true;
        };
        let room = limit - body.len();
        append(body, &chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    false
}

/// Appends `more`. When the buffer grows, its old memory is wiped.
fn append(body: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    let length = body.len() + more.len();
    if length > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(length.max(2 * body.capacity())));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(more);
}
