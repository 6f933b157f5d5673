//! The services as processes of their own, as they run in production: started from the binaries,
//! killed with SIGKILL, started again on the same port and store.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use airfleet_local::{Port, Process, Sandbox, Spec};
use airfleet_proto::{
    registry::v1::registry_service_client::RegistryServiceClient,
    router::v1::router_service_client::RouterServiceClient,
};
use anyhow::{Context as _, Result, ensure};
use tonic::transport::{Channel, Endpoint};

use crate::eventually;

/// How long a process may take to answer; generous, for busy machines.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// The binary of that name, beside the running test.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder = test
        .ancestors()
        .find(|folder| folder.join(name).is_file())
        .with_context(|| format!("no binary {name}; run `cargo build --workspace --bins` first"))?;
    Ok(folder.join(name))
}

/// One service process and its place: port, settings and data stay when it is killed.
#[derive(Debug)]
pub struct Service {
    sandbox: Sandbox,
    spec: Spec,
    port: Port,
    process: Option<Process>,
}

impl Service {
    /// A service that is not started yet. `settings` are `key=value`, as for `--set`.
    pub fn new(
        sandbox: &Sandbox,
        binary_name: &str,
        name: &str,
        settings: &[(&str, String)],
    ) -> Result<Self> {
        let port = Port::claim()?;
        let mut spec = Spec::new(name, binary(binary_name)?)
            .folder(sandbox.folder())
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", port.number()));
        for (key, value) in settings {
            spec = spec.arg("--set").arg(format!("{key}={value}"));
        }
        Ok(Self { sandbox: sandbox.clone(), spec, port, process: None })
    }

    /// Adds a setting.
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.spec = self.spec.arg("--set").arg(format!("{key}={value}"));
        self
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A channel to it that connects when it is used, and again after it broke.
    pub fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.url()).expect("the URL is made of numbers");
        endpoint
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(20))
            .connect_lazy()
    }

    /// A channel whose streams may last.
    pub fn stream_channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.url()).expect("the URL is made of numbers");
        endpoint.connect_timeout(Duration::from_secs(5)).connect_lazy()
    }

    /// Starts the process, without waiting for it.
    pub fn launch(&mut self) -> Result<()> {
        self.process = None;
        self.process = Some(self.sandbox.spawn(&self.spec)?);
        Ok(())
    }

    /// Starts the process and waits until it says that it is ready.
    pub async fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_ready().await
    }

    /// Waits until it says that it is ready.
    pub async fn wait_ready(&self) -> Result<()> {
        let ready = eventually(READY_LIMIT, async || {
            ensure!(self.is_running(), "it ended");
            let answer = reqwest::get(format!("{}/readyz", self.url())).await?;
            ensure!(answer.status().is_success(), "it says {}", answer.status());
            Ok(())
        });
        ready.await.with_context(|| format!("{} is not ready: {}", self.url(), self.output()))
    }

    /// Whether the process runs.
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_running)
    }

    /// Kills it with SIGKILL.
    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Asks it to stop, and waits.
    pub async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop(Duration::from_secs(30)).await;
        }
    }

    /// Sends a signal, such as `STOP`, to it.
    pub async fn signal(&self, name: &str) -> Result<()> {
        let process = self.process.as_ref().context("it does not run")?;
        let status = tokio::process::Command::new("kill")
            .arg(format!("-{name}"))
            .arg(process.pid().to_string())
            .status()
            .await?;
        ensure!(status.success(), "kill failed");
        Ok(())
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// What it wrote to its log.
    pub fn output(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    /// A client of a registry.
    pub fn registry(&self) -> RegistryServiceClient<Channel> {
        RegistryServiceClient::new(self.channel())
    }

    /// A client of a router.
    pub fn router(&self) -> RouterServiceClient<Channel> {
        RouterServiceClient::new(self.channel())
    }
}

/// A registry on a store.
pub fn registry(sandbox: &Sandbox, store: &str) -> Result<Service> {
    Service::new(sandbox, "airfleet-registry", "registry", &[("store.url", store.to_owned())])
}

/// A router on a store, following a registry. It places without waiting for agents.
pub fn router(sandbox: &Sandbox, name: &str, store: &str, registry: &Service) -> Result<Service> {
    let snapshot = sandbox.folder().join(format!("{name}.snapshot"));
    let settings = [
        ("store.url", store.to_owned()),
        ("registry.endpoints", registry.url()),
        ("placement.require_report", "false".to_owned()),
        ("snapshot.file", snapshot.display().to_string()),
        ("snapshot.interval", "1s".to_owned()),
    ];
    Service::new(sandbox, "airfleet-router", name, &settings)
}

/// URL of a SQLite file in the sandbox.
pub fn sqlite(sandbox: &Sandbox, name: &str) -> String {
    let path: &Path = sandbox.folder();
    format!("sqlite://{}", path.join(name).display())
}
