//! Taking in what is declared.
//!
//! A snapshot and a change go the same way: each namespace is compared with what is known of it and
//! yields at most one row to write, so that taking in the same twice writes nothing.

use std::collections::BTreeMap;

use airfleet_domain::{
    ids::{NamespaceName, Revision, ShardName},
    routing::{Assignment, State},
};

use super::{Leader, Stamp, Turn};
use crate::{
    fleet::{Fleet, Placing},
    manifest::{Event, Namespace, Piece, Shard},
    store::{Batch, Error, NewWorkload, Record, ShardRecord},
};

/// Most namespaces that one transaction takes in. Bounds the time that others wait for their turn,
/// and what one revision is to watchers.
pub(super) const BATCH_MAX: usize = 1000;

/// What became of entries that were declared, folded to the latest of each, in order of name.
#[derive(Debug, Default)]
struct Declared {
    shards: BTreeMap<ShardName, Option<Shard>>,
    namespaces: BTreeMap<NamespaceName, Option<Namespace>>,
}

impl Declared {
    fn add(&mut self, piece: Piece) {
        self.shards.extend(piece.deleted_shards.into_iter().map(|name| (name, None)));
        self.shards.extend(piece.shards.into_iter().map(|s| (s.name.clone(), Some(s))));
        let deleted = piece.deleted_namespaces.into_iter();
        self.namespaces.extend(deleted.map(|name| (name, None)));
        self.namespaces.extend(piece.namespaces.into_iter().map(|n| (n.name.clone(), Some(n))));
    }
}

impl Leader {
    /// Takes in events that follow one another. Repeating it after a failure is harmless.
    pub(crate) async fn take_in(&self, events: Vec<Event>) -> Result<(), Error> {
        let mut declared = Declared::default();
        let mut reached = None;
        let mut complete = false;
        for event in events {
            match event {
                Event::Change { piece, revision } => {
                    declared.add(piece);
                    reached = Some(revision);
                }
                Event::Progress { revision } => reached = Some(revision),
                Event::Snapshot { piece, first, last, revision } => {
                    // What came before the snapshot is replaced by it.
                    if first {
                        declared = Declared::default();
                        (reached, complete) = (None, false);
                        self.fleet().begin_snapshot();
                    }
                    self.see(&piece);
                    declared.add(piece);
                    if last {
                        self.write(std::mem::take(&mut declared), None).await?;
                        declared.add(self.unseen());
                        (reached, complete) = (Some(revision), true);
                    }
                }
            }
        }
        self.write(declared, reached).await?;
        if complete {
            self.fleet().end_snapshot();
        }
        Ok(())
    }

    fn see(&self, piece: &Piece) {
        let mut fleet = self.fleet();
        piece.namespaces.iter().for_each(|namespace| fleet.see(&namespace.name));
        piece.shards.iter().for_each(|shard| fleet.see_shard(&shard.name));
    }

    /// What the snapshot that ends did not have.
    fn unseen(&self) -> Piece {
        let (deleted_namespaces, deleted_shards) = self.fleet().unseen();
        Piece { deleted_namespaces, deleted_shards, ..Piece::default() }
    }

    /// Writes what is declared, in as many transactions as it takes; the last one records that the
    /// manifest is taken into account up to `reached`.
    async fn write(&self, declared: Declared, reached: Option<Revision>) -> Result<(), Error> {
        let mut turn = self.turn().await?;
        let mut batch = Batch::default();
        // Shards first, and for themselves, so that namespaces that came with them find them.
        for (name, shard) in declared.shards {
            turn.declare_shard(&name, shard, &mut batch);
            if batch.shards.len() + batch.removed_shards.len() >= BATCH_MAX {
                turn.commit(std::mem::take(&mut batch)).await?;
            }
        }
        if !declared.namespaces.is_empty() {
            turn.commit(std::mem::take(&mut batch)).await?;
        }
        let mut placing = Placing::default();
        for (name, namespace) in declared.namespaces {
            turn.declare(&name, namespace, &mut placing, &mut batch);
            if batch.records.len() + batch.removed.len() >= BATCH_MAX {
                turn.commit(std::mem::take(&mut batch)).await?;
                // Whoever waits for a turn gets one in between.
                drop(turn);
                turn = self.turn().await?;
                placing = Placing::default();
            }
        }
        batch.manifest_revision = reached.filter(|revision| *revision != turn.manifest_revision());
        turn.commit(batch).await?;
        Ok(())
    }
}

impl Turn<'_> {
    fn declare_shard(&self, name: &ShardName, declared: Option<Shard>, batch: &mut Batch) {
        let fleet = self.leader.fleet();
        let known = fleet.shard(name.as_str());
        let revision = self.revision();
        match (known.map(|known| &known.record), declared) {
            (None, Some(new)) => batch.shards.push(ShardRecord {
                name: new.name,
                uid: new.uid,
                manifest: new.manifest,
                manifest_revision: new.revision,
                registered: true,
                cordon: None,
                barred_revision: Revision(0),
                agent_seen_at_us: None,
                revision,
            }),
            (Some(old), Some(new)) => {
                let same = old.registered && old.uid == new.uid && old.manifest == new.manifest;
                // A released shard is taken back by any later word of it.
                if same && (!old.is_barred() || new.revision <= old.barred_revision) {
                    return;
                }
                let returned = old.uid != new.uid || new.revision > old.barred_revision;
                batch.shards.push(ShardRecord {
                    uid: new.uid,
                    manifest: new.manifest,
                    manifest_revision: new.revision,
                    registered: true,
                    barred_revision: if returned { Revision(0) } else { old.barred_revision },
                    revision,
                    ..old.clone()
                });
            }
            (Some(_), None) if known.is_some_and(|known| known.namespaces.is_empty()) => {
                batch.removed_shards.push(name.clone());
            }
            (Some(old), None) if old.registered => {
                tracing::error!(
                    shard = %name,
                    "the manifest no longer has a shard that owns namespaces; it is kept and takes \
                     nothing new"
                );
                batch.shards.push(ShardRecord { registered: false, revision, ..old.clone() });
            }
            (None | Some(_), None) => {}
        }
    }

    fn declare(
        &self,
        name: &NamespaceName,
        declared: Option<Namespace>,
        placing: &mut Placing,
        batch: &mut Batch,
    ) {
        let mut fleet = self.leader.fleet();
        let known = fleet.member(name.as_str()).map(|member| member.record.clone());
        let stamp = self.stamp();
        match (known, declared) {
            (None, None) => {}
            (Some(known), None) => forget(known, &stamp, batch),
            (None, Some(new)) => {
                batch.workloads.push(workload(&new));
                let record = first_seen(new, &stamp);
                batch.records.push(stamp.place(record, &mut fleet, placing));
            }
            (Some(known), Some(new)) => {
                let brings = workload(&new);
                if let Some(record) = changed(&known, new, &stamp) {
                    if record.workload_digest != known.workload_digest {
                        batch.workloads.push(brings);
                    }
                    let waits = record.entry.state() == State::Unplaced;
                    let record =
                        if waits { stamp.place(record, &mut fleet, placing) } else { record };
                    batch.records.push(record);
                }
            }
        }
    }
}

fn workload(new: &Namespace) -> NewWorkload {
    NewWorkload {
        namespace: new.name.clone(),
        declared: new.workload.clone(),
        manifest_revision: new.revision,
    }
}

fn first_seen(new: Namespace, stamp: &Stamp) -> Record {
    let mut assignment = Assignment {
        namespace: new.name,
        namespace_uid: new.uid,
        prefixes: new.prefixes,
        shard: None,
        generation: stamp.generation_floor,
        state: State::Unplaced,
        pinned_shard: None,
        reason: String::new(),
        revision: stamp.revision,
        update_time_us: stamp.now_us,
    };
    stamp.note(&mut assignment, "new");
    Record {
        entry: (&assignment).into(),
        needs: new.needs,
        manifest_revision: new.revision,
        orphaned: false,
        workload_digest: new.workload.digest(),
    }
}

/// What becomes of a known namespace by what is declared of it; `None` where nothing does.
fn changed(known: &Record, new: Namespace, stamp: &Stamp) -> Option<Record> {
    let entry = &known.entry;
    let same_uid = entry.namespace_uid() == new.uid;
    let wanted_again =
        entry.state() == State::Released && (!same_uid || new.revision > known.manifest_revision);
    let same = same_uid
        && !known.orphaned
        && known.needs == new.needs
        && known.workload_digest == new.workload.digest()
        && entry.prefixes().eq(new.prefixes.iter().map(airfleet_domain::ids::Prefix::as_str));
    if same && !wanted_again {
        return None;
    }
    let mut assignment = entry.assignment();
    assignment.namespace_uid = new.uid;
    assignment.prefixes = new.prefixes;
    let reason = match (assignment.state, wanted_again, known.orphaned) {
        (State::Released, true, _) => {
            assignment.state = State::Unplaced;
            "registered again after it was released".to_owned()
        }
        (State::Assigned, _, true) => "registered again; it stayed where it was".to_owned(),
        _ => std::mem::take(&mut assignment.reason),
    };
    let released = assignment.state == State::Released;
    stamp.note(&mut assignment, reason);
    Some(Record {
        entry: (&assignment).into(),
        needs: new.needs,
        // A released one remembers what it was released at.
        manifest_revision: if released {
            known.manifest_revision.max(new.revision)
        } else {
            new.revision
        },
        orphaned: false,
        workload_digest: new.workload.digest(),
    })
}

/// What becomes of a namespace that is no longer declared.
fn forget(known: Record, stamp: &Stamp, batch: &mut Batch) {
    let Some(shard) = known.entry.shard() else {
        batch.removed_generation = batch.removed_generation.max(known.entry.generation());
        batch.removed.push(known.namespace());
        return;
    };
    if known.orphaned {
        return;
    }
    tracing::error!(
        namespace = known.entry.namespace(),
        shard,
        "the manifest no longer has a namespace that a shard owns; it is kept"
    );
    let mut assignment = known.entry.assignment();
    let reason = format!(
        "the manifest no longer has it, so it stays on {shard} and nothing is lost; register it \
         again, or release it"
    );
    stamp.note(&mut assignment, reason);
    batch.records.push(Record { entry: (&assignment).into(), orphaned: true, ..known });
}

impl Stamp {
    /// Gives a namespace that waits for a shard one, if one will do.
    pub(crate) fn place(&self, record: Record, fleet: &mut Fleet, placing: &mut Placing) -> Record {
        let mut assignment = record.entry.assignment();
        let demand = record.needs.demand;
        let pinned = assignment.pinned_shard.clone();
        let (shard, reason) = placing.place(fleet, &record.needs, demand, pinned.as_ref());
        self.give(&mut assignment, shard, &*reason);
        Record { entry: (&assignment).into(), ..record }
    }
}
