//! What namespaces bring to their shards. Written when the manifest changes, read when an agent is
//! told: a million of them are not kept in memory.

use std::{collections::HashMap, sync::Arc};

use airfleet_domain::{
    ids::{NamespaceName, Revision},
    manifest::Workload,
};
use airfleet_sql::{Sql, Tx, Value, params, placeholders};
use xxhash_rust::xxh3::xxh3_64;

use super::{Batch, Result, Store, commit::NAMES_PER_STATEMENT};

/// A workload as it is kept, and what tells it from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    json: Arc<str>,
    digest: i64,
}

impl Declared {
    /// What tells it from another.
    pub(crate) fn digest(&self) -> i64 {
        self.digest
    }
}

impl From<&Workload> for Declared {
    fn from(workload: &Workload) -> Self {
        let json = serde_json::to_string(workload).expect("a workload has text keys only");
        let digest = xxh3_64(json.as_bytes()).cast_signed();
        Self { json: json.into(), digest }
    }
}

/// A workload to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewWorkload {
    /// The namespace.
    pub(crate) namespace: NamespaceName,
    /// What it brings.
    pub(crate) declared: Declared,
    /// The manifest's revision of it.
    pub(crate) manifest_revision: Revision,
}

pub(super) async fn write(tx: &mut Tx, batch: &Batch) -> Result<()> {
    let rows = batch.workloads.iter().map(|new| {
        params![new.namespace.as_str(), new.declared.json.as_ref(), new.manifest_revision.0]
    });
    tx.insert_many(
        "INSERT INTO router_workloads (namespace, workload, manifest_revision)",
        "ON CONFLICT (namespace) DO UPDATE SET
            workload = excluded.workload, manifest_revision = excluded.manifest_revision",
        rows.collect(),
    )
    .await?;
    for names in batch.removed.chunks(NAMES_PER_STATEMENT) {
        let sql = format!(
            "DELETE FROM router_workloads WHERE namespace IN ({})",
            placeholders(1, names.len())
        );
        tx.execute(Sql::assembled(sql), texts(names)).await?;
    }
    Ok(())
}

impl Store {
    /// The workloads of these namespaces, with the manifest's revision of each. Those that none is
    /// known of are left out.
    pub(crate) async fn workloads(
        &self,
        namespaces: &[NamespaceName],
    ) -> Result<HashMap<NamespaceName, (Workload, Revision)>> {
        let mut found = HashMap::with_capacity(namespaces.len());
        if namespaces.is_empty() {
            return Ok(found);
        }
        let mut tx = self.db.read().await?;
        for names in namespaces.chunks(NAMES_PER_STATEMENT) {
            let sql = format!(
                "SELECT namespace, workload, manifest_revision FROM router_workloads
                 WHERE namespace IN ({})",
                placeholders(1, names.len())
            );
            let rows = tx.fetch_all(Sql::assembled(sql), texts(names), |row| {
                let namespace: NamespaceName = row.parse(0)?;
                Ok((namespace, (row.json::<Workload>(1)?, Revision(row.get(2)?))))
            });
            found.extend(rows.await?);
        }
        Ok(found)
    }
}

fn texts(names: &[NamespaceName]) -> Vec<Value> {
    names.iter().map(|name| name.as_str().into()).collect()
}
