//! How long to wait before trying again.

use std::time::Duration;

/// Exponential backoff with full jitter: each wait is picked evenly between nothing and a bound
/// that doubles. A thousand agents that lost their router at once come back spread over the whole
/// bound; waits of at least half of it, which suit a single caller, would spread them half as far.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    bound: Duration,
}

impl Backoff {
    /// Waits up to `first`, then up to twice that and so on, never more than `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        let first = first.min(most);
        Self { first, most, bound: first }
    }

    /// The next wait.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let wait = self.bound.mul_f64(rand::random_range(0.0..=1.0));
        self.bound = self.bound.saturating_mul(2).min(self.most);
        wait
    }

    /// The next wait is the longest there is: trying again soon is no use.
    pub(crate) fn slow_down(&mut self) {
        self.bound = self.most;
    }

    /// Something worked: starts over.
    pub(crate) fn reset(&mut self) {
        self.bound = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_are_spread_and_stay_below_the_cap() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(10));
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            let mut backoff = Backoff::new(first, most);
            assert!(backoff.next_wait() <= first);
            assert!(backoff.next_wait() <= first * 2);
            for _ in 0..20 {
                longest = longest.max(backoff.next_wait());
            }
            backoff.reset();
            assert!(backoff.next_wait() <= first);
        }
        assert!(longest <= most && longest > most / 2, "{longest:?}");
    }
}
