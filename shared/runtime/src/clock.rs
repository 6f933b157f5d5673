//! Time, as something that is handed in.
//!
//! Whoever decides by the time of day or by elapsed time takes a [`Clock`], so that tests decide
//! what time it is. Waiting stays with `tokio::time`, which tests can pause.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// A clock that several owners share.
pub type SharedClock = Arc<dyn Clock>;

/// Tells the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of day, in microseconds since 1970-01-01 UTC. It may step backwards.
    fn unix_micros(&self) -> i64;

    /// A moment that never goes backwards, for measuring how long something takes.
    fn instant(&self) -> Instant;

    /// The time of day, with the precision of the stores: microseconds.
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.unix_micros()).unwrap_or(Timestamp::MAX)
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clock, ready to share.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn unix_micros(&self) -> i64 {
        Timestamp::now().as_microsecond()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until it is told otherwise. Clones show the same time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    base: Instant,
    start_micros: Arc<AtomicI64>,
    elapsed_micros: Arc<AtomicI64>,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self {
            base: Instant::now(),
            start_micros: Arc::new(AtomicI64::new(start.as_microsecond())),
            elapsed_micros: Arc::new(AtomicI64::new(0)),
        }
    }

    /// Lets `duration` pass, with a precision of microseconds.
    pub fn advance(&self, duration: Duration) {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        self.elapsed_micros.fetch_add(micros, Ordering::SeqCst);
    }

    /// Sets the time of day, forwards or backwards, as a time daemon would: the monotonic clock
    /// does not move.
    pub fn set(&self, now: Timestamp) {
        let elapsed = self.elapsed_micros.load(Ordering::SeqCst);
        self.start_micros.store(now.as_microsecond() - elapsed, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_micros(&self) -> i64 {
        self.start_micros.load(Ordering::SeqCst) + self.elapsed_micros.load(Ordering::SeqCst)
    }

    fn instant(&self) -> Instant {
        let elapsed = self.elapsed_micros.load(Ordering::SeqCst);
        self.base + Duration::from_micros(elapsed.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_when_told() {
        let start: Timestamp = "2026-01-02T03:04:05.000006Z".parse().unwrap();
        let clock = ManualClock::new(start);
        let before = clock.instant();
        assert_eq!(clock.now(), start);

        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now().to_string(), "2026-01-02T03:04:06.500006Z");
        assert_eq!(clock.instant() - before, Duration::from_millis(1500));

        clock.set(start);
        assert_eq!(clock.clone().now(), start);
        assert_eq!(clock.instant() - before, Duration::from_millis(1500));
    }

    #[test]
    fn the_system_clock_has_microseconds() {
        let clock = SystemClock;
        let micros = clock.unix_micros();
        assert!(clock.now().as_microsecond() - micros < 1_000_000);
    }
}
