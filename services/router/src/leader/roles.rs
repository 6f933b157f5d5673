//! What each shard is to be for each namespace.
//!
//! Looked up when it is told, in what was committed: the owner in the table, what others still have
//! in the residues. A shard that neither has has no role, which is not the same as being told to
//! give it up.

use std::collections::HashMap;

use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision, ShardName},
    manifest::Workload,
    moves::{Assigned, Grounds, Task, order_for},
    roles::Desired,
};

use super::Leader;
use crate::store::Error;

/// What a shard is to be for a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DesiredRole {
    /// The namespace.
    pub(crate) namespace: NamespaceName,
    /// Starts of the dag_ids that it owns, or owned.
    pub(crate) prefixes: Vec<String>,
    /// What to be.
    pub(crate) desired: Desired,
    /// Revision at which that was committed.
    pub(crate) revision: Revision,
    /// Generation from which on it is that: what was seen at an older one is something else.
    pub(crate) since: Generation,
    /// Why, in one line.
    pub(crate) reason: String,
    /// What else to do, while the namespace is moved.
    pub(crate) task: Option<Task>,
}

/// What it brings, and the manifest's revision of it.
pub(crate) type Workloads = HashMap<NamespaceName, (Workload, Revision)>;

impl Leader {
    /// Namespaces that a shard has a role for.
    pub(crate) fn namespaces_on(&self, shard: &str) -> Vec<NamespaceName> {
        let mut names: Vec<NamespaceName> = {
            let fleet = self.fleet();
            let known = fleet.shard(shard);
            known.into_iter().flat_map(|shard| shard.namespaces.iter().cloned()).collect()
        };
        names.extend(self.residues().on(shard).cloned());
        names.extend(self.moves().on(shard).cloned());
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What a shard is to be for a namespace; none where it has nothing to do with it.
    pub(crate) fn desired(&self, shard: &str, namespace: &str) -> Option<DesiredRole> {
        let shard: ShardName = shard.parse().ok()?;
        // The table first: what is newer of the residues is never more than is committed, and a
        // change of either is told again.
        let view = self.tools.live.view();
        let entry = view.table.resolve_namespace(namespace);
        let owner = entry.and_then(|entry| entry.shard()).and_then(|owner| owner.parse().ok());
        let assigned = entry.map(|entry| Assigned {
            shard: owner.as_ref(),
            generation: entry.generation(),
            revision: entry.revision(),
        });
        let residues = self.residues();
        let row = self.moves().of(namespace).cloned();
        let left = residues.of(namespace);
        let (order, grounds) = order_for(&shard, assigned, row.as_deref(), left)?;
        let (since, reason) = match grounds {
            Grounds::Move(row) => {
                let reason = format!("moves from {} to {}: {}", row.source, row.target, row.phase);
                (order.desired.generation, reason)
            }
            Grounds::Owns => (order.desired.generation, entry?.reason().to_owned()),
            Grounds::Left(left) => (left.generation, left.reason.clone()),
        };
        let (namespace, prefixes) = match (grounds, entry) {
            (Grounds::Left(left), _) => {
                (left.namespace.clone(), left.prefixes.iter().map(ToString::to_string).collect())
            }
            (_, entry) => {
                let entry = entry?;
                (entry.namespace_name(), entry.prefixes().map(str::to_owned).collect())
            }
        };
        Some(DesiredRole {
            namespace,
            prefixes,
            desired: order.desired,
            revision: order.revision,
            since,
            reason,
            task: order.task,
        })
    }

    /// The shards that a namespace has a role on, its owner first.
    pub(crate) fn shards_of(&self, namespace: &str) -> Vec<String> {
        let view = self.tools.live.view();
        let owner = view.table.resolve_namespace(namespace).and_then(|entry| entry.shard());
        let mut shards: Vec<String> = owner.into_iter().map(str::to_owned).collect();
        for residue in self.residues().of(namespace) {
            if Some(residue.shard.as_str()) != owner {
                shards.push(residue.shard.to_string());
            }
        }
        if let Some(row) = self.moves().of(namespace) {
            shards.extend([&row.source, &row.target].map(ToString::to_string));
            let mut seen = std::collections::HashSet::new();
            shards.retain(|shard| seen.insert(shard.clone()));
        }
        shards
    }

    /// What those of them bring that a shard is to have.
    pub(crate) async fn workloads(&self, roles: &[DesiredRole]) -> Result<Workloads, Error> {
        let wanted: Vec<NamespaceName> = roles
            .iter()
            .filter(|role| role.desired.role.has_workload())
            .map(|role| role.namespace.clone())
            .collect();
        self.tools.store.workloads(&wanted).await
    }
}
