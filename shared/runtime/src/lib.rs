//! What every Airfleet service is wired with: configuration, telemetry, TLS, authentication, the
//! server on its port, errors as clients see them, time, and an orderly end.
//!
//! Nothing here is ambient: two nodes can live in one process. The one exception is the log
//! subscriber, which `main` installs.
//!
//! A service is wired like this:
//!
//! ```no_run
//! use airfleet_runtime::{config, lifecycle::Shutdown, node::Node, server, telemetry, tls};
//! # #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! # struct Config { server: config::ServerConfig, telemetry: config::TelemetryConfig }
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! tls::install_crypto_provider();
//! let config: Config = config::Loader::new().optional_file("router.toml").load()?.value;
//! let telemetry = telemetry::init(&config.telemetry, "airfleet-router")?;
//! let shutdown = Shutdown::new();
//! shutdown.on_signals()?;
//! let listener = server::bind(&config.server).await?;
//!
//! // What follows is the service's `run`, which tests call with a listener of their own.
//! let node = Node::new("router", shutdown);
//! let table = node.readiness.condition("table");
//! let stop = node.shutdown().clone();
//! node.tasks.spawn_critical("reconciler", async move {
//!     table.met();
//!     stop.triggered().await;
//!     Ok::<_, std::io::Error>(())
//! });
//! server::Server::new(&config.server, &node) // .descriptors(..).grpc(..)
//!     .serve(listener)?;
//! let stopped = node.tasks.clone().run_until_stopped(config.server.drain_deadline).await;
//! telemetry.flush().await;
//! # Ok(stopped?)
//! # }
//! ```

pub mod auth;
pub mod client;
pub mod clock;
pub mod config;
pub mod health;
pub mod lifecycle;
pub mod metrics;
pub mod node;
pub mod request;
pub mod server;
pub mod status;
pub mod telemetry;
pub mod tls;
