//! In which order moves are made.
//!
//! While a namespace is on its way it takes room on both shards. A *wave* is a set of moves that
//! may all be under way at once, in any order: with every namespace of the wave counted at both
//! ends no shard is over its capacity, no shard has more moves in or out than it has slots, and no
//! group has two. The next wave begins when the wave is done and the sources are free.
//!
//! Moves may wait for each other in a circle, each for the room that the next one frees. Then one
//! of them makes a detour over a shard with room; where there is none it is left out, and the plan
//! says so.

use serde::{Deserialize, Serialize};

use super::{
    board::fits,
    objective::Policy,
    problem::Problem,
    search::Step,
    state::{Item, NONE, State},
};

/// How many moves there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// In the fleet.
    pub fleet: usize,
    /// Onto one shard.
    pub shard_in: usize,
    /// Off one shard.
    pub shard_out: usize,
    /// Of one tenant.
    pub tenant: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fleet: 50, shard_in: 2, shard_out: 2, tenant: 4 }
    }
}

/// Moves in waves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waves {
    /// The waves, each in order of namespace.
    pub waves: Vec<Vec<Step>>,
    /// Moves that wait for each other in a circle without a way out.
    pub left_out: Vec<Step>,
    /// Detours that break circles. Count.
    pub detours: usize,
}

/// What is taken in the wave that is being put together.
struct Taken {
    total: usize,
    into: Vec<usize>,
    out_of: Vec<usize>,
    groups: std::collections::HashSet<(u8, u32), foldhash::fast::FixedState>,
    tenants: std::collections::HashMap<u32, usize, foldhash::fast::FixedState>,
}

impl Taken {
    fn new(shards: usize) -> Self {
        Self {
            total: 0,
            into: vec![0; shards],
            out_of: vec![0; shards],
            groups: Default::default(),
            tenants: Default::default(),
        }
    }

    fn has_slots(&self, step: Step, item: Item<'_>, tenant: u32, limits: &Limits) -> bool {
        self.total < limits.fleet.max(1)
            && self.into[step.to as usize] < limits.shard_in.max(1)
            && (step.from == NONE || self.out_of[step.from as usize] < limits.shard_out.max(1))
            && (item.group == NONE || !self.groups.contains(&(0, item.group)))
            && (item.affinity == NONE || !self.groups.contains(&(1, item.affinity)))
            && (tenant == NONE
                || self.tenants.get(&tenant).copied().unwrap_or(0) < limits.tenant.max(1))
    }

    fn take(&mut self, step: Step, item: Item<'_>, tenant: u32) {
        self.total += 1;
        self.into[step.to as usize] += 1;
        if step.from != NONE {
            self.out_of[step.from as usize] += 1;
        }
        if item.group != NONE {
            self.groups.insert((0, item.group));
        }
        if item.affinity != NONE {
            self.groups.insert((1, item.affinity));
        }
        if tenant != NONE {
            *self.tenants.entry(tenant).or_default() += 1;
        }
    }
}

impl Waves {
    /// Puts moves into waves. `tenant` tells whose a namespace is, or [`NONE`].
    pub fn of(
        problem: &Problem,
        steps: &[Step],
        limits: &Limits,
        tenant: &dyn Fn(u32) -> u32,
    ) -> Self {
        let board = problem.board();
        let shape = board.shape();
        let mut state: State = board.state().clone();
        let mut remaining: Vec<Step> = steps.to_vec();
        // What has no shard first, then what leaves the fullest shards.
        let fullness = |shard: u32| {
            if shard == NONE {
                return i64::MAX;
            }
            let loads = shape.ratio_of(shard).iter().zip(board.state().load_of(shard));
            loads.map(|(ratio, load)| ratio.millionths(*load)).max().unwrap_or(0)
        };
        remaining.sort_by_key(|step| (std::cmp::Reverse(fullness(step.from)), step.namespace));
        let mut own = Self::default();
        let mut detoured = std::collections::HashSet::new();
        while !remaining.is_empty() {
            let mut taken = Taken::new(shape.slots());
            let mut wave = Vec::new();
            remaining.retain(|step| {
                let item = problem.item(step.namespace);
                let whose = tenant(step.namespace);
                let goes = taken.has_slots(*step, item, whose, limits)
                    && fits(shape, &state, &ON_THE_WAY, item, step.to);
                if goes {
                    taken.take(*step, item, whose);
                    // From here on it counts at both ends, until the wave is done.
                    state.add(shape, item, step.to);
                    wave.push(*step);
                }
                !goes
            });
            if wave.is_empty() {
                let step = remaining.remove(0);
                match Self::detour(problem, &state, step, &mut detoured) {
                    Some((there, on)) => {
                        own.detours += 1;
                        remaining.insert(0, on);
                        state.add(shape, problem.item(there.namespace), there.to);
                        wave.push(there);
                    }
                    None => {
                        own.left_out.push(step);
                        continue;
                    }
                }
            }
            for step in &wave {
                if step.from != NONE {
                    state.remove(shape, problem.item(step.namespace), step.from);
                }
            }
            wave.sort_unstable();
            own.waves.push(wave);
        }
        own
    }

    /// Makes a move in two: to a shard with room, and from there on.
    fn detour(
        problem: &Problem,
        state: &State,
        step: Step,
        detoured: &mut std::collections::HashSet<u32>,
    ) -> Option<(Step, Step)> {
        if step.from == NONE || !detoured.insert(step.namespace) {
            return None;
        }
        let board = problem.board();
        let item = problem.item(step.namespace);
        let over = board
            .shape()
            .candidates(item.rule)
            .filter(|shard| *shard != step.from && *shard != step.to)
            .find(|shard| fits(board.shape(), state, &ON_THE_WAY, item, *shard))?;
        Some((Step { to: over, ..step }, Step { from: over, ..step }))
    }
}

/// On its way a namespace stands in two domains at once; that it is spread is asked of where it
/// ends, not of the way.
const ON_THE_WAY: Policy =
    Policy { soft_limit: 0, tolerance: 0, group_max_per_domain: 0, resilience: false };
