//! Waiting on conditions with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

/// Asks `check` every `pause` until it answers something or `limit` has passed.
///
/// `check` is asked at least once, and once more after the limit has passed, so
/// a slow machine does not turn a met condition into a timeout.
pub(crate) async fn until<T, F>(
    limit: Duration,
    pause: Duration,
    mut check: impl FnMut() -> F,
) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        let last = start.elapsed() >= limit;
        if let Some(value) = check().await {
            return Some(value);
        }
        if last {
            return None;
        }
        tokio::time::sleep(pause).await;
    }
}
