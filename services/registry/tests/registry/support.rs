//! A registry on a fresh database, and clients of it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use airfleet_local::Postgres;
use airfleet_proto::registry::v1::registry_service_client::RegistryServiceClient;
use airfleet_proto::registry::v1::watch_manifest_response::Event;
use airfleet_proto::registry::v1::*;
use airfleet_registry::Config;
use airfleet_runtime::client::{self, Transport};
use airfleet_runtime::config::{ClientConfig, ConnectionUrl, Secret};
use airfleet_runtime::lifecycle::Shutdown;
use airfleet_runtime::node::Node;
use airfleet_runtime::status::Problem;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tonic::{Code, Status, Streaming};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Client = RegistryServiceClient<Transport>;

/// Where one test's database is.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) folder: TempDir,
    pub(crate) is_postgres: bool,
}

pub(crate) fn sqlite() -> Database {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/registry.db", folder.path().display());
    Database { url, folder, is_postgres: false }
}

/// A database of its own on the one server that this test process starts.
pub(crate) async fn postgres() -> Database {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let start = || async { Postgres::options().max_connections(300).start().await.unwrap() };
    let server = SERVER.get_or_init(start).await;
    let name = format!("registry_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let url = server.create_database(&name).await.unwrap();
    Database { url, folder: tempfile::tempdir().unwrap(), is_postgres: true }
}

impl Database {
    /// Settings of a registry on this database that reacts quickly.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        config.store.url = ConnectionUrl::new(&self.url).unwrap();
        config.watch.poll_interval = Duration::from_millis(50);
        config.watch.progress_interval = Duration::from_millis(500);
        config
    }

    /// A registry with those settings.
    pub(crate) async fn start(&self) -> Registry {
        Registry::start(&self.config()).await
    }
}

/// A registry that runs until it is dropped.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    pub(crate) node: Node,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.node.shutdown().force();
    }
}

impl Registry {
    pub(crate) async fn start(config: &Config) -> Self {
        let registry = Self::start_unready(config).await;
        tokio::time::timeout(PATIENCE, registry.node.readiness.wait()).await.expect("ready");
        registry
    }

    pub(crate) async fn start_unready(config: &Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = Node::new("registry", Shutdown::new());
        let address = airfleet_registry::start(config, listener, &node).await.unwrap();
        Self { address, node }
    }

    /// Stops in good order.
    pub(crate) async fn stop(self) {
        self.node.shutdown().trigger();
        self.node.tasks.clone().run_until_stopped(PATIENCE).await.unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with_token(None)
    }

    pub(crate) fn client_with_token(&self, token: Option<&str>) -> Client {
        let mut config = ClientConfig::plain(format!("http://{}", self.address));
        config.token = token.map(Secret::new);
        RegistryServiceClient::new(client::connect(&config).unwrap())
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.node.metrics.render().unwrap();
        let line = text.lines().find(|line| line.split_once(' ').is_some_and(|(n, _)| n == name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// A tokens file with one token per line of `name role rest`, each the token of its own name.
pub(crate) fn tokens_file(database: &Database, tokens: &[(&str, &str, &str)]) -> Config {
    let mut text = String::new();
    for (name, role, rest) in tokens {
        write!(text, "[[token]]\nname = {name:?}\nrole = {role:?}\n{rest}\nsha256 = \"").unwrap();
        for byte in Sha256::digest(name.as_bytes()) {
            write!(text, "{byte:02x}").unwrap();
        }
        text += "\"\n";
    }
    let path = database.folder.path().join("tokens.toml");
    std::fs::write(&path, text).unwrap();
    let mut config = database.config();
    config.server.tokens_file = Some(path);
    config
}

/// A namespace that is valid, with this name and the prefix `<name>__`.
pub(crate) fn namespace(name: &str) -> Namespace {
    Namespace {
        name: name.to_owned(),
        owners: vec!["team".to_owned()],
        prefixes: vec![format!("{name}__")],
        ..Namespace::default()
    }
}

pub(crate) fn shard(name: &str) -> Shard {
    Shard { name: name.to_owned(), ..Shard::default() }
}

pub(crate) fn create(namespace: Namespace) -> CreateNamespaceRequest {
    CreateNamespaceRequest { namespace: Some(namespace), ..Default::default() }
}

pub(crate) fn create_shard(shard: Shard) -> CreateShardRequest {
    CreateShardRequest { shard: Some(shard), ..Default::default() }
}

pub(crate) fn update(namespace: Namespace, paths: &[&str]) -> UpdateNamespaceRequest {
    UpdateNamespaceRequest {
        namespace: Some(namespace),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
        }),
        ..Default::default()
    }
}

pub(crate) fn get(name: &str) -> GetNamespaceRequest {
    GetNamespaceRequest { name: name.to_owned() }
}

pub(crate) fn entry(namespace: Namespace) -> ManifestEntry {
    ManifestEntry { kind: Some(manifest_entry::Kind::Namespace(namespace)) }
}

pub(crate) fn shard_entry(shard: Shard) -> ManifestEntry {
    ManifestEntry { kind: Some(manifest_entry::Kind::Shard(shard)) }
}

pub(crate) fn apply(entries: Vec<ManifestEntry>) -> ApplyManifestRequest {
    ApplyManifestRequest { entries, ..Default::default() }
}

pub(crate) fn name_of(entry: &ManifestEntry) -> &str {
    match entry.kind.as_ref().unwrap() {
        manifest_entry::Kind::Namespace(namespace) => &namespace.name,
        manifest_entry::Kind::Shard(shard) => &shard.name,
    }
}

/// The answer that was refused, taken apart.
pub(crate) fn problem<T>(answer: Result<tonic::Response<T>, Status>) -> Problem {
    match answer {
        Ok(_) => panic!("should have been refused"),
        Err(status) => Problem::from(status),
    }
}

/// Asserts code and reason.
#[track_caller]
pub(crate) fn refused<T>(
    answer: Result<tonic::Response<T>, Status>,
    code: Code,
    reason: &str,
) -> Problem {
    let problem = problem(answer);
    assert_eq!((problem.code, problem.reason.as_str()), (code, reason), "{problem:?}");
    problem
}

/// A watch that checks what must hold on every stream.
pub(crate) struct Watch {
    stream: Streaming<WatchManifestResponse>,
    /// What the watcher knows by now: names and their revisions.
    pub(crate) known: std::collections::BTreeMap<String, i64>,
    pub(crate) revision: i64,
    snapshot_open: bool,
    pub(crate) snapshots: usize,
    pub(crate) changes: usize,
}

impl Watch {
    pub(crate) async fn open(client: &mut Client, resume_revision: i64) -> Self {
        let answer = client.watch_manifest(WatchManifestRequest { resume_revision }).await.unwrap();
        Self {
            stream: answer.into_inner(),
            known: Default::default(),
            revision: resume_revision,
            snapshot_open: false,
            snapshots: 0,
            changes: 0,
        }
    }

    /// The next message; takes it in.
    pub(crate) async fn next(&mut self) -> Event {
        let message = tokio::time::timeout(PATIENCE, self.stream.message()).await;
        let message = message.expect("a message in time").unwrap().expect("the stream goes on");
        let event = message.event.unwrap();
        match &event {
            Event::Snapshot(piece) => {
                assert_eq!(piece.first, !self.snapshot_open, "pieces in order");
                if piece.first {
                    self.known.clear();
                }
                self.upsert(&piece.entries);
                self.snapshot_open = !piece.last;
                self.snapshots += usize::from(piece.last);
            }
            Event::Change(change) => {
                assert!(!self.snapshot_open, "a snapshot is completed first");
                assert_eq!(change.previous_revision, self.revision, "no gap");
                assert!(message.revision > self.revision);
                self.upsert(&change.upserts);
                for name in change.deleted_namespaces.iter().chain(&change.deleted_shards) {
                    self.known.remove(name);
                }
                self.changes += 1;
            }
            Event::Progress(_) => assert_eq!(message.revision, self.revision),
        }
        self.revision = message.revision;
        event
    }

    fn upsert(&mut self, entries: &[ManifestEntry]) {
        for entry in entries {
            let revision = match entry.kind.as_ref().unwrap() {
                manifest_entry::Kind::Namespace(namespace) => namespace.revision,
                manifest_entry::Kind::Shard(shard) => shard.revision,
            };
            self.known.insert(name_of(entry).to_owned(), revision);
        }
    }

    /// Takes messages in until `revision` is reached and no snapshot is open.
    pub(crate) async fn until(&mut self, revision: i64) {
        while self.revision < revision || self.snapshot_open {
            self.next().await;
        }
    }

    /// The error that ends the stream.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match tokio::time::timeout(PATIENCE, self.stream.message()).await.expect("in time") {
                Ok(Some(_)) => {}
                Ok(None) => panic!("ended without an error"),
                Err(status) => return status,
            }
        }
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.known.keys().map(String::as_str).collect()
    }
}

/// Tries `condition` until it holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened");
        ticks.tick().await;
    }
}
