//! The last reported state of each lane.

use std::collections::{HashMap, HashSet};

use crate::{LaneSnapshot, LaneState, SubscriberKey};

#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// The lanes that changed before they could be reported.
    changed: HashSet<SubscriberKey>,
    reported: HashMap<SubscriberKey, LaneSnapshot>,
}

impl Snapshots {
    /// Returns the snapshots that differ from the last reported ones, of the lanes in `changed`, of lanes that could
    /// not be reported before, and of lanes that change by time alone. A lane whose Subscriber is not known yet is
    /// reported later.
    pub(crate) fn news(
        &mut self,
        changed: HashSet<SubscriberKey>,
        is_known: impl Fn(&SubscriberKey) -> bool,
        snapshot: impl Fn(&SubscriberKey) -> Option<LaneSnapshot>,
    ) -> Vec<(SubscriberKey, LaneSnapshot)> {
        let is_timed = |state| matches!(state, LaneState::Delivering | LaneState::RateLimited | LaneState::Paused);
        let timed = self.reported.iter().filter(|(_, snapshot)| is_timed(snapshot.state)).map(|(key, _)| key.clone());
        self.changed.extend(changed.into_iter().chain(timed));
        let mut news = Vec::new();
        for key in std::mem::take(&mut self.changed) {
            let Some(snapshot) = snapshot(&key) else {
                self.reported.remove(&key);
                continue;
            };
            if !is_known(&key) {
                self.changed.insert(key);
            } else if self.reported.get(&key) != Some(&snapshot) {
                self.reported.insert(key.clone(), snapshot.clone());
                news.push((key, snapshot));
            }
        }
        news
    }
}
