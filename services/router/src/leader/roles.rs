//! What each shard is to be for each namespace.
//!
//! Looked up when it is told, in what was committed: the owner in the table, what others still have
//! in the residues. A shard that neither has has no role, which is not the same as being told to
//! give it up.

use std::collections::HashMap;

use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision},
    manifest::Workload,
    moves::{Owner, Task, orders},
    roles::{Desired, owner_role},
    routing::Entry,
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
        // The table first: what is newer of the residues is never more than is committed, and a
        // change of either is told again.
        let view = self.tools.live.view();
        let entry = view.table.resolve_namespace(namespace);
        let residues = self.residues();
        if let Some(role) = entry.and_then(|entry| self.in_move(shard, entry)) {
            return Some(role);
        }
        if let Some(entry) = entry.filter(|entry| entry.shard() == Some(shard)) {
            let others = residues.of(namespace).iter().filter(|r| r.shard.as_str() != shard);
            return Some(DesiredRole {
                namespace: entry.namespace_name(),
                prefixes: entry.prefixes().map(str::to_owned).collect(),
                desired: Desired { role: owner_role(others), generation: entry.generation() },
                revision: entry.revision(),
                since: entry.generation(),
                reason: entry.reason().to_owned(),
                task: None,
            });
        }
        let left = residues.at(namespace, shard)?;
        let revision = entry.map_or(left.revision, |entry| entry.revision().max(left.revision));
        Some(DesiredRole {
            namespace: left.namespace.clone(),
            prefixes: left.prefixes.iter().map(ToString::to_string).collect(),
            desired: left.desired(entry.map(Entry::generation)),
            revision,
            since: left.generation,
            reason: left.reason.clone(),
            task: None,
        })
    }

    /// What an end of a move is to be; none where the shard is none, or there is no move.
    fn in_move(&self, shard: &str, entry: &Entry) -> Option<DesiredRole> {
        let row = self.moves().of(entry.namespace())?.clone();
        let owner = Owner {
            shard: entry.shard()?.parse().ok()?,
            generation: entry.generation(),
            revision: entry.revision(),
        };
        let orders = orders(&owner, Some(&row));
        let order = orders.into_iter().find(|order| order.shard.as_str() == shard)?;
        Some(DesiredRole {
            namespace: entry.namespace_name(),
            prefixes: entry.prefixes().map(str::to_owned).collect(),
            since: order.desired.generation,
            desired: order.desired,
            revision: order.revision,
            reason: format!("moves from {} to {}: {}", row.source, row.target, row.phase),
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
