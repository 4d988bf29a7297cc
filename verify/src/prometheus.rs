//! Runs a real Prometheus and queries it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::folder::Folder;
use testkit::loopback::{free_address, get};
use testkit::process::{Process, Program};
use testkit::{Error, Result};
use tokio::time::sleep;

/// The folder in which `make verify` installs the programs.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/bin");
const START_LIMIT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(30);

/// The value of the label `job` of the operators. The chart sets `namespace/name`.
pub(crate) const JOB: &str = "tidings-system/tidings";

/// A Prometheus that scrapes each second. It stops when it is dropped or when this process ends.
pub(crate) struct Prometheus {
    address: SocketAddr,
    process: Process,
    _folder: Folder,
}

/// A firing alert.
#[derive(Clone, Debug)]
pub(crate) struct Firing {
    pub(crate) name: String,
    pub(crate) labels: Value,
    pub(crate) annotations: Value,
}

/// One series of a result: its labels, and its samples as seconds since 1970 and values.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) samples: Vec<(f64, f64)>,
}

/// The path of `prometheus` or `promtool`.
fn tool(name: &str) -> Result<PathBuf> {
    let path = Path::new(TOOLS).join(name);
    path.canonicalize()
        .map_err(|error| Error::new(format!("there is no {}: {error}; run `make verify`", path.display())))
}

/// The version that `prometheus --version` prints.
pub(crate) fn version() -> Result<String> {
    // A program that `go build` made from a module knows only the version of the module.
    let output = Command::new("go").args(["version", "-m"]).arg(tool("prometheus")?).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_module = text.lines().find_map(|line| line.trim().strip_prefix("dep\tgithub.com/prometheus/prometheus\t"));
    let of_main = text.lines().find_map(|line| line.trim().strip_prefix("mod\tgithub.com/prometheus/prometheus\t"));
    let found = of_module.or(of_main).and_then(|rest| rest.split('\t').next());
    found.map(str::to_owned).ok_or_else(|| Error::new("the version of prometheus is unknown"))
}

/// Runs `promtool` with these arguments. Returns what it prints.
pub(crate) fn promtool(args: &[&str], input: Option<&Path>) -> Result<String> {
    let mut command = Command::new(tool("promtool")?);
    command.args(args);
    if let Some(file) = input {
        command.stdin(std::fs::File::open(file)?);
    }
    let output = command.output()?;
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.success() {
        true => Ok(printed),
        false => Err(Error::new(format!("promtool {} failed\n{printed}", args.join(" ")))),
    }
}

impl Prometheus {
    /// Starts Prometheus with these rules. It scrapes these targets.
    pub(crate) async fn start(rules: &str, targets: &[SocketAddr]) -> Result<Self> {
        let folder = Folder::new("prometheus")?;
        folder.write("rules.yaml", rules)?;
        let pods = targets.iter().enumerate().map(|(number, target)| {
            json!({"targets": [target.to_string()], "labels": {"pod": format!("tidings-{}", number + 1), "namespace": "tidings-system"}})
        });
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": JOB, "honor_labels": true, "static_configs": pods.collect::<Vec<_>>()}],
        });
        let file = folder.write("prometheus.yaml", &config.to_string())?;
        promtool(&["check", "config", &file.to_string_lossy()], None)?;
        let address = free_address()?;
        let program = Program::new("prometheus", tool("prometheus")?, folder.path().join("prometheus.log")).args([
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={address}"),
        ]);
        let prometheus = Self { address, process: Process::start(program).await?, _folder: folder };
        let end = Instant::now() + START_LIMIT;
        while !matches!(get(address, "/-/ready", LIMIT).await, Ok((200, _))) {
            if Instant::now() > end || prometheus.process.exit_code().is_some() {
                return Err(Error::new(format!("Prometheus is not ready\n{}", prometheus.process.log_tail(20))));
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(prometheus)
    }

    /// The address of its HTTP API.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Evaluates an expression now.
    pub(crate) async fn query(&self, expression: &str) -> Result<Vec<Series>> {
        self.results("query", &[("query", expression)]).await
    }

    /// Evaluates an expression for each second of the last `seconds`.
    pub(crate) async fn range(&self, expression: &str, seconds: u32) -> Result<Vec<Series>> {
        let end = jiff::Timestamp::now().as_second();
        let (start, end) = ((end - i64::from(seconds)).to_string(), end.to_string());
        self.results("query_range", &[("query", expression), ("start", &start), ("end", &end), ("step", "1")]).await
    }

    /// The values of a label of the series that a selector matches.
    pub(crate) async fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let data = self.get(&format!("label/{label}/values"), &[("match[]", selector)]).await?;
        Ok(data.as_array().into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)).collect())
    }

    /// The alerts that fire now.
    pub(crate) async fn firing(&self) -> Result<Vec<Firing>> {
        let data = self.get("alerts", &[]).await?;
        let firing = data["alerts"].as_array().into_iter().flatten().filter(|alert| alert["state"] == "firing");
        let of = |alert: &Value| Firing {
            name: alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned(),
            labels: alert["labels"].clone(),
            annotations: alert["annotations"].clone(),
        };
        Ok(firing.map(of).collect())
    }

    /// What went wrong in the last evaluation of each rule.
    pub(crate) async fn rule_errors(&self) -> Result<Vec<String>> {
        let data = self.get("rules", &[]).await?;
        let groups = data["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let failed = rules.filter(|rule| rule["health"] != "ok" && rule["health"] != "unknown");
        Ok(failed.map(|rule| format!("{}: {}", rule["name"], rule["lastError"])).collect())
    }

    async fn results(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Series>> {
        let data = self.get(path, query).await?;
        Ok(data["result"].as_array().into_iter().flatten().map(series).collect())
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let (status, body) = get(self.address, &format!("/api/v1/{path}?{query}"), LIMIT).await?;
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        match status {
            200 => Ok(answer["data"].clone()),
            _ => Err(Error::new(format!("Prometheus answered {status} to {path}?{query}: {body}"))),
        }
    }
}

fn series(result: &Value) -> Series {
    let labels = result["metric"].as_object().into_iter().flatten();
    let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
    let sample = |pair: &Value| Some((pair[0].as_f64()?, pair[1].as_str()?.parse().ok()?));
    let samples = match result["values"].as_array() {
        Some(pairs) => pairs.iter().filter_map(sample).collect(),
        None => sample(&result["value"]).into_iter().collect(),
    };
    Series { labels: labels.collect(), samples }
}

impl Series {
    /// The value of a label; empty if the series does not have it.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Whether it has a sample that is a number.
    pub(crate) fn has_numbers(&self) -> bool {
        self.samples.iter().any(|(_, value)| value.is_finite())
    }
}
