//! Two routers on one PostgreSQL: exactly one leads, the other takes over when it is killed, and a
//! leader that was away too long is refused.

use std::time::{Duration, Instant};

use airfleet_integration_tests::{
    eventually,
    follower::Follower,
    manifest::{namespace_entry, shard_entry},
    process::{Service, registry, router},
};
use airfleet_local::{Postgres, Sandbox};
use airfleet_proto::{
    registry::v1::{ApplyManifestRequest, ManifestEntry},
    router::v1::{
        CordonShardRequest, GetRouterStatusRequest, ResolveRequest, RouterStatus,
        resolve_request::Target, router_service_client::RouterServiceClient,
    },
};
use anyhow::{Context as _, Result, ensure};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_routers_leads_and_a_stale_one_is_refused() -> Result<()> {
    let sandbox = Sandbox::create("leadership").await?;
    let postgres = Postgres::options().sandbox(&sandbox).start().await?;
    let store = postgres.create_database("router").await?;
    let mut registry = registry(&sandbox, &postgres.create_database("registry").await?)?;
    registry.start().await?;
    let mut routers = [
        router(&sandbox, "router-0", &store, &registry)?,
        router(&sandbox, "router-1", &store, &registry)?,
    ];
    for router in &mut routers {
        router.launch()?;
    }
    for router in &routers {
        router.wait_ready().await?;
    }
    apply(
        &registry,
        vec![shard_entry("shard-a"), shard_entry("shard-b"), namespace_entry("payments")],
    )
    .await?;
    let leader = leader_of(&routers).await?;
    let follower = 1 - leader;
    let first_term = status(&routers[leader]).await?.term;
    let watch = Follower::start(
        routers.iter().map(|r| RouterServiceClient::new(r.stream_channel())).collect(),
    );

    // The other one serves reads, and names the leader to writers.
    for router in &routers {
        eventually(Duration::from_secs(20), async || {
            ensure!(resolves(router, "payments.daily").await?, "not assigned yet");
            Ok(())
        })
        .await?;
    }
    let refusal = cordon(&routers[follower], "x").await.unwrap_err();
    ensure!(refusal.code() == Code::Unavailable, "{refusal:?}");
    let details = refusal.get_error_details();
    let info = details.error_info().context("no ErrorInfo")?;
    ensure!(info.reason == "NOT_LEADER", "{info:?}");
    let named = info.metadata.get("leader").context("the leader is not named")?;
    ensure!(routers[leader].url().ends_with(named.trim_start_matches("http://")), "{named}");
    cordon(&routers[leader], "before").await?;

    // The leader dies.
    routers[leader].kill().await;
    let died = Instant::now();
    eventually(Duration::from_secs(30), async || cordon(&routers[follower], "after").await).await?;
    let took = died.elapsed();
    println!("writes again {:.1} s after the leader was killed", took.as_secs_f64());
    ensure!(took < Duration::from_secs(10), "the takeover took {took:?}");
    let second_term = status(&routers[follower]).await?.term;
    ensure!(second_term > first_term, "the term did not grow: {first_term}, {second_term}");

    // The present leader sleeps through its lease, and wakes up believing that it leads.
    routers[leader].start().await?;
    routers[follower].signal("STOP").await?;
    let asleep = &routers[follower];
    let next = &routers[leader];
    eventually(Duration::from_secs(30), async || cordon(next, "next").await).await?;
    let late = tokio::spawn({
        let mut client = asleep.router();
        // Sent while it sleeps: the first thing that it sees when it wakes.
        async move {
            let request = CordonShardRequest { shard: "shard-b".into(), reason: "late".into() };
            client.cordon_shard(request).await
        }
    });
    eventually(Duration::from_secs(2), async || {
        ensure!(late.is_finished(), "held back, as it should be");
        Ok(())
    })
    .await
    .expect_err("a process that sleeps cannot answer");
    asleep.signal("CONT").await?;
    let refusal = late.await?.expect_err("a stale leader must not write");
    println!("the stale leader's write: {:?} {}", refusal.code(), refusal.message());
    ensure!(
        matches!(refusal.code(), Code::Unavailable | Code::Aborted),
        "refused otherwise than expected: {refusal:?}"
    );
    let third_term = status(next).await?.term;
    ensure!(third_term > second_term, "the term did not grow: {second_term}, {third_term}");
    leader_of(&routers).await?;

    apply(&registry, vec![namespace_entry("search")]).await?;
    for router in &routers {
        eventually(Duration::from_secs(20), async || {
            ensure!(resolves(router, "search.daily").await?, "not assigned yet");
            Ok(())
        })
        .await?;
    }
    watch.agrees_with(&next.router()).await?;
    for router in &mut routers {
        router.stop().await;
    }
    registry.stop().await;
    Ok(())
}

/// The index of the one that leads, once exactly one does and both know it.
async fn leader_of(routers: &[Service; 2]) -> Result<usize> {
    eventually(Duration::from_secs(30), async || {
        let both = [status(&routers[0]).await?, status(&routers[1]).await?];
        let leaders: Vec<usize> = (0..2).filter(|i| both[*i].leader).collect();
        ensure!(leaders.len() == 1, "{} routers lead", leaders.len());
        ensure!(both[0].term == both[1].term, "they know of different terms");
        ensure!(both[0].leader_address == both[1].leader_address, "they name different leaders");
        Ok(leaders[0])
    })
    .await
}

async fn status(router: &Service) -> Result<RouterStatus> {
    let request = GetRouterStatusRequest {};
    Ok(router.router().get_router_status(request).await?.into_inner())
}

async fn cordon(router: &Service, reason: &str) -> Result<(), Status> {
    let request = CordonShardRequest { shard: "shard-b".into(), reason: reason.into() };
    router.router().cordon_shard(request).await.map(drop)
}

async fn resolves(router: &Service, dag_id: &str) -> Result<bool> {
    let target = Some(Target::DagId(dag_id.into()));
    let answer = router.router().resolve(ResolveRequest { target }).await?.into_inner();
    Ok(!answer.shard.is_empty())
}

async fn apply(registry: &Service, entries: Vec<ManifestEntry>) -> Result<()> {
    let request = ApplyManifestRequest { entries, ..Default::default() };
    registry.registry().apply_manifest(request).await?;
    Ok(())
}
