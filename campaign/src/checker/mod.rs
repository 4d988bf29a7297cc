//! Joins what was accepted, what arrived and what the statuses said, and finds what should not be. Pure.

mod ends;
mod expiry;
#[cfg(test)]
mod fixture;
mod pauses;
mod repeats;
mod retention;
mod rights;
mod rules;
mod secrets;
mod specs;
mod story;
mod timing;

use std::collections::BTreeMap;

use jiff::Timestamp;

use self::pauses::in_pause;
use self::repeats::{Handover, handovers};
use self::story::Story;
use self::timing::Timing;
use super::findings::{Findings, Violation};
use super::record::{Post, Record};

/// Judges a record.
pub(crate) fn check(record: &Record) -> Findings {
    let mut findings = Findings {
        created: record.accepted.len(),
        posts: record.posts.len(),
        replays: record.replays.len(),
        pauses: record.pauses.values().flatten().filter(|pause| pause.until.is_some()).count(),
        takeovers: record.takeovers.len(),
        given_back: handovers(record).filter(|(_, how)| *how == Handover::GivenBack).count(),
        ran_out: handovers(record).filter(|(_, how)| *how == Handover::RanOut).count(),
        ..Findings::default()
    };
    let outlived = record.late.iter().filter(|late| record.takeovers.iter().any(|at| late.spans(*at)));
    for late in outlived {
        findings.outlived += 1;
        findings.outlived_taken += usize::from(late.status == 200);
    }
    findings.violations.extend(pauses::cut_short(record));
    findings.violations.extend(rights::missing(record));
    ends::judge(record, &mut findings);
    findings.violations.extend(specs::not_taken_up(record));
    findings.respecified = specs::respecified(record);
    secrets::rotations(record, &mut findings);
    let mut timing = Timing::of(record);
    let mut posts: BTreeMap<&str, Vec<&Post>> = BTreeMap::new();
    for post in &record.posts {
        let is_ours = record.accepted.contains_key(&post.id) && post.id.starts_with(&format!("{}-", post.subscriber));
        if !is_ours {
            let (id, subscriber) = (post.id.clone(), post.subscriber.clone());
            findings.violations.push(Violation::Stray { id, subscriber });
        }
        timing.add(post, in_pause(record, post));
        timing.add(post, specs::by_old_spec(record, post));
        posts.entry(&post.id).or_default().push(post);
    }
    let mut after: BTreeMap<Timestamp, usize> = record.takeovers.iter().map(|at| (*at, 0)).collect();
    for id in record.accepted.keys() {
        let story = Story {
            record,
            id,
            posts: posts.get(id.as_str()).map_or(&[][..], |posts| posts),
            changes: record.changes.get(id).map_or(&[][..], |changes| changes),
        };
        story.outcome(&mut findings);
        findings.violations.extend(story.undone());
        findings.violations.extend(story.expired_early());
        findings.violations.extend(story.kept());
        findings.aged += usize::from(story.is_aged());
        for post in story.posts {
            timing.add(post, story.untimely(post));
            timing.add(post, story.after_expiry(post));
        }
        story.repeats(&mut findings, &mut after, &mut timing);
    }
    timing.judge(&mut findings);
    findings.most_after_takeover = after.values().copied().max().unwrap_or_default();
    let too_many = after.into_iter().filter(|(_, repeats)| *repeats > record.in_flight);
    findings.violations.extend(too_many.map(|(takeover, repeats)| Violation::TooManyRepeats { takeover, repeats }));
    findings
}

#[cfg(test)]
mod tests {
    use super::fixture::{at, good, id, post, violations};
    use super::*;
    use testkit::proxies::Late;

    #[test]
    fn a_good_record_has_nothing_against_it() {
        let findings = check(&good());
        assert_eq!((findings.created, findings.delivered, findings.posts), (1, 1, 1));
        assert_eq!((findings.violations, findings.repeats.len()), (vec![], 0));
    }

    #[test]
    fn a_write_that_was_held_up_over_a_takeover_is_counted() {
        let mut record = good();
        record.takeovers = vec![at(0.0), at(20.0)];
        let late = |from, to, status| Late { from: at(from), to: at(to), status };
        record.late = vec![late(1.0, 19.0, 200), late(1.0, 21.0, 422), late(19.0, 30.0, 200), late(21.0, 30.0, 422)];
        let findings = check(&record);
        assert_eq!((findings.outlived, findings.outlived_taken), (2, 1));
    }

    #[test]
    fn a_post_has_an_accepted_event_and_its_own_webhook() {
        let stray = |post: Post| violations(move |record| record.posts.push(post));
        let other = Post { subscriber: "other".into(), ..post("shop-1", 1.5, 204) };
        let found = stray(other);
        assert!(found.contains(&Violation::Stray { id: id(), subscriber: "other".into() }), "{found:?}");
        let found = stray(post("shop-9", 1.5, 204));
        assert_eq!(found, [Violation::Stray { id: "shop-9".into(), subscriber: "shop".into() }]);
    }
}
