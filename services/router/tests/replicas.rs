//! Several replicas on one PostgreSQL, and what happens when it is away.

mod support;

use std::time::{Duration, Instant};

use airfleet_local::Postgres;
use airfleet_proto::{agent::v1::attach_response::Message, router::v1 as wire};
use airfleet_runtime::status::Problem;
use support::{Replica, config, eventually, postgres, snapshot_in};
use tonic::Code;

fn by_dag(dag_id: &str) -> wire::ResolveRequest {
    wire::ResolveRequest { target: Some(wire::resolve_request::Target::DagId(dag_id.into())) }
}

fn cordon() -> wire::CordonShardRequest {
    wire::CordonShardRequest { shard: "shard-a".into(), reason: "test".into() }
}

async fn leads(replica: &Replica) -> bool {
    replica.status().await.is_some_and(|status| status.leader)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_another_takes_over_when_it_is_killed() {
    let store = postgres().await;
    let one = Replica::leading(config(&store)).await;
    let two = Replica::ready(config(&store)).await;
    one.declare(1, &["shard-a", "one"]).await;
    one.until_assigned("one").await;

    let seen = two.until_assigned("one").await;
    assert_eq!(seen.shard, "shard-a", "a follower serves what the leader decided");
    let mut watcher = two.watch(0).await;
    let refused = two.client.clone().cordon_shard(cordon()).await.unwrap_err();
    let problem = Problem::from(&refused);
    assert!(problem.is_not_leader() && problem.code == Code::Unavailable);
    assert_eq!(problem.leader().unwrap(), one.address.to_string());
    let agent = two.attach("shard-a").await.err().unwrap();
    assert_eq!(Problem::from(agent).leader().unwrap(), one.address.to_string());
    let status = two.status().await.unwrap();
    assert_eq!((status.leader, status.leader_address), (false, one.address.to_string()));
    let term = status.term;
    assert!(!leads(&two).await && leads(&one).await, "exactly one leads");

    let killed = Instant::now();
    one.kill();
    eventually("the other takes over", async || leads(&two).await.then_some(())).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    assert!(two.status().await.unwrap().term > term);
    two.declare(2, &["two"]).await;
    two.until_assigned("two").await;
    watcher.until(two.status().await.unwrap().revision).await;
    assert_eq!(watcher.table.keys().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(watcher.snapshots, 1, "its watchers noticed nothing");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_at_once_and_sends_its_agents_on() {
    let store = postgres().await;
    let one = Replica::leading(config(&store)).await;
    let two = Replica::ready(config(&store)).await;
    one.declare(1, &["shard-a"]).await;
    let agent = one.attach("shard-a").await.unwrap();
    let stopped = Instant::now();
    one.stop().await;
    eventually("the other takes over", async || leads(&two).await.then_some(())).await;
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(5), "it did not wait for the lease to run out: {took:?}");
    drop(agent);
    assert!(two.attach("shard-a").await.is_ok());
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_goes_on_while_the_store_is_away() {
    let server = Postgres::start_new().await.unwrap();
    let store = server.create_database("router").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = config(&store);
    settings.snapshot.file = Some(snapshot_in(&folder));
    let replica = Replica::leading(settings.clone()).await;
    replica.declare(1, &["shard-a", "one"]).await;
    replica.until_assigned("one").await;
    let mut agent = replica.attach("shard-a").await.unwrap();
    agent.report(&[]).await;
    let mut watcher = replica.watch(0).await;
    watcher.next().await.unwrap();

    server.stop().await;
    let mut client = replica.client.clone();
    eventually("the table ages", async || {
        let answer = client.resolve(by_dag("one.x")).await.unwrap().into_inner();
        assert_eq!(answer.shard, "shard-a");
        (answer.age_ms > 1500).then_some(())
    })
    .await;
    eventually("writes are refused", async || {
        let problem = Problem::from(client.cordon_shard(cordon()).await.unwrap_err());
        assert_eq!(problem.code, Code::Unavailable, "{problem}");
        assert!(problem.retry_after.is_some(), "{problem}");
        (problem.reason == "NOT_LEADER").then_some(())
    })
    .await;
    // Agents stay, and what they report is taken in.
    agent.report(&[]).await;
    let acknowledged = async || match agent.hear().await.unwrap() {
        Message::ReportAck(ack) if ack.sequence == 2 => Some(()),
        _ => None,
    };
    eventually("the report is acknowledged", acknowledged).await;
    watcher.next().await.unwrap();

    // Another starts meanwhile, from what the first one wrote down when it stopped.
    replica.stop().await;
    let started = Instant::now();
    let replica = Replica::ready(settings).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    let status = replica.status().await.unwrap();
    assert_eq!((status.source.as_str(), status.leader), ("snapshot", false));
    assert!(status.age_ms > 1500);
    let mut client = replica.client.clone();
    let answer = client.resolve(by_dag("one.x")).await.unwrap().into_inner();
    assert_eq!(answer.endpoints.unwrap().url, "http://shard-a.example.net");
    let mut resumed = replica.watch(watcher.revision).await;
    resumed.table = watcher.table;

    server.start().await.unwrap();
    eventually("it leads again", async || leads(&replica).await.then_some(())).await;
    replica.declare(2, &["two"]).await;
    replica.until_assigned("two").await;
    let status = replica.status().await.unwrap();
    assert_eq!(status.source, "store");
    eventually("the table is fresh", async || {
        (replica.status().await?.age_ms < 1000).then_some(())
    })
    .await;
    resumed.until(status.revision).await;
    assert_eq!((resumed.snapshots, resumed.table.len()), (0, 2));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_when_the_leader_is_killed_again_and_again() {
    let store = postgres().await;
    let mut settings = config(&store);
    settings.lease.ttl = Duration::from_millis(600);
    settings.lease.margin = Duration::from_millis(100);
    settings.lease.interval = Duration::from_millis(100);
    let mut shards = vec!["shard-a".to_owned()];
    let mut acknowledged: Vec<String> = Vec::new();
    let mut watcher: Option<support::Watcher> = None;
    for round in 0..4 {
        let replica = Replica::leading(settings.clone()).await;
        let names: Vec<String> = (0..30).map(|n| format!("ns-{round}-{n}")).collect();
        let entries: Vec<&str> = shards.iter().chain(&names).map(String::as_str).collect();
        replica.declare(round + 1, &entries).await;
        shards.clear();
        let mut client = replica.client.clone();
        // Pins are acknowledged one by one; the leader dies in the middle of them.
        for name in names.iter().take(7 + 5 * round as usize) {
            replica.until_assigned(name).await;
            let pin = wire::PinNamespaceRequest {
                namespace: name.clone(),
                shard: "shard-a".into(),
                ..Default::default()
            };
            client.pin_namespace(pin).await.unwrap();
            acknowledged.push(name.clone());
        }
        let mut resumed = replica.watch(watcher.as_ref().map_or(0, |seen| seen.revision)).await;
        if let Some(seen) = watcher.take() {
            resumed.table = seen.table;
            resumed.snapshots = seen.snapshots;
        }
        resumed.until(replica.status().await.unwrap().revision).await;
        watcher = Some(resumed);
        replica.kill();
    }
    let replica = Replica::leading(settings).await;
    for name in &acknowledged {
        assert_eq!(replica.get(name).await.unwrap().pinned_shard, "shard-a", "{name}");
    }
    let seen = watcher.unwrap();
    assert_eq!(seen.snapshots, 1, "watchers went on where they were");
    for (name, assignment) in &seen.table {
        assert_eq!(replica.get(name).await.as_ref(), Some(assignment));
    }
    replica.stop().await;
}
