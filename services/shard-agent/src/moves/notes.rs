//! What a shard has to say of a move, kept in its metadata database, written in the transactions
//! that make it true: an agent that starts anew says the same.

use airfleet_domain::{
    ids::{MoveId, NamespaceName},
    moves::Mark,
};
use serde::{Deserialize, Serialize};

use crate::airflow::metadata::{Bind, Error, Transaction};

/// Of one move of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notes {
    /// The move.
    pub(crate) move_id: MoveId,
    /// When the source was last able to make runs. Microseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub(crate) stopped_at_us: Option<i64>,
    /// The source: up to where each DAG came as it was sealed.
    #[serde(default)]
    pub(crate) marks: Option<Vec<Mark>>,
    /// When this shard became able to make runs. Microseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub(crate) started_at_us: Option<i64>,
    /// Runs that were inserted then: DAG and logical date.
    #[serde(default)]
    pub(crate) inserted: Vec<(String, i64)>,
    /// Up to where each DAG came then.
    #[serde(default)]
    pub(crate) start_marks: Option<Vec<Mark>>,
}

impl Notes {
    /// Nothing is known of a move.
    pub(crate) fn new(move_id: MoveId) -> Self {
        Self {
            move_id,
            stopped_at_us: None,
            marks: None,
            started_at_us: None,
            inserted: Vec::new(),
            start_marks: None,
        }
    }
}

/// What is noted of a namespace, of whichever move.
pub(crate) async fn last(
    tx: &mut Transaction,
    namespace: &NamespaceName,
) -> Result<Option<Notes>, Error> {
    let found: Option<(String,)> = tx
        .query_as("SELECT notes FROM {schema}.airfleet_move WHERE namespace = $1")
        .bind(namespace.as_str().to_owned())
        .fetch_optional(tx.connection())
        .await
        .map_err(Error::of("read what is noted of a move"))?;
    // What another version wrote and this one cannot read is of a move that it cannot go on with.
    Ok(found.and_then(|(text,)| serde_json::from_str(&text).ok()))
}

/// What is noted of this move; nothing of another one.
pub(crate) async fn of(
    tx: &mut Transaction,
    namespace: &NamespaceName,
    move_id: &MoveId,
) -> Result<Notes, Error> {
    let found = last(tx, namespace).await?.filter(|notes| notes.move_id == *move_id);
    Ok(found.unwrap_or_else(|| Notes::new(move_id.clone())))
}

/// Notes it, in place of what was noted before.
pub(crate) async fn write(
    tx: &mut Transaction,
    namespace: &NamespaceName,
    notes: &Notes,
) -> Result<(), Error> {
    let text = serde_json::to_string(notes).expect("plain data");
    tx.execute(
        "note something of a move",
        "INSERT INTO {schema}.airfleet_move (namespace, notes) VALUES ($1, $2) \
         ON CONFLICT (namespace) DO UPDATE SET notes = EXCLUDED.notes, noted_at = now()",
        &[Bind::Text(namespace.as_str()), Bind::Text(&text)],
    )
    .await?;
    Ok(())
}

/// Forgets what is noted of a namespace.
pub(crate) async fn forget(tx: &mut Transaction, namespace: &NamespaceName) -> Result<(), Error> {
    tx.execute(
        "forget a move",
        "DELETE FROM {schema}.airfleet_move WHERE namespace = $1",
        &[Bind::Text(namespace.as_str())],
    )
    .await?;
    Ok(())
}

/// The database's clock. Microseconds since 1970-01-01 UTC.
pub(crate) async fn now_us(tx: &mut Transaction) -> Result<i64, Error> {
    let (now,): (i64,) = tx
        .query_as("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
        .fetch_one(tx.connection())
        .await
        .map_err(Error::of("read the clock"))?;
    Ok(now)
}
