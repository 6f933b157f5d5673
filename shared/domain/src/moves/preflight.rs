//! What is found before a move begins, and what to do about it.
//!
//! Both agents are asked what they have ([`Inspection`]); [`findings`] compares the two. The same
//! function serves the dry run and the move itself, which looks again when its turn has come.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Move, Observations, Options};

/// What an agent finds on its shard, for one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Inspection {
    /// When the router took it in. Microseconds since 1970-01-01 UTC.
    pub at_us: i64,
    /// Version of Airflow.
    pub airflow_version: String,
    /// Alembic revision of the metadata database.
    pub schema_revision: String,
    /// Over names, types and order of all columns that travel.
    pub schema_digest: String,
    /// Tables and columns that say something of a DAG and that the agent does not know how to move.
    pub not_understood: Vec<String>,
    /// The database: "postgresql" or "sqlite".
    pub database: String,
    /// `core.dags_folder`: part of what Airflow's `dag_hash` is made of.
    pub dags_folder: String,
    /// Providers with their versions.
    pub providers: BTreeMap<String, String>,
    /// Pools: at the source those that its tasks use and its manifest does not bring, at the target all.
    pub pools: BTreeSet<String>,
    /// Over the Fernet key, keyed so that it tells nothing of it; empty where there is none.
    pub fernet_digest: String,
    /// Whether Airflow has a secrets backend, and which: its class.
    pub secrets_backend: String,
    /// DAGs that are not stale. Count.
    pub dags: i64,
    /// Runs. Count.
    pub runs: i64,
    /// Task instances. Count.
    pub task_instances: i64,
    /// Task instances that run. Count.
    pub running: i64,
    /// Task instances that wait in the triggerer. Count.
    pub deferred: i64,
    /// DAGs with a backfill that has not ended.
    pub open_backfills: Vec<String>,
    /// Assets that tie a DAG of the namespace to one of another: "asset: producer -> consumer".
    pub asset_crossings: Vec<String>,
    /// What keeps the agent from taking part in moves, such as a database that it cannot write.
    pub obstacles: Vec<String>,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The move cannot be.
    Blocks,
    /// The move waits until it is gone.
    Delays,
    /// Worth knowing.
    Warns,
}

impl Severity {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Blocks => "blocks",
            Severity::Delays => "delays",
            Severity::Warns => "warns",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $severity:ident, $remedy:literal;)*) => {
        /// What may be found.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// Stable name in UPPER_SNAKE_CASE.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => $code,)* }
            }

            /// How much it matters.
            pub fn severity(self) -> Severity {
                match self { $(Code::$name => Severity::$severity,)* }
            }

            /// What to do about it.
            pub fn remedy(self) -> &'static str {
                match self { $(Code::$name => $remedy,)* }
            }
        }
    };
}

codes! {
    /// An agent is not there.
    AgentAway = "AGENT_AWAY", Blocks,
        "start the shard's agent, or look at why it does not reach the router";
    /// An agent cannot take part.
    AgentUnable = "AGENT_UNABLE", Blocks,
        "put right what the agent names";
    /// The placer would not put it there.
    TargetUnfit = "TARGET_UNFIT", Blocks,
        "choose another shard, or change what speaks against this one";
    /// Its source is there although it was said to be lost.
    SourceAlive = "SOURCE_ALIVE", Blocks,
        "move it live, without forcing; or stop the shard and its agent first";
    /// Airflow differs.
    AirflowVersionDiffers = "AIRFLOW_VERSION_DIFFERS", Blocks,
        "bring both shards to the same version of Airflow";
    /// The databases' schemas differ.
    SchemaRevisionDiffers = "SCHEMA_REVISION_DIFFERS", Blocks,
        "run airflow db migrate on the older shard";
    /// The columns differ although the revision does not, or the agents exchange rows in other ways.
    SchemaDiffers = "SCHEMA_DIFFERS", Blocks,
        "run agents of one version on both shards; if they are, somebody changed a schema by hand";
    /// There is something that the agent would leave behind.
    SchemaNotUnderstood = "SCHEMA_NOT_UNDERSTOOD", Blocks,
        "update the agents to a version that knows it";
    /// The database cannot be moved from or to.
    DatabaseUnsupported = "DATABASE_UNSUPPORTED", Blocks,
        "use PostgreSQL as metadata database";
    /// Paths differ.
    DagsFolderDiffers = "DAGS_FOLDER_DIFFERS", Blocks,
        "give both shards the same core.dags_folder; it is part of every DAG version";
    /// A provider is missing.
    ProviderMissing = "PROVIDER_MISSING", Blocks,
        "install it on the target";
    /// A provider differs.
    ProviderVersionDiffers = "PROVIDER_VERSION_DIFFERS", Warns,
        "check that its DAGs run with the target's version";
    /// A pool is missing.
    PoolMissing = "POOL_MISSING", Blocks,
        "declare it in the namespace's manifest, or create it on the target";
    /// What is encrypted could not be read.
    FernetKeyDiffers = "FERNET_KEY_DIFFERS", Warns,
        "share the Fernet key, or keep connections and variables in a secrets backend";
    /// A backfill is open.
    OpenBackfill = "OPEN_BACKFILL", Delays,
        "let it end, or cancel it";
    /// Tasks wait in the triggerer.
    DeferredTasks = "DEFERRED_TASKS", Delays,
        "let them finish, or clear them";
    /// Assets tie it to DAGs that stay.
    AssetCrossing = "ASSET_CROSSING", Blocks,
        "move both namespaces, or allow it if the schedules may come apart";
    /// It is allowed that assets tie it to DAGs that stay.
    AssetCrossingAllowed = "ASSET_CROSSING_ALLOWED", Warns,
        "DAGs that these assets tie together no longer start each other";
    /// Nothing comes along from a source that is lost.
    NothingCopied = "NOTHING_COPIED", Warns,
        "runs, XCom and cursors stay behind: a DAG that catches up runs again from its start date, \
         one that does not may miss or repeat an interval; pause what must not run twice";
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// In one line: what was found where.
    pub message: String,
}

impl Finding {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// How much it matters.
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

/// What is named of a list, at most.
const NAMED_MAX: usize = 5;

fn named<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    let shown = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What speaks against a move, worst first. What could not be looked at is a finding too.
pub fn findings(row: &Move, seen: &Observations) -> Vec<Finding> {
    let Options { source_is_lost, allow_asset_crossings, .. } = row.options;
    let mut found = Vec::new();
    let ends = [(&row.source, &seen.source, !source_is_lost), (&row.target, &seen.target, true)];
    for (shard, end, needed) in ends {
        if needed && end.inspection.is_none() {
            let message = if end.connected {
                format!("the agent of {shard} has not answered yet")
            } else {
                format!("the agent of {shard} is not connected")
            };
            found.push(Finding::new(Code::AgentAway, message));
        }
        for obstacle in end.inspection.iter().flat_map(|inspection| &inspection.obstacles) {
            found.push(Finding::new(Code::AgentUnable, format!("{shard}: {obstacle}")));
        }
    }
    for reason in &seen.unfit {
        found.push(Finding::new(Code::TargetUnfit, format!("{}: {reason}", row.target)));
    }
    if source_is_lost {
        if seen.source.connected {
            let message = format!("the agent of {} is connected", row.source);
            found.push(Finding::new(Code::SourceAlive, message));
        }
        let message = format!("nothing is copied from {}", row.source);
        found.push(Finding::new(Code::NothingCopied, message));
    } else if let (Some(source), Some(target)) = (&seen.source.inspection, &seen.target.inspection)
    {
        compare(source, target, &mut found);
        activity(source, allow_asset_crossings, &mut found);
    }
    found.sort_by_key(|finding| (finding.severity(), finding.code));
    found
}

fn compare(source: &Inspection, target: &Inspection, found: &mut Vec<Finding>) {
    let equal = [
        (Code::AirflowVersionDiffers, "Airflow", &source.airflow_version, &target.airflow_version),
        (
            Code::SchemaRevisionDiffers,
            "the schema's revision",
            &source.schema_revision,
            &target.schema_revision,
        ),
        (Code::SchemaDiffers, "the columns' digest", &source.schema_digest, &target.schema_digest),
        (Code::DagsFolderDiffers, "dags_folder", &source.dags_folder, &target.dags_folder),
    ];
    for (code, what, source, target) in equal {
        if source != target {
            let message = format!("{what} is {source:?} on the source, {target:?} on the target");
            found.push(Finding::new(code, message));
        }
    }
    for (end, inspection) in [("source", source), ("target", target)] {
        if !inspection.not_understood.is_empty() {
            let message = format!("{end}: {}", named(&inspection.not_understood));
            found.push(Finding::new(Code::SchemaNotUnderstood, message));
        }
        if inspection.database != "postgresql" {
            let message = format!("the {end} has {:?}", inspection.database);
            found.push(Finding::new(Code::DatabaseUnsupported, message));
        }
    }
    let missing = |name: &&String| !target.providers.contains_key(*name);
    let providers: Vec<&String> = source.providers.keys().filter(missing).collect();
    if !providers.is_empty() {
        found.push(Finding::new(Code::ProviderMissing, named(providers)));
    }
    let differing: Vec<String> = source
        .providers
        .iter()
        .filter_map(|(name, version)| {
            let other = target.providers.get(name).filter(|other| *other != version)?;
            Some(format!("{name} {version} on the source, {other} on the target"))
        })
        .collect();
    if !differing.is_empty() {
        found.push(Finding::new(Code::ProviderVersionDiffers, named(&differing)));
    }
    let pools: Vec<&String> = source.pools.difference(&target.pools).collect();
    if !pools.is_empty() {
        found.push(Finding::new(Code::PoolMissing, named(pools)));
    }
    let same_backend =
        !source.secrets_backend.is_empty() && source.secrets_backend == target.secrets_backend;
    if source.fernet_digest != target.fernet_digest && !same_backend {
        let message = "what is encrypted on the source cannot be read on the target";
        found.push(Finding::new(Code::FernetKeyDiffers, message));
    }
}

fn activity(source: &Inspection, allow_crossings: bool, found: &mut Vec<Finding>) {
    if !source.open_backfills.is_empty() {
        found.push(Finding::new(Code::OpenBackfill, named(&source.open_backfills)));
    }
    if source.deferred > 0 {
        let message = format!("{} task instances wait in the triggerer", source.deferred);
        found.push(Finding::new(Code::DeferredTasks, message));
    }
    if !source.asset_crossings.is_empty() {
        let code = if allow_crossings { Code::AssetCrossingAllowed } else { Code::AssetCrossing };
        found.push(Finding::new(code, named(&source.asset_crossings)));
    }
}
