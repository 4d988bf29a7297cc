//! Assertions that another party issues for the client (RFC 7521, section 4.2; RFC 7523, section 2.2).

use std::sync::Arc;

use futures::future::BoxFuture;
use secrecy::SecretString;
use tidings_api::SubscriberReason;

use super::CredentialsFingerprint;

/// Gets assertions from the party that issues them.
pub trait AssertionProvider: Send + Sync {
    /// Gets a new assertion: token services accept each assertion once. Ends within a time limit of its own.
    fn assertion(&self) -> BoxFuture<'_, Result<SecretString, NoAssertion>>;
}

/// The assertions of one client, a new one for each token request. It has no Debug.
pub struct IssuedAssertions {
    provider: Arc<dyn AssertionProvider>,
    fingerprint: CredentialsFingerprint,
    bytes: usize,
}

/// Why there is no assertion, and thus no token request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NoAssertion {
    /// The reason of the Subscriber's condition. [`SubscriberReason::TokenUnavailable`] if the failure is temporary.
    pub reason: SubscriberReason,
    /// What is wrong and what to do. Holds no assertion.
    pub message: String,
}

impl IssuedAssertions {
    /// Gets assertions from `provider`. `identity` is everything that distinguishes these assertions from others.
    pub fn new(provider: Arc<dyn AssertionProvider>, identity: &[&str]) -> Self {
        let fingerprint = CredentialsFingerprint::of(identity.iter().map(|part| part.as_bytes()));
        Self { provider, fingerprint, bytes: identity.iter().map(|part| part.len()).sum() }
    }

    /// Gets a new assertion.
    pub(super) async fn next(&self) -> Result<SecretString, NoAssertion> {
        self.provider.assertion().await
    }

    /// Equal for the same identity.
    pub(super) fn fingerprint(&self) -> &CredentialsFingerprint {
        &self.fingerprint
    }

    /// The approximate memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use futures::FutureExt;
    use http::HeaderMap;

    use super::*;
    use crate::{
        egress::{Egress, Policy, SendError, Trust},
        oauth::{AuthMethod, Credentials, TokenError, TokenRequest, client},
    };

    /// Issues assertions until it is exhausted.
    struct Issuer {
        issued: AtomicUsize,
        most: usize,
    }

    impl AssertionProvider for Issuer {
        fn assertion(&self) -> BoxFuture<'_, Result<SecretString, NoAssertion>> {
            let number = self.issued.fetch_add(1, Ordering::Relaxed);
            let none = NoAssertion { reason: SubscriberReason::ServiceAccountNotFound, message: "none".into() };
            let assertion = if number < self.most { Ok(format!("assertion-{number}").into()) } else { Err(none) };
            async move { assertion }.boxed()
        }
    }

    #[tokio::test]
    async fn each_token_request_has_a_new_assertion_and_none_is_sent_without_one() {
        let issuer = Arc::new(Issuer { issued: AtomicUsize::new(0), most: 2 });
        let authentication = AuthMethod::IssuedAssertion(IssuedAssertions::new(issuer.clone(), &["uid", "audience"]));
        let request = TokenRequest {
            url: "https://127.0.0.1:1/".parse().unwrap(),
            credentials: Credentials { client_id: "shop".into(), authentication },
            scopes: Vec::new(),
            audience: None,
            resources: Vec::new(),
            parameters: std::collections::BTreeMap::new(),
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(1),
            // A client that may not dial the token service: what is sent fails as denied.
            http: Egress::new(Policy::default()).client("test", &Trust::default()).unwrap(),
        };
        for number in 1..=2 {
            let denied = client::send(&request).await.err().unwrap();
            assert_eq!(denied, TokenError::Unreachable(SendError::Denied));
            assert_eq!(issuer.issued.load(Ordering::Relaxed), number);
        }
        let TokenError::NoAssertion(none) = client::send(&request).await.err().unwrap() else {
            panic!("a request without an assertion was sent");
        };
        assert_eq!((none.reason, none.to_string()), (SubscriberReason::ServiceAccountNotFound, "none".to_owned()));
    }

    #[test]
    fn s11_the_fingerprint_distinguishes_every_part_of_the_identity() {
        let fingerprint = |identity: &[&str]| {
            let issuer = Arc::new(Issuer { issued: AtomicUsize::new(0), most: 0 });
            *IssuedAssertions::new(issuer, identity).fingerprint()
        };
        let one = fingerprint(&["uid", "audience"]);
        assert_eq!(one, fingerprint(&["uid", "audience"]));
        for other in [&["uid", "other"][..], &["other", "audience"], &["uida", "udience"], &["uid", "audience", ""]] {
            assert_ne!(one, fingerprint(other), "{other:?}");
        }
    }
}
