//! Rule for the rotation of the client secret: a Subscriber whose client was refused continues once the Secret has the
//! new value, without a request.

use jiff::Timestamp;

use super::rules::{TOLERANCE, UNHEARD};
use crate::findings::{Findings, Violation};
use crate::record::{Record, Window};

pub(super) fn rotations(record: &Record, findings: &mut Findings) {
    findings.rotations = record.rotations.len();
    for (subscriber, said) in &record.refusals {
        for Window { from, to } in refusals(said, record.ended) {
            findings.refused += 1;
            let openings = record.openings.get(subscriber).map_or(&[][..], |openings| openings);
            if to < record.ended && !openings.iter().any(|at| (from - TOLERANCE..=to + TOLERANCE).contains(at)) {
                findings.taken_up += 1;
            }
            // A rotation excuses nothing of the time before it began; nor does the end.
            let mut healed = from;
            let rotations = record.rotations.iter().filter(|rotation| rotation.from <= to);
            for rotation in rotations.chain([&Window { from: to, to }]) {
                if rotation.from.duration_since(healed) > UNHEARD + TOLERANCE {
                    let (subscriber, until) = (subscriber.clone(), rotation.from);
                    findings.violations.push(Violation::StillRefused { subscriber, since: healed, until });
                }
                healed = healed.max(rotation.to);
            }
        }
    }
}

/// From when to when a Subscriber's status said that the token service refuses the client.
fn refusals(said: &[(Timestamp, bool)], ended: Timestamp) -> impl Iterator<Item = Window> {
    let ends = said.iter().skip(1).map(|(at, _)| *at).chain([ended]);
    said.iter().zip(ends).filter(|((_, refused), _)| *refused).map(|((from, _), to)| Window { from: *from, to })
}

#[cfg(test)]
mod tests {
    use crate::checker::check;
    use crate::checker::fixture::{at, good};
    use crate::findings::Violation;
    use crate::record::Window;

    /// A Secret had the new value at 12; the Subscriber says from 11 on, up to `until`, that it is refused.
    fn refused(until: Option<f64>, ended: f64, openings: &[f64]) -> (usize, Vec<Violation>) {
        let mut record = good();
        record.ended = at(ended);
        record.rotations.push(Window { from: at(10.0), to: at(12.0) });
        let said = [Some((at(0.0), false)), Some((at(11.0), true)), until.map(|until| (at(until), false))];
        record.refusals.insert("shop".into(), said.into_iter().flatten().collect());
        record.openings.insert("shop".into(), openings.iter().map(|second| at(*second)).collect());
        let findings = check(&record);
        assert_eq!((findings.rotations, findings.refused), (1, 1));
        (findings.taken_up, findings.violations)
    }

    fn found(until: f64) -> [Violation; 1] {
        [Violation::StillRefused { subscriber: "shop".into(), since: at(12.0), until: at(until) }]
    }

    #[test]
    fn a_new_secret_is_found_within_a_minute() {
        assert_eq!(refused(Some(70.0), 200.0, &[]), (1, vec![]));
        assert_eq!(refused(Some(80.0), 200.0, &[]).1, found(80.0));
        assert_eq!(refused(None, 200.0, &[]).1, found(200.0), "to the end");
        assert_eq!(refused(None, 30.0, &[]), (0, vec![]), "the minute is not over");
    }

    #[test]
    fn one_that_somebody_opened_did_not_go_on_by_itself() {
        assert_eq!(refused(Some(20.0), 200.0, &[15.0]), (0, vec![]));
        assert_eq!(refused(Some(20.0), 200.0, &[5.0, 25.0]), (1, vec![]));
        assert_eq!(refused(Some(80.0), 200.0, &[75.0]).1, found(80.0), "without a request");
    }

    /// The same with another rotation after that, a second before the refusals end.
    fn rotated_twice(from: f64, to: f64) -> Vec<Violation> {
        let mut record = good();
        record.ended = at(200.0);
        record.rotations = vec![Window { from: at(10.0), to: at(12.0) }, Window { from: at(from), to: at(to) }];
        record.refusals.insert("shop".into(), vec![(at(11.0), true), (at(to + 1.0), false)]);
        check(&record).violations
    }

    #[test]
    fn a_second_rotation_excuses_nothing_of_the_time_before_it() {
        assert_eq!(rotated_twice(80.0, 82.0), found(80.0));
    }

    #[test]
    fn a_refusal_under_a_rotation_that_is_not_over_is_right() {
        assert_eq!(rotated_twice(30.0, 150.0), []);
    }
}
