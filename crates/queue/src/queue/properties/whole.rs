//! The queue as a whole, between a source whose watch is late, other writers, Subscribers, a Lease and a calendar:
//! nothing is lost, nothing is sent twice or when it may not be, and nothing expires before its time.

mod store;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use proptest::{collection::vec, option, prelude::*, sample::select};

use self::store::{Change, Luck, Shown, Store, Stored};
use super::super::harness::{Harness, Toy, spec, today};
use crate::{
    Action, Answered, Content, Done, Entry, Flight, Gate, Health, Limits, NotSent, RejectionMeaning, ScopeId, Seen,
    Signal, SourceId, SpecVersion, SubscriberKey, Term, Ticket, Update, Want, Written,
};

pub const SCOPES: usize = 2;
const LANES: usize = 4;
const SOURCE: SourceId = SourceId(1);
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

pub fn key(lane: usize) -> SubscriberKey {
    SubscriberKey { namespace: format!("n{}", lane % SCOPES).into(), name: format!("s{lane}").into() }
}

/// What the webhook does with a POST, or what keeps it from being sent.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Ok,
    Fails,
    Fault,
    Gone,
    Pause(u64),
    FaultAndPause(u64),
    Rejects,
    NoToken,
    Denied,
}

#[derive(Clone, Debug)]
enum Step {
    Create {
        lane: usize,
        events: u16,
        lifetime: Option<u64>,
        bytes: usize,
    },
    Alter(usize, Change),
    /// The watch shows what it has for one entry.
    Watch(usize),
    /// It shows once more what it showed last.
    Repeat(usize),
    ListBegins(usize),
    ListSome(usize),
    ListEnds(usize),
    Fail(usize),
    Open(usize, i64, usize, u64),
    Close(usize, Gate),
    Pause(usize, u64),
    Reset(usize),
    Listed(usize),
    Own(bool),
    /// The term is not contested any more.
    Settle,
    Lose,
    /// One of the tasks is done; what came of it is reported later.
    Perform(usize, Outcome, bool),
    Report(usize),
    Stock(usize, u32),
    Pass(u64),
    PassUntilWoken,
    Calendar(i64),
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let (lane, scope, any) = (|| 0..LANES, || 0..SCOPES, any::<usize>);
    let lifetime = option::weighted(0.3, select(vec![5, 60, HOUR]));
    let create = (lane(), select(vec![1_u16, 1, 1, 2, 3]), lifetime, select(vec![0_usize, 1, 9, 60]));
    let change = select(vec![
        Change::Finish,
        Change::Attempt(0),
        Change::Attempt(50),
        Change::Label,
        Change::Label,
        Change::Replay,
        Change::Replay,
        Change::Cancel,
        Change::Delete,
    ]);
    let gates = select(vec![Gate::SubscriberNotFound, Gate::SubscriberNotReady, Gate::Suspended, Gate::EndpointGone]);
    let outcome = || {
        use Outcome::*;
        select(vec![
            Ok,
            Ok,
            Ok,
            Ok,
            Fails,
            Fails,
            Fault,
            Fault,
            Gone,
            Pause(5),
            FaultAndPause(7),
            Rejects,
            Rejects,
            NoToken,
            Denied,
        ])
    };
    let millis = || select(vec![0_u64, 1, 700, 1000, 5000, 7000, 60_000, 3_600_000]);
    let lifetimes = select(vec![10, HOUR, DAY]);
    prop_oneof![
        8 => create.prop_map(|(lane, events, lifetime, bytes)| Create { lane, events, lifetime, bytes }),
        8 => (any(), change).prop_map(|(n, change)| Alter(n, change)),
        16 => any().prop_map(Watch),
        2 => any().prop_map(Repeat),
        2 => scope().prop_map(ListBegins),
        2 => scope().prop_map(ListSome),
        3 => scope().prop_map(ListEnds),
        1 => scope().prop_map(Fail),
        8 => (lane(), 1..3_i64, 1..5_usize, lifetimes).prop_map(|(l, v, most, life)| Open(l, v, most, life)),
        2 => (lane(), gates).prop_map(|(lane, gate)| Close(lane, gate)),
        1 => (lane(), millis()).prop_map(|(lane, millis)| Pause(lane, millis)),
        1 => lane().prop_map(Reset),
        2 => scope().prop_map(Listed),
        2 => proptest::bool::weighted(0.3).prop_map(Own),
        1 => Just(Settle),
        1 => Just(Lose),
        24 => (any(), outcome(), proptest::bool::weighted(0.1)).prop_map(|(n, o, unread)| Perform(n, o, unread)),
        20 => any().prop_map(Report),
        2 => (lane(), 1..5_u32).prop_map(|(lane, n)| Stock(lane, n)),
        6 => millis().prop_map(Pass),
        6 => Just(PassUntilWoken),
        1 => select(vec![-7200, -60, 60, 7200, 90_000]).prop_map(Calendar),
    ]
}

/// How long the entries of a Subscriber live that its lifetime ends.
#[derive(Clone, Copy, Debug)]
enum Lifetime {
    Known(u64),
    Unknown,
    Missing(u64),
}

/// What was said of a Subscriber.
struct Subscriber {
    /// Why it is closed.
    gate: Option<Gate>,
    version: Option<SpecVersion>,
    gone: Option<SpecVersion>,
    paused_until: Option<Instant>,
    lifetime: Lifetime,
    limit: usize,
    /// The events that rejections ended since the last success.
    rejected: BTreeSet<(u32, u16)>,
}

/// What the owner of the queue is doing.
enum Task {
    Load(Ticket<Toy>),
    /// The flight, and its version.
    Send(Flight<Toy>, SpecVersion),
    Write(Ticket<Toy>, Option<Box<u64>>, Content<&'static str>),
    Pull(usize, Want),
}

/// One watch.
#[derive(Default)]
struct Scope {
    is_watching: bool,
    has_synced: bool,
    /// It was not synced when a contested term began.
    is_contested: bool,
    /// What the listing under way still has to show.
    listing: Option<Vec<(u32, Stored)>>,
    /// The entries that the listing in progress does not show. After it has ended, a source cannot show them again.
    lacks: Vec<u32>,
    listed_since: Option<u64>,
}

struct World {
    harness: Harness,
    store: Store,
    begun: Instant,
    now: Instant,
    skew: i64,
    subscribers: Vec<Subscriber>,
    scopes: Vec<Scope>,
    term: Option<Term>,
    epochs: u64,
    is_draining: bool,
    tasks: Vec<Task>,
    reports: Vec<(Done<Toy>, Option<SpecVersion>)>,
    /// The events of which a flight or a write is under way.
    busy: BTreeSet<(u32, u16)>,
    /// Those that were loaded for their flight.
    loaded: BTreeSet<(u32, u16)>,
    /// The entries that are being written.
    writing: BTreeSet<u32>,
    /// The events that were answered for good, by their lives.
    answered: HashSet<(u32, SystemTime, u16)>,
    /// The version that the watch showed last.
    shown: HashMap<u32, Shown>,
    /// What can be pulled, and those that are in the hands of the queue.
    stock: Vec<Vec<u32>>,
    in_hand: BTreeSet<u32>,
    /// The lane, the number of events and the lifetime of each entry there ever was.
    facts: Vec<(usize, u16, Option<Duration>)>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let namespaces = (0..SCOPES).map(|scope| Some(key(scope).namespace)).collect();
        let subscriber = |_| Subscriber {
            gate: Some(Gate::SubscriberNotReady),
            version: None,
            gone: None,
            paused_until: None,
            lifetime: Lifetime::Unknown,
            limit: 0,
            rejected: BTreeSet::new(),
        };
        Self {
            harness: Harness::unlisted(namespaces, now),
            store: Store::default(),
            begun: now,
            now,
            skew: 0,
            subscribers: (0..LANES).map(subscriber).collect(),
            scopes: (0..SCOPES).map(|_| Scope::default()).collect(),
            term: Some(Term { epoch: 1, contested: false }),
            epochs: 1,
            is_draining: false,
            tasks: Vec::new(),
            reports: Vec::new(),
            busy: BTreeSet::new(),
            loaded: BTreeSet::new(),
            writing: BTreeSet::new(),
            answered: HashSet::new(),
            shown: HashMap::new(),
            stock: vec![Vec::new(); LANES],
            in_hand: BTreeSet::new(),
            facts: vec![(0, 1, None)],
        }
    }

    fn wall(&self) -> SystemTime {
        let passed = today() + self.now.duration_since(self.begun);
        if self.skew < 0 {
            passed - Duration::from_secs(self.skew.unsigned_abs())
        } else {
            passed + Duration::from_secs(self.skew.unsigned_abs())
        }
    }

    fn seconds(&self) -> u64 {
        self.wall().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    /// The calendar in whole seconds.
    fn today(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.seconds())
    }

    fn time(&self) -> crate::Now {
        crate::Now { instant: self.now, wall: self.wall() }
    }

    fn observe(&mut self, seen: Seen<Toy>) {
        let now = self.time();
        self.harness.queue.observe(seen, now);
    }

    fn apply(&mut self, update: Update<u32>) {
        let now = self.time();
        self.harness.queue.apply(update, now);
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Create { lane, events, lifetime, bytes } => self.create(lane, events, lifetime, bytes, false),
            Step::Alter(n, change) => {
                let ids: Vec<_> = self.store.entries.keys().copied().collect();
                let today = self.today();
                pick(&ids, n).into_iter().for_each(|n| self.store.change(ids[n], change, today));
            }
            Step::Watch(n) => {
                let ids = self.watchable();
                pick(&ids, n).into_iter().for_each(|n| self.watch(ids[n]));
            }
            Step::Repeat(n) => {
                let shown: BTreeMap<_, _> = self.shown.iter().map(|(id, shown)| (*id, shown.clone())).collect();
                let shown: Vec<_> = shown.into_iter().collect();
                pick(&shown, n).into_iter().for_each(|n| self.show(shown[n].0, shown[n].1.clone()));
            }
            Step::ListBegins(scope) => self.list_begins(scope),
            Step::ListSome(scope) => {
                let next = self.scopes[scope].listing.as_mut().and_then(Vec::pop);
                next.into_iter().for_each(|(id, entry)| self.show(id, Shown::Present(entry.into())));
            }
            Step::ListEnds(scope) => self.list_ends(scope),
            Step::Fail(scope) => {
                (self.scopes[scope].listing, self.scopes[scope].is_watching) = (None, false);
                self.observe(Seen::Failed(ScopeId(scope)));
            }
            Step::Open(lane, generation, limit, lifetime) => self.open(lane, generation, limit, lifetime),
            Step::Close(lane, gate) => self.close(lane, gate),
            Step::Pause(lane, millis) => {
                self.pause(lane, now + Duration::from_millis(millis));
                self.apply(Update::Paused { of: key(lane), until: now + Duration::from_millis(millis) });
            }
            Step::Reset(lane) => {
                (self.subscribers[lane].paused_until, self.subscribers[lane].gone) = (None, None);
                self.apply(Update::Reset { of: key(lane) });
            }
            Step::Listed(scope) => self.subscribers_listed(scope),
            Step::Own(contested) => {
                self.epochs += 1;
                if contested {
                    self.scopes.iter_mut().filter(|s| !s.has_synced).for_each(|s| s.is_contested = true);
                }
                self.own(Some(Term { epoch: self.epochs, contested }));
            }
            Step::Settle => {
                let term = self.term.map(|term| Term { contested: false, ..term });
                self.own(term);
            }
            Step::Lose => self.own(None),
            Step::Perform(n, outcome, unread) => {
                if let Some(n) = pick(&self.tasks, n) {
                    let task = self.tasks.remove(n);
                    self.perform(task, outcome, if unread { Luck::Unread } else { Luck::Good });
                }
            }
            Step::Report(n) => {
                if let Some(n) = pick(&self.reports, n) {
                    let (done, spec) = self.reports.remove(n);
                    self.report(done, spec);
                }
            }
            Step::Stock(lane, n) => {
                (0..n).for_each(|_| self.create(lane, 1, None, 1, true));
                self.observe(Seen::Supply { source: SOURCE, of: key(lane), any: true });
            }
            Step::Pass(millis) => self.pass(now + Duration::from_millis(millis)),
            Step::PassUntilWoken => {
                self.act();
                self.now = self.harness.queue.wake_at().unwrap_or(now);
            }
            Step::Calendar(seconds) => self.skew += seconds,
        }
    }

    fn create(&mut self, lane: usize, events: u16, lifetime: Option<u64>, bytes: usize, is_pulled: bool) {
        let id = self.facts.len() as u32;
        self.facts.push((lane, events, lifetime.map(Duration::from_secs)));
        let entry = Stored {
            lane,
            events,
            bytes,
            lifetime: lifetime.map(Duration::from_secs),
            version: 0,
            attempts: 0,
            began: self.today(),
            next: None,
            explained: None,
            finished: BTreeSet::new(),
            is_done: false,
            is_cancelled: false,
            is_pulled,
        };
        self.store.insert(id, entry);
        if is_pulled {
            self.stock[lane].push(id);
        }
    }

    // What the watch shows.

    /// The entries of which the watch has something to show.
    fn watchable(&self) -> Vec<u32> {
        let pending = self.store.pending.iter().filter(|(_, shown)| !shown.is_empty()).map(|(id, _)| *id);
        pending.filter(|id| self.scopes[self.scope_of(*id)].is_watching).collect()
    }

    fn scope_of(&self, id: u32) -> usize {
        self.facts[id as usize].0 % SCOPES
    }

    fn watch(&mut self, id: u32) {
        if let Some(shown) = self.store.pending.get_mut(&id).and_then(|shown| shown.pop_front()) {
            self.show(id, shown);
        }
    }

    fn show(&mut self, id: u32, shown: Shown) {
        self.shown.insert(id, shown.clone());
        let is_over = match &shown {
            Shown::Present(entry) => entry.is_cancelled,
            Shown::Absent(_) => true,
        };
        match shown {
            Shown::Present(entry) => {
                let seen = Entry { item: Some(Box::new(entry.version)), ..entry.entry(id) };
                self.observe(Seen::Present(seen));
            }
            Shown::Absent(version) => self.observe(Seen::Absent { id, version }),
        }
        let wall = self.wall();
        for task in &self.tasks {
            if let Task::Send(flight, _) = task
                && flight.ticket.id == id
            {
                let is_current = self.store.entries.get(&id).is_none_or(|entry| entry.is_cancelled || entry.is_done);
                assert!(!(is_over && is_current && flight.permit.holds(wall)), "{id} is finished or deleted");
            }
        }
    }

    fn list_begins(&mut self, scope: usize) {
        let of_scope = |entry: &Stored| entry.lane % SCOPES == scope && !entry.is_pulled;
        for (id, pending) in &mut self.store.pending {
            if self.facts[*id as usize].0 % SCOPES == scope {
                pending.clear();
            }
        }
        let unfinished = self.store.entries.iter().filter(|(_, entry)| of_scope(entry) && !entry.is_done);
        let listing: Vec<_> = unfinished.map(|(id, entry)| (*id, entry.clone())).collect();
        let is_listed = |id: u32| listing.iter().any(|(listed, _)| *listed == id);
        let lacks = self.shown.keys().copied().filter(|id| self.scope_of(*id) == scope && !is_listed(*id)).collect();
        self.scopes[scope].lacks = lacks;
        (self.scopes[scope].listing, self.scopes[scope].is_watching) = (Some(listing), false);
        self.observe(Seen::ListBegins(ScopeId(scope)));
    }

    fn list_ends(&mut self, scope: usize) {
        let Some(rest) = self.scopes[scope].listing.take() else { return };
        rest.into_iter().for_each(|(id, entry)| self.show(id, Shown::Present(entry.into())));
        (self.scopes[scope].is_watching, self.scopes[scope].has_synced) = (true, true);
        self.scopes[scope].is_contested = false;
        self.observe(Seen::ListEnds(ScopeId(scope)));
        let lacks = std::mem::take(&mut self.scopes[scope].lacks);
        lacks.iter().for_each(|id| drop(self.shown.remove(id)));
    }

    // What Subscribers and the Lease say.

    fn open(&mut self, lane: usize, generation: i64, limit: usize, lifetime: u64) {
        let version = spec(generation);
        let subscriber = &mut self.subscribers[lane];
        subscriber.gone.take_if(|gone| *gone != version);
        subscriber.gate = subscriber.gone.as_ref().map(|_| Gate::EndpointGone);
        if subscriber.gate.is_none() {
            subscriber.limit = limit;
        }
        (subscriber.version, subscriber.lifetime) = (Some(version.clone()), Lifetime::Known(lifetime));
        let limits = Limits { max_in_flight: limit, rate_per_minute: None };
        let (lifetime, longest_wait) = (Duration::from_secs(lifetime), Duration::from_secs(HOUR));
        self.apply(Update::Open { of: key(lane), version, route: generation as u32, limits, lifetime, longest_wait });
    }

    fn close(&mut self, lane: usize, gate: Gate) {
        let today = self.seconds();
        let subscriber = &mut self.subscribers[lane];
        subscriber.gate = Some(gate);
        let (version, lifetime) =
            if gate == Gate::SubscriberNotFound { (None, None) } else { (Some(spec(1)), Some(DAY)) };
        subscriber.lifetime = lifetime.map_or(Lifetime::Missing(today), Lifetime::Known);
        subscriber.gone.take_if(|gone| Some(&*gone) != version.as_ref());
        subscriber.version = version.clone();
        if version.is_none() {
            subscriber.rejected.clear();
        }
        let lifetime = lifetime.map(Duration::from_secs);
        self.apply(Update::Closed { of: key(lane), version, gate, lifetime });
    }

    fn pause(&mut self, lane: usize, until: Instant) {
        let subscriber = &mut self.subscribers[lane];
        subscriber.paused_until = subscriber.paused_until.max(Some(until));
    }

    fn subscribers_listed(&mut self, scope: usize) {
        let today = self.seconds();
        let since = *self.scopes[scope].listed_since.get_or_insert(today);
        for lane in (0..LANES).filter(|lane| lane % SCOPES == scope) {
            let subscriber = &mut self.subscribers[lane];
            if subscriber.version.is_none() && matches!(subscriber.lifetime, Lifetime::Unknown) {
                (subscriber.lifetime, subscriber.gate) = (Lifetime::Missing(since), Some(Gate::SubscriberNotFound));
            }
        }
        self.apply(Update::Listed(Some(key(scope).namespace)));
    }

    fn own(&mut self, term: Option<Term>) {
        self.term = term;
        self.apply(Update::Owned(term));
    }

    // What the queue has done.

    fn perform(&mut self, task: Task, outcome: Outcome, luck: Luck) {
        match task {
            Task::Load(ticket) => {
                let loaded = self.store.load(&ticket, luck);
                self.reports.push((Done::Loaded { ticket, loaded }, None));
            }
            Task::Send(flight, spec) => {
                let answered = self.post(&flight, &spec, outcome);
                self.reports.push((Done::Answered { ticket: flight.ticket, answered }, Some(spec)));
            }
            Task::Write(ticket, item, content) => {
                let today = self.today();
                let written = self.store.write(&ticket, item, &content, luck, today);
                if content == Content::Returned {
                    self.stock[lane_of(&ticket)].push(ticket.id);
                    self.in_hand.remove(&ticket.id);
                    let of = ticket.of.clone();
                    self.observe(Seen::Supply { source: SOURCE, of, any: true });
                }
                self.reports.push((Done::Written { ticket, written }, None));
            }
            Task::Pull(lane, want) => {
                let rest = self.stock[lane].len().saturating_sub(want.events);
                let ids = self.stock[lane].split_off(rest);
                self.in_hand.extend(&ids);
                let entry = |id: &u32| {
                    let stored = &self.store.entries[id];
                    Entry { item: Some(Box::new(stored.version)), ..stored.entry(*id) }
                };
                let (entries, more) = (ids.iter().map(entry).collect(), !self.stock[lane].is_empty());
                self.reports.push((Done::Pulled { source: SOURCE, of: key(lane), entries, more }, None));
            }
        }
    }

    /// One POST, if it may still be sent.
    fn post(&mut self, flight: &Flight<Toy>, version: &SpecVersion, outcome: Outcome) -> Answered<Toy> {
        let item = flight.item.clone();
        let has_term = self.term.is_some_and(|term| term.epoch == flight.term.epoch);
        if !has_term || self.is_draining || !flight.permit.holds(self.wall()) {
            return Answered::NotSent { item: Some(item), why: NotSent::Held };
        }
        let (lane, id) = (&self.subscribers[lane_of(&flight.ticket)], flight.ticket.id);
        match outcome {
            Outcome::NoToken => return Answered::NotSent { item: Some(item), why: NotSent::NoToken },
            Outcome::Denied => return Answered::NotSent { item: None, why: NotSent::EgressDenied },
            _ => {}
        }
        assert_eq!(lane.gate, None, "{id} is sent while its Subscriber is closed");
        assert!(lane.paused_until.is_none_or(|until| until <= self.now), "{id} is sent inside a pause");
        assert_eq!(lane.version.as_ref(), Some(version), "{id} uses another version");
        if let Some(lifetime) = self.store.entries.get(&id).and_then(|entry| entry.lifetime) {
            assert!(self.wall() < flight.ticket.began + lifetime, "{id} is sent after its end");
        }
        let (answer, again, signal) = match outcome {
            Outcome::Ok => ("ok", None, Some(Signal::Health(Health::Success))),
            Outcome::Fault => ("fault", Some(3), Some(Signal::Health(Health::Failure))),
            Outcome::Gone => ("fault", Some(3), Some(Signal::Gone)),
            Outcome::Pause(seconds) => ("fault", Some(seconds), Some(Signal::Pause(Duration::from_secs(seconds)))),
            Outcome::FaultAndPause(seconds) => {
                let signal = Signal::HealthAndPause(Health::Failure, Duration::from_secs(seconds));
                ("fault", Some(seconds), Some(signal))
            }
            Outcome::Rejects => ("rejected", None, Some(Signal::Health(Health::Rejected))),
            _ => ("fault", Some(3), None),
        };
        Answered::Sent { item, answer, again: again.map(Duration::from_secs), signal }
    }

    fn report(&mut self, mut done: Done<Toy>, version: Option<SpecVersion>) {
        self.judge_rejection(&mut done, version.as_ref());
        match &done {
            Done::Loaded { ticket, loaded } => {
                if !matches!(loaded, crate::Loaded::Item(_)) || self.is_draining {
                    self.loaded.remove(&(ticket.id, ticket.event));
                    self.busy.remove(&(ticket.id, ticket.event));
                }
            }
            Done::Answered { ticket, answered } => self.note_answer(ticket, answered, version.as_ref()),
            Done::Written { ticket, written } => self.note_written(ticket, written),
            Done::Pulled { .. } => {}
        }
        let held = match &done {
            Done::Answered { ticket, answered: Answered::NotSent { why, .. } } if *why != NotSent::Held => {
                Some(lane_of(ticket))
            }
            _ => None,
        };
        let now = self.time();
        self.harness.queue.finish(done, now);
        // Unless the entry has left meanwhile, or the Subscriber has another version.
        if let Some(lane) = held.filter(|lane| self.subscribers[*lane].gate.is_none()) {
            self.subscribers[lane].gate =
                self.harness.gate(&key(lane), self.now).filter(|g| *g == Gate::SubscriberNotReady);
        }
    }

    /// A rejection ends its event only if the queue agrees, as the engine asks it: five at most between two successes.
    fn judge_rejection(&mut self, done: &mut Done<Toy>, version: Option<&SpecVersion>) {
        let Done::Answered { ticket, answered: Answered::Sent { answer, again, signal, .. } } = done else { return };
        let is_known = self.harness.is_flying(ticket);
        let subscriber = &mut self.subscribers[lane_of(ticket)];
        let is_of_version = subscriber.version.as_ref() == version;
        if *signal == Some(Signal::Health(Health::Success)) && is_known && is_of_version {
            subscriber.rejected.clear();
        }
        if *answer == "rejected" {
            if self.harness.queue.judge_rejection(ticket) == RejectionMeaning::Final {
                assert!(is_known && is_of_version, "{} is rejected by another version", ticket.id);
                *answer = "ok";
                subscriber.rejected.insert((ticket.id, ticket.event));
                assert!(subscriber.rejected.len() <= 5, "rejections ended {:?}", subscriber.rejected);
            } else {
                (*answer, *again) = ("fault", Some(Duration::from_secs(3)));
            }
        }
    }

    fn note_answer(&mut self, ticket: &Ticket<Toy>, answered: &Answered<Toy>, version: Option<&SpecVersion>) {
        let (lane, is_single) = (lane_of(ticket), self.facts[ticket.id as usize].1 == 1);
        let is_of_version = self.subscribers[lane].version.as_ref() == version;
        match answered {
            Answered::NotSent { .. } => {
                self.busy.remove(&(ticket.id, ticket.event));
            }
            Answered::Sent { answer, signal, .. } => {
                if *answer == "ok" {
                    self.answered.insert((ticket.id, ticket.began, ticket.event));
                }
                if !is_single {
                    self.busy.remove(&(ticket.id, ticket.event));
                }
                if !is_of_version || !self.is_known(ticket) {
                    return;
                }
                match signal {
                    Some(Signal::Gone) => {
                        let subscriber = &mut self.subscribers[lane];
                        (subscriber.gone, subscriber.gate) = (version.cloned(), Some(Gate::EndpointGone));
                    }
                    Some(Signal::Pause(wait) | Signal::HealthAndPause(_, wait)) => self.pause(lane, self.now + *wait),
                    _ => {}
                }
            }
        }
    }

    /// Whether the queue still knows the flight: what is reported later says nothing.
    fn is_known(&self, ticket: &Ticket<Toy>) -> bool {
        self.harness.is_flying(ticket)
    }

    fn note_written(&mut self, ticket: &Ticket<Toy>, written: &Written<Toy>) {
        if matches!(written, Written::Noted) {
            return;
        }
        self.writing.remove(&ticket.id);
        if self.facts[ticket.id as usize].1 == 1 {
            self.busy.remove(&(ticket.id, 0));
        }
        match written {
            // What was not recorded is sent again.
            Written::Superseded(_) | Written::Unread => self.answered.retain(|(id, ..)| *id != ticket.id),
            Written::Finished { .. } => {
                self.in_hand.remove(&ticket.id);
            }
            Written::Retry { .. } | Written::Gone | Written::Noted => {}
        }
    }

    // What the queue is to do.

    /// Takes all that is to be done now.
    fn act(&mut self) {
        let now = self.time();
        while let Some(action) = self.harness.queue.next(now) {
            assert!(!self.is_draining || matches!(action, Action::Write { .. }), "only writes after the drain");
            match action {
                Action::Load(ticket) => {
                    self.starts(&ticket);
                    self.loaded.insert((ticket.id, ticket.event));
                    self.tasks.push(Task::Load(ticket));
                }
                Action::Send(flight) => self.sends(flight),
                Action::Write { ticket, item, content } => {
                    self.writes(&ticket, &content);
                    self.tasks.push(Task::Write(ticket, item, content));
                }
                Action::Pull { of, want, .. } => self.pulls(&of, want),
            }
        }
        if let Some(at) = self.harness.queue.wake_at() {
            assert!(at > self.now, "it does not rest");
        }
    }

    /// A flight begins.
    fn starts(&mut self, ticket: &Ticket<Toy>) {
        let (id, event) = (ticket.id, ticket.event);
        assert!(self.busy.insert((id, event)), "{id}/{event} flies twice at once");
        assert!(!self.writing.contains(&id) || self.facts[id as usize].1 > 1, "{id} starts while it is written");
        // What the source still shows of an entry that is gone may be loaded, and is not sent.
        let is_gone = !self.store.entries.contains_key(&id);
        assert!(is_gone || !self.answered.contains(&(id, ticket.began, event)), "{id}/{event} was finished");
        let subscriber = &self.subscribers[lane_of(ticket)];
        assert!(self.term.is_some() && subscriber.gate.is_none(), "{id} starts behind {:?}", subscriber.gate);
        assert!(subscriber.paused_until.is_none_or(|until| until <= self.now), "{id} starts inside a pause");
        assert!(!self.has_ended(ticket), "{id} starts after its end");
    }

    fn sends(&mut self, flight: Flight<Toy>) {
        let (id, event, lane) = (flight.ticket.id, flight.ticket.event, lane_of(&flight.ticket));
        if !self.loaded.remove(&(id, event)) {
            self.starts(&flight.ticket);
            let scope = &self.scopes[lane % SCOPES];
            assert!(!self.term.is_some_and(|term| term.contested), "{id} may be old: the term is contested");
            assert!(!scope.is_contested, "{id} may be old: the first listing has not ended");
            if let Some(Shown::Present(entry)) = self.shown.get(&id)
                && self.store.entries.contains_key(&id)
                && entry.version >= *flight.item
            {
                assert_eq!(*flight.item, entry.version, "{id} is sent as it was");
            }
        }
        let answered = (id, flight.ticket.began, event);
        assert!(!self.answered.contains(&answered), "{id}/{event} was finished and is sent");
        // By the version that it began with, whatever came since.
        let version = spec(flight.route.into());
        self.tasks.push(Task::Send(flight, version));
    }

    fn writes(&mut self, ticket: &Ticket<Toy>, content: &Content<&'static str>) {
        let id = ticket.id;
        match content {
            Content::Outcome(_) => assert!(self.writing.insert(id), "{id} is written twice at once"),
            Content::Expired => {
                assert!(self.writing.insert(id), "{id} is written twice at once");
                assert!(!self.busy.iter().any(|(busy, _)| *busy == id), "{id} expires in flight");
                assert!(self.has_ended(ticket), "{id} expires before its time");
            }
            Content::Waiting(gate) => {
                let subscriber = &self.subscribers[lane_of(ticket)];
                assert!(
                    subscriber.gate.is_none_or(|held| held == *gate),
                    "{id} names {gate:?} behind {:?}",
                    subscriber.gate
                );
            }
            Content::Returned => {
                assert!(!self.busy.contains(&(id, 0)) && self.in_hand.contains(&id), "{id} is given back");
            }
        }
    }

    fn pulls(&mut self, of: &SubscriberKey, want: Want) {
        let lane = (0..LANES).find(|lane| key(*lane) == *of).unwrap();
        let subscriber = &self.subscribers[lane];
        assert!(self.term.is_some() && subscriber.gate.is_none(), "a pull behind {:?}", subscriber.gate);
        assert!(subscriber.paused_until.is_none_or(|until| until <= self.now), "a pull inside a pause");
        let is_open = |task: &Task| matches!(task, Task::Pull(other, _) if *other == lane);
        let is_answer = |done: &Done<Toy>| matches!(done, Done::Pulled { of: other, .. } if other == of);
        assert!(!self.tasks.iter().any(is_open) && !self.reports.iter().any(|(done, _)| is_answer(done)), "two pulls");
        let free = subscriber.limit - self.harness.pending(of).min(subscriber.limit);
        assert!((1..=free).contains(&want.events), "{} are pulled for {free}", want.events);
        self.tasks.push(Task::Pull(lane, want));
    }

    /// Whether an entry has expired, by all that is known.
    fn has_ended(&self, ticket: &Ticket<Toy>) -> bool {
        let (lane, now) = (lane_of(ticket), self.seconds());
        let began = ticket.began.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let subscriber = &self.subscribers[lane];
        let listed_since = self.scopes[lane % SCOPES].listed_since.unwrap_or(u64::MAX);
        let ends = match subscriber.lifetime {
            Lifetime::Known(lifetime) => began + lifetime,
            Lifetime::Missing(since) => (began + DAY).max(since.min(listed_since) + HOUR),
            Lifetime::Unknown => u64::MAX,
        };
        let all = matches!(subscriber.gate, Some(Gate::EndpointGone | Gate::SubscriberNotFound));
        let own = self.facts[ticket.id as usize].2.map_or(u64::MAX, |lifetime| began + lifetime.as_secs());
        own <= now || ((ticket.attempts > 0 || all) && ends <= now)
    }

    /// Lets time pass: before the queue is to be woken it has nothing to do.
    fn pass(&mut self, until: Instant) {
        self.act();
        let wake_at = self.harness.queue.wake_at();
        self.now = until;
        if wake_at.is_none_or(|at| until < at) {
            let now = self.time();
            assert!(self.harness.queue.next(now).is_none(), "it should have been woken before {wake_at:?}");
        }
    }

    /// All is open, the watch has shown everything, and the webhooks take what they get: in the end nothing is left.
    fn let_go(&mut self) {
        self.take(Step::Own(false));
        for scope in 0..SCOPES {
            self.take(Step::Listed(scope));
            self.list_begins(scope);
            self.list_ends(scope);
        }
        for lane in 0..LANES {
            self.take(Step::Reset(lane));
            self.open(lane, 3, 4, DAY);
            self.observe(Seen::Supply { source: SOURCE, of: key(lane), any: !self.stock[lane].is_empty() });
        }
        let cancelled = self.store.entries.iter().filter(|(_, entry)| entry.is_cancelled).map(|(id, _)| *id);
        let cancelled: Vec<_> = cancelled.collect();
        let today = self.today();
        cancelled.into_iter().for_each(|id| self.store.change(id, Change::Delete, today));
        for _ in 0..20_000 {
            while let Some(id) = self.watchable().first().copied() {
                self.watch(id);
            }
            self.act();
            if !self.tasks.is_empty() || !self.reports.is_empty() {
                let tasks: Vec<_> = self.tasks.drain(..).collect();
                tasks.into_iter().for_each(|task| self.perform(task, Outcome::Ok, Luck::Good));
                let reports: Vec<_> = self.reports.drain(..).collect();
                reports.into_iter().for_each(|(done, version)| self.report(done, version));
            } else if let Some(at) = self.harness.queue.wake_at() {
                self.now = at;
            } else {
                return self.nothing_is_left();
            }
        }
        panic!("it never ends");
    }

    fn nothing_is_left(&mut self) {
        let left: Vec<_> = self.store.entries.iter().filter(|(_, entry)| !entry.is_done).collect();
        assert!(left.is_empty(), "lost: {left:?}");
        let queue = &self.harness.queue;
        assert_eq!((queue.len(), queue.in_flight(), queue.bytes_in_flight()), (0, 0, 0));
        assert!(self.harness.is_bare() && self.in_hand.is_empty());
        assert_eq!(self.harness.tombstones(), 0);
    }

    /// After the drain, what is under way ends.
    fn drain(&mut self) {
        self.is_draining = true;
        self.harness.queue.drain();
        // What was loaded and not handed out is not sent.
        let is_loading = |key: &(u32, u16)| {
            let is_it = |ticket: &Ticket<Toy>| (ticket.id, ticket.event) == *key;
            let tasks = self.tasks.iter().any(|task| matches!(task, Task::Load(ticket) if is_it(ticket)));
            let of = |done: &Done<Toy>| matches!(done, Done::Loaded { ticket, .. } if is_it(ticket));
            tasks || self.reports.iter().any(|(done, _)| of(done))
        };
        let held: Vec<_> = self.loaded.iter().filter(|key| !is_loading(key)).copied().collect();
        self.busy.retain(|key| !held.contains(key));
        loop {
            self.act();
            if self.tasks.is_empty() && self.reports.is_empty() {
                break;
            }
            let tasks: Vec<_> = self.tasks.drain(..).collect();
            tasks.into_iter().for_each(|task| self.perform(task, Outcome::Ok, Luck::Good));
            let reports: Vec<_> = self.reports.drain(..).collect();
            reports.into_iter().for_each(|(done, version)| self.report(done, version));
        }
        let queue = &self.harness.queue;
        assert_eq!((queue.in_flight(), queue.bytes_in_flight(), queue.wake_at()), (0, 0, None));
        assert!(self.in_hand.is_empty(), "{:?} are not given back", self.in_hand);
    }
}

fn lane_of(ticket: &Ticket<Toy>) -> usize {
    (0..LANES).find(|lane| key(*lane) == ticket.of).unwrap()
}

fn pick<T>(of: &[T], n: usize) -> Option<usize> {
    n.checked_rem(of.len())
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn whatever_happens_nothing_is_lost_and_nothing_is_sent_when_it_may_not_be(
        steps in vec((step(), proptest::bool::weighted(0.8)), 1..250),
    ) {
        let mut world = World::new();
        for (step, acts) in steps {
            world.take(step);
            if acts {
                world.act();
            }
        }
        world.let_go();
    }

    #[test]
    fn after_the_drain_what_is_under_way_ends_and_what_was_pulled_is_given_back(
        steps in vec((step(), proptest::bool::weighted(0.8)), 1..150),
    ) {
        let mut world = World::new();
        (0..LANES).for_each(|lane| world.open(lane, 1, 4, DAY));
        for (step, acts) in steps {
            world.take(step);
            if acts {
                world.act();
            }
        }
        world.drain();
    }
}
