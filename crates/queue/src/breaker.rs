//! The circuit breaker: stops requests to a failing webhook, and probes it.

use std::time::{Duration, Instant};

const FAILURES_TO_OPEN: u32 = 5;
const FIRST_PROBE: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// What an attempt says about its webhook. An attempt that does not count because the webhook requested a pause is not
/// reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The webhook accepted the event.
    Success,
    /// Network, TLS, timeout, a redirect, 405, 408, 5xx, or repeated 401: five consecutive failures open the circuit.
    Failure,
    /// Any other response: the webhook is available; resets the count and closes the circuit.
    Answered,
}

/// The circuit of one Subscriber.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    cycle: Cycle,
    open: Option<Open>,
}

/// The period from one opening or reset of the circuit to the next. A failure of an attempt that began in an earlier
/// cycle is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cycle(u32);

#[derive(Debug)]
struct Open {
    wait: Duration,
    probe_at: Instant,
    probing: bool,
}

/// Which attempts a circuit allows to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// All attempts: the circuit is closed.
    All,
    /// One probe at this time: the circuit is open.
    ProbeAt(Instant),
    /// No attempt: a probe is in flight (half-open).
    Nothing,
}

impl Breaker {
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn cycle(&self) -> Cycle {
        self.cycle
    }

    pub(crate) fn allowance(&self) -> Allowance {
        match &self.open {
            None => Allowance::All,
            Some(open) if open.probing => Allowance::Nothing,
            Some(open) => Allowance::ProbeAt(open.probe_at),
        }
    }

    /// Records the start of an attempt. Returns whether the attempt is a probe.
    pub(crate) fn start(&mut self) -> bool {
        if let Some(open) = &mut self.open {
            open.probing = true;
        }
        self.is_open()
    }

    /// Records that the probe that began in `cycle` has ended.
    pub(crate) fn probe_ended(&mut self, cycle: Cycle) {
        if cycle == self.cycle
            && let Some(open) = &mut self.open
        {
            open.probing = false;
        }
    }

    /// Records the result of an attempt that began in `cycle`.
    pub(crate) fn report(&mut self, health: Health, cycle: Cycle, now: Instant) {
        match (health, &mut self.open) {
            (Health::Success | Health::Answered, _) => {
                self.failures = 0;
                self.open = None;
            }
            (Health::Failure, _) if cycle != self.cycle => {}
            // Only a probe can belong to this cycle.
            (Health::Failure, Some(open)) => {
                open.wait = (open.wait * 2).min(LONGEST_WAIT);
                open.probe_at = now + open.wait;
            }
            (Health::Failure, None) => {
                self.failures += 1;
                if self.failures >= FAILURES_TO_OPEN {
                    self.begin_cycle();
                    self.open = Some(Open { wait: FIRST_PROBE, probe_at: now + FIRST_PROBE, probing: false });
                }
            }
        }
    }

    /// Closes the circuit. Attempts in flight cannot open it again.
    pub(crate) fn reset(&mut self) {
        self.open = None;
        self.begin_cycle();
    }

    fn begin_cycle(&mut self) {
        self.failures = 0;
        self.cycle = Cycle(self.cycle.0.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fail(breaker: &mut Breaker, times: u32, now: Instant) {
        (0..times).for_each(|_| breaker.report(Health::Failure, breaker.cycle(), now));
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_any_answer_between_them_does_not() {
        for health in [Health::Success, Health::Answered] {
            let (mut breaker, now) = (Breaker::default(), Instant::now());
            fail(&mut breaker, 4, now);
            breaker.report(health, breaker.cycle(), now);
            fail(&mut breaker, 4, now);
            assert_eq!(breaker.allowance(), Allowance::All);
            fail(&mut breaker, 1, now);
            assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + 30 * SECOND));
            breaker.report(health, breaker.cycle(), now);
            assert_eq!(breaker.allowance(), Allowance::All);
        }
    }

    #[test]
    fn each_probe_that_fails_doubles_the_wait_up_to_a_quarter_of_an_hour() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 5, now);
        for wait in [60, 120, 240, 480, 900, 900] {
            assert!(breaker.start());
            assert_eq!(breaker.allowance(), Allowance::Nothing);
            fail(&mut breaker, 1, now);
            breaker.probe_ended(breaker.cycle());
            assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + wait * SECOND));
        }
    }

    #[test]
    fn failures_of_attempts_that_began_before_it_opened_count_nothing_even_once_it_closed() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let before = breaker.cycle();
        fail(&mut breaker, 5, now);
        breaker.report(Health::Failure, before, now + SECOND);
        assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + 30 * SECOND));
        breaker.report(Health::Success, breaker.cycle(), now);
        (0..5).for_each(|_| breaker.report(Health::Failure, before, now));
        assert_eq!(breaker.allowance(), Allowance::All);
    }

    #[test]
    fn a_probe_that_ends_without_a_report_allows_another_immediately() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 5, now);
        breaker.start();
        breaker.probe_ended(breaker.cycle());
        assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + 30 * SECOND));
    }

    #[test]
    fn a_probe_of_an_earlier_opening_does_not_free_the_place_of_this_ones() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 5, now);
        breaker.start();
        let earlier = breaker.cycle();
        breaker.report(Health::Success, earlier, now);
        fail(&mut breaker, 5, now);
        breaker.start();
        breaker.probe_ended(earlier);
        assert_eq!(breaker.allowance(), Allowance::Nothing);
    }

    #[test]
    fn a_reset_closes_it_and_what_was_under_way_cannot_open_it_again() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 5, now);
        let before = breaker.cycle();
        breaker.reset();
        (0..5).for_each(|_| breaker.report(Health::Failure, before, now));
        assert!(!breaker.is_open());
    }
}
