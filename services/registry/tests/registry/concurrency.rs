//! Many at once lose nothing.

use std::collections::BTreeSet;

use airfleet_proto::registry::v1::*;
use tonic::Code;

use crate::support::*;

on_both_engines!(
    concurrent_changes_lose_nothing_and_revisions_have_no_gap,
    a_call_that_is_sent_twice_at_once_is_done_once,
);

async fn concurrent_changes_lose_nothing_and_revisions_have_no_gap(database: Database) {
    const TASKS: usize = 8;
    const EACH: usize = 10;
    let first = database.start().await;
    let second = if database.is_postgres { Some(database.start().await) } else { None };
    let start = first
        .client()
        .create_namespace(create(namespace("counter")))
        .await
        .unwrap()
        .into_inner()
        .revision;
    let mut watch = Watch::open(&mut first.client(), start).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let replica = second.as_ref().filter(|_| task % 2 == 1).unwrap_or(&first);
        let mut client = replica.client();
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for round in 0..EACH {
                let name = format!("team-{task}-{round}");
                let created = client.create_namespace(create(namespace(&name))).await.unwrap();
                revisions.push(created.into_inner().revision);
                // Read, change, write, and again where somebody else was quicker.
                loop {
                    let now = client.get_namespace(get("counter")).await.unwrap().into_inner();
                    let label = format!("by-{task}-{round}");
                    let mut wanted = now;
                    wanted.description += "+";
                    wanted.labels.insert("last".to_owned(), label);
                    match client.update_namespace(update(wanted, &[])).await {
                        Ok(updated) => {
                            revisions.push(updated.into_inner().revision);
                            break;
                        }
                        answer => {
                            refused(answer, Code::Aborted, "ETAG_MISMATCH");
                        }
                    }
                }
            }
            revisions
        });
    }
    let mut revisions = BTreeSet::new();
    while let Some(more) = tasks.join_next().await {
        revisions.extend(more.unwrap());
    }
    let expected: BTreeSet<i64> = (start + 1..=start + 2 * (TASKS * EACH) as i64).collect();
    assert_eq!(revisions, expected, "each change made one revision");
    let counter = first.client().get_namespace(get("counter")).await.unwrap().into_inner();
    assert_eq!(counter.description.len(), TASKS * EACH);
    watch.until(start + 2 * (TASKS * EACH) as i64).await;
    assert_eq!(watch.known.len(), TASKS * EACH + 1);
}

async fn a_call_that_is_sent_twice_at_once_is_done_once(database: Database) {
    let registry = database.start().await;
    let request =
        CreateNamespaceRequest { request_id: "once".to_owned(), ..create(namespace("payments")) };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (mut client, request) = (registry.client(), request.clone());
        tasks.spawn(async move { client.create_namespace(request).await.unwrap().into_inner() });
    }
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    let audit = registry.client().list_audit_events(ListAuditEventsRequest::default()).await;
    assert_eq!(audit.unwrap().into_inner().events.len(), 1);
}
