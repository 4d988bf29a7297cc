//! TLS trust: trusted certificate authorities and client certificates.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    ClientConfig, Error as TlsError, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// The TLS settings that distinguish clients. The default trusts the public authorities and has no client certificate.
#[derive(Clone, Default)]
pub struct Trust {
    /// The trusted certificate authorities.
    pub authorities: Authorities,
    /// The client certificate for servers that require one (mTLS).
    pub identity: Option<ClientIdentity>,
}

/// The certificate authorities that a client trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authorities {
    /// The public authorities.
    #[default]
    Public,
    /// The public authorities and those of a bundle (PEM).
    PublicAnd(Vec<u8>),
    /// Only those of a bundle (PEM).
    Only(Vec<u8>),
}

impl Authorities {
    /// Whether the public authorities are trusted.
    pub(super) fn include_public(&self) -> bool {
        !matches!(self, Self::Only(_))
    }

    /// The bundle, if there is one.
    pub(super) fn bundle(&self) -> Option<&[u8]> {
        match self {
            Self::Public => None,
            Self::PublicAnd(bundle) | Self::Only(bundle) => Some(bundle),
        }
    }
}

/// A client certificate with its key.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificate, followed by its intermediate certificates, as PEM.
    pub certificate_pem: Vec<u8>,
    /// The private key as PEM: PKCS #8, PKCS #1 or SEC 1, without a passphrase.
    pub key_pem: SecretSlice<u8>,
}

/// A SHA-256 of a trust: equal for equal trust.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// Why there is no client for a trust. The errors contain nothing of what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The certificate authorities cannot be used.
    #[error(transparent)]
    Roots(#[from] RootsFault),
    /// The client certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityFault),
    /// The TLS library rejects the operator's own settings: a bug.
    #[error("the TLS library rejects the operator's own settings: please report this")]
    Unsupported,
}

/// What is wrong with a bundle of certificate authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootsFault {
    /// The text contains no certificate.
    #[error("there is no PEM certificate: store the certificates of the certificate authority")]
    Empty,
    /// A certificate is malformed.
    #[error("certificate {number} is not a valid PEM certificate: replace or remove it")]
    Invalid {
        /// The number of the certificate, from 1.
        number: usize,
    },
}

/// What is wrong with a client certificate or its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityFault {
    /// The text contains no certificate.
    #[error("no PEM certificate in tls.crt: store the client certificate")]
    NoCertificate,
    /// A certificate is malformed.
    #[error("a certificate in tls.crt is not a valid PEM certificate: replace it")]
    InvalidCertificate,
    /// The text contains no private key.
    #[error("no PEM private key in tls.key: store the client's private key, without a passphrase")]
    NoKey,
    /// The key has a passphrase.
    #[error("the private key in tls.key has a passphrase: store the key without a passphrase")]
    EncryptedKey,
    /// The key is malformed or of an unsupported kind.
    #[error("the private key in tls.key cannot be used: it must be RSA of 2048 bits or more, ECDSA or Ed25519")]
    InvalidKey,
    /// The key belongs to another certificate.
    #[error("the private key in tls.key does not belong to the first certificate in tls.crt: store a matching pair")]
    KeyMismatch,
}

impl Trust {
    /// Returns the fingerprint of this trust.
    pub fn fingerprint(&self) -> Fingerprint {
        let identity = self.identity.as_ref();
        let parts = [
            self.authorities.bundle(),
            identity.map(|identity| identity.certificate_pem.as_slice()),
            identity.map(|identity| identity.key_pem.expose_secret()),
        ];
        let mut hash = Sha256::new();
        hash.update([u8::from(self.authorities.include_public())]);
        for part in parts {
            // Each part is hashed with its presence and length, so that no two trusts produce the same text.
            hash.update([u8::from(part.is_some())]);
            let part = part.unwrap_or_default();
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        Fingerprint(hash.finalize().into())
    }

    /// Makes the TLS configuration of a client: TLS 1.2 and 1.3, with certificates verified by WebPKI rules against
    /// `roots`, which contain [`Trust::authorities`].
    pub(super) fn config(&self, roots: Arc<RootCertStore>) -> Result<ClientConfig, TrustError> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|_error| TrustError::Unsupported)?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            Some(identity) => {
                let (chain, key) = identity.parse()?;
                config.with_client_auth_cert(chain, key).map_err(|error| match error {
                    TlsError::InconsistentKeys(_) => IdentityFault::KeyMismatch,
                    TlsError::InvalidCertificate(_) => IdentityFault::InvalidCertificate,
                    _ => IdentityFault::InvalidKey,
                })?
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Adds the certificate authorities of a bundle.
pub(super) fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), RootsFault> {
    let pem = &*lines_apart(pem);
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        count += 1;
        let invalid = RootsFault::Invalid { number: count };
        roots.add(certificate.map_err(|_error| invalid)?).map_err(|_error| invalid)?;
    }
    match count {
        0 => Err(RootsFault::Empty),
        // The parser skips what it does not recognize: a certificate that was begun must not be missing in silence.
        _ if count < begun(pem) => Err(RootsFault::Invalid { number: count + 1 }),
        _ => Ok(()),
    }
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";

/// Inserts a newline between a PEM boundary and the boundary that begins on the same line. Without a newline at the end
/// of a file, `cat a.pem b.pem` joins the last line of the first file with the first line of the second.
fn lines_apart(pem: &[u8]) -> Cow<'_, [u8]> {
    let joined = |line: &[u8]| {
        let at = line.windows(BEGIN.len()).position(|window| window == BEGIN)?;
        let before = line[..at].trim_ascii();
        (before.starts_with(END) && before.ends_with(b"-----")).then_some(at)
    };
    let lines = || pem.split_inclusive(|byte| *byte == b'\n');
    if lines().all(|line| joined(line).is_none()) {
        return pem.into();
    }
    let mut apart = Vec::with_capacity(pem.len() + 64);
    for mut line in lines() {
        while let Some(at) = joined(line) {
            apart.extend_from_slice(&line[..at]);
            apart.push(b'\n');
            line = &line[at..];
        }
        apart.extend_from_slice(line);
    }
    apart.into()
}

/// The number of certificates that begin in `pem`. A commented line begins none, an indented line does.
fn begun(pem: &[u8]) -> usize {
    let begins = |line: &&[u8]| line.trim_ascii_start().starts_with(b"-----BEGIN CERTIFICATE-----");
    pem.split(|byte| *byte == b'\n').filter(begins).count()
}

/// Whether the text has a private key with a passphrase, in the format of PKCS #8 (RFC 5958) or of older programs
/// (RFC 1421, section 4.6.1.1). The parsers of private keys skip such a key or call it malformed.
pub(crate) fn has_encrypted_key(pem: &[u8]) -> bool {
    let has = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

impl ClientIdentity {
    /// Returns when the certificate expires (None: it cannot be read). The certificates that follow it do not count.
    pub fn expires(&self) -> Option<SystemTime> {
        let certificate = CertificateDer::pem_slice_iter(&lines_apart(&self.certificate_pem)).next()?.ok()?;
        let (_, certificate) = X509Certificate::from_der(&certificate).ok()?;
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    fn parse(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityFault> {
        use rustls::pki_types::pem::Error;
        let certificates = lines_apart(&self.certificate_pem);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificates).collect();
        let chain = chain.map_err(|_error| IdentityFault::InvalidCertificate)?;
        if chain.is_empty() {
            return Err(IdentityFault::NoCertificate);
        }
        if chain.len() < begun(&certificates) {
            return Err(IdentityFault::InvalidCertificate);
        }
        let key = self.key_pem.expose_secret();
        if has_encrypted_key(key) {
            return Err(IdentityFault::EncryptedKey);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            Error::NoItemsFound => IdentityFault::NoKey,
            _ => IdentityFault::InvalidKey,
        })?;
        Ok((chain, key))
    }
}

/// Shows enough of it to distinguish fingerprints in a log.
impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use testkit::Authority;

    use super::*;

    fn identity(certificate_pem: &str, key_pem: &str) -> Option<ClientIdentity> {
        Some(ClientIdentity { certificate_pem: certificate_pem.into(), key_pem: key_pem.as_bytes().to_vec().into() })
    }

    fn roots(pem: &str) -> Trust {
        Trust { authorities: Authorities::PublicAnd(pem.into()), identity: None }
    }

    fn config(trust: &Trust) -> Result<ClientConfig, TrustError> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = trust.authorities.bundle() {
            add(&mut roots, pem)?;
        }
        trust.config(roots.into())
    }

    fn fault(trust: &Trust) -> TrustError {
        config(trust).map(drop).unwrap_err()
    }

    #[test]
    fn the_expiry_of_a_client_certificate_is_that_of_the_first_certificate() {
        let expires = |pem: &str| identity(pem, "").unwrap().expires();
        let authority = Authority::new();
        // The first second of the year 4096.
        let at = UNIX_EPOCH + Duration::from_secs(67_090_118_400);
        let client = authority.client_identity("a").certificate_pem;
        assert_eq!(expires(&client), Some(at));
        assert_eq!(expires(&format!("{client}{}", authority.ca_pem())), Some(at));
        for bad in ["", "none", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(expires(bad), None, "{bad}");
        }
    }

    #[test]
    fn equal_trust_has_one_fingerprint_and_any_difference_another() {
        let all = |bundle: Option<&str>, identity| Trust {
            authorities: bundle.map_or(Authorities::Public, |bundle| Authorities::PublicAnd(bundle.into())),
            identity,
        };
        let only = |bundle: &str, identity| Trust { authorities: Authorities::Only(bundle.into()), identity };
        let different = [
            all(None, None),
            all(Some(""), None),
            all(Some("ab"), None),
            all(None, identity("ab", "")),
            all(None, identity("a", "b")),
            all(None, identity("", "ab")),
            all(Some("a"), identity("b", "")),
            all(Some(""), identity("", "")),
            all(None, identity("", "")),
            only("", None),
            only("ab", None),
            only("a", identity("b", "")),
        ];
        let fingerprints: HashSet<_> = different.iter().map(Trust::fingerprint).collect();
        assert_eq!(fingerprints.len(), different.len());
        for trust in &different {
            assert_eq!(trust.clone().fingerprint(), trust.fingerprint());
        }
        let secret = all(None, identity("", "canary"));
        assert!(!format!("{:?}", secret.fingerprint()).contains("canary"));
    }

    #[test]
    fn a_bundle_says_which_of_its_certificates_is_wrong() {
        let authority = Authority::new();
        let (good, broken) = (authority.ca_pem(), authority.ca_pem().replace("MII", "MIJ"));
        let cut = "-----BEGIN CERTIFICATE-----\nMII";
        let cases = [
            (String::new(), RootsFault::Empty),
            ("no certificate".into(), RootsFault::Empty),
            (authority.client_identity("acme").key_pem, RootsFault::Empty),
            (broken.clone(), RootsFault::Invalid { number: 1 }),
            (format!("# a comment\n{good}{broken}"), RootsFault::Invalid { number: 2 }),
            (format!("{good}{cut}"), RootsFault::Invalid { number: 2 }),
        ];
        for (pem, expected) in cases {
            assert_eq!(fault(&roots(&pem)), TrustError::Roots(expected), "{pem}");
        }
        let two = format!("# text before\n{good}\n# and between\n{}", Authority::new().ca_pem());
        assert!(config(&roots(&two)).is_ok());
    }

    #[test]
    fn field_19_certificates_joined_without_a_newline_are_all_read_or_the_missing_one_is_named() {
        let [a, b, c] = [(); 3].map(|()| Authority::new().ca_pem().trim_end().to_owned());
        for joined in [format!("{a}{b}"), format!("{a}{b}\n{c}"), format!("{a} {b}"), format!("{a}\r\n{b}\r\n")] {
            let mut roots = RootCertStore::empty();
            add(&mut roots, joined.as_bytes()).unwrap();
            assert_eq!(roots.len(), joined.matches("BEGIN").count(), "{joined}");
        }
        let cut = b.replace("-----END CERTIFICATE-----", "");
        for bundle in [format!("{a}{cut}"), format!("{a}\n{cut}")] {
            assert_eq!(fault(&roots(&bundle)), TrustError::Roots(RootsFault::Invalid { number: 2 }), "{bundle}");
        }
        // A comment is none of the bundle, whatever it contains.
        let off = a.lines().map(|line| format!("#{line}\n")).collect::<String>();
        for comment in [off.as_str(), "# paste -----BEGIN CERTIFICATE----- here\n", "# -----END CERTIFICATE----- "] {
            for bundle in [format!("{comment}\n{b}\n"), format!("{b}\n{comment}\n{c}")] {
                let mut roots = RootCertStore::empty();
                add(&mut roots, bundle.as_bytes()).unwrap();
                assert_eq!(roots.len(), bundle.lines().filter(|line| line.starts_with("-----BEGIN")).count());
            }
        }
        let indented = b.lines().map(|line| format!("  {line}\n")).collect::<String>();
        let bundle = format!("{a}\n{indented}");
        assert_eq!(
            fault(&roots(&bundle)),
            TrustError::Roots(RootsFault::Invalid { number: 2 }),
            "not skipped in silence"
        );
        let authority = Authority::new();
        let own = authority.client_identity("tidings");
        let chain = format!("{}{}", own.certificate_pem.trim_end(), authority.ca_pem());
        assert!(config(&Trust { identity: identity(&chain, &own.key_pem), ..Trust::default() }).is_ok());
        assert_eq!(identity(&chain, &own.key_pem).unwrap().parse().unwrap().0.len(), 2);
    }

    #[test]
    fn field_20_a_key_with_a_passphrase_is_named_as_such() {
        let own = Authority::new().client_identity("tidings");
        for key in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHzBJ\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIF\n-----END RSA PRIVATE KEY-----\n",
            "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMHcC\n-----END EC PRIVATE KEY-----\n",
        ] {
            let trust = Trust { identity: identity(&own.certificate_pem, key), ..Trust::default() };
            assert_eq!(fault(&trust), TrustError::Identity(IdentityFault::EncryptedKey), "{key}");
            assert!(fault(&trust).to_string().contains("without a passphrase"));
        }
    }

    #[test]
    fn a_client_certificate_says_which_half_of_it_is_wrong() {
        let authority = Authority::new();
        let (one, other) = (authority.client_identity("one"), authority.client_identity("other"));
        let (certificate, key) = (one.certificate_pem.as_str(), one.key_pem.as_str());
        let locked = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let cases = [
            (identity("", key), IdentityFault::NoCertificate),
            (identity(key, key), IdentityFault::NoCertificate),
            (identity(&certificate.replace("MII", "MIJ"), key), IdentityFault::InvalidCertificate),
            (identity("-----BEGIN CERTIFICATE-----\nMII", key), IdentityFault::InvalidCertificate),
            (identity(certificate, ""), IdentityFault::NoKey),
            (identity(certificate, certificate), IdentityFault::NoKey),
            (identity(certificate, &locked), IdentityFault::EncryptedKey),
            (identity(certificate, &key.replace("MIG", "MIH")), IdentityFault::InvalidKey),
            (identity(certificate, "-----BEGIN PRIVATE KEY-----\nMIG"), IdentityFault::InvalidKey),
            (identity(certificate, &other.key_pem), IdentityFault::KeyMismatch),
        ];
        for (identity, expected) in cases {
            assert_eq!(fault(&Trust { identity, ..Trust::default() }), TrustError::Identity(expected));
        }
        let chain = format!("{certificate}{}", authority.ca_pem());
        let trust = Trust { identity: identity(&chain, key), ..Trust::default() };
        assert!(config(&trust).is_ok());
    }
}
