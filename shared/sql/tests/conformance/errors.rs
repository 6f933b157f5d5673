//! What is told of refusals and failures, and what reads may do.

use super::*;

pub(super) async fn a_unique_violation_names_kind_and_table(store: Store) {
    let db = with_schema(&store).await;
    put(&db, "one", 1).await.unwrap();
    let error = put(&db, "one", 2).await.unwrap_err();
    assert!(error.is_unique_violation(), "{error:?}");
    let Error::Constraint { table, .. } = error else { panic!("{error:?}") };
    assert_eq!(table, "things");
    assert_eq!(number(&db, "one").await, Some(1));
}

pub(super) async fn other_constraints_are_told_apart(store: Store) {
    let db = with_schema(&store).await;
    let cases = [
        ("INSERT INTO things (name, number) VALUES ('x', 9999999)", ConstraintKind::Check),
        ("INSERT INTO things (name, number) VALUES ('x', NULL)", ConstraintKind::NotNull),
        ("INSERT INTO parts (thing) VALUES ('nothing')", ConstraintKind::ForeignKey),
    ];
    for (sql, expected) in cases {
        let error =
            write_tx!(db, |tx| -> Result<_> { tx.execute(sql, params![]).await }).unwrap_err();
        let Error::Constraint { kind, .. } = error else { panic!("{sql}: {error:?}") };
        assert_eq!(kind, expected, "{sql}");
    }
}

pub(super) async fn a_corrupt_row_is_not_a_failed_query(store: Store) {
    let db = with_schema(&store).await;
    put(&db, "odd", 7).await.unwrap();
    for attempt in 0..3 {
        let error = db
            .read()
            .await
            .unwrap()
            .fetch_one("SELECT note, number FROM things", params![], move |row| match attempt {
                0 => row.text(0).map(|_| ()),
                1 => row.get::<bool>(1).map(|_| ()),
                _ => row.get::<String>(1).map(|_| ()),
            })
            .await
            .unwrap_err();
        let Error::Corrupt { column, .. } = &error else { panic!("{error:?}") };
        assert_eq!(column, if attempt == 0 { "note" } else { "number" });
        assert!(!error.is_unavailable());
    }
}

pub(super) async fn a_missing_row_says_which_query(store: Store) {
    let db = with_schema(&store).await;
    let error = db
        .read()
        .await
        .unwrap()
        .fetch_one("SELECT number FROM things", params![], |row| row.get::<i64>(0))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::MissingRow { .. }));
    assert!(error.to_string().contains("FROM things"), "{error}");
}

pub(super) async fn a_broken_statement_is_a_defect_not_an_outage(store: Store) {
    let db = with_schema(&store).await;
    for sql in ["SELEKT 1", "SELECT nothing FROM things", "SELECT $2"] {
        let error = db
            .read()
            .await
            .unwrap()
            .fetch_all(sql, params![], |row| row.get::<i64>(0))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Statement { .. }), "{sql}: {error:?}");
    }
    // The connection is as good as before.
    put(&db, "fine", 1).await.unwrap();
}

pub(super) async fn reads_see_one_snapshot(store: Store) {
    let db = with_schema(&store).await;
    put(&db, "a", 1).await.unwrap();
    let sql = "SELECT COUNT(*) FROM things";
    let mut tx = db.read().await.unwrap();
    let before: i64 = tx.fetch_one(sql, params![], |row| row.get(0)).await.unwrap();
    put(&db, "b", 2).await.unwrap();
    let after: i64 = tx.fetch_one(sql, params![], |row| row.get(0)).await.unwrap();
    assert_eq!((before, after), (1, 1));
    assert_eq!(number(&db, "b").await, Some(2));
}

pub(super) async fn reads_cannot_write(store: Store) {
    let db = with_schema(&store).await;
    let answer = db
        .read()
        .await
        .unwrap()
        .execute("INSERT INTO things (name, number) VALUES ('x', 1)", params![])
        .await;
    assert!(answer.is_err());
    assert_eq!(number(&db, "x").await, None);
}

/// Counts for minutes on either engine.
const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
    WHERE i < 2000000000) SELECT COUNT(*) FROM n";

pub(super) async fn a_slow_statement_is_stopped(store: Store) {
    let options = Options { statement_timeout: Duration::from_millis(300), ..Options::default() };
    let db = with_options(&store, options).await;
    let started = Instant::now();
    let error = db
        .read()
        .await
        .unwrap()
        .fetch_one(ENDLESS, params![], |row| row.get::<i64>(0))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable { reason: Outage::Timeout, .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    // As a write too: the writer comes free although its statement never ended by itself.
    let error = write_tx!(db, |tx| -> Result<_> {
        tx.fetch_one(ENDLESS, params![], |row| row.get::<i64>(0)).await
    })
    .unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    put(&db, "after", 1).await.unwrap();
}
