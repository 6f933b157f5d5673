//! What tests of several modules need.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use airfleet_domain::{
    ids::{Generation, Revision, Term},
    manifest,
    routing::{Assignment, State},
};
use airfleet_local::Postgres;
use airfleet_sql::lease::Standing;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::store::{Needs, Record, Rules, ShardRecord, Store};

/// A database of its own for one test.
pub(crate) struct Database {
    pub(crate) url: String,
    _folder: Option<TempDir>,
}

/// A new SQLite file.
pub(crate) fn sqlite() -> Database {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/router.db", folder.path().display());
    Database { url, _folder: Some(folder) }
}

/// A new database on the one PostgreSQL server of this test process.
pub(crate) async fn postgres() -> Database {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let start = async || Postgres::options().max_connections(300).start().await.unwrap();
    let server = SERVER.get_or_init(start).await;
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    Database { url: server.create_database(&name).await.unwrap(), _folder: None }
}

/// Takes the lead and answers its term.
pub(crate) async fn lead(store: &Store) -> Term {
    match store.lease().tick().await.unwrap() {
        Standing::Leader { term, .. } => Term(term),
        other => panic!("nobody else leads, but {other:?}"),
    }
}

/// A name of whatever kind is asked for.
pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// A namespace to be described further: without a shard, uid `uid-<name>`, prefix `<name>.`.
pub(crate) struct Draft {
    assignment: Assignment,
    needs: Needs,
}

pub(crate) fn record(namespace: &str) -> Draft {
    Draft {
        assignment: Assignment {
            namespace: name(namespace),
            namespace_uid: format!("uid-{namespace}"),
            prefixes: vec![name(&format!("{namespace}."))],
            shard: None,
            generation: Generation(0),
            state: State::Unplaced,
            pinned_shard: None,
            reason: "test".into(),
            revision: Revision(0),
            update_time_us: 1,
        },
        needs: needs("{}", "{}"),
    }
}

/// Needs as the manifest has them, in JSON.
pub(crate) fn needs(demand: &str, placement: &str) -> Needs {
    let declared: manifest::Placement = serde_json::from_str(placement).unwrap();
    Needs {
        demand: serde_json::from_str(demand).unwrap(),
        rules: Arc::new(Rules::try_from(declared).unwrap()),
    }
}

impl Draft {
    pub(crate) fn on(mut self, shard: &str, generation: i64) -> Self {
        self.assignment.shard = Some(name(shard));
        self.assignment.generation = Generation(generation);
        self.assignment.state = State::Assigned;
        self
    }

    pub(crate) fn state(mut self, state: State) -> Self {
        self.assignment.state = state;
        self
    }

    pub(crate) fn pinned(mut self, shard: &str) -> Self {
        self.assignment.pinned_shard = Some(name(shard));
        self
    }

    pub(crate) fn prefixes(mut self, prefixes: &[&str]) -> Self {
        self.assignment.prefixes = prefixes.iter().map(|prefix| name(prefix)).collect();
        self
    }

    pub(crate) fn needs(mut self, demand: &str, placement: &str) -> Self {
        self.needs = needs(demand, placement);
        self
    }

    /// As of a revision.
    pub(crate) fn at(mut self, revision: i64) -> Record {
        self.assignment.revision = Revision(revision);
        Record {
            entry: (&self.assignment).into(),
            needs: self.needs,
            manifest_revision: Revision(1),
            orphaned: false,
        }
    }
}

pub(crate) fn with_generation(record: Record, generation: i64) -> Record {
    let mut assignment = record.entry.assignment();
    assignment.generation = Generation(generation);
    Record { entry: (&assignment).into(), ..record }
}

/// A registered shard, as of revision 1.
pub(crate) fn shard(shard: &str) -> ShardRecord {
    let metadata = manifest::Metadata { name: shard.to_owned(), ..Default::default() };
    ShardRecord {
        name: name(shard),
        uid: format!("uid-{shard}"),
        manifest: Arc::new(manifest::Shard { metadata, spec: manifest::ShardSpec::default() }),
        manifest_revision: Revision(1),
        registered: true,
        cordon: None,
        barred_revision: Revision(0),
        agent_seen_at_us: None,
        revision: Revision(1),
    }
}
