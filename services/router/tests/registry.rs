//! With a real registry in the same process.

mod support;

use std::net::SocketAddr;

use airfleet_proto::{
    registry::v1::{self as registry, registry_service_client::RegistryServiceClient},
    router::v1 as wire,
};
use airfleet_runtime::{
    config::{ClientConfig, ConnectionUrl, StoreConfig},
    lifecycle::Shutdown,
    status::Problem,
};
use support::{Replica, config, eventually, sqlite};
use tonic::transport::Channel;

struct Registry {
    config: airfleet_registry::Config,
    client: RegistryServiceClient<Channel>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Registry {
    fn new(folder: &tempfile::TempDir, router: SocketAddr) -> Self {
        let mut config = airfleet_registry::Config::default();
        // A port of its own, the same after a restart.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        config.server.listen = port.local_addr().unwrap();
        let url = format!("sqlite:{}/registry.db", folder.path().display());
        config.store = StoreConfig { url: ConnectionUrl::new(url).unwrap(), ..Default::default() };
        config.router = ClientConfig::plain(format!("http://{router}"));
        let endpoint = format!("http://{}", config.server.listen);
        let channel = tonic::transport::Endpoint::new(endpoint).unwrap().connect_lazy();
        let mut new = Self { config, client: RegistryServiceClient::new(channel), runtime: None };
        drop(port);
        new.start();
        new
    }

    fn start(&mut self) {
        let listener = std::net::TcpListener::bind(self.config.server.listen).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(airfleet_registry::run(self.config.clone(), listener, Shutdown::new()));
        self.runtime = Some(runtime);
    }

    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    async fn apply(&mut self, names: &[&str]) {
        let entries: Vec<_> = names.iter().map(|name| support::entry(name)).collect();
        eventually("the registry takes it", async || {
            let entries = entries
                .iter()
                .cloned()
                .map(|mut entry| {
                    if let Some(registry::manifest_entry::Kind::Namespace(namespace)) =
                        &mut entry.kind
                    {
                        namespace.owners = vec!["team".into()];
                    }
                    entry
                })
                .collect();
            let ask = registry::ApplyManifestRequest { entries, ..Default::default() };
            match self.client.apply_manifest(ask).await {
                Ok(_) => Some(()),
                Err(status) if Problem::from(&status).is_transient() => None,
                Err(status) => panic!("{}", Problem::from(&status)),
            }
        })
        .await;
    }

    async fn delete(&mut self, name: &str) -> Result<(), Problem> {
        let ask = registry::DeleteNamespaceRequest { name: name.into(), ..Default::default() };
        self.client.delete_namespace(ask).await.map(drop).map_err(Problem::from)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_is_assigned_and_what_is_deleted_was_given_up_first() {
    let (folder, store) = sqlite();
    // Each needs to know the other, so the router's port is chosen first.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    let mut registry = Registry::new(&folder, address);
    let mut settings = config(&store);
    settings.server.listen = address;
    settings.registry = ClientConfig::plain(format!("http://{}", registry.config.server.listen));
    settings.placement.require_report = true;
    settings.agents.report_interval = std::time::Duration::from_millis(20);
    drop(port);
    let router = Replica::start_configured(settings);
    router.until_leading().await;

    registry.apply(&["shard-a", "one", "two"]).await;
    let mut agent =
        eventually("the router leads", async || router.attach("shard-a").await.ok()).await;
    agent.report(&[]).await;
    router.until_assigned("one").await;
    let two = router.until_assigned("two").await;

    agent.report(&[("one", 3, 1), ("two", 0, 0)]).await;
    let refused = eventually("the report is known", async || {
        let problem = registry.delete("one").await.unwrap_err();
        (problem.preconditions.iter().any(|why| why.kind == "ACTIVE_RUNS")).then_some(problem)
    })
    .await;
    assert!(refused.to_string().contains("1 runs are queued or running on shard-a"), "{refused}");
    registry.delete("two").await.unwrap();
    eventually("it is gone", async || router.get("two").await.is_none().then_some(())).await;
    assert!(router.get("one").await.is_some());

    // While the registry is away the router goes on; then it hears what it missed.
    registry.kill();
    let target = Some(wire::resolve_request::Target::DagId("one.x".into()));
    let answer = router.client.clone().resolve(wire::ResolveRequest { target }).await.unwrap();
    assert_eq!(answer.get_ref().shard, "shard-a");
    eventually("the port is free", async || {
        std::net::TcpListener::bind(registry.config.server.listen).ok().map(drop)
    })
    .await;
    registry.start();
    registry.apply(&["two", "three"]).await;
    router.until_assigned("three").await;
    let again = router.until_assigned("two").await;
    assert_ne!(again.namespace_uid, two.namespace_uid);
    assert!(again.generation > two.generation, "a name that comes back is told from the old one");
    let metrics = router.metrics().await;
    assert!(metrics.contains("airfleet_router_orphans 0"), "{metrics}");
    router.stop().await;
}
