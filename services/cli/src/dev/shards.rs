//! Local Airflow shards and their agents.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, time::Duration};

use airfleet_domain::manifest::Size;
use airfleet_local::{AirflowShard, AirflowVersion, DAGS_FOLDER, Keep};
use airfleet_proto::{
    common::v1::Verdict,
    registry::v1::{CreateShardRequest, GetShardRequest, Shard, UpdateShardRequest},
    router::v1::ListShardStatusesRequest,
};
use airfleet_runtime::{
    config::{ClientConfig, ConnectionUrl, Secret, ServerConfig},
    lifecycle::Shutdown,
};
use airfleet_shard_agent::AgentConfig;
use futures::future::{join_all, try_join_all};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};
use tonic::Code;

use super::{
    folder::Folder,
    page::Steps,
    plane::{Addresses, DRAIN, until},
};
use crate::{
    client::{Registry, Router, request_id},
    error::{Error, Result},
};

/// How long agents may take until the router knows how their shards are.
const REPORT_LIMIT: Duration = Duration::from_mins(2);

/// How long a shard may take to be ready; 15 s on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_mins(6);
/// How often a source of DAG files is asked; somebody is watching.
const ASK_INTERVAL: Duration = Duration::from_secs(2);

/// After so long it is said that shards are still booting.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shards of this run and their agents.
#[derive(Debug)]
pub(super) struct Shards {
    names: Vec<String>,
    running: Vec<AirflowShard>,
    agents: JoinSet<Result<()>>,
    /// Where each agent serves its metrics.
    addresses: BTreeMap<String, String>,
}

impl Shards {
    /// No shards.
    pub(super) fn none() -> Self {
        Self {
            names: Vec::new(),
            running: Vec::new(),
            agents: JoinSet::new(),
            addresses: BTreeMap::new(),
        }
    }

    /// Those that run.
    pub(super) fn running(&self) -> &[AirflowShard] {
        &self.running
    }

    /// Where the agent of a shard serves its metrics, as host:port.
    pub(super) fn agent_address(&self, shard: &str) -> Option<&str> {
        self.addresses.get(shard).map(String::as_str)
    }

    /// Registers shards `shard-a`, `shard-b` and so on; those that an earlier run registered stay
    /// as they are.
    pub(super) async fn declare(
        &mut self,
        registry: &Registry,
        count: u8,
        size: Size,
        steps: &Steps,
    ) -> Result<()> {
        self.names = (0..count).map(|n| format!("shard-{}", char::from(b'a' + n))).collect();
        for name in &self.names {
            let shard = Shard {
                name: name.clone(),
                description: "a local shard of airfleet dev".into(),
                airflow_version: AirflowVersion::default().to_string(),
                size: size.name().into(),
                ..Shard::default()
            };
            let request = CreateShardRequest {
                shard: Some(shard),
                request_id: request_id(),
                validate_only: false,
            };
            let created = registry
                .try_call(async |mut client| client.create_shard(request.clone()).await)
                .await;
            match created {
                Ok(_) => steps.reached(name, &format!("registered, size {}", size.name())),
                Err(problem) if problem.code == Code::AlreadyExists => {
                    steps.reached(name, "registered before");
                }
                Err(problem) => {
                    return Err(registry.refused(&format!("cannot register {name}"), &problem));
                }
            }
        }
        Ok(())
    }

    /// Boots all shards at once.
    pub(super) async fn boot(
        &mut self,
        folder: &Folder,
        guardrails: Option<PathBuf>,
        steps: &Steps,
    ) -> Result<()> {
        let boots = self.names.iter().map(|name| {
            let steps = steps.clone();
            let mut booting = AirflowShard::builder(name);
            if let Some(package) = &guardrails {
                booting = booting.python_package(package);
            }
            let booting = booting
                .folder(folder.shard(name), Keep::Everything)
                .ready_limit(BOOT_LIMIT)
                .on_progress(move |progress| steps.reached(&progress.shard, &progress.step))
                .boot();
            async move {
                booting.await.map_err(|error| Error::caused(format!("cannot boot {name}"), &error))
            }
        });
        let mut boots = std::pin::pin!(try_join_all(boots));
        self.running = loop {
            match tokio::time::timeout(PATIENCE, boots.as_mut()).await {
                Ok(running) => break running?,
                Err(_) => steps.reached("…", "the shards are still booting"),
            }
        };
        Ok(())
    }

    /// Tells the registry where the shards are, and starts their agents.
    pub(super) async fn attach(
        &mut self,
        folder: &Folder,
        registry: &Registry,
        plane: &Addresses,
        sources: &[PathBuf],
        steps: &Steps,
        shutdown: &Shutdown,
    ) -> Result<()> {
        for shard in &self.running {
            locate(registry, shard).await?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .map_err(|error| Error::caused("an agent cannot listen", &error))?;
            let address = listener
                .local_addr()
                .map_err(|error| Error::caused("an agent cannot listen", &error))?;
            let name = shard.name().to_owned();
            let config = agent_config(folder, shard, plane, sources, address.port())?;
            self.addresses.insert(name.clone(), address.to_string());
            steps.reached(&name, "agent started");
            let agent = airfleet_shard_agent::run(config, Some(listener), shutdown.child());
            self.agents.spawn(async move {
                agent
                    .await
                    .map_err(|error| Error::caused(format!("the agent of {name} failed"), &error))
            });
        }
        Ok(())
    }

    /// Waits until the router has a verdict on each shard.
    pub(super) async fn healthy(&self, router: &Router, steps: &Steps) -> Result<()> {
        let mut waiting: Vec<&String> = self.names.iter().collect();
        let request = ListShardStatusesRequest { page_size: 1000, ..Default::default() };
        let deadline = Instant::now() + REPORT_LIMIT;
        until(deadline, "not every shard became healthy", async || {
            let answer = router
                .try_call(async |mut client| client.list_shard_statuses(request.clone()).await)
                .await
                .map_err(|problem| problem.message)?;
            let mut obstacle = String::new();
            waiting.retain(|name| {
                let Some(status) = answer.shards.iter().find(|status| status.shard == **name)
                else {
                    return true;
                };
                let health = status.health.clone().unwrap_or_default();
                if status.connected && health.verdict() == Verdict::Healthy {
                    steps.reached(name, "healthy");
                    return false;
                }
                let why = health.reasons.first().map_or("no report yet", |r| r.message.as_str());
                obstacle = format!("{name}: {why}");
                true
            });
            if waiting.is_empty() { Ok(true) } else { Err(obstacle) }
        })
        .await
    }

    /// Waits until an agent ends by itself, and says how; for ever where there is none.
    pub(super) async fn ended(&mut self) -> Result<()> {
        match self.agents.join_next().await {
            None => std::future::pending().await,
            Some(Ok(Ok(()))) => Err(Error::new("an agent ended although nobody asked it to")),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(Error::caused("an agent failed", &error)),
        }
    }

    /// Waits for the agents, which were asked to stop, and stops the shards in good order.
    pub(super) async fn stop(&mut self) {
        while let Some(ended) = self.agents.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::warn!(%error, "an agent did not stop in good order");
            }
        }
        join_all(self.running.drain(..).map(AirflowShard::stop)).await;
    }
}

/// Writes the shard's URL, which is another one at every start, into the manifest.
async fn locate(registry: &Registry, shard: &AirflowShard) -> Result<()> {
    let name = shard.name();
    let request = GetShardRequest { name: name.to_owned() };
    let what = format!("cannot register where {name} is");
    let mut declared: Shard =
        registry.call(&what, async |mut client| client.get_shard(request.clone()).await).await?;
    declared.url = shard.api_url();
    let request = UpdateShardRequest {
        shard: Some(declared),
        update_mask: Some(prost_types::FieldMask { paths: vec!["url".into()] }),
        request_id: request_id(),
        validate_only: false,
    };
    registry.call(&what, async |mut client| client.update_shard(request.clone()).await).await?;
    Ok(())
}

fn agent_config(
    folder: &Folder,
    shard: &AirflowShard,
    plane: &Addresses,
    sources: &[PathBuf],
    port: u16,
) -> Result<AgentConfig> {
    let url = |text: String| {
        ConnectionUrl::new(text)
            .map_err(|error| Error::caused(format!("cannot reach {}", shard.name()), &error))
    };
    let mut config = AgentConfig {
        shard: shard.name().to_owned(),
        state_dir: Some(folder.agent(shard.name())),
        router: ClientConfig::plain(plane.router_url()),
        server: ServerConfig { drain_deadline: DRAIN, ..ServerConfig::on_port(port) },
        ..AgentConfig::default()
    };
    config.airflow.metadata_url = Some(url(shard.metadata_url())?);
    config.airflow.dags_folder = Some(DAGS_FOLDER.to_owned());
    config.airflow.api_url = Some(shard.api_url());
    let (user, password) = shard.admin();
    user.clone_into(&mut config.airflow.api_username);
    config.airflow.api_password = Some(Secret::new(password));
    config.broker.url = shard.broker_url().map(url).transpose()?;
    config.delivery.dags_folder = Some(shard.dags_folder().to_owned());
    config.delivery.source_folders = sources.to_vec();
    config.delivery.interval = ASK_INTERVAL;
    config.secrets.folder = Some(folder.agent(shard.name()).join("secrets"));
    config.secrets.fernet_key = Some(Secret::new(shard.fernet_key()));
    config.retention.command = vec![shard.command().display().to_string()];
    Ok(config)
}
