//! Classifies failed exchanges.

use std::{error::Error as StdError, io};

/// Why there is no response. The errors contain no address and nothing that the other side sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// The TLS handshake failed, usually because a certificate is not trusted.
    #[error(
        "the TLS handshake failed: check the server's certificate; set tls.caRef for a private certificate authority, and tls.clientCertificateSecretRef if the server requires a client certificate"
    )]
    Tls,
    /// The exchange timed out.
    #[error("no complete response in time")]
    Timeout,
    /// The connection broke, or the response is not HTTP.
    #[error("the connection broke before the response was complete")]
    Broken,
}

/// The policy allows no address of a name.
#[derive(Debug, thiserror::Error)]
#[error("denied by the egress policy")]
pub(super) struct Denied;

/// A name has no address.
#[derive(Debug, thiserror::Error)]
#[error("the host name does not resolve")]
pub(super) struct NameNotFound(#[source] pub(super) io::Error);

/// Classifies a failure by the types in its chain of causes, never by their texts.
///
/// With TLS 1.3, a server rejects a client certificate after the handshake. The client then reads its alert in place of
/// a response; while a long body is being written, a broken pipe may occur first.
pub(super) fn sort(error: &reqwest::Error) -> SendError {
    if has_cause::<Denied>(error) {
        SendError::Denied
    } else if has_cause::<NameNotFound>(error) {
        SendError::Dns
    } else if error.is_timeout() {
        SendError::Timeout
    } else if has_cause::<rustls::Error>(error) {
        SendError::Tls
    } else if error.is_connect() {
        SendError::Connection
    } else {
        SendError::Broken
    }
}

/// Whether an error of type `T` is in the chain.
pub(super) fn has_cause<T: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    has(error, &|error| error.is::<T>())
}

/// Whether the connection broke, as opposed to an invalid response.
pub(super) fn broke_off(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let broke =
        |error: &io::Error| matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
    sort(error) == SendError::Broken
        && has(error, &|error| {
            error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
                || error.downcast_ref::<io::Error>().is_some_and(broke)
        })
}

/// Whether an error in the chain satisfies `is_it`.
fn has(error: &(dyn StdError + 'static), is_it: &dyn Fn(&(dyn StdError + 'static)) -> bool) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if is_it(error) {
            return true;
        }
        // An io::Error's source() is the source of what it wraps: check the wrapped error itself first.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && has(inner, is_it)
        {
            return true;
        }
        next = error.source();
    }
    false
}
