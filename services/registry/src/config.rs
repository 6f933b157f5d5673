//! The registry's settings.

use std::time::Duration;

use airfleet_runtime::config::{
    ClientConfig, DurationText, ServerConfig, StoreConfig, TelemetryConfig,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Port that a registry listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7401;

/// Settings of a registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where and how it serves.
    pub server: ServerConfig,
    /// Where it keeps the manifest.
    pub store: StoreConfig,
    /// What it tells about itself.
    pub telemetry: TelemetryConfig,
    /// The routers, which are asked before something is deleted. Without endpoints nothing is
    /// deleted unless by force.
    pub router: ClientConfig,
    /// How watchers are served.
    pub watch: WatchConfig,
    /// How long things are kept.
    pub retention: RetentionConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: ServerConfig::on_port(DEFAULT_PORT),
            store: StoreConfig::sqlite("airfleet-registry.db"),
            telemetry: TelemetryConfig::default(),
            router: ClientConfig::default(),
            watch: WatchConfig::default(),
            retention: RetentionConfig::default(),
        }
    }
}

/// How watchers are served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// How often the store is asked for what other replicas wrote.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub poll_interval: Duration,
    /// How often a watcher is told that nothing changed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub progress_interval: Duration,
    /// Watchers that are further back than this many changes get the whole manifest anew.
    pub history: i64,
    /// Whole manifests that are sent at the same time. Each holds a connection of the store.
    pub max_snapshots: u32,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_millis(250),
            progress_interval: Duration::from_secs(5),
            history: 100_000,
            max_snapshots: 2,
        }
    }
}

/// How long things are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// How long a call with a request id may be repeated and is answered as the first time.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub requests: Duration,
    /// How long the audit keeps an event. The last `watch.history` events are always kept.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub audit: Duration,
    /// Most events that the audit keeps, whatever their age.
    pub audit_events: i64,
    /// How often what is past its time is removed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub interval: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            requests: Duration::from_hours(24),
            audit: Duration::from_hours(400 * 24),
            audit_events: 10_000_000,
            interval: Duration::from_mins(1),
        }
    }
}
