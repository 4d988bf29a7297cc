//! Classifies failed exchanges.

use std::{error::Error as StdError, io};

use hyper_util::client::legacy;

use super::{ProxyFault, TlsFault};

/// Why there is no response. The errors contain no address, and nothing that the other side sent except the names in its
/// certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The egress policy denies the port or every address of the host, or the host is a name inside the cluster that
    /// does not exist; no connection was opened.
    #[error(
        "the operator's egress policy denies this host or port, or the host is a name inside the cluster that does not exist; an administrator can allow the address with --egress-allow-cidr (chart: egress.allowCIDRs), the name with --egress-allow-host (egress.allowHosts) and the port with --egress-allow-port (egress.allowPorts)"
    )]
    Denied,
    /// The host name does not resolve.
    #[error(
        "the host name does not resolve: check the URL and the DNS; a Service needs its namespace, as in https://hooks.shop.svc"
    )]
    Dns,
    /// No connection: refused, reset or unreachable.
    #[error("cannot connect: check the URL, the network, and that the server is running")]
    Connection,
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Tls(TlsFault),
    /// The egress proxy failed, or refused to connect to the host.
    #[error("no connection through the operator's egress proxy: {0}")]
    Proxy(ProxyFault),
    /// The exchange timed out.
    #[error("no complete response in time")]
    Timeout,
    /// The connection broke, or the response is not HTTP.
    #[error("the connection broke before the response was complete")]
    Broken,
}

/// The error of an exchange on either way, which [`sort`] classifies.
pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// The policy allows no address of a name.
#[derive(Debug, thiserror::Error)]
#[error("denied by the egress policy")]
pub(super) struct Denied;

/// A name has no address.
#[derive(Debug, thiserror::Error)]
#[error("the host name does not resolve")]
pub(super) struct NameNotFound(#[source] pub(super) io::Error);

/// No connection was established in time.
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
pub(super) struct ConnectTimeout;

/// Classifies a failure by the types in its chain of causes, never by their texts.
///
/// With TLS 1.3, a server rejects a client certificate after the handshake. The client then reads its alert in place of
/// a response; while a long body is being written, a broken pipe may occur first.
pub(super) fn sort(error: &(dyn StdError + 'static)) -> SendError {
    if let Some(fault) = cause::<ProxyFault>(error) {
        SendError::Proxy(*fault)
    } else if has_cause::<Denied>(error) {
        SendError::Denied
    } else if has_cause::<NameNotFound>(error) {
        SendError::Dns
    } else if is_timeout(error) {
        SendError::Timeout
    } else if let Some(error) = cause::<rustls::Error>(error) {
        SendError::Tls(TlsFault::of(error))
    } else if is(error, legacy::Error::is_connect) {
        SendError::Connection
    } else {
        SendError::Broken
    }
}

fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    has_cause::<ConnectTimeout>(error)
        || is(error, reqwest::Error::is_timeout)
        || is(error, |error: &io::Error| error.kind() == io::ErrorKind::TimedOut)
}

/// Whether an error of type `T` in the chain is as `wanted`.
fn is<T: StdError + 'static>(error: &(dyn StdError + 'static), wanted: impl Fn(&T) -> bool) -> bool {
    find(error, &|error| error.downcast_ref().filter(|error| wanted(error))).is_some()
}

/// Whether an error of type `T` is in the chain.
pub(super) fn has_cause<T: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    cause::<T>(error).is_some()
}

/// Returns the first error of type `T` in the chain.
fn cause<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    find(error, &|error| error.downcast_ref())
}

/// Whether the connection broke, as opposed to an invalid response.
pub(super) fn broke_off(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let broke =
        |error: &io::Error| matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
    sort(error) == SendError::Broken && (is(error, hyper::Error::is_incomplete_message) || is(error, broke))
}

/// Returns what `pick` takes of the first error in the chain from which it takes something.
fn find<'e, T>(
    error: &'e (dyn StdError + 'static),
    pick: &dyn Fn(&'e (dyn StdError + 'static)) -> Option<T>,
) -> Option<T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(picked) = pick(error) {
            return Some(picked);
        }
        // An io::Error's source() is the source of what it wraps: check the wrapped error itself first.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(picked) = inner.and_then(|inner| find(inner, pick)) {
            return Some(picked);
        }
        next = error.source();
    }
    None
}
