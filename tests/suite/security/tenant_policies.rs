//! The admission policies of the chart for shared clusters, as tenants of a namespace meet them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::control_plane::Output;

use super::secret_access::{Tenants, User};
use crate::{api::refusals::subscriber, cluster::render_chart};

/// The time within which the API server must enforce a new policy.
const ENFORCED_LIMIT: Duration = Duration::from_secs(60);

/// A tenant who may write Subscribers and get the Secret that they name.
async fn tenant(tenants: &Tenants) -> User<'_> {
    tenants.readers_of("oauth-reader", &["oauth".to_owned()]).await;
    tenants.user("tessa", Some("Role/oauth-reader")).await
}

/// Applies the policies that the chart renders with these values, for the namespace of the tenants alone. Waits until a
/// Subscriber that they refuse is refused.
async fn enforce(tenants: &Tenants, values: &[&str], refused: Value) -> Output {
    let namespace = &tenants.namespace;
    let selector =
        format!(r#"policies.namespaceSelector={{"matchLabels":{{"kubernetes.io/metadata.name":"{namespace}"}}}}"#);
    let name = format!("fullnameOverride={namespace}");
    let mut args = vec!["--show-only", "templates/policies.yaml", "--set-json", &selector, "--set", &name];
    args.extend(values.iter().flat_map(|value| ["--set", value]));
    let policies = render_chart(namespace, &args).unwrap();
    tenants.plane.admin().apply(&policies, &["--server-side"]).await.unwrap();
    let (user, end) = (tenant(tenants).await, Instant::now() + ENFORCED_LIMIT);
    loop {
        let answer = user.create("probe", refused.clone()).await;
        if !answer.success {
            return answer;
        }
        assert!(Instant::now() < end, "the policy is not enforced");
        tenants.plane.kubectl(&["delete", "subscriber", "probe", "-n", namespace]).await.unwrap().ok().unwrap();
    }
}

fn at(webhook: &str, token_service: &str) -> Value {
    subscriber(|spec| {
        spec["webhook"]["url"] = webhook.into();
        spec["tokenService"]["url"] = token_service.into();
    })
}

#[tokio::test]
async fn a_tenant_may_use_the_hosts_of_the_namespace_and_no_others() {
    let tenants = Tenants::new("allowed-hosts").await;
    let annotate = async |annotations: &[&str]| {
        let args = [&["annotate", "--overwrite", "namespace", tenants.namespace.as_str()], annotations].concat();
        tenants.plane.kubectl(&args).await.unwrap().ok().unwrap();
    };
    let values = ["policies.allowedHosts.enabled=true", "policies.allowedHosts.tokenServices={login.example.com}"];
    let refusal = enforce(&tenants, &values, at("https://hooks.example.com/", "https://login.example.com/")).await;
    let says = format!(
        "spec.webhook.url: namespace {} may not use the host hooks.example.com:443: have an administrator of the cluster add the host to the annotation tidings.dev/allowed-webhook-hosts of the namespace",
        tenants.namespace
    );
    assert!(refusal.stderr.contains(&says), "{}", refusal.stderr);

    annotate(&["tidings.dev/allowed-webhook-hosts=hooks.example.com, *.Corp.example ,a.example:8443,[2001:db8::1],"])
        .await;
    let user = tenant(&tenants).await;
    let login = "https://login.example.com/token";
    for (number, url) in [
        "https://hooks.example.com/events?a=b",
        "https://HOOKS.example.com:443",
        "https://eu.corp.example/",
        "https://a.b.corp.example/",
        "https://a.example:8443/",
        "https://[2001:db8::1]/events",
    ]
    .into_iter()
    .enumerate()
    {
        let created = user.create(&format!("good-{number}"), at(url, login)).await;
        assert!(created.success, "{url}: {}", created.stderr);
    }
    for url in [
        "https://hooks.example.com:8443/",
        "https://hooks.example.com.evil.example/",
        "https://evil.example/hooks.example.com",
        "https://evil.example/?https://hooks.example.com/",
        "https://xhooks.example.com/",
        "https://corp.example/",
        "https://evilcorp.example/",
        "https://a.example/",
        "https://[2001:db8::2]/",
        // Parsers differ on the host of these.
        r"https://hooks.example.com\@evil.example/",
        r"https://evil.example\.corp.example/",
        "https://evil.example%2f.corp.example/",
        "https://hooks%2eexample.com/",
    ] {
        let refused = user.create("bad", at(url, login)).await;
        assert!(!refused.success, "{url} was accepted");
        assert!(refused.stderr.contains("spec.webhook.url"), "{url}: {}", refused.stderr);
    }
    let token = user.create("bad", at("https://hooks.example.com/", "https://hooks.example.com/token")).await;
    assert!(token.stderr.contains("tidings.dev/allowed-token-service-hosts"), "{}", token.stderr);

    // An entry that is no host allows nothing.
    annotate(&["tidings.dev/allowed-webhook-hosts=*., *.*, :443, *.:443, **, .example.com"]).await;
    for url in ["https://evil.example./", "https://evil.example/", "https://hooks.example.com/", "https://a.b/"] {
        let refused = user.create("bad", at(url, login)).await;
        assert!(refused.stderr.contains("tidings.dev/allowed-webhook-hosts"), "{url}: {}", refused.stderr);
    }

    // Only what changes is checked, so that a Subscriber can be suspended after the list has changed.
    annotate(&["tidings.dev/allowed-webhook-hosts=", "tidings.dev/allowed-token-service-hosts=*"]).await;
    user.patch("good-0", json!({"spec": {"suspend": true}})).await.ok().unwrap();
    let moved = user.patch("good-0", json!({"spec": {"webhook": {"url": "https://eu.corp.example/"}}})).await;
    assert!(moved.stderr.contains("may not use the host eu.corp.example:443"), "{}", moved.stderr);
    user.patch("good-0", json!({"spec": {"tokenService": {"url": "https://any.example:8443/"}}})).await.ok().unwrap();
    // The operator's own writes are not in the way.
    let status = [
        "patch",
        "subscriber",
        "good-1",
        "--subresource=status",
        "--type=merge",
        "-p",
        "{\"status\":{\"lastHandledRequest\":\"1\"}}",
    ];
    let args = [&["-n", tenants.namespace.as_str()], &status[..]].concat();
    tenants.plane.kubectl(&args).await.unwrap().ok().unwrap();
}

#[tokio::test]
async fn a_tenant_must_use_the_handshake_where_the_cluster_requires_it() {
    let tenants = Tenants::new("handshake").await;
    let with = |policy: &str| subscriber(|spec| spec["abuseProtection"] = json!({"policy": policy}));
    let user = tenant(&tenants).await;
    user.create("before", with("Optional")).await.ok().unwrap();
    let refusal = enforce(&tenants, &["policies.requireHandshake=true"], subscriber(|_| ())).await;
    assert!(
        refusal.stderr.contains("spec.abuseProtection.policy: must be Required in this cluster"),
        "{}",
        refusal.stderr
    );
    user.create("required", with("Required")).await.ok().unwrap();
    for policy in ["Optional", "Disabled"] {
        let refused = user.create("refused", with(policy)).await;
        assert!(refused.stderr.contains("must be Required"), "{policy}: {}", refused.stderr);
        let back = user.patch("required", json!({"spec": {"abuseProtection": {"policy": policy}}})).await;
        assert!(back.stderr.contains("must be Required"), "{policy}: {}", back.stderr);
    }
    // One from before stays as it is, and does not move to another webhook.
    user.patch("before", json!({"spec": {"suspend": true}})).await.ok().unwrap();
    let moved = user.patch("before", json!({"spec": {"webhook": {"url": "https://other.example/"}}})).await;
    assert!(moved.stderr.contains("must be Required"), "{}", moved.stderr);
    user.patch("before", json!({"spec": {"abuseProtection": {"policy": "Required"}}})).await.ok().unwrap();
}
