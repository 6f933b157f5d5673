//! The control plane of a development fleet: one registry and one router.

use std::{net::SocketAddr, path::Path, time::Duration};

use airfleet_proto::{registry::v1::ListShardsRequest, router::v1::GetRouterStatusRequest};
use airfleet_runtime::{
    config::{ClientConfig, ServerConfig, StoreConfig},
    lifecycle::Shutdown,
};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

use super::{folder::Folder, page::Steps};
use crate::{
    client::{Registry, Router},
    error::{Error, Result},
};

/// How long services may finish what they work on.
pub(super) const DRAIN: Duration = Duration::from_secs(5);
/// How long the services may take to serve.
const READY_LIMIT: Duration = Duration::from_mins(1);
/// Between two looks at whether something is so.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// Where the services are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    registry: SocketAddr,
    router: SocketAddr,
}

impl Addresses {
    /// URL of the registry.
    pub(super) fn registry_url(&self) -> String {
        format!("http://{}", self.registry)
    }

    /// URL of the router.
    pub(super) fn router_url(&self) -> String {
        format!("http://{}", self.router)
    }
}

/// The services that run.
#[derive(Debug)]
pub(super) struct Plane {
    addresses: Addresses,
    services: Vec<Service>,
}

#[derive(Debug)]
struct Service {
    name: &'static str,
    task: JoinHandle<Result<()>>,
}

impl Plane {
    /// Starts both. `trusting` lets shards that nobody reports of count as healthy.
    pub(super) fn start(
        folder: &Folder,
        registry: TcpListener,
        router: TcpListener,
        trusting: bool,
        shutdown: &Shutdown,
    ) -> Result<Self> {
        let address = |listener: &TcpListener| {
            listener.local_addr().map_err(|error| Error::caused("cannot listen", &error))
        };
        let addresses = Addresses { registry: address(&registry)?, router: address(&router)? };
        let mut plane = Self { addresses, services: Vec::new() };
        let config = airfleet_registry::Config {
            server: server(addresses.registry),
            store: store(&folder.database("registry"))?,
            router: ClientConfig::plain(addresses.router_url()),
            ..Default::default()
        };
        plane.spawn("registry", airfleet_registry::run(config, registry, shutdown.child()));

        let mut config = airfleet_router::Config {
            replica: Some("dev".into()),
            server: server(addresses.router),
            store: store(&folder.database("router"))?,
            registry: ClientConfig::plain(addresses.registry_url()),
            ..Default::default()
        };
        config.snapshot.file = Some(folder.snapshot());
        config.placement.require_report = !trusting;
        plane.spawn("router", airfleet_router::run(config, router, shutdown.child()));
        Ok(plane)
    }

    fn spawn<E: std::error::Error + Send + 'static>(
        &mut self,
        name: &'static str,
        service: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let task = tokio::spawn(async move {
            service.await.map_err(|error| Error::caused(format!("the {name} failed"), &error))
        });
        self.services.push(Service { name, task });
    }

    /// Where the services are.
    pub(super) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until a service ends by itself, and says how.
    pub(super) async fn ended(&mut self) -> Error {
        let tasks = self.services.iter_mut().map(|service| {
            Box::pin(async {
                let result = (&mut service.task).await;
                (service.name, result)
            })
        });
        let ((name, result), index, _) = futures::future::select_all(tasks).await;
        // A task must not be awaited again.
        self.services.remove(index);
        match result {
            Ok(Ok(())) => Error::new(format!("the {name} ended although nobody asked it to")),
            Ok(Err(error)) => error,
            Err(error) => Error::caused(format!("the {name} failed"), &error),
        }
    }

    /// Waits until all services have ended, as they were asked to.
    pub(super) async fn stopped(&mut self) -> Result<()> {
        let mut first = Ok(());
        for Service { name, task } in self.services.drain(..) {
            let ended = match task.await {
                Ok(ended) => ended,
                Err(error) => Err(Error::caused(format!("the {name} failed"), &error)),
            };
            if first.is_ok() {
                first = ended;
            }
        }
        first
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        for service in &self.services {
            service.task.abort();
        }
    }
}

fn server(address: SocketAddr) -> ServerConfig {
    ServerConfig { drain_deadline: DRAIN, listen: address, ..ServerConfig::on_port(address.port()) }
}

fn store(file: &Path) -> Result<StoreConfig> {
    let file = file.to_str().ok_or_else(|| {
        Error::new(format!("{} is not UTF-8; choose another folder with --dir", file.display()))
    })?;
    Ok(StoreConfig::sqlite(file))
}

/// Waits until the registry serves and the router leads.
pub(super) async fn ready(
    registry: &Registry,
    router: &Router,
    steps: &Steps,
    addresses: &Addresses,
) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    let request = ListShardsRequest { page_size: 1, ..Default::default() };
    until(deadline, "the registry does not serve", async || {
        registry
            .try_call(async |mut client| client.list_shards(request.clone()).await)
            .await
            .map(|_| true)
            .map_err(|problem| problem.message)
    })
    .await?;
    steps.reached("registry", &format!("serves {}", addresses.registry_url()));
    until(deadline, "the router does not lead", async || {
        router
            .try_call(async |mut client| client.get_router_status(GetRouterStatusRequest {}).await)
            .await
            .map(|status| status.leader)
            .map_err(|problem| problem.message)
    })
    .await?;
    steps.reached("router", &format!("leads {}", addresses.router_url()));
    Ok(())
}

/// Asks until the answer is yes. Fails at the deadline, with the last thing that was in the way.
pub(super) async fn until(
    deadline: Instant,
    what: &str,
    mut check: impl AsyncFnMut() -> Result<bool, String>,
) -> Result<()> {
    loop {
        let obstacle = match check().await {
            Ok(true) => return Ok(()),
            Ok(false) => String::new(),
            Err(obstacle) => format!(": {obstacle}"),
        };
        if Instant::now() > deadline {
            return Err(Error::new(format!("{what}{obstacle}")).hint("the log says more"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
