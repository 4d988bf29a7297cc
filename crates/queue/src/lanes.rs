//! All lanes, by number and by name, and when to check each again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
    time::Instant,
};

use crate::numbers::LaneNumber;
use crate::{SubscriberKey, lane::Lane};

#[derive(Debug)]
pub(crate) struct Lanes<R> {
    by_no: HashMap<LaneNumber, Lane<R>>,
    names: BTreeMap<SubscriberKey, LaneNumber>,
    last: LaneNumber,
    /// The maximum number of concurrent attempts of one lane.
    room: usize,
    timers: BTreeSet<(Instant, LaneNumber)>,
    /// The changed lanes, which are checked before any event starts.
    changed: Vec<LaneNumber>,
}

impl<R> Lanes<R> {
    /// Starts without lanes. Each lane may have at most `room` events in flight.
    pub(crate) fn new(room: usize) -> Self {
        let (by_no, names, timers, changed) = Default::default();
        Self { by_no, names, last: 0, room, timers, changed }
    }

    pub(crate) fn get(&self, no: LaneNumber) -> Option<&Lane<R>> {
        self.by_no.get(&no)
    }

    pub(crate) fn get_mut(&mut self, no: LaneNumber) -> Option<&mut Lane<R>> {
        self.by_no.get_mut(&no)
    }

    pub(crate) fn find(&self, key: &SubscriberKey) -> Option<LaneNumber> {
        self.names.get(key).copied()
    }

    pub(crate) fn by_key(&self, key: &SubscriberKey) -> Option<&Lane<R>> {
        self.get(self.find(key)?)
    }

    /// Adds a lane and returns its number.
    pub(crate) fn insert(&mut self, key: SubscriberKey) -> LaneNumber {
        self.last = self.last.wrapping_add(1);
        while self.by_no.contains_key(&self.last) {
            self.last = self.last.wrapping_add(1);
        }
        self.names.insert(key.clone(), self.last);
        self.by_no.insert(self.last, Lane::new(key, self.room));
        self.last
    }

    pub(crate) fn remove(&mut self, no: LaneNumber) {
        if let Some(lane) = self.by_no.remove(&no) {
            self.names.remove(&lane.key);
        }
    }

    /// Returns the lanes of a namespace (None: all).
    pub(crate) fn of_namespace<'a>(&'a self, namespace: Option<&'a str>) -> impl Iterator<Item = LaneNumber> + 'a {
        let first = SubscriberKey { namespace: namespace.unwrap_or_default().into(), name: Arc::default() };
        let lanes = self.names.range(first..);
        lanes
            .take_while(move |(key, _)| namespace.is_none_or(|namespace| *key.namespace == *namespace))
            .map(|(_, no)| *no)
    }

    /// Returns all lanes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LaneNumber, &Lane<R>)> {
        self.by_no.iter().map(|(no, lane)| (*no, lane))
    }

    /// Marks the lane as changed, so that it is checked before any event starts.
    pub(crate) fn touch(&mut self, no: LaneNumber) {
        if let Some(lane) = self.by_no.get_mut(&no)
            && !lane.marks.changed
        {
            lane.marks.changed = true;
            self.changed.push(no);
        }
    }

    /// Whether a lane has changed.
    pub(crate) fn are_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether the timer of a lane is due at `now`.
    pub(crate) fn are_due(&self, now: Instant) -> bool {
        self.are_changed() || self.wake_at().is_some_and(|at| at <= now)
    }

    /// Returns when the next timer of a lane is due.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes the next lane whose timer is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<LaneNumber> {
        let no = pop_due(&mut self.timers, now)?;
        if let Some(lane) = self.by_no.get_mut(&no) {
            lane.marks.timer = None;
        }
        Some(no)
    }

    /// Takes the changed lanes.
    pub(crate) fn take_changed(&mut self) -> Vec<LaneNumber> {
        mem::take(&mut self.changed)
    }

    /// Sets the timer of a lane (None: check it only when it changes).
    pub(crate) fn set_timer(&mut self, no: LaneNumber, timer: Option<Instant>) {
        let Some(lane) = self.by_no.get_mut(&no).filter(|lane| lane.marks.timer != timer) else { return };
        if let Some(old) = lane.marks.timer {
            self.timers.remove(&(old, no));
        }
        self.timers.extend(timer.map(|at| (at, no)));
        lane.marks.timer = timer;
    }
}

/// Takes the earliest timer that is due.
pub(crate) fn pop_due<T: Ord>(timers: &mut BTreeSet<(Instant, T)>, now: Instant) -> Option<T> {
    if timers.first()?.0 > now {
        return None;
    }
    timers.pop_first().map(|(_, what)| what)
}
