//! Whatever is done to a queue in whatever order, the rules hold: it is compared with a [`model`] after each step.

mod crashes;
mod model;
mod whole;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proptest::{collection::vec, option, prelude::*, sample::select};

use self::model::{LANES, Model, Place, bytes, key};
use super::harness::Harness;
use crate::{Gate, Health, Limits};

const IDS: u32 = 50;

#[derive(Clone, Debug)]
enum Step {
    Add {
        id: u32,
        elsewhere: Option<usize>,
        due: Option<u64>,
        explained: Option<Gate>,
    },
    Remove(u32),
    Open(usize, Limits),
    Close(usize, Gate),
    Pause(usize, u64),
    Reset(usize),
    Next,
    NextUntilNone,
    /// One of those in flight.
    Report(usize, Health),
    End(usize),
    Retry(usize, u64),
    PutBack(usize),
    /// All in flight report the same and come again.
    Storm(Health, u64),
    ExplainNow,
    /// Two seconds of them, as the queue's owner would.
    ExplanationBudget,
    Pass(u64),
    PassUntilWoken,
    PassUntilExplanation,
}

fn millis() -> impl Strategy<Value = u64> {
    prop_oneof![0..50_u64, 50..2000_u64, select(vec![5000, 10_000, 30_000, 60_000]), 2000..120_000_u64, Just(900_000)]
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let lane = || 0..LANES;
    let limits = (1..20_usize, option::of(select(vec![1_u32, 6, 7, 60, 100, 601])));
    let limits = limits.prop_map(|(max_in_flight, rate_per_minute)| Limits { max_in_flight, rate_per_minute });
    let closed = || select(vec![Gate::SubscriberNotFound, Gate::SubscriberNotReady, Gate::Suspended]);
    let gates = || select(vec![Gate::SubscriberNotFound, Gate::Suspended, Gate::Paused, Gate::CircuitOpen]);
    let health = || select(vec![Health::Failure, Health::Failure, Health::Failure, Health::Success, Health::Answered]);
    let add = (0..IDS, option::weighted(0.1, lane()), option::weighted(0.4, millis()), option::weighted(0.2, gates()));
    prop_oneof![
        16 => add.prop_map(|(id, elsewhere, due, explained)| Add { id, elsewhere, due, explained }),
        2 => (0..IDS).prop_map(Remove),
        8 => (lane(), limits).prop_map(|(lane, limits)| Open(lane, limits)),
        2 => (lane(), closed()).prop_map(|(lane, gate)| Close(lane, gate)),
        2 => (lane(), millis()).prop_map(|(lane, millis)| Pause(lane, millis)),
        1 => lane().prop_map(Reset),
        6 => Just(Next),
        6 => Just(NextUntilNone),
        6 => (any::<usize>(), health()).prop_map(|(n, health)| Report(n, health)),
        2 => any::<usize>().prop_map(End),
        4 => (any::<usize>(), millis()).prop_map(|(n, millis)| Retry(n, millis)),
        4 => any::<usize>().prop_map(PutBack),
        4 => (health(), 0..3000_u64).prop_map(|(health, millis)| Storm(health, millis)),
        4 => Just(ExplainNow),
        4 => Just(ExplanationBudget),
        6 => millis().prop_map(Pass),
        6 => Just(PassUntilWoken),
        3 => Just(PassUntilExplanation),
    ]
}

/// A queue and what it should be.
struct World {
    queue: Harness,
    model: Model,
}

impl World {
    fn new(cap: usize, bytes: usize) -> Self {
        let now = Instant::now();
        Self { queue: Harness::new(cap, bytes, now), model: Model::new(cap, bytes, now) }
    }

    fn take(&mut self, step: Step) {
        let now = self.model.now;
        let after = |millis| now + Duration::from_millis(millis);
        match step {
            Step::Add { id, elsewhere, due, explained } => {
                let lane = elsewhere.unwrap_or(id as usize % LANES);
                // An entry stays with its Subscriber.
                let lane = self.model.items.get(&id).map_or(lane, |item| item.lane);
                self.queue.add(id, key(lane), due.map(after), explained, bytes(id), now);
                self.model.add(id, lane, due.map(after), explained);
                self.model.numbers.insert(id, self.queue.no(id).unwrap());
            }
            Step::Remove(id) => {
                self.queue.remove(&id, now);
                self.model.remove(id);
            }
            Step::Open(lane, limits) => {
                self.queue.open(&key(lane), limits);
                self.model.open(lane, limits);
            }
            Step::Close(lane, gate) => {
                self.queue.close(&key(lane), gate);
                self.model.lanes[lane].closed = Some(gate);
            }
            Step::Pause(lane, millis) => {
                self.queue.pause(&key(lane), after(millis));
                self.model.pause(lane, after(millis));
            }
            Step::Reset(lane) => {
                self.queue.reset(&key(lane));
                self.model.reset(lane);
            }
            Step::Next => drop(self.next()),
            Step::NextUntilNone => while self.next().is_some() {},
            Step::Report(n, health) => self.pick(n).into_iter().for_each(|id| self.report(id, health)),
            Step::End(n) => self.pick(n).into_iter().for_each(|id| self.end(id)),
            Step::Retry(n, millis) => self.pick(n).into_iter().for_each(|id| self.retry(id, after(millis))),
            Step::PutBack(n) => {
                if let Some(id) = self.pick(n) {
                    self.queue.put_back(&id, now);
                    self.model.put_back(id);
                }
            }
            Step::Storm(health, millis) => {
                while self.next().is_some() {}
                for id in self.model.in_flight() {
                    self.report(id, health);
                    self.retry(id, after(millis));
                }
            }
            Step::ExplainNow => drop(self.explanation()),
            Step::ExplanationBudget => {
                while self.model.now < after(2000) {
                    while self.next().is_some() || self.explanation().is_some() {}
                    let (wake_at, ask_at) = (self.queue.wake_at(), self.queue.explain_at());
                    self.model.now = wake_at.into_iter().chain(ask_at).min().unwrap_or(after(2000));
                    self.model.look();
                }
            }
            Step::Pass(millis) => self.model.now = after(millis),
            Step::PassUntilWoken => self.model.now = now.max(self.queue.wake_at().unwrap_or(now)),
            Step::PassUntilExplanation => self.model.now = now.max(self.queue.explain_at().unwrap_or(now)),
        }
        self.model.look();
        self.compare();
    }

    fn next(&mut self) -> Option<u32> {
        self.model.settle();
        let id = self.queue.next(self.model.now);
        match id {
            Some(id) => self.model.started(id),
            None => self.model.rested(self.queue.wake_at()),
        }
        self.model.look();
        id
    }

    fn explanation(&mut self) -> Option<u32> {
        self.model.settle();
        let explained = self.queue.explain(self.model.now);
        match explained {
            Some((id, gate)) => self.model.explained(id, gate),
            None => self.model.silent(self.queue.explain_at()),
        }
        explained.map(|(id, _)| id)
    }

    fn pick(&self, n: usize) -> Option<u32> {
        let in_flight = self.model.in_flight();
        in_flight.get(n.checked_rem(in_flight.len())?).copied()
    }

    fn report(&mut self, id: u32, health: Health) {
        if matches!(self.model.items[&id].place, Place::InFlight { reported: false, .. }) {
            self.queue.report(&id, health, self.model.now);
            self.model.report(id, health);
        }
    }

    fn end(&mut self, id: u32) {
        self.queue.end(&id);
        self.model.end(id);
    }

    fn retry(&mut self, id: u32, due: Instant) {
        self.queue.retry(&id, due);
        self.model.retry(id, due);
    }

    /// Every id is where it should be, and every gate is as it should be.
    fn compare(&self) {
        let (queue, model) = (&self.queue, &self.model);
        let in_flight = model.in_flight();
        assert_eq!(queue.in_flight(), in_flight.len());
        assert_eq!(queue.bytes_in_flight(), model.bytes_in_flight());
        let mut pending = 0;
        let waiting = model.waiting();
        for (no, lane) in model.lanes.iter().enumerate() {
            let (key, waiting) = (key(no), waiting.iter().filter(|(.., of)| *of == no).map(|(_, id, _)| *id));
            let ids: Vec<_> = lane.queue.iter().copied().chain(waiting).collect();
            assert_eq!(queue.ids_of(&key), ids, "lane {no}");
            pending += queue.pending(&key);
            assert_eq!(queue.queued(&key), lane.queue.len());
            assert_eq!(queue.gate(&key, model.now), model.gate(no));
            assert_eq!(queue.is_open_circuit(&key), lane.circuit.is_some());
        }
        assert_eq!(pending, model.items.len());
        for id in 0..IDS {
            assert_eq!(queue.is_in_flight(&id), in_flight.contains(&id), "{id}");
        }
    }

    /// Opens everything and lets time pass: returns what starts.
    fn let_go(&mut self) -> BTreeSet<u32> {
        for lane in 0..LANES {
            let limits = Limits { max_in_flight: 1 + lane, rate_per_minute: (lane % 2 == 0).then_some(60) };
            self.take(Step::Open(lane, limits));
            self.take(Step::Reset(lane));
        }
        let mut started: BTreeSet<_> = self.model.in_flight().into_iter().collect();
        loop {
            while let Some(id) = self.next() {
                started.insert(id);
            }
            let in_flight = self.model.in_flight();
            in_flight.iter().for_each(|id| self.end(*id));
            if in_flight.is_empty() {
                match self.queue.wake_at() {
                    Some(at) => self.model.now = at,
                    None => return started,
                }
            }
        }
    }
}

/// PROPTEST_CASES, default 256, gives how hard to try.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases / 2, failure_persistence: None, ..config }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_rule_holds_after_every_step_and_nothing_is_lost(
        cap in select(vec![1, 3, 8, 16, 40, 128]),
        bytes in select(vec![8, 40, 100, 4000]),
        steps in vec(step(), 1..200),
    ) {
        let mut world = World::new(cap, bytes);
        steps.into_iter().for_each(|step| world.take(step));
        let held: BTreeSet<_> = world.model.items.keys().copied().collect();
        prop_assert_eq!(world.let_go(), held);
    }

    #[test]
    fn one_failing_subscriber_obeys_every_rule(steps in vec(step(), 1..200)) {
        let mut world = World::new(64, 400);
        for id in 0..20 {
            world.take(Step::Add { id, elsewhere: Some(0), due: None, explained: None });
        }
        world.take(Step::Open(0, Limits { max_in_flight: 8, rate_per_minute: None }));
        for step in steps {
            match step {
                Step::Add { id, due, explained, .. } => world.take(Step::Add { id, elsewhere: Some(0), due, explained }),
                Step::Open(_, limits) => world.take(Step::Open(0, limits)),
                Step::Close(..) | Step::Remove(_) | Step::Reset(_) => world.take(Step::Storm(Health::Failure, 1000)),
                Step::Pause(_, millis) => world.take(Step::Pause(0, millis)),
                step => world.take(step),
            }
        }
        let held: BTreeSet<_> = world.model.items.keys().copied().collect();
        prop_assert_eq!(world.let_go(), held);
    }
}
