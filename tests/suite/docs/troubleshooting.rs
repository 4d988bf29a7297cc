//! `docs/troubleshooting.md`: what `kubectl describe` shows for each reason of a Subscriber, from real runs. `make
//! generate` regenerates the page; otherwise the test fails when a reason no longer shows what the page says.

use std::{collections::BTreeMap, env, fmt::Write, fs};

use tidings_api::SubscriberReason as Reason;

use crate::{
    cluster::root,
    subscribers::every_reason::{Shown, every_reason},
};

const PAGE: &str = "docs/troubleshooting.md";

fn page(shown: &BTreeMap<&'static str, Shown>) -> String {
    let mut page = String::from(
        "# Troubleshooting a Subscriber\n\n<!-- Written by `make generate` from real runs; do not edit. -->\n\n\
         What `kubectl describe subr` shows for each reason, below the metadata and the spec. Read `Ready` first: its reason is the\n\
         column Reason of `kubectl get`. A Notification that waits names the same gate in its own `reason`.\n\
         [reasons.md](reasons.md) lists the reasons of Notifications and attempts too.\n",
    );
    for reason in Reason::ALL {
        let text = &shown[reason.as_str()].described;
        let remedy = match reason.remedy() {
            "Nothing." => String::new(),
            remedy => format!(" What to do: {remedy}"),
        };
        write!(page, "\n## {reason}\n\n{}{remedy}\n\n```text\n{text}```\n", reason.meaning().trim()).unwrap();
    }
    page
}

/// The message of the condition with this reason, but for the times and ids in it.
fn message(section: &str, reason: &str) -> Option<String> {
    let mut message = None;
    for line in section.lines().map(str::trim_start) {
        if let Some(text) = line.strip_prefix("Message:") {
            let is_word = |word: &&str| word.bytes().filter(u8::is_ascii_digit).count() < 6;
            message = Some(text.split_whitespace().filter(is_word).collect::<Vec<_>>().join(" "));
        } else if line.strip_prefix("Reason:").is_some_and(|of| of.trim() == reason) {
            return message;
        }
    }
    None
}

#[tokio::test]
async fn troubleshooting_shows_the_status_for_each_reason_of_a_subscriber() {
    let page = page(every_reason().await);
    if env::var_os("TIDINGS_UPDATE_GOLDEN").is_some() {
        fs::write(root().join(PAGE), &page).unwrap();
    }
    let committed = fs::read_to_string(root().join(PAGE)).unwrap_or_default();
    for section in page.split("\n## ").skip(1) {
        let name = section.lines().next().unwrap();
        let old = committed.split("\n## ").find(|old| old.lines().next() == Some(name));
        let old = old.unwrap_or_else(|| panic!("{PAGE} does not show {name}: run make generate"));
        let (old, new) = (message(old, name), message(section, name));
        assert!(new.is_some(), "{name} is missing: {section}");
        assert_eq!(old, new, "{PAGE} is stale for {name}: run make generate");
        assert!(section.contains("Events:"), "{name}: {section}");
    }
}
