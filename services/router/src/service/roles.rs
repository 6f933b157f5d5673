//! What the shards are to be for namespaces, and what they are.

use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision},
    roles::{Desired, Fence, Role},
    routing::Entry,
};

use super::{Error, Service};
use crate::{
    agents::SeenRole,
    leader::{Leader, roles::DesiredRole},
};

/// Namespaces that are looked at for one page: few that need attention must not hold up others.
const LOOKED_AT_MAX: usize = 20_000;

/// What one shard is for a namespace.
#[derive(Debug, Clone)]
pub(crate) struct ShardRole {
    /// The shard.
    pub(crate) shard: String,
    /// What it is to be.
    pub(crate) desired: DesiredRole,
    /// What it is, as its agent last said.
    pub(crate) seen: Option<SeenRole>,
    /// Whether it is what it is to be.
    pub(crate) reached: bool,
    /// What it waits for beside its own agent, or what people should know.
    pub(crate) waits_for: String,
    /// Whether its agent is connected.
    pub(crate) connected: bool,
    /// When the last report came. Microseconds since 1970-01-01 UTC.
    pub(crate) reported_at_us: Option<i64>,
    /// Until when the rows of what it gave up are kept. Microseconds since 1970-01-01 UTC.
    pub(crate) purge_at_us: Option<i64>,
}

/// What the shards are for a namespace.
#[derive(Debug, Clone)]
pub(crate) struct NamespaceStatus {
    /// Its assignment; none where it is gone.
    pub(crate) entry: Option<Entry>,
    /// By shard, the owner first.
    pub(crate) roles: Vec<ShardRole>,
    /// Of the workload that the owner is told.
    pub(crate) manifest_revision: Revision,
}

/// What a shard is for a namespace, in short.
#[derive(Debug, Clone)]
pub(crate) struct RoleSummary {
    pub(crate) namespace: NamespaceName,
    pub(crate) shard: String,
    /// What it is to be; none where the router has no word for it, and its agent has
    /// quarantined it.
    pub(crate) desired: Option<Desired>,
    pub(crate) observed: Option<(Role, Generation)>,
    pub(crate) reached: bool,
    pub(crate) release: String,
    pub(crate) released_at_us: i64,
    pub(crate) drift: i64,
    pub(crate) violations: i64,
    pub(crate) obstacle: String,
    pub(crate) connected: bool,
}

impl RoleSummary {
    /// Whether somebody should look at it.
    pub(crate) fn needs_attention(&self) -> bool {
        !self.reached || self.drift > 0 || self.violations > 0 || !self.obstacle.is_empty()
    }
}

/// Numbers of a shard's roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RoleTotals {
    /// Namespaces that it is to be something for.
    pub(crate) desired: i64,
    /// For which it is not what it is to be.
    pub(crate) unreached: i64,
    /// That something keeps from it.
    pub(crate) obstacles: i64,
    pub(crate) drift: i64,
    pub(crate) violations: i64,
    pub(crate) fenced_dags: i64,
    /// That it has to give up, or gave up and keeps rows of.
    pub(crate) giving_up: i64,
}

impl Service {
    /// What the shards are to be for a namespace, and what they are.
    pub(crate) async fn namespace_status(&self, namespace: &str) -> Result<NamespaceStatus, Error> {
        let leader = self.leader()?;
        let entry = self.live.view().table.resolve_namespace(namespace).cloned();
        let shards = leader.shards_of(namespace);
        if entry.is_none() && shards.is_empty() {
            return Err(Error::NoNamespace(namespace.to_owned()));
        }
        let roles: Vec<_> =
            shards.iter().filter_map(|shard| self.shard_role(&leader, shard, namespace)).collect();
        let owner: Vec<DesiredRole> = roles.iter().map(|role| role.desired.clone()).collect();
        let workloads = leader.workloads(&owner).await?;
        let manifest_revision =
            workloads.values().map(|(_, revision)| *revision).max().unwrap_or_default();
        Ok(NamespaceStatus { entry, roles, manifest_revision })
    }

    fn shard_role(&self, leader: &Leader, shard: &str, namespace: &str) -> Option<ShardRole> {
        let desired = leader.desired(shard, namespace)?;
        let (connected, reported_at_us, seen) = self.hub.with_role(shard, namespace, |look| {
            (look.connected, look.reported_at_us, look.role.cloned())
        });
        let reached = is_reached(&desired, seen.as_ref());
        let residues = leader.residues();
        let left = residues.at(namespace, shard).cloned();
        let awaited = residues
            .of(namespace)
            .iter()
            .find(|other| other.fence == Fence::Awaited && other.shard.as_str() != shard)
            .map(|other| other.shard.clone());
        drop(residues);
        let waits_for = match (awaited, &left) {
            (Some(other), None) => format!(
                "it runs nothing of it before {other} says that it is fenced there; if {other} is \
                 gone for good, take it on you: airfleet namespace pin {namespace} {shard} --force \
                 --reason …"
            ),
            (_, Some(left)) if left.fence == Fence::Waived => format!(
                "{shard} has not said that it is fenced there, and another runs it: should {shard} \
                 be up, it may run it too"
            ),
            _ => String::new(),
        };
        Some(ShardRole {
            shard: shard.to_owned(),
            desired,
            seen,
            reached,
            waits_for,
            connected,
            reported_at_us,
            purge_at_us: left.map(|left| left.purge_at_us),
        })
    }

    /// Roles in short of at most about `limit` namespaces that come after one, by name, and the
    /// last that was looked at where there are more.
    pub(crate) fn role_summaries(
        &self,
        after: &str,
        limit: usize,
        shard: &str,
        attention: bool,
    ) -> Result<(Vec<RoleSummary>, Option<String>), Error> {
        let leader = self.leader()?;
        let view = self.live.view();
        let mut found = Vec::new();
        let mut last = None;
        for (looked_at, entry) in view.table.iter_after(after).enumerate() {
            if found.len() >= limit || looked_at == LOOKED_AT_MAX {
                return Ok((found, last));
            }
            let shards = leader.shards_of(entry.namespace());
            let wanted = shards.iter().filter(|one| shard.is_empty() || *one == shard);
            let roles = wanted.filter_map(|one| self.summary(&leader, one, entry.namespace()));
            found.extend(roles.filter(|role| !attention || role.needs_attention()));
            last = Some(entry.namespace().to_owned());
        }
        Ok((found, None))
    }

    /// What a shard is for its namespaces, those that need attention first. Also for those that
    /// its agent reports although the shard is to be nothing for them.
    pub(super) fn roles_on(&self, leader: &Leader, shard: &str, limit: usize) -> Vec<RoleSummary> {
        let mut names = leader.namespaces_on(shard);
        names.extend(self.hub.namespaces_with_roles(shard));
        names.sort_unstable();
        names.dedup();
        let roles = names.iter().filter_map(|name| self.summary(leader, shard, name.as_str()));
        let mut roles: Vec<_> = roles.collect();
        roles.sort_by_key(|role| !role.needs_attention());
        roles.truncate(limit);
        roles
    }

    fn summary(&self, leader: &Leader, shard: &str, namespace: &str) -> Option<RoleSummary> {
        let desired = leader.desired(shard, namespace);
        let name = namespace.parse().ok()?;
        self.hub.with_role(shard, namespace, |look| {
            let seen = look.role;
            let observed = seen.and_then(|seen| seen.observed);
            let is_nothing = observed.is_none_or(|observed| observed.role == Role::Absent);
            if desired.is_none() && is_nothing {
                return None;
            }
            let release = seen.and_then(|seen| seen.release.as_ref());
            Some(RoleSummary {
                namespace: name,
                shard: shard.to_owned(),
                desired: desired.as_ref().map(|desired| desired.desired),
                observed: observed.map(|observed| (observed.role, observed.generation)),
                reached: desired.is_some_and(|desired| is_reached(&desired, seen)),
                release: release.map(|release| release.id.clone()).unwrap_or_default(),
                released_at_us: release.map_or(0, |release| release.switched_at_us),
                drift: seen.map_or(0, |seen| seen.drift_count),
                violations: seen.map_or(0, |seen| seen.violation_count),
                obstacle: seen
                    .and_then(|seen| seen.obstacle.as_ref())
                    .map(|obstacle| obstacle.code.clone())
                    .unwrap_or_default(),
                connected: look.connected,
            })
        })
    }
}

impl Leader {
    /// Numbers of a shard's roles. Not to be called with the fleet in hand.
    pub(crate) fn role_totals(&self, shard: &str) -> RoleTotals {
        let counts = self.tools.hub.role_counts(shard);
        let owned = self.fleet().shard(shard).map_or(0, |shard| shard.namespaces.len());
        let giving_up = self.residues().on(shard).count() as i64;
        let desired = owned as i64 + giving_up;
        RoleTotals {
            desired,
            // What an agent says nothing of, it has not reached.
            unreached: counts.unreached + (desired - counts.roles).max(0),
            obstacles: counts.obstacles,
            drift: counts.drift,
            violations: counts.violations,
            fenced_dags: counts.fenced_dags,
            giving_up,
        }
    }
}

fn is_reached(desired: &DesiredRole, seen: Option<&SeenRole>) -> bool {
    seen.and_then(|seen| seen.observed).is_some_and(|observed| {
        observed.role == desired.desired.role && observed.generation >= desired.since
    })
}
