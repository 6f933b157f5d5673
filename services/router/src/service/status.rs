//! What is known of shards, and of this replica.

use airfleet_domain::{
    ids::{NamespaceName, Revision, Term},
    resources::Resources,
};

use super::{Error, RoleSummary, RoleTotals, Service};
use crate::{
    agents::{NamespaceUsage, Seen},
    leader::{Leader, election::Lead},
    store::Cordon,
    table::Origin,
};

/// Namespaces whose usage is told with a shard.
const USAGE_MAX: usize = 10_000;

/// What is known of a shard.
#[derive(Debug, Clone)]
pub(crate) struct ShardStatus {
    /// Its name.
    pub(crate) name: String,
    /// What its agent says.
    pub(crate) seen: Seen,
    /// What it can take.
    pub(crate) capacity: Resources,
    /// What its namespaces declared or were measured to use.
    pub(crate) reserved: Resources,
    /// Set while it is cordoned.
    pub(crate) cordon: Option<Cordon>,
    /// Namespaces that it owns. Count.
    pub(crate) namespaces: usize,
    /// By namespace, where asked for.
    pub(crate) usage: Vec<(NamespaceName, NamespaceUsage)>,
    /// Reasons for which it takes nothing.
    pub(crate) not_placeable: Vec<String>,
    /// Numbers of its roles.
    pub(crate) totals: RoleTotals,
    /// What it is for its namespaces, where asked for.
    pub(crate) roles: Vec<RoleSummary>,
}

/// What this replica is.
#[derive(Debug, Clone)]
pub(crate) struct RouterStatus {
    pub(crate) replica: String,
    pub(crate) leader: bool,
    pub(crate) leader_address: String,
    pub(crate) term: Term,
    pub(crate) revision: Revision,
    pub(crate) age_ms: i64,
    pub(crate) namespaces: usize,
    pub(crate) agents: usize,
    pub(crate) source: &'static str,
    pub(crate) manifest_revision: Revision,
}

impl Service {
    /// One shard's state, with its namespaces.
    pub(crate) fn shard_status(&self, shard: &str) -> Result<ShardStatus, Error> {
        let leader = self.leader()?;
        let status = self.shard_status_of(&leader, shard);
        let mut status = status.ok_or_else(|| Error::NoShard(shard.to_owned()))?;
        status.usage = self.hub.usage_by_namespace(shard, USAGE_MAX);
        status.roles = self.roles_on(&leader, shard, USAGE_MAX);
        Ok(status)
    }

    /// The states of at most `limit` shards that come after one, by name, and whether there are
    /// more.
    pub(crate) fn shard_statuses(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<ShardStatus>, bool), Error> {
        let leader = self.leader()?;
        // Agents of shards that are not registered are shown too: that is how one finds out why
        // they get nothing.
        let heard_of = self.hub.shards();
        let mut names: Vec<String> = {
            let fleet = leader.fleet();
            let registered = fleet.shards_after(after).take(limit + 1);
            registered.map(|shard| shard.record.name.to_string()).collect()
        };
        names.extend(heard_of.iter().filter(|name| name.as_str() > after).map(ToString::to_string));
        names.sort();
        names.dedup();
        let more = names.len() > limit;
        names.truncate(limit);
        let statuses = names.iter().filter_map(|name| self.shard_status_of(&leader, name));
        Ok((statuses.collect(), more))
    }

    /// One shard's state as this leader knows it; none where nobody has heard of it.
    pub(super) fn shard_status_of(&self, leader: &Leader, name: &str) -> Option<ShardStatus> {
        // Before the fleet: an agent is never asked with the fleet in hand.
        let seen = self.hub.seen(name);
        let totals = leader.role_totals(name);
        let fleet = leader.fleet();
        let Some(shard) = fleet.shard(name) else {
            seen.hello.as_ref()?;
            let why = "NOT_REGISTERED: an agent of it is known, but the manifest has no such shard";
            return Some(ShardStatus {
                name: name.to_owned(),
                seen,
                capacity: Resources::ZERO,
                reserved: Resources::ZERO,
                cordon: None,
                namespaces: 0,
                usage: Vec::new(),
                not_placeable: vec![why.to_owned()],
                totals,
                roles: Vec::new(),
            });
        };
        let closures = fleet.closures(shard);
        let told = closures.iter().map(|why| format!("{}: {}", why.code, why.message));
        Some(ShardStatus {
            name: name.to_owned(),
            seen,
            capacity: shard.capacity(),
            reserved: shard.reserved,
            cordon: shard.record.cordon.clone(),
            namespaces: shard.namespaces.len(),
            usage: Vec::new(),
            not_placeable: told.collect(),
            totals,
            roles: Vec::new(),
        })
    }

    /// What this replica is and how fresh its table.
    pub(crate) fn router_status(&self) -> RouterStatus {
        let view = self.live.view();
        let leader = self.leadership.leader().ok();
        let (leader_address, term) = match self.leadership.lead() {
            Lead::Nobody => (String::new(), Term(0)),
            Lead::Preparing(term) | Lead::Mine(term) => (self.address.clone(), term),
            Lead::Other { address, term } => (address, term),
        };
        RouterStatus {
            replica: self.replica.clone(),
            leader: leader.is_some(),
            leader_address,
            term,
            revision: view.table.revision(),
            age_ms: i64::try_from(self.live.age().as_millis()).unwrap_or(i64::MAX),
            namespaces: view.table.len(),
            agents: self.hub.connected(),
            source: match view.origin {
                Origin::Nowhere => "",
                Origin::File => "snapshot",
                Origin::Store => "store",
            },
            manifest_revision: view.manifest_revision,
        }
    }
}
