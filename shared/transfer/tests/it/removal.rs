//! Clearing up, and whoever was overtaken meanwhile.

use airfleet_domain::{ids::Revision, moves::Seen, roles::Role};
use airfleet_shard_agent::airflow::fence::gate::Place;
use airfleet_transfer::{Error, removal};

use crate::ends::{Server, place, scope};

#[tokio::test]
async fn the_order_is_looked_at_before_each_batch() {
    let server = Server::start().await;
    let end = server.end("source").await;
    let scope = scope(&["pay__"]);
    server.fill(&end, "pay__", [2, 40, 3]).await;
    let catalog = end.catalog().await;
    let remove = async |at: Seen| {
        removal::remove_some(&end.database, &catalog, &scope, at, 10).await.map(|done| done.rows)
    };
    end.be(&scope, Role::Absent, 6).await;
    assert_eq!(remove(place(6)).await.unwrap(), 10);

    // Another order of the same generation was obeyed.
    end.be_at(&scope, Role::Retired, Place { generation: 6, revision: 7 }).await;
    let before = server.print(&end).await;
    let late = remove(place(6)).await;
    assert!(matches!(late, Err(Error::Overtaken { .. })), "{late:?}");
    assert_eq!(server.print(&end).await, before);
    assert_eq!(remove(Seen { revision: Revision(7), ..place(6) }).await.unwrap(), 10);

    // The namespace came back: neither the old order nor one of now removes anything.
    end.be(&scope, Role::Active, 8).await;
    let before = server.print(&end).await;
    let late = remove(place(6)).await;
    assert!(matches!(late, Err(Error::Overtaken { .. })), "{late:?}");
    let runs = remove(place(8)).await;
    assert!(matches!(runs, Err(Error::NotInRole { .. })), "{runs:?}");
    assert_eq!(server.print(&end).await, before);
    assert_eq!(server.query(&end, "SELECT count(*) FROM dag_run").await, "60");
}
