//! A queue of numbers, driven step by step.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::*;
use crate::{Flight, Health, Limits, Permit};

/// The calendar when a test begins.
pub fn today() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Entries are numbers; an item is the version that it has.
pub struct Toy;

impl Work for Toy {
    type Id = u32;
    type Name = ();
    type Item = u64;
    type Route = u32;
    type Answer = &'static str;
}

pub fn key(namespace: &str, name: &str) -> SubscriberKey {
    SubscriberKey { namespace: namespace.into(), name: name.into() }
}

pub fn spec(generation: i64) -> SpecVersion {
    SpecVersion::new("uid", generation)
}

/// An entry that lives for years, untried.
pub fn entry(id: u32, of: &SubscriberKey, version: u64) -> Entry<Toy> {
    Entry {
        id,
        name: (),
        of: of.clone(),
        version,
        events: 1,
        finished: Vec::new(),
        attempts: 0,
        began: today() + YEARS,
        lifetime: None,
        next: None,
        bytes: 0,
        kind: 0,
        explained: None,
        cancelled: false,
        pulled: false,
        item: Some(Box::new(version)),
    }
}

/// What an action is, to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    Load(u32, u16),
    /// Which entry, which event, and the version of the item.
    Send(u32, u16, u64),
    Outcome(u32, Vec<(u16, &'static str)>),
    Expired(u32),
    Waiting(u32, Gate),
    Returned(u32),
    /// From where, and how many at most.
    Pull(SourceId, usize),
}

/// A queue whose entries are all loaded when they start.
pub struct Harness {
    pub queue: Queue<Toy>,
    start: Instant,
    versions: u64,
    attempts: HashMap<u32, u32>,
    /// The ticket that was handed out last for an event.
    tickets: HashMap<(u32, u16), Ticket<Toy>>,
    /// The permit of the flight that was handed out last for an event.
    permits: HashMap<(u32, u16), Permit>,
}

impl Harness {
    pub fn new(in_flight: usize, bytes: usize, start: Instant) -> Self {
        let mut new = Self::bare(in_flight, bytes, vec![None], start);
        new.apply(Update::Listed(None));
        new.list(vec![]);
        new
    }

    /// A queue that has not listed anything yet.
    pub fn unlisted(namespaces: Vec<Option<Arc<str>>>, start: Instant) -> Self {
        Self::bare(64, 1000, namespaces, start)
    }

    fn bare(in_flight: usize, bytes: usize, namespaces: Vec<Option<Arc<str>>>, start: Instant) -> Self {
        let bounds = Bounds { in_flight, bytes_in_flight: bytes, bytes_kept: 1 << 20 };
        let now = Now { instant: start, wall: today() };
        let mut queue = Queue::new(&bounds, namespaces, now);
        queue.apply(Update::Owned(Some(Term { epoch: 1, contested: false })), now);
        let (attempts, tickets, permits) = Default::default();
        Self { queue, start, versions: 0, attempts, tickets, permits }
    }

    /// The first scope is listed.
    pub fn list(&mut self, entries: Vec<Entry<Toy>>) {
        self.observe(Seen::ListBegins(ScopeId(0)));
        entries.into_iter().for_each(|entry| self.show(entry));
        self.observe(Seen::ListEnds(ScopeId(0)));
    }

    pub fn now(&self, instant: Instant) -> Now {
        Now { instant, wall: today() + instant.saturating_duration_since(self.start) }
    }

    pub fn at(&mut self, instant: Instant) {
        self.queue.schedule.clock.set(self.now(instant));
    }

    pub fn version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    fn ticket(&self, id: u32) -> Ticket<Toy> {
        self.queue.schedule.ticket(self.no(id).unwrap()).unwrap()
    }

    pub fn no(&self, id: u32) -> Option<RecordNumber> {
        self.queue.schedule.entries.find(&id)
    }

    /// Shows `id` with one attempt more, an event of `bytes`, due now or at `due`; `explained` is the gate that it
    /// names.
    pub fn add(
        &mut self,
        id: u32,
        of: SubscriberKey,
        due: Option<Instant>,
        explained: Option<Gate>,
        bytes: usize,
        now: Instant,
    ) {
        let attempts = self.attempts.entry(id).or_default();
        *attempts += 1;
        let (attempts, version) = (*attempts, self.version());
        let next = due.map(|due| self.now(due).wall);
        let seen = Entry { attempts, next, bytes, explained, item: None, ..entry(id, &of, version) };
        self.queue.observe(Seen::Present(seen), self.now(now));
    }

    /// Shows `id` absent, unless it is in flight.
    pub fn remove(&mut self, id: &u32, now: Instant) {
        if !self.is_in_flight(id) {
            let version = self.version();
            self.queue.observe(Seen::Absent { id: *id, version }, self.now(now));
        }
    }

    pub fn open(&mut self, of: &SubscriberKey, limits: Limits) {
        let now = self.queue.schedule.clock.now();
        let update =
            Update::Open { of: of.clone(), version: spec(1), route: 0, limits, lifetime: YEARS, longest_wait: YEARS };
        self.queue.apply(update, self.now(now));
    }

    pub fn close(&mut self, of: &SubscriberKey, gate: Gate) {
        let now = self.queue.schedule.clock.now();
        let update = Update::Closed { of: of.clone(), version: Some(spec(1)), gate, lifetime: Some(YEARS) };
        self.queue.apply(update, self.now(now));
    }

    pub fn pause(&mut self, of: &SubscriberKey, until: Instant) {
        let now = self.queue.schedule.clock.now();
        self.queue.apply(Update::Paused { of: of.clone(), until }, self.now(now));
    }

    pub fn reset(&mut self, of: &SubscriberKey) {
        let now = self.queue.schedule.clock.now();
        self.queue.apply(Update::Reset { of: of.clone() }, self.now(now));
    }

    /// The next one that starts, loaded.
    pub fn next(&mut self, now: Instant) -> Option<u32> {
        self.at(now);
        match self.queue.start()? {
            Action::Load(ticket) => {
                let (id, loaded) = (ticket.id, Loaded::Item(Box::new(0)));
                self.queue.finish(Done::Loaded { ticket, loaded }, self.now(now));
                assert!(matches!(self.queue.ready.pop_front(), Some(Action::Send(flight)) if flight.ticket.id == id));
                Some(id)
            }
            Action::Send(flight) => Some(flight.ticket.id),
            Action::Write { .. } | Action::Pull { .. } => panic!("a start that starts nothing"),
        }
    }

    pub fn explain(&mut self, now: Instant) -> Option<(u32, Gate)> {
        self.at(now);
        match self.queue.explain()? {
            Action::Write { ticket, content: Content::Waiting(gate), .. } => Some((ticket.id, gate)),
            _ => panic!("an explanation that explains nothing"),
        }
    }

    pub fn report(&mut self, id: &u32, health: Health, now: Instant) {
        self.at(now);
        if let Some(no) = self.no(*id) {
            self.queue.signal(no, Signal::Health(health));
        }
    }

    /// The attempt at `id` ended and there will be no other.
    pub fn end(&mut self, id: &u32) {
        let (version, now) = (self.version(), self.now(self.queue.schedule.clock.now()));
        let written = Written::Finished { version, out_of_sight: true };
        self.queue.finish(Done::Written { ticket: self.ticket(*id), written }, now);
    }

    /// The attempt at `id` ended; the next is due at `due`.
    pub fn retry(&mut self, id: &u32, due: Instant) {
        let version = self.version();
        let now = self.now(self.queue.schedule.clock.now());
        let (began, next) = (today() + YEARS, Some(self.now(due).wall));
        let (attempts, wait) = (self.attempts[id], due - now.instant);
        let written = Written::Retry { version, attempts, began, next, wait };
        self.queue.finish(Done::Written { ticket: self.ticket(*id), written }, now);
    }

    pub fn put_back(&mut self, id: &u32, now: Instant) {
        self.at(now);
        if let Some(no) = self.no(*id) {
            self.queue.schedule.put_back(no);
            self.queue.schedule.file(no);
        }
    }

    pub fn wake_at(&self) -> Option<Instant> {
        let lanes = &self.queue.schedule.lanes;
        if lanes.are_changed() { Some(self.queue.schedule.clock.now()) } else { lanes.wake_at() }
    }

    pub fn explain_at(&self) -> Option<Instant> {
        self.queue.schedule.explain_at()
    }

    pub fn is_in_flight(&self, id: &u32) -> bool {
        self.no(*id).is_some_and(|no| self.queue.schedule.flights.contains(no))
    }

    /// Whether the event that a ticket names is in flight.
    pub fn is_flying(&self, ticket: &Ticket<Toy>) -> bool {
        self.queue.schedule.flying(ticket).is_some()
    }

    pub fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    pub fn bytes_in_flight(&self) -> usize {
        self.queue.bytes_in_flight()
    }

    pub fn gate(&self, of: &SubscriberKey, now: Instant) -> Option<Gate> {
        self.queue.schedule.lanes.by_key(of).map_or(Some(Gate::SubscriberNotFound), |lane| lane.gate(now))
    }

    pub fn is_open_circuit(&self, of: &SubscriberKey) -> bool {
        self.queue.schedule.lanes.by_key(of).is_some_and(|lane| lane.breaker.is_open())
    }

    pub fn is_rate_limited(&self, of: &SubscriberKey, now: Instant) -> bool {
        self.queue.schedule.lanes.by_key(of).is_some_and(|lane| lane.is_rate_limited(now))
    }

    pub fn queued(&self, of: &SubscriberKey) -> usize {
        self.queue.schedule.lanes.by_key(of).map_or(0, |lane| lane.ready_queue.len())
    }

    pub fn pending(&self, of: &SubscriberKey) -> usize {
        self.queue.schedule.lanes.by_key(of).map_or(0, |lane| lane.pending())
    }

    /// The lane's queued and waiting ids, those that are due first.
    pub fn ids_of(&self, of: &SubscriberKey) -> Vec<u32> {
        let Some(lane) = self.queue.schedule.lanes.by_key(of) else { return Vec::new() };
        let waiting = lane.waiting.iter().map(|(_, no)| *no);
        let id = |no: RecordNumber| self.queue.schedule.entries.get(no).unwrap().id;
        lane.ready_queue.numbers().into_iter().chain(waiting).map(id).collect()
    }

    /// What to do at `now`, until there is nothing more.
    pub fn acts(&mut self, now: Instant) -> Vec<Did> {
        let now = self.now(now);
        let mut all = Vec::new();
        while let Some(action) = self.queue.next(now) {
            all.push(self.note(action));
        }
        all
    }

    fn note(&mut self, action: Action<Toy>) -> Did {
        let mut keep = |ticket: Ticket<Toy>| {
            let (id, event) = (ticket.id, ticket.event);
            self.tickets.insert((id, event), ticket);
            (id, event)
        };
        match action {
            Action::Load(ticket) => {
                let (id, event) = keep(ticket);
                Did::Load(id, event)
            }
            Action::Send(Flight { ticket, item, permit, .. }) => {
                let (id, event) = keep(ticket);
                self.permits.insert((id, event), permit);
                Did::Send(id, event, *item)
            }
            Action::Write { ticket, content, .. } => {
                let (id, _) = keep(ticket);
                match content {
                    Content::Outcome(answers) => Did::Outcome(id, answers),
                    Content::Expired => Did::Expired(id),
                    Content::Waiting(gate) => Did::Waiting(id, gate),
                    Content::Returned => Did::Returned(id),
                }
            }
            Action::Pull { source, want, .. } => Did::Pull(source, want.events),
        }
    }

    fn latest(&self) -> Now {
        self.now(self.queue.schedule.clock.now())
    }

    pub fn show(&mut self, entry: Entry<Toy>) {
        let now = self.latest();
        self.queue.observe(Seen::Present(entry), now);
    }

    pub fn gone(&mut self, id: u32, version: u64) {
        let now = self.latest();
        self.queue.observe(Seen::Absent { id, version }, now);
    }

    pub fn observe(&mut self, seen: Seen<Toy>) {
        let now = self.latest();
        self.queue.observe(seen, now);
    }

    pub fn apply(&mut self, update: Update<u32>) {
        let now = self.latest();
        self.queue.apply(update, now);
    }

    pub fn finish(&mut self, done: Done<Toy>) {
        let now = self.latest();
        self.queue.finish(done, now);
    }

    /// An event was answered.
    pub fn answer(
        &mut self,
        id: u32,
        event: u16,
        answer: &'static str,
        again: Option<Duration>,
        signal: Option<Signal>,
    ) {
        let (now, ticket) = (self.latest(), self.tickets[&(id, event)].clone());
        let answered = Answered::Sent { item: Box::new(0), answer, again, signal };
        self.queue.finish(Done::Answered { ticket, answered }, now);
    }

    /// Whether a rejection ends the event in flight.
    pub fn is_final_rejection(&self, id: u32) -> bool {
        self.queue.judge_rejection(&self.tickets[&(id, 0)]) == RejectionMeaning::Final
    }

    /// An event was not sent.
    pub fn not_sent(&mut self, id: u32, event: u16, item: Option<u64>, why: NotSent) {
        let (now, ticket) = (self.latest(), self.tickets[&(id, event)].clone());
        let answered = Answered::NotSent { item: item.map(Box::new), why };
        self.queue.finish(Done::Answered { ticket, answered }, now);
    }

    pub fn loaded(&mut self, id: u32, event: u16, loaded: Loaded<Toy>) {
        let (now, ticket) = (self.latest(), self.tickets[&(id, event)].clone());
        self.queue.finish(Done::Loaded { ticket, loaded }, now);
    }

    pub fn written(&mut self, id: u32, written: Written<Toy>) {
        let (now, ticket) = (self.latest(), self.tickets[&(id, 0)].clone());
        self.queue.finish(Done::Written { ticket, written }, now);
    }

    /// An entry was finished by writing this version.
    pub fn finished(&mut self, id: u32, version: u64) {
        self.written(id, Written::Finished { version, out_of_sight: false });
    }

    /// When the life began that the last action for an entry was about.
    pub fn began(&self, id: u32) -> SystemTime {
        self.tickets[&(id, 0)].began
    }

    /// Whether the last flight of an event may send at `now`.
    pub fn may_send(&self, id: u32, event: u16, now: Instant) -> bool {
        self.permits[&(id, event)].holds(self.now(now).wall)
    }

    pub fn paused_until(&self, of: &SubscriberKey, now: Instant) -> Option<Instant> {
        self.queue.schedule.lanes.by_key(of)?.pause_end(now)
    }

    /// The lanes where something may have changed since the last call, time alone apart.
    pub fn touched(&mut self) -> HashSet<SubscriberKey> {
        self.queue.schedule.take_changed()
    }

    pub fn tombstones(&self) -> usize {
        self.queue.tombstones.len()
    }

    pub fn bytes_kept(&self) -> usize {
        self.queue.kept.used()
    }

    pub fn lanes(&self) -> usize {
        self.queue.schedule.lanes.of_namespace(None).count()
    }

    /// The attempt at `id` did not start; it is due at `due`.
    pub fn hold(&mut self, id: u32, due: Instant) {
        if let Some(no) = self.no(id) {
            self.queue.schedule.put_off(no, due);
            self.queue.schedule.file(no);
        }
    }

    pub fn changed(&mut self, now: Instant) -> Vec<(SubscriberKey, LaneSnapshot)> {
        let now = self.now(now);
        self.queue.changed(now)
    }

    /// Whether nothing is left of any entry.
    pub fn is_bare(&self) -> bool {
        let queue = &self.queue;
        let sets = queue.batches.is_empty() && queue.leaving.is_empty() && queue.expiring.is_empty();
        queue.is_empty() && sets && queue.schedule.is_bare() && queue.ready.is_empty() && queue.kept.used() == 0
    }
}
