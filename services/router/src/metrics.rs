//! What the router counts, and what it tells of the fleet on `/metrics`.
//!
//! Counters are added to where things happen; everything else is read from the table, the fleet and
//! the agents when the metrics are rendered. What only the leader knows is told by the leader alone.

mod moves;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use airfleet_domain::{
    health::Verdict,
    ids::Revision,
    resources::{DIMENSIONS, Resources},
    routing::{Entry, State},
};
use airfleet_runtime::metrics::Metrics as Registry;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use self::moves::MoveMetrics;
use crate::{agents::Hub, leader::election::Leadership, table::Live};

/// What a resolve came to.
const RESULTS: [&str; 5] = ["assigned", "unplaced", "released", "moving", "not_found"];

/// The router's counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    resolved: [IntCounter; RESULTS.len()],
    reports: [IntCounter; 2],
    store_failures: IntCounterVec,
    events_dropped: IntCounter,
    manifest_refused: IntCounter,
    manifest_failures: IntCounter,
    manifest_revision: AtomicI64,
    changes: IntCounterVec,
    /// Watchers that are served.
    pub(crate) watchers: IntGauge,
    moves: MoveMetrics,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let resolved = registry.counters(
            "router_resolved_total",
            "Dag_ids and namespaces resolved, by what came of it.",
            &["result"],
        );
        let reports = registry.counters(
            "router_reports_total",
            "Reports of agents, by what came of them: taken, or need_full.",
            &["result"],
        );
        Self {
            moves: MoveMetrics::new(registry),
            resolved: RESULTS.map(|result| resolved.with_label_values(&[result])),
            reports: ["taken", "need_full"].map(|result| reports.with_label_values(&[result])),
            store_failures: registry.counters(
                "router_store_errors_total",
                "Calls of the store that failed, by operation.",
                &["operation"],
            ),
            events_dropped: registry.counter(
                "router_events_dropped_total",
                "Events of agents that were not kept, since they told too many.",
            ),
            manifest_refused: registry.counter(
                "router_manifest_entries_refused_total",
                "Entries of the manifest that this router could not read.",
            ),
            manifest_failures: registry.counter(
                "router_manifest_watch_failures_total",
                "Times that the watch of the registry ended.",
            ),
            manifest_revision: AtomicI64::new(0),
            changes: registry.counters(
                "router_dag_changes_total",
                "Changes to DAGs and runs that were asked for, by kind and by what came of them.",
                &["change", "result"],
            ),
            watchers: registry.gauge("router_watchers", "Watches of the table that are open."),
        }
    }

    /// A dag_id or namespace was resolved.
    #[inline]
    pub(crate) fn resolved(&self, entry: Option<&Entry>) {
        self.resolved[result(entry)].inc();
    }

    /// Many were resolved, counted by [`result`].
    pub(crate) fn resolved_many(&self, counts: [u64; RESULTS.len()]) {
        for (counter, count) in self.resolved.iter().zip(counts) {
            counter.inc_by(count);
        }
    }

    /// A report came.
    pub(crate) fn reported(&self, need_full: bool) {
        self.reports[usize::from(need_full)].inc();
    }

    /// A change to a DAG was asked for.
    pub(crate) fn changed(&self, change: &str, result: &str) {
        self.changes.with_label_values(&[change, result]).inc();
    }

    /// A call of the store failed.
    pub(crate) fn store_failed(&self, operation: &str) {
        self.store_failures.with_label_values(&[operation]).inc();
    }

    /// An agent told more events than are kept.
    pub(crate) fn events_dropped(&self, count: usize) {
        self.events_dropped.inc_by(count as u64);
    }

    /// An entry of the manifest could not be read.
    pub(crate) fn manifest_entry_refused(&self) {
        self.manifest_refused.inc();
    }

    /// The watch of the registry ended.
    pub(crate) fn manifest_watch_failed(&self) {
        self.manifest_failures.inc();
    }

    /// The registry told of this revision.
    pub(crate) fn manifest_heard(&self, revision: Revision) {
        self.manifest_revision.store(revision.0, Ordering::Relaxed);
    }
}

/// Where [`Metrics::resolved_many`] counts an answer.
#[inline]
pub(crate) fn result(entry: Option<&Entry>) -> usize {
    match entry.map(Entry::state) {
        Some(State::Assigned) => 0,
        Some(State::Unplaced) => 1,
        Some(State::Released) => 2,
        Some(State::Moving) => 3,
        None => 4,
    }
}

/// What is read when the metrics are rendered.
pub(crate) struct Fleet {
    metrics: Arc<Metrics>,
    live: Arc<Live>,
    hub: Arc<Hub>,
    leadership: Arc<Leadership>,
    table: TableGauges,
    leader: LeaderGauges,
    shards: ShardGauges,
}

struct TableGauges {
    assignments: IntGaugeVec,
    by_shard: IntGaugeVec,
    namespaces: IntGauge,
    revision: IntGauge,
    age: Gauge,
    agents: IntGauge,
}

struct LeaderGauges {
    leader: IntGauge,
    term: IntGauge,
    unplaced: IntGauge,
    orphans: IntGauge,
    unregistered: IntGauge,
    manifest_revision: IntGauge,
    manifest_lag: IntGauge,
    residues: IntGaugeVec,
    moves: IntGaugeVec,
    moves_alarming: IntGauge,
    frozen: IntGauge,
    thrashed: IntGauge,
    peak: Gauge,
    mean: Gauge,
}

struct ShardGauges {
    health: IntGaugeVec,
    connected: IntGaugeVec,
    placeable: IntGaugeVec,
    cordoned: IntGaugeVec,
    unowned: IntGaugeVec,
    roles: IntGaugeVec,
    unreached: IntGaugeVec,
    obstacles: IntGaugeVec,
    drift: IntGaugeVec,
    violations: IntGaugeVec,
    fenced: IntGaugeVec,
    capacity: IntGaugeVec,
    usage: IntGaugeVec,
    reserved: IntGaugeVec,
    room: IntGaugeVec,
}

impl Fleet {
    /// Reads these whenever `registry` is rendered.
    pub(crate) fn install(
        registry: &Registry,
        metrics: Arc<Metrics>,
        live: Arc<Live>,
        hub: Arc<Hub>,
        leadership: Arc<Leadership>,
    ) {
        let fleet = Self {
            metrics,
            live,
            hub,
            leadership,
            table: TableGauges::new(registry),
            leader: LeaderGauges::new(registry),
            shards: ShardGauges::new(registry),
        };
        registry.before_render(move || fleet.read());
    }

    fn read(&self) {
        let counts = self.live.counts();
        let table = &self.table;
        for (state, count) in [
            ("assigned", counts.assigned),
            ("unplaced", counts.unplaced),
            ("released", counts.released),
            ("moving", counts.moving),
        ] {
            table.assignments.with_label_values(&[state]).set(count as i64);
        }
        table.by_shard.reset();
        for (shard, count) in &counts.by_shard {
            table.by_shard.with_label_values(&[shard.as_ref()]).set(*count as i64);
        }
        let view = self.live.view();
        table.namespaces.set(view.table.len() as i64);
        table.revision.set(view.table.revision().0);
        table.age.set(self.live.age().as_secs_f64());
        table.agents.set(self.hub.connected() as i64);
        self.read_leader();
    }

    fn read_leader(&self) {
        let gauges = &self.leader;
        self.shards.reset();
        let Ok(leader) = self.leadership.leader() else {
            gauges.leader.set(0);
            for gauge in [&gauges.unplaced, &gauges.orphans, &gauges.unregistered] {
                gauge.set(0);
            }
            gauges.manifest_lag.set(0);
            gauges.residues.reset();
            gauges.moves.reset();
            gauges.moves_alarming.set(0);
            return;
        };
        let taken_in = leader.manifest_revision().0;
        let heard = self.metrics.manifest_revision.load(Ordering::Relaxed);
        let totals = leader.fleet().totals();
        gauges.leader.set(1);
        gauges.term.set(leader.term.0);
        gauges.unplaced.set(totals.unplaced as i64);
        gauges.orphans.set(totals.orphans as i64);
        gauges.unregistered.set(totals.unregistered_shards as i64);
        gauges.frozen.set(i64::from(leader.frozen().is_some()));
        gauges.thrashed.set(leader.fleet().history.thrashed() as i64);
        gauges.peak.set(leader.fleet().peak() as f64 / 1e6);
        gauges.mean.set(leader.fleet().mean_peak() as f64 / 1e6);
        gauges.manifest_revision.set(taken_in);
        gauges.manifest_lag.set((heard - taken_in).max(0));
        let (phases, alarming) = leader.move_counts();
        for (phase, count) in phases {
            gauges.moves.with_label_values(&[phase.name()]).set(count);
        }
        gauges.moves_alarming.set(alarming);
        let residues = leader.residues().counts();
        for (state, count) in [
            ("awaited", residues.awaited),
            ("waived", residues.waived),
            ("kept", residues.kept),
            ("purging", residues.purging),
        ] {
            gauges.residues.with_label_values(&[state]).set(count as i64);
        }
        let names: Vec<_> =
            leader.fleet().shards().map(|shard| shard.record.name.clone()).collect();
        for name in names {
            let seen = self.hub.seen(name.as_str());
            let totals = leader.role_totals(name.as_str());
            let fleet = leader.fleet();
            let Some(shard) = fleet.shard(name.as_str()) else { continue };
            let capacity = shard.capacity();
            let name = name.as_str();
            let gauges = &self.shards;
            let set = |gauge: &IntGaugeVec, value| gauge.with_label_values(&[name]).set(value);
            set(&gauges.connected, i64::from(seen.connected));
            set(&gauges.placeable, i64::from(fleet.closures(shard).is_empty()));
            set(&gauges.cordoned, i64::from(shard.record.cordon.is_some()));
            set(&gauges.unowned, seen.unowned_dags);
            set(&gauges.roles, totals.desired);
            set(&gauges.unreached, totals.unreached);
            set(&gauges.obstacles, totals.obstacles);
            set(&gauges.drift, totals.drift);
            set(&gauges.violations, totals.violations);
            set(&gauges.fenced, totals.fenced_dags);
            for verdict in Verdict::ALL {
                let holds = i64::from(verdict == seen.health.verdict);
                gauges.health.with_label_values(&[name, verdict.name()]).set(holds);
            }
            for (gauge, amounts) in [
                (&gauges.capacity, capacity),
                (&gauges.usage, seen.usage),
                (&gauges.reserved, shard.reserved),
                (&gauges.room, capacity.minus(shard.reserved)),
            ] {
                set_amounts(gauge, name, amounts);
            }
        }
    }
}

fn set_amounts(gauge: &IntGaugeVec, shard: &str, amounts: Resources) {
    for (dimension, amount) in DIMENSIONS.iter().zip(amounts.values()) {
        gauge.with_label_values(&[shard, dimension]).set(amount);
    }
}

impl TableGauges {
    fn new(registry: &Registry) -> Self {
        Self {
            assignments: registry.gauges(
                "router_assignments",
                "Namespaces in the table, by state.",
                &["state"],
            ),
            by_shard: registry.gauges(
                "router_shard_namespaces",
                "Namespaces that a shard owns.",
                &["shard"],
            ),
            namespaces: registry.gauge("router_namespaces", "Namespaces in the table."),
            revision: registry.gauge("router_table_revision", "Revision of the table."),
            age: registry.float_gauge(
                "router_table_age_seconds",
                "How long ago the table was last known to be current.",
            ),
            agents: registry.gauge("router_agents_connected", "Agents connected to this replica."),
        }
    }
}

impl LeaderGauges {
    fn new(registry: &Registry) -> Self {
        Self {
            leader: registry.gauge("router_leader", "1 where this replica leads, else 0."),
            term: registry.gauge("router_leader_term", "Term in which this replica last led."),
            unplaced: registry
                .gauge("router_unplaced", "Namespaces that no shard fits now. Told by the leader."),
            orphans: registry.gauge(
                "router_orphans",
                "Namespaces that a shard owns and the manifest no longer has. Told by the leader.",
            ),
            unregistered: registry.gauge(
                "router_unregistered_shards",
                "Shards that own namespaces and the manifest no longer has. Told by the leader.",
            ),
            frozen: registry.gauge(
                "router_rebalancing_frozen",
                "1 where rebalancing is frozen, else 0. Told by the leader.",
            ),
            thrashed: registry.gauge(
                "router_thrashed_namespaces",
                "Namespaces that came back to a shard that they had left within a week, since this \
                 leader leads.",
            ),
            peak: registry.float_gauge(
                "router_fleet_peak_ratio",
                "How full the fullest dimension of the fullest shard is. Told by the leader.",
            ),
            mean: registry.float_gauge(
                "router_fleet_mean_ratio",
                "All reserved over all capacity, in the dimension where that is most: no placement \
                 has a lower peak. Told by the leader.",
            ),
            manifest_revision: registry.gauge(
                "router_manifest_revision",
                "Revision of the manifest that is taken into account. Told by the leader.",
            ),
            residues: registry.gauges(
                "router_residues",
                "Namespaces that a former shard is not rid of, by state: awaited (it has not said \
                 that it is fenced; the new owner waits), waived (the same, and an operator let \
                 another run it), kept (its rows, until their time), purging. Told by the leader.",
                &["state"],
            ),
            moves: registry.gauges(
                "router_moves",
                "Moves that have not ended, by phase. Told by the leader.",
                &["phase"],
            ),
            moves_alarming: registry.gauge(
                "router_moves_alarming",
                "Moves that can only go on and have not for a while. Told by the leader.",
            ),
            manifest_lag: registry.gauge(
                "router_manifest_lag_revisions",
                "Revisions of the manifest heard of and not taken into account yet. Told by the \
                 leader.",
            ),
        }
    }
}

impl ShardGauges {
    fn new(registry: &Registry) -> Self {
        let of_shard = |name, help| registry.gauges(name, help, &["shard"]);
        let amounts = |name, help| registry.gauges(name, help, &["shard", "dimension"]);
        Self {
            health: registry.gauges(
                "router_shard_health",
                "1 for the verdict on the shard's health, 0 for the others. Told by the leader.",
                &["shard", "verdict"],
            ),
            connected: of_shard(
                "router_shard_connected",
                "1 while the shard's agent is connected. Told by the leader.",
            ),
            placeable: of_shard(
                "router_shard_placeable",
                "1 while the shard takes new namespaces. Told by the leader.",
            ),
            cordoned: of_shard(
                "router_shard_cordoned",
                "1 while the shard is cordoned. Told by the leader.",
            ),
            unowned: of_shard(
                "router_shard_unowned_dags",
                "DAGs on the shard that belong to no namespace of it. Told by the leader.",
            ),
            roles: of_shard(
                "router_shard_roles",
                "Namespaces that the shard is to be something for. Told by the leader.",
            ),
            unreached: of_shard(
                "router_shard_roles_unreached",
                "Namespaces for which the shard is not what it is to be. Told by the leader.",
            ),
            obstacles: of_shard(
                "router_shard_obstacles",
                "Namespaces for which something keeps the shard from what it is to be. Told by the \
                 leader.",
            ),
            drift: of_shard(
                "router_shard_drift",
                "What is not as declared on the shard, of all its namespaces. Told by the leader.",
            ),
            violations: of_shard(
                "router_shard_policy_violations",
                "Rules that DAGs on the shard break, of all its namespaces. Told by the leader.",
            ),
            fenced: of_shard(
                "router_shard_fenced_dags",
                "DAGs on the shard whose pause state the fence forces. Told by the leader.",
            ),
            capacity: amounts(
                "router_shard_capacity",
                "What the shard can take, 0 where not limited. Told by the leader.",
            ),
            usage: amounts(
                "router_shard_usage",
                "What the shard's agent measured. Told by the leader.",
            ),
            reserved: amounts(
                "router_shard_reserved",
                "What its namespaces declared or were measured to use. Told by the leader.",
            ),
            room: amounts(
                "router_shard_room",
                "Capacity less reserved, negative where overcommitted. Told by the leader.",
            ),
        }
    }

    /// A shard that is gone is told no more.
    fn reset(&self) {
        for gauge in [
            &self.health,
            &self.connected,
            &self.placeable,
            &self.cordoned,
            &self.unowned,
            &self.roles,
            &self.unreached,
            &self.obstacles,
            &self.drift,
            &self.violations,
            &self.fenced,
            &self.capacity,
            &self.usage,
            &self.reserved,
            &self.room,
        ] {
            gauge.reset();
        }
    }
}
