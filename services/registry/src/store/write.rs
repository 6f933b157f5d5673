//! The one transaction in which the manifest changes.

use std::collections::{BTreeMap, HashMap};

use airfleet_domain::ids::Revision;
use airfleet_domain::manifest::Entry;
use airfleet_sql::{Sql, Tx, Value, params, placeholders, write_tx};
use serde::{Deserialize, Serialize};

use super::events::{self, NewEvent};
use super::names::{self, Taken};
use super::prefixes::{Claim, Overlap, find_overlaps};
use super::{
    ENTRY_COLUMNS, Error, Head, Key, Kind, NAMES_MAX, Store, Stored, entry_row, head,
    manifest_json, requests,
};

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It is new.
    Created,
    /// It changed.
    Updated,
    /// It went.
    Deleted,
    /// It was so already.
    Unchanged,
}

impl Action {
    /// The word of an event; nothing happened where there is none.
    pub(super) fn event(self) -> Option<&'static str> {
        match self {
            Self::Created => Some("create"),
            Self::Updated => Some("update"),
            Self::Deleted => Some("delete"),
            Self::Unchanged => None,
        }
    }
}

/// One entry of an [`Outcome`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Which entry.
    pub(crate) key: Key,
    /// What became of it.
    pub(crate) action: Action,
    /// As it was.
    pub(crate) before: Option<Stored>,
    /// As it is, or would be.
    pub(crate) after: Option<Stored>,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Revision of the manifest after it.
    pub(crate) revision: Revision,
    /// In the order of the keys that were given.
    pub(crate) items: Vec<Item>,
    /// Whether an earlier call with the same request id did it.
    pub(crate) replayed: bool,
}

/// A request id that the caller chose, so that the call can be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Idempotency {
    /// The id.
    pub(crate) request_id: String,
    /// Of everything else that was asked.
    pub(crate) fingerprint: String,
}

/// What a write is given beside what to decide.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// The entries that are looked at, each once.
    pub(crate) keys: Vec<Key>,
    /// Who asked.
    pub(crate) actor: String,
    /// Id of the call in logs and traces.
    pub(crate) call_id: String,
    /// Why, where that had to be said.
    pub(crate) reason: String,
    /// When, in microseconds since 1970.
    pub(crate) at: i64,
    /// Set where the call may be repeated.
    pub(crate) idempotency: Option<Idempotency>,
    /// Check everything, change nothing.
    pub(crate) dry_run: bool,
}

/// Why a write was not done. `R` is what the caller refuses with.
#[derive(Debug)]
pub(crate) enum WriteError<R> {
    /// The store failed.
    Store(Error),
    /// Prefixes are owned by others.
    Overlap(Vec<Overlap>),
    /// Pools, variables or connections are others'.
    Taken(Vec<Taken>),
    /// The request id was used for something else before.
    RequestReused,
    /// The caller decided against it.
    Refused(R),
}

/// Why the transaction is not committed.
enum Stop<R> {
    Failed(WriteError<R>),
    /// A dry run came to its end.
    Rehearsed(Outcome),
}

impl<R> From<airfleet_sql::Error> for Stop<R> {
    fn from(error: airfleet_sql::Error) -> Self {
        Self::Failed(WriteError::Store(error.into()))
    }
}

impl<R> From<Error> for WriteError<R> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Store {
    /// Changes the manifest, all or nothing. `decide` sees the entries of `write.keys` as they are
    /// and answers for each what it is to be, `None` for gone, or refuses; it may be asked more
    /// than once. Where the call was made before, its answer is given again and nothing is decided.
    pub(crate) async fn write<R>(
        &self,
        write: &Write,
        decide: impl Fn(&[Option<Stored>]) -> Result<Vec<Option<Entry>>, R>,
    ) -> Result<Outcome, WriteError<R>> {
        let db = self.db()?;
        let _turn = self.writing.lock().await;
        let result = write_tx!(db, |tx| -> Result<Outcome, Stop<R>> {
            if let Some(idempotency) = &write.idempotency
                && let Some(known) = requests::find(tx, &write.actor, idempotency).await?
            {
                return match known {
                    requests::Known::Same(answer) => Ok(requests::replay(tx, answer).await?),
                    requests::Known::Other => Err(Stop::Failed(WriteError::RequestReused)),
                };
            }
            let head = head(tx).await?;
            let before = load(tx, &write.keys).await?;
            let decisions =
                decide(&before).map_err(|refusal| Stop::Failed(WriteError::Refused(refusal)))?;
            let items = plan(write, &head, before, decisions);
            let outcome = carry_out(tx, write, &head, items).await?;
            if let Some(idempotency) = &write.idempotency {
                requests::record(tx, write, idempotency, &outcome).await?;
            }
            if write.dry_run { Err(Stop::Rehearsed(outcome)) } else { Ok(outcome) }
        });
        match result {
            Ok(outcome) | Err(Stop::Rehearsed(outcome)) => Ok(outcome),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// The answer that a call with this request id was given, if it was made.
    pub(crate) async fn replay(
        &self,
        actor: &str,
        idempotency: &Idempotency,
    ) -> Result<Option<Outcome>, WriteError<std::convert::Infallible>> {
        let mut tx = self.read().await?;
        let known = requests::find(&mut tx, actor, idempotency).await.map_err(Error::from)?;
        match known {
            None => Ok(None),
            Some(requests::Known::Other) => Err(WriteError::RequestReused),
            Some(requests::Known::Same(answer)) => {
                Ok(Some(requests::replay(&mut tx, answer).await.map_err(Error::from)?))
            }
        }
    }
}

/// The entries of these keys, in their order.
async fn load(tx: &mut Tx, keys: &[Key]) -> airfleet_sql::Result<Vec<Option<Stored>>> {
    let mut found: HashMap<Key, Stored> = HashMap::with_capacity(keys.len());
    for (kind, names) in by_kind(keys.iter()) {
        for chunk in names.chunks(NAMES_MAX) {
            let sql = format!(
                "SELECT {ENTRY_COLUMNS} FROM registry_entries WHERE kind = $1 AND name IN ({})",
                placeholders(2, chunk.len())
            );
            let rows = tx.fetch_all(Sql::assembled(sql), names_after(kind, chunk), entry_row);
            found.extend(rows.await?.into_iter().map(|stored| (stored.key(), stored)));
        }
    }
    Ok(keys.iter().map(|key| found.remove(key)).collect())
}

fn by_kind<'a>(keys: impl Iterator<Item = &'a Key>) -> BTreeMap<Kind, Vec<&'a str>> {
    let mut kinds = BTreeMap::<Kind, Vec<&str>>::new();
    for key in keys {
        kinds.entry(key.kind).or_default().push(&key.name);
    }
    kinds
}

fn names_after(kind: Kind, names: &[&str]) -> Vec<Value> {
    let mut binds = params![kind.as_str()];
    binds.extend(names.iter().map(|name| Value::from(*name)));
    binds
}

/// What each decision comes to.
fn plan(
    write: &Write,
    head: &Head,
    before: Vec<Option<Stored>>,
    decisions: Vec<Option<Entry>>,
) -> Vec<Item> {
    let revision = head.revision.next();
    let one = |((key, before), decision): ((&Key, Option<Stored>), Option<Entry>)| {
        let (action, after) = match (decision, &before) {
            (None, Some(_)) => (Action::Deleted, None),
            (None, None) => (Action::Unchanged, None),
            (Some(entry), Some(now)) if now.entry == entry => (Action::Unchanged, before.clone()),
            (Some(entry), Some(now)) => {
                let after = Stored { entry, revision, updated_at: write.at, ..now.clone() };
                (Action::Updated, Some(after))
            }
            (Some(entry), None) => {
                let uid = uuid::Uuid::now_v7().to_string();
                let (created_at, updated_at) = (write.at, write.at);
                let after = Stored { entry, uid, revision, created_at, updated_at };
                (Action::Created, Some(after))
            }
        };
        Item { key: key.clone(), action, before, after }
    };
    write.keys.iter().zip(before).zip(decisions).map(one).collect()
}

/// Writes what changed, with its indexes and events, and raises the revision.
async fn carry_out<R>(
    tx: &mut Tx,
    write: &Write,
    head: &Head,
    items: Vec<Item>,
) -> Result<Outcome, Stop<R>> {
    let changed: Vec<&Item> =
        items.iter().filter(|item| item.action != Action::Unchanged).collect();
    if changed.is_empty() {
        return Ok(Outcome { revision: head.revision, items, replayed: false });
    }
    let revision = head.revision.next();
    // First, so that writers of other replicas wait here and not halfway.
    advance(tx, head, revision, &changed).await?;
    write_entries(tx, &changed).await?;
    write_labels(tx, &changed).await?;
    write_owners(tx, &changed).await?;
    let overlaps = write_prefixes(tx, &changed).await?;
    if !overlaps.is_empty() {
        return Err(Stop::Failed(WriteError::Overlap(overlaps)));
    }
    let taken = write_names(tx, &changed).await?;
    if !taken.is_empty() {
        return Err(Stop::Failed(WriteError::Taken(taken)));
    }
    let events = changed.iter().enumerate().filter_map(|(index, item)| {
        Some(NewEvent {
            sequence: head.sequence + 1 + index as i64,
            action: item.action.event()?,
            item,
        })
    });
    events::insert(tx, write, revision, events).await?;
    Ok(Outcome { revision, items, replayed: false })
}

async fn write_entries(tx: &mut Tx, changed: &[&Item]) -> airfleet_sql::Result<()> {
    let rows = changed.iter().filter_map(|item| item.after.as_ref()).map(|after| {
        let Key { kind, name } = after.key();
        params![
            kind.as_str(),
            name,
            &after.uid,
            after.revision.0,
            after.created_at,
            after.updated_at,
            manifest_json(&after.entry),
        ]
    });
    tx.insert_many(
        "INSERT INTO registry_entries
            (kind, name, uid, revision, created_at, updated_at, manifest)",
        "ON CONFLICT (kind, name) DO UPDATE SET
            revision = excluded.revision, updated_at = excluded.updated_at,
            manifest = excluded.manifest",
        rows.collect(),
    )
    .await?;
    let gone = changed.iter().filter(|item| item.after.is_none()).map(|item| &item.key);
    delete(tx, gone, "DELETE FROM registry_entries WHERE kind = $1 AND name IN").await
}

async fn write_labels(tx: &mut Tx, changed: &[&Item]) -> airfleet_sql::Result<()> {
    let labels = |stored: &Stored| match &stored.entry {
        Entry::Namespace(namespace) => namespace.metadata.labels.clone(),
        Entry::Shard(shard) => shard.metadata.labels.clone(),
    };
    let relabelled: Vec<&Item> = changed
        .iter()
        .filter(|item| item.before.as_ref().map(labels) != item.after.as_ref().map(labels))
        .copied()
        .collect();
    let stale = relabelled.iter().filter(|item| item.before.is_some()).map(|item| &item.key);
    delete(tx, stale, "DELETE FROM registry_labels WHERE kind = $1 AND name IN").await?;
    let rows = relabelled.iter().filter_map(|item| item.after.as_ref()).flat_map(|after| {
        let Key { kind, name } = after.key();
        labels(after).into_iter().map(move |(key, value)| params![kind.as_str(), &name, key, value])
    });
    tx.insert_many("INSERT INTO registry_labels (kind, name, key, value)", "", rows.collect())
        .await?;
    Ok(())
}

async fn write_owners(tx: &mut Tx, changed: &[&Item]) -> airfleet_sql::Result<()> {
    let owners = |stored: &Stored| match &stored.entry {
        Entry::Namespace(namespace) => namespace.spec.owners.clone(),
        Entry::Shard(_) => Vec::new(),
    };
    let moved: Vec<&Item> = changed
        .iter()
        .filter(|item| item.before.as_ref().map(owners) != item.after.as_ref().map(owners))
        .copied()
        .collect();
    let stale = moved.iter().filter(|item| item.before.is_some()).map(|item| &item.key);
    delete(tx, stale, "DELETE FROM registry_owners WHERE $1 = 'namespace' AND namespace IN")
        .await?;
    let rows = moved.iter().filter_map(|item| item.after.as_ref()).flat_map(|after| {
        let name = after.entry.name().to_owned();
        owners(after).into_iter().map(move |owner| params![owner, &name])
    });
    tx.insert_many(
        "INSERT INTO registry_owners (owner, namespace)",
        // An owner that is named twice owns once.
        "ON CONFLICT (owner, namespace) DO NOTHING",
        rows.collect(),
    )
    .await?;
    Ok(())
}

/// Gives up the old prefixes of all entries before any new one is claimed, so that a prefix may
/// pass from one namespace to another in one write.
async fn write_prefixes(tx: &mut Tx, changed: &[&Item]) -> airfleet_sql::Result<Vec<Overlap>> {
    let prefixes = |stored: &Stored| match &stored.entry {
        Entry::Namespace(namespace) => namespace.spec.prefixes.clone(),
        Entry::Shard(_) => Vec::new(),
    };
    let moved: Vec<&Item> = changed
        .iter()
        .filter(|item| item.before.as_ref().map(prefixes) != item.after.as_ref().map(prefixes))
        .copied()
        .collect();
    let stale = moved.iter().filter(|item| item.before.is_some()).map(|item| &item.key);
    delete(tx, stale, "DELETE FROM registry_prefixes WHERE $1 = 'namespace' AND namespace IN")
        .await?;
    let claims: Vec<Claim> = moved
        .iter()
        .filter_map(|item| item.after.as_ref())
        .flat_map(|after| {
            let namespace = after.entry.name().to_owned();
            prefixes(after)
                .into_iter()
                .map(move |prefix| Claim { prefix, namespace: namespace.clone() })
        })
        .collect();
    let overlaps = find_overlaps(tx, &claims).await?;
    if overlaps.is_empty() {
        let rows = claims.iter().map(|claim| params![&claim.prefix, &claim.namespace]);
        tx.insert_many("INSERT INTO registry_prefixes (prefix, namespace)", "", rows.collect())
            .await?;
    }
    Ok(overlaps)
}

/// Gives up the old names of all entries before any new one is claimed, so that a pool may pass from
/// one namespace to another in one write.
async fn write_names(tx: &mut Tx, changed: &[&Item]) -> airfleet_sql::Result<Vec<Taken>> {
    let names = |stored: Option<&Stored>| stored.map(names::names).unwrap_or_default();
    let moved: Vec<&Item> = changed
        .iter()
        .filter(|item| names(item.before.as_ref()) != names(item.after.as_ref()))
        .copied()
        .collect();
    let stale = moved.iter().filter(|item| item.before.is_some()).map(|item| &item.key);
    delete(tx, stale, "DELETE FROM registry_names WHERE $1 = 'namespace' AND namespace IN").await?;
    let claims: Vec<_> =
        moved.iter().map(|item| (item.key.name.clone(), names(item.after.as_ref()))).collect();
    names::claim(tx, &claims).await
}

/// Runs `<sql> (names…)` for each kind of `keys`; `sql` binds the kind to `$1`.
async fn delete(
    tx: &mut Tx,
    keys: impl Iterator<Item = &Key>,
    sql: &'static str,
) -> airfleet_sql::Result<()> {
    for (kind, names) in by_kind(keys) {
        for chunk in names.chunks(NAMES_MAX) {
            let sql = format!("{sql} ({})", placeholders(2, chunk.len()));
            tx.execute(Sql::assembled(sql), names_after(kind, chunk)).await?;
        }
    }
    Ok(())
}

async fn advance(
    tx: &mut Tx,
    head: &Head,
    revision: Revision,
    changed: &[&Item],
) -> airfleet_sql::Result<()> {
    let growth = |kind| -> i64 {
        let of_kind = changed.iter().filter(|item| item.key.kind == kind);
        of_kind.map(|item| i64::from(item.after.is_some()) - i64::from(item.before.is_some())).sum()
    };
    tx.execute(
        "UPDATE registry_state SET revision = $1, sequence = $2, namespaces = $3, shards = $4
         WHERE id = 1",
        params![
            revision.0,
            head.sequence + changed.len() as i64,
            head.namespaces + growth(Kind::Namespace),
            head.shards + growth(Kind::Shard),
        ],
    )
    .await?;
    Ok(())
}
