//! The agent's settings.

use std::{path::PathBuf, time::Duration};

use airfleet_domain::{
    health::Thresholds,
    ids::{Invalid, ShardName},
    resources::Resources,
};
use airfleet_runtime::config::{
    ClientConfig, ConnectionUrl, DurationText, Secret, ServerConfig, TelemetryConfig,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{delivery::DeliveryConfig, reconcile::RetentionConfig};

/// Port of the agent's own HTTP listener, unless told.
pub const DEFAULT_PORT: u16 = 7403;

/// Everything that an agent is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Name of the shard that the agent stands beside, as in the manifest.
    pub shard: String,
    /// Folder in which the agent remembers what the router last asked for, so that it can work
    /// while the router is away and refuses one that was replaced. Nothing is remembered over a
    /// restart where it is not set.
    pub state_dir: Option<PathBuf>,
    /// The routers to report to, and how to log in there.
    pub router: ClientConfig,
    /// The Airflow to look at.
    pub airflow: AirflowConfig,
    /// Its Celery broker, where it has one.
    pub broker: BrokerConfig,
    /// What is reported, and when.
    pub report: ReportConfig,
    /// DAG files: where they are delivered to.
    pub delivery: DeliveryConfig,
    /// Values of variables and connections that manifests name.
    pub secrets: SecretsConfig,
    /// Removing what happened too long ago.
    pub retention: RetentionConfig,
    /// From where on a signal is a reason for a worse verdict.
    pub thresholds: ThresholdsConfig,
    /// What the shard can take. Dimensions that are 0 are left to the manifest.
    pub capacity: CapacityConfig,
    /// The agent's own listener, for /metrics, /healthz and /readyz.
    pub server: ServerConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            shard: String::new(),
            state_dir: None,
            router: ClientConfig::default(),
            airflow: AirflowConfig::default(),
            broker: BrokerConfig::default(),
            report: ReportConfig::default(),
            delivery: DeliveryConfig::default(),
            secrets: SecretsConfig::default(),
            retention: RetentionConfig::default(),
            thresholds: ThresholdsConfig::default(),
            capacity: CapacityConfig::default(),
            server: ServerConfig::on_port(DEFAULT_PORT),
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl AgentConfig {
    /// The shard's name, if it is one.
    pub fn shard_name(&self) -> Result<ShardName, Invalid> {
        self.shard.parse()
    }
}

/// Where values of variables and connections come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsConfig {
    /// Folder of secret files: `<folder>/<namespace>/<file>`, where a manifest names the file. A
    /// variable's file holds its text, a connection's a URI or JSON.
    pub folder: Option<PathBuf>,
    /// Airflow's `core.fernet_key`, under which it keeps values in its database. Without one they
    /// are kept in the clear, as Airflow does without one.
    pub fernet_key: Option<Secret>,
}

/// Where an Airflow keeps its state and answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AirflowConfig {
    /// Metadata database: `postgres://user:password@host/airflow` or `sqlite:///path/airflow.db`.
    /// A role that may only read is enough. Airflow's own `sql_alchemy_conn` is understood.
    pub metadata_url: Option<ConnectionUrl>,
    /// Time for what is read for every report.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub metadata_timeout: Duration,
    /// Time for what is read now and then.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub sample_timeout: Duration,
    /// How often starts, failures, delays and parse times of the last hour are read.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub activity_interval: Duration,
    /// How often it is estimated what fills the metadata database.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub size_interval: Duration,
    /// Airflow's setting `min_file_process_interval`: how often a DAG file is parsed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub file_process_interval: Duration,
    /// URL of the web server, such as `https://airflow.example.net/base`.
    pub api_url: Option<String>,
    /// PEM file of the authority that signs the web server's certificate, beside the system's.
    pub api_ca: Option<PathBuf>,
    /// Time for an answer of the web server.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub api_timeout: Duration,
    /// User of the web server that may edit DAGs and their runs. Without one nothing can be
    /// triggered, cleared or paused through the router.
    pub api_username: String,
    /// Its password.
    pub api_password: Option<Secret>,
    /// Time for the web server to make a change that is asked for through the router. A move of the
    /// namespace begins no sooner than what was begun before it ends.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub change_timeout: Duration,
    /// `core.dags_folder` as Airflow has it, which must be the same on both ends of a move;
    /// `delivery.dags_folder` where it is not set.
    pub dags_folder: Option<String>,
    /// Class of Airflow's secrets backend; empty where there is none. Ends of a move with the same
    /// one need not have the same Fernet key.
    pub secrets_backend: String,
    /// Command that lists providers as `airflow providers list -o json` does, with its arguments, so
    /// that those of both ends of a move are compared. They are not where it is empty.
    pub providers_command: Vec<String>,
}

impl Default for AirflowConfig {
    fn default() -> Self {
        Self {
            metadata_url: None,
            metadata_timeout: Duration::from_secs(3),
            sample_timeout: Duration::from_secs(20),
            activity_interval: Duration::from_mins(1),
            size_interval: Duration::from_mins(5),
            file_process_interval: Duration::from_secs(30),
            api_url: None,
            api_ca: None,
            api_timeout: Duration::from_secs(3),
            api_username: String::new(),
            api_password: None,
            change_timeout: Duration::from_secs(10),
            dags_folder: None,
            secrets_backend: String::new(),
            providers_command: Vec::new(),
        }
    }
}

/// Where tasks wait for workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// Celery broker: `redis://…`, `rediss://…`, `amqp://…` or `amqps://…`. Without one, as with
    /// the LocalExecutor, the verdict leaves workers out.
    pub url: Option<ConnectionUrl>,
    /// Queues that the shard's workers take tasks from.
    pub queues: Vec<String>,
    /// Prefix of all keys in Redis: `global_keyprefix` of Celery's transport options.
    pub key_prefix: String,
    /// How long a worker counts as live after a heartbeat, and how long nothing must be heard
    /// until a shard counts as without workers.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub worker_window: Duration,
    /// Time to connect and for an answer.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub timeout: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            url: None,
            queues: vec!["default".to_owned()],
            key_prefix: String::new(),
            worker_window: Duration::from_mins(1),
            timeout: Duration::from_secs(3),
        }
    }
}

/// What is reported, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReportConfig {
    /// How often, until the router says otherwise.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub interval: Duration,
    /// `running_slots` is the peak of this time.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub peak_window: Duration,
}

impl Default for ReportConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), peak_window: Duration::from_hours(1) }
    }
}

/// From where on a signal is a reason for a worse verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ThresholdsConfig {
    /// Age of the youngest scheduler heartbeat from which the shard is unhealthy.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub scheduler_heartbeat_age: Duration,
    /// Age of the youngest DAG processor heartbeat from which the shard is degraded.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub dag_processor_heartbeat_age: Duration,
    /// Age of the youngest triggerer heartbeat from which the shard is degraded.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub triggerer_heartbeat_age: Duration,
    /// Time from scheduled to started, at the 95th percentile, from which it is degraded.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub scheduling_delay_p95: Duration,
    /// Lateness of a due run from which it is degraded.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub lateness_max: Duration,
    /// Count of DAG files that do not import from which it is degraded.
    pub import_errors: i64,
}

impl Default for ThresholdsConfig {
    fn default() -> Self {
        let limits = Thresholds::default();
        let duration = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        Self {
            scheduler_heartbeat_age: duration(limits.scheduler_heartbeat_age_ms),
            dag_processor_heartbeat_age: duration(limits.dag_processor_heartbeat_age_ms),
            triggerer_heartbeat_age: duration(limits.triggerer_heartbeat_age_ms),
            scheduling_delay_p95: duration(limits.scheduling_delay_p95_ms),
            lateness_max: duration(limits.lateness_max_ms),
            import_errors: limits.import_errors,
        }
    }
}

impl From<&ThresholdsConfig> for Thresholds {
    fn from(config: &ThresholdsConfig) -> Self {
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self {
            scheduler_heartbeat_age_ms: ms(config.scheduler_heartbeat_age),
            dag_processor_heartbeat_age_ms: ms(config.dag_processor_heartbeat_age),
            triggerer_heartbeat_age_ms: ms(config.triggerer_heartbeat_age),
            scheduling_delay_p95_ms: ms(config.scheduling_delay_p95),
            lateness_max_ms: ms(config.lateness_max),
            import_errors: config.import_errors,
        }
    }
}

/// What the shard can take; 0 where that is not stated here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CapacityConfig {
    /// DAGs. Count.
    pub dags: i64,
    /// Task instances started. Count an hour.
    pub task_starts_per_hour: i64,
    /// Pool slots running or queued at a time. Count.
    pub running_slots: i64,
    /// Metadata database. Bytes.
    pub metadata_bytes: i64,
    /// Time of the DAG processors. Milliseconds a minute.
    pub parse_ms_per_minute: i64,
}

impl CapacityConfig {
    /// As amounts; `None` where nothing is stated.
    pub fn resources(&self) -> Option<Resources> {
        let stated = Resources {
            dags: self.dags,
            task_starts_per_hour: self.task_starts_per_hour,
            running_slots: self.running_slots,
            metadata_bytes: self.metadata_bytes,
            parse_ms_per_minute: self.parse_ms_per_minute,
        };
        (!stated.is_zero()).then_some(stated)
    }
}

#[cfg(test)]
mod tests {
    use airfleet_runtime::config::Loader;

    use super::*;

    #[test]
    fn settings_come_from_the_environment_and_hide_passwords() {
        let loaded = Loader::without_env()
            .env([
                ("AIRFLEET__SHARD", "shard-a"),
                ("AIRFLEET__AIRFLOW__METADATA_URL", "postgres://u:hunter2@db/airflow"),
                ("AIRFLEET__BROKER__QUEUES", "default,gpu"),
                ("AIRFLEET__REPORT__INTERVAL", "7s"),
                ("AIRFLEET__CAPACITY__DAGS", "50"),
            ])
            .load::<AgentConfig>()
            .unwrap();
        let config = &loaded.value;
        assert_eq!(config.shard_name().unwrap().as_str(), "shard-a");
        assert_eq!(config.broker.queues, ["default", "gpu"]);
        assert_eq!(config.report.interval, Duration::from_secs(7));
        assert_eq!(config.capacity.resources().unwrap().dags, 50);
        assert!(!format!("{config:?}{}", loaded.render(true)).contains("hunter2"));
    }

    #[test]
    fn thresholds_are_those_of_the_domain_unless_told() {
        assert_eq!(Thresholds::from(&ThresholdsConfig::default()), Thresholds::default());
        assert_eq!(CapacityConfig::default().resources(), None);
        assert!(AgentConfig::default().shard_name().is_err());
    }
}
