//! Writes `docs/messages.md`: every text that the program can show to a person, so that all of them can be read in one
//! go.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path, process::Command};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::Value;

use crate::architecture;

/// The folders whose texts reach people as they are written. What `crates/api` publishes is read from its manifests.
const SOURCES: [&str; 2] = ["src", "crates/delivery/src"];

/// Macros whose texts are not shown at the level `info`.
const SILENT: [&str; 9] =
    ["assert", "assert_eq", "assert_ne", "debug", "debug_assert", "matches", "panic", "trace", "unreachable"];

/// Where a text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Error,
    Log(&'static str),
    Metric,
    Message,
}

/// The whole page.
pub fn page() -> String {
    let mut page = String::from(
        "# Messages\n\n<!-- Generated from the source by `make generate`; do not edit. -->\n\n\
         Every text that the operator can show, except the [reasons](reasons.md), the [descriptions of fields](api.md) and the log\n\
         lines of the levels `debug` and `trace`. The operator fills in the parts in braces.\n",
    );
    let texts = texts();
    writeln!(page, "\n## Command line\n").unwrap();
    for arguments in [&["--help"][..], &["run", "--help"], &["crds", "--help"]] {
        writeln!(page, "```text\n$ tidings {}\n{}\n```\n", arguments.join(" "), printed(arguments).trim_end()).unwrap();
    }
    writeln!(page, "## Refusals of the API server\n\n| message |\n|---|").unwrap();
    for message in refusals() {
        writeln!(page, "| {} |", cell(&message)).unwrap();
    }
    section(&mut page, "Messages of conditions, statuses and Events", &texts, |place| place == Place::Message);
    section(&mut page, "Errors", &texts, |place| place == Place::Error);
    for level in ["error", "warn", "info"] {
        section(&mut page, &format!("Log lines, level {level}"), &texts, |place| place == Place::Log(level));
    }
    section(&mut page, "Help texts of metrics", &texts, |place| place == Place::Metric);
    page
}

fn section(page: &mut String, title: &str, texts: &BTreeMap<String, Vec<(Place, String)>>, is: impl Fn(Place) -> bool) {
    writeln!(page, "\n## {title}\n\n| file | text |\n|---|---|").unwrap();
    for (file, texts) in texts {
        for (_, text) in texts.iter().filter(|(place, _)| is(*place)) {
            writeln!(page, "| `{file}` | {} |", cell(text)).unwrap();
        }
    }
}

fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|").replace('\n', " ")
}

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidings")).args(arguments).env_clear().output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The messages of all validation rules in the manifests.
fn refusals() -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                let is_rule = fields.contains_key("rule") || fields.contains_key("expression");
                let messages = ["message", "messageExpression"].iter().filter_map(|name| fields.get(*name)?.as_str());
                into.extend(messages.filter(|_| is_rule).map(str::to_owned));
                fields.values().for_each(|value| collect(value, into));
            }
            Value::Array(items) => items.iter().for_each(|value| collect(value, into)),
            _ => {}
        }
    }
    let mut messages = Vec::new();
    // A policy has the same rule for each of up to 20 Secrets.
    let numbered = |text: String| (1..=20).rev().fold(text, |text, n| text.replace(&format!("names{n}["), "namesN["));
    for manifest in tidings_api::manifests().unwrap() {
        collect(&serde_json::to_value(manifest).unwrap(), &mut messages);
    }
    let mut messages: Vec<_> = messages.into_iter().map(numbered).collect();
    messages.sort();
    messages.dedup();
    messages
}

/// The texts of each file, in their order.
fn texts() -> BTreeMap<String, Vec<(Place, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = SOURCES.iter().flat_map(|folder| architecture::files(&root.join(folder)));
    let read = files.map(|file| {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        let place = if name.starts_with("src/metrics/") { Place::Metric } else { Place::Message };
        let mut texts = Vec::new();
        collect(fs::read_to_string(&file).unwrap().parse().unwrap(), place, &mut texts);
        (name, texts)
    });
    // Command line: the program prints these itself. Files of tests are declared under `#[cfg(test)]` elsewhere.
    read.filter(|(name, _)| name != "src/cli.rs" && !name.contains("/tests") && !name.contains("/properties")).collect()
}

/// The texts in shipped code, with the place where each is shown.
fn collect(code: TokenStream, place: Place, into: &mut Vec<(Place, String)>) {
    let tokens: Vec<_> = code.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                at += usize::from(matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == '!'));
                let Some(TokenTree::Group(attribute)) = tokens.get(at) else { continue };
                at += 1;
                let text = attribute.stream().to_string();
                if text.starts_with("error") {
                    collect(attribute.stream(), Place::Error, into);
                } else if text.starts_with("cfg") && text.contains("test") && !text.contains("not") {
                    at += tokens[at..].iter().position(ends_an_item).map_or(tokens.len() - at, |length| length + 1);
                }
            }
            TokenTree::Ident(name) => {
                let is_macro = matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == '!');
                let Some(TokenTree::Group(arguments)) = tokens.get(at + 1).filter(|_| is_macro) else { continue };
                at += 2;
                let name = name.to_string();
                let level = ["error", "warn", "info"].into_iter().find(|level| *level == name);
                if !SILENT.contains(&name.as_str()) {
                    collect(arguments.stream(), level.map_or(place, Place::Log), into);
                }
            }
            TokenTree::Group(group) => collect(group.stream(), place, into),
            TokenTree::Literal(literal) => {
                if let syn::Lit::Str(text) = syn::Lit::new(literal.clone())
                    && is_shown(&text.value(), place)
                {
                    into.push((place, text.value()));
                }
            }
            TokenTree::Punct(_) => {}
        }
    }
}

fn ends_an_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    }
}

/// Whether `text` is shown as it is: a log line, or at least two words that are no media type.
fn is_shown(text: &str, place: Place) -> bool {
    if matches!(place, Place::Log(_)) {
        return text.chars().any(char::is_alphabetic);
    }
    !text.contains("charset=")
        && text.split(' ').filter(|word| word.chars().any(char::is_alphabetic) && !word.contains("::")).count() >= 2
}

#[test]
fn texts_are_found_where_they_are_shown_and_those_of_tests_are_not() {
    let code = r##"
        #![doc = "of a module"]
        /// Of an item.
        #[derive(thiserror::Error)]
        #[error("cannot read {name}")]
        struct A;
        fn f() { info!("stopped"); warn!(%error, "retrying in {} s", 5); debug!("not shown"); format!("no \
            token"); g("application/json", json!({ "say": "two words" })) }
        #[cfg(test)]
        mod tests { const C: &str = "in a test"; }
        #[cfg(not(test))]
        const D: &str = r#"a "raw" text"#;
    "##;
    let mut found = Vec::new();
    collect(code.parse().unwrap(), Place::Message, &mut found);
    let texts = [
        (Place::Error, "cannot read {name}"),
        (Place::Log("info"), "stopped"),
        (Place::Log("warn"), "retrying in {} s"),
        (Place::Message, "no token"),
        (Place::Message, "two words"),
        (Place::Message, "a \"raw\" text"),
    ];
    assert_eq!(found, texts.map(|(place, text)| (place, text.to_owned())));
}
