//! A whole fleet to be improved: the board and every namespace, as arrays.
//!
//! Namespaces and shards are in order of name and rules in order of first use, so that the same
//! fleet gives the same numbers, whoever put it together: a decision that was dumped is replayed to
//! the same answer. A namespace that is on its way counts on both shards and does not move.

use serde::{Deserialize, Serialize};

use super::{
    amount::{DIMENSIONS_MAX, FULL},
    board::{Board, Needs},
    objective::{Policy, Score, Scorer},
    rules::Constraints,
    shape::Shard,
    state::{Item, NONE},
};
use crate::ids::{NamespaceName, ShardName};

/// Why a namespace may not be moved now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[repr(u8)]
pub enum Hold {
    /// It may.
    None,
    /// It is being moved already.
    InFlight,
    /// It was moved a short while ago.
    Cooldown,
    /// The manifest no longer has it; nobody says what it needs.
    Orphaned,
}

/// A namespace as it is put into a problem.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// Its name.
    pub name: NamespaceName,
    /// How much it takes in each dimension.
    pub demand: &'a [i64],
    /// What it asks of its shard.
    pub constraints: &'a Constraints,
    /// The only shard that will do.
    pub pinned: Option<&'a ShardName>,
    /// Namespaces of one group are kept on one shard; empty means none.
    pub affinity: &'a str,
    /// Where it is.
    pub shard: Option<&'a str>,
    /// Where it is on its way to.
    pub to: Option<&'a str>,
    /// What moving it costs, in units of [`move_cost`].
    pub cost: i64,
    /// Why it may not be moved now.
    pub hold: Hold,
}

/// A namespace whose question and shards are in a problem's numbers already, which is quicker for
/// a million of them.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// Its name.
    pub name: NamespaceName,
    /// How much it takes in each dimension.
    pub demand: &'a [i64],
    /// What it asks for, from [`Problem::ask`].
    pub asked: &'a Needs,
    /// Where it is.
    pub shard: Option<u32>,
    /// Where it is on its way to.
    pub to: Option<u32>,
    /// What moving it costs, in units of [`move_cost`].
    pub cost: i64,
    /// Why it may not be moved now.
    pub hold: Hold,
}

/// What moving a namespace costs: a hundred for any, one for each MiB of history that has to be
/// copied, and ten for each task that has to be waited for.
pub fn move_cost(history_bytes: i64, running: i64) -> i64 {
    let bytes = history_bytes.clamp(0, 1 << 50) >> 20;
    100 + bytes + running.clamp(0, 1 << 40) * 10
}

/// A fleet to be improved.
#[derive(Debug, Clone)]
pub struct Problem {
    pub(super) board: Board,
    pub(super) names: Vec<NamespaceName>,
    pub(super) width: usize,
    /// Namespaces × dimensions.
    pub(super) demand: Vec<i64>,
    pub(super) rule: Vec<u32>,
    pub(super) group: Vec<u32>,
    pub(super) affinity: Vec<u32>,
    pub(super) shard: Vec<u32>,
    pub(super) to: Vec<u32>,
    pub(super) cost: Vec<i64>,
    pub(super) hold: Vec<Hold>,
}

impl Problem {
    /// A fleet of these shards, in any order, without namespaces.
    pub fn new<S: AsRef<str>>(dimensions: &[S], policy: Policy, mut shards: Vec<Shard>) -> Self {
        shards.sort_by(|a, b| a.name.cmp(&b.name));
        shards.dedup_by(|a, b| a.name == b.name);
        let mut board = Board::new(dimensions, policy);
        for shard in shards {
            board.put_shard(shard);
        }
        Self {
            width: board.shape.width(),
            board,
            names: Vec::new(),
            demand: Vec::new(),
            rule: Vec::new(),
            group: Vec::new(),
            affinity: Vec::new(),
            shard: Vec::new(),
            to: Vec::new(),
            cost: Vec::new(),
            hold: Vec::new(),
        }
    }

    /// What a namespace asks for, in numbers; to be shared by all that ask the same.
    pub fn ask(
        &mut self,
        constraints: &Constraints,
        pinned: Option<&ShardName>,
        affinity: &str,
    ) -> Needs {
        self.board.needs(&[], constraints, pinned, affinity)
    }

    /// Adds a namespace. They have to come in order of name.
    pub fn push(&mut self, member: &Member<'_>) {
        let asked = self.ask(member.constraints, member.pinned, member.affinity);
        let number = |name: Option<&str>| name.and_then(|name| self.board.shape.number(name));
        let (shard, to) = (number(member.shard), number(member.to));
        let Member { demand, cost, hold, .. } = *member;
        let name = member.name.clone();
        self.push_row(&Row { name, demand, asked: &asked, shard, to, cost, hold });
    }

    /// Adds a namespace that is in numbers already. They have to come in order of name.
    pub fn push_row(&mut self, row: &Row<'_>) {
        debug_assert!(self.names.last().is_none_or(|last| *last < row.name), "in order of name");
        self.names.push(row.name.clone());
        let amounts = row.demand.iter().copied().chain(std::iter::repeat(0));
        self.demand.extend(amounts.take(self.width).map(|amount| amount.max(0)));
        self.rule.push(row.asked.rule);
        self.group.push(row.asked.group);
        self.affinity.push(row.asked.affinity);
        self.cost.push(row.cost.max(1));
        let lost = |at: u32| self.board.shape.shard(at).is_none_or(|shard| shard.lost);
        let shard = row.shard.filter(|at| !lost(*at)).unwrap_or(NONE);
        // Whose source is lost is not on its way any more; it waits for a shard.
        let to = row.to.filter(|at| shard != NONE && !lost(*at)).unwrap_or(NONE);
        self.shard.push(shard);
        self.to.push(to);
        self.hold.push(match (to, row.hold) {
            (NONE, Hold::InFlight) => Hold::None,
            (NONE, hold) => hold,
            _ => Hold::InFlight,
        });
        let at = self.names.len() as u32 - 1;
        if to != NONE {
            let needs = self.needs_of(at);
            self.board.note_leaving(&needs, shard, true);
        }
        for end in [shard, to] {
            if end != NONE {
                let item =
                    item(at, self.width, &self.demand, &self.rule, &self.group, &self.affinity);
                self.board.state.add(&self.board.shape, item, end);
            }
        }
    }

    /// How many namespaces there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The fleet as it stands.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The name of a namespace.
    pub fn name(&self, at: u32) -> &NamespaceName {
        &self.names[at as usize]
    }

    /// The number of a namespace.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.names.binary_search_by(|own| own.as_str().cmp(name)).ok().map(|at| at as u32)
    }

    /// Where each namespace is, by number; [`NONE`] where it has no shard.
    pub fn placement(&self) -> &[u32] {
        &self.shard
    }

    /// How much a namespace takes.
    #[inline]
    pub fn demand_of(&self, at: u32) -> &[i64] {
        &self.demand[at as usize * self.width..][..self.width]
    }

    /// What moving a namespace costs.
    pub fn cost_of(&self, at: u32) -> i64 {
        self.cost[at as usize]
    }

    /// Why a namespace may not be moved.
    pub fn hold_of(&self, at: u32) -> Hold {
        self.hold[at as usize]
    }

    /// A namespace as a score sees it.
    #[inline]
    pub fn item(&self, at: u32) -> Item<'_> {
        item(at, self.width, &self.demand, &self.rule, &self.group, &self.affinity)
    }

    /// Needs of a namespace, as the board asks for them.
    pub fn needs_of(&self, at: u32) -> Needs {
        let mut demand = [0; DIMENSIONS_MAX];
        demand[..self.width].copy_from_slice(self.demand_of(at));
        Needs::of(demand, self.width, self.item(at))
    }

    /// The score of a placement of the same namespaces, whose loads are `scorer`'s.
    pub(super) fn score(&self, scorer: &Scorer<'_>, placement: &[u32]) -> Score {
        let mut score = scorer.whole();
        for (at, (now, was)) in placement.iter().zip(&self.shard).enumerate() {
            let broken = *now == NONE || !self.board.shape.admitted(self.rule[at]).has(*now);
            score.0[0] += i128::from(broken) * i128::from(FULL);
            if now != was && *was != NONE {
                score.0[7] += i128::from(self.cost[at]);
            }
        }
        score
    }
}

#[inline]
fn item<'a>(
    at: u32,
    width: usize,
    demand: &'a [i64],
    rule: &[u32],
    group: &[u32],
    affinity: &[u32],
) -> Item<'a> {
    let at = at as usize;
    Item {
        demand: &demand[at * width..][..width],
        rule: rule[at],
        group: group[at],
        affinity: affinity[at],
    }
}
