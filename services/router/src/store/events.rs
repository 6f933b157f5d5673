//! What happened to namespaces: a log that is durable, numbered and bounded.
//!
//! Invariants: numbers grow with every event, in the order in which they become visible; an id is
//! kept once; of each namespace only the latest are kept, and nothing longer than a given time. What
//! a commit decided is written in its transaction.

use airfleet_domain::ids::{NamespaceName, Term};
use airfleet_sql::{Row, Sql, Tx, params, write_tx};
use uuid::Uuid;

use super::{Result, Store};

/// Rows that one pass of [`Store::forget_events`] removes at most, by age.
const FORGOTTEN_MAX: u32 = 10_000;

/// Who told of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The router itself.
    Router,
    /// The agent of the shard.
    Agent,
}

impl Source {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Agent => "agent",
        }
    }
}

/// Something that happened to a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Of whoever told it; told twice, it is kept once.
    pub(crate) id: Uuid,
    /// The namespace.
    pub(crate) namespace: NamespaceName,
    /// The shard that it is about; empty where none is.
    pub(crate) shard: String,
    /// Who told it.
    pub(crate) source: Source,
    /// Stable code in UPPER_SNAKE_CASE.
    pub(crate) code: String,
    /// One line for people.
    pub(crate) message: String,
    /// Whether somebody should look at it.
    pub(crate) warning: bool,
    /// By the clock of whoever told it. Microseconds since 1970-01-01 UTC.
    pub(crate) happened_at_us: i64,
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Its number; grows.
    pub(crate) sequence: i64,
    /// When it was written. Microseconds since 1970-01-01 UTC.
    pub(crate) at_us: i64,
    /// What happened.
    pub(crate) event: Event,
}

/// Writes events in the transaction of something else.
pub(super) async fn write(tx: &mut Tx, events: &[Event], now_us: i64) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    // The row that every writer takes first, so that numbers become visible in their order.
    let last: i64 = tx
        .fetch_one(
            "UPDATE router_state SET event_sequence = event_sequence + $1 WHERE id = 1
             RETURNING event_sequence",
            params![count],
            |row| row.get(0),
        )
        .await?;
    let rows = events.iter().zip(last - count + 1..).map(|(event, sequence)| {
        params![
            sequence,
            event.id.to_string(),
            event.namespace.as_str(),
            &event.shard,
            event.source.name(),
            &event.code,
            &event.message,
            event.warning,
            event.happened_at_us,
            now_us,
        ]
    });
    tx.insert_many(
        "INSERT INTO router_events (sequence, id, namespace, shard, source, code, message, \
         warning, happened_at, recorded_at)",
        "ON CONFLICT (id) DO NOTHING",
        rows.collect(),
    )
    .await?;
    Ok(())
}

impl Store {
    /// Writes events that belong to no commit, as the leader of `term`.
    pub(crate) async fn record_events(
        &self,
        term: Term,
        events: &[Event],
        now_us: i64,
    ) -> Result<()> {
        write_tx!(self.db, |tx| -> Result<()> {
            self.lease.check_term(tx, term.0).await?;
            write(tx, events, now_us).await
        })
    }

    /// Forgets all but the latest `keep` events of these namespaces, and some of what was recorded
    /// before a time. Answers how many were forgotten.
    pub(crate) async fn forget_events(
        &self,
        term: Term,
        namespaces: &[NamespaceName],
        keep: u32,
        before_us: i64,
    ) -> Result<u64> {
        write_tx!(self.db, |tx| -> Result<u64> {
            self.lease.check_term(tx, term.0).await?;
            let mut forgotten = tx
                .execute(
                    "DELETE FROM router_events WHERE sequence IN
                        (SELECT sequence FROM router_events WHERE recorded_at < $1
                         ORDER BY recorded_at LIMIT $2)",
                    params![before_us, FORGOTTEN_MAX],
                )
                .await?;
            for namespace in namespaces {
                forgotten += tx
                    .execute(
                        "DELETE FROM router_events WHERE namespace = $1 AND sequence <=
                            (SELECT sequence FROM router_events WHERE namespace = $1
                             ORDER BY sequence DESC LIMIT 1 OFFSET $2)",
                        params![namespace.as_str(), keep],
                    )
                    .await?;
            }
            Ok(forgotten)
        })
    }

    /// Events of a namespace with numbers below `before`, newest first.
    pub(crate) async fn events_before(
        &self,
        namespace: &NamespaceName,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Recorded>> {
        let condition = "namespace = $1 AND sequence < $2 ORDER BY sequence DESC LIMIT $3";
        self.events(condition, namespace, before.unwrap_or(i64::MAX), limit).await
    }

    /// Events of a namespace with numbers above `after`, oldest first.
    pub(crate) async fn events_after(
        &self,
        namespace: &NamespaceName,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Recorded>> {
        let condition = "namespace = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
        self.events(condition, namespace, after, limit).await
    }

    /// The number of the latest event of all.
    pub(crate) async fn last_event(&self) -> Result<i64> {
        let mut tx = self.db.read().await?;
        let last = tx
            .fetch_one("SELECT event_sequence FROM router_state WHERE id = 1", params![], |row| {
                row.get(0)
            })
            .await?;
        Ok(last)
    }

    async fn events(
        &self,
        condition: &'static str,
        namespace: &NamespaceName,
        bound: i64,
        limit: u32,
    ) -> Result<Vec<Recorded>> {
        let mut tx = self.db.read().await?;
        let sql = format!(
            "SELECT sequence, id, namespace, shard, source, code, message, warning, happened_at,
                recorded_at
             FROM router_events WHERE {condition}"
        );
        let binds = params![namespace.as_str(), bound, limit];
        Ok(tx.fetch_all(Sql::assembled(sql), binds, recorded).await?)
    }
}

fn recorded(row: &Row<'_>) -> airfleet_sql::Result<Recorded> {
    let source = match row.text(4)? {
        "router" => Source::Router,
        "agent" => Source::Agent,
        other => return Err(row.corrupt(4, format_args!("{other:?} is no source"))),
    };
    Ok(Recorded {
        sequence: row.get(0)?,
        at_us: row.get(9)?,
        event: Event {
            id: row.parse(1)?,
            namespace: row.parse(2)?,
            shard: row.get(3)?,
            source,
            code: row.get(5)?,
            message: row.get(6)?,
            warning: row.get(7)?,
            happened_at_us: row.get(8)?,
        },
    })
}
