//! The fields of log lines: one scheme, which `docs/logs.md` lists, and one line for each attempt that failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::{Value, json};
use testkit::Behaviour;

use crate::{
    architecture,
    world::{CLIENT, PATIENCE, World, path},
};

const SOURCES: [&str; 4] = ["src", "crates/api/src", "crates/delivery/src", "crates/queue/src"];

/// The fields that every JSON line has.
const EVERYWHERE: [&str; 4] = ["level", "message", "target", "timestamp"];

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logs.md")).unwrap()
}

/// The first cells of the rows below a heading of the page, without backquotes.
fn rows(heading: &str) -> BTreeSet<String> {
    let page = page();
    let section =
        page.split(&format!("## {heading}\n")).nth(1).expect(heading).split("\n## ").next().unwrap().to_owned();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned));
    cells.collect()
}

/// The fields of each log line with fields, by text.
fn lines() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut lines = BTreeMap::<String, BTreeSet<String>>::new();
    for file in SOURCES.iter().flat_map(|folder| architecture::files(&root.join(folder))) {
        collect(fs::read_to_string(&file).unwrap().parse().unwrap(), &mut lines);
    }
    lines
}

/// Adds the fields of the log macros in `code`.
fn collect(code: TokenStream, into: &mut BTreeMap<String, BTreeSet<String>>) {
    let tokens: Vec<_> = code.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let before = |count: usize| at.checked_sub(count).map_or_else(String::new, |at| tokens[at].to_string());
        let is_log = before(1) == "!" && ["error", "warn", "info", "debug", "trace"].contains(&&*before(2));
        if is_log && group.delimiter() == Delimiter::Parenthesis {
            let (fields, text) = arguments(group.stream());
            into.entry(text).or_default().extend(fields);
        } else {
            collect(group.stream(), into);
        }
    }
}

/// The fields and the text of a log macro.
fn arguments(macro_: TokenStream) -> (Vec<String>, String) {
    let tokens: Vec<_> = macro_.into_iter().collect();
    let mut fields = Vec::new();
    for part in tokens.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')) {
        match part {
            [TokenTree::Literal(text), ..] => {
                let syn::Lit::Str(text) = syn::Lit::new(text.clone()) else { panic!("{text}") };
                return (fields, text.value());
            }
            [TokenTree::Punct(_), TokenTree::Ident(name), ..] | [TokenTree::Ident(name), ..] => {
                fields.push(name.to_string())
            }
            other => panic!("{other:?}"),
        }
    }
    (fields, String::new())
}

#[test]
fn the_page_lists_every_field_of_a_log_line_and_every_line_with_fields() {
    let lines = lines();
    let used: BTreeSet<_> = lines.values().flatten().cloned().collect();
    assert_eq!(used, rows("Fields"), "docs/logs.md and the fields in the source differ");
    let row = |(text, fields): (&String, &BTreeSet<String>)| {
        let cells: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
        format!("| {text} | {} |", cells.join(", "))
    };
    let expected: BTreeSet<_> = lines.iter().filter(|(_, fields)| !fields.is_empty()).map(row).collect();
    let page = page();
    let below = page.split("## Lines\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = below.lines().filter(|line| line.starts_with("| ") && *line != "| line | fields |");
    let listed: BTreeSet<_> = rows.map(str::to_owned).collect();
    let missing: Vec<_> = expected.difference(&listed).map(String::as_str).collect();
    assert!(missing.is_empty(), "docs/logs.md lacks these rows:\n{}", missing.join("\n"));
    let unknown: Vec<_> = listed.difference(&expected).collect();
    assert!(unknown.is_empty(), "docs/logs.md lists rows that the source does not have: {unknown:#?}");
}

#[test]
fn fields_are_found_in_every_form() {
    let code = r##"fn f() { info!(a, %b, ?c, d = e.f, g = %h(i, j), "the text {} x", k); warn!("none"); debug!(%m, "the text {} x") }"##;
    let mut lines = BTreeMap::new();
    collect(code.parse().unwrap(), &mut lines);
    let fields = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(
        lines,
        [("none".into(), fields(&[])), ("the text {} x".into(), fields(&["a", "b", "c", "d", "g", "m"]))].into()
    );
}

/// The JSON lines of a log.
fn parsed(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test]
async fn each_failed_attempt_is_one_line_with_all_fields_and_a_success_is_none() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let world = World::new("logs").await;
    world.secret(CLIENT.1).await;
    let quick = |spec: &mut Value| {
        spec["webhook"]["timeoutSeconds"] = 1.into();
        spec["delivery"] = json!({"backoff": {"initialSeconds": 1}});
    };
    world.subscriber("shop", quick).await;
    let operator = world.launch().to_loopback().args(&["--log-format", "json"]).ready(PATIENCE).await.unwrap();
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::status(503));
    world.receiver.answer_next(&path("shop"), 1, &Behaviour::hang());
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let event = json!({"id": "e-1", "source": "/s", "type": "t", "traceparent": traceparent});
    world.notification("a", "shop", event).await;
    let notification = world.until_phase("a", "Delivered").await;
    world.notification("b", "shop", json!({"id": "e-2", "source": "/s", "type": "t"})).await;
    world.until_phase("b", "Delivered").await;
    world.notification("c", "shop", json!({"id": "e-3", "source": "not a uri", "type": "t"})).await;
    world.until_phase("c", "Failed").await;
    assert_eq!(operator.terminate().await.unwrap(), 0);

    let lines = parsed(&operator.process().log());
    let of = |name: &str| lines.iter().filter(|line| line["name"] == name).collect::<Vec<_>>();
    let failed = of("a");
    assert_eq!(failed.len(), 2, "{failed:#?}");
    for (line, (attempt, reason, status)) in
        failed.iter().zip([(1, "ServerError", json!(503)), (2, "Timeout", Value::Null)])
    {
        let detail = line["detail"].as_str().unwrap();
        let mut expected = json!({
            "level": "INFO", "message": "the attempt failed", "target": line["target"], "timestamp": line["timestamp"],
            "namespace": world.namespace, "name": "a", "uid": notification["metadata"]["uid"], "subscriber": "shop",
            "event_id": "e-1", "attempt": attempt, "reason": reason, "trace_id": TRACE, "detail": detail,
        });
        if !status.is_null() {
            expected["status_code"] = status;
        }
        assert_eq!(**line, expected);
    }
    assert!(of("b").is_empty(), "a success is logged: {:#?}", of("b"));
    let invalid = of("c");
    assert_eq!(
        (invalid.len(), &invalid[0]["reason"], &invalid[0]["event_id"]),
        (1, &json!("InvalidEvent"), &json!("e-3"))
    );
    assert!(invalid[0].get("trace_id").is_none(), "there is no trace: {}", invalid[0]);
    // Whatever else was logged has fields of the page alone.
    let known = rows("Fields");
    for line in &lines {
        let fields = line.as_object().unwrap().keys();
        for field in fields.filter(|field| !EVERYWHERE.contains(&field.as_str())) {
            assert!(known.contains(field), "{field} is not in docs/logs.md: {line}");
        }
    }
}
