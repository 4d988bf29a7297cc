//! The schedule: knows where each event is, and which event may start.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Gate, LaneReading, SubscriberKey, Term,
    clock::{Clock, NEVER, Now, Seconds, calendar},
    entries::{Entries, EventPlace, Record},
    expiry::{Expiries, NextExpiry},
    explain::{Explanations, unexplained},
    flights::{Flights, InFlight},
    gate::Explained,
    lane::{Lane, LaneReadiness, RouteState},
    lanes::Lanes,
    numbers::{FIRST, LaneNumber, RecordNumber},
    turns::Turns,
    work::{Permit, Ticket, Work},
};

/// Knows where each event is. The queue decides and the schedule moves: each method moves an event or an entry from one
/// place to another, and keeps lanes, turns and expiries consistent. Unknown events are ignored.
///
/// An event is in one place ([`EventPlace`]): it waits for its time, it is in the ready queue of its lane, it is in
/// flight, it is finished (while other events of its entry must still be sent), or it is aside, in none of these.
///
/// In addition, an entry is in one of three states:
///
/// - Busy: an event of it is in flight, or an outcome of it is being written or must be written. A busy entry does not
///   expire.
/// - Filed ([`Self::file`]): it is in the indexes by expiry, and expires when its time comes.
/// - Aside: neither. [`Self::hide`] removes the entry from the indexes by expiry and leaves its events where they are.
///   [`Self::set_aside`] also removes its events from their lane and, for events that are not in flight, forgets their
///   attempts and the gates that they named.
pub(crate) struct Schedule<W: Work> {
    pub(crate) clock: Clock,
    pub(crate) entries: Entries<W>,
    pub(crate) lanes: Lanes<W::Route>,
    pub(crate) flights: Flights<W::Route>,
    turns: Turns,
    /// The records after the first one, of entries with several events.
    parts: HashMap<RecordNumber, EntryProgress>,
    /// Entries that are neither busy nor filed.
    aside: HashSet<RecordNumber>,
    expiries: Expiries,
    explanations: Explanations,
    /// The Subscribers whose lanes changed.
    changed: HashSet<SubscriberKey>,
    /// The lanes that may pull.
    thirsty: HashSet<LaneNumber>,
}

#[derive(Default)]
struct EntryProgress {
    events: Vec<RecordNumber>,
    in_flight: usize,
    /// Whether an outcome must be written.
    is_answered: bool,
    is_writing: bool,
    /// The events that the write in progress finishes.
    written: Vec<RecordNumber>,
}

impl<W: Work> Schedule<W> {
    /// Allows at most `in_flight` concurrent events, with at most `bytes` in total.
    pub(crate) fn new(in_flight: usize, bytes: usize, now: Now) -> Self {
        let turns = Turns::new(in_flight, bytes);
        Self {
            clock: Clock::new(now),
            entries: Entries::new(),
            lanes: Lanes::new(turns.slots_of_lane()),
            flights: Flights::new(),
            turns,
            parts: HashMap::new(),
            aside: HashSet::new(),
            expiries: Expiries::default(),
            explanations: Explanations::default(),
            changed: HashSet::new(),
            thirsty: HashSet::new(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Returns the number of events in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.turns.in_flight()
    }

    /// Returns the bytes of the events in flight.
    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.turns.bytes_in_flight()
    }

    /// Returns the maximum bytes in flight of a lane. A larger event counts as this much, and is sent alone.
    pub(crate) fn bytes_of_lane(&self) -> usize {
        self.turns.bytes_of_lane()
    }

    /// Takes the Subscribers whose lanes may have changed since the last call, except by time alone.
    pub(crate) fn take_changed(&mut self) -> HashSet<SubscriberKey> {
        std::mem::take(&mut self.changed)
    }

    /// Returns the lane of an event.
    pub(crate) fn lane_of(&self, event: RecordNumber) -> Option<&Lane<W::Route>> {
        self.lanes.get(self.entries.get(event)?.lane)
    }

    /// Returns the records of an entry's events.
    pub(crate) fn events(&self, no: RecordNumber) -> Vec<RecordNumber> {
        let parts = self.parts.get(&no).map(|parts| parts.events.as_slice()).unwrap_or_default();
        [&[no], parts].concat()
    }

    /// Returns the entry of an event.
    pub(crate) fn entry_of(&self, event: RecordNumber) -> Option<RecordNumber> {
        let record = self.entries.get(event)?;
        if record.event == 0 { Some(event) } else { self.entries.find(&record.id) }
    }

    /// Returns the event in flight that a ticket names.
    pub(crate) fn flying(&self, ticket: &Ticket<W>) -> Option<RecordNumber> {
        let no = self.entries.find(&ticket.id)?;
        let event = match ticket.event {
            0 => no,
            event => *self.parts.get(&no)?.events.get(usize::from(event) - 1)?,
        };
        self.flights.contains(event).then_some(event)
    }

    /// Whether an event of an entry is in flight, or an outcome of it is being written or must be written.
    pub(crate) fn is_busy(&self, no: RecordNumber) -> bool {
        let of_parts = |parts: &EntryProgress| parts.in_flight > 0 || parts.is_answered || parts.is_writing;
        self.flights.contains(no) || self.parts.get(&no).is_some_and(of_parts)
    }

    /// Whether the outcomes of an entry with several events are being written.
    pub(crate) fn is_written(&self, no: RecordNumber) -> bool {
        self.parts.get(&no).is_some_and(|parts| parts.is_writing)
    }

    /// Records the outcome of one of several events. `is_finished`: no other attempt follows.
    pub(crate) fn set_answered(&mut self, no: RecordNumber, event: RecordNumber, is_finished: bool) {
        self.parts.get_mut(&no).into_iter().for_each(|parts| parts.is_answered = true);
        if let Some(record) = self.entries.get_mut(event).filter(|_| is_finished) {
            record.place = EventPlace::Finished;
        }
        self.hide(no);
    }

    /// Starts a write of outcomes of an entry. `is_answered` selects the events.
    pub(crate) fn begin_writing(&mut self, no: RecordNumber, is_answered: impl Fn(u16) -> bool) {
        let is_written = |event: &RecordNumber| {
            let record = self.entries.get(*event).filter(|record| record.place == EventPlace::Finished);
            record.is_some_and(|record| is_answered(record.event))
        };
        let written = self.events(no).into_iter().filter(is_written).collect();
        if let Some(parts) = self.parts.get_mut(&no) {
            (parts.is_answered, parts.is_writing, parts.written) = (false, true, written);
        }
        self.unfile(no);
    }

    /// Ends that write. Returns how many events it does not finish after all, if it was not `recorded`.
    pub(crate) fn end_writing(&mut self, no: RecordNumber, recorded: bool) -> usize {
        let Some(parts) = self.parts.get_mut(&no) else { return 0 };
        parts.is_writing = false;
        let written = std::mem::take(&mut parts.written);
        written.into_iter().filter(|event| !recorded && self.reopen(*event)).count()
    }

    /// Requeues all events of an entry. Returns the number of events.
    pub(crate) fn restart(&mut self, no: RecordNumber) -> usize {
        self.parts.get_mut(&no).into_iter().for_each(|parts| parts.is_answered = false);
        let events = self.events(no);
        for event in &events {
            self.reopen(*event);
        }
        events.len()
    }

    /// Requeues a finished event. Returns whether the event was finished.
    fn reopen(&mut self, event: RecordNumber) -> bool {
        let finished = self.entries.get_mut(event).filter(|record| record.place == EventPlace::Finished);
        finished.map(|record| record.place = EventPlace::Aside).is_some()
    }

    /// Puts the events of an entry that are aside into their lane.
    pub(crate) fn resume(&mut self, no: RecordNumber, due: Option<Instant>) {
        for event in self.events(no) {
            if self.entries.get(event).is_some_and(|record| record.place == EventPlace::Aside) {
                self.add(event, due, None);
            }
        }
    }

    pub(crate) fn ticket(&self, event: RecordNumber) -> Option<Ticket<W>> {
        let (record, entry) = (self.entries.get(event)?, self.entries.get(self.entry_of(event)?)?);
        let of = self.lanes.get(record.lane)?.key.clone();
        let (id, name, began) = (record.id, record.name.clone(), calendar(entry.began));
        Some(Ticket { id, name, of, attempts: entry.attempts, began, event: record.event })
    }

    /// Takes in the record of an entry, and a copy of it for each further event. They are set aside.
    pub(crate) fn insert(&mut self, events: u16, record: impl Fn(u16) -> Record<W>) -> RecordNumber {
        let no = self.entries.insert(record(0));
        self.aside.insert(no);
        let parts: Vec<_> = (1..events).map(|event| self.entries.insert_part(record(event))).collect();
        if let Some(lane) = self.entries.get(no).map(|record| record.lane).and_then(|lane| self.lanes.get_mut(lane)) {
            lane.records += 1 + parts.len();
        }
        if !parts.is_empty() {
            self.parts.insert(no, EntryProgress { events: parts, ..EntryProgress::default() });
        }
        no
    }

    /// Updates the recorded state of an entry. Returns whether anything except its version is new.
    pub(crate) fn record(
        &mut self,
        no: RecordNumber,
        version: u64,
        attempts: u32,
        began: Seconds,
        next: Seconds,
    ) -> bool {
        let Some(record) = self.entries.get_mut(no) else { return false };
        if (record.attempts, record.began, record.next) == (attempts, began, next) {
            record.version = version;
            return false;
        }
        let was_filed = self.unfile(no);
        let Some(record) = self.entries.get_mut(no) else { return false };
        if record.expires != NEVER {
            record.expires = began.saturating_add(record.expires.saturating_sub(record.began));
        }
        (record.version, record.attempts, record.began, record.next) = (version, attempts, began, next);
        if was_filed {
            self.file(no);
        }
        true
    }

    /// Removes an entry, in flight or not. An event in flight counts as tried, and is not sent if it was not sent yet.
    pub(crate) fn remove(&mut self, no: RecordNumber) -> Option<(Record<W>, Arc<str>)> {
        for event in self.events(no) {
            self.flights.get(event).into_iter().for_each(|flight| flight.permit.revoke());
            self.leave_flight(event, true);
        }
        self.set_aside(no);
        self.aside.remove(&no);
        let parts = self.parts.remove(&no).map(|parts| parts.events).unwrap_or_default();
        let of = self.entries.get(no)?.lane;
        let lane = self.lanes.get_mut(of)?;
        lane.records -= 1 + parts.len();
        let namespace = lane.key.namespace.clone();
        self.lanes.touch(of);
        parts.into_iter().for_each(|part| drop(self.entries.remove(part)));
        Some((self.entries.remove(no)?, namespace))
    }

    /// Puts an event into its lane, unless it is in flight: due now or at `due`. An event that is due and stays due
    /// keeps its place. `explained` is the gate that its status names.
    pub(crate) fn add(&mut self, event: RecordNumber, due: Option<Instant>, explained: Option<Gate>) {
        let Some(lane) = self.entries.get(event).map(|record| record.lane) else { return };
        // Events that became due meanwhile come first.
        self.wake(lane);
        let Some(record) = self.entries.get_mut(event) else { return };
        if matches!(record.place, EventPlace::InFlight | EventPlace::Finished) {
            return;
        }
        explained.into_iter().for_each(|gate| record.explained.insert(gate));
        let due = due.filter(|due| *due > self.clock.now());
        if record.place == EventPlace::Queued && due.is_none() {
            return;
        }
        self.take_out(event);
        match due {
            Some(due) => self.wait(event, due),
            None => self.enqueue(event, false),
        }
    }

    /// Records the end of an attempt; the next attempt is due at `due`.
    pub(crate) fn retry(&mut self, event: RecordNumber, due: Instant) {
        if let Some(began) = self.leave_flight(event, true) {
            let tried = self.clock.tick(began);
            if let Some(record) = self.entries.get_mut(event) {
                (record.tried, record.explained) = (tried, Explained::none_of(record.event));
            }
            self.wait(event, due);
        }
    }

    /// Undoes the start of an attempt: the event is first in its lane again, and does not count toward the rate or as a
    /// probe.
    pub(crate) fn put_back(&mut self, event: RecordNumber) {
        if self.leave_flight(event, false).is_some() {
            self.enqueue(event, true);
        }
    }

    /// Undoes the start of an attempt like [`Self::put_back`], but the event is due at `due`.
    pub(crate) fn put_off(&mut self, event: RecordNumber, due: Instant) {
        if self.leave_flight(event, false).is_some() {
            self.wait(event, due);
        }
    }

    /// Takes an event out of flight. Returns when its attempt began, which counts toward the rate if `counts` is true.
    pub(crate) fn leave_flight(&mut self, event: RecordNumber, counts: bool) -> Option<Instant> {
        let flight = self.flights.remove(event)?;
        let entry = self.entry_of(event)?;
        self.parts.get_mut(&entry).into_iter().for_each(|parts| parts.in_flight -= 1);
        let bytes = self.charge(self.entries.get(event)?);
        self.entries.get_mut(event)?.place = EventPlace::Aside;
        let lane = self.lanes.get_mut(flight.lane)?;
        lane.land(flight.began, flight.is_probe.then_some(flight.cycle), bytes, counts);
        let namespace = lane.key.namespace.clone();
        self.turns.ended(&namespace, bytes);
        self.lanes.touch(flight.lane);
        Some(flight.began)
    }

    /// Sets the entry aside, and forgets its attempts and the gates that it named.
    pub(crate) fn set_aside(&mut self, no: RecordNumber) {
        for event in self.events(no) {
            self.take_out(event);
            if let Some(record) = self.entries.get_mut(event).filter(|record| record.place == EventPlace::Aside) {
                (record.tried, record.explained) = (0, Explained::none_of(record.event));
            }
        }
        self.hide(no);
    }

    /// Prevents the entry from expiring until it is filed.
    pub(crate) fn hide(&mut self, no: RecordNumber) {
        self.unfile(no);
        if !self.is_busy(no) {
            self.aside.insert(no);
        }
    }

    /// Lets the entry expire when its time comes, unless it is busy.
    pub(crate) fn file(&mut self, no: RecordNumber) {
        if self.is_busy(no) {
            return;
        }
        let Some(record) = self.entries.get_mut(no).filter(|record| !record.filed) else { return };
        record.filed = true;
        self.expiries.insert(record.expires, no);
        if let Some(lane) = self.lanes.get_mut(record.lane) {
            lane.ages.insert(record.began, no, record.attempts > 0);
        }
        self.lanes.touch(record.lane);
        self.aside.remove(&no);
    }

    /// Removes the entry from the indexes by expiry. Returns whether it was there.
    fn unfile(&mut self, no: RecordNumber) -> bool {
        let Some(record) = self.entries.get_mut(no).filter(|record| record.filed) else { return false };
        record.filed = false;
        self.expiries.remove(record.expires, no);
        if let Some(lane) = self.lanes.get_mut(record.lane) {
            lane.ages.remove(record.began, no, record.attempts > 0);
        }
        self.lanes.touch(record.lane);
        true
    }

    /// Returns when the entry expires, by what is known now.
    pub(crate) fn ends(&self, no: RecordNumber) -> Seconds {
        let Some(record) = self.entries.get(no) else { return NEVER };
        self.lanes
            .get(record.lane)
            .map_or(record.expires, |lane| lane.ends(record.began, record.attempts > 0).min(record.expires))
    }

    /// Takes the next expired entry, which is set aside.
    pub(crate) fn expire(&mut self) -> Option<RecordNumber> {
        self.settle();
        let (_, next) = self.expiries.first().filter(|(at, _)| *at <= self.clock.today())?;
        let no = match next {
            NextExpiry::Entry(no) => no,
            NextExpiry::OfLane(lane) => self.lanes.get(lane)?.first_expiry()?.1,
        };
        self.set_aside(no);
        Some(no)
    }

    /// Returns when the next entry expires.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| self.clock.instant_of(at))
    }

    /// Returns the entries of a namespace (None: of all) that no listing has shown since `begun`. Other namespaces cost
    /// nothing.
    pub(crate) fn unseen_since(&self, begun: u32, namespace: Option<&str>) -> Vec<RecordNumber> {
        let is_unseen = |no: &RecordNumber| {
            self.entries.get(*no).is_some_and(|record| record.event == 0 && !record.pulled && record.listing < begun)
        };
        let Some(of) = namespace else {
            return self.entries.iter().map(|(no, _)| no).filter(is_unseen).collect();
        };
        let lanes = self.lanes.of_namespace(Some(of)).filter_map(|lane| self.lanes.get(lane));
        let filed = lanes.flat_map(|lane| lane.ages.iter());
        let is_of = |no: &RecordNumber| self.lane_of(*no).is_some_and(|lane| *lane.key.namespace == *of);
        let others = self.flights.events().chain(self.parts.keys().copied()).chain(self.aside.iter().copied());
        let unseen: HashSet<_> = filed.chain(others.filter(is_of)).filter(is_unseen).collect();
        unseen.into_iter().collect()
    }

    /// Limits the waits of a lane to `longest`, whatever clock wrote them. The cost is proportional to the number of
    /// longer waits.
    pub(crate) fn shorten_waits(&mut self, no: LaneNumber, longest: Duration) {
        let latest = self.clock.tick(self.clock.now() + longest);
        let Some(lane) = self.lanes.get_mut(no) else { return };
        for (_, event) in lane.waiting.split_off(&(latest.saturating_add(1), 0)) {
            lane.waiting.insert((latest, event));
            self.entries.get_mut(event).into_iter().for_each(|record| record.at = latest);
        }
    }

    /// Starts the next event, and returns it with its entry. The event is in flight until it is taken out of flight.
    pub(crate) fn start(&mut self, term: Term) -> Option<(RecordNumber, RecordNumber)> {
        self.settle();
        while let Some(no) = self.turns.take() {
            let Some(lane) = self.lanes.get_mut(no) else { continue };
            lane.marks.in_round = false;
            let Some((event, bytes)) = self.could_start(no) else { continue };
            if !self.turns.admit(no, bytes) {
                self.lanes.get_mut(no).into_iter().for_each(|lane| lane.marks.in_round = true);
            } else if let Some(entry) = self.take_off(no, event, bytes, term) {
                self.turns.started(bytes);
                self.refresh(no);
                return Some((event, entry));
            }
        }
        None
    }

    /// Returns the lane's next event and its bytes, if the lane can start it.
    fn could_start(&self, no: LaneNumber) -> Option<(RecordNumber, usize)> {
        let lane = self.lanes.get(no).filter(|lane| lane.readiness(self.clock.now()) == LaneReadiness::Ready)?;
        let event = lane.candidate(|no| self.entries.get(no).map_or(0, |record| record.kind))?;
        let bytes = self.charge(self.entries.get(event)?);
        (lane.bytes + bytes <= self.turns.bytes_of_lane()).then_some((event, bytes))
    }

    /// Returns the bytes that an event in flight counts as. An event larger than a lane's maximum is sent alone.
    fn charge(&self, record: &Record<W>) -> usize {
        (record.bytes as usize).min(self.turns.bytes_of_lane())
    }

    /// Takes an event of an open lane into flight. Returns its entry.
    fn take_off(&mut self, no: LaneNumber, event: RecordNumber, bytes: usize, term: Term) -> Option<RecordNumber> {
        let (entry, began) = (self.entry_of(event)?, self.clock.now());
        let ends = Some(self.ends(entry)).filter(|ends| *ends != NEVER);
        let permit = Permit::until(ends.map(calendar));
        let (lane, record) = (self.lanes.get_mut(no)?, self.entries.get_mut(event)?);
        let (RouteState::Open(route), Some(spec)) = (&lane.route_state, &lane.version) else { return None };
        let (route, spec, version) = (route.clone(), spec.clone(), record.version);
        lane.ready_queue.remove(record.turn, record.tried);
        record.place = EventPlace::InFlight;
        let (is_probe, cycle) = lane.take_off(began, bytes);
        let flight = InFlight { lane: no, began, cycle, is_probe, permit, route, spec, version, term };
        self.unfile(entry);
        self.aside.remove(&entry);
        self.flights.insert(event, flight);
        self.parts.get_mut(&entry).into_iter().for_each(|parts| parts.in_flight += 1);
        Some(entry)
    }

    /// Returns the next event that must name the gate that holds it: see [`Explanations::next`].
    pub(crate) fn explain(&mut self) -> Option<(RecordNumber, Gate)> {
        self.settle();
        self.explanations.next(&mut self.lanes, &mut self.entries, &self.clock)
    }

    /// Takes the next lane that may pull: it has a supply, and changed since it was last taken.
    pub(crate) fn take_thirsty(&mut self) -> Option<LaneNumber> {
        self.settle();
        let no = self.thirsty.iter().next().copied()?;
        self.thirsty.remove(&no);
        Some(no)
    }

    /// Returns what each lane holds. The cost is proportional to the number of lanes and of events in flight.
    pub(crate) fn readings(&self) -> Vec<LaneReading> {
        // Events in flight are in no order of ages.
        let mut in_flight: HashMap<LaneNumber, Seconds> = HashMap::new();
        for record in self.flights.events().filter_map(|event| self.entries.get(event)) {
            in_flight
                .entry(record.lane)
                .and_modify(|oldest| *oldest = record.began.min(*oldest))
                .or_insert(record.began);
        }
        self.lanes.iter().map(|(no, lane)| lane.reading(self.clock.now(), in_flight.get(&no).copied())).collect()
    }

    /// Whether no trace of any entry is left.
    #[cfg(test)]
    pub(crate) fn is_bare(&self) -> bool {
        let orders = self.expiries.first().is_none() && self.lanes.wake_at().is_none();
        self.flights.events().next().is_none() && self.parts.is_empty() && self.aside.is_empty() && orders
    }

    /// Returns when the next event must name its gate.
    #[cfg(test)]
    pub(crate) fn explain_at(&self) -> Option<Instant> {
        self.explanations.wake_at(!self.lanes.are_changed(), self.clock.now())
    }

    /// Returns the earliest time at which an event may start, or must name its gate, without other input.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let (now, is_settled) = (self.clock.now(), !self.lanes.are_changed());
        let start = if is_settled { self.lanes.wake_at() } else { Some(now) };
        start.into_iter().chain(self.explanations.wake_at(is_settled, now)).min()
    }

    /// Refreshes every lane that changed, or may have changed by time.
    fn settle(&mut self) {
        if self.lanes.are_due(self.clock.now()) {
            self.turns.look_again();
        }
        while let Some(no) = self.lanes.pop_due(self.clock.now()) {
            self.refresh(no);
        }
        while self.lanes.are_changed() {
            self.lanes.take_changed().into_iter().for_each(|no| self.refresh(no));
        }
    }

    /// Puts the lane on every list that it belongs on now.
    pub(crate) fn refresh(&mut self, no: LaneNumber) {
        let now = self.clock.now();
        self.wake(no);
        let Some(lane) = self.lanes.get_mut(no) else { return };
        lane.marks.changed = false;
        if !self.changed.contains(&lane.key) {
            self.changed.insert(lane.key.clone());
        }
        lane.notice_gate(now);
        let look_again = match lane.readiness(now) {
            _ if lane.is_idle() => lane.rests_until().filter(|until| *until > now),
            LaneReadiness::Ready => {
                if !lane.marks.in_round {
                    lane.marks.in_round = true;
                    self.turns.enter(&lane.key.namespace, no);
                }
                None
            }
            LaneReadiness::At(at) => Some(at),
            LaneReadiness::Blocked => None,
        };
        let is_over = lane.is_idle() && look_again.is_none();
        let first_due = lane.waiting.first().map(|(at, _)| self.clock.instant(*at));
        let expiry = lane.first_expiry().map(|(at, _)| at);
        self.expiries.move_lane(no, lane.marks.expiry, expiry);
        lane.marks.expiry = expiry;
        let explain_at = unexplained(lane, &self.entries, &self.clock).map(|(at, ..)| at);
        self.explanations.schedule(no, &mut lane.marks, explain_at);
        if !lane.supplies.is_empty() {
            self.thirsty.insert(no);
        }
        // What cannot be pulled before the pause ends is pulled then.
        let pull_at = if lane.supplies.is_empty() { None } else { lane.pause_end(now) };
        self.lanes.set_timer(no, look_again.into_iter().chain(first_due).chain(pull_at).min());
        if is_over {
            self.lanes.set_timer(no, None);
            self.lanes.remove(no);
        }
    }

    /// Moves events that have become due into the ready queue of the lane.
    fn wake(&mut self, no: LaneNumber) {
        let now = self.clock.tick(self.clock.now());
        while let Some(lane) = self.lanes.get_mut(no)
            && lane.waiting.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, event)) = lane.waiting.pop_first()
        {
            self.enqueue(event, false);
            if let Some(entry) = self.entry_of(event) {
                self.file(entry);
            }
        }
    }

    /// Removes an event from its lane, wherever it waits.
    fn take_out(&mut self, event: RecordNumber) {
        let Some(record) = self.entries.get_mut(event) else { return };
        let Some(lane) = self.lanes.get_mut(record.lane) else { return };
        match record.place {
            EventPlace::Waiting => drop(lane.waiting.remove(&(record.at, event))),
            EventPlace::Queued => lane.ready_queue.remove(record.turn, record.tried),
            EventPlace::InFlight | EventPlace::Finished | EventPlace::Aside => return,
        }
        record.place = EventPlace::Aside;
        self.lanes.touch(record.lane);
    }

    /// Lets the event, which is aside, wait until `due`.
    fn wait(&mut self, event: RecordNumber, due: Instant) {
        let at = self.clock.tick(due);
        let Some(record) = self.entries.get_mut(event) else { return };
        (record.place, record.at) = (EventPlace::Waiting, at);
        if let Some(lane) = self.lanes.get_mut(record.lane) {
            lane.waiting.insert((at, event));
        }
        self.lanes.touch(record.lane);
    }

    /// Puts the event, which is aside, at the end or the front of the ready queue of its lane.
    fn enqueue(&mut self, event: RecordNumber, is_first: bool) {
        let at = self.clock.tick(self.clock.now());
        let Some(record) = self.entries.get_mut(event) else { return };
        let Some(lane) = self.lanes.get_mut(record.lane) else { return };
        (record.place, record.at) = (EventPlace::Queued, at);
        let (no, tried) = (record.lane, record.tried);
        record.turn =
            if is_first { lane.ready_queue.push_front(event, tried) } else { lane.ready_queue.push_back(event, tried) };
        if lane.ready_queue.is_worn() {
            lane.explained_before = [FIRST; Gate::COUNT];
            for event in lane.ready_queue.drain() {
                let Some(record) = self.entries.get_mut(event) else { continue };
                record.turn = lane.ready_queue.push_back(event, record.tried);
            }
        }
        self.lanes.touch(no);
    }
}
