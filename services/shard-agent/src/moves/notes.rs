//! What a shard has to say of a move, kept in its metadata database, written in the transactions
//! that make it true: an agent that starts anew says the same.

use std::fmt::Write as _;

use airfleet_domain::{
    ids::{MoveId, NamespaceName, ShardName},
    moves::Mark,
};
use airfleet_transfer::stranded::Stranded;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    airflow::metadata::{Bind, Error, Transaction},
    words::counted,
};

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
    /// The source: number of the newest run as it was sealed, or of the newest that was told of since.
    #[serde(default)]
    pub(crate) newest_run: Option<i64>,
    /// When this shard became able to make runs. Microseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub(crate) started_at_us: Option<i64>,
    /// Runs that were inserted then: DAG and logical date.
    #[serde(default)]
    pub(crate) inserted: Vec<(String, i64)>,
    /// Up to where each DAG came then.
    #[serde(default)]
    pub(crate) start_marks: Option<Vec<Mark>>,
    /// What somebody has to hear of.
    #[serde(default)]
    pub(crate) happened: Vec<Happened>,
}

/// Something that somebody should look at. It is told as long as the notes are kept, by each agent
/// that reads them once, and always with the same id, by which the router keeps it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Happened {
    /// Id of the event.
    pub(crate) id: String,
    /// Stable code.
    pub(crate) code: String,
    /// One line: what happened and what to do.
    pub(crate) message: String,
}

/// What is noted to be told of one move, at most.
const HAPPENED_MAX: usize = 20;

/// What is named of many, at most.
const NAMED_MAX: usize = 5;

impl Notes {
    /// Nothing is known of a move.
    pub(crate) fn new(move_id: MoveId) -> Self {
        Self {
            move_id,
            stopped_at_us: None,
            marks: None,
            newest_run: None,
            started_at_us: None,
            inserted: Vec::new(),
            start_marks: None,
            happened: Vec::new(),
        }
    }

    /// Notes that something happened. What is beyond a bound is not told.
    pub(crate) fn tell(&mut self, code: &str, message: String) {
        if self.happened.len() < HAPPENED_MAX {
            let id = Uuid::now_v7().to_string();
            self.happened.push(Happened { id, code: code.to_owned(), message });
        }
    }

    /// The timetables of these DAGs cannot be computed, and something of them had come due.
    pub(crate) fn tell_uncertain(&mut self, dag_ids: &[String]) {
        let message = format!(
            "look whether a run is missing, and trigger it: something came due between the shards of \
             {} whose timetables cannot be computed, and only what Airflow had planned next was made \
             up for: {}",
            counted(dag_ids.len() as i64, "DAG"),
            few(dag_ids, dag_ids.len()),
        );
        self.tell("TICKS_UNCERTAIN", message);
    }

    /// Runs were made here after the seal: `owner` does not have them.
    pub(crate) fn tell_stranded(&mut self, stranded: &Stranded, owner: &ShardName) {
        let named: Vec<String> =
            stranded.named.iter().map(|(dag_id, run_id)| format!("{dag_id} {run_id}")).collect();
        let were = if stranded.runs == 1 { "was" } else { "were" };
        let message = format!(
            "trigger them again on {owner}, if they are needed: {} {were} made here after the \
             namespace was sealed, went along with no copy and will not run: {}",
            counted(stranded.runs, "run"),
            few(&named, usize::try_from(stranded.runs).unwrap_or(usize::MAX)),
        );
        self.tell("RUNS_STRANDED", message);
        self.newest_run = Some(stranded.newest);
    }
}

/// The first of `all` names.
fn few(names: &[String], all: usize) -> String {
    let named = names.len().min(NAMED_MAX);
    let mut text = names[..named].join(", ");
    if all > named {
        let _ = write!(text, " and {} more", all - named);
    }
    text
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

/// What is noted of this move; nothing of another one. To be changed, it is read by [`to_change`].
pub(crate) async fn of(
    tx: &mut Transaction,
    namespace: &NamespaceName,
    move_id: &MoveId,
) -> Result<Notes, Error> {
    let found = last(tx, namespace).await?.filter(|notes| notes.move_id == *move_id);
    Ok(found.unwrap_or_else(|| Notes::new(move_id.clone())))
}

/// The same, and nobody else can change it until the end of the transaction: a transfer and a change
/// of role may note something at the same time.
pub(crate) async fn to_change(
    tx: &mut Transaction,
    namespace: &NamespaceName,
    move_id: &MoveId,
) -> Result<Notes, Error> {
    // One that does not read as notes is none; it is there to be locked.
    tx.execute(
        "note something of a move",
        "INSERT INTO {schema}.airfleet_move (namespace, notes) VALUES ($1, '{}') \
         ON CONFLICT (namespace) DO UPDATE SET noted_at = now()",
        &[Bind::Text(namespace.as_str())],
    )
    .await?;
    of(tx, namespace, move_id).await
}

/// Notes it, in place of what was noted before; read by [`to_change`] in the same transaction.
pub(crate) async fn write(
    tx: &mut Transaction,
    namespace: &NamespaceName,
    notes: &Notes,
) -> Result<(), Error> {
    let text = serde_json::to_string(notes).expect("plain data");
    tx.execute(
        "note something of a move",
        "UPDATE {schema}.airfleet_move SET notes = $2, noted_at = now() WHERE namespace = $1",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_noted_is_read() {
        let text = r#"{"moveId": "move-1", "stoppedAtUs": 5}"#;
        let notes: Notes = serde_json::from_str(text).unwrap();
        assert_eq!(
            notes,
            Notes { stopped_at_us: Some(5), ..Notes::new("move-1".parse().unwrap()) }
        );
    }

    #[test]
    fn an_event_says_what_to_do_and_names_a_few() {
        let mut notes = Notes::new("move-1".parse().unwrap());
        let dags: Vec<String> = (1..=7).map(|n| format!("pay__{n}")).collect();
        notes.tell_uncertain(&dags);
        notes.tell_uncertain(&dags[..1]);
        let [many, one] = &notes.happened[..] else { panic!("{notes:?}") };
        assert_eq!(many.code, "TICKS_UNCERTAIN");
        assert!(many.message.starts_with("look whether a run is missing, and trigger it: "));
        let names = ": pay__1, pay__2, pay__3, pay__4, pay__5 and 2 more";
        assert!(many.message.contains(" 7 DAGs ") && many.message.ends_with(names), "{many:?}");
        assert!(one.message.contains(" 1 DAG ") && one.message.ends_with(": pay__1"), "{one:?}");
        assert_ne!(many.id, one.id);
        (0..100).for_each(|_| notes.tell("X", String::new()));
        assert_eq!(notes.happened.len(), HAPPENED_MAX);
    }

    #[test]
    fn runs_that_are_in_no_copy_are_counted_and_not_told_again() {
        let mut notes = Notes::new("move-1".parse().unwrap());
        let named = (1..=5).map(|n| ("pay__a".to_owned(), format!("manual__{n}"))).collect();
        let stranded = Stranded { runs: 8, newest: 40, named };
        notes.tell_stranded(&stranded, &"shard-b".parse().unwrap());
        let message = &notes.happened[0].message;
        assert!(message.starts_with("trigger them again on shard-b"), "{message}");
        assert!(message.contains(": 8 runs were made here after"), "{message}");
        assert!(message.ends_with("pay__a manual__4, pay__a manual__5 and 3 more"), "{message}");
        assert_eq!(notes.newest_run, Some(40));
    }
}
