//! Which room may know which: the direction in `docs/architecture.md`, held.
//!
//! The compiler holds the crates. This test holds the rooms inside them, finds circles between files, and prints the
//! graph:
//!
//! ```sh
//! cargo test --test suite -- architecture --nocapture
//! ```

mod code;
mod graph;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

pub use self::graph::files;
use self::graph::{Crate, Module, circles};

/// Each room of `src/`, and the rooms, or files, that it may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["cli", "operator", "telemetry"]),
    ("cli", &["operator", "telemetry", "traces"]),
    ("operator", &["admin", "cluster", "contract", "engine", "metrics", "notifications", "ownership", "subscribers"]),
    ("engine", &["contract", "metrics", "ownership", "traces"]),
    ("notifications", &["cluster", "engine/source", "metrics"]),
    ("subscribers", &["cluster", "contract", "metrics", "ownership"]),
    ("ownership", &["cluster", "metrics"]),
    ("contract", &[]),
    ("admin", &["metrics"]),
    ("cluster", &[]),
    ("metrics", &[]),
    ("telemetry", &["traces"]),
    ("traces", &[]),
];

/// Each room of `crates/delivery`, and the rooms that it may import.
const DELIVERY: &[(&str, &[&str])] = &[
    ("webhook", &["egress", "event", "oauth", "spans"]),
    ("oauth", &["egress"]),
    ("egress", &["spans"]),
    ("event", &[]),
    ("spans", &[]),
];

/// Crates, and parts of crates, that only these rooms may name, tests included. The manifests hold the crates `api` and
/// `queue`.
const CRATES: &[(&str, &[&str])] = &[
    ("rustls", &["delivery/egress"]),
    ("kube", &["cluster", "notifications", "operator", "ownership", "subscribers", "api"]),
    ("k8s_openapi", &["cluster", "notifications", "ownership", "subscribers", "api"]),
    ("k8s_openapi::api", &["cluster", "ownership", "subscribers", "api"]),
    ("tidings_api::Notification", &["main", "notifications"]),
    ("tidings_api::Subscriber", &["main", "operator", "subscribers"]),
    ("clap", &["main", "cli", "telemetry"]),
    ("opentelemetry", &["traces"]),
    ("opentelemetry_http", &["traces"]),
    ("opentelemetry_otlp", &["traces"]),
    ("opentelemetry_sdk", &["traces"]),
    ("tracing_opentelemetry", &["traces"]),
];

/// Where connections are opened (S5): to what users name in one; to what the administrator names, that is the API server
/// and the collector of traces, in the others.
const OPENS_CONNECTIONS: [&str; 3] = ["delivery/egress", "cluster", "traces"];

/// What opens connections, and may be named there alone: names, wherever they stand, and paths.
const WAYS_OUT: (&[&str], &[&str]) = (
    &[
        "reqwest",
        "TcpStream",
        "UdpSocket",
        "TcpSocket",
        "TlsConnector",
        "ureq",
        "isahc",
        "curl",
        "attohttpc",
        "hyper_rustls",
        "opentelemetry_otlp",
        "tonic",
    ],
    &["hyper::client", "hyper_util::client"],
);

/// A queue that waits for nothing and reads no clock can be tested as a whole, with the time passed in.
const NOT_IN_THE_QUEUE: [&str; 4] = ["async", "await", "Instant::now", "SystemTime::now"];

/// The pages that say where things are, and the folders of what they name.
const PAGES: [&str; 5] =
    ["CONTRIBUTING.md", "README.md", "docs/architecture.md", "docs/design-decisions.md", "docs/reliability.md"];
const SOURCES: [&str; 9] = ["src", "crates", "testkit", "campaign", "demo", "verify", "tests", "benches", "fuzz"];

/// 400 lines before the tests are a smell, not a law. Each of these files is longer for a reason.
const LONG_FILES: &[(&str, &str)] = &[
    (
        "crates/queue/src/queue.rs",
        "one type: what a source, a Subscriber or an action says changes entries, lanes and expiries together",
    ),
    ("crates/queue/src/schedule.rs", "one type: each move of an event is between orders that only it may touch"),
];
const LINES_OF_A_FILE: usize = 400;

/// The assembly of the operator is read from top to bottom, so its functions stay short.
const ASSEMBLY: &str = "operator";
const LINES_OF_A_FUNCTION: usize = 40;

/// The crates that the house consists of: their names here, and their folders.
const HOUSE: [(&str, &str); 4] =
    [("", "src"), ("delivery", "crates/delivery/src"), ("queue", "crates/queue/src"), ("api", "crates/api/src")];

fn house() -> Vec<(&'static str, Crate)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let house: Vec<_> = HOUSE.iter().map(|(name, folder)| (*name, Crate::read(&root.join(folder)))).collect();
    let files: usize = house.iter().map(|(_, all)| all.files.len()).sum();
    assert!(files > 100, "found {files} files");
    house
}

/// The room of a module: of `src/` the first name of its path, of `crates/delivery` the first two names.
fn room(of: &str, module: &[String]) -> String {
    match (of, module.first()) {
        ("", first) => first.cloned().unwrap_or_else(|| "lib".into()),
        ("delivery", Some(first)) => format!("{of}/{first}"),
        (other, _) => other.to_owned(),
    }
}

#[test]
fn the_house_keeps_its_direction_closes_no_circle_and_keeps_each_type_in_one_file() {
    let mut found = BTreeSet::new();
    for (name, all) in house() {
        let arrows = all.arrows();
        println!("{}", drawn(name, &arrows));
        let table = match name {
            "" => ROOMS,
            "delivery" => DELIVERY,
            _ => &[],
        };
        found.extend(against_the_direction(table, &arrows));
        for circle in circles(&arrows) {
            let files: Vec<_> = circle.iter().map(|module| module.join("/")).collect();
            println!("  a circle: {}", files.join(", "));
            found.insert(in_rooms(name, &circle));
        }
        for (module, file) in &all.files {
            let room = room(name, module);
            found.extend(out_of_place(&room, &file.code));
            if all.is_shipped(module) {
                found.extend(
                    all.spread(file).into_iter().map(|of| format!("{of} has methods in several files of {room}")),
                );
                found.extend(long_functions(&room, &file.shipped));
                found.extend(impure(&room, &file.shipped));
            }
        }
    }
    found.extend(PAGES.iter().flat_map(|page| unknown_places(page)));
    assert!(found.is_empty(), "against the rules: {found:#?}");
}

#[test]
fn every_file_is_short_or_says_why_not() {
    let (mut faults, mut files, mut functions) = (Vec::new(), Vec::new(), Vec::new());
    let house = house();
    let shipped = house.iter().flat_map(|(name, all)| all.shipped().map(move |(_, file)| (name, file)));
    for (name, file) in shipped {
        let folder = HOUSE.iter().find(|(known, _)| known == name).unwrap().1;
        let path = format!("{folder}/{}", file.path.display());
        functions
            .extend(code::functions(&file.shipped).into_iter().map(|(of, lines)| (lines, format!("{path}: {of}"))));
        let lines = file.code.lines().take_while(|line| *line != "#[cfg(test)]").count();
        match (lines > LINES_OF_A_FILE, LONG_FILES.iter().any(|(known, _)| *known == path)) {
            (true, false) => {
                faults.push(format!("{path} has {lines} lines before its tests: give a reason in LONG_FILES"))
            }
            (false, true) => faults.push(format!("{path} has {lines} lines: take it out of LONG_FILES")),
            _ => {}
        }
        files.push((lines, path));
    }
    println!("the longest functions:{}\nthe largest files, without their tests:{}", longest(functions), longest(files));
    let unknown = LONG_FILES.iter().filter(|(known, _)| !Path::new(env!("CARGO_MANIFEST_DIR")).join(known).exists());
    faults.extend(unknown.map(|(known, _)| format!("{known} does not exist: take it out of LONG_FILES")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_two_types_have_one_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, all) in &house() {
        for (_, file) in all.shipped() {
            for of in code::types(&file.shipped) {
                places.entry(of).or_default().push(format!("{name}/{}", file.path.display()));
            }
        }
    }
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "name what each of these types is: {places:#?}");
}

/// The five longest, one a line.
fn longest(mut all: Vec<(usize, String)>) -> String {
    all.sort_by(|one, other| other.cmp(one));
    all.iter().take(5).map(|(lines, what)| format!("\n  {lines:>4} lines  {what}")).collect()
}

/// Each room and the rooms that it imports, with the number of imports from file to file.
fn drawn(of: &str, arrows: &BTreeMap<Module, BTreeSet<Module>>) -> String {
    let mut rooms: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let (mut inside, mut count) = (0, 0);
    for (from, to) in arrows.iter().flat_map(|(from, targets)| targets.iter().map(move |to| (from, to))) {
        let (from, to) = (room(of, from), room(of, to));
        count += 1;
        if from == to {
            inside += 1;
        } else {
            *rooms.entry(from).or_default().entry(to).or_default() += 1;
        }
    }
    let name = if of.is_empty() { "tidings" } else { of };
    let mut text = format!("{name}: {} files, {count} arrows, {inside} of them inside a room", arrows.len());
    for (from, targets) in rooms {
        let targets: Vec<_> = targets.iter().map(|(to, count)| format!("{to} {count}")).collect();
        text += &format!("\n  {from} → {}", targets.join(", "));
    }
    text
}

/// The arrows between rooms that the table does not allow, as `from → to`, and rooms that it does not name.
fn against_the_direction(table: &[(&str, &[&str])], arrows: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<String> {
    let mut against = BTreeSet::new();
    // The root of a crate declares the rooms, and a crate without a table has none.
    for (from, targets) in arrows.iter().filter(|(from, _)| !from.is_empty() && !table.is_empty()) {
        let Some((room, may)) = table.iter().find(|(room, _)| *room == from[0]) else {
            against.insert(format!("the room {} is not in the plan", from[0]));
            continue;
        };
        for to in targets.iter().filter(|to| to.first().is_some_and(|first| first != room)) {
            if !may.contains(&to[0].as_str()) && !may.contains(&to.join("/").as_str()) {
                against.insert(format!("{room} → {}", to[0]));
            }
        }
    }
    against
}

/// The rooms through which a circle of files goes.
fn in_rooms(of: &str, circle: &BTreeSet<Module>) -> String {
    let rooms: BTreeSet<_> = circle.iter().map(|module| room(of, module)).collect();
    format!("a circle in {}", rooms.into_iter().collect::<Vec<_>>().join(", "))
}

/// What `code`, of a file in `room`, names and must not.
fn out_of_place(room: &str, code: &str) -> Vec<String> {
    let named = code::paths(code);
    let crates = CRATES.iter().filter(|(name, rooms)| {
        let segments: Vec<_> = name.split("::").map(str::to_owned).collect();
        !rooms.contains(&room) && named.iter().any(|path| path.segments.starts_with(&segments))
    });
    let mut found: Vec<_> = crates.map(|(name, _)| format!("{room} names {name}")).collect();
    if !OPENS_CONNECTIONS.contains(&room) {
        found.extend(ways_out(code).into_iter().map(|way| format!("{room} opens connections with {way}")));
    }
    found
}

/// What `code` names of [`WAYS_OUT`].
fn ways_out(code: &str) -> Vec<&'static str> {
    let (names, paths) = WAYS_OUT;
    let named = code::paths(code);
    let names = names.iter().filter(|name| code::words(code).any(|word| word == **name));
    let paths = paths.iter().filter(|path| {
        let (root, part) = path.split_once("::").unwrap();
        let mut below = named.iter().filter(|path| path.segments[0] == root);
        // A crate under another name could hide what it is used for.
        below.any(|path| path.segments.get(1).is_none_or(|next| next == part || next == "*"))
    });
    names.chain(paths).copied().collect()
}

/// The files and folders that a page names in backquotes and that are nowhere in the repository.
fn unknown_places(page: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join(page)).unwrap();
    let known: Vec<_> = SOURCES.iter().flat_map(|folder| files(&root.join(folder))).collect();
    let is_known = |place: &str| {
        let place = Path::new(place);
        root.join(place).exists()
            || known.iter().any(|file| file.ancestors().any(|part| part.starts_with(root) && part.ends_with(place)))
    };
    let named = text.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs") || name.ends_with('/'));
    let unknown: BTreeSet<_> = named
        .filter(|name| !name.contains(' ') && !name.starts_with("target/") && !name.starts_with(".") && !is_known(name))
        .collect();
    unknown.into_iter().map(|name| format!("{page} names {name}, which does not exist")).collect()
}

/// What shipped code of `room` names of [`NOT_IN_THE_QUEUE`], if it is the queue's.
fn impure(room: &str, code: &str) -> Vec<String> {
    let names: BTreeSet<_> = code::words(code).map(str::to_owned).collect();
    let paths: BTreeSet<_> = code::paths(code).iter().map(|path| path.segments.join("::")).collect();
    let is_named = |what: &str| names.contains(what) || paths.iter().any(|path| path.ends_with(what));
    let named = NOT_IN_THE_QUEUE.iter().filter(|what| room == "queue" && is_named(what));
    named.map(|what| format!("queue names {what}")).collect()
}

/// The functions of the assembly that are too long to be read at once.
fn long_functions(room: &str, code: &str) -> Vec<String> {
    let long = code::functions(code).into_iter().filter(|(_, lines)| room == ASSEMBLY && *lines > LINES_OF_A_FUNCTION);
    long.map(|(name, _)| format!("the function {name} of {room} is longer than {LINES_OF_A_FUNCTION} lines")).collect()
}

#[test]
fn an_arrow_against_the_direction_is_found_and_one_to_the_only_file_that_may_be_known_is_not() {
    let arrow = |from: &str, to: &str| {
        let module = |path: &str| path.split('/').map(str::to_owned).collect::<Module>();
        let arrows = [(module(from), [module(to)].into())].into();
        against_the_direction(ROOMS, &arrows).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(arrow("engine/attempt", "subscribers/resolve"), ["engine → subscribers"]);
    assert_eq!(arrow("notifications/wire", "engine/attempt"), ["notifications → engine"]);
    assert_eq!(arrow("notifications/wire", "engine/source"), [""; 0]);
    assert_eq!(arrow("engine/attempt", "engine/source"), [""; 0]);
    assert_eq!(arrow("cellar/wine", "cluster"), ["the room cellar is not in the plan"]);
    assert_eq!(
        out_of_place("engine", "use k8s_openapi::{api::core::v1::Secret, jiff};"),
        ["engine names k8s_openapi", "engine names k8s_openapi::api"]
    );
    assert_eq!(
        out_of_place("engine", "use tidings_api::{AttemptReason, Subscriber};"),
        ["engine names tidings_api::Subscriber"]
    );
    assert_eq!(out_of_place("oauth", "kube::y(); my_kube::a"), ["oauth names kube"]);
}

#[test]
fn a_queue_that_reads_the_clock_or_waits_is_found() {
    assert_eq!(
        impure("queue", "async fn f() { std::time::Instant::now() }"),
        ["queue names async", "queue names Instant::now"]
    );
    assert_eq!(impure("engine", "async fn f() { Instant::now() }"), [""; 0]);
    assert_eq!(impure("queue", "fn f(now: Instant) -> Instant { now }"), [""; 0]);
}

#[test]
fn s05_a_room_that_opens_connections_of_its_own_is_found_however_it_writes_that() {
    for code in [
        "let client = reqwest::Client::new();",
        "use reqwest as http;",
        "use oauth2::{basic::BasicClient, reqwest};",
        "use hyper::client::conn::http1;",
        "use hyper::{body::Incoming, client::conn::http1, server};",
        "use hyper_util::{\n    client::legacy::Client,\n    rt::TokioExecutor,\n};",
        "let client = ::hyper_util::client::legacy::Client::builder(x);",
        "use hyper::*;",
        "use hyper::{self as h};",
        "use hyper_util as util;",
        "use tokio::net::{TcpListener, TcpStream};",
        "std::net::TcpStream::connect(address)",
        "let socket = TcpSocket::new_v4();",
        "use tonic::transport::Endpoint;",
        "opentelemetry_otlp::SpanExporter::builder()",
    ] {
        let opens = |room| out_of_place(room, code).iter().any(|fault| fault.contains("opens connections"));
        for room in [
            "delivery/oauth",
            "delivery/webhook",
            "engine",
            "notifications",
            "subscribers",
            "ownership",
            "contract",
            "operator",
            "telemetry",
            "admin",
            "queue",
            "api",
        ] {
            assert!(opens(room), "{room}: {code}");
        }
        for room in OPENS_CONNECTIONS {
            assert!(!opens(room), "{room}: {code}");
        }
    }
    let server =
        "use hyper::{body::Incoming, server::conn::http1};\nuse hyper_util::rt::TokioIo;\nmy_hyper::client::x();";
    assert_eq!(out_of_place("admin", server), [""; 0]);
    assert_eq!(
        out_of_place("delivery/webhook", &code::bare("// not with reqwest or a TcpStream\nlet client = x;")),
        [""; 0]
    );
}
