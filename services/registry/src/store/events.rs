//! Every change, once: for the audit, for watches that resume, and for answers that are repeated.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use airfleet_domain::ids::Revision;
use airfleet_domain::manifest::{Entry, Namespace, Shard};
use airfleet_sql::{Row, Sql, Tx, params};
use serde::{Deserialize, Serialize};

use super::write::{self, Item};
use super::{ENTRY_COLUMNS, Error, Key, Kind, Store, Stored, entry_row, kind_column};

/// One event of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditEvent {
    /// Its number; grows by one with each.
    pub(crate) sequence: i64,
    /// The revision that it belongs to.
    pub(crate) revision: Revision,
    /// Which entry.
    pub(crate) key: Key,
    /// "create", "update" or "delete".
    pub(crate) action: String,
    /// When, in microseconds since 1970.
    pub(crate) happened_at: i64,
    /// Who.
    pub(crate) actor: String,
    /// Id of the call in logs and traces.
    pub(crate) request_id: String,
    /// Why, where that had to be said.
    pub(crate) reason: String,
    /// As the entry was.
    pub(crate) before: Option<Stored>,
    /// As it became.
    pub(crate) after: Option<Stored>,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuditFilter {
    /// Of this kind only.
    pub(crate) kind: Option<Kind>,
    /// Of this name only.
    pub(crate) name: Option<String>,
}

/// What one revision did to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Which entry.
    pub(crate) key: Key,
    /// As it became; `None` where it was removed.
    pub(crate) after: Option<Arc<Stored>>,
}

/// All that one revision did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revised {
    /// The revision.
    pub(crate) revision: Revision,
    /// What it did.
    pub(crate) changes: Vec<Change>,
    /// About how many bytes of text the changes are.
    pub(crate) bytes: usize,
}

/// An event to be written.
pub(super) struct NewEvent<'a> {
    pub(super) sequence: i64,
    pub(super) action: &'static str,
    pub(super) item: &'a Item,
}

/// An entry in `before` and `after`. `M` is what was declared.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<M> {
    uid: String,
    revision: Revision,
    created_at: i64,
    updated_at: i64,
    manifest: M,
}

impl Document<Entry> {
    fn into_stored(self) -> Stored {
        let Self { uid, revision, created_at, updated_at, manifest: entry } = self;
        Stored { entry, uid, revision, created_at, updated_at }
    }
}

impl<M> Document<M> {
    fn of(stored: &Stored, manifest: M) -> Self {
        let Stored { uid, revision, created_at, updated_at, .. } = stored;
        Self {
            uid: uid.clone(),
            revision: *revision,
            created_at: *created_at,
            updated_at: *updated_at,
            manifest,
        }
    }

    fn map<N>(self, map: impl FnOnce(M) -> N) -> Document<N> {
        let Self { uid, revision, created_at, updated_at, manifest } = self;
        Document { uid, revision, created_at, updated_at, manifest: map(manifest) }
    }
}

fn document(stored: &Stored) -> String {
    match &stored.entry {
        Entry::Namespace(namespace) => serde_json::to_string(&Document::of(stored, namespace)),
        Entry::Shard(shard) => serde_json::to_string(&Document::of(stored, shard)),
    }
    .expect("a manifest has text keys only, so it always serializes")
}

fn parse_document(
    row: &Row<'_>,
    column: usize,
    kind: Kind,
) -> airfleet_sql::Result<Option<Stored>> {
    if row.is_null(column)? {
        return Ok(None);
    }
    let document = match kind {
        Kind::Namespace => row.json::<Document<Namespace>>(column)?.map(Entry::Namespace),
        Kind::Shard => row.json::<Document<Shard>>(column)?.map(Entry::Shard),
    };
    Ok(Some(document.into_stored()))
}

pub(super) async fn insert<'a>(
    tx: &mut Tx,
    write: &write::Write,
    revision: Revision,
    events: impl Iterator<Item = NewEvent<'a>>,
) -> airfleet_sql::Result<()> {
    let rows = events.map(|NewEvent { sequence, action, item }| {
        params![
            sequence,
            revision.0,
            item.key.kind.as_str(),
            &item.key.name,
            action,
            write.at,
            &write.actor,
            &write.call_id,
            &write.reason,
            item.before.as_ref().map(document),
            item.after.as_ref().map(document),
        ]
    });
    tx.insert_many(
        "INSERT INTO registry_events
            (sequence, revision, kind, name, action, happened_at, actor, request_id, reason,
             before, after)",
        "",
        rows.collect(),
    )
    .await?;
    Ok(())
}

/// The entry before and after what `revision` did to it.
pub(super) async fn at(
    tx: &mut Tx,
    key: &Key,
    revision: Revision,
) -> airfleet_sql::Result<(Option<Stored>, Option<Stored>)> {
    let kind = key.kind;
    let found = tx
        .fetch_optional(
            "SELECT before, after FROM registry_events
             WHERE kind = $1 AND name = $2 AND revision = $3",
            params![kind.as_str(), &key.name, revision.0],
            move |row| Ok((parse_document(row, 0, kind)?, parse_document(row, 1, kind)?)),
        )
        .await?;
    // Events outlive the calls that may be repeated, so it is there.
    Ok(found.unwrap_or_default())
}

/// The entry as it was at `revision`.
pub(super) async fn as_of(
    tx: &mut Tx,
    key: &Key,
    revision: Revision,
) -> airfleet_sql::Result<Option<Stored>> {
    let kind = key.kind;
    let last = tx
        .fetch_optional(
            "SELECT after FROM registry_events
             WHERE kind = $1 AND name = $2 AND revision <= $3 ORDER BY sequence DESC LIMIT 1",
            params![kind.as_str(), &key.name, revision.0],
            move |row| parse_document(row, 0, kind),
        )
        .await?;
    if let Some(then) = last {
        return Ok(then);
    }
    // Its last change before may be forgotten. Then what came next tells what it was, and where
    // nothing came it is so still.
    let next = tx
        .fetch_optional(
            "SELECT before FROM registry_events
             WHERE kind = $1 AND name = $2 AND revision > $3 ORDER BY sequence LIMIT 1",
            params![kind.as_str(), &key.name, revision.0],
            move |row| parse_document(row, 0, kind),
        )
        .await?;
    if let Some(then) = next {
        return Ok(then);
    }
    let sql = format!("SELECT {ENTRY_COLUMNS} FROM registry_entries WHERE kind = $1 AND name = $2");
    tx.fetch_optional(Sql::assembled(sql), params![kind.as_str(), &key.name], entry_row).await
}

impl Store {
    /// A page of the audit, newest first: events before number `before` (`None` for the newest),
    /// at most `limit` and about `max_bytes`. Also whether there are more.
    pub(crate) async fn audit(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Vec<AuditEvent>, bool), Error> {
        let mut binds = params![before.unwrap_or(i64::MAX), limit as i64 + 1];
        let mut condition = String::new();
        match (filter.kind, &filter.name) {
            (None, None) => {}
            (Some(kind), _) => {
                binds.push(kind.as_str().into());
                condition += " AND kind = $3";
            }
            // Every kind is named, so that the index by kind and name serves.
            (None, Some(_)) => condition += " AND kind IN ('namespace', 'shard')",
        }
        if let Some(name) = &filter.name {
            binds.push(name.into());
            write!(condition, " AND name = ${}", binds.len()).expect("a String takes everything");
        }
        let sql = format!(
            "SELECT sequence, revision, kind, name, action, happened_at, actor, request_id, reason,
                before, after
             FROM registry_events WHERE sequence < $1{condition}
             ORDER BY sequence DESC LIMIT $2"
        );
        let mut tx = self.read().await?;
        let page = (Vec::new(), 0, false);
        let (events, _, more) = tx
            .fold_until(Sql::assembled(sql), binds, page, move |(events, bytes, more), row| {
                if events.len() == limit || *bytes >= max_bytes {
                    *more = true;
                    return Ok(ControlFlow::Break(()));
                }
                for column in [9, 10] {
                    *bytes += row.get::<Option<String>>(column)?.map_or(0, |text| text.len());
                }
                events.push(audit_row(row)?);
                Ok(ControlFlow::Continue(()))
            })
            .await?;
        Ok((events, more))
    }

    /// What happened after `after`, in order of revision: whole revisions, at least one where
    /// there is one, at most about `max_changes` changes and `max_bytes`.
    pub(crate) async fn changes_after(
        &self,
        after: Revision,
        max_changes: usize,
        max_bytes: usize,
    ) -> Result<Vec<Revised>, Error> {
        let mut tx = self.read().await?;
        let state = (Vec::<Revised>::new(), 0_usize, 0_usize);
        let (revised, ..) = tx
            .fold_until(
                "SELECT revision, kind, name, after, LENGTH(after) FROM registry_events
                 WHERE revision > $1 ORDER BY revision, sequence LIMIT $2",
                // No revision has more changes than one call may make, so the last one that is
                // begun can be finished.
                params![after.0, (max_changes + crate::service::APPLY_MAX) as i64],
                state,
                move |(all, changes, bytes), row| {
                    let revision = Revision(row.get(0)?);
                    let is_new = all.last().is_none_or(|last| last.revision != revision);
                    if is_new && (*changes >= max_changes || *bytes >= max_bytes) {
                        return Ok(ControlFlow::Break(()));
                    }
                    let kind = kind_column(row, 1)?;
                    let key = Key { kind, name: row.get(2)? };
                    let size = row.get::<Option<i64>>(4)?.unwrap_or(0) as usize + key.name.len();
                    let change = Change { key, after: parse_document(row, 3, kind)?.map(Arc::new) };
                    *changes += 1;
                    *bytes += size;
                    if is_new {
                        all.push(Revised { revision, changes: Vec::new(), bytes: 0 });
                    }
                    let last = all.last_mut().expect("one was pushed");
                    last.changes.push(change);
                    last.bytes += size;
                    Ok(ControlFlow::Continue(()))
                },
            )
            .await?;
        Ok(revised)
    }
}

fn audit_row(row: &Row<'_>) -> airfleet_sql::Result<AuditEvent> {
    let kind = kind_column(row, 2)?;
    Ok(AuditEvent {
        sequence: row.get(0)?,
        revision: Revision(row.get(1)?),
        key: Key { kind, name: row.get(3)? },
        action: row.get(4)?,
        happened_at: row.get(5)?,
        actor: row.get(6)?,
        request_id: row.get(7)?,
        reason: row.get(8)?,
        before: parse_document(row, 9, kind)?,
        after: parse_document(row, 10, kind)?,
    })
}
