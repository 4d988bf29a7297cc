//! Secrets and ConfigMaps into credentials, trust and header values. Read when used; kept by whoever uses them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, api::ObjectMeta};
use tidings_api::{
    CaKind, CaRef, ClientCertificateSecretRef, CredentialsSecretRef, DENIED_SECRET_TYPES, SecretKeyRef,
    SubscriberReason as Reason,
};
use tidings_delivery::{egress::ClientIdentity, oauth::Credentials};
use tokio::sync::Semaphore;
use url::Url;

use super::{
    consent::{self, Purpose},
    referrers::Reference,
    unresolved::Unresolved,
};
use crate::cluster::call::API_TIMEOUT;

/// The longest client id, in bytes.
const MAX_CLIENT_ID: usize = 1 << 10;
/// The longest client secret: some are signed tokens.
const MAX_CLIENT_SECRET: usize = 16 << 10;
/// The longest client certificate with its chain and its key, together.
const MAX_CLIENT_CERTIFICATE: usize = 64 << 10;
/// The longest bundle of certificate authorities; that of a Linux distribution has about 220 KB.
const MAX_CA_BUNDLE: usize = 1 << 20;

/// The keys of the certificate and the private key in a Secret of type kubernetes.io/tls.
const TLS_KEYS: [&str; 2] = ["tls.crt", "tls.key"];

/// How many objects are read at once: each may be a megabyte, which the reading holds several times over.
static READS: Semaphore = Semaphore::const_new(8);

/// The keys that a spec names, by the object that they are in.
pub type Wanted = HashMap<Reference, HashSet<String>>;

/// Adds what `reference` names.
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

/// Client id and secret, and which version of the Secret they came from.
pub struct ReadCredentials {
    /// For the token request.
    pub credentials: Credentials,
    /// The Secret's uid.
    pub uid: String,
    /// The Secret's resourceVersion.
    pub version: String,
}

/// Where the values that a spec names are sent.
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
            Purpose::Webhook => self.webhook,
            Purpose::TokenService => self.token_service,
        }
    }
}

/// Looks up what one Subscriber names in its namespace, each object once.
pub struct ObjectReader<'a> {
    client: &'a Client,
    namespace: &'a str,
    /// Whether a Secret's values are sent only to endpoints that the Secret allows.
    consent: bool,
    endpoints: Endpoints<'a>,
    wanted: Wanted,
    found: HashMap<Reference, FetchedObject>,
}

/// What is kept of a Secret or ConfigMap while a look at a Subscriber runs: not the whole of it.
#[derive(Default)]
struct FetchedObject {
    type_: String,
    uid: String,
    version: String,
    /// The purposes that the Secret does not allow, with the annotation that lacks an entry.
    refused: Vec<(Purpose, &'static str)>,
    /// The keys that the spec names, where they exist.
    values: HashMap<String, Vec<u8>>,
}

impl<'a> ObjectReader<'a> {
    /// A look-up in `namespace` of the keys `wanted`, whose values are sent to `endpoints`; with `consent`, only to those
    /// that each Secret allows.
    pub fn new(
        client: &'a Client,
        namespace: &'a str,
        consent: bool,
        endpoints: Endpoints<'a>,
        wanted: Wanted,
    ) -> Self {
        Self { client, namespace, consent, endpoints, wanted, found: HashMap::new() }
    }

    /// Reads the client credentials.
    ///
    /// Whether the Secret allows both endpoints is looked at before its keys: one that does not says nothing of them.
    pub async fn credentials(&mut self, reference: &CredentialsSecretRef) -> Result<ReadCredentials, Unresolved> {
        let CredentialsSecretRef { name, client_id_key, client_secret_key } = reference;
        self.secret_for(name, Purpose::TokenService).await?;
        // The webhook gets what is got with this Secret: a token.
        let secret = self.secret_for(name, Purpose::Webhook).await?;
        let client_id = credential(secret, name, client_id_key, MAX_CLIENT_ID)?;
        let client_secret = credential(secret, name, client_secret_key, MAX_CLIENT_SECRET)?.into();
        Ok(ReadCredentials {
            credentials: Credentials { client_id, client_secret },
            uid: secret.uid.clone(),
            version: secret.version.clone(),
        })
    }

    /// Reads a header's value, which is sent to the webhook: bytes that are not yet checked.
    pub async fn header_value(&mut self, reference: &SecretKeyRef) -> Result<&[u8], Unresolved> {
        let SecretKeyRef { name, key } = reference;
        let secret = self.secret_for(name, Purpose::Webhook).await?;
        value(secret, name, key, "add it, or name another in secretKeyRef")
    }

    /// Reads a client certificate and its key, as PEM texts that are not yet checked.
    pub async fn client_identity(
        &mut self,
        reference: &ClientCertificateSecretRef,
        purpose: Purpose,
    ) -> Result<ClientIdentity, Unresolved> {
        let name = &reference.name;
        let secret = self.secret_for(name, purpose).await?;
        let part = |key| value(secret, name, key, "make the Secret with kubectl create secret tls");
        let [certificate, key] = TLS_KEYS;
        let (certificate_pem, key_pem) = (part(certificate)?, part(key)?);
        if certificate_pem.len() + key_pem.len() > MAX_CLIENT_CERTIFICATE {
            let longest = if certificate_pem.len() < key_pem.len() { key } else { certificate };
            let fault = format!(
                "tls.crt and tls.key are longer than {}, the limit for both together: keep the client's certificate, those that lead to its authority, and its key",
                size(MAX_CLIENT_CERTIFICATE)
            );
            return Err(invalid(name, longest, &fault));
        }
        Ok(ClientIdentity { certificate_pem: certificate_pem.to_vec(), key_pem: key_pem.to_vec().into() })
    }

    /// Reads a bundle of certificates, as PEM text that is not yet checked. It is not sent anywhere.
    pub async fn ca_bundle(&mut self, reference: &CaRef) -> Result<Cow<'_, [u8]>, Unresolved> {
        let CaRef { kind, name, key } = reference;
        let hides_keys = self.consent && *kind == CaKind::Secret;
        let object = self.object(bundle_object(reference)).await?;
        let fault = match object.values.get(key) {
            Some(pem) if pem.len() <= MAX_CA_BUNDLE => return Ok(pem.into()),
            Some(_) => format!(
                "{kind:?} {name}, key {key}: the bundle is longer than {}, the limit for tls.caRef: keep the certificates of the authorities that the endpoint needs",
                size(MAX_CA_BUNDLE)
            ),
            // Under consent no Secret tells which keys it has: no key reads as no certificate.
            None if hides_keys => return Ok(Cow::Borrowed(&[])),
            None => format!("{kind:?} {name} has no key {key}: put the PEM certificates there, or set tls.caRef.key"),
        };
        Err(Unresolved::permanent(Reason::InvalidTrustBundle, fault))
    }

    /// A Secret whose values are sent out for this purpose.
    async fn secret_for(&mut self, name: &str, purpose: Purpose) -> Result<&FetchedObject, Unresolved> {
        let (consent, endpoint) = (self.consent, self.endpoints.of(purpose));
        let secret = self.object(Reference::Secret(name.into())).await?;
        let refused = secret.refused.iter().find(|(refused, _)| consent && *refused == purpose);
        if let Some((_, annotation)) = refused {
            let (entry, field) = (consent::entry(endpoint), purpose.field());
            return Err(Unresolved::permanent(
                Reason::SecretNotPermitted,
                format!(
                    "Secret {name} does not allow its values to be sent to {entry} ({field}): the owner of the Secret adds {entry} to its annotation {annotation} (entries are separated by commas)"
                ),
            ));
        }
        if DENIED_SECRET_TYPES.contains(&secret.type_.as_str()) {
            return Err(Unresolved::permanent(
                Reason::SecretTypeDenied,
                format!(
                    "Secret {name} is of type {}, which the operator never sends to an endpoint: put the value that {} expects into a Secret of type Opaque, and name that Secret",
                    secret.type_,
                    purpose.field()
                ),
            ));
        }
        Ok(secret)
    }

    async fn object(&mut self, reference: Reference) -> Result<&FetchedObject, Unresolved> {
        if !self.found.contains_key(&reference) {
            let keys = self.wanted.get(&reference).cloned().unwrap_or_default();
            let found = match &reference {
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
            self.found.insert(reference.clone(), found);
        }
        Ok(&self.found[&reference])
    }

    /// What is kept of a Secret of which the spec names these keys.
    fn kept(&self, secret: Secret, keys: &HashSet<String>) -> FetchedObject {
        let ObjectMeta { annotations, uid, resource_version, .. } = secret.metadata;
        let annotations: BTreeMap<_, _> = annotations.unwrap_or_default();
        let refused = [Purpose::Webhook, Purpose::TokenService].into_iter().filter_map(|purpose| {
            let refused = consent::check(&annotations, purpose, self.endpoints.of(purpose)).err();
            refused.map(|annotation| (purpose, annotation))
        });
        FetchedObject {
            type_: secret.type_.unwrap_or_default(),
            uid: uid.unwrap_or_default(),
            version: resource_version.unwrap_or_default(),
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
        // The API server's schema says the same; a name with a slash would lead to another object.
        if !is_object_name(name) {
            return Err(Unresolved::permanent(
                Reason::InvalidSpec,
                format!("{kind} {name:.64}: not the name of an object"),
            ));
        }
        let api = Api::<K>::namespaced(self.client.clone(), self.namespace);
        let _turn = READS.acquire().await;
        let found =
            tokio::time::timeout(API_TIMEOUT, api.get_opt(name)).await.map_err(|_error| Unresolved::ApiTimeout)?;
        found?.ok_or_else(|| {
            Unresolved::permanent(
                missing,
                format!("{kind} {name} does not exist in this namespace: create it; delivery starts at once"),
            )
        })
    }
}

/// Those of `values` whose keys are among `keys`.
fn only(keys: &HashSet<String>, values: impl Iterator<Item = (String, Vec<u8>)>) -> HashMap<String, Vec<u8>> {
    values.filter(|(key, _)| keys.contains(key)).collect()
}

/// A DNS subdomain (RFC 1123).
fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn invalid(name: &str, key: &str, fault: &str) -> Unresolved {
    Unresolved::permanent(Reason::InvalidSecret, format!("Secret {name}, key {key}: {fault}"))
}

/// A size as people read it.
fn size(bytes: usize) -> String {
    format!("{} KiB", bytes >> 10)
}

fn value<'s>(secret: &'s FetchedObject, name: &str, key: &str, remedy: &str) -> Result<&'s [u8], Unresolved> {
    let found = secret.values.get(key).map(Vec::as_slice);
    found.ok_or_else(|| invalid(name, key, &format!("there is no such key: {remedy}")))
}

/// A value that RFC 6749 (appendix A.1 and A.2) allows as a client id or secret, printable ASCII, of at most `limit` bytes.
fn credential(secret: &FetchedObject, name: &str, key: &str, limit: usize) -> Result<String, Unresolved> {
    let bytes = value(secret, name, key, "add it, or name another in credentialsSecretRef")?;
    if bytes.len() > limit {
        let fault = format!("the value is longer than {}, the limit for it: shorten it", size(limit));
        return Err(invalid(name, key, &fault));
    }
    let text = std::str::from_utf8(bytes).map_err(|_error| invalid(name, key, "the value is not text"))?;
    let fault = if text.is_empty() {
        "the value is empty: put the client's there"
    } else if text.ends_with(['\n', '\r']) {
        "the value ends with a line break: create it with printf, or kubectl --from-literal"
    } else if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        "the value has characters other than printable ASCII (RFC 6749, appendix A)"
    } else {
        return Ok(text.to_owned());
    };
    Err(invalid(name, key, fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_lead_to_another_object_is_no_name() {
        for name in ["acme-oauth", "a", "a.b-c.d1"] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", "a/b", "../../other/secrets/x", "..", "a%2Fb", "A", "-a", "a-", "a?x", "a#x", "a b"] {
            assert!(!is_object_name(name), "{name}");
        }
    }

    #[test]
    fn s17_a_credential_has_a_limit_and_the_fault_names_secret_key_and_limit() {
        let secret = |length| FetchedObject {
            values: [("k".to_owned(), vec![b'a'; length])].into(),
            ..FetchedObject::default()
        };
        assert!(credential(&secret(MAX_CLIENT_ID), "acme", "k", MAX_CLIENT_ID).is_ok());
        let fault = credential(&secret(MAX_CLIENT_ID + 1), "acme", "k", MAX_CLIENT_ID).unwrap_err().to_string();
        assert_eq!(
            fault,
            "InvalidSecret: Secret acme, key k: the value is longer than 1 KiB, the limit for it: shorten it"
        );
    }

    #[test]
    fn s17_only_the_keys_that_a_spec_names_are_kept() {
        let values = [("a", 1), ("b", 1_000_000)].map(|(key, length)| (key.to_owned(), vec![0; length]));
        let kept = only(&HashSet::from(["a".to_owned(), "c".to_owned()]), values.into_iter());
        assert_eq!(kept, HashMap::from([("a".to_owned(), vec![0])]));
    }
}
