//! A private Prometheus server.
//!
//! Listens on 127.0.0.1 only and scrapes what it is told to; its samples end
//! with it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::port::Port;
use crate::process::Spec;
use crate::programs;
use crate::sandbox::Sandbox;
use crate::service::{Ready, Service, http_client};

const PACKAGE: &str = "prometheus";
const STOP_GRACE: Duration = Duration::from_secs(10);

/// A private Prometheus server; ends, with its data, when dropped.
#[derive(Debug)]
pub struct Prometheus {
    service: Service,
    port: Port,
}

impl Prometheus {
    /// Starts a server with `configuration`, the text of a `prometheus.yml`, in
    /// a sandbox of its own, and returns when it is ready.
    pub async fn start_new(configuration: &str) -> Result<Self> {
        Self::start_in(&Sandbox::create("prometheus").await?, configuration).await
    }

    /// Starts a server with `configuration` in `sandbox`.
    pub async fn start_in(sandbox: &Sandbox, configuration: &str) -> Result<Self> {
        let program = programs::find("prometheus", PACKAGE)?;
        let folder = sandbox.folder().join("prometheus");
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        // It may hold the credentials of what is scraped.
        let file = folder.join("prometheus.yml");
        programs::write_secret(&file, configuration)?;
        let port = Port::claim()?;
        let spec = Spec::new("prometheus", program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .arg("--log.level=warn")
            .folder(&folder);
        let ready = Ready::Serves {
            client: http_client()?,
            url: format!("http://127.0.0.1:{}/-/ready", port.number()),
        };
        let service = Service::new(sandbox.clone(), spec, ready, STOP_GRACE);
        let prometheus = Self { service, port };
        prometheus.start().await?;
        Ok(prometheus)
    }

    /// Whether the server's program is installed.
    pub fn is_installed() -> bool {
        programs::find("prometheus", PACKAGE).is_ok()
    }

    /// Its base URL, without a slash at its end.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// The server's log file.
    pub fn log(&self) -> PathBuf {
        self.service.sandbox().folder().join("logs/prometheus.log")
    }

    /// Starts the server again, on the same port and data, and returns when it
    /// is ready. Nothing happens if it runs.
    pub async fn start(&self) -> Result<()> {
        self.service.start().await
    }

    /// Stops the server in good order.
    pub async fn stop(&self) {
        self.service.stop().await;
    }

    /// Kills the server (SIGKILL).
    pub async fn kill(&self) {
        self.service.kill().await;
    }

    /// Whether the server process lives.
    pub async fn is_running(&self) -> bool {
        self.service.is_running().await
    }
}
