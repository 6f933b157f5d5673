//! Runs that ended go ahead, and only what is new or changed goes under seal.

use std::sync::Arc;

use airfleet_domain::{
    moves::{History, Part},
    roles::Role,
};
use airfleet_transfer::{Ahead, Piece, RunName, Scope};

use crate::{
    copy::{assert_same, two},
    ends::{End, Server, copy_beyond, export_beyond, import, order, scope},
};

const FULL: (Part, History) = (Part::Rest, History::Full);

/// Sends ahead.
async fn go_ahead(source: &End, target: &End, scope: &Scope) -> Arc<Ahead> {
    let order = (order(Part::Ahead, 1, 4), History::Full);
    let went = copy_beyond(source, target, scope, order, None).await.unwrap();
    assert!(!went.keeps_ahead && went.trailer.changed.is_empty());
    went.ahead.expect("it is remembered")
}

fn run(dag_id: &str, run_id: &str) -> RunName {
    RunName { dag_id: dag_id.to_owned(), run_id: run_id.to_owned() }
}

#[tokio::test]
async fn under_seal_only_what_is_new_or_changed_is_sent() {
    let (server, source, target, scope) = two([4, 60, 9]).await;
    let ahead = go_ahead(&source, &target, &scope).await;
    let there = "SELECT count(*), count(*) FILTER (WHERE state NOT IN ('success', 'failed')) \
         FROM dag_run WHERE starts_with(dag_id, 'pay__')";
    assert_eq!(server.query(&target, there).await, "232\t0", "two of each DAG run still");

    // Meanwhile runs end, are cleared, and lose what they had.
    for change in [
        "UPDATE dag_run SET state = 'success' WHERE dag_id = 'pay__d1' AND run_id = 'manual__é 59'",
        "UPDATE dag_run SET state = 'queued', clear_number = 1 \
         WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__5'",
        "UPDATE task_instance SET state = NULL \
         WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__5' AND task_id = 't1'",
        "DELETE FROM xcom WHERE dag_id = 'pay__d3' AND run_id = 'manual__é 9' AND task_id = 't1'",
        "DELETE FROM rendered_task_instance_fields WHERE dag_id = 'pay__d4' AND run_id = 'scheduled__1'",
        "INSERT INTO log (dttm, dag_id, run_id, event) VALUES (now(), 'pay__d4', 'scheduled__2', 'late')",
        "INSERT INTO log (dttm, dag_id, run_id, event) VALUES (now(), 'pay__d4', 'of no run', 'odd')",
        "INSERT INTO log (dttm, dag_id, event) VALUES (now(), 'pay__d4', 'unpaused')",
        // Rows that do not name their run, of one that went.
        "UPDATE task_instance_note SET content = 'other'",
        "DELETE FROM dag_run_note WHERE dag_run_id IN (SELECT id FROM dag_run WHERE dag_id = 'pay__d1')",
    ] {
        server.query(&source, change).await;
    }
    // Whoever looks at a fenced DAG leaves traces there.
    let trace = "INSERT INTO log (dttm, dag_id, event) VALUES (now(), 'pay__d1', 'looked at')";
    server.query(&target, trace).await;

    let order_of = |attempt| (order(Part::Rest, attempt, 4), History::Full);
    let rest = copy_beyond(&source, &target, &scope, order_of(1), Some(ahead.clone())).await;
    let rest = rest.unwrap();
    assert!(rest.keeps_ahead);
    assert_eq!(
        rest.trailer.changed,
        [
            run("pay__d1", "scheduled__5"),
            run("pay__d3", "manual__é 9"),
            run("pay__d4", "scheduled__1"),
            run("pay__d4", "scheduled__2"),
        ]
    );
    assert_same(&server, &source, &target, "pay__").await;
    assert_eq!(
        (&rest.installed.tables, &rest.installed.marks),
        (&rest.trailer.tables, &rest.trailer.marks)
    );

    // The same as if everything had been sent.
    let whole = copy_beyond(&source, &target, &scope, order_of(2), None).await.unwrap();
    assert!(!whole.keeps_ahead && whole.trailer.changed.is_empty());
    assert_eq!(whole.trailer.tables, rest.trailer.tables);
    assert!(rest.bytes * 4 < whole.bytes, "{} of {}", rest.bytes, whole.bytes);
    assert_same(&server, &source, &target, "pay__").await;
}

#[tokio::test]
async fn of_the_minimum_no_run_goes_ahead() {
    let (server, source, target, scope) = two([2, 20, 3]).await;
    let order_of = |part| (order(part, 1, 4), History::Minimal);
    let ahead = copy_beyond(&source, &target, &scope, order_of(Part::Ahead), None).await.unwrap();
    let runs = "SELECT count(*) FROM dag_run WHERE starts_with(dag_id, 'pay__')";
    assert_eq!(server.query(&target, runs).await, "0");
    let rest = order_of(Part::Rest);
    let rest = copy_beyond(&source, &target, &scope, rest, ahead.ahead).await.unwrap();
    assert!(rest.keeps_ahead, "versions and code went");
    assert_eq!(server.query(&target, runs).await, "4");
}

#[tokio::test]
async fn where_a_run_was_removed_or_a_dag_changed_everything_is_sent() {
    let (server, source, target, scope) = two([3, 20, 5]).await;
    let ahead = go_ahead(&source, &target, &scope).await;
    let order_of = |attempt| (order(Part::Rest, attempt, 4), History::Full);

    let gone = "DELETE FROM dag_run WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__3'";
    server.query(&source, gone).await;
    let outdated = copy_beyond(&source, &target, &scope, order_of(1), Some(ahead.clone())).await;
    let outdated = outdated.err().expect("a run has no name by which it could be removed");
    assert_eq!(outdated.code(), "AHEAD_OUTDATED", "{outdated}");
    assert!(outdated.is_transient());

    // The same attempt again, of which something was kept.
    let whole = copy_beyond(&source, &target, &scope, order_of(1), None).await.unwrap();
    assert!(!whole.keeps_ahead);
    assert_same(&server, &source, &target, "pay__").await;

    let code = "UPDATE dag_code SET source_code = 'other' WHERE dag_id = 'pay__d3'";
    server.query(&source, code).await;
    let whole = copy_beyond(&source, &target, &scope, order_of(2), Some(ahead)).await.unwrap();
    assert!(!whole.keeps_ahead);
    assert_same(&server, &source, &target, "pay__").await;
}

#[tokio::test]
async fn what_changed_at_the_target_since_is_noticed() {
    let (server, source, target, scope) = two([3, 20, 5]).await;
    for (attempt, change) in [
        "UPDATE task_instance SET hostname = 'other' WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__3'",
        "DELETE FROM dag_run WHERE dag_id = 'pay__d1' AND run_id = 'scheduled__3'",
        "UPDATE dag_version SET bundle_version = 'other' WHERE dag_id = 'pay__d1'",
        "INSERT INTO log (dttm, dag_id, run_id, event) VALUES (now(), 'pay__d1', 'scheduled__3', 'cleared')",
    ]
    .into_iter()
    .enumerate()
    {
        let attempt = attempt as u32 * 2 + 1;
        let went = (order(Part::Ahead, attempt, 4), History::Full);
        let went = copy_beyond(&source, &target, &scope, went, None).await.unwrap();
        server.query(&target, change).await;
        let before = server.print(&target).await;
        let order_of = |attempt| (order(Part::Rest, attempt, 4), History::Full);
        let rest = copy_beyond(&source, &target, &scope, order_of(attempt), went.ahead).await;
        let refused = rest.err().expect(change);
        assert_eq!(refused.code(), "COPY_DIFFERS", "{change}: {refused}");
        assert_eq!(server.print(&target).await, before, "{change}");
        let whole = copy_beyond(&source, &target, &scope, order_of(attempt + 1), None).await;
        assert!(!whole.unwrap().keeps_ahead);
        assert_same(&server, &source, &target, "pay__").await;
    }
}

/// Breaks off with some chunks kept, and answers what the target then says.
async fn break_off(source: &End, target: &End, scope: &Scope, ahead: &Arc<Ahead>) -> i64 {
    let mut into = import(target, scope, order(Part::Rest, 1, 4)).await.unwrap();
    let mut out = export_beyond(source, scope, FULL, into.kept(), Some(ahead.clone())).await;
    let mut kept = None;
    while let Some(piece) = out.next().await.unwrap() {
        if matches!(piece, Piece::Trailer(_)) {
            break;
        }
        kept = into.take(piece).await.unwrap().or(kept);
    }
    kept.expect("something was kept")
}

#[tokio::test]
async fn what_broke_off_goes_on_with_or_without_what_went_ahead() {
    let (server, source, target, scope) = two([3, 60, 9]).await;
    let ahead = go_ahead(&source, &target, &scope).await;
    let clear = "UPDATE dag_run SET state = 'queued' WHERE run_id = 'scheduled__5'";
    server.query(&source, clear).await;
    let sequence = break_off(&source, &target, &scope, &ahead).await;

    // A source that was killed does not know what went ahead.
    let into = import(&target, &scope, order(Part::Rest, 1, 4)).await.unwrap();
    assert_eq!(into.kept().unwrap().sequence, sequence);
    let mut out = export_beyond(&source, &scope, FULL, into.kept(), None).await;
    let begin = out.next().await.unwrap();
    assert_eq!(begin, Some(Piece::Begin { after: None, keeps_ahead: false }));
    drop((into, out));

    // One that was not goes on.
    let into = import(&target, &scope, order(Part::Rest, 1, 4)).await.unwrap();
    let mut out = export_beyond(&source, &scope, FULL, into.kept(), Some(ahead.clone())).await;
    let begin = out.next().await.unwrap();
    assert_eq!(begin, Some(Piece::Begin { after: into.kept(), keeps_ahead: true }));
    drop((into, out));

    let done = (order(Part::Rest, 1, 4), History::Full);
    let done = copy_beyond(&source, &target, &scope, done, Some(ahead)).await.unwrap();
    assert!(done.keeps_ahead);
    assert_same(&server, &source, &target, "pay__").await;
    // What came back to life there does so with everything.
    target.be(&scope, Role::Active, 5).await;
    let unfinished =
        "SELECT count(*) FROM dag_run WHERE starts_with(dag_id, 'pay__') AND state = 'queued'";
    assert_eq!(server.query(&target, unfinished).await, "3");
}

#[tokio::test]
async fn a_shard_with_nobodys_history_takes_a_namespace_without_any() {
    let server = Server::start().await;
    let (source, target) = (server.end("source").await, server.end("target").await);
    let scope = scope(&["pay__"]);
    server.fill(&source, "paz", [1, 4, 3]).await;
    source.be(&scope, Role::Sealed, 4).await;
    target.be(&scope, Role::Staged, 4).await;
    let ahead = go_ahead(&source, &target, &scope).await;
    let rest = (order(Part::Rest, 1, 4), History::Full);
    let rest = copy_beyond(&source, &target, &scope, rest, Some(ahead)).await.unwrap();
    assert!(rest.keeps_ahead && rest.bytes == 0 && rest.trailer.last.is_none());
}
