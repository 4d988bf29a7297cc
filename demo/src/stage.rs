//! Sets the stage of the demo: the cluster, the endpoints and the operator.

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
    // Fields are dropped in this order: the operator first.
    pub(crate) operator: Operator,
    pub(crate) folder: Folder,
    scene: testkit::Stage,
}

impl Stage {
    pub(crate) async fn set(cluster: Cluster, binary: &Path) -> Result<Self> {
        let scene = scene(cluster).await?;
        // An earlier demo may have left objects in the cluster, and Tidings does not send a delivered Notification
        // again.
        scene.kubectl().run(&["delete", "notifications,subscribers", "--all", "-n", NAMESPACE]).await?.ok()?;

        let folder = Folder::new("demo")?;
        let ca_file = folder.write("ca.crt", scene.endpoints().authority.ca_pem())?.display().to_string();
        say(format!(
            "Starting the operator: SSL_CERT_FILE=ca.crt tidings run --watch-namespace {NAMESPACE} --egress-allow-cidr 127.0.0.0/8"
        ));
        say(
            "(SSL_CERT_FILE makes the operator trust the certificate authority; --egress-allow-cidr allows endpoints on loopback)",
        );
        let launch = scene.operator(binary).to_loopback().env("SSL_CERT_FILE", &ca_file);
        let operator = launch.ready(Duration::from_secs(30)).await?;
        Ok(Self { operator, folder, scene })
    }

    /// kubectl with all permissions.
    pub(crate) fn kubectl(&self) -> &Kubectl {
        self.scene.kubectl()
    }

    /// The webhook, the token service and their certificate authority.
    pub(crate) fn endpoints(&self) -> &Endpoints {
        self.scene.endpoints()
    }

    /// Applies `examples/` with the addresses of this machine. Returns the names of the Notifications.
    pub(crate) async fn apply_examples(&self) -> Result<Vec<String>> {
        say("Applying the examples, with the URLs and certificates of this machine:");
        let Endpoints { authority, tokens, receiver } = self.endpoints();
        let mut notifications = Vec::new();
        for example in examples::read(Path::new(&path("examples")))? {
            let example = example.adapt(&receiver.url(""), &tokens.url_of(""), authority)?;
            println!("$ kubectl apply -n {NAMESPACE} -f examples/{}", example.file);
            print!("{}", self.kubectl().apply(&example.manifests(), &["-n", NAMESPACE]).await?);
            notifications.extend(example.notifications());
        }
        match notifications.is_empty() {
            true => Err(Error::new("examples/ contains no Notification")),
            false => Ok(notifications),
        }
    }

    /// Waits until each Notification is Delivered or Failed. A Failed Notification is an error.
    pub(crate) async fn wait_for_outcomes(&self) -> Result<()> {
        let wait = "--for=jsonpath={.status.completionTime}";
        println!("$ kubectl wait -n {NAMESPACE} '{wait}' notifications --all --timeout=30s");
        let args = ["wait", "-n", NAMESPACE, wait, "notifications", "--all", "--timeout=30s"];
        print!("{}", self.kubectl().run(&args).await?.ok()?);
        for notification in self.objects("notifications").await? {
            if notification["status"]["phase"] != "Delivered" {
                return Err(Error::new(format!("Notification {} was not delivered", notification["metadata"]["name"])));
            }
        }
        Ok(())
    }

    /// The objects of a kind in the namespace of the demo.
    pub(crate) async fn objects(&self, kind: &str) -> Result<Vec<Value>> {
        let list = self.kubectl().run(&["get", kind, "-n", NAMESPACE, "-o", "json"]).await?.ok()?;
        let list: Value =
            serde_json::from_str(&list).map_err(|error| Error::new(format!("cannot parse the {kind}: {error}")))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    pub(crate) async fn clear(&self) -> Result<()> {
        // A user may have stopped the operator already.
        if self.operator.process().exit_code().is_none() {
            let code = self.operator.terminate().await?;
            if code != 0 {
                return Err(Error::new(format!("the operator exited with code {code}")));
            }
        }
        cluster::clear(self.scene.cluster()).await
    }
}

/// Starts the endpoints, installs the CustomResourceDefinitions and creates the namespace. The demo touches no other
/// namespace of a shared cluster.
async fn scene(cluster: Cluster) -> Result<testkit::Stage> {
    let client = Client::new(CLIENT.0, CLIENT.1).scopes(["events.write"]);
    let scene = testkit::Stage::builder().on(cluster).as_admin().namespaces(&[NAMESPACE]).client(client).set().await?;
    let Endpoints { tokens, receiver, .. } = scene.endpoints();
    // The webhook of examples/gateway.yaml receives a validation request and allows the origin.
    let allowed = Reply::status(200).allow_origin("tidings.dev").allow_rate("600");
    receiver.answer_options("/gateway", Behaviour::reply(allowed));
    say(format!("Started a webhook at {} and a token service at {}", receiver.url("/"), tokens.url()));
    say("Both have certificates of a new certificate authority");
    say("Installed the CustomResourceDefinitions: kubectl apply --server-side -f crds/");
    Ok(scene)
}

fn path(name: &str) -> String {
    format!("{ROOT}/{name}")
}
