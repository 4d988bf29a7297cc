//! The wait before the next attempt.

use std::time::Duration;

/// Exponential backoff: `initial` × 2ⁿ up to `max`, ±20 %.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The wait after the first failure.
    pub initial: Duration,
    /// The longest wait, before the jitter.
    pub max: Duration,
}

impl Backoff {
    /// Returns the wait after `failures` consecutive failures (from 1). `chance` is a random number in 0..1.
    pub fn wait(&self, failures: u32, chance: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        let wait = self.initial.saturating_mul(1 << doublings).min(self.max);
        wait.mul_f64(0.8 + 0.4 * chance)
    }

    /// Returns the longest possible wait, with jitter.
    pub fn longest(&self) -> Duration {
        self.max.mul_f64(1.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { initial: Duration::from_secs(5), max: Duration::from_secs(3600) };

    #[test]
    fn the_wait_doubles_from_initial_to_max() {
        let waits: Vec<_> = [1, 2, 3, 10, 11, 1000].map(|n| BACKOFF.wait(n, 0.5).as_secs()).into();
        assert_eq!(waits, [5, 10, 20, 2560, 3600, 3600]);
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        assert_eq!(BACKOFF.wait(1, 0.0), Duration::from_secs(4));
        assert_eq!(BACKOFF.wait(1, 1.0), Duration::from_secs(6));
        assert_eq!(BACKOFF.wait(u32::MAX, 1.0), BACKOFF.longest());
    }
}
