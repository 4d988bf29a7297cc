//! One Subscriber's Notifications and what may hold them.

use std::{collections::BTreeSet, time::Instant};

use super::{
    breaker::{Breaker, Passage},
    gate::Gate,
    names::SubscriberKey,
    queue::{Queue, Turn},
    rate::Rate,
};

/// What one Subscriber allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many attempts may be under way at once; 0 is taken for 1, and the scheduler may allow less.
    pub max_in_flight: usize,
    /// How many attempts may start in any 60 seconds, evenly spaced (None: any number); 0 is taken for 1.
    pub rate_per_minute: Option<u32>,
}

/// The Notifications of one Subscriber and all that decides when the next one may start.
#[derive(Debug)]
pub(super) struct Lane<Id> {
    pub(super) key: SubscriberKey,
    /// By when they are due.
    pub(super) waiting: BTreeSet<(Instant, Id)>,
    /// Those that are due.
    pub(super) queue: Queue<Id>,
    pub(super) in_flight: usize,
    /// What the events in flight are charged.
    pub(super) bytes: usize,
    /// The scheduler's cap for one lane.
    room: usize,
    max_in_flight: usize,
    pub(super) closed: Option<Gate>,
    pub(super) paused_until: Option<Instant>,
    pub(super) breaker: Breaker,
    pub(super) rate: Rate,
    /// The gate that holds it, and since when it was seen to; forgotten when it may have been open in between.
    pub(super) behind: Option<(Gate, Instant)>,
    /// For each gate: those that were told it all stand before this, and those that were put back stand apart.
    pub(super) told_before: [Turn; Gate::COUNT],
    pub(super) marks: Marks,
}

/// In which of the scheduler's lists the lane stands.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) changed: bool,
    pub(super) in_round: bool,
    pub(super) timer: Option<Instant>,
    pub(super) in_courtesy_round: bool,
    pub(super) courtesy_timer: Option<Instant>,
}

/// Whether a lane can start an attempt, its namespace and the other lanes aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// Look again at this time.
    At(Instant),
    /// Time alone changes nothing.
    Blocked,
}

impl<Id: Clone> Lane<Id> {
    /// A lane of a Subscriber that is not known yet; at most `room` under way at once.
    pub(super) fn new(key: SubscriberKey, room: usize) -> Self {
        Self {
            key,
            waiting: BTreeSet::new(),
            queue: Queue::default(),
            in_flight: 0,
            bytes: 0,
            room,
            max_in_flight: room,
            closed: Some(Gate::SubscriberNotFound),
            paused_until: None,
            breaker: Breaker::default(),
            rate: Rate::default(),
            behind: None,
            told_before: [0; Gate::COUNT],
            marks: Marks::default(),
        }
    }

    pub(super) fn open(&mut self, limits: Limits) {
        self.max_in_flight = limits.max_in_flight.clamp(1, self.room);
        self.rate.limit(limits.rate_per_minute);
        self.closed = None;
    }

    pub(super) fn close(&mut self, gate: Gate) {
        if self.closed.replace(gate) != Some(gate) {
            self.behind = None;
        }
    }

    /// The latest end wins. A pause counts as a gate anew: whether the one before was over meanwhile is not known here.
    pub(super) fn pause(&mut self, until: Instant) {
        if self.paused_until.is_some_and(|latest| latest >= until) {
            return;
        }
        self.paused_until = Some(until);
        if self.closed.is_none() {
            self.behind = None;
        }
    }

    pub(super) fn reset(&mut self) {
        self.paused_until = None;
        self.breaker.reset();
    }

    pub(super) fn gate(&self, now: Instant) -> Option<Gate> {
        let paused = self.pause_end(now).map(|_| Gate::Paused);
        let circuit = self.breaker.is_open().then_some(Gate::CircuitOpen);
        self.closed.or(paused).or(circuit)
    }

    /// When its pause ends, if it is paused.
    pub(super) fn pause_end(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// Sees which gate holds it at `now`.
    pub(super) fn notice_gate(&mut self, now: Instant) {
        let gate = self.gate(now);
        if self.behind.map(|(behind, _)| behind) != gate {
            self.behind = gate.map(|gate| (gate, now));
        }
    }

    pub(super) fn readiness(&self, now: Instant) -> Readiness {
        if self.closed.is_some() {
            return Readiness::Blocked;
        }
        // Looked at before the rest: one that waits behind a pause hears when another gate follows it.
        if let Some(until) = self.pause_end(now)
            && self.queue.len() > 0
        {
            return Readiness::At(until);
        }
        if self.queue.len() == 0 || self.in_flight >= self.max_in_flight {
            return Readiness::Blocked;
        }
        let probe = match self.breaker.passage() {
            Passage::Nothing => return Readiness::Blocked,
            Passage::ProbeAt(probe) => Some(probe),
            Passage::All => None,
        };
        match probe.max(self.rate.next()) {
            Some(at) if at > now => Readiness::At(at),
            _ => Readiness::Ready,
        }
    }

    /// The one to start next: the first, or the probe of an open circuit.
    pub(super) fn candidate(&self) -> Option<&Id> {
        if self.breaker.is_open() { self.queue.longest_untried() } else { self.queue.first() }
    }

    /// Whether no Notification names it and no Subscriber is known to be it: it may be forgotten once
    /// [`Self::rests_until`] has passed.
    pub(super) fn is_idle(&self) -> bool {
        let empty = self.queue.len() == 0 && self.waiting.is_empty() && self.in_flight == 0;
        empty && self.closed == Some(Gate::SubscriberNotFound)
    }

    /// What it must remember even when idle ends here.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.paused_until.max(self.rate.next())
    }
}
