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
    ("during a recorded pause", |v| matches!(v, Violation::PostInPause { .. })),
    ("after a recorded Delivered", |v| matches!(v, Violation::PostAfterDelivered { .. })),
    ("after a recorded Failed", |v| matches!(v, Violation::PostAfterFailed { .. })),
    ("before their nextAttemptTime", |v| matches!(v, Violation::PostBeforeTime { .. })),
    ("a minute after a recorded deletion", |v| matches!(v, Violation::PostAfterDeletion { .. })),
    ("after the Notification had expired", |v| matches!(v, Violation::PostAfterExpiry { .. })),
    ("with a spec replaced a minute before", |v| matches!(v, Violation::PostByOldSpec { .. })),
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
        row("deleted by other clients before they finished", findings.deleted)?;
        row("lost (must be 0)", self.count(|v| matches!(v, Violation::Lost { .. } | Violation::ReplayLost { .. })))?;
        row("POSTs", findings.posts)?;
        for (cause, count) in &findings.repeats {
            row(&format!("  repeated, {cause}"), *count)?;
        }
        row("  repeated, unexplained (must be 0)", self.count(|v| matches!(v, Violation::Unexplained { .. })))?;
        row(
            "  repeated after a released Lease (must be 0)",
            self.count(|v| matches!(v, Violation::RepeatedAfterRelease { .. })),
        )?;
        row("  most repeats after one takeover", findings.most_after_takeover)?;
        for (what, kind) in TIMES {
            row(&format!("POSTs started {what} (must be 0)"), self.count(kind))?;
        }
        row("POSTs of these kinds that SIGSTOP interrupted", findings.midway)?;
        row(
            "recorded pauses that ended early (must be 0)",
            self.count(|v| matches!(v, Violation::PauseCutShort { .. })),
        )?;
        row("Expired too early (must be 0)", self.count(|v| matches!(v, Violation::ExpiredEarly { .. })))?;
        row(
            "changes of Subscribers without effect (must be 0)",
            self.count(|v| matches!(v, Violation::NotTakenUp { .. })),
        )?;
        row("not deleted after their TTL (must be 0)", self.count(|v| matches!(v, Violation::Kept { .. })))?;
        row("new client secrets not used (must be 0)", self.count(|v| matches!(v, Violation::StillRefused { .. })))?;
        row(
            "requests refused for lack of permission (must be 0)",
            self.count(|v| matches!(v, Violation::Forbidden { .. })),
        )?;
        row("operators that exited too late (must be 0)", self.count(|v| matches!(v, Violation::SlowEnd { .. })))?;
        row("all violations (must be 0)", findings.violations.len())?;
        row("faults", self.faults)?;
        row("changes of leader, including the first", findings.takeovers)?;
        row("  after a released Lease", findings.given_back)?;
        row("  after an expired Lease", findings.ran_out)?;
        row("status writes that arrived after another operator led", findings.outlived)?;
        row("  of them accepted by the API server", findings.outlived_taken)?;
        row("longest exit of an operator, in seconds", findings.longest_end)?;
        row("rotations of the client secret", findings.rotations)?;
        row("  Subscribers that were refused", findings.refused)?;
        row("  of them resumed without a request", findings.taken_up)?;
        row("pauses recorded", findings.pauses)?;
        row("replays requested", findings.replays)?;
        row("changed to be days older or younger", findings.aged)?;
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
