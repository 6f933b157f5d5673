//! What tests of several modules need.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use airfleet_domain::{
    health::Health,
    ids::{Generation, Revision, Term},
    manifest,
    resources::Resources,
    routing::{Assignment, Entry, State},
};
use airfleet_local::Postgres;
use airfleet_proto::{common::v1 as common, registry::v1 as wire};
use airfleet_runtime::clock::{ManualClock, SharedClock};
use airfleet_sql::{
    Db, Options,
    lease::{Lease, Standing, Timing},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::{
    agents::{Hello, Hub, Limits, NamespaceUsage, Report, Session},
    leader::{Leader, Tools},
    manifest::Event,
    metrics::Metrics,
    store::{Needs, Record, Rules, ShardRecord, Store},
    table::Live,
};

/// A database of its own for one test.
pub(crate) struct Database {
    pub(crate) url: String,
    _folder: Option<TempDir>,
}

/// A new SQLite file.
pub(crate) fn sqlite() -> Database {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/router.db", folder.path().display());
    Database { url, _folder: Some(folder) }
}

/// A new database on the one PostgreSQL server of this test process.
pub(crate) async fn postgres() -> Database {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let start = async || Postgres::options().max_connections(300).start().await.unwrap();
    let server = SERVER.get_or_init(start).await;
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    Database { url: server.create_database(&name).await.unwrap(), _folder: None }
}

/// Takes the lead and answers its term.
pub(crate) async fn lead(store: &Store) -> Term {
    match store.lease().tick().await.unwrap() {
        Standing::Leader { term, .. } => Term(term),
        other => panic!("nobody else leads, but {other:?}"),
    }
}

/// A name of whatever kind is asked for.
pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A namespace to be described further: without a shard, uid `uid-<name>`, prefix `<name>.`.
pub(crate) struct Draft {
    assignment: Assignment,
    needs: Needs,
}

pub(crate) fn record(namespace: &str) -> Draft {
    Draft {
        assignment: Assignment {
            namespace: name(namespace),
            namespace_uid: format!("uid-{namespace}"),
            prefixes: vec![name(&format!("{namespace}."))],
            shard: None,
            generation: Generation(0),
            state: State::Unplaced,
            pinned_shard: None,
            reason: "test".into(),
            revision: Revision(0),
            update_time_us: 1,
        },
        needs: needs("{}", "{}"),
    }
}

/// Needs as the manifest has them, in JSON.
pub(crate) fn needs(demand: &str, placement: &str) -> Needs {
    let declared: manifest::Placement = serde_json::from_str(placement).unwrap();
    Needs {
        demand: serde_json::from_str(demand).unwrap(),
        rules: Arc::new(Rules::try_from(declared).unwrap()),
    }
}

impl Draft {
    pub(crate) fn on(mut self, shard: &str, generation: i64) -> Self {
        self.assignment.shard = Some(name(shard));
        self.assignment.generation = Generation(generation);
        self.assignment.state = State::Assigned;
        self
    }

    pub(crate) fn state(mut self, state: State) -> Self {
        self.assignment.state = state;
        self
    }

    pub(crate) fn pinned(mut self, shard: &str) -> Self {
        self.assignment.pinned_shard = Some(name(shard));
        self
    }

    pub(crate) fn prefixes(mut self, prefixes: &[&str]) -> Self {
        self.assignment.prefixes = prefixes.iter().map(|prefix| name(prefix)).collect();
        self
    }

    pub(crate) fn needs(mut self, demand: &str, placement: &str) -> Self {
        self.needs = needs(demand, placement);
        self
    }

    /// As of a revision.
    pub(crate) fn at(mut self, revision: i64) -> Record {
        self.assignment.revision = Revision(revision);
        Record {
            entry: (&self.assignment).into(),
            needs: self.needs,
            manifest_revision: Revision(1),
            orphaned: false,
            workload_digest: 0,
        }
    }
}

pub(crate) fn with_generation(record: Record, generation: i64) -> Record {
    let mut assignment = record.entry.assignment();
    assignment.generation = Generation(generation);
    Record { entry: (&assignment).into(), ..record }
}

/// A registered shard, as of revision 1.
pub(crate) fn shard(shard: &str) -> ShardRecord {
    let metadata = manifest::Metadata { name: shard.to_owned(), ..Default::default() };
    ShardRecord {
        name: name(shard),
        uid: format!("uid-{shard}"),
        manifest: Arc::new(manifest::Shard { metadata, spec: manifest::ShardSpec::default() }),
        manifest_revision: Revision(1),
        registered: true,
        cordon: None,
        barred_revision: Revision(0),
        agent_seen_at_us: None,
        revision: Revision(1),
    }
}

/// A leader on a SQLite file of its own, with agents and a clock that are told what to do.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) tools: Tools,
    pub(crate) leader: Arc<Leader>,
    _database: Database,
}

/// A leader that has taken in `manifest`, a list of names: `shard-...` are shards, others are
/// namespaces that declare ten DAGs.
pub(crate) async fn world(manifest: &[&str]) -> World {
    world_with(manifest, |_| {}).await
}

pub(crate) async fn world_with(manifest: &[&str], change: impl FnOnce(&mut Limits)) -> World {
    world_of(manifest, change, |_| {}).await
}

pub(crate) async fn world_of(
    manifest: &[&str],
    change: impl FnOnce(&mut Limits),
    equip: impl FnOnce(&mut Tools),
) -> World {
    world_on(sqlite(), manifest, change, equip).await
}

/// The same on a database of either engine.
pub(crate) async fn world_on(
    database: Database,
    manifest: &[&str],
    change: impl FnOnce(&mut Limits),
    equip: impl FnOnce(&mut Tools),
) -> World {
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let shared: SharedClock = Arc::new(clock.clone());
    let mut limits = Limits {
        max_agents: 100,
        max_namespaces: 1000,
        stale_after: Duration::from_secs(30),
        settle_after: Duration::from_secs(10),
        require_report: true,
    };
    change(&mut limits);
    let db = Db::open(&database.url, Options::default()).await.unwrap();
    let lease = Lease::new(db.clone(), Store::LEASE, "test", "test", Timing::default()).unwrap();
    let store = Arc::new(Store::new(db, lease));
    store.prepare().await.unwrap();
    let term = lead(&store).await;
    let mut tools = Tools {
        store,
        live: Arc::new(Live::new(1000, shared.clone())),
        hub: Arc::new(Hub::new(limits, shared.clone())),
        metrics: Arc::new(Metrics::new(&airfleet_runtime::metrics::Metrics::new())),
        clock: shared,
        namespaces_max: 1000,
        keep_retired: Duration::from_hours(24),
        moves: crate::config::MovesConfig::default(),
        events: crate::config::EventsConfig::default(),
        policy: airfleet_domain::placement::Policy::default(),
        plans: crate::config::PlansConfig::default(),
        mover: None,
    };
    equip(&mut tools);
    let leader = Leader::begin(tools.clone(), term).await.unwrap();
    let world = World { clock, tools, leader, _database: database };
    world.declare(1, manifest).await;
    world
}

impl World {
    /// The manifest changes: these entries are new or changed at `revision`.
    pub(crate) async fn declare(&self, revision: i64, entries: &[&str]) {
        let change = change(revision, entries.iter().map(|name| declared(name, revision)), &[]);
        self.leader.take_in(vec![change]).await.unwrap();
    }

    /// The manifest no longer has these.
    pub(crate) async fn forget(&self, revision: i64, names: &[&str]) {
        self.leader.take_in(vec![change(revision, [], names)]).await.unwrap();
    }

    /// An agent of the shard connects and reports that all is well.
    pub(crate) fn connect(&self, shard: &str) -> Session {
        let session = self.tools.hub.attach(hello(shard)).unwrap();
        self.report(&session, 1, &[]);
        session
    }

    /// An agent reports these namespaces: name, DAGs, active runs.
    pub(crate) fn report(&self, session: &Session, sequence: i64, usage: &[(&str, i64, i64)]) {
        let namespaces = usage.iter().map(|(namespace, dags, active_runs)| {
            let usage = Resources { dags: *dags, ..Resources::ZERO };
            let active_runs = *active_runs;
            (name(namespace), NamespaceUsage { usage, active_runs, ..Default::default() })
        });
        let report = Report {
            sequence,
            full: true,
            health: Some(Health::default()),
            namespaces: namespaces.collect(),
            ..Report::default()
        };
        let shard = session.shard().clone();
        let need_full = session.report(report, |observation, changes| {
            self.leader.observed(&shard, observation, changes);
        });
        assert!(!need_full);
    }

    /// Connects agents of these shards, and places what waits.
    pub(crate) async fn open(&self, shards: &[&str]) -> Vec<Session> {
        let sessions = shards.iter().map(|shard| self.connect(shard)).collect();
        self.leader.place_waiting().await.unwrap();
        sessions
    }

    /// What the table says of a namespace.
    pub(crate) fn entry(&self, namespace: &str) -> Option<Entry> {
        self.tools.live.view().table.resolve_namespace(namespace).cloned()
    }

    /// The shard that owns a namespace, and its generation.
    pub(crate) fn owner(&self, namespace: &str) -> (Option<String>, i64) {
        let entry = self.entry(namespace).expect("the namespace is known");
        (entry.shard().map(str::to_owned), entry.generation().0)
    }

    /// What another leader finds in the store is what this one holds, and what is served.
    pub(crate) async fn check(&self) {
        let stored = self.tools.store.load::<Record>().await.unwrap();
        let view = self.tools.live.view();
        assert_eq!(stored.head.revision, view.table.revision());
        assert_eq!(stored.namespaces.len(), view.table.len());
        let fleet = self.leader.fleet();
        for record in &stored.namespaces {
            let namespace = record.entry.namespace();
            assert_eq!(view.table.resolve_namespace(namespace), Some(&record.entry));
            let member = fleet.member(namespace).expect("the fleet knows it");
            assert_eq!(member.record.entry, record.entry);
            assert_eq!(member.record.orphaned, record.orphaned);
        }
        assert_eq!(fleet.shards().count(), stored.shards.len());
    }
}

pub(crate) fn hello(shard: &str) -> Hello {
    Hello {
        shard: name(shard),
        incarnation: uuid::Uuid::now_v7(),
        agent_version: "1".into(),
        airflow_version: "3.3.2".into(),
        schema_revision: "abc".into(),
    }
}

/// An entry of the manifest as the registry sends it: `shard-...` is a shard, anything else a
/// namespace that declares ten DAGs.
pub(crate) fn declared(name: &str, revision: i64) -> wire::ManifestEntry {
    let uid = format!("uid-{name}");
    let kind = if name.starts_with("shard") {
        let url = format!("http://{name}.example.net");
        let shard = wire::Shard { name: name.into(), uid, url, revision, ..Default::default() };
        wire::manifest_entry::Kind::Shard(shard)
    } else {
        wire::manifest_entry::Kind::Namespace(wire::Namespace {
            name: name.into(),
            uid,
            prefixes: vec![format!("{name}.")],
            demand: Some(common::Resources { dags: 10, ..Default::default() }),
            revision,
            ..Default::default()
        })
    };
    wire::ManifestEntry { kind: Some(kind) }
}

/// A change of the manifest.
pub(crate) fn change(
    revision: i64,
    upserts: impl IntoIterator<Item = wire::ManifestEntry>,
    deleted: &[&str],
) -> Event {
    let named = |shards| {
        let names = deleted.iter().filter(move |name| name.starts_with("shard") == shards);
        names.map(ToString::to_string).collect()
    };
    let change = wire::ManifestChange {
        previous_revision: revision - 1,
        upserts: upserts.into_iter().collect(),
        deleted_namespaces: named(false),
        deleted_shards: named(true),
    };
    understood(wire::watch_manifest_response::Event::Change(change), revision)
}

/// A piece of a snapshot of the manifest.
pub(crate) fn snapshot(
    revision: i64,
    entries: impl IntoIterator<Item = wire::ManifestEntry>,
    first: bool,
    last: bool,
) -> Event {
    let entries = entries.into_iter().collect();
    let snapshot = wire::ManifestSnapshot { entries, first, last };
    understood(wire::watch_manifest_response::Event::Snapshot(snapshot), revision)
}

fn understood(event: wire::watch_manifest_response::Event, revision: i64) -> Event {
    let message = wire::WatchManifestResponse { revision, event: Some(event) };
    crate::manifest::read(message, |unreadable| panic!("{unreadable}")).unwrap()
}
