//! A client that follows the assignments and holds the router to what its watch promises:
//! contiguous revisions, over every break of the connection, and in the end the same table.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use airfleet_proto::router::v1::{
    Assignment, ListAssignmentsRequest, WatchAssignmentsRequest, WatchAssignmentsResponse,
    router_service_client::RouterServiceClient, watch_assignments_response::Event,
};
use anyhow::{Result, bail, ensure};
use tonic::transport::Channel;

use crate::eventually;

/// A table as a watcher builds it.
#[derive(Debug, Default)]
pub struct Table {
    /// Up to where it is complete; 0 before the first snapshot.
    pub revision: i64,
    /// Assignments by namespace.
    pub assignments: BTreeMap<String, Assignment>,
    /// Snapshots that were taken in. Count.
    pub snapshots: u64,
    /// Changes that were taken in. Count.
    pub changes: u64,
    /// Times that the stream broke and was resumed. Count.
    pub resumed: u64,
    building: Option<BTreeMap<String, Assignment>>,
}

impl Table {
    /// Takes one message in; fails where it breaks the promise.
    pub fn take(&mut self, message: WatchAssignmentsResponse) -> Result<()> {
        match message.event {
            Some(Event::Snapshot(snapshot)) => {
                if snapshot.first {
                    self.building = Some(BTreeMap::new());
                }
                let Some(building) = &mut self.building else {
                    bail!("a snapshot began in the middle");
                };
                building.extend(snapshot.assignments.into_iter().map(|a| (a.namespace.clone(), a)));
                if snapshot.last {
                    ensure!(
                        message.revision >= self.revision,
                        "the table went back from {} to {}",
                        self.revision,
                        message.revision
                    );
                    self.assignments = self.building.take().unwrap_or_default();
                    self.revision = message.revision;
                    self.snapshots += 1;
                }
            }
            Some(Event::Change(change)) => {
                ensure!(
                    change.previous_revision == self.revision,
                    "a gap: a change follows {} where the table is at {}",
                    change.previous_revision,
                    self.revision
                );
                ensure!(message.revision >= self.revision, "the revision went back");
                for assignment in change.upserts {
                    let old = self.assignments.get(&assignment.namespace);
                    let generation = old.map_or(0, |old| old.generation);
                    ensure!(
                        assignment.generation >= generation,
                        "the generation of {} went back from {generation} to {}",
                        assignment.namespace,
                        assignment.generation
                    );
                    self.assignments.insert(assignment.namespace.clone(), assignment);
                }
                for namespace in change.deleted {
                    self.assignments.remove(&namespace);
                }
                self.revision = message.revision;
                self.changes += 1;
            }
            Some(Event::Progress(_)) => {
                ensure!(message.revision == self.revision, "progress to where no change led");
            }
            None => bail!("an empty message"),
        }
        Ok(())
    }
}

/// Follows until it is dropped.
#[derive(Debug)]
pub struct Follower {
    table: Arc<Mutex<Table>>,
    broken: Arc<Mutex<Option<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Follower {
    /// Follows one of several routers, the next one where one fails.
    pub fn start(routers: Vec<RouterServiceClient<Channel>>) -> Self {
        let table = Arc::new(Mutex::new(Table::default()));
        let broken = Arc::new(Mutex::new(None));
        let task = tokio::spawn(follow(routers, Arc::clone(&table), Arc::clone(&broken)));
        Self { table, broken, task }
    }

    /// Looks at its table; fails where the router broke its promise.
    pub fn look<T>(&self, see: impl FnOnce(&Table) -> T) -> Result<T> {
        if let Some(why) = &*self.broken.lock().expect("no holder panics") {
            bail!("the watch broke its promise: {why}");
        }
        Ok(see(&self.table.lock().expect("no holder panics")))
    }

    /// Waits until it holds the router's table, to the letter.
    pub async fn agrees_with(&self, router: &RouterServiceClient<Channel>) -> Result<()> {
        eventually(Duration::from_secs(30), async || {
            let (all, revision) = list(router.clone()).await?;
            self.look(|table| {
                ensure!(table.revision == revision, "at {} of {revision}", table.revision);
                let own: Vec<&Assignment> = table.assignments.values().collect();
                ensure!(own == all.iter().collect::<Vec<_>>(), "the tables differ");
                Ok(())
            })?
        })
        .await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    mut routers: Vec<RouterServiceClient<Channel>>,
    table: Arc<Mutex<Table>>,
    broken: Arc<Mutex<Option<String>>>,
) {
    let mut pauses = tokio::time::interval(Duration::from_millis(50));
    pauses.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pauses.tick().await;
        routers.rotate_left(1);
        let resume_revision = {
            let mut table = table.lock().expect("no holder panics");
            table.building = None;
            table.resumed += 1;
            table.revision
        };
        let request = WatchAssignmentsRequest { resume_revision };
        let Ok(stream) = routers[0].watch_assignments(request).await else { continue };
        let mut stream = stream.into_inner();
        while let Ok(Some(message)) = stream.message().await {
            if let Err(why) = table.lock().expect("no holder panics").take(message) {
                *broken.lock().expect("no holder panics") = Some(why.to_string());
                return;
            }
        }
    }
}

/// All assignments, from one revision.
pub async fn list(mut router: RouterServiceClient<Channel>) -> Result<(Vec<Assignment>, i64)> {
    let begun = Instant::now();
    'again: loop {
        let mut request = ListAssignmentsRequest { page_size: 1000, ..Default::default() };
        let mut all = Vec::new();
        let mut revision = None;
        loop {
            let page = router.list_assignments(request.clone()).await?.into_inner();
            all.extend(page.assignments);
            if *revision.get_or_insert(page.revision) != page.revision {
                ensure!(begun.elapsed() < Duration::from_secs(30), "the table never rests");
                continue 'again;
            }
            if page.next_page_token.is_empty() {
                return Ok((all, page.revision));
            }
            request.page_token = page.next_page_token;
        }
    }
}
