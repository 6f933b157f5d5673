//! A private Redis server, as a broker for Celery.
//!
//! Listens on 127.0.0.1 only, asks for a password, and writes its data on an
//! orderly stop: [`Redis::stop`] keeps it, [`Redis::kill`] loses what came since.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::port::Port;
use crate::process::Spec;
use crate::programs;
use crate::sandbox::Sandbox;
use crate::service::{Ready, Service};

const PACKAGE: &str = "redis-server";
const STOP_GRACE: Duration = Duration::from_secs(10);

/// A private Redis server; ends, with its data, when dropped.
#[derive(Debug)]
pub struct Redis {
    service: Service,
    password: String,
    port: Port,
}

impl Redis {
    /// Starts a server in a sandbox of its own.
    pub async fn start_new() -> Result<Self> {
        Self::start_in(&Sandbox::create("redis").await?).await
    }

    /// Starts a server in `sandbox`, continuing with the data that is there.
    pub async fn start_in(sandbox: &Sandbox) -> Result<Self> {
        let program = programs::find("redis-server", PACKAGE)?;
        let folder = sandbox.folder().join("redis");
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        let port = Port::claim()?;
        let password = programs::random_word();
        let configuration = folder.join("redis.conf");
        // In a file: the arguments of a process are for all to see.
        programs::write_secret(
            &configuration,
            &format!(
                "bind 127.0.0.1\nport {}\nrequirepass {password}\ndir {}\n\
                 save 3600 1\nappendonly no\ndaemonize no\n",
                port.number(),
                folder.display()
            ),
        )?;
        let ready = Ready::Greets {
            port: port.number(),
            greeting: format!("AUTH {password}\r\nPING\r\n").into_bytes(),
            answer: b"+OK\r\n+PONG",
        };
        let spec = Spec::new("redis", program).arg(&configuration);
        let service = Service::new(sandbox.clone(), spec, ready, STOP_GRACE);
        let redis = Self { service, password, port };
        redis.start().await?;
        Ok(redis)
    }

    /// Whether the server's program is installed.
    pub fn is_installed() -> bool {
        programs::find("redis-server", PACKAGE).is_ok()
    }

    /// The URL of database 0.
    pub fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}/0", self.password, self.port())
    }

    /// The TCP port on 127.0.0.1; the same for as long as this value lives.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The server's log file.
    pub fn log(&self) -> PathBuf {
        self.service.sandbox().folder().join("logs/redis.log")
    }

    /// Starts the server again, on the same port and data, and returns when it
    /// answers. Nothing happens if it runs.
    pub async fn start(&self) -> Result<()> {
        self.service.start().await
    }

    /// Stops the server in good order; its data is written first.
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
