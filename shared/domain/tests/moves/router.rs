//! Routers: each believes what it last read, one of them leads, and the store decides whose writes
//! count.

use std::sync::Arc;

use airfleet_domain::{
    ids::Revision,
    moves::{
        Change, Effect, End, Evidence, Left, Move, Observations, Order, Owner, Ownership, Phase,
        Policy, Residue, ResidueStep, Step, orders, preflight::Inspection, step,
    },
};

use crate::world::{Mutation, SHARDS, shard_index};

/// What is durable of the control plane.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) term: i64,
    /// Which router leads.
    pub(crate) holder: usize,
    pub(crate) lease_until_us: i64,
    pub(crate) contents: Arc<Contents>,
}

/// What a leader reads and writes.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    pub(crate) owner: Owner,
    pub(crate) row: Option<Move>,
    pub(crate) residues: Vec<Residue>,
    pub(crate) revision: Revision,
    /// Moves that have ended.
    pub(crate) ended: Vec<Move>,
}

impl Contents {
    /// What everybody is told.
    pub(crate) fn orders(&self) -> Vec<Order> {
        let mut all = orders(&self.owner, self.row.as_ref());
        for residue in &self.residues {
            if all.iter().all(|order| order.shard != residue.shard) {
                all.push(residue.order(Some(&self.owner)));
            }
        }
        all
    }

    /// As a transaction leaves it.
    pub(crate) fn with(&self, change: Change) -> Self {
        let mut after = self.clone();
        after.revision = self.revision.next();
        let Change { row, ownership, left } = change.at(after.revision);
        after.owner.revision = after.revision;
        match ownership {
            Ownership::Keep => {}
            Ownership::Renew => after.owner.generation = self.owner.generation.next(),
            Ownership::Give => {
                after.owner.generation = self.owner.generation.next();
                after.owner.shard = row.target.clone();
            }
        }
        match left {
            Left::AsIs => {}
            Left::Behind(residue) => {
                after.residues.retain(|old| old.shard != residue.shard);
                after.residues.push(residue);
            }
            Left::TakenOver => after.residues.retain(|old| old.shard != row.target),
        }
        if row.phase.is_final() {
            after.ended.push(row);
            after.row = None;
        } else {
            after.row = Some(row);
        }
        after
    }

    fn with_residue(&self, at: usize, next: ResidueStep) -> Self {
        let mut after = self.clone();
        after.revision = self.revision.next();
        match next {
            ResidueStep::Write(residue) => {
                after.residues[at] = Residue { revision: after.revision, ..residue };
            }
            ResidueStep::Remove => drop(after.residues.remove(at)),
            ResidueStep::Keep => unreachable!("nothing is written for nothing"),
        }
        after
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Router {
    /// The term in which it believes to lead.
    pub(crate) term: Option<i64>,
    pub(crate) known: Option<Arc<Contents>>,
    pub(crate) evidence: [Option<Evidence>; SHARDS],
    pub(crate) inspections: [Option<i64>; SHARDS],
}

/// What a router wants to write.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) term: i64,
    pub(crate) expected: Revision,
    pub(crate) after: Arc<Contents>,
    pub(crate) what: String,
}

impl Router {
    /// What is seen of the move.
    fn observations(&self, row: &Move, connected: [bool; SHARDS]) -> Observations {
        let end = |name: &airfleet_domain::ids::ShardName| {
            let at = shard_index(name);
            let inspection = self.inspections[at].map(|at_us| Inspection {
                at_us,
                database: "postgresql".into(),
                ..Inspection::default()
            });
            End {
                connected: connected[at],
                evidence: self.evidence[at].clone(),
                inspection: inspection.map(Into::into),
            }
        };
        Observations {
            source: end(&row.source),
            target: end(&row.target),
            ..Observations::default()
        }
    }

    /// Looks at the move and at what was left behind; answers what it wants to write.
    pub(crate) fn look(
        &mut self,
        connected: [bool; SHARDS],
        policy: &Policy,
        now_us: i64,
        seed: u64,
        mutation: Mutation,
    ) -> Option<Write> {
        let (term, known) = (self.term?, self.known.clone()?);
        let write = |after: Contents, what: String| Write {
            term,
            expected: known.revision,
            after: after.into(),
            what,
        };
        let Some(row) = &known.row else {
            let (at, next) = known.residues.iter().enumerate().find_map(|(at, residue)| {
                let evidence = self.evidence[shard_index(&residue.shard)].as_ref();
                let observed = evidence.and_then(|e| Some((e.observed?, e.revision)));
                match residue.step(observed, now_us) {
                    ResidueStep::Keep => None,
                    next => Some((at, next)),
                }
            })?;
            let what = format!("{next:?}");
            return Some(write(known.with_residue(at, next), what));
        };
        let mut seen = self.observations(row, connected);
        if mutation == Mutation::CompareNothing
            && let (Some(from), Some(to)) = (&seen.source.evidence, &mut seen.target.evidence)
            && let (Some(sent), Some(taken)) = (&from.transfer, &mut to.transfer)
        {
            taken.tables = sent.tables.clone();
            to.marks.clone_from(&from.marks);
        }
        let next = wrongly(row, mutation, now_us)
            .unwrap_or_else(|| step(row, &seen, policy, now_us, seed));
        if let Step::Effect(Effect::Inspect { source, target }) = next {
            for (asked, shard) in [(source, &row.source), (target, &row.target)] {
                if asked {
                    self.inspections[shard_index(shard)] = Some(now_us);
                }
            }
            return None;
        }
        let change = next.into_change()?;
        let what = format!("{} {} -> {}", row.id, row.phase, change.row.phase);
        Some(write(known.with(change), what))
    }
}

/// What a router with a broken rule does.
fn wrongly(row: &Move, mutation: Mutation, now_us: i64) -> Option<Step> {
    let late = now_us - row.phase_began_at_us > 10_000_000;
    let to = |phase, ownership| {
        let row = Move { phase, phase_began_at_us: now_us, deadline_at_us: None, ..row.clone() };
        Some(Step::Advance(Box::new(Change { row, ownership, left: Left::AsIs })))
    };
    match (mutation, row.phase) {
        (Mutation::FlipWithoutSeal, Phase::Quiescing) if late => {
            to(Phase::Flipped, Ownership::Give)
        }
        // Gives the namespace back to a source that has not been told that it lost it.
        (Mutation::TurnBack, Phase::Activating) if late => {
            let row = Move {
                phase: Phase::Aborting,
                generation: row.generation.next(),
                source: row.target.clone(),
                target: row.source.clone(),
                ..row.clone()
            };
            let back = Ownership::Give;
            Some(Step::Abort(Box::new(Change { row, ownership: back, left: Left::AsIs })))
        }
        (Mutation::GiveUp, Phase::Activating | Phase::Aborting) if late => Some(Step::Ended),
        _ => None,
    }
}
