//! Steps 5 and 6: groups are gathered, and what was not needed is undone.

use std::collections::BTreeMap;

use super::{
    super::{objective::Score, state::NONE},
    work::Work,
};

impl Work<'_> {
    /// Brings members of affinity groups to where most of them are, where that makes nothing worse
    /// on a higher level.
    pub(super) fn gather(&mut self) {
        let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (namespace, affinity) in self.problem.affinity.iter().enumerate() {
            if *affinity != NONE && self.shard[namespace] != NONE {
                groups.entry(*affinity).or_default().push(namespace as u32);
            }
        }
        for members in groups.into_values() {
            let mut on: BTreeMap<u32, usize> = BTreeMap::new();
            for namespace in &members {
                *on.entry(self.shard[*namespace as usize]).or_default() += 1;
            }
            if on.len() < 2 {
                continue;
            }
            let mut shards: Vec<(u32, usize)> = on.into_iter().collect();
            shards.sort_by_key(|(shard, count)| (std::cmp::Reverse(*count), *shard));
            for (home, _) in shards {
                let mut away: Vec<(u32, u32)> = members
                    .iter()
                    .filter(|namespace| {
                        self.shard[**namespace as usize] != home
                            && self.problem.may_move(**namespace)
                            && self.is_cool_with(**namespace, home)
                    })
                    .map(|namespace| (self.shard[*namespace as usize], *namespace))
                    .collect();
                // Those of one shard at a time: only a shard that is left gathers something.
                away.sort_unstable();
                let mut gathered = false;
                for part in away.chunk_by(|a, b| a.0 == b.0) {
                    let moves: Vec<(u32, u32)> = part.iter().map(|(_, n)| (*n, home)).collect();
                    gathered |= self.try_moves(&moves);
                }
                if gathered {
                    break;
                }
            }
        }
    }

    /// Undoes every move without which nothing is worse, the dearest first.
    pub(super) fn undo(&mut self) {
        let mut moved: Vec<u32> = self.moved.clone();
        moved.retain(|namespace| {
            let origin = self.problem.shard[*namespace as usize];
            origin != NONE && self.shard[*namespace as usize] != origin
        });
        moved.sort_by_key(|namespace| {
            (std::cmp::Reverse(self.problem.cost_of(*namespace)), *namespace)
        });
        for namespace in moved {
            let origin = self.problem.shard[namespace as usize];
            if self.may_return(namespace, origin) {
                let now = self.shard[namespace as usize];
                let missing = self.missing();
                let item = self.problem.item(namespace);
                let mut change = self.scorer().leaving(item, now);
                self.put(namespace, NONE);
                let coming: Score = self.scorer().coming(item, origin).into();
                change = change.plus(coming);
                self.put(namespace, origin);
                change.0[4] = self.missing() - missing;
                // Another of its spread group may have come meanwhile: a higher level that gains
                // does not make up for a limit.
                let worse = change.0[..7].iter().find(|c| **c != 0).is_some_and(|c| *c > 0);
                if worse || self.is_bunched(namespace, origin) {
                    self.put(namespace, now);
                }
            }
        }
    }

    /// A quick look: whether its old shard stays below its ceiling and hard limits with it.
    fn may_return(&self, namespace: u32, origin: u32) -> bool {
        let demand = self.problem.demand_of(namespace);
        let (load, ceiling) = (self.state.load_of(origin), self.ceiling_of(origin));
        let rule = self.problem.rule[namespace as usize];
        self.shape.admitted(rule).has(origin)
            && !(self.shape.is_draining(origin) && self.is_periodic())
            && self.state.count_of(origin) < self.shape.namespaces_max(origin)
            && demand
                .iter()
                .enumerate()
                .all(|(d, own)| *own == 0 || load[d] + i128::from(*own) <= ceiling[d])
    }
}
