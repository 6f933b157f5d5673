//! The fence in real metadata databases: what it holds, and against whom.

use airfleet_domain::roles::Role;
use airfleet_local::{AirflowShard, AirflowVersion};
use airfleet_shard_agent::airflow::{
    fence::{
        self, Installed, Removal, RemoveError, TriggerState,
        gate::{self, GateError, Order, Place},
    },
    metadata::Metadata,
};
use tokio::{process::Command, time::Duration};

use crate::{
    database::{database, query},
    eventually, url,
};

pub(crate) fn metadata(shard: &AirflowShard) -> Metadata {
    Metadata::new(&url(shard.metadata_url()), Duration::from_secs(30)).unwrap()
}

fn prefixes(prefixes: &[&str]) -> Vec<String> {
    prefixes.iter().map(|prefix| (*prefix).to_owned()).collect()
}

fn order(prefixes: &[String], role: Role, generation: i64) -> Order<'_> {
    Order { namespace: "pay", prefixes, role, place: Place { generation, revision: generation } }
}

async fn close(metadata: &Metadata, order: Order<'_>) -> Result<i64, GateError> {
    let mut tx = metadata.begin().await?;
    let closed = gate::close(&mut tx, order).await?;
    tx.commit().await?;
    Ok(closed)
}

async fn open(metadata: &Metadata, order: Order<'_>) -> Result<i64, GateError> {
    let mut tx = metadata.begin().await?;
    let opened = gate::open(&mut tx, order).await?;
    tx.commit().await?;
    Ok(opened)
}

/// DAGs as Airflow's DAG processor writes them: dag_id, and whether it starts paused.
async fn add(shard: &AirflowShard, version: AirflowVersion, dags: &[(&str, bool)]) {
    let rows: Vec<_> = dags.iter().map(|(dag, paused)| format!("('{dag}', {paused})")).collect();
    let rows = rows.join(", ");
    let sql = match version {
        AirflowVersion::V3_3_2 => format!(
            "INSERT INTO dag_bundle (name, active) VALUES ('b', true) ON CONFLICT DO NOTHING; \
             INSERT INTO dag (dag_id, is_paused, is_stale, bundle_name, timetable_type, \
               partition_mapper_info, max_active_tasks, max_consecutive_failed_dag_runs, \
               has_task_concurrency_limits) \
             SELECT dag_id, paused, false, 'b', '', '{{}}', 16, 0, false \
             FROM (VALUES {rows}) AS d (dag_id, paused)"
        ),
        AirflowVersion::V2_11_2 => format!(
            "INSERT INTO dag (dag_id, is_paused, is_active, max_active_tasks, \
               max_consecutive_failed_dag_runs, has_task_concurrency_limits) \
             SELECT dag_id, paused, true, 16, 0, false FROM (VALUES {rows}) AS d (dag_id, paused)"
        ),
    };
    query(shard, &sql).await;
}

/// DAGs that are not paused, by id.
async fn running(shard: &AirflowShard) -> Vec<String> {
    let sql = "SELECT dag_id FROM dag WHERE NOT is_paused ORDER BY dag_id COLLATE \"C\"";
    query(shard, sql).await.lines().map(str::to_owned).collect()
}

async fn holds(version: AirflowVersion) {
    let shard = database(version).await;
    let metadata = metadata(&shard);
    assert_eq!(fence::status(&metadata).await.unwrap().version, None);
    add(&shard, version, &[("pay__a", false), ("pay__b", true), ("other", false)]).await;
    assert_eq!(fence::install(&metadata, None).await.unwrap(), Installed::Now);
    assert_eq!(fence::install(&metadata, None).await.unwrap(), Installed::Already);
    assert_eq!(running(&shard).await, ["other", "pay__a"]);

    // Closed: what ran is paused, and stays so whoever unpauses it.
    let mine = prefixes(&["pay__", "payroll."]);
    assert_eq!(close(&metadata, order(&mine, Role::Staged, 1)).await.unwrap(), 1);
    assert_eq!(running(&shard).await, ["other"]);
    query(&shard, "UPDATE dag SET is_paused = false").await;
    query(&shard, "UPDATE dag SET is_paused = NULL WHERE dag_id = 'nobody'").await;
    assert_eq!(running(&shard).await, ["other"]);
    // DAGs that come in meanwhile start paused, and what they were to start as is noted.
    let new = [("pay__new", false), ("payroll.q", true), ("pay_", false), ("pay", false)];
    add(&shard, version, &new).await;
    assert_eq!(running(&shard).await, ["other", "pay", "pay_"]);
    let upsert = "INSERT INTO dag SELECT * FROM dag WHERE dag_id = 'pay__a' \
                  ON CONFLICT (dag_id) DO UPDATE SET is_paused = false";
    query(&shard, upsert).await;
    assert_eq!(running(&shard).await, ["other", "pay", "pay_"]);

    // Done again it is the same; what users did in between changes nothing of what is noted.
    query(&shard, "UPDATE dag SET is_paused = true WHERE dag_id = 'pay__a'").await;
    assert_eq!(close(&metadata, order(&mine, Role::Quiesced, 1)).await.unwrap(), 0);

    // Open: everything is as its users chose it.
    assert_eq!(open(&metadata, order(&mine, Role::Active, 2)).await.unwrap(), 2);
    assert_eq!(open(&metadata, order(&mine, Role::Active, 2)).await.unwrap(), 2);
    assert_eq!(running(&shard).await, ["other", "pay", "pay_", "pay__a", "pay__new"]);
    query(&shard, "UPDATE dag SET is_paused = true WHERE dag_id = 'pay__new'").await;
    query(&shard, "UPDATE dag SET is_paused = false WHERE dag_id = 'payroll.q'").await;

    // And again: the newer choice counts, not the older one.
    assert_eq!(close(&metadata, order(&mine, Role::Quiesced, 2)).await.unwrap(), 2);
    assert_eq!(running(&shard).await, ["other", "pay", "pay_"]);
    open(&metadata, order(&mine, Role::Active, 3)).await.unwrap();
    assert_eq!(running(&shard).await, ["other", "pay", "pay_", "pay__a", "payroll.q"]);

    // Whoever is behind is refused.
    let late = close(&metadata, order(&mine, Role::Quiesced, 2)).await.unwrap_err();
    assert!(matches!(late, GateError::Overtaken { .. }), "{late}");
    assert_eq!(running(&shard).await.len(), 5);

    let status = fence::status(&metadata).await.unwrap();
    assert!(status.works());
    let [pay] = <[_; 1]>::try_from(status.namespaces).unwrap();
    assert_eq!((pay.role.as_str(), pay.generation, pay.open), ("active", 3, true));
    assert_eq!((pay.dags, pay.paused, pay.noted), (4, 2, 0));

    // Removing it says what is lost.
    close(&metadata, order(&mine, Role::Retired, 3)).await.unwrap();
    let refused = fence::remove(&metadata, false).await.unwrap_err();
    assert!(matches!(refused, RemoveError::InUse { noted: 4, fenced: 4 }), "{refused}");
    assert_eq!(fence::remove(&metadata, true).await.unwrap(), Removal::Complete);
    assert_eq!(fence::remove(&metadata, true).await.unwrap(), Removal::Nothing);
    query(&shard, "UPDATE dag SET is_paused = false").await;
    assert_eq!(running(&shard).await.len(), 7);
}

#[tokio::test]
async fn airflow_3_keeps_what_is_fenced_paused() {
    holds(AirflowVersion::V3_3_2).await;
}

#[tokio::test]
async fn airflow_2_keeps_what_is_fenced_paused() {
    holds(AirflowVersion::V2_11_2).await;
}

#[tokio::test]
async fn the_longest_prefix_decides_whatever_the_collation() {
    let shard = database(AirflowVersion::V3_3_2).await;
    let metadata = metadata(&shard);
    fence::install(&metadata, None).await.unwrap();
    let rows = [
        ("a.", true),
        ("a.b.", false),
        ("a.b.c.", true),
        ("a.b.c.d", false),
        ("a.é", false),
        ("a.Z", false),
        ("b", true),
        ("ba", false),
        ("über_", false),
    ];
    for (prefix, open) in rows {
        let sql = format!("INSERT INTO airfleet_fence VALUES ('{prefix}', 'n', {open})");
        query(&shard, &sql).await;
    }
    // Found another way: by trying every prefix.
    let expected = |dag_id: &str| {
        let own = rows.iter().filter(|(prefix, _)| dag_id.starts_with(prefix));
        own.max_by_key(|(prefix, _)| prefix.len()).is_some_and(|(_, open)| !open)
    };
    let parts = ["a.", "a", "b.", "b", "c.", "d", "é", "Z", "z", "über_", "ü", "~", "-", "_"];
    let mut asked = 0;
    let mut values = Vec::new();
    for one in parts {
        for two in parts {
            for three in ["", "c.", "c.d", "c.dd", "x"] {
                asked += 1;
                let dag_id = format!("{one}{two}{three}");
                values.push(format!("('{dag_id}', {})", expected(&dag_id)));
            }
        }
    }
    let sql = format!(
        "SELECT count(*), count(*) FILTER (WHERE f), \
           coalesce(string_agg(id, ' ') FILTER (WHERE airfleet_fenced(id) <> f), 'none') \
         FROM (VALUES {}) AS v (id, f)",
        values.join(", ")
    );
    let answer = query(&shard, &sql).await;
    let fields: Vec<_> = answer.split_whitespace().collect();
    assert_eq!(fields[0], asked.to_string());
    assert!(fields[1].parse::<i64>().unwrap() > 50, "{answer}");
    assert_eq!(fields[2], "none", "differ");
}

#[tokio::test]
async fn what_was_altered_is_seen_and_put_right() {
    let shard = database(AirflowVersion::V3_3_2).await;
    let metadata = metadata(&shard);
    fence::install(&metadata, None).await.unwrap();
    let mine = prefixes(&["pay__"]);
    close(&metadata, order(&mine, Role::Staged, 1)).await.unwrap();
    let breakages = [
        ("DROP TRIGGER airfleet_keep_paused ON dag", TriggerState::Missing),
        ("ALTER TABLE dag DISABLE TRIGGER airfleet_keep_paused", TriggerState::Disabled),
        (
            "CREATE OR REPLACE FUNCTION airfleet_keep_paused() RETURNS trigger LANGUAGE plpgsql \
             AS 'BEGIN RETURN NEW; END'",
            TriggerState::Altered,
        ),
        (
            "CREATE OR REPLACE FUNCTION airfleet_fenced(sought text) RETURNS boolean \
             LANGUAGE sql AS 'SELECT false'",
            TriggerState::Altered,
        ),
    ];
    for (index, (breakage, state)) in breakages.into_iter().enumerate() {
        query(&shard, breakage).await;
        assert_eq!(fence::status(&metadata).await.unwrap().trigger, state);
        let dag = format!("pay__{index}");
        add(&shard, AirflowVersion::V3_3_2, &[(&dag, false)]).await;
        assert_eq!(running(&shard).await, std::slice::from_ref(&dag));
        assert_eq!(fence::install(&metadata, None).await.unwrap(), Installed::Now);
        let status = fence::status(&metadata).await.unwrap();
        assert_eq!((status.trigger, status.leaks, status.works()), (TriggerState::Works, 1, false));
        let mut tx = metadata.begin().await.unwrap();
        assert_eq!(gate::enforce(&mut tx).await.unwrap(), [dag]);
        tx.commit().await.unwrap();
        assert!(fence::status(&metadata).await.unwrap().works());
    }
    query(&shard, "INSERT INTO airfleet_fence_version VALUES (99, now(), 'later')").await;
    assert_eq!(fence::install(&metadata, None).await.unwrap(), Installed::Newer(99));
}

#[tokio::test]
async fn the_trigger_never_raises_and_denies_in_doubt() {
    let shard = database(AirflowVersion::V3_3_2).await;
    let metadata = metadata(&shard);
    fence::install(&metadata, None).await.unwrap();
    // Somebody drops a table under it.
    query(&shard, "DROP TABLE airfleet_fence CASCADE").await;
    add(&shard, AirflowVersion::V3_3_2, &[("pay__a", false)]).await;
    query(&shard, "UPDATE dag SET is_paused = false").await;
    assert_eq!(running(&shard).await, Vec::<String>::new());
    query(&shard, "DELETE FROM airfleet_fence_version").await;
    assert_eq!(fence::install(&metadata, None).await.unwrap(), Installed::Now);
    query(&shard, "UPDATE dag SET is_paused = false").await;
    assert_eq!(running(&shard).await, ["pay__a"]);
}

#[tokio::test]
async fn namespaces_of_other_shards_are_fenced_and_left_alone_again() {
    let shard = database(AirflowVersion::V3_3_2).await;
    let metadata = metadata(&shard);
    fence::install(&metadata, None).await.unwrap();
    let mine = prefixes(&["pay__"]);
    open(&metadata, order(&mine, Role::Active, 1)).await.unwrap();
    let dags = [("pay__a", false), ("tax__a", false), ("ads__a", false), ("mine", false)];
    add(&shard, AirflowVersion::V3_3_2, &dags).await;
    let elsewhere = async |prefixes: &[(&str, &str)]| {
        let prefixes: Vec<_> =
            prefixes.iter().map(|(p, n)| ((*p).to_owned(), (*n).to_owned())).collect();
        let mut tx = metadata.begin().await.unwrap();
        gate::set_elsewhere(&mut tx, &prefixes).await.unwrap();
        let paused = gate::enforce(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        paused
    };
    // What is its own stays its own, whatever anybody says.
    let all = [("ads__", "ads"), ("tax__", "tax"), ("pay__", "pay")];
    assert_eq!(elsewhere(&all).await, ["ads__a", "tax__a"]);
    assert_eq!(elsewhere(&all).await, Vec::<String>::new());
    query(&shard, "UPDATE dag SET is_paused = false").await;
    assert_eq!(running(&shard).await, ["mine", "pay__a"]);
    assert_eq!(fence::status(&metadata).await.unwrap().elsewhere, 2);

    // One of them comes here, as its users had it; the other one leaves the fleet.
    let tax = prefixes(&["tax__"]);
    let arrived =
        Order { namespace: "tax", prefixes: &tax, role: Role::Active, place: Place::default() };
    assert_eq!(open(&metadata, arrived).await.unwrap(), 1);
    elsewhere(&[]).await;
    assert_eq!(running(&shard).await, ["mine", "pay__a", "tax__a"]);
    query(&shard, "UPDATE dag SET is_paused = false").await;
    assert_eq!(running(&shard).await, ["ads__a", "mine", "pay__a", "tax__a"]);
}

/// Airflow reads the fence as open, the agent closes it, Airflow commits.
#[tokio::test]
async fn a_transaction_that_began_before_the_fence_closed_is_waited_for() {
    let shard = database(AirflowVersion::V3_3_2).await;
    let metadata = metadata(&shard);
    fence::install(&metadata, None).await.unwrap();
    let mine = prefixes(&["pay__"]);
    open(&metadata, order(&mine, Role::Active, 1)).await.unwrap();
    add(&shard, AirflowVersion::V3_3_2, &[("pay__old", true)]).await;
    let look = async || {
        let mut tx = metadata.begin().await.unwrap();
        gate::look(&mut tx, "pay", &mine).await.unwrap()
    };
    assert!(look().await.is_settled);

    // Another session of Airflow: it creates a DAG, and takes its time to commit.
    let mut airflow = metadata.begin().await.unwrap();
    let insert = "INSERT INTO dag SELECT (jsonb_populate_record(d, \
                  '{\"dag_id\": \"pay__new\", \"is_paused\": false}')).* FROM dag d";
    sqlx::query(insert).execute(airflow.connection()).await.unwrap();
    close(&metadata, order(&mine, Role::Quiesced, 1)).await.unwrap();
    let sight = look().await;
    assert_eq!((sight.unpaused, sight.is_settled), (0, false));
    airflow.commit().await.unwrap();
    let sight = look().await;
    assert_eq!((sight.unpaused, sight.is_settled), (1, true));
    assert_eq!(close(&metadata, order(&mine, Role::Quiesced, 1)).await.unwrap(), 1);

    // One that unpauses a DAG that is there holds its row: closing waits for it.
    open(&metadata, order(&mine, Role::Active, 2)).await.unwrap();
    let mut airflow = metadata.begin().await.unwrap();
    let unpause = "UPDATE dag SET is_paused = false WHERE dag_id = 'pay__old'";
    sqlx::query(unpause).execute(airflow.connection()).await.unwrap();
    let closing = {
        let (metadata, mine) = (metadata.clone(), mine.clone());
        tokio::spawn(async move { close(&metadata, order(&mine, Role::Quiesced, 2)).await })
    };
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    eventually("closing waits", async || (query(&shard, waits).await.trim() == "1").then_some(()))
        .await;
    airflow.commit().await.unwrap();
    assert_eq!(closing.await.unwrap().unwrap(), 2);
    assert_eq!(running(&shard).await, Vec::<String>::new());
}

/// The agent's role has what `--grant-to` gives it, Airflow's has nothing of the fence.
#[tokio::test]
async fn roles_need_no_more_than_they_are_granted() {
    let shard = database(AirflowVersion::V3_3_2).await;
    let agent = |args: &'static [&'static str], user: Option<&'static str>| {
        let url = match user {
            None => shard.metadata_url(),
            Some(user) => {
                let (_, host) = shard
                    .metadata_url()
                    .split_once('@')
                    .map(|(a, b)| (a.to_owned(), b.to_owned()))
                    .unwrap();
                format!("postgres://{user}:secret@{host}")
            }
        };
        let set = format!("airflow.metadata_url={url}");
        async move {
            let output = Command::new(env!("CARGO_BIN_EXE_airfleet-agent"))
                .arg("fence")
                .args(args)
                .args(["--set", &set])
                .output()
                .await
                .unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        }
    };
    query(
        &shard,
        "CREATE ROLE reader LOGIN PASSWORD 'secret'; CREATE ROLE writer LOGIN PASSWORD 'secret'; \
         CREATE ROLE airflow LOGIN PASSWORD 'secret'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; \
         GRANT ALL ON ALL TABLES IN SCHEMA public TO airflow",
    )
    .await;
    let (code, text, _) = agent(&["status"], Some("reader")).await;
    assert_eq!(code, Some(2));
    assert!(text.contains("no fence is installed"), "{text}");
    let (code, _, why) = agent(&["install"], Some("reader")).await;
    assert_eq!(code, Some(1));
    assert!(why.contains("may not install the fence") && why.contains("--grant-to"), "{why}");

    let (code, text, why) = agent(&["install", "--grant-to", "writer"], None).await;
    assert_eq!(code, Some(0), "{why}");
    assert!(text.contains("writer may do what an agent does"), "{text}");
    let mut tx_metadata = shard.metadata_url();
    tx_metadata = format!("postgres://writer:secret@{}", tx_metadata.split_once('@').unwrap().1);
    let writer = Metadata::new(&url(tx_metadata), Duration::from_secs(30)).unwrap();
    let mine = prefixes(&["pay__"]);
    add(&shard, AirflowVersion::V3_3_2, &[("pay__a", false)]).await;
    assert_eq!(close(&writer, order(&mine, Role::Staged, 1)).await.unwrap(), 1);

    // As Airflow itself, which was granted nothing of the fence.
    let airflow =
        format!("postgres://airflow:secret@{}", shard.metadata_url().split_once('@').unwrap().1);
    let airflow = Metadata::new(&url(airflow), Duration::from_secs(30)).unwrap();
    let mut tx = airflow.begin().await.unwrap();
    let unpaused = sqlx::query("UPDATE dag SET is_paused = false").execute(tx.connection()).await;
    assert_eq!(unpaused.unwrap().rows_affected(), 1);
    tx.commit().await.unwrap();
    assert_eq!(running(&shard).await, Vec::<String>::new());

    let (code, text, _) = agent(&["status"], Some("writer")).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("trigger on dag works") && text.contains("staged"), "{text}");
    let (code, _, why) = agent(&["remove"], None).await;
    assert_eq!(code, Some(1));
    assert!(why.contains("use --force"), "{why}");
    let (code, text, _) = agent(&["remove", "--force"], None).await;
    assert_eq!(code, Some(0), "{text}");
}
