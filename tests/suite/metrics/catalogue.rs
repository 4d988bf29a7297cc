//! `docs/metrics.md` lists exactly the metrics that an operator serves, with their types, labels and values.

use std::collections::{BTreeMap, BTreeSet};

use http::header::{ACCEPT, CONTENT_TYPE};
use testkit::Operator;
use tidings_api::{AttemptReason, SubscriberReason};

use super::{
    exposition::{Scrape, labels},
    until_at_least,
};
use crate::world::{CLIENT, World};

/// A metric as the page describes it.
struct Described {
    kind: String,
    /// The values of each label (None: any).
    labels: BTreeMap<String, Option<BTreeSet<String>>>,
}

/// Reads the tables of the page: the name, the type, and the labels with their values.
fn described() -> BTreeMap<String, Described> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let metric = |row: &str| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, _] = cells[..] else { panic!("{row}") };
        let labels = labels.split("; ").filter(|label| *label != "none").map(label).collect();
        (name.trim_matches('`').to_owned(), Described { kind: kind.to_owned(), labels })
    };
    rows.map(metric).collect()
}

/// Reads a label: `` `name`: `value`, `value` ``, or a catalogue, or what any value is.
fn label(text: &str) -> (String, Option<BTreeSet<String>>) {
    let (name, values) = text.split_once(": ").unwrap_or_else(|| panic!("{text}"));
    let values: Option<BTreeSet<_>> = if values.contains("reasons of an attempt") {
        Some(AttemptReason::ALL.iter().map(ToString::to_string).collect())
    } else if values.contains("reasons of a Subscriber") {
        let known = SubscriberReason::ALL.iter().map(ToString::to_string);
        Some(known.chain(["Other".to_owned()]).collect())
    } else if values.starts_with('`') {
        Some(values.split(", ").map(|value| value.trim_matches('`').to_owned()).collect())
    } else {
        None
    };
    (name.trim_matches('`').to_owned(), values)
}

async fn scrape(operator: &Operator, accept: Option<&str>) -> (String, String) {
    let client = reqwest::Client::new();
    let request = client.get(format!("http://{}/metrics", operator.admin_address()));
    let request = accept.into_iter().fold(request, |request, accept| request.header(ACCEPT, accept));
    let response = request.send().await.unwrap();
    let content_type = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    (content_type, response.text().await.unwrap())
}

#[tokio::test]
async fn the_page_lists_exactly_the_metrics_that_are_served_with_their_types_labels_and_values() {
    let world = World::new("metrics-page").await;
    world.secret(CLIENT.1).await;
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    let operator = world.operator().await;
    world.notifications("n", "shop", 1).await;
    let pending = format!("tidings_subscriber_pending{{namespace=\"{}\",subscriber=\"shop\"}}", world.namespace);
    let scrape = until_at_least(&operator, &[(&pending, 1.0)]).await;
    let described = described();
    let names = |of: &mut dyn Iterator<Item = &String>| of.cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&mut described.keys()), names(&mut scrape.families.keys()));
    for (name, family) in &scrape.families {
        let Described { kind, labels: of_page } = &described[name];
        assert_eq!(*kind, family.kind, "{name}");
        let mut served: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for series in family.series.keys() {
            for (label, value) in labels(series).into_iter().filter(|(label, _)| *label != "le") {
                served.entry(label).or_default().insert(value.to_owned());
            }
        }
        if family.series.is_empty() {
            continue;
        }
        assert_eq!(served.keys().collect::<Vec<_>>(), of_page.keys().collect::<Vec<_>>(), "{name}");
        for (label, values) in served {
            let Some(known) = &of_page[label] else { continue };
            // Of counters, every value is there from the start.
            let is_complete = family.kind == "counter" || *known == values;
            assert!(values.is_subset(known), "{name}, {label}: {values:?}");
            assert!(is_complete || name == "tidings_subscribers", "{name}, {label}: {values:?}");
            assert!(family.kind != "counter" || values == *known, "{name}, {label}: {values:?}");
        }
    }
    assert_eq!(scrape.lint(), [""; 0]);
}

#[tokio::test]
async fn both_formats_are_served_as_the_client_prefers_and_hold_the_same_metrics() {
    let world = World::new("metrics-formats").await;
    let operator = world.operator().await;
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let (plain, open) = ("text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0");
    for (accept, expected) in [
        (None, plain),
        (Some("*/*"), plain),
        (Some("text/plain;version=0.0.4"), plain),
        (Some("application/json"), plain),
        (Some("application/openmetrics-text; version=1.0.0"), open),
        (Some("application/openmetrics-text;q=0.1,text/plain;q=0.9"), plain),
        (Some(prometheus), open),
    ] {
        let (content_type, text) = scrape(&operator, accept).await;
        assert_eq!(content_type, format!("{expected}; charset=utf-8"), "{accept:?}");
        assert_eq!(text.ends_with("# EOF\n"), expected == open, "{accept:?}");
    }
    let text = Scrape::text(&scrape(&operator, None).await.1);
    let of_open = Scrape::open_metrics(&scrape(&operator, Some(prometheus)).await.1);
    let name = |(name, family): (&String, &super::exposition::Family)| {
        let end = if family.kind == "counter" { "_total" } else { "" };
        (format!("{}{end}", name.trim_end_matches("_total")), family.kind.clone(), family.help.clone())
    };
    let of_text: BTreeSet<_> = text.families.iter().map(name).collect();
    assert_eq!(of_text, of_open.families.iter().map(name).collect());
    assert!(of_text.len() > 40, "{}", of_text.len());
}
