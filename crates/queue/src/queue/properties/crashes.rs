//! A process that dies and starts again, perhaps under another clock: it knows only what was recorded.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};

use super::super::harness::Harness;
use crate::{Gate, Limits, SubscriberKey};

const LANES: usize = 3;
/// No recorded time is believed beyond these.
const LONGEST_WAIT: i64 = 60;
const LONGEST_PAUSE: i64 = 120;

/// What the API server holds of one Notification; times in seconds of the wall clock that wrote them.
struct Record {
    lane: usize,
    next: Option<i64>,
    delivered: bool,
}

struct World {
    records: BTreeMap<u32, Record>,
    pauses: [i64; LANES],
    begun: Instant,
    now: Instant,
    /// What the wall clock is off by.
    skew: i64,
    queue: Harness,
    in_flight: Vec<u32>,
    /// Nothing of these may start before; as this process has read or set it.
    not_before: BTreeMap<u32, Instant>,
    paused_until: [Option<Instant>; LANES],
}

fn key(lane: usize) -> SubscriberKey {
    SubscriberKey { namespace: "a".into(), name: lane.to_string().into() }
}

impl World {
    fn wall(&self) -> i64 {
        self.now.duration_since(self.begun).as_secs() as i64 + self.skew
    }

    /// What is left of a recorded time, as far as it is believed.
    fn left(&self, recorded: i64, longest: i64) -> Duration {
        Duration::from_secs((recorded - self.wall()).clamp(0, longest) as u64)
    }

    fn start_process(&mut self) {
        self.queue = Harness::new(8, 1000, self.now);
        (self.in_flight, self.not_before) = (Vec::new(), BTreeMap::new());
        for lane in 0..LANES {
            self.queue.open(&key(lane), Limits { max_in_flight: 2, rate_per_minute: None });
            let pause = self.now + self.left(self.pauses[lane], LONGEST_PAUSE);
            self.paused_until[lane] = Some(pause);
            self.queue.pause(&key(lane), pause);
        }
        for (id, record) in self.records.iter().filter(|(_, record)| !record.delivered) {
            let due = record.next.map(|next| self.now + self.left(next, LONGEST_WAIT));
            self.not_before.extend(due.map(|due| (*id, due)));
            self.queue.add(*id, key(record.lane), due, None, 0, self.now);
        }
    }

    /// Starts what may start, else ends what was started first, else lets time pass. False if there is nothing left.
    fn step(&mut self, outcome: u8) -> bool {
        if let Some(id) = self.queue.next(self.now) {
            let record = &self.records[&id];
            assert!(!record.delivered, "{id} was recorded as delivered");
            assert!(self.not_before.get(&id).is_none_or(|due| *due <= self.now), "{id} before its time");
            assert!(self.paused_until[record.lane].is_none_or(|until| until <= self.now), "{id} inside a pause");
            self.in_flight.push(id);
        } else if !self.in_flight.is_empty() {
            let id = self.in_flight.remove(0);
            self.end(id, outcome);
        } else if let Some(wake) = self.queue.wake_at() {
            assert!(wake > self.now);
            self.now = wake;
        } else {
            return false;
        }
        true
    }

    fn end(&mut self, id: u32, outcome: u8) {
        let lane = self.records[&id].lane;
        let wait = match outcome {
            0 => {
                self.records.get_mut(&id).unwrap().delivered = true;
                return self.queue.end(&id);
            }
            1 => Duration::from_secs(5),
            _ => {
                let wait = Duration::from_secs(30);
                self.pauses[lane] = self.pauses[lane].max(self.wall() + 30);
                self.paused_until[lane] = self.paused_until[lane].max(Some(self.now + wait));
                self.queue.pause(&key(lane), self.now + wait);
                wait
            }
        };
        self.records.get_mut(&id).unwrap().next = Some(self.wall() + wait.as_secs() as i64);
        self.not_before.insert(id, self.now + wait);
        self.queue.retry(&id, self.now + wait);
    }
}

proptest! {
    #[test]
    fn crashes_and_clock_jumps_lose_nothing_and_break_no_pause(
        lanes in vec(0..LANES, 1..20),
        outcomes in vec(0..3u8, 1..40),
        crashes in vec((0..120usize, -7200..7200i64), 0..6),
    ) {
        let now = Instant::now();
        let records = (0..).zip(&lanes).map(|(id, lane)| (id, Record { lane: *lane, next: None, delivered: false }));
        let mut world = World {
            records: records.collect(), pauses: [0; LANES], begun: now, now, skew: 0, queue: Harness::new(8, 1000, now),
            in_flight: Vec::new(), not_before: BTreeMap::new(), paused_until: [None; LANES],
        };
        world.start_process();
        let mut step = 0;
        // In the end the webhooks take what they get.
        while world.step(outcomes.get(step).copied().unwrap_or(0)) {
            for (_, jump) in crashes.iter().filter(|(at, _)| *at == step) {
                world.skew += jump;
                world.start_process();
            }
            step += 1;
            prop_assert!(step < 10_000, "it never ends");
        }
        prop_assert!(world.records.values().all(|record| record.delivered), "something was lost");
        // Whatever the clocks said, no time was believed beyond its bound.
        let bound = (LONGEST_WAIT + LONGEST_PAUSE) as u64 * (outcomes.len() + crashes.len() + 1) as u64;
        prop_assert!(world.now.duration_since(now).as_secs() <= bound);
        prop_assert_eq!(world.queue.gate(&key(LANES), world.now), Some(Gate::SubscriberNotFound));
    }
}
