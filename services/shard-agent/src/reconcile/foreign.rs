//! DAGs that no namespace of this shard owns: asking whose they are, and fencing those that belong
//! elsewhere.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use airfleet_proto::agent::v1 as wire;
use airfleet_runtime::lifecycle::Shutdown;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::Shard;
use crate::{
    airflow::{
        fence::gate,
        metadata::{Error, Metadata},
    },
    link::Outbox,
    owners::Owners,
};

/// How often all of them are asked about.
const INTERVAL: Duration = Duration::from_mins(1);

/// Shortest time between two rounds.
const PAUSE: Duration = Duration::from_secs(5);

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most dag_ids of one question.
const QUESTION_MAX: usize = 1_000;

/// What is heard of the owners of DAGs. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Foreign {
    answers: mpsc::Sender<wire::OwnersAnswer>,
    /// Revision at which some prefix of the fleet last changed.
    revision: Arc<watch::Sender<i64>>,
    /// DAGs that no namespace of the shard owns. Count.
    unowned: Arc<watch::Sender<i64>>,
}

/// Where it is heard.
#[derive(Debug)]
pub(crate) struct Heard {
    answers: mpsc::Receiver<wire::OwnersAnswer>,
    revision: watch::Receiver<i64>,
    unowned: watch::Receiver<i64>,
}

impl Foreign {
    pub(crate) fn new() -> (Self, Heard) {
        let (answers, heard) = mpsc::channel(4);
        let (revision, revisions) = watch::channel(0);
        let (unowned, counts) = watch::channel(0);
        let told = Self { answers, revision: Arc::new(revision), unowned: Arc::new(unowned) };
        (told, Heard { answers: heard, revision: revisions, unowned: counts })
    }

    /// The router answered. An answer that nobody waits for is dropped.
    pub(crate) fn answered(&self, answer: wire::OwnersAnswer) {
        let _ = self.answers.try_send(answer);
    }

    /// The router told at which revision prefixes last changed.
    pub(crate) fn changed(&self, revision: i64) {
        self.revision.send_if_modified(|known| std::mem::replace(known, revision) != revision);
    }

    /// So many DAGs were counted.
    pub(crate) fn counted(&self, unowned: i64) {
        self.unowned.send_if_modified(|known| std::mem::replace(known, unowned) != unowned);
    }
}

/// Asks again and again, until shutdown.
pub(crate) async fn keep_asking(
    shard: Arc<Shard>,
    outbox: Outbox,
    owners: watch::Receiver<Arc<Owners>>,
    mut heard: Heard,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let Some(metadata) = shard.metadata.clone() else {
        shutdown.triggered().await;
        return Ok(());
    };
    let mut number = 0;
    loop {
        let round = async {
            if outbox.is_welcome() {
                heard.revision.borrow_and_update();
                heard.unowned.borrow_and_update();
                let table = owners.borrow().clone();
                let asked = ask(&metadata, &outbox, &table, &mut heard.answers, &mut number).await;
                if let Err(error) = asked {
                    let why = crate::words::chain(&error);
                    tracing::debug!("cannot see to DAGs of other shards: {why}");
                }
            }
            sleep(PAUSE).await;
            let due = Instant::now() + INTERVAL.mul_f64(rand::random_range(0.8..=1.0));
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                Ok(()) = heard.revision.changed() => {}
                Ok(()) = heard.unowned.changed() => {}
            }
        };
        tokio::select! {
            () = round => {}
            () = shutdown.triggered() => return Ok(()),
        }
    }
}

async fn ask(
    metadata: &Metadata,
    outbox: &Outbox,
    owners: &Owners,
    answers: &mut mpsc::Receiver<wire::OwnersAnswer>,
    number: &mut i64,
) -> Result<(), Error> {
    let mut tx = metadata.begin().await?;
    let dags: Vec<(String,)> = tx
        .query_as("SELECT dag_id FROM {schema}.dag ORDER BY dag_id")
        .fetch_all(tx.connection())
        .await
        .map_err(Error::of("list DAGs"))?;
    tx.rollback().await;
    let unowned = dags.into_iter().map(|(id,)| id).filter(|id| owners.owner_of(id).is_none());
    let unowned: Vec<String> = unowned.collect();
    let mut foreign: BTreeMap<String, String> = BTreeMap::new();
    for dag_ids in unowned.chunks(QUESTION_MAX) {
        *number += 1;
        outbox.ask(wire::OwnersQuery { number: *number, dag_ids: dag_ids.to_vec() });
        let answer = timeout(PATIENCE, async {
            loop {
                match answers.recv().await {
                    Some(answer) if answer.number == *number => break Some(answer),
                    Some(_) => {}
                    None => break None,
                }
            }
        });
        // Half an answer would lift the fence from what was not answered.
        let Ok(Some(answer)) = answer.await else { return Ok(()) };
        foreign.extend(answer.prefixes.into_iter().map(|one| (one.prefix, one.namespace)));
    }
    let foreign: Vec<_> = foreign.into_iter().collect();
    let mut tx = metadata.begin().await?;
    gate::set_elsewhere(&mut tx, &foreign).await?;
    let paused = gate::enforce(&mut tx).await?;
    tx.commit().await?;
    if !paused.is_empty() {
        tracing::warn!(dags = ?paused, "DAGs that belong to other shards were paused");
    }
    Ok(())
}
