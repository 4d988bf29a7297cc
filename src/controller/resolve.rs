//! A Subscriber's spec, with the Secret and the bundles it names, into a target: parsed once, checked once.

use std::{collections::HashSet, sync::Arc, time::Duration};

use http::HeaderValue;
use kube::Client;
use url::Url;

use super::{
    registry::Reference,
    secrets::{ReadCredentials, ca_bundle, credentials},
};
use crate::{
    api::{CaKind, ClientAuthentication, ContentMode, ContentType, HttpsUrl, SubscriberReason, SubscriberSpec, Tls},
    cloudevent::Encoding,
    egress::{self, Egress, SendError},
    oauth::{self, TokenCache, TokenKey, TokenRequest},
    webhook::Target,
};

/// How many deliveries one Subscriber may have under way at once.
const MAX_IN_FLIGHT: usize = 16;

/// Makes targets; holds what all Subscribers share.
pub struct Resolver {
    /// Reads Secrets and ConfigMaps.
    pub client: Client,
    /// The way out.
    pub egress: Egress,
    /// Tokens.
    pub tokens: TokenCache,
    /// Who we say we are.
    pub origin: HeaderValue,
}

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// The Subscriber, or what it names, is not right: a reason and a message for its status.
    #[error("{reason}: {message}")]
    Subscriber {
        /// For the condition.
        reason: SubscriberReason,
        /// What to do.
        message: String,
    },
    /// The API server did not answer in time.
    #[error("the API server did not answer in time")]
    ApiTimeout,
    /// The API server refused, or could not be reached.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
}

impl Unresolved {
    /// A reason for the Subscriber's status.
    pub fn permanent(reason: SubscriberReason, message: impl Into<String>) -> Self {
        Self::Subscriber { reason, message: message.into() }
    }
}

/// What a spec refers to, whether it exists or not.
pub fn references(spec: &SubscriberSpec) -> HashSet<Reference> {
    let bundles = [&spec.webhook.tls, &spec.token_service.tls].into_iter().flatten();
    let bundles = bundles.filter_map(|tls| tls.ca_ref.as_ref()).map(|ca| match ca.kind {
        CaKind::ConfigMap => Reference::ConfigMap(ca.name.clone()),
        CaKind::Secret => Reference::Secret(ca.name.clone()),
    });
    bundles.chain([Reference::Secret(spec.token_service.credentials_secret_ref.name.clone())]).collect()
}

impl Resolver {
    /// Reads what the spec names and makes the target. Nothing is sent yet.
    pub async fn target(&self, namespace: &str, spec: &SubscriberSpec) -> Result<Target, Unresolved> {
        let url = parse(&spec.webhook.url, "webhook.url")?;
        let (http, _) = self.way_out(namespace, spec.webhook.tls.as_ref(), "webhook").await?;
        let tokens = self.tokens(namespace, spec).await?;
        check(&http, &url, "webhook.url").await?;
        Ok(Target {
            url,
            encoding: encoding(spec),
            timeout: seconds(spec.webhook.timeout_seconds),
            http,
            tokens,
            origin: self.origin.clone(),
            max_in_flight: MAX_IN_FLIGHT,
        })
    }

    async fn tokens(&self, namespace: &str, spec: &SubscriberSpec) -> Result<Arc<oauth::TokenSource>, Unresolved> {
        let service = &spec.token_service;
        let url = parse(&service.url, "tokenService.url")?;
        let ReadCredentials { credentials, uid, version } =
            credentials(&self.client, namespace, &service.credentials_secret_ref).await?;
        let (http, trust) = self.way_out(namespace, service.tls.as_ref(), "tokenService").await?;
        check(&http, &url, "tokenService.url").await?;
        let authentication = match service.client_authentication {
            ClientAuthentication::Basic => oauth::ClientAuthentication::Basic,
            ClientAuthentication::Post => oauth::ClientAuthentication::Post,
        };
        let key = TokenKey {
            namespace: namespace.into(),
            secret_uid: uid,
            secret_version: version,
            url: url.as_str().into(),
            client_id: credentials.client_id.clone(),
            authentication,
            scopes: service.scopes.clone(),
            audience: service.audience.clone(),
            trust,
        };
        Ok(self.tokens.source(key, || TokenRequest {
            url,
            credentials,
            authentication,
            scopes: service.scopes.clone(),
            audience: service.audience.clone(),
            timeout: seconds(service.timeout_seconds),
            http,
        }))
    }

    /// The client for one endpoint, and the bundle it trusts besides the system's.
    async fn way_out(
        &self,
        namespace: &str,
        tls: Option<&Tls>,
        field: &str,
    ) -> Result<(Arc<egress::Client>, Option<Vec<u8>>), Unresolved> {
        let bundle = match tls.and_then(|tls| tls.ca_ref.as_ref()) {
            Some(reference) => Some(ca_bundle(&self.client, namespace, reference).await?),
            None => None,
        };
        let client = self.egress.client(bundle.as_deref()).map_err(|error| {
            Unresolved::permanent(SubscriberReason::InvalidTrustBundle, format!("{field}.tls.caRef: {error}"))
        })?;
        Ok((client, bundle))
    }
}

/// The egress policy's word on an endpoint. A name that does not resolve now may do so when it is used.
async fn check(client: &egress::Client, url: &Url, field: &str) -> Result<(), Unresolved> {
    match client.check(url).await {
        Err(error @ SendError::Denied) => {
            Err(Unresolved::permanent(SubscriberReason::EgressDenied, format!("{field}: {error}")))
        }
        _ => Ok(()),
    }
}

/// The API server has checked the text; this parser may still be stricter.
fn parse(url: &HttpsUrl, field: &str) -> Result<Url, Unresolved> {
    let invalid = |fault: &str| Unresolved::permanent(SubscriberReason::InvalidSpec, format!("{field}: {fault}"));
    let url = Url::parse(&url.0).map_err(|error| invalid(&error.to_string()))?;
    if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(invalid("must be an https URL without user name, password or fragment"));
    }
    Ok(url)
}

fn encoding(spec: &SubscriberSpec) -> Encoding {
    match (spec.webhook.content_mode, spec.webhook.content_type) {
        (ContentMode::Binary, _) => Encoding::Binary,
        (ContentMode::Structured, Some(ContentType::Json)) => Encoding::Structured("application/json"),
        (ContentMode::Structured, _) => Encoding::Structured(Encoding::CLOUDEVENTS_JSON),
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.max(1).into())
}
