//! Private keys that sign client assertions (RFC 7518, section 3; RFC 8037, section 3.1). Pure.

use std::fmt;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    error::Unspecified,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error as PemError, PemObject},
};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;

use super::fingerprint::CredentialsFingerprint;
use crate::egress::has_encrypted_key;

/// How an assertion is signed: the header parameter `alg` (RFC 7515, section 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwsAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256 and MGF1 with SHA-256.
    Ps256,
    /// ECDSA on the curve P-256 with SHA-256.
    Es256,
    /// EdDSA with Ed25519.
    EdDsa,
}

/// A kind of private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// RSA.
    Rsa,
    /// An elliptic curve of NIST.
    Ecdsa,
    /// Ed25519.
    Ed25519,
}

/// What is wrong with a private key or with the certificate for it. The errors contain nothing of what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The text contains no private key.
    #[error("there is no PEM private key: store the client's private key, for example as openssl genpkey writes it")]
    NoKey,
    /// The key has a passphrase.
    #[error("the private key has a passphrase: store the key without a passphrase")]
    Encrypted,
    /// The PEM text is malformed.
    #[error("the PEM text is malformed: store the private key as openssl genpkey writes it")]
    Malformed,
    /// The key is of another type than the algorithm needs.
    #[error("the private key is {is}, but the algorithm {algorithm} needs {}: store another key, or change tokenService.privateKeyJWT.algorithm", .algorithm.needs())]
    OtherType {
        /// The algorithm.
        algorithm: JwsAlgorithm,
        /// The type of the key.
        is: KeyType,
    },
    /// The key has another size or curve than the algorithm needs, or is malformed.
    #[error("the algorithm {algorithm} cannot use the private key: it needs {}, in the format PKCS #8, PKCS #1 or SEC 1: store such a key", .algorithm.needs())]
    Unusable {
        /// The algorithm.
        algorithm: JwsAlgorithm,
    },
    /// The text contains no certificate.
    #[error("there is no PEM certificate: store the certificate that is registered at the token service")]
    NoCertificate,
    /// The certificate is malformed.
    #[error("the certificate is not a valid PEM certificate: replace it")]
    InvalidCertificate,
    /// The certificate belongs to another key.
    #[error("the certificate belongs to another private key: store a matching pair")]
    KeyMismatch,
}

/// A private key, and the algorithm that it signs with. It has no Debug.
pub struct ClientKey {
    algorithm: JwsAlgorithm,
    pair: Pair,
    fingerprint: CredentialsFingerprint,
}

/// The library failed to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library cannot sign with the private key")]
pub(super) struct Unsigned;

impl From<Unspecified> for Unsigned {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl JwsAlgorithm {
    /// Which keys the algorithm signs with.
    fn needs(self) -> &'static str {
        match self {
            Self::Rs256 | Self::Ps256 => "an RSA key of 2048 to 8192 bits",
            Self::Es256 => "an ECDSA key on the curve P-256",
            Self::EdDsa => "an Ed25519 key",
        }
    }

    fn key_type(self) -> KeyType {
        match self {
            Self::Rs256 | Self::Ps256 => KeyType::Rsa,
            Self::Es256 => KeyType::Ecdsa,
            Self::EdDsa => KeyType::Ed25519,
        }
    }

    /// The name in the header parameter `alg`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl fmt::Display for JwsAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa => "an RSA key",
            Self::Ecdsa => "an ECDSA key",
            Self::Ed25519 => "an Ed25519 key",
        })
    }
}

impl ClientKey {
    /// Reads the first private key in `pem`: PKCS #8, PKCS #1 or SEC 1, without a passphrase.
    pub fn from_pem(algorithm: JwsAlgorithm, pem: &[u8]) -> Result<Self, KeyFault> {
        if has_encrypted_key(pem) {
            return Err(KeyFault::Encrypted);
        }
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
            PemError::NoItemsFound => KeyFault::NoKey,
            _ => KeyFault::Malformed,
        })?;
        let key = Zeroizing::new(key);
        match key_type(&key) {
            Some(is) if is != algorithm.key_type() => return Err(KeyFault::OtherType { algorithm, is }),
            _ => {}
        }
        let pair = match algorithm.key_type() {
            KeyType::Rsa => match &*key {
                PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
                key => RsaKeyPair::from_pkcs8(key.secret_der()),
            }
            .map(Pair::Rsa),
            KeyType::Ecdsa => {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der()).map(Pair::Ecdsa)
            }
            KeyType::Ed25519 => Ed25519KeyPair::from_pkcs8(key.secret_der()).map(Pair::Ed25519),
        };
        let pair = pair.map_err(|_error| KeyFault::Unusable { algorithm })?;
        Ok(Self { algorithm, pair, fingerprint: CredentialsFingerprint::of([pem]) })
    }

    /// The algorithm that the key signs with.
    pub(super) fn algorithm(&self) -> JwsAlgorithm {
        self.algorithm
    }

    /// The content of the key.
    pub(super) fn fingerprint(&self) -> &CredentialsFingerprint {
        &self.fingerprint
    }

    /// Signs `message` as a JWS does (RFC 7515, section 5.1).
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unsigned> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let padding: &dyn RsaEncoding = match self.algorithm {
                    JwsAlgorithm::Ps256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature)?;
                Ok(signature)
            }
            Pair::Ecdsa(pair) => Ok(pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec()),
            Pair::Ed25519(pair) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
        }
    }

    /// The public key as a SubjectPublicKeyInfo (RFC 5280, section 4.1), in DER.
    fn public_key(&self) -> Result<Vec<u8>, Unspecified> {
        let der: PublicKeyX509Der<'_> = match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_der(),
            Pair::Ecdsa(pair) => pair.public_key().as_der(),
            Pair::Ed25519(pair) => pair.public_key().as_der(),
        }?;
        Ok(der.as_ref().to_vec())
    }

    /// Reads the first certificate in `pem`, which must be for this key, and returns its thumbprint as the header
    /// parameter `x5t#S256` needs it (RFC 7515, section 4.1.8).
    pub fn thumbprint(&self, pem: &[u8]) -> Result<String, KeyFault> {
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|error| match error {
            PemError::NoItemsFound => KeyFault::NoCertificate,
            _ => KeyFault::InvalidCertificate,
        })?;
        let parsed = EndEntityCert::try_from(&certificate).map_err(|_error| KeyFault::InvalidCertificate)?;
        if self.public_key().ok().as_deref() != Some(&*parsed.subject_public_key_info()) {
            return Err(KeyFault::KeyMismatch);
        }
        Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate)))
    }
}

/// The type of a key, as its format or its algorithm identifier (RFC 5958, section 2) says.
fn key_type(key: &PrivateKeyDer<'_>) -> Option<KeyType> {
    /// The object identifiers in DER: rsaEncryption, id-ecPublicKey and id-Ed25519.
    const IDENTIFIERS: [(&[u8], KeyType); 3] = [
        (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", KeyType::Rsa),
        (b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", KeyType::Ecdsa),
        (b"\x06\x03\x2b\x65\x70", KeyType::Ed25519),
    ];
    match key {
        PrivateKeyDer::Pkcs1(_) => Some(KeyType::Rsa),
        PrivateKeyDer::Sec1(_) => Some(KeyType::Ecdsa),
        // The algorithm identifier follows two headers of a SEQUENCE and the version.
        key => {
            let start = key.secret_der().get(..24).unwrap_or_default();
            let is_at_start = |id: &[u8]| start.windows(id.len()).any(|window| window == id);
            IDENTIFIERS.iter().find(|(id, _)| is_at_start(id)).map(|(_, type_)| *type_)
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::Pkcs8V1Der,
        rsa::KeySize,
        signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256},
        signature::{UnparsedPublicKey, VerificationAlgorithm},
    };
    use base64::engine::general_purpose::STANDARD;
    use testkit::Authority;

    use super::*;

    const ALL: [JwsAlgorithm; 4] = [JwsAlgorithm::Rs256, JwsAlgorithm::Ps256, JwsAlgorithm::Es256, JwsAlgorithm::EdDsa];

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
    }

    /// A new key of this type.
    fn new_key(of: KeyType) -> String {
        match of {
            KeyType::Rsa => {
                let der: Pkcs8V1Der<'_> = RsaKeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap();
                pem(der.as_ref())
            }
            KeyType::Ecdsa => {
                let random = SystemRandom::new();
                pem(EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap().as_ref())
            }
            KeyType::Ed25519 => pem(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref()),
        }
    }

    /// The public key as the library's verification needs it.
    fn raw_public_key(key: &ClientKey) -> Vec<u8> {
        match &key.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    #[test]
    fn a_signature_is_one_of_the_algorithm_of_the_key_and_of_no_other() {
        let verifiers: [&'static dyn VerificationAlgorithm; 4] =
            [&RSA_PKCS1_2048_8192_SHA256, &RSA_PSS_2048_8192_SHA256, &ECDSA_P256_SHA256_FIXED, &ED25519];
        for (of_key, algorithm) in ALL.into_iter().enumerate() {
            let key = ClientKey::from_pem(algorithm, new_key(algorithm.key_type()).as_bytes()).unwrap();
            let signature = key.sign(b"message").unwrap();
            for (number, verifier) in verifiers.into_iter().enumerate() {
                let public = UnparsedPublicKey::new(verifier, raw_public_key(&key));
                assert_eq!(public.verify(b"message", &signature).is_ok(), number == of_key, "{algorithm} {number}");
                assert!(public.verify(b"other", &signature).is_err(), "{algorithm} {number}");
            }
        }
    }

    #[test]
    fn a_key_of_another_type_is_named_with_what_the_algorithm_needs() {
        for is in [KeyType::Rsa, KeyType::Ecdsa, KeyType::Ed25519] {
            let key = new_key(is);
            for algorithm in ALL {
                let fault = ClientKey::from_pem(algorithm, key.as_bytes()).err();
                let expected = (algorithm.key_type() != is).then_some(KeyFault::OtherType { algorithm, is });
                assert_eq!(fault, expected, "{algorithm} {is}");
            }
        }
        let message = KeyFault::OtherType { algorithm: JwsAlgorithm::Es256, is: KeyType::Rsa }.to_string();
        for part in ["is an RSA key", "the algorithm ES256 needs an ECDSA key on the curve P-256", "privateKeyJWT"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn what_is_no_private_key_is_refused_and_never_shown() {
        let key = new_key(KeyType::Ecdsa);
        let cases = [
            (String::new(), KeyFault::NoKey),
            ("canary".to_owned(), KeyFault::NoKey),
            (Authority::new().ca_pem().to_owned(), KeyFault::NoKey),
            (key.replace("PRIVATE", "PUBLIC"), KeyFault::NoKey),
            (key.replace("PRIVATE", "ENCRYPTED PRIVATE"), KeyFault::Encrypted),
            (key.replace("-----\nM", "-----\nProc-Type: 4,ENCRYPTED\n\nM"), KeyFault::Encrypted),
            ("-----BEGIN PRIVATE KEY-----\n?canary?\n-----END PRIVATE KEY-----\n".to_owned(), KeyFault::Malformed),
            ("-----BEGIN PRIVATE KEY-----\ncanary".to_owned(), KeyFault::Malformed),
            (key.replace("MIG", "MIH"), KeyFault::Unusable { algorithm: JwsAlgorithm::Es256 }),
            (pem(b"canary"), KeyFault::Unusable { algorithm: JwsAlgorithm::Es256 }),
            (pem(b""), KeyFault::Unusable { algorithm: JwsAlgorithm::Es256 }),
        ];
        for (text, expected) in cases {
            let fault = ClientKey::from_pem(JwsAlgorithm::Es256, text.as_bytes()).err().unwrap();
            assert_eq!(fault, expected, "{text}");
            assert!(!format!("{fault} {fault:?}").contains("canary"));
        }
    }

    #[test]
    fn a_thumbprint_is_that_of_a_certificate_for_the_key_alone() {
        let authority = Authority::new();
        let (one, other) = (authority.client_identity("one"), authority.client_identity("other"));
        let key = ClientKey::from_pem(JwsAlgorithm::Es256, one.key_pem.as_bytes()).unwrap();
        let chain = format!("{}{}", one.certificate_pem, authority.ca_pem());
        let der = CertificateDer::from_pem_slice(one.certificate_pem.as_bytes()).unwrap();
        assert_eq!(key.thumbprint(chain.as_bytes()), Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(&der))));
        for (text, expected) in [
            (other.certificate_pem.as_str(), KeyFault::KeyMismatch),
            (authority.ca_pem(), KeyFault::KeyMismatch),
            ("", KeyFault::NoCertificate),
            (&one.key_pem, KeyFault::NoCertificate),
            (&one.certificate_pem.replace("MII", "MIJ"), KeyFault::InvalidCertificate),
            ("-----BEGIN CERTIFICATE-----\nMII", KeyFault::InvalidCertificate),
        ] {
            assert_eq!(key.thumbprint(text.as_bytes()), Err(expected), "{text}");
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        // The start of a key is where its type is looked up.
        let der = PrivateKeyDer::from_pem_slice(new_key(KeyType::Ed25519).as_bytes()).unwrap();
        for length in 0..der.secret_der().len() {
            let cut = pem(&der.secret_der()[..length]);
            assert!(ClientKey::from_pem(JwsAlgorithm::EdDsa, cut.as_bytes()).is_err(), "{length} bytes");
        }
    }
}
