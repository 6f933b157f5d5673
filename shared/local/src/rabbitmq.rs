//! A private RabbitMQ node, as a broker for Celery.
//!
//! All of it is its own: data, node name, cookie, port mapper (epmd) and ports,
//! all on 127.0.0.1, so it neither sees nor disturbs another node of this
//! machine. Erlang's virtual machine takes several seconds to start.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::port::Port;
use crate::process::Spec;
use crate::programs;
use crate::sandbox::{Sandbox, make_folder};
use crate::service::{Ready, Service};

const PACKAGE: &str = "rabbitmq-server";
/// Debian's `/usr/sbin/rabbitmq-server` insists on its own user and folders; this
/// is the script behind it.
const DEBIAN_SCRIPT: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const USER: &str = "airfleet";
const STOP_GRACE: Duration = Duration::from_secs(20);

/// How to start a [`RabbitMq`].
#[derive(Debug, Clone, Default)]
pub struct RabbitMqOptions {
    sandbox: Option<Sandbox>,
    management: bool,
}

impl RabbitMqOptions {
    /// Runs in `sandbox` instead of one of its own, continuing with the data
    /// that is already there.
    pub fn sandbox(mut self, sandbox: &Sandbox) -> Self {
        self.sandbox = Some(sandbox.clone());
        self
    }

    /// Enables the management plugin and its HTTP API; off unless told.
    pub fn management(mut self, enable: bool) -> Self {
        self.management = enable;
        self
    }

    /// Starts the node and returns when it accepts connections.
    pub async fn start(self) -> Result<RabbitMq> {
        RabbitMq::launch(self).await
    }
}

/// A private RabbitMQ node; ends, with its data, when dropped.
#[derive(Debug)]
pub struct RabbitMq {
    node: Service,
    /// Started apart: the node would start one that outlives it.
    port_mapper: Service,
    password: String,
    port: Port,
    management_port: Option<Port>,
    /// Of the port mapper and of Erlang's own protocol.
    _claimed: [Port; 2],
}

impl RabbitMq {
    /// Starts a node with default options in a sandbox of its own.
    pub async fn start_new() -> Result<Self> {
        RabbitMqOptions::default().start().await
    }

    /// Options to start a node with.
    pub fn options() -> RabbitMqOptions {
        RabbitMqOptions::default()
    }

    /// Whether the server's programs are installed.
    pub fn is_installed() -> bool {
        server_script().is_ok()
    }

    async fn launch(options: RabbitMqOptions) -> Result<Self> {
        let script = server_script()?;
        let mapper = programs::find("epmd", "erlang-base")?;
        let sandbox = match &options.sandbox {
            Some(sandbox) => sandbox.clone(),
            None => Sandbox::create("rabbitmq").await?,
        };
        let home = sandbox.folder().join("rabbitmq");
        make_folder(&home)?;
        let password =
            programs::read_or_make_secret(&home.join("password"), programs::random_word)?;
        let port = Port::claim()?;
        let mapper_port = Port::claim()?;
        let distribution_port = Port::claim()?;
        let management_port = if options.management { Some(Port::claim()?) } else { None };
        write_configuration(&home, &port, management_port.as_ref(), &password)?;

        let mapper_number = mapper_port.number().to_string();
        let port_mapper =
            Spec::new("epmd", mapper).args(["-address", "127.0.0.1", "-port", &mapper_number]);
        let node = Spec::new("rabbitmq", script)
            .env("HOME", &home)
            .env("RABBITMQ_NODENAME", "airfleet@localhost")
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", home.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", home.join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", home.join("pid"))
            .env("RABBITMQ_DIST_PORT", distribution_port.number().to_string())
            .env("ERL_EPMD_PORT", &mapper_number)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                // Two schedulers are plenty, and keep a small machine quiet.
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
            );
        let mapper_ready =
            Ready::Greets { port: mapper_port.number(), greeting: Vec::new(), answer: &[] };
        // Asked for protocol 0-9-1, a node begins the handshake: a frame of type
        // "method" on channel 0.
        let node_ready = Ready::Greets {
            port: port.number(),
            greeting: b"AMQP\x00\x00\x09\x01".to_vec(),
            answer: &[1, 0, 0],
        };
        let rabbitmq = Self {
            node: Service::new(sandbox.clone(), node, node_ready, STOP_GRACE),
            port_mapper: Service::new(sandbox, port_mapper, mapper_ready, STOP_GRACE),
            password,
            port,
            management_port,
            _claimed: [mapper_port, distribution_port],
        };
        rabbitmq.start().await?;
        Ok(rabbitmq)
    }

    /// The URL of virtual host `/`.
    pub fn url(&self) -> String {
        format!("amqp://{USER}:{}@127.0.0.1:{}/%2f", self.password, self.port())
    }

    /// The base URL of the management plugin's HTTP API, with user and
    /// password; `None` unless it was enabled.
    pub fn management_url(&self) -> Option<String> {
        let port = self.management_port.as_ref()?.number();
        Some(format!("http://{USER}:{}@127.0.0.1:{port}", self.password))
    }

    /// The TCP port on 127.0.0.1; the same for as long as this value lives.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The node's log file.
    pub fn log(&self) -> PathBuf {
        self.node.sandbox().folder().join("logs/rabbitmq.log")
    }

    /// Starts the node again, on the same port and data, and returns when it
    /// accepts connections. Nothing happens if it runs.
    pub async fn start(&self) -> Result<()> {
        self.port_mapper.start().await?;
        self.node.start().await
    }

    /// Stops the node in good order; durable queues and messages stay.
    pub async fn stop(&self) {
        self.node.stop().await;
    }

    /// Kills the node (SIGKILL).
    pub async fn kill(&self) {
        self.node.kill().await;
    }

    /// Whether the node's process lives.
    pub async fn is_running(&self) -> bool {
        self.node.is_running().await
    }
}

fn server_script() -> Result<PathBuf> {
    let debian = PathBuf::from(DEBIAN_SCRIPT);
    if debian.is_file() {
        return Ok(debian);
    }
    programs::find("rabbitmq-server", PACKAGE)
}

fn write_configuration(
    home: &Path,
    port: &Port,
    management: Option<&Port>,
    password: &str,
) -> Result<()> {
    let mut lines = vec![
        format!("listeners.tcp.default = 127.0.0.1:{}", port.number()),
        format!("default_user = {USER}"),
        format!("default_pass = {password}"),
        "log.console = true".to_owned(),
        "log.console.level = warning".to_owned(),
        "log.file = false".to_owned(),
    ];
    let mut plugins = "[].
";
    if let Some(port) = management {
        lines.push("management.tcp.ip = 127.0.0.1".to_owned());
        lines.push(format!("management.tcp.port = {}", port.number()));
        plugins = "[rabbitmq_management].
";
    }
    lines.push(String::new());
    programs::write_secret(
        &home.join("rabbitmq.conf"),
        &lines.join(
            "
",
        ),
    )?;
    let file = home.join("enabled_plugins");
    fs::write(&file, plugins).map_err(Error::file("write", &file))
}
