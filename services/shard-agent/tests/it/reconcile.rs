//! The agent brings a real metadata database and a real folder to what a router tells it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use airfleet_local::{AirflowShard, AirflowVersion};
use airfleet_proto::{
    agent::v1::{DesiredRole, DesiredRoles, ObservedRole, Workload},
    common::v1::{Connection, DagSource, Enforcement, Guardrails, Pool, Role, Variable},
};
use airfleet_runtime::config::Secret;
use airfleet_shard_agent::AgentConfig;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::{
    RunningAgent,
    database::{agent_of, database, query},
    eventually,
    scripted::ScriptedRouter,
};

const KEY: &str = "hQ1Q0cOJW0PyTvDqSGbMZAVQyAnQ2cRrxK0QHd2vHBE=";

/// A shard's database, its DAGs folder, sources, and a router.
struct Fixture {
    shard: AirflowShard,
    router: ScriptedRouter,
    home: TempDir,
    told: std::cell::Cell<i64>,
}

/// What is told of namespace `pay`, or of another.
#[derive(Clone)]
struct Told {
    namespace: &'static str,
    role: Role,
    generation: i64,
    workload: Workload,
}

impl Fixture {
    async fn new(version: AirflowVersion) -> Self {
        let shard = database(version).await;
        let home = tempfile::tempdir().unwrap();
        for folder in ["dags", "state", "secrets/pay", "sources"] {
            fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        let router = ScriptedRouter::start().await;
        Self { shard, router, home, told: std::cell::Cell::new(0) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn config(&self) -> AgentConfig {
        let mut config = agent_of(&self.shard, &self.router);
        config.state_dir = Some(self.path("state"));
        config.delivery.dags_folder = Some(self.path("dags"));
        config.delivery.source_folders = vec![self.path("sources")];
        config.delivery.interval = Duration::from_millis(300);
        config.secrets.folder = Some(self.path("secrets"));
        config.secrets.fernet_key = Some(Secret::new(KEY));
        config
    }

    /// Writes a file of a namespace's source.
    fn source(&self, namespace: &str, file: &str, text: &str) {
        let folder = self.path("sources").join(namespace);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), text).unwrap();
    }

    fn workload(&self, namespace: &str) -> Workload {
        Workload {
            owners: vec!["team".to_owned()],
            source: Some(DagSource {
                uri: self.path("sources").join(namespace).display().to_string(),
                ..DagSource::default()
            }),
            pools: vec![pool(&format!("{namespace}_pool"), 4)],
            guardrails: Some(Guardrails {
                queues: vec!["default".to_owned()],
                ..Guardrails::default()
            }),
            ..Workload::default()
        }
    }

    fn pay(&self, role: Role, generation: i64) -> Told {
        Told { namespace: "pay", role, generation, workload: self.workload("pay") }
    }

    /// Tells all there is.
    fn tell(&self, all: &[Told]) {
        let number = self.told.get() + 1;
        self.told.set(number);
        let role = |told: &Told| DesiredRole {
            namespace: told.namespace.to_owned(),
            prefixes: vec![format!("{}__", told.namespace)],
            role: told.role.into(),
            generation: told.generation,
            workload: Some(told.workload.clone()),
            manifest_revision: number,
            revision: number,
            ..DesiredRole::default()
        };
        let roles = all.iter().map(role).collect();
        let (term, sequence) = (1, number);
        self.router.tell(DesiredRoles { term, sequence, full: true, roles, ..Default::default() });
    }

    async fn reached(&self, namespace: &str, role: Role, generation: i64) -> ObservedRole {
        let revision = self.told.get();
        let is = move |seen: &ObservedRole| {
            seen.role() == role
                && seen.target_role() == role
                && seen.generation == generation
                && seen.manifest_revision == revision
        };
        self.router.role(namespace, &format!("{namespace} is {role:?}"), is).await
    }

    /// DAGs as Airflow's DAG processor writes them; each begins as told.
    async fn add_dags(&self, dags: &[(&str, bool)]) {
        for (dag, paused) in dags {
            let sql = format!(
                "INSERT INTO dag_bundle (name, active) VALUES ('b', true) ON CONFLICT DO NOTHING; \
                 INSERT INTO dag (dag_id, is_paused, is_stale, bundle_name, timetable_type, \
                   partition_mapper_info, max_active_tasks, max_consecutive_failed_dag_runs, \
                   has_task_concurrency_limits) \
                 VALUES ('{dag}', {paused}, false, 'b', '', '{{}}', 16, 0, false)"
            );
            query(&self.shard, &sql).await;
        }
    }

    async fn running(&self) -> Vec<String> {
        let sql = "SELECT dag_id FROM dag WHERE NOT is_paused ORDER BY dag_id COLLATE \"C\"";
        query(&self.shard, sql).await.lines().map(str::to_owned).collect()
    }

    async fn pools(&self) -> Vec<String> {
        let sql =
            "SELECT pool || ' ' || slots FROM slot_pool WHERE pool <> 'default_pool' ORDER BY 1";
        query(&self.shard, sql).await.lines().map(str::to_owned).collect()
    }

    fn delivered(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path("dags").join(file)).ok()
    }

    fn rules(&self) -> serde_json::Value {
        let path = self.path("dags/.airfleet/guardrails.json");
        serde_json::from_slice(&fs::read(path).unwrap_or_else(|_| b"{}".to_vec())).unwrap()
    }

    /// Writes the settings for an agent of its own process.
    fn settings(&self) -> PathBuf {
        let path = self.path("agent.toml");
        let text = format!(
            "shard = 'shard-a'\nstate_dir = '{state}'\n[router]\nendpoints = ['http://{router}']\n\
             [airflow]\nmetadata_url = '{metadata}'\n\
             [delivery]\ndags_folder = '{dags}'\nsource_folders = ['{sources}']\ninterval = '300ms'\n\
             [secrets]\nfolder = '{secrets}'\nfernet_key = '{KEY}'\n\
             [server]\nlisten = '127.0.0.1:0'\n[telemetry]\nfilter = 'airfleet_shard_agent=debug,info'\n",
            state = self.path("state").display(),
            router = self.router.address(),
            metadata = self.shard.metadata_url(),
            dags = self.path("dags").display(),
            sources = self.path("sources").display(),
            secrets = self.path("secrets").display(),
        );
        fs::write(&path, text).unwrap();
        path
    }
}

fn pool(name: &str, slots: i64) -> Pool {
    Pool { name: name.to_owned(), slots, ..Pool::default() }
}

fn drift(seen: &ObservedRole) -> Vec<(&str, bool)> {
    seen.drift.iter().map(|one| (one.code.as_str(), one.tolerated)).collect()
}

fn codes(events: &[(String, String)]) -> Vec<&str> {
    events.iter().map(|(code, _)| code.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_through_its_life() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.add_dags(&[("pay__a", false), ("pay__b", true), ("other", false)]).await;
    fixture.source("pay", "a.py", "# 1");
    let agent = RunningAgent::start(fixture.config());

    // Everything is there, and nothing may run.
    fixture.tell(&[fixture.pay(Role::Staged, 1)]);
    let seen = fixture.reached("pay", Role::Staged, 1).await;
    assert_eq!((seen.fenced_dags, seen.obstacle), (2, None));
    assert_eq!(fixture.running().await, ["other"]);
    assert_eq!(fixture.pools().await, ["pay_pool 4"]);
    assert_eq!(fixture.delivered("pay/a.py").as_deref(), Some("# 1"));
    assert_eq!(fixture.rules()["namespaces"]["pay"]["rules"]["queues"][0], "default");
    assert_eq!(seen.release.as_ref().unwrap().files, 1);
    query(&fixture.shard, "UPDATE dag SET is_paused = false WHERE dag_id = 'pay__a'").await;
    fixture.add_dags(&[("pay__new", false)]).await;
    assert_eq!(fixture.running().await, ["other"]);

    // Its users' own pause states come back.
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    let seen = fixture.reached("pay", Role::Active, 1).await;
    assert_eq!(seen.fenced_dags, 0);
    assert_eq!(fixture.running().await, ["other", "pay__a", "pay__new"]);

    // What the manifest and the source say anew.
    let mut changed = fixture.pay(Role::Active, 1);
    changed.workload.pools = vec![pool("pay_pool", 7), pool("pay_more", 1)];
    changed.workload.guardrails = None;
    fixture.source("pay", "a.py", "# 2");
    fixture.source("pay", "b.py", "# 1");
    fixture.tell(std::slice::from_ref(&changed));
    let before = seen.release.unwrap().id;
    let is = |seen: &ObservedRole| {
        seen.manifest_revision == 3 && seen.release.as_ref().is_some_and(|one| one.id != before)
    };
    fixture.router.role("pay", "the new release runs", is).await;
    assert_eq!(fixture.pools().await, ["pay_more 1", "pay_pool 7"]);
    assert_eq!(fixture.delivered("pay/a.py").as_deref(), Some("# 2"));
    assert_eq!(fixture.rules()["namespaces"]["pay"]["rules"]["queues"], serde_json::Value::Null);
    assert_eq!(fixture.running().await, ["other", "pay__a", "pay__new"]);

    // A pool that somebody else made is left alone; one that is no longer declared goes.
    query(
        &fixture.shard,
        "INSERT INTO slot_pool (pool, slots, include_deferred) VALUES ('theirs', 9, false)",
    )
    .await;
    changed.workload.pools = vec![pool("pay_pool", 7), pool("theirs", 1)];
    fixture.tell(std::slice::from_ref(&changed));
    let seen = fixture.reached("pay", Role::Active, 1).await;
    assert_eq!(drift(&seen), [("POOL_FOREIGN", true)]);
    assert_eq!(fixture.pools().await, ["pay_pool 7", "theirs 9"]);

    // Quiesced: paused, remembered, files frozen.
    fixture.tell(&[fixture.pay(Role::Quiesced, 2)]);
    fixture.reached("pay", Role::Quiesced, 2).await;
    assert_eq!(fixture.running().await, ["other"]);
    fixture.source("pay", "a.py", "# 3");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.delivered("pay/a.py").as_deref(), Some("# 2"));

    // Back, as it was.
    fixture.tell(&[fixture.pay(Role::Active, 3)]);
    fixture.reached("pay", Role::Active, 3).await;
    assert_eq!(fixture.running().await, ["other", "pay__a", "pay__new"]);
    eventually("the source is followed again", async || {
        fixture.delivered("pay/a.py").filter(|text| text == "# 3")
    })
    .await;

    // Given up, and forgotten.
    fixture.tell(&[fixture.pay(Role::Retired, 4)]);
    fixture.reached("pay", Role::Retired, 4).await;
    assert_eq!(fixture.running().await, ["other"]);
    assert_eq!(fixture.pools().await, ["theirs 9"]);
    assert_eq!(fixture.delivered("pay/a.py"), None);
    assert_eq!(fixture.rules()["namespaces"].as_object().unwrap().len(), 0);
    fixture.tell(&[fixture.pay(Role::Absent, 4)]);
    fixture.reached("pay", Role::Absent, 4).await;
    fixture.tell(&[]);
    fixture.router.when("nothing is told of it", |report| report.roles.is_empty()).await;
    for table in ["airfleet_role", "airfleet_fence", "airfleet_pause", "airfleet_owned"] {
        assert_eq!(
            query(&fixture.shard, &format!("SELECT count(*) FROM {table}")).await.trim(),
            "0"
        );
    }
    let events = fixture.router.events("pay");
    for code in ["ROLE_REACHED", "RELEASE_SWITCHED", "SETTINGS_APPLIED", "FENCED", "FILES_REMOVED"]
    {
        assert!(codes(&events).contains(&code), "{code} in {events:?}");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_is_put_right_or_told() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    let agent = RunningAgent::start(fixture.config());
    let mut pay = fixture.pay(Role::Active, 1);
    fixture.tell(std::slice::from_ref(&pay));
    fixture.reached("pay", Role::Active, 1).await;

    query(&fixture.shard, "UPDATE slot_pool SET slots = 99 WHERE pool = 'pay_pool'").await;
    fs::remove_file(fixture.path("dags/.airfleet/guardrails.json")).unwrap();
    fixture
        .router
        .role("pay", "drift is told", |seen| drift(seen) == [("POOL_RESIZED", false)])
        .await;
    fixture.router.role("pay", "drift is over", |seen| seen.drift.is_empty()).await;
    assert_eq!(fixture.pools().await, ["pay_pool 4"]);
    assert_eq!(fixture.rules()["namespaces"]["pay"]["prefixes"][0], "pay__");

    // A delivered file.
    let file = fs::canonicalize(fixture.path("dags/pay/a.py")).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, "# somebody else").unwrap();
    eventually("the file is put right", async || {
        fixture.delivered("pay/a.py").filter(|text| text == "# 1")
    })
    .await;

    pay.workload.drift = Enforcement::Warn.into();
    fixture.tell(std::slice::from_ref(&pay));
    fixture.reached("pay", Role::Active, 1).await;
    query(&fixture.shard, "DELETE FROM slot_pool WHERE pool = 'pay_pool'").await;
    fixture
        .router
        .role("pay", "drift is told", |seen| drift(seen) == [("POOL_MISSING", true)])
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fixture.pools().await.is_empty());
    // What the manifest changes is brought about all the same.
    pay.workload.pools = vec![pool("pay_pool", 5)];
    fixture.tell(std::slice::from_ref(&pay));
    fixture.reached("pay", Role::Active, 1).await;
    assert_eq!(fixture.pools().await, ["pay_pool 5"]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_from_the_agents_own_files() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__a", false)]).await;
    let agent = RunningAgent::start(fixture.config());
    let mut pay = fixture.pay(Role::Active, 1);
    pay.workload.variables = vec![
        Variable { key: "token".to_owned(), secret: "token".to_owned() },
        Variable { key: "elsewhere".to_owned(), secret: String::new() },
    ];
    pay.workload.connections = vec![Connection { id: "db".to_owned(), secret: "db".to_owned() }];
    fixture.tell(std::slice::from_ref(&pay));
    // Nothing runs before everything that it needs is there.
    let is = |seen: &ObservedRole| {
        seen.obstacle.as_ref().is_some_and(|one| one.code == "SECRET_UNREADABLE")
    };
    let seen = fixture.router.role("pay", "a secret is missing", is).await;
    assert!(seen.obstacle.unwrap().message.contains("secrets/pay/"), "it says which file");
    assert!(fixture.running().await.is_empty());

    fs::write(fixture.path("secrets/pay/token"), "hunter2\n").unwrap();
    fs::write(fixture.path("secrets/pay/db"), "postgres://me:hunter3@db:5432/pay?a=b").unwrap();
    fixture.reached("pay", Role::Active, 1).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    let key = fernet::Fernet::new(KEY).unwrap();
    let opened = |text: String| String::from_utf8(key.decrypt(text.trim()).unwrap()).unwrap();
    let variable = "SELECT val FROM variable WHERE key = 'token' AND is_encrypted";
    assert_eq!(opened(query(&fixture.shard, variable).await), "hunter2");
    let password = "SELECT password FROM connection WHERE conn_id = 'db' AND is_encrypted";
    assert_eq!(opened(query(&fixture.shard, password).await), "hunter3");
    let rest =
        "SELECT conn_type || ' ' || host || ' ' || port || ' ' || c.schema FROM connection c";
    assert_eq!(query(&fixture.shard, rest).await.trim(), "postgres db 5432 pay");
    assert_eq!(query(&fixture.shard, "SELECT count(*) FROM variable").await.trim(), "1");

    // A new value in the file.
    fs::write(fixture.path("secrets/pay/token"), "hunter4").unwrap();
    eventually("the new value is there", async || {
        (opened(query(&fixture.shard, variable).await) == "hunter4").then_some(())
    })
    .await;
    // A file that goes stops nothing that runs.
    fs::remove_file(fixture.path("secrets/pay/token")).unwrap();
    fixture.router.role("pay", "a secret is missing again", is).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    let told = format!("{:?}", fixture.router.reports());
    assert!(!told.contains("hunter"), "a secret was told");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_stuck_holds_up_no_other_and_keeps_what_runs() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    let names = ["aaa", "bbb", "ccc", "ddd", "eee", "fff"];
    let told = |role: Role| {
        let one = |namespace: &&'static str| Told {
            namespace,
            role,
            generation: 1,
            workload: fixture.workload(namespace),
        };
        names.iter().map(one).collect::<Vec<_>>()
    };
    // All but two have no source.
    for name in ["ccc", "fff"] {
        fixture.source(name, "a.py", "# 1");
    }
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&told(Role::Active));
    for name in ["ccc", "fff"] {
        fixture.reached(name, Role::Active, 1).await;
    }
    let is = |seen: &ObservedRole| {
        seen.obstacle.as_ref().is_some_and(|one| one.code == "SOURCE_NOT_FOUND")
    };
    fixture.router.role("aaa", "its source is missing", is).await;

    // The source of one that runs goes away: it goes on running.
    fixture.add_dags(&[("ccc__a", false)]).await;
    fs::rename(fixture.path("sources/ccc"), fixture.path("sources/gone")).unwrap();
    let seen = fixture.router.role("ccc", "its source is missing", is).await;
    assert_eq!((seen.role(), seen.release.unwrap().files), (Role::Active, 1));
    assert_eq!(fixture.running().await, ["ccc__a"]);
    assert_eq!(fixture.delivered("ccc/a.py").as_deref(), Some("# 1"));
    // So does one whose source has garbage.
    fs::create_dir(fixture.path("sources/ccc")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", fixture.path("sources/ccc/a.py")).unwrap();
    let is = |seen: &ObservedRole| {
        seen.obstacle.as_ref().is_some_and(|one| one.code == "SYMLINK_OUTSIDE")
    };
    fixture.router.role("ccc", "its source is refused", is).await;
    assert_eq!(fixture.delivered("ccc/a.py").as_deref(), Some("# 1"));
    fs::remove_file(fixture.path("sources/ccc/a.py")).unwrap();
    fixture.source("ccc", "a.py", "# 2");
    fixture.router.role("ccc", "it is well again", |seen| seen.obstacle.is_none()).await;
    assert_eq!(fixture.delivered("ccc/a.py").as_deref(), Some("# 2"));
    let events = fixture.router.events("ccc");
    assert!(codes(&events).contains(&"RECOVERED"), "{events:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_without_a_router_and_obeys_no_old_one() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__a", false), ("ads__a", false)]).await;
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[fixture.pay(Role::Active, 5)]);
    fixture.reached("pay", Role::Active, 5).await;
    // DAGs of a namespace that another shard has are stopped.
    fixture.router.own_elsewhere("ads__", "ads");
    eventually("DAGs of elsewhere are paused", async || {
        (fixture.running().await == ["pay__a"]).then_some(())
    })
    .await;
    agent.stop().await;

    // A restart without a router: it does what it was told last.
    let mut alone = fixture.config();
    alone.router = airfleet_runtime::config::ClientConfig::plain("http://127.0.0.1:9");
    let agent = RunningAgent::start(alone);
    query(&fixture.shard, "UPDATE slot_pool SET slots = 99 WHERE pool = 'pay_pool'").await;
    fixture.source("pay", "a.py", "# 2");
    eventually("it goes on", async || {
        let is_there = fixture.delivered("pay/a.py").as_deref() == Some("# 2");
        (is_there && fixture.pools().await == ["pay_pool 4"]).then_some(())
    })
    .await;
    agent.stop().await;

    // A router that says less than before: nothing is done for what it says, nor deleted.
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[]);
    let quarantined = |seen: &ObservedRole| seen.role() == Role::Quiesced;
    fixture.router.role("pay", "it is quarantined", quarantined).await;
    assert!(fixture.running().await.is_empty());
    assert_eq!(fixture.pools().await, ["pay_pool 4"]);
    assert_eq!(fixture.delivered("pay/a.py").as_deref(), Some("# 2"));
    assert!(codes(&fixture.router.events("pay")).contains(&"QUARANTINED"));
    fixture.tell(&[fixture.pay(Role::Active, 5)]);
    fixture.reached("pay", Role::Active, 5).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    // An order that was overtaken is not obeyed.
    fixture.tell(&[fixture.pay(Role::Retired, 4)]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    agent.stop().await;

    // Nor is it after the agent lost its own memory: the fence remembers.
    fs::remove_dir_all(fixture.path("state")).unwrap();
    let agent = RunningAgent::start(fixture.config());
    let is = |seen: &ObservedRole| {
        seen.obstacle.as_ref().is_some_and(|one| one.code == "ORDER_OVERTAKEN")
    };
    fixture.router.role("pay", "the order is refused", is).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    assert_eq!(fixture.delivered("pay/a.py").as_deref(), Some("# 2"));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_restarts_under_it() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__a", false)]).await;
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    fixture.reached("pay", Role::Active, 1).await;
    let postgres = fixture.shard.postgres().unwrap();
    postgres.kill().await;
    fixture.tell(&[fixture.pay(Role::Quiesced, 2)]);
    let is = |seen: &ObservedRole| {
        seen.obstacle.as_ref().is_some_and(|one| one.code == "METADATA_FAILED")
    };
    let seen = fixture.router.role("pay", "the database is away", is).await;
    assert_eq!((seen.role(), seen.generation), (Role::Active, 1), "what it was is still told");
    postgres.start().await.unwrap();
    fixture.reached("pay", Role::Quiesced, 2).await;
    assert!(fixture.running().await.is_empty());
    agent.stop().await;
}

/// Runs an agent in a process of its own until it is about to do its `nth` step since it started,
/// and kills it so long after. Says whether it came so far.
async fn kill_at(settings: &Path, nth: usize, after: Duration) -> bool {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_airfleet-agent"))
        .arg("--config")
        .arg(settings)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stderr.take().unwrap()).lines();
    let mut other = BufReader::new(agent.stdout.take().unwrap()).lines();
    let mut steps = 0;
    let came_so_far = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let line = tokio::select! {
                Ok(Some(line)) = lines.next_line() => line,
                Ok(Some(line)) = other.next_line() => line,
                else => panic!("the agent ended"),
            };
            steps += usize::from(line.contains("step=Some"));
            if steps == nth {
                return true;
            }
            if line.contains("step=None") {
                return false;
            }
        }
    });
    let came_so_far = came_so_far.await.unwrap_or(false);
    tokio::time::sleep(after).await;
    agent.kill().await.unwrap();
    came_so_far
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_it_gets_there() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.add_dags(&[("pay__a", false), ("pay__b", true)]).await;
    let settings = fixture.settings();
    let life = [
        (Role::Staged, 1),
        (Role::Active, 1),
        (Role::Active, 2),
        (Role::Quiesced, 3),
        (Role::Active, 4),
        (Role::Retired, 5),
    ];
    let mut kills = 0;
    for (number, (role, generation)) in life.into_iter().enumerate() {
        let text = format!("# {number}");
        fixture.source("pay", "a.py", &text);
        let mut told = fixture.pay(role, generation);
        told.workload.pools = vec![pool("pay_pool", number as i64 + 1)];
        fixture.tell(&[told]);
        // Each start goes on where the last was killed, so it is always about to do something.
        for after in [0, 2, 10, 40] {
            for nth in 1..=3 {
                kills += usize::from(kill_at(&settings, nth, Duration::from_millis(after)).await);
            }
        }
        let agent = RunningAgent::start(fixture.config());
        fixture.reached("pay", role, generation).await;
        let runs: &[&str] = if role == Role::Active { &["pay__a"] } else { &[] };
        assert_eq!(fixture.running().await, runs, "{role:?}");
        if role == Role::Retired {
            assert_eq!((fixture.pools().await, fixture.delivered("pay/a.py")), (vec![], None));
        } else {
            assert_eq!(fixture.pools().await, [format!("pay_pool {}", number + 1)]);
            if role == Role::Active {
                let is_there = async || fixture.delivered("pay/a.py").filter(|now| *now == text);
                eventually("the files are there", is_there).await;
            }
        }
        agent.stop().await;
    }
    assert!(kills >= life.len(), "only {kills} kills hit a step");
    println!("{kills} kills");
}

#[tokio::test(flavor = "multi_thread")]
async fn airflow_2_has_the_same() {
    let fixture = Fixture::new(AirflowVersion::V2_11_2).await;
    let sql = "INSERT INTO dag (dag_id, is_paused, is_active, max_active_tasks, \
               max_consecutive_failed_dag_runs, has_task_concurrency_limits) \
               VALUES ('pay__a', false, true, 16, 0, false)";
    query(&fixture.shard, sql).await;
    fixture.source("pay", "a.py", "# 1");
    fs::write(fixture.path("secrets/pay/token"), "hunter2").unwrap();
    fs::write(fixture.path("secrets/pay/db"), r#"{"conn_type": "http", "host": "h"}"#).unwrap();
    let agent = RunningAgent::start(fixture.config());
    let mut pay = fixture.pay(Role::Staged, 1);
    pay.workload.variables = vec![Variable { key: "token".to_owned(), secret: "token".to_owned() }];
    pay.workload.connections = vec![Connection { id: "db".to_owned(), secret: "db".to_owned() }];
    fixture.tell(std::slice::from_ref(&pay));
    fixture.reached("pay", Role::Staged, 1).await;
    assert!(fixture.running().await.is_empty());
    pay.role = Role::Active;
    fixture.tell(std::slice::from_ref(&pay));
    fixture.reached("pay", Role::Active, 1).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    assert_eq!(fixture.pools().await, ["pay_pool 4"]);
    let both = "SELECT (SELECT count(*) FROM variable) + (SELECT count(*) FROM connection)";
    assert_eq!(query(&fixture.shard, both).await.trim(), "2");
    agent.stop().await;
}
