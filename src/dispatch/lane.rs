//! One Subscriber's queue.

use std::collections::VecDeque;

/// The Notifications of one Subscriber that are due, in order, and how many may be under way.
#[derive(Debug)]
pub(super) struct Lane<Id> {
    queue: VecDeque<Id>,
    in_flight: usize,
    /// How many may be under way at once; 0 while the gate is closed.
    capacity: usize,
    /// Whether the scheduler's round holds this lane.
    pub(super) in_round: bool,
}

impl<Id> Default for Lane<Id> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), in_flight: 0, capacity: 0, in_round: false }
    }
}

impl<Id: PartialEq> Lane<Id> {
    pub(super) fn push(&mut self, id: Id) {
        self.queue.push_back(id);
    }

    pub(super) fn push_front(&mut self, id: Id) {
        self.queue.push_front(id);
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    pub(super) fn can_start(&self) -> bool {
        self.in_flight < self.capacity && !self.queue.is_empty()
    }

    /// Takes the next one that `is_current` still wants, if the gate is open and there is room.
    pub(super) fn start(&mut self, is_current: impl Fn(&Id) -> bool) -> Option<Id> {
        while self.in_flight < self.capacity {
            let id = self.queue.pop_front()?;
            if is_current(&id) {
                self.in_flight += 1;
                return Some(id);
            }
        }
        None
    }

    pub(super) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Nothing queued, nothing under way, gate closed: the lane may be forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight == 0 && self.capacity == 0
    }
}
