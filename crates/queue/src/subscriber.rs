//! What happens to a whole lane: its Subscriber opens and closes, pauses, fails and recovers.

use std::{hash::Hash, time::Instant};

use super::{
    breaker::Health,
    gate::Gate,
    lane::{Lane, Limits, Readiness},
    names::SubscriberKey,
    scheduler::{Place, Scheduler},
};

impl<Id: Clone + Eq + Hash + Ord> Scheduler<Id> {
    /// The Subscriber is ready and allows this much. Its pause, its circuit and what counts for its rate stay.
    pub fn open(&mut self, lane: &SubscriberKey, limits: Limits) {
        self.change(lane, |lane| lane.open(limits));
    }

    /// Nothing starts in this lane until it is opened; what is under way goes on. `gate` is one that only an open ends:
    /// SubscriberNotFound, SubscriberNotReady, Suspended or EndpointGone. A lane never opened is SubscriberNotFound, and
    /// one that is so and has no Notifications is forgotten once its pause is over.
    pub fn close(&mut self, lane: &SubscriberKey, gate: Gate) {
        self.change(lane, |lane| lane.close(gate));
    }

    /// Nothing starts in this lane before `until`, open or closed. The latest end wins.
    pub fn pause(&mut self, lane: &SubscriberKey, until: Instant) {
        self.change(lane, |lane| lane.pause(until));
    }

    /// Ends the lane's pause and closes its circuit; failures of attempts under way now will not count.
    pub fn reset(&mut self, lane: &SubscriberKey) {
        if self.names.contains_key(lane) {
            self.change(lane, Lane::reset);
        }
    }

    /// What the attempt at `id`, which is in flight, found out about its webhook. Once for each attempt, and before it
    /// is ended or retried; an attempt that says nothing (paused, not sent) is not reported.
    pub fn report(&mut self, id: &Id, health: Health, now: Instant) {
        let now = self.clock(now);
        if let Some(ticket) = self.tickets.get(id)
            && let Place::InFlight { era, .. } = ticket.place
            && let Some(lane) = self.lanes.get_mut(&ticket.lane)
        {
            lane.breaker.report(health, era, now);
            let no = ticket.lane;
            self.refresh(no, now);
        }
    }

    /// What holds the whole lane now (None: at most its caps and its rate).
    pub fn gate(&self, lane: &SubscriberKey, now: Instant) -> Option<Gate> {
        self.lane(lane).map_or(Some(Gate::SubscriberNotFound), |lane| lane.gate(now))
    }

    /// Whether the lane's circuit is open, whatever else holds it.
    pub fn is_open_circuit(&self, lane: &SubscriberKey) -> bool {
        self.lane(lane).is_some_and(|lane| lane.breaker.is_open())
    }

    /// When the lane's pause ends, whatever else holds it (None: it is not paused).
    pub fn paused_until(&self, lane: &SubscriberKey, now: Instant) -> Option<Instant> {
        self.lane(lane)?.pause_end(now)
    }

    /// Whether the lane has something due that only its rate holds.
    pub fn is_rate_limited(&self, lane: &SubscriberKey, now: Instant) -> bool {
        self.lane(lane).is_some_and(|lane| {
            lane.gate(now).is_none() && matches!(lane.readiness(now), Readiness::At(at) if lane.rate.next() == Some(at))
        })
    }

    /// How many of the lane's ids are due and not in flight.
    pub fn queued(&self, lane: &SubscriberKey) -> usize {
        self.lane(lane).map_or(0, |lane| lane.queue.len())
    }

    /// How many ids the lane holds: waiting, queued and in flight.
    pub fn pending(&self, lane: &SubscriberKey) -> usize {
        self.lane(lane).map_or(0, |lane| lane.queue.len() + lane.waiting.len() + lane.in_flight)
    }

    /// The lanes that are known.
    pub fn lane_keys(&self) -> Vec<SubscriberKey> {
        self.names.keys().cloned().collect()
    }

    /// The lane's queued and waiting ids, those that are due first. Costs a copy of each.
    pub fn ids_of(&self, lane: &SubscriberKey) -> Vec<Id> {
        let Some(lane) = self.lane(lane) else { return Vec::new() };
        let mut ids = lane.queue.ids();
        ids.extend(lane.waiting.iter().map(|(_, id)| id.clone()));
        ids
    }

    fn lane(&self, key: &SubscriberKey) -> Option<&Lane<Id>> {
        self.lanes.get(self.names.get(key)?)
    }

    fn change(&mut self, key: &SubscriberKey, change: impl FnOnce(&mut Lane<Id>)) {
        let no = self.lane_no(key);
        if let Some(lane) = self.lanes.get_mut(&no) {
            change(lane);
        }
        self.touch(no);
    }
}
