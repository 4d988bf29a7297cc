//! What became of one Notification, and whether each POST of it came in its time.

use super::rules::{TOLERANCE, UNHEARD};
use crate::findings::{Findings, Violation};
use crate::record::{Change, Post, Record, State};

/// Whether a change moved the Notification. A write of only a label or a message does not move it.
fn moved(before: &State, after: &State) -> bool {
    (&before.phase, before.attempts, before.next, before.replayed)
        != (&after.phase, after.attempts, after.next, after.replayed)
}

/// All that is known of one Notification.
pub(super) struct Story<'a> {
    pub(super) record: &'a Record,
    pub(super) id: &'a str,
    pub(super) posts: &'a [&'a Post],
    pub(super) changes: &'a [Change],
}

impl Story<'_> {
    /// What became of it.
    pub(super) fn outcome(&self, findings: &mut Findings) {
        let id = || self.id.to_owned();
        let last = self.changes.iter().rev().find_map(|change| change.state.as_ref());
        let state = match self.record.listed.get(self.id) {
            Some(listed) => listed,
            None if self.record.deleted.contains(self.id) => match last.filter(|state| state.is_finished()) {
                Some(last) => last,
                None => {
                    findings.deleted += 1;
                    return;
                }
            },
            // Deleted by its time to live, once it was finished.
            None => match last.filter(|state| state.is_finished() && state.has_ttl) {
                Some(last) => last,
                None => {
                    let state = "gone".to_owned();
                    findings.violations.push(Violation::Lost { id: id(), state });
                    return;
                }
            },
        };
        match state.phase.as_str() {
            "Delivered" => {
                findings.delivered += 1;
                if !self.posts.iter().any(|post| post.is_acknowledged()) {
                    findings.violations.push(Violation::NeverAcknowledged { id: id() });
                }
            }
            "Failed" => {
                *findings.failed.entry(state.reason.clone()).or_default() += 1;
                findings.expired_unsent += usize::from(state.reason == "Expired" && self.posts.is_empty());
                if !self.bears_out(state) {
                    findings.violations.push(Violation::NoReason { id: id(), reason: state.reason.clone() });
                }
            }
            phase => {
                let state = format!("{phase}, {}", state.reason);
                findings.violations.push(Violation::Lost { id: id(), state });
            }
        }
        if !self.is_replayed(state) {
            findings.violations.push(Violation::ReplayLost { id: id() });
        }
    }

    /// Whether what the webhook answered can lead to this failure.
    fn bears_out(&self, state: &State) -> bool {
        // An attempt that did not even get a connection never arrives.
        let one_never_arrived = || state.attempts > self.posts.len() as u64;
        match state.reason.as_str() {
            "Rejected" => self.posts.iter().any(|post| post.is_rejected()),
            "Exhausted" => one_never_arrived() || self.posts.iter().any(|post| !post.is_acknowledged()),
            // Whether its time had come, its versions show.
            reason => reason == "Expired" && self.ends(state).is_some_and(|ends| ends <= self.record.ended),
        }
    }

    /// Whether the requested replay, if any, was done: handled and, if it succeeded, acknowledged again.
    fn is_replayed(&self, state: &State) -> bool {
        let Some((value, asked)) = self.record.replays.get(self.id) else { return true };
        let sent_anew = || self.posts.iter().any(|post| post.is_acknowledged() && post.arrived + TOLERANCE >= *asked);
        // A Notification that another program deletes no longer needs a replay.
        self.record.deleted.contains(self.id)
            || (state.handled.as_ref() == Some(value) && (!state.is_delivered() || sent_anew()))
    }

    pub(super) fn undone(&self) -> Option<Violation> {
        let pairs = self.changes.windows(2).filter_map(|pair| {
            let (before, after) = (pair[0].state.as_ref()?, pair[1].state.as_ref()?);
            (before.is_delivered() && !after.is_delivered() && !after.is_replay_of(before)).then_some(pair[1].at)
        });
        let at = pairs.into_iter().next().filter(|_| !self.record.set_back.contains(self.id))?;
        Some(Violation::Undone { id: self.id.to_owned(), at })
    }

    /// A POST that began after Delivered or Failed was recorded, long after it was deleted, or before the recorded time
    /// of its next attempt.
    pub(super) fn untimely(&self, post: &Post) -> Option<Violation> {
        let known = self.changes.iter().rposition(|change| change.at <= post.arrived - TOLERANCE)?;
        let since = self.changes[known].at;
        let mut meanwhile = self.changes[known + 1..].iter().take_while(|change| change.at <= post.arrived + TOLERANCE);
        let (id, at) = (self.id.to_owned(), post.arrived);
        let Some(state) = &self.changes[known].state else {
            let is_unheard = at.duration_since(since) > UNHEARD + TOLERANCE && meanwhile.next().is_none();
            return is_unheard.then_some(Violation::PostAfterDeletion { id, at, deleted: since });
        };
        // Its own outcome does not excuse it.
        let is_outcome = |change: &&Change| {
            let after = change.state.as_ref().filter(|_| change.at >= post.arrived);
            after.is_some_and(|after| after.attempts > state.attempts && !after.is_replay_of(state))
        };
        let moves = |change: &Change| change.state.as_ref().is_none_or(|after| moved(state, after));
        if meanwhile.filter(|change| !is_outcome(change)).any(moves) {
            return None;
        }
        match state.phase.as_str() {
            "Delivered" => Some(Violation::PostAfterDelivered { id, at, delivered: since }),
            "Failed" => Some(Violation::PostAfterFailed { id, at, failed: since }),
            _ => {
                let next = state.next.filter(|next| *next > post.arrived + TOLERANCE)?;
                Some(Violation::PostBeforeTime { id, at, next })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::fixture::{at, change, id, post, replayed, state, states, violations};

    #[test]
    fn one_that_is_gone_or_unfinished_is_lost_unless_others_deleted_it() {
        let gone = |record: &mut Record| record.listed.clear();
        assert_eq!(violations(gone), [Violation::Lost { id: id(), state: "gone".into() }]);
        let pending = |record: &mut Record| drop(record.listed.insert(id(), state("Pending")));
        assert_eq!(violations(pending), [Violation::Lost { id: id(), state: "Pending, Why".into() }]);
        assert_eq!(
            violations(|record| {
                record.listed.clear();
                record.deleted.insert(id());
            }),
            []
        );
    }

    #[test]
    fn a_time_to_live_deletes_what_is_finished_and_nothing_else() {
        let with = |phase: &'static str| {
            violations(move |record| {
                record.listed.clear();
                states(record)[1].state = Some(State { has_ttl: true, ..state(phase) });
            })
        };
        assert_eq!(with("Delivered"), []);
        assert_eq!(with("Pending"), [Violation::Lost { id: id(), state: "gone".into() }]);
    }

    #[test]
    fn failed_needs_a_reason_and_an_answer_that_leads_to_it() {
        let of = |state: State, answered: u16| {
            violations(move |record| {
                states(record).pop();
                record.posts[0].answered = Some(answered);
                record.listed.insert(id(), state);
            })
        };
        let failed = |reason: &str, answered: u16, attempts: u64| {
            of(State { reason: reason.into(), attempts, ..state("Failed") }, answered)
        };
        let failed_at_once = |reason, answered| failed(reason, answered, 1);
        for (reason, answered) in [("Rejected", 422), ("Exhausted", 302), ("Exhausted", 404)] {
            assert_eq!(failed_at_once(reason, answered), [], "{reason}");
        }
        let own_life = State { reason: "Expired".into(), began: Some(at(0.0)), own_life: Some(5), ..state("Failed") };
        assert_eq!(of(own_life, 500), []);
        let wrong = [("", 500), ("Rejected", 500), ("RedirectRefused", 422), ("Exhausted", 204), ("Expired", 500)];
        for (reason, answered) in wrong {
            assert_eq!(failed_at_once(reason, answered), [Violation::NoReason { id: id(), reason: reason.into() }]);
        }
        assert_eq!(failed("Exhausted", 204, 2), [], "one attempt did not arrive");
    }

    #[test]
    fn delivered_needs_a_2xx() {
        for answered in [None, Some(500), Some(302)] {
            let found = violations(|record| record.posts[0].answered = answered);
            assert_eq!(found, [Violation::NeverAcknowledged { id: id() }], "{answered:?}");
        }
    }

    #[test]
    fn a_replay_is_handled_and_sent_anew() {
        let handled = State { handled: Some("1".into()), replayed: Some(at(10.0)), ..state("Delivered") };
        let replay = |sent: bool, handled: State| {
            violations(move |record| {
                record.replays.insert(id(), ("1".into(), at(10.0)));
                states(record).push(change(11.0, replayed()));
                if sent {
                    record.posts.push(post("shop-1", 12.0, 204));
                }
                record.listed.insert(id(), handled);
            })
        };
        assert_eq!(replay(true, handled.clone()), []);
        assert_eq!(replay(false, handled), [Violation::ReplayLost { id: id() }]);
        assert_eq!(replay(true, state("Delivered")), [Violation::ReplayLost { id: id() }]);
    }

    #[test]
    fn delivered_is_undone_by_a_replay_or_another_client_alone() {
        let undone = |state: State, set_back: bool| {
            violations(move |record| {
                states(record).push(change(10.0, state));
                if set_back {
                    record.set_back.insert(id());
                }
            })
        };
        assert_eq!(undone(state("Failed"), false), [Violation::Undone { id: id(), at: at(10.0) }]);
        assert_eq!(undone(state("Pending"), true), []);
        assert_eq!(undone(replayed(), false), []);
    }

    #[test]
    fn nothing_is_sent_after_a_recorded_delivered() {
        let sent = |seconds: f64, extra: fn(&mut Record)| {
            violations(move |record| {
                // Explained as a repeat, so that this alone is found.
                record.takeovers.push(at(1.5));
                record.holders = vec![(at(0.0), "a".into()), (at(1.5), "b".into())];
                record.posts.push(post("shop-1", seconds, 204));
                extra(record);
            })
        };
        let found = [Violation::PostAfterDelivered { id: id(), at: at(9.0), delivered: at(2.0) }];
        assert_eq!(sent(9.0, |_| ()), found);
        assert_eq!(sent(2.5, |_| ()), [], "it had begun before");
        let replay = |record: &mut Record| {
            states(record).push(change(8.0, replayed()));
        };
        assert_eq!(sent(9.0, replay), []);
    }

    #[test]
    fn nothing_is_sent_a_minute_after_its_deletion() {
        let sent = |seconds: f64, extra: fn(&mut Record)| {
            violations(move |record| {
                record.deleted.insert(id());
                record.posts[0].answered = Some(500);
                *states(record) = vec![change(0.0, state("Pending")), Change { at: at(2.0), state: None }];
                record.posts.push(post("shop-1", seconds, 204));
                extra(record);
            })
        };
        assert_eq!(sent(64.0, |_| ()), [Violation::PostAfterDeletion { id: id(), at: at(64.0), deleted: at(2.0) }]);
        assert_eq!(sent(62.0, |_| ()), [], "a watch that is half open is found within a minute");
        assert_eq!(sent(64.0, |record| states(record).push(change(9.0, state("Pending")))), [], "created again");
    }

    #[test]
    fn nothing_is_sent_before_its_time() {
        let sent = |seconds: f64| {
            violations(move |record| {
                record.posts[0].answered = Some(500);
                let waits = State { next: Some(at(30.0)), attempts: 1, ..state("Pending") };
                // Its own outcome is recorded at once, and does not hide it.
                let outcome = State { attempts: 2, ..state("Delivered") };
                *states(record) = vec![change(2.0, waits), change(seconds + 0.02, outcome)];
                record.posts.push(post("shop-1", seconds, 204));
            })
        };
        assert_eq!(sent(20.0), [Violation::PostBeforeTime { id: id(), at: at(20.0), next: at(30.0) }]);
        assert_eq!((sent(29.5), sent(31.0)), (vec![], vec![]));
    }

    #[test]
    fn nothing_is_sent_after_a_recorded_failed() {
        let found = violations(|record| {
            record.posts[0].answered = Some(500);
            states(record)[1].state = Some(state("Failed"));
            record.posts.push(post("shop-1", 9.0, 204));
            states(record).push(change(9.02, State { attempts: 1, ..state("Delivered") }));
        });
        assert_eq!(found, [Violation::PostAfterFailed { id: id(), at: at(9.0), failed: at(2.0) }]);
    }
}
