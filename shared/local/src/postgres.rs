//! A private PostgreSQL server from the installed binaries.
//!
//! Its data lies in the sandbox, it listens on 127.0.0.1 only, and it trades
//! durability for speed: data survives [`Postgres::kill`], not a power cut.
//! `initdb` runs once; later servers start from a copy of its result in the
//! cache folder. PostgreSQL refuses to run as root, so there it runs as the
//! operating system's user `postgres`.
//!
//! Must not know what is stored in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::port::Port;
use crate::process::Spec;
use crate::programs::{self, cache_folder, lock_cache};
use crate::sandbox::Sandbox;
use crate::service::{Ready, Service};

const USER: &str = "airfleet";
const PACKAGE: &str = "postgresql";
const STOP_GRACE: Duration = Duration::from_secs(20);
const COMMAND_LIMIT: Duration = Duration::from_mins(2);

/// How to start a [`Postgres`].
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    sandbox: Option<Sandbox>,
    max_connections: u32,
    shared_buffers_mb: u32,
    settings: Vec<(String, String)>,
    template: Option<PathBuf>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            sandbox: None,
            max_connections: 100,
            shared_buffers_mb: 64,
            settings: Vec::new(),
            template: None,
        }
    }
}

impl PostgresOptions {
    /// Runs in `sandbox` instead of one of its own, continuing with the data
    /// that is already there.
    pub fn sandbox(mut self, sandbox: &Sandbox) -> Self {
        self.sandbox = Some(sandbox.clone());
        self
    }

    /// The most connections at a time; 100 unless told.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Size of the buffer cache in MiB; 64 unless told.
    pub fn shared_buffers_mb(mut self, mebibytes: u32) -> Self {
        self.shared_buffers_mb = mebibytes;
        self
    }

    /// Any other server setting, such as `log_statement` = `all`.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Starts from a copy of the data folder `template` of a stopped server
    /// that was started by the same user.
    pub(crate) fn template(mut self, template: impl Into<PathBuf>) -> Self {
        self.template = Some(template.into());
        self
    }

    /// Starts the server and returns when it accepts connections.
    pub async fn start(self) -> Result<Postgres> {
        Postgres::launch(self).await
    }
}

/// A private PostgreSQL server; ends, with its data, when dropped.
#[derive(Debug)]
pub struct Postgres {
    service: Service,
    installation: Installation,
    data: PathBuf,
    password: String,
    port: Port,
}

impl Postgres {
    /// Starts a server with default options in a sandbox of its own.
    pub async fn start_new() -> Result<Self> {
        PostgresOptions::default().start().await
    }

    /// Options to start a server with.
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    /// Whether the server's programs are installed.
    pub fn is_installed() -> bool {
        Installation::find().is_ok()
    }

    async fn launch(options: PostgresOptions) -> Result<Self> {
        let installation = Installation::find()?;
        let cache = cache_folder()?;
        let sandbox = match &options.sandbox {
            Some(sandbox) => sandbox.clone(),
            None => Sandbox::create("postgres").await?,
        };
        // Beside the data, which may outlive the cache.
        let cached = installation.password(&cache)?;
        let password =
            programs::read_or_make_secret(&sandbox.folder().join("postgres.password"), || cached)?;
        let data = sandbox.folder().join("postgres");
        if !data.join("PG_VERSION").exists() {
            let template = match &options.template {
                Some(template) => template.clone(),
                None => installation.empty_template(&cache, &sandbox).await?,
            };
            copy_tree(&sandbox, &template, &data).await?;
        }
        let port = Port::claim()?;
        let server = installation.server(&data, port.number(), &options);
        let postgres = Self {
            service: Service::new(sandbox, server, asks_for_a_password(port.number()), STOP_GRACE),
            installation,
            data,
            password,
            port,
        };
        postgres.start().await?;
        Ok(postgres)
    }

    /// The URL of database `name`, for libpq and sqlx.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{name}", self.password, self.port.number())
    }

    /// The TCP port on 127.0.0.1; the same for as long as this value lives.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Creates an empty database and returns its [URL](Self::url).
    pub async fn create_database(&self, name: &str) -> Result<String> {
        let valid = !name.is_empty()
            && name.len() <= 63
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !valid {
            return Err(Error::Invalid(format!(
                "{name:?} is no database name: use at most 63 of a-z, 0-9 and _"
            )));
        }
        self.query("postgres", &format!("CREATE DATABASE \"{name}\"")).await?;
        Ok(self.url(name))
    }

    /// Runs SQL in a database with `psql` and returns its rows: a line each,
    /// columns separated by tabs.
    pub async fn query(&self, database: &str, sql: &str) -> Result<String> {
        let output = tokio::process::Command::new(self.installation.program("psql"))
            .args(["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"])
            .args(["-d", &self.url(database), "-c", sql])
            .env_remove("PGOPTIONS")
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| Error::Spawn { name: "psql".to_owned(), source })?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(Error::Answer {
                service: "postgres",
                answer: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
            })
        }
    }

    /// Starts the server again, on the same port and data, and returns when it
    /// accepts connections. Nothing happens if it runs.
    pub async fn start(&self) -> Result<()> {
        self.service.start().await
    }

    /// Stops the server in good order: clients are disconnected, data is
    /// written. It can be [started](Self::start) again.
    pub async fn stop(&self) {
        self.service.stop().await;
    }

    /// Kills the server (SIGKILL). It can be [started](Self::start) again and
    /// then recovers.
    pub async fn kill(&self) {
        self.service.kill().await;
    }

    /// Whether the server process lives.
    pub async fn is_running(&self) -> bool {
        self.service.is_running().await
    }

    /// The server's log file.
    pub fn log(&self) -> PathBuf {
        self.service.sandbox().folder().join("logs/postgres.log")
    }

    /// Copies the data of the stopped server to `target`, to be the
    /// [template](PostgresOptions::template) of others.
    pub(crate) async fn save_template(&self, target: &Path) -> Result<()> {
        self.stop().await;
        publish(self.service.sandbox(), &self.data, target).await
    }

    /// The release that is installed, such as 15.
    pub(crate) fn installed_major() -> Result<u32> {
        Ok(Installation::find()?.major)
    }
}

/// The server's programs.
#[derive(Debug, Clone)]
struct Installation {
    bin: PathBuf,
    major: u32,
}

impl Installation {
    /// The newest release of Debian's packages, else what is in `PATH`.
    fn find() -> Result<Self> {
        let packaged = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let major = entry.file_name().to_str()?.parse().ok()?;
                let bin = entry.path().join("bin");
                bin.join("postgres").is_file().then_some(Self { bin, major })
            })
            .max_by_key(|installation| installation.major);
        if let Some(installation) = packaged {
            return Ok(installation);
        }
        let server = programs::find("postgres", PACKAGE)?;
        // Its real place: the other programs need not be in `PATH`.
        let server = fs::canonicalize(&server).map_err(Error::file("resolve", &server))?;
        let version = std::process::Command::new(&server)
            .arg("--version")
            .output()
            .map_err(|source| Error::Spawn { name: "postgres --version".to_owned(), source })?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let major = version
            .split_whitespace()
            .find_map(|word| word.split('.').next()?.parse().ok())
            .ok_or(Error::Answer { service: "postgres --version", answer: version })?;
        let bin = server.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { bin, major })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A process that runs `program` as a user whom PostgreSQL accepts and who
    /// can reach `data`.
    fn spec(&self, name: &str, program: &str, data: &Path) -> Spec {
        if !is_root() {
            return Spec::new(name, self.program(program));
        }
        let mut spec = Spec::new(name, "setpriv").args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
        ]);
        if !reachable_by_all(data) {
            // Below a home folder, say: let it pass, and nothing else.
            spec = spec.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]);
        }
        spec.arg(self.program(program))
    }

    /// The server process on `data` and `port`.
    fn server(&self, data: &Path, port: u16, options: &PostgresOptions) -> Spec {
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", port.to_string()),
            ("unix_socket_directories", String::new()),
            ("max_connections", options.max_connections.to_string()),
            ("shared_buffers", format!("{}MB", options.shared_buffers_mb)),
            // In the data folder, so that nothing stays in /dev/shm.
            ("dynamic_shared_memory_type", "mmap".to_owned()),
            // A commit is handed to the operating system, which outlives a
            // killed server; nobody waits for the disk.
            ("fsync", "off".to_owned()),
            ("full_page_writes", "off".to_owned()),
            ("autovacuum_max_workers", "1".to_owned()),
            ("max_wal_size", "256MB".to_owned()),
            ("jit", "off".to_owned()),
        ];
        settings
            .extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
        self.spec("postgres", "postgres", data)
            .arg("-D")
            .arg(data)
            .args(
                settings
                    .into_iter()
                    .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]),
            )
            .folder(data)
            // "Fast shutdown": does not wait for clients to leave.
            .stops_on_interrupt()
    }

    /// The password of all servers that start from this cache's templates: any
    /// user of the machine can connect to 127.0.0.1.
    fn password(&self, cache: &Path) -> Result<String> {
        programs::read_or_make_secret(
            &cache.join(format!("postgres-{}.password", self.major)),
            programs::random_word,
        )
    }

    /// The data folder of a server that was only initialised.
    async fn empty_template(&self, cache: &Path, sandbox: &Sandbox) -> Result<PathBuf> {
        let name = format!("postgres-{}", self.major);
        let template = cache.join(&name);
        if template.exists() {
            return Ok(template);
        }
        let _lock = lock_cache(cache, &name, COMMAND_LIMIT).await?;
        if template.exists() {
            return Ok(template);
        }
        let data = sandbox.folder().join("initdb");
        let password = sandbox.folder().join("initdb.password");
        programs::write_secret(&password, &self.password(cache)?)?;
        fs::create_dir(&data).map_err(Error::file("create", &data))?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))
            .map_err(Error::file("change", &data))?;
        if is_root() {
            give_to_postgres(sandbox, &[&data, &password]).await?;
        }
        let initdb = self
            .spec("initdb", "initdb", &data)
            .arg("-D")
            .arg(&data)
            .arg(format!("--username={USER}"))
            .arg(format!("--pwfile={}", password.display()))
            // Cheap to check, and enough on the loopback interface.
            .args(["--auth=md5", "--no-sync", "--no-instructions"])
            // Small WAL segments make the template small, so that it copies fast.
            .args(["--wal-segsize=1", "--locale=C.UTF-8", "--encoding=UTF8"]);
        sandbox.run(&initdb, COMMAND_LIMIT).await?;
        fs::remove_file(&password).map_err(Error::file("remove", &password))?;
        publish(sandbox, &data, &template).await?;
        fs::remove_dir_all(&data).map_err(Error::file("remove", &data))?;
        Ok(template)
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether any user may enter all folders above `path`.
fn reachable_by_all(path: &Path) -> bool {
    path.ancestors().skip(1).all(|folder| {
        fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    })
}

async fn give_to_postgres(sandbox: &Sandbox, paths: &[&Path]) -> Result<()> {
    let chown = Spec::new("chown", "chown").arg("postgres:").args(paths);
    sandbox.run(&chown, COMMAND_LIMIT).await.map(drop)
}

/// Copies a folder with owners and modes.
pub(crate) async fn copy_tree(sandbox: &Sandbox, from: &Path, to: &Path) -> Result<()> {
    let copy = Spec::new("copy", "cp")
        .args(["--archive", "--reflink=auto", "--no-target-directory"])
        .args([from, to]);
    sandbox.run(&copy, COMMAND_LIMIT).await.map(drop)
}

/// Copies a folder into the cache in such a way that it appears there whole.
async fn publish(sandbox: &Sandbox, from: &Path, to: &Path) -> Result<()> {
    let draft = to.with_extension("draft");
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(Error::file("remove", &draft))?;
    }
    copy_tree(sandbox, from, &draft).await?;
    fs::rename(&draft, to).map_err(Error::file("move into place", to))
}

/// The server on `port` lets clients in once it asks them for a password; while
/// it is still starting up it answers with an error instead.
fn asks_for_a_password(port: u16) -> Ready {
    const PARAMETERS: &[u8] = b"user\0airfleet\0database\0postgres\0\0";
    const PROTOCOL_3_0: u32 = 3 << 16;
    let length = 8 + PARAMETERS.len() as u32;
    let mut greeting = length.to_be_bytes().to_vec();
    greeting.extend(PROTOCOL_3_0.to_be_bytes());
    greeting.extend(PARAMETERS);
    Ready::Greets { port, greeting, answer: b"R" }
}
