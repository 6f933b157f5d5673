//! What the shard's Airflow found against the rules of namespaces: the files that the Python package
//! `airfleet-airflow` leaves below the DAGs folder.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use airfleet_delivery::HOME;
use airfleet_domain::manifest::Enforcement;
use airfleet_proto::{agent::v1 as wire, common::v1 as common};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use crate::report::timestamp;

/// Findings are read at most this often.
const FRESH: Duration = Duration::from_secs(3);

/// Most files that are read, and most bytes of one.
const FILES_MAX: usize = 5_000;
const FILE_BYTES_MAX: u64 = 1 << 17;

/// Most that are told of one namespace.
const TOLD_MAX: usize = 100;

/// What was found of one namespace.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The latest first; at most [`TOLD_MAX`].
    pub(super) violations: Vec<wire::PolicyViolation>,
    /// Altogether. Count.
    pub(super) count: i64,
}

type ByNamespace = Arc<HashMap<String, Arc<Found>>>;

/// The folder of findings.
#[derive(Debug)]
pub(super) struct Findings {
    folder: Option<PathBuf>,
    read: Mutex<Option<(Instant, ByNamespace)>>,
}

#[derive(Deserialize)]
struct Line {
    code: String,
    mode: Enforcement,
    namespace: String,
    dag_id: String,
    #[serde(default)]
    task_id: Option<String>,
    message: String,
    first_seen: Timestamp,
    last_seen: Timestamp,
    #[serde(default)]
    count: i64,
    #[serde(default)]
    omitted: i64,
}

impl Findings {
    pub(super) fn new(dags: Option<&Path>) -> Self {
        let folder = dags.map(|dags| dags.join(HOME).join("violations"));
        Self { folder, read: Mutex::new(None) }
    }

    /// What was found of a namespace. A folder that cannot be read says nothing.
    pub(super) async fn of(&self, namespace: &str) -> Arc<Found> {
        let Some(folder) = &self.folder else { return Arc::default() };
        let mut read = self.read.lock().await;
        let found = match &*read {
            Some((at, found)) if at.elapsed() < FRESH => found.clone(),
            _ => {
                let folder = folder.clone();
                let found = tokio::task::spawn_blocking(move || read_all(&folder)).await;
                let found = Arc::new(found.unwrap_or_default());
                *read = Some((Instant::now(), found.clone()));
                found
            }
        };
        found.get(namespace).cloned().unwrap_or_default()
    }
}

fn read_all(folder: &Path) -> HashMap<String, Arc<Found>> {
    let mut all: HashMap<String, Vec<Line>> = HashMap::new();
    let Ok(files) = std::fs::read_dir(folder) else { return HashMap::new() };
    let files = files.flatten().filter(|file| {
        file.path().extension().is_some_and(|extension| extension == "jsonl")
            && file.metadata().is_ok_and(|data| data.is_file() && data.len() <= FILE_BYTES_MAX)
    });
    for file in files.take(FILES_MAX) {
        let Ok(text) = std::fs::read_to_string(file.path()) else { continue };
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            all.entry(line.namespace.clone()).or_default().push(line);
        }
    }
    all.into_iter().map(|(namespace, lines)| (namespace, Arc::new(put_together(lines)))).collect()
}

fn put_together(mut lines: Vec<Line>) -> Found {
    let key = |line: &Line| (line.dag_id.clone(), line.code.clone(), line.task_id.clone());
    lines.sort_by(|a, b| b.first_seen.cmp(&a.first_seen).then_with(|| key(a).cmp(&key(b))));
    // Each line of a file says how many there were beyond those in it.
    let mut omitted: HashMap<&str, i64> = HashMap::new();
    for line in &lines {
        omitted.insert(&line.dag_id, line.omitted);
    }
    let count = lines.len() as i64 + omitted.values().sum::<i64>();
    let violation = |line: Line| wire::PolicyViolation {
        code: line.code,
        mode: common::Enforcement::from(line.mode).into(),
        dag_id: line.dag_id,
        task_id: line.task_id.unwrap_or_default(),
        message: line.message,
        first_time: Some(timestamp(line.first_seen)),
        last_time: Some(timestamp(line.last_seen)),
        count: line.count,
    };
    Found { count, violations: lines.into_iter().take(TOLD_MAX).map(violation).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_broken_is_passed_over() {
        let dags = tempfile::tempdir().unwrap();
        let folder = dags.path().join(HOME).join("violations");
        std::fs::create_dir_all(&folder).unwrap();
        let line = |dag: &str, omitted: i64| {
            format!(
                r#"{{"code":"AF101","mode":"enforce","action":"refused","namespace":"pay",
                "dag_id":"{dag}","task_id":null,"message":"m","file":"pay/a.py",
                "manifest_revision":3,"first_seen":"2026-01-01T00:00:00Z",
                "last_seen":"2026-01-02T00:00:00Z","count":4,"omitted":{omitted}}}"#
            )
            .replace('\n', "")
        };
        std::fs::write(folder.join("a.jsonl"), line("x", 0) + "\n{\nnull\n").unwrap();
        std::fs::write(folder.join("b.jsonl"), line("y", 7)).unwrap();
        std::fs::write(folder.join("c.txt"), line("z", 0)).unwrap();
        std::fs::create_dir(folder.join("d.jsonl")).unwrap();
        let findings = Findings::new(Some(dags.path()));
        let found = findings.of("pay").await;
        let dags: Vec<_> = found.violations.iter().map(|one| one.dag_id.as_str()).collect();
        assert_eq!((dags, found.count), (vec!["x", "y"], 9));
        assert_eq!(findings.of("ads").await.count, 0);
        assert_eq!(Findings::new(None).of("pay").await.count, 0);
    }
}
