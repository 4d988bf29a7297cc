//! One Subscriber's events, and all that decides when the next one may start.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    LaneSnapshot, LaneState, Limits, SourceId, SpecVersion, SubscriberKey,
    breaker::{Allowance, Breaker, Cycle},
    clock::{NEVER, Seconds, Tick},
    expiry::{Ages, Lifetime},
    gate::Gate,
    numbers::{FIRST, RecordNumber, Turn},
    rate::Rate,
    ready_queue::ReadyQueue,
};

/// Whether the events of a lane may go, and where.
#[derive(Clone, Debug)]
pub(crate) enum RouteState<R> {
    Open(R),
    Closed(Gate),
}

/// The events of one Subscriber.
#[derive(Debug)]
pub(crate) struct Lane<R> {
    pub(crate) key: SubscriberKey,
    pub(crate) route_state: RouteState<R>,
    /// The version of the Subscriber's spec that was reconciled last (None: none yet).
    pub(crate) version: Option<SpecVersion>,
    /// The version whose webhook answered 410.
    pub(crate) gone: Option<SpecVersion>,
    pub(crate) lifetime: Lifetime,
    /// No wait is longer; of the last route.
    pub(crate) longest_wait: Option<Duration>,
    /// By when they are due.
    pub(crate) waiting: BTreeSet<(Tick, RecordNumber)>,
    /// Those that are due.
    pub(crate) ready_queue: ReadyQueue,
    pub(crate) ages: Ages,
    /// How many records name this lane, wherever their events are.
    pub(crate) records: usize,
    pub(crate) in_flight: usize,
    /// What the events in flight are charged.
    pub(crate) bytes: usize,
    /// The queue's cap for one lane.
    room: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) paused_until: Option<Instant>,
    pub(crate) breaker: Breaker,
    pub(crate) rate: Rate,
    /// The gate that holds it, and since when it was seen to; forgotten when it may have been open in between.
    pub(crate) behind: Option<(Gate, Instant)>,
    /// For each gate: those that were explained it all stand before this, and those that were put back stand apart.
    pub(crate) explained_before: [Turn; Gate::COUNT],
    pub(crate) supplies: Vec<Supply>,
    pub(crate) marks: LaneMemberships,
}

/// Where events of the lane can be pulled from.
#[derive(Debug)]
pub(crate) struct Supply {
    pub(crate) source: SourceId,
    /// There are some.
    pub(crate) any: bool,
    /// A pull of at most this many is under way.
    pub(crate) pulling: Option<usize>,
    /// There were some since that pull began.
    pub(crate) any_since: bool,
}

/// In which lists outside the lane the lane stands, so that each list has the lane at most once and the lane can be taken off.
#[derive(Debug, Default)]
pub(crate) struct LaneMemberships {
    /// It is on the list of lanes that changed, in `lanes.rs`: [`crate::schedule::Schedule::refresh`] looks at it before anything
    /// starts.
    pub(crate) changed: bool,
    /// It takes turns, in `turns.rs`: it may have an event to start.
    pub(crate) in_round: bool,
    /// When time alone changes what it can do, as `lanes.rs` has it.
    pub(crate) timer: Option<Instant>,
    /// When its first entry expires by the Subscriber's lifetime, as `expiry.rs` has it.
    pub(crate) expiry: Option<Seconds>,
    /// It takes turns, in `explain.rs`: one of its entries is to name the gate.
    pub(crate) in_explanation_round: bool,
    /// When one of its entries is to name the gate, as `explain.rs` has it.
    pub(crate) explanation_timer: Option<Instant>,
}

/// Whether a lane can start an attempt, its namespace and the other lanes aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneReadiness {
    Ready,
    /// Look again at this time.
    At(Instant),
    /// Time alone changes nothing.
    Blocked,
}

impl<R> Lane<R> {
    /// A lane of a Subscriber that is not known yet; at most `room` under way at once.
    pub(crate) fn new(key: SubscriberKey, room: usize) -> Self {
        Self {
            key,
            route_state: RouteState::Closed(Gate::SubscriberNotFound),
            version: None,
            gone: None,
            lifetime: Lifetime::Unknown,
            longest_wait: None,
            waiting: BTreeSet::new(),
            ready_queue: ReadyQueue::default(),
            ages: Ages::default(),
            records: 0,
            in_flight: 0,
            bytes: 0,
            room,
            max_in_flight: room,
            paused_until: None,
            breaker: Breaker::default(),
            rate: Rate::default(),
            behind: None,
            explained_before: [FIRST; Gate::COUNT],
            supplies: Vec::new(),
            marks: LaneMemberships::default(),
        }
    }

    pub(crate) fn open(&mut self, route: R, limits: Limits) {
        self.max_in_flight = limits.max_in_flight.clamp(1, self.room);
        self.rate.limit(limits.rate_per_minute);
        self.route_state = RouteState::Open(route);
    }

    pub(crate) fn close(&mut self, gate: Gate) {
        if self.closed() != Some(gate) {
            self.behind = None;
        }
        self.route_state = RouteState::Closed(gate);
    }

    /// Whether what was pulled for it is given back: it cannot be sent for a while.
    pub(crate) fn gives_back(&self, now: Instant) -> bool {
        self.closed().is_some() || self.pause_end(now).is_some()
    }

    /// The gate that only an opening ends.
    pub(crate) fn closed(&self) -> Option<Gate> {
        match self.route_state {
            RouteState::Open(_) => None,
            RouteState::Closed(gate) => Some(gate),
        }
    }

    /// The latest end wins. A pause counts as a new gate: whether the one before was over meanwhile is not known here.
    pub(crate) fn pause(&mut self, until: Instant) {
        if self.paused_until.is_some_and(|latest| latest >= until) {
            return;
        }
        self.paused_until = Some(until);
        if self.closed().is_none() {
            self.behind = None;
        }
    }

    pub(crate) fn reset(&mut self) {
        (self.paused_until, self.gone) = (None, None);
        self.breaker.reset();
    }

    pub(crate) fn gate(&self, now: Instant) -> Option<Gate> {
        let paused = self.pause_end(now).map(|_| Gate::Paused);
        let circuit = self.breaker.is_open().then_some(Gate::CircuitOpen);
        self.closed().or(paused).or(circuit)
    }

    /// When its pause ends, if it is paused.
    pub(crate) fn pause_end(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// Sees which gate holds it at `now`.
    pub(crate) fn notice_gate(&mut self, now: Instant) {
        let gate = self.gate(now);
        if self.behind.map(|(behind, _)| behind) != gate {
            self.behind = gate.map(|gate| (gate, now));
        }
    }

    pub(crate) fn readiness(&self, now: Instant) -> LaneReadiness {
        if self.closed().is_some() {
            return LaneReadiness::Blocked;
        }
        // Looked at before the rest: one that waits behind a pause hears when another gate follows it.
        if let Some(until) = self.pause_end(now)
            && self.ready_queue.len() > 0
        {
            return LaneReadiness::At(until);
        }
        if self.ready_queue.len() == 0 || self.in_flight >= self.max_in_flight {
            return LaneReadiness::Blocked;
        }
        let probe = match self.breaker.allowance() {
            Allowance::Nothing => return LaneReadiness::Blocked,
            Allowance::ProbeAt(probe) => Some(probe),
            Allowance::All => None,
        };
        match probe.max(self.rate.next()) {
            Some(at) if at > now => LaneReadiness::At(at),
            _ => LaneReadiness::Ready,
        }
    }

    /// An event of `bytes` starts. Returns whether it is a probe, and of which era of the circuit.
    pub(crate) fn take_off(&mut self, now: Instant, bytes: usize) -> (bool, Cycle) {
        self.in_flight += 1;
        self.bytes += bytes;
        self.rate.start(now);
        (self.breaker.start(), self.breaker.cycle())
    }

    /// An event of `bytes` that began then, as the probe of this era if it was one, is no longer in flight. It counts for the rate
    /// if it `counts`.
    pub(crate) fn land(&mut self, began: Instant, probe: Option<Cycle>, bytes: usize, counts: bool) {
        self.in_flight -= 1;
        self.bytes -= bytes;
        if counts {
            self.rate.ended(began);
        } else {
            self.rate.give_back(began);
        }
        probe.into_iter().for_each(|cycle| self.breaker.probe_ended(cycle));
    }

    /// How many more events it has room for: its free slots that no pull is for, or one where an open circuit waits for a probe.
    pub(crate) fn wants(&self, now: Instant) -> usize {
        let pulling: usize = self.supplies.iter().filter_map(|supply| supply.pulling).sum();
        let held = self.pending() + pulling;
        match self.gate(now) {
            None => self.max_in_flight.saturating_sub(held),
            Some(Gate::CircuitOpen) if held == 0 => 1,
            Some(_) => 0,
        }
    }

    /// How its events stand (None: no version of its Subscriber is known).
    pub(crate) fn snapshot(&self, now: Instant) -> Option<LaneSnapshot> {
        let gate = self.gate(now);
        let state = if gate == Some(Gate::EndpointGone) {
            LaneState::EndpointGone
        } else if self.pause_end(now).is_some() {
            LaneState::Paused
        } else if self.breaker.is_open() {
            LaneState::CircuitOpen
        } else if gate.is_some() || self.pending() == 0 {
            LaneState::Idle
        } else if self.is_rate_limited(now) {
            LaneState::RateLimited
        } else {
            LaneState::Delivering
        };
        Some(LaneSnapshot { uid: self.version.as_ref()?.uid.clone(), pending: self.pending(), state })
    }

    /// Whether something is due that only the rate holds.
    pub(crate) fn is_rate_limited(&self, now: Instant) -> bool {
        let waits = |at| self.rate.next() == Some(at);
        self.gate(now).is_none() && matches!(self.readiness(now), LaneReadiness::At(at) if waits(at))
    }

    /// The one to start next: the first, or the probe of an open circuit.
    pub(crate) fn candidate(&self) -> Option<RecordNumber> {
        if self.breaker.is_open() { self.ready_queue.longest_untried() } else { self.ready_queue.first() }
    }

    /// How many events it holds: waiting, due and in flight.
    pub(crate) fn pending(&self) -> usize {
        self.ready_queue.len() + self.waiting.len() + self.in_flight
    }

    /// When its first event expires by the Subscriber's lifetime, and which it is.
    pub(crate) fn first_expiry(&self) -> Option<(Seconds, RecordNumber)> {
        self.ages.first(self.lifetime, self.ends_all())
    }

    /// When the Subscriber's lifetime ends an entry whose life began then.
    pub(crate) fn ends(&self, began: Seconds, is_tried: bool) -> Seconds {
        if is_tried || self.ends_all() { self.lifetime.ends(began) } else { NEVER }
    }

    /// Whether the Subscriber's lifetime ends also what was never tried.
    fn ends_all(&self) -> bool {
        matches!(self.closed(), Some(Gate::EndpointGone | Gate::SubscriberNotFound))
    }

    /// Whether no entry names it, none is to be pulled, and no Subscriber is known to be it: it may be forgotten once [`Self::rests_until`] has passed.
    pub(crate) fn is_idle(&self) -> bool {
        let is_supplied = self.supplies.iter().any(|supply| supply.any || supply.pulling.is_some());
        self.records == 0 && !is_supplied && self.closed() == Some(Gate::SubscriberNotFound)
    }

    /// What it must remember even when idle ends here.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        self.paused_until.max(self.rate.next())
    }
}
