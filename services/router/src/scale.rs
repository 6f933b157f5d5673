//! A million namespaces. For an optimized build: `cargo test --release -p airfleet-router --lib
//! scale -- --ignored --nocapture --test-threads 1`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_domain::{
    ids::{Revision, ShardName},
    routing::{Change, Entry},
};
use airfleet_runtime::clock::{Clock as _, SystemClock};
use airfleet_sql::{
    Db, Options,
    lease::{Lease, Timing},
};

use crate::{
    agents::{Hub, Limits},
    leader::{Leader, Tools},
    metrics::Metrics,
    store::{Batch, Record, ShardRecord, Store},
    table::{Live, Origin, Update, file::Saved, follow::Follower},
    testing::{self, name, needs, record, shard, snapshot},
};

const MANY: usize = 1_000_000;
const SHARDS: usize = 100;

fn owner(number: usize) -> String {
    format!("shard-{:03}", number % SHARDS)
}

fn many(revision: i64, range: std::ops::Range<usize>) -> Vec<Record> {
    let shared = needs(r#"{"dags":12,"taskStartsPerHour":340,"runningSlots":2}"#, "{}");
    let records = range.map(|number| {
        let mut made = record(&format!("team-{number:07}")).on(&owner(number), 1).at(revision);
        let mut assignment = made.entry.assignment();
        assignment.namespace_uid = uuid::Uuid::from_u128(number as u128).to_string();
        assignment.reason =
            "least loaded of 100 eligible shards: dags at 41.3 % with it".to_owned();
        made.entry = (&assignment).into();
        made.needs = shared.clone();
        made
    });
    records.collect()
}

async fn store(database: &testing::Database) -> Store {
    let db = Db::open(&database.url, Options::default()).await.unwrap();
    let lease = Lease::new(db.clone(), Store::LEASE, "a", "a", Timing::default()).unwrap();
    let store = Store::new(db, lease);
    store.prepare().await.unwrap();
    store
}

fn told(what: &str, took: Duration) {
    println!("{what}: {:.3} s", took.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and needs an optimized build"]
async fn a_million_namespaces_are_written_and_read_back_in_time() {
    let database = testing::sqlite();
    let store = Arc::new(store(&database).await);
    let term = testing::lead(&store).await;
    let shards: Vec<ShardRecord> = (0..SHARDS).map(|number| shard(&owner(number))).collect();
    let first = Batch { shards, ..Batch::default() };
    store.commit(term, Revision(0), &first, 0).await.unwrap();
    let started = Instant::now();
    for batch in 0..MANY / 1000 {
        let revision = batch as i64 + 1;
        let records = many(revision + 1, batch * 1000..(batch + 1) * 1000);
        let batch = Batch { records, ..Batch::default() };
        store.commit(term, Revision(revision), &batch, 0).await.unwrap();
    }
    told("written to SQLite, 1000 a transaction", started.elapsed());

    let live = Arc::new(Live::new(100_000, SystemClock::shared()));
    let metrics = Arc::new(Metrics::new(&airfleet_runtime::metrics::Metrics::new()));
    let follower = Follower {
        store: store.clone(),
        live: live.clone(),
        metrics: metrics.clone(),
        interval: Duration::from_secs(1),
    };
    let started = Instant::now();
    follower.look().await.unwrap();
    let from_store = started.elapsed();
    told("ready from SQLite", from_store);
    assert_eq!(live.view().table.len(), MANY);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let now_us = SystemClock.unix_micros();
    let started = Instant::now();
    Saved::of(&live, now_us).write(&path).unwrap();
    told("snapshot file written", started.elapsed());
    println!("snapshot file: {} MB", std::fs::metadata(&path).unwrap().len() / 1_000_000);
    let restored = Live::new(100_000, SystemClock::shared());
    let started = Instant::now();
    Saved::read(&path).unwrap().unwrap().restore(&restored, now_us);
    let from_file = started.elapsed();
    told("ready from the file", from_file);
    assert!(restored.view().table.iter().eq(live.view().table.iter()));
    drop(restored);

    let changed = Instant::now();
    let changes: u32 = 1000;
    for _ in 0..changes {
        let revision = live.view().table.revision().0 + 1;
        let entry: Entry = many(revision, 7..8).remove(0).entry;
        live.apply(Update {
            changes: vec![(Revision(revision), Change::Upsert(entry))],
            revision: Revision(revision),
            ..Update::default()
        });
    }
    let one_change = changed.elapsed() / changes;
    println!("one change: {one_change:?}");

    let started = Instant::now();
    let tools = tools(&store, &live, &metrics);
    let leader = Leader::begin(tools, term).await.unwrap();
    told("a leader begins", started.elapsed());
    let started = Instant::now();
    let totals = leader.fleet().totals();
    assert_eq!(totals.unplaced, 0);
    println!("totals: {:?}", started.elapsed());

    assert!(from_store < Duration::from_secs(5), "{from_store:?}");
    assert!(from_file < Duration::from_secs(2), "{from_file:?}");
    assert!(one_change < Duration::from_millis(1), "{one_change:?}");
}

fn tools(store: &Arc<Store>, live: &Arc<Live>, metrics: &Arc<Metrics>) -> Tools {
    let limits = Limits {
        max_agents: 10_000,
        max_namespaces: 25_000,
        stale_after: Duration::from_secs(30),
        settle_after: Duration::from_secs(10),
        require_report: false,
    };
    Tools {
        store: store.clone(),
        live: live.clone(),
        hub: Arc::new(Hub::new(limits, SystemClock::shared())),
        metrics: metrics.clone(),
        clock: SystemClock::shared(),
        namespaces_max: 20_000,
        keep_retired: Duration::from_hours(24),
        moves: crate::config::MovesConfig::default(),
        events: crate::config::EventsConfig::default(),
        policy: airfleet_domain::placement::Policy::default(),
        plans: crate::config::PlansConfig::default(),
        mover: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and needs an optimized build"]
async fn a_million_namespaces_are_taken_in_from_the_manifest() {
    let database = testing::sqlite();
    let store = Arc::new(store(&database).await);
    let term = testing::lead(&store).await;
    let live = Arc::new(Live::new(100_000, SystemClock::shared()));
    let metrics = Arc::new(Metrics::new(&airfleet_runtime::metrics::Metrics::new()));
    let leader = Leader::begin(tools(&store, &live, &metrics), term).await.unwrap();
    let shards: Vec<ShardName> = (0..SHARDS).map(|number| name(&owner(number))).collect();
    let mut shards: Vec<_> =
        shards.iter().map(|name| testing::declared(name.as_str(), 1)).collect();
    for entry in &mut shards {
        use airfleet_proto::registry::v1::manifest_entry::Kind;
        if let Some(Kind::Shard(shard)) = &mut entry.kind {
            let most =
                airfleet_proto::common::v1::Resources { dags: 1_000_000, ..Default::default() };
            shard.capacity = Some(most);
        }
    }
    leader.take_in(vec![snapshot(1, shards, true, false)]).await.unwrap();
    let started = Instant::now();
    let mut pieces = 0;
    while pieces * 1000 < MANY {
        let names = (pieces * 1000..(pieces + 1) * 1000).map(|number| format!("team-{number:07}"));
        let entries: Vec<_> = names.map(|name| testing::declared(&name, 1)).collect();
        pieces += 1;
        let last = pieces * 1000 >= MANY;
        leader.take_in(vec![snapshot(1, entries, false, last)]).await.unwrap();
    }
    told("taken in and assigned", started.elapsed());
    let counts = live.counts();
    assert_eq!((counts.assigned, counts.unplaced), (MANY, 0));
    assert_eq!(live.view().origin, Origin::Store);
    let (least, most) =
        (counts.by_shard.values().min().unwrap(), counts.by_shard.values().max().unwrap());
    assert!(most - least <= 1, "{least} to {most}");
}
