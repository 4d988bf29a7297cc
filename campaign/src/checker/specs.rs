//! Rule for changes of Subscribers: each change takes effect, even while all Subscribers are listed again.

use super::rules::{TOLERANCE, UNHEARD, heard_from};
use crate::findings::Violation;
use crate::record::{Post, Record, Spec};

/// The changes that no status was about within [`UNHEARD`].
pub(super) fn not_taken_up(record: &Record) -> Vec<Violation> {
    let of_one = |(subscriber, specs): (&String, &Vec<Spec>)| {
        specs.iter().enumerate().find_map(|(number, spec)| {
            let is_done = |later: &&Spec| later.deleted || later.observed >= spec.generation;
            let until = specs[number..].iter().find(is_done).map_or(record.ended, |later| later.at);
            let since = heard_from(record, subscriber, spec.at, until);
            let (subscriber, generation) = (subscriber.clone(), spec.generation);
            let is_late = until.duration_since(since) > UNHEARD + TOLERANCE;
            is_late.then_some(Violation::NotTakenUp { subscriber, generation, since: spec.at, until })
        })
    };
    record.specs.iter().filter_map(of_one).collect()
}

/// A POST to where no spec of its Subscriber leads that was in force within the last [`UNHEARD`].
pub(super) fn by_old_spec(record: &Record, post: &Post) -> Option<Violation> {
    let specs = record.specs.get(&post.subscriber)?;
    let heard = specs.iter().rposition(|spec| spec.at <= post.arrived - UNHEARD - TOLERANCE)?;
    let mut in_force = specs[heard..].iter().take_while(|spec| spec.at <= post.arrived + TOLERANCE);
    let leads_there = |spec: &Spec| !spec.deleted && !spec.suspended && spec.path == post.path;
    let (id, at, path) = (post.id.clone(), post.arrived, post.path.clone());
    (!in_force.any(leads_there)).then_some(Violation::PostByOldSpec { id, at, path })
}

/// How many changes of specs there were.
pub(super) fn respecified(record: &Record) -> usize {
    let changes = |specs: &Vec<Spec>| specs.windows(2).filter(|pair| pair[0].generation < pair[1].generation).count();
    record.specs.values().map(changes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::fixture::{at, id, post, states, violations};
    use crate::record::Window;

    fn spec(seconds: f64, generation: i64, observed: i64) -> Spec {
        Spec { at: at(seconds), generation, observed, path: "shop".into(), lifetime: 86_400, ..Spec::default() }
    }

    fn with(specs: Vec<Spec>, more: impl FnOnce(&mut Record)) -> Vec<Violation> {
        violations(|record| {
            record.specs.insert("shop".into(), specs);
            more(record);
        })
    }

    #[test]
    fn a_change_that_no_status_is_about_was_lost() {
        let until = |seconds| vec![spec(0.0, 1, 1), spec(10.0, 2, 1), spec(seconds, 2, 2)];
        let found = |until| {
            let (subscriber, since) = ("shop".into(), at(10.0));
            [Violation::NotTakenUp { subscriber, generation: 2, since, until: at(until) }]
        };
        assert_eq!(with(until(70.0), |_| ()), []);
        assert_eq!(with(until(80.0), |_| ()), found(80.0));
        assert_eq!(with(vec![spec(0.0, 1, 1), spec(10.0, 2, 1)], |_| ()), found(300.0), "to the end");
        let new = with(vec![spec(10.0, 1, -1)], |_| ());
        assert_eq!(new.len(), 1, "a new one was not reconciled: {new:?}");
        let deleted = vec![spec(0.0, 1, 1), spec(10.0, 2, 1), Spec { deleted: true, ..spec(20.0, 2, 1) }];
        assert_eq!(with(deleted, |_| ()), []);
    }

    #[test]
    fn a_leader_that_is_new_or_goes_on_has_time_to_take_it_up() {
        let late = || vec![spec(0.0, 1, 1), spec(10.0, 2, 1), spec(80.0, 2, 2)];
        assert_eq!(with(late(), |record| record.takeovers.push(at(40.0))), []);
        assert_eq!(with(late(), |record| record.stops.push(Window { from: at(12.0), to: at(30.0) })), []);
        assert_eq!(with(late(), |record| record.takeovers.push(at(5.0))).len(), 1, "that was before");
        let barred = |namespace: &str| {
            with(late(), |record| {
                record.namespaces.insert("shop".into(), "a".into());
                record.barred.insert(namespace.into(), vec![Window { from: at(0.0), to: at(50.0) }]);
            })
        };
        assert_eq!(barred("a"), []);
        assert_eq!(barred("b").len(), 1, "another namespace is no excuse");
    }

    #[test]
    fn nothing_is_sent_by_a_spec_that_was_replaced_a_minute_before() {
        let sent = |seconds: f64, after: Spec| {
            with(vec![spec(-9.0, 1, 1), after], |record| {
                record.posts = vec![post("shop-1", seconds, 204)];
                states(record).truncate(1);
            })
        };
        let found = [Violation::PostByOldSpec { id: id(), at: at(80.0), path: "shop".into() }];
        let moved = || Spec { path: "shop/2".into(), ..spec(10.0, 2, 2) };
        let suspended = || Spec { suspended: true, ..spec(10.0, 2, 2) };
        assert_eq!((sent(80.0, moved()), sent(80.0, suspended())), (found.to_vec(), found.to_vec()));
        assert_eq!((sent(60.0, moved()), sent(60.0, suspended())), (vec![], vec![]), "it may not be heard of yet");
        assert_eq!(sent(80.0, spec(10.0, 2, 2)), []);
    }
}
