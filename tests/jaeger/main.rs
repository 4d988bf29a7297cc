//! A Jaeger receives the traces of the operator. `make jaeger` builds Jaeger and runs this test, which writes
//! `docs/jaeger.md`. `make test` does not run it: the build takes long.

// Tests stop at the first broken expectation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// What this test shares with the suite, which uses more of it.
#[allow(dead_code)]
#[path = "../suite/cluster.rs"]
mod cluster;
#[allow(dead_code)]
#[path = "../suite/world.rs"]
mod world;

use std::{env, fmt::Write, fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use testkit::{
    folder::Folder,
    loopback::{free_address, get},
    process::{Process, Program},
};
use tokio::time::{Instant, sleep};

use world::{CLIENT, PATIENCE, World};

/// The spans of an attempt over a new connection.
const SPANS: [&str; 4] = ["deliver", "token", "connect", "request"];

/// Jaeger with its data in memory, and receivers for both protocols.
fn configuration(grpc: &str, http: &str, query: &str, other: &[String]) -> String {
    let [health, telemetry, query_grpc] = other else { panic!("{other:?}") };
    json!({
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}, "resource": {"service.instance.id": telemetry}},
        },
        "extensions": {
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 1000}}}},
            "jaeger_query": {
                "storage": {"traces": "memory"}, "http": {"endpoint": query}, "grpc": {"endpoint": query_grpc},
            },
            "healthcheckv2": {"use_v2": true, "http": {"endpoint": health}},
        },
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": grpc}, "http": {"endpoint": http}}}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    })
    .to_string()
}

#[tokio::test]
async fn jaeger_receives_the_traces_over_both_protocols() {
    let binary = env::var_os("TIDINGS_JAEGER").map(PathBuf::from).filter(|path| path.is_file());
    let binary = binary.expect("TIDINGS_JAEGER must name the executable of Jaeger: make jaeger builds it");
    let [grpc, http, query, health, telemetry, query_grpc] = [(); 6].map(|()| free_address().unwrap().to_string());
    let folder = Folder::new("jaeger").unwrap();
    let text = configuration(&grpc, &http, &query, &[health, telemetry, query_grpc]);
    let file = folder.write("jaeger.yaml", &text).unwrap();
    let program = Program::new("jaeger", binary, folder.path().join("jaeger.log"));
    let jaeger = Process::start(program.args([format!("--config={}", file.display())])).await.unwrap();

    let world = World::new("jaeger").await;
    world.secret(CLIENT.1).await;
    // Without a validation request, each operator sends its first event over a new connection.
    world.subscriber("shop", |spec| spec["abuseProtection"] = json!({"policy": "Disabled"})).await;
    let mut rows = String::new();
    for (number, (protocol, address)) in [("grpc", &grpc), ("http/protobuf", &http)].into_iter().enumerate() {
        let flags = ["--otlp-protocol", protocol, "--otlp-endpoint", &format!("http://{address}")];
        let operator = world.launch().to_loopback().args(&flags).ready(PATIENCE).await.unwrap();
        let (name, trace) = (format!("a-{number}"), format!("0af7651916cd43dd8448eb211c80319{number}"));
        let traceparent = format!("00-{trace}-b7ad6b7169203331-01");
        let event = json!({"id": name, "source": "/s", "type": "t", "traceparent": traceparent});
        world.notification(&name, "shop", event).await;
        world.until_phase(&name, "Delivered").await;
        assert_eq!(operator.terminate().await.unwrap(), 0);

        let end = Instant::now() + PATIENCE;
        let spans = loop {
            let answer = get(query.parse().unwrap(), &format!("/api/traces/{trace}"), Duration::from_secs(5)).await;
            let spans = answer.as_ref().ok().and_then(|(_, body)| {
                let found: Value = serde_json::from_str(body).ok()?;
                found["data"][0]["spans"].as_array().cloned()
            });
            // The spans arrive in several batches.
            if let Some(spans) = spans.filter(|spans| spans.len() >= SPANS.len()) {
                break spans;
            }
            assert!(Instant::now() < end, "Jaeger has no trace: {answer:?}\n{}", jaeger.log_tail(30));
            sleep(Duration::from_millis(200)).await;
        };
        let named = |name: &str| {
            spans.iter().find(|span| span["operationName"] == name).unwrap_or_else(|| panic!("{spans:#?}"))
        };
        let parent = |of: &Value| of["references"][0]["spanID"].clone();
        assert_eq!(parent(named("deliver")), "b7ad6b7169203331");
        for child in &SPANS[1..] {
            assert_eq!(parent(named(child)), named("deliver")["spanID"], "{child}");
        }
        let children = SPANS[1..].iter().map(|child| format!("`{child}`")).collect::<Vec<_>>().join(", ");
        writeln!(rows, "| `{protocol}` | the span of the event | `deliver` | {children} |").unwrap();
        let services = get(query.parse().unwrap(), "/api/services", Duration::from_secs(5)).await.unwrap();
        assert!(services.1.contains("\"tidings\""), "{services:?}");
    }
    report(&rows);
}

/// Writes the page with the result.
fn report(rows: &str) {
    let root = env!("CARGO_MANIFEST_DIR");
    let module = fs::read_to_string(format!("{root}/tools/jaeger/go.mod")).unwrap();
    let version = module.lines().find_map(|line| line.trim().strip_prefix("github.com/jaegertracing/jaeger v"));
    let version = version.unwrap().split(' ').next().unwrap();
    let page = format!(
        "# The report of make jaeger\n\n\
        `make jaeger` builds Jaeger {version}, starts an operator for each protocol, and delivers an event that belongs to a\n\
        trace. It then reads the trace from the API of Jaeger. This page is written by `make jaeger`.\n\n\
        | `--otlp-protocol` | parent of the span | span | its children |\n|---|---|---|---|\n{rows}"
    );
    fs::write(format!("{root}/docs/jaeger.md"), page).unwrap();
}
