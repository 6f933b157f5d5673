//! Placing what has no shard, when some shard may take more than before.
//!
//! Bounded in each direction: a pass looks at every waiting namespace once, writes at most one batch
//! per turn, and passes are at least [`PAUSE`] apart, however often the fleet changes.

use std::time::Duration;

use airfleet_domain::{ids::NamespaceName, routing::State};

use super::{Leader, manifest::BATCH_MAX};
use crate::{
    fleet::Placing,
    store::{Batch, Error},
};

/// Shortest time between two passes.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Waiting namespaces that are looked at in one turn.
const LOOKED_AT_MAX: usize = 10_000;

impl Leader {
    /// Tries every namespace that waits for a shard once. Answers how many got one.
    pub(crate) async fn place_waiting(&self) -> Result<usize, Error> {
        let mut after: Option<NamespaceName> = None;
        let mut placed = 0;
        loop {
            let mut turn = self.turn().await?;
            let stamp = turn.stamp();
            let mut batch = Batch::default();
            let looked_at = {
                let mut fleet = self.fleet();
                let waiting = fleet.unplaced_after(after.as_ref(), LOOKED_AT_MAX);
                let mut placing = Placing::default();
                for name in &waiting {
                    if batch.records.len() >= BATCH_MAX {
                        break;
                    }
                    after = Some(name.clone());
                    let Some(member) = fleet.member(name.as_str()) else { continue };
                    let known = member.record.clone();
                    let record = stamp.place(known.clone(), &mut fleet, &mut placing);
                    placed += usize::from(record.entry.state() == State::Assigned);
                    // One that still waits, for the same reason, is not written again.
                    if record.entry.state() == State::Assigned
                        || record.entry.reason() != known.entry.reason()
                    {
                        batch.records.push(record);
                    }
                }
                waiting.len()
            };
            let done = looked_at < LOOKED_AT_MAX && batch.records.len() < BATCH_MAX;
            turn.commit(batch).await?;
            if done {
                return Ok(placed);
            }
        }
    }
}
