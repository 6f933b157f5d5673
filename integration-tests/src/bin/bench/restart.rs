//! From the start of the process to ready, with a million namespaces: from SQLite, and from the
//! snapshot file while the store is away.

use std::time::{Duration, Instant};

use airfleet_integration_tests::{
    bench::report::{Figure, Goal, Report},
    process::Service,
};
use airfleet_local::Port;
use anyhow::{Result, ensure};

use crate::{
    progress,
    rig::{MILLION, Rig, median, status},
};

const ROUNDS: usize = 3;
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_mins(2);

pub(crate) async fn run(rig: &Rig, report: &mut Report) -> Result<()> {
    let snapshot = rig.file("bench.snapshot");
    let mut router = rig.router(MILLION).await?;
    let from_store = measured(&mut router, "store").await?;
    report.add(Figure::alone("restart.from_sqlite", from_store, "s", Goal::AtMost(5.0)))?;

    // Once more, to leave a file behind.
    let interval = "1s";
    let mut writer = rig
        .router(MILLION)
        .await?
        .with("snapshot.file", snapshot.display())
        .with("snapshot.interval", interval);
    writer.start().await?;
    writer.stop().await;
    ensure!(snapshot.exists(), "no snapshot was written: {}", writer.output());

    // Nobody listens on a port that is claimed: connections are refused.
    let nobody = Port::claim()?;
    let away = format!("postgres://airfleet@127.0.0.1:{}/airfleet", nobody.number());
    let settings = [("store.url", away), ("snapshot.file", snapshot.display().to_string())];
    let mut router = Service::new(&rig.sandbox, "airfleet-router", "store-away", &settings)?;
    let from_file = measured(&mut router, "snapshot").await?;
    report.add(Figure::alone("restart.from_snapshot", from_file, "s", Goal::AtMost(2.0)))?;
    Ok(())
}

/// Median seconds until the process says that it is ready, and serves all namespaces.
async fn measured(router: &mut Service, source: &str) -> Result<f64> {
    let client = reqwest::Client::new();
    let url = format!("{}/readyz", router.url());
    let mut times = Vec::new();
    for number in 1..=ROUNDS {
        let begun = Instant::now();
        router.launch()?;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            ensure!(router.is_running(), "it ended: {}", router.output());
            ensure!(begun.elapsed() < LIMIT, "it is not ready: {}", router.output());
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
        }
        let took = begun.elapsed();
        let status = status(&mut router.router()).await?;
        ensure!(status.namespaces as u64 == MILLION, "ready with {} namespaces", status.namespaces);
        ensure!(status.source == source, "the table came from {}", status.source);
        progress(&format!("round {number}: {took:.2?} from {source}"));
        times.push(took.as_secs_f64());
        router.kill().await;
    }
    Ok(median(times))
}
