//! Secrets and ConfigMaps into credentials, trust and header values. Read when used; kept by whoever uses them.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

use super::{API_TIMEOUT, resolve::Unresolved};
use crate::{
    api::{
        CONSENT_ANNOTATION, CaKind, CaRef, ClientCertificateSecretRef, CredentialsSecretRef, SecretKeyRef,
        SubscriberReason as Reason,
    },
    egress::ClientIdentity,
    oauth::Credentials,
};

/// Client id and secret, and which version of the Secret they came from.
pub struct ReadCredentials {
    /// For the token request.
    pub credentials: Credentials,
    /// The Secret's uid.
    pub uid: String,
    /// The Secret's resourceVersion.
    pub version: String,
}

/// Looks up what one Subscriber names in its namespace, each object once.
pub struct Lookup<'a> {
    client: &'a Client,
    namespace: &'a str,
    /// Whether a Secret's values go only to hosts that it allows.
    consent: bool,
    secrets: HashMap<String, Secret>,
    config_maps: HashMap<String, ConfigMap>,
}

impl<'a> Lookup<'a> {
    /// A look-up in `namespace`; with `consent`, a Secret's values go only to hosts that it allows.
    pub fn new(client: &'a Client, namespace: &'a str, consent: bool) -> Self {
        Self { client, namespace, consent, secrets: HashMap::new(), config_maps: HashMap::new() }
    }

    /// Reads the client credentials, which are sent to `host`.
    pub async fn credentials(
        &mut self,
        reference: &CredentialsSecretRef,
        host: &str,
    ) -> Result<ReadCredentials, Unresolved> {
        let CredentialsSecretRef { name, client_id_key, client_secret_key } = reference;
        let secret = self.secret_for(name, host).await?;
        let client_id = credential(secret, name, client_id_key)?;
        let client_secret = credential(secret, name, client_secret_key)?.into();
        Ok(ReadCredentials {
            credentials: Credentials { client_id, client_secret },
            uid: secret.metadata.uid.clone().unwrap_or_default(),
            version: secret.metadata.resource_version.clone().unwrap_or_default(),
        })
    }

    /// Whether what is got with this Secret, a token, may be sent to `host`.
    pub async fn permits(&mut self, name: &str, host: &str) -> Result<(), Unresolved> {
        self.secret_for(name, host).await.map(drop)
    }

    /// Reads a header's value, which is sent to `host`: bytes that are not yet checked.
    pub async fn header_value(&mut self, reference: &SecretKeyRef, host: &str) -> Result<Vec<u8>, Unresolved> {
        let SecretKeyRef { name, key } = reference;
        let secret = self.secret_for(name, host).await?;
        value(secret, name, key, "add it, or name another in secretKeyRef").map(<[u8]>::to_vec)
    }

    /// Reads a client certificate and its key, which are used towards `host`, as PEM texts that are not yet checked.
    pub async fn client_identity(
        &mut self,
        reference: &ClientCertificateSecretRef,
        host: &str,
    ) -> Result<ClientIdentity, Unresolved> {
        let name = &reference.name;
        let secret = self.secret_for(name, host).await?;
        let part = |key| value(secret, name, key, "make the Secret with kubectl create secret tls");
        Ok(ClientIdentity { certificate_pem: part("tls.crt")?.to_vec(), key_pem: part("tls.key")?.to_vec().into() })
    }

    /// Reads a bundle of certificates, as PEM text that is not yet checked. It is sent to nobody.
    pub async fn ca_bundle(&mut self, reference: &CaRef) -> Result<Vec<u8>, Unresolved> {
        let CaRef { kind, name, key } = reference;
        let bytes = match kind {
            CaKind::ConfigMap => {
                let map = self.config_map(name).await?;
                let text = map.data.as_ref().and_then(|data| data.get(key)).map(|text| text.clone().into_bytes());
                let bytes = || map.binary_data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
                text.or_else(bytes)
            }
            CaKind::Secret => {
                let data = self.secret(name).await?.data.as_ref();
                data.and_then(|data| data.get(key)).map(|bytes| bytes.0.clone())
            }
        };
        bytes.ok_or_else(|| {
            Unresolved::permanent(
                Reason::InvalidTrustBundle,
                format!("{kind:?} {name} has no key {key}: put the PEM certificates there, or set tls.caRef.key"),
            )
        })
    }

    /// A Secret whose values are sent to `host`.
    async fn secret_for(&mut self, name: &str, host: &str) -> Result<&Secret, Unresolved> {
        let consent = self.consent;
        let secret = self.secret(name).await?;
        if consent && !allows(secret, host) {
            return Err(Unresolved::permanent(
                Reason::SecretNotPermitted,
                format!(
                    "Secret {name} does not allow its values to be sent to {host:.253}: who owns it annotates it with {CONSENT_ANNOTATION}={host:.253} (several with commas between them)"
                ),
            ));
        }
        Ok(secret)
    }

    async fn secret(&mut self, name: &str) -> Result<&Secret, Unresolved> {
        if !self.secrets.contains_key(name) {
            let secret = self.get(name, "Secret", Reason::SecretNotFound).await?;
            self.secrets.insert(name.to_owned(), secret);
        }
        Ok(&self.secrets[name])
    }

    async fn config_map(&mut self, name: &str) -> Result<&ConfigMap, Unresolved> {
        if !self.config_maps.contains_key(name) {
            let map = self.get(name, "ConfigMap", Reason::ConfigMapNotFound).await?;
            self.config_maps.insert(name.to_owned(), map);
        }
        Ok(&self.config_maps[name])
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
        let found = tokio::time::timeout(API_TIMEOUT, api.get_opt(name)).await.map_err(|_| Unresolved::ApiTimeout)?;
        found?.ok_or_else(|| {
            Unresolved::permanent(
                missing,
                format!("{kind} {name} does not exist in this namespace: create it; delivery starts at once"),
            )
        })
    }
}

/// Whether the Secret's annotation names this host.
fn allows(secret: &Secret, host: &str) -> bool {
    let allowed = secret.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CONSENT_ANNOTATION));
    allowed.is_some_and(|allowed| allowed.split(',').any(|allowed| allowed.trim().eq_ignore_ascii_case(host)))
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

fn value<'s>(secret: &'s Secret, name: &str, key: &str, remedy: &str) -> Result<&'s [u8], Unresolved> {
    let found = secret.data.as_ref().and_then(|data| data.get(key));
    found.map(|bytes| bytes.0.as_slice()).ok_or_else(|| invalid(name, key, &format!("there is no such key: {remedy}")))
}

/// A value that RFC 6749 (appendix A.1 and A.2) allows as a client id or secret: printable ASCII.
fn credential(secret: &Secret, name: &str, key: &str) -> Result<String, Unresolved> {
    let bytes = value(secret, name, key, "add it, or name another in credentialsSecretRef")?;
    let text = std::str::from_utf8(bytes).map_err(|_| invalid(name, key, "the value is not text"))?;
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
    fn s09_a_secret_allows_the_hosts_that_it_names_and_no_others() {
        let secret = |allowed: &str| {
            let mut secret = Secret::default();
            secret.metadata.annotations = Some([(CONSENT_ANNOTATION.to_owned(), allowed.to_owned())].into());
            secret
        };
        for allowed in ["hooks.example.com", "login.example.com, Hooks.Example.com"] {
            assert!(allows(&secret(allowed), "hooks.example.com"), "{allowed}");
        }
        for allowed in ["", "*", "example.com", "xhooks.example.com", "hooks.example.com.evil.example", "hooks.example"]
        {
            assert!(!allows(&secret(allowed), "hooks.example.com"), "{allowed}");
        }
        assert!(!allows(&Secret::default(), "hooks.example.com"));
    }
}
