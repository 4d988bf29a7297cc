//! All that a delivery needs, up and running.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use testkit::control_plane::Kubectl;
use testkit::endpoints::Reply;
use testkit::folder::Folder;
use testkit::stage::{Cluster, Endpoints};
use testkit::{Behaviour, Client, Error, Operator, Result};

use crate::cluster::{self, NAMESPACE};
use crate::examples;
use crate::say::say;

/// The client that the Secrets of the examples name.
const CLIENT: (&str, &str) = ("acme", "s3cr3t-for-the-demo");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

pub(crate) struct Stage {
    // The order is the order of dropping: the operator first.
    pub(crate) operator: Operator,
    pub(crate) folder: Folder,
    scene: testkit::Stage,
}

impl Stage {
    pub(crate) async fn set(cluster: Cluster, binary: &Path) -> Result<Self> {
        let scene = scene(cluster).await?;
        // Of an earlier demo in the same cluster: what is delivered would not be sent again.
        scene.kubectl().run(&["delete", "notifications,subscribers", "--all", "-n", NAMESPACE]).await?.ok()?;

        let folder = Folder::new("demo")?;
        let ca_file = folder.write("ca.crt", scene.endpoints().authority.ca_pem())?.display().to_string();
        say(format!(
            "SSL_CERT_FILE=<that authority> tidings run --watch-namespace {NAMESPACE} --egress-allow-cidr 127.0.0.0/8"
        ));
        say(
            "(without the last flag, the operator denies a webhook on loopback; without the variable, it does not trust the webhook)",
        );
        let launch = scene.operator(binary).to_loopback().env("SSL_CERT_FILE", &ca_file);
        let operator = launch.ready(Duration::from_secs(30)).await?;
        Ok(Self { operator, folder, scene })
    }

    /// kubectl with all rights.
    pub(crate) fn kubectl(&self) -> &Kubectl {
        self.scene.kubectl()
    }

    /// The webhook, the token service and their authority.
    pub(crate) fn endpoints(&self) -> &Endpoints {
        self.scene.endpoints()
    }

    /// Applies `examples/` with the addresses of this machine; returns the names of its Notifications.
    pub(crate) async fn apply_examples(&self) -> Result<Vec<String>> {
        say("The examples, with URLs of this machine, and its certificate authority in the ConfigMap corp-ca:");
        let Endpoints { authority, tokens, receiver } = self.endpoints();
        let mut notifications = Vec::new();
        for example in examples::read(Path::new(&path("examples")))? {
            let example = example.adapt(&receiver.url(""), &tokens.url_of(""), authority)?;
            println!("$ kubectl apply -n {NAMESPACE} -f examples/{}", example.file);
            print!("{}", self.kubectl().apply(&example.manifests(), &["-n", NAMESPACE]).await?);
            notifications.extend(example.notifications());
        }
        match notifications.is_empty() {
            true => Err(Error::new("there is no Notification in examples/")),
            false => Ok(notifications),
        }
    }

    /// Waits until each Notification is Delivered or Failed; only Delivered will do.
    pub(crate) async fn wait_for_outcomes(&self) -> Result<()> {
        let wait = "--for=jsonpath={.status.completionTime}";
        println!("$ kubectl wait -n {NAMESPACE} '{wait}' notifications --all --timeout=30s");
        let args = ["wait", "-n", NAMESPACE, wait, "notifications", "--all", "--timeout=30s"];
        print!("{}", self.kubectl().run(&args).await?.ok()?);
        for notification in self.objects("notifications").await? {
            if notification["status"]["phase"] != "Delivered" {
                return Err(Error::new(format!("{} is not Delivered", notification["metadata"]["name"])));
            }
        }
        Ok(())
    }

    /// The objects of a kind in the namespace of the demo.
    pub(crate) async fn objects(&self, kind: &str) -> Result<Vec<Value>> {
        let list = self.kubectl().run(&["get", kind, "-n", NAMESPACE, "-o", "json"]).await?.ok()?;
        let list: Value = serde_json::from_str(&list).map_err(|error| Error::new(format!("{kind}: {error}")))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    pub(crate) async fn clear(&self) -> Result<()> {
        // A user may have stopped it already.
        if self.operator.process().exit_code().is_none() {
            let code = self.operator.terminate().await?;
            if code != 0 {
                return Err(Error::new(format!("the operator exited with code {code}")));
            }
        }
        cluster::clear(self.scene.cluster()).await
    }
}

/// The endpoints, the definitions and the namespace. One namespace: in a cluster that others use, the demo keeps to its
/// own.
async fn scene(cluster: Cluster) -> Result<testkit::Stage> {
    let client = Client::new(CLIENT.0, CLIENT.1).scopes(["events.write"]);
    let scene = testkit::Stage::builder().on(cluster).as_admin().namespaces(&[NAMESPACE]).client(client).set().await?;
    let Endpoints { tokens, receiver, .. } = scene.endpoints();
    // The webhook of examples/gateway.yaml receives a validation request and allows the origin.
    let consent = Reply::status(200).allow_origin("tidings.dev").allow_rate("600");
    receiver.answer_options("/gateway", Behaviour::reply(consent));
    say(format!("Started a webhook at {} and a token service at {}", receiver.url("/"), tokens.url()));
    say("A new certificate authority issued their certificates");
    say("kubectl apply --server-side -f crds/");
    Ok(scene)
}

fn path(name: &str) -> String {
    format!("{ROOT}/{name}")
}
