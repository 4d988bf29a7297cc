//! How the queue stands, for each Subscriber's status.

use std::time::Instant;

use tidings_queue::{Gate, LaneSnapshot, LaneState, SubscriberKey};

use super::Notifications;

impl Notifications {
    /// How the Notifications get on of those Subscribers where that changed since the last census.
    pub(super) fn census(&mut self) -> Vec<(SubscriberKey, LaneSnapshot)> {
        let now = Instant::now();
        let mut lanes = std::mem::take(&mut self.uncounted);
        lanes.extend(self.scheduler.take_changed());
        // These change with time alone.
        let timed = self.counted.iter().filter(|(_, lane)| {
            matches!(lane.state, LaneState::Delivering | LaneState::RateLimited | LaneState::Paused)
        });
        lanes.extend(timed.map(|(lane, _)| lane.clone()));
        let mut news = Vec::new();
        for lane in lanes {
            // Before the first look nothing is known but that there is one.
            let version = self.lanes.get(&lane).and_then(|lane| lane.version());
            let Some(uid) = version.map(|version| version.uid.clone()) else {
                self.counted.remove(&lane);
                continue;
            };
            // Before the first listing it is not known how many there are.
            if !self.scopes.of(&lane.namespace).is_some_and(|scope| scope.synced) {
                self.uncounted.insert(lane);
                continue;
            }
            let counted = LaneSnapshot { uid, pending: self.scheduler.pending(&lane), state: self.state(&lane, now) };
            if self.counted.get(&lane) != Some(&counted) {
                news.push((lane.clone(), counted.clone()));
                self.counted.insert(lane, counted);
            }
        }
        news
    }

    fn state(&self, lane: &SubscriberKey, now: Instant) -> LaneState {
        let gate = self.scheduler.gate(lane, now);
        if gate == Some(Gate::EndpointGone) {
            LaneState::EndpointGone
        } else if self.scheduler.paused_until(lane, now).is_some() {
            LaneState::Paused
        } else if self.scheduler.is_open_circuit(lane) {
            LaneState::CircuitOpen
        } else if gate.is_some() || self.scheduler.pending(lane) == 0 {
            LaneState::Idle
        } else if self.scheduler.is_rate_limited(lane, now) {
            LaneState::RateLimited
        } else {
            LaneState::Delivering
        }
    }
}
