//! A shard's database, its DAGs folder, sources, and a router that a test speaks for.

use std::{fs, path::PathBuf, time::Duration};

use airfleet_local::{AirflowShard, AirflowVersion};
use airfleet_proto::{
    agent::v1::{
        DesiredRole, DesiredRoles, MoveSide, MoveTask, ObservedRole, TransferPart, TransferTask,
        Workload,
    },
    common::v1::{DagSource, Guardrails, Pool, Role},
};
use airfleet_runtime::config::Secret;
use airfleet_shard_agent::AgentConfig;
use tempfile::TempDir;

use crate::{
    database::{agent_of, database, query},
    scripted::ScriptedRouter,
};

pub(super) const KEY: &str = "hQ1Q0cOJW0PyTvDqSGbMZAVQyAnQ2cRrxK0QHd2vHBE=";

/// A shard's database, its DAGs folder, sources, and a router.
pub(super) struct Fixture {
    pub(super) shard: AirflowShard,
    pub(super) router: ScriptedRouter,
    home: TempDir,
    told: std::cell::Cell<i64>,
}

/// What is told of namespace `pay`, or of another.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) namespace: &'static str,
    pub(super) role: Role,
    pub(super) generation: i64,
    pub(super) workload: Workload,
}

impl Fixture {
    pub(super) async fn new(version: AirflowVersion) -> Self {
        Self::of(database(version).await).await
    }

    pub(super) async fn of(shard: AirflowShard) -> Self {
        let home = tempfile::tempdir().unwrap();
        for folder in ["dags", "state", "secrets/pay", "sources"] {
            fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        let router = ScriptedRouter::start().await;
        Self { shard, router, home, told: std::cell::Cell::new(0) }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(super) fn config(&self) -> AgentConfig {
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
    pub(super) fn source(&self, namespace: &str, file: &str, text: &str) {
        let folder = self.path("sources").join(namespace);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), text).unwrap();
    }

    pub(super) fn workload(&self, namespace: &str) -> Workload {
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

    pub(super) fn pay(&self, role: Role, generation: i64) -> Told {
        Told { namespace: "pay", role, generation, workload: self.workload("pay") }
    }

    /// Tells all there is.
    pub(super) fn tell(&self, all: &[Told]) {
        self.tell_with(all, None);
    }

    /// Tells of one namespace, which the shard is the source of a move of.
    pub(super) fn tell_source(&self, told: Told) {
        self.tell_with(&[told], Some(&task("move-1", MoveSide::Source)));
    }

    /// The same, of a move with this id, and rows are to travel.
    pub(super) fn tell_transfer(
        &self,
        told: Told,
        move_id: &str,
        side: MoveSide,
        part: TransferPart,
    ) {
        let part = part.into();
        let transfer = Some(TransferTask { part, ..TransferTask::default() });
        self.tell_with(&[told], Some(&MoveTask { transfer, ..task(move_id, side) }));
    }

    fn tell_with(&self, all: &[Told], task: Option<&MoveTask>) {
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
            r#move: task.cloned(),
        };
        let roles = all.iter().map(role).collect();
        let (term, sequence) = (1, number);
        self.router.tell(DesiredRoles { term, sequence, full: true, roles, ..Default::default() });
    }

    pub(super) async fn reached(
        &self,
        namespace: &str,
        role: Role,
        generation: i64,
    ) -> ObservedRole {
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
    pub(super) async fn add_dags(&self, dags: &[(&str, bool)]) {
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

    pub(super) async fn running(&self) -> Vec<String> {
        let sql = "SELECT dag_id FROM dag WHERE NOT is_paused ORDER BY dag_id COLLATE \"C\"";
        query(&self.shard, sql).await.lines().map(str::to_owned).collect()
    }

    pub(super) async fn pools(&self) -> Vec<String> {
        let sql =
            "SELECT pool || ' ' || slots FROM slot_pool WHERE pool <> 'default_pool' ORDER BY 1";
        query(&self.shard, sql).await.lines().map(str::to_owned).collect()
    }

    pub(super) fn delivered(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path("dags").join(file)).ok()
    }

    pub(super) fn rules(&self) -> serde_json::Value {
        let path = self.path("dags/.airfleet/guardrails.json");
        serde_json::from_slice(&fs::read(path).unwrap_or_else(|_| b"{}".to_vec())).unwrap()
    }

    /// Writes the settings for an agent of its own process.
    pub(super) fn settings(&self) -> PathBuf {
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

fn task(move_id: &str, side: MoveSide) -> MoveTask {
    MoveTask {
        move_id: move_id.to_owned(),
        side: side.into(),
        peer: "shard-b".to_owned(),
        attempt: 1,
        transfer: None,
    }
}

pub(super) fn pool(name: &str, slots: i64) -> Pool {
    Pool { name: name.to_owned(), slots, ..Pool::default() }
}
