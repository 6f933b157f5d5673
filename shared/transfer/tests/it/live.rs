//! A whole move between two running Airflows, scheduler and all.

use std::{str::FromStr as _, time::Duration};

use airfleet_domain::{
    moves::{History, Part},
    roles::Role,
};
use airfleet_local::{AirflowShard, Component, Stack};
use airfleet_runtime::config::ConnectionUrl;
use airfleet_shard_agent::airflow::{
    fence::{
        self,
        gate::{self, Order, Place},
    },
    metadata::Metadata,
};
use airfleet_transfer::{Catalog, Database, Scope, cursor, drain, proof};
use sqlx::postgres::PgConnectOptions;
use tokio::time::{Instant, sleep};

use crate::ends::{End, copy, order, place, scope};

/// Generous: a busy machine is slow.
const LIMIT: Duration = Duration::from_mins(5);

/// Tasks that need no worker, so that schedulers do all there is to do. The one catches up by
/// itself; of the other a shard makes the latest run only.
const DAGS: &str = r#"
from datetime import timedelta
import pendulum
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.timetables.trigger import CronTriggerTimetable, DeltaTriggerTimetable

START = pendulum.from_timestamp(AT)
for name, schedule, catchup in (
    ("pay__minutely", CronTriggerTimetable("* * * * *", timezone="UTC"), False),
    ("pay__often", DeltaTriggerTimetable(timedelta(seconds=10)), True),
):
    with DAG(name, schedule=schedule, start_date=START, catchup=catchup, max_active_runs=50,
             is_paused_upon_creation=False) as dag:
        EmptyOperator(task_id="a") >> EmptyOperator(task_id="b")
    globals()[name] = dag
"#;

struct Shard {
    airflow: AirflowShard,
    end: End,
}

async fn boot(name: &str) -> Shard {
    let components = [Component::ApiServer, Component::Scheduler, Component::DagProcessor];
    let airflow = AirflowShard::builder(name).components(components).boot().await.unwrap();
    let url = airflow.metadata_url();
    let secret = ConnectionUrl::new(url.clone()).unwrap();
    let metadata = Metadata::new(&secret, Duration::from_mins(1)).unwrap();
    fence::install(&metadata, None).await.unwrap();
    let database = Database::new(PgConnectOptions::from_str(&url).unwrap());
    let name = url.rsplit('/').next().unwrap().to_owned();
    Shard { airflow, end: End { name, url, database, metadata } }
}

impl Shard {
    async fn query(&self, sql: &str) -> String {
        self.airflow.postgres().unwrap().query(&self.end.name, sql).await.unwrap()
    }

    async fn when(&self, what: &str, sql: &str) {
        let deadline = Instant::now() + LIMIT;
        while self.query(sql).await != "t" {
            assert!(
                Instant::now() < deadline,
                "not within {LIMIT:?} on {}: {what}",
                self.airflow.name()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn now_us(&self) -> i64 {
        let now = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)";
        self.query(now).await.parse().unwrap()
    }
}

async fn drained(end: &End, catalog: &Catalog, scope: &Scope) {
    let deadline = Instant::now() + LIMIT;
    let dead_us = 60_000_000;
    let mut first = drain::look(&end.database, catalog, scope).await.unwrap();
    loop {
        sleep(Duration::from_millis(100)).await;
        let look = drain::look(&end.database, catalog, scope).await.unwrap();
        if look.confirms(&first, dead_us) {
            return;
        }
        if !look.drain.is_idle() {
            first = look;
        }
        assert!(Instant::now() < deadline, "{look:?}");
    }
}

/// Takes about four minutes and two gigabytes.
#[tokio::test]
async fn a_move_between_two_running_airflows_loses_no_tick_and_doubles_none() {
    if Stack::installed() != Stack::Celery {
        eprintln!("passed over: PostgreSQL or Redis is not installed");
        return;
    }
    let (source, target) = tokio::join!(boot("shard-a"), boot("shard-b"));
    let scope = scope(&["pay__"]);
    source.end.be(&scope, Role::Active, 1).await;
    target.end.be(&scope, Role::Staged, 1).await;
    let begun = source.now_us().await;
    let dags = DAGS.replace("AT", &(begun / 1_000_000).to_string());
    for shard in [&source, &target] {
        std::fs::write(shard.airflow.dags_folder().join("pay.py"), &dags).unwrap();
    }
    let parsed = "SELECT count(*) = 2 FROM dag WHERE starts_with(dag_id, 'pay__') AND NOT is_stale";
    target.when("both DAGs parsed", parsed).await;
    source.when("runs of both DAGs", "SELECT count(*) FILTER (WHERE dag_id = 'pay__minutely') >= 1 \
        AND count(*) FILTER (WHERE dag_id = 'pay__often') >= 4 FROM dag_run WHERE state = 'success'").await;
    // While the source runs, the target gets the versions of its DAGs, in place of its own.
    copy(&source.end, &target.end, &scope, order(Part::Ahead, 1, 1), History::Full).await.unwrap();

    source.end.be(&scope, Role::Quiesced, 1).await;
    let stopped_at = source.now_us().await;
    let catalog = source.end.catalog().await;
    drained(&source.end, &catalog, &scope).await;
    let mut tx = source.end.metadata.begin().await.unwrap();
    let place_one = Place { generation: 1, revision: 1 };
    let sealed = Order {
        namespace: "pay",
        prefixes: scope.prefixes(),
        role: Role::Sealed,
        place: place_one,
    };
    gate::close(&mut tx, sealed).await.unwrap();
    drain::reset(tx.connection(), &catalog, &scope, place(1)).await.unwrap();
    let marks = cursor::marks(tx.connection(), &catalog, &scope).await.unwrap();
    tx.commit().await.unwrap();

    let (installed, _) =
        copy(&source.end, &target.end, &scope, order(Part::Rest, 1, 1), History::Full)
            .await
            .unwrap();
    assert_eq!(installed.marks, marks);
    // A minute passes in which nobody runs anything: one tick of the DAG that does not catch up, and a bit.
    let minute = 60_000_000;
    let due = (stopped_at / minute + 2) * minute;
    while target.now_us().await < due + 2_000_000 {
        sleep(Duration::from_millis(200)).await;
    }
    let catalog = target.end.catalog().await;
    let mut tx = target.end.metadata.begin().await.unwrap();
    let active = Order {
        namespace: "pay",
        prefixes: scope.prefixes(),
        role: Role::Active,
        place: Place { generation: 2, revision: 2 },
    };
    gate::open(&mut tx, active).await.unwrap();
    let now = target.now_us().await;
    let made = cursor::make_up(tx.connection(), &catalog, &scope, stopped_at, now).await.unwrap();
    tx.commit().await.unwrap();
    assert!(made.inserted.len() >= 2, "{made:?}");
    assert!(made.inserted.iter().all(|run| run.dag_id == "pay__minutely"), "{made:?}");
    assert_eq!(made.uncertain, [] as [&str; 0]);

    target
        .when(
            "runs after the move",
            &format!(
                "SELECT \
        (SELECT count(*) >= 1 FROM dag_run WHERE dag_id = 'pay__minutely' AND state = 'success' \
          AND logical_date > to_timestamp({now} / 1000000)) \
        AND (SELECT count(*) >= 3 FROM dag_run WHERE dag_id = 'pay__often' AND state = 'success' \
          AND logical_date > to_timestamp({now} / 1000000)) \
        AND NOT EXISTS (SELECT FROM dag_run WHERE logical_date < to_timestamp({now} / 1000000) \
          AND state <> 'success')"
            ),
        )
        .await;

    let (before, after) = (
        proof::read(&source.end.database, &catalog, &scope).await.unwrap(),
        proof::read(&target.end.database, &catalog, &scope).await.unwrap(),
    );
    for (dag_id, step) in [("pay__minutely", minute), ("pay__often", 10_000_000)] {
        let runs = &after[dag_id];
        // All of them lie at equal steps, from the first on the source to the last on the target.
        assert_eq!(runs.stretches.len(), 1, "{dag_id}: {runs:?}");
        assert_eq!(runs.stretches[0].step_us, step, "{dag_id}");
        assert_eq!(runs.stretches[0].from_us, before[dag_id].stretches[0].from_us, "{dag_id}");
        assert!(runs.count() > before[dag_id].count(), "{dag_id}");
    }
    let verdict = proof::compare(&before, &after, &after);
    assert_eq!(verdict, proof::Verdict::default());
    // Whoever had a task counted it once, and no parse made another version.
    let odd = "SELECT (SELECT count(*) FROM task_instance WHERE try_number > 1), \
        (SELECT count(*) FROM dag_version WHERE starts_with(dag_id, 'pay__') AND version_number > 1)";
    assert_eq!(target.query(odd).await, "0\t0");
}
