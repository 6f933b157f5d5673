//! Carrying a plan out: what happens next, as a function of what has happened.
//!
//! Nothing is remembered but the states of the moves, which are durable: whoever leads after a crash
//! asks again and goes on. A wave's moves begin as the limits allow; the next wave begins when every
//! move of this one has ended. It stops by itself when a shard that it needs is in trouble, when too
//! many moves failed, or when somebody froze rebalancing; moves that are under way are left to end.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    plan::{Plan, PlannedMove},
    waves::Limits,
};
use crate::ids::{NamespaceName, ShardName};

/// How far a move of a plan is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// It has not begun.
    #[default]
    Waiting,
    /// It is under way.
    Running,
    /// It was made.
    Done,
    /// It was begun and came to nothing; the namespace is where it was.
    Failed(String),
    /// It was not begun.
    Skipped(String),
}

impl Stage {
    /// Whether nothing more comes of it.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Done | Self::Failed(_) | Self::Skipped(_))
    }
}

/// What there is to see beside the moves themselves.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// Shards that are in trouble, each with what.
    pub trouble: HashMap<ShardName, String>,
    /// Why rebalancing is frozen, where it is.
    pub frozen: Option<String>,
    /// Moves under way that are not of this plan, into and out of shards.
    pub others: Vec<(ShardName, ShardName)>,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// These moves begin, by position in the plan.
    Begin(Vec<usize>),
    /// What is under way has to end first.
    Wait,
    /// Everything is over.
    Done,
    /// It stops, and why. Moves under way are left to end.
    Stop(String),
}

/// What happens next. `stages` has one for each move of the plan; `limits` and `failures_max` may
/// be lower than when it was made; `tenant` tells whose a namespace is.
pub fn next<'a>(
    plan: &Plan,
    stages: &[Stage],
    sight: &Sight,
    limits: &Limits,
    failures_max: usize,
    tenant: &dyn Fn(&NamespaceName) -> Option<&'a str>,
) -> Next {
    let all = || plan.moves.iter().zip(stages).enumerate();
    let running = || all().filter(|(_, (_, stage))| **stage == Stage::Running);
    let Some(wave) = all().filter(|(_, (_, s))| !s.is_over()).map(|(_, (m, _))| m.wave).min()
    else {
        return Next::Done;
    };
    let failed: Vec<&str> = stages
        .iter()
        .filter_map(|stage| match stage {
            Stage::Failed(why) => Some(why.as_str()),
            _ => None,
        })
        .collect();
    if let Some(last) = failed.last()
        && failed.len() >= failures_max.max(1)
    {
        return Next::Stop(format!("{} moves failed, the last one: {last}", failed.len()));
    }
    if let Some(why) = &sight.frozen {
        return Next::Stop(format!("rebalancing was frozen: {why}"));
    }
    let of_wave =
        || all().filter(move |(_, (planned, stage))| planned.wave == wave && !stage.is_over());
    for (_, (planned, _)) in of_wave() {
        for shard in planned.from.iter().chain([&planned.to]) {
            if let Some(what) = sight.trouble.get(shard) {
                return Next::Stop(format!("shard {shard} is in trouble: {what}"));
            }
        }
    }
    let mut under_way = UnderWay::default();
    running().for_each(|(_, (planned, _))| under_way.add(planned, tenant));
    for (from, to) in &sight.others {
        under_way.count(Some(from), to);
    }
    let mut begin = Vec::new();
    for (at, (planned, _)) in of_wave().filter(|(_, (_, stage))| **stage == Stage::Waiting) {
        if under_way.has_room_for(planned, limits, tenant) {
            under_way.add(planned, tenant);
            begin.push(at);
        }
    }
    if begin.is_empty() { Next::Wait } else { Next::Begin(begin) }
}

#[derive(Default)]
struct UnderWay<'a> {
    total: usize,
    into: HashMap<ShardName, usize>,
    out_of: HashMap<ShardName, usize>,
    tenants: HashMap<&'a str, usize>,
}

impl<'a> UnderWay<'a> {
    fn count(&mut self, from: Option<&ShardName>, to: &ShardName) {
        self.total += 1;
        *self.into.entry(to.clone()).or_default() += 1;
        if let Some(from) = from {
            *self.out_of.entry(from.clone()).or_default() += 1;
        }
    }

    fn add(&mut self, planned: &PlannedMove, tenant: &dyn Fn(&NamespaceName) -> Option<&'a str>) {
        self.count(planned.from.as_ref(), &planned.to);
        if let Some(tenant) = tenant(&planned.namespace) {
            *self.tenants.entry(tenant).or_default() += 1;
        }
    }

    fn has_room_for(
        &self,
        planned: &PlannedMove,
        limits: &Limits,
        tenant: &dyn Fn(&NamespaceName) -> Option<&'a str>,
    ) -> bool {
        let count = |map: &HashMap<ShardName, usize>, shard: &ShardName| {
            map.get(shard).copied().unwrap_or(0)
        };
        let out =
            planned.from.as_ref().is_none_or(|f| count(&self.out_of, f) < limits.shard_out.max(1));
        let own = tenant(&planned.namespace)
            .is_none_or(|t| self.tenants.get(t).copied().unwrap_or(0) < limits.tenant.max(1));
        self.total < limits.fleet.max(1)
            && count(&self.into, &planned.to) < limits.shard_in.max(1)
            && out
            && own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{
        dump::decide,
        generate::Recipe,
        plan::{Order, Pace, Purpose},
        search::Settings,
    };

    fn plan() -> Plan {
        let recipe = Recipe { namespaces: 300, shards: 6, ..Recipe::default() };
        let order = Order {
            name: "test".into(),
            purpose: Purpose::Rebalance,
            revision: 1,
            settings: Settings::default(),
            limits: Limits::default(),
            pace: Pace::default(),
            tenants: vec![],
        };
        let plan = decide(&recipe.generate(), &order, 1, &|| false, &|_| 1);
        assert!(plan.waves > 2 && plan.moves.len() > 10);
        plan
    }

    fn ask(plan: &Plan, stages: &[Stage], sight: &Sight, limits: &Limits) -> Next {
        next(plan, stages, sight, limits, 2, &|_| None)
    }

    #[test]
    fn waves_follow_one_another_within_the_limits_to_the_end() {
        let plan = plan();
        let limits = Limits { fleet: 3, ..Limits::default() };
        let mut stages = vec![Stage::Waiting; plan.moves.len()];
        let mut most = 0;
        for _ in 0..10_000 {
            match ask(&plan, &stages, &Sight::default(), &limits) {
                Next::Begin(begin) => {
                    for at in begin {
                        let earlier = plan
                            .moves
                            .iter()
                            .zip(&stages)
                            .filter(|(m, _)| m.wave < plan.moves[at].wave);
                        assert!(earlier.into_iter().all(|(_, stage)| stage.is_over()));
                        stages[at] = Stage::Running;
                    }
                    most = most.max(stages.iter().filter(|s| **s == Stage::Running).count());
                }
                Next::Wait => {
                    let at = stages
                        .iter()
                        .position(|s| *s == Stage::Running)
                        .expect("something is under way");
                    stages[at] = Stage::Done;
                }
                Next::Done => break,
                Next::Stop(why) => panic!("{why}"),
            }
        }
        assert!(stages.iter().all(|stage| *stage == Stage::Done));
        assert!(most <= 3);
    }

    #[test]
    fn it_stops_on_failures_trouble_and_freezing() {
        let plan = plan();
        let mut stages = vec![Stage::Waiting; plan.moves.len()];
        stages[0] = Stage::Failed("no room".into());
        assert!(
            matches!(ask(&plan, &stages, &Sight::default(), &Limits::default()), Next::Begin(_)),
            "one is not two"
        );
        stages[1] = Stage::Failed("timed out".into());
        let stopped = ask(&plan, &stages, &Sight::default(), &Limits::default());
        assert_eq!(stopped, Next::Stop("2 moves failed, the last one: timed out".into()));
        let stages = vec![Stage::Waiting; plan.moves.len()];
        let frozen = Sight { frozen: Some("audit".into()), ..Sight::default() };
        assert_eq!(
            ask(&plan, &stages, &frozen, &Limits::default()),
            Next::Stop("rebalancing was frozen: audit".into())
        );
        let to = plan.moves[0].to.clone();
        let trouble =
            Sight { trouble: [(to.clone(), "REPORT_STALE".into())].into(), ..Sight::default() };
        let told = ask(&plan, &stages, &trouble, &Limits::default());
        assert_eq!(told, Next::Stop(format!("shard {to} is in trouble: REPORT_STALE")));
    }

    #[test]
    fn other_moves_and_tenants_take_slots() {
        let plan = plan();
        let stages = vec![Stage::Waiting; plan.moves.len()];
        let to = plan.moves[0].to.clone();
        let from = plan.moves[0].from.clone().unwrap();
        let others = vec![(from.clone(), to.clone()), (from, to.clone())];
        let Next::Begin(begin) =
            ask(&plan, &stages, &Sight { others, ..Sight::default() }, &Limits::default())
        else {
            panic!("others may begin");
        };
        assert!(begin.iter().all(|at| plan.moves[*at].to != to));
        let one = next(
            &plan,
            &stages,
            &Sight::default(),
            &Limits { tenant: 1, ..Limits::default() },
            2,
            &|_| Some("team"),
        );
        assert!(matches!(one, Next::Begin(begin) if begin.len() == 1));
    }
}
