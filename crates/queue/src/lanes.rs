//! All lanes, by number and by name, and when to look at each again.

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
    /// The cap for one lane.
    room: usize,
    timers: BTreeSet<(Instant, LaneNumber)>,
    /// Lanes to look at before anything starts.
    changed: Vec<LaneNumber>,
}

impl<R> Lanes<R> {
    /// No lanes; each may have at most `room` events in flight.
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

    /// The number of a new lane.
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

    /// The lanes of a namespace (None: all).
    pub(crate) fn of_namespace<'a>(&'a self, namespace: Option<&'a str>) -> impl Iterator<Item = LaneNumber> + 'a {
        let first = SubscriberKey { namespace: namespace.unwrap_or_default().into(), name: Arc::default() };
        let lanes = self.names.range(first..);
        lanes
            .take_while(move |(key, _)| namespace.is_none_or(|namespace| *key.namespace == *namespace))
            .map(|(_, no)| *no)
    }

    /// The lane changed: it is looked at before anything starts.
    pub(crate) fn touch(&mut self, no: LaneNumber) {
        if let Some(lane) = self.by_no.get_mut(&no)
            && !lane.marks.changed
        {
            lane.marks.changed = true;
            self.changed.push(no);
        }
    }

    /// Whether a lane is to be looked at.
    pub(crate) fn are_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether a lane is to be looked at by `now`.
    pub(crate) fn are_due(&self, now: Instant) -> bool {
        self.are_changed() || self.wake_at().is_some_and(|at| at <= now)
    }

    /// When time alone changes a lane.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next lane whose time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<LaneNumber> {
        let no = pop_due(&mut self.timers, now)?;
        if let Some(lane) = self.by_no.get_mut(&no) {
            lane.marks.timer = None;
        }
        Some(no)
    }

    /// The lanes that changed, to be looked at now.
    pub(crate) fn take_changed(&mut self) -> Vec<LaneNumber> {
        mem::take(&mut self.changed)
    }

    /// Looks at a lane again at `timer` (None: when it changes).
    pub(crate) fn set_timer(&mut self, no: LaneNumber, timer: Option<Instant>) {
        let Some(lane) = self.by_no.get_mut(&no).filter(|lane| lane.marks.timer != timer) else { return };
        if let Some(old) = lane.marks.timer {
            self.timers.remove(&(old, no));
        }
        self.timers.extend(timer.map(|at| (at, no)));
        lane.marks.timer = timer;
    }
}

/// Takes the earliest one out whose time has come.
pub(crate) fn pop_due<T: Ord>(timers: &mut BTreeSet<(Instant, T)>, now: Instant) -> Option<T> {
    if timers.first()?.0 > now {
        return None;
    }
    timers.pop_first().map(|(_, what)| what)
}
