//! How the queue stands, for each Subscriber's status.

use std::time::Instant;

use tidings_queue::{Gate, SubscriberKey};

use super::Notifications;
use crate::subscribers::{Census, Counted, State};

impl Notifications {
    /// How the Notifications get on of those Subscribers where that changed since the last census.
    pub(super) fn census(&mut self) -> Vec<Counted> {
        let now = Instant::now();
        let mut lanes = std::mem::take(&mut self.uncounted);
        lanes.extend(self.scheduler.take_changed());
        // These change with time alone.
        let timed = self
            .counted
            .iter()
            .filter(|(_, (_, census))| matches!(census.state, State::Delivering | State::RateLimited | State::Paused));
        lanes.extend(timed.map(|(lane, _)| lane.clone()));
        let mut news = Vec::new();
        for lane in lanes {
            // Before the first look nothing is known but that there is one.
            let spec = self.lanes.get(&lane).and_then(|lane| lane.spec.as_ref());
            let Some(uid) = spec.map(|version| version.uid.clone()) else {
                self.counted.remove(&lane);
                continue;
            };
            // Before the first listing it is not known how many there are.
            if !self.scopes.of(&lane.namespace).is_some_and(|scope| scope.synced) {
                self.uncounted.insert(lane);
                continue;
            }
            let census = Census { pending: self.scheduler.pending(&lane), state: self.state(&lane, now) };
            let counted = (uid, census);
            if self.counted.get(&lane) != Some(&counted) {
                news.push((lane.clone(), counted.0.clone(), census));
                self.counted.insert(lane, counted);
            }
        }
        news
    }

    fn state(&self, lane: &SubscriberKey, now: Instant) -> State {
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
