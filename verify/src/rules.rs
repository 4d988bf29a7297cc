//! The alerting rules as the chart installs them, at a faster time.

use serde::Deserialize;
use serde_yaml::Value;
use testkit::{Error, Result, chart};

/// An hour of the rules is this part of an hour here: each duration in a rule is divided by it.
pub(crate) const FASTER: u32 = 30;

/// What the chart's value `metrics.prometheusRule.storedNotificationsLimit` is set to.
pub(crate) const STORED_LIMIT: u32 = 2500;

/// Returns the rules of the chart's PrometheusRule, with `for`, the ranges of the expressions and the age of an hour
/// divided by [`FASTER`]. Nothing else is changed.
pub(crate) fn fast() -> Result<String> {
    let limit = format!("metrics.prometheusRule.storedNotificationsLimit={STORED_LIMIT}");
    let set = ["--set", "metrics.prometheusRule.enabled=true", "--set", &limit];
    let manifests = chart::render("tidings-system", &set)?;
    let parse = |error: serde_yaml::Error| Error::new(format!("the chart is not YAML: {error}"));
    let objects: Result<Vec<Value>> = serde_yaml::Deserializer::from_str(&manifests)
        .map(|object| Value::deserialize(object).map_err(parse))
        .collect();
    let rule = objects?.into_iter().find(|object| object["kind"] == "PrometheusRule");
    let mut spec = rule.ok_or_else(|| Error::new("the chart has no PrometheusRule"))?["spec"].clone();
    for group in spec["groups"].as_sequence_mut().into_iter().flatten() {
        for rule in group["rules"].as_sequence_mut().into_iter().flatten() {
            let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
            let (expr, wait) = (text("expr"), text("for"));
            rule["expr"] = faster(&expr).into();
            rule["for"] = duration(&wait).unwrap_or(wait).into();
        }
    }
    serde_yaml::to_string(&spec).map_err(parse)
}

/// The names of the alerts in the rules.
pub(crate) fn names(rules: &str) -> Vec<String> {
    rules
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("alert: "))
        .map(str::to_owned)
        .collect()
}

/// Divides the ranges (`[10m]`) of an expression, and the age of an hour.
fn faster(expr: &str) -> String {
    let mut parts = expr.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    let scaled = parts.fold(first, |done, part| {
        let (range, rest) = part.split_once(']').unwrap_or((part, ""));
        format!("{done}[{}]{rest}", duration(range).unwrap_or_else(|| range.to_owned()))
    });
    scaled.replace("> 3600", &format!("> {}", 3600 / FASTER))
}

/// Divides a duration (`15m`, `1h`).
fn duration(text: &str) -> Option<String> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds =
        number.parse::<u32>().ok()? * [("s", 1), ("m", 60), ("h", 3600)].iter().find(|(name, _)| *name == unit)?.1;
    Some(format!("{}s", (seconds / FASTER).max(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_divided_and_nothing_else_is_changed() {
        assert_eq!(faster("increase(a[15m]) / rate(b[1h]) > 3600"), "increase(a[30s]) / rate(b[120s]) > 120");
        assert_eq!(faster("a - time() < 14 * 86400"), "a - time() < 14 * 86400");
        assert_eq!(
            ["15m", "2m", "30s", "1h", "1d", ""].map(duration).map(Option::unwrap_or_default),
            ["30s", "4s", "2s", "120s", "", ""]
        );
    }
}
