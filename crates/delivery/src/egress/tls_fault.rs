//! Names the cause of a failed TLS handshake.

use std::{fmt, sync::Arc};

use rustls::{AlertDescription as Alert, CertificateError, Error};

/// How many names of a certificate an error shows.
const MOST_NAMES: usize = 5;
/// The longest name that an error shows, in bytes: a DNS name (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;

/// Why a TLS handshake failed. The errors contain nothing that the server sent, except the names in its certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// The validity of the server's certificate is over.
    #[error("the server's certificate has expired: renew the certificate")]
    Expired,
    /// The validity of the server's certificate has not begun.
    #[error("the server's certificate is not valid yet: check the certificate, and the clock of the operator's node")]
    NotValidYet,
    /// The server's certificate is for other hosts.
    #[error("the server's certificate is not valid for the host in the URL, {0}: correct the URL or the certificate")]
    NotValidForName(CertificateNames),
    /// No trusted authority issued the server's certificate.
    #[error("an unknown authority issued the server's certificate: set tls.caRef to the certificate of that authority")]
    UnknownIssuer,
    /// The server uses the certificate of an authority as its own (basic constraint CA:TRUE), which is what `openssl req
    /// -x509` makes.
    #[error(
        "the server uses the certificate of a certificate authority (CA:TRUE) as its own: create a certificate without, as with openssl req -x509 -addext basicConstraints=critical,CA:FALSE"
    )]
    CertificateOfAuthority,
    /// The server's certificate is for other purposes.
    #[error("the server's certificate is not for servers: its extended key usage must include serverAuth")]
    InvalidPurpose,
    /// The server's certificate is revoked.
    #[error("the server's certificate is revoked: replace the certificate")]
    Revoked,
    /// The server's certificate is malformed, has a bad signature, or has features that are not supported.
    #[error("the server's certificate cannot be verified: replace the certificate")]
    InvalidCertificate,
    /// The server requires a client certificate, and none was sent.
    #[error("the server requires a client certificate: set tls.clientCertificateSecretRef")]
    ClientCertificateRequired,
    /// The server rejects the client certificate.
    #[error(
        "the server rejects the client certificate, or requires one: check the Secret that tls.clientCertificateSecretRef names, its validity, and which authority the server trusts"
    )]
    ClientCertificateRejected,
    /// The server refused the handshake without a cause.
    #[error(
        "the server refused the handshake: if it requires a client certificate, set tls.clientCertificateSecretRef; it must also support a cipher of TLS 1.2 or 1.3"
    )]
    Refused,
    /// The server supports no version or cipher that the operator supports.
    #[error("no common TLS version or cipher: the server must support TLS 1.2 or 1.3 with a current cipher")]
    Incompatible,
    /// The server does not serve this host name.
    #[error("the server does not know the host name in the URL: correct the URL, or the server's configuration")]
    UnknownName,
    /// The server does not speak TLS.
    #[error("the server's response is not TLS: check the port in the URL")]
    NotTls,
    /// Any other cause.
    #[error("check the server's certificate and its TLS settings")]
    Other,
}

/// The names in a certificate, at most a few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateNames(Arc<[Box<str>]>);

impl TlsFault {
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(fault) => Self::of_certificate(fault),
            Error::NoCertificatesPresented => Self::InvalidCertificate,
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            Error::InvalidMessage(_) => Self::NotTls,
            _ => Self::Other,
        }
    }

    fn of_certificate(fault: &CertificateError) -> Self {
        match fault {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotValidYet,
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::NotValidForName(CertificateNames::of(presented))
            }
            CertificateError::NotValidForName => Self::NotValidForName(CertificateNames::of(&[])),
            // A bad signature: another authority has the same name, as after its key was replaced.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::InvalidPurpose,
            CertificateError::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
                Some(webpki::Error::CaUsedAsEndEntity) => Self::CertificateOfAuthority,
                _ => Self::InvalidCertificate,
            },
            _ => Self::InvalidCertificate,
        }
    }

    fn of_alert(alert: Alert) -> Self {
        match alert {
            Alert::CertificateRequired => Self::ClientCertificateRequired,
            Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError => Self::ClientCertificateRejected,
            Alert::HandshakeFailure => Self::Refused,
            Alert::ProtocolVersion | Alert::InsufficientSecurity | Alert::NoApplicationProtocol => Self::Incompatible,
            Alert::UnrecognisedName => Self::UnknownName,
            _ => Self::Other,
        }
    }
}

impl CertificateNames {
    /// Takes names as the TLS library describes them, such as `DnsName("a.example")`.
    fn of(presented: &[String]) -> Self {
        let name = |text: &String| {
            let text = text.split_once('(').map_or(text.as_str(), |(_, rest)| rest.trim_end_matches(')'));
            let text = text.trim_matches('"');
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:*".contains(&byte);
            (!text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(fits)).then(|| text.into())
        };
        // One more than is shown, to say so.
        Self(presented.iter().filter_map(name).take(MOST_NAMES + 1).collect())
    }
}

impl fmt::Display for CertificateNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("and has no names for servers (subjectAltName)");
        }
        let shown = self.0.iter().take(MOST_NAMES).map(|name| &**name).collect::<Vec<_>>().join(", ");
        write!(f, "only for {shown}{}", if self.0.len() > MOST_NAMES { " and more" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_few_and_short_and_without_odd_characters() {
        let shown =
            |names: &[&str]| CertificateNames::of(&names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>()).to_string();
        assert_eq!(shown(&[r#"DnsName("*.a.example")"#, "IpAddress(10.0.0.1)"]), "only for *.a.example, 10.0.0.1");
        let long = format!("DnsName(\"{}\")", "a".repeat(300));
        assert_eq!(shown(&[&long, "DnsName(\"<b>\")", "Unsupported(0x99)"]), "only for 0x99");
        assert_eq!(shown(&[]), "and has no names for servers (subjectAltName)");
        let many: Vec<_> = (0..9).map(|n| format!("DnsName(\"n{n}\")")).collect();
        assert_eq!(CertificateNames::of(&many).to_string(), "only for n0, n1, n2, n3, n4 and more");
    }
}
