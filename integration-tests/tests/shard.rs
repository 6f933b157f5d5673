//! What a namespace's manifest says is what its shard does: followed from the registry to a real
//! Airflow 3.3 with PostgreSQL, Redis and Celery, and seen with the eyes of its users.

use std::fs;

use airfleet_integration_tests::{
    eventually,
    shard::{Fleet, FleetOptions, LIMIT},
};
use airfleet_proto::common::v1::{Connection, Guardrails, Pool, Retention, Variable};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// Runs once as soon as it may, and tells what it sees of variables and connections.
const ONCE: &str = r#"
from datetime import datetime
from airflow.sdk import DAG, BaseHook, Variable, task

with DAG("DAG_ID", start_date=datetime(2026, 1, 1), schedule="@once", catchup=True,
         is_paused_upon_creation=False, doc_md="DOC"):
    @task(pool="POOL")
    def tell():
        connection = BaseHook.get_connection("ledger")
        return [Variable.get("region"), connection.host, connection.password]

    tell()
"#;

/// Waits to be triggered.
const EMPTY: &str = r#"
from datetime import datetime
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

with DAG("DAG_ID", start_date=datetime(2026, 1, 1), schedule=None, is_paused_upon_creation=False):
    EmptyOperator(task_id="nothing", queue="QUEUE")
"#;

fn once(dag_id: &str, doc: &str, pool: &str) -> String {
    ONCE.replace("DAG_ID", dag_id).replace("DOC", doc).replace("POOL", pool)
}

fn empty(dag_id: &str, queue: &str) -> String {
    EMPTY.replace("DAG_ID", dag_id).replace("QUEUE", queue)
}

#[tokio::test]
async fn a_shard_does_what_manifests_say() -> Result<()> {
    let mut fleet = Fleet::boot(&FleetOptions::default()).await?;
    a_namespace_with_a_bundle_runs(&fleet).await?;
    users_change_dags_by_the_fleets_api(&fleet).await?;
    a_change_of_the_manifest_changes_the_shard(&fleet).await?;
    what_belongs_elsewhere_cannot_be_unpaused(&fleet).await?;
    what_is_too_old_goes(&fleet).await?;
    what_is_given_up_stays_paused(&mut fleet).await?;
    fleet.stop().await;
    Ok(())
}

async fn a_namespace_with_a_bundle_runs(fleet: &Fleet) -> Result<()> {
    let secrets = fleet.folder("secrets/pay")?;
    fs::write(secrets.join("region"), "eu-west-1\n")?;
    fs::write(secrets.join("ledger"), "postgres://me:hunter2@ledger.example:5432/pay")?;
    fleet.write("pay", "once.py", &once("pay.once", "first", "pay_pool"))?;
    let mut pay = fleet.namespace("pay", "shard-a")?;
    pay.pools = vec![Pool { name: "pay_pool".to_owned(), slots: 3, ..Pool::default() }];
    pay.variables = vec![Variable { key: "region".to_owned(), secret: "region".to_owned() }];
    pay.connections = vec![Connection { id: "ledger".to_owned(), secret: "ledger".to_owned() }];
    fleet.create(pay).await?;
    // It runs, by Celery, with its pool, variable and connection.
    eventually(LIMIT, async || {
        let runs = fleet.shards[0].airflow.get("dags/pay.once/dagRuns").await?;
        let run = &runs["dag_runs"][0];
        ensure!(run["state"] == "success", "{runs}");
        let run = run["dag_run_id"].as_str().context("no run")?;
        let told =
            format!("dags/pay.once/dagRuns/{run}/taskInstances/tell/xcomEntries/return_value");
        let told = fleet.shards[0].airflow.get(&told).await?;
        let text = told["value"].to_string();
        ensure!(["eu-west-1", "ledger.example", "hunter2"].iter().all(|word| text.contains(word)));
        anyhow::Ok(())
    })
    .await?;
    fleet.says(&["namespace", "describe", "pay"], &["active", "shard-a", "ROLE_REACHED"]).await?;
    let events = fleet.says(&["namespace", "events", "pay"], &["RELEASE_SWITCHED"]).await?;
    ensure!(!events.contains("hunter2"));
    Ok(())
}

/// Runs are triggered and cleared, DAGs paused and unpaused, by `airfleet` and in Airflow's words.
async fn users_change_dags_by_the_fleets_api(fleet: &Fleet) -> Result<()> {
    let airflow = &fleet.shards[0].airflow;
    let trigger = ["dag", "trigger", "pay.once", "--run-id", "asked", "--note", "late file"];
    let when = ["--logical-date", "2026-01-02T03:04:05Z", "--conf", r#"{"day": 1}"#];
    let asked = [&trigger[..], &when[..]].concat();
    fleet.says(&asked, &["dag/pay.once run asked triggered on shard-a, queued"]).await?;
    // Again it is the same run.
    fleet.says(&asked, &["run asked was there before on shard-a"]).await?;
    let run = airflow.get("dags/pay.once/dagRuns/asked").await?;
    ensure!(run["note"] == "late file" && run["conf"]["day"] == 1, "{run}");
    ensure!(run["logical_date"].to_string().contains("2026-01-02T03:04:05"), "{run}");
    let succeeds = async |tries: i64| {
        let sql = format!(
            "SELECT count(*) FROM task_instance WHERE run_id = 'asked' AND state = 'success' \
             AND try_number = {tries}"
        );
        airflow.finds(&sql, "1").await
    };
    succeeds(1).await?;
    let clear = ["dag", "clear", "pay.once", "asked"];
    let failed = [&clear[..], &["--only-failed"]].concat();
    fleet.says(&failed, &["0 task instances cleared on shard-a"]).await?;
    let told = fleet.airfleet(&[&clear[..], &["--task", "tell", "-o", "json"]].concat()).await?;
    let told: Value = serde_json::from_str(&told)?;
    ensure!(told["cleared"] == 1 && told["shard"] == "shard-a", "{told}");
    succeeds(2).await?;

    let paused = "SELECT is_paused FROM dag WHERE dag_id = 'pay.once'";
    for (word, state) in [("pause", "t"), ("pause", "t"), ("unpause", "f")] {
        fleet.says(&["dag", word, "pay.once"], &[&format!("dag/pay.once {word}d on")]).await?;
        ensure!(airflow.sql(paused).await? == state, "{word}");
    }

    // What is refused is told in one line, and nothing is done.
    let before = airflow.sql("SELECT count(*) FROM dag_run").await?;
    for (wrong, why) in [
        (vec!["dag", "trigger", "nobodys"], "no namespace owns the dag_id"),
        (vec!["dag", "trigger", "pay.nothing"], "pay.nothing on shard-a: "),
        (vec!["dag", "clear", "pay.once", "none"], "NOT_FOUND"),
        (vec!["dag", "trigger", "pay.once", "--conf", "[]"], "must be a JSON object"),
        (vec!["dag", "trigger", "pay.once", "--run-id", "a/../b"], "AIRFLOW_REFUSED"),
        // Another run has the logical date.
        ([&["dag", "trigger", "pay.once"], &when[..]].concat(), "AIRFLOW_REFUSED"),
    ] {
        let refused = fleet.airfleet(&wrong).await;
        let told = refused.err().with_context(|| format!("{wrong:?} was done"))?.to_string();
        ensure!(told.contains(why), "{wrong:?}: {told}");
    }
    ensure!(airflow.sql("SELECT count(*) FROM dag_run").await? == before);
    Ok(())
}

async fn a_change_of_the_manifest_changes_the_shard(fleet: &Fleet) -> Result<()> {
    let mut pay = fleet.namespace("pay", "shard-a")?;
    pay.pools = vec![
        Pool { name: "pay_pool".to_owned(), slots: 5, ..Pool::default() },
        Pool { name: "pay_more".to_owned(), slots: 1, ..Pool::default() },
    ];
    pay.guardrails =
        Some(Guardrails { queues: vec!["default".to_owned()], ..Guardrails::default() });
    fleet.update(pay).await?;
    let pools = "SELECT string_agg(pool || '=' || slots, ' ' ORDER BY pool) FROM slot_pool \
                 WHERE pool <> 'default_pool'";
    fleet.shards[0].airflow.finds(pools, "pay_more=1 pay_pool=5").await?;
    // Variables and connections that are no longer declared are gone.
    fleet.shards[0].airflow.finds("SELECT count(*) FROM variable", "0").await?;
    fleet.shards[0]
        .airflow
        .finds("SELECT count(*) FROM connection WHERE conn_id = 'ledger'", "0")
        .await?;

    // DAGs that break a rule are refused with its code, and it is told; others are not affected.
    fleet.write("pay", "once.py", &once("pay.once", "second", "pay_pool"))?;
    fleet.write("pay", "bad.py", &empty("pay.bad", "gpu"))?;
    let two = empty("pay.two", "default") + &empty("ads.stray", "default");
    fleet.write("pay", "two.py", &two)?;
    eventually(LIMIT, async || {
        let dag = fleet.shards[0].airflow.get("dags/pay.once/details").await?;
        ensure!(dag["doc_md"] == "second", "{dag}");
        let errors = fleet.shards[0].airflow.get("importErrors").await?.to_string();
        ensure!(errors.contains("AF104 pay.bad.nothing"), "{errors}");
        ensure!(errors.contains("AF101 ads.stray"), "{errors}");
        ensure!(fleet.shards[0].airflow.get("dags/pay.bad").await.is_err());
        anyhow::Ok(())
    })
    .await?;
    fleet.says(&["namespace", "describe", "pay"], &["AF104", "pay.bad"]).await?;
    // A link out of the bundle: refused as a whole, and what runs goes on.
    let folder = fleet.folder("sources/pay")?;
    std::os::unix::fs::symlink("/etc/passwd", folder.join("evil.py"))?;
    fleet.says(&["namespace", "describe", "pay"], &["SYMLINK_OUTSIDE"]).await?;
    ensure!(fleet.shards[0].airflow.get("dags/pay.once/details").await?["doc_md"] == "second");
    for file in ["evil.py", "bad.py", "two.py"] {
        fs::remove_file(folder.join(file))?;
    }
    fleet.says(&["namespace", "describe", "pay"], &["RECOVERED", "(1 file,"]).await?;
    Ok(())
}

/// DAG files that somebody put there by hand, of a namespace that another shard has.
async fn what_belongs_elsewhere_cannot_be_unpaused(fleet: &Fleet) -> Result<()> {
    fs::write(
        fleet.shards[0].airflow.shard.dags_folder().join("stray.py"),
        empty("ads.stray", "default"),
    )?;
    let paused = "SELECT is_paused FROM dag WHERE dag_id = 'ads.stray'";
    // Nobody's yet: it is left alone.
    fleet.shards[0].airflow.finds(paused, "f").await?;
    fleet.create(fleet.namespace("ads", "shard-z")?).await?;
    fleet.shards[0].airflow.finds(paused, "t").await?;
    unpause_in_every_way(fleet, "ads.stray").await?;
    fs::remove_file(fleet.shards[0].airflow.shard.dags_folder().join("stray.py"))?;
    Ok(())
}

async fn unpause_in_every_way(fleet: &Fleet, dag_id: &str) -> Result<()> {
    let paused = format!("SELECT is_paused FROM dag WHERE dag_id = '{dag_id}'");
    let path = format!("dags/{dag_id}?update_mask=is_paused");
    fleet.shards[0]
        .airflow
        .rest(reqwest::Method::PATCH, &path, json!({ "is_paused": false }))
        .await?;
    ensure!(fleet.shards[0].airflow.sql(&paused).await? == "t", "unpaused by REST");
    fleet.shards[0]
        .airflow
        .sql(&format!("UPDATE dag SET is_paused = false WHERE dag_id = '{dag_id}'"))
        .await?;
    ensure!(fleet.shards[0].airflow.sql(&paused).await? == "t", "unpaused by SQL");
    fleet.shards[0].airflow.run(&["dags", "unpause", dag_id, "--yes"]).await?;
    ensure!(fleet.shards[0].airflow.sql(&paused).await? == "t", "unpaused by airflow dags unpause");
    Ok(())
}

/// Runs beyond the retention are removed by Airflow's own command, but for each DAG's newest
/// automated run with its tasks.
async fn what_is_too_old_goes(fleet: &Fleet) -> Result<()> {
    fleet.write("old", "a.py", &empty("old.a", "default"))?;
    fleet.write("old", "b.py", &empty("old.b", "default"))?;
    let mut old = fleet.namespace("old", "shard-a")?;
    fleet.create(old.clone()).await?;
    fleet.shards[0]
        .airflow
        .finds("SELECT count(*) FROM dag WHERE dag_id LIKE 'old.%' AND NOT is_stale", "2")
        .await?;
    // a: ten old runs and a new one; b: ten old ones, of which the newest is to stay.
    let runs = "INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, run_after, \
          start_date, end_date, queued_at, clear_number, created_dag_version_id, \
          updated_at, span_status) \
        SELECT d.dag_id, 'scheduled__' || n, 'scheduled', 'success', now() - n * interval '1 day', \
          now() - n * interval '1 day', now() - n * interval '1 day', now() - n * interval '1 day', \
          now(), 0, (SELECT id FROM dag_version v WHERE v.dag_id = d.dag_id LIMIT 1), now(), 'ended' \
        FROM dag d, generate_series(10, 20) n WHERE d.dag_id LIKE 'old.%' \
          AND NOT (d.dag_id = 'old.b' AND n = 10) \
        UNION ALL SELECT 'old.a', 'scheduled__0', 'scheduled', 'success', now(), now(), now(), now(), \
          now(), 0, (SELECT id FROM dag_version v WHERE v.dag_id = 'old.a' LIMIT 1), now(), \
          'ended'";
    fleet.shards[0].airflow.sql(runs).await?;
    let tasks = "INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, try_number, state, \
          start_date, end_date, pool, pool_slots, queue, max_tries, dag_version_id, updated_at) \
        SELECT gen_random_uuid(), 'nothing', dag_id, run_id, -1, 1, 'success', start_date, \
          start_date + interval '1 hour', 'default_pool', 1, 'default', 0, created_dag_version_id, now() \
        FROM dag_run WHERE dag_id LIKE 'old.%'";
    fleet.shards[0].airflow.sql(tasks).await?;
    // Every minute: the next one is due soon.
    old.retention = Some(Retention { keep_days: 5, schedule: "* * * * *".to_owned() });
    fleet.update(old).await?;
    let left = "SELECT string_agg(r.dag_id || ' ' || r.run_id || ' ' || \
          (SELECT count(*) FROM task_instance t WHERE (t.dag_id, t.run_id) = (r.dag_id, r.run_id)), \
          ', ' ORDER BY r.dag_id) FROM dag_run r WHERE r.dag_id LIKE 'old.%'";
    fleet.shards[0].airflow.finds(left, "old.a scheduled__0 1, old.b scheduled__11 1").await?;
    fleet.says(&["namespace", "events", "old"], &["RETENTION_DONE"]).await?;
    Ok(())
}

/// A namespace that leaves: paused whatever users click, its files, pools and rules gone.
async fn what_is_given_up_stays_paused(fleet: &mut Fleet) -> Result<()> {
    // The agent dies meanwhile, and takes up where it was.
    fleet.shards[0].agent.kill().await;
    fleet.update(fleet.namespace("pay", "shard-z")?).await?;
    fleet.airfleet(&["shard", "cordon", "shard-a", "--reason", "test"]).await?;
    fleet.shards[0].agent.start().await?;
    let paused = "SELECT count(*) FROM dag WHERE dag_id LIKE 'pay.%' AND NOT is_paused";
    fleet.airfleet(&["namespace", "pin", "pay", "shard-z", "--reason", "test", "--force"]).await?;
    fleet.shards[0].airflow.finds(paused, "0").await?;
    unpause_in_every_way(fleet, "pay.once").await?;
    fleet.shards[0]
        .airflow
        .finds("SELECT count(*) FROM slot_pool WHERE pool LIKE 'pay%'", "0")
        .await?;
    eventually(LIMIT, async || {
        ensure!(!fleet.shards[0].airflow.shard.dags_folder().join("pay").exists());
        let rules = fs::read(
            fleet.shards[0].airflow.shard.dags_folder().join(".airfleet/guardrails.json"),
        )?;
        let rules: Value = serde_json::from_slice(&rules)?;
        ensure!(rules["namespaces"].get("pay").is_none(), "{rules}");
        anyhow::Ok(())
    })
    .await
}
