//! The rules of `delivery.md` in the simplest form: every step checks everything.

mod rules;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::{Gate, Health, Limits, SubscriberKey};

pub const NAMESPACES: usize = 3;
pub const LANES: usize = 9;
const SECOND: Duration = Duration::from_secs(1);

/// What an id's event has, in bytes.
pub fn bytes(id: u32) -> usize {
    [0, 1, 3, 9, 60][id as usize % 5]
}

pub fn key(lane: usize) -> SubscriberKey {
    SubscriberKey { namespace: format!("n{}", lane % NAMESPACES).into(), name: format!("s{lane}").into() }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    Waiting(Instant),
    Due(Instant),
    InFlight { began: Instant, cycle: u32, reported: bool },
}

#[derive(Clone, Debug)]
pub struct Item {
    pub lane: usize,
    pub place: Place,
    pub tried: Option<Instant>,
    pub explained: HashSet<Gate>,
}

#[derive(Clone, Debug)]
pub struct Subscriber {
    pub closed: Option<Gate>,
    pub limits: Limits,
    pub paused_until: Option<Instant>,
    failures: u32,
    cycle: u32,
    /// The wait for the next probe, and when it may start.
    pub circuit: Option<(Duration, Instant)>,
    probe: Option<u32>,
    pub queue: Vec<u32>,
    /// When attempts started that were not put back, and the number of the limit that was in force.
    starts: Vec<(Instant, u32)>,
    limit_no: u32,
    /// The gate that holds it, and since when.
    gate: Option<(Gate, Instant)>,
    /// The same, as far as the queue could have noticed.
    noticed: Option<(Gate, Instant)>,
}

impl Default for Subscriber {
    fn default() -> Self {
        Self {
            closed: Some(Gate::SubscriberNotFound),
            limits: Limits { max_in_flight: 1, rate_per_minute: None },
            paused_until: None,
            failures: 0,
            cycle: 0,
            circuit: None,
            probe: None,
            queue: Vec::new(),
            starts: Vec::new(),
            limit_no: 0,
            gate: None,
            noticed: None,
        }
    }
}

pub struct Model {
    pub now: Instant,
    pub cap: usize,
    pub max_bytes: usize,
    pub items: BTreeMap<u32, Item>,
    /// The numbers that the queue gives ids: of those that are due at the same moment, the lowest is first.
    pub numbers: BTreeMap<u32, u32>,
    pub lanes: Vec<Subscriber>,
    /// How often the second lane (or namespace) started while the first could have.
    passed: HashMap<(usize, usize), u32>,
    passed_namespaces: HashMap<(usize, usize), u32>,
    explanations: Vec<Instant>,
    view: View,
}

/// What is counted again after each step.
#[derive(Default)]
struct View {
    in_flight: [usize; LANES],
    bytes: [usize; LANES],
    first_due: [Option<Instant>; LANES],
    could_start: [bool; LANES],
}

impl Model {
    pub fn new(cap: usize, max_bytes: usize, now: Instant) -> Self {
        let lanes = vec![Subscriber::default(); LANES];
        let (items, numbers, passed, passed_namespaces, explanations, view) = Default::default();
        Self { now, cap, max_bytes, items, numbers, lanes, passed, passed_namespaces, explanations, view }
    }

    pub fn in_flight(&self) -> Vec<u32> {
        let flies = |item: &Item| matches!(item.place, Place::InFlight { .. });
        self.items.iter().filter(|(_, item)| flies(item)).map(|(id, _)| *id).collect()
    }

    pub fn bytes_in_flight(&self) -> usize {
        self.in_flight().iter().map(|id| bytes(*id).min(self.max_bytes / 8)).sum()
    }

    /// Those that wait, by when they are due.
    pub fn waiting(&self) -> Vec<(Instant, u32, usize)> {
        let waiting = |(id, item): (&u32, &Item)| match item.place {
            Place::Waiting(due) => Some((due, *id, item.lane)),
            _ => None,
        };
        let mut waiting: Vec<_> = self.items.iter().filter_map(waiting).collect();
        waiting.sort_by_key(|(due, id, _)| (*due, self.numbers[id]));
        waiting
    }

    pub fn gate(&self, lane: usize) -> Option<Gate> {
        let lane = &self.lanes[lane];
        let paused = lane.paused_until.filter(|until| *until > self.now).map(|_| Gate::Paused);
        lane.closed.or(paused).or(lane.circuit.map(|_| Gate::CircuitOpen))
    }

    // What is done to the queue.

    pub fn add(&mut self, id: u32, lane: usize, due: Option<Instant>, explained: Option<Gate>) {
        self.wake(|of| of == lane);
        let known = self.items.get(&id).cloned();
        let mut item =
            known.clone().unwrap_or(Item { lane, place: Place::Due(self.now), tried: None, explained: [].into() });
        if matches!(item.place, Place::InFlight { .. }) && known.is_some() {
            return;
        }
        item.explained.extend(explained);
        let due = due.filter(|due| *due > self.now);
        let keeps = known.is_some() && item.lane == lane && matches!(item.place, Place::Due(_)) && due.is_none();
        if !keeps {
            self.remove(id);
            item.lane = lane;
            item.place = due.map_or(Place::Due(self.now), Place::Waiting);
            if due.is_none() {
                self.lanes[lane].queue.push(id);
            }
        }
        self.items.insert(id, item);
    }

    pub fn remove(&mut self, id: u32) {
        if let Some(item) = self.items.get(&id)
            && !matches!(item.place, Place::InFlight { .. })
        {
            self.lanes[item.lane].queue.retain(|queued| *queued != id);
            self.items.remove(&id);
        }
    }

    pub fn open(&mut self, lane: usize, limits: Limits) {
        let lane = &mut self.lanes[lane];
        lane.closed = None;
        lane.limit_no += u32::from(lane.limits.rate_per_minute != limits.rate_per_minute);
        lane.limits = limits;
    }

    pub fn pause(&mut self, lane: usize, until: Instant) {
        let lane = &mut self.lanes[lane];
        if lane.paused_until.is_some_and(|latest| latest >= until) {
            return;
        }
        lane.paused_until = Some(until);
        lane.noticed = lane.noticed.filter(|_| lane.closed.is_some());
    }

    pub fn reset(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        (lane.paused_until, lane.circuit, lane.failures, lane.probe) = (None, None, 0, None);
        lane.cycle += 1;
    }

    pub fn report(&mut self, id: u32, health: Health) {
        let item = self.items.get_mut(&id).unwrap();
        let Place::InFlight { cycle, reported, .. } = &mut item.place else { panic!("{id} is not in flight") };
        *reported = true;
        let (cycle, no, now) = (*cycle, item.lane, self.now);
        let lane = &mut self.lanes[no];
        if health != Health::Failure {
            (lane.circuit, lane.failures, lane.probe) = (None, 0, None);
        } else if let Some((wait, at)) = &mut lane.circuit {
            if lane.probe == Some(id) {
                *wait = (*wait * 2).min(900 * SECOND);
                *at = now + *wait;
            }
        } else if cycle == lane.cycle {
            lane.failures += 1;
            if lane.failures == 5 {
                lane.circuit = Some((30 * SECOND, now + 30 * SECOND));
                (lane.failures, lane.cycle) = (0, lane.cycle + 1);
            }
        }
        self.wake(|of| of == no);
    }

    pub fn end(&mut self, id: u32) -> Item {
        let item = self.items.remove(&id).unwrap();
        let probe = &mut self.lanes[item.lane].probe;
        *probe = probe.filter(|probe| *probe != id);
        item
    }

    pub fn retry(&mut self, id: u32, due: Instant) {
        let item = self.end(id);
        let Place::InFlight { began, .. } = item.place else { panic!("{id} is not in flight") };
        let place = Place::Waiting(due);
        self.items.insert(id, Item { lane: item.lane, place, tried: Some(began), explained: HashSet::new() });
    }

    pub fn put_back(&mut self, id: u32) {
        let item = self.end(id);
        let Place::InFlight { began, .. } = item.place else { panic!("{id} is not in flight") };
        let lane = &mut self.lanes[item.lane];
        lane.queue.insert(0, id);
        if let Some(found) = lane.starts.iter().rposition(|(start, _)| *start == began) {
            lane.starts.remove(found);
        }
        self.items.insert(id, Item { place: Place::Due(self.now), ..item });
    }

    // What the queue does.

    /// Everything that happens by time.
    pub fn settle(&mut self) {
        self.wake(|_| true);
        for no in 0..LANES {
            let gate = self.gate(no);
            let idle = || self.items.values().all(|item| item.lane != no);
            let rests = self.lanes[no].paused_until.max(self.next_by_rate(no));
            if gate == Some(Gate::SubscriberNotFound) && rests.is_none_or(|rests| rests <= self.now) && idle() {
                self.lanes[no] = Subscriber::default();
                continue;
            }
            let lane = &mut self.lanes[no];
            if lane.noticed.map(|(gate, _)| gate) != gate {
                lane.noticed = gate.map(|gate| (gate, self.now));
            }
        }
        self.look();
    }

    /// Updates which events are behind a gate and which could start. An event that could not start begins a new wait.
    pub fn look(&mut self) {
        self.view = View::default();
        for (id, item) in &self.items {
            let first_due = &mut self.view.first_due[item.lane];
            match item.place {
                Place::InFlight { .. } => {
                    self.view.in_flight[item.lane] += 1;
                    self.view.bytes[item.lane] += bytes(*id).min(self.max_bytes / 8);
                }
                Place::Waiting(due) | Place::Due(due) => {
                    *first_due = Some(first_due.map_or(due, |first| first.min(due)))
                }
            }
        }
        for no in 0..LANES {
            let gate = self.gate(no);
            let lane = &mut self.lanes[no];
            lane.noticed = lane.noticed.filter(|(noticed, _)| Some(*noticed) == gate);
            if lane.gate.map(|(gate, _)| gate) != gate {
                lane.gate = gate.map(|gate| (gate, self.now));
            }
            self.view.could_start[no] = self.could_start_at(no).is_some_and(|at| at <= self.now);
            if !self.view.could_start[no] {
                self.passed.retain(|(waiter, _), _| *waiter != no);
            }
        }
        for namespace in 0..NAMESPACES {
            if !self.namespace_could_start(namespace) {
                self.passed_namespaces.retain(|(waiter, _), _| *waiter != namespace);
            }
        }
    }

    /// The queue started `id`: may it?
    pub fn started(&mut self, id: u32) {
        let item = self.items.get(&id).unwrap_or_else(|| panic!("{id} is not held"));
        let no = item.lane;
        assert!(matches!(item.place, Place::Due(_)), "{id} is not due: {item:?}");
        assert!(self.could_start(no), "{id} may not start: {:?}", self.lanes[no]);
        assert!(self.may_have_room(no), "{id} exceeds a cap");
        assert_eq!(Some(id), self.candidate(no), "{id} is not the next of its lane");
        for other in (0..LANES).filter(|other| *other != no && other % NAMESPACES == no % NAMESPACES) {
            if self.could_start(other) {
                let passed = self.passed.entry((other, no)).or_default();
                *passed += 1;
                assert!(*passed <= 1, "lane {no} has two turns while {other} waits");
            }
        }
        for other in (0..NAMESPACES).filter(|other| *other != no % NAMESPACES) {
            if self.namespace_could_start(other) {
                let passed = self.passed_namespaces.entry((other, no % NAMESPACES)).or_default();
                *passed += 1;
                assert!(*passed <= 1, "namespace {} has two turns while {other} waits", no % NAMESPACES);
            }
        }
        self.passed.retain(|(waiter, _), _| *waiter != no);
        self.passed_namespaces.retain(|(waiter, _), _| *waiter != no % NAMESPACES);
        let (lane, now) = (&mut self.lanes[no], self.now);
        lane.queue.retain(|queued| *queued != id);
        lane.starts.push((now, lane.limit_no));
        if let Some(rate) = lane.limits.rate_per_minute {
            let counts = |(start, limit): &&(Instant, u32)| now - *start < 60 * SECOND && *limit == lane.limit_no;
            let starts = lane.starts.iter().filter(counts).count();
            assert!(starts <= rate as usize, "{starts} starts in a minute, {rate} are allowed");
        }
        if lane.circuit.is_some() {
            lane.probe = Some(id);
        }
        let place = Place::InFlight { began: now, cycle: lane.cycle, reported: false };
        self.items.entry(id).and_modify(|item| item.place = place);
    }

    /// The queue has nothing more to start now and wakes at `wake_at`: is that all?
    pub fn rested(&self, wake_at: Option<Instant>) {
        for no in (0..LANES).filter(|no| self.namespace_has_room(*no % NAMESPACES)) {
            assert!(!self.could_start(no), "lane {no} could start: {:?}", self.lanes[no]);
            if let Some(at) = self.could_start_at(no) {
                assert!(wake_at.is_some_and(|wake| wake <= at), "lane {no} is overslept: {:?}", self.lanes[no]);
            }
        }
        assert!(wake_at.is_none_or(|wake| wake > self.now), "woken again and again without effect");
    }

    /// Checks that `id` had to name `gate`.
    pub fn explained(&mut self, id: u32, gate: Gate) {
        let item = self.items.get_mut(&id).unwrap();
        let held = self.lanes[item.lane].gate.filter(|(held, _)| *held == gate);
        let since = held.unwrap_or_else(|| panic!("{id} names {gate:?}, which does not hold it")).1;
        let Place::Due(due) = item.place else { panic!("{id} names {gate:?} and is not due") };
        assert!(since.max(due) + 5 * SECOND <= self.now, "{id} names {gate:?} too early");
        assert!(item.explained.insert(gate), "{id} names {gate:?} again");
        self.explanations.push(self.now);
        if let Some(sixth) = self.explanations.iter().rev().nth(5) {
            assert!(*sixth + SECOND <= self.now, "more than five explanations in a second");
        }
    }

    /// Checks that no entry must name its gate now, and when the next one must.
    pub fn silent(&self, ask_at: Option<Instant>) {
        let pace = self.explanations.last().map(|last| *last + SECOND / 5);
        let due = |item: &Item| {
            let (gate, since) = self.lanes[item.lane].noticed?;
            let Place::Due(due) = item.place else { return None };
            let unexplained = (!item.explained.contains(&gate)).then_some(since.max(due) + 5 * SECOND);
            unexplained.max(pace.filter(|_| unexplained.is_some()))
        };
        if let Some(first) = self.items.values().filter_map(due).min() {
            assert!(first > self.now, "an entry should name its gate");
            assert!(ask_at.is_some_and(|ask| ask <= first), "an entry names its gate too late");
        }
        assert!(ask_at.is_none_or(|ask| ask > self.now), "asked again and again without effect");
    }
}
