//! What an agent does at an end of a move, in a real metadata database, with a router that a test
//! speaks for.

use airfleet_local::AirflowVersion;
use airfleet_proto::{
    agent::v1::{
        MoveSide, TableEstimate, TransferBegin, TransferJoined, TransferPart, TransferProgress,
        TransferResponse, TransferResult, TransferState, transfer_request::Message as Said,
        transfer_response::Message as Heard,
    },
    common::v1::Role,
};

use sqlx::Connection as _;

use super::fixture::Fixture;
use crate::{RunningAgent, database::query, eventually, scripted::Transfer};

/// Messages of the events with this code.
fn told(fixture: &Fixture, code: &str) -> Vec<String> {
    let events = fixture.router.events("pay").into_iter();
    events.filter(|(is, _)| is == code).map(|(_, message)| message).collect()
}

async fn notes_are_dropped(fixture: &Fixture) {
    eventually("notes are dropped", async || {
        let notes = query(&fixture.shard, "SELECT count(*) FROM airfleet_move").await;
        (notes.trim() == "0").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timetables_that_cannot_be_computed_are_told_once() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__own", false), ("pay__paused", true), ("ads__own", false)]).await;
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    fixture.reached("pay", Role::Active, 1).await;
    fixture.tell_source(fixture.pay(Role::Sealed, 1));
    fixture.reached("pay", Role::Sealed, 1).await;
    // Something of somebody's own timetable comes due under seal.
    let due = "UPDATE dag SET timetable_type = 'mine.Timetable', next_dagrun = now(), \
                 next_dagrun_create_after = now()";
    query(&fixture.shard, due).await;

    // The move is given up: the source goes on, and makes up for what it can.
    fixture.tell_source(fixture.pay(Role::Active, 2));
    fixture.reached("pay", Role::Active, 2).await;
    let message = eventually("it is told", async || told(&fixture, "TICKS_UNCERTAIN").pop()).await;
    assert!(message.starts_with("look whether a run is missing, and trigger it"), "{message}");
    assert!(message.contains(" 1 DAG ") && message.ends_with(": pay__own"), "{message}");
    let runs = "SELECT string_agg(dag_id, ' ') FROM dag_run";
    assert_eq!(query(&fixture.shard, runs).await, "pay__own", "what was planned next is there");

    // Told again by one that starts anew, as the same event.
    agent.stop().await;
    let agent = RunningAgent::start(fixture.config());
    let times = || {
        let reports = fixture.router.reports();
        let events = reports.iter().flat_map(|report| &report.events);
        events.filter(|event| event.code == "TICKS_UNCERTAIN").count()
    };
    let before = times();
    eventually("it is told again", async || (times() > before).then_some(())).await;
    assert_eq!(told(&fixture, "TICKS_UNCERTAIN").len(), 1, "the router takes it for one");

    // Once the move is over nothing is kept of it.
    fixture.tell(&[fixture.pay(Role::Active, 2)]);
    notes_are_dropped(&fixture).await;
    assert_eq!(told(&fixture, "TICKS_UNCERTAIN").len(), 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_came_after_the_seal_are_told() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__a", false), ("ads__a", false)]).await;
    let add_run = async |dag: &str, run: &str| {
        let sql = format!(
            "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, clear_number, \
               updated_at, span_status) \
             VALUES ('{dag}', '{run}', 'manual', 'queued', now(), 0, now(), 'ended')"
        );
        query(&fixture.shard, &sql).await;
    };
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    fixture.reached("pay", Role::Active, 1).await;
    add_run("pay__a", "before").await;
    fixture.tell_source(fixture.pay(Role::Sealed, 1));
    fixture.reached("pay", Role::Sealed, 1).await;
    add_run("pay__a", "after_1").await;
    add_run("pay__a", "after_2").await;
    add_run("ads__a", "of_others").await;
    fixture.tell_source(fixture.pay(Role::Retired, 2));
    fixture.reached("pay", Role::Retired, 2).await;
    let message = eventually("it is told", async || told(&fixture, "RUNS_STRANDED").pop()).await;
    assert!(message.starts_with("trigger them again on shard-b"), "{message}");
    assert!(message.contains(": 2 runs were made"), "{message}");
    assert!(message.ends_with(": pay__a after_1, pay__a after_2"), "{message}");

    // It is looked again, and each run told of once.
    add_run("pay__a", "after_3").await;
    let messages = eventually("the next one is told", async || {
        Some(told(&fixture, "RUNS_STRANDED")).filter(|messages| messages.len() > 1)
    })
    .await;
    assert!(messages[1].contains(": 1 run was made"), "{messages:?}");
    assert!(messages[1].ends_with(": pay__a after_3"), "{messages:?}");
    fixture.tell(&[fixture.pay(Role::Retired, 2)]);
    notes_are_dropped(&fixture).await;
    assert_eq!(told(&fixture, "RUNS_STRANDED").len(), 2);
    agent.stop().await;
}

/// Runs of a DAG, so many, each with a task.
async fn add_runs(fixture: &Fixture, dag: &str, runs: u32) {
    let sql = format!(
        "INSERT INTO dag_run (dag_id, run_id, run_type, state, run_after, clear_number, updated_at, \
           span_status) \
         SELECT '{dag}', 'r' || n, 'manual', 'success', now(), 0, now(), 'ended' \
         FROM generate_series(1, {runs}) n; \
         INSERT INTO task_instance (id, task_id, dag_id, run_id, map_index, try_number, state, pool, \
           pool_slots, queue, max_tries, updated_at) \
         SELECT gen_random_uuid(), 't', dag_id, run_id, -1, 1, 'success', 'default_pool', 1, \
           'default', 0, now() FROM dag_run WHERE dag_id = '{dag}'"
    );
    query(&fixture.shard, &sql).await;
}

/// DAGs, runs and task instances whose dag_id begins so. Counts.
async fn rows(fixture: &Fixture, prefix: &str) -> String {
    let count =
        |table| format!("(SELECT count(*) FROM {table} WHERE starts_with(dag_id, '{prefix}'))");
    let [dags, runs, tasks] = ["dag", "dag_run", "task_instance"].map(count);
    query(&fixture.shard, &format!("SELECT concat_ws(' ', {dags}, {runs}, {tasks})")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_namespace_that_left_are_removed_in_batches() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    // `_` is any character to whoever takes a prefix for a pattern.
    fixture.add_dags(&[("pay__a", false), ("pay__b", true), ("payx_a", false)]).await;
    for dag in ["pay__a", "pay__b", "payx_a"] {
        add_runs(&fixture, dag, 600).await;
    }
    let note_batches = "CREATE TABLE batch (txid bigint, rows bigint); \
        CREATE FUNCTION note_batch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
          INSERT INTO batch SELECT txid_current(), count(*) FROM gone; RETURN NULL; END $$; \
        CREATE TRIGGER note_batch AFTER DELETE ON dag_run REFERENCING OLD TABLE AS gone \
          FOR EACH STATEMENT EXECUTE FUNCTION note_batch()";
    query(&fixture.shard, note_batches).await;
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[fixture.pay(Role::Active, 1)]);
    fixture.reached("pay", Role::Active, 1).await;
    fixture.tell_source(fixture.pay(Role::Sealed, 1));
    fixture.reached("pay", Role::Sealed, 1).await;
    fixture.tell_source(fixture.pay(Role::Retired, 2));
    fixture.reached("pay", Role::Retired, 2).await;
    fixture.tell(&[fixture.pay(Role::Retired, 2)]);
    fixture.reached("pay", Role::Retired, 2).await;
    assert_eq!(rows(&fixture, "pay__").await, "2 1200 1200", "they are kept until their time");

    fixture.tell(&[fixture.pay(Role::Absent, 2)]);
    fixture.reached("pay", Role::Absent, 2).await;
    assert_eq!(rows(&fixture, "pay__").await, "0 0 0");
    assert_eq!(rows(&fixture, "payx_").await, "1 600 600", "rows of others stay");
    let batches =
        "SELECT string_agg(CAST(rows AS text), ' ' ORDER BY txid) FROM batch WHERE rows > 0";
    assert_eq!(query(&fixture.shard, batches).await, "500 500 200");
    let removed = "its rows were removed from the metadata database";
    eventually("it is told", async || (told(&fixture, "ROWS_REMOVED") == [removed]).then_some(()))
        .await;
    assert_eq!(told(&fixture, "ROWS_KEPT"), [] as [&str; 0]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_comes_back_while_its_rows_are_removed_keeps_the_rest() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__a", false)]).await;
    add_runs(&fixture, "pay__a", 1_200).await;
    let agent = RunningAgent::start(fixture.config());
    fixture.tell(&[fixture.pay(Role::Retired, 2)]);
    fixture.reached("pay", Role::Retired, 2).await;
    // The second batch is held up, by a lock that needs no transaction: for one the fence would wait.
    let hold = "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
          PERFORM pg_advisory_xact_lock(42); RETURN OLD; END $$; \
        CREATE TRIGGER hold BEFORE DELETE ON dag_run FOR EACH ROW WHEN (OLD.run_id = 'r700') \
          EXECUTE FUNCTION hold()";
    query(&fixture.shard, hold).await;
    let mut holder = sqlx::PgConnection::connect(&fixture.shard.metadata_url()).await.unwrap();
    sqlx::raw_sql("SELECT pg_advisory_lock(42)").execute(&mut holder).await.unwrap();
    fixture.tell(&[fixture.pay(Role::Absent, 2)]);
    eventually("the first batch is removed", async || {
        (rows(&fixture, "pay__").await == "1 700 700").then_some(())
    })
    .await;

    fixture.tell(&[fixture.pay(Role::Active, 3)]);
    fixture.reached("pay", Role::Active, 3).await;
    sqlx::raw_sql("SELECT pg_advisory_unlock(42)").execute(&mut holder).await.unwrap();
    // A pass that began after that sees nothing to remove.
    fixture.tell(&[fixture.pay(Role::Active, 3)]);
    fixture.reached("pay", Role::Active, 3).await;
    assert_eq!(rows(&fixture, "pay__").await, "1 700 700");
    assert_eq!(fixture.running().await, ["pay__a"]);
    assert_eq!(told(&fixture, "ROWS_REMOVED"), [] as [&str; 0]);
    agent.stop().await;
}

/// What a source says up to its trailer, as a target hears it.
async fn all_said(source: &mut Transfer) -> Vec<Heard> {
    let mut said = Vec::new();
    while let Some(message) = source.heard.message().await.unwrap() {
        said.push(match message.message.unwrap() {
            Said::Begin(begin) => Heard::Begin(begin),
            Said::Table(table) => Heard::Table(table),
            Said::Chunk(chunk) => Heard::Chunk(chunk),
            Said::Trailer(trailer) => {
                said.push(Heard::Trailer(trailer));
                break;
            }
            Said::Open(_) | Said::Ack(_) | Said::Result(_) => continue,
        });
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_rows_are_is_told_while_they_travel() {
    let fixture = Fixture::new(AirflowVersion::V3_3_2).await;
    fixture.source("pay", "a.py", "# 1");
    fixture.add_dags(&[("pay__a", false), ("ads__a", false)]).await;
    for (dag, runs) in [("pay__a", 3_000), ("ads__a", 100)] {
        add_runs(&fixture, dag, runs).await;
    }
    let agent = RunningAgent::start(fixture.config());
    let progress = |is: fn(&TransferProgress) -> bool| {
        let fixture = &fixture;
        eventually("progress is told", async move || fixture.router.evidence()?.transfer.filter(is))
    };
    let hear = |heard| TransferResponse { message: Some(heard) };

    // What is to come is said first.
    let ahead = TransferPart::Ahead;
    fixture.tell_transfer(fixture.pay(Role::Active, 1), "move-1", MoveSide::Source, ahead);
    let mut source = fixture.router.transfer().await;
    let joined = || Ok(hear(Heard::Joined(TransferJoined::default())));
    let done = || Ok(hear(Heard::Result(TransferResult::default())));
    source.say.send(joined()).unwrap();
    let said = all_said(&mut source).await;
    let Heard::Begin(begin) = &said[0] else { panic!("{:?}", said[0]) };
    let TransferBegin { total_bytes, tables, keeps_ahead, .. } = begin.clone();
    let rows_of = |tables: &[TableEstimate], table: &str| {
        tables.iter().find(|one| one.table == table).map(|one| one.rows)
    };
    assert_eq!((rows_of(&tables, "dag"), rows_of(&tables, "dag_run")), (Some(1), Some(3_000)));
    assert_eq!(rows_of(&tables, "task_instance"), Some(3_000));
    assert_eq!(total_bytes, tables.iter().map(|one| one.bytes).sum::<i64>());
    assert!(!keeps_ahead);
    let sent = progress(|progress| progress.bytes > 500_000).await;
    assert!(sent.total_bytes >= sent.bytes, "{sent:?}");
    source.say.send(done()).unwrap();
    drop(source);
    progress(|progress| progress.state() == TransferState::Done && !progress.tables.is_empty())
        .await;

    // Under seal, nothing of it comes again.
    let rest = TransferPart::Rest;
    fixture.tell_transfer(fixture.pay(Role::Sealed, 1), "move-1", MoveSide::Source, rest);
    let mut source = fixture.router.transfer().await;
    source.say.send(joined()).unwrap();
    let rest = all_said(&mut source).await;
    let Heard::Begin(begin) = &rest[0] else { panic!("{:?}", rest[0]) };
    assert!(begin.keeps_ahead, "{begin:?}");
    let left = (rows_of(&begin.tables, "dag"), rows_of(&begin.tables, "dag_run"));
    assert_eq!(left, (Some(1), Some(0)));
    let of_runs = ["dag_run", "task_instance", "xcom"];
    let again =
        |one: &Heard| matches!(one, Heard::Chunk(one) if of_runs.contains(&one.table.as_str()));
    assert!(!rest.iter().any(again), "rows of runs came again");
    let Some(Heard::Trailer(trailer)) = rest.last() else { panic!("no trailer") };
    let runs = trailer.tables.iter().find(|sum| sum.table == "dag_run").unwrap();
    assert_eq!((runs.rows, trailer.changed_runs.len()), (3_000, 0), "of all it is told");
    source.say.send(done()).unwrap();
    drop(source);
    progress(|progress| {
        progress.part() == TransferPart::Rest && progress.state() == TransferState::Done
    })
    .await;

    // At a target, half way.
    fixture.tell_transfer(fixture.pay(Role::Staged, 2), "move-2", MoveSide::Target, ahead);
    let target = fixture.router.transfer().await;
    target.say.send(joined()).unwrap();
    let mut left = said.into_iter();
    let first_tasks =
        |one: &Heard| matches!(one, Heard::Chunk(chunk) if chunk.table == "task_instance");
    for one in left.by_ref() {
        let is_half = first_tasks(&one);
        target.say.send(Ok(hear(one))).unwrap();
        if is_half {
            break;
        }
    }
    let half = progress(|progress| {
        progress.running.iter().any(|one| one.table == "task_instance" && one.rows > 0)
    })
    .await;
    let table = |name: &str| half.running.iter().find(|one| one.table == name).unwrap().clone();
    let (runs, tasks, xcom) = (table("dag_run"), table("task_instance"), table("xcom"));
    assert_eq!((runs.rows, runs.total_rows, tasks.total_rows), (3_000, 3_000, 3_000));
    assert!(tasks.rows < 3_000 && runs.bytes > 100_000, "{half:?}");
    assert_eq!((xcom.rows, xcom.total_rows), (0, 0));
    assert_eq!(half.bytes, half.running.iter().map(|one| one.bytes).sum::<i64>());
    assert!(half.total_bytes > half.bytes && half.total_bytes < 2 * total_bytes, "{half:?}");

    for one in left {
        target.say.send(Ok(hear(one))).unwrap();
    }
    let done = progress(|progress| progress.state() == TransferState::Done).await;
    assert!(done.running.is_empty(), "sums say what is there");
    assert!(done.tables.iter().any(|sum| sum.table == "task_instance" && sum.rows == 3_000));

    // A source that was killed before it heard comes again, and again.
    drop(target);
    for _ in 0..2 {
        let mut target = fixture.router.transfer().await;
        target.say.send(joined()).unwrap();
        let open = target.heard.message().await.unwrap().unwrap().message;
        assert!(matches!(open, Some(Said::Open(_))), "{open:?}");
        let told = target.heard.message().await.unwrap().unwrap().message;
        assert_eq!(told, Some(Said::Result(TransferResult::default())));
    }
    agent.stop().await;
}
