//! Who may write a Subscriber that names Secrets (S20): those who may get the Secrets themselves, by the real
//! authorizer.

use serde_json::{Value, json};
use testkit::{
    ControlPlane,
    control_plane::{Kubectl, Output},
};

use crate::{
    api::refusals::{by_account, subscriber},
    cluster::{cluster, namespace},
};

/// Users of one namespace.
pub(super) struct Tenants {
    pub(super) plane: &'static ControlPlane,
    pub(super) namespace: String,
}

impl Tenants {
    pub(super) async fn new(name: &str) -> Self {
        let plane = cluster().await;
        let tenants = Self { plane, namespace: namespace(plane, name).await };
        tenants
            .apply(&json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "subscriber-writer"},
                "rules": [{"apiGroups": ["tidings.dev"], "resources": ["*"], "verbs": ["*"]}],
            }))
            .await;
        tenants
    }

    async fn apply(&self, manifest: &Value) {
        self.plane.admin().apply(&manifest.to_string(), &["-n", &self.namespace, "--server-side"]).await.unwrap();
    }

    /// Binds a user (`kind` User) or a ServiceAccount to a Role or ClusterRole (`kind/name`) in the namespace.
    async fn bind(&self, subject: &Value, role: &str) {
        let (kind, role) = role.split_once('/').unwrap();
        let name = format!("{}-{role}", subject["name"].as_str().unwrap());
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}, "subjects": [subject],
        }))
        .await;
    }

    /// A user who may write Subscribers, and what this role permits.
    pub(super) async fn user(&self, name: &str, role: Option<&str>) -> User<'_> {
        let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name});
        self.bind(&subject, "Role/subscriber-writer").await;
        if let Some(role) = role {
            self.bind(&subject, role).await;
        }
        User { tenants: self, kubectl: self.plane.admin().clone(), impersonated: Some(format!("--as={name}")) }
    }

    /// A ServiceAccount of a namespace, by a token of its own; `args` bind it.
    async fn account(&self, namespace: &str, name: &str, args: &[&str]) -> User<'_> {
        self.plane.kubectl(&["create", "serviceaccount", name, "-n", namespace]).await.unwrap().ok().unwrap();
        let subject = format!("--serviceaccount={namespace}:{name}");
        self.plane.kubectl(&[&["create"], args, &[&subject]].concat()).await.unwrap().ok().unwrap();
        let token = self.plane.kubectl(&["create", "token", name, "-n", namespace]).await.unwrap().ok().unwrap();
        let kubeconfig = self.plane.kubeconfig_for_token(&format!("{namespace}-{name}"), token.trim()).unwrap();
        User { tenants: self, kubectl: Kubectl::new(&kubeconfig), impersonated: None }
    }

    /// A Role that permits to get these Secrets alone.
    pub(super) async fn readers_of(&self, role: &str, secrets: &[String]) {
        self.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": role},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets, "verbs": ["get"]}],
        }))
        .await;
    }
}

/// One of them, and the way to the API server.
pub(super) struct User<'a> {
    tenants: &'a Tenants,
    kubectl: Kubectl,
    impersonated: Option<String>,
}

impl User<'_> {
    async fn run(&self, args: &[&str], input: &str) -> Output {
        let mut args = [&["-n", &self.tenants.namespace], args].concat();
        args.extend(self.impersonated.as_deref());
        self.kubectl.run_with_input(&args, input).await.unwrap()
    }

    pub(super) async fn create(&self, name: &str, mut manifest: Value) -> Output {
        manifest["metadata"]["name"] = name.into();
        self.run(&["create", "-f", "-"], &manifest.to_string()).await
    }

    pub(super) async fn patch(&self, name: &str, patch: Value) -> Output {
        self.run(&["patch", "subscriber", name, "--type=merge", "-p", &patch.to_string()], "").await
    }
}

/// Fills the ClusterRoles that Kubernetes gives people, as the controller-manager does, which is not here.
async fn aggregate_roles(plane: &ControlPlane) {
    for role in ["view", "edit", "admin"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}=true");
        let parts = plane.kubectl(&["get", "clusterroles", "-l", &label, "-o", "json"]).await.unwrap().ok().unwrap();
        let parts: Value = serde_json::from_str(&parts).unwrap();
        let rules: Vec<_> = parts["items"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|part| part["rules"].as_array().unwrap().clone())
            .collect();
        assert!(rules.len() > 2, "{role}: {rules:?}");
        let patch = json!({"rules": rules}).to_string();
        plane.kubectl(&["patch", "clusterrole", role, "--type=merge", "-p", &patch]).await.unwrap().ok().unwrap();
    }
}

fn header(secret: &str) -> Value {
    json!({"name": format!("X-{secret}"), "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}})
}

/// A Subscriber that names many Secrets: by headers, the credentials and two client certificates. With 32 headers and
/// certificates, it names as many Secrets as one can: by the headers of the token service, too.
fn greedy(headers: usize, certificates: bool) -> Value {
    subscriber(|spec| {
        spec["webhook"]["headers"] = (0..headers).map(|n| header(&format!("s-{n}"))).collect();
        if headers == 32 {
            spec["tokenService"]["headers"] = (0..headers).map(|n| header(&format!("t-{n}"))).collect();
        }
        if certificates {
            for endpoint in ["webhook", "tokenService"] {
                spec[endpoint]["tls"] = json!({"clientCertificateSecretRef": {"name": endpoint.to_lowercase()}});
            }
        }
    })
}

#[tokio::test]
async fn s20_who_may_get_every_secret_of_the_namespace_may_name_any() {
    let tenants = Tenants::new("readers").await;
    aggregate_roles(tenants.plane).await;
    tenants.plane.kubectl(&["create", "namespace", "argocd"]).await.unwrap().ok().unwrap();
    let namespace = tenants.namespace.as_str();
    let flux = ["rolebinding", "flux-tenant", "--clusterrole=cluster-admin", "-n", namespace];
    let argo = ["clusterrolebinding", "argocd-application-controller", "--clusterrole=cluster-admin"];
    let users = [
        ("edit", tenants.user("edith", Some("ClusterRole/edit")).await),
        ("admin", tenants.user("adam", Some("ClusterRole/admin")).await),
        ("flux", tenants.account(namespace, "flux-tenant", &flux).await),
        ("argo", tenants.account("argocd", "argocd-application-controller", &argo).await),
    ];
    for (name, user) in users {
        user.create(name, greedy(32, true)).await.ok().unwrap();
        user.patch(name, json!({"spec": {"webhook": {"url": "https://other.example.com/"}}})).await.ok().unwrap();
        user.run(&["delete", "subscriber", name], "").await.ok().unwrap();
    }
}

#[tokio::test]
async fn s20_who_may_not_get_a_secret_may_not_have_it_sent_and_the_refusal_says_what_to_do() {
    let tenants = Tenants::new("writers").await;
    aggregate_roles(tenants.plane).await;
    // A viewer of the namespace may get everything but Secrets.
    let dora = tenants.user("dora", Some("ClusterRole/view")).await;
    let refused = |output: Output, secret: &str| {
        let says = format!("dora may not get Secret {secret} in namespace {}", tenants.namespace);
        assert!(!output.success && output.stderr.contains(&says), "{}{}", output.stdout, output.stderr);
        assert!(output.stderr.contains("Have a user who may get the Secret apply this"), "{}", output.stderr);
        assert!(output.stderr.contains("(Forbidden)") || output.stderr.contains("denied request"), "{}", output.stderr);
    };
    refused(dora.create("own", subscriber(|_| ())).await, "oauth");

    let admin = User { tenants: &tenants, kubectl: tenants.plane.admin().clone(), impersonated: None };
    let signing = |secret: &str| json!({"name": secret, "key": "k"});
    let shop = subscriber(|spec| {
        spec["webhook"]["headers"] = json!([header("hook"), {"name": "X-Tenant", "value": "a"}]);
        spec["webhook"]["signature"] = json!({"secretRef": signing("hook")});
    });
    admin.create("shop", shop).await.ok().unwrap();
    let token_header = |secret: &str| json!({"spec": {"tokenService": {"headers": [header(secret)]}}});
    let tls = |endpoint: &str| json!({"spec": {endpoint: {"tls": {"clientCertificateSecretRef": {"name": "hook"}}}}});
    let credentials = |change: Value| json!({"spec": {"tokenService": {"credentialsSecretRef": change}}});
    for (patch, secret) in [
        (json!({"spec": {"webhook": {"url": "https://evil.example/"}}}), "oauth"),
        (json!({"spec": {"tokenService": {"url": "https://evil.example/"}}}), "oauth"),
        (credentials(json!({"name": "registry"})), "registry"),
        (credentials(json!({"clientSecretKey": "other"})), "oauth"),
        (tls("webhook"), "oauth"),
        (tls("tokenService"), "oauth"),
        (json!({"spec": {"webhook": {"signature": {"secretRef": {"name": "hook", "key": "other"}}}}}), "oauth"),
        (json!({"spec": {"webhook": {"signature": {"previousSecretRef": signing("db")}}}}), "oauth"),
        // The client secret would go to the webhook.
        (json!({"spec": {"webhook": {"headers": [header("hook"), header("oauth")]}}}), "oauth"),
        // A header value of the webhook would go to the token service, and the client secret once more.
        (token_header("hook"), "oauth"),
        (token_header("db"), "oauth"),
        (json!({"spec": {"suspend": true, "webhook": {"headers": [header("hook"), header("db")]}}}), "oauth"),
    ] {
        let output = dora.patch("shop", patch).await;
        refused(output, secret);
    }
}

#[tokio::test]
async fn s20_another_client_authentication_may_not_send_a_key_that_was_not_sent_before() {
    let tenants = Tenants::new("methods").await;
    let olga = tenants.user("olga", None).await;
    let admin = User { tenants: &tenants, kubectl: tenants.plane.admin().clone(), impersonated: None };
    let tls = json!({"clientCertificateSecretRef": {"name": "mtls"}});
    let method = |method: &str| json!({"spec": {"tokenService": {"clientAuthentication": method}}});
    let by_secret = subscriber(|spec| spec["tokenService"]["tls"] = tls.clone());
    admin.create("by-secret", by_secret).await.ok().unwrap();
    olga.patch("by-secret", method("Post")).await.ok().unwrap();
    // Only the client ID of the Secret is sent from now on.
    olga.patch("by-secret", method("TLS")).await.ok().unwrap();
    let again = olga.patch("by-secret", method("Basic")).await;
    assert!(again.stderr.contains("olga may not get Secret oauth"), "{}{}", again.stdout, again.stderr);
    admin.patch("by-secret", method("Basic")).await.ok().unwrap();

    // A Secret that is no longer named needs no check; one that comes back does.
    let named = |reference: Value, id: Value| json!({"spec": {"tokenService": {"clientAuthentication": "TLS", "clientID": id, "credentialsSecretRef": reference}}});
    olga.patch("by-secret", named(Value::Null, "shop".into())).await.ok().unwrap();
    let again = olga.patch("by-secret", named(json!({"name": "oauth"}), Value::Null)).await;
    assert!(again.stderr.contains("olga may not get Secret oauth"), "{}{}", again.stdout, again.stderr);
    // A private key is checked, and so is the audience of what it signs.
    let by_key = |change: Value| {
        let mut settings = json!({"keySecretRef": {"name": "signer"}, "algorithm": "ES256"});
        settings.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"spec": {"tokenService": {"clientAuthentication": "PrivateKeyJWT", "privateKeyJWT": settings}}})
    };
    let signed = olga.patch("by-secret", by_key(json!({}))).await;
    assert!(signed.stderr.contains("olga may not get Secret signer"), "{}{}", signed.stdout, signed.stderr);
    admin.patch("by-secret", by_key(json!({}))).await.ok().unwrap();
    olga.patch("by-secret", by_key(json!({"lifetimeSeconds": 120, "keyID": "2"}))).await.ok().unwrap();
    let elsewhere = olga.patch("by-secret", by_key(json!({"audience": "https://elsewhere.example.com"}))).await;
    assert!(elsewhere.stderr.contains("olga may not get Secret"), "{}{}", elsewhere.stdout, elsewhere.stderr);
    let back = json!({"spec": {"tokenService": {"clientAuthentication": "TLS", "privateKeyJWT": null}}});
    olga.patch("by-secret", back).await.ok().unwrap();
    // Without credentials, the other Secrets are checked all the same.
    let other = json!({"spec": {"tokenService": {"tls": {"clientCertificateSecretRef": {"name": "other"}}}}});
    let other = olga.patch("by-secret", other).await;
    assert!(other.stderr.contains("olga may not get Secret other"), "{}{}", other.stdout, other.stderr);
}

#[tokio::test]
async fn s27_who_may_not_create_tokens_of_a_service_account_may_not_have_them_sent() {
    let tenants = Tenants::new("accounts").await;
    aggregate_roles(tenants.plane).await;
    let refused = |output: Output, account: &str| {
        let says = format!("olga may not create tokens of ServiceAccount {account} in namespace {}", tenants.namespace);
        assert!(!output.success && output.stderr.contains(&says), "{}{}", output.stdout, output.stderr);
        assert!(output.stderr.contains("serviceaccounts/token for the ServiceAccount"), "{}", output.stderr);
    };
    // A viewer who may get every Secret may create no tokens.
    let olga = tenants.user("olga", Some("ClusterRole/view")).await;
    tenants.readers_of("all-secrets", &[]).await;
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "olga"});
    tenants.bind(&subject, "Role/all-secrets").await;
    refused(olga.create("shop", by_account(|_| ())).await, "robot");
    let admin = User { tenants: &tenants, kubectl: tenants.plane.admin().clone(), impersonated: None };
    admin.create("shop", by_account(|_| ())).await.ok().unwrap();

    let service = |change: Value| json!({"spec": {"tokenService": change}});
    let account = |change: Value| service(json!({"serviceAccountToken": change}));
    for (patch, name) in [
        (account(json!({"name": "other"})), "other"),
        (account(json!({"audience": "https://elsewhere.example.com"})), "robot"),
        (service(json!({"url": "https://evil.example/"})), "robot"),
        (json!({"spec": {"webhook": {"url": "https://evil.example/"}}}), "robot"),
    ] {
        refused(olga.patch("shop", patch).await, name);
    }
    // What changes neither the token nor its way stays free.
    for patch in [
        json!({"spec": {"suspend": true}}),
        account(json!({"expirationSeconds": 900})),
        service(
            json!({"clientAuthentication": "Basic", "serviceAccountToken": null, "clientID": null, "credentialsSecretRef": {"name": "oauth"}}),
        ),
    ] {
        olga.patch("shop", patch).await.ok().unwrap();
    }
    let back = json!({"clientAuthentication": "ServiceAccountToken", "clientID": "shop", "credentialsSecretRef": null, "serviceAccountToken": {"name": "robot", "audience": "a"}});
    refused(olga.patch("shop", service(back.clone())).await, "robot");

    tenants
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "robot-tokens"},
            "rules": [{
                "apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["robot"],
                "verbs": ["create"],
            }],
        }))
        .await;
    tenants.bind(&subject, "Role/robot-tokens").await;
    olga.patch("shop", service(back)).await.ok().unwrap();
    refused(olga.patch("shop", account(json!({"name": "other"}))).await, "other");
    let edith = tenants.user("edith", Some("ClusterRole/edit")).await;
    edith.create("edited", by_account(|_| ())).await.ok().unwrap();
}

#[tokio::test]
async fn s20_what_changes_no_secret_and_no_url_stays_free_for_those_on_call() {
    let tenants = Tenants::new("on-call").await;
    let olga = tenants.user("olga", None).await;
    let admin = User { tenants: &tenants, kubectl: tenants.plane.admin().clone(), impersonated: None };
    let mut shop =
        subscriber(|spec| spec["webhook"]["headers"] = json!([header("hook"), {"name": "X-Tenant", "value": "a"}]));
    shop["metadata"]["finalizers"] = json!(["example.com/held"]);
    shop["spec"]["tokenService"]["headers"] = json!([header("gateway")]);
    shop["spec"]["webhook"]["tls"] = json!({"clientCertificateSecretRef": {"name": "mtls"}});
    let keys = ["new", "old"].map(|key| json!({"name": "signing", "key": key}));
    shop["spec"]["webhook"]["signature"] = json!({"secretRef": keys[0], "previousSecretRef": keys[1]});
    admin.create("shop", shop).await.ok().unwrap();
    for patch in [
        json!({"spec": {"suspend": true}}),
        json!({"metadata": {"annotations": {"tidings.dev/test-requested-at": "1"}, "labels": {"team": "shop"}}}),
        json!({"spec": {"delivery": {"maxInFlight": 1}, "webhook": {"timeoutSeconds": 5}}}),
        json!({"spec": {"webhook": {"headers": [{"name": "X-Other", "value": "b"}, header("hook")]}}}),
        json!({"spec": {"webhook": {"signature": {"previousSecretRef": null}}}}),
        json!({"spec": {"tokenService": {"headers": [{"name": "X-Other", "value": "b"}, header("gateway")]}}}),
        // Fewer Secrets are no new ones.
        json!({"spec": {"tokenService": {"headers": []}}}),
        json!({"spec": {"webhook": {"headers": [], "tls": null, "signature": null}}}),
    ] {
        olga.patch("shop", patch).await.ok().unwrap();
    }
    let status = json!({"status": {"lastHandledRequest": "1"}}).to_string();
    let args = ["patch", "subscriber", "shop", "--subresource=status", "--type=merge", "-p", &status];
    olga.run(&args, "").await.ok().unwrap();
    olga.run(&["delete", "subscriber", "shop", "--wait=false"], "").await.ok().unwrap();
    // What is being deleted is no way round.
    let evil = olga.patch("shop", json!({"spec": {"webhook": {"url": "https://evil.example/"}}})).await;
    assert!(evil.stderr.contains("olga may not get Secret oauth"), "{}", evil.stderr);
    olga.patch("shop", json!({"metadata": {"finalizers": null}})).await.ok().unwrap();
    let gone = olga.run(&["get", "subscriber", "shop"], "").await;
    assert!(gone.stderr.contains("NotFound"), "{}{}", gone.stdout, gone.stderr);
}

#[tokio::test]
async fn s20_who_may_get_secrets_by_name_may_name_those_up_to_20() {
    let tenants = Tenants::new("by-name").await;
    let names: Vec<_> = (0..25).map(|n| format!("s-{n}")).chain(["oauth".into(), "webhook".into()]).collect();
    tenants.readers_of("some-secrets", &names).await;
    let nina = tenants.user("nina", Some("Role/some-secrets")).await;
    nina.create("few", subscriber(|_| ())).await.ok().unwrap();
    // 20 with that of the credentials; one of them is named again.
    let mut most = greedy(19, false);
    most["spec"]["webhook"]["tls"] = json!({"clientCertificateSecretRef": {"name": "s-3"}});
    // So is one at the token service.
    most["spec"]["tokenService"]["headers"] = json!([header("s-4")]);
    nina.create("most", most).await.ok().unwrap();
    let many = nina.create("many", greedy(20, false)).await;
    assert!(many.stderr.contains("names more than 20 Secrets"), "{}{}", many.stdout, many.stderr);
    let other = nina.create("other", greedy(19, true)).await;
    assert!(!other.success, "{}", other.stdout);
    let other = nina
        .create("other", subscriber(|spec| spec["webhook"]["headers"] = json!([header("s-1"), header("db")])))
        .await;
    assert!(other.stderr.contains("nina may not get Secret db"), "{}{}", other.stdout, other.stderr);
    let other = nina
        .create("other", subscriber(|spec| spec["tokenService"]["headers"] = json!([header("s-1"), header("db")])))
        .await;
    assert!(other.stderr.contains("nina may not get Secret db"), "{}{}", other.stdout, other.stderr);
    // A bundle is not sent anywhere.
    let bundle = subscriber(|spec| spec["webhook"]["tls"] = json!({"caRef": {"kind": "Secret", "name": "corp-ca"}}));
    nina.create("bundle", bundle).await.ok().unwrap();
}
