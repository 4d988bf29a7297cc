//! Names the cause of a connection that failed at the egress proxy.

use super::CredentialsFault;

/// Why there is no connection through the egress proxy. The errors contain nothing that the proxy sent except the status
/// code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFault {
    /// The host name of the proxy does not resolve.
    #[error("the proxy's host name does not resolve: an administrator must check --egress-proxy and the DNS")]
    Dns,
    /// No connection to the proxy: refused, reset or unreachable.
    #[error("cannot connect to the proxy: an administrator must check --egress-proxy and that the proxy is running")]
    Connection,
    /// The TLS handshake with the proxy failed.
    #[error(
        "the TLS handshake with the proxy failed: an administrator must check the proxy's certificate, --egress-proxy and --egress-proxy-ca-file"
    )]
    Tls,
    /// The proxy did not open the connection in time.
    #[error(
        "the proxy did not open a connection to the host in time: check that the server is running, or have an administrator check the proxy"
    )]
    Timeout,
    /// The proxy requires credentials (status 407), and none are configured.
    #[error(
        "the proxy requires credentials (status 407): an administrator must set --egress-proxy-credentials-file (chart: egress.proxy.credentialsSecretName)"
    )]
    CredentialsRequired,
    /// The proxy rejected the credentials (status 407).
    #[error(
        "the proxy rejected the operator's credentials (status 407): an administrator must correct the file that --egress-proxy-credentials-file names"
    )]
    CredentialsRejected,
    /// The operator cannot use the file with its credentials.
    #[error("the file that --egress-proxy-credentials-file names {0}: an administrator must correct the file")]
    Credentials(#[from] CredentialsFault),
    /// The proxy refused to connect to the host.
    #[error(
        "the proxy refused to connect to the host (status {0}): an administrator must allow the host and port in the proxy"
    )]
    Refused(u16),
    /// The proxy could not connect to the host.
    #[error(
        "the proxy could not connect to the host (status {0}): check the URL and that the server is running, or have an administrator check the proxy"
    )]
    Unreachable(u16),
    /// The connection to the proxy broke, or its response is not HTTP.
    #[error(
        "the proxy closed the connection, or its response is not HTTP: an administrator must check --egress-proxy and the proxy"
    )]
    Broken,
}

impl ProxyFault {
    /// The fault that a status code other than 2xx reports. `authorized`: whether credentials were sent.
    pub(super) fn of_status(status: http::StatusCode, authorized: bool) -> Self {
        match status.as_u16() {
            407 if authorized => Self::CredentialsRejected,
            407 => Self::CredentialsRequired,
            code if code < 500 => Self::Refused(code),
            code => Self::Unreachable(code),
        }
    }

    /// Whether the proxy itself fails, for every host.
    pub(crate) fn is_of_proxy(self) -> bool {
        match self {
            Self::Refused(_) | Self::Unreachable(_) | Self::Timeout => false,
            Self::Dns
            | Self::Connection
            | Self::Tls
            | Self::CredentialsRequired
            | Self::CredentialsRejected
            | Self::Credentials(_)
            | Self::Broken => true,
        }
    }

    /// Whether the proxy may still connect to another address of the same host.
    pub(super) fn is_of_address(self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unreachable(_) | Self::Timeout | Self::Broken)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_status_says_whether_the_proxy_the_credentials_or_the_host_is_at_fault() {
        let fault = |status: u16, authorized| ProxyFault::of_status(StatusCode::from_u16(status).unwrap(), authorized);
        assert_eq!(fault(407, true), ProxyFault::CredentialsRejected);
        assert_eq!(fault(407, false), ProxyFault::CredentialsRequired);
        for refused in [301, 400, 403, 404, 405, 429] {
            assert_eq!(fault(refused, true), ProxyFault::Refused(refused));
        }
        for unreachable in [500, 502, 503, 504] {
            assert_eq!(fault(unreachable, true), ProxyFault::Unreachable(unreachable));
        }
    }

    #[test]
    fn every_message_fits_into_a_status_and_says_who_must_act() {
        let all = [
            ProxyFault::Dns,
            ProxyFault::Connection,
            ProxyFault::Tls,
            ProxyFault::Timeout,
            ProxyFault::CredentialsRequired,
            ProxyFault::CredentialsRejected,
            ProxyFault::Credentials(CredentialsFault::Malformed),
            ProxyFault::Refused(403),
            ProxyFault::Unreachable(502),
            ProxyFault::Broken,
        ];
        for fault in all {
            let message = crate::egress::SendError::Proxy(fault).to_string();
            assert!(message.contains("proxy") && message.contains("check") | message.contains("must"), "{message}");
            assert!(message.len() <= 256, "{} bytes: {message}", message.len());
        }
    }
}
