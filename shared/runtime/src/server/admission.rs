//! How much a node takes at once, and how much of one caller.
//!
//! Invariant: what is not admitted is refused at once with `RESOURCE_EXHAUSTED`, never queued.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    config::Limits,
    status::{Failure, reason},
};

/// Callers whose rate is remembered. Beyond it, those that are quiet are forgotten.
const CALLERS_MAX: usize = 10_000;

/// A number of things that may go on at once.
#[derive(Debug)]
pub(super) struct Gate {
    max: usize,
    at_work: AtomicUsize,
}

/// One thing that goes on.
#[derive(Debug)]
pub(super) struct Permit(Arc<Gate>);

impl Gate {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, at_work: AtomicUsize::new(0) })
    }

    fn enter(self: &Arc<Self>) -> Option<Permit> {
        let before = self.at_work.fetch_add(1, Ordering::Relaxed);
        // Made before the check, so that it is counted down in any case.
        let permit = Permit(Arc::clone(self));
        (before < self.max).then_some(permit)
    }

    pub(super) fn at_work(&self) -> usize {
        self.at_work.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The limits of a node.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) requests: Arc<Gate>,
    pub(super) streams: Arc<Gate>,
    requests_per_second: u32,
    callers: Mutex<HashMap<String, Arc<Rate>>>,
    origin: Instant,
}

impl Admission {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            requests: Gate::new(limits.max_in_flight),
            streams: Gate::new(limits.max_streams),
            requests_per_second: limits.requests_per_second,
            callers: Mutex::default(),
            origin: Instant::now(),
        }
    }

    /// Lets a request in, or a stream.
    pub(super) fn admit(&self, is_stream: bool) -> Result<Permit, Failure> {
        let (gate, what, reason) = if is_stream {
            (&self.streams, "streams", reason::TOO_MANY_STREAMS)
        } else {
            (&self.requests, "requests", reason::OVERLOADED)
        };
        gate.enter().ok_or_else(|| {
            Failure::exhausted("node", format!("{} {what} are at work, try later", gate.max))
                .with_reason(reason)
                .with_retry_after(Duration::from_millis(if is_stream { 1000 } else { 100 }))
        })
    }

    /// The rate of the caller `subject`; `None` where rates are not limited.
    pub(super) fn rate(&self, subject: &str) -> Option<Arc<Rate>> {
        if self.requests_per_second == 0 {
            return None;
        }
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rate) = callers.get(subject) {
            return Some(Arc::clone(rate));
        }
        if callers.len() >= CALLERS_MAX {
            callers.retain(|_, rate| Arc::strong_count(rate) > 1);
        }
        let rate = Arc::new(Rate::new(self.requests_per_second, self.origin));
        if callers.len() < CALLERS_MAX {
            callers.insert(subject.to_owned(), Arc::clone(&rate));
        }
        Some(rate)
    }
}

/// A rate of requests, by the generic cell rate algorithm: one number says when the next request
/// would be on time, and requests may be early by as much as a second's worth.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u32,
    origin: Instant,
    /// Nanoseconds from `origin` to the time at which the next request would be on time.
    next: AtomicU64,
}

const SECOND: u64 = 1_000_000_000;

impl Rate {
    fn new(per_second: u32, origin: Instant) -> Self {
        Self { per_second, origin, next: AtomicU64::new(0) }
    }

    /// Counts a request at `now`, or refuses it. `subject` is for the message.
    pub(super) fn check(&self, subject: &str, now: Instant) -> Result<(), Failure> {
        let now = now.saturating_duration_since(self.origin).as_nanos() as u64;
        let step = SECOND / u64::from(self.per_second);
        let mut next = self.next.load(Ordering::Relaxed);
        loop {
            let after = next.max(now) + step;
            if after > now + SECOND.max(step) {
                let wait = Duration::from_nanos(after - now - SECOND.max(step));
                return Err(Failure::exhausted(
                    format!("principal:{subject}"),
                    format!("more than {} requests a second", self.per_second),
                )
                .with_reason(reason::RATE_LIMITED)
                .with_retry_after(wait));
            }
            match self.next.compare_exchange_weak(next, after, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(seen) => next = seen,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_counts() {
        let admission = Admission::new(&Limits { max_in_flight: 2, ..Limits::default() });
        let one = admission.admit(false).unwrap();
        let _two = admission.admit(false).unwrap();
        let refused = admission.admit(false).unwrap_err();
        assert_eq!(refused.reason(), reason::OVERLOADED);
        assert_eq!(refused.message(), "node: 2 requests are at work, try later");
        assert!(refused.retry_after().is_some());
        let _stream = admission.admit(true).unwrap();
        drop(one);
        assert_eq!(admission.requests.at_work(), 1);
        admission.admit(false).unwrap();
    }

    #[test]
    fn a_rate_allows_a_second_at_once_and_then_its_pace() {
        let start = Instant::now();
        let rate = Rate::new(10, start);
        for _ in 0..10 {
            rate.check("alice", start).unwrap();
        }
        let refused = rate.check("alice", start).unwrap_err();
        assert_eq!(refused.reason(), reason::RATE_LIMITED);
        assert_eq!(refused.retry_after(), Some(Duration::from_millis(100)));
        rate.check("alice", start + Duration::from_millis(100)).unwrap();
        assert!(rate.check("alice", start + Duration::from_millis(150)).is_err());
        for _ in 0..10 {
            rate.check("alice", start + Duration::from_mins(1)).unwrap();
        }
        assert!(rate.check("alice", start + Duration::from_mins(1)).is_err());
    }

    #[test]
    fn one_request_a_second_is_a_rate_too() {
        let start = Instant::now();
        let rate = Rate::new(1, start);
        rate.check("alice", start).unwrap();
        assert!(rate.check("alice", start + Duration::from_millis(999)).is_err());
        rate.check("alice", start + Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn callers_keep_their_rate_and_are_bounded() {
        let admission = Admission::new(&Limits { requests_per_second: 5, ..Limits::default() });
        let alice = admission.rate("alice").unwrap();
        assert!(Arc::ptr_eq(&alice, &admission.rate("alice").unwrap()));
        for n in 0..2 * CALLERS_MAX {
            admission.rate(&n.to_string());
        }
        assert!(admission.callers.lock().unwrap().len() <= CALLERS_MAX);
        assert!(Arc::ptr_eq(&alice, &admission.rate("alice").unwrap()));
        assert!(Admission::new(&Limits::default()).rate("alice").is_none());
    }
}
