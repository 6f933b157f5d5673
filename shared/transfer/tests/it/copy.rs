//! Rows from one shard to another.

use airfleet_domain::{
    moves::{History, Part},
    roles::Role,
};
use airfleet_transfer::{Error, Piece, Scope, copy::Chunk, forget, removal};

use crate::ends::{End, Server, copy, export, import, order, place, scope};

/// How each table's rows of a namespace read without what a shard numbers: written down here anew,
/// so that nothing is compared with itself.
const READ: &[(&str, &str)] = &[
    (
        "dag",
        "SELECT jsonb_build_array(x.dag_id, x.next_dagrun, x.next_dagrun_create_after, coalesce(p.is_paused, x.is_paused)) \
             FROM dag x LEFT JOIN airfleet_pause p ON p.dag_id = x.dag_id WHERE OF",
    ),
    ("dag_version", "SELECT to_jsonb(x) FROM dag_version x WHERE OF"),
    ("serialized_dag", "SELECT to_jsonb(x) FROM serialized_dag x WHERE OF"),
    ("dag_code", "SELECT to_jsonb(x) FROM dag_code x WHERE OF"),
    (
        "deadline_alert",
        "SELECT to_jsonb(a) FROM deadline_alert a JOIN serialized_dag x ON x.id = a.serialized_dag_id WHERE OF",
    ),
    (
        "dag_run",
        "SELECT to_jsonb(x) - 'id' - 'creating_job_id' - 'scheduled_by_job_id' - 'log_template_id' FROM dag_run x WHERE OF",
    ),
    (
        "dag_run_note",
        "SELECT to_jsonb(n) - 'dag_run_id' || jsonb_build_array(x.dag_id, x.run_id) \
                      FROM dag_run_note n JOIN dag_run x ON x.id = n.dag_run_id WHERE OF",
    ),
    (
        "task_instance",
        "SELECT to_jsonb(x) - 'queued_by_job_id' - 'external_executor_id' FROM task_instance x WHERE OF",
    ),
    (
        "task_instance_history",
        "SELECT to_jsonb(x) - 'queued_by_job_id' FROM task_instance_history x WHERE OF",
    ),
    (
        "xcom",
        "SELECT to_jsonb(x) - 'dag_run_id' || jsonb_build_array(r.dag_id, r.run_id) \
              FROM xcom x JOIN dag_run r ON r.id = x.dag_run_id WHERE OF",
    ),
    ("task_map", "SELECT to_jsonb(x) FROM task_map x WHERE OF"),
    (
        "rendered",
        "SELECT jsonb_build_array(dag_id, task_id, run_id, map_index, rendered_fields::text, k8s_pod_yaml) \
                  FROM rendered_task_instance_fields x WHERE OF",
    ),
    (
        "ti_note",
        "SELECT to_jsonb(n) FROM task_instance_note n JOIN task_instance x ON x.id = n.ti_id WHERE OF",
    ),
    (
        "reschedule",
        "SELECT to_jsonb(n) - 'id' FROM task_reschedule n JOIN task_instance x ON x.id = n.ti_id WHERE OF",
    ),
    (
        "state",
        "SELECT to_jsonb(x) - 'id' - 'dag_run_id' || jsonb_build_array(r.dag_id, r.run_id) \
               FROM task_state_store x JOIN dag_run r ON r.id = x.dag_run_id WHERE OF",
    ),
    (
        "hitl",
        "SELECT to_jsonb(n) FROM hitl_detail n JOIN task_instance x ON x.id = n.ti_id WHERE OF",
    ),
    (
        "hitl_history",
        "SELECT to_jsonb(n) FROM hitl_detail_history n \
                      JOIN task_instance_history x ON x.task_instance_id = n.ti_history_id WHERE OF",
    ),
    ("log", "SELECT to_jsonb(x) - 'id' FROM log x WHERE OF"),
    (
        "event",
        "SELECT to_jsonb(x) - 'id' - 'asset_id' || jsonb_build_array(a.name) \
               FROM (SELECT *, source_dag_id AS dag_id FROM asset_event) x JOIN asset a ON a.id = x.asset_id WHERE OF",
    ),
    (
        "queue",
        "SELECT jsonb_build_array(a.name, x.dag_id, x.created_at) \
               FROM (SELECT *, target_dag_id AS dag_id FROM asset_dag_run_queue) x JOIN asset a ON a.id = x.asset_id WHERE OF",
    ),
    (
        "consumed",
        "SELECT jsonb_build_array(x.run_id, x.dag_id, e.timestamp, e.source_run_id) FROM dagrun_asset_event c \
                  JOIN dag_run x ON x.id = c.dag_run_id JOIN asset_event e ON e.id = c.event_id WHERE OF",
    ),
];

/// All rows of a namespace, a line each.
async fn rows(server: &Server, end: &End, prefix: &str) -> Vec<String> {
    let each: Vec<String> = READ
        .iter()
        .map(|(table, sql)| {
            let sql = sql.replace("OF", &format!("starts_with(x.dag_id, '{prefix}')"));
            format!("SELECT '{table} ' || CAST(q.* AS text) FROM ({sql}) q")
        })
        .collect();
    let text = server.query(end, &each.join(" UNION ALL ")).await;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

pub(crate) async fn assert_same(server: &Server, source: &End, target: &End, prefix: &str) {
    let (from, to) = (rows(server, source, prefix).await, rows(server, target, prefix).await);
    let differing: Vec<_> = from.iter().zip(&to).filter(|(a, b)| a != b).take(3).collect();
    assert!(
        from.len() == to.len() && differing.is_empty(),
        "{} {} {differing:?}",
        from.len(),
        to.len()
    );
    for (table, _) in READ {
        let prefix = format!("{table} ");
        assert!(
            from.iter().any(|line| line.starts_with(&prefix)),
            "no rows of {table} were compared"
        );
    }
}

/// Two shards: the namespace sealed on one and staged on the other, each with a neighbour whose
/// numbers collide.
pub(crate) async fn two(size: [u32; 3]) -> (Server, End, End, Scope) {
    let server = Server::start().await;
    let (source, target) = (server.end("source").await, server.end("target").await);
    let scope = scope(&["pay__"]);
    server.fill(&source, "ads__", [2, 7, 3]).await;
    server.fill(&source, "pay__", size).await;
    server.fill(&source, "pay_x", [1, 5, 3]).await;
    // Between these two lies whatever begins with pay__, in every order of texts.
    server.fill(&target, "pay_", [1, 9, 3]).await;
    server.fill(&target, "paz", [3, 11, 3]).await;
    // As the target's own parse makes them.
    server
        .query(&target, "INSERT INTO asset (id, name, uri, \"group\", extra, created_at, updated_at) \
            SELECT 900 - n, 'pay__asset' || n, 's3://pay__/' || n, 'asset', '{}', now(), now() FROM generate_series(1, 3) n")
        .await;
    source.be(&scope, Role::Sealed, 4).await;
    target.be(&scope, Role::Staged, 4).await;
    (server, source, target, scope)
}

#[tokio::test]
async fn everything_arrives_and_nothing_else_changes() {
    let (server, source, target, scope) = two([4, 60, 9]).await;
    let before = server.print(&target).await;
    let at_source = server.print(&source).await;
    let (installed, trailer) =
        copy(&source, &target, &scope, order(Part::Rest, 1, 4), History::Full).await.unwrap();
    assert_eq!(
        (installed.tables, installed.marks),
        (trailer.tables.clone(), trailer.marks.clone())
    );
    assert_same(&server, &source, &target, "pay__").await;
    assert_eq!(server.print(&source).await, at_source, "an export changes nothing");

    let order_of_runs = "SELECT md5(string_agg(dag_id || run_id, ',' ORDER BY id)) FROM dag_run WHERE starts_with(dag_id, 'pay__')";
    assert_eq!(
        server.query(&source, order_of_runs).await,
        server.query(&target, order_of_runs).await
    );
    let count = |table: &str| trailer.tables.iter().find(|sum| &*sum.table == table).unwrap().rows;
    assert_eq!((count("dag_run"), count("task_instance")), (240, 2_160));
    let mark = &trailer.marks[0];
    assert_eq!((&*mark.dag_id, mark.runs, mark.unfinished_runs), ("pay__d1", 60, 2));
    // The one before it is manual, and says nothing of the schedule.
    assert_eq!(mark.newest_logical_date_us, Some((1_700_000_000 + 60 * 3_600) * 1_000_000));
    let paused: Vec<_> = trailer.marks.iter().map(|mark| mark.paused).collect();
    assert_eq!(paused, [false, true, false, false], "as users chose, not as the fence forces");

    // Nothing that means something on the source alone came along.
    let local = "SELECT (SELECT count(*) FROM dag_run WHERE starts_with(dag_id, 'pay__') \
          AND (creating_job_id IS NOT NULL OR scheduled_by_job_id IS NOT NULL \
            OR log_template_id IS DISTINCT FROM (SELECT max(id) FROM log_template))) \
        + (SELECT count(*) FROM task_instance WHERE starts_with(dag_id, 'pay__') \
          AND (queued_by_job_id IS NOT NULL OR external_executor_id IS NOT NULL)) \
        + (SELECT count(*) FROM dag WHERE starts_with(dag_id, 'pay__') AND NOT is_paused)";
    assert_eq!(server.query(&target, local).await, "0");

    // The same attempt is done, and says the same.
    let again = import(&target, &scope, order(Part::Rest, 1, 4)).await.unwrap_err();
    assert_eq!(again.tables, trailer.tables);
    // Another one does it all again, with the same result.
    copy(&source, &target, &scope, order(Part::Rest, 2, 4), History::Full).await.unwrap();
    assert_same(&server, &source, &target, "pay__").await;

    // Lifting the fence gives users' states back; the scheduler finds everything.
    target.be(&scope, Role::Active, 5).await;
    let running = "SELECT count(*) FROM dag WHERE starts_with(dag_id, 'pay__') AND NOT is_paused";
    assert_eq!(server.query(&target, running).await, "3");

    // Clearing up leaves the target as it was, to the byte.
    let told =
        removal::remove_some(&target.database, &target.catalog().await, &scope, place(5), 50).await;
    assert!(matches!(told, Err(Error::NotInRole { .. })), "{told:?}");
    target.be(&scope, Role::Retired, 6).await;
    let late =
        removal::remove_some(&target.database, &target.catalog().await, &scope, place(5), 50).await;
    assert!(matches!(late, Err(Error::Overtaken { .. })), "{late:?}");
    let mut batches = 0;
    while !removal::remove_some(&target.database, &target.catalog().await, &scope, place(6), 50)
        .await
        .unwrap()
        .is_complete
    {
        batches += 1;
    }
    assert!(batches > 6, "{batches}");
    assert_eq!(server.print(&target).await, before);
    forget(&target.database, &"move-1".parse().unwrap()).await.unwrap();
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'airfleet_move%'";
    assert_eq!(server.query(&target, left).await, "0");
}

#[tokio::test]
async fn what_goes_ahead_replaces_what_the_target_parsed_and_what_an_earlier_stay_left() {
    let (server, source, target, scope) = two([3, 12, 5]).await;
    // An earlier stay, and a DAG that is no more; other versions of the same numbers.
    server.fill(&target, "pay__", [4, 5, 3]).await;
    server.query(&target, "UPDATE dag SET is_stale = true WHERE starts_with(dag_id, 'pay__') AND dag_id LIKE '%4'; \
        UPDATE dag_version SET bundle_version = 'old' WHERE starts_with(dag_id, 'pay__')").await;
    target.be(&scope, Role::Staged, 4).await;
    let (installed, _) =
        copy(&source, &target, &scope, order(Part::Ahead, 1, 4), History::Full).await.unwrap();
    let tables: Vec<&str> = installed.tables.iter().map(|sum| &*sum.table).collect();
    let definitions = ["dag_code", "dag_version", "deadline_alert", "serialized_dag"];
    let of_runs = ["dag_run", "log", "rendered_task_instance_fields", "task_instance", "xcom"];
    assert!(definitions.iter().chain(&of_runs).all(|it| tables.contains(it)), "{tables:?}");
    assert!(!tables.contains(&"task_instance_note"), "it names no run");
    assert!(installed.marks.is_empty());
    let versions = "SELECT count(*), count(bundle_version) FROM dag_version WHERE starts_with(dag_id, 'pay__')";
    assert_eq!(server.query(&target, versions).await, "6\t0");
    copy(&source, &target, &scope, order(Part::Rest, 1, 4), History::Full).await.unwrap();
    assert_same(&server, &source, &target, "pay__").await;
}

#[tokio::test]
async fn the_minimum_is_what_schedules_go_on_from_and_what_has_not_ended() {
    let (server, source, target, scope) = two([3, 40, 5]).await;
    // An old run that was cleared is among what has not ended.
    server.query(&source, "UPDATE dag_run SET state = 'queued' WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__3'").await;
    let (installed, _) =
        copy(&source, &target, &scope, order(Part::Rest, 1, 4), History::Minimal).await.unwrap();
    let runs = "SELECT string_agg(run_id, ' ' ORDER BY id) FROM dag_run WHERE dag_id = 'pay__d1'";
    assert_eq!(server.query(&target, runs).await, "scheduled__3 manual__é 39 scheduled__40");
    let tasks = "SELECT count(*) FROM task_instance WHERE starts_with(dag_id, 'pay__')";
    assert_eq!(server.query(&target, tasks).await, (7 * 5).to_string());
    let sealed = export(&source, &scope, Part::Rest, History::Minimal, None).await;
    let marks = last_trailer(sealed).await.marks;
    let cursor = |marks: &[airfleet_domain::moves::Mark]| -> Vec<_> {
        marks
            .iter()
            .map(|m| (m.dag_id.clone(), m.newest_logical_date_us, m.unfinished_runs))
            .collect()
    };
    assert_eq!(cursor(&installed.marks), cursor(&marks));
}

async fn last_trailer(mut export: airfleet_transfer::Export) -> airfleet_transfer::Trailer {
    while let Some(piece) = export.next().await.unwrap() {
        if let Piece::Trailer(trailer) = piece {
            return trailer;
        }
    }
    panic!("no trailer");
}

#[tokio::test]
async fn an_import_that_broke_off_goes_on_where_everything_was_kept() {
    let (server, source, target, scope) = two([3, 150, 20]).await;
    let mut first = import(&target, &scope, order(Part::Rest, 1, 4)).await.unwrap();
    let mut rows_out = export(&source, &scope, Part::Rest, History::Full, None).await;
    let mut chunks = 0;
    let mut acknowledged = None;
    while let Some(piece) = rows_out.next().await.unwrap() {
        chunks += i32::from(matches!(piece, Piece::Chunk(_)));
        if let Some(up_to) = first.take(piece).await.unwrap() {
            acknowledged = Some(up_to);
        }
        if chunks == 20 {
            break;
        }
    }
    // Killed, both of them.
    drop((first, rows_out));
    let mut second = import(&target, &scope, order(Part::Rest, 1, 4)).await.unwrap();
    let kept = second.kept().unwrap();
    assert_eq!(Some(kept.sequence), acknowledged);
    assert!(kept.sequence > 1 && kept.sequence < 20, "{kept:?}");
    let mut rows_out = export(&source, &scope, Part::Rest, History::Full, Some(kept)).await;
    let begin = rows_out.next().await.unwrap().unwrap();
    assert_eq!(begin, Piece::Begin { after: Some(kept), keeps_ahead: false });
    second.take(begin).await.unwrap();
    let mut firsts = Vec::new();
    while let Some(piece) = rows_out.next().await.unwrap() {
        if let Piece::Trailer(trailer) = piece {
            second.install(trailer).await.unwrap();
            break;
        }
        if let Piece::Chunk(chunk) = &piece {
            firsts.push(chunk.position.sequence);
        }
        second.take(piece).await.unwrap();
    }
    assert_eq!(firsts.first(), Some(&(kept.sequence + 1)));
    assert_same(&server, &source, &target, "pay__").await;
}

#[tokio::test]
async fn what_was_kept_of_other_rows_is_forgotten() {
    let (server, source, target, scope) = two([3, 150, 20]).await;
    let mut first = import(&target, &scope, order(Part::Rest, 1, 4)).await.unwrap();
    let mut rows_out = export(&source, &scope, Part::Rest, History::Full, None).await;
    for _ in 0..25 {
        first.take(rows_out.next().await.unwrap().unwrap()).await.unwrap();
    }
    drop((first, rows_out));
    // The source was not sealed after all.
    server.query(&source, "UPDATE dag_run SET conf = '[1]' WHERE dag_id = 'pay__d1'").await;
    let second = import(&target, &scope, order(Part::Rest, 1, 4)).await.unwrap();
    assert!(second.kept().is_some());
    let mut rows_out = export(&source, &scope, Part::Rest, History::Full, second.kept()).await;
    assert_eq!(
        rows_out.next().await.unwrap(),
        Some(Piece::Begin { after: None, keeps_ahead: false })
    );
    drop((second, rows_out));
    copy(&source, &target, &scope, order(Part::Rest, 1, 4), History::Full).await.unwrap();
    assert_same(&server, &source, &target, "pay__").await;
}

#[tokio::test]
async fn rows_that_were_changed_on_the_way_or_are_missing_are_refused() {
    let (server, source, target, scope) = two([2, 20, 5]).await;
    let before = server.print(&target).await;
    for (attempt, damage) in
        ["a bit", "a bit with its checksum", "a chunk is missing"].into_iter().enumerate()
    {
        let mut into =
            import(&target, &scope, order(Part::Rest, attempt as u32 + 1, 4)).await.unwrap();
        let mut out = export(&source, &scope, Part::Rest, History::Full, None).await;
        let (mut last, mut refused) = (airfleet_transfer::copy::Position::default(), None);
        while let Some(mut piece) = out.next().await.unwrap() {
            if let Piece::Chunk(chunk) = &mut piece {
                let is_it = chunk.table == "xcom";
                let mut bytes = chunk.rows.to_vec();
                let end = bytes.len() - 1;
                bytes[end] ^= u8::from(is_it);
                *chunk = match damage {
                    "a bit" => Chunk { rows: bytes.into(), ..chunk.clone() },
                    // By somebody who knows how chunks are made.
                    "a bit with its checksum" => Chunk::new(&chunk.table, bytes.into(), last),
                    _ if is_it => continue,
                    _ => chunk.clone(),
                };
                last = chunk.position;
            }
            if let Piece::Trailer(mut trailer) = piece {
                if damage == "a bit with its checksum" {
                    trailer.last = Some(last);
                }
                refused = into.install(trailer).await.err();
                break;
            }
            if let Err(error) = into.take(piece).await {
                refused = Some(error);
                break;
            }
        }
        let refused = refused.expect(damage);
        assert_eq!(refused.code(), "COPY_DAMAGED", "{damage}: {refused}");
        assert_eq!(server.print(&target).await, before, "{damage}");
    }
}

#[tokio::test]
async fn who_was_overtaken_or_is_not_fenced_installs_nothing() {
    let (server, source, target, scope) = two([3, 40, 9]).await;
    let before = server.print(&target).await;
    let code = async |order| {
        copy(&source, &target, &scope, order, History::Full).await.unwrap_err().code()
    };
    assert_eq!(code(order(Part::Rest, 1, 3)).await, "ORDER_OVERTAKEN");
    assert_eq!(
        code(order(Part::Rest, 2, 5)).await,
        "NOT_IN_ROLE",
        "an order that nobody obeyed yet"
    );
    target.be(&scope, Role::Active, 5).await;
    assert_eq!(code(order(Part::Rest, 3, 5)).await, "NOT_IN_ROLE");
    target.be(&scope, Role::Staged, 6).await;
    server.query(&target, "UPDATE airfleet_fence SET open = true").await;
    assert_eq!(code(order(Part::Rest, 4, 6)).await, "NOT_FENCED");
    assert_eq!(server.print(&target).await, before);
    server.query(&target, "UPDATE airfleet_fence SET open = false").await;
    copy(&source, &target, &scope, order(Part::Rest, 5, 6), History::Full).await.unwrap();
    assert_same(&server, &source, &target, "pay__").await;
}

#[tokio::test]
async fn a_trigger_of_somebody_else_that_changes_rows_is_noticed() {
    let (server, source, target, scope) = two([2, 8, 3]).await;
    let before = server.print(&target).await;
    server
        .query(
            &target,
            "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ \
        BEGIN NEW.hostname := 'spoilt'; RETURN NEW; END $$; \
        CREATE TRIGGER spoil BEFORE INSERT ON task_instance FOR EACH ROW EXECUTE FUNCTION spoil()",
        )
        .await;
    let refused =
        copy(&source, &target, &scope, order(Part::Rest, 1, 4), History::Full).await.unwrap_err();
    assert_eq!(refused.code(), "COPY_DIFFERS", "{refused}");
    assert!(refused.to_string().contains("task_instance"), "{refused}");
    assert_eq!(server.print(&target).await, before);
}

#[tokio::test]
async fn assets_that_the_target_did_not_parse_yet_are_waited_for() {
    let (server, source, target, scope) = two([2, 8, 3]).await;
    server.query(&target, "DELETE FROM asset WHERE name = 'pay__asset1'").await;
    let refused =
        copy(&source, &target, &scope, order(Part::Rest, 1, 4), History::Full).await.unwrap_err();
    assert_eq!(refused.code(), "COPY_UNRESOLVED", "{refused}");
}

#[tokio::test]
async fn a_database_that_sorts_by_language_gives_and_takes_the_same_rows() {
    let server = Server::start().await;
    let (source, target) = (server.end_in_english("source").await, server.end("target").await);
    let scope = scope(&["pay__"]);
    // Neighbours in English, or by bytes, or for somebody who takes a prefix for a pattern.
    for prefix in ["PAY__", "pay_", "payx_", "paz", "pay-"] {
        server.fill(&source, prefix, [1, 4, 3]).await;
    }
    server.fill(&source, "pay__", [3, 40, 9]).await;
    let first = "SELECT min(dag_id) <> 'PAY__d1' FROM dag";
    assert_eq!(server.query(&source, first).await, "t", "it does not sort by bytes");
    server
        .query(
            &target,
            "INSERT INTO asset (name, uri, \"group\", extra, created_at, updated_at) \
               SELECT 'pay__asset' || n, 's3://pay__/' || n, 'asset', '{}', now(), now() \
               FROM generate_series(1, 3) n",
        )
        .await;
    let before = server.print(&target).await;
    source.be(&scope, Role::Sealed, 1).await;
    target.be(&scope, Role::Staged, 1).await;
    copy(&source, &target, &scope, order(Part::Rest, 1, 1), History::Full).await.unwrap();
    assert_same(&server, &source, &target, "pay__").await;
    let there = "SELECT count(*) FROM dag";
    assert_eq!(server.query(&target, there).await, "3");

    // And back again, into the one that sorts by language.
    server.query(&target, "UPDATE dag_run SET conf = '[2]' WHERE dag_id = 'pay__d1'").await;
    source.be(&scope, Role::Staged, 2).await;
    target.be(&scope, Role::Sealed, 2).await;
    copy(&target, &source, &scope, order(Part::Rest, 1, 2), History::Full).await.unwrap();
    assert_same(&server, &target, &source, "pay__").await;
    target.be(&scope, Role::Retired, 3).await;
    let catalog = target.catalog().await;
    while !removal::remove_some(&target.database, &catalog, &scope, place(3), 1_000)
        .await
        .unwrap()
        .is_complete
    {}
    // A bundle is shared with whoever else comes, and stays.
    let left = server.print(&target).await;
    let left: Vec<&str> = left.lines().filter(|line| !line.starts_with("dag_bundle")).collect();
    assert_eq!(left, before.lines().collect::<Vec<_>>());
}
