//! Reading all rows, or those after a revision.

use airfleet_domain::{
    ids::{NamespaceName, Revision, ShardName},
    routing::Entry,
};
use airfleet_sql::{Row, Sql, Tx, Value, params};

use super::{
    Head, Record, Result, ShardRecord, Store, head,
    record::{ENTRY_COLUMNS, RECORD_COLUMNS, RecordReader, SHARD_COLUMNS, entry, shard},
};

/// Something that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Removal {
    /// A namespace.
    Namespace(NamespaceName),
    /// A shard.
    Shard(ShardName),
}

/// Everything, as of one revision. `T` is [`Entry`] where only the table is wanted, [`Record`]
/// where the leader reads.
#[derive(Debug)]
pub(crate) struct Contents<T> {
    /// Where the store stands.
    pub(crate) head: Head,
    /// All namespaces, in any order.
    pub(crate) namespaces: Vec<T>,
    /// All shards, in order of name.
    pub(crate) shards: Vec<ShardRecord>,
    /// What was removed after the floor, in order of revision.
    pub(crate) removals: Vec<(Revision, Removal)>,
}

/// What changed after a revision.
#[derive(Debug)]
pub(crate) enum Changes<T> {
    /// Nothing.
    None,
    /// These rows, each at its latest. The contents hold only what changed; namespaces are in order
    /// of revision.
    Some(Contents<T>),
    /// Removals that the reader missed are forgotten, it missed more than the limit, or the store
    /// is behind the reader: it has to read everything.
    Everything(Head),
}

/// How rows of assignments are read.
pub(crate) trait Columns: Sized + Send + 'static {
    /// The columns.
    const COLUMNS: &'static [&'static str];
    /// What is kept from row to row.
    type Reader: Default + Send + 'static;
    /// Reads a row.
    fn read(reader: &mut Self::Reader, row: &Row<'_>) -> airfleet_sql::Result<Self>;
}

impl Columns for Entry {
    const COLUMNS: &'static [&'static str] = &[ENTRY_COLUMNS];
    type Reader = ();

    fn read((): &mut (), row: &Row<'_>) -> airfleet_sql::Result<Self> {
        entry(row)
    }
}

impl Columns for Record {
    const COLUMNS: &'static [&'static str] = &[ENTRY_COLUMNS, RECORD_COLUMNS];
    type Reader = Reader;

    fn read(reader: &mut Reader, row: &Row<'_>) -> airfleet_sql::Result<Self> {
        reader.0.read(row)
    }
}

/// Keeps what records share.
#[derive(Default)]
pub(crate) struct Reader(RecordReader);

impl Store {
    /// Reads everything.
    pub(crate) async fn load<T: Columns>(&self) -> Result<Contents<T>> {
        let mut tx = self.db.read().await?;
        let head = head(&mut tx).await?;
        // In whatever order the engine has them: sorting is quicker here than there.
        let namespaces = scan_assignments(&mut tx, "", vec![]).await?;
        let shards = shards_after(&mut tx, Revision(-1)).await?;
        let removals = removals_after(&mut tx, Revision(-1)).await?;
        Ok(Contents { head, namespaces, shards, removals })
    }

    /// Reads what changed after `revision` of the store `store_id`, at most `limit` namespaces.
    pub(crate) async fn changes_since<T: Columns>(
        &self,
        store_id: &str,
        revision: Revision,
        limit: u32,
    ) -> Result<Changes<T>> {
        let mut tx = self.db.read().await?;
        let head = head(&mut tx).await?;
        if head.store_id != store_id || head.revision < revision {
            return Ok(Changes::Everything(head));
        }
        if head.revision == revision {
            return Ok(Changes::None);
        }
        if revision < head.removals_floor {
            return Ok(Changes::Everything(head));
        }
        let changed = "WHERE revision > $1 ORDER BY revision LIMIT $2";
        let bounds = params![revision.0, limit.saturating_add(1)];
        let namespaces: Vec<T> = scan_assignments(&mut tx, changed, bounds).await?;
        if namespaces.len() > limit as usize {
            return Ok(Changes::Everything(head));
        }
        let shards = shards_after(&mut tx, revision).await?;
        let removals = removals_after(&mut tx, revision).await?;
        Ok(Changes::Some(Contents { head, namespaces, shards, removals }))
    }
}

async fn scan_assignments<T: Columns>(
    tx: &mut Tx,
    which: &str,
    params: Vec<Value>,
) -> Result<Vec<T>> {
    let columns = T::COLUMNS.join(", ");
    let sql = Sql::assembled(format!("SELECT {columns} FROM router_assignments {which}"));
    let state = (T::Reader::default(), Vec::new());
    let (_, rows) = tx
        .scan(sql, params, state, |(reader, rows), row| {
            rows.push(T::read(reader, row)?);
            Ok(())
        })
        .await?;
    Ok(rows)
}

async fn shards_after(tx: &mut Tx, after: Revision) -> Result<Vec<ShardRecord>> {
    let sql = Sql::assembled(format!(
        "SELECT {SHARD_COLUMNS} FROM router_shards WHERE revision > $1 ORDER BY name"
    ));
    let rows = tx
        .scan(sql, params![after.0], Vec::new(), |rows, row| {
            rows.push(shard(row)?);
            Ok(())
        })
        .await?;
    Ok(rows)
}

async fn removals_after(tx: &mut Tx, after: Revision) -> Result<Vec<(Revision, Removal)>> {
    let rows = tx
        .scan(
            "SELECT revision, kind, name FROM router_removals
             WHERE revision > $1 ORDER BY revision",
            params![after.0],
            Vec::new(),
            |rows, row| {
                let removal = match row.text(1)? {
                    "namespace" => Removal::Namespace(row.parse(2)?),
                    "shard" => Removal::Shard(row.parse(2)?),
                    other => return Err(row.corrupt(1, format_args!("{other:?} is no kind"))),
                };
                rows.push((Revision(row.get(0)?), removal));
                Ok(())
            },
        )
        .await?;
    Ok(rows)
}
