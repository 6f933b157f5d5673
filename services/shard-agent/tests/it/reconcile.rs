//! The agent brings a real metadata database and a real folder to what a router tells it.

mod changes;
mod fixture;
mod killed;
mod moving;

use std::fs;

use airfleet_local::AirflowVersion;
use airfleet_proto::{
    agent::v1::ObservedRole,
    common::v1::{Connection, Enforcement, Role, Variable},
};

use self::fixture::{Fixture, KEY, Told, pool};
use crate::{RunningAgent, database::query, eventually};

fn drift(seen: &ObservedRole) -> Vec<(&str, bool)> {
    seen.drift.iter().map(|one| (one.code.as_str(), one.tolerated)).collect()
}

fn codes(events: &[(String, String)]) -> Vec<&str> {
    events.iter().map(|(code, _)| code.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_through_its_life() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.add_dags(&[("pay__a", false), ("pay__b", true), ("other", false)]).await;
    fixture.source("pay", "a.py", "# 1");
    let agent = RunningAgent::start(fixture.config());

    // Everything is there, and nothing may run.
    fixture.tell(&[fixture.pay(Role::Staged, 1)]);
    let seen = fixture.reached("pay", Role::Staged, 1).await;
    assert_eq!((seen.fenced_dags, seen.obstacle), (2, None));
    assert_eq!(fixture.running().await, ["other"]);
    assert_eq!(fixture.pools().await, ["pay_pool 4"]);
    assert_eq!(fixture.delivered("pay/a.py").as_deref(), Some("# 1"));
    assert_eq!(fixture.rules()["namespaces"]["pay"]["rules"]["queues"][0], "default");
    assert_eq!(seen.release.as_ref().unwrap().files, 1);
    query(&fixture.shard, "UPDATE dag SET is_paused = false WHERE dag_id = 'pay__a'").await;
    fixture.add_dags(&[("pay__new", false)]).await;
    assert_eq!(fixture.running().await, ["other"]);

    // Its users' own pause states come back.
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    let seen = fixture.reached("pay", Role::Active, 1).await;
    assert_eq!(seen.fenced_dags, 0);
    assert_eq!(fixture.running().await, ["other", "pay__a", "pay__new"]);

    // What the manifest and the source say anew.
    let mut changed = fixture.pay(Role::Active, 1);
    changed.workload.pools = vec![pool("pay_pool", 7), pool("pay_more", 1)];
    changed.workload.guardrails = None;
    fixture.source("pay", "a.py", "# 2");
    fixture.source("pay", "b.py", "# 1");
    fixture.tell(std::slice::from_ref(&changed));
    let before = seen.release.unwrap().id;
    let is = |seen: &ObservedRole| {
        seen.manifest_revision == 3 && seen.release.as_ref().is_some_and(|one| one.id != before)
    };
    fixture.router.role("pay", "the new release runs", is).await;
    assert_eq!(fixture.pools().await, ["pay_more 1", "pay_pool 7"]);
    assert_eq!(fixture.delivered("pay/a.py").as_deref(), Some("# 2"));
    assert_eq!(fixture.rules()["namespaces"]["pay"]["rules"]["queues"], serde_json::Value::Null);
    assert_eq!(fixture.running().await, ["other", "pay__a", "pay__new"]);

    // A pool that somebody else made is left alone; one that is no longer declared goes.
    query(
        &fixture.shard,
        "INSERT INTO slot_pool (pool, slots, include_deferred) VALUES ('theirs', 9, false)",
    )
    .await;
    changed.workload.pools = vec![pool("pay_pool", 7), pool("theirs", 1)];
    fixture.tell(std::slice::from_ref(&changed));
    let seen = fixture.reached("pay", Role::Active, 1).await;
    assert_eq!(drift(&seen), [("POOL_FOREIGN", true)]);
    assert_eq!(fixture.pools().await, ["pay_pool 7", "theirs 9"]);

    // Quiesced: paused, remembered, files frozen.
    fixture.tell(&[fixture.pay(Role::Quiesced, 2)]);
    fixture.reached("pay", Role::Quiesced, 2).await;
    assert_eq!(fixture.running().await, ["other"]);
    fixture.source("pay", "a.py", "# 3");
    // The next order is brought about in a pass that began after the source changed.
    fixture.tell(&[fixture.pay(Role::Quiesced, 2)]);
    fixture.reached("pay", Role::Quiesced, 2).await;
    assert_eq!(fixture.delivered("pay/a.py").as_deref(), Some("# 2"));

    // Back, as it was.
    fixture.tell(&[fixture.pay(Role::Active, 3)]);
    fixture.reached("pay", Role::Active, 3).await;
    assert_eq!(fixture.running().await, ["other", "pay__a", "pay__new"]);
    eventually("the source is followed again", async || {
        fixture.delivered("pay/a.py").filter(|text| text == "# 3")
    })
    .await;

    // Given up, and forgotten; also its pool, although a task would like to try again in it.
    let waiting = "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, clear_number, \
          updated_at, span_status) \
        VALUES ('pay__a', 'r', 'manual', 'failed', now(), 0, now(), 'ended'); \
        INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, try_number, state, pool, \
          pool_slots, queue, max_tries, updated_at) \
        VALUES (gen_random_uuid(), 't', 'pay__a', 'r', -1, 1, 'up_for_retry', 'pay_pool', 1, \
          'default', 0, now())";
    query(&fixture.shard, waiting).await;
    fixture.tell(&[fixture.pay(Role::Retired, 4)]);
    fixture.reached("pay", Role::Retired, 4).await;
    assert_eq!(fixture.running().await, ["other"]);
    assert_eq!(fixture.pools().await, ["theirs 9"]);
    assert_eq!(fixture.delivered("pay/a.py"), None);
    assert_eq!(fixture.rules()["namespaces"].as_object().unwrap().len(), 0);
    fixture.tell(&[fixture.pay(Role::Absent, 4)]);
    fixture.reached("pay", Role::Absent, 4).await;
    fixture.tell(&[]);
    fixture.router.when("nothing is told of it", |report| report.roles.is_empty()).await;
    for table in ["airfleet_role", "airfleet_fence", "airfleet_pause", "airfleet_owned"] {
        assert_eq!(
            query(&fixture.shard, &format!("SELECT count(*) FROM {table}")).await.trim(),
            "0"
        );
    }
    let events = fixture.router.events("pay");
    for code in ["ROLE_REACHED", "RELEASE_SWITCHED", "SETTINGS_APPLIED", "FENCED", "FILES_REMOVED"]
    {
        assert!(codes(&events).contains(&code), "{code} in {events:?}");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_is_put_right_or_told() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    let agent = RunningAgent::start(fixture.config());
    let mut pay = fixture.pay(Role::Active, 1);
    fixture.tell(std::slice::from_ref(&pay));
    fixture.reached("pay", Role::Active, 1).await;

    query(&fixture.shard, "UPDATE slot_pool SET slots = 99 WHERE pool = 'pay_pool'").await;
    fs::remove_file(fixture.path("dags/.airfleet/guardrails.json")).unwrap();
    fixture
        .router
        .role("pay", "drift is told", |seen| drift(seen) == [("POOL_RESIZED", false)])
        .await;
    fixture.router.role("pay", "drift is over", |seen| seen.drift.is_empty()).await;
    assert_eq!(fixture.pools().await, ["pay_pool 4"]);
    assert_eq!(fixture.rules()["namespaces"]["pay"]["prefixes"][0], "pay__");

    // A delivered file.
    let file = fs::canonicalize(fixture.path("dags/pay/a.py")).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, "# somebody else").unwrap();
    eventually("the file is put right", async || {
        fixture.delivered("pay/a.py").filter(|text| text == "# 1")
    })
    .await;

    pay.workload.drift = Enforcement::Warn.into();
    fixture.tell(std::slice::from_ref(&pay));
    fixture.reached("pay", Role::Active, 1).await;
    query(&fixture.shard, "DELETE FROM slot_pool WHERE pool = 'pay_pool'").await;
    fixture
        .router
        .role("pay", "drift is told", |seen| drift(seen) == [("POOL_MISSING", true)])
        .await;
    // It is told at the end of a pass.
    assert!(fixture.pools().await.is_empty());
    // What the manifest changes is brought about all the same.
    pay.workload.pools = vec![pool("pay_pool", 5)];
    fixture.tell(std::slice::from_ref(&pay));
    fixture.reached("pay", Role::Active, 1).await;
    assert_eq!(fixture.pools().await, ["pay_pool 5"]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_from_the_agents_own_files() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__a", false)]).await;
    let agent = RunningAgent::start(fixture.config());
    let mut pay = fixture.pay(Role::Active, 1);
    pay.workload.variables = vec![
        Variable { key: "token".to_owned(), secret: "token".to_owned() },
        Variable { key: "elsewhere".to_owned(), secret: String::new() },
    ];
    pay.workload.connections = vec![Connection { id: "db".to_owned(), secret: "db".to_owned() }];
    fixture.tell(std::slice::from_ref(&pay));
    // Nothing runs before everything that it needs is there.
    let is = |seen: &ObservedRole| {
        seen.obstacle.as_ref().is_some_and(|one| one.code == "SECRET_UNREADABLE")
    };
    let seen = fixture.router.role("pay", "a secret is missing", is).await;
    assert!(seen.obstacle.unwrap().message.contains("secrets/pay/"), "it says which file");
    assert!(fixture.running().await.is_empty());

    fs::write(fixture.path("secrets/pay/token"), "hunter2\n").unwrap();
    fs::write(fixture.path("secrets/pay/db"), "postgres://me:hunter3@db:5432/pay?a=b").unwrap();
    fixture.reached("pay", Role::Active, 1).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    let key = fernet::Fernet::new(KEY).unwrap();
    let opened = |text: String| String::from_utf8(key.decrypt(text.trim()).unwrap()).unwrap();
    let variable = "SELECT val FROM variable WHERE key = 'token' AND is_encrypted";
    assert_eq!(opened(query(&fixture.shard, variable).await), "hunter2");
    let password = "SELECT password FROM connection WHERE conn_id = 'db' AND is_encrypted";
    assert_eq!(opened(query(&fixture.shard, password).await), "hunter3");
    let rest =
        "SELECT conn_type || ' ' || host || ' ' || port || ' ' || c.schema FROM connection c";
    assert_eq!(query(&fixture.shard, rest).await.trim(), "postgres db 5432 pay");
    assert_eq!(query(&fixture.shard, "SELECT count(*) FROM variable").await.trim(), "1");

    // A new value in the file.
    fs::write(fixture.path("secrets/pay/token"), "hunter4").unwrap();
    eventually("the new value is there", async || {
        (opened(query(&fixture.shard, variable).await) == "hunter4").then_some(())
    })
    .await;
    // A file that goes stops nothing that runs.
    fs::remove_file(fixture.path("secrets/pay/token")).unwrap();
    fixture.router.role("pay", "a secret is missing again", is).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    assert_eq!(opened(query(&fixture.shard, variable).await), "hunter4");
    let told = format!("{:?}", fixture.router.reports());
    assert!(!told.contains("hunter"), "a secret was told");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_stuck_holds_up_no_other_and_keeps_what_runs() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    let names = ["aaa", "bbb", "ccc", "ddd", "eee", "fff"];
    let told = |role: Role| {
        let one = |namespace: &&'static str| Told {
            namespace,
            role,
            generation: 1,
            workload: fixture.workload(namespace),
        };
        names.iter().map(one).collect::<Vec<_>>()
    };
    // All but two have no source.
    for name in ["ccc", "fff"] {
        fixture.source(name, "a.py", "# 1");
    }
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&told(Role::Active));
    for name in ["ccc", "fff"] {
        fixture.reached(name, Role::Active, 1).await;
    }
    let is = |seen: &ObservedRole| {
        seen.obstacle.as_ref().is_some_and(|one| one.code == "SOURCE_NOT_FOUND")
    };
    fixture.router.role("aaa", "its source is missing", is).await;

    // The source of one that runs goes away: it goes on running.
    fixture.add_dags(&[("ccc__a", false)]).await;
    fs::rename(fixture.path("sources/ccc"), fixture.path("sources/gone")).unwrap();
    let seen = fixture.router.role("ccc", "its source is missing", is).await;
    assert_eq!((seen.role(), seen.release.unwrap().files), (Role::Active, 1));
    assert_eq!(fixture.running().await, ["ccc__a"]);
    assert_eq!(fixture.delivered("ccc/a.py").as_deref(), Some("# 1"));
    // So does one whose source has garbage.
    fs::create_dir(fixture.path("sources/ccc")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", fixture.path("sources/ccc/a.py")).unwrap();
    let is = |seen: &ObservedRole| {
        seen.obstacle.as_ref().is_some_and(|one| one.code == "SYMLINK_OUTSIDE")
    };
    fixture.router.role("ccc", "its source is refused", is).await;
    assert_eq!(fixture.delivered("ccc/a.py").as_deref(), Some("# 1"));
    fs::remove_file(fixture.path("sources/ccc/a.py")).unwrap();
    fixture.source("ccc", "a.py", "# 2");
    fixture.router.role("ccc", "it is well again", |seen| seen.obstacle.is_none()).await;
    assert_eq!(fixture.delivered("ccc/a.py").as_deref(), Some("# 2"));
    let events = fixture.router.events("ccc");
    assert!(codes(&events).contains(&"RECOVERED"), "{events:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_without_a_router_and_obeys_no_old_one() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__a", false), ("ads__a", false)]).await;
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[fixture.pay(Role::Active, 5)]);
    fixture.reached("pay", Role::Active, 5).await;
    // DAGs of a namespace that another shard has are stopped.
    fixture.router.own_elsewhere("ads__", "ads");
    eventually("DAGs of elsewhere are paused", async || {
        (fixture.running().await == ["pay__a"]).then_some(())
    })
    .await;
    agent.stop().await;

    // A restart without a router: it does what it was told last.
    let mut alone = fixture.config();
    alone.router = airfleet_runtime::config::ClientConfig::plain("http://127.0.0.1:9");
    let agent = RunningAgent::start(alone);
    query(&fixture.shard, "UPDATE slot_pool SET slots = 99 WHERE pool = 'pay_pool'").await;
    fixture.source("pay", "a.py", "# 2");
    eventually("it goes on", async || {
        let is_there = fixture.delivered("pay/a.py").as_deref() == Some("# 2");
        (is_there && fixture.pools().await == ["pay_pool 4"]).then_some(())
    })
    .await;
    agent.stop().await;

    // A router that says less than before: nothing is done for what it says, nor deleted.
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[]);
    let quarantined = |seen: &ObservedRole| seen.role() == Role::Quiesced;
    fixture.router.role("pay", "it is quarantined", quarantined).await;
    assert!(fixture.running().await.is_empty());
    assert_eq!(fixture.pools().await, ["pay_pool 4"]);
    assert_eq!(fixture.delivered("pay/a.py").as_deref(), Some("# 2"));
    assert!(codes(&fixture.router.events("pay")).contains(&"QUARANTINED"));
    fixture.tell(&[fixture.pay(Role::Active, 5)]);
    fixture.reached("pay", Role::Active, 5).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    // An order that was overtaken is not obeyed.
    fixture.source("ads", "a.py", "# 1");
    let ads = Told {
        namespace: "ads",
        role: Role::Staged,
        generation: 1,
        workload: fixture.workload("ads"),
    };
    fixture.tell(&[fixture.pay(Role::Retired, 4), ads]);
    fixture.reached("ads", Role::Staged, 1).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    agent.stop().await;

    // Nor is it after the agent lost its own memory: the fence remembers.
    fs::remove_dir_all(fixture.path("state")).unwrap();
    let agent = RunningAgent::start(fixture.config());
    let is = |seen: &ObservedRole| {
        seen.obstacle.as_ref().is_some_and(|one| one.code == "ORDER_OVERTAKEN")
    };
    fixture.router.role("pay", "the order is refused", is).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    assert_eq!(fixture.delivered("pay/a.py").as_deref(), Some("# 2"));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_restarts_under_it() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__a", false)]).await;
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    fixture.reached("pay", Role::Active, 1).await;
    let postgres = fixture.shard.postgres().unwrap();
    postgres.kill().await;
    fixture.tell(&[fixture.pay(Role::Quiesced, 2)]);
    let is = |seen: &ObservedRole| {
        seen.obstacle.as_ref().is_some_and(|one| one.code == "METADATA_FAILED")
    };
    let seen = fixture.router.role("pay", "the database is away", is).await;
    assert_eq!((seen.role(), seen.generation), (Role::Active, 1), "what it was is still told");
    postgres.start().await.unwrap();
    fixture.reached("pay", Role::Quiesced, 2).await;
    assert!(fixture.running().await.is_empty());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn airflow_2_has_the_same() {
    let fixture = Fixture::new(AirflowVersion::V2_11_2).await;
    let sql = "INSERT INTO dag (dag_id, is_paused, is_active, max_active_tasks, \
               max_consecutive_failed_dag_runs, has_task_concurrency_limits) \
               VALUES ('pay__a', false, true, 16, 0, false)";
    query(&fixture.shard, sql).await;
    fixture.source("pay", "a.py", "# 1");
    fs::write(fixture.path("secrets/pay/token"), "hunter2").unwrap();
    fs::write(fixture.path("secrets/pay/db"), r#"{"conn_type": "http", "host": "h"}"#).unwrap();
    let agent = RunningAgent::start(fixture.config());
    let mut pay = fixture.pay(Role::Staged, 1);
    pay.workload.variables = vec![Variable { key: "token".to_owned(), secret: "token".to_owned() }];
    pay.workload.connections = vec![Connection { id: "db".to_owned(), secret: "db".to_owned() }];
    fixture.tell(std::slice::from_ref(&pay));
    fixture.reached("pay", Role::Staged, 1).await;
    assert!(fixture.running().await.is_empty());
    pay.role = Role::Active;
    fixture.tell(std::slice::from_ref(&pay));
    fixture.reached("pay", Role::Active, 1).await;
    assert_eq!(fixture.running().await, ["pay__a"]);
    assert_eq!(fixture.pools().await, ["pay_pool 4"]);
    let both = "SELECT (SELECT count(*) FROM variable) + (SELECT count(*) FROM connection)";
    assert_eq!(query(&fixture.shard, both).await.trim(), "2");
    agent.stop().await;
}
