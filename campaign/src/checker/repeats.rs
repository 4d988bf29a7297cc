//! Why each event that was sent more than once was sent again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::rules::TOLERANCE;
use super::story::Story;
use super::timing::Timing;
use crate::findings::{Cause, Findings, Violation};
use crate::record::{Post, Record, Window};

/// No exchange with a webhook takes longer.
const EXCHANGE: SignedDuration = SignedDuration::from_secs(6);

/// How the Lease went from one operator to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handover {
    /// The one before had given it back.
    GivenBack,
    /// The one before had not renewed it any more.
    RanOut,
}

/// The changes of the Lease's holder after the first one.
pub(super) fn handovers(record: &Record) -> impl Iterator<Item = (Timestamp, Handover)> {
    record.holders.windows(2).filter(|pair| !pair[1].1.is_empty()).map(|pair| {
        let how = if pair[0].1.is_empty() { Handover::GivenBack } else { Handover::RanOut };
        (pair[1].0, how)
    })
}

impl Window {
    /// Whether a process that was stopped here had sent this POST and may have had no answer to it yet.
    fn caught_answer_to(&self, post: &Post) -> bool {
        self.from - EXCHANGE <= post.arrived && post.arrived <= self.from + TOLERANCE
    }
}

impl Story<'_> {
    pub(super) fn repeats(
        &self,
        findings: &mut Findings,
        after: &mut BTreeMap<Timestamp, usize>,
        timing: &mut Timing<'_>,
    ) {
        let mut used = BTreeSet::new();
        for pair in self.posts.windows(2) {
            let (first, again) = (pair[0], pair[1]);
            let Some(cause) = self.cause(first, again, &mut used) else {
                let (id, at, before) = (self.id.to_owned(), again.arrived, first.arrived);
                timing.add(again, Some(Violation::Unexplained { id, at, before }));
                continue;
            };
            *findings.repeats.entry(cause).or_default() += 1;
            if let Some(takeover) = self.takeover(first, again).filter(|_| cause == Cause::Takeover) {
                *after.entry(takeover).or_default() += 1;
                // An operator writes all outcomes before it releases the Lease.
                let mut ran_out = handovers(self.record).filter(|(_, how)| *how == Handover::RanOut);
                let between = |at| first.arrived - TOLERANCE <= at && at <= again.arrived + TOLERANCE;
                if !ran_out.any(|(at, _)| between(at)) {
                    let (id, at, before) = (self.id.to_owned(), again.arrived, first.arrived);
                    findings.violations.push(Violation::RepeatedAfterRelease { id, at, before });
                }
            }
        }
    }

    /// Returns why the event was sent again after `first`, if there is a reason. A change explains one repeat: `used`
    /// are the changes that already explain one.
    fn cause(&self, first: &Post, again: &Post, used: &mut BTreeSet<usize>) -> Option<Cause> {
        if first.answered.is_none() {
            return Some(Cause::Unanswered);
        }
        if !first.is_final() {
            return Some(Cause::Refused);
        }
        if let Some((number, cause)) = self.sent_back(first, again, used) {
            used.insert(number);
            return Some(cause);
        }
        let (from, to) = (first.arrived - TOLERANCE, again.arrived.min(first.arrived + EXCHANGE));
        if self.record.bad_ways.iter().any(|way| way.meets(from, to)) {
            Some(Cause::AnswerLost)
        } else if self.record.stops.iter().any(|stop| stop.caught_answer_to(first) && stop.from <= again.arrived) {
            Some(Cause::OperatorStopped)
        } else if self.record.is_barred(&first.subscriber, from, to) {
            Some(Cause::Barred)
        } else {
            self.takeover(first, again).map(|_| Cause::Takeover)
        }
    }

    /// Whether it was sent back to the queue, or kept there, between two POSTs.
    fn sent_back(&self, first: &Post, again: &Post, used: &BTreeSet<usize>) -> Option<(usize, Cause)> {
        let between = |at: Timestamp| first.arrived - TOLERANCE <= at && at <= again.arrived + TOLERANCE;
        let pairs = self.changes.windows(2).enumerate();
        let mut unused = pairs.filter(|(number, pair)| between(pair[1].at) && !used.contains(number));
        unused.find_map(|(number, pair)| {
            let (before, after) = (pair[0].state.as_ref()?, pair[1].state.as_ref()?);
            let set_back = before.is_finished() && !after.is_finished() && self.record.set_back.contains(self.id);
            // The write of another program changes only the number; a write of the operator changes the time of the
            // next attempt too.
            let recounted = self.record.recounted.contains(self.id)
                && before.attempts != after.attempts
                && !before.is_finished()
                && !after.is_finished()
                && before.next == after.next;
            match after.is_replay_of(before) {
                true => Some((number, Cause::Replay)),
                false if set_back => Some((number, Cause::SetBack)),
                false => (recounted && !first.is_acknowledged()).then_some((number, Cause::GaveWay)),
            }
        })
    }

    fn takeover(&self, first: &Post, again: &Post) -> Option<Timestamp> {
        let between = |at: &&Timestamp| first.arrived - TOLERANCE <= **at && **at <= again.arrived;
        self.record.takeovers.iter().find(between).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::fixture::{at, cause, change, id, post, replayed, state, states, violations};
    use crate::record::State;

    #[test]
    fn a_repeat_without_a_cause_is_found() {
        let found = violations(|record| record.posts.push(post("shop-1", 1.9, 204)));
        assert_eq!(found, [Violation::Unexplained { id: id(), at: at(1.9), before: at(1.0) }]);
    }

    #[test]
    fn each_cause_explains_a_repeat_and_an_event_at_another_time_does_not() {
        let window = |from, to| Window { from: at(from), to: at(to) };
        assert_eq!(cause(9.0, |record| record.posts[0].answered = None), Some(Cause::Unanswered));
        assert_eq!(cause(9.0, |record| record.posts[0].answered = Some(401)), Some(Cause::Refused));
        assert_eq!(cause(9.0, |record| states(record).push(change(8.0, replayed()))), Some(Cause::Replay));
        let set_back = |record: &mut Record| states(record).push(change(8.0, state("Pending")));
        assert_eq!(cause(9.0, set_back), None, "no write explains it");
        let by_another = |record: &mut Record| {
            set_back(record);
            record.set_back.insert(id());
        };
        assert_eq!(cause(9.0, by_another), Some(Cause::SetBack));
        assert_eq!(cause(9.0, |record| record.posts[0].answered = Some(422)), None, "nothing follows a final answer");
        let recounted = |answered: u16, next: Option<f64>| {
            cause(9.0, |record| {
                record.posts[0].answered = Some(answered);
                record.recounted.insert(id());
                let counted = State { attempts: 70, next: next.map(at), ..state("Pending") };
                states(record).insert(1, change(1.1, counted));
            })
        };
        assert_eq!(recounted(422, None), Some(Cause::GaveWay));
        assert_eq!(recounted(204, None), None, "success does not give way");
        assert_eq!(recounted(422, Some(8.0)), None, "that is the operator's own");
        assert_eq!(cause(9.0, |record| record.stops.push(window(-9.0, 5.0))), None, "sent while that one was stopped");
        assert_eq!(cause(9.0, |record| record.bad_ways.push(window(0.5, 1.5))), Some(Cause::AnswerLost));
        assert_eq!(cause(9.0, |record| record.stops.push(window(1.0, 3.0))), Some(Cause::OperatorStopped));
        assert_eq!(cause(9.0, |record| record.takeovers.push(at(5.0))), Some(Cause::Takeover));
        assert_eq!(cause(30.0, |record| states(record).push(change(40.0, replayed()))), None);
        assert_eq!(cause(30.0, |record| record.bad_ways.push(window(20.0, 25.0))), None);
        assert_eq!(cause(30.0, |record| record.stops.push(window(20.0, 25.0))), None);
        assert_eq!(cause(30.0, |record| record.takeovers.push(at(31.0))), None);
    }

    #[test]
    fn a_takeover_repeats_nothing_after_a_lease_that_was_given_back() {
        let taken_over = |holders: &[(f64, &str)]| {
            violations(|record| {
                record.posts.push(post("shop-1", 1.9, 204));
                record.takeovers.push(at(1.5));
                record.holders = holders.iter().map(|(seconds, name)| (at(*seconds), (*name).into())).collect();
            })
        };
        let found = [Violation::RepeatedAfterRelease { id: id(), at: at(1.9), before: at(1.0) }];
        assert_eq!(taken_over(&[(0.0, "a"), (1.4, ""), (1.5, "b")]), found);
        assert_eq!(taken_over(&[(0.0, "a"), (1.5, "b")]), [], "it had run out");
        assert_eq!(taken_over(&[(0.0, "a"), (1.2, "b"), (1.4, ""), (1.5, "c")]), [], "the first of two had run out");
        assert_eq!(taken_over(&[(-9.0, "a"), (-8.0, "b"), (1.4, ""), (1.5, "c")]), found, "that was long before");
    }

    #[test]
    fn a_replay_explains_one_repeat_and_one_that_was_undone_none() {
        let two = violations(|record| {
            record.posts.extend([post("shop-1", 9.0, 204), post("shop-1", 9.3, 204)]);
            states(record).push(change(8.5, replayed()));
        });
        assert_eq!(two, [Violation::Unexplained { id: id(), at: at(9.3), before: at(9.0) }]);
        let undone = cause(9.0, |record| {
            *states(record) = vec![change(0.0, replayed()), change(2.0, state("Delivered"))];
        });
        assert_eq!(undone, None);
    }

    #[test]
    fn a_takeover_repeats_no_more_than_was_under_way() {
        let repeated = |count: usize| {
            violations(|record| {
                record.takeovers.push(at(1.5));
                record.holders = vec![(at(0.0), "a".into()), (at(1.5), "b".into())];
                for id in (1..=count).map(|number| format!("shop-{number}")) {
                    record.accepted.insert(id.clone(), at(0.0));
                    record.listed.insert(id.clone(), state("Delivered"));
                    record.posts.retain(|post| post.id != id);
                    record.posts.extend([post(&id, 1.0, 204), post(&id, 1.8, 204)]);
                }
            })
        };
        assert_eq!(repeated(1), []);
        assert_eq!(repeated(2), [Violation::TooManyRepeats { takeover: at(1.5), repeats: 2 }]);
    }
}
