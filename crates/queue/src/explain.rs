//! Decides which entries that wait behind a gate must name the gate in their status, and when.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    clock::Clock,
    entries::{Entries, EventPlace},
    gate::Gate,
    lane::{Lane, LaneMemberships},
    lanes::{Lanes, pop_due},
    numbers::{LaneNumber, RecordNumber},
    work::Work,
};

/// A gate that held for less than this is not written.
const PATIENCE: Duration = Duration::from_secs(5);
/// Five a second.
const SPACING: Duration = Duration::from_millis(200);

/// The lanes with entries that must name their gate. Lanes take turns.
#[derive(Debug, Default)]
pub(crate) struct Explanations {
    timers: BTreeSet<(Instant, LaneNumber)>,
    round: VecDeque<LaneNumber>,
    next: Option<Instant>,
}

impl Explanations {
    /// Schedules the lane at `due` (None: it has no entry that must name its gate).
    pub(crate) fn schedule(&mut self, no: LaneNumber, marks: &mut LaneMemberships, due: Option<Instant>) {
        // Whether a lane in the round still has such an entry is checked at its turn.
        if marks.in_explanation_round || marks.explanation_timer == due {
            return;
        }
        if let Some(old) = marks.explanation_timer.take() {
            self.timers.remove(&(old, no));
        }
        if let Some(due) = due {
            self.timers.insert((due, no));
            marks.explanation_timer = Some(due);
        }
    }

    /// Returns the next event that must name its gate, if there is one: it has been due and behind this gate for five
    /// seconds, and has not named this gate since its last attempt. It counts as explained from now on. At most five
    /// per second in total, with lanes in turns.
    pub(crate) fn next<W: Work>(
        &mut self,
        lanes: &mut Lanes<W::Route>,
        entries: &mut Entries<W>,
        clock: &Clock,
    ) -> Option<(RecordNumber, Gate)> {
        let now = clock.now();
        if self.next.is_some_and(|next| next > now) {
            return None;
        }
        while let Some(no) = pop_due(&mut self.timers, now) {
            if let Some(lane) = lanes.get_mut(no) {
                lane.marks.explanation_timer = None;
                lane.marks.in_explanation_round = true;
                self.round.push_back(no);
            }
        }
        while let Some(no) = self.round.pop_front() {
            let Some(lane) = lanes.get_mut(no) else { continue };
            lane.marks.in_explanation_round = false;
            let found = unexplained(lane, entries, clock).filter(|(due, ..)| *due <= now);
            if let Some((_, event, gate)) = found {
                if let Some(record) = entries.get_mut(event) {
                    record.explained.insert(gate);
                }
                self.next = Some(now + SPACING);
            }
            let next = unexplained(lane, entries, clock).map(|(due, ..)| due);
            if next.is_some_and(|due| due <= now) {
                lane.marks.in_explanation_round = true;
                self.round.push_back(no);
            } else {
                self.schedule(no, &mut lane.marks, next);
            }
            if let Some((_, event, gate)) = found {
                return Some((event, gate));
            }
        }
        None
    }

    /// Returns when [`Self::next`] may return an event, after it returned None. `is_settled`: no lane has changed
    /// since.
    pub(crate) fn wake_at(&self, is_settled: bool, now: Instant) -> Option<Instant> {
        let first = if self.round.is_empty() && is_settled { Some(self.timers.first()?.0) } else { Some(now) };
        first.max(self.next)
    }
}

/// Returns the next event of the lane that must name its gate, and when.
pub(crate) fn unexplained<W: Work>(
    lane: &mut Lane<W::Route>,
    entries: &Entries<W>,
    clock: &Clock,
) -> Option<(Instant, RecordNumber, Gate)> {
    let (gate, since) = lane.behind?;
    let queued = |no: RecordNumber| {
        let record = entries.get(no)?;
        (record.place == EventPlace::Queued && !record.explained.contains(gate)).then_some(record.at)
    };
    let put_back = lane.ready_queue.put_back().filter_map(|no| Some((queued(no)?, no))).min();
    let before = &mut lane.explained_before[gate.number()];
    let mut in_line = None;
    while let Some((turn, no)) = lane.ready_queue.from(*before) {
        in_line = queued(no).map(|at| (at, no));
        if in_line.is_some() {
            break;
        }
        *before = turn + 1;
    }
    let (at, no) = put_back.into_iter().chain(in_line).min_by_key(|(at, _)| *at)?;
    Some((clock.instant(at).max(since) + PATIENCE, no, gate))
}
