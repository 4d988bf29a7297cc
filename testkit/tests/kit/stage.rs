//! Tests `Stage` with a shell script instead of the operator, as in `operator`.

use serde_json::Value;
use tidings_testkit::control_plane::Kubectl;
use tidings_testkit::folder::Folder;
use tidings_testkit::{Client, Stage};

use crate::operator::program;
use crate::process::until;

async fn get(kubectl: &Kubectl, what: &str, namespace: &str) -> Value {
    let text = kubectl.run(&["get", what, "-n", namespace, "-o", "json"]).await.unwrap().ok().unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn each_namespace_has_the_bundle_its_credentials_and_the_permissions_of_the_chart() {
    let stage = Stage::builder()
        .namespaces(&["first", "second"])
        .client(Client::new("known", "secret"))
        .bundle("ca")
        .credentials("oauth", |namespace| Client::new(format!("id-of-{namespace}"), "secret"))
        .set()
        .await
        .unwrap();
    let operator = Kubectl::new(stage.kubeconfig());
    for (namespace, id) in [("first", "aWQtb2YtZmlyc3Q="), ("second", "aWQtb2Ytc2Vjb25k")] {
        let bundle = get(stage.kubectl(), "configmap/ca", namespace).await;
        assert_eq!(bundle["data"]["ca.crt"], stage.endpoints().authority.ca_pem());
        assert_eq!(get(stage.kubectl(), "secret/oauth", namespace).await["data"]["client_id"], id);
        let may =
            async |verb, kind| operator.run(&["auth", "can-i", verb, kind, "-n", namespace]).await.unwrap().success;
        // New permissions take effect after a moment.
        while !may("list", "notifications.tidings.dev").await {}
        assert!(!may("delete", "subscribers.tidings.dev").await, "{namespace}");
    }

    let other = Stage::builder().on(stage.cluster()).namespaces(&["third"]).endpoints_elsewhere("a certificate");
    let other = other.bundle("ca").set().await.unwrap();
    assert_eq!(get(stage.kubectl(), "configmap/ca", "third").await["data"]["ca.crt"], "a certificate");
    assert_eq!(other.plane().address(), stage.plane().address());
}

#[tokio::test]
async fn an_operator_is_started_with_the_namespaces_and_the_permissions_of_the_stage() {
    let stage = Stage::builder().namespaces(&["first", "second"]).as_admin().set().await.unwrap();
    let folder = Folder::new("test").unwrap();
    let program = program(&folder, r#"echo "$KUBECONFIG $HOSTNAME $*"; while :; do sleep 0.01; done"#);
    let launch = stage.operator(&program).to_loopback().lease_in("first").env("HOSTNAME", "one").args(&["--a", "b"]);
    let operator = launch.start().await.unwrap();
    until("started", || operator.logs().contains('\n')).await;
    let flags = "--watch-namespace first,second --egress-allow-cidr 127.0.0.0/8 --lease-namespace first --a b";
    let kubeconfig = stage.plane().admin_kubeconfig().display();
    let log = operator.logs();
    assert!(log.starts_with(&format!("{kubeconfig} one run ")) && log.ends_with(&format!(" {flags}\n")), "{log}");

    let log = folder.path().join("log");
    let operator = launch.kubeconfig("/other".as_ref()).log_to(&log).start().await.unwrap();
    until("started", || operator.logs().starts_with("/other one run ")).await;
    drop(operator);
    assert!(log.exists(), "the log was removed with the operator");
}
