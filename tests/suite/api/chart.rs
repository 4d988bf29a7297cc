//! The chart, rendered by Helm, is accepted by the API server and requests no more permissions than necessary.

use serde::Deserialize;
use serde_json::{Value, json};
use tidings_api::SECRET_ACCESS_POLICY;

use crate::cluster::{cluster, files, namespace, render_chart, root};

pub fn objects(manifests: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(manifests)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

#[tokio::test]
async fn the_chart_is_accepted_by_the_api_server_with_each_set_of_values() {
    let plane = cluster().await;
    let release = namespace(plane, "chart").await;
    for watched in ["shop", "billing"] {
        plane.kubectl(&["create", "namespace", watched]).await.unwrap().ok().unwrap();
    }
    let mut sets = vec![("values.yaml".to_owned(), root().join("charts/tidings/values.yaml"))];
    for (name, _) in files("charts/tidings/ci") {
        let path = root().join("charts/tidings/ci").join(&name);
        sets.push((name, path));
    }
    for (name, path) in sets {
        let chart =
            render_chart(&release, &["--values", path.to_str().unwrap(), "--set", "crds.install=false"]).unwrap();
        let args = ["--server-side", "--force-conflicts", "--validate=strict"];
        let applied = plane.admin().apply(&chart, &args).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(applied.contains("deployment.apps/"), "{name}: {applied}");
    }
}

#[test]
fn named_namespaces_need_no_cluster_role_and_get_one_role_each() {
    let objects =
        objects(&render_chart("tidings", &["--set", "watchNamespaces={a,b}", "--set", "crds.install=false"]).unwrap());
    assert!(of_kind(&objects, "ClusterRole").is_empty() && of_kind(&objects, "ClusterRoleBinding").is_empty());
    let roles = of_kind(&objects, "Role");
    let (of_lease, roles): (Vec<_>, Vec<_>) =
        roles.into_iter().partition(|role| role["metadata"]["name"] == "tidings-lease");
    assert_eq!(of_lease.len(), 1);
    assert_eq!(of_lease[0]["metadata"]["namespace"], "tidings");
    let leases = |rule: Value| {
        let mut lease = json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]});
        lease.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        lease
    };
    let own = leases(json!({"resourceNames": ["tidings"], "verbs": ["get", "update"]}));
    assert_eq!(of_lease[0]["rules"], json!([leases(json!({"verbs": ["create"]})), own]));
    let namespaces: Vec<_> = roles.iter().map(|role| role["metadata"]["namespace"].as_str().unwrap()).collect();
    assert_eq!(namespaces, ["a", "b"]);
    for role in roles {
        let rules = role["rules"].as_array().unwrap();
        let (deletes, others): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| rule.to_string().contains("delete"));
        let retention = json!({"apiGroups": ["tidings.dev"], "resources": ["notifications"], "verbs": ["delete"]});
        assert_eq!(deletes, [&retention]);
        let (events, others): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|rule| rule["apiGroups"] == json!(["events.k8s.io"]));
        let announcing = json!({"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]});
        assert_eq!(events, [&announcing]);
        let text = format!("{others:?}");
        for forbidden in ["\"*\"", "create", "update"] {
            assert!(!text.contains(forbidden), "{forbidden} in {text}");
        }
    }
}

#[test]
fn the_container_has_no_rights_it_does_not_need() {
    let objects = objects(&render_chart("tidings", &[]).unwrap());
    let pod = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"];
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
}

#[test]
fn the_program_accepts_the_arguments_of_the_chart() {
    use clap::Parser;
    for (name, _) in files("charts/tidings/ci") {
        let path = root().join("charts/tidings/ci").join(&name);
        let objects = objects(&render_chart("tidings", &["--values", path.to_str().unwrap()]).unwrap());
        let container = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
        let args = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
        tidings::cli::Cli::try_parse_from(["tidings"].into_iter().chain(args))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn s20_access_to_secrets_is_checked_unless_secrets_consent_themselves() {
    let cases: [(&[&str], bool); 6] = [
        (&[], true),
        (&["requireSecretConsent=true"], false),
        (&["requireSecretConsent=true", "crds.secretAccessPolicy=Always"], true),
        (&["crds.secretAccessPolicy=Never"], false),
        (&["crds.install=false"], false),
        (&["crds.install=false", "crds.secretAccessPolicy=Always"], false),
    ];
    for (values, checked) in cases {
        let args: Vec<_> = values.iter().flat_map(|value| ["--set", value]).collect();
        let objects = objects(&render_chart("tidings", &args).unwrap());
        for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
            let of_kind = of_kind(&objects, kind);
            let found = of_kind.iter().find(|object| object["metadata"]["name"] == SECRET_ACCESS_POLICY);
            assert_eq!(found.is_some(), checked, "{values:?}");
            // An upgrade with other values removes the policy again; the definitions stay.
            assert!(found.is_none_or(|object| object["metadata"]["annotations"].is_null()), "{values:?}");
        }
        let kept = objects.iter().filter(|object| !object["metadata"]["annotations"].is_null()).count();
        assert_eq!(kept, if values.contains(&"crds.install=false") { 0 } else { 4 }, "{values:?}");
    }
}

#[test]
fn s20_the_notes_say_what_guards_the_secrets() {
    let (consent, policy) =
        ("requireSecretConsent is true", "subscriber-secrets.tidings.dev (crds.secretAccessPolicy)");
    let (unguarded, elsewhere) = ("WARNING: requireSecretConsent is false", "make sure that the admission policy");
    let cases: [(&str, &[&str]); 5] = [
        ("requireSecretConsent=false", &[policy]),
        ("requireSecretConsent=true", &[consent]),
        ("requireSecretConsent=true,crds.secretAccessPolicy=Always", &[consent, policy]),
        ("crds.secretAccessPolicy=Never", &[unguarded]),
        ("crds.install=false", &[elsewhere]),
    ];
    for (values, expected) in cases {
        let notes = testkit::chart::notes("tidings", &["--set", values]).unwrap();
        for text in [consent, policy, unguarded, elsewhere] {
            assert_eq!(notes.contains(text), expected.contains(&text), "{values}: {text}: {notes}");
        }
    }
}

#[test]
fn bad_values_are_refused_with_their_name() {
    for (value, expected) in [
        ("watchNamespaces=shop", "watchNamespaces"),
        ("replicas=0", "replicas"),
        ("replica=2", "replica"),
        ("log.level=loud", "log"),
        ("generatedTTL=7d", "generatedTTL"),
        ("crds.secretAccessPolicy=true", "secretAccessPolicy"),
        ("egress.allowHosts={10.0.0.1}", "allowHosts"),
        ("egress.allowHosts={https://example.com}", "allowHosts"),
        ("egress.denyCIDRs={10.0.0.0}", "denyCIDRs"),
        ("egress.allowPorts={0}", "allowPorts"),
        ("egress.nat64Prefixes={10.0.0.0/8}", "nat64Prefixes"),
        ("egress.proxy.url=proxy.example.com:3128", "url"),
        ("egress.proxy.url=http://user:password@proxy.example.com", "url"),
        ("egress.proxy.noProxy={*}", "noProxy"),
        ("egress.proxy.resolves=true", "url"),
        ("egress.proxy.credentialsSecretName=login", "url"),
        ("egress.proxy.credentialsSecretName=Login,egress.proxy.url=http://a", "credentialsSecretName"),
        ("dns.clusterDomain=", "clusterDomain"),
        ("dns.servers={kube-dns}", "servers"),
    ] {
        let refusal = render_chart("tidings", &["--set", value]).unwrap_err();
        assert!(refusal.contains(expected), "{value}: {refusal}");
    }
}

#[test]
fn the_files_of_the_proxy_are_mounted_where_the_flags_say() {
    let pod = |values: &[&str]| {
        let args: Vec<_> = values.iter().flat_map(|value| ["--set", value]).collect();
        let objects = objects(&render_chart("tidings", &args).unwrap());
        of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"].clone()
    };
    let none = pod(&[]);
    assert!(none.get("volumes").is_none() && none["containers"][0].get("volumeMounts").is_none(), "{none}");
    let all = pod(&[
        "egress.proxy.url=https://proxy.example.com",
        "egress.proxy.credentialsSecretName=login",
        "egress.proxy.caConfigMapName=ca",
        "extraVolumes[0].name=own",
        "extraVolumeMounts[0].name=own,extraVolumeMounts[0].mountPath=/own",
    ]);
    let (container, volumes) = (&all["containers"][0], all["volumes"].as_array().unwrap());
    for (name, flag, source) in [
        ("proxy-credentials", "--egress-proxy-credentials-file=", json!({"secretName": "login"})),
        ("proxy-ca", "--egress-proxy-ca-file=", json!({"name": "ca"})),
    ] {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["name"] == name).unwrap();
        let args = container["args"].as_array().unwrap();
        let file = args.iter().find_map(|arg| arg.as_str().unwrap().strip_prefix(flag)).unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == name).unwrap();
        let content = volume.get("secret").or(volume.get("configMap")).unwrap();
        let item = content["items"][0]["path"].as_str().unwrap();
        assert_eq!(file, format!("{}/{item}", mount["mountPath"].as_str().unwrap()), "{flag}");
        assert_eq!(mount["readOnly"], true, "{name}");
        for (key, value) in source.as_object().unwrap() {
            assert_eq!(content[key], *value, "{name}");
        }
    }
    assert_eq!(volumes.len(), 3, "{volumes:?}");
}

#[test]
fn field_25_user_and_group_are_unset_where_the_platform_assigns_them() {
    let pod_security = |sets: &[&str]| {
        let objects = objects(&render_chart("tidings", sets).unwrap());
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        deployment["spec"]["template"]["spec"]["securityContext"].clone()
    };
    let usual = pod_security(&[]);
    assert_eq!((&usual["runAsUser"], &usual["runAsGroup"]), (&65532.into(), &65532.into()));
    let assigned = pod_security(&["--set", "runAsUser=null", "--set", "runAsGroup=null"]);
    assert!(assigned.get("runAsUser").is_none() && assigned.get("runAsGroup").is_none(), "{assigned}");
    assert_eq!(assigned["runAsNonRoot"], true);
    assert_eq!(pod_security(&["--set", "runAsUser=1000660000"])["runAsUser"], 1_000_660_000);
    assert!(render_chart("tidings", &["--set", "runAsUser=0"]).is_err(), "root is refused");
}
