//! A real Airflow as its users and operators reach it ([`Airflow`]), and one with an agent and a
//! control plane of its own ([`Fleet`]).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use airfleet_local::{AirflowShard, Sandbox, Stack};
use airfleet_proto::common::v1::DagSource;
use airfleet_proto::registry::v1::{
    CreateNamespaceRequest, CreateShardRequest, Namespace, Shard, UpdateNamespaceRequest,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    eventually, manifest,
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
    pub async fn boot(name: &str) -> Result<Self> {
        ensure!(Stack::installed() == Stack::Celery, "PostgreSQL or Redis is missing: make setup");
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/airflow");
        let shard = AirflowShard::builder(name)
            .python_package(package)
            .ready_limit(LIMIT)
            .on_progress(|progress| println!("{progress}"))
            .boot()
            .await?;
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

/// Registry, router, agent and an Airflow.
pub struct Fleet {
    // What stands on the shard ends before it.
    /// The agent, a process of its own.
    pub agent: Service,
    /// The router.
    pub router: Service,
    /// The registry.
    pub registry: Service,
    /// The shard.
    pub airflow: Airflow,
    sandbox: Sandbox,
}

impl Fleet {
    /// Boots it all; the shard is registered as `shard-a`, and its agent is attached. A source is
    /// asked every `interval`.
    pub async fn boot(interval: Duration) -> Result<Self> {
        let sandbox = Sandbox::create("fleet").await?;
        let airflow = Airflow::boot("shard-a").await?;
        let shard = &airflow.shard;
        let mut registry = registry(&sandbox, &sqlite(&sandbox, "registry.db"))?;
        registry.start().await?;
        let mut router = router(&sandbox, "router", &sqlite(&sandbox, "router.db"), &registry)?;
        router.start().await?;
        let settings = [
            ("shard", "shard-a".to_owned()),
            ("state_dir", sandbox.folder().join("agent").display().to_string()),
            ("router.endpoints", router.url()),
            ("airflow.metadata_url", shard.metadata_url()),
            ("airflow.api_url", shard.api_url()),
            ("broker.url", shard.broker_url().context("no broker")?),
            ("delivery.dags_folder", shard.dags_folder().display().to_string()),
            ("delivery.source_folders", sandbox.folder().display().to_string()),
            ("delivery.interval", format!("{}ms", interval.as_millis())),
            ("secrets.folder", sandbox.folder().join("secrets").display().to_string()),
            ("secrets.fernet_key", shard.fernet_key().to_owned()),
            ("retention.command", shard.command().display().to_string()),
        ];
        let mut agent = Service::new(&sandbox, "airfleet-agent", "agent", &settings)?;
        for name in ["shard-a", "shard-z"] {
            // A region of its own, by which namespaces say where they belong.
            let declared = Shard { region: name.to_owned(), ..manifest::shard(name) };
            let request = CreateShardRequest { shard: Some(declared), ..Default::default() };
            registry.registry().create_shard(request).await?;
        }
        agent.start().await?;
        Ok(Self { agent, router, registry, airflow, sandbox })
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
            .env("AIRFLEET__ROUTER__ENDPOINTS", self.router.url())
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
