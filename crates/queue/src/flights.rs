//! The events in flight: being loaded or sent, or their outcome being written.

use std::{collections::HashMap, time::Instant};

use crate::{
    SpecVersion, Term,
    breaker::Cycle,
    numbers::{LaneNumber, RecordNumber},
    work::{Flight, Permit, Ticket, Work},
};

/// An event in flight.
pub(crate) struct InFlight<R> {
    pub(crate) lane: LaneNumber,
    pub(crate) began: Instant,
    pub(crate) cycle: Cycle,
    pub(crate) is_probe: bool,
    pub(crate) permit: Permit,
    /// The route, and the version of the Subscriber's spec.
    pub(crate) route: R,
    pub(crate) spec: SpecVersion,
    /// The version of the entry.
    pub(crate) version: u64,
    pub(crate) term: Term,
}

/// All events in flight, by number.
pub(crate) struct Flights<R>(HashMap<RecordNumber, InFlight<R>>);

impl<R: Clone> Flights<R> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    pub(crate) fn insert(&mut self, event: RecordNumber, flight: InFlight<R>) {
        self.0.insert(event, flight);
    }

    pub(crate) fn get(&self, event: RecordNumber) -> Option<&InFlight<R>> {
        self.0.get(&event)
    }

    pub(crate) fn remove(&mut self, event: RecordNumber) -> Option<InFlight<R>> {
        self.0.remove(&event)
    }

    pub(crate) fn contains(&self, event: RecordNumber) -> bool {
        self.0.contains_key(&event)
    }

    /// Returns the events in flight.
    pub(crate) fn events(&self) -> impl Iterator<Item = RecordNumber> {
        self.0.keys().copied()
    }

    /// Makes the flight to send. The entry of its event expires when `permit` ends.
    pub(crate) fn sent<W: Work<Route = R>>(
        &self,
        event: RecordNumber,
        ticket: Ticket<W>,
        item: Box<W::Item>,
    ) -> Option<Flight<W>> {
        let InFlight { permit, route, term, .. } = self.get(event)?;
        Some(Flight { ticket, item, route: route.clone(), permit: permit.clone(), term: *term })
    }

    /// Revokes the permits of the lane's flights, except flights with the version `kept`.
    pub(crate) fn revoke_lane(&self, lane: LaneNumber, kept: Option<&SpecVersion>) {
        let flights = self.0.values().filter(|flight| flight.lane == lane && Some(&flight.spec) != kept);
        flights.for_each(|flight| flight.permit.revoke());
    }

    /// Revokes the permits of all flights.
    pub(crate) fn revoke_all(&self) {
        self.0.values().for_each(|flight| flight.permit.revoke());
    }
}
