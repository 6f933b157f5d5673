//! Load on a router or its peer, from this process, over loopback.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use airfleet_proto::router::v1::{
    ResolveRequest, resolve_request::Target, router_service_client::RouterServiceClient,
};
use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use tonic::transport::Channel;

/// Connections that the load is spread over: more than one, so that neither side is bound by a
/// single HTTP/2 connection; few, as clients keep theirs.
const CONNECTIONS: usize = 4;

/// Channels to one address.
pub async fn connect(address: &str) -> Result<Vec<RouterServiceClient<Channel>>> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel = Channel::from_shared(address.to_owned())?
            .tcp_nodelay(true)
            .connect()
            .await
            .with_context(|| format!("could not connect to {address}"))?;
        clients.push(RouterServiceClient::new(channel));
    }
    Ok(clients)
}

/// The `n`th of the dag_ids that are asked for; spreads over all namespaces.
pub fn dag_id(n: u64, namespaces: u64) -> String {
    // An odd multiplier walks through all residues in an order that caches cannot foresee.
    let namespace = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % namespaces;
    format!("team-{namespace:07}.daily_load")
}

/// Calls a second that `in_flight` callers reach, each sending its next call upon an answer.
pub async fn saturate(
    clients: &[RouterServiceClient<Channel>],
    in_flight: usize,
    namespaces: u64,
    span: Duration,
) -> Result<f64> {
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let callers = (0..in_flight).map(|caller| {
        let mut client = clients[caller % clients.len()].clone();
        let next = Arc::clone(&next);
        tokio::spawn(async move {
            let mut calls = 0_u64;
            while begun.elapsed() < span {
                resolve(&mut client, next.fetch_add(1, Ordering::Relaxed), namespaces).await?;
                calls += 1;
            }
            anyhow::Ok(calls)
        })
    });
    let mut calls = 0;
    for caller in callers.collect::<Vec<_>>() {
        calls += caller.await??;
    }
    Ok(calls as f64 / begun.elapsed().as_secs_f64())
}

/// Latencies in microseconds at a steady rate. Calls are due by the clock, not upon an answer, and
/// a latency counts from when its call was due: a stall is not hidden by the calls it holds back.
pub async fn paced(
    clients: &[RouterServiceClient<Channel>],
    per_second: f64,
    namespaces: u64,
    span: Duration,
) -> Result<Histogram<u64>> {
    const TICK: Duration = Duration::from_millis(1);
    let mut ticks = tokio::time::interval(TICK);
    let begun = Instant::now();
    let mut sent = 0_u64;
    let (results, mut latencies) = tokio::sync::mpsc::channel::<Result<u64>>(65_536);
    while begun.elapsed() < span {
        ticks.tick().await;
        let due = (begun.elapsed().as_secs_f64() * per_second) as u64;
        for n in sent..due {
            let mut client = clients[n as usize % clients.len()].clone();
            let results = results.clone();
            let from = begun + Duration::from_secs_f64(n as f64 / per_second);
            tokio::spawn(async move {
                let outcome = resolve(&mut client, n, namespaces).await;
                let latency = outcome.map(|()| from.elapsed().as_micros() as u64);
                // The receiver outlives all senders unless the run failed already.
                let _ = results.send(latency).await;
            });
        }
        sent = due;
    }
    drop(results);
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    while let Some(latency) = latencies.recv().await {
        histogram.saturating_record(latency?);
    }
    Ok(histogram)
}

async fn resolve(client: &mut RouterServiceClient<Channel>, n: u64, namespaces: u64) -> Result<()> {
    let target = Some(Target::DagId(dag_id(n, namespaces)));
    let answer = client.resolve(ResolveRequest { target }).await?.into_inner();
    anyhow::ensure!(!answer.shard.is_empty(), "resolved to no shard: {answer:?}");
    Ok(())
}
