//! Clients without any stored secret: tokens of a ServiceAccount authenticate them at the token service, which has the
//! API server review each token.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use testkit::{Client, endpoints::AuthMethod};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::render_chart,
    delivery::keys,
    world::{PATIENCE, World, condition, path},
};

/// The audience of the tokens in these tests: an audience may be a URL.
pub const AUDIENCE: &str = "https://login.acme.example/realms/shop";
/// The annotation by which a ServiceAccount consents.
pub const ANNOTATION: &str = "tidings.dev/allowed-token-requests";

/// Installs the chart once more, for an operator that may create tokens of these ServiceAccounts.
pub async fn grant(world: &World, accounts: &[&str]) {
    let namespace = &world.namespace;
    let watched = format!("watchNamespaces={{{namespace}}}");
    let accounts = format!("serviceAccountTokens.{namespace}={{{}}}", accounts.join(","));
    let args = ["--set", &watched, "--set", "crds.install=false", "--set", &accounts];
    let chart = render_chart(namespace, &args).unwrap();
    world.plane.admin().apply(&chart, &[]).await.unwrap();
}

/// A ServiceAccount with these annotations.
pub fn account(name: &str, annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "annotations": annotations}})
}

/// The entry that allows tokens for this audience to be sent to the token service of a world.
pub fn entry(world: &World, audience: &str) -> String {
    format!("{audience} {}", world.tokens.address())
}

/// Makes the token service of a spec one that knows the client by the tokens of this ServiceAccount.
pub fn by_account(spec: &mut Value, name: &str, audience: &str) {
    let service = &mut spec["tokenService"];
    service.as_object_mut().unwrap().remove("credentialsSecretRef");
    service["clientAuthentication"] = "ServiceAccountToken".into();
    service["clientID"] = "shop".into();
    service["serviceAccountToken"] = json!({"name": name, "audience": audience});
    spec["abuseProtection"] = json!({"policy": "Disabled"});
}

/// Registers the client `shop`: the ServiceAccount `robot` of the world's namespace.
pub fn register(world: &World) {
    let username = format!("system:serviceaccount:{}:robot", world.namespace);
    let client = Client::with_service_account("shop", world.plane.admin(), AUDIENCE, &username);
    world.tokens.register(client.scopes(["events.write", "one", "two"]));
}

/// Requests a reconcile, because no watch reports a change of a ServiceAccount or of a Role.
async fn look_again(world: &World, subscriber: &str) {
    static REQUESTS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(1);
    let number = REQUESTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let request = format!("tidings.dev/reconcile-requested-at={number}");
    world.kubectl(&["annotate", "subr", subscriber, &request, "--overwrite"]).await.ok().unwrap();
}

/// Waits until a Subscriber is not ready for this reason, with a message that has each of these parts.
async fn refused(world: &World, subscriber: &str, reason: &str, parts: &[&str]) {
    let says = |s: &Value| {
        let ready = condition(s, "Ready");
        let message = ready["message"].as_str().unwrap_or_default();
        ready["reason"] == reason && parts.iter().all(|part| message.contains(part))
    };
    let object = world.until("subscriber", subscriber, says).await;
    assert_eq!(condition(&object, "TokenAvailable")["reason"], reason, "{subscriber}");
    let action = if reason == "ServiceAccountNotFound" { "Reconciling" } else { "Stalled" };
    assert_eq!(condition(&object, action)["status"], "True", "{subscriber}");
}

/// The tokens of ServiceAccounts that the operator has requested, including refused requests.
async fn token_requests(world: &World, code: u16) -> usize {
    let operator = format!("system:serviceaccount:{0}:tidings", world.namespace);
    let audit = world.plane.audit().await.unwrap();
    let of_operator = audit.iter().filter(|event| event.user == operator && event.code == code);
    of_operator.filter(|event| event.is_write_to("serviceaccounts", "token", &world.namespace)).count()
}

/// Has an admission policy change the TokenRequests in the namespace that meet the expression `of`, and waits until a request by
/// `kubectl create token` with these arguments yields a token that has the audience `yields`.
async fn change_requests(world: &World, of: &str, expression: &str, args: &[&str], yields: &str) {
    let name = &world.namespace;
    let resource = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["serviceaccounts/token"],
    });
    let api = "admissionregistration.k8s.io/v1";
    let conditions = json!([{"name": "ours", "expression": format!("request.namespace == '{name}' && ({of})")}]);
    let policy = json!({
        "apiVersion": api, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [resource]}, "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConditions": conditions,
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        },
    });
    let binding = json!({
        "apiVersion": api, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name},
    });
    world.plane.admin().apply(&format!("{policy}\n{binding}"), &[]).await.unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        let token = world.kubectl(&[&["create", "token", "robot"], args].concat()).await.ok().unwrap();
        let audiences = keys::parts(token.trim()).claims["aud"].clone();
        if audiences.as_array().unwrap().contains(&yields.into()) {
            break;
        }
        assert!(Instant::now() < end, "the policy has no effect: {audiences}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Removes the policy of [`change_requests`].
async fn change_no_requests(world: &World) {
    for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
        world.kubectl(&["delete", kind, &world.namespace]).await.ok().unwrap();
    }
}

#[tokio::test]
async fn the_api_server_itself_reviews_each_token_and_each_token_request_has_a_new_one() {
    let world = World::new("accounts").await;
    register(&world);
    // One leads, the other is on standby.
    let _operators = (world.replica().await, world.replica().await);
    world.subscriber("shop", |spec| by_account(spec, "robot", AUDIENCE)).await;
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;

    // The chart grants nothing unless its value says so.
    let value = format!("serviceAccountTokens.{}", world.namespace);
    refused(&world, "shop", "TokenRequestDenied", &["may not read ServiceAccount robot", &value]).await;
    let rule =
        json!({"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["robot"], "verbs": ["get"]});
    let rbac =
        |kind: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "get"}});
    let (mut role, mut binding) = (rbac("Role"), rbac("RoleBinding"));
    role["rules"] = json!([rule]);
    binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "get"});
    binding["subjects"] = json!([{"kind": "ServiceAccount", "name": "tidings", "namespace": world.namespace}]);
    world.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [role, binding]})).await;
    look_again(&world, "shop").await;
    refused(&world, "shop", "ServiceAccountNotFound", &["ServiceAccount robot", "create the ServiceAccount"]).await;

    // The ServiceAccount must consent to this audience at this host.
    let entry = entry(&world, AUDIENCE);
    let elsewhere = format!("{AUDIENCE} login.acme.example");
    let other = format!("https://other.example {}", world.tokens.address());
    let both = format!("{elsewhere},{other}");
    for annotations in
        [json!({}), json!({ANNOTATION: elsewhere}), json!({ANNOTATION: other}), json!({ANNOTATION: both})]
    {
        world.apply(&account("robot", &annotations)).await;
        look_again(&world, "shop").await;
        let must = format!("add the entry \"{entry}\" to its annotation {ANNOTATION}");
        refused(&world, "shop", "ServiceAccountNotPermitted", &["ServiceAccount robot", &must]).await;
    }
    assert_eq!((token_requests(&world, 403).await, token_requests(&world, 201).await), (0, 0), "without consent");
    world.apply(&account("robot", &json!({ANNOTATION: format!("{elsewhere}, {entry}")}))).await;
    look_again(&world, "shop").await;
    refused(&world, "shop", "TokenRequestDenied", &["may not create tokens of ServiceAccount robot", &value]).await;
    assert!(world.tokens.requests().is_empty() && world.receiver.requests().is_empty(), "no connection");

    grant(&world, &["robot"]).await;
    world.until_phase("n", "Delivered").await;
    for scope in ["one", "two"] {
        world
            .subscriber("shop", |spec| {
                by_account(spec, "robot", AUDIENCE);
                spec["tokenService"]["scopes"] = json!([scope]);
                spec["tokenService"]["serviceAccountToken"]["expirationSeconds"] = 900.into();
            })
            .await;
        let is_asked = |s: &Value| {
            s["metadata"]["generation"] == s["status"]["observedGeneration"]
                && condition(s, "Ready")["reason"] == "Operational"
        };
        world.until("subscriber", "shop", is_asked).await;
    }
    let requests = world.tokens.requests();
    assert_eq!(requests.len(), 3);
    let mut ids = BTreeSet::new();
    for (request, life) in requests.iter().zip([600, 900, 900]) {
        assert_eq!((request.authentication, request.answered), (Some(AuthMethod::Assertion), Some(200)));
        let names: Vec<_> = request.fields.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["grant_type", "scope", "client_id", "client_assertion_type", "client_assertion"]);
        assert!(!request.headers.contains_key("authorization"));
        let claims = keys::parts(request.fields.get("client_assertion").unwrap()).claims;
        assert_eq!(claims["aud"], json!([AUDIENCE]));
        assert_eq!(claims["sub"], format!("system:serviceaccount:{}:robot", world.namespace));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), life);
        assert!(ids.insert(claims["jti"].as_str().unwrap().to_owned()), "{claims} is not new");
    }
    // One more, from which the operator learned the audiences of the API server. The standby requested none.
    assert_eq!(token_requests(&world, 201).await, requests.len() + 1);
}

#[tokio::test]
async fn s27_an_audience_of_the_api_server_is_refused_whatever_the_service_account_allows() {
    let world = World::new("own-audience").await;
    grant(&world, &["robot"]).await;
    world.apply(&account("robot", &json!({}))).await;
    let own = world.kubectl(&["create", "token", "robot"]).await.ok().unwrap();
    let own = keys::parts(own.trim()).claims["aud"].as_array().unwrap().clone();
    assert!(!own.is_empty());
    let own: Vec<_> = own.iter().map(|audience| audience.as_str().unwrap()).collect();
    let list: Vec<_> = own.iter().map(|audience| entry(&world, audience)).collect();
    let _operator = world.operator().await;
    for (number, audience) in own.iter().enumerate() {
        let name = format!("shop-{number}");
        world.apply(&account("robot", &json!({}))).await;
        world.subscriber(&name, |spec| by_account(spec, "robot", audience)).await;
        refused(&world, &name, "ServiceAccountNotPermitted", &[audience]).await;
        world.apply(&account("robot", &json!({ANNOTATION: list.join(",")}))).await;
        look_again(&world, &name).await;
        let parts = ["tokenService.serviceAccountToken.audience", audience, "set the audience that the token service"];
        refused(&world, &name, "InvalidSpec", &parts).await;
    }
    assert!(world.tokens.requests().is_empty(), "a token was sent");
    assert_eq!(token_requests(&world, 201).await, 1, "only to learn the audiences");
}

#[tokio::test]
async fn s27_consent_that_is_withdrawn_stops_the_next_token_and_another_account_of_the_name_is_another() {
    let world = World::new("withdrawn").await;
    register(&world);
    grant(&world, &["robot"]).await;
    let consent = json!({ANNOTATION: entry(&world, AUDIENCE)});
    world.apply(&account("robot", &consent)).await;
    let _operator = world.operator().await;
    world.subscriber("shop", |spec| by_account(spec, "robot", AUDIENCE)).await;
    world.until_reason("shop", "Operational").await;
    assert_eq!(world.tokens.requests().len(), 1);

    world.apply(&account("robot", &json!({ANNOTATION: ""}))).await;
    world.tokens.tokens().revoke_all();
    // The webhook rejects the token, so the operator needs another one.
    world.notification("n", "shop", json!({"source": "/s", "type": "t"})).await;
    refused(&world, "shop", "ServiceAccountNotPermitted", &["ServiceAccount robot"]).await;
    assert_eq!(world.tokens.requests().len(), 1, "a token was requested");

    world.kubectl(&["delete", "serviceaccount", "robot"]).await.ok().unwrap();
    look_again(&world, "shop").await;
    refused(&world, "shop", "ServiceAccountNotFound", &["ServiceAccount robot"]).await;
    world.apply(&account("robot", &consent)).await;
    look_again(&world, "shop").await;
    world.until_phase("n", "Delivered").await;
    let subjects = world.tokens.requests();
    let uid = |n: usize| {
        let claims = keys::parts(subjects[n].fields.get("client_assertion").unwrap()).claims;
        claims["kubernetes.io"]["serviceaccount"]["uid"].clone()
    };
    assert_eq!(subjects.len(), 2);
    assert_ne!(uid(0), uid(1));
    let posts = world.posts(&path("shop"));
    assert_eq!(posts.last().unwrap().answered, Some(204));
}

#[tokio::test]
async fn s27_consent_to_the_webhook_that_is_withdrawn_stops_events_although_the_token_serves() {
    let world = World::new("webhook-withdrawn").await;
    register(&world);
    grant(&world, &["robot"]).await;
    let webhook = world.receiver.address().to_string();
    let tokens = entry(&world, AUDIENCE);
    let allowed = |hosts: &str| account("robot", &json!({ANNOTATION: tokens, "tidings.dev/allowed-hosts": hosts}));
    world.apply(&allowed(&webhook)).await;
    let _operator = world.start(&["--egress-allow-cidr", "127.0.0.0/8", "--require-secret-consent"]).await;
    world.subscriber("shop", |spec| by_account(spec, "robot", AUDIENCE)).await;
    world.notification("before", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until_phase("before", "Delivered").await;

    world.apply(&allowed("hooks.acme.example")).await;
    look_again(&world, "shop").await;
    let must = format!("must add {webhook} to its annotation tidings.dev/allowed-hosts");
    refused(&world, "shop", "ServiceAccountNotPermitted", &["ServiceAccount robot", &must]).await;
    world.notification("after", "shop", json!({"source": "/s", "type": "t"})).await;
    world.until("notification", "after", |n| n["status"]["reason"] == "SubscriberNotReady").await;
    assert_eq!(world.posts(&path("shop")).len(), 1);
    world.apply(&allowed(&webhook)).await;
    look_again(&world, "shop").await;
    world.until_phase("after", "Delivered").await;
    assert_eq!(world.tokens.requests().len(), 1, "the token was valid all the time");
}

#[tokio::test]
async fn s27_a_token_whose_audiences_an_admission_policy_changed_is_not_sent() {
    let world = World::new("changed-audience").await;
    register(&world);
    grant(&world, &["robot"]).await;
    world.apply(&account("robot", &json!({ANNOTATION: entry(&world, AUDIENCE)}))).await;
    let of = format!("object.spec.audiences == ['{AUDIENCE}']");
    let add = "[JSONPatch{op: 'add', path: '/spec/audiences/-', value: 'https://more.example'}]";
    change_requests(&world, &of, add, &[&format!("--audience={AUDIENCE}")], "https://more.example").await;
    let _operator = world.operator().await;
    world.subscriber("shop", |spec| by_account(spec, "robot", AUDIENCE)).await;
    let says = |s: &Value| {
        let token = condition(s, "TokenAvailable");
        token["reason"] == "TokenUnavailable" && token["message"].as_str().unwrap().contains("other audiences")
    };
    world.until("subscriber", "shop", says).await;
    assert!(world.tokens.requests().is_empty(), "the token was sent");
    change_no_requests(&world).await;
    world.until_reason("shop", "Operational").await;
}

#[tokio::test]
async fn s27_an_admission_policy_that_adds_an_audience_hides_no_audience_of_the_api_server() {
    let world = World::new("hidden-audience").await;
    grant(&world, &["robot"]).await;
    world.apply(&account("robot", &json!({}))).await;
    let own = world.kubectl(&["create", "token", "robot"]).await.ok().unwrap();
    let issuer = keys::parts(own.trim()).claims["iss"].as_str().unwrap().to_owned();
    let fill = "[JSONPatch{op: 'add', path: '/spec/audiences', value: ['https://filled.example']}]";
    change_requests(
        &world,
        "!has(object.spec.audiences) || object.spec.audiences == null || object.spec.audiences == []",
        fill,
        &[],
        "https://filled.example",
    )
    .await;
    let audiences = [issuer.as_str(), "https://filled.example", "https://kubernetes.default.svc"];
    let list = audiences.map(|audience| entry(&world, audience)).join(",");
    world.apply(&account("robot", &json!({ANNOTATION: list}))).await;
    let _operator = world.operator().await;
    for (number, audience) in audiences.iter().enumerate() {
        let name = format!("shop-{number}");
        world.subscriber(&name, |spec| by_account(spec, "robot", audience)).await;
        refused(&world, &name, "InvalidSpec", &["tokenService.serviceAccountToken.audience", audience]).await;
    }
    assert!(world.tokens.requests().is_empty(), "a token was sent");
    change_no_requests(&world).await;
}
