//! What holds of the time after which a Notification is not sent any more: nothing begins after it, and nothing is
//! Expired before it.

use jiff::{SignedDuration, Timestamp};

use super::rules::{TOLERANCE, UNHEARD, subscriber_of};
use super::story::Story;
use crate::findings::Violation;
use crate::record::{Post, State};

/// Kubernetes keeps times to the second.
const ROUNDING: SignedDuration = SignedDuration::from_secs(1);

impl Story<'_> {
    /// When it expires, as it was then: its own time always counts, its Subscriber's once it was tried.
    pub(super) fn ends(&self, state: &State) -> Option<Timestamp> {
        state.ends(self.record.lifetime(subscriber_of(self.id)))
    }

    /// A POST that began after it had expired. What is not heard of yet (others made it older, or it was tried) is not
    /// held against the operator.
    pub(super) fn after_expiry(&self, post: &Post) -> Option<Violation> {
        let heard = post.arrived - UNHEARD - TOLERANCE;
        let first = self.changes.iter().rposition(|change| change.at <= heard).unwrap_or_default();
        let until = post.arrived + TOLERANCE;
        let versions = self.changes[first..].iter().take_while(|change| change.at <= until);
        let pending = versions.filter_map(|change| change.state.as_ref()).filter(|state| !state.is_finished());
        // None: one of them does not expire.
        let ends: Option<Vec<_>> = pending.map(|state| self.ends(state)).collect();
        let ended = ends?.into_iter().max().filter(|ended| *ended + TOLERANCE < post.arrived)?;
        Some(Violation::PostAfterExpiry { id: self.id.to_owned(), at: post.arrived, ended })
    }

    /// It was Expired too early had come.
    pub(super) fn expired_early(&self) -> Option<Violation> {
        let is_expired = |state: &State| state.phase == "Failed" && state.reason == "Expired";
        self.changes.windows(2).find_map(|pair| {
            let (before, after) = (pair[0].state.as_ref()?, pair[1].state.as_ref()?);
            let ends = self.ends(before);
            let is_early = ends.is_none_or(|ends| pair[1].at + ROUNDING < ends);
            let (id, at) = (self.id.to_owned(), pair[1].at);
            let is_new = is_expired(after) && !is_expired(before);
            (is_new && is_early).then_some(Violation::ExpiredEarly { id, at, ends })
        })
    }

    /// Whether others made it look older or younger than it is.
    pub(super) fn is_aged(&self) -> bool {
        let states = self.changes.iter().filter_map(|change| change.state.as_ref());
        let began: Vec<_> = states.filter(|state| state.replayed.is_none()).filter_map(|state| state.began).collect();
        began.windows(2).any(|pair| pair[0] != pair[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::fixture::{at, change, id, post, state, states, violations};
    use crate::record::{Record, Spec};

    const DAY: f64 = 86_400.0;

    /// Returns the violations of this kind only: the end of these stories does not matter.
    fn of_time(change: impl FnOnce(&mut Record)) -> Vec<Violation> {
        let mut found = violations(change);
        found.retain(|v| matches!(v, Violation::PostAfterExpiry { .. } | Violation::ExpiredEarly { .. }));
        found
    }

    fn pending(began: f64, own_life: Option<i64>, attempts: u64) -> State {
        State { began: Some(at(began)), own_life, attempts, ..state("Pending") }
    }

    fn expired(before: &State) -> State {
        State { phase: "Failed".into(), reason: "Expired".into(), ..before.clone() }
    }

    /// Pending in this way from `since` on, and sent at `sent`.
    fn sent(since: f64, state: State, sent: f64) -> Vec<Violation> {
        of_time(|record| {
            record.posts = vec![post("shop-1", sent, 204)];
            *states(record) = vec![change(since, state)];
        })
    }

    #[test]
    fn nothing_is_sent_after_its_own_time() {
        let found = [Violation::PostAfterExpiry { id: id(), at: at(10.0), ended: at(8.0) }];
        assert_eq!(sent(0.0, pending(0.0, Some(8), 0), 10.0), found);
        assert_eq!(sent(0.0, pending(0.0, Some(8), 0), 8.9), [], "it had begun before");
        assert_eq!(sent(0.0, pending(0.0, None, 0), 100.0), []);
    }

    #[test]
    fn its_subscribers_time_counts_once_it_was_tried() {
        let old = |attempts| pending(-2.0 * DAY, None, attempts);
        assert_eq!(sent(0.0, old(1), 100.0).len(), 1);
        assert_eq!(sent(0.0, old(0), 100.0), [], "it was never tried");
        let week = of_time(|record| {
            record.posts = vec![post("shop-1", 100.0, 204)];
            *states(record) = vec![change(0.0, old(1))];
            record.specs.insert("shop".into(), vec![Spec { lifetime: 604_800, ..Spec::default() }]);
        });
        assert_eq!(week, [], "that Subscriber grants a week");
    }

    #[test]
    fn what_made_it_older_or_younger_has_to_be_heard_of() {
        let then = |second: f64, after: State| {
            of_time(|record| {
                record.posts = vec![post("shop-1", 100.0, 204)];
                *states(record) = vec![change(0.0, pending(0.0, Some(150), 0)), change(second, after)];
            })
        };
        let older = pending(-2.0 * DAY, Some(150), 0);
        assert_eq!(then(90.0, older.clone()), []);
        assert_eq!(then(30.0, older).len(), 1);
        assert_eq!(then(30.0, pending(2.0 * DAY, Some(8), 0)), []);
    }

    #[test]
    fn nothing_is_expired_before_its_time() {
        let early = |before: State, seconds: f64, ends: Option<f64>| {
            let found = of_time(|record| {
                record.posts.clear();
                *states(record) = vec![change(0.0, before.clone()), change(seconds, expired(&before))];
            });
            let ends = ends.map(at);
            assert_eq!(found, [Violation::ExpiredEarly { id: id(), at: at(seconds), ends }]);
        };
        early(pending(0.0, Some(8), 0), 5.0, Some(8.0));
        early(pending(0.0, Some(8), 1), 5.0, Some(8.0));
        early(pending(-2.0 * DAY, None, 0), 5.0, None);
        early(pending(-0.5 * DAY, None, 1), 5.0, Some(0.5 * DAY));
        let in_time = |before: State| {
            of_time(|record| {
                record.posts.clear();
                *states(record) = vec![change(0.0, before.clone()), change(9.0, expired(&before))];
            })
        };
        assert_eq!((in_time(pending(0.0, Some(8), 0)), in_time(pending(-2.0 * DAY, None, 1))), (vec![], vec![]));
    }

    #[test]
    fn a_week_is_not_over_after_two_days() {
        let found = of_time(|record| {
            let before = pending(-2.0 * DAY, None, 1);
            record.posts.clear();
            *states(record) = vec![change(0.0, before.clone()), change(5.0, expired(&before))];
            record.specs.insert("shop".into(), vec![Spec { lifetime: 604_800, ..Spec::default() }]);
        });
        assert_eq!(found, [Violation::ExpiredEarly { id: id(), at: at(5.0), ends: Some(at(5.0 * DAY)) }]);
    }
}
