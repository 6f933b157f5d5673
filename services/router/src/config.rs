//! Settings of the router.

mod moves;

pub use self::moves::{Invalid, MovesConfig};

use std::{path::PathBuf, time::Duration};

use airfleet_domain::placement::{Policy, waves::Limits};
use airfleet_runtime::config::{
    ClientConfig, DurationText, ServerConfig, StoreConfig, TelemetryConfig,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Port that a router listens on unless told.
pub const DEFAULT_PORT: u16 = 7402;

/// Settings of a router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this replica, unique among the routers of a fleet. Default: its address.
    pub replica: Option<String>,
    /// Where and how it serves.
    pub server: ServerConfig,
    /// What it tells about itself.
    pub telemetry: TelemetryConfig,
    /// Where assignments are kept. Several replicas need one PostgreSQL database.
    pub store: StoreConfig,
    /// The registry, whose manifest says which namespaces and shards there are.
    pub registry: ClientConfig,
    /// The file from which it starts while the store is away.
    pub snapshot: SnapshotConfig,
    /// How it follows the store and others follow it.
    pub table: TableConfig,
    /// How a leader is elected.
    pub lease: LeaseConfig,
    /// Where namespaces are placed.
    pub placement: PlacementConfig,
    /// How plans are made and carried out.
    pub plans: PlansConfig,
    /// How namespaces are moved.
    pub moves: MovesConfig,
    /// The agents of the shards.
    pub agents: AgentsConfig,
    /// What is kept of what happened to namespaces.
    pub events: EventsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            replica: None,
            server: ServerConfig::on_port(DEFAULT_PORT),
            telemetry: TelemetryConfig::default(),
            store: StoreConfig::sqlite("airfleet-router.db"),
            registry: ClientConfig::default(),
            snapshot: SnapshotConfig::default(),
            table: TableConfig::default(),
            lease: LeaseConfig::default(),
            placement: PlacementConfig::default(),
            plans: PlansConfig::default(),
            moves: MovesConfig::default(),
            agents: AgentsConfig::default(),
            events: EventsConfig::default(),
        }
    }
}

/// The file from which a router starts while the store is away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotConfig {
    /// The file. None is written or read where it is not set.
    pub file: Option<PathBuf>,
    /// How often it is written, if the table changed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub interval: Duration,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { file: None, interval: Duration::from_mins(1) }
    }
}

/// How a router follows the store and others follow it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TableConfig {
    /// How often the store is asked for changes.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub poll_interval: Duration,
    /// Changes that are kept for watchers who fall behind or reconnect. Count.
    pub history: usize,
    /// Watchers at once. Count.
    pub max_watchers: usize,
    /// How often a quiet watch says that it is alive.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub progress_interval: Duration,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_millis(300),
            history: 100_000,
            max_watchers: 5_000,
            progress_interval: Duration::from_secs(5),
        }
    }
}

/// How a leader is elected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// How long a leader may be silent before another takes over.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub ttl: Duration,
    /// How much earlier the leader itself stops; covers clocks that run unevenly.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub margin: Duration,
    /// How often each replica looks at the lease.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub interval: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        let timing = airfleet_sql::lease::Timing::default();
        Self { ttl: timing.ttl, margin: timing.margin, interval: timing.interval }
    }
}

/// Where namespaces are placed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PlacementConfig {
    /// Whether a shard takes nothing until an agent of it has reported that it is healthy. Without
    /// it, shards of which no agent was ever heard count as healthy; for trying things out.
    pub require_report: bool,
    /// Most namespaces on one shard. Their roles must fit into one message to the agent.
    pub max_namespaces_per_shard: usize,
    /// A shard that is fuller than this counts as overloaded. Percent of its capacity.
    pub soft_limit_percent: u32,
    /// How far above the best possible peak a shard may stand before it counts as too full and
    /// something is moved off it. Percent of that peak.
    pub tolerance_percent: u32,
    /// Most namespaces of one spread group in one failure domain; 0 leaves it at a preference.
    pub group_max_per_domain: u32,
    /// Whether room is kept for the namespaces of any one failure domain that may be lost.
    pub resilience: bool,
}

impl Default for PlacementConfig {
    fn default() -> Self {
        Self {
            require_report: true,
            max_namespaces_per_shard: 20_000,
            soft_limit_percent: 90,
            tolerance_percent: 5,
            group_max_per_domain: 0,
            resilience: true,
        }
    }
}

impl PlacementConfig {
    /// What placement asks of the fleet.
    pub(crate) fn policy(&self) -> Policy {
        const PER_PERCENT: i64 = 10_000;
        Policy {
            soft_limit: i64::from(self.soft_limit_percent) * PER_PERCENT,
            tolerance: i64::from(self.tolerance_percent) * PER_PERCENT,
            group_max_per_domain: self.group_max_per_domain,
            resilience: self.resilience,
        }
    }
}

/// How plans are made and carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PlansConfig {
    /// Longest time to look for moves.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub time_limit: Duration,
    /// Threads that look for moves; 0 means all there are.
    pub threads: usize,
    /// What a rebalancing has to gain: millionths by which the excess over the target, summed over
    /// shards and dimensions, falls for each cost unit of 100 (any move costs 100, and one more for
    /// each MiB of history). 0 takes any gain.
    pub gain_min: i64,
    /// Moves at once in the fleet.
    pub moves: usize,
    /// Moves at once onto one shard.
    pub moves_into_shard: usize,
    /// Moves at once off one shard.
    pub moves_off_shard: usize,
    /// Moves at once of one tenant.
    pub moves_of_tenant: usize,
    /// Moves that may fail before a plan stops by itself.
    pub failures_max: usize,
    /// How often the leader looks whether a plan is worth proposing. Proposing moves nothing: people
    /// look at the plan and apply it. 0 s never looks.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub propose_every: Duration,
    /// Looks in a row that have to find a shard above the target before a plan is proposed. What is
    /// overloaded is proposed for at the first.
    pub propose_after: u32,
    /// Plans of which everything that they were made of is kept, to be dumped. Count.
    pub dumps_kept: usize,
    /// Namespaces whose use is followed over a week, so that demand is what was measured and not
    /// what was declared; about 2 kB each. Count.
    pub followed_max: usize,
}

impl Default for PlansConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            time_limit: Duration::from_secs(10),
            threads: 0,
            gain_min: 100,
            moves: limits.fleet,
            moves_into_shard: limits.shard_in,
            moves_off_shard: limits.shard_out,
            moves_of_tenant: limits.tenant,
            failures_max: 3,
            propose_every: Duration::from_mins(10),
            propose_after: 3,
            dumps_kept: 2,
            followed_max: 50_000,
        }
    }
}

impl PlansConfig {
    /// How many moves there may be at once.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            fleet: self.moves,
            shard_in: self.moves_into_shard,
            shard_out: self.moves_off_shard,
            tenant: self.moves_of_tenant,
        }
    }

    /// Threads that look for moves.
    pub(crate) fn threads(&self) -> usize {
        let there = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.threads == 0 { there() } else { self.threads }
    }
}

/// The agents of the shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AgentsConfig {
    /// How often agents are asked to report.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub report_interval: Duration,
    /// How often agents are asked for a full report.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub full_report_interval: Duration,
    /// Age from which on a shard's last report says nothing any more.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub stale_after: Duration,
    /// Shards of which reports are kept. Count.
    pub max_agents: usize,
    /// Namespaces kept of one shard's reports. Count.
    pub max_namespaces: usize,
    /// How long a shard that gave a namespace up keeps its rows, so that a mistake can be looked
    /// into, before it is told to remove them.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub keep_retired: Duration,
}

impl Default for AgentsConfig {
    fn default() -> Self {
        Self {
            report_interval: Duration::from_secs(5),
            full_report_interval: Duration::from_mins(1),
            stale_after: Duration::from_secs(30),
            max_agents: 10_000,
            max_namespaces: 25_000,
            keep_retired: Duration::from_hours(7 * 24),
        }
    }
}

/// What is kept of what happened to namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// Events of one namespace. Count; older ones are forgotten.
    pub per_namespace: u32,
    /// Age from which on an event is forgotten.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub keep: Duration,
    /// Events a minute that are kept of one shard's agent. Count; what is beyond is dropped and
    /// counted.
    pub per_agent_minute: u32,
    /// Watches of events at once. Count.
    pub max_watchers: usize,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            per_namespace: 200,
            keep: Duration::from_hours(90 * 24),
            per_agent_minute: 600,
            max_watchers: 500,
        }
    }
}

impl AgentsConfig {
    /// How long after it was told of a namespace an agent's reports count for it: the report under
    /// way at that time may not know of it, the one after does.
    pub(crate) fn settle_after(&self) -> Duration {
        self.report_interval * 2
    }
}
