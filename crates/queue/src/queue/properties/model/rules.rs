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
        let fits = self.view.bytes[no] + self.charge(no) <= self.max_bytes / 8;
        if lane.closed.is_some() || lane.probe.is_some() || self.view.in_flight[no] >= room || !fits {
            return None;
        }
        let probe = lane.circuit.map(|(_, at)| at);
        Some(self.view.first_due[no]?).max(lane.paused_until).max(probe).max(self.next_by_rate(no))
    }

    /// What the lane's next event counts for, in bytes.
    fn charge(&self, lane: usize) -> usize {
        self.candidate(lane).map_or(0, |id| bytes(id).min(self.max_bytes / 8))
    }

    pub(super) fn could_start(&self, lane: usize) -> bool {
        self.view.could_start[lane]
    }

    /// Whether a namespace that holds `held` of a `capacity`, of which `used` are in use, may take `weight` more while
    /// `active` namespaces have work.
    fn admits(capacity: usize, used: usize, held: usize, weight: usize, active: usize) -> bool {
        let within_quarter = held == 0 || held + weight <= (capacity / 4).max(1);
        let spares_reserve = used + weight <= capacity - capacity / 4;
        let within_fair_share = held == 0 || held + weight <= capacity / (active + 1);
        within_quarter && used + weight <= capacity && (spares_reserve || within_fair_share)
    }

    fn has_room(&self, lane: usize, active: usize) -> bool {
        let of_namespace = |counts: &[usize; LANES]| counts.iter().skip(lane % NAMESPACES).step_by(NAMESPACES).sum();
        let View { in_flight, bytes, .. } = &self.view;
        let slots = Self::admits(self.cap, in_flight.iter().sum(), of_namespace(in_flight), 1, active);
        let charge = self.charge(lane);
        slots && Self::admits(self.max_bytes, bytes.iter().sum(), of_namespace(bytes), charge, active)
    }

    /// Which namespaces have work is known roughly here (a lane that was closed has its turn still). So a start is
    /// right if it is with as few of them as possible, and one that does not come is wrong if it is with all.
    pub(super) fn may_have_room(&self, lane: usize) -> bool {
        self.has_room(lane, 1)
    }

    /// Whether any lane of the namespace that could start has room: where one has not, the others may wait behind it.
    pub(super) fn namespace_has_room(&self, namespace: usize) -> bool {
        let mut lanes = (namespace..LANES).step_by(NAMESPACES).filter(|lane| self.could_start(*lane));
        lanes.all(|lane| self.has_room(lane, NAMESPACES))
    }

    pub(super) fn namespace_could_start(&self, namespace: usize) -> bool {
        let mut lanes = (namespace..LANES).step_by(NAMESPACES);
        self.namespace_has_room(namespace) && lanes.any(|lane| self.could_start(lane))
    }
}
