//! What goes wrong, and what people ask for meanwhile.

use super::*;

impl World {
    pub(super) fn fault(&mut self, shard: usize, router: usize) {
        match self.random.below(12) {
            0 => self.crash_router(router),
            // The router is cut off: others take over while it believes to lead.
            1 | 2 => self.store.lease_until_us = 0,
            // The agent is replaced by another process and goes on for a while.
            3..=6 => {
                self.tally.crashes += 1;
                let zombies = self.random.once_in(2);
                self.say(|| {
                    format!(
                        "shard-{shard}: agent {}",
                        if zombies { "is replaced" } else { "crashes" }
                    )
                });
                let agents = &mut self.agents[shard];
                if zombies {
                    for agent in agents.iter_mut() {
                        agent.zombie = true;
                    }
                    if agents.len() > 2 {
                        agents.remove(0);
                    }
                } else {
                    agents.clear();
                }
                agents.push(Agent::default());
            }
            7 => self.agents[shard].retain(|agent| !agent.zombie),
            8 if self.frail => {
                self.say(|| format!("shard-{shard} is down"));
                self.lost[shard] = true;
                self.was_down |= self.databases[shard].is_active();
            }
            9 => self.lost[shard] = false,
            _ => {}
        }
    }

    /// Somebody asks for something.
    pub(super) fn ask(&mut self) {
        let leader = self.store.holder;
        let current = self.routers[leader].term == Some(self.store.term);
        let known = self.routers[leader].known.clone().filter(|_| current);
        let Some(known) = known else { return };
        let after = match &known.row {
            Some(row) if self.stormy && row.phase.is_abortable() && self.random.once_in(30) => {
                let cancel =
                    Cancel { actor: "op".into(), reason: String::new(), at_us: self.now_us };
                let row = Move { cancel: Some(cancel), ..row.clone() };
                known.with(Change { row, ownership: Ownership::Keep, left: Left::AsIs })
            }
            None if self.moves < 5 && self.random.once_in(3) => {
                let source = shard_index(&known.owner.shard);
                let target = (source + 1 + self.random.below(SHARDS - 1)) % SHARDS;
                let running_tasks = if self.random.once_in(5) {
                    RunningTasks::Abort
                } else {
                    RunningTasks::Wait { at_most: Duration::from_mins(2) }
                };
                let lost = self.lost[source];
                let options = Options { running_tasks, source_is_lost: lost, ..Options::default() };
                self.moves += 1;
                if lost {
                    self.forced = true;
                    self.tally.forced += 1;
                }
                let row = Move::begin(
                    format!("m{}", self.moves).parse().expect("a valid id"),
                    "payments".parse().expect("a valid name"),
                    (shard_name(source), shard_name(target)),
                    known.owner.generation,
                    known.revision.next(),
                    options,
                    ("op".into(), String::new()),
                    &policy(),
                    self.now_us,
                );
                known.with(Change { row, ownership: Ownership::Keep, left: Left::AsIs })
            }
            _ => return,
        };
        let after = Arc::new(after);
        let what = after.row.as_ref().map(|row| format!("asked: {} {:?}", row.id, row.cancel));
        let write = Write {
            term: self.store.term,
            expected: known.revision,
            after: after.clone(),
            what: String::new(),
        };
        if self.commit(write) {
            self.say(|| what.unwrap_or_default());
            self.routers[leader].known = Some(after);
        }
    }
}
