//! What a campaign found, as a table and as a verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::findings::{Findings, Violation};

/// How many violations are printed one by one.
const PRINTED: usize = 20;

type Kind = fn(&Violation) -> bool;

/// When no POST may begin.
const TIMES: [(&str, Kind); 7] = [
    ("inside a recorded pause", |v| matches!(v, Violation::PostInPause { .. })),
    ("after a recorded Delivered", |v| matches!(v, Violation::PostAfterDelivered { .. })),
    ("after a recorded Failed", |v| matches!(v, Violation::PostAfterFailed { .. })),
    ("before their nextAttemptTime", |v| matches!(v, Violation::PostBeforeTime { .. })),
    ("a minute after a recorded deletion", |v| matches!(v, Violation::PostAfterDeletion { .. })),
    ("after the Notification had expired", |v| matches!(v, Violation::PostAfterExpiry { .. })),
    ("by a spec replaced a minute before", |v| matches!(v, Violation::PostByOldSpec { .. })),
];

/// What a campaign found.
#[derive(Debug)]
pub struct Report {
    pub(crate) seed: u64,
    pub(crate) duration: Duration,
    /// How long it took from the last fault until everything was finished.
    pub(crate) settled: Duration,
    pub(crate) faults: usize,
    /// How many requests to the API server the proxy treated in each way.
    pub(crate) treated: BTreeMap<&'static str, usize>,
    pub(crate) findings: Findings,
}

impl Report {
    /// Whether nothing was found that must not be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.violations.is_empty()
    }

    /// How many Notifications were delivered.
    #[must_use]
    pub fn delivered(&self) -> usize {
        self.findings.delivered
    }

    /// How often an operator began to lead, the first time included.
    #[must_use]
    pub fn takeovers(&self) -> usize {
        self.findings.takeovers
    }

    /// How many status writes reached the API server after another operator led than had sent them.
    #[must_use]
    pub fn outlived(&self) -> usize {
        self.findings.outlived
    }

    fn count(&self, kind: Kind) -> usize {
        self.findings.violations.iter().filter(|violation| kind(violation)).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = &self.findings;
        let mut row = |name: &str, value: usize| writeln!(f, "{name:<64} {value:>6}");
        row("created (confirmed by the API server)", findings.created)?;
        row("delivered", findings.delivered)?;
        for (reason, count) in &findings.failed {
            row(&format!("failed, {reason}"), *count)?;
        }
        row("deleted by others before they were finished", findings.deleted)?;
        row("lost (must be 0)", self.count(|v| matches!(v, Violation::Lost { .. } | Violation::ReplayLost { .. })))?;
        row("POSTs", findings.posts)?;
        for (cause, count) in &findings.repeats {
            row(&format!("  repeated, {cause}"), *count)?;
        }
        row("  repeated, unexplained (must be 0)", self.count(|v| matches!(v, Violation::Unexplained { .. })))?;
        row(
            "  repeated after a Lease that was given back (must be 0)",
            self.count(|v| matches!(v, Violation::RepeatedAfterRelease { .. })),
        )?;
        row("  at most after one takeover", findings.most_after_takeover)?;
        for (what, kind) in TIMES {
            row(&format!("POSTs begun {what} (must be 0)"), self.count(kind))?;
        }
        row("POSTs of these kinds that SIGSTOP had caught in the middle of a send", findings.midway)?;
        row(
            "recorded pauses that were cut short (must be 0)",
            self.count(|v| matches!(v, Violation::PauseCutShort { .. })),
        )?;
        row("Expired before its time (must be 0)", self.count(|v| matches!(v, Violation::ExpiredEarly { .. })))?;
        row(
            "changes of Subscribers not taken up (must be 0)",
            self.count(|v| matches!(v, Violation::NotTakenUp { .. })),
        )?;
        row("not deleted after their time to live (must be 0)", self.count(|v| matches!(v, Violation::Kept { .. })))?;
        row("new secrets not found (must be 0)", self.count(|v| matches!(v, Violation::StillRefused { .. })))?;
        row("refused for want of a right (must be 0)", self.count(|v| matches!(v, Violation::Forbidden { .. })))?;
        row("operators that took too long to end (must be 0)", self.count(|v| matches!(v, Violation::SlowEnd { .. })))?;
        row("all violations (must be 0)", findings.violations.len())?;
        row("faults", self.faults)?;
        row("changes of leader, the first included", findings.takeovers)?;
        row("  after a Lease that was given back", findings.given_back)?;
        row("  after a Lease that ran out", findings.ran_out)?;
        row("status writes that arrived after another operator led", findings.outlived)?;
        row("  of them taken by the API server", findings.outlived_taken)?;
        row("seconds that an operator took to end, at most", findings.longest_end)?;
        row("rotations of the client secret", findings.rotations)?;
        row("  Subscribers that were refused", findings.refused)?;
        row("  of them resumed without a request", findings.taken_up)?;
        row("pauses recorded", findings.pauses)?;
        row("replays requested", findings.replays)?;
        row("made days older or younger", findings.aged)?;
        row("expired without a POST", findings.expired_unsent)?;
        row("changes of Subscribers' specs", findings.respecified)?;
        let treated: Vec<_> = self.treated.iter().map(|(how, count)| format!("{count} {how}")).collect();
        writeln!(f, "requests to the API server: {}", treated.join(", "))?;
        writeln!(
            f,
            "{} s of faults, settled {:.1} s later, seed {}",
            self.duration.as_secs(),
            self.settled.as_secs_f32(),
            self.seed
        )?;
        for violation in findings.violations.iter().take(PRINTED) {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        match findings.violations.len() {
            0 => writeln!(f, "No violation: nothing lost, no repeat without a cause."),
            count if count > PRINTED => writeln!(f, "and {} more", count - PRINTED),
            _ => Ok(()),
        }
    }
}
