//! Removing what happened too long ago, by Airflow's own `db clean`.
//!
//! Airflow decides what hangs together and removes it in batches; here it is decided of which DAGs
//! and up to when. `db clean` keeps the newest automated run of a DAG, from which its schedule goes
//! on, but not that run's task instances; and it knows nothing of runs that have not ended. So each
//! DAG has a time of its own up to which it is cleaned: never beyond the start of its newest
//! automated run nor of a run that has not ended.

use std::{
    collections::BTreeMap, fmt::Write as _, process::Stdio, str::FromStr as _, sync::Arc,
    time::Duration,
};

use airfleet_domain::{ids::NamespaceName, manifest::Retention, roles::Role};
use airfleet_runtime::config::DurationText;
use jiff::{Timestamp, tz::TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{process::Command, task::JoinHandle, time::timeout};

use super::Shard;
use crate::{
    airflow::metadata::{Error, Metadata},
    link::Order,
};

/// Tables that are named to `db clean`; it adds what depends on them. Only such as have a dag_id:
/// others would be cleaned for the whole shard.
const TABLES: &str = "dag_run,log";

/// Most DAGs of one call.
const DAGS_MAX: usize = 200;

/// Most calls of one cleaning; what is left waits for the next.
const CALLS_MAX: usize = 50;

/// How old runs are removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// How Airflow is called beside the agent, such as `["airflow"]`, with the environment that the
    /// shard's Airflow has. Nothing is removed where it is empty.
    pub command: Vec<String>,
    /// Rows that are removed at once. Count.
    pub batch_size: u32,
    /// Time for one call.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub deadline: Duration,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { command: Vec::new(), batch_size: 5_000, deadline: Duration::from_hours(1) }
    }
}

/// Sees to it that one namespace is cleaned when its manifest says so.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    due: Option<(Retention, Timestamp)>,
    running: Option<JoinHandle<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Keeper {
    /// Begins a cleaning that is due. One that is under way ends where the namespace is no longer
    /// active: what it did until then stays done.
    pub(super) fn keep(
        &mut self,
        shard: &Arc<Shard>,
        name: &NamespaceName,
        order: &Order,
        is_at_rest: bool,
    ) {
        let is_active = order.effective().role == Role::Active;
        let Some(wanted) = order.workload.retention.as_ref().filter(|_| is_active) else {
            self.due = None;
            self.stop();
            return;
        };
        let now = Timestamp::now();
        let due = match &self.due {
            Some((retention, due)) if retention == wanted => *due,
            _ => {
                let Some(due) = next(name, wanted, now) else { return };
                self.due = Some((wanted.clone(), due));
                due
            }
        };
        let is_busy = self.running.as_ref().is_some_and(|task| !task.is_finished());
        if now < due || !is_at_rest || is_busy {
            return;
        }
        self.due = next(name, wanted, now).map(|due| (wanted.clone(), due));
        let (shard, name, prefixes) = (shard.clone(), name.clone(), order.prefixes.clone());
        let keep_days = wanted.keep_days;
        self.running = Some(tokio::spawn(async move {
            let told = clean(&shard, &prefixes, keep_days).await;
            let board = &shard.board;
            match told {
                Ok(Some(message)) => {
                    board.happened(name.as_str(), "RETENTION_DONE", message, false);
                }
                Ok(None) => {}
                Err(message) => board.happened(name.as_str(), "RETENTION_FAILED", message, true),
            }
        }));
    }

    fn stop(&mut self) {
        if let Some(task) = self.running.take() {
            task.abort();
        }
    }
}

/// When a namespace is cleaned next: by its schedule, else once a day at a minute of its own.
fn next(name: &NamespaceName, retention: &Retention, now: Timestamp) -> Option<Timestamp> {
    let schedule = if retention.schedule.is_empty() {
        let sum = name
            .as_str()
            .bytes()
            .fold(5381_u32, |sum, byte| sum.wrapping_mul(33).wrapping_add(u32::from(byte)));
        format!("{} {} * * *", sum % 60, sum / 60 % 24)
    } else {
        retention.schedule.clone()
    };
    let cron = croner::Cron::from_str(&schedule).ok()?;
    let at = cron.find_next_occurrence(&now.to_zoned(TimeZone::UTC), false).ok()?;
    Some(at.timestamp())
}

/// Cleans each DAG up to where it may be. Gives words for people, if anything was done.
async fn clean(
    shard: &Shard,
    prefixes: &[String],
    keep_days: i64,
) -> Result<Option<String>, String> {
    if shard.retention.command.is_empty() {
        return Err(
            "the manifest asks for retention, and the agent has no retention.command; set \
                    it to how Airflow is called, such as [\"airflow\"]"
                .to_owned(),
        );
    }
    let metadata = shard.metadata.as_ref().ok_or("the agent has no airflow.metadata_url")?;
    let limits = limits(metadata, prefixes, keep_days).await;
    let limits = limits.map_err(|error| crate::words::chain(&error))?;
    // One at a time on a shard: it is work for its database.
    let _permit = shard.retention_permit.acquire().await.map_err(|error| error.to_string())?;
    let mut calls = Vec::new();
    for (limit, dags) in limits {
        calls.extend(dags.chunks(DAGS_MAX).map(|dags| (limit.clone(), dags.to_vec())));
    }
    let (count, left) = (calls.len(), calls.len().saturating_sub(CALLS_MAX));
    let dags: usize = calls.iter().take(CALLS_MAX).map(|(_, dags)| dags.len()).sum();
    for (limit, dags) in calls.into_iter().take(CALLS_MAX) {
        call(&shard.retention, &limit, &dags, true).await?;
        call(&shard.retention, &limit, &dags, false).await?;
    }
    if count == 0 {
        return Ok(None);
    }
    let mut message = format!("runs of {dags} DAGs that began {keep_days} days ago were removed");
    if left > 0 {
        let _ = write!(message, "; {left} more calls wait for the next time");
    }
    Ok(Some(message))
}

/// Up to when which DAGs are cleaned. Those with nothing to remove are left out.
async fn limits(
    metadata: &Metadata,
    prefixes: &[String],
    keep_days: i64,
) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let mut tx = metadata.begin().await?;
    let rows: Vec<(String, String)> = tx
        .query_as(
            "WITH cut AS (SELECT now() - $2 * interval '1 day' AS at), \
             newest AS (SELECT DISTINCT ON (dag_id) dag_id, start_date FROM {schema}.dag_run \
               WHERE run_type <> 'manual' AND start_date IS NOT NULL ORDER BY dag_id, start_date DESC), \
             safe AS (SELECT d.dag_id, least(cut.at, n.start_date, (SELECT min(start_date) \
                 FROM {schema}.dag_run r WHERE r.dag_id = d.dag_id \
                 AND r.state IN ('queued', 'running'))) AS at \
               FROM cut, {schema}.dag d LEFT JOIN newest n USING (dag_id) \
               WHERE EXISTS (SELECT FROM unnest($1) p WHERE starts_with(d.dag_id, p))) \
             SELECT to_char(s.at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US+00:00'), s.dag_id \
             FROM safe s WHERE EXISTS (SELECT FROM {schema}.dag_run r \
               WHERE r.dag_id = s.dag_id AND r.start_date < s.at) ORDER BY 1, 2",
        )
        .bind(prefixes.to_vec())
        .bind(keep_days)
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of("look for runs that are too old"))?;
    tx.rollback().await;
    let mut limits: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (limit, dag_id) in rows {
        limits.entry(limit).or_default().push(dag_id);
    }
    Ok(limits)
}

async fn call(
    config: &RetentionConfig,
    limit: &str,
    dags: &[String],
    dry_run: bool,
) -> Result<(), String> {
    let (program, arguments) = config.command.split_first().ok_or("retention.command is empty")?;
    let batch = config.batch_size.max(1).to_string();
    let mut command = Command::new(program);
    command.args(arguments).args(["db", "clean", "--clean-before-timestamp", limit]);
    command.args(["--tables", TABLES, "--dag-ids", &dags.join(","), "--batch-size", &batch]);
    command.args(["--skip-archive", "--yes"]);
    if dry_run {
        command.arg("--dry-run");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let ran = timeout(config.deadline, command.output()).await;
    let what = format!("{program} db clean{}", if dry_run { " --dry-run" } else { "" });
    match ran {
        Err(_) => Err(format!("{what} took longer than {} s", config.deadline.as_secs())),
        Ok(Err(error)) => Err(format!("cannot run {what}: {error}")),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Err(format!("{what} failed ({}): {}", output.status, last.trim()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_has_a_minute_of_its_own_unless_told() {
        let now: Timestamp = "2026-03-01T12:34:56Z".parse().unwrap();
        let once_a_day = Retention { keep_days: 3, schedule: String::new() };
        let due = |name: &str| next(&name.parse().unwrap(), &once_a_day, now).unwrap();
        assert_eq!(due("pay"), due("pay"));
        assert_ne!(due("pay"), due("ads"));
        assert!(due("pay") > now && due("pay").duration_since(now).as_hours() < 24);
        let told = Retention { keep_days: 3, schedule: "0 4 * * *".to_owned() };
        let due = next(&"pay".parse().unwrap(), &told, now).unwrap();
        assert_eq!(due.to_string(), "2026-03-02T04:00:00Z");
    }
}
