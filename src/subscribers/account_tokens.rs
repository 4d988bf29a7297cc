//! Client assertions that the API server issues: tokens of ServiceAccounts that allow that.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client, api::ObjectMeta};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tidings_api::{ServiceAccountToken, SubscriberReason as Reason, TOKEN_REQUEST_ANNOTATION};
use tidings_delivery::oauth::{AssertionProvider, IssuedAssertions, NoAssertion};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use url::Url;

use super::{
    consent::{self, Purpose},
    object_name::is_object_name,
    secrets::Endpoints,
    unresolved::Unresolved,
};
use crate::cluster::{
    SingleTry,
    call::{API_TIMEOUT, is_not_found, plain},
    token_request::{IssuedToken, request_token},
};

/// How long the operator relies on the audiences of the API server that it has learned.
const OWN_AUDIENCES_FOR: Duration = Duration::from_secs(10 * 60);
/// The shortest time for which the API server issues a token, in seconds.
const SHORTEST: u32 = 600;

/// The audiences that API servers accept by default, refused in every cluster.
const DEFAULT_AUDIENCES: [&str; 3] =
    ["https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local", "kubernetes.default.svc"];

/// Requests tokens of ServiceAccounts. All Subscribers share it.
pub(super) struct AccountTokens {
    /// Reads ServiceAccounts.
    reader: Client,
    /// Requests tokens.
    writer: SingleTry,
    /// What the API server accepts itself, and until when that is relied on. Locked while it is requested, so that one
    /// request serves all; each caller has a time limit.
    own_audiences: Mutex<Option<(Vec<String>, Instant)>>,
}

/// The ServiceAccount of a Subscriber, and its tokens.
pub(super) struct AccountClient {
    /// The uid of the ServiceAccount.
    pub(super) uid: String,
    /// The assertions of the client.
    pub(super) assertions: IssuedAssertions,
}

/// Requests the tokens of one ServiceAccount for one token service.
struct Provider {
    tokens: Arc<AccountTokens>,
    namespace: String,
    settings: ServiceAccountToken,
    uid: String,
    token_service: Url,
}

impl AccountTokens {
    /// Reads ServiceAccounts with `reader`, and requests tokens with `writer`.
    pub(super) fn new(reader: Client, writer: SingleTry) -> Self {
        Self { reader, writer, own_audiences: Mutex::default() }
    }

    /// Reads the ServiceAccount, and checks that it allows its tokens to be sent to the token service. With
    /// `require_consent`, it must also allow the webhook, which receives the tokens obtained with its own.
    pub(super) async fn client(
        self: &Arc<Self>,
        namespace: &str,
        settings: &ServiceAccountToken,
        endpoints: Endpoints<'_>,
        require_consent: bool,
    ) -> Result<AccountClient, Unresolved> {
        let name = &settings.name;
        if !is_object_name(name) {
            let fault = "not a valid object name: correct the name";
            return Err(invalid(&format!("name: {name:.64}: {fault}")));
        }
        let read = timeout(API_TIMEOUT, self.account(namespace, name)).await;
        let account = read.map_err(|_elapsed| Unresolved::ApiTimeout)??;
        let annotations = account.annotations.unwrap_or_default();
        check_token_service(&annotations, settings, endpoints.token_service)?;
        if require_consent {
            check_webhook(&annotations, name, endpoints.webhook)?;
        }
        let uid = account.uid.unwrap_or_default();
        let seconds = settings.expiration_seconds.to_string();
        let provider = Provider {
            tokens: self.clone(),
            namespace: namespace.to_owned(),
            settings: settings.clone(),
            uid: uid.clone(),
            token_service: endpoints.token_service.clone(),
        };
        let identity = [namespace, &uid, &settings.audience, &seconds];
        let assertions = IssuedAssertions::new(Arc::new(provider), &identity);
        Ok(AccountClient { uid, assertions })
    }

    /// Reads the metadata of a ServiceAccount. The operator has no permission to watch ServiceAccounts.
    async fn account(&self, namespace: &str, name: &str) -> Result<ObjectMeta, Unresolved> {
        let api = Api::<ServiceAccount>::namespaced(self.reader.clone(), namespace);
        let read = api.get_metadata(name).await;
        Ok(read.map_err(|error| refused(error, namespace, name, "read", ""))?.metadata)
    }

    async fn request(
        &self,
        namespace: &str,
        name: &str,
        audience: Option<&str>,
        seconds: u32,
    ) -> Result<IssuedToken, Unresolved> {
        let issued = request_token(&self.writer, (namespace, name), audience, seconds).await;
        issued.map_err(|error| {
            // An admission policy may require an audience, and only its message says so.
            let also = audience.map_or_else(
                || {
                    format!(
                        "; the API server must also allow a token request without an audience, from which the operator learns the audiences that the API server accepts itself; it said: {}",
                        plain(&error)
                    )
                },
                |_| String::new(),
            );
            refused(error, namespace, name, "create tokens of", &also)
        })
    }

    /// Refuses an audience that the API server accepts itself: a token for it is a credential of this cluster.
    async fn check_audience(&self, namespace: &str, settings: &ServiceAccountToken) -> Result<(), Unresolved> {
        let mut own = self.own_audiences.lock().await;
        let now = Instant::now();
        if own.as_ref().is_none_or(|(_, until)| *until <= now) {
            // The API server adds its own audiences where a request names none.
            let (audiences, token) = self.request(namespace, &settings.name, None, SHORTEST).await?.into_parts();
            *own = Some((own_audiences(audiences, &token), now + OWN_AUDIENCES_FOR));
        }
        check_own(own.as_ref().map_or(&[][..], |(audiences, _)| audiences), &settings.audience)
    }
}

impl Provider {
    /// Requests a token. Checks the consent of the ServiceAccount again, so that its withdrawal has effect at once.
    async fn token(&self) -> Result<SecretString, Unresolved> {
        let (tokens, namespace, settings) = (&self.tokens, &self.namespace, &self.settings);
        let name = &settings.name;
        let account = tokens.account(namespace, name).await?;
        if account.uid.unwrap_or_default() != self.uid {
            let message = format!("ServiceAccount {name} was deleted and created again");
            return Err(Unresolved::permanent(Reason::TokenUnavailable, message));
        }
        check_token_service(&account.annotations.unwrap_or_default(), settings, &self.token_service)?;
        tokens.check_audience(namespace, settings).await?;
        let audience = &settings.audience;
        let issued = tokens.request(namespace, name, Some(audience), settings.expiration_seconds).await?;
        let (audiences, token) = issued.into_parts();
        check_issued(&audiences, token, audience)
    }
}

impl AssertionProvider for Provider {
    fn assertion(&self) -> BoxFuture<'_, Result<SecretString, NoAssertion>> {
        async {
            let token = timeout(API_TIMEOUT, self.token()).await;
            token.unwrap_or(Err(Unresolved::ApiTimeout)).map_err(|error| no_assertion(error, &self.settings.name))
        }
        .boxed()
    }
}

/// A request to the API server that failed is repeated.
fn no_assertion(error: Unresolved, name: &str) -> NoAssertion {
    match error {
        Unresolved::Subscriber { reason, message, .. } => NoAssertion { reason, message },
        error @ (Unresolved::ApiTimeout | Unresolved::Api(_)) => NoAssertion {
            reason: Reason::TokenUnavailable,
            message: format!("there is no token of ServiceAccount {name}: {error}"),
        },
    }
}

/// Checks that a ServiceAccount with these annotations allows its tokens to be sent to this token service.
fn check_token_service(
    annotations: &BTreeMap<String, String>,
    settings: &ServiceAccountToken,
    url: &Url,
) -> Result<(), Unresolved> {
    let ServiceAccountToken { name, audience, .. } = settings;
    if consent::allows_token_request(annotations, audience, url) {
        return Ok(());
    }
    let entry = consent::entry(url);
    Err(Unresolved::permanent(
        Reason::ServiceAccountNotPermitted,
        format!(
            "tokens of ServiceAccount {name} for the audience {audience} may not be sent to {entry} (tokenService.url): the owner of the ServiceAccount must add the entry \"{audience} {entry}\" to its annotation {TOKEN_REQUEST_ANNOTATION} (comma-separated)"
        ),
    ))
}

/// Checks that a ServiceAccount with these annotations allows the webhook to receive the tokens obtained with its own.
fn check_webhook(annotations: &BTreeMap<String, String>, name: &str, url: &Url) -> Result<(), Unresolved> {
    consent::check(annotations, Purpose::Webhook, url).map_err(|annotation| {
        let entry = consent::entry(url);
        Unresolved::permanent(
            Reason::ServiceAccountNotPermitted,
            format!(
                "tokens that are obtained with ServiceAccount {name} may not be sent to {entry} (webhook.url): the owner of the ServiceAccount must add {entry} to its annotation {annotation} (comma-separated)"
            ),
        )
    })
}

/// All audiences that the API server accepts itself, by its response to a request without an audience: `audiences`, and
/// the issuer and the audiences in the token, because an admission policy may have put others into the request. Empty if
/// the response names none, or the token is not a JWT (RFC 7519) with an issuer.
fn own_audiences(mut audiences: Vec<String>, token: &SecretString) -> Vec<String> {
    let Some(ReadClaims { iss, aud }) = claims(token) else { return Vec::new() };
    if !audiences.is_empty() {
        audiences.push(iss);
        audiences.extend(match aud {
            Audiences::One(audience) => vec![audience],
            Audiences::Many(audiences) => audiences,
        });
    }
    audiences
}

/// The claims that are read of a token.
#[derive(Deserialize)]
struct ReadClaims {
    iss: String,
    aud: Audiences,
}

/// One audience or several (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

/// Reads the claims of a token. Does not verify the token: it comes from the API server itself.
fn claims(token: &SecretString) -> Option<ReadClaims> {
    let payload = token.expose_secret().split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// Refuses an audience that the API server accepts itself. `own`: all audiences that it accepts.
fn check_own(own: &[String], audience: &str) -> Result<(), Unresolved> {
    if own.is_empty() {
        let message = "the API server does not say which audiences it accepts itself";
        return Err(Unresolved::permanent(Reason::TokenUnavailable, message));
    }
    if own.iter().map(String::as_str).chain(DEFAULT_AUDIENCES).any(|own| own == audience) {
        return Err(invalid(&format!(
            "audience: the API server of this cluster accepts tokens for {audience} itself, so such a token may not leave the cluster: set the audience that the token service expects"
        )));
    }
    Ok(())
}

/// Checks that a token is for the requested audience and no other: an admission webhook may change the request.
fn check_issued(audiences: &[String], token: SecretString, audience: &str) -> Result<SecretString, Unresolved> {
    if audiences == [audience] && !token.expose_secret().is_empty() {
        return Ok(token);
    }
    let message = "the API server issued a token for other audiences than requested: check the admission webhooks for serviceaccounts/token";
    Err(Unresolved::permanent(Reason::TokenUnavailable, message))
}

fn invalid(fault: &str) -> Unresolved {
    Unresolved::permanent(Reason::InvalidSpec, format!("tokenService.serviceAccountToken.{fault}"))
}

/// Describes why the API server refused to `act` (for example, "read") on a ServiceAccount. `also` follows the advice.
fn refused(error: kube::Error, namespace: &str, name: &str, act: &str, also: &str) -> Unresolved {
    match error {
        kube::Error::Api(status) if is_not_found(&status) => Unresolved::permanent(
            Reason::ServiceAccountNotFound,
            format!("ServiceAccount {name} does not exist in this namespace: create the ServiceAccount"),
        ),
        kube::Error::Api(status) if status.code == 403 => Unresolved::permanent(
            Reason::TokenRequestDenied,
            format!(
                "the operator may not {act} ServiceAccount {name}: have an administrator add {name} to serviceAccountTokens.{namespace} in the values of the chart, or bind the operator to a Role with get on serviceaccounts and create on serviceaccounts/token for the resource name {name}{also}"
            ),
        ),
        error => Unresolved::Api(error),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn fault<T>(result: Result<T, Unresolved>) -> (Reason, String) {
        match result {
            Err(Unresolved::Subscriber { reason, message, .. }) => (reason, message),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("there is no fault"),
        }
    }

    #[test]
    fn s27_an_audience_of_the_api_server_is_refused_and_others_are_compared_exactly() {
        let own = texts(&["https://kubernetes.default.svc", "https://issuer.example.com"]);
        for audience in &own {
            let (reason, message) = fault(check_own(&own, audience));
            assert_eq!(reason, Reason::InvalidSpec);
            assert!(message.starts_with("tokenService.serviceAccountToken.audience: ") && message.contains(audience));
        }
        for audience in ["https://login.example.com", "https://issuer.example.com/", "https://Issuer.example.com"] {
            assert!(check_own(&own, audience).is_ok(), "{audience}");
        }
        for audience in DEFAULT_AUDIENCES {
            assert_eq!(fault(check_own(&texts(&["https://policy.example"]), audience)).0, Reason::InvalidSpec);
        }
        assert_eq!(fault(check_own(&[], "https://login.example.com")).0, Reason::TokenUnavailable);
    }

    #[test]
    fn s27_the_issuer_and_the_audiences_in_the_token_are_own_audiences_whatever_a_policy_put_into_the_request() {
        let token = |payload: &str| SecretString::from(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload)));
        let own = |audiences: &[&str], token: &SecretString| own_audiences(texts(audiences), token);
        let (one, many) =
            (token(r#"{"iss": "i", "aud": "b", "exp": 1}"#), token(r#"{"iss": "i", "aud": ["b", "c"], "sub": "s"}"#));
        assert_eq!(own(&["a"], &one), ["a", "i", "b"]);
        assert_eq!(own(&["a"], &many), ["a", "i", "b", "c"]);
        // Then nothing is known: check_own refuses every audience.
        assert!(own(&[], &many).is_empty());
        let unreadable = ["", "t", "a.b", "a.b.c", "e30.e30.c2ln"].map(SecretString::from);
        for token in unreadable.iter().chain([&token(r#"{"iss": 1, "aud": "b"}"#), &token(r#"{"iss": "i"}"#)]) {
            assert!(own(&["a"], token).is_empty());
        }
    }

    #[test]
    fn s27_a_token_for_other_audiences_than_requested_is_not_used() {
        let check = |audiences: &[&str], token: &str| check_issued(&texts(audiences), token.into(), "a");
        assert_eq!(check(&["a"], "t").unwrap().expose_secret(), "t");
        for (audiences, token) in [(&[][..], "t"), (&["b"], "t"), (&["a", "b"], "t"), (&["b", "a"], "t"), (&["a"], "")]
        {
            assert_eq!(fault(check(audiences, token)).0, Reason::TokenUnavailable, "{audiences:?}");
        }
    }

    #[test]
    fn a_refusal_of_the_api_server_names_the_object_and_what_to_do() {
        let of = |reason: &str, code| {
            let status = Status::failure("m", reason).with_code(code).boxed();
            refused(kube::Error::Api(status), "shop", "robot", "read", "; the API server says: m")
        };
        let (reason, message) = fault::<()>(Err(of("NotFound", 404)));
        assert!(reason == Reason::ServiceAccountNotFound && message.contains("ServiceAccount robot"), "{message}");
        let (reason, message) = fault::<()>(Err(of("Forbidden", 403)));
        assert_eq!(reason, Reason::TokenRequestDenied);
        for part in [
            "may not read ServiceAccount robot",
            "serviceAccountTokens.shop",
            "serviceaccounts/token",
            "; the API server says: m",
        ] {
            assert!(message.contains(part), "{message}");
        }
        // A proxy that does not find a path says nothing about the object.
        for (reason, code) in [("", 404), ("InternalError", 500), ("TooManyRequests", 429)] {
            let refused = of(reason, code);
            assert!(matches!(refused, Unresolved::Api(_)), "{reason} {code}");
            let NoAssertion { reason, message } = no_assertion(refused, "robot");
            assert_eq!(reason, Reason::TokenUnavailable, "it is temporary");
            assert!(message.contains("ServiceAccount robot") && message.contains("API server"), "{message}");
        }
        assert_eq!(no_assertion(of("Forbidden", 403), "robot").reason, Reason::TokenRequestDenied);
    }

    #[test]
    fn a_token_request_reply_is_read_without_its_other_fields() {
        let reply = json_reply(r#"{"audiences": ["a", "b"], "expirationSeconds": 600, "boundObjectRef": null}"#);
        let (audiences, token) = serde_json::from_str::<IssuedToken>(&reply).unwrap().into_parts();
        assert_eq!((audiences, token.expose_secret()), (texts(&["a", "b"]), "t"));
        let (audiences, _) = serde_json::from_str::<IssuedToken>(&json_reply("{}")).unwrap().into_parts();
        assert!(audiences.is_empty());
    }

    fn json_reply(spec: &str) -> String {
        format!(
            r#"{{"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {{"name": "robot"}},
            "spec": {spec}, "status": {{"token": "t", "expirationTimestamp": "2026-10-01T10:00:00Z"}}}}"#
        )
    }
}
