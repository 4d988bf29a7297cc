//! Joins what was accepted, what arrived and what the statuses said, and finds what should not be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::findings::{Cause, Findings, Violation};
use super::record::{Change, Post, Record, State, Window};

/// How much later than it began a POST may arrive, and than it was recorded a version may be seen. A pause or a time
/// counts so much later, and ends so much earlier.
const TOLERANCE: SignedDuration = SignedDuration::from_millis(1000);
/// No exchange with a webhook takes longer.
const EXCHANGE: SignedDuration = SignedDuration::from_secs(6);
/// What a process that was stopped in the middle of a send still sends when it goes on, arrives within this.
const AFTER_STOP: SignedDuration = SignedDuration::from_secs(3);
/// At most so many sends can be caught in their middle by one stop: between the last look at Lease and pause, and the
/// request's last byte, lie milliseconds.
const MIDWAY: usize = 4;

/// Judges a record.
pub(crate) fn check(record: &Record) -> Findings {
    let mut findings = Findings {
        created: record.accepted.len(),
        posts: record.posts.len(),
        replays: record.replays.len(),
        pauses: record.pauses.values().flatten().filter(|(_, until)| until.is_some()).count(),
        takeovers: record.takeovers.len(),
        ..Findings::default()
    };
    let mut timing = Timing::of(record);
    let mut posts: BTreeMap<&str, Vec<&Post>> = BTreeMap::new();
    for post in &record.posts {
        let is_ours = record.accepted.contains_key(&post.id) && post.id.starts_with(&format!("{}-", post.subscriber));
        if !is_ours {
            let (id, subscriber) = (post.id.clone(), post.subscriber.clone());
            findings.violations.push(Violation::Stray { id, subscriber });
        }
        timing.add(post, in_pause(record, post));
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
        story.posts.iter().for_each(|post| timing.add(post, story.untimely(post)));
        story.repeats(&mut findings, &mut after, &mut timing);
    }
    timing.judge(&mut findings);
    findings.most_after_takeover = after.values().copied().max().unwrap_or_default();
    let too_many = after.into_iter().filter(|(_, repeats)| *repeats > record.in_flight);
    findings.violations.extend(too_many.map(|(takeover, repeats)| Violation::TooManyRepeats { takeover, repeats }));
    findings
}

/// Whether a Notification is in another place after a change than before: not if somebody wrote a label or a message.
fn moved(before: &State, after: &State) -> bool {
    (&before.phase, before.attempts, before.next, before.replayed)
        != (&after.phase, after.attempts, after.next, after.replayed)
}

/// A POST that arrived while its Subscriber was recorded as paused, and that had not begun before.
fn in_pause(record: &Record, post: &Post) -> Option<Violation> {
    let pauses = record.pauses.get(&post.subscriber)?;
    let number = pauses.iter().rposition(|(since, _)| *since <= post.arrived - TOLERANCE)?;
    let (since, until) = pauses[number];
    let until = until?;
    let changed = pauses.get(number + 1).is_some_and(|(next, _)| *next <= post.arrived + TOLERANCE);
    let opened = record
        .openings
        .get(&post.subscriber)
        .is_some_and(|openings| openings.iter().any(|at| *at >= since - TOLERANCE && *at <= post.arrived + TOLERANCE));
    let inside = post.arrived < until - TOLERANCE && !changed && !opened;
    inside.then(|| Violation::PostInPause { id: post.id.clone(), at: post.arrived, until })
}

/// POSTs at a wrong time or without a cause, by the stop that may have caught them in the middle.
struct Timing<'a> {
    stops: Vec<(&'a Window, Vec<Violation>)>,
    others: Vec<Violation>,
}

impl<'a> Timing<'a> {
    fn of(record: &'a Record) -> Self {
        Self { stops: record.stops.iter().map(|stop| (stop, Vec::new())).collect(), others: Vec::new() }
    }

    fn add(&mut self, post: &Post, violation: Option<Violation>) {
        let Some(violation) = violation else { return };
        // In between it sends nothing: that is somebody else's.
        let at = post.arrived;
        let caught = |stop: &Window| {
            (stop.from <= at && at <= stop.from + TOLERANCE) || (stop.to <= at && at <= stop.to + AFTER_STOP)
        };
        match self.stops.iter_mut().find(|(stop, _)| caught(stop)) {
            Some((_, of_stop)) => of_stop.push(violation),
            None => self.others.push(violation),
        }
    }

    fn judge(self, findings: &mut Findings) {
        findings.violations.extend(self.others);
        for (_, of_stop) in self.stops {
            match of_stop.len() {
                count if count <= MIDWAY => findings.midway += count,
                _ => findings.violations.extend(of_stop),
            }
        }
    }
}

impl Window {
    fn meets(&self, from: Timestamp, to: Timestamp) -> bool {
        self.from <= to && from <= self.to
    }

    /// Whether a process that was stopped here had sent this POST and may have had no answer to it yet.
    fn caught_answer_to(&self, post: &Post) -> bool {
        self.from - EXCHANGE <= post.arrived && post.arrived <= self.from + TOLERANCE
    }
}

/// All that is known of one Notification.
struct Story<'a> {
    record: &'a Record,
    id: &'a str,
    posts: &'a [&'a Post],
    changes: &'a [Change],
}

impl Story<'_> {
    /// What became of it.
    fn outcome(&self, findings: &mut Findings) {
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
            "RedirectRefused" => self.posts.iter().any(|post| post.is_redirected()),
            "Exhausted" => one_never_arrived() || self.posts.iter().any(|post| !post.is_acknowledged()),
            reason => reason == "Expired",
        }
    }

    /// Whether the replay that was asked for, if any, was done: handled, and if it succeeded, acknowledged anew.
    fn is_replayed(&self, state: &State) -> bool {
        let Some((value, asked)) = self.record.replays.get(self.id) else { return true };
        let sent_anew = || self.posts.iter().any(|post| post.is_acknowledged() && post.arrived + TOLERANCE >= *asked);
        // One that others delete needs no replay any more.
        self.record.deleted.contains(self.id)
            || (state.handled.as_ref() == Some(value) && (!state.is_delivered() || sent_anew()))
    }

    fn undone(&self) -> Option<Violation> {
        let pairs = self.changes.windows(2).filter_map(|pair| {
            let (before, after) = (pair[0].state.as_ref()?, pair[1].state.as_ref()?);
            (before.is_delivered() && !after.is_delivered() && !after.is_replay_of(before)).then_some(pair[1].at)
        });
        let at = pairs.into_iter().next().filter(|_| !self.record.set_back.contains(self.id))?;
        Some(Violation::Undone { id: self.id.to_owned(), at })
    }

    /// A POST that began after Delivered or Failed was recorded, or before the recorded time of its next attempt.
    fn untimely(&self, post: &Post) -> Option<Violation> {
        let known = self.changes.iter().rposition(|change| change.at <= post.arrived - TOLERANCE)?;
        let state = self.changes[known].state.as_ref()?;
        let meanwhile = self.changes[known + 1..].iter().take_while(|change| change.at <= post.arrived + TOLERANCE);
        let (id, at) = (self.id.to_owned(), post.arrived);
        // Its own outcome does not excuse it.
        let is_outcome = |change: &&Change| {
            let after = change.state.as_ref().filter(|_| change.at >= post.arrived);
            after.is_some_and(|after| after.attempts > state.attempts && !after.is_replay_of(state))
        };
        let moves = |change: &Change| change.state.as_ref().is_none_or(|after| moved(state, after));
        if meanwhile.filter(|change| !is_outcome(change)).any(moves) {
            return None;
        }
        let since = self.changes[known].at;
        match state.phase.as_str() {
            "Delivered" => Some(Violation::PostAfterDelivered { id, at, delivered: since }),
            "Failed" => Some(Violation::PostAfterFailed { id, at, failed: since }),
            _ => {
                let next = state.next.filter(|next| *next > post.arrived + TOLERANCE)?;
                Some(Violation::PostBeforeTime { id, at, next })
            }
        }
    }

    fn repeats(&self, findings: &mut Findings, after: &mut BTreeMap<Timestamp, usize>, timing: &mut Timing<'_>) {
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
            }
        }
    }

    /// Why it was sent again after `first`, if there is a reason. A change explains one repeat: `used` are those that did.
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
        } else if self.record.stops.iter().any(|stop| stop.caught_answer_to(first)) {
            Some(Cause::OperatorStopped)
        } else {
            self.takeover(first, again).map(|_| Cause::Takeover)
        }
    }

    /// Whether it was sent back to the queue between two POSTs.
    fn sent_back(&self, first: &Post, again: &Post, used: &BTreeSet<usize>) -> Option<(usize, Cause)> {
        let between = |at: Timestamp| first.arrived - TOLERANCE <= at && at <= again.arrived + TOLERANCE;
        let pairs = self.changes.windows(2).enumerate();
        let mut unused = pairs.filter(|(number, pair)| between(pair[1].at) && !used.contains(number));
        unused.find_map(|(number, pair)| {
            let (before, after) = (pair[0].state.as_ref()?, pair[1].state.as_ref()?);
            let set_back = before.is_finished() && !after.is_finished() && self.record.set_back.contains(self.id);
            match after.is_replay_of(before) {
                true => Some((number, Cause::Replay)),
                false => set_back.then_some((number, Cause::SetBack)),
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

    const START: i64 = 1_800_000_000;

    /// So many seconds after the start.
    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_second(START).unwrap() + SignedDuration::from_secs_f64(seconds)
    }

    fn post(id: &str, arrived: f64, answered: impl Into<Option<u16>>) -> Post {
        let (subscriber, _) = id.split_once('-').unwrap();
        Post { id: id.into(), subscriber: subscriber.into(), arrived: at(arrived), answered: answered.into() }
    }

    fn state(phase: &str) -> State {
        State { phase: phase.into(), reason: "Why".into(), ..State::default() }
    }

    fn change(seconds: f64, state: State) -> Change {
        Change { at: at(seconds), state: Some(state) }
    }

    /// `shop-1` was accepted at 0, sent at 1 with success, and recorded as Delivered at 2.
    fn good() -> Record {
        let mut record = Record { in_flight: 1, ..Record::default() };
        record.accepted.insert("shop-1".into(), at(0.0));
        record.posts.push(post("shop-1", 1.0, 204));
        let changes = vec![change(0.0, state("Pending")), change(2.0, state("Delivered"))];
        record.changes.insert("shop-1".into(), changes);
        record.listed.insert("shop-1".into(), state("Delivered"));
        record
    }

    fn violations(change: impl FnOnce(&mut Record)) -> Vec<Violation> {
        let mut record = good();
        change(&mut record);
        check(&record).violations
    }

    /// The cause of the second of two POSTs, the first at 1.
    fn cause(again: f64, change: impl FnOnce(&mut Record)) -> Option<Cause> {
        let mut record = good();
        record.posts.push(post("shop-1", again, 204));
        change(&mut record);
        let findings = check(&record);
        let unexplained = findings.violations.iter().any(|v| matches!(v, Violation::Unexplained { .. }));
        assert_eq!(findings.repeats.len(), usize::from(!unexplained), "{findings:?}");
        findings.repeats.keys().next().copied()
    }

    fn replayed() -> State {
        State { handled: Some("1".into()), replayed: Some(at(10.0)), ..state("Pending") }
    }

    fn id() -> String {
        "shop-1".into()
    }

    fn states(record: &mut Record) -> &mut Vec<Change> {
        record.changes.get_mut("shop-1").unwrap()
    }

    #[test]
    fn a_good_record_has_nothing_against_it() {
        let findings = check(&good());
        assert_eq!((findings.created, findings.delivered, findings.posts), (1, 1, 1));
        assert_eq!((findings.violations, findings.repeats.len()), (vec![], 0));
    }

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
        let failed = |reason: &'static str, answered: u16, attempts: u64| {
            violations(move |record| {
                states(record).pop();
                record.posts[0].answered = Some(answered);
                record.listed.insert(id(), State { reason: reason.into(), attempts, ..state("Failed") });
            })
        };
        let failed_at_once = |reason, answered| failed(reason, answered, 1);
        for (reason, answered) in [("Rejected", 422), ("RedirectRefused", 302), ("Exhausted", 404), ("Expired", 500)] {
            assert_eq!(failed_at_once(reason, answered), [], "{reason}");
        }
        for (reason, answered) in [("", 500), ("Rejected", 500), ("RedirectRefused", 422), ("Exhausted", 204)] {
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
    fn nothing_is_sent_inside_a_recorded_pause() {
        let sent = |seconds: f64, extra: fn(&mut Record)| {
            violations(move |record| {
                record.pauses.insert("shop".into(), vec![(at(10.0), Some(at(20.0))), (at(40.0), None)]);
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
        assert_eq!(sent(15.0, |record| drop(record.openings.insert("shop".into(), vec![at(12.0)]))), []);
        assert_eq!(sent(15.0, |record| drop(record.openings.insert("shop".into(), vec![at(5.0)]))), found);
    }

    #[test]
    fn a_stop_catches_a_few_sends_in_their_middle_and_no_more() {
        let sent = |count: usize, stopped: f64| {
            let mut record = good();
            record.stops.push(Window { from: at(stopped), to: at(stopped + 5.0) });
            record.pauses.insert("shop".into(), vec![(at(10.0), Some(at(20.0)))]);
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

    #[test]
    fn nothing_is_sent_after_a_recorded_delivered() {
        let sent = |seconds: f64, extra: fn(&mut Record)| {
            violations(move |record| {
                // Explained as a repeat, so that this alone is found.
                record.takeovers.push(at(1.5));
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
    fn a_post_has_an_accepted_event_and_its_own_webhook() {
        let stray = |post: Post| violations(move |record| record.posts.push(post));
        let other = Post { subscriber: "other".into(), ..post("shop-1", 1.5, 204) };
        let found = stray(other);
        assert!(found.contains(&Violation::Stray { id: id(), subscriber: "other".into() }), "{found:?}");
        let found = stray(post("shop-9", 1.5, 204));
        assert_eq!(found, [Violation::Stray { id: "shop-9".into(), subscriber: "shop".into() }]);
    }

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
        assert_eq!(cause(9.0, set_back), None, "nobody says that it did that");
        let by_another = |record: &mut Record| {
            set_back(record);
            record.set_back.insert(id());
        };
        assert_eq!(cause(9.0, by_another), Some(Cause::SetBack));
        assert_eq!(cause(9.0, |record| record.posts[0].answered = Some(422)), None, "nothing follows a final answer");
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
    fn nothing_is_sent_after_a_recorded_failed() {
        let found = violations(|record| {
            record.posts[0].answered = Some(500);
            states(record)[1].state = Some(state("Failed"));
            record.posts.push(post("shop-1", 9.0, 204));
            states(record).push(change(9.02, State { attempts: 1, ..state("Delivered") }));
        });
        assert_eq!(found, [Violation::PostAfterFailed { id: id(), at: at(9.0), failed: at(2.0) }]);
    }

    #[test]
    fn a_takeover_repeats_no_more_than_was_under_way() {
        let repeated = |count: usize| {
            violations(|record| {
                record.takeovers.push(at(1.5));
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
