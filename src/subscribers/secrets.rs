//! Reads Secrets and ConfigMaps, and makes credentials, trust, header values and signing keys of them. The callers keep what they
//! need.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    time::SystemTime,
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, api::ObjectMeta};
use secrecy::SecretString;
use tidings_api::{
    CaKind, CaRef, ClientCertificateSecretRef, CredentialsSecretRef, DENIED_SECRET_TYPES, SecretKeyRef,
    SubscriberReason as Reason,
};
use tidings_delivery::egress::ClientIdentity;
use tidings_delivery::webhook::SigningKey;
use tokio::sync::Semaphore;
use url::Url;

use super::{
    consent::{self, Purpose},
    object_name::is_object_name,
    referrers::Reference,
    times::expiry,
    unresolved::Unresolved,
};
use crate::cluster::call::{API_TIMEOUT, found};

/// A client ID.
const CLIENT_ID: CredentialText =
    CredentialText { what: "the client ID", field: "tokenService.credentialsSecretRef", limit: 1 << 10 };
/// A client secret. Some client secrets are signed tokens.
const CLIENT_SECRET: CredentialText =
    CredentialText { what: "the client secret", field: "tokenService.credentialsSecretRef", limit: 16 << 10 };
/// The ID of a private key.
const KEY_ID: CredentialText = CredentialText {
    what: "the ID of the private key",
    field: "tokenService.privateKeyJWT.keySecretRef",
    limit: 1 << 10,
};
/// The maximum length of a private key that signs assertions, and of the certificate for it, in bytes. An RSA key of
/// 8192 bits has 6 KB.
const MAX_CLIENT_KEY: usize = 64 << 10;
/// The maximum length of a client certificate with its chain and its key, in bytes.
const MAX_CLIENT_CERTIFICATE: usize = 64 << 10;
/// The maximum length of a CA bundle, in bytes. The CA bundle of a Linux distribution has about 220 KB.
const MAX_CA_BUNDLE: usize = 1 << 20;

/// The keys of the certificate and the private key in a Secret of type kubernetes.io/tls.
const TLS_KEYS: [&str; 2] = ["tls.crt", "tls.key"];

/// Limits how many objects are read at the same time. Each may be 1 MB, and reading it needs several times its size in
/// memory.
static READS: Semaphore = Semaphore::const_new(8);

/// The keys that a spec names, by object.
pub type Wanted = HashMap<Reference, HashSet<String>>;

/// Adds keys of an object.
pub fn want(wanted: &mut Wanted, object: Reference, keys: &[&str]) {
    wanted.entry(object).or_default().extend(keys.iter().map(ToString::to_string));
}

/// The object of a `caRef`.
pub fn bundle_object(CaRef { kind, name, .. }: &CaRef) -> Reference {
    match kind {
        CaKind::ConfigMap => Reference::ConfigMap(name.clone()),
        CaKind::Secret => Reference::Secret(name.clone()),
    }
}

/// Adds the object of a client certificate.
pub fn want_identity(wanted: &mut Wanted, reference: &ClientCertificateSecretRef) {
    want(wanted, Reference::Secret(reference.name.clone()), &TLS_KEYS);
}

/// The endpoints that the values of Secrets are sent to.
#[derive(Clone, Copy)]
pub struct Endpoints<'a> {
    /// The webhook.
    pub webhook: &'a Url,
    /// The token service.
    pub token_service: &'a Url,
}

impl<'a> Endpoints<'a> {
    fn of(self, purpose: Purpose) -> &'a Url {
        match purpose {
            Purpose::Webhook | Purpose::Signature => self.webhook,
            Purpose::TokenService => self.token_service,
        }
    }
}

/// Reads the objects that one Subscriber names in its namespace, each object once.
pub struct ObjectReader<'a> {
    client: &'a Client,
    namespace: &'a str,
    /// Whether a Secret's values are sent only to endpoints that the Secret allows.
    require_consent: bool,
    endpoints: Endpoints<'a>,
    wanted: Wanted,
    fetched: HashMap<Reference, FetchedObject>,
}

/// The parts of a Secret or ConfigMap that are kept during a pass over a Subscriber.
#[derive(Default)]
struct FetchedObject {
    type_: String,
    uid: String,
    /// When the Secret says that it expires.
    expires: Option<SystemTime>,
    /// The purposes that the Secret does not allow, each with the annotation that lacks an entry.
    refused: Vec<(Purpose, &'static str)>,
    /// The values of the keys that the spec names, if they exist.
    values: HashMap<String, Vec<u8>>,
}

impl<'a> ObjectReader<'a> {
    /// Makes a reader of the keys `wanted` in `namespace`. Their values are sent to `endpoints`: with
    /// `require_consent`, only to the endpoints that each Secret allows.
    pub fn new(
        client: &'a Client,
        namespace: &'a str,
        require_consent: bool,
        endpoints: Endpoints<'a>,
        wanted: Wanted,
    ) -> Self {
        Self { client, namespace, require_consent, endpoints, wanted, fetched: HashMap::new() }
    }

    /// The namespace of the objects.
    pub fn namespace(&self) -> &'a str {
        self.namespace
    }

    /// The endpoints that the values are sent to.
    pub fn endpoints(&self) -> Endpoints<'a> {
        self.endpoints
    }

    /// Whether a Secret's values are sent only to endpoints that the Secret allows.
    pub fn requires_consent(&self) -> bool {
        self.require_consent
    }

    /// Reads the client ID.
    pub async fn client_id(&mut self, reference: &CredentialsSecretRef) -> Result<String, Unresolved> {
        let CredentialsSecretRef { name, client_id_key, .. } = reference;
        credential(self.secret_of_client(name).await?, name, client_id_key, &CLIENT_ID)
    }

    /// Reads the client secret.
    pub async fn client_secret(&mut self, reference: &CredentialsSecretRef) -> Result<SecretString, Unresolved> {
        let CredentialsSecretRef { name, client_secret_key, .. } = reference;
        Ok(credential(self.secret_of_client(name).await?, name, client_secret_key, &CLIENT_SECRET)?.into())
    }

    /// Reads the ID of a private key.
    pub async fn key_id(&mut self, name: &str, key: &str) -> Result<String, Unresolved> {
        credential(self.secret_of_client(name).await?, name, key, &KEY_ID)
    }

    /// Reads a private key of the client, or the certificate for it. The PEM text is not validated yet.
    pub async fn client_key(&mut self, name: &str, key: &str) -> Result<&[u8], Unresolved> {
        let secret = self.secret_of_client(name).await?;
        let pem =
            value(secret, name, key, "add the key, or name another key in tokenService.privateKeyJWT.keySecretRef")?;
        if pem.len() > MAX_CLIENT_KEY {
            let fault = format!("the value is longer than {}: store one PEM text alone", size(MAX_CLIENT_KEY));
            return Err(invalid(name, key, &fault));
        }
        Ok(pem)
    }

    /// The uid of a Secret that was read. Empty if this reader has not read it.
    pub fn uid(&self, name: &str) -> String {
        self.fetched.get(&Reference::Secret(name.into())).map_or_else(String::new, |secret| secret.uid.clone())
    }

    /// When a Secret that was read says that it expires. None if this reader has not read it.
    pub fn expires(&self, name: &str) -> Option<SystemTime> {
        self.fetched.get(&Reference::Secret(name.into()))?.expires
    }

    /// Reads a Secret that proves the client's identity, if the Secret allows both endpoints: the webhook receives a
    /// token that was issued for the Secret.
    ///
    /// The keys are checked later: a Secret that does not allow the endpoints reveals nothing about its keys.
    async fn secret_of_client(&mut self, name: &str) -> Result<&FetchedObject, Unresolved> {
        self.secret_for(name, Purpose::TokenService).await?;
        self.secret_for(name, Purpose::Webhook).await
    }

    /// Reads the value of a header, which is sent to the endpoint of this purpose. The bytes are not validated yet.
    pub async fn header_value(&mut self, reference: &SecretKeyRef, purpose: Purpose) -> Result<&[u8], Unresolved> {
        let SecretKeyRef { name, key } = reference;
        let secret = self.secret_for(name, purpose).await?;
        value(secret, name, key, "add the key, or name another key in secretKeyRef")
    }

    /// Reads a key that signs the requests to the webhook. `field` is the field that names it.
    pub async fn signing_key(&mut self, reference: &SecretKeyRef, field: &str) -> Result<SigningKey, Unresolved> {
        let SecretKeyRef { name, key } = reference;
        let secret = self.secret_for(name, Purpose::Signature).await?;
        let text = value(secret, name, key, &format!("add the key, or name another key in {field}"))?;
        SigningKey::parse(text).map_err(|fault| {
            Unresolved::permanent(Reason::InvalidSecret, format!("Secret {name}, key {key}, for {field}: {fault}"))
        })
    }

    /// Reads a client certificate and its key, if the Secret allows the endpoints of these purposes. The PEM texts are not
    /// validated yet.
    pub async fn client_identity(
        &mut self,
        reference: &ClientCertificateSecretRef,
        purposes: &[Purpose],
    ) -> Result<ClientIdentity, Unresolved> {
        let name = &reference.name;
        for purpose in purposes {
            self.secret_for(name, *purpose).await?;
        }
        let secret = self.object(Reference::Secret(name.into())).await?;
        let part = |key| value(secret, name, key, "create the Secret with kubectl create secret tls");
        let [certificate, key] = TLS_KEYS;
        let (certificate_pem, key_pem) = (part(certificate)?, part(key)?);
        if certificate_pem.len() + key_pem.len() > MAX_CLIENT_CERTIFICATE {
            let longest = if certificate_pem.len() < key_pem.len() { key } else { certificate };
            let fault = format!(
                "tls.crt and tls.key together are longer than {}: keep only the client certificate, its intermediate certificates and its key",
                size(MAX_CLIENT_CERTIFICATE)
            );
            return Err(invalid(name, longest, &fault));
        }
        Ok(ClientIdentity { certificate_pem: certificate_pem.to_vec(), key_pem: key_pem.to_vec().into() })
    }

    /// Reads a CA bundle. The PEM text is not validated yet. It is not sent to any endpoint.
    pub async fn ca_bundle(&mut self, reference: &CaRef) -> Result<Cow<'_, [u8]>, Unresolved> {
        let CaRef { kind, name, key } = reference;
        let hides_keys = self.require_consent && *kind == CaKind::Secret;
        let object = self.object(bundle_object(reference)).await?;
        let fault = match object.values.get(key) {
            Some(pem) if pem.len() <= MAX_CA_BUNDLE => return Ok(pem.into()),
            Some(_) => format!(
                "{kind} {name}, key {key}: the CA bundle is longer than {}: keep only the certificates of the certificate authorities that the endpoint needs",
                size(MAX_CA_BUNDLE)
            ),
            // Where consent is required, no Secret reveals which keys it has: a missing key looks like a key without
            // certificates.
            None if hides_keys => return Ok(Cow::Borrowed(&[])),
            None => format!(
                "{kind} {name} has no key {key}: add the key with PEM certificates, or name another key in tls.caRef.key"
            ),
        };
        Err(Unresolved::permanent(Reason::InvalidTrustBundle, fault))
    }

    /// Reads a Secret whose values are sent for this purpose, if consent and the Secret's type allow that.
    async fn secret_for(&mut self, name: &str, purpose: Purpose) -> Result<&FetchedObject, Unresolved> {
        let (require_consent, endpoint) = (self.require_consent, self.endpoints.of(purpose));
        let secret = self.object(Reference::Secret(name.into())).await?;
        let refused = secret.refused.iter().find(|(refused, _)| require_consent && *refused == purpose);
        if let Some((_, annotation)) = refused {
            let (entry, field, use_) = (consent::entry(endpoint), purpose.field(), purpose.use_());
            return Err(Unresolved::permanent(
                Reason::SecretNotPermitted,
                format!(
                    "Secret {name} may not {use_} to {entry} ({field}): the owner of the Secret must add {entry} to its annotation {annotation} (comma-separated)"
                ),
            ));
        }
        if DENIED_SECRET_TYPES.contains(&secret.type_.as_str()) {
            return Err(Unresolved::permanent(
                Reason::SecretTypeDenied,
                format!(
                    "Secret {name} is of type {}, which the operator never sends: store the value that {} expects in a Secret of type Opaque, and name that Secret in the spec",
                    secret.type_,
                    purpose.field()
                ),
            ));
        }
        Ok(secret)
    }

    async fn object(&mut self, reference: Reference) -> Result<&FetchedObject, Unresolved> {
        if !self.fetched.contains_key(&reference) {
            let keys = self.wanted.get(&reference).cloned().unwrap_or_default();
            let object = match &reference {
                Reference::Secret(name) => {
                    self.kept(self.get::<Secret>(name, "Secret", Reason::SecretNotFound).await?, &keys)
                }
                Reference::ConfigMap(name) => {
                    let map: ConfigMap = self.get(name, "ConfigMap", Reason::ConfigMapNotFound).await?;
                    let text = map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
                    let bytes = map.binary_data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0));
                    FetchedObject { values: only(&keys, text.chain(bytes)), ..FetchedObject::default() }
                }
            };
            self.fetched.insert(reference.clone(), object);
        }
        Ok(&self.fetched[&reference])
    }

    /// The parts to keep of a Secret of which the spec names these keys.
    fn kept(&self, secret: Secret, keys: &HashSet<String>) -> FetchedObject {
        let ObjectMeta { annotations, uid, name, .. } = secret.metadata;
        let annotations: BTreeMap<_, _> = annotations.unwrap_or_default();
        let expires = expiry(self.namespace, name.as_deref().unwrap_or_default(), &annotations);
        let refused = [Purpose::Webhook, Purpose::TokenService, Purpose::Signature].into_iter().filter_map(|purpose| {
            let refused = consent::check(&annotations, purpose, self.endpoints.of(purpose)).err();
            refused.map(|annotation| (purpose, annotation))
        });
        FetchedObject {
            type_: secret.type_.unwrap_or_default(),
            uid: uid.unwrap_or_default(),
            expires,
            refused: refused.collect(),
            values: only(keys, secret.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0))),
        }
    }

    async fn get<K>(&self, name: &str, kind: &str, missing: Reason) -> Result<K, Unresolved>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        // The schema requires the same. A name with a slash would read another object.
        if !is_object_name(name) {
            return Err(Unresolved::permanent(
                Reason::InvalidSpec,
                format!("{kind} {name:.64}: not a valid object name: correct the name in the spec"),
            ));
        }
        let api = Api::<K>::namespaced(self.client.clone(), self.namespace);
        let _turn = READS.acquire().await;
        let read = tokio::time::timeout(API_TIMEOUT, api.get(name)).await.map_err(|_error| Unresolved::ApiTimeout)?;
        found(read)?.ok_or_else(|| {
            Unresolved::permanent(
                missing,
                format!("{kind} {name} does not exist in this namespace: create the {kind}; delivery then starts immediately"),
            )
        })
    }
}

/// The `values` whose keys are in `keys`.
fn only(keys: &HashSet<String>, values: impl Iterator<Item = (String, Vec<u8>)>) -> HashMap<String, Vec<u8>> {
    values.filter(|(key, _)| keys.contains(key)).collect()
}

fn invalid(name: &str, key: &str, fault: &str) -> Unresolved {
    Unresolved::permanent(Reason::InvalidSecret, format!("Secret {name}, key {key}: {fault}"))
}

/// A size in KiB, for messages.
fn size(bytes: usize) -> String {
    format!("{} KiB", bytes >> 10)
}

fn value<'s>(secret: &'s FetchedObject, name: &str, key: &str, remedy: &str) -> Result<&'s [u8], Unresolved> {
    let found = secret.values.get(key).map(Vec::as_slice);
    found.ok_or_else(|| invalid(name, key, &format!("there is no such key: {remedy}")))
}

/// A text that identifies or authenticates the client: printable ASCII (RFC 6749, appendixes A.1 and A.2).
struct CredentialText {
    what: &'static str,
    /// The field of the spec that names the key.
    field: &'static str,
    /// The maximum length, in bytes.
    limit: usize,
}

fn credential(secret: &FetchedObject, name: &str, key: &str, of: &CredentialText) -> Result<String, Unresolved> {
    let CredentialText { what, field, limit } = of;
    let bytes = value(secret, name, key, &format!("add the key, or name another key in {field}"))?;
    if bytes.len() > *limit {
        let fault = format!("the value is longer than {}: shorten the value", size(*limit));
        return Err(invalid(name, key, &fault));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_error| invalid(name, key, "the value is not text: store printable ASCII (RFC 6749, appendix A)"))?;
    let empty = format!("the value is empty: store {what} in it");
    let fault = if text.is_empty() {
        &empty
    } else if text.ends_with(['\n', '\r']) {
        "the value ends with a line break: create the value with printf or kubectl --from-literal"
    } else if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        "the value has characters other than printable ASCII (RFC 6749, appendix A): remove them"
    } else {
        return Ok(text.to_owned());
    };
    Err(invalid(name, key, fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s17_a_credential_has_a_limit_and_the_fault_names_secret_key_and_limit() {
        let secret = |length| FetchedObject {
            values: [("k".to_owned(), vec![b'a'; length])].into(),
            ..FetchedObject::default()
        };
        assert!(credential(&secret(CLIENT_ID.limit), "acme", "k", &CLIENT_ID).is_ok());
        let fault = credential(&secret(CLIENT_ID.limit + 1), "acme", "k", &CLIENT_ID).unwrap_err().to_string();
        assert_eq!(fault, "InvalidSecret: Secret acme, key k: the value is longer than 1 KiB: shorten the value");
    }

    #[test]
    fn s17_only_the_keys_that_a_spec_names_are_kept() {
        let values = [("a", 1), ("b", 1_000_000)].map(|(key, length)| (key.to_owned(), vec![0; length]));
        let kept = only(&HashSet::from(["a".to_owned(), "c".to_owned()]), values.into_iter());
        assert_eq!(kept, HashMap::from([("a".to_owned(), vec![0])]));
    }
}
