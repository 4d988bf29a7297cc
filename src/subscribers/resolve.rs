//! Resolves a Subscriber's spec, with the Secrets and ConfigMaps that it names, to a target: parsed once, checked once.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue};
use kube::Client;
use tidings_api::{
    ContentMode, ContentType, HttpsUrl, OnRejection, PublicRoots, ResponseAction, SecretKeyRef, Signature,
    SubscriberReason, SubscriberSpec, Tls, TokenService, resource_fault, token_parameter_fault,
};
use tidings_delivery::{
    egress::{self, Authorities, ClientIdentity, Egress, Fingerprint, SendError, Trust, TrustError},
    event::Encoding,
    oauth::{self, Credentials, CredentialsFingerprint, TokenCache, TokenKey, TokenRequest},
    webhook::{Consequence, ResponseRules, Signer, Target, TokenDoubt},
};
use tidings_queue::{Backoff, Limits, SpecVersion};
use url::Url;

use super::{
    account_tokens::AccountTokens,
    client_authentication::{self, ReadClient, purposes_of_certificate, want_credentials},
    consent::Purpose,
    headers,
    referrers::Reference,
    secrets::{Endpoints, ObjectReader, Wanted, bundle_object, want, want_identity},
    times::seconds,
    unresolved::Unresolved,
};
use crate::{cluster::SingleTry, contract::Route, metrics::ExpiryTimes};

/// Makes targets. Holds what all Subscribers share.
pub struct TargetResolver {
    /// Reads Secrets and ConfigMaps.
    client: Client,
    /// Requests tokens of ServiceAccounts.
    accounts: Arc<AccountTokens>,
    egress: Egress,
    tokens: TokenCache,
    /// The operator's name in WebHook-Request-Origin.
    origin: HeaderValue,
    /// Whether a Secret's values are sent only to the endpoints that its annotations allow.
    require_secret_consent: bool,
}

/// The HTTP client for one endpoint.
struct EndpointClient {
    http: Arc<egress::Client>,
    /// The fingerprint of its trust settings.
    trust: Fingerprint,
    /// When its client certificate expires, if it has one.
    certificate_expires: Option<SystemTime>,
}

/// The objects that a spec refers to, whether they exist or not.
pub fn references(spec: &SubscriberSpec) -> HashSet<Reference> {
    wanted(spec).into_keys().collect()
}

/// The objects that a spec names, and the keys of each.
fn wanted(spec: &SubscriberSpec) -> Wanted {
    let mut wanted = Wanted::new();
    want_credentials(&mut wanted, &spec.token_service);
    for tls in [&spec.webhook.tls, &spec.token_service.tls].into_iter().flatten() {
        if let Some(bundle) = &tls.ca_ref {
            want(&mut wanted, bundle_object(bundle), &[&bundle.key]);
        }
        if let Some(certificate) = &tls.client_certificate_secret_ref {
            want_identity(&mut wanted, certificate);
        }
    }
    let headers = spec.webhook.headers.iter().chain(&spec.token_service.headers);
    for from in headers.filter_map(|header| header.value_from.as_ref()) {
        want(&mut wanted, Reference::Secret(from.secret_key_ref.name.clone()), &[&from.secret_key_ref.key]);
    }
    if let Some(Signature { secret_ref, previous_secret_ref }) = &spec.webhook.signature {
        for SecretKeyRef { name, key } in [Some(secret_ref), previous_secret_ref.as_ref()].into_iter().flatten() {
            want(&mut wanted, Reference::Secret(name.clone()), &[key]);
        }
    }
    wanted
}

impl TargetResolver {
    /// Reads Secrets, ConfigMaps and ServiceAccounts with `client`, and requests tokens of ServiceAccounts with `writer`.
    /// Events are sent with `egress`, and `origin` is the sender's name in WebHook-Request-Origin.
    pub fn new(
        client: Client,
        writer: SingleTry,
        egress: Egress,
        origin: HeaderValue,
        require_secret_consent: bool,
    ) -> Self {
        let accounts = Arc::new(AccountTokens::new(client.clone(), writer));
        Self { client, accounts, egress, tokens: TokenCache::default(), origin, require_secret_consent }
    }

    /// The operator's name in WebHook-Request-Origin.
    pub(super) fn origin(&self) -> String {
        self.origin.to_str().unwrap_or_default().to_owned()
    }

    /// Reads the objects that the spec names and makes the route. Also returns when what they hold expires. Sends
    /// nothing to the endpoints.
    pub(super) async fn route(
        &self,
        namespace: &str,
        version: SpecVersion,
        spec: &SubscriberSpec,
    ) -> Result<(Route, ExpiryTimes), Unresolved> {
        let delivery = &spec.delivery;
        let (target, expiries) = self.target(namespace, spec).await?;
        let route = Route {
            target,
            version,
            limits: Limits {
                max_in_flight: usize::try_from(delivery.max_in_flight).unwrap_or(usize::MAX),
                rate_per_minute: delivery.rate_limit_per_minute,
            },
            backoff: Backoff {
                initial: seconds(delivery.backoff.initial_seconds),
                max: seconds(delivery.backoff.max_seconds),
            },
            max_attempts: delivery.max_attempts,
            expire_after: seconds(delivery.expire_after_seconds),
        };
        Ok((route, expiries))
    }

    async fn target(&self, namespace: &str, spec: &SubscriberSpec) -> Result<(Target, ExpiryTimes), Unresolved> {
        let url = parse(&spec.webhook.url, "webhook.url")?;
        let token_url = parse(&spec.token_service.url, "tokenService.url")?;
        let endpoints = Endpoints { webhook: &url, token_service: &token_url };
        let require_consent = self.require_secret_consent;
        let mut reader = ObjectReader::new(&self.client, namespace, require_consent, endpoints, wanted(spec));
        let EndpointClient { http, certificate_expires: webhook_certificate, .. } = self
            .endpoint_client(&mut reader, namespace, spec.webhook.tls.as_ref(), "webhook", &[Purpose::Webhook])
            .await?;
        let headers = headers::read(&mut reader, &spec.webhook.headers, Purpose::Webhook).await?;
        let signer = match &spec.webhook.signature {
            Some(signature) => Some(signer(&mut reader, signature).await?),
            None => None,
        };
        let (tokens, token_service) = self.tokens(&mut reader, namespace, spec, &token_url).await?;
        check(&http, &url, "webhook.url").await?;
        let target = Target {
            encoding: encoding(spec),
            headers,
            timeout: seconds(spec.webhook.timeout_seconds),
            http,
            tokens,
            rules: rules(spec),
            token_doubt: TokenDoubt::default(),
            signer,
            origin: self.origin.clone(),
            url,
        };
        Ok((target, ExpiryTimes { webhook_certificate, ..token_service }))
    }

    async fn tokens(
        &self,
        reader: &mut ObjectReader<'_>,
        namespace: &str,
        spec: &SubscriberSpec,
        url: &Url,
    ) -> Result<(Arc<oauth::TokenSource>, ExpiryTimes), Unresolved> {
        let service = &spec.token_service;
        check_parameters(service.parameters.keys())?;
        check_resources(service)?;
        let client =
            client_authentication::read(reader, &self.accounts, service).await.map_err(Unresolved::of_credentials)?;
        let ReadClient { credentials, secret_uid, secret_keys, expires } = client;
        let EndpointClient { http, trust, certificate_expires } = self
            .endpoint_client(reader, namespace, service.tls.as_ref(), "tokenService", purposes_of_certificate(service))
            .await?;
        let headers = headers::read(reader, &service.headers, Purpose::TokenService).await?;
        check(&http, url, "tokenService.url").await?;
        let key = TokenKey {
            namespace: namespace.into(),
            secret_uid,
            credentials: credentials.fingerprint(),
            authentication: credentials.method(),
            secret_keys,
            url: url.as_str().into(),
            client_id: credentials.client_id.clone(),
            scopes: service.scopes.clone(),
            audience: service.audience.clone(),
            resources: service.resources.clone(),
            parameters: service.parameters.clone(),
            headers: CredentialsFingerprint::of_headers(&headers),
            timeout: seconds(service.timeout_seconds),
            trust,
        };
        let tokens = self.tokens.source(key, || request(service, url, credentials, headers, http));
        let of_certificate = ExpiryTimes { token_service_certificate: certificate_expires, ..ExpiryTimes::default() };
        Ok((tokens, ExpiryTimes { credentials: expires, ..of_certificate }))
    }

    /// The HTTP client for one endpoint. `purposes`: the endpoints that the Secret of a client certificate must allow.
    async fn endpoint_client(
        &self,
        reader: &mut ObjectReader<'_>,
        namespace: &str,
        tls: Option<&Tls>,
        field: &str,
        purposes: &[Purpose],
    ) -> Result<EndpointClient, Unresolved> {
        let mut trust = Trust::default();
        let (mut roots, mut identity) = (String::new(), String::new());
        check_roots(tls, field)?;
        if let Some(reference) = tls.and_then(|tls| tls.ca_ref.as_ref()) {
            let bundle = reader.ca_bundle(reference).await?.into_owned();
            trust.authorities = match tls.map(|tls| tls.public_roots) {
                Some(PublicRoots::Exclude) => Authorities::Only(bundle),
                _ => Authorities::PublicAnd(bundle),
            };
            roots = format!("{} {}, key {}, for {field}.tls.caRef", reference.kind, reference.name, reference.key);
        }
        if let Some(reference) = tls.and_then(|tls| tls.client_certificate_secret_ref.as_ref()) {
            trust.identity = Some(reader.client_identity(reference, purposes).await?);
            identity = format!("Secret {}, for {field}.tls.clientCertificateSecretRef", reference.name);
        }
        let client = self.egress.client(namespace, &trust).map_err(|error| {
            let (reason, of) = match error {
                TrustError::Roots(_) => (SubscriberReason::InvalidTrustBundle, roots),
                TrustError::Identity(_) | TrustError::Unsupported => (SubscriberReason::InvalidSecret, identity),
            };
            Unresolved::permanent(reason, format!("{of}: {error}"))
        })?;
        let certificate_expires = trust.identity.as_ref().and_then(ClientIdentity::expires);
        Ok(EndpointClient { http: client, trust: trust.fingerprint(), certificate_expires })
    }
}

/// Checks again what the API server has validated: without the public certificate authorities, there are others to
/// trust.
fn check_roots(tls: Option<&Tls>, field: &str) -> Result<(), Unresolved> {
    match tls {
        Some(Tls { public_roots: PublicRoots::Exclude, ca_ref: None, .. }) => {
            let fault = "publicRoots Exclude requires caRef: set caRef or set publicRoots to Include";
            Err(Unresolved::permanent(SubscriberReason::InvalidSpec, format!("{field}.tls: {fault}")))
        }
        _ => Ok(()),
    }
}

/// The token request for this token service.
fn request(
    service: &TokenService,
    url: &Url,
    credentials: Credentials,
    headers: HeaderMap,
    http: Arc<egress::Client>,
) -> TokenRequest {
    TokenRequest {
        url: url.clone(),
        credentials,
        scopes: service.scopes.clone(),
        audience: service.audience.clone(),
        resources: service.resources.clone(),
        parameters: service.parameters.clone(),
        headers,
        timeout: seconds(service.timeout_seconds),
        http,
    }
}

/// The signer with the keys that the spec names.
async fn signer(reader: &mut ObjectReader<'_>, signature: &Signature) -> Result<Signer, Unresolved> {
    let Signature { secret_ref, previous_secret_ref } = signature;
    let current = reader.signing_key(secret_ref, "webhook.signature.secretRef").await?;
    let previous = match previous_secret_ref {
        Some(previous) if previous == secret_ref => {
            let message = "webhook.signature.previousSecretRef: names the same key as secretRef: name the key that is being replaced, or remove previousSecretRef";
            return Err(Unresolved::permanent(SubscriberReason::InvalidSpec, message));
        }
        Some(previous) => Some(reader.signing_key(previous, "webhook.signature.previousSecretRef").await?),
        None => None,
    };
    Ok(Signer::new(current, previous))
}

/// Checks an endpoint against the egress policy. A name that does not resolve now is accepted: it may resolve when it
/// is used.
async fn check(client: &egress::Client, url: &Url, field: &str) -> Result<(), Unresolved> {
    match client.check(url).await {
        Err(error @ SendError::Denied) => {
            Err(Unresolved::permanent(SubscriberReason::EgressDenied, format!("{field}: {error}")))
        }
        _ => Ok(()),
    }
}

/// Parses a URL. The API server has validated the text, but this parser may be stricter.
fn parse(url: &HttpsUrl, field: &str) -> Result<Url, Unresolved> {
    egress::endpoint(&url.0)
        .map_err(|fault| Unresolved::permanent(SubscriberReason::InvalidSpec, format!("{field}: {fault}")))
}

/// Checks the names again that the API server has validated. No other check prevents a reserved parameter from being
/// sent in addition to the operator's own.
fn check_parameters<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<(), Unresolved> {
    let fault = names.find_map(|name| token_parameter_fault(name));
    fault.map_or(Ok(()), |fault| {
        Err(Unresolved::permanent(SubscriberReason::InvalidSpec, format!("tokenService.parameters: {fault}")))
    })
}

fn rules(spec: &SubscriberSpec) -> ResponseRules {
    let action = |action| match action {
        ResponseAction::Deliver => Consequence::Deliver,
        ResponseAction::Retry => Consequence::Retry,
        ResponseAction::Fail => Consequence::Fail,
        ResponseAction::RenewToken => Consequence::RenewToken,
    };
    let rules = spec.webhook.responses.iter().map(|rule| (rule.code, action(rule.action)));
    ResponseRules::new(rules, spec.delivery.on_rejection == OnRejection::Fail)
}

/// Checks the resources again that the API server has validated.
fn check_resources(service: &TokenService) -> Result<(), Unresolved> {
    let fault = service.resources.iter().find_map(|resource| resource_fault(resource));
    let is_both = || {
        let is_given = service.parameters.keys().any(|name| name.eq_ignore_ascii_case("resource"));
        let both = "set resources or the parameter resource, but not both: move the parameter into resources";
        (is_given && !service.resources.is_empty()).then_some(both)
    };
    fault.or_else(is_both).map_or(Ok(()), |fault| {
        Err(Unresolved::permanent(SubscriberReason::InvalidSpec, format!("tokenService.resources: {fault}")))
    })
}

fn encoding(spec: &SubscriberSpec) -> Encoding {
    match (spec.webhook.content_mode, spec.webhook.content_type) {
        (ContentMode::Binary, _) => Encoding::Binary,
        (ContentMode::Structured, Some(ContentType::Json)) => Encoding::Structured("application/json"),
        (ContentMode::Structured, _) => Encoding::Structured(Encoding::CLOUDEVENTS_JSON),
    }
}

#[cfg(test)]
mod tests {
    use tidings_api::{CaKind, CaRef};

    use super::*;

    #[test]
    fn no_authority_to_trust_is_an_invalid_spec_even_if_the_api_server_did_not_refuse_it() {
        let bundle = CaRef { kind: CaKind::ConfigMap, name: "corp-ca".into(), key: "ca.crt".into() };
        let tls = |public_roots, ca_ref| Tls { ca_ref, public_roots, client_certificate_secret_ref: None };
        for sound in [
            None,
            Some(tls(PublicRoots::Include, None)),
            Some(tls(PublicRoots::Include, Some(bundle.clone()))),
            Some(tls(PublicRoots::Exclude, Some(bundle))),
        ] {
            assert!(check_roots(sound.as_ref(), "webhook").is_ok());
        }
        let Err(Unresolved::Subscriber { reason, message, .. }) =
            check_roots(Some(&tls(PublicRoots::Exclude, None)), "tokenService")
        else {
            panic!("a Subscriber that trusts no authority was accepted");
        };
        assert_eq!(reason, SubscriberReason::InvalidSpec);
        assert!(message.starts_with("tokenService.tls: publicRoots Exclude requires caRef"), "{message}");
    }

    #[test]
    fn resources_that_the_api_server_did_not_refuse_are_an_invalid_spec() {
        let check = |resource: &str, parameter: &str| {
            let service = serde_json::json!({
                "url": "https://login.example.com/", "resources": [resource], "parameters": {parameter: "urn:b"},
            });
            check_resources(&serde_json::from_value(service).unwrap())
        };
        assert!(check("urn:a", "realm").is_ok());
        for (resource, parameter, says) in
            [("urn:a#b", "realm", "fragment"), ("a", "realm", "absolute URI"), ("urn:a", "Resource", "not both")]
        {
            let Err(Unresolved::Subscriber { reason, message, .. }) = check(resource, parameter) else {
                panic!("{resource} and {parameter} were accepted");
            };
            assert_eq!(reason, SubscriberReason::InvalidSpec);
            assert!(message.starts_with("tokenService.resources: ") && message.contains(says), "{message}");
        }
    }

    #[test]
    fn a_reserved_parameter_that_the_api_server_did_not_refuse_is_an_invalid_spec() {
        let names =
            |names: &[&str]| check_parameters(names.iter().map(|name| name.to_string()).collect::<Vec<_>>().iter());
        assert!(names(&["authorization_details", "resource"]).is_ok());
        let Err(Unresolved::Subscriber { reason, message, of_credentials }) = names(&["resource", "Scope"]) else {
            panic!("the parameter Scope was accepted");
        };
        assert_eq!((reason, of_credentials), (SubscriberReason::InvalidSpec, false));
        assert!(
            message.starts_with("tokenService.parameters: ") && message.contains("tokenService.scopes"),
            "{message}"
        );
    }
}
