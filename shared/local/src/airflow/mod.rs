//! Hermetic Airflow shards: metadata database, broker and Airflow's processes,
//! all on this machine, all in one folder.
//!
//! A shard has a PostgreSQL and a Redis of its own with the CeleryExecutor
//! ([`Stack::Celery`]); where these are not installed, SQLite with the
//! LocalExecutor ([`Stack::Sqlite`]). A database that was migrated once is kept
//! in the cache folder and copied, so that later boots are fast.
//!
//! # The folder of DAG files
//! Airflow hashes the path of a DAG's file into the DAG's version. Two shards
//! with folders of different names therefore give the same file different
//! versions. Each shard here has a folder of its own; inside Airflow it is
//! always called [`DAGS_FOLDER`], which every process resolves to its own
//! shard's folder, so the same file has the same version on every shard.
//!
//! Must not know Airfleet's own services.

mod boot;
mod environment;
mod settings;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use boot::AirflowShardBuilder;
pub use environment::Environment;
pub(crate) use environment::make as make_environment;
use futures::future::join_all;
pub use settings::DAGS_FOLDER;

use crate::error::{Error, Result};
use crate::port::Port;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::sandbox::Sandbox;
use crate::service::Service;
use settings::Secrets;

const PAUSE: Duration = Duration::from_millis(200);

/// An Airflow release that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AirflowVersion {
    /// 3.3.2, with all its components.
    #[default]
    V3_3_2,
    /// 2.11.2, its metadata database and its web server.
    V2_11_2,
}

impl AirflowVersion {
    /// The version as Airflow writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V3_3_2 => "3.3.2",
            Self::V2_11_2 => "2.11.2",
        }
    }
}

impl fmt::Display for AirflowVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What a shard stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stack {
    /// PostgreSQL, Redis, CeleryExecutor.
    Celery,
    /// SQLite and LocalExecutor: no broker, no workers.
    Sqlite,
}

impl Stack {
    /// The best stack whose programs are installed.
    pub fn installed() -> Self {
        if Postgres::is_installed() && Redis::is_installed() { Self::Celery } else { Self::Sqlite }
    }
}

/// A process of Airflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// Serves REST, the console, and the tasks' own API. Of Airflow 2 its `webserver`.
    ApiServer,
    /// Creates runs and queues tasks; with [`Stack::Sqlite`] it runs them too.
    Scheduler,
    /// Parses DAG files.
    DagProcessor,
    /// Runs deferred tasks.
    Triggerer,
    /// Runs tasks; only with [`Stack::Celery`].
    Worker,
}

impl Component {
    /// Its name in logs and progress.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiServer => "api-server",
            Self::Scheduler => "scheduler",
            Self::DagProcessor => "dag-processor",
            Self::Triggerer => "triggerer",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A step of a boot that was just reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The shard's name.
    pub shard: String,
    /// What is now so, such as `postgres up`.
    pub step: String,
    /// Since the boot began.
    pub elapsed: Duration,
}

impl fmt::Display for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} {:.1}s", self.shard, self.step, self.elapsed.as_secs_f64())
    }
}

/// What Airflow's own health page says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Health {
    metadatabase: Reported,
    scheduler: Reported,
    dag_processor: Reported,
    triggerer: Reported,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
struct Reported {
    status: Option<String>,
    #[serde(
        default,
        alias = "latest_scheduler_heartbeat",
        alias = "latest_dag_processor_heartbeat",
        alias = "latest_triggerer_heartbeat"
    )]
    heartbeat: Option<jiff::Timestamp>,
}

impl Health {
    /// Whether the API server reaches the metadata database.
    pub fn metadatabase(&self) -> bool {
        self.metadatabase.is_healthy()
    }

    /// Whether `component` sent a recent heartbeat; it may have ended since, for
    /// Airflow takes heartbeats up to 30 seconds old for recent. The API server
    /// answered, so it counts as healthy. Workers send no heartbeat to the
    /// database, so nothing is known of them.
    pub fn component(&self, component: Component) -> Option<bool> {
        match component {
            Component::ApiServer => Some(true),
            _ => self.reported(component).map(Reported::is_healthy),
        }
    }

    /// Whether `component` was healthy at or after `instant`.
    fn healthy_since(&self, component: Component, instant: jiff::Timestamp) -> bool {
        self.component(component) == Some(true)
            && self
                .reported(component)
                .is_none_or(|reported| reported.heartbeat.is_some_and(|beat| beat >= instant))
    }

    fn reported(&self, component: Component) -> Option<&Reported> {
        match component {
            Component::Scheduler => Some(&self.scheduler),
            Component::DagProcessor => Some(&self.dag_processor),
            Component::Triggerer => Some(&self.triggerer),
            Component::ApiServer | Component::Worker => None,
        }
    }
}

impl Reported {
    fn is_healthy(&self) -> bool {
        self.status.as_deref() == Some("healthy")
    }
}

/// A running Airflow shard; ends, with its data, when dropped.
#[derive(Debug)]
pub struct AirflowShard {
    name: String,
    version: AirflowVersion,
    // Airflow's processes end before what they stand on.
    components: Vec<(Component, Service)>,
    stores: Stores,
    api_port: Port,
    secrets: Secrets,
    dags: PathBuf,
    command: PathBuf,
    client: reqwest::Client,
    sandbox: Sandbox,
}

/// Where a shard keeps its state.
#[derive(Debug)]
enum Stores {
    Celery {
        postgres: Box<Postgres>,
        /// Absent where only the database was asked for.
        redis: Option<Box<Redis>>,
    },
    Sqlite {
        file: PathBuf,
    },
}

impl Stores {
    fn metadata_url(&self) -> String {
        match self {
            Self::Celery { postgres, .. } => postgres.url(settings::DATABASE),
            Self::Sqlite { file } => format!("sqlite://{}", file.display()),
        }
    }
}

impl AirflowShard {
    /// How to boot a shard named `name`.
    pub fn builder(name: impl Into<String>) -> AirflowShardBuilder {
        AirflowShardBuilder::new(name.into())
    }

    /// The shard's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it stands on.
    pub fn stack(&self) -> Stack {
        match self.stores {
            Stores::Celery { .. } => Stack::Celery,
            Stores::Sqlite { .. } => Stack::Sqlite,
        }
    }

    /// A program that runs Airflow's own commands with the shard's settings: `airflow-command dags
    /// list`.
    pub fn command(&self) -> &Path {
        &self.command
    }

    /// Airflow's Fernet key.
    pub fn fernet_key(&self) -> &str {
        &self.secrets.fernet_key
    }

    /// The metadata database's URL, for sqlx: `postgres://…` or `sqlite://…`.
    pub fn metadata_url(&self) -> String {
        self.stores.metadata_url()
    }

    /// The broker's URL, `redis://…`; `None` where there is no broker.
    pub fn broker_url(&self) -> Option<String> {
        self.redis().map(Redis::url)
    }

    /// The API server's base URL, without a slash at its end.
    pub fn api_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api_port.number())
    }

    /// The folder from which it reads DAG files.
    pub fn dags_folder(&self) -> &Path {
        &self.dags
    }

    /// The shard's folder: `logs/` in it holds a log per process, and the logs
    /// of tasks.
    pub fn folder(&self) -> &Path {
        self.sandbox.folder()
    }

    /// Name and password of the user with the role `admin`.
    pub fn admin(&self) -> (&str, &str) {
        ("admin", &self.secrets.password)
    }

    /// Its PostgreSQL server, to be stopped, killed and started again.
    pub fn postgres(&self) -> Option<&Postgres> {
        match &self.stores {
            Stores::Celery { postgres, .. } => Some(postgres),
            Stores::Sqlite { .. } => None,
        }
    }

    /// Its Redis server, to be stopped, killed and started again.
    pub fn redis(&self) -> Option<&Redis> {
        match &self.stores {
            Stores::Celery { redis, .. } => redis.as_deref(),
            Stores::Sqlite { .. } => None,
        }
    }

    /// The components that this shard was booted with.
    pub fn components(&self) -> impl Iterator<Item = Component> + '_ {
        self.components.iter().map(|(component, _)| *component)
    }

    /// Starts `component` again and returns when its process runs; see
    /// [`AirflowShard::wait_ready`]. Nothing happens if it runs.
    pub async fn start_component(&self, component: Component) -> Result<()> {
        self.service(component)?.start().await
    }

    /// Stops `component` in good order: a worker first finishes its tasks, for
    /// at most 20 seconds.
    pub async fn stop_component(&self, component: Component) -> Result<()> {
        self.service(component)?.stop().await;
        Ok(())
    }

    /// Kills `component` and its child processes (SIGKILL).
    pub async fn kill_component(&self, component: Component) -> Result<()> {
        self.service(component)?.kill().await;
        Ok(())
    }

    /// Whether the process of `component` lives.
    pub async fn is_running(&self, component: Component) -> bool {
        match self.service(component) {
            Ok(service) => service.is_running().await,
            Err(_) => false,
        }
    }

    /// What Airflow's own health page says; an error if nobody serves it.
    pub async fn health(&self) -> Result<Health> {
        let path = match self.version {
            AirflowVersion::V3_3_2 => "api/v2/monitor/health",
            AirflowVersion::V2_11_2 => "health",
        };
        self.json(self.client.get(format!("{}/{path}", self.api_url()))).await
    }

    /// A bearer token for the REST API, with the role `admin`. Airflow 2 has none.
    pub async fn token(&self) -> Result<String> {
        #[derive(serde::Deserialize)]
        struct Token {
            access_token: String,
        }
        let (username, password) = self.admin();
        let request = self
            .client
            .post(format!("{}/auth/token", self.api_url()))
            .json(&serde_json::json!({ "username": username, "password": password }));
        Ok(self.json::<Token>(request).await?.access_token)
    }

    /// Waits until every component is ready since it was last started, at most
    /// for `limit`; a component that ends meanwhile is an error.
    pub async fn wait_ready(&self, limit: Duration) -> Result<()> {
        self.wait_each_ready(limit, |_| ()).await
    }

    /// Stops everything in good order, within about 30 seconds, and removes the
    /// shard's folder unless it is to be kept. To end a shard quickly, drop it.
    pub async fn stop(self) {
        // The API server last: tasks that a worker finishes report to it.
        let (api, others): (Vec<_>, Vec<_>) =
            self.components.iter().partition(|(component, _)| *component == Component::ApiServer);
        for services in [others, api] {
            join_all(services.iter().map(|(_, service)| service.stop())).await;
        }
        if let Stores::Celery { postgres, redis } = &self.stores {
            if let Some(redis) = redis {
                redis.stop().await;
            }
            postgres.stop().await;
        }
        self.sandbox.close().await;
    }

    /// Calls `reached` once for each component, when it is ready.
    async fn wait_each_ready(
        &self,
        limit: Duration,
        mut reached: impl FnMut(Component),
    ) -> Result<()> {
        let start = Instant::now();
        let mut waiting: Vec<Component> = self.components().collect();
        loop {
            let health = self.health().await.ok();
            let mut still_waiting = Vec::new();
            for component in waiting {
                // Asked always, for it also notices that a process ended.
                let ready = self
                    .service(component)?
                    .ask(|process| match (component, &health) {
                        // Celery's own words, once it consumes from its queues.
                        (Component::Worker, _) => process.beginning().contains(" ready."),
                        (_, Some(health)) => health.healthy_since(component, process.started_at()),
                        (_, None) => false,
                    })
                    .await?
                    .unwrap_or(false);
                if ready {
                    reached(component);
                } else {
                    still_waiting.push(component);
                }
            }
            waiting = still_waiting;
            let Some(late) = waiting.first() else {
                return Ok(());
            };
            if start.elapsed() > limit {
                return Err(self.service(*late)?.timed_out("ready", limit).await);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn service(&self, component: Component) -> Result<&Service> {
        self.components
            .iter()
            .find(|(candidate, _)| *candidate == component)
            .map(|(_, service)| service)
            .ok_or_else(|| {
                Error::Invalid(format!(
                    "shard {} was booted without {component}: add it to its components",
                    self.name
                ))
            })
    }

    async fn json<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T> {
        let attempt = async { request.send().await?.error_for_status()?.json().await };
        attempt.await.map_err(|error: reqwest::Error| Error::Answer {
            service: "airflow api-server",
            answer: error.to_string(),
        })
    }
}
