//! A row of each table as the rest of the router sees it, and how it is read.

use std::{collections::HashMap, sync::Arc};

use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision, ShardName},
    manifest,
    placement::Constraints,
    resources::Resources,
    routing::{Assignment, Entry, State},
};
use airfleet_sql::{Row, Value, params};

/// What a namespace asks of its shard: as the manifest says it, and ready to be compared. Shared by
/// all namespaces that ask the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// As declared.
    pub(crate) declared: manifest::Placement,
    /// Ready to be compared.
    pub(crate) constraints: Constraints,
}

impl TryFrom<manifest::Placement> for Rules {
    type Error = String;

    fn try_from(declared: manifest::Placement) -> Result<Self, String> {
        Ok(Self { constraints: Constraints::try_from(&declared)?, declared })
    }
}

/// What placement needs to know of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needs {
    /// What it is declared to use.
    pub(crate) demand: Resources,
    /// What it asks of its shard.
    pub(crate) rules: Arc<Rules>,
}

/// An assignment and what the leader has to know beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The assignment.
    pub(crate) entry: Entry,
    /// What it needs.
    pub(crate) needs: Needs,
    /// The manifest's revision of the namespace; of a released one, the last that it was released
    /// at or after.
    pub(crate) manifest_revision: Revision,
    /// Whether the manifest no longer has it although a shard owns it.
    pub(crate) orphaned: bool,
    /// Tells what it brings to its shard from anything else; 0 where that is not known.
    pub(crate) workload_digest: i64,
}

impl Record {
    pub(crate) fn namespace(&self) -> NamespaceName {
        self.entry.namespace_name()
    }
}

/// Why a shard takes no new namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cordon {
    /// Who set it.
    pub(crate) actor: String,
    /// Why.
    pub(crate) reason: String,
    /// When. Microseconds since 1970-01-01 UTC.
    pub(crate) time_us: i64,
}

/// A shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardRecord {
    /// Its name.
    pub(crate) name: ShardName,
    /// Its uid in the registry.
    pub(crate) uid: String,
    /// As the manifest last had it.
    pub(crate) manifest: Arc<manifest::Shard>,
    /// The manifest's revision of it.
    pub(crate) manifest_revision: Revision,
    /// False where the manifest no longer has it although namespaces are on it.
    pub(crate) registered: bool,
    /// Set while it is cordoned.
    pub(crate) cordon: Option<Cordon>,
    /// Released, so that it can be removed: up to this revision of the manifest it takes nothing.
    pub(crate) barred_revision: Revision,
    /// When an agent of it first connected. Microseconds since 1970-01-01 UTC.
    pub(crate) agent_seen_at_us: Option<i64>,
    /// Revision at which it last changed.
    pub(crate) revision: Revision,
}

impl ShardRecord {
    /// Whether it was released and did not change in the manifest since.
    pub(crate) fn is_barred(&self) -> bool {
        self.barred_revision > Revision(0) && self.barred_revision >= self.manifest_revision
    }
}

/// Columns that make an [`Entry`].
pub(super) const ENTRY_COLUMNS: &str = "namespace, uid, shard, generation, state, pinned_shard, \
                                        reason, prefixes, revision, updated_at";

/// Columns that make a [`Record`]: those of an entry, then these.
pub(super) const RECORD_COLUMNS: &str =
    "demand, placement, manifest_revision, orphaned, workload_digest";

/// Columns that make a [`ShardRecord`].
pub(super) const SHARD_COLUMNS: &str = "name, uid, manifest, manifest_revision, registered, \
                                        cordoned_at, cordoned_by, cordon_reason, barred_revision, \
                                        agent_seen_at, revision";

pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Assigned => "assigned",
        State::Unplaced => "unplaced",
        State::Released => "released",
        State::Moving => "moving",
    }
}

pub(super) fn entry(row: &Row<'_>) -> airfleet_sql::Result<Entry> {
    let shard = |column: usize| match row.text(column)? {
        "" => Ok(None),
        name => name.parse().map(Some).map_err(|error| row.corrupt(column, error)),
    };
    let state = match row.text(4)? {
        "assigned" => State::Assigned,
        "unplaced" => State::Unplaced,
        "released" => State::Released,
        "moving" => State::Moving,
        other => return Err(row.corrupt(4, format_args!("{other:?} is no state"))),
    };
    Ok(Entry::new(&Assignment {
        namespace: row.parse(0)?,
        namespace_uid: row.get(1)?,
        shard: shard(2)?,
        generation: Generation(row.get(3)?),
        state,
        pinned_shard: shard(5)?,
        reason: row.get(6)?,
        prefixes: row.json(7)?,
        revision: Revision(row.get(8)?),
        update_time_us: row.get(9)?,
    }))
}

/// Reads records; equal rules are kept once, since of a million namespaces most ask the same.
#[derive(Default)]
pub(super) struct RecordReader {
    rules: HashMap<String, Arc<Rules>>,
}

impl RecordReader {
    pub(super) fn read(&mut self, row: &Row<'_>) -> airfleet_sql::Result<Record> {
        let text = row.text(11)?;
        let rules = match self.rules.get(text) {
            Some(rules) => rules.clone(),
            None => {
                let declared: manifest::Placement = row.json(11)?;
                let rules = Rules::try_from(declared).map_err(|error| row.corrupt(11, error))?;
                let rules = Arc::new(rules);
                self.rules.insert(text.to_owned(), rules.clone());
                rules
            }
        };
        Ok(Record {
            entry: entry(row)?,
            needs: Needs { demand: row.json(10)?, rules },
            manifest_revision: Revision(row.get(12)?),
            orphaned: row.get(13)?,
            workload_digest: row.get(14)?,
        })
    }
}

pub(super) fn shard(row: &Row<'_>) -> airfleet_sql::Result<ShardRecord> {
    let cordon = match row.get::<Option<i64>>(5)? {
        Some(time_us) => Some(Cordon { actor: row.get(6)?, reason: row.get(7)?, time_us }),
        None => None,
    };
    Ok(ShardRecord {
        name: row.parse(0)?,
        uid: row.get(1)?,
        manifest: Arc::new(row.json(2)?),
        manifest_revision: Revision(row.get(3)?),
        registered: row.get(4)?,
        cordon,
        barred_revision: Revision(row.get(8)?),
        agent_seen_at_us: row.get(9)?,
        revision: Revision(row.get(10)?),
    })
}

/// The values of a record in the order of [`ENTRY_COLUMNS`] and [`RECORD_COLUMNS`].
pub(super) fn record_values(record: &Record) -> Vec<Value> {
    let Record { entry, needs, manifest_revision, orphaned, workload_digest } = record;
    let prefixes: Vec<&str> = entry.prefixes().collect();
    params![
        entry.namespace(),
        entry.namespace_uid(),
        entry.shard().unwrap_or_default(),
        entry.generation().0,
        state_name(entry.state()),
        entry.pinned_shard().unwrap_or_default(),
        entry.reason(),
        json(&prefixes),
        entry.revision().0,
        entry.update_time_us(),
        json(&needs.demand),
        json(&needs.rules.declared),
        manifest_revision.0,
        *orphaned,
        *workload_digest,
    ]
}

/// The values of a shard in the order of [`SHARD_COLUMNS`], then when it changed.
pub(super) fn shard_values(shard: &ShardRecord, now_us: i64) -> Vec<Value> {
    let cordon = shard.cordon.as_ref();
    params![
        shard.name.as_str(),
        &shard.uid,
        json(&*shard.manifest),
        shard.manifest_revision.0,
        shard.registered,
        cordon.map(|cordon| cordon.time_us),
        cordon.map_or("", |cordon| &cordon.actor),
        cordon.map_or("", |cordon| &cordon.reason),
        shard.barred_revision.0,
        shard.agent_seen_at_us,
        shard.revision.0,
        now_us,
    ]
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("manifest types have string keys and finite numbers")
}
