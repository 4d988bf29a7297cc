//! The queue: holds all unfinished entries and decides what to do next.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    Gate, Health, LaneReading, LaneSnapshot, Limits, SourceId, SpecVersion, SubscriberKey, Term, Update,
    batch::Batch,
    breaker::RejectedEvent,
    clock::{NEVER, Now, seconds, span},
    entries::{EventPlace, Record},
    expiry::{Lifetime, MissingSubscribers},
    gate::Explained,
    lane::{Lane, Supply},
    memory::Kept,
    numbers::{FIRST, LaneNumber, RecordNumber},
    schedule::Schedule,
    scopes::Scopes,
    snapshots::Snapshots,
    tombstones::{Shown, Tombstones},
    work::{
        Action, Answered, Content, Current, Done, Entry, Loaded, NotSent, RejectionMeaning, ScopeId, Seen, Signal,
        Ticket, Want, Work, Written,
    },
};

/// The maximum number of concurrent writes of expiries.
const EXPIRIES: usize = 8;
/// The limit of a recorded wait while the Subscriber is not known: 1.2 times the maximum of `maxSeconds`.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400 * 12 / 10);
/// The wait after the egress policy denied the webhook's address.
const AFTER_DENIED: Duration = Duration::from_secs(30);
/// The wait after another writer changed an entry. There is always a wait, so that a competing writer causes no storm.
const AFTER_SUPERSEDED: Duration = Duration::from_secs(5);
/// The wait after an event was held at the last moment: the reason may not have reached the queue yet.
const AFTER_HELD: Duration = Duration::from_secs(1);
/// The wait before an entry is checked again that has expired when it is due and whose expiry is not written yet: its
/// Subscriber may give it more time meanwhile.
const AFTER_EXPIRED: Duration = Duration::from_secs(60);
/// The wait after an entry could not be read.
const AFTER_UNREAD: Duration = Duration::from_secs(5);
/// How an entry that a source shows differs from the known entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryChange {
    /// It is older than the known entry.
    Old,
    /// It has the same version, but the entry seemed to be gone meanwhile.
    Back,
    /// Nothing changed that decides when it is sent.
    Unmoved,
    /// It is new, or another writer changed it.
    Moved,
    /// It was replayed.
    Replayed,
}

/// The bounds of a queue.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The maximum number of concurrent attempts.
    pub in_flight: usize,
    /// The maximum bytes of the events in flight.
    pub bytes_in_flight: usize,
    /// The maximum bytes of untried events in memory; other events are loaded when they are due.
    pub bytes_kept: usize,
}

/// Holds all unfinished entries and decides what to do next. Pure: the caller passes in the time and random numbers;
/// the queue does not wait or do I/O.
///
/// The owner passes input to [`Self::observe`], [`Self::apply`] and [`Self::finish`], calls [`Self::next`] until it
/// returns None, takes the returned actions, and sleeps until [`Self::wake_at`].
///
/// Namespaces take turns, and so do the lanes of each namespace. A lane is first in, first out. A lane or namespace
/// that waits does not delay others. A namespace has at most a quarter of the attempts and bytes, and a Subscriber an
/// eighth, but at least one event. A quarter is a reserve for namespaces that hold less than their fair share. A lane
/// that is held costs nothing.
pub struct Queue<W: Work> {
    schedule: Schedule<W>,
    /// The untried entries in memory.
    kept: Kept<W::Item>,
    /// The batches of entries with several events.
    batches: HashMap<RecordNumber, Batch<W>>,
    /// The versions at which a source showed busy entries as absent.
    leaving: HashMap<RecordNumber, u64>,
    /// Entries whose expiry is being written.
    expiring: HashSet<W::Id>,
    tombstones: Tombstones<W::Id>,
    scopes: Scopes,
    listing: u32,
    missing: MissingSubscribers,
    term: Option<Term>,
    /// Actions that are ready.
    ready: VecDeque<Action<W>>,
    is_draining: bool,
    snapshots: Snapshots,
}

impl<W: Work> Queue<W> {
    /// Makes an empty queue for these namespaces (None: all), each of which is listed and watched separately. No event
    /// is sent before [`Update::Owned`].
    pub fn new(bounds: &Bounds, namespaces: Vec<Option<Arc<str>>>, now: Now) -> Self {
        Self {
            schedule: Schedule::new(bounds.in_flight, bounds.bytes_in_flight, now),
            kept: Kept::new(bounds.bytes_kept),
            batches: HashMap::new(),
            leaving: HashMap::new(),
            expiring: HashSet::new(),
            tombstones: Tombstones::new(),
            scopes: Scopes::new(namespaces),
            listing: 0,
            missing: MissingSubscribers::default(),
            term: None,
            ready: VecDeque::new(),
            is_draining: false,
            snapshots: Snapshots::default(),
        }
    }

    /// Processes what a source shows.
    pub fn observe(&mut self, seen: Seen<W>, now: Now) {
        self.schedule.clock.set(now);
        match seen {
            Seen::Present(entry) => self.present(entry),
            Seen::Absent { id, version } => self.absent(&id, version),
            Seen::ListBegins(scope) => {
                self.listing = self.listing.wrapping_add(1);
                self.scopes.begin(scope, self.listing, self.schedule.now());
            }
            Seen::ListEnds(scope) => self.list_ends(scope),
            Seen::Failed(scope) => self.scopes.failed(scope, false, self.schedule.now()),
            Seen::Refused(scope) => self.scopes.failed(scope, true, self.schedule.now()),
            Seen::Supply { source, of, any } => self.supply(source, &of, any, false),
        }
    }

    /// Processes a change of Subscribers or of the Lease.
    pub fn apply(&mut self, update: Update<W::Route>, now: Now) {
        self.schedule.clock.set(now);
        match update {
            Update::Open { of, version, route, limits, lifetime, longest_wait } => {
                let no = self.lane_number(&of);
                self.missing.remove(&of);
                self.keep_to_version(no, Some(version), Lifetime::Known(span(lifetime)));
                self.open(no, route, limits, longest_wait);
            }
            Update::Closed { of, gate: Gate::SubscriberNotFound, .. } => {
                let (no, today) = (self.lane_number(&of), self.schedule.clock.today());
                let scopes = &self.scopes;
                self.missing.insert(of, today, |namespace| scopes.knows_subscribers(namespace));
                self.keep_to_version(no, None, Lifetime::Missing(today));
                self.schedule.lanes.get_mut(no).into_iter().for_each(|lane| lane.longest_wait = None);
                self.close(no, Gate::SubscriberNotFound);
            }
            Update::Closed { of, version, gate, lifetime } => {
                let no = self.lane_number(&of);
                self.missing.remove(&of);
                let lifetime = lifetime.map_or(Lifetime::Unknown, |lifetime| Lifetime::Known(span(lifetime)));
                self.keep_to_version(no, version, lifetime);
                self.close(no, gate);
            }
            Update::Paused { of, until } => {
                let no = self.lane_number(&of);
                self.pause(no, until);
            }
            Update::Reset { of } => {
                if let Some(no) = self.schedule.lanes.find(&of) {
                    let now = self.schedule.now();
                    self.schedule.lanes.get_mut(no).into_iter().for_each(|lane| lane.reset(now));
                    self.schedule.lanes.touch(no);
                }
            }
            Update::RejectsAll { of } => {
                let (no, now) = (self.lane_number(&of), self.schedule.now());
                if let Some(lane) = self.schedule.lanes.get_mut(no) {
                    lane.breaker.restore_rejecting(now);
                }
                self.schedule.lanes.touch(no);
            }
            Update::Listed(namespace) => self.subscribers_are_known(namespace.as_deref()),
            Update::Owned(term) => {
                if term.is_some_and(|term| term.contested && self.term.is_none_or(|old| old.epoch != term.epoch)) {
                    self.scopes.contest();
                }
                self.term = term;
            }
        }
    }

    /// Processes the result of an action. Results for entries that are no longer known are ignored, so a late result is
    /// harmless.
    pub fn finish(&mut self, done: Done<W>, now: Now) {
        self.schedule.clock.set(now);
        match done {
            Done::Loaded { ticket, loaded } => self.loaded(&ticket, loaded),
            Done::Answered { ticket, answered } => self.answered(&ticket, answered),
            Done::Written { ticket, written } => {
                if let Some(no) = self.schedule.entries.find(&ticket.id) {
                    self.written(no, written);
                } else if !matches!(written, Written::Noted) {
                    self.expiring.remove(&ticket.id);
                }
            }
            Done::Pulled { source, of, entries, more } => {
                entries.into_iter().for_each(|entry| self.present(entry));
                self.supply(source, &of, more, true);
            }
        }
    }

    /// Returns what to do now. An event is in flight from its load until its outcome is written.
    pub fn next(&mut self, now: Now) -> Option<Action<W>> {
        self.schedule.clock.set(now);
        if let Some(action) = self.ready().or_else(|| self.progress()) {
            return Some(action);
        }
        if self.is_draining || self.term.is_none() {
            return None;
        }
        let action = self.pull().or_else(|| self.start()).or_else(|| self.expire()).or_else(|| self.explain());
        // What was given back meanwhile.
        action.or_else(|| self.ready())
    }

    /// Stops sending: events in flight end and are written, and pulled entries are returned.
    pub fn drain(&mut self) {
        self.is_draining = true;
        self.schedule.flights.revoke_all();
        let pulled: Vec<_> = self
            .schedule
            .entries
            .iter()
            .filter(|(_, record)| record.pulled && record.event == 0)
            .map(|(no, _)| no)
            .collect();
        pulled.into_iter().for_each(|no| self.give_back(no));
    }

    /// When to call [`Self::next`] again, after it returned None, if nothing is handed in before.
    pub fn wake_at(&self) -> Option<Instant> {
        let due = |(no, batch): (&RecordNumber, &Batch<W>)| {
            let at = batch.progress_at().filter(|_| !self.schedule.is_written(*no))?;
            Some(at.min(self.schedule.clock.instant_of(self.schedule.ends(*no))))
        };
        let progress = self.batches.iter().filter_map(due).min();
        if self.is_draining || self.term.is_none() {
            return progress;
        }
        let expire = self.schedule.expires_at().filter(|_| self.expiring.len() < EXPIRIES);
        [self.schedule.wake_at(), expire, progress].into_iter().flatten().min()
    }

    /// How the events stand of those Subscribers where that changed since the last call.
    pub fn changed(&mut self, now: Now) -> Vec<(SubscriberKey, LaneSnapshot)> {
        self.schedule.clock.set(now);
        let (changed, schedule, scopes) = (self.schedule.take_changed(), &self.schedule, &self.scopes);
        // Before the first listing it is not known how many there are.
        let is_known = |key: &SubscriberKey| scopes.of(&key.namespace).is_some_and(|scope| scope.synced);
        let snapshot = |key: &SubscriberKey| schedule.lanes.by_key(key).and_then(|lane| lane.snapshot(schedule.now()));
        self.snapshots.news(changed, is_known, snapshot)
    }

    /// Returns what the lane of each Subscriber holds, in no order. Without a term, [`Gate::NotOwned`] holds all lanes.
    /// The cost is proportional to the number of lanes and of events in flight, not to the number of entries.
    pub fn readings(&mut self, now: Now) -> Vec<LaneReading> {
        self.schedule.clock.set(now);
        let mut readings = self.schedule.readings();
        if self.term.is_none() {
            readings.iter_mut().for_each(|reading| reading.gate = Some(Gate::NotOwned));
        }
        readings
    }

    /// Returns what a rejection means for the event in flight that a ticket names.
    pub fn judge_rejection(&self, ticket: &Ticket<W>) -> RejectionMeaning {
        let flight = self.schedule.flying(ticket).and_then(|event| self.schedule.flights.get(event));
        let lane = flight.and_then(|flight| self.schedule.lanes.get(flight.lane));
        match lane.zip(flight) {
            Some((lane, flight)) if lane.version.as_ref() == Some(&flight.spec) => {
                if lane.breaker.is_rejecting() {
                    RejectionMeaning::Held
                } else {
                    RejectionMeaning::Final
                }
            }
            _ => RejectionMeaning::Outdated,
        }
    }

    /// How many entries are unfinished.
    pub fn len(&self) -> usize {
        self.schedule.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every unfinished entry is known, as far as the sources let it be.
    pub fn is_listed(&self) -> bool {
        self.scopes.are_synced()
    }

    /// How many events are in flight.
    pub fn in_flight(&self) -> usize {
        self.schedule.in_flight()
    }

    /// What the events in flight are charged, in bytes.
    pub fn bytes_in_flight(&self) -> usize {
        self.schedule.bytes_in_flight()
    }

    /// What holds all events of a Subscriber now (None: at most caps and rate).
    pub fn gate(&self, of: &SubscriberKey) -> Option<Gate> {
        if self.term.is_none() {
            return Some(Gate::NotOwned);
        }
        self.schedule.lanes.by_key(of).map_or(Some(Gate::SubscriberNotFound), |lane| lane.gate(self.schedule.now()))
    }
}

// What sources show.
impl<W: Work> Queue<W> {
    /// New, moved by another writer, or old news.
    fn present(&mut self, mut seen: Entry<W>) {
        let shown = self.tombstones.judge(&seen.id, seen.version, self.listing);
        if shown == Shown::Outdated {
            return;
        }
        // Without its item, an entry is loaded before it is sent.
        let item = seen.item.take().filter(|_| shown == Shown::Current);
        let (no, news) = match self.schedule.entries.find(&seen.id) {
            Some(no) => (no, self.change_of(no, &seen)),
            None => (self.insert(&seen), EntryChange::Moved),
        };
        match news {
            EntryChange::Old => return,
            EntryChange::Back => return self.come_back(no, &seen),
            EntryChange::Unmoved | EntryChange::Moved | EntryChange::Replayed => {}
        }
        // The next outcome is written over this one's status, so an older item will not do.
        self.take_item(no);
        if seen.cancelled {
            return self.cancel(no, &seen);
        }
        self.keep_item(no, item, seen.bytes);
        if news == EntryChange::Unmoved {
            return;
        }
        if self.expiring.contains(&seen.id) {
            return self.schedule.set_aside(no);
        }
        if news == EntryChange::Replayed {
            // The replay took its reason away: it is explained once more.
            self.schedule.set_aside(no);
            self.restart(no);
        }
        let due = self.due(&seen);
        for event in self.schedule.events(no) {
            self.schedule.add(event, due, seen.explained);
        }
        self.rest(no);
    }

    /// What `seen` says of an entry that is known; from now on it counts.
    fn change_of(&mut self, no: RecordNumber, seen: &Entry<W>) -> EntryChange {
        let Some(record) = self.schedule.entries.get_mut(no) else { return EntryChange::Old };
        record.listing = self.listing;
        // It came back after it had left, whatever this process has read or written meanwhile.
        let is_back = self.leaving.get(&no).is_some_and(|left| *left == u64::MAX || *left <= seen.version);
        if is_back {
            self.leaving.remove(&no);
        }
        if seen.version <= record.version {
            return if is_back { EntryChange::Back } else { EntryChange::Old };
        }
        let is_replayed = record.began != seconds(seen.began);
        match self.take_over(no, seen) {
            _ if is_replayed => EntryChange::Replayed,
            is_moved if is_moved || is_back => EntryChange::Moved,
            // A label, an annotation, or why it waits.
            _ => EntryChange::Unmoved,
        }
    }

    /// Takes in an entry that is not known.
    fn insert(&mut self, seen: &Entry<W>) -> RecordNumber {
        let lane = self.lane_number(&seen.of);
        let began = seconds(seen.began);
        let is_finished = |event: &u16| seen.events > 1 && seen.finished.contains(event);
        let record = |event| Record {
            id: seen.id,
            name: seen.name.clone(),
            version: seen.version,
            tried: 0,
            at: 0,
            turn: FIRST,
            lane,
            began,
            expires: seen.lifetime.map_or(NEVER, |lifetime| began.saturating_add(span(lifetime))),
            next: seen.next.map_or(0, seconds),
            attempts: seen.attempts,
            bytes: u32::try_from(seen.bytes).unwrap_or(u32::MAX),
            listing: self.listing,
            event,
            kind: seen.kind,
            place: if is_finished(&event) { EventPlace::Finished } else { EventPlace::Aside },
            explained: Explained::none_of(event),
            filed: false,
            pulled: seen.pulled,
        };
        let no = self.schedule.insert(seen.events, record);
        if seen.events > 1 {
            let unfinished = (0..seen.events).filter(|event| !is_finished(event)).count();
            self.batches.insert(no, Batch::new(unfinished));
        }
        no
    }

    /// What `seen` says counts from now on. Returns whether that moves the entry.
    fn take_over(&mut self, no: RecordNumber, seen: &Entry<W>) -> bool {
        self.schedule.record(no, seen.version, seen.attempts, seconds(seen.began), seen.next.map_or(0, seconds))
    }

    /// It is still what it was before it seemed to have left: what was set aside is due.
    fn come_back(&mut self, no: RecordNumber, seen: &Entry<W>) {
        if seen.cancelled {
            return self.cancel(no, seen);
        }
        self.schedule.resume(no, self.due(seen));
        self.rest(no);
    }

    /// It was replayed: its life begins again, and so do all of its events.
    fn restart(&mut self, no: RecordNumber) {
        let events = self.schedule.restart(no);
        self.batches.get_mut(&no).into_iter().for_each(|batch| batch.restart(events));
    }

    /// It is being deleted. What is under way is its last: when that has ended, the entry is forgotten.
    fn cancel(&mut self, no: RecordNumber, seen: &Entry<W>) {
        self.revoke(no);
        self.schedule.set_aside(no);
        if self.schedule.is_busy(no) || self.expiring.contains(&seen.id) {
            self.leaving.insert(no, seen.version);
        }
    }

    /// Finished, or deleted.
    fn absent(&mut self, id: &W::Id, version: u64) {
        self.tombstones.seen_absent(id, version);
        let Some(no) = self.schedule.entries.find(id) else { return };
        if self.schedule.is_busy(no) {
            self.revoke(no);
            self.schedule.set_aside(no);
            self.leaving.insert(no, version);
        } else if self.schedule.entries.get(no).is_some_and(|record| record.version <= version) {
            self.forget(no);
        }
    }

    /// What the listing did not show is gone.
    fn list_ends(&mut self, scope: ScopeId) {
        let now = self.schedule.now();
        let Some(scope) = self.scopes.get_mut(scope) else { return };
        scope.is_listed(now);
        let (begun, namespace) = (scope.listing, scope.namespace.clone());
        self.tombstones.end_listing(begun, namespace.as_deref());
        for no in self.schedule.unseen_since(begun, namespace.as_deref()) {
            if self.schedule.is_busy(no) {
                self.leaving.insert(no, u64::MAX);
            } else {
                self.forget(no);
            }
        }
    }

    /// When the next attempt is due (None: now). A time written by a wrong clock is not trusted past the longest wait.
    fn due(&self, seen: &Entry<W>) -> Option<Instant> {
        let wait = seen.next?.duration_since(self.schedule.clock.wall()).ok()?;
        let open = self.schedule.lanes.by_key(&seen.of).filter(|lane| lane.closed().is_none());
        let longest = open.and_then(|lane| lane.longest_wait).unwrap_or(LONGEST_WAIT);
        (!wait.is_zero()).then(|| self.schedule.now() + wait.min(longest))
    }

    /// A source has, or has not, more entries for a Subscriber; `is_answer`: a pull ended.
    fn supply(&mut self, source: SourceId, of: &SubscriberKey, any: bool, is_answer: bool) {
        let no = self.lane_number(of);
        let Some(lane) = self.schedule.lanes.get_mut(no) else { return };
        match lane.supplies.iter_mut().find(|supply| supply.source == source) {
            // What came while the pull was under way may not be in its answer.
            Some(supply) if is_answer => {
                *supply = Supply { source, any: any || supply.any_since, pulling: None, any_since: false };
            }
            Some(supply) => (supply.any, supply.any_since) = (any, any && supply.pulling.is_some()),
            None => lane.supplies.push(Supply { source, any, pulling: None, any_since: false }),
        }
        self.schedule.lanes.touch(no);
    }
}

// What Subscribers say.
impl<W: Work> Queue<W> {
    /// The lane of a Subscriber; a new one if it is not known.
    fn lane_number(&mut self, key: &SubscriberKey) -> LaneNumber {
        if let Some(no) = self.schedule.lanes.find(key) {
            return no;
        }
        let no = self.schedule.lanes.insert(key.clone());
        let known = self.scopes.of(&key.namespace).and_then(|scope| scope.subscribers_since);
        let missing = self.missing.since(key).or(known);
        if let Some(lane) = self.schedule.lanes.get_mut(no) {
            match missing {
                Some(since) => lane.lifetime = Lifetime::Missing(since),
                // Whether there is such a Subscriber is not known yet.
                None => lane.close(Gate::SubscriberNotReady),
            }
        }
        no
    }

    /// The lane is that of this version from now on: flights by another one do not send any more.
    fn keep_to_version(&mut self, no: LaneNumber, version: Option<SpecVersion>, lifetime: Lifetime) {
        let Some(lane) = self.schedule.lanes.get_mut(no) else { return };
        lane.gone.take_if(|gone| version.as_ref() != Some(gone));
        self.schedule.flights.revoke_lane(no, version.as_ref());
        if lane.version.is_some() && version.is_none() {
            lane.breaker.forget_rejections();
        }
        (lane.version, lane.lifetime) = (version, lifetime);
        self.schedule.lanes.touch(no);
    }

    /// The lane opens, unless its webhook answered 410 to this version.
    fn open(&mut self, no: LaneNumber, route: W::Route, limits: Limits, longest_wait: Duration) {
        let now = self.schedule.now();
        let Some(lane) = self.schedule.lanes.get_mut(no) else { return };
        if lane.gone.is_some() {
            return self.close(no, Gate::EndpointGone);
        }
        lane.open(route, limits);
        lane.breaker.reconciled(now);
        let before = lane.longest_wait.replace(longest_wait);
        if before.is_none_or(|before| longest_wait < before) {
            self.schedule.shorten_waits(no, longest_wait);
        }
        self.schedule.lanes.touch(no);
    }

    /// Nothing of the lane is sent until it is opened.
    fn close(&mut self, no: LaneNumber, gate: Gate) {
        self.schedule.lanes.get_mut(no).into_iter().for_each(|lane| lane.close(gate));
        self.schedule.flights.revoke_lane(no, None);
        self.schedule.lanes.touch(no);
    }

    fn pause(&mut self, no: LaneNumber, until: Instant) {
        self.schedule.lanes.get_mut(no).into_iter().for_each(|lane| lane.pause(until));
        if until > self.schedule.now() {
            self.schedule.flights.revoke_lane(no, None);
        }
        self.schedule.lanes.touch(no);
    }

    /// An entry that names a Subscriber of this namespace (None: of any) that was not listed names a missing
    /// Subscriber.
    fn subscribers_are_known(&mut self, namespace: Option<&str>) {
        let today = self.schedule.clock.today();
        self.scopes.subscribers_are_known(namespace, today);
        let lanes: Vec<_> = self.schedule.lanes.of_namespace(namespace).collect();
        for no in lanes {
            let Some(lane) = self.schedule.lanes.get_mut(no) else { continue };
            if lane.version.is_none() && lane.lifetime == Lifetime::Unknown {
                lane.lifetime = Lifetime::Missing(today);
                self.close(no, Gate::SubscriberNotFound);
            }
        }
    }
}

// What starts.
impl<W: Work> Queue<W> {
    /// The next action that waits for nothing. What was loaded before the drain is not sent after it.
    fn ready(&mut self) -> Option<Action<W>> {
        while let Some(action) = self.ready.pop_front() {
            match action {
                Action::Send(flight) if self.is_draining => {
                    let event = self.schedule.flying(&flight.ticket);
                    event.into_iter().for_each(|event| self.not_sent(event, None, NotSent::Held));
                }
                action => return Some(action),
            }
        }
        None
    }

    /// The next attempt to start now.
    fn start(&mut self) -> Option<Action<W>> {
        while let Some((event, entry)) = self.schedule.start(self.term?) {
            if self.schedule.ends(entry) <= self.schedule.clock.today() {
                // It is not sent any more; that it expired is written when its turn comes, if that is still so.
                self.schedule.put_off(event, self.schedule.now() + AFTER_EXPIRED);
                self.rest(entry);
                continue;
            }
            let item = self.take_item(entry).filter(|_| !self.may_be_old(event) && !self.batches.contains_key(&entry));
            let ticket = self.schedule.ticket(event)?;
            return match item {
                Some(item) => self.schedule.flights.sent(event, ticket, item).map(Action::Send),
                None => Some(Action::Load(ticket)),
            };
        }
        None
    }

    /// Whether what is known of an event may be old, so that it is loaded immediately before it is sent.
    fn may_be_old(&self, event: RecordNumber) -> bool {
        let scope = self.schedule.lane_of(event).and_then(|lane| self.scopes.of(&lane.key.namespace));
        self.term.is_some_and(|term| term.contested) || scope.is_some_and(|scope| scope.may_be_old(self.schedule.now()))
    }

    /// The next entry whose expiry is to be written.
    fn expire(&mut self) -> Option<Action<W>> {
        if self.expiring.len() >= EXPIRIES {
            return None;
        }
        let no = self.schedule.expire()?;
        let (item, ticket) = (self.take_item(no), self.schedule.ticket(no)?);
        self.expiring.insert(ticket.id);
        Some(Action::Write { ticket, item, content: Content::Expired })
    }

    /// The next entry that is to name the gate that holds it.
    fn explain(&mut self) -> Option<Action<W>> {
        let (event, gate) = self.schedule.explain()?;
        Some(Action::Write { ticket: self.schedule.ticket(event)?, item: None, content: Content::Waiting(gate) })
    }

    /// The next pull: at most one at a time for each lane and source, while the gates are open.
    fn pull(&mut self) -> Option<Action<W>> {
        let most = self.schedule.bytes_of_lane();
        while let Some(no) = self.schedule.take_thirsty() {
            let now = self.schedule.now();
            let Some(lane) = self.schedule.lanes.get_mut(no) else { continue };
            if lane.gives_back(now) {
                // What is in hand goes back to where it came from.
                let idle: Vec<_> = lane.ages.iter().collect();
                idle.into_iter().for_each(|entry| self.give_back(entry));
                continue;
            }
            let want = Want { events: lane.wants(now), bytes: most.saturating_sub(lane.bytes) };
            if want.events > 0
                && let Some(supply) = lane.supplies.iter_mut().find(|supply| supply.any && supply.pulling.is_none())
            {
                (supply.pulling, supply.any_since) = (Some(want.events), false);
                let (source, of) = (supply.source, lane.key.clone());
                // Another source may have more.
                self.schedule.lanes.touch(no);
                return Some(Action::Pull { source, of, want });
            }
        }
        None
    }

    /// Lets an entry expire when its time comes, or gives it back if it was pulled and cannot be sent for a while;
    /// unless it is busy.
    fn rest(&mut self, no: RecordNumber) {
        self.schedule.file(no);
        self.give_back_if_held(no);
    }

    fn give_back_if_held(&mut self, no: RecordNumber) {
        let now = self.schedule.now();
        if self.is_draining || self.schedule.lane_of(no).is_some_and(|lane| lane.gives_back(now)) {
            self.give_back(no);
        }
    }

    /// Gives an entry back to its source, if it was pulled and is not busy.
    fn give_back(&mut self, no: RecordNumber) {
        if self.schedule.is_busy(no) || !self.schedule.entries.get(no).is_some_and(|record| record.pulled) {
            return;
        }
        let (ticket, item) = (self.schedule.ticket(no), self.take_item(no));
        self.forget(no);
        self.ready.extend(ticket.map(|ticket| Action::Write { ticket, item, content: Content::Returned }));
    }
}

// What became of it.
impl<W: Work> Queue<W> {
    fn loaded(&mut self, ticket: &Ticket<W>, loaded: Loaded<W>) {
        let Some(event) = self.schedule.flying(ticket) else { return };
        match loaded {
            Loaded::Item(item) if self.is_draining => self.not_sent(event, Some(item), NotSent::Held),
            Loaded::Item(item) => {
                let flight = self.schedule.flights.sent(event, ticket.clone(), item);
                self.ready.extend(flight.map(Action::Send));
            }
            Loaded::Superseded(current) => self.load_failed(event, Written::Superseded(current)),
            Loaded::Gone => self.load_failed(event, Written::Gone),
            Loaded::Unread => self.load_failed(event, Written::Unread),
        }
    }

    fn load_failed(&mut self, event: RecordNumber, why: Written<W>) {
        if let Some(no) = self.schedule.entry_of(event) {
            self.ended(no, Some(event), why);
        }
    }

    fn answered(&mut self, ticket: &Ticket<W>, answered: Answered<W>) {
        let Some(event) = self.schedule.flying(ticket) else { return };
        let (item, answer, again, signal) = match answered {
            Answered::NotSent { item, why } => return self.not_sent(event, item, why),
            Answered::Sent { item, answer, again, signal } => (item, answer, again, signal),
        };
        if let Some(signal) = signal {
            self.signal(event, signal);
        }
        let Some(entry) = self.schedule.entry_of(event) else { return };
        let Some(batch) = self.batches.get_mut(&entry) else {
            let (ticket, content) = (ticket.clone(), Content::Outcome(vec![(0, answer)]));
            return self.ready.push_back(Action::Write { ticket, item: Some(item), content });
        };
        // It is written with what comes of the other events.
        let now = self.schedule.now();
        if self.schedule.entries.get(entry).is_some_and(|record| record.began == seconds(ticket.began)) {
            batch.answer(ticket.event, answer, item, again.is_none(), now);
            match again {
                Some(wait) => self.schedule.retry(event, now + wait),
                None => drop(self.schedule.leave_flight(event, true)),
            }
            self.schedule.set_answered(entry, event, again.is_none());
        } else {
            // What came of it before the last replay counts nothing.
            self.schedule.retry(event, now);
        }
        if self.leaving.contains_key(&entry) && !self.schedule.is_busy(entry) {
            self.forget(entry);
        }
        self.rest(entry);
    }

    /// The next entry with several events whose outcomes are to be written.
    fn progress(&mut self) -> Option<Action<W>> {
        let is_due = |(no, batch): (&RecordNumber, &Batch<W>)| {
            let most = self.schedule.lane_of(*no).map_or(1, |lane| lane.max_in_flight);
            let is_over = self.is_draining || self.schedule.ends(*no) <= self.schedule.clock.today();
            let is_last = is_over && !batch.is_empty();
            (!self.schedule.is_written(*no) && (is_last || batch.is_due(most, self.schedule.now()))).then_some(*no)
        };
        let no = self.batches.iter().find_map(is_due)?;
        let ticket = self.schedule.ticket(no)?;
        let batch = self.batches.get_mut(&no)?;
        self.schedule.begin_writing(no, |event| batch.has(event));
        let (answers, item) = batch.take();
        Some(Action::Write { ticket, item, content: Content::Outcome(answers) })
    }

    /// What the answer to an event in flight says of its webhook. Of another version than the present one it says
    /// nothing.
    fn signal(&mut self, event: RecordNumber, signal: Signal) {
        let Some(flight) = self.schedule.flights.get(event) else { return };
        let (no, spec, now) = (flight.lane, flight.spec.clone(), self.schedule.now());
        let (cycle, rejected) = (flight.cycle, self.rejected(event));
        let lane = self.schedule.lanes.get_mut(no).filter(|lane| spec.concerns(lane.version.as_ref()));
        let Some(lane) = lane else { return };
        match signal {
            // The Subscriber was deleted, and perhaps created again, meanwhile.
            Signal::Pause(_) | Signal::HealthAndPause(..) | Signal::Gone | Signal::Health(Health::Rejected)
                if lane.version.is_none() => {}
            Signal::Health(health) => {
                lane.breaker.report(health, rejected, cycle, now);
                self.schedule.refresh(no);
            }
            Signal::Pause(wait) => self.pause(no, now + wait),
            Signal::HealthAndPause(health, wait) => {
                lane.breaker.report(health, rejected, cycle, now);
                self.pause(no, now + wait);
            }
            Signal::Gone => {
                lane.gone = Some(spec);
                self.close(no, Gate::EndpointGone);
            }
        }
    }

    /// How the circuit knows an event.
    fn rejected(&self, event: RecordNumber) -> RejectedEvent {
        let record = self.schedule.entries.get(event);
        record.map_or(RejectedEvent { event: 0, kind: 0 }, |record| RejectedEvent {
            event: self.schedule.entries.hash(&(record.id, record.event)),
            kind: record.kind,
        })
    }

    /// Nothing was sent. Where that is the Subscriber's trouble, its lane closes until it was reconciled.
    fn not_sent(&mut self, event: RecordNumber, item: Option<Box<W::Item>>, why: NotSent) {
        let (Some(entry), Some(flight)) = (self.schedule.entry_of(event), self.schedule.flights.get(event)) else {
            return;
        };
        let (no, spec, version, now) = (flight.lane, flight.spec.clone(), flight.version, self.schedule.now());
        if self.leaving.contains_key(&entry) {
            return self.ended(entry, Some(event), Written::Gone);
        }
        match why {
            NotSent::Held => self.schedule.put_off(event, now + AFTER_HELD),
            NotSent::NoToken => self.schedule.put_back(event),
            NotSent::EgressDenied => self.schedule.retry(event, now + AFTER_DENIED),
        }
        if let Some(record) = self.schedule.entries.get(entry).filter(|record| record.version == version) {
            let bytes = record.bytes as usize;
            self.keep_item(entry, item, bytes);
        }
        self.rest(entry);
        let is_open = |lane: &Lane<W::Route>| lane.closed().is_none() && lane.version.as_ref() == Some(&spec);
        if why != NotSent::Held && self.schedule.lanes.get(no).is_some_and(is_open) {
            self.close(no, Gate::SubscriberNotReady);
        }
    }

    fn written(&mut self, no: RecordNumber, written: Written<W>) {
        if matches!(written, Written::Noted) {
            return;
        }
        if let Some(record) = self.schedule.entries.get(no) {
            self.expiring.remove(&record.id);
        }
        let is_recorded = !matches!(written, Written::Superseded(_) | Written::Unread);
        let reopened = self.schedule.end_writing(no, is_recorded);
        self.batches.get_mut(&no).into_iter().for_each(|batch| batch.reopen(reopened));
        let flight = (!self.batches.contains_key(&no) && self.schedule.flights.contains(no)).then_some(no);
        self.ended(no, flight, written);
    }

    /// An attempt, or a write, is over; `flight` is the event whose flight ends with it.
    fn ended(&mut self, no: RecordNumber, flight: Option<RecordNumber>, written: Written<W>) {
        let has_left = self.leaving.contains_key(&no);
        let is_newer =
            |version| !has_left && self.schedule.entries.get(no).is_some_and(|record| record.version > version);
        match written {
            // The source showed a replay before this attempt reported that it finished.
            Written::Finished { version, .. } if is_newer(version) => self.again(no, flight, self.schedule.now()),
            Written::Finished { version, out_of_sight } => self.finished(no, version, out_of_sight),
            Written::Superseded(Current { entry, finished: true }) if !has_left && !is_newer(entry.version) => {
                if self.leave(no, flight, entry.version) {
                    self.finished(no, entry.version, false);
                }
            }
            Written::Gone => {
                if !has_left {
                    self.bury(no);
                }
                self.forget_later(no, flight, u64::MAX);
            }
            _ if has_left => self.forget_later(no, flight, u64::MAX),
            Written::Retry { version, attempts, began, next, wait } => {
                let is_newest = self.recorded(no, version, attempts, began, next);
                self.again(no, flight, self.schedule.now() + if is_newest { wait } else { Duration::ZERO });
            }
            Written::Unread => self.again_later(no, flight, None, AFTER_UNREAD),
            Written::Superseded(Current { entry, .. }) if entry.cancelled => {
                self.forget_later(no, flight, entry.version);
            }
            Written::Superseded(Current { entry, .. }) => {
                let known = self.schedule.entries.get(no).filter(|record| record.version <= entry.version);
                if let Some(began) = known.map(|record| record.began) {
                    self.take_over(no, &entry);
                    self.take_item(no);
                    if began != seconds(entry.began) {
                        self.restart(no);
                    }
                }
                self.again_later(no, flight, self.due(&entry), AFTER_SUPERSEDED);
            }
            Written::Noted => {}
        }
    }

    /// This process recorded an attempt: what the source shows up to it is old. False if the source has shown a replay
    /// since, which began a new life.
    fn recorded(
        &mut self,
        no: RecordNumber,
        version: u64,
        attempts: u32,
        began: SystemTime,
        next: Option<SystemTime>,
    ) -> bool {
        let Some(record) = self.schedule.entries.get(no) else { return true };
        if record.version > version {
            return record.attempts >= attempts;
        }
        self.schedule.record(no, version, attempts, seconds(began), next.map_or(0, seconds));
        self.take_item(no);
        true
    }

    /// Tries the event in flight, and those that stand nowhere, again at `due`.
    fn again(&mut self, no: RecordNumber, flight: Option<RecordNumber>, due: Instant) {
        flight.into_iter().for_each(|event| self.schedule.retry(event, due));
        self.schedule.resume(no, Some(due));
        self.rest(no);
    }

    /// The same after `wait` at the earliest, or at `due`. An entry that has expired by then is not looked at before.
    fn again_later(&mut self, no: RecordNumber, flight: Option<RecordNumber>, due: Option<Instant>, wait: Duration) {
        let later = self.schedule.now() + wait;
        if self.schedule.ends(no) > self.schedule.clock.today().saturating_add(span(wait)) {
            return self.again(no, flight, due.unwrap_or(later));
        }
        flight.into_iter().for_each(|event| self.schedule.retry(event, later));
        self.schedule.resume(no, Some(later));
        // It is filed when it is due.
        self.schedule.hide(no);
        self.give_back_if_held(no);
    }

    /// This process finished the entry by writing `version`; `out_of_sight`: the source has nothing more to show of it.
    fn finished(&mut self, no: RecordNumber, version: u64, out_of_sight: bool) {
        let has_shown = self.leaving.get(&no).is_some_and(|left| *left >= version);
        let Some((record, namespace)) = self.forget(no) else { return };
        if !out_of_sight && !has_shown {
            self.tombstones.finished(record.id, namespace, version, self.listing);
        }
    }

    /// The entry is gone, and the source may still show it as it was: that is loaded before it is sent. A source that is
    /// pulled shows nothing.
    fn bury(&mut self, no: RecordNumber) {
        let lane = self.schedule.lane_of(no).map(|lane| lane.key.namespace.clone());
        let record = self.schedule.entries.get(no).filter(|record| !record.pulled);
        if let (Some(record), Some(namespace)) = (record, lane) {
            self.tombstones.gone(record.id, namespace, record.version, self.listing);
        }
    }

    /// The flight that ended is the last, or no more is sent of what others there are of the entry, which left at
    /// `version`. Returns whether it was the last.
    fn leave(&mut self, no: RecordNumber, flight: Option<RecordNumber>, version: u64) -> bool {
        if let Some(event) = flight {
            self.schedule.leave_flight(event, true);
        }
        if !self.schedule.is_busy(no) {
            return true;
        }
        self.revoke(no);
        self.schedule.set_aside(no);
        self.leaving.entry(no).or_insert(version);
        false
    }

    /// Drops all that is known of an entry, when its last flight has ended.
    fn forget_later(&mut self, no: RecordNumber, flight: Option<RecordNumber>, version: u64) {
        if self.leave(no, flight, version) {
            self.forget(no);
        }
    }

    /// Drops all that is known of an entry.
    fn forget(&mut self, no: RecordNumber) -> Option<(Record<W>, Arc<str>)> {
        self.take_item(no);
        self.leaving.remove(&no);
        self.batches.remove(&no);
        self.schedule.remove(no)
    }

    /// Keeps the item of an untried entry with one event, if there is room.
    fn keep_item(&mut self, no: RecordNumber, item: Option<Box<W::Item>>, bytes: usize) {
        let is_untried = self.schedule.entries.get(no).is_some_and(|record| record.attempts == 0);
        let is_single = !self.batches.contains_key(&no);
        if let (Some(item), Some(lane)) = (item, self.schedule.lane_of(no).filter(|_| is_untried && is_single)) {
            self.kept.keep(no, &lane.key, item, bytes);
        }
    }

    fn take_item(&mut self, no: RecordNumber) -> Option<Box<W::Item>> {
        self.kept.take(no, &self.schedule.lane_of(no)?.key)
    }

    /// What is in flight of an entry and was not sent yet is not sent.
    fn revoke(&self, no: RecordNumber) {
        let flights = self.schedule.events(no).into_iter().filter_map(|event| self.schedule.flights.get(event));
        flights.for_each(|flight| flight.permit.revoke());
    }
}

#[cfg(test)]
mod harness;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
