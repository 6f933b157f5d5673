//! Booting a shard: options, order, progress.

use std::fmt;
use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::environment::{Environment, make_home};
use super::settings::{self, Secrets};
use super::{AirflowShard, AirflowVersion, Component, Progress, Stack, Stores};
use crate::error::{Error, Result};
use crate::port::Port;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::sandbox::{Keep, Sandbox, make_folder};
use crate::service::{Ready, Service, http_client};

const READY_LIMIT: Duration = Duration::from_mins(5);
/// What takes longer is told.
const SLOW: Duration = Duration::from_secs(1);
const STOP_GRACE: Duration = Duration::from_secs(20);
const USER_LIMIT: Duration = Duration::from_mins(2);

/// How to boot an [`AirflowShard`].
#[derive(Clone)]
pub struct AirflowShardBuilder {
    name: String,
    version: AirflowVersion,
    stack: Option<Stack>,
    folder: Option<PathBuf>,
    keep: Keep,
    dags: Option<PathBuf>,
    components: Option<Vec<Component>>,
    triggerer: bool,
    concurrency: u32,
    queues: Vec<String>,
    env: Vec<(String, String)>,
    packages: Vec<PathBuf>,
    ready_limit: Duration,
    progress: Arc<dyn Fn(&Progress) + Send + Sync>,
}

impl fmt::Debug for AirflowShardBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AirflowShardBuilder")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl AirflowShardBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            version: AirflowVersion::default(),
            stack: None,
            folder: None,
            keep: Keep::Nothing,
            dags: None,
            components: None,
            triggerer: false,
            concurrency: 2,
            queues: vec!["default".to_owned()],
            env: Vec::new(),
            packages: Vec::new(),
            ready_limit: READY_LIMIT,
            progress: Arc::new(|_| ()),
        }
    }

    /// The Airflow release; 3.3.2 unless told.
    pub fn version(mut self, version: AirflowVersion) -> Self {
        self.version = version;
        self
    }

    /// What to stand on; the best that is installed unless told.
    pub fn stack(mut self, stack: Stack) -> Self {
        self.stack = Some(stack);
        self
    }

    /// The shard's folder and what stays of it; a temporary folder of which
    /// nothing stays unless told.
    pub fn folder(mut self, folder: impl Into<PathBuf>, keep: Keep) -> Self {
        self.folder = Some(folder.into());
        self.keep = keep;
        self
    }

    /// Reads DAG files from `folder` instead of `dags` in the shard's folder.
    /// It is the caller's: it is not removed with the shard.
    pub fn dags_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.dags = Some(folder.into());
        self
    }

    /// Starts these components only; all but the triggerer unless told.
    pub fn components(mut self, components: impl IntoIterator<Item = Component>) -> Self {
        self.components = Some(components.into_iter().collect());
        self
    }

    /// Starts the metadata database alone, migrated, and nothing of Airflow:
    /// under a second once the template was made.
    pub fn database_only(self) -> Self {
        self.components([])
    }

    /// Starts a triggerer as well, for deferred tasks.
    pub fn triggerer(mut self, start: bool) -> Self {
        self.triggerer = start;
        self
    }

    /// How many tasks the worker runs at a time; 2 unless told.
    pub fn worker_concurrency(mut self, tasks: u32) -> Self {
        self.concurrency = tasks;
        self
    }

    /// The queues that the worker consumes; `default` alone unless told.
    pub fn queues<S: Into<String>>(mut self, queues: impl IntoIterator<Item = S>) -> Self {
        self.queues = queues.into_iter().map(Into::into).collect();
        self
    }

    /// Sets an environment variable for all components, such as
    /// `AIRFLOW__SCHEDULER__…`; it goes before the shard's own settings.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Builds the Python package whose source is in `folder` and installs it for
    /// all components, with its entry points and without its dependencies.
    pub fn python_package(mut self, folder: impl Into<PathBuf>) -> Self {
        self.packages.push(folder.into());
        self
    }

    /// How long the components may take to be ready; five minutes unless told.
    pub fn ready_limit(mut self, limit: Duration) -> Self {
        self.ready_limit = limit;
        self
    }

    /// Calls `report` at each step of the boot; the steps are tracing events too.
    pub fn on_progress(mut self, report: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(report);
        self
    }

    /// Boots the shard and returns when all its components are ready.
    pub async fn boot(self) -> Result<AirflowShard> {
        let stack = self.stack.unwrap_or_else(Stack::installed);
        let components = self.wanted_components(stack)?;
        let steps = Steps {
            shard: self.name.clone(),
            start: Instant::now(),
            report: Arc::clone(&self.progress),
        };

        let sandbox = match &self.folder {
            Some(folder) => Sandbox::create_at(folder, self.keep).await?,
            None => Sandbox::create(&self.name).await?,
        };
        let home = sandbox.folder().join("airflow");
        make_home(&home)?;
        let dags = self.prepare_dags(sandbox.folder())?;
        let mut environment = steps
            .slow("installing Airflow, this once", Environment::ensure(self.version, &sandbox))
            .await?;
        for source in &self.packages {
            environment = environment.install(source, &sandbox).await?;
        }
        let template = steps
            .slow("migrating a database to copy, this once", environment.template(stack))
            .await?;
        // Of Airflow 2 nothing is started that would ask a broker.
        let with_broker = !components.is_empty() && self.version == AirflowVersion::V3_3_2;
        let stores = start_stores(&sandbox, stack, &template, with_broker, &steps).await?;

        let secrets = Secrets::load(&home)?;
        let api_port = Port::claim()?;
        let metadata_url = stores.metadata_url();
        let broker_url = match &stores {
            Stores::Celery { redis, .. } => redis.as_deref().map(Redis::url),
            Stores::Sqlite { .. } => None,
        };
        let mut variables = settings::Shard {
            version: self.version,
            folder: sandbox.folder(),
            home: &home,
            metadata_url: &metadata_url,
            broker_url: broker_url.as_deref(),
            api_port: api_port.number(),
            worker_concurrency: self.concurrency,
            secrets: &secrets,
            stack,
        }
        .variables();
        variables.extend(self.env.iter().cloned());
        let command = sandbox.folder().join("airflow-command");
        environment.airflow("command", &variables).write_script(&command)?;
        if self.version == AirflowVersion::V2_11_2 && !components.is_empty() {
            let user = environment.airflow("users", &variables);
            let user = user.args(settings::first_user(&secrets));
            steps.slow("making its first user", sandbox.run(&user, USER_LIMIT)).await?;
        }
        let components = components
            .into_iter()
            .map(|component| {
                let arguments = settings::arguments(
                    self.version,
                    component,
                    &self.name,
                    &self.queues,
                    self.concurrency,
                );
                let spec = environment.airflow(component.as_str(), &variables).args(arguments);
                (component, Service::new(sandbox.clone(), spec, Ready::Started, STOP_GRACE))
            })
            .collect();

        let shard = AirflowShard {
            name: self.name,
            version: self.version,
            components,
            stores,
            api_port,
            secrets,
            dags,
            command,
            client: http_client()?,
            sandbox,
        };
        for (_, service) in &shard.components {
            service.start().await?;
        }
        shard
            .wait_each_ready(self.ready_limit, |component| {
                steps.reached(&format!("{component} ready"));
            })
            .await?;
        steps.reached("ready");
        Ok(shard)
    }

    fn wanted_components(&self, stack: Stack) -> Result<Vec<Component>> {
        let mut wanted = self.components.clone().unwrap_or_else(|| {
            let mut all = vec![Component::ApiServer, Component::Scheduler, Component::DagProcessor];
            if stack == Stack::Celery {
                all.push(Component::Worker);
            }
            all
        });
        if self.triggerer {
            wanted.push(Component::Triggerer);
        }
        wanted.sort_unstable();
        wanted.dedup();
        let name_is_plain = !self.name.is_empty()
            && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let refusal = if !name_is_plain {
            format!("{:?} is no shard name: use letters, digits, - and _", self.name)
        } else if self.version == AirflowVersion::V2_11_2
            && wanted.iter().any(|component| *component != Component::ApiServer)
        {
            "of airflow 2.11.2 only the database and the api-server can be booted: ask for \
             database_only, or for that component"
                .to_owned()
        } else if stack == Stack::Sqlite && wanted.contains(&Component::Worker) {
            "a worker needs PostgreSQL and Redis: run scripts/setup.sh, or leave it out".to_owned()
        } else if !wanted.is_empty() && !wanted.contains(&Component::ApiServer) {
            "the other components need the api-server: add it to the components".to_owned()
        } else {
            return Ok(wanted);
        };
        Err(Error::Invalid(refusal))
    }

    /// The folder of DAG files; it is reachable as `dags` in the shard's folder.
    fn prepare_dags(&self, shard: &Path) -> Result<PathBuf> {
        let inside = shard.join("dags");
        if inside.is_symlink() {
            // Left by an earlier boot with, perhaps, another folder.
            fs::remove_file(&inside).map_err(Error::file("remove", &inside))?;
        }
        let Some(given) = &self.dags else {
            make_folder(&inside)?;
            return Ok(inside);
        };
        let given = std::path::absolute(given).map_err(Error::file("resolve", given))?;
        make_folder(&given)?;
        symlink(&given, &inside).map_err(Error::file("create", &inside))?;
        Ok(given)
    }
}

async fn start_stores(
    sandbox: &Sandbox,
    stack: Stack,
    template: &Path,
    with_broker: bool,
    steps: &Steps,
) -> Result<Stores> {
    match stack {
        Stack::Sqlite => {
            let file = sandbox.folder().join("airflow/airflow.db");
            if !file.exists() {
                fs::copy(template, &file).map_err(Error::file("write", &file))?;
            }
            steps.reached("sqlite present");
            Ok(Stores::Sqlite { file })
        }
        Stack::Celery => {
            let postgres = async {
                let options = Postgres::options().sandbox(sandbox).template(template);
                let postgres = options.start().await?;
                steps.reached("postgres up");
                Result::Ok(Box::new(postgres))
            };
            let redis = async {
                if !with_broker {
                    return Ok(None);
                }
                let redis = Redis::start_in(sandbox).await?;
                steps.reached("redis up");
                Result::Ok(Some(Box::new(redis)))
            };
            let (postgres, redis) = tokio::try_join!(postgres, redis)?;
            Ok(Stores::Celery { postgres, redis })
        }
    }
}

/// Tells how far a boot has come.
struct Steps {
    shard: String,
    start: Instant,
    report: Arc<dyn Fn(&Progress) + Send + Sync>,
}

impl Steps {
    /// Awaits `work`, and tells what is going on if that takes its time.
    async fn slow<T>(&self, step: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Ok(done) = tokio::time::timeout(SLOW, work.as_mut()).await {
            return done;
        }
        self.reached(step);
        work.await
    }

    fn reached(&self, step: &str) {
        let progress = Progress {
            shard: self.shard.clone(),
            step: step.to_owned(),
            elapsed: self.start.elapsed(),
        };
        tracing::info!(shard = self.shard, elapsed = ?progress.elapsed, "{step}");
        (self.report)(&progress);
    }
}
