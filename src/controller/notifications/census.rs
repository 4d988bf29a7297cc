//! How the queue stands, for each Subscriber's status.

use std::time::Instant;

use super::Notifications;
use crate::{
    controller::subscribers::{Census, State},
    dispatch::{Gate, LaneKey},
};

impl Notifications {
    /// How each Subscriber's Notifications get on.
    pub(super) fn census(&self) -> Vec<(LaneKey, Census)> {
        let now = Instant::now();
        let of = |lane: &LaneKey| Census { pending: self.scheduler.pending(lane), state: self.state(lane, now) };
        // Before the first look nothing is known but that there is one, and before the first listing not how many there are.
        let is_known = |lane: &LaneKey| self.scopes.of(&lane.namespace).is_some_and(|scope| scope.synced);
        let looked_at = self.lanes.iter().filter(|(key, lane)| lane.spec.is_some() && is_known(key));
        looked_at.map(|(lane, _)| (lane.clone(), of(lane))).collect()
    }

    fn state(&self, lane: &LaneKey, now: Instant) -> State {
        let gate = self.scheduler.gate(lane, now);
        if gate == Some(Gate::EndpointGone) {
            State::EndpointGone
        } else if self.scheduler.paused_until(lane, now).is_some() {
            State::Paused
        } else if self.scheduler.is_open_circuit(lane) {
            State::CircuitOpen
        } else if gate.is_some() || self.scheduler.pending(lane) == 0 {
            State::Idle
        } else if self.scheduler.is_rate_limited(lane, now) {
            State::RateLimited
        } else {
            State::Delivering
        }
    }
}
