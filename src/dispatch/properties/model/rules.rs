//! What the rules allow at this moment.

use super::*;

impl Model {
    pub(super) fn wake(&mut self, of: impl Fn(usize) -> bool) {
        for (due, id, lane) in self.waiting() {
            if due <= self.now && of(lane) {
                self.items.entry(id).and_modify(|item| item.place = Place::Due(self.now));
                self.lanes[lane].queue.push(id);
            }
        }
    }

    pub(super) fn candidate(&self, lane: usize) -> Option<u32> {
        let queue = &self.lanes[lane].queue;
        match self.lanes[lane].circuit {
            Some(_) => queue.iter().min_by_key(|id| self.items[id].tried).copied(),
            None => queue.first().copied(),
        }
    }

    pub(super) fn next_by_rate(&self, lane: usize) -> Option<Instant> {
        let lane = &self.lanes[lane];
        let spacing = Duration::from_nanos(60_000_000_000_u64.div_ceil(lane.limits.rate_per_minute?.into()));
        Some(lane.starts.iter().map(|(start, _)| *start).max()? + spacing)
    }

    /// When the lane could start one by its own rules (None: time alone does not bring it).
    pub(super) fn could_start_at(&self, no: usize) -> Option<Instant> {
        let lane = &self.lanes[no];
        let room = lane.limits.max_in_flight.min((self.cap / 8).max(1));
        if lane.closed.is_some() || lane.probe.is_some() || self.view.in_flight[no] >= room {
            return None;
        }
        let probe = lane.circuit.map(|(_, at)| at);
        Some(self.view.first_due[no]?).max(lane.paused_until).max(probe).max(self.next_by_rate(no))
    }

    pub(super) fn could_start(&self, lane: usize) -> bool {
        self.view.could_start[lane]
    }

    pub(super) fn namespace_has_room(&self, namespace: usize) -> bool {
        (namespace..LANES).step_by(NAMESPACES).map(|lane| self.view.in_flight[lane]).sum::<usize>()
            < (self.cap / 4).max(1)
    }

    pub(super) fn namespace_could_start(&self, namespace: usize) -> bool {
        let mut lanes = (namespace..LANES).step_by(NAMESPACES);
        self.namespace_has_room(namespace) && lanes.any(|lane| self.could_start(lane))
    }

    pub(super) fn has_room(&self, lane: usize) -> bool {
        self.view.in_flight.iter().sum::<usize>() < self.cap && self.namespace_has_room(lane % NAMESPACES)
    }
}
