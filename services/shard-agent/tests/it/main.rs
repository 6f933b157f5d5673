//! The agent against real databases, brokers and Airflow, and against a router that does what a
//! test tells it to.
#![allow(missing_docs)]

mod broker;
mod cli;
mod database;
mod fence;
mod large;
mod moves;
mod outage;
mod reconcile;
mod router;
mod scripted;
mod shard;
mod simulated;

use std::time::{Duration, Instant};

use airfleet_runtime::{config::ConnectionUrl, lifecycle::Shutdown};
use airfleet_shard_agent::{AgentConfig, Error, run};
use tokio::task::JoinHandle;

/// Generous: a busy machine is slow.
const LIMIT: Duration = Duration::from_mins(1);

fn url(text: impl Into<String>) -> ConnectionUrl {
    ConnectionUrl::new(text).unwrap()
}

/// Asks again and again until there is an answer.
async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(LIMIT, || what.to_owned(), ask).await
}

/// The same with a limit of its own, and words that are asked for when it is reached.
async fn eventually_within<T>(
    limit: Duration,
    what: impl Fn() -> String,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {}", what());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An agent that runs until it is dropped or stopped.
struct RunningAgent {
    shutdown: Shutdown,
    task: JoinHandle<Result<(), Error>>,
}

impl RunningAgent {
    fn start(config: AgentConfig) -> Self {
        airfleet_runtime::tls::install_crypto_provider();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(run(config, None, shutdown.clone()));
        Self { shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.trigger();
        self.task.await.unwrap().unwrap();
    }
}
