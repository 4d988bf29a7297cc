//! The alerting rules and the dashboard agree with the metrics, the runbook and the report of `make verify`. Prometheus
//! itself evaluates them only in `make verify`.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::cluster::root;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn alerts() -> Vec<Value> {
    let rules: Value = serde_yaml::from_str(&read("charts/tidings/files/alerts.yaml")).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let alerts: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
    assert!(alerts.len() >= 12, "{} alerts", alerts.len());
    alerts
}

/// The panels of the dashboard, without rows.
fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read("charts/tidings/files/dashboard.json")).unwrap();
    let mut panels = dashboard["panels"].as_array().unwrap().clone();
    panels.retain(|panel| panel["type"] != "row");
    assert!(panels.len() >= 20, "{} panels", panels.len());
    panels
}

fn name(alert: &Value) -> &str {
    alert["alert"].as_str().unwrap()
}

/// The metrics that a text names: words that start with `tidings_` or `process_`.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named = words.filter(|word| word.starts_with("tidings_") || word.starts_with("process_"));
    // The parts of a histogram.
    let base =
        |word: &str| ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end).map(str::to_owned));
    named.map(|word| base(word).unwrap_or_else(|| word.to_owned())).collect()
}

/// The metrics that the pages document, in code: `` `tidings_attempts_total{reason}` ``.
fn documented() -> BTreeSet<String> {
    let tables = ["docs/metrics.md"].map(read).concat();
    tables.split('`').skip(1).step_by(2).flat_map(metrics).collect()
}

fn expressions() -> Vec<(String, String)> {
    let of_alerts =
        alerts().into_iter().map(|alert| (name(&alert).to_owned(), alert["expr"].as_str().unwrap().to_owned()));
    let of_panels = panels().into_iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().clone();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    });
    of_alerts.chain(of_panels).collect()
}

#[test]
fn each_metric_of_an_alert_or_a_panel_is_documented() {
    let documented = documented();
    assert!(documented.contains("tidings_attempts_total") && documented.len() >= 30, "{documented:?}");
    for (of, expression) in expressions() {
        let used = metrics(&expression);
        assert!(!used.is_empty(), "{of}: {expression}");
        let unknown: Vec<_> = used.difference(&documented).collect();
        assert!(unknown.is_empty(), "{of}: no page documents {unknown:?}");
    }
}

#[test]
fn each_alert_has_a_time_a_severity_texts_a_unit_test_and_an_entry_in_the_runbook() {
    let (runbook, unit_tests, report) =
        (read("docs/runbook.md"), read("tests/alerts/alerts.yaml"), read("docs/verify.md"));
    let alerts = alerts();
    for alert in &alerts {
        let name = name(alert);
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{name}: {alert}")).to_owned();
        assert!(name.starts_with("Tidings"), "{name}");
        assert!(text(&alert["for"]).ends_with(['m', 'h']), "{name}");
        assert!(["critical", "warning"].contains(&text(&alert["labels"]["severity"]).as_str()), "{name}");
        assert!(text(&alert["annotations"]["summary"]).len() < 100, "{name}");
        assert!(text(&alert["annotations"]["description"]).contains("{{ $labels.job }}"), "{name}");
        let anchor = name.to_lowercase();
        assert_eq!(text(&alert["annotations"]["runbook_url"]), format!("docs/runbook.md#{anchor}"), "{name}");
        assert!(runbook.contains(&format!("\n## {name}\n")), "docs/runbook.md has no entry for {name}");
        assert!(unit_tests.contains(&format!("\n  - name: {name}")), "tests/alerts/alerts.yaml has no test of {name}");
        assert!(report.contains(&format!("| `{name}` |")), "{name} did not fire for docs/verify.md: run make verify");
    }
    let names: Vec<_> = alerts.iter().map(name).collect();
    for heading in runbook.lines().filter_map(|line| line.strip_prefix("## Tidings")) {
        assert!(names.contains(&format!("Tidings{heading}").as_str()), "docs/runbook.md: no alert Tidings{heading}");
    }
}

#[test]
fn each_entry_of_the_runbook_says_what_the_alert_means_and_where_to_look() {
    for entry in read("docs/runbook.md").split("\n## ").skip(1) {
        let (name, text) = entry.split_once('\n').unwrap();
        for part in ["**Meaning.**", "**Look first.**", "```sh\n"] {
            assert!(text.contains(part), "{name}: {part}");
        }
        assert!(
            text.contains("what to do") || text.contains("What to do.") || text.contains("what to do.**"),
            "{name}"
        );
    }
}

#[test]
fn each_panel_has_a_title_of_its_own_a_place_and_a_picture_from_make_verify() {
    let (page, mut titles, mut ids) = (read("docs/dashboard.md"), BTreeSet::new(), BTreeSet::new());
    for panel in panels() {
        let title = panel["title"].as_str().unwrap().to_owned();
        assert!(titles.insert(title.clone()), "two panels {title}");
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{title}: the id");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}: the description");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let place = &panel["gridPos"];
        assert!(place["x"].as_i64().unwrap() + place["w"].as_i64().unwrap() <= 24, "{title}: {place}");
        assert!(
            page.contains(&format!("\n## {title}\n")),
            "docs/dashboard.md has no picture of {title}: run make verify"
        );
    }
}

#[test]
fn names_of_metrics_are_found_in_expressions() {
    let found = |text: &str| metrics(text).into_iter().collect::<Vec<_>>();
    assert_eq!(
        found("sum(rate(tidings_a_seconds_bucket{le=\"x_tidings\"}[5m])) / process_b"),
        ["process_b", "tidings_a_seconds"]
    );
    assert!(found("ALERTS{alertname=\"TidingsA\"}").is_empty());
}
