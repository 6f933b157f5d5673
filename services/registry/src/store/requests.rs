//! Calls that may be repeated: what was asked, and where to find what was answered.
//!
//! An answer is not kept as such. It is put together again from the events of its revision, so
//! that it is word for word the first one although the entries have changed since.

use airfleet_domain::ids::Revision;
use airfleet_sql::{Result, Tx, params};
use serde::{Deserialize, Serialize};

use super::events;
use super::write::{Action, Idempotency, Item, Outcome, Write};
use super::{Key, Kind};

/// What is known of a request id.
pub(super) enum Known {
    /// It was this call.
    Same(Answer),
    /// It was another one.
    Other,
}

/// Where an answer is found.
pub(super) struct Answer {
    revision: Revision,
    items: Vec<AnsweredItem>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AnsweredItem {
    kind: Kind,
    name: String,
    action: Action,
}

pub(super) async fn find(
    tx: &mut Tx,
    actor: &str,
    idempotency: &Idempotency,
) -> Result<Option<Known>> {
    let fingerprint = idempotency.fingerprint.clone();
    tx.fetch_optional(
        "SELECT fingerprint, revision, items FROM registry_requests
         WHERE actor = $1 AND request_id = $2",
        params![actor, &idempotency.request_id],
        move |row| {
            if row.text(0)? != fingerprint {
                return Ok(Known::Other);
            }
            let answer = Answer { revision: Revision(row.get(1)?), items: row.json(2)? };
            Ok(Known::Same(answer))
        },
    )
    .await
}

pub(super) async fn record(
    tx: &mut Tx,
    write: &Write,
    idempotency: &Idempotency,
    outcome: &Outcome,
) -> Result<()> {
    let items: Vec<AnsweredItem> = outcome
        .items
        .iter()
        .map(|Item { key, action, .. }| AnsweredItem {
            kind: key.kind,
            name: key.name.clone(),
            action: *action,
        })
        .collect();
    let items = serde_json::to_string(&items).expect("names and words always serialize");
    tx.execute(
        "INSERT INTO registry_requests
            (actor, request_id, fingerprint, revision, items, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        params![
            &write.actor,
            &idempotency.request_id,
            &idempotency.fingerprint,
            outcome.revision.0,
            items,
            write.at,
        ],
    )
    .await?;
    Ok(())
}

/// The answer as it was first given.
pub(super) async fn replay(tx: &mut Tx, answer: Answer) -> Result<Outcome> {
    let mut items = Vec::with_capacity(answer.items.len());
    for AnsweredItem { kind, name, action } in answer.items {
        let key = Key { kind, name };
        let (before, after) = match action {
            Action::Unchanged => {
                let then = events::as_of(tx, &key, answer.revision).await?;
                (then.clone(), then)
            }
            _ => events::at(tx, &key, answer.revision).await?,
        };
        items.push(Item { key, action, before, after });
    }
    Ok(Outcome { revision: answer.revision, items, replayed: true })
}
