//! The circuit breaker: stops requests to a webhook that fails, or that rejects all events, and probes it.

use std::time::{Duration, Instant};

const FAILURES_TO_OPEN: u32 = 5;
/// The number of different events that a webhook rejects without a success between them until the circuit opens: the
/// cause is then probably the webhook and not the events.
const REJECTIONS_TO_OPEN: usize = 5;
const FIRST_PROBE: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// The first wait before a probe of a webhook that rejects all events: it responds, so a probe costs little, and the
/// events of other producers wait for it.
const FIRST_PROBE_REJECTING: Duration = Duration::from_secs(5);
/// The longest wait between probes of a webhook that rejects all events. An event that is held for that reason must be
/// due after this time at the latest, so that there is one to probe with.
pub const LONGEST_WAIT_REJECTING: Duration = Duration::from_secs(60);
/// The shortest time between two probes that are due because the Subscriber was reconciled.
const LEAST_WAIT: Duration = Duration::from_secs(5);
/// The maximum number of remembered kinds of rejected events.
const KINDS: usize = 64;

/// What an attempt says about its webhook. An attempt that does not count because the webhook requested a pause is not
/// reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The webhook accepted the event.
    Success,
    /// Network, TLS, timeout, a redirect, 405, 408, 5xx, or repeated 401: five consecutive failures open the circuit.
    Failure,
    /// The webhook rejected the event for good. Rejections of five different events without a success between them
    /// open the circuit, and only a success closes it then.
    Rejected,
    /// The webhook rejected the event, and the user says that such a rejection concerns the event alone: ends the state
    /// in which the webhook rejects all events.
    RejectedByRule,
    /// Any other response: the webhook is available; resets the count of failures and closes the circuit, unless the
    /// webhook rejects all events.
    Answered,
}

/// An event that a webhook rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RejectedEvent {
    /// A hash of the event's id.
    pub(crate) event: u64,
    /// The kind of the event.
    pub(crate) kind: u16,
}

/// The circuit of one Subscriber.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    rejections: Rejections,
    cycle: Cycle,
    open: Option<Open>,
    /// Whether an attempt has ended: what this process knows is newer than what the status says.
    is_informed: bool,
}

/// The rejections since the last success.
#[derive(Debug, Default)]
struct Rejections {
    /// Different events: as many as open the circuit.
    events: Vec<u64>,
    kinds: Vec<u16>,
}

/// The period from one opening or reset of the circuit to the next. A failure of an attempt that began in an earlier
/// cycle is ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cycle(u32);

#[derive(Debug)]
struct Open {
    cause: OpenCause,
    wait: Duration,
    probe_at: Instant,
    /// When the last probe began.
    probed: Option<Instant>,
    probing: bool,
    /// How long after the probe in flight the next one follows, because the Subscriber was reconciled meanwhile.
    again_after: Option<Duration>,
    /// Whether the next probe takes the newest event: the oldest and the newest take turns.
    is_newest_next: bool,
}

/// Why a circuit is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenCause {
    /// Consecutive failures.
    Failures,
    /// The webhook rejects all events.
    Rejections,
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
    /// Returns why the circuit is open, if it is.
    pub(crate) fn open_cause(&self) -> Option<OpenCause> {
        self.open.as_ref().map(|open| open.cause)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the webhook rejects all events: a rejection then does not end its event.
    pub(crate) fn is_rejecting(&self) -> bool {
        self.open_cause() == Some(OpenCause::Rejections)
    }

    /// Whether the next probe of a webhook that rejects all events takes the newest event.
    pub(crate) fn is_newest_next(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.is_newest_next)
    }

    /// Whether the webhook rejected an event of this kind since the last success.
    pub(crate) fn has_rejected(&self, kind: u16) -> bool {
        self.rejections.kinds.contains(&kind)
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
    pub(crate) fn start(&mut self, now: Instant) -> bool {
        if let Some(open) = &mut self.open {
            (open.probing, open.probed) = (true, Some(now));
            open.is_newest_next = !open.is_newest_next;
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

    /// Records the result of an attempt on `event` that began in `cycle`.
    pub(crate) fn report(&mut self, health: Health, event: RejectedEvent, cycle: Cycle, now: Instant) {
        self.is_informed = true;
        match health {
            Health::Success | Health::RejectedByRule => {
                (self.failures, self.rejections, self.open) = (0, Rejections::default(), None);
            }
            Health::Rejected => self.rejected(event, cycle, now),
            // An attempt of this cycle is a probe.
            _ if self.is_rejecting() && cycle == self.cycle => self.wait_longer(now),
            _ if self.is_rejecting() => {}
            Health::Answered => (self.failures, self.open) = (0, None),
            Health::Failure if cycle != self.cycle => {}
            Health::Failure if self.is_open() => self.wait_longer(now),
            Health::Failure => {
                self.failures += 1;
                if self.failures >= FAILURES_TO_OPEN {
                    self.open(OpenCause::Failures, now + FIRST_PROBE);
                }
            }
        }
    }

    fn rejected(&mut self, event: RejectedEvent, cycle: Cycle, now: Instant) {
        let Rejections { events, kinds } = &mut self.rejections;
        if events.len() < REJECTIONS_TO_OPEN && !events.contains(&event.event) {
            events.push(event.event);
        }
        if kinds.len() < KINDS && !kinds.contains(&event.kind) {
            kinds.push(event.kind);
        }
        let is_last = events.len() >= REJECTIONS_TO_OPEN;
        if self.is_rejecting() {
            if cycle == self.cycle {
                self.wait_longer(now);
            }
            return;
        }
        // The webhook responds.
        (self.failures, self.open) = (0, None);
        if is_last {
            self.open(OpenCause::Rejections, now + FIRST_PROBE_REJECTING);
        }
    }

    /// Records that the webhook rejects all events, as the Subscriber's status says, unless this process knows better.
    pub(crate) fn restore_rejecting(&mut self, now: Instant) {
        if !self.is_informed && !self.is_rejecting() {
            self.open(OpenCause::Rejections, now);
        }
    }

    /// Closes the circuit. Attempts in flight cannot open it again. If the webhook rejects all events, only a success
    /// closes the circuit: a probe is due now.
    pub(crate) fn reset(&mut self, now: Instant) {
        match &mut self.open {
            Some(open) if open.cause == OpenCause::Rejections => {
                (open.probe_at, open.wait) = (now, FIRST_PROBE_REJECTING);
                open.again_after = open.probing.then_some(Duration::ZERO);
            }
            _ => {
                self.open = None;
                self.begin_cycle();
            }
        }
    }

    /// The Subscriber was reconciled: perhaps with another Secret, so that a webhook that rejects all events is probed
    /// soon.
    pub(crate) fn reconciled(&mut self, now: Instant) {
        if let Some(open) = self.open.as_mut().filter(|open| open.cause == OpenCause::Rejections) {
            let soon = open.probed.map_or(now, |probed| now.max(probed + LEAST_WAIT));
            open.probe_at = open.probe_at.min(soon);
            if open.probing && open.again_after.is_none() {
                open.again_after = Some(LEAST_WAIT);
            }
        }
    }

    /// Forgets the rejections, and closes the circuit if they opened it: the Subscriber was deleted.
    pub(crate) fn forget_rejections(&mut self) {
        (self.rejections, self.is_informed) = (Rejections::default(), false);
        if self.is_rejecting() {
            self.open = None;
            self.begin_cycle();
        }
    }

    fn open(&mut self, cause: OpenCause, probe_at: Instant) {
        self.begin_cycle();
        let wait = if cause == OpenCause::Rejections { FIRST_PROBE_REJECTING } else { FIRST_PROBE };
        let (probed, probing, again_after, is_newest_next) = (None, false, None, false);
        self.open = Some(Open { cause, wait, probe_at, probed, probing, again_after, is_newest_next });
    }

    fn wait_longer(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            let longest = if open.cause == OpenCause::Rejections { LONGEST_WAIT_REJECTING } else { LONGEST_WAIT };
            open.wait = (open.wait * 2).min(longest);
            open.probe_at = now + open.again_after.take().unwrap_or(open.wait);
        }
    }

    fn begin_cycle(&mut self) {
        self.failures = 0;
        self.cycle = Cycle(self.cycle.0.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn event(number: u64) -> RejectedEvent {
        RejectedEvent { event: number, kind: number as u16 }
    }

    /// Rejects these events, as attempts of the present cycle.
    fn reject(breaker: &mut Breaker, events: impl IntoIterator<Item = u64>, now: Instant) {
        events.into_iter().for_each(|number| breaker.report(Health::Rejected, event(number), breaker.cycle(), now));
    }

    /// A circuit that is open because the webhook rejects all events.
    fn rejecting(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        reject(&mut breaker, 0..5, now);
        assert!(breaker.is_rejecting());
        breaker
    }

    fn fail(breaker: &mut Breaker, times: u32, now: Instant) {
        (0..times).for_each(|_| breaker.report(Health::Failure, event(0), breaker.cycle(), now));
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_any_answer_between_them_does_not() {
        for health in [Health::Success, Health::Answered] {
            let (mut breaker, now) = (Breaker::default(), Instant::now());
            fail(&mut breaker, 4, now);
            breaker.report(health, event(0), breaker.cycle(), now);
            fail(&mut breaker, 4, now);
            assert_eq!(breaker.allowance(), Allowance::All);
            fail(&mut breaker, 1, now);
            assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + 30 * SECOND));
            breaker.report(health, event(0), breaker.cycle(), now);
            assert_eq!(breaker.allowance(), Allowance::All);
        }
    }

    #[test]
    fn each_probe_that_fails_doubles_the_wait_up_to_a_quarter_of_an_hour() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 5, now);
        for wait in [60, 120, 240, 480, 900, 900] {
            assert!(breaker.start(now));
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
        breaker.report(Health::Failure, event(0), before, now + SECOND);
        assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + 30 * SECOND));
        breaker.report(Health::Success, event(0), breaker.cycle(), now);
        (0..5).for_each(|_| breaker.report(Health::Failure, event(0), before, now));
        assert_eq!(breaker.allowance(), Allowance::All);
    }

    #[test]
    fn a_probe_that_ends_without_a_report_allows_another_immediately() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 5, now);
        breaker.start(now);
        breaker.probe_ended(breaker.cycle());
        assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + 30 * SECOND));
    }

    #[test]
    fn a_probe_of_an_earlier_opening_does_not_free_the_place_of_this_ones() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 5, now);
        breaker.start(now);
        let earlier = breaker.cycle();
        breaker.report(Health::Success, event(0), earlier, now);
        fail(&mut breaker, 5, now);
        breaker.start(now);
        breaker.probe_ended(earlier);
        assert_eq!(breaker.allowance(), Allowance::Nothing);
    }

    #[test]
    fn a_reset_closes_it_and_what_was_under_way_cannot_open_it_again() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 5, now);
        let before = breaker.cycle();
        breaker.reset(now);
        (0..5).for_each(|_| breaker.report(Health::Failure, event(0), before, now));
        assert!(!breaker.is_open());
    }

    #[test]
    fn rejections_of_five_different_events_open_it_unless_a_success_comes_between() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        reject(&mut breaker, [1, 1, 1, 1, 1, 1, 2, 3, 4], now);
        assert!(!breaker.is_open(), "one event that is replayed says nothing of the others");
        breaker.report(Health::Success, event(9), breaker.cycle(), now);
        reject(&mut breaker, [1, 2, 3, 4], now);
        for health in [Health::Failure, Health::Answered] {
            breaker.report(health, event(9), breaker.cycle(), now);
        }
        assert!(!breaker.is_open());
        reject(&mut breaker, [5], now);
        assert_eq!(breaker.open_cause(), Some(OpenCause::Rejections));
        assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + 5 * SECOND));
    }

    #[test]
    fn only_a_success_closes_it_for_a_webhook_that_rejects_all_events() {
        let now = Instant::now();
        for health in [Health::Answered, Health::Failure, Health::Rejected] {
            let mut breaker = rejecting(now);
            for wait in [10, 20, 40, 60, 60] {
                breaker.start(now);
                breaker.report(health, event(1), breaker.cycle(), now);
                breaker.probe_ended(breaker.cycle());
                assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + wait * SECOND), "{health:?}");
            }
            breaker.reset(now);
            assert_eq!(breaker.allowance(), Allowance::ProbeAt(now), "{health:?}: a changed spec causes a probe");
            assert!(breaker.is_rejecting());
            breaker.report(Health::Success, event(1), Cycle::default(), now);
            assert_eq!(breaker.allowance(), Allowance::All);
            reject(&mut breaker, 0..4, now);
            assert!(!breaker.is_open(), "the count starts again");
        }
    }

    #[test]
    fn a_rejection_that_ends_its_event_by_a_rule_closes_it_and_counts_nothing() {
        let now = Instant::now();
        let mut breaker = rejecting(now);
        breaker.start(now);
        breaker.report(Health::RejectedByRule, event(9), breaker.cycle(), now);
        assert_eq!(breaker.allowance(), Allowance::All);
        (0..20).for_each(|number| breaker.report(Health::RejectedByRule, event(number), breaker.cycle(), now));
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_rejection_closes_a_circuit_that_failures_opened_because_the_webhook_responds() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        fail(&mut breaker, 5, now);
        breaker.start(now);
        reject(&mut breaker, [1], now);
        assert!(!breaker.is_open());
        reject(&mut breaker, 2..=5, now);
        assert!(breaker.is_rejecting());
    }

    #[test]
    fn a_reconcile_causes_a_probe_soon_and_reconciles_in_a_loop_cause_one_in_five_seconds() {
        let now = Instant::now();
        let mut breaker = rejecting(now);
        breaker.reconciled(now);
        assert_eq!(breaker.allowance(), Allowance::ProbeAt(now));
        breaker.start(now);
        reject(&mut breaker, [9], now);
        breaker.probe_ended(breaker.cycle());
        breaker.reconciled(now + SECOND);
        assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + 5 * SECOND));
        let mut failing = Breaker::default();
        fail(&mut failing, 5, now);
        failing.reconciled(now);
        assert_eq!(
            failing.allowance(),
            Allowance::ProbeAt(now + 30 * SECOND),
            "a failing webhook is not probed earlier"
        );
    }

    #[test]
    fn a_probe_that_is_in_flight_during_a_change_does_not_put_off_the_next_one() {
        let now = Instant::now();
        let mut breaker = rejecting(now);
        breaker.start(now);
        breaker.reset(now);
        reject(&mut breaker, [9], now + SECOND);
        breaker.probe_ended(breaker.cycle());
        assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + SECOND));
        breaker.start(now + SECOND);
        breaker.reconciled(now + SECOND);
        reject(&mut breaker, [9], now + 2 * SECOND);
        breaker.probe_ended(breaker.cycle());
        assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + 7 * SECOND));
        breaker.start(now + 7 * SECOND);
        reject(&mut breaker, [9], now + 7 * SECOND);
        breaker.probe_ended(breaker.cycle());
        assert_eq!(breaker.allowance(), Allowance::ProbeAt(now + 47 * SECOND), "5, 10 and 20 seconds were due");
    }

    #[test]
    fn the_status_opens_it_again_at_the_start_and_never_after_a_response() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.restore_rejecting(now);
        assert_eq!((breaker.is_rejecting(), breaker.allowance()), (true, Allowance::ProbeAt(now)));
        breaker.report(Health::Success, event(0), breaker.cycle(), now);
        breaker.restore_rejecting(now);
        assert!(!breaker.is_open(), "the status is late");
        breaker.forget_rejections();
        breaker.restore_rejecting(now);
        assert!(breaker.is_rejecting(), "another Subscriber");
    }

    fn any_health() -> impl Strategy<Value = Health> {
        select(vec![Health::Success, Health::Failure, Health::Answered, Health::Rejected, Health::Rejected])
    }

    proptest! {
        /// Whatever happens between two successes, the rejections of five events end them, and no more.
        #[test]
        fn between_two_successes_rejections_end_at_most_five_events(
            steps in vec((any_health(), 0..12_u64, any::<bool>(), 0..4_u8), 1..200),
        ) {
            let (mut breaker, now) = (Breaker::default(), Instant::now());
            let (mut ended, mut cycles) = (std::collections::HashSet::new(), vec![Cycle::default()]);
            for (health, number, is_late, change) in steps {
                match change {
                    0 => breaker.reset(now),
                    1 => breaker.reconciled(now),
                    2 => drop(breaker.start(now)),
                    _ => breaker.probe_ended(breaker.cycle()),
                }
                let was_rejecting = breaker.is_rejecting();
                if health == Health::Rejected && !was_rejecting {
                    ended.insert(number);
                }
                cycles.push(breaker.cycle());
                let cycle = if is_late { cycles[number as usize % cycles.len()] } else { breaker.cycle() };
                breaker.report(health, event(number), cycle, now);
                prop_assert!(ended.len() <= 5);
                prop_assert_eq!(breaker.is_rejecting(), ended.len() == 5 && health != Health::Success);
                if health == Health::Success {
                    ended.clear();
                    prop_assert!(!breaker.is_open());
                }
                if let (true, Allowance::ProbeAt(at)) = (breaker.is_rejecting(), breaker.allowance()) {
                    prop_assert!(at <= now + 60 * SECOND);
                }
            }
        }
    }
}
