//! What people read is plain English, and its links lead somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::docs::messages;

/// Words that an engineer would not write here, and what to write instead.
const PRIVATE: [(&str, &str); 31] = [
    ("tell", "report, show, say"),
    ("tells", "reports, shows, says"),
    ("telling", "reporting, showing"),
    ("told", "reported, notified"),
    ("somebody", "name the actor: a user, the caller, another program"),
    ("anybody", "name the actor: a user, the caller, another program"),
    ("nobody", "no user, no caller, no program"),
    ("whoever", "a user who, a program that"),
    ("anew", "again, from scratch"),
    ("likewise", "also"),
    ("ask for", "request"),
    ("asks for", "requests"),
    ("asked for", "requested"),
    ("so many", "up to N"),
    ("so often", "at most N times"),
    ("left alone", "unchanged, skipped"),
    ("leave alone", "skip"),
    ("makes for", "causes, results in"),
    ("look after", "check, manage, fix"),
    ("looks after", "checks, manages, fixes"),
    ("looked after", "checked, managed, fixed"),
    ("of several one", "one of several"),
    ("goes by", "uses, follows"),
    ("comes of it", "the result"),
    ("all the same", "anyway"),
    ("courtesy", "explanation"),
    ("courtesies", "explanations"),
    ("sighting", "validation result"),
    ("census", "initial status"),
    ("vitals", "health"),
    ("first word", "initial status"),
];

/// What people read: folders, or single files.
const READ: [&str; 11] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
    "README.md",
    "SECURITY.md",
    ".github",
    "charts/tidings",
    "crds",
    "demo/src",
    "docs",
    "examples",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Vec<PathBuf> {
    fn below(path: &Path) -> Vec<PathBuf> {
        if path.is_file() {
            return vec![path.to_owned()];
        }
        fs::read_dir(path).unwrap().flat_map(|entry| below(&entry.unwrap().path())).collect()
    }
    READ.iter().flat_map(|path| below(&root().join(path))).collect()
}

/// The private words in `text`, each with the number of its line.
fn private_words(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let lines = text.lines().enumerate().flat_map(|(number, line)| {
        // A line's last word may be the first half of a phrase.
        let next = text.lines().nth(number + 1).unwrap_or_default();
        let plain = |line: &str| {
            line.to_lowercase()
                .split(|c: char| !c.is_alphanumeric())
                .filter(|w| !w.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let (line, next) = (plain(line), plain(next));
        let joined = format!(" {line} {} ", next.split(' ').next().unwrap_or_default());
        let found = PRIVATE.iter().filter(move |(word, _)| {
            let at = joined.find(&format!(" {word} "));
            at.is_some_and(|at| at < line.len() + 1)
        });
        found.map(|(word, instead)| (number + 1, *word, *instead)).collect::<Vec<_>>()
    });
    lines.collect()
}

/// The links of a Markdown text: what stands in `](…)`.
fn links(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let lines = text.lines().filter(|line| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code
    });
    lines.flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split(')').next())).collect()
}

/// The anchors of a Markdown text, as code hosts make them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let headings = text.lines().filter_map(|line| {
        is_code ^= line.trim_start().starts_with("```");
        line.strip_prefix('#').filter(|_| !is_code).map(|line| line.trim_start_matches('#').trim())
    });
    let mut anchors = BTreeSet::new();
    for heading in headings {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let number = (1..).find(|number| !anchors.contains(&format!("{anchor}-{number}"))).unwrap();
        if !anchors.insert(anchor.clone()) {
            anchors.insert(format!("{anchor}-{number}"));
        }
    }
    anchors
}

/// What is wrong with the links of the page at `page`, a path below `root`.
fn broken_links(root: &Path, page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let name = page.strip_prefix(root).unwrap().display();
    let broken = links(&text).into_iter().filter_map(|link| {
        if link.contains("://") || link.starts_with("mailto:") {
            return None;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if path.is_empty() { page.to_owned() } else { page.parent().unwrap().join(path) };
        if !target.exists() {
            return Some(format!("{name}: {link} leads to no file"));
        }
        let is_there = anchor.is_empty() || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor);
        (!is_there).then(|| format!("{name}: {link} leads to no heading"))
    });
    broken.collect()
}

#[test]
fn what_people_read_has_no_private_words() {
    let pages = files().into_iter().filter_map(|file| {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        fs::read_to_string(&file).ok().map(|text| (name, text))
    });
    let mut faults = Vec::new();
    for (name, text) in pages.chain([("the messages of the program".into(), messages::page())]) {
        faults.extend(
            private_words(&text)
                .into_iter()
                .map(|(line, word, instead)| format!("{name}:{line}: \"{word}\": write {instead}")),
        );
    }
    assert!(faults.is_empty(), "write plain English (CONTRIBUTING.md, Style):\n{}", faults.join("\n"));
}

#[test]
fn links_between_pages_lead_to_files_and_headings() {
    let pages: Vec<_> = files().into_iter().filter(|file| file.extension().is_some_and(|e| e == "md")).collect();
    assert!(pages.len() > 15, "{pages:?}");
    let broken: Vec<_> = pages.iter().flat_map(|page| broken_links(root(), page)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_private_word_is_found_also_across_lines_and_a_part_of_a_word_is_not() {
    let found = |text: &str| private_words(text).into_iter().map(|(line, word, _)| (line, word)).collect::<Vec<_>>();
    assert_eq!(found("The webhook TELLS it,\nas asked\nfor."), [(1, "tells"), (2, "asked for")]);
    assert_eq!(found("A storyteller, untold: it asked\na question."), []);
}

#[test]
fn a_link_to_no_file_or_no_heading_is_found() {
    let folder = testkit::folder::Folder::new("links").unwrap();
    let folder = folder.path();
    let page = folder.join("page.md");
    let text = "# A `first` Heading, (yes)\n[a](#a-first-heading-yes) [b](#no) [c](no.md) [d](page.md#a-first-heading-yes)\n\
                ```\n[e](none.md)\n```\n[f](https://example.com/none)\n";
    fs::write(&page, text).unwrap();
    assert_eq!(broken_links(folder, &page), ["page.md: #no leads to no heading", "page.md: no.md leads to no file"]);
}
