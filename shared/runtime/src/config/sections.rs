//! The sections that every service has.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{ConnectionUrl, Secret};

/// The schema of a duration that is written as text: `#[schemars(with = "DurationText")]` beside
/// `#[serde(with = "humantime_serde")]`.
#[derive(Debug)]
pub struct DurationText;

impl JsonSchema for DurationText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration" })
    }
}

/// Where and how a node serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address to listen on. Anything but loopback needs TLS and authentication, or `insecure`.
    pub listen: SocketAddr,
    /// Address under which others reach this node, as host:port. Default: the listen address.
    pub advertise: Option<String>,
    /// Listen beyond loopback although traffic is not encrypted or callers are not known.
    pub insecure: bool,
    /// TOML file of bearer tokens. It is read again when it changes.
    pub tokens_file: Option<PathBuf>,
    /// Serve /metrics without authentication.
    pub public_metrics: bool,
    /// Certificates.
    pub tls: TlsConfig,
    /// Limits.
    pub limits: Limits,
    /// How long requests may go on after the node was asked to stop.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub drain_deadline: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self::on_port(0)
    }
}

impl ServerConfig {
    /// Listens on a port of the loopback interface.
    pub fn on_port(port: u16) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], port)),
            advertise: None,
            insecure: false,
            tokens_file: None,
            public_metrics: false,
            tls: TlsConfig::default(),
            limits: Limits::default(),
            drain_deadline: Duration::from_secs(20),
        }
    }

    /// Whether callers must say who they are.
    pub fn authenticates(&self) -> bool {
        self.tokens_file.is_some() || self.tls.client_ca.is_some()
    }

    /// Whether traffic is encrypted.
    pub fn encrypts(&self) -> bool {
        self.tls.cert.is_some()
    }

    /// Refuses settings that contradict each other, or that would open the node to strangers on
    /// the address `bound` that it really listens on.
    pub fn check(&self, bound: SocketAddr) -> Result<(), Exposure> {
        match (&self.tls.cert, &self.tls.key, &self.tls.client_ca) {
            (Some(_), None, _) | (None, Some(_), _) => return Err(Exposure::HalfACertificate),
            (None, None, Some(_)) => return Err(Exposure::ClientsWithoutTls),
            _ => {}
        }
        if bound.ip().is_loopback() || self.insecure {
            return Ok(());
        }
        let (encrypts, authenticates) = (self.encrypts(), self.authenticates());
        if encrypts && authenticates {
            return Ok(());
        }
        Err(Exposure::OpenToStrangers { bound, encrypts, authenticates })
    }
}

/// Why a node does not serve with the settings it has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exposure {
    /// A certificate without its key or the other way round.
    #[error("server.tls.cert and server.tls.key belong together; set both or none")]
    HalfACertificate,
    /// Client certificates cannot be asked for without TLS.
    #[error("server.tls.client_ca needs server.tls.cert and server.tls.key")]
    ClientsWithoutTls,
    /// It would be reachable from elsewhere without protection.
    #[error(
        "refusing to listen on {bound}: that is not loopback and {}; {}, or server.insecure = true \
         (--insecure) if the network protects it",
        missing(*encrypts, *authenticates),
        remedy(*encrypts, *authenticates)
    )]
    OpenToStrangers {
        /// The address.
        bound: SocketAddr,
        /// Whether traffic is encrypted.
        encrypts: bool,
        /// Whether callers must say who they are.
        authenticates: bool,
    },
}

fn missing(encrypts: bool, authenticates: bool) -> &'static str {
    match (encrypts, authenticates) {
        (false, false) => "neither TLS nor authentication is configured",
        (false, true) => "TLS is not configured",
        _ => "authentication is not configured",
    }
}

fn remedy(encrypts: bool, authenticates: bool) -> &'static str {
    match (encrypts, authenticates) {
        (false, false) => {
            "set server.tls.cert and server.tls.key, and server.tokens_file or server.tls.client_ca"
        }
        (false, true) => "set server.tls.cert and server.tls.key",
        _ => "set server.tokens_file or server.tls.client_ca",
    }
}

/// Certificates of a server, as PEM files. They are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain of this node.
    pub cert: Option<PathBuf>,
    /// Private key of the certificate.
    pub key: Option<PathBuf>,
    /// Authority that signs client certificates. With it, clients need a certificate; where
    /// `tokens_file` is set too, a certificate or a token.
    pub client_ca: Option<PathBuf>,
}

/// What a node takes at once. Beyond it, callers get RESOURCE_EXHAUSTED or are not accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest message of a request, in bytes.
    pub max_message_bytes: usize,
    /// Connections.
    pub max_connections: usize,
    /// Connections that have not finished their TLS handshake or sent their first request line.
    pub max_handshakes: usize,
    /// Requests and streams at once on one connection.
    pub concurrency_per_connection: u32,
    /// Requests at work, other than streams.
    pub max_in_flight: usize,
    /// Streams open, such as watches and agents.
    pub max_streams: usize,
    /// Requests a second of one principal; 0 for any number.
    pub requests_per_second: u32,
    /// Time for a new connection to finish its TLS handshake and send its first request line.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub handshake_timeout: Duration,
    /// Connections without requests are closed after this time.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub idle_timeout: Duration,
    /// How long a connection may be quiet before the kernel probes its peer.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub keepalive_interval: Duration,
    /// A connection whose peer does not answer probes for this time is closed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub keepalive_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // What tonic and grpc-core decode unless told otherwise.
            max_message_bytes: 4 * 1024 * 1024,
            max_connections: 10_000,
            max_handshakes: 512,
            concurrency_per_connection: 2048,
            max_in_flight: 4096,
            max_streams: 20_000,
            requests_per_second: 0,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_mins(15),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

/// What a node tells about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written: directives such as `info,airfleet_router=debug`.
    pub filter: String,
    /// gRPC endpoint of an OpenTelemetry collector that takes traces, such as
    /// `http://127.0.0.1:4317`. Traces are off where it is not set.
    pub otlp_endpoint: Option<String>,
    /// Share of requests that are traced, from 0 to 1, where the caller did not decide.
    pub trace_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::default(),
            filter: "info".to_owned(),
            otlp_endpoint: None,
            trace_ratio: 1.0,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Where a service keeps what it must not forget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Database: `sqlite:<file>` or `postgres://user:password@host/database`.
    pub url: ConnectionUrl,
    /// Connections to it.
    pub max_connections: u32,
    /// Time to wait for a free connection.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub acquire_timeout: Duration,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self::sqlite("airfleet.db")
    }
}

impl StoreConfig {
    /// A SQLite file.
    pub fn sqlite(file: &str) -> Self {
        Self {
            url: ConnectionUrl::new(format!("sqlite:{file}"))
                .expect("sqlite is a scheme, and any text may follow it"),
            max_connections: 8,
            acquire_timeout: Duration::from_secs(5),
        }
    }
}

/// How a service is reached by those who call it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// URLs of its replicas, such as `https://registry-0:7401`.
    pub endpoints: Vec<String>,
    /// PEM file of the authority that signs its certificates. Default: the system's authorities.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate to show to it.
    pub cert: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    pub key: Option<PathBuf>,
    /// Bearer token. Prefer `token_file`.
    pub token: Option<Secret>,
    /// File that holds the bearer token and nothing else.
    pub token_file: Option<PathBuf>,
    /// Time to connect.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub connect_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            ca: None,
            cert: None,
            key: None,
            token: None,
            token_file: None,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

impl ClientConfig {
    /// Reaches one address without TLS.
    pub fn plain(endpoint: impl Into<String>) -> Self {
        Self { endpoints: vec![endpoint.into()], ..Self::default() }
    }
}
