//! What every Airfleet service is wired with: configuration, telemetry, TLS, authentication, the
//! server on its port, errors as clients see them, time, and an orderly end.
//!
//! Nothing here is ambient: two nodes can live in one process. The one exception is the log
//! subscriber, which `main` installs.

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
