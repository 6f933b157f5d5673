//! A change on its way to a thousand watchers, at a million namespaces.
//!
//! Changes are made one by one by the clock, as pins of namespaces to the shards that they are on.
//! Each watcher holds the router to its promise that revisions have no gaps; one gap fails the run.

use std::time::{Duration, Instant};

use airfleet_integration_tests::{
    bench::{
        load::connect,
        report::{Figure, Goal, Report},
    },
    process::Service,
};
use airfleet_proto::router::v1::{
    PinNamespaceRequest, WatchAssignmentsRequest, router_service_client::RouterServiceClient,
    watch_assignments_response::Event,
};
use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::{sync::watch, task::JoinSet};
use tonic::{Streaming, transport::Channel};

use crate::rig::{MILLION, Rig, shard_of, status};

const WATCHERS: usize = 1_000;
/// Watches that share a connection.
const SHARING: usize = 20;
const CHANGES: usize = 200;
const EVERY: Duration = Duration::from_millis(100);
/// Time for the last change to arrive everywhere.
const PATIENCE: Duration = Duration::from_secs(30);
const P99_GOAL_MS: f64 = 50.0;

/// A change: when the call was sent, when it was answered.
struct Made {
    revision: i64,
    sent: Instant,
    acknowledged: Instant,
}

pub(crate) async fn run(rig: &Rig, report: &mut Report) -> Result<()> {
    let router = rig.serving(MILLION).await?;
    let mut client = router.router();
    let start = status(&mut client).await?.revision;
    let (last, is_last) = watch::channel(i64::MAX);
    let mut watchers = JoinSet::new();
    for clients in connections(&router).await? {
        for mut client in vec![clients; SHARING] {
            let request = WatchAssignmentsRequest { resume_revision: start };
            let stream = client.watch_assignments(request).await?.into_inner();
            watchers.spawn(follow(stream, start, is_last.clone()));
        }
    }
    ensure!(watchers.len() == WATCHERS, "{} watchers", watchers.len());

    let made = make_changes(&mut client).await?;
    let end = made.last().context("changes were made")?.revision;
    last.send_replace(end);
    let mut since_sent = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    let mut since_acknowledged = since_sent.clone();
    let mut alone = 0_u64;
    let arrived = tokio::time::timeout(PATIENCE, async {
        while let Some(arrivals) = watchers.join_next().await {
            let arrivals = arrivals??;
            for change in &made {
                // Told by itself, or folded with those that came after it.
                let told = arrivals.partition_point(|(revision, _)| *revision < change.revision);
                let (revision, at) = arrivals.get(told).context("a change was not told")?;
                alone += u64::from(*revision == change.revision);
                let micros = |from| at.saturating_duration_since(from).as_micros() as u64;
                since_sent.saturating_record(micros(change.sent));
                since_acknowledged.saturating_record(micros(change.acknowledged));
            }
        }
        anyhow::Ok(())
    });
    arrived.await.context("the last change did not reach all watchers in time")??;
    let expected = (WATCHERS * made.len()) as u64;
    ensure!(since_sent.len() == expected, "{} of {expected} arrivals", since_sent.len());

    let millis =
        |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    let goal = Goal::AtMost(P99_GOAL_MS);
    for (name, value, goal) in [
        ("watch.acknowledged_to_arrival_p50", millis(&since_acknowledged, 0.5), Goal::None),
        ("watch.acknowledged_to_arrival_p99", millis(&since_acknowledged, 0.99), goal),
        ("watch.call_to_arrival_p50", millis(&since_sent, 0.5), Goal::None),
        ("watch.call_to_arrival_p99", millis(&since_sent, 0.99), Goal::None),
    ] {
        report.add(Figure::alone(name, value, "ms", goal))?;
    }
    let alone = alone as f64 / expected as f64;
    report.add(Figure::alone("watch.changes_that_came_alone", alone, "share", Goal::None))?;
    Ok(())
}

async fn connections(router: &Service) -> Result<Vec<RouterServiceClient<Channel>>> {
    let mut connections = Vec::new();
    while connections.len() < WATCHERS / SHARING {
        connections.extend(connect(&router.url()).await?);
    }
    connections.truncate(WATCHERS / SHARING);
    Ok(connections)
}

/// Follows until it has taken in the last revision. What arrived and when.
async fn follow(
    mut stream: Streaming<airfleet_proto::router::v1::WatchAssignmentsResponse>,
    mut revision: i64,
    mut last: watch::Receiver<i64>,
) -> Result<Vec<(i64, Instant)>> {
    let mut arrivals = Vec::with_capacity(CHANGES);
    while revision < *last.borrow_and_update() {
        let message = tokio::select! {
            message = stream.message() => message?.context("the watch ended")?,
            told = last.changed() => {
                told?;
                continue;
            }
        };
        let at = Instant::now();
        match message.event {
            Some(Event::Change(change)) => {
                ensure!(
                    change.previous_revision == revision,
                    "a gap: a change follows {} where {revision} was the last",
                    change.previous_revision
                );
                arrivals.push((message.revision, at));
            }
            Some(Event::Progress(_)) => {
                ensure!(message.revision == revision, "progress to where no change led");
            }
            _ => bail!("a snapshot, although the watcher was up to date"),
        }
        revision = message.revision;
    }
    Ok(arrivals)
}

async fn make_changes(client: &mut RouterServiceClient<Channel>) -> Result<Vec<Made>> {
    let mut made = Vec::with_capacity(CHANGES);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0..CHANGES as u64 {
        ticks.tick().await;
        let namespace = n * 4_999 % MILLION;
        let request = PinNamespaceRequest {
            namespace: format!("team-{namespace:07}"),
            shard: shard_of(namespace),
            reason: "measured".into(),
            ..PinNamespaceRequest::default()
        };
        let sent = Instant::now();
        let revision = client.pin_namespace(request).await?.into_inner().revision;
        made.push(Made { revision, sent, acknowledged: Instant::now() });
    }
    Ok(made)
}
