//! Signs requests (Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers").

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    hmac,
    signature::{ED25519_PUBLIC_KEY_LEN, Ed25519KeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::zeroize::Zeroizing;

use crate::event::percent_encoded;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The prefix of a symmetric key, in text form.
const SYMMETRIC: &[u8] = b"whsec_";
/// The prefix of a private key, in text form.
const PRIVATE: &[u8] = b"whsk_";
/// The prefix of a public key, in text form.
const PUBLIC: &[u8] = b"whpk_";
/// The maximum length of a key in text form, in bytes: more than base64 of 64 bytes with the longest prefix.
const MAX_TEXT: usize = 128;
/// The length of an Ed25519 private key (RFC 8032, section 5.1.5). Its public key may follow it.
const SEED: usize = 32;

/// A key that signs requests. It is hidden, and its memory is wiped when it is dropped.
pub struct SigningKey(Scheme);

enum Scheme {
    /// HMAC-SHA256: signatures with the identifier `v1`.
    Symmetric(Box<hmac::Key>),
    /// Ed25519: signatures with the identifier `v1a`.
    Asymmetric(Ed25519KeyPair),
}

/// Why a signing key cannot be used. The value is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSigningKey {
    /// The value is empty.
    #[error("the value is empty: store a signing key, for example whsec_ and the output of openssl rand -base64 32")]
    Empty,
    /// The value ends with a line break.
    #[error("the value ends with a line break: create the value with printf or kubectl --from-literal")]
    LineBreak,
    /// The value is longer than any key.
    #[error("the value is longer than a signing key: store one key, which begins with whsec_ or whsk_")]
    TooLong,
    /// The value is a public key.
    #[error("the value is a public key, for receivers: store the private key, which begins with whsk_")]
    PublicKey,
    /// The value has no prefix.
    #[error(
        "the value begins neither with whsec_ (a symmetric key) nor with whsk_ (an Ed25519 private key): add the prefix to the key in base64"
    )]
    NoPrefix,
    /// What follows the prefix is not base64.
    #[error("the value is not base64 (RFC 4648, section 4, with padding) after its prefix: store the key in base64")]
    Base64,
    /// A symmetric key is too short or too long.
    #[error(
        "a key that begins with whsec_ must have 24 to 64 bytes (Standard Webhooks): create the key, for example, with openssl rand -base64 32"
    )]
    SymmetricLength,
    /// A private key has an invalid length.
    #[error(
        "a key that begins with whsk_ must be an Ed25519 private key of 32 bytes, or of 64 bytes with its public key: a key in PEM or DER form must be converted"
    )]
    PrivateLength,
    /// The two halves of a private key are not a pair.
    #[error("the second half of the Ed25519 key is not the public key of the first half: store the private key alone")]
    Pair,
}

impl SigningKey {
    /// Reads a key as Standard Webhooks writes it: `whsec_` and a symmetric key, or `whsk_` and an Ed25519 private key,
    /// both in base64.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidSigningKey> {
        match text {
            [] => return Err(InvalidSigningKey::Empty),
            _ if text.len() > MAX_TEXT => return Err(InvalidSigningKey::TooLong),
            [.., b'\n' | b'\r'] => return Err(InvalidSigningKey::LineBreak),
            _ if text.starts_with(PUBLIC) => return Err(InvalidSigningKey::PublicKey),
            _ => {}
        }
        let scheme = if let Some(text) = text.strip_prefix(SYMMETRIC) {
            let key = decoded(text)?;
            if !(24..=64).contains(&key.len()) {
                return Err(InvalidSigningKey::SymmetricLength);
            }
            Scheme::Symmetric(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key)))
        } else if let Some(text) = text.strip_prefix(PRIVATE) {
            let key = decoded(text)?;
            let (seed, public) = key.split_at_checked(SEED).ok_or(InvalidSigningKey::PrivateLength)?;
            Scheme::Asymmetric(match public.len() {
                0 => Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_error| InvalidSigningKey::PrivateLength)?,
                ED25519_PUBLIC_KEY_LEN => {
                    Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_error| InvalidSigningKey::Pair)?
                }
                _ => return Err(InvalidSigningKey::PrivateLength),
            })
        } else {
            return Err(InvalidSigningKey::NoPrefix);
        };
        Ok(Self(scheme))
    }

    /// The signature of `prefix` followed by `body`, with its identifier.
    fn sign(&self, prefix: &str, body: &[u8]) -> Result<String, NotSigned> {
        Ok(match &self.0 {
            Scheme::Symmetric(key) => {
                let mut context = hmac::Context::with_key(key);
                context.update(prefix.as_bytes());
                context.update(body);
                format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
            }
            Scheme::Asymmetric(pair) => {
                let content = [prefix.as_bytes(), body].concat();
                let signature = pair.try_sign(&content).map_err(|_error| NotSigned)?;
                format!("v1a,{}", BASE64_STANDARD.encode(signature))
            }
        })
    }
}

fn decoded(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, InvalidSigningKey> {
    BASE64_STANDARD.decode(text).map(Zeroizing::new).map_err(|_error| InvalidSigningKey::Base64)
}

/// The cryptographic library failed, which is no fault of the key or the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotSigned;

/// Signs the requests of one target with its current key and, while that replaces another key, with the previous key.
pub struct Signer {
    current: SigningKey,
    previous: Option<SigningKey>,
}

impl Signer {
    /// Makes a signer with these keys.
    pub fn new(current: SigningKey, previous: Option<SigningKey>) -> Self {
        Self { current, previous }
    }

    /// The headers for a POST of `body` at `now`: `webhook-id`, `webhook-timestamp` and `webhook-signature`.
    ///
    /// Keys with the same value sign once.
    pub(super) fn headers(&self, id: &MessageId, now: SystemTime, body: &[u8]) -> Result<HeaderMap, NotSigned> {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let MessageId(id) = id;
        let prefix = format!("{id}.{seconds}.");
        let mut signatures = self.current.sign(&prefix, body)?;
        let previous = self.previous.as_ref().map(|key| key.sign(&prefix, body)).transpose()?;
        if let Some(previous) = previous.filter(|previous| *previous != signatures) {
            signatures.push(' ');
            signatures.push_str(&previous);
        }
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_error| NotSigned);
        let mut signatures = value(&signatures)?;
        signatures.set_sensitive(true);
        Ok(HeaderMap::from_iter([(ID, value(id)?), (TIMESTAMP, seconds.into()), (SIGNATURE, signatures)]))
    }
}

/// The value of `webhook-id`: an event id as the header `ce-id` carries it, with every dot percent-encoded too.
///
/// The signed content is `id.timestamp.payload`. With a dot in the id, the same content could be read as another id with
/// another timestamp and payload.
pub(super) struct MessageId(String);

impl MessageId {
    /// The value for the event with this id. Different ids have different values.
    pub(super) fn of_event(id: &str) -> Self {
        Self(percent_encoded(id).replace('.', "%2E"))
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Debug, time::Duration};

    use aws_lc_rs::signature::{ED25519, KeyPair, UnparsedPublicKey};
    use proptest::prelude::*;

    use super::*;

    /// The key of the tests of Standard Webhooks' own libraries.
    const KEY: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn key(text: &str) -> SigningKey {
        SigningKey::parse(text.as_bytes()).ok().unwrap()
    }

    fn fault(text: &str) -> InvalidSigningKey {
        SigningKey::parse(text.as_bytes()).err().unwrap()
    }

    fn symmetric(bytes: usize) -> String {
        format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]))
    }

    fn private(bytes: &[u8]) -> String {
        format!("whsk_{}", BASE64_STANDARD.encode(bytes))
    }

    fn headers(signer: &Signer, id: &str, seconds: u64, body: &[u8]) -> HeaderMap {
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        signer.headers(&MessageId::of_event(id), now, body).unwrap()
    }

    #[test]
    fn a_symmetric_signature_is_the_one_that_the_libraries_of_standard_webhooks_expect() {
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signed = headers(&Signer::new(key(KEY), None), "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert_eq!(signed["webhook-id"], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk");
        assert_eq!(signed["webhook-timestamp"], "1649367553");
        assert_eq!(signed["webhook-signature"], "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
        assert_eq!(signed.len(), 3);
    }

    #[test]
    fn while_a_key_is_replaced_both_keys_sign_and_equal_keys_sign_once() {
        let (seed, old) = (private(&[9; 32]), symmetric(24));
        let value = |signer: &Signer| {
            let value = headers(signer, "1", 1, b"{}")["webhook-signature"].clone();
            assert!(value.is_sensitive());
            value.to_str().unwrap().to_owned()
        };
        let of_one = |text: &str| value(&Signer::new(key(text), None));
        let both = value(&Signer::new(key(&seed), Some(key(&old))));
        assert_eq!(both, format!("{} {}", of_one(&seed), of_one(&old)));
        assert!(both.starts_with("v1a,") && both.contains(" v1,"), "{both}");
        assert_eq!(value(&Signer::new(key(&old), Some(key(&old)))), of_one(&old));
    }

    #[test]
    fn s17_a_key_of_any_other_form_is_refused_and_its_fault_is_named() {
        use InvalidSigningKey::{
            Base64, Empty, LineBreak, NoPrefix, Pair, PrivateLength, PublicKey, SymmetricLength, TooLong,
        };
        let pair = |public: &[u8]| private(&[&[9; 32], public].concat());
        let public = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        for good in [symmetric(24), symmetric(64), private(&[9; 32]), pair(public.public_key().as_ref())] {
            assert!(SigningKey::parse(good.as_bytes()).is_ok(), "{good}");
        }
        for (bad, expected) in [
            (String::new(), Empty),
            (format!("{KEY}\n"), LineBreak),
            ("w".repeat(1_000_000), TooLong),
            ("whpk_AAAA".into(), PublicKey),
            (KEY.replace("whsec_", ""), NoPrefix),
            (KEY.replace("whsec_", "WHSEC_"), NoPrefix),
            (format!(" {KEY}"), NoPrefix),
            (format!("{KEY} "), Base64),
            (KEY.replace('+', "-"), Base64),
            ("whsec_".to_owned() + BASE64_STANDARD.encode([7; 32]).trim_end_matches('='), Base64),
            ("whsec_".into(), SymmetricLength),
            (symmetric(23), SymmetricLength),
            (symmetric(65), SymmetricLength),
            ("whsk_".into(), PrivateLength),
            (private(&[9; 31]), PrivateLength),
            (private(&[9; 33]), PrivateLength),
            (private(&[9; 48]), PrivateLength),
            (private(&[9; 65]), PrivateLength),
            (pair(&[1; 32]), Pair),
        ] {
            assert_eq!(fault(&bad), expected, "{bad:.40}");
        }
    }

    #[test]
    fn the_id_is_sent_as_in_ce_id_and_with_its_dots_encoded() {
        for (id, value) in [
            ("order-1042-paid", "order-1042-paid"),
            ("1.2", "1%2E2"),
            ("a b \"c\" 100%", "a%20b%20%22c%22%20100%25"),
            ("%2E", "%252E"),
            ("€", "%E2%82%AC"),
            (" padded ", "%20padded%20"),
        ] {
            assert_eq!(MessageId::of_event(id).0, value);
        }
    }

    /// Two ways to this for a type that can be shown, and the compiler refuses to choose; one for any other.
    trait Hidden<Way> {
        fn is_hidden() {}
    }
    impl<T> Hidden<()> for T {}
    impl<T: Debug> Hidden<u8> for T {}

    #[test]
    fn s10_signing_keys_cannot_be_shown() {
        <SigningKey as Hidden<_>>::is_hidden();
        <Signer as Hidden<_>>::is_hidden();
    }

    proptest! {
        #[test]
        fn s07_any_event_id_is_one_header_value_without_dots_and_distinct(one in "\\PC{1,40}", other in "\\PC{1,40}") {
            let signed = headers(&Signer::new(key(KEY), None), &one, 1, b"{}");
            let value = signed["webhook-id"].to_str().unwrap();
            prop_assert!(value.bytes().all(|b| b.is_ascii_graphic() && b != b'.'));
            prop_assert_eq!(MessageId::of_event(&one).0 == MessageId::of_event(&other).0, one == other);
        }

        #[test]
        fn a_signature_is_of_the_id_the_time_and_the_body(
            id in "[a-z%.]{1,8}", seconds in 0u64..1 << 33, body in any::<Vec<u8>>(), seed in any::<[u8; 32]>(),
        ) {
            let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
            let signed = headers(&Signer::new(key(&private(&seed)), None), &id, seconds, &body);
            let text = signed["webhook-signature"].to_str().unwrap();
            let signature = BASE64_STANDARD.decode(text.strip_prefix("v1a,").unwrap()).unwrap();
            let sent_id = signed["webhook-id"].to_str().unwrap();
            let content = [format!("{sent_id}.{seconds}.").as_bytes(), &body].concat();
            let public = UnparsedPublicKey::new(&ED25519, pair.public_key());
            prop_assert!(public.verify(&content, &signature).is_ok());
        }

        #[test]
        fn any_value_of_a_secret_is_read_without_a_panic(
            value in prop_oneof![any::<Vec<u8>>(), "wh(sec|sk|pk)_[A-Za-z0-9+/]{0,90}={0,2}".prop_map(String::into_bytes)],
        ) {
            drop(SigningKey::parse(&value).map_err(|fault| fault.to_string()));
        }
    }
}
