//! Secrets and ConfigMaps into credentials and trust. Read when used, never kept.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, api::ObjectMeta};

use super::{API_TIMEOUT, resolve::Unresolved};
use crate::{
    api::{CaKind, CaRef, CredentialsSecretRef, SubscriberReason},
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

/// Reads the client credentials from their Secret.
pub async fn credentials(
    client: &Client,
    namespace: &str,
    reference: &CredentialsSecretRef,
) -> Result<ReadCredentials, Unresolved> {
    let secret: Secret = get(client, namespace, &reference.name, "Secret", SubscriberReason::SecretNotFound).await?;
    let client_id = credential(&secret, &reference.name, &reference.client_id_key)?;
    let client_secret = credential(&secret, &reference.name, &reference.client_secret_key)?.into();
    let ObjectMeta { uid, resource_version, .. } = secret.metadata;
    Ok(ReadCredentials {
        credentials: Credentials { client_id, client_secret },
        uid: uid.unwrap_or_default(),
        version: resource_version.unwrap_or_default(),
    })
}

/// Reads a bundle of certificates, as PEM text that is not yet checked.
pub async fn ca_bundle(client: &Client, namespace: &str, reference: &CaRef) -> Result<Vec<u8>, Unresolved> {
    let CaRef { kind, name, key } = reference;
    let bytes = match kind {
        CaKind::ConfigMap => {
            let map: ConfigMap = get(client, namespace, name, "ConfigMap", SubscriberReason::ConfigMapNotFound).await?;
            let text = map.data.and_then(|mut data| data.remove(key).map(String::into_bytes));
            text.or_else(|| map.binary_data.and_then(|mut data| data.remove(key).map(|bytes| bytes.0)))
        }
        CaKind::Secret => {
            let secret: Secret = get(client, namespace, name, "Secret", SubscriberReason::SecretNotFound).await?;
            secret.data.and_then(|mut data| data.remove(key).map(|bytes| bytes.0))
        }
    };
    bytes.ok_or_else(|| {
        Unresolved::permanent(
            SubscriberReason::InvalidTrustBundle,
            format!("{kind:?} {name} has no key {key}: put the PEM certificates there, or set tls.caRef.key"),
        )
    })
}

async fn get<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    kind: &str,
    missing: SubscriberReason,
) -> Result<K, Unresolved>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    // The API server's schema says the same; a name with a slash would lead to another object.
    if !is_object_name(name) {
        return Err(Unresolved::permanent(
            SubscriberReason::InvalidSpec,
            format!("{kind} {name:.64}: not the name of an object"),
        ));
    }
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let found = tokio::time::timeout(API_TIMEOUT, api.get_opt(name)).await.map_err(|_| Unresolved::ApiTimeout)?;
    found?.ok_or_else(|| {
        Unresolved::permanent(
            missing,
            format!("{kind} {name} does not exist in this namespace: create it; delivery starts at once"),
        )
    })
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

/// A value that RFC 6749 (appendix A.1 and A.2) allows as a client id or secret: printable ASCII.
fn credential(secret: &Secret, name: &str, key: &str) -> Result<String, Unresolved> {
    let invalid = |fault: &str| {
        Unresolved::permanent(SubscriberReason::InvalidSecret, format!("Secret {name}, key {key}: {fault}"))
    };
    let bytes = secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .ok_or_else(|| invalid("there is no such key: add it, or name another in credentialsSecretRef"))?;
    let text = std::str::from_utf8(&bytes.0).map_err(|_| invalid("the value is not text"))?;
    if text.is_empty() {
        return Err(invalid("the value is empty: put the client's there"));
    }
    if text.ends_with(['\n', '\r']) {
        return Err(invalid("the value ends with a line break: create it with printf, or kubectl --from-literal"));
    }
    if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(invalid("the value has characters other than printable ASCII (RFC 6749, appendix A)"));
    }
    Ok(text.to_owned())
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
}
