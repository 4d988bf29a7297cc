//! Rule for the end of an operator: after SIGTERM it soon releases the Lease, so that another operator leads.

use jiff::SignedDuration;

use super::rules::TOLERANCE;
use crate::findings::{Findings, Violation};
use crate::record::Record;

/// What is in flight ends within seconds; its outcome may be held up on its way for 40 s.
const LONGEST: SignedDuration = SignedDuration::from_secs(45);

pub(super) fn judge(record: &Record, findings: &mut Findings) {
    for end in &record.ends {
        // An operator that was stopped (SIGSTOP) could not.
        if record.stops.iter().any(|stop| stop.meets(end.from, end.to)) {
            continue;
        }
        let ended = end.to.min(record.ended);
        let took = ended.duration_since(end.from);
        findings.longest_end = findings.longest_end.max(usize::try_from(took.as_secs()).unwrap_or_default());
        if took > LONGEST + TOLERANCE {
            findings.violations.push(Violation::SlowEnd { signalled: end.from, ended });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::fixture::{at, violations};
    use crate::record::Window;

    #[test]
    fn an_operator_that_is_told_to_end_does() {
        let ended = |seconds: f64, stopped: Option<f64>| {
            violations(|record| {
                record.ends.push(Window { from: at(10.0), to: at(seconds) });
                record.stops.extend(stopped.map(|from| Window { from: at(from), to: at(from + 20.0) }));
            })
        };
        let found = [Violation::SlowEnd { signalled: at(10.0), ended: at(75.0) }];
        assert_eq!((ended(50.0, None), ended(75.0, None)), (vec![], found.to_vec()));
        assert_eq!(ended(75.0, Some(20.0)), [], "it was stopped");
        assert_eq!(ended(75.0, Some(80.0)), found, "that was later");
    }
}
