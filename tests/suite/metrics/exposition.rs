//! A strict reader of both formats. It refuses what a Prometheus server would refuse, and what `promtool check metrics`
//! would warn of.

use std::collections::{BTreeMap, BTreeSet};

/// The metrics of one scrape, by name.
#[derive(Debug, Default)]
pub struct Scrape {
    pub families: BTreeMap<String, Family>,
}

/// One metric.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    /// The value of each series, by its name and labels as they are written.
    pub series: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads the text format, version 0.0.4.
    pub fn text(text: &str) -> Self {
        Self::read(text, false)
    }

    /// Reads OpenMetrics, version 1.0.0.
    pub fn open_metrics(text: &str) -> Self {
        let text = text.strip_suffix("# EOF\n").expect("no # EOF at the end");
        Self::read(text, true)
    }

    /// The value of a series, by its name and labels as they are written.
    pub fn value(&self, series: &str) -> Option<f64> {
        self.families.values().find_map(|family| family.series.get(series)).copied()
    }

    fn read(text: &str, is_open: bool) -> Self {
        let (mut scrape, mut current) = (Self::default(), String::new());
        assert!(text.ends_with('\n'), "no line break at the end");
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                assert!(!help.contains(['\\', '"']), "{line}: escapes differ between the formats");
                let family = Family { help: help.to_owned(), ..Family::default() };
                assert!(scrape.families.insert(name.to_owned(), family).is_none(), "{line}: twice");
                current = name.to_owned();
            } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                assert_eq!(name, current, "{line}: not after its HELP");
                let family = scrape.families.get_mut(name).unwrap();
                assert!(family.kind.is_empty() && family.series.is_empty(), "{line}");
                family.kind = kind.to_owned();
            } else if let Some((name, unit)) = line.strip_prefix("# UNIT ").and_then(|rest| rest.split_once(' ')) {
                assert!(is_open && name == current && name.ends_with(&format!("_{unit}")), "{line}");
            } else {
                let family = scrape.families.get_mut(&current).expect("a sample without a family");
                let (series, value) = line.rsplit_once(' ').expect("a sample without a value");
                check_name(series, &current, &family.kind, is_open);
                check_labels(series);
                let value = value.parse().unwrap_or_else(|_| panic!("{line}: not a number"));
                assert!(family.series.insert(series.to_owned(), value).is_none(), "{line}: twice");
            }
        }
        scrape.families.values().filter(|family| family.kind == "histogram").for_each(check_histogram);
        scrape
    }

    /// What `promtool check metrics` would warn of.
    pub fn lint(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, Family { kind, help, .. }) in &self.families {
            let mut fault = |is_fault: bool, what: &str| {
                if is_fault {
                    faults.push(format!("{name}: {what}"));
                }
            };
            let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
            let has = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
            fault(help.is_empty(), "no help text");
            fault((kind == "counter") != name.ends_with("_total"), "counters, and they alone, end with _total");
            fault(kind != "histogram" && ends(&["_count", "_sum", "_bucket"]), "reserved for histograms");
            fault(has(&["counter", "gauge", "histogram", "summary"]), "the type is in the name");
            fault(
                has(&[
                    "ms",
                    "us",
                    "ns",
                    "sec",
                    "s",
                    "m",
                    "h",
                    "d",
                    "b",
                    "kb",
                    "mb",
                    "gb",
                    "milliseconds",
                    "minutes",
                    "hours",
                    "days",
                    "kilobytes",
                    "megabytes",
                ]),
                "not a base unit, or an abbreviation",
            );
            fault(!name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "not snake_case");
        }
        faults
    }
}

/// Whether the name of a sample belongs to its family.
fn check_name(series: &str, family: &str, kind: &str, is_open: bool) {
    let name = series.split('{').next().unwrap();
    let ends: &[&str] = match (kind, is_open) {
        ("counter", true) => &["_total"],
        ("counter" | "gauge", _) => &[""],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        _ => panic!("{series}: of the kind {kind:?}"),
    };
    assert!(ends.iter().any(|end| name.strip_suffix(end) == Some(family)), "{series} is not of {family}");
}

/// Returns the labels of a series.
pub fn labels(series: &str) -> Vec<(&str, &str)> {
    let Some((_, labels)) = series.split_once('{') else { return Vec::new() };
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{series}: no end of its labels"));
    assert!(!labels.is_empty(), "{series}: no labels in the braces");
    let label = |pair: &'_ str| -> (usize, usize) {
        let (name, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("{series}: {pair}"));
        (name.len(), value.len())
    };
    labels
        .strip_suffix('"')
        .unwrap_or_else(|| panic!("{series}: no quote at the end"))
        .split("\",")
        .map(|pair| {
            let (name, _) = label(pair);
            (&pair[..name], &pair[name + 2..])
        })
        .collect()
}

fn check_labels(series: &str) {
    let labels = labels(series);
    let names: BTreeSet<_> = labels.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), labels.len(), "{series}: a label twice");
    for (name, value) in labels {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !name.is_empty(), "{series}");
        assert!(!value.contains(['"', '\\', '\n']), "{series}");
    }
}

/// Buckets grow, and the last one counts everything. The histograms of the operator have no labels.
fn check_histogram(family: &Family) {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    let (mut sum, mut count) = (None, None);
    for (series, value) in &family.series {
        match labels(series)[..] {
            [("le", bound)] => buckets.push((bound.parse().unwrap(), *value)),
            [] if series.ends_with("_sum") => sum = Some(*value),
            [] if series.ends_with("_count") => count = Some(*value),
            _ => panic!("{series}"),
        }
    }
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    assert!(buckets.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1), "{family:?}");
    assert_eq!(buckets.last().map(|(bound, _)| *bound), Some(f64::INFINITY), "{family:?}");
    assert!(sum.is_some() && count == buckets.last().map(|(_, value)| *value), "{family:?}");
}

#[test]
fn the_reader_refuses_what_prometheus_refuses() {
    let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{b=\"c\",d=\"e,f\"} 1\n";
    assert_eq!(Scrape::text(good).value("a_total{b=\"c\",d=\"e,f\"}"), Some(1.0));
    assert!(Scrape::text(good).lint().is_empty());
    for bad in [
        "a 1\n",
        "# HELP a A.\n# TYPE a gauge\na 1",
        "# HELP a A.\n# TYPE a gauge\nb 1\n",
        "# HELP a A.\n# TYPE a gauge\na{} 1\n",
        "# HELP a A.\n# TYPE a gauge\na 1\na 1\n",
        "# HELP a A.\n# TYPE a gauge\na many\n",
        "# HELP a A.\n# TYPE a gauge\na{b=\"c\",b=\"d\"} 1\n",
        "# HELP a A.\n# TYPE a gauge\n# HELP a A.\n# TYPE a gauge\n",
        "# HELP a A.\n# TYPE a info\na 1\n",
        "# HELP a A.\n# TYPE a histogram\na_bucket{le=\"1.0\"} 1\na_sum 1\na_count 1\n",
    ] {
        assert!(std::panic::catch_unwind(|| Scrape::text(bad)).is_err(), "{bad}");
    }
    for (bad, kind) in
        [("a", "counter"), ("a_total", "gauge"), ("a_count", "gauge"), ("a_ms", "gauge"), ("a_gauge", "gauge")]
    {
        assert!(!Scrape::text(&format!("# HELP {bad} A.\n# TYPE {bad} {kind}\n")).lint().is_empty(), "{bad}");
    }
}
