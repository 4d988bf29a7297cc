//! The spans of attempts, as a collector receives them (`docs/tracing.md`).

use std::{collections::BTreeSet, fs};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use serde_json::{Value, json};
use testkit::{Authority, Behaviour, Operator, endpoints::Reply, folder::Folder};
use tokio::net::TcpListener;

use super::collector::{Collector, attribute};
use crate::world::{CLIENT, PATIENCE, World, path};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// An event of a trace with these flags.
fn event(id: &str, flags: &str) -> Value {
    json!({
        "id": id, "source": "/source?canary-source", "type": "com.example.test", "subject": "canary-subject",
        "traceparent": format!("00-{TRACE}-{PARENT}-{flags}"), "tracestate": "vendor=1", "data": "canary-data",
    })
}

/// Starts an operator that exports to this URL, soon after each span ends.
async fn operator(world: &World, endpoint: &str, flags: &[&str]) -> Operator {
    let args = [&["--otlp-endpoint", endpoint], flags].concat();
    let launch = world.launch().to_loopback().args(&args).env("OTEL_BSP_SCHEDULE_DELAY", "50");
    launch.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20canary-header").ready(PATIENCE).await.unwrap()
}

/// A world with a Subscriber `shop`, whose URL has a query.
async fn world(name: &str) -> World {
    let world = World::new(name).await;
    world.secret(CLIENT.1).await;
    shop(&world).await;
    world
}

async fn shop(world: &World) {
    let change = |spec: &mut Value| {
        spec["webhook"]["url"] = format!("{}?key=canary-query", world.receiver.url(&path("shop"))).into();
        spec["webhook"]["timeoutSeconds"] = 1.into();
        spec["delivery"] = json!({"backoff": {"initialSeconds": 1}});
    };
    world.subscriber("shop", change).await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The spans of the attempts of an event: `deliver`.
fn attempts<'s>(spans: &'s [Span], id: &str) -> Vec<&'s Span> {
    let is_of = |span: &&Span| attribute(&span.attributes, "cloudevents.event_id").as_deref() == Some(id);
    spans.iter().filter(is_of).collect()
}

/// The children of a span with this name.
fn children<'s>(spans: &'s [Span], of: &Span, name: &str) -> Vec<&'s Span> {
    spans.iter().filter(|span| span.parent_span_id == of.span_id && span.name == name).collect()
}

/// The names of a span's attributes.
fn names(span: &Span) -> BTreeSet<&str> {
    span.attributes.iter().map(|attribute| attribute.key.as_str()).collect()
}

/// The names that the page lists in the row of a span.
fn documented(span: &str) -> BTreeSet<String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tracing.md")).unwrap();
    let row = page.lines().find(|line| line.starts_with(&format!("| `{span}` |"))).expect(span).to_owned();
    let attributes = row.split('|').nth(4).unwrap().to_owned();
    attributes.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn an_attempt_is_a_span_with_its_stages_in_the_trace_of_the_event() {
    let world = world("traces").await;
    let (authority, folder) = (Authority::new(), Folder::new("otlp").unwrap());
    let ca = folder.write("ca.crt", authority.ca_pem()).unwrap().display().to_string();
    for (number, (protocol, authority)) in
        [("grpc", None), ("http/protobuf", None), ("grpc", Some(&authority)), ("http/protobuf", Some(&authority))]
            .into_iter()
            .enumerate()
    {
        let collector = Collector::start(authority).await;
        let scheme = if authority.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", collector.address());
        let ca = if authority.is_some() { vec!["--otlp-ca-file", &ca] } else { Vec::new() };
        let operator = operator(&world, &url, &[&["--otlp-protocol", protocol], &*ca].concat()).await;
        let id = format!("event-{number}");
        world.receiver.answer_next(&path("shop"), 1, &Behaviour::reply(Reply::status(500).body("canary-body")));
        world.notification(&id, "shop", event(&id, "01")).await;
        let notification = world.until_phase(&id, "Delivered").await;
        let spans = collector.until(|spans| attempts(spans, &id).len() == 2).await;

        for (attempt, (status, failure)) in
            attempts(&spans, &id).into_iter().zip([("500", Some("ServerError")), ("204", None)])
        {
            assert_eq!((hex(&attempt.trace_id), hex(&attempt.parent_span_id)), (TRACE.into(), PARENT.into()));
            assert_eq!((&*attempt.name, attempt.kind()), ("deliver", SpanKind::Consumer));
            assert_eq!(&*attempt.trace_state, "vendor=1");
            let get = |name: &str| attribute(&attempt.attributes, name);
            assert_eq!(get("k8s.namespace.name"), Some(world.namespace.clone()));
            assert_eq!(get("tidings.subscriber.name").as_deref(), Some("shop"));
            assert_eq!(get("tidings.notification.name"), Some(id.clone()));
            assert_eq!(get("tidings.notification.uid").as_deref(), notification["metadata"]["uid"].as_str());
            assert_eq!(get("cloudevents.event_type").as_deref(), Some("com.example.test"));
            assert_eq!(get("http.response.status_code").as_deref(), Some(status));
            assert_eq!(get("error.type").as_deref(), failure);
            assert_eq!(get("tidings.attempt").as_deref(), Some(if failure.is_some() { "1" } else { "2" }));
            let code = attempt.status.as_ref().map_or(StatusCode::Unset, |status| status.code());
            assert_eq!(code == StatusCode::Error, failure.is_some());

            let [token, request] = ["token", "request"].map(|name| {
                let found = children(&spans, attempt, name);
                assert_eq!(found.len(), 1, "{name}: {spans:#?}");
                found[0]
            });
            assert_eq!((token.kind(), request.kind()), (SpanKind::Internal, SpanKind::Client));
            assert!(attempt.start_time_unix_nano <= token.start_time_unix_nano);
            assert!(token.end_time_unix_nano <= request.start_time_unix_nano);
            assert!(request.end_time_unix_nano <= attempt.end_time_unix_nano);
            assert_eq!(attribute(&request.attributes, "http.request.method").as_deref(), Some("POST"));
            assert_eq!(attribute(&request.attributes, "server.address").as_deref(), Some("127.0.0.1"));
            assert_eq!(
                attribute(&request.attributes, "server.port"),
                Some(world.receiver.address().port().to_string())
            );
            assert_eq!(attribute(&request.attributes, "http.response.status_code").as_deref(), Some(status));
            assert_eq!(attribute(&request.attributes, "error.type").as_deref(), failure.map(|_| "500"));
            // The webhook continues the trace below the span of its request, and the event itself is unchanged.
            let post = world
                .posts(&path("shop"))
                .into_iter()
                .find(|post| post.header("traceparent") == Some(&format!("00-{TRACE}-{}-01", hex(&request.span_id))));
            let post = post.expect("a POST has the context of this request");
            assert_eq!(post.header("tracestate"), Some("vendor=1"));
            assert_eq!(post.json().unwrap()["traceparent"], format!("00-{TRACE}-{PARENT}-01"));
        }
        for span in &spans {
            let names: BTreeSet<_> = names(span).into_iter().map(str::to_owned).collect();
            let documented = documented(&span.name);
            assert!(names.is_subset(&documented), "{}: {names:?}, but docs/tracing.md has {documented:?}", span.name);
        }
        assert!(spans.iter().all(|span| ["deliver", "token", "connect", "request"].contains(&&*span.name)));
        assert_eq!(operator.terminate().await.unwrap(), 0);

        let received = collector.received();
        let shown = String::from_utf8_lossy(&received.bytes);
        for secret in ["canary", CLIENT.1, "Bearer", world.posts(&path("shop"))[0].token().unwrap()] {
            assert!(!shown.contains(secret), "{secret} is exported");
            assert!(!operator.process().log().contains("canary-header"), "the log has a header for the collector");
        }
        assert!(received.headers.iter().all(|headers| headers["authorization"] == "Bearer canary-header"));
        let path = if protocol == "grpc" {
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        } else {
            "/v1/traces"
        };
        assert!(received.paths.iter().all(|found| found == path), "{:?}", received.paths);
        let resource = &received.resources[0];
        assert_eq!(attribute(resource, "service.name").as_deref(), Some("tidings"));
        assert_eq!(attribute(resource, "service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    }
}

#[tokio::test]
async fn an_attempt_without_a_response_has_the_reason_and_no_status() {
    let world = world("traces-errors").await;
    let collector = Collector::start(None).await;
    let _operator = operator(&world, &format!("http://{}", collector.address()), &[]).await;
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::hang());
    world.notification("a", "shop", json!({"id": "a", "source": "/s", "type": "t"})).await;
    world.notification("invalid", "shop", json!({"id": "invalid", "source": "not a uri", "type": "t"})).await;
    let is_invalid = |span: &Span| attribute(&span.attributes, "error.type").as_deref() == Some("InvalidEvent");
    let spans = collector.until(|spans| attempts(spans, "a").len() == 2 && spans.iter().any(is_invalid)).await;
    let first = attempts(&spans, "a")[0];
    let request = children(&spans, first, "request")[0];
    for span in [first, request] {
        assert_eq!(attribute(&span.attributes, "error.type").as_deref(), Some("Timeout"));
        assert_eq!(attribute(&span.attributes, "http.response.status_code"), None);
    }
    // The connection of an exchange without a response is not used again.
    let connect = children(&spans, attempts(&spans, "a")[1], "connect");
    assert_eq!((connect.len(), connect[0].kind()), (1, SpanKind::Internal));
    let invalid = spans.iter().find(|span| is_invalid(span)).unwrap();
    assert_eq!(attribute(&invalid.attributes, "tidings.notification.name").as_deref(), Some("invalid"));
    assert!(children(&spans, invalid, "request").is_empty());
}

#[tokio::test]
async fn the_trace_of_an_event_decides_whether_it_is_exported_and_the_ratio_decides_for_the_others() {
    let world = world("traces-sampling").await;
    for (ratio, exported) in [("0", vec!["sampled"]), ("1", vec!["alone", "sampled"])] {
        let collector = Collector::start(None).await;
        let operator = operator(&world, &format!("http://{}", collector.address()), &["--trace-sampling", ratio]).await;
        for (name, mut event) in [
            ("unsampled", event("unsampled", "00")),
            ("alone", event("alone", "00")),
            ("sampled", event("sampled", "01")),
        ] {
            if name == "alone" {
                event.as_object_mut().unwrap().remove("traceparent");
            }
            let object = format!("{name}-{ratio}");
            world.notification(&object, "shop", event).await;
            world.until_phase(&object, "Delivered").await;
        }
        assert_eq!(operator.terminate().await.unwrap(), 0);
        let spans = collector.received().spans;
        let ids: BTreeSet<_> =
            spans.iter().filter_map(|span| attribute(&span.attributes, "cloudevents.event_id")).collect();
        assert_eq!(ids, exported.into_iter().map(str::to_owned).collect(), "with the ratio {ratio}");
    }
    // The decision is passed on, too.
    let flags = |id: &str| {
        let posts = world.posts(&path("shop"));
        let of = posts.into_iter().filter(|post| post.event_id().as_deref() == Some(id));
        of.map(|post| post.header("traceparent").unwrap()[53..].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (flags("unsampled"), flags("sampled"), flags("alone")),
        (vec!["00".to_owned(); 2], vec!["01".to_owned(); 2], vec!["00".to_owned(), "01".to_owned()])
    );
}

#[tokio::test]
async fn a_collector_that_is_down_or_hangs_delays_neither_deliveries_nor_the_end() {
    let world = world("traces-down").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = silent.local_addr().unwrap();
    let refusing = testkit::loopback::free_address().unwrap();
    for (number, (address, protocol)) in
        [(refusing, "grpc"), (refusing, "http/protobuf"), (hanging, "grpc"), (hanging, "http/protobuf")]
            .into_iter()
            .enumerate()
    {
        let operator = operator(&world, &format!("http://{address}"), &["--otlp-protocol", protocol]).await;
        world.notifications(&format!("n{number}"), "shop", 20).await;
        world.until_delivered(20 * (number + 1)).await;
        assert_eq!(operator.terminate().await.unwrap(), 0);
        let log = operator.process().log();
        assert!(log.contains("the last traces could not be exported") || log.contains("cannot export traces"), "{log}");
        let lines = log.lines().filter(|line| line.contains("cannot export traces")).count();
        assert!(lines <= 1, "failures are logged once a minute: {log}");
    }
}

#[tokio::test]
async fn without_a_collector_the_headers_are_those_of_the_event() {
    let world = world("traces-off").await;
    let _operator = world.operator().await;
    for (name, traceparent) in
        [("valid", Some(format!("00-{TRACE}-{PARENT}-03"))), ("invalid", Some("00-1-2-01".to_owned())), ("none", None)]
    {
        let mut event = event(name, "01");
        match &traceparent {
            Some(traceparent) => event["traceparent"] = traceparent.as_str().into(),
            None => drop(event.as_object_mut().unwrap().remove("traceparent")),
        }
        world.notification(name, "shop", event).await;
        world.until_phase(name, "Delivered").await;
        let post = world.posts(&path("shop")).pop().unwrap();
        let valid = traceparent.as_deref().filter(|_| name == "valid");
        assert_eq!(post.header("traceparent"), valid, "{name}");
        assert_eq!(post.header("tracestate"), valid.map(|_| "vendor=1"), "{name}");
        assert_eq!(post.json().unwrap()["traceparent"].as_str(), traceparent.as_deref(), "the event is unchanged");
    }
}

#[tokio::test]
async fn bad_settings_end_the_program_with_the_name_of_the_flag() {
    let run = |args: &[&str]| {
        let output =
            std::process::Command::new(crate::world::binary()).arg("run").args(args).env_clear().output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for (args, fault) in [
        (&["--otlp-endpoint", "collector:4317"][..], "--otlp-endpoint: must be an http or https URL"),
        (&["--otlp-endpoint", "http://user:canary@collector"], "--otlp-endpoint: must not contain credentials"),
        (&["--otlp-endpoint", "http://collector/v1/traces"], "--otlp-endpoint must have no path"),
        (&["--otlp-protocol", "http/json"], "'--otlp-protocol <PROTOCOL>': must be grpc or http/protobuf"),
        (&["--trace-sampling", "2"], "'--trace-sampling <RATIO>': must be a number from 0 to 1"),
        (&["--otlp-ca-file", "/dev/null"], "--otlp-ca-file requires --otlp-endpoint"),
        (
            &["--otlp-endpoint", "http://collector", "--otlp-ca-file", "/dev/null"],
            "--otlp-ca-file requires an https URL",
        ),
        (&["--otlp-endpoint", "https://collector", "--otlp-ca-file", "/dev/null"], "--otlp-ca-file: there is no PEM"),
    ] {
        let shown = run(args);
        assert!(shown.contains(fault) && !shown.contains("canary"), "{args:?}: {shown}");
    }
}
