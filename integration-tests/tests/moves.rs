//! Whole moves: a real router, two real agents, two real metadata databases of Airflow 3.3.
//!
//! There is no scheduler and no DAG processor: a test beats in their place, and marks DAGs as parsed
//! as a DAG processor does after rows came. Two running Airflows are moved between in the tests of
//! the transfer library.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_integration_tests::eventually;
use airfleet_local::{AirflowShard, Postgres};
use airfleet_proto::{
    common::v1 as common,
    moves::v1::{self as wire, move_service_client::MoveServiceClient},
    registry::v1 as registry,
    router::v1::{self as router, router_service_client::RouterServiceClient},
};
use airfleet_router::{Config, ManifestSource, run_with};
use airfleet_runtime::{
    config::{ClientConfig, ConnectionUrl, StoreConfig},
    lifecycle::Shutdown,
};
use airfleet_shard_agent::AgentConfig;
use tokio::{runtime::Runtime, sync::mpsc, task::JoinHandle, time::interval};
use tonic::transport::{Channel, Endpoint};

/// Generous: a busy machine is slow.
const LIMIT: Duration = Duration::from_mins(1);

const SHARDS: [&str; 2] = ["shard-a", "shard-b"];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// An agent that can be killed: nothing is said to anybody, and nothing is finished.
struct Agent {
    config: AgentConfig,
    runtime: Option<Runtime>,
}

impl Agent {
    fn start(config: AgentConfig) -> Self {
        let runtime = runtime();
        runtime.spawn(airfleet_shard_agent::run(config.clone(), None, Shutdown::new()));
        Self { config, runtime: Some(runtime) }
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    fn restart(&mut self) {
        self.kill();
        *self = Self::start(self.config.clone());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Fleet {
    agents: [Agent; 2],
    beats: JoinHandle<()>,
    databases: [String; 2],
    shard: Arc<AirflowShard>,
    channel: Channel,
    router: Option<Runtime>,
    _folder: tempfile::TempDir,
    _manifest: mpsc::Sender<registry::WatchManifestResponse>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.beats.abort();
        if let Some(router) = self.router.take() {
            router.shutdown_background();
        }
    }
}

fn change(revision: i64, kind: registry::manifest_entry::Kind) -> registry::WatchManifestResponse {
    let change = registry::ManifestChange {
        previous_revision: revision - 1,
        upserts: vec![registry::ManifestEntry { kind: Some(kind) }],
        ..Default::default()
    };
    let event = registry::watch_manifest_response::Event::Change(change);
    registry::WatchManifestResponse { revision, event: Some(event) }
}

fn shard(name: &str, revision: i64) -> registry::WatchManifestResponse {
    let shard = registry::Shard {
        name: name.into(),
        uid: format!("uid-{name}"),
        url: format!("http://{name}.example.net"),
        capacity: Some(common::Resources { dags: 1_000, ..Default::default() }),
        revision,
        ..Default::default()
    };
    change(revision, registry::manifest_entry::Kind::Shard(shard))
}

fn namespace(revision: i64) -> registry::WatchManifestResponse {
    let namespace = registry::Namespace {
        name: "pay".into(),
        uid: "uid-pay".into(),
        prefixes: vec!["pay.".into()],
        demand: Some(common::Resources { dags: 10, ..Default::default() }),
        revision,
        ..Default::default()
    };
    change(revision, registry::manifest_entry::Kind::Namespace(namespace))
}

async fn beat(postgres: &Postgres, database: &str) {
    let sql = "UPDATE job SET latest_heartbeat = now(); \
               UPDATE dag SET is_stale = false WHERE is_stale AND starts_with(dag_id, 'pay.')";
    // While rows are installed it waits; what it could not do it does the next time.
    let _ = postgres.query(database, sql).await;
}

impl Fleet {
    async fn boot() -> Self {
        airfleet_runtime::tls::install_crypto_provider();
        let airflow = AirflowShard::builder("shard-a").database_only().boot().await.unwrap();
        let one = airflow.metadata_url().rsplit('/').next().unwrap().to_owned();
        let databases = [one.clone(), format!("{one}_other")];
        let postgres = airflow.postgres().unwrap();
        let make = format!("CREATE DATABASE \"{}\" TEMPLATE \"{one}\"", databases[1]);
        postgres.query("postgres", &make).await.unwrap();
        for database in &databases {
            let jobs = "INSERT INTO job (job_type, state, start_date, latest_heartbeat) VALUES \
                 ('SchedulerJob', 'running', now(), now()), \
                 ('DagProcessorJob', 'running', now(), now()); \
                 INSERT INTO slot_pool (pool, slots, include_deferred) VALUES ('patient', 4, false)";
            postgres.query(database, jobs).await.unwrap();
        }
        let rows =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/transfer/tests/sql/rows.sql");
        let rows = std::fs::read_to_string(rows)
            .unwrap()
            .replace("PREFIX", "pay.")
            .replace("SALT", "pay")
            .replace("DAGS", "4")
            .replace("RUNS", "30")
            .replace("TASKS", "4");
        postgres.query(&one, &rows).await.unwrap();
        // As its DAG processor would have it, once it parsed the same files.
        let assets = "INSERT INTO asset (name, uri, \"group\", extra, created_at, updated_at) \
             SELECT 'pay.asset' || n, 's3://pay./' || n, 'asset', '{}', now(), now() \
             FROM generate_series(1, 3) n";
        postgres.query(&databases[1], assets).await.unwrap();
        // Nothing that no worker will ever finish.
        let finish = "UPDATE task_instance SET state = 'success' \
             WHERE state IN ('running', 'restarting', 'queued', 'deferred')";
        postgres.query(&one, finish).await.unwrap();
        let shard = Arc::new(airflow);

        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let store = format!("sqlite:{}/router.db", folder.path().display());
        config.store =
            StoreConfig { url: ConnectionUrl::new(store).unwrap(), ..StoreConfig::default() };
        config.table.poll_interval = Duration::from_millis(100);
        config.placement.require_report = false;
        config.agents.report_interval = Duration::from_millis(200);
        let listener = std::net::TcpListener::bind(config.server.listen).unwrap();
        let address = listener.local_addr().unwrap();
        let (manifest, messages) = mpsc::channel(16);
        let routing = runtime();
        let source = ManifestSource::Channel(messages);
        routing.spawn(run_with(config, listener, Shutdown::new(), source));

        let agents = [0, 1].map(|n| {
            let mut config = AgentConfig {
                shard: SHARDS[n].to_owned(),
                router: ClientConfig::plain(format!("http://{address}")),
                state_dir: Some(folder.path().join(SHARDS[n])),
                ..AgentConfig::default()
            };
            let url = shard.postgres().unwrap().url(&databases[n]);
            config.airflow.metadata_url = Some(ConnectionUrl::new(url).unwrap());
            config.airflow.dags_folder = Some("/opt/airflow/dags".to_owned());
            config.delivery.interval = Duration::from_millis(500);
            // The rows are of years ago, and nobody makes later ones.
            config.thresholds.lateness_max = Duration::from_secs(1_000_000_000);
            config.thresholds.scheduling_delay_p95 = Duration::from_secs(1_000_000_000);
            config.thresholds.triggerer_heartbeat_age = Duration::from_secs(1_000_000_000);
            Agent::start(config)
        });
        let (beating, beaten) = (shard.clone(), databases.clone());
        let beats = tokio::spawn(async move {
            let mut pauses = interval(Duration::from_millis(200));
            loop {
                for database in &beaten {
                    beat(beating.postgres().unwrap(), database).await;
                }
                pauses.tick().await;
            }
        });
        let channel = Endpoint::new(format!("http://{address}")).unwrap().connect_lazy();
        let fleet = Self {
            agents,
            beats,
            databases,
            shard,
            channel,
            router: Some(routing),
            _folder: folder,
            _manifest: manifest.clone(),
        };
        manifest.send(self::shard("shard-a", 1)).await.unwrap();
        manifest.send(namespace(2)).await.unwrap();
        let assigned = async || match fleet.owner().await {
            Some(owner) if owner == "shard-a" => Ok(()),
            owner => Err(format!("it is not assigned to shard-a but to {owner:?}")),
        };
        eventually(LIMIT, assigned).await.unwrap();
        manifest.send(self::shard("shard-b", 3)).await.unwrap();
        for name in SHARDS {
            let healthy = async || {
                let ask = router::GetShardStatusRequest { shard: name.into() };
                let mut client = RouterServiceClient::new(fleet.channel.clone());
                let told = client.get_shard_status(ask).await.map_err(|error| error.to_string())?;
                match told.into_inner().health {
                    Some(health) if health.verdict() == common::Verdict::Healthy => Ok(()),
                    health => Err(format!("{name}: {health:?}")),
                }
            };
            eventually(LIMIT, healthy).await.unwrap();
        }
        let ready = async || {
            let installed = "SELECT to_regclass('airfleet_move') IS NOT NULL";
            for shard in [0, 1] {
                if fleet.query(shard, installed).await != "t" {
                    return Err(format!("no fence on {}", SHARDS[shard]));
                }
            }
            let active = "SELECT count(*) FROM airfleet_role WHERE reached_role = 'active'";
            match (fleet.query(0, active).await.as_str(), fleet.unpaused(0).await.as_str()) {
                ("1", "3") => Ok(()),
                found => Err(format!("namespaces that are active and DAGs that run: {found:?}")),
            }
        };
        eventually(LIMIT, ready).await.unwrap();
        fleet
    }

    async fn owner(&self) -> Option<String> {
        let ask = router::GetAssignmentRequest { namespace: "pay".into() };
        let mut client = RouterServiceClient::new(self.channel.clone());
        client.get_assignment(ask).await.ok().map(|found| found.into_inner().shard)
    }

    async fn query(&self, shard: usize, sql: &str) -> String {
        self.shard.postgres().unwrap().query(&self.databases[shard], sql).await.unwrap()
    }

    async fn unpaused(&self, shard: usize) -> String {
        self.query(shard, "SELECT count(*) FROM dag WHERE NOT is_paused").await
    }

    /// Runs and task instances, each as a line.
    async fn history(&self, shard: usize) -> BTreeSet<String> {
        let sql = "SELECT concat_ws('|', dag_id, run_id, state, logical_date, conf, note) FROM ( \
              SELECT r.*, n.content AS note FROM dag_run r \
              LEFT JOIN dag_run_note n ON n.dag_run_id = r.id) r WHERE starts_with(dag_id, 'pay.') \
            UNION ALL \
            SELECT concat_ws('|', dag_id, run_id, task_id, map_index, try_number, state, id) \
              FROM task_instance WHERE starts_with(dag_id, 'pay.')";
        self.query(shard, sql).await.lines().map(str::to_owned).collect()
    }

    /// Pause state of each DAG.
    async fn pauses(&self, shard: usize) -> String {
        let sql = "SELECT dag_id, is_paused FROM dag WHERE starts_with(dag_id, 'pay.') \
                   ORDER BY dag_id COLLATE \"C\"";
        self.query(shard, sql).await
    }

    fn moves(&self) -> MoveServiceClient<Channel> {
        MoveServiceClient::new(self.channel.clone())
    }

    async fn start(&self, target: usize) -> wire::Move {
        let request = wire::StartMoveRequest {
            namespace: "pay".into(),
            target_shard: SHARDS[target].into(),
            reason: "test".into(),
            ..Default::default()
        };
        let started = self.moves().start_move(request).await.unwrap().into_inner();
        started.r#move.unwrap()
    }

    async fn get(&self, id: &str) -> Option<wire::Move> {
        let ask = wire::GetMoveRequest { name: id.into() };
        self.moves().get_move(ask).await.ok().map(tonic::Response::into_inner)
    }

    /// Waits until a move is in a phase, or past it.
    async fn until(&self, id: &str, phase: wire::MovePhase) -> wire::Move {
        eventually(LIMIT, async || match self.get(id).await {
            Some(found) if found.phase() == phase => Ok(found),
            found => Err(format!("not {phase:?}: {found:#?}")),
        })
        .await
        .unwrap()
    }

    /// Everything that one end had is on the other, and nothing but what came due beside it.
    async fn compare(&self, before: &BTreeSet<String>, target: usize, done: &wire::Move) {
        // What was about to start is set back as the source is sealed; nothing else changes there.
        let sealed = self.history(1 - target).await;
        let changed: Vec<_> = before.difference(&sealed).collect();
        assert!(changed.iter().all(|row| row.contains("|scheduled|")), "changed: {changed:#?}");
        assert_eq!(sealed.len(), before.len());
        let after = self.history(target).await;
        let lost: Vec<_> = sealed.difference(&after).take(5).collect();
        assert!(lost.is_empty(), "lost: {lost:#?}");
        let proof = done.proof.as_ref().expect("both agents tell of their runs");
        assert_eq!(proof.differing, 0, "{proof:#?}");
        assert!(proof.runs_expected > 0, "{proof:#?}");
        let more = after.len() - sealed.len();
        assert_eq!(more as i64, proof.runs_inserted, "only runs that came due were inserted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_moves_with_its_history_and_back() {
    let fleet = Fleet::boot().await;
    let (before, pauses) = (fleet.history(0).await, fleet.pauses(0).await);
    let there = fleet.start(1).await;
    let done = fleet.until(&there.id, wire::MovePhase::Done).await;
    assert_eq!(fleet.owner().await.as_deref(), Some("shard-b"));
    fleet.compare(&before, 1, &done).await;
    assert_eq!(fleet.pauses(1).await, pauses);
    assert_eq!(fleet.unpaused(0).await, "0");

    let before = fleet.history(1).await;
    let back = fleet.start(0).await;
    let done = fleet.until(&back.id, wire::MovePhase::Done).await;
    assert_eq!(fleet.owner().await.as_deref(), Some("shard-a"));
    fleet.compare(&before, 0, &done).await;
    assert_eq!(fleet.pauses(0).await, pauses);
    assert_eq!(fleet.unpaused(1).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_given_up_leaves_the_source_as_it_was() {
    let fleet = Fleet::boot().await;
    // A task that goes on running keeps the move where it is.
    let run = "UPDATE task_instance SET state = 'running' WHERE id = (SELECT min(CAST(id AS text)) \
               FROM task_instance WHERE starts_with(dag_id, 'pay.'))::uuid";
    fleet.query(0, run).await;
    let (before, pauses) = (fleet.history(0).await, fleet.pauses(0).await);
    let begun = fleet.start(1).await;
    fleet.until(&begun.id, wire::MovePhase::Quiescing).await;
    eventually(LIMIT, async || match fleet.unpaused(0).await.as_str() {
        "0" => Ok(()),
        running => Err(format!("{running} DAGs of the source are not fenced")),
    })
    .await
    .unwrap();
    let give_up = wire::AbortMoveRequest { name: begun.id.clone(), reason: "not now".into() };
    fleet.moves().abort_move(give_up).await.unwrap();
    fleet.until(&begun.id, wire::MovePhase::Aborted).await;
    assert_eq!(fleet.owner().await.as_deref(), Some("shard-a"));
    assert_eq!(fleet.pauses(0).await, pauses);
    let after = fleet.history(0).await;
    assert_eq!(before.difference(&after).count(), 0);
    assert_eq!(fleet.unpaused(1).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_killed_in_every_phase_go_on_where_they_were() {
    let mut fleet = Fleet::boot().await;
    let (before, pauses) = (fleet.history(0).await, fleet.pauses(0).await);
    let begun = fleet.start(1).await;
    let mut killed = BTreeSet::new();
    let started = Instant::now();
    // Phases are short.
    let mut looks = interval(Duration::from_millis(5));
    let done = loop {
        assert!(started.elapsed() < LIMIT * 2, "{:#?}", fleet.get(&begun.id).await);
        looks.tick().await;
        let Some(found) = fleet.get(&begun.id).await else { continue };
        if found.phase() == wire::MovePhase::Done {
            break found;
        }
        assert_ne!(found.phase(), wire::MovePhase::Aborted, "{found:#?}");
        // Before it is begun, an agent that is away keeps it from beginning at all.
        if found.phase() != wire::MovePhase::Planned && killed.insert(found.phase) {
            fleet.agents.iter_mut().for_each(Agent::restart);
        }
    };
    assert!(killed.len() >= 4, "{killed:?}");
    fleet.compare(&before, 1, &done).await;
    assert_eq!(fleet.pauses(1).await, pauses);
}
