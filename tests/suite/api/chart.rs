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
    for watched in ["shop", "billing"] {
        plane.kubectl(&["create", "namespace", watched]).await.unwrap().ok().unwrap();
    }
    for (name, _) in files("charts/tidings/ci") {
        let release = namespace(plane, "chart").await;
        let path = root().join("charts/tidings/ci").join(&name);
        let mut chart = objects(
            &render_chart(&release, &["--values", path.to_str().unwrap(), "--set", "crds.install=false"]).unwrap(),
        );
        // Kinds of Prometheus Operator, which this API server does not serve: `make lint-chart` checks their schemas.
        chart.retain(|object| object["apiVersion"] != "monitoring.coreos.com/v1");
        let chart = json!({"apiVersion": "v1", "kind": "List", "items": chart}).to_string();
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
fn s27_tokens_may_be_created_of_the_named_service_accounts_alone_and_of_none_by_default() {
    let namespaces = "watchNamespaces={a,b}";
    let named = "serviceAccountTokens.a={robot,robot.v2}";
    let tokens = |args: &[&str]| {
        let args: Vec<_> = args.iter().flat_map(|value| ["--set", value]).collect();
        let rendered = render_chart("tidings", &args).unwrap();
        let objects = objects(&rendered);
        let about = |object: &&Value| object["rules"].to_string().contains("serviceaccounts");
        objects.iter().filter(about).cloned().collect::<Vec<_>>()
    };
    for none in [&[][..], &[namespaces]] {
        assert!(tokens(none).is_empty());
    }
    for values in [&[named][..], &[namespaces, named]] {
        let roles = tokens(values);
        assert_eq!(roles.len(), 1, "{roles:?}");
        assert_eq!((&roles[0]["kind"], &roles[0]["metadata"]["namespace"]), (&"Role".into(), &"a".into()));
        let rule = |resource: &str, verb: &str| json!({"apiGroups": [""], "resources": [resource], "resourceNames": ["robot", "robot.v2"], "verbs": [verb]});
        assert_eq!(roles[0]["rules"], json!([rule("serviceaccounts", "get"), rule("serviceaccounts/token", "create")]));
    }
}

#[test]
fn s27_an_empty_list_of_service_accounts_permits_none_instead_of_all() {
    // The schema of the values refuses it first, unless the schema is skipped.
    for list in ["[]", "null"] {
        let value = format!("serviceAccountTokens={{\"a\": {list}, \"b\": [\"robot\"]}}");
        let rendered = render_chart("tidings", &["--skip-schema-validation", "--set-json", &value]);
        let fault = rendered.map(|objects| objects.matches("serviceaccounts").count()).unwrap_err().to_string();
        assert!(list == "null" || fault.contains("serviceAccountTokens.a: the list is empty"), "{fault}");
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
fn every_flag_of_the_program_is_a_value_of_the_chart() {
    use clap::CommandFactory;
    let command = tidings::cli::Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let values = root().join("charts/tidings/ci/cluster-values.yaml");
    let all = ["--values", values.to_str().unwrap(), "--set", "watchNamespaces={shop}"];
    let objects = objects(&render_chart("tidings", &all).unwrap());
    let args = &of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"];
    let set: Vec<_> = args.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    let flags: Vec<_> = run.get_arguments().filter_map(|arg| arg.get_long()).filter(|flag| *flag != "help").collect();
    assert!(flags.len() > 20, "{flags:?}");
    for flag in flags {
        let flag = format!("--{flag}");
        assert!(
            set.iter().any(|arg| arg.split('=').next() == Some(&flag)),
            "no value of the chart sets {flag}: {set:?}"
        );
    }
}

#[test]
fn an_image_is_required_with_what_to_do() {
    let refusal = render_chart("tidings", &["--set", "image.repository="]).unwrap_err();
    assert!(refusal.contains("image.repository is not set: build the image"), "{refusal}");
}

#[test]
fn a_drain_leaves_a_replica_and_replicas_spread() {
    let objects = objects(&render_chart("tidings", &[]).unwrap());
    let deployment = of_kind(&objects, "Deployment")[0];
    let pods = &deployment["spec"]["selector"]["matchLabels"];
    let budget = of_kind(&objects, "PodDisruptionBudget")[0];
    assert_eq!(budget["spec"]["selector"]["matchLabels"], *pods);
    assert_eq!(budget["spec"]["maxUnavailable"], 1, "a single replica can be drained, too");
    let pod = &deployment["spec"]["template"]["spec"];
    let spread = pod["topologySpreadConstraints"].as_array().unwrap();
    let keys: Vec<_> = spread.iter().map(|of| of["topologyKey"].as_str().unwrap()).collect();
    assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
    for of in spread {
        assert_eq!((&of["labelSelector"]["matchLabels"], &of["whenUnsatisfiable"]), (pods, &json!("ScheduleAnyway")));
    }
    assert_eq!(pod["enableServiceLinks"], false);
}

#[test]
fn the_network_policy_lets_through_what_the_operator_needs_and_no_more() {
    let policy = |values: &[&str]| {
        let sets = ["networkPolicy.enabled=true"].iter().chain(values).flat_map(|value| ["--set", value]);
        let objects = objects(&render_chart("tidings", &sets.collect::<Vec<_>>()).unwrap());
        of_kind(&objects, "NetworkPolicy")[0]["spec"].clone()
    };
    let ports = |rule: &Value| {
        let ports = rule["ports"].as_array().unwrap().iter();
        ports.map(|port| format!("{} {}", port["protocol"].as_str().unwrap(), port["port"])).collect::<Vec<_>>()
    };
    let usual = policy(&[]);
    assert_eq!(usual["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(usual["ingress"], json!([{"ports": [{"protocol": "TCP", "port": "health"}]}]));
    let egress = usual["egress"].as_array().unwrap();
    assert_eq!(egress.len(), 2);
    assert_eq!(ports(&egress[0]), ["UDP 53", "TCP 53", "UDP 5353", "TCP 5353"]);
    assert_eq!(
        (ports(&egress[1]), &egress[1]["to"]),
        (vec!["TCP 443".to_owned(), "TCP 6443".to_owned()], &Value::Null)
    );
    let scraped = policy(&["networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus"]);
    let from = json!([{"podSelector": {"matchLabels": {"app": "prometheus"}}}]);
    assert_eq!(
        (&scraped["ingress"][1]["from"], ports(&scraped["ingress"][1])),
        (&from, vec!["TCP \"admin\"".to_owned()])
    );
    let special = policy(&[
        "dns.servers={10.96.0.10,10.96.0.11:5353,[fd00::a]:5454,fd00::53}",
        "egress.allowPorts={8443}",
        "networkPolicy.apiServerPorts={6444}",
        "networkPolicy.allowCIDRs={10.0.0.0/8}",
        "egress.proxy.url=http://proxy.example.com:3128/",
        "egress.proxy.noProxy={.svc}",
    ]);
    let egress = special["egress"].as_array().unwrap();
    assert_eq!(ports(&egress[0]), ["UDP 53", "TCP 53", "UDP 5353", "TCP 5353", "UDP 5454", "TCP 5454"]);
    assert_eq!(
        (ports(&egress[1]), &egress[1]["to"]),
        (vec!["TCP 8443".to_owned(), "TCP 6444".to_owned()], &json!([{"ipBlock": {"cidr": "10.0.0.0/8"}}]))
    );
    assert_eq!(ports(&egress[2]), ["TCP 3128"]);
    for (url, port) in [
        ("http://proxy.example.com", "TCP 80"),
        ("https://[fd00::1]/", "TCP 443"),
        ("https://[fd00::1]:8443", "TCP 8443"),
    ] {
        let spec = policy(&[&format!("egress.proxy.url={url}"), "networkPolicy.apiServerPorts={6444}"]);
        assert_eq!(ports(&spec["egress"][1]), ["TCP 6444"], "only the API server");
        assert_eq!(ports(&spec["egress"][2]), [port], "{url}");
    }
    for (url, port) in [
        ("http://collector.monitoring.svc:4317", "TCP 4317"),
        ("https://collector.example.com/otlp", "TCP 443"),
        ("http://[fd00::1]", "TCP 80"),
    ] {
        let spec = policy(&[&format!("tracing.endpoint={url}")]);
        assert_eq!(ports(&spec["egress"][2]), [port], "{url}");
    }
}

#[test]
fn the_roles_of_kubernetes_know_the_objects_of_tidings() {
    let objects = objects(&render_chart("tidings", &[]).unwrap());
    let role = |name: &str| {
        let roles = of_kind(&objects, "ClusterRole");
        roles.into_iter().find(|role| role["metadata"]["name"] == name).unwrap_or_else(|| panic!("{name}"))
    };
    let aggregates = |role: &Value, to: &str| {
        role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{to}")] == "true"
    };
    let (view, edit) = (role("tidings-view"), role("tidings-edit"));
    assert!(["view", "edit", "admin"].iter().all(|to| aggregates(view, to)));
    assert!(["edit", "admin"].iter().all(|to| aggregates(edit, to)) && !aggregates(edit, "view"));
    assert_eq!(view["rules"][0]["verbs"], json!(["get", "list", "watch"]));
    for rule in [&view["rules"], &edit["rules"]] {
        assert_eq!(rule[0]["resources"], json!(["subscribers", "notifications"]), "never the status");
    }
}

#[test]
fn long_names_and_names_with_dots_give_each_object_a_name_of_its_own() {
    let sets = "watchNamespaces={tidings},metrics.service.enabled=true,policies.allowedHosts.enabled=true,policies.requireHandshake=true";
    for name in ["a".repeat(63), "a".repeat(62), format!("{}-b", "a".repeat(55)), "my.release".to_owned()] {
        let set = format!("{sets},fullnameOverride={name}");
        let objects = objects(&render_chart("tidings", &["--set", &set]).unwrap());
        let mut seen = std::collections::BTreeSet::new();
        for object in &objects {
            let (kind, of) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
            let is_cluster_wide = object["kind"] == "CustomResourceDefinition";
            assert!(is_cluster_wide || of.len() <= 63 && !of.ends_with('-'), "{kind} {of}");
            assert!(kind != "Service" || !of.contains('.'), "{of}");
            let namespace = object["metadata"]["namespace"].to_string();
            assert!(seen.insert((kind.to_owned(), namespace, of.to_owned())), "{kind} {of} is there twice");
        }
    }
}

#[test]
fn additional_objects_are_templates() {
    let set =
        r#"extraObjects=[{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-a"}}]"#;
    let objects = objects(&render_chart("tidings", &["--set-json", set]).unwrap());
    assert_eq!(of_kind(&objects, "ConfigMap")[0]["metadata"]["name"], "tidings-a");
    assert!(render_chart("tidings", &["--set", "extraObjects[0].kind=ConfigMap"]).unwrap_err().contains("apiVersion"));
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
        let is_kept = |object: &&Value| object["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep";
        let kept = objects.iter().filter(is_kept).count();
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
        ("serviceAccountTokens.shop={*}", "serviceAccountTokens"),
        ("serviceAccountTokens.shop=robot", "serviceAccountTokens"),
        ("serviceAccountTokens={shop}", "serviceAccountTokens"),
        ("serviceAccountTokens.Shop={robot}", "Shop"),
        ("watchNamespaces={billing},serviceAccountTokens.shop={robot}", "serviceAccountTokens.shop"),
        ("tracing.endpoint=collector:4317", "endpoint"),
        ("tracing.endpoint=http://user:password@collector", "endpoint"),
        ("tracing.protocol=http", "protocol"),
        ("tracing.sampling=2", "sampling"),
        ("tracing.caConfigMapName=ca,tracing.endpoint=http://collector", "endpoint"),
        ("dns.clusterDomain=", "clusterDomain"),
        ("dns.servers={kube-dns}", "servers"),
        ("dnsPolicy=Cluster", "dnsPolicy"),
        ("limits.maxInFlight=0", "maxInFlight"),
        ("limits.eventMemoryMiB=4", "eventMemoryMiB"),
        ("limits.workerThreads=-1", "workerThreads"),
        ("networkPolicy.allowCIDRs={10.0.0.0}", "allowCIDRs"),
        ("networkPolicy.apiServerPorts={0}", "apiServerPorts"),
        ("networkPolicy.dnsPorts={}", "dnsPorts"),
        ("admin.port=8081", "health.port"),
        ("podDisruptionBudget.enabled=yes", "podDisruptionBudget"),
        ("metrics.subscribers.enabled=some", "enabled"),
        ("metrics.subscribers.limit=0", "limit"),
    ] {
        let refusal = render_chart("tidings", &["--set", value]).unwrap_err();
        assert!(refusal.contains(expected), "{value}: {refusal}");
    }
}

#[test]
fn the_files_of_the_proxy_and_the_collector_are_mounted_where_the_flags_say() {
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
        "tracing.endpoint=https://collector",
        "tracing.caConfigMapName=collector-ca",
        "extraVolumes[0].name=own",
        "extraVolumeMounts[0].name=own,extraVolumeMounts[0].mountPath=/own",
    ]);
    let (container, volumes) = (&all["containers"][0], all["volumes"].as_array().unwrap());
    for (name, flag, source) in [
        ("proxy-credentials", "--egress-proxy-credentials-file=", json!({"secretName": "login"})),
        ("proxy-ca", "--egress-proxy-ca-file=", json!({"name": "ca"})),
        ("otlp-ca", "--otlp-ca-file=", json!({"name": "collector-ca"})),
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
    assert_eq!(volumes.len(), 4, "{volumes:?}");
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
    let empty = pod_security(&["--set", "runAsUser=,runAsGroup="]);
    assert!(empty.get("runAsUser").is_none() && empty.get("runAsGroup").is_none(), "{empty}");
    let assigned = pod_security(&["--set", "runAsUser=null", "--set", "runAsGroup=null"]);
    assert!(assigned.get("runAsUser").is_none() && assigned.get("runAsGroup").is_none(), "{assigned}");
    assert_eq!(assigned["runAsNonRoot"], true);
    assert_eq!(pod_security(&["--set", "runAsUser=1000660000"])["runAsUser"], 1_000_660_000);
    assert!(render_chart("tidings", &["--set", "runAsUser=0"]).is_err(), "root is refused");
}
