//! POSTs at a wrong time or without a cause, by the stop that may have caught them in the middle.

use jiff::SignedDuration;

use super::rules::TOLERANCE;
use crate::findings::{Findings, Violation};
use crate::record::{Post, Record, Window};

/// What a process that was stopped in the middle of a send still sends when it goes on, arrives within this.
const AFTER_STOP: SignedDuration = SignedDuration::from_secs(3);
/// The maximum number of sends that one stop can interrupt: between the last check of Lease and pause, and the
/// request's last byte, lie milliseconds.
const MIDWAY: usize = 4;

/// POSTs at a wrong time or without a cause, by the stop that may have caught them in the middle.
pub(super) struct Timing<'a> {
    stops: Vec<(&'a Window, Vec<Violation>)>,
    others: Vec<Violation>,
}

impl<'a> Timing<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        Self { stops: record.stops.iter().map(|stop| (stop, Vec::new())).collect(), others: Vec::new() }
    }

    pub(super) fn add(&mut self, post: &Post, violation: Option<Violation>) {
        let Some(violation) = violation else { return };
        // In between, the operator sends nothing: another program sent it.
        let at = post.arrived;
        let caught = |stop: &Window| {
            (stop.from <= at && at <= stop.from + TOLERANCE) || (stop.to <= at && at <= stop.to + AFTER_STOP)
        };
        match self.stops.iter_mut().find(|(stop, _)| caught(stop)) {
            Some((_, of_stop)) => of_stop.push(violation),
            None => self.others.push(violation),
        }
    }

    pub(super) fn judge(self, findings: &mut Findings) {
        findings.violations.extend(self.others);
        for (_, of_stop) in self.stops {
            match of_stop.len() {
                count if count <= MIDWAY => findings.midway += count,
                _ => findings.violations.extend(of_stop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::check;
    use crate::checker::fixture::{at, good, pause, post, state};

    #[test]
    fn a_stop_catches_a_few_sends_in_their_middle_and_no_more() {
        let sent = |count: usize, stopped: f64| {
            let mut record = good();
            record.stops.push(Window { from: at(stopped), to: at(stopped + 5.0) });
            record.pauses.insert("shop".into(), vec![pause(10.0, Some(20.0))]);
            for id in (2..2 + count).map(|number| format!("shop-{number}")) {
                record.accepted.insert(id.clone(), at(0.0));
                record.listed.insert(id.clone(), state("Delivered"));
                record.posts.push(post(&id, 15.0, 204));
            }
            let findings = check(&record);
            (findings.midway, findings.violations.len())
        };
        assert_eq!(sent(MIDWAY, 9.0), (MIDWAY, 0));
        assert_eq!(sent(MIDWAY + 1, 9.0), (0, MIDWAY + 1));
        assert_eq!(sent(1, 1.0), (0, 1), "that stop was over long before");
        assert_eq!(sent(1, 11.5), (0, 1), "what is stopped sends nothing");
    }
}
