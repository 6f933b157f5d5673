//! The agent's part in moves.
//!
//! Responsible for telling what is found on the shard before a move ([`Inspector`]), for rows on
//! their way ([`Transfer`]), and for what has to be remembered of a move ([`Notes`]). What is asked
//! of the metadata database is [`airfleet_transfer`]'s. It must not know how roles are brought
//! about, or when evidence is told.

mod inspect;
pub(crate) mod notes;
mod transfer;
pub(crate) mod wire;

use std::{collections::HashMap, sync::Arc, time::Duration};

use airfleet_domain::{
    ids::{MoveId, ShardName},
    moves::{History, Part},
};
use airfleet_runtime::client::Transport;
use airfleet_transfer::{Catalog, Database, Scope, TableSize};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout},
};

pub(crate) use self::{
    inspect::{Inspector, keep_inspecting},
    notes::{Happened, Notes},
    transfer::{End, Key, Transfer},
};
use crate::airflow::metadata::Metadata;

/// How long what is known of the schema counts: Airflow may be migrated while the agent runs.
const CATALOG_AGE: Duration = Duration::from_mins(1);

/// Time for an estimate. The target waits meanwhile, and the source runs.
const ESTIMATE_LIMIT: Duration = Duration::from_secs(10);

/// What moves need. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Mover {
    /// This shard.
    shard: ShardName,
    metadata: Metadata,
    database: Database,
    /// The way to the router that took the agent in.
    router: watch::Receiver<Option<Transport>>,
    catalog: Arc<Mutex<Option<Known>>>,
    /// How much each move from here will take along under seal, until it is forgotten.
    estimates: Arc<Mutex<HashMap<MoveId, Vec<TableSize>>>>,
}

/// What was read of the schema, and when.
type Known = (Instant, Arc<Catalog>);

impl Mover {
    /// None where rows cannot be moved: the database is none that the library knows.
    pub(crate) fn new(
        shard: ShardName,
        metadata: &Metadata,
        router: watch::Receiver<Option<Transport>>,
    ) -> Option<Self> {
        let database = Database::new(metadata.options()?);
        Some(Self {
            shard,
            metadata: metadata.clone(),
            database,
            router,
            catalog: Arc::default(),
            estimates: Arc::default(),
        })
    }

    /// Where transactions on the fence are made.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Where rows are.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// What the database says of its tables, as of a moment ago.
    pub(crate) async fn catalog(&self) -> Result<Arc<Catalog>, airfleet_transfer::Error> {
        let mut known = self.catalog.lock().await;
        if let Some((at, catalog)) = &*known
            && at.elapsed() < CATALOG_AGE
        {
            return Ok(catalog.clone());
        }
        let catalog = Arc::new(Catalog::read(&self.database).await?);
        *known = Some((Instant::now(), catalog.clone()));
        Ok(catalog)
    }

    /// Finds out how much a move will take along under seal, before anything waits for it. What
    /// takes too long is not told.
    async fn estimate(&self, scope: &Scope, move_id: &MoveId, history: History) {
        let estimating = async {
            let catalog = self.catalog().await?;
            let of = (Part::Rest, history);
            airfleet_transfer::estimate(&self.database, &catalog, scope, of, ESTIMATE_LIMIT).await
        };
        let why = match timeout(ESTIMATE_LIMIT, estimating).await {
            Ok(Ok(sizes)) => {
                self.estimates.lock().await.insert(move_id.clone(), sizes);
                return;
            }
            // What fails here fails again where it counts.
            Ok(Err(error)) => crate::words::chain(&error),
            Err(_) => format!("it took more than {ESTIMATE_LIMIT:?}"),
        };
        tracing::debug!(namespace = %scope.namespace(), why, "nothing was estimated");
    }

    /// How much was estimated; nothing where that is not known.
    async fn estimated(&self, move_id: &MoveId) -> Vec<TableSize> {
        self.estimates.lock().await.get(move_id).cloned().unwrap_or_default()
    }

    /// Drops what is kept of a move that is over.
    pub(crate) async fn forget(&self, move_id: &MoveId) -> Result<(), airfleet_transfer::Error> {
        self.estimates.lock().await.remove(move_id);
        airfleet_transfer::forget(&self.database, move_id).await
    }
}
