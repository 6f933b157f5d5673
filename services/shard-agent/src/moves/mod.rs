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
    moves::{History, Part, TableSum},
};
use airfleet_runtime::client::Transport;
use airfleet_transfer::{Ahead, Catalog, Database, Scope, TableSize};
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
    /// Of each move from here, until it is forgotten.
    sending: Arc<Mutex<HashMap<MoveId, Sending>>>,
}

/// What a source knows of its rows before they are sent. An agent that was killed knows nothing of
/// it, and does without.
#[derive(Debug, Clone, Default)]
struct Sending {
    /// How much each table is thought to be, in the order in which they travel.
    estimate: Vec<TableSize>,
    /// What went ahead, and is there.
    ahead: Option<Arc<Ahead>>,
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
            sending: Arc::default(),
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

    /// Finds out how much a move will take along, before anything waits for it. What takes too long
    /// is not told.
    async fn estimate(&self, scope: &Scope, move_id: &MoveId, history: History) {
        let estimating = async {
            let catalog = self.catalog().await?;
            let of = (Part::Rest, history);
            airfleet_transfer::estimate(&self.database, &catalog, scope, of, ESTIMATE_LIMIT).await
        };
        let why = match timeout(ESTIMATE_LIMIT, estimating).await {
            Ok(Ok(sizes)) => {
                self.sending.lock().await.entry(move_id.clone()).or_default().estimate = sizes;
                return;
            }
            // What fails here fails again where it counts.
            Ok(Err(error)) => crate::words::chain(&error),
            Err(_) => format!("it took more than {ESTIMATE_LIMIT:?}"),
        };
        tracing::debug!(namespace = %scope.namespace(), why, "nothing was estimated");
    }

    /// What is known of a part before it is sent.
    async fn sending(&self, move_id: &MoveId, part: Part) -> Sending {
        let known = self.sending.lock().await.get(move_id).cloned().unwrap_or_default();
        match part {
            Part::Rest => known,
            Part::Ahead => {
                let catalog = self.catalog().await;
                let mut estimate = known.estimate;
                estimate.retain(|size| catalog.as_ref().is_ok_and(|c| c.goes_ahead(&size.table)));
                Sending { estimate, ahead: None }
            }
        }
    }

    /// These rows went ahead, and the target has them: less is left to be sent.
    async fn went_ahead(&self, move_id: &MoveId, ahead: Ahead, tables: &[TableSum]) {
        let mut sending = self.sending.lock().await;
        let known = sending.entry(move_id.clone()).or_default();
        known.ahead = Some(Arc::new(ahead));
        for size in &mut known.estimate {
            let Some(there) = tables.iter().find(|there| *there.table == *size.table) else {
                continue;
            };
            let left = (size.rows - there.rows).max(0);
            size.bytes =
                (i128::from(size.bytes) * i128::from(left) / i128::from(size.rows.max(1))) as i64;
            size.rows = left;
        }
    }

    /// Everything is to be sent under seal.
    async fn forget_ahead(&self, move_id: &MoveId) {
        if let Some(known) = self.sending.lock().await.get_mut(move_id) {
            known.ahead = None;
        }
    }

    /// Drops what is kept of a move that is over.
    pub(crate) async fn forget(&self, move_id: &MoveId) -> Result<(), airfleet_transfer::Error> {
        self.sending.lock().await.remove(move_id);
        airfleet_transfer::forget(&self.database, move_id).await
    }
}
