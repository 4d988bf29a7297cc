//! All that a delivery needs, up and running.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::endpoints::Reply;
use testkit::folder::Folder;
use testkit::{Authority, Behaviour, Client, Error, Operator, Receiver, Result, TokenService};

use crate::cluster::{Cluster, NAMESPACE};
use crate::examples;
use crate::say::say;

/// The client that the Secrets of the examples name.
const CLIENT: (&str, &str) = ("acme", "s3cr3t-for-the-demo");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) receiver: Receiver,
    pub(crate) tokens: TokenService,
    pub(crate) operator: Operator,
    pub(crate) folder: Folder,
    authority: Authority,
}

impl Stage {
    pub(crate) async fn set(cluster: Cluster, binary: &Path) -> Result<Self> {
        let authority = Authority::new();
        let tokens = TokenService::start(&authority).await?;
        tokens.register(Client::new(CLIENT.0, CLIENT.1).scopes(["events.write"]));
        let receiver = Receiver::start(&authority, tokens.tokens()).await?;
        // The webhook of examples/gateway.yaml is asked for its consent, and gives it.
        let consent = Reply::status(200).allow_origin("tidings.dev").allow_rate("600");
        receiver.answer_options("/gateway", Behaviour::reply(consent));
        say(format!("Started a webhook at {} and a token service at {}", receiver.url("/"), tokens.url()));
        say("Their certificates come from a certificate authority made just now");

        let kubectl = cluster.kubectl();
        say("kubectl apply --server-side -f crds/");
        kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &path("crds")]).await?.ok()?;
        let names = ["crd/subscribers.tidings.dev", "crd/notifications.tidings.dev"];
        let wait = ["wait", "--for=condition=Established", "--timeout=30s"];
        kubectl.run(&[&wait[..], &names].concat()).await?.ok()?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        kubectl.apply(&namespace.to_string(), &["--server-side"]).await?;
        // Of an earlier demo in the same cluster: what is delivered would not be sent again.
        kubectl.run(&["delete", "notifications,subscribers", "--all", "-n", NAMESPACE]).await?.ok()?;

        let folder = Folder::new("demo")?;
        let ca_file = folder.write("ca.crt", authority.ca_pem())?.display().to_string();
        say(format!(
            "SSL_CERT_FILE=<that authority> tidings run --watch-namespace {NAMESPACE} --egress-allow-cidr 127.0.0.0/8"
        ));
        say("(without the last flag a webhook on loopback is refused; without the variable it would not be trusted)");
        // One namespace: in a cluster that others use, the demo keeps to its own.
        let args = ["--egress-allow-cidr", "127.0.0.0/8", "--watch-namespace", NAMESPACE];
        let operator = Operator::start(binary, cluster.kubeconfig(), &args, &[("SSL_CERT_FILE", &ca_file)]).await?;
        operator.ready(Duration::from_secs(30)).await?;
        Ok(Self { cluster, receiver, tokens, operator, folder, authority })
    }

    /// Applies `examples/` with the addresses of this machine; returns the names of its Notifications.
    pub(crate) async fn apply_examples(&self) -> Result<Vec<String>> {
        say("The examples, with the URLs of this machine and its certificate authority in the ConfigMap corp-ca:");
        let mut notifications = Vec::new();
        for example in examples::read(Path::new(&path("examples")))? {
            let example = example.adapt(&self.receiver.url(""), &self.tokens.url_of(""), &self.authority)?;
            println!("$ kubectl apply -n {NAMESPACE} -f examples/{}", example.file);
            print!("{}", self.cluster.kubectl().apply(&example.manifests(), &["-n", NAMESPACE]).await?);
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
        print!("{}", self.cluster.kubectl().run(&args).await?.ok()?);
        for notification in self.objects("notifications").await? {
            if notification["status"]["phase"] != "Delivered" {
                return Err(Error::new(format!("{} is not Delivered", notification["metadata"]["name"])));
            }
        }
        Ok(())
    }

    /// The objects of a kind in the namespace of the demo.
    pub(crate) async fn objects(&self, kind: &str) -> Result<Vec<Value>> {
        let list = self.cluster.kubectl().run(&["get", kind, "-n", NAMESPACE, "-o", "json"]).await?.ok()?;
        let list: Value = serde_json::from_str(&list).map_err(|error| Error::new(format!("{kind}: {error}")))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    pub(crate) async fn clear(&self) -> Result<()> {
        // Whoever tried things by hand may have ended it already.
        if self.operator.process().exit_code().is_none() {
            let code = self.operator.terminate().await?;
            if code != 0 {
                return Err(Error::new(format!("the operator ended with exit code {code}")));
            }
        }
        self.cluster.clear().await
    }
}

fn path(name: &str) -> String {
    format!("{ROOT}/{name}")
}
