//! Makes client assertions (RFC 7521, section 4.2; RFC 7523, sections 2.2 and 3). Pure.

use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{SecretString, zeroize::Zeroizing};
use serde::Serialize;

use super::{
    fingerprint::CredentialsFingerprint,
    signing_key::{ClientKey, Unsigned},
};

/// The memory of a private key: the largest has 8192 bits, with its factors and tables.
const KEY_BYTES: usize = 16 << 10;

/// Makes the assertions of one client, a new one for each token request. It has no Debug.
pub struct AssertionIssuer {
    key: ClientKey,
    /// The JOSE header, encoded.
    header: String,
    audience: String,
    lifetime: Duration,
    fingerprint: CredentialsFingerprint,
}

/// How the token service finds the public key that verifies an assertion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyNames {
    /// The header parameter `kid` (RFC 7515, section 4.1.4).
    pub key_id: Option<String>,
    /// The header parameter `x5t#S256` (RFC 7515, section 4.1.8).
    pub thumbprint: Option<String>,
}

#[derive(Serialize)]
struct JoseHeader<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    thumbprint: Option<&'a str>,
}

/// The claims of RFC 7523, section 3. There is no `nbf`: a token service whose clock is late would refuse the assertion.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: &'a str,
    iat: u64,
    exp: u64,
}

impl AssertionIssuer {
    /// Signs with `key`. The assertions are for `audience` and expire after `lifetime`.
    pub fn new(key: ClientKey, names: &KeyNames, audience: String, lifetime: Duration) -> Self {
        let header = JoseHeader {
            alg: key.algorithm().name(),
            typ: "JWT",
            kid: names.key_id.as_deref(),
            thumbprint: names.thumbprint.as_deref(),
        };
        let header = encoded(&header);
        let lifetime_seconds = lifetime.as_secs().to_be_bytes();
        let parts = [&key.fingerprint().0[..], header.as_bytes(), audience.as_bytes(), &lifetime_seconds];
        let fingerprint = CredentialsFingerprint::of(parts);
        Self { key, header, audience, lifetime, fingerprint }
    }

    /// Makes an assertion of this client. `id` must be random: token services accept each id once.
    pub(super) fn issue(&self, client_id: &str, now: SystemTime, id: [u8; 16]) -> Result<SecretString, Unsigned> {
        let issued = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            iss: client_id,
            sub: client_id,
            aud: &self.audience,
            jti: &URL_SAFE_NO_PAD.encode(id),
            iat: issued,
            exp: issued + self.lifetime.as_secs(),
        };
        let signed = format!("{}.{}", self.header, encoded(&claims));
        let signature = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes())?));
        // Enough for all: a growing string would leave copies of the assertion behind.
        let mut assertion = String::with_capacity(signed.len() + 1 + signature.len());
        for part in [&signed, ".", &signature] {
            assertion.push_str(part);
        }
        Ok(assertion.into())
    }

    /// Distinguishes the assertions of two issuers: equal for the same key, header, audience and lifetime.
    pub(super) fn fingerprint(&self) -> &CredentialsFingerprint {
        &self.fingerprint
    }

    /// The approximate memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        KEY_BYTES + self.header.len() + self.audience.len()
    }
}

/// Encodes a part of a JWS. The parts are strings and numbers, so the serialization cannot fail.
fn encoded(part: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};
    use testkit::Authority;

    use super::*;
    use crate::oauth::JwsAlgorithm;

    fn issuer(key_pem: &str, names: &KeyNames, audience: &str, lifetime: u64) -> AssertionIssuer {
        let key = ClientKey::from_pem(JwsAlgorithm::Es256, key_pem.as_bytes()).unwrap();
        AssertionIssuer::new(key, names, audience.into(), Duration::from_secs(lifetime))
    }

    fn read(part: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn the_header_names_the_key_only_where_it_has_a_name() {
        let key = Authority::new().client_identity("shop").key_pem;
        let header = |key_id: Option<&str>, thumbprint: Option<&str>| {
            let names = KeyNames { key_id: key_id.map(str::to_owned), thumbprint: thumbprint.map(str::to_owned) };
            let jwt = issuer(&key, &names, "a", 60).issue("shop", SystemTime::UNIX_EPOCH, [0; 16]).unwrap();
            read(jwt.expose_secret().split('.').next().unwrap())
        };
        assert_eq!(header(None, None), json!({"alg": "ES256", "typ": "JWT"}));
        assert_eq!(header(Some("k 1"), None), json!({"alg": "ES256", "typ": "JWT", "kid": "k 1"}));
        assert_eq!(header(None, Some("t")), json!({"alg": "ES256", "typ": "JWT", "x5t#S256": "t"}));
    }

    #[test]
    fn the_fingerprint_distinguishes_every_part_of_an_assertion() {
        let authority = Authority::new();
        let keys = ["one", "other"].map(|name| authority.client_identity(name).key_pem);
        let named = |id: &str| KeyNames { key_id: Some(id.into()), thumbprint: None };
        let all = [
            issuer(&keys[0], &KeyNames::default(), "a", 60),
            issuer(&keys[1], &KeyNames::default(), "a", 60),
            issuer(&keys[0], &named("k"), "a", 60),
            issuer(&keys[0], &named("l"), "a", 60),
            issuer(&keys[0], &KeyNames::default(), "b", 60),
            issuer(&keys[0], &KeyNames::default(), "a", 61),
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(all[..number].iter().all(|other| other.fingerprint() != one.fingerprint()), "{number}");
        }
        let again = issuer(&keys[0], &KeyNames::default(), "a", 60);
        assert_eq!(again.fingerprint(), all[0].fingerprint());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Any client id (RFC 6749, appendix A.1), any audience, any time.
        #[test]
        fn the_claims_are_those_of_the_request_and_ids_do_not_repeat(
            client_id in "[ -~]{1,40}", audience in "\\PC{1,40}", now in 0u64..1 << 40, lifetime in 10u64..=600,
            ids in proptest::collection::btree_set(any::<[u8; 16]>(), 1..4),
        ) {
            let key = Authority::new().client_identity("shop").key_pem;
            let issuer = issuer(&key, &KeyNames::default(), &audience, lifetime);
            let mut seen = BTreeSet::new();
            for id in ids {
                let at = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
                let jwt = issuer.issue(&client_id, at, id).unwrap();
                let parts: Vec<_> = jwt.expose_secret().split('.').collect();
                prop_assert_eq!(parts.len(), 3);
                let claims = read(parts[1]);
                let jti = claims["jti"].as_str().unwrap().to_owned();
                prop_assert_eq!(&claims, &json!({
                    "iss": client_id, "sub": client_id, "aud": audience, "jti": jti, "iat": now, "exp": now + lifetime,
                }));
                prop_assert!(seen.insert(jti));
            }
        }
    }
}
