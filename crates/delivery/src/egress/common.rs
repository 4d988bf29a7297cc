//! What direct requests and requests through the proxy have in common.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT},
};

/// The time to establish a connection: name, TCP and TLS together. TCP divides it among the addresses of a family. An
/// attempt may end earlier; this limit also ends connections that no attempt waits for.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// The maximum idle time of a reused connection, which is closed within twice that time. Servers keep idle connections
/// longer (5 s in Node.js and Apache): a request on a connection that the other side is closing fails. This also limits
/// the number over all hosts.
pub(super) const IDLE_FOR: Duration = Duration::from_secs(4);
/// The name of the operator in requests.
pub(super) const AGENT: &str = concat!("tidings/", env!("CARGO_PKG_VERSION"));

/// The headers of each request that does not set them itself.
pub(super) fn headers() -> HeaderMap {
    HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("*/*")),
        // Without the header, a server may choose any content encoding (RFC 9110, section 12.5.3).
        (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        (USER_AGENT, HeaderValue::from_static(AGENT)),
    ])
}
