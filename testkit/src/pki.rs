//! Creates a certificate authority at run time.

use std::sync::Arc;

pub use rcgen;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rcgen::{KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    self, ALL_VERSIONS, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};

/// A private CA. Nothing trusts it until a test configures that, and it exists only in this process.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, both as PEM.
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// Its key, PKCS #8.
    pub key_pem: String,
}

impl Authority {
    /// A new CA with a new key.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Tidings test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, new_key()).unwrap();
        let pem = issuer.pem();
        Self { issuer, pem }
    }

    /// The CA certificate as PEM, for a ConfigMap or `SSL_CERT_FILE`.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// A server certificate for `127.0.0.1`, `localhost` and `further_names` (IP addresses or DNS names).
    #[must_use]
    pub fn server_identity(&self, further_names: &[&str]) -> Identity {
        self.sign(&server_params(further_names))
    }

    /// A server certificate for `127.0.0.1` and `localhost` that `change` modifies before it is signed, for example so
    /// that it is expired or for another host.
    #[must_use]
    pub fn server_identity_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = server_params(&[]);
        change(&mut params);
        self.sign(&params)
    }

    /// A client certificate for mTLS, with `name` as its common name.
    #[must_use]
    pub fn client_identity(&self, name: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        self.sign(&params)
    }

    /// TLS 1.2 and 1.3 with a certificate of [`Authority::server_identity`], offering `http/1.1`.
    #[must_use]
    pub fn server_config(&self, further_names: &[&str]) -> Arc<ServerConfig> {
        self.server_identity(further_names).server_config()
    }

    /// The same, offering `h2` before `http/1.1`.
    pub(crate) fn server_config_for_http2(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.server_config(&[]));
        config.alpn_protocols.insert(0, b"h2".to_vec());
        Arc::new(config)
    }

    /// Accepts clients with a certificate of this authority.
    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap()
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = new_key();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Identity {
    /// A server certificate for `127.0.0.1` and `localhost` that is signed by its own key.
    #[must_use]
    pub fn self_signed() -> Self {
        Self::self_signed_with(|_| ())
    }

    /// The same with what `change` modifies.
    #[must_use]
    pub fn self_signed_with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (key, mut params) = (new_key(), server_params(&[]));
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() }
    }

    /// TLS 1.2 and 1.3 with this certificate, offering `http/1.1`.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server_config_with(None, ALL_VERSIONS)
    }

    /// The same, but only for clients with a certificate of this authority (mTLS).
    #[must_use]
    pub fn server_config_for_clients_of(&self, clients: &Authority) -> Arc<ServerConfig> {
        self.server_config_with(Some(clients), ALL_VERSIONS)
    }

    /// The same, but like a gateway that takes any client certificate, or none, and judges it for each request.
    #[must_use]
    pub fn server_config_for_any_client(&self) -> Arc<ServerConfig> {
        self.server_config_verifying(Arc::new(AnyClient), ALL_VERSIONS)
    }

    /// The same for the clients of an authority (None: without client certificates), and with these versions of TLS.
    #[must_use]
    pub fn server_config_with(
        &self,
        clients: Option<&Authority>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let verifier = clients.map_or_else(WebPkiClientVerifier::no_client_auth, Authority::verifier);
        self.server_config_verifying(verifier, versions)
    }

    fn server_config_verifying(
        &self,
        verifier: Arc<dyn ClientCertVerifier>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).unwrap();
        let key = PrivatePkcs8KeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// Accepts every client certificate whose key the client has.
#[derive(Debug)]
struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn server_params(further_names: &[&str]) -> CertificateParams {
    let names = ["127.0.0.1", "localhost"].iter().chain(further_names);
    let mut params = CertificateParams::new(names.map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Tidings test server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Chosen explicitly: a process that also links ring has no default provider.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Creates a P-256 key.
pub(crate) fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}
