//! Which room may know which: the direction in `docs/architecture.md`, held.

use std::{fs, path::Path};

/// Each room and the rooms it may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["cli", "operator", "telemetry"]),
    ("cli", &["operator", "telemetry"]),
    ("operator", &["admin", "cluster", "engine", "metrics", "notifications", "ownership", "subscribers"]),
    ("engine", &["cluster", "contract", "metrics", "notifications", "ownership"]),
    ("subscribers", &["cluster", "contract", "metrics", "ownership"]),
    ("notifications", &["cluster", "metrics"]),
    ("ownership", &["cluster"]),
    ("contract", &[]),
    ("admin", &["metrics"]),
    ("cluster", &[]),
    ("metrics", &[]),
    ("telemetry", &[]),
    // In crates/delivery.
    ("webhook", &["egress", "event", "oauth"]),
    ("oauth", &["egress"]),
    ("egress", &[]),
    ("event", &[]),
];

/// Crates that only these rooms may name.
const CRATES: &[(&str, &[&str])] = &[
    ("rustls", &["egress"]),
    ("kube", &["cluster", "engine", "notifications", "operator", "ownership", "subscribers"]),
    ("k8s_openapi", &["cluster", "contract", "engine", "notifications", "operator", "ownership", "subscribers"]),
    ("clap", &["main", "cli", "telemetry"]),
];

/// Where connections are opened (S5): to the world in one, to the API server of the configuration in the other.
const OPENS_CONNECTIONS: [&str; 2] = ["egress", "cluster"];

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
    ],
    &["hyper::client", "hyper_util::client"],
);

/// What is wrong with `text`, a file of `room`.
fn faults(room: &str, text: &str) -> Vec<String> {
    let Some((_, may)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("the room {room} is not in the plan")];
    };
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let mut faults = Vec::new();
    for imported in rooms_named(&code) {
        if imported != room && !may.contains(&imported.as_str()) {
            faults.push(format!("{room} must not know {imported}"));
        }
    }
    for (name, rooms) in CRATES {
        if names_crate(&code, name) && !rooms.contains(&room) {
            faults.push(format!("{room} must not use the crate {name}"));
        }
    }
    if !OPENS_CONNECTIONS.contains(&room) {
        faults.extend(ways_out(&code).into_iter().map(|way| format!("{room} must not open connections with {way}")));
    }
    faults
}

/// What `code` names of [`WAYS_OUT`].
fn ways_out(code: &str) -> Vec<&'static str> {
    let (names, paths) = WAYS_OUT;
    let names = names.iter().filter(|name| words(code).any(|word| word == **name));
    let paths = paths.iter().filter(|path| {
        let (root, part) = path.split_once("::").unwrap();
        // A crate under another name could hide what it is used for.
        names_below(code, root).iter().any(|name| name == part || name == "*" || name == "self")
            || words(code).collect::<Vec<_>>().windows(2).any(|pair| pair == [root, "as"])
    });
    names.chain(paths).copied().collect()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The rooms after `crate::` or `tidings::`, also inside braces.
fn rooms_named(code: &str) -> Vec<String> {
    let mut found = [names_below(code, "crate"), names_below(code, "tidings")].concat();
    found.retain(|name| !name.is_empty() && name != "*");
    found
}

/// The names right after `root::`, also inside braces.
fn names_below(code: &str, root: &str) -> Vec<String> {
    let mut found = Vec::new();
    let root = format!("{root}::");
    for (at, _) in code.match_indices(&root).filter(|(at, _)| !continues(&code[..*at])) {
        let rest = &code[at + root.len()..];
        let paths = match rest.strip_prefix('{') {
            Some(group) => top_level(&group[..closing(group)]),
            None => vec![rest],
        };
        found.extend(paths.iter().map(|path| {
            let is_of_name = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '*');
            path.trim_start().chars().take_while(is_of_name).collect::<String>()
        }));
    }
    found
}

/// Whether what follows `code` is the rest of a longer path or name.
fn continues(code: &str) -> bool {
    // A path may begin with `::` itself.
    code.strip_suffix("::").unwrap_or(code).ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

fn closing(group: &str) -> usize {
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return at;
        }
    }
    group.len()
}

fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts
}

fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| !continues(&code[..at]))
}

/// All Rust files in a folder and below it.
pub fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn no_room_knows_more_than_the_plan_allows_and_no_file_is_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (src, delivery) = (root.join("src"), root.join("crates/delivery/src"));
    let mut all = Vec::new();
    let files = [files(&src), files(&delivery)].concat();
    assert!(files.len() > 20, "found {} files", files.len());
    for file in files {
        let path = file.strip_prefix(&src).or_else(|_| file.strip_prefix(&delivery)).unwrap();
        let room = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let text = fs::read_to_string(&file).unwrap();
        if room != "lib" {
            all.extend(faults(room, &text).into_iter().map(|fault| format!("{}: {fault}", path.display())));
        }
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if lines > 400 {
            all.push(format!("{}: {lines} lines before its tests", path.display()));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_groups_and_paths() {
    let code = "use crate::{event::{A, B}, webhook::Target};\nfn f() { crate::egress::x(); kube::y() }";
    assert_eq!(rooms_named(code), ["event", "webhook", "egress"]);
    assert_eq!(
        faults("oauth", code),
        ["oauth must not know event", "oauth must not know webhook", "oauth must not use the crate kube"]
    );
    assert!(faults("oauth", "// crate::api and kube::x in a comment\nuse my_kube::a;").is_empty());
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
    ] {
        for room in ["oauth", "webhook", "engine", "operator", "admin"] {
            let faults = faults(room, code);
            assert!(
                faults.iter().any(|fault| fault.contains("must not open connections")),
                "{room}: {code}: {faults:?}"
            );
        }
        assert!(!faults("egress", code).iter().any(|fault| fault.contains("open connections")), "{code}");
    }
    let server =
        "use hyper::{body::Incoming, server::conn::http1};\nuse hyper_util::rt::TokioIo;\nmy_hyper::client::x();";
    assert_eq!(faults("admin", server), [""; 0]);
    assert_eq!(faults("webhook", "// not with reqwest or a TcpStream\nlet client = x;"), [""; 0]);
}
