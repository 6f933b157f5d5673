//! Pauses between attempts.

use std::time::Duration;

/// Pauses that double from one attempt to the next, up to a longest one. Each is drawn between
/// half of that and all of it, so that those who failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses from `shortest` to `longest`.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, failures: 0 }
    }

    /// The pause after one more failure. `hint`, what the other side asked for, is the least.
    pub fn next_pause(&mut self, hint: Option<Duration>) -> Duration {
        let doubled = self.shortest.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let pause = doubled.min(self.longest);
        let drawn = pause.mul_f64(rand::random_range(0.5..=1.0));
        // A hint is jittered too: it was given to many.
        let asked = hint.map(|hint| hint.min(self.longest).mul_f64(rand::random_range(1.0..=1.25)));
        drawn.max(asked.unwrap_or_default())
    }

    /// Waits for the next pause.
    pub async fn wait(&mut self, hint: Option<Duration>) {
        tokio::time::sleep(self.next_pause(hint)).await;
    }

    /// An attempt succeeded: the next pause is a short one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_bounds() {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(shortest, longest);
        for full in [100, 200, 400, 800, 1000, 1000, 1000] {
            let pause = backoff.next_pause(None);
            let full = Duration::from_millis(full);
            assert!(full / 2 <= pause && pause <= full, "{pause:?} for {full:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next_pause(None) <= longest);
        }
        backoff.reset();
        assert!(backoff.next_pause(None) <= shortest);
        let hinted = backoff.next_pause(Some(Duration::from_millis(700)));
        assert!(hinted >= Duration::from_millis(700), "{hinted:?}");
        assert!(backoff.next_pause(Some(Duration::from_hours(1))) < Duration::from_secs(2));
    }
}
