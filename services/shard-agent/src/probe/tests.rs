use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;

/// Looks succeed as often as the test permits, and hang otherwise.
struct Gate {
    permits: Arc<Semaphore>,
    begun: Arc<AtomicUsize>,
}

impl Look for Gate {
    type Sight = usize;

    async fn look(&mut self) -> Result<usize, Failure> {
        let seen = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.permits.acquire().await.unwrap().forget();
        if seen == 2 { Err(Failure::Unsupported("two".to_owned())) } else { Ok(seen) }
    }
}

fn gate(limit: Duration) -> (Runner<usize>, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (permits, begun) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let look = Gate { permits: permits.clone(), begun: begun.clone() };
    (Runner::start(look, limit, Arc::new(|_, _| ())), permits, begun)
}

#[tokio::test]
async fn what_was_seen_last_outlives_a_failure() {
    let (mut runner, permits, _) = gate(Duration::from_secs(30));
    permits.add_permits(3);
    for expected in [Some(1), None, Some(3)] {
        let ticket = runner.ask();
        runner.served(ticket).await;
        let outcome = runner.outcome();
        assert_eq!(outcome.current().map(|sight| **sight), expected);
        assert_eq!(outcome.took_ms.is_some(), expected.is_some());
        assert!(outcome.sight.is_some());
    }
}

#[tokio::test]
async fn a_look_that_hangs_fails_at_its_limit_and_is_not_repeated_meanwhile() {
    let (mut runner, permits, begun) = gate(Duration::from_millis(300));
    let first = runner.ask();
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        runner.ask();
        tokio::task::yield_now().await;
    }
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    runner.served(first).await;
    assert_eq!(runner.outcome().probe, Probe::Failed("no answer within 300ms".to_owned()));
    assert_eq!(begun.load(Ordering::SeqCst), 1);

    // It is looked again only when somebody asks again.
    permits.add_permits(1);
    let ticket = runner.ask();
    runner.served(ticket).await;
    assert_eq!(runner.outcome().probe, Probe::Unsupported("two".to_owned()));
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_during_a_look_is_served_by_its_end() {
    let (mut runner, permits, begun) = gate(Duration::from_secs(30));
    runner.ask();
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let second = runner.ask();
    permits.add_permits(1);
    runner.served(second).await;
    assert_eq!(runner.outcome().current().map(|sight| **sight), Some(1));
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nothing_to_look_at_is_no_failure() {
    let mut runner = Runner::<usize>::not_configured();
    let ticket = runner.ask();
    runner.served(ticket).await;
    assert_eq!(runner.outcome().probe, Probe::NotConfigured);
    assert!(runner.outcome().current().is_none());
}
