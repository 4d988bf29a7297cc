//! What changes by time, and looking at lanes that changed.

use std::{collections::BTreeSet, hash::Hash, mem, time::Instant};

use super::{
    lane::{Lane, Readiness},
    names::SubscriberKey,
    scheduler::{Place, Scheduler},
    turns::LaneNo,
};

impl<Id: Clone + Eq + Hash + Ord> Scheduler<Id> {
    /// The time, which never goes back.
    pub(super) fn clock(&mut self, now: Instant) -> Instant {
        *self.seen.insert(self.seen.map_or(now, |seen| seen.max(now)))
    }

    /// Looks at every lane that changed, or may have by time.
    pub(super) fn settle(&mut self, now: Instant) -> Instant {
        let now = self.clock(now);
        if !self.changed.is_empty() || self.timers.first().is_some_and(|(at, _)| *at <= now) {
            self.turns.look_again();
        }
        while let Some(no) = pop_due(&mut self.timers, now) {
            if let Some(lane) = self.lanes.get_mut(&no) {
                lane.marks.timer = None;
            }
            self.refresh(no, now);
        }
        for no in mem::take(&mut self.changed) {
            self.refresh(no, now);
        }
        now
    }

    /// The lane changed: it is looked at before anything starts.
    pub(super) fn touch(&mut self, no: LaneNo) {
        if let Some(lane) = self.lanes.get_mut(&no)
            && !lane.marks.changed
        {
            lane.marks.changed = true;
            self.changed.push(no);
        }
    }

    /// The lane's number; a new one if it is not known.
    pub(super) fn lane_no(&mut self, key: &SubscriberKey) -> LaneNo {
        if let Some(no) = self.names.get(key) {
            return *no;
        }
        self.next_lane += 1;
        self.names.insert(key.clone(), self.next_lane);
        self.lanes.insert(self.next_lane, Lane::new(key.clone(), self.turns.slots_of_lane()));
        self.next_lane
    }

    /// Moves what has become due into the lane's queue.
    pub(super) fn wake(&mut self, no: LaneNo, now: Instant) {
        let Some(lane) = self.lanes.get_mut(&no) else { return };
        while let Some(id) = pop_due(&mut lane.waiting, now) {
            if let Some(ticket) = self.tickets.get_mut(&id) {
                ticket.place = Place::Queued { turn: lane.queue.push_back(id, ticket.tried), since: now };
            }
        }
    }

    /// Puts the lane on every list that it belongs on now.
    pub(super) fn refresh(&mut self, no: LaneNo, now: Instant) {
        self.wake(no, now);
        let Some(lane) = self.lanes.get_mut(&no) else { return };
        lane.marks.changed = false;
        if !self.moved.contains(&lane.key) {
            self.moved.insert(lane.key.clone());
        }
        lane.notice_gate(now);
        let look_again = match lane.readiness(now) {
            _ if lane.is_idle() => lane.rests_until().filter(|until| *until > now),
            Readiness::Ready => {
                if !lane.marks.in_round {
                    lane.marks.in_round = true;
                    self.turns.enter(&lane.key.namespace, no);
                }
                None
            }
            Readiness::At(at) => Some(at),
            Readiness::Blocked => None,
        };
        let forget = lane.is_idle() && look_again.is_none();
        let first_due = lane.waiting.first().map(|(due, _)| *due);
        let timer = look_again.into_iter().chain(first_due).min();
        if timer != lane.marks.timer {
            if let Some(old) = lane.marks.timer {
                self.timers.remove(&(old, no));
            }
            self.timers.extend(timer.map(|at| (at, no)));
            lane.marks.timer = timer;
        }
        let courtesy = lane.untold(&self.tickets).map(|(due, ..)| due);
        self.courtesies.schedule(no, &mut lane.marks, courtesy);
        if forget && let Some(lane) = self.lanes.remove(&no) {
            self.names.remove(&lane.key);
        }
    }
}

/// Takes the earliest one out whose time has come.
pub(super) fn pop_due<T: Ord>(timers: &mut BTreeSet<(Instant, T)>, now: Instant) -> Option<T> {
    if timers.first()?.0 > now {
        return None;
    }
    timers.pop_first().map(|(_, what)| what)
}
