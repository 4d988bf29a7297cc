//! What holds of recorded pauses.

use super::rules::TOLERANCE;
use crate::findings::Violation;
use crate::record::{Pause, Post, Record};

/// A POST that arrived while its Subscriber was recorded as paused, and that had not begun before.
pub(super) fn in_pause(record: &Record, post: &Post) -> Option<Violation> {
    let pauses = record.pauses.get(&post.subscriber)?;
    let number = pauses.iter().rposition(|pause| pause.since <= post.arrived - TOLERANCE)?;
    let pause = &pauses[number];
    let (since, until, next) = (pause.since, pause.until?, pauses.get(number + 1));
    // A later end, which an answer to this very POST may have brought, leaves it inside.
    let ended = next.is_some_and(|next| next.since <= post.arrived + TOLERANCE && next.until < pause.until);
    let opened = record
        .openings
        .get(&post.subscriber)
        .is_some_and(|openings| openings.iter().any(|at| *at >= since - TOLERANCE && *at <= post.arrived + TOLERANCE));
    // A request that the last leader has not recorded as handled is the next one's to handle, though the pause came
    // after.
    let followed = record.takeovers.iter().any(|at| *at >= since - TOLERANCE && *at <= post.arrived + TOLERANCE);
    let opened_anew = followed && next.is_some_and(|next| was_opened(pause, next));
    let inside = post.arrived < until - TOLERANCE && !ended && !opened && !opened_anew;
    inside.then(|| Violation::PostInPause { id: post.id.clone(), at: post.arrived, until })
}

/// The pauses that became shorter, or vanished before their end.
pub(super) fn cut_short(record: &Record) -> Vec<Violation> {
    let of_one = |(subscriber, pauses): (&String, &Vec<Pause>)| {
        let cut = pauses.windows(2).filter_map(|pair| {
            let (pause, next) = (&pair[0], &pair[1]);
            let until = pause.until?;
            let is_shorter = next.until < pause.until && next.since < until - TOLERANCE;
            let (subscriber, at, now) = (subscriber.clone(), next.since, next.until);
            (is_shorter && !was_opened(pause, next)).then_some(Violation::PauseCutShort { subscriber, until, at, now })
        });
        cut.collect::<Vec<_>>()
    };
    record.pauses.iter().flat_map(of_one).collect()
}

/// Whether an end of the pause was requested, and not handled during the pause. How long that takes is not judged here:
/// the watch may have been cut.
fn was_opened(pause: &Pause, next: &Pause) -> bool {
    next.asked.is_some() && next.asked != pause.handled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::fixture::{at, pause, post, state, violations};

    #[test]
    fn nothing_is_sent_inside_a_recorded_pause() {
        let sent = |seconds: f64, extra: fn(&mut Record)| {
            violations(move |record| {
                record.pauses.insert("shop".into(), vec![pause(10.0, Some(20.0)), pause(40.0, None)]);
                record.accepted.insert("shop-2".into(), at(0.0));
                record.listed.insert("shop-2".into(), state("Delivered"));
                record.posts.push(post("shop-2", seconds, 204));
                extra(record);
            })
        };
        let found = [Violation::PostInPause { id: "shop-2".into(), at: at(15.0), until: at(20.0) }];
        assert_eq!(sent(15.0, |_| ()), found);
        for (outside, why) in [(9.0, "before"), (10.5, "had begun"), (19.5, "another clock"), (21.0, "after")] {
            assert_eq!(sent(outside, |_| ()), [], "{why}");
        }
        let longer = |record: &mut Record| record.pauses.get_mut("shop").unwrap().insert(1, pause(15.5, Some(30.0)));
        assert_eq!(sent(15.0, longer), found, "another pause was requested");
        assert_eq!(sent(15.0, |record| drop(record.openings.insert("shop".into(), vec![at(12.0)]))), []);
        assert_eq!(sent(15.0, |record| drop(record.openings.insert("shop".into(), vec![at(5.0)]))), found);
    }

    #[test]
    fn a_request_that_a_leader_left_unhandled_opens_under_the_next_one() {
        let sent = |takeover: f64, handled: &'static str| {
            violations(move |record| {
                let handled = Some(handled.to_owned());
                let (pause, next) = (pause(10.0, Some(20.0)), Pause { asked: Some("2".into()), ..pause(17.0, None) });
                record.pauses.insert("shop".into(), vec![Pause { handled, ..pause }, next]);
                record.takeovers.push(at(takeover));
                record.accepted.insert("shop-2".into(), at(0.0));
                record.listed.insert("shop-2".into(), state("Delivered"));
                record.posts.push(post("shop-2", 15.0, 204));
            })
        };
        let found = Violation::PostInPause { id: "shop-2".into(), at: at(15.0), until: at(20.0) };
        assert_eq!(sent(14.0, "1"), []);
        assert!(sent(5.0, "1").contains(&found), "no other operator followed");
        assert!(sent(14.0, "2").contains(&found), "that one was handled");
    }

    #[test]
    fn a_pause_stands_to_its_end_or_a_later_one() {
        let then = |next: Pause| {
            violations(|record| drop(record.pauses.insert("shop".into(), vec![pause(10.0, Some(20.0)), next])))
        };
        let found = |seconds: f64, now: Option<f64>| {
            let (subscriber, until, now) = ("shop".into(), at(20.0), now.map(at));
            [Violation::PauseCutShort { subscriber, until, at: at(seconds), now }]
        };
        assert_eq!(then(pause(15.0, None)), found(15.0, None));
        assert_eq!(then(pause(15.0, Some(18.0))), found(15.0, Some(18.0)));
        assert_eq!(then(pause(15.0, Some(30.0))), [], "the latest wins");
        assert_eq!((then(pause(19.5, None)), then(pause(21.0, None))), (vec![], vec![]), "it was over");
    }

    #[test]
    fn an_opening_ends_a_pause_that_stood_before_it_was_handled() {
        let opened = |asked: &str, handled: Option<&str>| {
            violations(|record| {
                let first = Pause { handled: handled.map(str::to_owned), ..pause(10.0, Some(20.0)) };
                let next = Pause { asked: Some(asked.into()), ..pause(15.0, None) };
                record.pauses.insert("shop".into(), vec![first, next]);
            })
        };
        assert_eq!((opened("2", Some("1")), opened("1", None)), (vec![], vec![]));
        assert_eq!(opened("1", Some("1")).len(), 1, "that one had ended another pause");
    }
}
