//! The fleet as a problem to be improved.

use std::{collections::HashMap, sync::Arc};

use airfleet_domain::{
    ids::{NamespaceName, ShardName},
    placement::{
        self, Board,
        explain::Explanation,
        problem::{Hold, Problem, Row, move_cost},
    },
    resources::DIMENSIONS,
    routing::State,
};

use super::ledger::{Fleet, Member};
use crate::store::Rules;

/// A problem and what the engine does not need to know.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// The problem.
    pub(crate) problem: Problem,
    /// Generation of each namespace's assignment, by its number.
    pub(crate) generations: Vec<i64>,
}

impl Fleet {
    /// The fleet as it stands, with shards changed as `change` says. Orphans are held where they
    /// are, and what was moved a short while ago too.
    pub(crate) fn snapshot(&self, now_us: i64, change: &dyn Fn(&mut placement::Shard)) -> Snapshot {
        let mut shards: Vec<placement::Shard> =
            self.board.shape().all().map(|(_, shard)| shard.clone()).collect();
        shards.iter_mut().for_each(change);
        let mut problem = Problem::new(&DIMENSIONS, *self.board.policy(), shards);
        let mut members: Vec<(&NamespaceName, &Member)> = self
            .members
            .iter()
            .filter(|(_, member)| member.record.entry.state() != State::Released)
            .collect();
        members.sort_unstable_by_key(|(name, _)| *name);
        // Most ask the same; working out what each asks would cost more than all the rest.
        let mut asked: HashMap<(usize, Option<&str>), placement::Needs> = HashMap::new();
        let mut generations = Vec::with_capacity(members.len());
        for (name, member) in members {
            let entry = &member.record.entry;
            let rules: &Arc<Rules> = &member.record.needs.rules;
            let pin = entry.pinned_shard();
            let asked = *asked.entry((Arc::as_ptr(rules).addr(), pin)).or_insert_with(|| {
                let pin: Option<ShardName> = pin.and_then(|pin| pin.parse().ok());
                problem.ask(&rules.constraints, pin.as_ref(), "")
            });
            let reserved = member.reserved();
            let hold = if member.record.orphaned {
                Hold::Orphaned
            } else if self.history.cools_down(name, now_us) {
                Hold::Cooldown
            } else {
                Hold::None
            };
            let shard = entry.shard().and_then(|shard| problem.board().shape().number(shard));
            problem.push_row(&Row {
                name: name.clone(),
                demand: &reserved.values(),
                asked: &asked,
                shard,
                to: None,
                cost: move_cost(reserved.metadata_bytes, reserved.running_slots),
                hold,
            });
            generations.push(entry.generation().0);
        }
        Snapshot { problem, generations }
    }

    /// Why a namespace is where it is.
    pub(crate) fn explain(
        &mut self,
        namespace: &str,
        now_us: i64,
        frozen: Option<&str>,
    ) -> Option<Explanation> {
        let member = self.members.get(namespace)?;
        let entry = member.record.entry.clone();
        let pin: Option<ShardName> = entry.pinned_shard().and_then(|pin| pin.parse().ok());
        let (rules, reserved) = (member.record.needs.rules.clone(), member.reserved());
        let hold = if member.record.orphaned {
            Hold::Orphaned
        } else if self.history.cools_down(&member.record.namespace(), now_us) {
            Hold::Cooldown
        } else {
            Hold::None
        };
        let counted = member.counts;
        let asked = self.needs(&rules, reserved, pin.as_ref());
        let shard = entry.shard().and_then(|shard| self.shards.get(shard)).map(|shard| shard.at);
        debug_assert!(shard.is_none() || counted == Some(asked), "it counts as what it needs");
        let board: &mut Board = &mut self.board;
        Some(board.explain(namespace, &asked, shard, hold, frozen))
    }
}
