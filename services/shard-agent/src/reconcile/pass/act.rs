//! How each step is done, and what is done again and again.

use airfleet_delivery::Synced;
use airfleet_domain::{
    manifest::Source,
    roles::{Desired, Role},
};
use airfleet_proto::agent::v1 as wire;
use tokio::time::Instant;

use super::{
    super::{
        problem::{Problem, limited},
        rules::Entry,
    },
    Memory, Outcome, Pass,
    look::Look,
};
use crate::{
    airflow::{
        fence::gate,
        metadata::{self, Metadata},
        objects::{self, Change, Declarations, judge},
    },
    words::counted,
};

impl Pass<'_> {
    pub(super) async fn close(
        &self,
        metadata: &Metadata,
        desired: Desired,
        look: &Look,
        outcome: &mut Outcome,
    ) -> Result<(), Problem> {
        let order = self.gate_order(desired);
        let moving = self.moving().await?.filter(|_| look.sight.is_open());
        let paused = limited::<_, Problem>(async {
            let mut tx = metadata.begin().await?;
            let paused = gate::close(&mut tx, order).await?;
            if let Some(moving) = &moving {
                moving.note_stop(&mut tx).await?;
            }
            tx.commit().await?;
            Ok(paused)
        })
        .await?;
        if paused > 0 {
            let message =
                format!("paused {}; the pause state of each is remembered", counted(paused, "DAG"));
            outcome.events.push(("FENCED", message, false));
        }
        Ok(())
    }

    /// Lifts the fence. In a move, what came due while it was closed is made up for.
    pub(super) async fn open(
        &self,
        metadata: &Metadata,
        desired: Desired,
        look: &Look,
    ) -> Result<(), Problem> {
        let order = self.gate_order(desired);
        let moving = self.moving().await?.filter(|_| !look.sight.is_open());
        limited::<_, Problem>(async {
            let mut tx = metadata.begin().await?;
            gate::open(&mut tx, order).await?;
            if let Some(moving) = &moving {
                moving.start(&mut tx).await?;
            }
            Ok(tx.commit().await?)
        })
        .await
    }

    /// Records that the role is reached, and with SEALED up to where the namespace came.
    pub(super) async fn reach(&self, metadata: &Metadata, desired: Desired) -> Result<(), Problem> {
        let order = self.gate_order(desired);
        let moving = self.moving().await?.filter(|_| desired.role == Role::Sealed);
        limited::<_, Problem>(async {
            let mut tx = metadata.begin().await?;
            gate::reached(&mut tx, order).await?;
            if let Some(moving) = &moving {
                moving.seal(&mut tx).await?;
            }
            Ok(tx.commit().await?)
        })
        .await
    }

    /// Rules, pools, variables and connections, as far as they are known.
    pub(super) async fn settle(
        &self,
        metadata: &Metadata,
        role: Role,
        declared: &Declarations,
        outcome: &mut Outcome,
    ) -> Result<(), Problem> {
        let namespace = self.name.as_str();
        if let Some(rules) = &self.shard.rules {
            let entry = role.has_workload().then(|| Entry::of(self.order));
            rules.set(namespace, entry, self.order.manifest_revision).await?;
        }
        let done = limited::<_, metadata::Error>(async {
            let mut tx = metadata.begin().await?;
            let mut found = objects::look(&mut tx, &self.shard.cipher, namespace, declared).await?;
            if !role.has_workload() {
                found.busy_pools.clear();
            }
            let (changes, _) = judge(namespace, declared, &found, self.order.workload.drift);
            objects::apply(&mut tx, &self.shard.cipher, namespace, &changes).await?;
            tx.commit().await?;
            Ok(changes)
        });
        let failed = |problem| Problem { code: "SETTINGS_FAILED".to_owned(), ..problem };
        let changes = done.await.map_err(failed)?;
        let words: Vec<_> = changes.iter().filter_map(Change::words).collect();
        if !words.is_empty() {
            outcome.events.push(("SETTINGS_APPLIED", words.join(", "), false));
        }
        Ok(())
    }

    /// Delivers what the source holds; takes files away where there is no source.
    pub(super) async fn bring(
        &self,
        memory: &mut Memory,
        outcome: &mut Outcome,
    ) -> Result<(), Problem> {
        let Some(roller) = &self.shard.roller else { return Ok(()) };
        let Some(source) = &self.order.workload.source else {
            return self.remove(memory, outcome).await;
        };
        let _slow = if memory.delivery_failed {
            self.shard.slow_deliveries.acquire().await.ok()
        } else {
            None
        };
        let started = Instant::now();
        memory.brought_at = Some(started);
        // Until it is known to have gone well, also where it is interrupted.
        memory.delivery_failed = true;
        let synced = roller.sync(self.name, source).await;
        self.shard.delivery_metrics.synced(&synced, started.elapsed());
        let synced = synced?;
        memory.delivery_failed = false;
        memory.release = Some(self.wire_release(&synced.release));
        if synced.held {
            outcome.drift.push(wire::Drift {
                kind: "file".to_owned(),
                name: self.name.to_string(),
                code: "RELEASE_HELD".to_owned(),
                message:
                    "somebody rolled back on this shard; the source is followed again once it \
                          changes, or by airfleet-agent sync --follow"
                        .to_owned(),
                tolerated: true,
            });
        }
        if synced.switched {
            outcome.events.push(("RELEASE_SWITCHED", words_of_release(&synced, source), false));
        } else if synced.repaired > 0 {
            outcome.drift.push(wire::Drift {
                kind: "file".to_owned(),
                name: self.name.to_string(),
                code: "FILE_CHANGED".to_owned(),
                message: format!(
                    "{} was not as delivered, and was put right",
                    counted(synced.repaired as i64, "file")
                ),
                tolerated: false,
            });
        }
        Ok(())
    }

    pub(super) async fn remove(
        &self,
        memory: &mut Memory,
        outcome: &mut Outcome,
    ) -> Result<(), Problem> {
        let Some(roller) = &self.shard.roller else { return Ok(()) };
        roller.remove(self.name).await?;
        memory.release = None;
        outcome.events.push(("FILES_REMOVED", "its DAG files were taken away".to_owned(), false));
        Ok(())
    }

    /// What is done again and again where a namespace is what it is to be.
    pub(super) async fn maintain(
        &self,
        role: Role,
        look: &Look,
        unknown: &[Problem],
        memory: &mut Memory,
        outcome: &mut Outcome,
    ) {
        if let Some(problem) = unknown.first() {
            outcome.obstacle.get_or_insert_with(|| problem.clone());
        }
        let follows = matches!(role, Role::Active | Role::Staged)
            && (look.release.is_some() || self.order.workload.source.is_some());
        // While it is moved it is looked at more often than sources are asked.
        let is_early = self.order.task().is_some()
            && memory.brought_at.is_some_and(|at| at.elapsed() < self.shard.interval);
        let is_due =
            follows && !is_early && outcome.obstacle.is_none() && outcome.reached_now.is_none();
        if is_due && let Err(problem) = self.bring(memory, outcome).await {
            outcome.obstacle = Some(problem);
        }
        if outcome.obstacle.is_none() {
            memory.manifest_revision = self.order.manifest_revision;
        }
        debug_assert!(look.changes.is_empty() || outcome.obstacle.is_some());
    }

    /// Takes away what the fence knows of a namespace that is absent and no longer named.
    pub(super) async fn forget(&self, metadata: &Metadata) -> Result<(), Problem> {
        let order = self.gate_order(self.order.desired);
        limited::<_, gate::GateError>(async {
            let mut tx = metadata.begin().await?;
            gate::let_go(&mut tx, order).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}

fn words_of_release(synced: &Synced, source: &Source) -> String {
    let id = synced.release.commit.as_deref().unwrap_or(synced.release.id.as_str());
    let id = id.get(..12).unwrap_or(id);
    let changes = synced.changes;
    let before = match &synced.previous {
        Some(previous) => format!(", before it {}", previous.short()),
        None => String::new(),
    };
    format!(
        "release {id} of {}: {}, {} new, {} changed, {} gone{before}",
        source.uri,
        counted(synced.release.files as i64, "file"),
        changes.added,
        changes.changed,
        changes.removed
    )
}
