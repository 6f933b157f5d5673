//! Giving up a namespace or a shard, so that the registry may delete it.

use airfleet_domain::{
    ids::{NamespaceName, Revision, ShardName},
    roles::Fence,
    routing::{Entry, State},
};
use airfleet_runtime::status::FieldViolation;

use super::{Error, Service, Who, pin::known};
use crate::{
    leader::Turn,
    store::{Batch, Override, Record, ShardRecord},
};

/// Names of namespaces that are told where a shard still owns some.
const NAMES_TOLD: usize = 5;

/// What is asked of a namespace.
#[derive(Debug, Clone)]
pub(crate) struct ReleaseNamespace {
    /// The namespace.
    pub(crate) namespace: NamespaceName,
    /// Its uid.
    pub(crate) uid: String,
    /// Who asks, and why.
    pub(crate) who: Who,
    /// Although its shard has not been seen to be drained.
    pub(crate) force: bool,
    /// Change nothing.
    pub(crate) validate_only: bool,
    /// Revision of the manifest that the caller acted on; 0 for the latest that the router knows.
    pub(crate) manifest_revision: Revision,
}

/// What is asked of a shard.
#[derive(Debug, Clone)]
pub(crate) struct ReleaseShard {
    /// The shard.
    pub(crate) shard: ShardName,
    /// Change nothing.
    pub(crate) validate_only: bool,
    /// Revision of the manifest that the caller acted on; 0 for the latest that the router knows.
    pub(crate) manifest_revision: Revision,
}

impl Service {
    /// Gives a namespace's assignment up. It is remembered up to which revision of the manifest, so
    /// that only a later word of the registry makes it placeable again.
    pub(crate) async fn release(&self, ask: ReleaseNamespace) -> Result<Entry, Error> {
        let mut violations = Vec::new();
        if ask.uid.is_empty() {
            let message = "give the uid, so that no later namespace of the name is hit";
            violations.push(FieldViolation::new("namespace_uid", "REQUIRED", message));
        }
        if ask.force && ask.who.reason.trim().is_empty() {
            let message = "say why it is forced; it is kept";
            violations.push(FieldViolation::new("reason", "REQUIRED", message));
        }
        if !violations.is_empty() {
            return Err(Error::Invalid(violations));
        }
        let leader = self.leader()?;
        let mut turn = leader.turn().await?;
        let known = known(&leader, &ask.namespace)
            .map_err(|error| lagging(&turn, ask.manifest_revision).unwrap_or(error))?;
        let entry = &known.entry;
        if entry.namespace_uid() != ask.uid {
            return Err(Error::Uid {
                namespace: ask.namespace.to_string(),
                asked: ask.uid,
                current: entry.namespace_uid().to_owned(),
            });
        }
        leader.not_moved(&ask.namespace)?;
        let until = released_until(&turn, known.manifest_revision, ask.manifest_revision);
        if entry.state() == State::Released && known.manifest_revision >= until {
            return Ok(known.entry);
        }
        let mut batch = Batch::default();
        let drained = leader.drained(entry);
        if ask.force && drained.is_err() {
            batch.overrides.push(Override {
                action: "force-release",
                subject: ask.namespace.to_string(),
                actor: ask.who.actor.clone(),
                reason: ask.who.reason.clone(),
            });
        } else {
            drained?;
        }
        let stamp = turn.stamp();
        let mut assignment = entry.assignment();
        stamp.give(&mut assignment, None, format!("released {}", ask.who.by()));
        assignment.state = State::Released;
        assignment.pinned_shard = None;
        let record = Record { entry: (&assignment).into(), manifest_revision: until, ..known };
        let entry = record.entry.clone();
        if ask.validate_only {
            return Ok(entry);
        }
        if !batch.overrides.is_empty() {
            tracing::warn!(
                namespace = %ask.namespace,
                actor = ask.who.actor,
                reason = ask.who.reason,
                "a namespace was released although it was not seen to be drained"
            );
        }
        batch.records.push(record);
        turn.commit(batch).await?;
        Ok(entry)
    }

    /// Confirms that a shard owns nothing, and bars it from getting anything. Answers the revision
    /// at which that holds.
    pub(crate) async fn release_shard(&self, ask: ReleaseShard) -> Result<Revision, Error> {
        let leader = self.leader()?;
        let mut turn = leader.turn().await?;
        let (record, count, some) = {
            let fleet = leader.fleet();
            let Some(shard) = fleet.shard(ask.shard.as_str()) else {
                let unknown = Error::NoShard(ask.shard.to_string());
                return Err(lagging(&turn, ask.manifest_revision).unwrap_or(unknown));
            };
            let mut some: Vec<_> = shard.namespaces.iter().take(NAMES_TOLD).cloned().collect();
            some.sort();
            (shard.record.clone(), shard.namespaces.len(), some)
        };
        if count > 0 {
            return Err(Error::Occupied {
                shard: ask.shard.to_string(),
                count,
                some: some.iter().map(ToString::to_string).collect(),
            });
        }
        let (count, some) = {
            let residues = leader.residues();
            let awaited = residues.on(ask.shard.as_str()).filter(|namespace| {
                let left = residues.at(namespace.as_str(), ask.shard.as_str());
                left.is_some_and(|left| left.fence == Fence::Awaited)
            });
            let awaited: Vec<_> = awaited.map(ToString::to_string).collect();
            (awaited.len(), awaited.into_iter().take(NAMES_TOLD).collect())
        };
        if count > 0 {
            return Err(Error::Unfenced { shard: ask.shard.to_string(), count, some });
        }
        let stamp = turn.stamp();
        let until = released_until(&turn, record.manifest_revision, ask.manifest_revision);
        let present = Revision(stamp.revision.0 - 1);
        if ask.validate_only || record.barred_revision >= until {
            return Ok(present);
        }
        let barred = ShardRecord { barred_revision: until, revision: stamp.revision, ..record };
        Ok(turn.commit(Batch { shards: vec![barred], ..Batch::default() }).await?)
    }
}

/// The revision of the manifest up to which a release holds. Never 0, which means none.
fn released_until(turn: &Turn<'_>, known: Revision, asked: Revision) -> Revision {
    let acted_on = if asked > Revision(0) { asked } else { turn.manifest_revision() };
    acted_on.max(known).max(Revision(1))
}

/// What is not known may only not be known yet.
fn lagging(turn: &Turn<'_>, asked: Revision) -> Option<Error> {
    let known = turn.manifest_revision();
    (asked > known).then_some(Error::Lagging { asked, known })
}
