//! What holds of a time to live: what is finished is deleted when it is over.

use jiff::SignedDuration;

use super::rules::{TOLERANCE, UNHEARD, heard_from, subscriber_of};
use super::story::Story;
use crate::findings::Violation;
use crate::record::Change;

/// Every time to live is this long.
const LIFE: SignedDuration = SignedDuration::from_secs(5);

impl Story<'_> {
    /// It is finished long since, and still there.
    pub(super) fn kept(&self) -> Option<Violation> {
        let is_over =
            |change: &&Change| change.state.as_ref().is_some_and(|state| state.is_finished() && state.has_ttl);
        let finished = self.changes.iter().rev().take_while(is_over).last()?.at;
        let since = heard_from(self.record, subscriber_of(self.id), finished, self.record.ended);
        let is_there = self.record.listed.contains_key(self.id);
        let is_late = self.record.ended.duration_since(since) > UNHEARD + LIFE + TOLERANCE;
        (is_there && is_late).then_some(Violation::Kept { id: self.id.to_owned(), finished })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::fixture::{at, change, id, state, states, violations};
    use crate::record::{Record, State};

    fn finished(seconds: f64, more: impl FnOnce(&mut Record)) -> Vec<Violation> {
        violations(|record| {
            states(record)[1] = change(seconds, State { has_ttl: true, ..state("Delivered") });
            more(record);
        })
    }

    #[test]
    fn what_has_a_time_to_live_is_not_kept() {
        assert_eq!(finished(200.0, |_| ()), [Violation::Kept { id: id(), finished: at(200.0) }]);
        assert_eq!(finished(240.0, |_| ()), [], "there was no time");
        assert_eq!(finished(200.0, |record| record.takeovers.push(at(250.0))), [], "the next one has to list them");
        let deleted = |record: &mut Record| {
            states(record).push(Change { at: at(210.0), state: None });
            record.listed.clear();
        };
        assert_eq!(finished(200.0, deleted), []);
    }
}
