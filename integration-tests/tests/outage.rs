//! PostgreSQL goes away for a minute: resolve goes on, writes fail with UNAVAILABLE and RetryInfo,
//! a router that restarts meanwhile serves from its snapshot, and everything recovers by itself.

use std::time::{Duration, Instant};

use airfleet_integration_tests::{
    eventually,
    follower::Follower,
    manifest::{namespace_entry, shard_entry},
    process::{registry, router},
};
use airfleet_local::{Postgres, Sandbox};
use airfleet_proto::{
    registry::v1::{ApplyManifestRequest, ManifestEntry},
    router::v1::{
        CordonShardRequest, ResolveRequest, ResolveResponse, resolve_request::Target,
        router_service_client::RouterServiceClient,
    },
};
use anyhow::{Result, ensure};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

const OUTAGE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_stops_writes_only() -> Result<()> {
    let sandbox = Sandbox::create("outage").await?;
    let postgres = Postgres::options().sandbox(&sandbox).start().await?;
    let mut registry = registry(&sandbox, &postgres.create_database("registry").await?)?;
    registry.start().await?;
    let store = postgres.create_database("router").await?;
    let mut router = router(&sandbox, "router", &store, &registry)?;
    router.start().await?;
    let entries = vec![shard_entry("shard-a"), namespace_entry("payments")];
    apply(&registry, entries, "first").await?;
    let follower = Follower::start(vec![RouterServiceClient::new(router.stream_channel())]);
    eventually(Duration::from_secs(30), async || {
        ensure!(!resolve(router.router()).await?.shard.is_empty(), "not assigned");
        Ok(())
    })
    .await?;
    follower.agrees_with(&router.router()).await?;
    wait_for_snapshot(&sandbox).await?;

    postgres.kill().await;
    let begun = Instant::now();
    let mut resolves = 0_u64;
    let mut refused_writes = 0_u64;
    let mut oldest = 0;
    let mut is_restarted = false;
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    while begun.elapsed() < OUTAGE {
        ticks.tick().await;
        let answer = resolve(router.router()).await?;
        ensure!(answer.shard == "shard-a", "{answer:?}");
        resolves += 1;
        oldest = oldest.max(answer.age_ms);
        if resolves.is_multiple_of(20) {
            check_refused(&cordon(&router, "outage").await.unwrap_err())?;
            let entries = vec![namespace_entry("search")];
            check_refused(&apply(&registry, entries, "second").await.unwrap_err())?;
            refused_writes += 2;
        }
        if !is_restarted && begun.elapsed() > OUTAGE / 2 {
            // From the snapshot: there is nothing else to start from.
            router.kill().await;
            router.start().await?;
            is_restarted = true;
        }
    }
    println!("{resolves} resolves, {refused_writes} refused writes, oldest answer {oldest} ms");
    ensure!(refused_writes >= 6, "too few writes were tried");
    ensure!(oldest > 20_000, "answers did not say how old they are: at most {oldest} ms");

    postgres.start().await?;
    let back = Instant::now();
    eventually(Duration::from_secs(40), async || {
        apply(&registry, vec![namespace_entry("search")], "second").await?;
        cordon(&router, "back").await
    })
    .await?;
    println!("writes again after {:.1} s", back.elapsed().as_secs_f64());
    eventually(Duration::from_secs(10), async || {
        let age = resolve(router.router()).await?.age_ms;
        ensure!(age < 5_000, "the table is still {age} ms old");
        Ok(())
    })
    .await?;
    follower.agrees_with(&router.router()).await?;
    ensure!(follower.look(|table| table.snapshots)? == 1, "the watcher had to begin anew");
    router.stop().await;
    registry.stop().await;
    Ok(())
}

async fn wait_for_snapshot(sandbox: &Sandbox) -> Result<()> {
    let file = sandbox.folder().join("router.snapshot");
    let first = eventually(Duration::from_secs(20), async || std::fs::metadata(&file)).await?;
    // The next one has everything that was there when this was called.
    let _ = eventually(Duration::from_secs(5), async || {
        let now = std::fs::metadata(&file)?.modified()?;
        ensure!(now > first.modified()?, "not written again: nothing changed");
        Ok(())
    })
    .await;
    Ok(())
}

async fn resolve(mut router: RouterServiceClient<Channel>) -> Result<ResolveResponse> {
    let target = Some(Target::DagId("payments.daily".into()));
    Ok(router.resolve(ResolveRequest { target }).await?.into_inner())
}

type Service = airfleet_integration_tests::process::Service;

async fn cordon(router: &Service, reason: &str) -> Result<(), Status> {
    let request = CordonShardRequest { shard: "shard-a".into(), reason: reason.into() };
    router.router().cordon_shard(request).await.map(drop)
}

async fn apply(registry: &Service, entries: Vec<ManifestEntry>, id: &str) -> Result<(), Status> {
    let request = ApplyManifestRequest { entries, request_id: id.into(), validate_only: false };
    registry.registry().apply_manifest(request).await.map(drop)
}

fn check_refused(status: &Status) -> Result<()> {
    ensure!(status.code() == Code::Unavailable, "{status:?}");
    let details = status.get_error_details();
    ensure!(details.retry_info().is_some(), "no RetryInfo: {status:?}");
    ensure!(details.error_info().is_some(), "no ErrorInfo: {status:?}");
    Ok(())
}
