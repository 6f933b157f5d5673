//! What must hold after each event, and at the end.

use super::*;

impl World {
    pub(super) fn check(&mut self) -> Result<(), Violation> {
        let owner = &self.store.contents.owner;
        if owner.generation < self.highest || owner.generation.0 > self.highest.0 + 1 {
            let detail = format!("{} after {}", owner.generation, self.highest);
            return violated(Check::GenerationGrows, detail);
        }
        self.highest = owner.generation;
        let active: Vec<usize> =
            (0..SHARDS).filter(|at| !self.lost[*at] && self.databases[*at].is_active()).collect();
        // One that was given up as lost and is back runs until its agent hears of it.
        if active.len() > 1 && !self.forced {
            return violated(Check::OneActive, format!("shards {active:?} all schedule"));
        }
        for at in 0..SHARDS {
            self.check_shard(at)?;
        }
        Ok(())
    }

    pub(super) fn check_shard(&mut self, at: usize) -> Result<(), Violation> {
        let database = &self.databases[at];
        let newest = self.agents[at].iter().filter_map(Agent::place).max();
        if newest.is_some_and(|newest| newest > database.record.seen)
            && self.mutation != Mutation::EffectsUnguarded
        {
            let detail =
                format!("shard-{at} went back from {newest:?} to {:?}", database.record.seen);
            return violated(Check::OrderGrows, detail);
        }
        match database.record.reached {
            Some((Role::Sealed, _)) => {
                if let Some(before) = &self.sealed[at] {
                    if *before != database.runs {
                        let runs = database.runs.iter();
                        let differs: Vec<_> =
                            runs.filter(|(key, run)| before.get(*key) != Some(run)).collect();
                        let detail = format!("shard-{at} is sealed, but now has {differs:?}");
                        return violated(Check::SealHolds, detail);
                    }
                } else {
                    self.sealed[at] = Some(database.runs.clone());
                }
                Ok(())
            }
            _ => {
                self.sealed[at] = None;
                Ok(())
            }
        }
    }

    /// All moves have ended and nothing goes wrong any more: lets everything that is due run.
    pub(super) fn check_end(&mut self) -> Result<(), Violation> {
        let owner = shard_index(&self.store.contents.owner.shard);
        for at in 0..SHARDS {
            let active = self.databases[at].is_active();
            if active != (at == owner) {
                let word = if active { "schedules" } else { "does not schedule" };
                let detail = format!("shard-{at} {word}, and shard-{owner} owns it");
                return violated(Check::AsUsersLeftIt, detail);
            }
        }
        for (name, _, paused) in DAGS {
            let dag = &self.databases[owner].dags.get(name);
            if dag.is_none_or(|dag| dag.stale || dag.paused != paused) {
                return violated(Check::AsUsersLeftIt, format!("{name} is {dag:?}"));
            }
        }
        if self.forced {
            return Ok(());
        }
        self.databases[owner].make_runs(self.now_us);
        while self.databases[owner].runs.values().any(|run| *run != Run::Ended) {
            self.databases[owner].pick(0);
            for run in self.databases[owner].beat() {
                *self.executed.entry(run).or_default() += 1;
            }
            self.databases[owner].finish(0);
        }
        for (name, catchup, paused) in DAGS {
            // One that does not catch up begins with the interval that was the latest.
            let first = if catchup { 0 } else { 2 * INTERVAL };
            for tick in ticks(self.now_us) {
                let run = (name, tick.logical_date_us);
                let expected = u32::from(!paused && tick.logical_date_us >= first);
                let found = self.executed.get(&run).copied().unwrap_or(0);
                if found < expected && (catchup || !self.was_down) {
                    let there = self.databases[owner].runs.get(&run);
                    return violated(
                        Check::NothingLost,
                        format!("{run:?}: {there:?} on its owner"),
                    );
                }
                if found > expected {
                    return violated(Check::RunsOnce, format!("{run:?} was started {found} times"));
                }
            }
        }
        Ok(())
    }
}
