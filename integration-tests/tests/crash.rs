//! The router is killed and started again under load: no acknowledged write is lost, and watchers
//! go on without a gap.

use std::{collections::BTreeSet, time::Duration};

use airfleet_integration_tests::{
    eventually,
    follower::{Follower, list},
    manifest::{namespace_entry, shard_entry},
    process::{registry, router, sqlite},
};
use airfleet_local::Sandbox;
use airfleet_proto::{
    registry::v1::{
        ApplyManifestRequest, ManifestEntry, registry_service_client::RegistryServiceClient,
    },
    router::v1::{
        AssignmentState, CordonShardRequest, GetAssignmentRequest, GetShardStatusRequest,
        PinNamespaceRequest, router_service_client::RouterServiceClient,
    },
};
use anyhow::{Result, ensure};
use tonic::transport::Channel;

const KILLS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_router_loses_no_acknowledged_write_and_no_watcher_sees_a_gap() -> Result<()> {
    let sandbox = Sandbox::create("crash").await?;
    let mut registry = registry(&sandbox, &sqlite(&sandbox, "registry.db"))?;
    registry.start().await?;
    let mut router = router(&sandbox, "router", &sqlite(&sandbox, "router.db"), &registry)?;
    router.start().await?;
    apply(registry.registry(), vec![shard_entry("shard-a"), shard_entry("shard-b")], "shards")
        .await?;

    let followers: Vec<Follower> = (0..3)
        .map(|_| Follower::start(vec![RouterServiceClient::new(router.stream_channel())]))
        .collect();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writer = tokio::spawn(write(registry.registry(), router.router(), stopped));

    for kill in 0..KILLS {
        let before = router_revision(router.router()).await?;
        eventually(Duration::from_secs(30), async || {
            let now = router_revision(router.router()).await?;
            ensure!(now > before + 40, "few writes so far: {now} after {before}");
            Ok(())
        })
        .await?;
        router.kill().await;
        router.start().await?;
        println!("killed and restarted {} times", kill + 1);
    }
    stop.send(true)?;
    let acknowledged = writer.await??;
    println!(
        "acknowledged: {} namespaces, {} pins, {} cordons",
        acknowledged.namespaces.len(),
        acknowledged.pins.len(),
        acknowledged.cordons.len()
    );
    ensure!(acknowledged.namespaces.len() > KILLS * 5, "too few writes to mean anything");
    ensure!(acknowledged.pins.len() > KILLS, "too few pins to mean anything");

    for namespace in &acknowledged.namespaces {
        eventually(Duration::from_secs(30), async || {
            let request = GetAssignmentRequest { namespace: namespace.clone() };
            let found = router.router().get_assignment(request).await?.into_inner();
            ensure!(found.state() == AssignmentState::Assigned, "{found:?}");
            ensure!(found.generation == 1, "assigned more than once: {found:?}");
            Ok(())
        })
        .await?;
    }
    for (namespace, shard) in &acknowledged.pins {
        let request = GetAssignmentRequest { namespace: namespace.clone() };
        let found = router.router().get_assignment(request).await?.into_inner();
        ensure!(found.pinned_shard == *shard, "the pin to {shard} is lost: {found:?}");
    }
    if let Some(reason) = acknowledged.cordons.last() {
        let request = GetShardStatusRequest { shard: "shard-b".into() };
        let status = router.router().get_shard_status(request).await?.into_inner();
        let found = status.cordon.map(|cordon| cordon.reason).unwrap_or_default();
        // A later cordon may have been written and its answer lost.
        ensure!(number(&found) >= number(reason), "the cordon {reason} is lost: {found:?}");
    }
    for follower in &followers {
        follower.agrees_with(&router.router()).await?;
        let (snapshots, resumed) = follower.look(|table| (table.snapshots, table.resumed))?;
        ensure!(resumed > KILLS as u64, "it was never cut off");
        ensure!(snapshots == 1, "it had to begin anew {snapshots} times");
    }
    let (all, _) = list(router.router()).await?;
    ensure!(all.len() >= acknowledged.namespaces.len());
    router.stop().await;
    registry.stop().await;
    Ok(())
}

#[derive(Debug, Default)]
struct Acknowledged {
    namespaces: BTreeSet<String>,
    pins: Vec<(String, String)>,
    cordons: Vec<String>,
}

/// Registers namespaces, pins each to the shard where it is, and cordons a shard for ever new
/// reasons; remembers what was acknowledged.
async fn write(
    registry: RegistryServiceClient<Channel>,
    mut router: RouterServiceClient<Channel>,
    stopped: tokio::sync::watch::Receiver<bool>,
) -> Result<Acknowledged> {
    let mut acknowledged = Acknowledged::default();
    for n in 0.. {
        if *stopped.borrow() {
            break;
        }
        let name = format!("team-{n:05}");
        apply(registry.clone(), vec![namespace_entry(&name)], &name).await?;
        acknowledged.namespaces.insert(name.clone());
        // One that has had time to be assigned.
        let name = format!("team-{:05}", n.max(5) - 5);
        let request = GetAssignmentRequest { namespace: name.clone() };
        if let Ok(found) = router.get_assignment(request).await
            && let found = found.into_inner()
            && !found.shard.is_empty()
        {
            let request = PinNamespaceRequest {
                namespace: name.clone(),
                shard: found.shard.clone(),
                reason: "test".into(),
                ..Default::default()
            };
            if router.pin_namespace(request).await.is_ok() {
                acknowledged.pins.push((name, found.shard));
            }
        }
        if n % 10 == 0 {
            let reason = format!("reason {n}");
            let request = CordonShardRequest { shard: "shard-b".into(), reason: reason.clone() };
            if router.cordon_shard(request).await.is_ok() {
                acknowledged.cordons.push(reason);
            }
        }
    }
    Ok(acknowledged)
}

async fn apply(
    mut registry: RegistryServiceClient<Channel>,
    entries: Vec<ManifestEntry>,
    request_id: &str,
) -> Result<()> {
    let request =
        ApplyManifestRequest { entries, request_id: request_id.into(), validate_only: false };
    registry.apply_manifest(request).await?;
    Ok(())
}

async fn router_revision(mut router: RouterServiceClient<Channel>) -> Result<i64> {
    Ok(router
        .get_router_status(tonic::Request::new(Default::default()))
        .await?
        .into_inner()
        .revision)
}

fn number(reason: &str) -> i64 {
    reason.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(-1)
}
