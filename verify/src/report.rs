//! Writes the pages: `docs/verify.md`, and `docs/dashboard.md` with the pictures of the panels.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use testkit::Result;

use crate::dashboard::Panel;
use crate::drawing;
use crate::faults::Fault;
use crate::prometheus::Firing;
use crate::rules::{FASTER, STORED_LIMIT};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
const PICTURES: &str = "images/dashboard";

/// What a run found.
pub(crate) struct Report {
    pub(crate) prometheus: String,
    pub(crate) created: u64,
    pub(crate) lint: String,
    pub(crate) unit_tests: usize,
    pub(crate) alerts: usize,
    pub(crate) variables: Vec<(String, Vec<String>)>,
    pub(crate) panels: Vec<Panel>,
    pub(crate) fired: Vec<Fired>,
}

/// An alert that fired because of a fault, and the time until then in seconds.
pub(crate) struct Fired {
    pub(crate) fault: Fault,
    pub(crate) alert: Firing,
    pub(crate) seconds: u64,
}

/// Writes both pages and all pictures, of a run in which everything worked.
pub(crate) fn write(report: &Report) -> Result<()> {
    let docs = Path::new(DOCS);
    let folder = docs.join(PICTURES);
    // A panel may have another name now.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    for panel in &report.panels {
        fs::write(folder.join(format!("{}.svg", slug(&panel.title))), drawing::draw(panel))?;
    }
    fs::write(docs.join("dashboard.md"), dashboard(report))?;
    fs::write(docs.join("verify.md"), verification(report))?;
    Ok(())
}

fn dashboard(report: &Report) -> String {
    let mut page = "# The dashboard\n\n\
        `charts/tidings/files/dashboard.json` is a dashboard for Grafana 11 or later: [monitoring.md](monitoring.md) says how to\n\
        install it. `make verify` drew each picture on this page. They are no screenshots of Grafana: a program draws the result\n\
        that a real Prometheus returned for the query of the panel, during the run that [verify.md](verify.md) reports, with\n\
        faults in seven Subscribers. `make verify` also writes this page.\n"
        .to_owned();
    for panel in &report.panels {
        let picture = format!("{PICTURES}/{}.svg", slug(&panel.title));
        let _ = write!(page, "\n## {0}\n\n{1}\n\n![{0}]({picture})\n", panel.title, wrap(&panel.description));
    }
    page
}

fn verification(report: &Report) -> String {
    let queries: usize = report.panels.iter().map(|panel| panel.queries.len()).sum();
    let mut page = format!(
        "# The report of make verify\n\n\
        `make verify` checks the alerts and the dashboard with programs that take too long to build for every run of CI. This\n\
        page is written by `make verify`; the numbers are of its last run.\n\n\
        - Prometheus {} scraped two operators each second. The operators elected a leader and sent {} events of nine\n  \
        Subscribers, with a real API server, a token service and webhooks over TLS.\n\
        - `promtool check metrics` found in the text that both operators served: {}.\n\
        - `promtool test rules`: {} groups of unit tests passed, for {} alerts.\n\n",
        report.prometheus, report.created, report.lint, report.unit_tests, report.alerts,
    );
    let _ = write!(
        page,
        "## Alerts\n\nThe rules are those that the chart renders. So that a run takes minutes, each `for`, each range of an expression\n\
        and the age of an hour was divided by {FASTER}, and `storedNotificationsLimit` was {STORED_LIMIT}. Before the first fault, no alert\n\
        fired. While faults were active, only alerts fired that they explain. After the last fault was mended, no alert\n\
        fired. The faults of single Subscribers and of stored objects were injected together, and their alerts awaited one\n\
        after the other. A run in which any of this fails does not write this page.\n\n\
        | what was broken | alert that fired | its labels | seen after |\n|---|---|---|---|\n",
    );
    for Fired { fault, alert, seconds } in &report.fired {
        let labels = alert
            .labels
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| !matches!(name.as_str(), "alertname" | "severity" | "job"));
        let labels: Vec<_> =
            labels.map(|(name, value)| format!("`{name}={}`", value.as_str().unwrap_or_default())).collect();
        let _ = writeln!(page, "| {} | `{}` | {} | {seconds} s |", fault.title(), alert.name, labels.join(" "));
    }
    let _ =
        write!(page, "\n## Variables of the dashboard\n\n| variable | values that Prometheus returned |\n|---|---|\n");
    for (name, values) in &report.variables {
        let _ = writeln!(page, "| `{name}` | {} |", values.join(", "));
    }
    let _ = write!(
        page,
        "\n## Queries of the dashboard\n\nPrometheus executed {queries} queries of {} panels, with every variable set to All and `10s` as\n\
        `$__rate_interval`. Each query returned at least one series with a number.\n\n\
        | panel | series of each query |\n|---|---|\n",
        report.panels.len()
    );
    for panel in &report.panels {
        let counts: Vec<_> = panel.queries.iter().map(|query| query.series.len().to_string()).collect();
        let _ = writeln!(page, "| [{}](dashboard.md#{}) | {} |", panel.title, slug(&panel.title), counts.join(", "));
    }
    page
}

/// The anchor of a heading, as code hosts make it.
fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Breaks lines before 120 columns.
fn wrap(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < 119 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
