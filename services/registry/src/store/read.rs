//! Reading one entry, or all of them.

use airfleet_domain::ids::Revision;
use airfleet_sql::{Sql, Tx, params};

use super::page::read_page;
use super::{ENTRY_COLUMNS, Filter, Head, Key, Kind, Result, Store, Stored, entry_row, head};

/// How somebody who has the manifest of some revision gets to the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resume {
    /// By what changed since.
    Changes,
    /// By reading everything: that revision is not of this store, or too far back.
    Everything,
}

impl Store {
    /// Where the store stands.
    pub(crate) async fn head(&self) -> Result<Head> {
        let mut tx = self.read().await?;
        Ok(head(&mut tx).await?)
    }

    /// One entry, if it is there.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Stored>> {
        let mut tx = self.read().await?;
        let sql =
            format!("SELECT {ENTRY_COLUMNS} FROM registry_entries WHERE kind = $1 AND name = $2");
        let binds = params![key.kind.as_str(), &key.name];
        Ok(tx.fetch_optional(Sql::assembled(sql), binds, entry_row).await?)
    }

    /// How to get on from `revision`, where more than `history` changes are not told one by one.
    pub(crate) async fn resume(&self, revision: Revision, history: i64) -> Result<Resume> {
        let mut tx = self.read().await?;
        let head = head(&mut tx).await?;
        if revision > head.revision || revision < head.events_floor {
            return Ok(Resume::Everything);
        }
        let oldest = tx
            .fetch_optional(
                "SELECT revision FROM registry_events WHERE sequence = $1",
                params![head.sequence - history],
                |row| row.get::<i64>(0),
            )
            .await?;
        let is_far_back = oldest.is_some_and(|oldest| revision.0 < oldest);
        Ok(if is_far_back { Resume::Everything } else { Resume::Changes })
    }

    /// The whole manifest at one revision.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot> {
        let mut tx = self.read().await?;
        let head = head(&mut tx).await?;
        Ok(Snapshot { tx, revision: head.revision, next: Some((Kind::Shard, String::new())) })
    }
}

/// The whole manifest at one revision, piece by piece. Holds a connection until it is dropped.
#[derive(Debug)]
pub(crate) struct Snapshot {
    tx: Tx,
    revision: Revision,
    /// Where the next piece starts: after this name of this kind.
    next: Option<(Kind, String)>,
}

impl Snapshot {
    /// The revision.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The next piece, of at most `limit` entries and about `max_bytes`; and whether it is the
    /// last one. Shards come first, for they are few and namespaces are placed on them.
    pub(crate) async fn piece(
        &mut self,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Vec<Stored>, bool)> {
        let mut entries = Vec::new();
        while let Some((kind, after)) = self.next.take() {
            let filter = Filter { kind: Some(kind), ..Filter::default() };
            // The few bytes of shards before the first namespaces do not count.
            let room = limit - entries.len();
            let page = read_page(&mut self.tx, &filter, &after, room, max_bytes).await?;
            entries.extend(page.entries);
            self.next = match (page.next, kind) {
                (Some(name), kind) => Some((kind, name)),
                (None, Kind::Shard) => Some((Kind::Namespace, String::new())),
                (None, Kind::Namespace) => None,
            };
            let is_new_kind = matches!(&self.next, Some((_, after)) if after.is_empty());
            if !is_new_kind || entries.len() >= limit / 2 {
                break;
            }
        }
        Ok((entries, self.next.is_none()))
    }
}
