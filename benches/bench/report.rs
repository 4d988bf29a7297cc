//! The table, on the terminal and in the documentation.

use std::{fmt::Write, path::Path, time::Duration};

use k8s_openapi::jiff::Timestamp;

use crate::{say::say, usage::machine};

/// Where the table stands, between these lines.
const PAGE: &str = "docs/performance.md";
const MARKS: [&str; 2] = ["<!-- written by make bench -->", "<!-- end of what make bench writes -->"];

/// What was measured, line by line.
#[derive(Default)]
pub struct Report {
    rows: Vec<[String; 3]>,
}

impl Report {
    /// A figure; `goal` says what it should be and whether it is.
    pub fn row(&mut self, what: &str, measured: String, goal: &str) {
        say(format!("=> {what}: {measured} {goal}"));
        self.rows.push([what.to_owned(), measured, goal.to_owned()]);
    }

    /// A figure that should be large, measured several times.
    pub fn at_least(&mut self, what: &str, samples: Vec<f64>, goal: f64) {
        let verdict = verdict(median(samples.clone()) >= goal);
        self.row(what, spread(samples), &format!("≥ {goal}: {verdict}"));
    }

    /// A figure that should be small.
    pub fn at_most(&mut self, what: &str, measured: f64, goal: f64, unit: &str) {
        let verdict = verdict(measured <= goal);
        self.row(what, format!("{measured:.2}{unit}"), &format!("≤ {goal}{unit}: {verdict}"));
    }

    /// A time that should be short; None: it had not happened after `limit`.
    pub fn within(&mut self, what: &str, measured: Option<Duration>, limit: Duration, goal: f64) {
        match measured {
            Some(time) => self.at_most(what, time.as_secs_f64(), goal, " s"),
            None => self.missed(what, &format!("not within {} s", limit.as_secs()), &format!("≤ {goal} s")),
        }
    }

    /// What came in place of a figure that has a goal.
    pub fn missed(&mut self, what: &str, instead: &str, goal: &str) {
        self.row(what, instead.to_owned(), &format!("{goal}: {}", verdict(false)));
    }

    /// Something that should not happen to any of `all`.
    pub fn none_of(&mut self, what: &str, count: usize, all: usize) {
        self.row(what, format!("{count} of {all}"), &format!("none: {}", verdict(count == 0)));
    }

    /// All of it, as Markdown.
    pub fn table(&self, took: Duration) -> String {
        let mut table = format!(
            "Measured on {}, on {}, in {} minutes:\n\n| what | measured | goal |\n|---|---|---|\n",
            Timestamp::now().strftime("%Y-%m-%d"),
            machine(),
            took.as_secs().div_ceil(60),
        );
        for [what, measured, goal] in &self.rows {
            writeln!(table, "| {what} | {measured} | {goal} |").unwrap();
        }
        table
    }
}

/// The middle one, the least and the most.
pub fn spread(samples: Vec<f64>) -> String {
    let (least, most) = (percentile(&samples, 0), percentile(&samples, 100));
    format!("{:.2} ({least:.2} to {most:.2})", median(samples))
}

fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "missed" }
}

/// Puts the table into the page.
pub fn write(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(MARKS[0]).expect("the page has a place for the table");
    let (_, after) = rest.split_once(MARKS[1]).expect("the place for the table ends");
    std::fs::write(&path, format!("{before}{}\n\n{table}\n{}{after}", MARKS[0], MARKS[1])).unwrap();
}

/// The middle one, or the mean of the two in the middle.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    f64::midpoint(samples[(samples.len() - 1) / 2], samples[samples.len() / 2])
}

/// The smallest sample that `percent` per cent of the samples do not exceed.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(samples.len() * percent).div_ceil(100).max(1) - 1]
}
