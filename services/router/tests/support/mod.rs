//! Replicas of the router in this process, each on a runtime of its own so that it can be killed.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use airfleet_local::Postgres;
use airfleet_proto::{
    agent::v1::{
        AttachRequest, AttachResponse, Hello, ObservedRole, OwnersQuery, Report,
        agent_service_client::AgentServiceClient, attach_request, attach_response::Message,
    },
    common::v1 as common,
    registry::v1 as registry,
    router::v1::{self as wire, router_service_client::RouterServiceClient},
};
use airfleet_router::{Config, ManifestSource, run_with};
use airfleet_runtime::{
    config::{ConnectionUrl, StoreConfig},
    lifecycle::Shutdown,
};
use tokio::sync::{OnceCell, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Messages of the manifest that wait for a router.
const MESSAGES_WAITING: usize = 10_000;

/// Waits until `look` finds something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Settings for a test: quick, and without agents unless asked for.
pub(crate) fn config(store: &str) -> Config {
    let mut config = Config::default();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.server.drain_deadline = Duration::from_secs(5);
    config.store =
        StoreConfig { url: ConnectionUrl::new(store).unwrap(), ..StoreConfig::default() };
    config.table.poll_interval = Duration::from_millis(100);
    config.placement.require_report = false;
    config
}

/// A SQLite file that is gone with the folder.
pub(crate) fn sqlite() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/router.db", folder.path().display());
    (folder, url)
}

/// A new database on the one PostgreSQL server of this test process.
pub(crate) async fn postgres() -> String {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_init(async || Postgres::start_new().await.unwrap()).await;
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    server.create_database(&name).await.unwrap()
}

/// One replica.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    pub(crate) client: RouterServiceClient<Channel>,
    pub(crate) manifest: mpsc::Sender<registry::WatchManifestResponse>,
    shutdown: Shutdown,
    ended: Option<tokio::sync::oneshot::Receiver<Result<(), airfleet_router::Error>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Replica {
    /// Starts one, on the address that the settings name. Its manifest comes from the test.
    pub(crate) fn start(config: Config) -> Self {
        let (manifest, messages) = mpsc::channel(MESSAGES_WAITING);
        Self::start_with(config, manifest, ManifestSource::Channel(messages))
    }

    /// Starts one whose manifest comes from the registry that the settings name.
    pub(crate) fn start_configured(config: Config) -> Self {
        Self::start_with(config, mpsc::channel(1).0, ManifestSource::Configured)
    }

    fn start_with(
        config: Config,
        manifest: mpsc::Sender<registry::WatchManifestResponse>,
        source: ManifestSource,
    ) -> Self {
        let listener = std::net::TcpListener::bind(config.server.listen).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let shutdown = Shutdown::new();
        let (tell, ended) = tokio::sync::oneshot::channel();
        let stop = shutdown.clone();
        runtime.spawn(async move {
            let _ = tell.send(run_with(config, listener, stop, source).await);
        });
        let endpoint = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap();
        Self {
            address,
            client: RouterServiceClient::new(endpoint.connect_lazy()),
            manifest,
            shutdown,
            ended: Some(ended),
            runtime: Some(runtime),
        }
    }

    /// Starts one and waits until it serves.
    pub(crate) async fn ready(config: Config) -> Self {
        let replica = Self::start(config);
        replica.until_ready().await;
        replica
    }

    /// Starts one and waits until it leads.
    pub(crate) async fn leading(config: Config) -> Self {
        let replica = Self::start(config);
        replica.until_leading().await;
        replica
    }

    pub(crate) async fn until_leading(&self) {
        eventually("it leads", async || {
            self.status().await.filter(|status| status.leader).map(drop)
        })
        .await;
    }

    pub(crate) async fn until_ready(&self) {
        eventually("it is ready", async || {
            self.status().await.filter(|status| !status.source.is_empty()).map(drop)
        })
        .await;
    }

    pub(crate) async fn status(&self) -> Option<wire::RouterStatus> {
        let status = self.client.clone().get_router_status(wire::GetRouterStatusRequest {}).await;
        status.ok().map(tonic::Response::into_inner)
    }

    /// Stops it in good order.
    pub(crate) async fn stop(mut self) {
        self.shutdown.trigger();
        let ended = self.ended.take().unwrap();
        tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
    }

    /// Stops it as `kill -9` would: nothing is said to anybody.
    pub(crate) fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Tells it what is declared from `revision` on.
    pub(crate) async fn declare(&self, revision: i64, entries: &[&str]) {
        self.change(revision, entries.iter().map(|name| entry(name)).collect(), &[]).await;
    }

    pub(crate) async fn change(
        &self,
        revision: i64,
        mut upserts: Vec<registry::ManifestEntry>,
        deleted_namespaces: &[&str],
    ) {
        use registry::manifest_entry::Kind;
        for entry in &mut upserts {
            match entry.kind.as_mut().unwrap() {
                Kind::Namespace(namespace) => namespace.revision = revision,
                Kind::Shard(shard) => shard.revision = revision,
            }
        }
        let change = registry::ManifestChange {
            previous_revision: revision - 1,
            upserts,
            deleted_namespaces: deleted_namespaces.iter().map(ToString::to_string).collect(),
            deleted_shards: vec![],
        };
        let event = registry::watch_manifest_response::Event::Change(change);
        let message = registry::WatchManifestResponse { revision, event: Some(event) };
        self.manifest.send(message).await.unwrap();
    }

    /// Waits until the manifest was taken in.
    pub(crate) async fn until_declared(&self, revision: i64) {
        eventually("the manifest is taken in", async || {
            let status = self.status().await?;
            (status.manifest_revision >= revision).then_some(())
        })
        .await;
    }

    pub(crate) async fn get(&self, namespace: &str) -> Option<wire::Assignment> {
        let ask = wire::GetAssignmentRequest { namespace: namespace.into() };
        self.client.clone().get_assignment(ask).await.ok().map(tonic::Response::into_inner)
    }

    /// Waits until a namespace has an owner.
    pub(crate) async fn until_assigned(&self, namespace: &str) -> wire::Assignment {
        eventually("it is assigned", async || {
            self.get(namespace).await.filter(|assignment| !assignment.shard.is_empty())
        })
        .await
    }

    /// Everything, by pages.
    pub(crate) async fn list(&self, page_size: i32) -> Vec<wire::Assignment> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let ask = wire::ListAssignmentsRequest { page_size, page_token, ..Default::default() };
            let page = self.client.clone().list_assignments(ask).await.unwrap().into_inner();
            assert!(page.assignments.len() <= page_size as usize);
            all.extend(page.assignments);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }

    pub(crate) async fn watch(&self, resume_revision: i64) -> Watcher {
        let ask = wire::WatchAssignmentsRequest { resume_revision };
        let stream = self.client.clone().watch_assignments(ask).await.unwrap().into_inner();
        Watcher { stream, table: Default::default(), revision: resume_revision, snapshots: 0 }
    }

    /// An agent of `shard` connects.
    pub(crate) async fn attach(&self, shard: &str) -> Result<Agent, tonic::Status> {
        self.attach_as(shard, uuid::Uuid::now_v7()).await
    }

    pub(crate) async fn attach_as(
        &self,
        shard: &str,
        incarnation: uuid::Uuid,
    ) -> Result<Agent, tonic::Status> {
        let (send, receive) = mpsc::channel(16);
        let hello = Hello {
            shard: shard.into(),
            incarnation: incarnation.to_string(),
            agent_version: "1.2.3".into(),
            airflow_version: "3.3.2".into(),
            schema_revision: "d2f4e1b3c5a7".into(),
            hostname: "host".into(),
        };
        let first = attach_request::Message::Hello(hello);
        send.send(AttachRequest { message: Some(first) }).await.unwrap();
        let endpoint = tonic::transport::Endpoint::new(format!("http://{}", self.address)).unwrap();
        let mut client = AgentServiceClient::new(endpoint.connect_lazy());
        let receive = client.attach(ReceiverStream::new(receive)).await?.into_inner();
        Ok(Agent { send, receive, sequence: 0 })
    }

    /// The page that Prometheus reads.
    pub(crate) async fn metrics(&self) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.shutdown.force();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An entry of the manifest: `shard-...` is a shard, anything else a namespace of ten DAGs.
pub(crate) fn entry(name: &str) -> registry::ManifestEntry {
    let kind = if name.starts_with("shard") {
        registry::manifest_entry::Kind::Shard(registry::Shard {
            name: name.into(),
            uid: format!("uid-{name}"),
            url: format!("http://{name}.example.net"),
            capacity: Some(common::Resources { dags: 100_000, ..Default::default() }),
            ..Default::default()
        })
    } else {
        registry::manifest_entry::Kind::Namespace(registry::Namespace {
            name: name.into(),
            uid: format!("uid-{name}"),
            prefixes: vec![format!("{name}.")],
            demand: Some(common::Resources { dags: 10, ..Default::default() }),
            ..Default::default()
        })
    };
    registry::ManifestEntry { kind: Some(kind) }
}

/// A client that follows the table.
pub(crate) struct Watcher {
    stream: Streaming<wire::WatchAssignmentsResponse>,
    pub(crate) table: std::collections::BTreeMap<String, wire::Assignment>,
    pub(crate) revision: i64,
    pub(crate) snapshots: usize,
}

impl Watcher {
    /// Takes the next message in, and checks that revisions are contiguous.
    pub(crate) async fn next(&mut self) -> Result<(), tonic::Status> {
        use wire::watch_assignments_response::Event;
        let message = tokio::time::timeout(PATIENCE, self.stream.message()).await;
        let message = message.expect("a watch is never silent for long")?;
        let message = message.ok_or_else(|| tonic::Status::unavailable("ended"))?;
        match message.event.unwrap() {
            Event::Snapshot(snapshot) => {
                if snapshot.first {
                    self.table.clear();
                    self.snapshots += 1;
                }
                for assignment in snapshot.assignments {
                    self.table.insert(assignment.namespace.clone(), assignment);
                }
                if snapshot.last {
                    self.revision = message.revision;
                }
            }
            Event::Change(change) => {
                assert_eq!(change.previous_revision, self.revision, "contiguous");
                assert!(message.revision >= self.revision);
                for assignment in change.upserts {
                    assert!(
                        assignment.revision > self.revision || message.revision == self.revision
                    );
                    self.table.insert(assignment.namespace.clone(), assignment);
                }
                for namespace in change.deleted {
                    self.table.remove(&namespace);
                }
                self.revision = message.revision;
            }
            Event::Progress(_) => assert_eq!(message.revision, self.revision),
        }
        Ok(())
    }

    /// Follows until a revision is taken in.
    pub(crate) async fn until(&mut self, revision: i64) {
        while self.revision < revision {
            self.next().await.unwrap();
        }
    }
}

/// The agent of one shard.
pub(crate) struct Agent {
    pub(crate) send: mpsc::Sender<AttachRequest>,
    pub(crate) receive: Streaming<AttachResponse>,
    pub(crate) sequence: i64,
}

impl Agent {
    /// What the router says next.
    pub(crate) async fn hear(&mut self) -> Result<Message, tonic::Status> {
        let answer = tokio::time::timeout(PATIENCE, self.receive.message()).await;
        let answer = answer.expect("the router answers")?;
        answer.and_then(|answer| answer.message).ok_or_else(|| tonic::Status::unavailable("ended"))
    }

    /// Sends a full report: healthy, with these namespaces (name, DAGs, active runs).
    pub(crate) async fn report(&mut self, namespaces: &[(&str, i64, i64)]) {
        let health =
            common::Health { verdict: common::Verdict::Healthy.into(), ..Default::default() };
        let namespaces = namespaces.iter().map(|(name, dags, runs)| {
            airfleet_proto::agent::v1::NamespaceReport {
                namespace: name.to_string(),
                usage: Some(common::Resources { dags: *dags, ..Default::default() }),
                active_runs: *runs,
                ..Default::default()
            }
        });
        self.sequence += 1;
        self.send_report(Report {
            sequence: self.sequence,
            full: true,
            health: Some(health),
            usage: Some(common::Resources { dags: 7, ..Default::default() }),
            namespaces: namespaces.collect(),
            ..Default::default()
        })
        .await;
    }

    /// Sends a full report: healthy, and in these roles.
    pub(crate) async fn report_roles(&mut self, roles: &[ObservedRole]) {
        let health =
            common::Health { verdict: common::Verdict::Healthy.into(), ..Default::default() };
        self.sequence += 1;
        self.send_report(Report {
            sequence: self.sequence,
            full: true,
            health: Some(health),
            roles: roles.to_vec(),
            ..Default::default()
        })
        .await;
    }

    /// Asks whose DAGs these are.
    pub(crate) async fn ask(&mut self, number: i64, dag_ids: &[&str]) {
        let dag_ids = dag_ids.iter().map(ToString::to_string).collect();
        let message = Some(attach_request::Message::OwnersQuery(OwnersQuery { number, dag_ids }));
        self.send.send(AttachRequest { message }).await.unwrap();
    }

    pub(crate) async fn send_report(&mut self, report: Report) {
        let message = Some(attach_request::Message::Report(report));
        self.send.send(AttachRequest { message }).await.unwrap();
    }
}

/// A path for a snapshot file in a folder.
pub(crate) fn snapshot_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("table.snapshot")
}
