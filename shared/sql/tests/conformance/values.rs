//! Values and rows, as they go in and come out.

use super::*;

pub(super) async fn values_come_back_as_they_were_bound(store: Store) {
    let db = with_schema(&store).await;
    let note = "naïve \u{1F680} 'quoted' \"twice\" \0-free";
    let note = note.replace('\0', "");
    write_tx!(db, |tx| -> Result<()> {
        tx.execute(
            "INSERT INTO things (name, number, note) VALUES ($1, $2, $3)",
            params!["a", -7_i64, &note],
        )
        .await?;
        tx.execute(
            "INSERT INTO things (name, number, note) VALUES ($1, $2, $3)",
            params!["b", true, None::<String>],
        )
        .await?;
        Ok(())
    })
    .unwrap();
    let rows = db
        .read()
        .await
        .unwrap()
        .fetch_all(
            "SELECT name, number, note, number > 0, COUNT(*) OVER ()
                 FROM things ORDER BY name",
            params![],
            |row| {
                Ok((
                    row.text(0)?.to_owned(),
                    row.get::<i64>(1)?,
                    row.get::<Option<String>>(2)?,
                    row.get::<bool>(3)?,
                    row.get::<u64>(4)?,
                ))
            },
        )
        .await
        .unwrap();
    assert_eq!(
        rows,
        [("a".to_owned(), -7, Some(note), false, 2), ("b".to_owned(), 1, None, true, 2),]
    );
}

pub(super) async fn binds_go_by_number_not_by_appearance(store: Store) {
    let db = with_schema(&store).await;
    let row = db
        .read()
        .await
        .unwrap()
        .fetch_one(
            "SELECT CAST($2 AS BIGINT), CAST($1 AS TEXT), CAST($2 AS BIGINT) + $3",
            params!["first", 2_i64, 40_i64],
            |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?, row.get::<i64>(2)?)),
        )
        .await
        .unwrap();
    assert_eq!(row, (2, "first".to_owned(), 42));
}

pub(super) async fn text_is_ordered_and_ranged_by_bytes(store: Store) {
    let db = with_schema(&store).await;
    for (index, name) in ["b", "B", "a.", "a_", "a-b", "ab", "é", "a", "A"].iter().enumerate() {
        put(&db, name, index as i64).await.unwrap();
    }
    let names = |sql: &'static str, binds: Vec<airfleet_sql::Value>| {
        let db = db.clone();
        async move {
            db.read()
                .await
                .unwrap()
                .fetch_all(sql, binds, |row| row.get::<String>(0))
                .await
                .unwrap()
        }
    };
    let all = names("SELECT name FROM things ORDER BY name", params![]).await;
    assert_eq!(all, ["A", "B", "a", "a-b", "a.", "a_", "ab", "b", "é"]);
    let end = airfleet_sql::prefix_end("a").unwrap();
    let range = names(
        "SELECT name FROM things WHERE name >= $1 AND name < $2 ORDER BY name",
        params!["a", end],
    )
    .await;
    assert_eq!(range, ["a", "a-b", "a.", "a_", "ab"]);
}

pub(super) async fn fill(db: &Db, count: usize) {
    let rows = (0..count)
        .map(|index| params![format!("thing-{index:06}"), index as i64])
        .collect::<Vec<_>>();
    let inserted = write_tx!(db, |tx| -> Result<_> {
        tx.insert_many("INSERT INTO things (name, number)", "", rows.clone()).await
    })
    .unwrap();
    assert_eq!(inserted, count as u64);
}

pub(super) async fn scan_folds_a_whole_table(store: Store) {
    let db = with_schema(&store).await;
    fill(&db, 50_000).await;
    let (count, sum) = db
        .read()
        .await
        .unwrap()
        .scan(
            "SELECT name, number FROM things WHERE number >= $1",
            params![10_i64],
            (0_u64, 0_i64),
            |(count, sum), row| {
                *count += u64::from(row.text(0)?.starts_with("thing-"));
                *sum += row.get::<i64>(1)?;
                Ok(())
            },
        )
        .await
        .unwrap();
    assert_eq!(count, 49_990);
    assert_eq!(sum, (10..50_000).sum::<i64>());
}

pub(super) async fn insert_many_takes_more_rows_than_one_statement_can_bind(store: Store) {
    let db = with_schema(&store).await;
    fill(&db, 40_000).await;
    // All or none, also here.
    let rows = vec![params!["new", 1_i64], params!["thing-000001", 1_i64]];
    let error = write_tx!(db, |tx| -> Result<_> {
        tx.insert_many("INSERT INTO things (name, number)", "", rows.clone()).await
    })
    .unwrap_err();
    assert!(error.is_unique_violation(), "{error:?}");
    assert_eq!(number(&db, "new").await, None);
    let changed = write_tx!(db, |tx| -> Result<_> {
        tx.insert_many(
            "INSERT INTO things (name, number)",
            "ON CONFLICT (name) DO UPDATE SET number = excluded.number",
            vec![params!["new", 1_i64], params!["thing-000001", 77_i64]],
        )
        .await
    })
    .unwrap();
    assert_eq!(changed, 2);
    assert_eq!(number(&db, "thing-000001").await, Some(77));
}
