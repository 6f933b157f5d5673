//! How DAG files are delivered here: settings and what is counted. The work is
//! `airfleet_delivery`'s.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use airfleet_delivery::{Error, Limits, Roller, Settings, Synced};
use airfleet_runtime::{
    config::{DurationText, Secret},
    metrics::Metrics,
};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Buckets for the time that a sync takes. Seconds.
const SYNC_BUCKETS: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];

/// Where DAG files are delivered to, and from where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveryConfig {
    /// The folder that Airflow reads (`core.dags_folder`). Nothing is delivered where it is not
    /// set.
    pub dags_folder: Option<PathBuf>,
    /// How often a source is asked whether it changed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub interval: Duration,
    /// Releases that are kept of a namespace, with the one that runs. Count.
    pub keep: usize,
    /// Namespaces that are worked on at once. Count.
    pub namespaces_at_once: usize,
    /// Files that are fetched at once from an object store, for one namespace. Count.
    pub fetches_at_once: usize,
    /// Time for one sync.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub deadline: Duration,
    /// Files that a namespace may have. Count.
    pub max_files: usize,
    /// Size of all files of a namespace. Bytes.
    pub max_bytes: u64,
    /// Size of one file. Bytes.
    pub max_file_bytes: u64,
    /// What stays free on the disk whatever is to be delivered. Bytes.
    pub free_bytes: u64,
    /// Folders of this machine below which a source (a folder, or git+file) may lie. None unless
    /// told: whoever writes the manifest can have every file below them delivered.
    pub source_folders: Vec<PathBuf>,
    /// Options of object stores, such as `endpoint` and `region`, by scheme (`s3`, `gs`, `az`) or
    /// bucket (`"s3://dags"`). They win over the providers' own variables (`AWS_…`, `GOOGLE_…`,
    /// `AZURE_…`), which are read as well.
    pub stores: BTreeMap<String, BTreeMap<String, Secret>>,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            dags_folder: None,
            interval: Duration::from_secs(10),
            keep: settings.keep,
            namespaces_at_once: settings.namespaces_at_once,
            fetches_at_once: settings.fetches_at_once,
            deadline: settings.deadline,
            max_files: settings.limits.files,
            max_bytes: settings.limits.bytes,
            max_file_bytes: settings.limits.file_bytes,
            free_bytes: settings.limits.free_bytes,
            source_folders: Vec::new(),
            stores: BTreeMap::new(),
        }
    }
}

impl DeliveryConfig {
    /// What delivers into the DAGs folder; `None` where there is none.
    pub fn roller(&self) -> Option<Roller> {
        let folder = self.dags_folder.clone()?;
        Some(Roller::new(folder, self.settings()))
    }

    /// The settings of the crate that delivers.
    pub fn settings(&self) -> Settings {
        let exposed = |options: &BTreeMap<String, Secret>| {
            options.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
        };
        let stores = self.stores.iter().map(|(store, options)| (store.clone(), exposed(options)));
        Settings {
            limits: Limits {
                files: self.max_files,
                bytes: self.max_bytes,
                file_bytes: self.max_file_bytes,
                free_bytes: self.free_bytes,
            },
            keep: self.keep,
            namespaces_at_once: self.namespaces_at_once,
            fetches_at_once: self.fetches_at_once,
            deadline: self.deadline,
            source_folders: Some(self.source_folders.clone()),
            stores: stores.collect(),
            ..Settings::default()
        }
    }
}

/// What is counted of deliveries. Clones share it.
#[derive(Clone, Debug)]
pub struct DeliveryMetrics {
    syncs: IntCounterVec,
    seconds: Histogram,
    fetched_bytes: IntCounter,
    repaired: IntCounter,
    /// Namespaces whose last sync failed.
    pub behind: IntGauge,
}

impl DeliveryMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            syncs: metrics.counters(
                "delivery_syncs_total",
                "Syncs of a namespace's DAG files: switched, unchanged, held, or why it failed.",
                &["result"],
            ),
            seconds: metrics.histogram(
                "delivery_sync_seconds",
                "Time that a sync of a namespace's DAG files took.",
                SYNC_BUCKETS,
            ),
            fetched_bytes: metrics
                .counter("delivery_fetched_bytes_total", "Bytes read from sources of DAG files."),
            repaired: metrics.counter(
                "delivery_repaired_files_total",
                "Delivered files that somebody had changed and that were put right.",
            ),
            behind: metrics.gauge(
                "delivery_namespaces_behind",
                "Namespaces whose DAG files could not be brought to their source by the last sync.",
            ),
        }
    }

    /// Counts a sync.
    pub fn synced(&self, result: &Result<Synced, Error>, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        let label = match result {
            Ok(synced) if synced.held => "held",
            Ok(synced) if synced.switched => "switched",
            Ok(_) => "unchanged",
            Err(error) => error.code().as_str(),
        };
        self.syncs.with_label_values(&[label]).inc();
        if let Ok(synced) = result {
            self.fetched_bytes.inc_by(synced.fetched_bytes);
            self.repaired.inc_by(synced.repaired as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use airfleet_runtime::config::Loader;

    use super::*;
    use crate::AgentConfig;

    #[test]
    fn stores_are_told_in_the_settings_and_their_keys_are_hidden() {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        let text = "[delivery]\ndags_folder = '/srv/dags'\n[delivery.stores.\"s3://dags\"]\n\
                    endpoint = 'http://minio:9000'\nsecret_access_key = 'hunter2'\n";
        std::fs::write(file.path(), text).unwrap();
        let loaded = Loader::without_env().file(file.path()).load::<AgentConfig>().unwrap();
        let settings = loaded.value.delivery.settings();
        assert_eq!(settings.stores["s3://dags"]["secret_access_key"], "hunter2");
        let shown = format!("{:?}{settings:?}{}", loaded.value, loaded.render(true));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(loaded.value.delivery.roller().is_some());
        assert!(DeliveryConfig::default().roller().is_none());
    }

    #[test]
    fn nothing_of_this_machine_is_delivered_unless_it_is_told() {
        assert_eq!(DeliveryConfig::default().settings().source_folders, Some(Vec::new()));
    }
}
