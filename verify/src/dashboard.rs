//! Reads the dashboard and executes its queries.

use std::fs;

use serde_json::Value;
use testkit::{Error, Result};

use crate::prometheus::{Prometheus, Series};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/tidings/files/dashboard.json");

/// What Grafana inserts for `$__rate_interval`, with one scrape each second.
const RATE_INTERVAL: &str = "10s";

/// A panel and the results of its queries.
pub(crate) struct Panel {
    pub(crate) title: String,
    /// `timeseries`, `stat` or `table`.
    pub(crate) kind: String,
    pub(crate) unit: String,
    pub(crate) description: String,
    pub(crate) queries: Vec<Query>,
}

/// A query, and what Prometheus answered.
pub(crate) struct Query {
    pub(crate) expression: String,
    /// The legend: a text with `{{label}}`.
    pub(crate) legend: String,
    pub(crate) series: Vec<Series>,
}

/// Executes each query of the dashboard over the last `seconds`, with all variables set to All.
pub(crate) async fn execute(prometheus: &Prometheus, seconds: u32) -> Result<Vec<Panel>> {
    let dashboard = read()?;
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten().filter(|panel| panel["type"] != "row") {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut queries = Vec::new();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = with_variables(&text(&target["expr"]));
            let series = match target["instant"] == true {
                true => prometheus.query(&expression).await?,
                false => prometheus.range(&expression, seconds).await?,
            };
            queries.push(Query { expression, legend: text(&target["legendFormat"]), series });
        }
        panels.push(Panel {
            title: text(&panel["title"]),
            kind: text(&panel["type"]),
            unit: text(&panel["fieldConfig"]["defaults"]["unit"]),
            description: text(&panel["description"]),
            queries,
        });
    }
    Ok(panels)
}

/// Looks up the values of each variable of the dashboard that is a query: `label_values(SELECTOR, LABEL)`.
pub(crate) async fn variables(prometheus: &Prometheus) -> Result<Vec<(String, Vec<String>)>> {
    let dashboard = read()?;
    let mut found = Vec::new();
    for variable in dashboard["templating"]["list"].as_array().into_iter().flatten().filter(|of| of["type"] == "query")
    {
        let query = variable["query"]["query"].as_str().unwrap_or_default();
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner
            .and_then(|inner| inner.rsplit_once(", "))
            .ok_or_else(|| Error::new(format!("{query} is not label_values(SELECTOR, LABEL)")))?;
        let name = variable["name"].as_str().unwrap_or_default().to_owned();
        found.push((name, prometheus.label_values(&with_variables(selector), label).await?));
    }
    Ok(found)
}

fn read() -> Result<Value> {
    let text = fs::read_to_string(FILE)?;
    serde_json::from_str(&text).map_err(|error| Error::new(format!("{FILE}: {error}")))
}

fn with_variables(expression: &str) -> String {
    let all = ["$job", "$namespace", "$subscriber"];
    all.iter().fold(expression.replace("$__rate_interval", RATE_INTERVAL), |text, name| text.replace(name, ".*"))
}

impl Query {
    /// The legend of a series.
    pub(crate) fn legend(&self, series: &Series) -> String {
        let mut parts = self.legend.split("{{");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| match part.split_once("}}") {
            Some((label, rest)) => format!("{text}{}{rest}", series.label(label.trim())),
            None => format!("{text}{{{{{part}"),
        })
    }
}
