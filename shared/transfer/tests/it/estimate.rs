//! How much will travel, and how much has.

use std::time::Duration;

use airfleet_domain::{
    moves::{History, Part},
    roles::Role,
};
use airfleet_transfer::{Piece, TableSize, estimate};

use crate::ends::{Server, export, import, order, scope};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn rows_are_counted_and_bytes_are_near() {
    let server = Server::start().await;
    let (source, target) = (server.end("source").await, server.end("target").await);
    let scope = scope(&["pay__"]);
    server.fill(&source, "pay__", [3, 60, 10]).await;
    server.fill(&source, "paz", [2, 30, 10]).await;
    source.be(&scope, Role::Sealed, 1).await;
    target.be(&scope, Role::Staged, 1).await;
    let catalog = source.catalog().await;
    let cases =
        [(Part::Ahead, History::Full), (Part::Rest, History::Minimal), (Part::Rest, History::Full)];
    for (attempt, (part, history)) in cases.into_iter().enumerate() {
        let sizes = estimate(&source.database, &catalog, &scope, (part, history), LIMIT);
        let sizes = sizes.await.unwrap();
        let mut into = import(&target, &scope, order(part, attempt as u32 + 1, 1)).await.unwrap();
        let mut out = export(&source, &scope, part, history, None).await;
        let mut coming = Vec::new();
        while let Some(piece) = out.next().await.unwrap() {
            if matches!(piece, Piece::Trailer(_)) {
                break;
            }
            into.take(piece).await.unwrap();
            coming.extend(into.coming().map(str::to_owned));
        }
        coming.dedup();
        let order: Vec<_> = sizes.iter().map(|size| size.table.clone()).collect();
        assert_eq!(coming, order, "tables are told in the order in which they come");
        let mut sorted = sizes.clone();
        sorted.sort_by(|a, b| a.table.cmp(&b.table));
        let came = into.came();
        for (size, came) in sorted.iter().zip(&came) {
            assert_eq!((&size.table, size.rows), (&came.table, came.rows), "{part:?} {history:?}");
            let off = (size.bytes - came.bytes).abs();
            assert!(off * 10 <= came.bytes, "{size:?} is far from {came:?}");
        }
        assert!(came.iter().map(|one| one.rows).sum::<i64>() > 10, "{came:?}");
    }
    let all = estimate(&source.database, &catalog, &scope, (Part::Rest, History::Full), LIMIT);
    let of = |sizes: &[TableSize], table: &str| {
        sizes.iter().find(|size| size.table == table).map(|size| size.rows)
    };
    let all = all.await.unwrap();
    assert_eq!((of(&all, "dag_run"), of(&all, "task_instance")), (Some(180), Some(1_800)));
}

#[tokio::test]
async fn what_came_is_known_over_a_restart() {
    let server = Server::start().await;
    let (source, target) = (server.end("source").await, server.end("target").await);
    let scope = scope(&["pay__"]);
    server.fill(&source, "pay__", [3, 150, 20]).await;
    source.be(&scope, Role::Sealed, 1).await;
    target.be(&scope, Role::Staged, 1).await;
    let mut into = import(&target, &scope, order(Part::Rest, 1, 1)).await.unwrap();
    let mut out = export(&source, &scope, Part::Rest, History::Full, None).await;
    let (mut sent, mut kept) = (0, (0, 0));
    while let Some(piece) = out.next().await.unwrap() {
        if let Piece::Chunk(chunk) = &piece {
            sent = chunk.position.sequence;
        }
        let bytes = match &piece {
            Piece::Chunk(chunk) => chunk.rows.len() as i64,
            _ => 0,
        };
        if let Some(up_to) = into.take(piece).await.unwrap() {
            let came: i64 = into.came().iter().map(|size| size.bytes).sum();
            // A chunk that fills what is gathered up waits itself.
            kept = (up_to, if up_to == sent { came } else { came - bytes });
        }
        if sent == 20 {
            break;
        }
    }
    assert!(kept.0 > 1, "nothing was kept");
    drop((into, out));
    let again = import(&target, &scope, order(Part::Rest, 1, 1)).await.unwrap();
    let came = again.came();
    assert_eq!(again.kept().unwrap().sequence, kept.0);
    assert_eq!(came.iter().map(|size| size.bytes).sum::<i64>(), kept.1);
    let runs = came.iter().find(|size| size.table == "dag_run").unwrap();
    assert_eq!(runs.rows, 450);
}
