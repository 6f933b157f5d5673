//! Real metadata databases with known rows.

use std::{collections::BTreeMap, path::Path};

use airfleet_local::{AirflowShard, AirflowVersion, Postgres, Stack};
use airfleet_proto::{
    agent::v1::{DesiredRole, DesiredRoles, NamespaceReport},
    common::v1::Resources,
};
use airfleet_shard_agent::{AgentConfig, airflow::Reader};
use tokio::time::Duration;

use crate::{LIMIT, RunningAgent, scripted::ScriptedRouter, url};

pub(crate) async fn database(version: AirflowVersion) -> AirflowShard {
    AirflowShard::builder("shard-a").version(version).database_only().boot().await.unwrap()
}

/// Runs a file of SQL in the shard's metadata database.
pub(crate) async fn fill(shard: &AirflowShard, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql").join(file);
    let sql = std::fs::read_to_string(path).unwrap();
    query(shard, &sql).await;
}

pub(crate) async fn query(shard: &AirflowShard, sql: &str) -> String {
    let url = shard.metadata_url();
    let database = url.rsplit('/').next().unwrap();
    shard.postgres().unwrap().query(database, sql).await.unwrap()
}

pub(crate) fn agent_of(shard: &AirflowShard, router: &ScriptedRouter) -> AgentConfig {
    let mut config = router.agent();
    config.airflow.metadata_url = Some(url(shard.metadata_url()));
    config
}

/// Three namespaces, one with two prefixes, one that no DAG belongs to.
fn namespaces() -> DesiredRoles {
    let role = |namespace: &str, prefixes: &[&str]| DesiredRole {
        namespace: namespace.to_owned(),
        prefixes: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(),
        role: 3,
        generation: 1,
        ..DesiredRole::default()
    };
    DesiredRoles {
        term: 1,
        sequence: 1,
        full: true,
        roles: vec![
            role("pay", &["pay__", "payroll."]),
            role("ads", &["ads."]),
            role("umlaut", &["über_"]),
            role("idle", &["idle__"]),
        ],
        ..DesiredRoles::default()
    }
}

fn seen(
    namespace: &str,
    usage: [i64; 5],
    [unpaused_dags, active_runs, active_task_instances]: [i64; 3],
) -> NamespaceReport {
    NamespaceReport {
        namespace: namespace.to_owned(),
        usage: Some(resources(usage)),
        unpaused_dags,
        active_runs,
        active_task_instances,
    }
}

fn resources(values: [i64; 5]) -> Resources {
    airfleet_domain::resources::Resources::from_values(values).into()
}

/// Bytes of each prefix, found another way: in SQL, table by table.
async fn bytes_by_prefix(shard: &AirflowShard, tables: &[&str]) -> BTreeMap<String, i64> {
    let shares: Vec<_> = tables
        .iter()
        .map(|table| {
            format!(
                "SELECT dag_id, pg_total_relation_size('{table}') * count(*) / \
                 (SELECT greatest(count(*), 1) FROM {table}) AS bytes FROM {table} \
                 WHERE dag_id IS NOT NULL GROUP BY dag_id"
            )
        })
        .collect();
    let sql = format!(
        "SELECT substring(dag_id from '^(pay__|ads\\.|über_)') AS prefix, sum(bytes) \
         FROM ({}) AS s WHERE dag_id ~ '^(pay__|ads\\.|über_)' GROUP BY 1",
        shares.join(" UNION ALL ")
    );
    let rows = query(shard, &sql).await;
    rows.lines()
        .map(|row| {
            let (prefix, bytes) = row.split_once('\t').unwrap();
            (prefix.to_owned(), bytes.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn airflow_3_is_counted_exactly() {
    let shard = database(AirflowVersion::V3_3_2).await;
    fill(&shard, "small-3.3.sql").await;
    let tables = [
        "task_instance",
        "task_instance_history",
        "dag_run",
        "xcom",
        "log",
        "rendered_task_instance_fields",
        "serialized_dag",
        "dag_code",
    ];
    let bytes = bytes_by_prefix(&shard, &tables).await;
    let router = ScriptedRouter::start().await;
    router.tell(namespaces());
    let agent = RunningAgent::start(agent_of(&shard, &router));
    let namespaces = [
        seen("ads", [3, 1, 0, bytes["ads."], 200], [3, 1, 2]),
        seen("idle", [0; 5], [0; 3]),
        // Paused is not unpaused, stale is not there, and what still runs of it counts.
        seen("pay", [2, 3, 6, bytes["pay__"], 3_000], [1, 3, 4]),
        seen("umlaut", [1, 0, 4, bytes["über_"], 0], [1, 1, 1]),
    ];
    let report = router
        .when("a report with all samples", |report| {
            report.namespaces == namespaces
                && report
                    .usage
                    .is_some_and(|usage| usage.metadata_bytes > 0 && usage.parse_ms_per_minute > 0)
        })
        .await;
    let usage = report.usage.unwrap();
    assert_eq!((usage.dags, usage.task_starts_per_hour), (8, 5));
    assert_eq!((usage.running_slots, usage.parse_ms_per_minute), (10, 3_600));
    // The agent's own tables come and grow meanwhile.
    let total = |own: &str| {
        format!(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' \
             AND relnamespace = 'public'::regnamespace {own}"
        )
    };
    let most: i64 = query(&shard, &total("")).await.trim().parse().unwrap();
    let least = query(&shard, &total("AND relname NOT LIKE 'airfleet%'")).await;
    let least: i64 = least.trim().parse().unwrap();
    assert!((least..=most).contains(&usage.metadata_bytes), "{least} {usage:?} {most}");
    assert!(usage.metadata_bytes > bytes.values().sum());
    assert_eq!(report.unowned_dags, 2);
    assert_eq!(report.schema_revision, "d2f4e1b3c5a7");

    let signals = report.signals.unwrap();
    let within = |value: i64, from: i64| (from..from + LIMIT.as_millis() as i64).contains(&value);
    assert!(within(signals.scheduler_heartbeat_age_ms, 4_000), "{signals:?}");
    assert!(within(signals.dag_processor_heartbeat_age_ms, 6_000), "{signals:?}");
    assert_eq!(signals.triggerer_heartbeat_age_ms, -1);
    assert_eq!(signals.scheduling_delay_p95_ms, 300_000);
    assert_eq!((signals.late_dags, signals.import_errors), (1, 2));
    assert!(within(signals.lateness_max_ms, 600_000), "{signals:?}");
    assert!(within(signals.oldest_waiting_ms, 420_000), "{signals:?}");
    assert_eq!(signals.failures_last_hour, 2);
    assert_eq!((signals.occupied_slots, signals.pool_slots), (10, 128 + 7));
    assert!(signals.metadata_probe_ms > 0);
    assert_eq!((signals.broker_probe_ms, signals.queued_messages), (-1, -1));

    let codes: Vec<_> =
        report.health.unwrap().reasons.into_iter().map(|reason| reason.code).collect();
    assert_eq!(codes, ["DAGS_LATE", "IMPORT_ERRORS"]);
    agent.stop().await;
}

#[tokio::test]
async fn airflow_2_is_counted_exactly() {
    let shard = database(AirflowVersion::V2_11_2).await;
    fill(&shard, "small-2.11.sql").await;
    let tables = [
        "task_instance",
        "task_instance_history",
        "dag_run",
        "xcom",
        "log",
        "rendered_task_instance_fields",
        "serialized_dag",
    ];
    let bytes = bytes_by_prefix(&shard, &tables).await;
    let router = ScriptedRouter::start().await;
    router.tell(namespaces());
    let agent = RunningAgent::start(agent_of(&shard, &router));
    let namespaces = [
        seen("ads", [2, 0, 5, bytes["ads."], 0], [2, 1, 1]),
        seen("idle", [0; 5], [0; 3]),
        seen("pay", [2, 2, 3, bytes["pay__"], 0], [1, 2, 3]),
        seen("umlaut", [0; 5], [0; 3]),
    ];
    let report = router
        .when("a report with all samples", |report| {
            report.namespaces == namespaces
                && report
                    .usage
                    .is_some_and(|usage| usage.metadata_bytes > 0 && usage.task_starts_per_hour > 0)
        })
        .await;
    assert_eq!(report.unowned_dags, 1);
    assert_eq!(report.schema_revision, "5f2621c13b39");
    let signals = report.signals.unwrap();
    // The scheduler parses, and a triggerer that ended is none.
    assert_eq!(signals.dag_processor_heartbeat_age_ms, signals.scheduler_heartbeat_age_ms);
    assert_eq!(signals.triggerer_heartbeat_age_ms, -1);
    assert_eq!(signals.scheduling_delay_p95_ms, 240_000);
    assert_eq!((signals.late_dags, signals.import_errors, signals.failures_last_hour), (1, 1, 1));
    // A pool without limit: there is no sum.
    assert_eq!((signals.occupied_slots, signals.pool_slots), (8, -1));
    agent.stop().await;
}

#[tokio::test]
async fn airflow_3_on_sqlite_is_read_too() {
    let shard =
        AirflowShard::builder("shard-a").stack(Stack::Sqlite).database_only().boot().await.unwrap();
    let file = shard.metadata_url();
    let python = r#"
import datetime, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
ago = lambda **d: (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**d)).strftime("%Y-%m-%d %H:%M:%S.%f")
db.execute("insert into dag_bundle (name, active) values ('b', 1)")
for dag, paused, stale, due in [("pay__a", 0, 0, ago(minutes=10)), ("pay__b", 1, 0, None), ("other", 0, 1, None)]:
    db.execute("insert into dag (dag_id, is_paused, is_stale, next_dagrun_create_after, exceeds_max_non_backfill, has_import_errors, last_parse_duration, relative_fileloc, bundle_name, timetable_type, partition_mapper_info, max_active_tasks, max_consecutive_failed_dag_runs, has_task_concurrency_limits) values (?, ?, ?, ?, 0, 0, 0.5, 'f.py', 'b', '', '{}', 16, 0, 0)", (dag, paused, stale, due))
db.execute("insert into dag_run (dag_id, run_id, run_type, state, run_after, clear_number) values ('pay__a', 'r', 'manual', 'running', ?, 0)", (ago(minutes=9),))
for index, (state, queued) in enumerate([("running", ago(minutes=3)), ("queued", ago(minutes=2)), ("success", ago(minutes=3))]):
    db.execute("insert into task_instance (id, dag_id, run_id, task_id, state, pool, pool_slots, map_index, try_number, max_tries, scheduled_dttm, queued_dttm, start_date) values (?, 'pay__a', 'r', ?, ?, 'default_pool', 1, -1, 1, 1, ?, ?, ?)", (f"{index:032}", f"t{index}", state, ago(minutes=3), queued, ago(minutes=1) if state != "queued" else None))
for minutes, task in [(1, "t0"), (1, "t2"), (61, "t2")]:
    db.execute("insert into log (dttm, dag_id, task_id, run_id, map_index, event) values (?, 'pay__a', ?, 'r', -1, 'running')", (ago(minutes=minutes), task))
db.execute("insert into job (job_type, state, latest_heartbeat) values ('SchedulerJob', 'running', ?)", (ago(seconds=4),))
db.commit()
"#;
    let filled = std::process::Command::new("python3")
        .args(["-c", python, file.strip_prefix("sqlite://").unwrap()])
        .status()
        .unwrap();
    assert!(filled.success());

    let mut reader = Reader::new(&url(file), Duration::from_secs(10)).unwrap();
    let pulse = reader.pulse().await.unwrap();
    let age = pulse.scheduler_heartbeat_age_ms.unwrap();
    assert!((4_000..64_000).contains(&age), "{age}");
    assert_eq!(pulse.dag_processor_heartbeat_age_ms, None);
    assert_eq!(pulse.late_dags, 1);
    assert!((600_000..660_000).contains(&pulse.lateness_max_ms), "{}", pulse.lateness_max_ms);
    assert!((120_000..180_000).contains(&pulse.oldest_waiting_ms), "{}", pulse.oldest_waiting_ms);
    let dag = pulse.dags["pay__a"];
    assert_eq!((dag.active_runs, dag.active_task_instances, dag.occupied_slots), (1, 2, 2));
    assert!(pulse.dags["pay__b"].paused && !pulse.dags.contains_key("other"));

    let activity = reader.activity(Duration::from_secs(30)).await.unwrap();
    assert_eq!(activity.dags["pay__a"].task_starts, 2);
    // Two DAGs of one file, half a second every half minute.
    assert_eq!(activity.dags["pay__a"].parse_us_per_minute, 500_000);
    let delay = activity.scheduling_delay_p95_ms.unwrap();
    assert!((119_000..=121_000).contains(&delay), "{delay}");
    let sizes = reader.sizes().await.unwrap();
    assert_eq!(sizes.dags["pay__a"], sizes.total_bytes);
    assert!(sizes.total_bytes > 100_000);
}

#[tokio::test]
async fn a_schema_that_is_not_known_is_refused_by_name_and_an_upgrade_is_noticed() {
    let shard = database(AirflowVersion::V3_3_2).await;
    fill(&shard, "small-3.3.sql").await;
    query(&shard, "UPDATE alembic_version SET version_num = 'fedcba987654'").await;
    let router = ScriptedRouter::start().await;
    let agent = RunningAgent::start(agent_of(&shard, &router));
    let report = router.when("the revision", |report| !report.schema_revision.is_empty()).await;
    assert_eq!(report.schema_revision, "fedcba987654");
    assert_eq!(report.usage, None);
    let reason = &report.health.unwrap().reasons[0];
    assert_eq!(reason.code, "SCHEMA_UNSUPPORTED");
    assert!(reason.message.contains("fedcba987654"), "{}", reason.message);

    query(&shard, "UPDATE alembic_version SET version_num = 'd2f4e1b3c5a7'").await;
    let report = router.when("usage", |report| report.usage.is_some()).await;
    assert_eq!(report.schema_revision, "d2f4e1b3c5a7");
    agent.stop().await;
}

#[tokio::test]
async fn a_database_without_airflow_and_a_wrong_password_are_told_apart() {
    let postgres = Postgres::start_new().await.unwrap();
    let empty = postgres.create_database("other").await.unwrap();
    let error = Reader::new(&url(&empty), LIMIT).unwrap().pulse().await.unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert!(error.to_string().contains("alembic_version"), "{error}");

    let wrong = empty.replacen("airfleet:", "airfleet:wrong-", 1);
    let router = ScriptedRouter::start().await;
    let mut config = router.agent();
    config.airflow.metadata_url = Some(url(&wrong));
    let agent = RunningAgent::start(config);
    let report = router
        .when("a verdict", |report| {
            let reasons = report.health.as_ref().map(|health| &health.reasons[..]);
            reasons.is_some_and(|r| r.iter().any(|r| r.message.contains("password authentication")))
        })
        .await;
    assert!(!format!("{report:?}").contains("wrong-"), "{report:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_role_that_may_read_the_documented_tables_suffices() {
    let shard = database(AirflowVersion::V3_3_2).await;
    fill(&shard, "small-3.3.sql").await;
    query(
        &shard,
        "CREATE ROLE reader LOGIN PASSWORD 'reader'; GRANT SELECT ON alembic_version, dag, \
         dag_code, dag_run, import_error, job, log, rendered_task_instance_fields, \
         serialized_dag, slot_pool, task_instance, task_instance_history, xcom TO reader",
    )
    .await;
    let owner = shard.metadata_url();
    let (_, place) = owner.rsplit_once('@').unwrap();
    let reader = url(format!("postgres://reader:reader@{place}"));
    let mut reader = Reader::new(&reader, LIMIT).unwrap();
    assert_eq!(reader.pulse().await.unwrap().dags.len(), 9);
    assert_eq!(reader.activity(Duration::from_secs(30)).await.unwrap().failures, 2);
    assert!(reader.sizes().await.unwrap().dags["pay__daily"] > 0);
}

#[tokio::test]
async fn the_collation_of_the_database_changes_nothing() {
    let shard = database(AirflowVersion::V3_3_2).await;
    fill(&shard, "small-3.3.sql").await;
    let read = async |database: &str| {
        let url = shard.metadata_url();
        let (base, _) = url.rsplit_once('/').unwrap();
        let mut reader = Reader::new(&crate::url(format!("{base}/{database}")), LIMIT).unwrap();
        let mut dags: Vec<_> = reader.pulse().await.unwrap().dags.into_iter().collect();
        dags.sort_by(|a, b| a.0.cmp(&b.0));
        dags
    };
    let name = shard.metadata_url().rsplit('/').next().unwrap().to_owned();
    // A linguistic collation that ignores case and punctuation at first, over the same rows.
    query(
        &shard,
        "CREATE COLLATION linguistic (provider = icu, locale = 'de-DE-u-ka-shifted'); \
         ALTER TABLE dag ALTER COLUMN dag_id TYPE varchar(250) COLLATE linguistic;",
    )
    .await;
    let linguistic = read(&name).await;
    query(&shard, "ALTER TABLE dag ALTER COLUMN dag_id TYPE varchar(250) COLLATE \"C\";").await;
    assert_eq!(read(&name).await, linguistic);
    assert_eq!(linguistic.len(), 9);
}
