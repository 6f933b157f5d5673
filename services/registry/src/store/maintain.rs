//! Forgetting what need not be kept.

use airfleet_domain::ids::Revision;
use airfleet_sql::{params, write_tx};

use super::{Result, Store, head};

/// How long things are kept. Every replica may maintain; they do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// Requests made before this are forgotten, in microseconds since 1970.
    pub(crate) requests_before: i64,
    /// Events before this are forgotten, in microseconds since 1970.
    pub(crate) events_before: i64,
    /// Events beyond this many are forgotten, whatever their age.
    pub(crate) events_max: i64,
    /// This many events are kept, whatever their age.
    pub(crate) events_min: i64,
}

/// Most rows that one transaction forgets, so that it does not hold up writers.
const BATCH: i64 = 10_000;

impl Store {
    /// Forgets some of what is not to be kept; answers how many requests and events. There may be
    /// more where it answers anything but zero.
    pub(crate) async fn forget(&self, retention: &Retention) -> Result<(u64, u64)> {
        let db = self.db()?;
        let _turn = self.writing.lock().await;
        let forgotten = write_tx!(db, |tx| -> airfleet_sql::Result<(u64, u64)> {
            let requests = tx
                .execute(
                    "DELETE FROM registry_requests WHERE (actor, request_id) IN (
                        SELECT actor, request_id FROM registry_requests
                        WHERE created_at < $1 ORDER BY created_at LIMIT $2)",
                    params![retention.requests_before, BATCH],
                )
                .await?;
            let head = head(tx).await?;
            let too_many = head.sequence - retention.events_max;
            let needed = head.sequence - retention.events_min;
            // An event is needed as long as a call that made it may be repeated.
            let (before, requests_before) = (retention.events_before, retention.requests_before);
            let oldest = tx
                .fetch_all(
                    "SELECT sequence, revision, happened_at FROM registry_events
                     ORDER BY sequence LIMIT $1",
                    params![BATCH],
                    |row| Ok((row.get::<i64>(0)?, Revision(row.get(1)?), row.get::<i64>(2)?)),
                )
                .await?;
            let last = oldest
                .into_iter()
                .take_while(|(sequence, _, at)| {
                    *sequence <= needed
                        && *at < requests_before
                        && (*at < before || *sequence <= too_many)
                })
                .last();
            let Some((sequence, revision, _)) = last else { return Ok((requests, 0)) };
            let events = tx
                .execute("DELETE FROM registry_events WHERE sequence <= $1", params![sequence])
                .await?;
            tx.execute(
                "UPDATE registry_state SET events_floor = $1 WHERE id = 1",
                params![revision.0],
            )
            .await?;
            Ok((requests, events))
        })?;
        Ok(forgotten)
    }
}
