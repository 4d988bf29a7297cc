//! Keeps everything running after the demo (`KEEP=1`), so that a user can try Tidings by hand.

use std::time::Duration;

use serde_json::json;
use testkit::Result;
use tokio::time::sleep;

use crate::cluster::NAMESPACE;
use crate::say::say;
use crate::stage::Stage;
use crate::transcript::request_text;

/// Prints commands to try, and then each request that arrives at the webhook, until Ctrl-C.
pub(crate) async fn until_interrupted(stage: &Stage) -> Result<()> {
    let notification = json!({
        "apiVersion": "tidings.dev/v1alpha1",
        "kind": "Notification",
        "metadata": {"name": "by-hand", "namespace": NAMESPACE},
        "spec": {
            "subscriberRef": {"name": "acme"},
            "event": {"source": "/by/hand", "type": "com.example.tried", "data": {"hello": "world"}},
        },
    });
    let file = stage.folder.write("notification.yaml", &serde_yaml::to_string(&notification).unwrap_or_default())?;
    let kubectl = stage.kubectl();
    say("Everything is still running. Try these commands in another terminal:");
    println!(
        "
export KUBECONFIG={kubeconfig}
alias k='{kubectl} -n {NAMESPACE}'

k apply -f {file}
k wait --for=jsonpath='{{.status.completionTime}}' ntf/by-hand
k get subscribers,notifications
k explain notification.spec.event
k patch subr acme --type=merge -p '{{\"spec\":{{\"suspend\":true}}}}'
k patch subr acme --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}'
k patch secret acme-oauth -p '{{\"stringData\":{{\"client_secret\":\"wrong\"}}}}'     # TokenAvailable becomes False: see k describe subr acme
k patch secret acme-oauth -p '{{\"stringData\":{{\"client_secret\":\"s3cr3t-for-the-demo\"}}}}'
k label ntf by-hand --overwrite tidings.dev/replay=$(date +%s)                    # sends the event again
k annotate subr acme --overwrite tidings.dev/test-requested-at=$(date +%s)        # sends one test event; see k describe subr acme
k annotate subr acme --overwrite tidings.dev/reconcile-requested-at=$(date +%s)   # ends a pause or an open circuit, and retries now
curl http://{admin}/metrics

Operator log:  {log}
Webhook:       {webhook}
Token service: {tokens}

Each request that arrives at the webhook is shown below. Press Ctrl-C to stop everything.
",
        kubeconfig = kubectl.kubeconfig().display(),
        kubectl = kubectl.program().display(),
        file = file.display(),
        admin = stage.operator.admin_address(),
        log = stage.operator.process().log_file().display(),
        webhook = stage.endpoints().receiver.url("/"),
        tokens = stage.endpoints().tokens.url(),
    );
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        () = show_arrivals(stage) => Ok(()),
    }
}

async fn show_arrivals(stage: &Stage) {
    let mut shown = stage.endpoints().receiver.requests().len();
    loop {
        sleep(Duration::from_millis(200)).await;
        for request in stage.endpoints().receiver.requests().split_off(shown) {
            println!("{}", request_text(&request));
            shown += 1;
        }
    }
}
