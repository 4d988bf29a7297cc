//! `make verify`: checks the alerting rules and the dashboard of the chart with a real Prometheus that scrapes real
//! operators under load, and writes `docs/verify.md` and `docs/dashboard.md`.
//!
//! `verify` runs everything. `verify break` starts the same world, breaks one thing without saying which, and waits: find
//! it with the alert, the runbook and the dashboard; a line on standard input shows what it was. `verify break 3` breaks
//! the third of `Fault::ALL`. `TIDINGS_BIN` names the operator's binary.

// A program for the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod dashboard;
mod drawing;
mod faults;
mod prometheus;
mod report;
mod rules;
mod world;

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use testkit::folder::Folder;
use testkit::{Error, Result};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::time::sleep;

use crate::faults::Fault;
use crate::prometheus::{Firing, Prometheus};
use crate::report::{Fired, Report};
use crate::world::World;

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/tidings/files/alerts.yaml");
const UNIT_TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/alerts/alerts.yaml");
/// The time without a fault, in which no alert may fire. Longer than the longest `for` that a healthy world could reach.
const HEALTHY: Duration = Duration::from_secs(60);
/// The time within which an alert must fire, and within which all alerts must have ended.
const LIMIT: Duration = Duration::from_secs(200);
/// How long no alert may fire before everything counts as mended. An alert that ends because the operators restart, and
/// whose cause remains, fires again within this time.
const SETTLED: Duration = Duration::from_secs(15);
/// The time that the queries of the dashboard look back, in seconds.
const LOOK_BACK: u32 = 180;

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<_> = env::args().skip(1).collect();
    let result = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => verify().await,
        ["break"] => walk(None).await,
        ["break", number] => walk(number.parse().ok()).await,
        _ => Err(Error::new("usage: verify [break [NUMBER]]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nmake verify failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn verify() -> Result<()> {
    let unit_tests = unit_tests()?;
    let (mut world, prometheus) = start().await?;
    let load = world.load();
    healthy(&prometheus).await?;
    // Everything that did not work is reported at the end.
    let mut wrong = Vec::new();
    let mut fired = break_locally(&mut world, &prometheus, &mut wrong).await?;
    println!("==> Executing the queries of the dashboard");
    let (panels, variables) =
        (dashboard::execute(&prometheus, LOOK_BACK).await?, dashboard::variables(&prometheus).await?);
    let lint = lint(&world).await?;
    for fault in Fault::ALL.into_iter().filter(|fault| fault.is_local()) {
        fault.mend(&mut world).await?;
    }
    world.retry().await?;
    wrong.extend(quiet(&prometheus).await.err().map(|error| error.to_string()));
    for fault in Fault::ALL.into_iter().filter(|fault| !fault.is_local()) {
        println!("==> Breaking: {}", fault.title());
        let began = Instant::now();
        fault.inject(&mut world).await?;
        fired.extend(until_fired(&prometheus, &[fault], began, &mut wrong).await?);
        fault.mend(&mut world).await?;
        world.retry().await?;
        wrong.extend(quiet(&prometheus).await.err().map(|error| format!("after {}: {error}", fault.title())));
    }
    drop(load);
    let report = Report {
        prometheus: prometheus::version()?,
        created: world.created(),
        lint,
        unit_tests,
        alerts: rules::names(&std::fs::read_to_string(RULES)?).len(),
        variables,
        panels,
        fired,
    };
    // The pages say that everything worked, so a run in which something did not writes none.
    check(&report, wrong)?;
    report::write(&report)?;
    println!("==> docs/verify.md, docs/dashboard.md and the pictures are written");
    Ok(())
}

/// Breaks one thing, and waits for a line on standard input.
async fn walk(number: Option<usize>) -> Result<()> {
    let random = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos() as usize);
    let fault = Fault::ALL[number.map_or(random, |number| number.wrapping_sub(1)) % Fault::ALL.len()];
    let (mut world, prometheus) = start().await?;
    let _load = world.load();
    sleep(Duration::from_secs(20)).await;
    fault.inject(&mut world).await?;
    println!("Something is broken. Times run {} times faster than in the rules.", rules::FASTER);
    println!("Prometheus: http://{}/alerts", prometheus.address());
    println!("export KUBECONFIG={}", world.stage.kubectl().kubeconfig().display());
    println!("kubectl: {}", world.stage.kubectl().program().display());
    for operator in &world.operators {
        println!(
            "log of an operator: {}, metrics: http://{}/metrics",
            operator.process().log_file().display(),
            operator.admin_address()
        );
    }
    println!("Press Enter to see what is broken.");
    let _ = BufReader::new(stdin()).lines().next_line().await;
    println!("Broken: {}", fault.title());
    Ok(())
}

/// Runs the unit tests of the rules. Returns their number.
fn unit_tests() -> Result<usize> {
    println!("==> The unit tests of the rules");
    prometheus::promtool(&["check", "rules", "--lint=all", "--lint-fatal", RULES], None)?;
    prometheus::promtool(&["test", "rules", UNIT_TESTS], None)?;
    Ok(std::fs::read_to_string(UNIT_TESTS)?.lines().filter(|line| line.starts_with("  - name: ")).count())
}

async fn start() -> Result<(World, Prometheus)> {
    let binary = env::var_os("TIDINGS_BIN")
        .map(PathBuf::from)
        .ok_or_else(|| Error::new("set TIDINGS_BIN to the operator's binary"))?;
    let rules = rules::fast()?;
    println!("==> Starting a control plane, two operators, nine Subscribers and Prometheus");
    let world = World::start(&binary.canonicalize()?).await?;
    let targets: Vec<_> = world.operators.iter().map(testkit::Operator::admin_address).collect();
    let prometheus = Prometheus::start(&rules, &targets).await?;
    Ok((world, prometheus))
}

/// Waits a while without a fault. No alert may fire then.
async fn healthy(prometheus: &Prometheus) -> Result<()> {
    println!("==> No fault: no alert may fire");
    // Until the first scrape, no leader is known.
    quiet(prometheus).await?;
    let end = Instant::now() + HEALTHY;
    while Instant::now() < end {
        sleep(Duration::from_secs(2)).await;
        let firing = prometheus.firing().await?;
        if !firing.is_empty() {
            return Err(Error::new(format!("without a fault, alerts fire: {firing:?}")));
        }
    }
    Ok(())
}

/// Breaks everything that only concerns a single Subscriber at the same time.
async fn break_locally(world: &mut World, prometheus: &Prometheus, wrong: &mut Vec<String>) -> Result<Vec<Fired>> {
    let faults: Vec<_> = Fault::ALL.into_iter().filter(|fault| fault.is_local()).collect();
    let began = Instant::now();
    for fault in &faults {
        println!("==> Breaking: {}", fault.title());
        fault.inject(world).await?;
    }
    until_fired(prometheus, &faults, began, wrong).await
}

/// Waits until each alert of each fault fires, and for the Subscriber that is broken. Adds to `wrong` the alerts that do
/// not fire, and those that fire meanwhile although no fault explains them.
async fn until_fired(
    prometheus: &Prometheus,
    faults: &[Fault],
    began: Instant,
    wrong: &mut Vec<String>,
) -> Result<Vec<Fired>> {
    let mut fired = Vec::new();
    let mut unexplained = BTreeSet::new();
    let expected = faults.iter().flat_map(|fault| fault.alerts().iter().map(move |alert| (*fault, *alert)));
    for (fault, (name, subscriber)) in expected {
        let is_it =
            |alert: &Firing| alert.name == name && (subscriber.is_empty() || alert.labels["subscriber"] == subscriber);
        let end = Instant::now() + LIMIT;
        loop {
            let firing = prometheus.firing().await?;
            let unknown = firing.iter().filter(|alert| !faults.iter().any(|fault| fault.explains(alert)));
            unexplained.extend(unknown.map(|alert| format!("no fault explains {} {}", alert.name, alert.labels)));
            if let Some(alert) = firing.iter().find(|alert| is_it(alert)) {
                println!("    {name} fires: {}", alert.annotations["description"].as_str().unwrap_or_default());
                fired.push(Fired { fault, alert: alert.clone(), seconds: began.elapsed().as_secs() });
                break;
            }
            if Instant::now() > end {
                let errors = prometheus.rule_errors().await?;
                println!("    {name} does not fire");
                wrong.push(format!("{name} {subscriber} does not fire: {firing:?}, errors: {errors:?}"));
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
    wrong.extend(unexplained.into_iter().map(|alert| format!("{alert}: during {faults:?}")));
    Ok(fired)
}

/// Waits until a leader is scraped and no alert has fired for a while.
async fn quiet(prometheus: &Prometheus) -> Result<()> {
    let end = Instant::now() + LIMIT;
    let mut quiet_since = None;
    loop {
        let firing = prometheus.firing().await?;
        let leads = !prometheus.query("tidings_leading == 1").await?.is_empty();
        quiet_since = (leads && firing.is_empty()).then(|| quiet_since.unwrap_or_else(Instant::now));
        if quiet_since.is_some_and(|since| since.elapsed() >= SETTLED) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(Error::new(format!("everything is mended, and alerts still fire: {firing:?}")));
        }
        sleep(Duration::from_secs(2)).await;
    }
}

/// Runs `promtool check metrics` on what each operator serves.
async fn lint(world: &World) -> Result<String> {
    let folder = Folder::new("metrics")?;
    for operator in &world.operators {
        let file = folder.write("metrics.txt", &operator.metrics().await?)?;
        let printed = prometheus::promtool(&["check", "metrics"], Some(&file))?;
        if !printed.trim().is_empty() {
            return Err(Error::new(format!("promtool check metrics: {printed}")));
        }
    }
    Ok("nothing to improve".to_owned())
}

/// Refuses a report in which a query returned nothing, or an annotation is not a text for a reader.
fn check(report: &Report, mut faults: Vec<String>) -> Result<()> {
    for panel in &report.panels {
        for query in panel.queries.iter().filter(|query| !query.series.iter().any(prometheus::Series::has_numbers)) {
            faults.push(format!("{}: no data for {}", panel.title, query.expression));
        }
    }
    for (name, values) in report.variables.iter().filter(|(_, values)| values.is_empty()) {
        faults.push(format!("the variable {name} has no value: {values:?}"));
    }
    for fired in &report.fired {
        let annotations = fired.alert.annotations.to_string();
        if annotations.contains("<no value>") || annotations.contains("error ") {
            faults.push(format!("{}: {annotations}", fired.alert.name));
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Error::new(faults.join("\n"))),
    }
}
