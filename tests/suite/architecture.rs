//! Which room may know which: the direction in `docs/architecture.md`, held.

use std::{fs, path::Path};

/// Each room and the rooms it may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["api", "cli", "operator", "telemetry"]),
    ("cli", &["egress", "operator", "telemetry"]),
    ("operator", &["admin", "api", "controller", "dispatch", "egress", "metrics", "oauth"]),
    ("controller", &["api", "cloudevent", "dispatch", "egress", "metrics", "oauth", "webhook"]),
    ("webhook", &["api", "cloudevent", "egress", "oauth"]),
    ("oauth", &["egress"]),
    ("admin", &["metrics"]),
    ("api", &[]),
    ("cloudevent", &[]),
    ("dispatch", &[]),
    ("egress", &[]),
    ("metrics", &[]),
    ("telemetry", &[]),
];

/// Crates that only these rooms may name.
const CRATES: &[(&str, &[&str])] = &[
    ("reqwest", &["egress"]),
    ("oauth2", &["oauth"]),
    ("kube", &["api", "controller", "operator"]),
    ("k8s_openapi", &["api", "controller", "operator"]),
    ("clap", &["main", "cli", "telemetry"]),
];

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
    faults
}

/// The rooms after `crate::` or `tidings::`, also inside braces.
fn rooms_named(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, root) in code.match_indices("crate::").chain(code.match_indices("tidings::")) {
        let rest = &code[at + root.len()..];
        let paths = match rest.strip_prefix('{') {
            Some(group) => top_level(&group[..closing(group)]),
            None => vec![rest],
        };
        found.extend(paths.iter().map(|path| {
            path.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>()
        }));
    }
    found.retain(|name| !name.is_empty());
    found
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
    code.match_indices(&format!("{name}::"))
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':'))
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
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
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    let files = files(&src);
    assert!(files.len() > 20, "found {} files", files.len());
    for file in files {
        let path = file.strip_prefix(&src).unwrap();
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
    let code = "use crate::{api::{A, B}, webhook::Target};\nfn f() { crate::egress::x(); kube::y() }";
    assert_eq!(rooms_named(code), ["api", "webhook", "egress"]);
    assert_eq!(
        faults("oauth", code),
        ["oauth must not know api", "oauth must not know webhook", "oauth must not use the crate kube"]
    );
    assert!(faults("oauth", "// crate::api and kube::x in a comment\nuse my_kube::a;").is_empty());
}
