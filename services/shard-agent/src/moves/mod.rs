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

use std::{sync::Arc, time::Duration};

use airfleet_domain::ids::ShardName;
use airfleet_runtime::client::Transport;
use airfleet_transfer::{Catalog, Database};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

pub(crate) use self::{
    inspect::{Inspector, keep_inspecting},
    notes::{Happened, Notes},
    transfer::{End, Key, Transfer},
};
use crate::airflow::metadata::Metadata;

/// How long what is known of the schema counts: Airflow may be migrated while the agent runs.
const CATALOG_AGE: Duration = Duration::from_mins(1);

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
        Some(Self { shard, metadata: metadata.clone(), database, router, catalog: Arc::default() })
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

    /// Drops rows that are kept of a move that is over.
    pub(crate) async fn forget(
        &self,
        move_id: &airfleet_domain::ids::MoveId,
    ) -> Result<(), airfleet_transfer::Error> {
        airfleet_transfer::forget(&self.database, move_id).await
    }
}
