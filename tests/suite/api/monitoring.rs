//! The chart installs what Prometheus Operator and Grafana read, where values request it.

use std::fs;

use serde_json::{Value, json};

use crate::{
    api::chart::{objects, of_kind},
    cluster::{render_chart, root},
};

const KINDS: [&str; 3] = ["PodMonitor", "ServiceMonitor", "PrometheusRule"];

fn rendered(values: &[&str]) -> Vec<Value> {
    let args: Vec<_> = values.iter().flat_map(|value| ["--set", value]).collect();
    objects(&render_chart("events", &args).unwrap())
}

/// The only object of a kind.
fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

/// Whether an object with these labels matches the selector.
fn matches(selector: &Value, labels: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object().unwrap();
    !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value)
}

#[test]
fn each_object_for_monitoring_is_installed_only_where_a_value_requests_it() {
    let of_monitoring = |objects: &[Value]| {
        let found = objects.iter().filter(|object| KINDS.contains(&object["kind"].as_str().unwrap()));
        let mut found: Vec<_> = found.map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
        found.extend(of_kind(objects, "ConfigMap").iter().map(|_| "ConfigMap".to_owned()));
        found.join(" ")
    };
    for (values, kinds) in [
        (&[][..], ""),
        (&["metrics.service.enabled=true"], ""),
        (&["metrics.podMonitor.enabled=true"], "PodMonitor"),
        (&["metrics.service.enabled=true", "metrics.serviceMonitor.enabled=true"], "ServiceMonitor"),
        (&["metrics.prometheusRule.enabled=true"], "PrometheusRule"),
        (&["metrics.dashboard.enabled=true"], "ConfigMap"),
    ] {
        assert_eq!(of_monitoring(&rendered(values)), kinds, "{values:?}");
    }
}

#[test]
fn the_pod_monitor_selects_the_pods_and_their_port_for_metrics() {
    let objects = rendered(&["metrics.podMonitor.enabled=true", "metrics.podMonitor.labels.release=prometheus"]);
    let (monitor, pod) = (only(&objects, "PodMonitor"), &only(&objects, "Deployment")["spec"]["template"]);
    assert!(matches(&monitor["spec"]["selector"], &pod["metadata"]["labels"]), "{monitor}");
    assert_eq!(monitor["metadata"]["namespace"], only(&objects, "Deployment")["metadata"]["namespace"]);
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["name"] == endpoint["port"]).unwrap();
    assert_eq!(port["containerPort"], 8080, "the port of --admin-addr");
    // The alerts group by the job, and name the namespace of the Subscriber.
    assert_eq!(endpoint["honorLabels"], true);
    assert_eq!(endpoint["relabelings"], json!([{"targetLabel": "job", "replacement": "events/tidings"}]));
    assert!(endpoint.get("interval").is_none());
}

#[test]
fn the_service_monitor_selects_the_service_and_its_port() {
    let objects = rendered(&[
        "metrics.service.enabled=true",
        "metrics.serviceMonitor.enabled=true",
        "metrics.serviceMonitor.interval=15s",
    ]);
    let (monitor, service) = (only(&objects, "ServiceMonitor"), only(&objects, "Service"));
    assert!(matches(&monitor["spec"]["selector"], &service["metadata"]["labels"]), "{monitor}");
    let endpoint = &monitor["spec"]["endpoints"][0];
    let port = &service["spec"]["ports"][0];
    assert_eq!((&endpoint["port"], &port["targetPort"]), (&port["name"], &json!("admin")));
    assert_eq!((&endpoint["honorLabels"], &endpoint["interval"]), (&json!(true), &json!("15s")));
    assert_eq!(endpoint["relabelings"], json!([{"targetLabel": "job", "replacement": "events/tidings"}]));
}

#[test]
fn the_prometheus_rule_has_the_rules_of_the_file_with_the_changes_that_values_request() {
    let file = fs::read_to_string(root().join("charts/tidings/files/alerts.yaml")).unwrap();
    let file: Value = serde_yaml::from_str(&file).unwrap();
    let usual = objects(&render_chart("tidings-system", &["--set", "metrics.prometheusRule.enabled=true"]).unwrap());
    assert_eq!(only(&usual, "PrometheusRule")["spec"], file, "without values, the rules are those of the file");

    let changed = rendered(&[
        "metrics.prometheusRule.enabled=true",
        "metrics.prometheusRule.disabled={TidingsCircuitOpen}",
        "metrics.prometheusRule.alertLabels.team=platform",
        "metrics.prometheusRule.runbookURL=https://wiki.example.com/runbook",
        "metrics.prometheusRule.storedNotificationsLimit=4000000",
    ]);
    let rules = only(&changed, "PrometheusRule")["spec"]["groups"][0]["rules"].as_array().unwrap().clone();
    let mut expected: Vec<_> = file["groups"][0]["rules"].as_array().unwrap().clone();
    expected.retain(|rule| rule["alert"] != "TidingsCircuitOpen");
    assert_eq!(rules.len() + 1, file["groups"][0]["rules"].as_array().unwrap().len());
    for (rule, mut of_file) in rules.into_iter().zip(expected) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let url =
            text(&of_file["annotations"]["runbook_url"]).replace("docs/runbook.md", "https://wiki.example.com/runbook");
        of_file["annotations"]["runbook_url"] = url.into();
        of_file["labels"]["team"] = "platform".into();
        let expr = text(&of_file["expr"]).replace("200000", "4000000");
        of_file["expr"] = expr.replace("\"tidings-system/tidings\"", "\"events/tidings\"").into();
        assert_eq!(rule, of_file);
    }
    let limit = |objects: &[Value]| only(objects, "PrometheusRule").to_string().matches("200000").count();
    assert_eq!((limit(&usual), limit(&changed)), (3, 0), "the limit is where the chart replaces it, and nowhere else");
}

#[test]
fn the_alert_for_a_missing_leader_names_the_job_that_the_monitor_of_the_release_sets() {
    for more in ["", "fullnameOverride=relay"] {
        let objects = rendered(&["metrics.podMonitor.enabled=true", "metrics.prometheusRule.enabled=true", more]);
        let endpoint = &only(&objects, "PodMonitor")["spec"]["podMetricsEndpoints"][0];
        let job = endpoint["relabelings"][0]["replacement"].as_str().unwrap();
        let rules = only(&objects, "PrometheusRule")["spec"]["groups"][0]["rules"].as_array().unwrap();
        let rule = rules.iter().find(|rule| rule["alert"] == "TidingsLeaderMissing").unwrap();
        let absent = format!("absent(tidings_leading{{job=\"{job}\"}})");
        assert!(rule["expr"].as_str().unwrap().contains(&absent), "{job}: {rule}");
        assert!(!rule.to_string().contains("tidings-system"), "{rule}");
    }
}

#[test]
fn the_dashboard_is_the_file_with_the_label_that_the_sidecar_of_grafana_expects() {
    let file = fs::read_to_string(root().join("charts/tidings/files/dashboard.json")).unwrap();
    let objects = rendered(&["metrics.dashboard.enabled=true", "metrics.dashboard.annotations.grafana_folder=Tidings"]);
    let dashboard = only(&objects, "ConfigMap");
    assert_eq!(dashboard["data"]["tidings.json"], file.trim());
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(dashboard["metadata"]["annotations"], json!({"grafana_folder": "Tidings"}));
}

#[test]
fn bad_values_for_monitoring_are_refused_with_their_name() {
    for (values, expected) in [
        ("metrics.serviceMonitor.enabled=true", "metrics.service.enabled"),
        (
            "metrics.service.enabled=true,metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true",
            "metrics.podMonitor.enabled",
        ),
        ("metrics.podMonitor.interval=often", "interval"),
        ("metrics.prometheusRule.enabled=true,metrics.prometheusRule.disabled={TidingsNone}", "TidingsNone"),
        ("metrics.prometheusRule.storedNotificationsLimit=many", "storedNotificationsLimit"),
        ("metrics.prometheusRule.runbookURL=https://a/#b", "runbookURL"),
        ("metrics.dashboard.labels=a", "labels"),
    ] {
        let refusal = render_chart("tidings", &["--set", values]).unwrap_err();
        assert!(refusal.contains(expected), "{values}: {refusal}");
    }
}
