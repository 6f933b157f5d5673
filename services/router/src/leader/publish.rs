//! Showing what was committed to everybody on this replica.

use std::{collections::HashMap, sync::atomic::Ordering};

use airfleet_domain::{
    ids::{NamespaceName, Revision, ShardName},
    moves::Move,
    roles::Residue,
    routing::{Change, Entry},
};

use super::{Leader, Tools, moves::other_end, residues::Residues};
use crate::{
    fleet::Observation,
    store::{Error, Record, ShardRecord},
    table::Update,
};

/// What was committed and is to be shown.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) records: Vec<Record>,
    pub(super) removed: Vec<(Revision, NamespaceName)>,
    pub(super) shards: Vec<ShardRecord>,
    pub(super) removed_shards: Vec<ShardName>,
    pub(super) residues: Vec<Residue>,
    pub(super) removed_residues: Vec<(NamespaceName, ShardName)>,
    pub(super) moves: Vec<Move>,
    pub(super) revision: Revision,
    pub(super) manifest_revision: Revision,
}

impl Leader {
    /// Shows what was committed to the fleet, the table and the agents.
    pub(super) fn publish(&self, news: News) {
        let Tools { live, hub, metrics, .. } = &self.tools;
        let observations: HashMap<ShardName, Observation> = news
            .shards
            .iter()
            .map(|shard| (shard.name.clone(), hub.observation(shard.name.as_str())))
            .collect();
        let mut update = Update {
            changes: Vec::with_capacity(news.records.len() + news.removed.len()),
            shards: Vec::new(),
            removed_shards: news.removed_shards.clone(),
            revision: news.revision,
            manifest_revision: news.manifest_revision,
        };
        let mut roomier = false;
        let mut told = Vec::new();
        // Before the table: who is told in between must not take a new owner for the only one that
        // may run it.
        self.show_residues(news.residues, news.removed_residues, &mut told);
        let mut fleet = self.fleet();
        for shard in news.shards {
            update.shards.push((shard.name.clone(), shard.manifest.spec.url.as_str().into()));
            let observation = observations[&shard.name].clone();
            roomier |= fleet.put_shard(shard, observation);
        }
        for (revision, name) in news.removed {
            let known = fleet.member(name.as_str()).map(|member| member.record.entry.clone());
            if known.as_ref().is_some_and(|known| known.revision() < revision) {
                roles_to_tell(known.as_ref(), None, &mut told);
                fleet.remove(&name);
            }
            update.changes.push((revision, Change::Delete(name)));
        }
        for record in news.records {
            let known = fleet.member(record.entry.namespace());
            let known = known.map(|known| &known.record);
            let same_workload =
                known.is_none_or(|known| known.workload_digest == record.workload_digest);
            roles_to_tell(known.map(|known| &known.entry), Some(&record.entry), &mut told);
            if !same_workload && let Some(owner) = record.entry.shard() {
                told.push((owner.to_owned(), record.namespace()));
            }
            update.changes.push((record.entry.revision(), Change::Upsert(record.entry.clone())));
            roomier |= fleet.put(record);
        }
        for name in &news.removed_shards {
            if fleet.shard(name.as_str()).is_some_and(|shard| shard.namespaces.is_empty()) {
                fleet.remove_shard(name);
            }
        }
        for row in &news.moves {
            fleet.hold(&row.namespace, other_end(row));
        }
        fleet.settle();
        drop(fleet);
        update.changes.sort_by_key(|(revision, _)| *revision);
        live.apply(update);
        // After the table: with an older row, a newer generation lets nobody run what he should not.
        for row in news.moves {
            let before = self.moves().of(row.namespace.as_str()).cloned();
            let rows = hub.taken_rows(row.target.as_str(), row.namespace.as_str());
            metrics.moved(before.as_deref(), &row, rows);
            for shard in [&row.source, &row.target] {
                told.push((shard.to_string(), row.namespace.clone()));
                if row.phase.is_final() {
                    hub.forget_move(shard.as_str(), row.namespace.as_str());
                }
            }
            self.moves().put(row);
        }
        self.manifest_revision.store(news.manifest_revision.0, Ordering::Relaxed);
        for (shard, namespace) in told {
            hub.mark(shard.as_str(), &namespace);
        }
        if roomier {
            self.place_soon();
        }
    }
}

impl Leader {
    fn show_residues(
        &self,
        residues: Vec<Residue>,
        removed: Vec<(NamespaceName, ShardName)>,
        told: &mut Vec<(String, NamespaceName)>,
    ) {
        let view = self.tools.live.view();
        let mut known = self.residues();
        let mut tell = |namespace: &NamespaceName, shard: &ShardName| {
            told.push((shard.to_string(), namespace.clone()));
            // What the owner is to be depends on it.
            let entry = view.table.resolve_namespace(namespace.as_str());
            if let Some(owner) = entry.and_then(Entry::shard) {
                told.push((owner.to_owned(), namespace.clone()));
            }
        };
        for (namespace, shard) in removed {
            tell(&namespace, &shard);
            known.remove(&namespace, &shard);
        }
        for residue in residues {
            tell(&residue.namespace, &residue.shard);
            known.put(residue);
        }
    }

    /// Reads all residues, after a commit whose outcome was not known.
    pub(super) async fn reread_residues(&self) -> Result<(), Error> {
        let residues: Residues = self.tools.store.residues().await?.into_iter().collect();
        let mut told: Vec<_> = {
            let mut known = self.residues();
            let before = std::mem::replace(&mut *known, residues);
            let both = before.iter().chain(known.iter());
            both.map(|residue| (residue.shard.to_string(), residue.namespace.clone())).collect()
        };
        let view = self.tools.live.view();
        for (_, namespace) in told.clone() {
            let entry = view.table.resolve_namespace(namespace.as_str());
            told.extend(entry.and_then(Entry::shard).map(|shard| (shard.to_owned(), namespace)));
        }
        for (shard, namespace) in told {
            self.tools.hub.mark(&shard, &namespace);
        }
        Ok(())
    }
}

/// Adds the shards whose agents have to hear of a change.
fn roles_to_tell(
    old: Option<&Entry>,
    new: Option<&Entry>,
    told: &mut Vec<(String, NamespaceName)>,
) {
    let Some(name) = new.or(old).map(Entry::namespace_name) else { return };
    let (from, to) = (old.and_then(Entry::shard), new.and_then(Entry::shard));
    let same = from == to
        && old.zip(new).is_some_and(|(old, new)| {
            old.generation() == new.generation() && old.prefixes().eq(new.prefixes())
        });
    if same {
        return;
    }
    if from != to {
        told.extend(from.map(|shard| (shard.to_owned(), name.clone())));
    }
    told.extend(to.map(|shard| (shard.to_owned(), name)));
}
