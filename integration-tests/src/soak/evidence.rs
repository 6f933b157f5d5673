//! What is known of a soak once it is over: runs of both shards, and what tasks left.

use std::{collections::BTreeMap, fs, sync::atomic::Ordering, time::Duration};

use anyhow::{Result, bail, ensure};
use jiff::Timestamp;

use super::{
    NAMESPACE, SHARDS, Soak,
    checker::{Effect, Evidence, Expected, Run},
};
use crate::eventually;

const MINUTE_US: i64 = 60_000_000;

/// Runs that wait at the end may take so long: of the long DAG there may be many, two at a time.
const END_LIMIT: Duration = Duration::from_mins(20);

impl Soak {
    /// What tasks did so far, and what both shards have, once everything that was due is finished.
    /// Users stop to ask.
    pub async fn finish(&mut self) -> Result<Evidence> {
        self.asking.store(false, Ordering::SeqCst);
        if let Some(user) = self.user.take() {
            user.await?;
        }
        let until_us = Timestamp::now().as_microsecond();
        let owner = self.owner().await?;
        // Ticks up to now are there as soon as a scheduler was awake since, and end some time later.
        let ended = format!(
            "SELECT count(*) FILTER (WHERE run_after > to_timestamp({until_us} / 1e6)) >= 1 \
             AND count(*) FILTER (WHERE run_after <= to_timestamp({until_us} / 1e6) \
               AND state NOT IN ('success', 'failed')) = 0 \
             FROM dag_run WHERE starts_with(dag_id, 'pay.')"
        );
        eventually(END_LIMIT, async || {
            self.keep_airflows().await?;
            let found = self.shard(owner).airflow.sql(&ended).await?;
            ensure!(found == "t", "runs do not end");
            anyhow::Ok(())
        })
        .await?;
        self.evidence(until_us).await
    }

    /// Everything that is known of runs that were due until then. Microseconds since 1970.
    pub async fn evidence(&self, until_us: i64) -> Result<Evidence> {
        let mut runs = BTreeMap::new();
        for (number, name) in SHARDS.iter().enumerate() {
            runs.insert((*name).to_owned(), self.runs(number, NAMESPACE).await?);
        }
        let effects = fs::read_to_string(&self.effects)?;
        Ok(Evidence {
            owner: SHARDS[self.owner().await?].to_owned(),
            runs,
            effects: effects.lines().map(Effect::parse).collect::<Result<_>>()?,
            dags: expected(),
            asked: self.asked.lock().expect("nobody panics").clone(),
            until_us,
        })
    }

    /// The same of the neighbour on a shard, whose tasks leave nothing.
    pub async fn neighbour(&self, number: usize, until_us: i64) -> Result<Evidence> {
        let name = ["near-a", "near-b"][number];
        let expected = Expected { step_us: Some(MINUTE_US), tasks: BTreeMap::new() };
        Ok(Evidence {
            owner: SHARDS[number].to_owned(),
            runs: BTreeMap::from([(SHARDS[number].to_owned(), self.runs(number, name).await?)]),
            dags: BTreeMap::from([(format!("{name}.minutely"), expected)]),
            until_us,
            ..Evidence::default()
        })
    }

    async fn runs(&self, number: usize, namespace: &str) -> Result<Vec<Run>> {
        let us = |column: &str| {
            format!("coalesce(CAST(extract(epoch FROM {column}) * 1000000 AS bigint), -1)")
        };
        let sql = format!(
            "SELECT dag_id, run_id, {}, {}, state FROM dag_run \
             WHERE starts_with(dag_id, '{namespace}.')",
            us("logical_date"),
            us("run_after")
        );
        let rows = self.shard(number).airflow.sql(&sql).await?;
        let row = |row: &str| {
            let fields: Vec<_> = row.split('\t').collect();
            let [dag_id, run_id, logical_us, after_us, state] = fields[..] else {
                bail!("not five columns: {row:?}");
            };
            Ok(Run {
                dag_id: dag_id.to_owned(),
                run_id: run_id.to_owned(),
                logical_us: Some(logical_us.parse()?).filter(|us| *us >= 0),
                after_us: after_us.parse()?,
                state: state.to_owned(),
            })
        };
        rows.lines().map(row).collect()
    }
}

/// What runs of the six kinds do.
fn expected() -> BTreeMap<String, Expected> {
    let dag = |name: &str, minutes: Option<i64>, tasks: &[(&str, usize)]| {
        let tasks = tasks.iter().map(|(task, count)| ((*task).to_owned(), *count)).collect();
        let step_us = minutes.map(|minutes| minutes * MINUTE_US);
        (format!("{NAMESPACE}.{name}"), Expected { step_us, tasks })
    };
    BTreeMap::from([
        dag("minutely", Some(1), &[("work", 1)]),
        dag("chained", Some(2), &[("first", 1), ("second", 1)]),
        dag("latest", Some(1), &[("work", 1)]),
        dag("mapped", Some(2), &[("numbers", 1), ("each", 3), ("flaky", 1)]),
        dag("manual", None, &[("work", 1)]),
        dag("long", None, &[("long", 1), ("after", 1)]),
    ])
}
