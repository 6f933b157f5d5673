//! Binding a namespace to a shard.

use airfleet_domain::{
    ids::{NamespaceName, ShardName},
    roles::{Fence, Residue},
    routing::{Entry, State},
};
use airfleet_runtime::status::FieldViolation;

use super::{Error, Service, Who};
use crate::{
    fleet::Placing,
    leader::{Leader, Stamp},
    store::{Batch, Override, Record},
};

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Pin {
    /// The namespace.
    pub(crate) namespace: NamespaceName,
    /// The shard to bind it to.
    pub(crate) shard: ShardName,
    /// Who asks, and why.
    pub(crate) who: Who,
    /// Generation that the caller saw; 0 for any.
    pub(crate) expected_generation: i64,
    /// Change nothing.
    pub(crate) validate_only: bool,
    /// Although its present shard has not been seen to be drained.
    pub(crate) force: bool,
}

impl Service {
    /// Binds a namespace to a shard, and gives it to that shard where it may leave its own.
    pub(crate) async fn pin(&self, ask: Pin) -> Result<Entry, Error> {
        if ask.force && ask.who.reason.trim().is_empty() {
            return Err(Error::Invalid(vec![FieldViolation::new(
                "reason",
                "REQUIRED",
                "say why it is forced; it is kept",
            )]));
        }
        let leader = self.leader()?;
        let mut turn = leader.turn().await?;
        let known = known(&leader, &ask.namespace)?;
        let entry = &known.entry;
        if ask.expected_generation != 0 && ask.expected_generation != entry.generation().0 {
            return Err(Error::Generation {
                namespace: ask.namespace.to_string(),
                expected: ask.expected_generation,
                current: entry.generation(),
            });
        }
        leader.not_moved(&ask.namespace)?;
        if leader.fleet().shard(ask.shard.as_str()).is_none() {
            return Err(Error::NoShard(ask.shard.to_string()));
        }
        let stamp = turn.stamp();
        let mut batch = Batch::default();
        let moves = entry.shard().is_some_and(|owner| owner != ask.shard.as_str());
        let mut assignment = entry.assignment();
        let mut waits = false;
        assignment.pinned_shard = Some(ask.shard.clone());
        let why = format!("pinned to {} {}", ask.shard, ask.who.by());
        if moves {
            let drained = leader.drained(entry);
            if ask.force && drained.is_err() {
                batch.overrides.push(Override {
                    action: "force-pin",
                    subject: ask.namespace.to_string(),
                    actor: ask.who.actor.clone(),
                    reason: ask.who.reason.clone(),
                });
            } else {
                drained?;
            }
            fits(&leader, &ask.namespace, &ask.shard)?;
            stamp.give(&mut assignment, Some(ask.shard.clone()), why);
        } else if entry.shard().is_some() {
            if ask.force {
                waive(&leader, &ask, &stamp, &mut batch);
            }
            stamp.note(&mut assignment, why);
        } else {
            assignment.state = State::Unplaced;
            waits = true;
            stamp.note(&mut assignment, why);
        }
        let mut record = Record { entry: (&assignment).into(), ..known };
        if waits {
            let mut fleet = leader.fleet();
            record = stamp.place(record, &mut fleet, &mut Placing::default());
        }
        let entry = record.entry.clone();
        if ask.validate_only {
            leader.fleet().settle();
            return Ok(entry);
        }
        if !batch.overrides.is_empty() {
            tracing::warn!(
                namespace = %ask.namespace,
                shard = %ask.shard,
                actor = ask.who.actor,
                reason = ask.who.reason,
                "a namespace may run although its former shard was not seen to be rid of it"
            );
        }
        batch.records.push(record);
        turn.commit(batch).await?;
        Ok(entry)
    }

    /// Lifts a pin; the namespace stays where it is, or is placed if it waits.
    pub(crate) async fn unpin(&self, namespace: &NamespaceName, who: Who) -> Result<Entry, Error> {
        let leader = self.leader()?;
        let mut turn = leader.turn().await?;
        let known = known(&leader, namespace)?;
        if known.entry.pinned_shard().is_none() {
            return Ok(known.entry);
        }
        let stamp = turn.stamp();
        let mut assignment = known.entry.assignment();
        assignment.pinned_shard = None;
        stamp.note(&mut assignment, format!("no longer pinned, {}", who.by()));
        let mut record = Record { entry: (&assignment).into(), ..known };
        if assignment.state == State::Unplaced {
            let mut fleet = leader.fleet();
            record = stamp.place(record, &mut fleet, &mut Placing::default());
        }
        let entry = record.entry.clone();
        turn.commit(Batch { records: vec![record], ..Batch::default() }).await?;
        Ok(entry)
    }
}

/// Lets the owner run the namespace although shards that had it before have not said that they are
/// fenced.
fn waive(leader: &Leader, ask: &Pin, stamp: &Stamp, batch: &mut Batch) {
    let residues = leader.residues();
    let awaited = residues.of(ask.namespace.as_str()).iter();
    for residue in awaited.filter(|residue| residue.fence == Fence::Awaited) {
        let waived = Residue { fence: Fence::Waived, revision: stamp.revision, ..residue.clone() };
        batch.residues.push(waived);
    }
    if !batch.residues.is_empty() {
        batch.overrides.push(Override {
            action: "force-activate",
            subject: ask.namespace.to_string(),
            actor: ask.who.actor.clone(),
            reason: ask.who.reason.clone(),
        });
    }
}

/// The namespace as it was last committed.
pub(super) fn known(leader: &Leader, namespace: &NamespaceName) -> Result<Record, Error> {
    let fleet = leader.fleet();
    let member = fleet.member(namespace.as_str());
    let record = member.map(|member| member.record.clone());
    record.ok_or_else(|| Error::NoNamespace(namespace.to_string()))
}

fn fits(leader: &Leader, namespace: &NamespaceName, shard: &ShardName) -> Result<(), Error> {
    let mut fleet = leader.fleet();
    let Some(member) = fleet.member(namespace.as_str()) else { return Ok(()) };
    let (needs, reserved) = (member.record.needs.clone(), member.reserved());
    let refusals = fleet.objections(&needs, reserved, shard);
    if refusals.is_empty() {
        return Ok(());
    }
    Err(Error::Unfit { namespace: namespace.to_string(), shard: shard.to_string(), refusals })
}
