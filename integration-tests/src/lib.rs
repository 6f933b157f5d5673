//! What tests and benchmarks over several services stand on: real service processes that can be
//! killed and started again ([`process`]), real shards under a control plane ([`shard`]), clients
//! that check what a watch promises ([`follower`]), moves under load and faults with the checker that
//! decides about them ([`soak`]), and the benchmark report ([`bench`]).

pub mod bench;
pub mod follower;
pub mod link;
pub mod manifest;
pub mod process;
pub mod shard;
pub mod soak;

use std::time::{Duration, Instant};

/// Tries until it works, for at most `limit`; then the last error.
pub async fn eventually<T, E>(
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    let begun = Instant::now();
    let mut pauses = tokio::time::interval(Duration::from_millis(50));
    pauses.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pauses.tick().await;
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if begun.elapsed() > limit => return Err(error),
            Err(_) => {}
        }
    }
}
