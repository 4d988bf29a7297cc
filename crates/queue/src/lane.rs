//! The events of one Subscriber, and the state that decides when the next event may start.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    Circuit, LaneReading, LaneSnapshot, LaneState, Limits, SourceId, SpecVersion, SubscriberKey,
    breaker::{Allowance, Breaker, Cycle, OpenCause},
    clock::{NEVER, Seconds, Tick, calendar},
    expiry::{Ages, Lifetime},
    gate::Gate,
    numbers::{FIRST, RecordNumber, Turn},
    rate::Rate,
    ready_queue::ReadyQueue,
};

/// Whether the events of a lane may be sent, and where.
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
    /// The longest wait by the last route.
    pub(crate) longest_wait: Option<Duration>,
    /// The waiting events, by when they are due.
    pub(crate) waiting: BTreeSet<(Tick, RecordNumber)>,
    /// The events that are due.
    pub(crate) ready_queue: ReadyQueue,
    pub(crate) ages: Ages,
    /// The number of records of this lane.
    pub(crate) records: usize,
    pub(crate) in_flight: usize,
    /// The bytes of the events in flight.
    pub(crate) bytes: usize,
    /// The maximum number of concurrent attempts of one lane.
    room: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) paused_until: Option<Instant>,
    pub(crate) breaker: Breaker,
    pub(crate) rate: Rate,
    /// The gate that holds the lane, and since when; reset when the lane may have been open in between.
    pub(crate) behind: Option<(Gate, Instant)>,
    /// For each gate: all events before this place have named it, except events that were put back.
    pub(crate) explained_before: [Turn; Gate::COUNT],
    pub(crate) supplies: Vec<Supply>,
    pub(crate) marks: LaneMemberships,
}

/// Where events of the lane can be pulled from.
#[derive(Debug)]
pub(crate) struct Supply {
    pub(crate) source: SourceId,
    /// Whether there are entries to pull.
    pub(crate) any: bool,
    /// The maximum of the pull in progress.
    pub(crate) pulling: Option<usize>,
    /// Whether entries appeared since that pull started.
    pub(crate) any_since: bool,
}

/// The lists outside the lane that contain the lane, so that each list has it at most once and it can be removed.
#[derive(Debug, Default)]
pub(crate) struct LaneMemberships {
    /// The lane is in the list of changed lanes in `lanes.rs`: [`crate::schedule::Schedule::refresh`] checks it before
    /// any event starts.
    pub(crate) changed: bool,
    /// The lane takes turns in `turns.rs`: it may have an event to start.
    pub(crate) in_round: bool,
    /// The timer of the lane in `lanes.rs`.
    pub(crate) timer: Option<Instant>,
    /// The time of the lane in `expiry.rs`: when its first entry expires by the Subscriber's lifetime.
    pub(crate) expiry: Option<Seconds>,
    /// The lane takes turns in `explain.rs`: an entry of it must name the gate.
    pub(crate) in_explanation_round: bool,
    /// The timer of the lane in `explain.rs`.
    pub(crate) explanation_timer: Option<Instant>,
}

/// Whether a lane can start an attempt, without regard to its namespace and other lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneReadiness {
    Ready,
    /// Check again at this time.
    At(Instant),
    /// No: and time alone does not change that.
    Blocked,
}

impl<R> Lane<R> {
    /// Makes the lane of a Subscriber that is not known yet, with at most `room` concurrent attempts.
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

    /// Whether pulled entries are returned to their source, because they cannot be sent for a while.
    pub(crate) fn gives_back(&self, now: Instant) -> bool {
        self.closed().is_some() || self.pause_end(now).is_some()
    }

    /// Returns the gate that only [`crate::Update::Open`] ends.
    pub(crate) fn closed(&self) -> Option<Gate> {
        match self.route_state {
            RouteState::Open(_) => None,
            RouteState::Closed(gate) => Some(gate),
        }
    }

    /// Pauses the lane. The latest end applies. A pause counts as a new gate, because the previous one may have ended
    /// meanwhile.
    pub(crate) fn pause(&mut self, until: Instant) {
        if self.paused_until.is_some_and(|latest| latest >= until) {
            return;
        }
        self.paused_until = Some(until);
        if self.closed().is_none() {
            self.behind = None;
        }
    }

    pub(crate) fn reset(&mut self, now: Instant) {
        (self.paused_until, self.gone) = (None, None);
        self.breaker.reset(now);
    }

    pub(crate) fn gate(&self, now: Instant) -> Option<Gate> {
        let paused = self.pause_end(now).map(|_| Gate::Paused);
        let circuit = self.breaker.open_cause().map(|cause| match cause {
            OpenCause::Failures => Gate::CircuitOpen,
            OpenCause::Rejections => Gate::RejectsAll,
        });
        self.closed().or(paused).or(circuit)
    }

    /// Returns when the pause ends, if the lane is paused.
    pub(crate) fn pause_end(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// Updates which gate holds the lane at `now`.
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
        // Checked first, so that an entry behind a pause names the gate that follows the pause.
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

    /// Records the start of an event of `bytes`. Returns whether it is a probe, and the cycle of the circuit.
    pub(crate) fn take_off(&mut self, now: Instant, bytes: usize) -> (bool, Cycle) {
        self.in_flight += 1;
        self.bytes += bytes;
        self.rate.start(now);
        (self.breaker.start(now), self.breaker.cycle())
    }

    /// Records that an event of `bytes` is no longer in flight. `probe` is the cycle in which it was a probe. The event
    /// counts toward the rate limit if `counts` is true.
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

    /// Returns how many more events the lane can take: its free slots without a pull, or one if an open circuit waits
    /// for a probe.
    pub(crate) fn wants(&self, now: Instant) -> usize {
        let pulling: usize = self.supplies.iter().filter_map(|supply| supply.pulling).sum();
        let held = self.pending() + pulling;
        match self.gate(now) {
            None => self.max_in_flight.saturating_sub(held),
            Some(Gate::CircuitOpen | Gate::RejectsAll) if held == 0 => 1,
            Some(_) => 0,
        }
    }

    /// Returns the state of its events (None: no version of its Subscriber is known).
    pub(crate) fn snapshot(&self, now: Instant) -> Option<LaneSnapshot> {
        let gate = self.gate(now);
        let state = if gate == Some(Gate::EndpointGone) {
            LaneState::EndpointGone
        } else if self.breaker.is_rejecting() {
            // Also during a pause: the status keeps this state over a restart.
            LaneState::RejectsAll
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

    /// Returns what it holds. `oldest_in_flight` is when the life of the oldest event in flight began.
    pub(crate) fn reading(&self, now: Instant, oldest_in_flight: Option<Seconds>) -> LaneReading {
        let circuit = self.breaker.open_cause().map(|cause| match (cause, self.breaker.allowance()) {
            (OpenCause::Rejections, _) => Circuit::RejectsAll,
            (OpenCause::Failures, Allowance::Nothing) => Circuit::HalfOpen,
            (OpenCause::Failures, _) => Circuit::Open,
        });
        LaneReading {
            of: self.key.clone(),
            is_known: self.version.is_some(),
            pending: self.pending(),
            in_flight: self.in_flight,
            oldest: self.ages.oldest().into_iter().chain(oldest_in_flight).min().map(calendar),
            gate: self.gate(now),
            circuit,
            is_paused: self.pause_end(now).is_some(),
        }
    }

    /// Whether only the rate limit holds an event that is due.
    pub(crate) fn is_rate_limited(&self, now: Instant) -> bool {
        let waits = |at| self.rate.next() == Some(at);
        self.gate(now).is_none() && matches!(self.readiness(now), LaneReadiness::At(at) if waits(at))
    }

    /// Returns the event to start next: the first one, or the probe of an open circuit. `kind` returns the kind of an
    /// event.
    pub(crate) fn candidate(&self, kind: impl Fn(RecordNumber) -> u16) -> Option<RecordNumber> {
        match self.breaker.open_cause() {
            None => self.ready_queue.first(),
            Some(OpenCause::Failures) => self.ready_queue.longest_untried(),
            // One producer's events must not hold up the others' forever: the webhook may accept another kind.
            Some(OpenCause::Rejections) => {
                let is_new = |no: &RecordNumber| !self.breaker.has_rejected(kind(*no));
                self.ready_queue.probe(self.breaker.is_newest_next(), is_new)
            }
        }
    }

    /// Returns the number of events: waiting, due and in flight.
    pub(crate) fn pending(&self) -> usize {
        self.ready_queue.len() + self.waiting.len() + self.in_flight
    }

    /// Returns when the first entry expires by the Subscriber's lifetime, and which one.
    pub(crate) fn first_expiry(&self) -> Option<(Seconds, RecordNumber)> {
        self.ages.first(self.lifetime, self.ends_all())
    }

    /// Returns when the Subscriber's lifetime ends an entry whose life began at `began`.
    pub(crate) fn ends(&self, began: Seconds, is_tried: bool) -> Seconds {
        if is_tried || self.ends_all() { self.lifetime.ends(began) } else { NEVER }
    }

    /// Whether the Subscriber's lifetime also ends entries without an attempt.
    fn ends_all(&self) -> bool {
        matches!(self.closed(), Some(Gate::EndpointGone | Gate::SubscriberNotFound))
    }

    /// Whether the lane has no entry, nothing to pull and no known Subscriber, so that it can be removed after
    /// [`Self::rests_until`].
    pub(crate) fn is_idle(&self) -> bool {
        let is_supplied = self.supplies.iter().any(|supply| supply.any || supply.pulling.is_some());
        self.records == 0 && !is_supplied && self.closed() == Some(Gate::SubscriberNotFound)
    }

    /// Returns until when an idle lane must be kept.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        self.paused_until.max(self.rate.next())
    }
}
