//! A real Airflow as its users and operators reach it ([`Airflow`]), and a fleet of such with agents
//! and a control plane of its own ([`Fleet`]).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use airfleet_local::{AirflowShard, DAGS_FOLDER, Postgres, Sandbox, Stack};
use airfleet_proto::{
    common::v1::DagSource,
    registry::v1::{
        self as wire, CreateNamespaceRequest, CreateShardRequest, Namespace, UpdateNamespaceRequest,
    },
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    eventually,
    link::Link,
    manifest,
    process::{Service, binary, registry, router, sqlite},
};

/// For machines that do much else at the same time.
pub const LIMIT: Duration = Duration::from_mins(3);

/// A real Airflow 3.3 on PostgreSQL, Redis and Celery, with the Python package of guardrails.
pub struct Airflow {
    /// The shard.
    pub shard: AirflowShard,
    client: reqwest::Client,
}

impl Airflow {
    /// Boots it.
    ///
    /// Its processes find this in their environment, beside Airflow's settings, and its name as `SHARD`.
    pub async fn boot(name: &str, environment: &[(&str, String)]) -> Result<Self> {
        ensure!(Stack::installed() == Stack::Celery, "PostgreSQL or Redis is missing: make setup");
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/airflow");
        let mut shard = AirflowShard::builder(name)
            .python_package(package)
            .env("SHARD", name)
            .ready_limit(LIMIT)
            .on_progress(|progress| println!("{progress}"));
        for (variable, value) in environment {
            shard = shard.env(*variable, value);
        }
        let shard = shard.boot().await?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { shard, client })
    }

    /// Asks Airflow's REST API.
    pub async fn rest(&self, method: reqwest::Method, path: &str, body: Value) -> Result<Value> {
        let request = self
            .client
            .request(method, format!("{}/api/v2/{path}", self.shard.api_url()))
            .bearer_auth(self.shard.token().await?)
            .json(&body);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// The same, to read.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.rest(reqwest::Method::GET, path, Value::Null).await
    }

    /// Runs one of Airflow's own commands.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(self.shard.command()).args(arguments).output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "airflow {arguments:?}: {text}{error}");
        Ok(text)
    }

    /// Asks its metadata database.
    pub async fn sql(&self, sql: &str) -> Result<String> {
        let url = self.shard.metadata_url();
        let database = url.rsplit('/').next().context("no database")?;
        let postgres = self.shard.postgres().context("no PostgreSQL")?;
        Ok(postgres.query(database, sql).await?.trim().to_owned())
    }

    /// Waits until a query gives this.
    pub async fn finds(&self, sql: &str, wanted: &str) -> Result<()> {
        eventually(LIMIT, async || {
            let found = self.sql(sql).await?;
            ensure!(found == wanted, "{sql}: {found:?}, not {wanted:?}");
            anyhow::Ok(())
        })
        .await
    }
}

/// A shard of a fleet: an Airflow with its agent.
pub struct Shard {
    // What stands on the Airflow ends before it.
    /// The agent, a process of its own.
    pub agent: Service,
    /// The way that the agent takes to each router.
    pub links: Vec<Link>,
    /// What it looks after.
    pub airflow: Airflow,
}

impl Shard {
    /// Its name.
    pub fn name(&self) -> &str {
        self.airflow.shard.name()
    }
}

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// The shards.
    pub shards: Vec<&'static str>,
    /// Shards that are registered and that nobody serves.
    pub absent: Vec<&'static str>,
    /// How often agents ask sources whether something changed.
    pub interval: Duration,
    /// Routers that share a store, of which the first is started.
    pub routers: usize,
    /// Given to each Airflow.
    pub environment: Vec<(&'static str, String)>,
    /// Settings of each agent, beside what it needs.
    pub agents: Vec<(&'static str, String)>,
}

impl Default for FleetOptions {
    fn default() -> Self {
        Self {
            shards: vec!["shard-a"],
            absent: vec!["shard-z"],
            interval: Duration::from_secs(1),
            routers: 1,
            environment: vec![],
            agents: vec![],
        }
    }
}

/// Registry, routers, and shards.
pub struct Fleet {
    /// The shards, in the order of their names.
    pub shards: Vec<Shard>,
    /// The routers.
    pub routers: Vec<Service>,
    /// The registry.
    pub registry: Service,
    // Where more than one router is to use it.
    _store: Option<Postgres>,
    sandbox: Sandbox,
}

impl Fleet {
    /// Boots it all, agents attached. Each shard is in a region of its own name, by which namespaces
    /// say where they belong.
    pub async fn boot(options: &FleetOptions) -> Result<Self> {
        let sandbox = Sandbox::create("fleet").await?;
        let mut registry = registry(&sandbox, &sqlite(&sandbox, "registry.db"))?;
        registry.start().await?;
        let (store, url) = if options.routers > 1 {
            let postgres = Postgres::options().sandbox(&sandbox).start().await?;
            let url = postgres.create_database("router").await?;
            (Some(postgres), url)
        } else {
            (None, sqlite(&sandbox, "router.db"))
        };
        let routers = (0..options.routers)
            .map(|number| router(&sandbox, &format!("router-{number}"), &url, &registry))
            .collect::<Result<_>>()?;
        let mut fleet = Self { shards: vec![], routers, registry, _store: store, sandbox };
        fleet.routers[0].start().await?;
        for name in options.shards.iter().chain(&options.absent).copied() {
            let declared = wire::Shard { region: name.to_owned(), ..manifest::shard(name) };
            let request = CreateShardRequest { shard: Some(declared), ..Default::default() };
            fleet.registry.registry().create_shard(request).await?;
        }
        for name in &options.shards {
            let mut shard = fleet.shard(name, options).await?;
            shard.agent.start().await?;
            fleet.shards.push(shard);
        }
        Ok(fleet)
    }

    async fn shard(&self, name: &'static str, options: &FleetOptions) -> Result<Shard> {
        let mut links = vec![];
        for router in &self.routers {
            links.push(Link::to(router.port()).await?);
        }
        let airflow = Airflow::boot(name, &options.environment).await?;
        let shard = &airflow.shard;
        let folder = |of: &str| self.sandbox.folder().join(of).display().to_string();
        let endpoints: Vec<_> = links.iter().map(Link::url).collect();
        let settings = [
            ("shard", name.to_owned()),
            ("state_dir", folder(&format!("agent-{name}"))),
            ("router.endpoints", endpoints.join(",")),
            ("airflow.metadata_url", shard.metadata_url()),
            ("airflow.api_url", shard.api_url()),
            ("airflow.api_username", shard.admin().0.to_owned()),
            ("airflow.api_password", shard.admin().1.to_owned()),
            ("airflow.dags_folder", DAGS_FOLDER.to_owned()),
            ("broker.url", shard.broker_url().context("no broker")?),
            ("delivery.dags_folder", shard.dags_folder().display().to_string()),
            ("delivery.source_folders", folder("")),
            ("delivery.interval", format!("{}ms", options.interval.as_millis())),
            ("secrets.folder", folder("secrets")),
            ("secrets.fernet_key", shard.fernet_key().to_owned()),
            ("retention.command", shard.command().display().to_string()),
        ];
        let settings = settings.into_iter().chain(options.agents.iter().cloned());
        let settings: Vec<_> = settings.collect();
        let agent =
            Service::new(&self.sandbox, "airfleet-agent", &format!("agent-{name}"), &settings)?;
        Ok(Shard { agent, links, airflow })
    }

    /// Stops all of it in good order.
    pub async fn stop(mut self) {
        for mut shard in self.shards {
            shard.agent.stop().await;
            shard.airflow.shard.stop().await;
        }
        for router in &mut self.routers {
            router.stop().await;
        }
        self.registry.stop().await;
    }

    /// A folder of the fleet's own.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.sandbox.folder().join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A namespace on the shard of that name, with a folder as its source.
    pub fn namespace(&self, name: &str, shard: &str) -> Result<Namespace> {
        let uri = self.folder(&format!("sources/{name}"))?.display().to_string();
        let mut namespace = manifest::namespace(name);
        namespace.source = Some(DagSource { uri, ..DagSource::default() });
        shard.clone_into(&mut namespace.placement.get_or_insert_default().region);
        Ok(namespace)
    }

    /// Registers it.
    pub async fn create(&self, namespace: Namespace) -> Result<()> {
        let request = CreateNamespaceRequest { namespace: Some(namespace), ..Default::default() };
        self.registry.registry().create_namespace(request).await?;
        Ok(())
    }

    /// Changes all of it.
    pub async fn update(&self, namespace: Namespace) -> Result<()> {
        let request = UpdateNamespaceRequest { namespace: Some(namespace), ..Default::default() };
        self.registry.registry().update_namespace(request).await?;
        Ok(())
    }

    /// Writes a file of a namespace's source, at once.
    pub fn write(&self, namespace: &str, file: &str, text: &str) -> Result<()> {
        let folder = self.folder(&format!("sources/{namespace}"))?;
        let beside = self.sandbox.folder().join(".beside");
        fs::write(&beside, text)?;
        fs::rename(beside, folder.join(file))?;
        Ok(())
    }

    /// Runs `airfleet` against the control plane.
    pub async fn airfleet(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(binary("airfleet")?)
            .args(arguments)
            .env("AIRFLEET__REGISTRY__ENDPOINTS", self.registry.url())
            .env(
                "AIRFLEET__ROUTER__ENDPOINTS",
                self.routers.iter().map(Service::url).collect::<Vec<_>>().join(","),
            )
            .current_dir(self.sandbox.folder())
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "airfleet {arguments:?}: {text}{error}");
        Ok(text)
    }

    /// Waits until `airfleet` says all of it.
    pub async fn says(&self, arguments: &[&str], words: &[&str]) -> Result<String> {
        eventually(LIMIT, async || {
            let text = self.airfleet(arguments).await?;
            for word in words {
                ensure!(
                    text.contains(word),
                    "no {word:?} in what airfleet {arguments:?} says:\n{text}"
                );
            }
            anyhow::Ok(text)
        })
        .await
    }
}
