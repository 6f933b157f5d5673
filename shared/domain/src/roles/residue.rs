//! What a namespace leaves behind on a shard that no longer owns it.
//!
//! A shard that gives a namespace up is told to retire it: files away, fence up, rows kept. Nobody
//! but the router remembers that, so it is a durable record of its own, written together with the
//! change of owner, and it stays until the shard said that nothing is left.
//!
//! Invariant: a new owner is told to be active only once no record says that a shard which had the
//! namespace before may still run it ([`owner_role`]): it was seen to be fenced, or an operator
//! waived that.

use serde::{Deserialize, Serialize};

use super::{Desired, Observed, Role};
use crate::ids::{Generation, NamespaceName, Prefix, Revision, ShardName};

/// A namespace on a shard that had it and does not own it any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Residue {
    /// The namespace.
    pub namespace: NamespaceName,
    /// The shard that had it.
    pub shard: ShardName,
    /// dag_id prefixes that it had when it left: the namespace itself may be gone.
    pub prefixes: Vec<Prefix>,
    /// Generation that the assignment got when it left.
    pub generation: Generation,
    /// Retired while its rows are kept, absent from when on they are to be removed.
    pub role: Role,
    /// Whether the shard can still run it.
    pub fence: Fence,
    /// Why it left.
    pub reason: String,
    /// When it left. Microseconds since 1970-01-01 UTC.
    pub left_at_us: i64,
    /// Until when its rows are kept. Microseconds since 1970-01-01 UTC.
    pub purge_at_us: i64,
    /// Revision at which this last changed.
    pub revision: Revision,
}

/// What is known of the fence on a shard that has to give a namespace up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fence {
    /// The shard has not said yet that it is up. Nobody else runs the namespace until then.
    Awaited,
    /// The shard has not said so, and somebody took it on that another runs the namespace.
    Waived,
    /// The shard said that it is up.
    Seen,
}

impl Fence {
    /// All, with their names.
    pub const ALL: [(Fence, &'static str); 3] =
        [(Fence::Awaited, "awaited"), (Fence::Waived, "waived"), (Fence::Seen, "seen")];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(one, _)| *one == self).expect("ALL names each").1
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(one, _)| one)
    }
}

/// What becomes of a residue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResidueStep {
    /// Nothing now.
    Keep,
    /// It is to be written like this.
    Write(Box<Residue>),
    /// Nothing is left on the shard: the record is to be removed.
    Remove,
}

impl Residue {
    /// What the shard is to be, where the assignment is at generation `current`; none where the
    /// namespace is gone. One namespace has one line of generations, for all shards.
    pub fn desired(&self, current: Option<Generation>) -> Desired {
        let generation = current.map_or(self.generation, |current| current.max(self.generation));
        Desired { role: self.role, generation }
    }

    /// What becomes of it, with what its shard is seen to be.
    pub fn step(&self, observed: Option<Observed>, now_us: i64) -> ResidueStep {
        // What it was at an older generation it was before it was told to give the namespace up.
        let seen = observed.filter(|seen| seen.generation >= self.generation);
        let is_fenced = seen.is_some_and(|seen| matches!(seen.role, Role::Retired | Role::Absent));
        if !is_fenced {
            return ResidueStep::Keep;
        }
        if self.fence != Fence::Seen {
            return ResidueStep::Write(Box::new(Self { fence: Fence::Seen, ..self.clone() }));
        }
        match self.role {
            Role::Absent if seen.is_some_and(|seen| seen.role == Role::Absent) => {
                ResidueStep::Remove
            }
            Role::Absent => ResidueStep::Keep,
            _ if now_us >= self.purge_at_us => {
                ResidueStep::Write(Box::new(Self { role: Role::Absent, ..self.clone() }))
            }
            _ => ResidueStep::Keep,
        }
    }
}

/// What the owner of a namespace is to be, with all that is left of it on other shards: active only
/// where none of them may still run it.
pub fn owner_role<'a>(residues: impl IntoIterator<Item = &'a Residue>) -> Role {
    let waits = residues.into_iter().any(|residue| residue.fence == Fence::Awaited);
    if waits { Role::Staged } else { Role::Active }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn residue() -> Residue {
        Residue {
            namespace: "pay".parse().unwrap(),
            shard: "shard-a".parse().unwrap(),
            prefixes: vec!["pay.".parse().unwrap()],
            generation: Generation(4),
            role: Role::Retired,
            fence: Fence::Awaited,
            reason: "pinned".into(),
            left_at_us: 0,
            purge_at_us: 100,
            revision: Revision(1),
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "it is what a step is given")]
    fn observed(role: Role, generation: i64) -> Option<Observed> {
        Some(Observed { role, generation: Generation(generation) })
    }

    #[test]
    fn it_goes_from_awaited_over_retired_to_nothing() {
        let mut residue = residue();
        for nothing in [None, observed(Role::Active, 3), observed(Role::Retired, 3)] {
            assert_eq!(residue.step(nothing, 1000), ResidueStep::Keep, "{nothing:?}");
        }
        assert_eq!(owner_role([&residue]), Role::Staged);
        let ResidueStep::Write(next) = residue.step(observed(Role::Retired, 4), 1) else {
            panic!("it was seen to be fenced")
        };
        residue = *next;
        assert_eq!((residue.role, owner_role([&residue])), (Role::Retired, Role::Active));
        assert_eq!(residue.step(observed(Role::Retired, 4), 99), ResidueStep::Keep);
        let ResidueStep::Write(next) = residue.step(observed(Role::Retired, 5), 100) else {
            panic!("its time is over")
        };
        residue = *next;
        assert_eq!(residue.role, Role::Absent);
        assert_eq!(residue.step(observed(Role::Retired, 5), 200), ResidueStep::Keep);
        assert_eq!(residue.step(observed(Role::Absent, 5), 200), ResidueStep::Remove);
    }

    #[test]
    fn what_an_operator_waived_holds_nobody_back_and_is_still_looked_for() {
        let waived = Residue { fence: Fence::Waived, ..residue() };
        assert_eq!(owner_role([&waived]), Role::Active);
        assert_eq!(waived.step(None, 1000), ResidueStep::Keep, "kept until it was seen");
        assert!(matches!(waived.step(observed(Role::Retired, 4), 1), ResidueStep::Write(_)));
        assert_eq!(owner_role([&waived, &residue()]), Role::Staged);
    }

    #[test]
    fn its_generation_is_never_behind_that_of_the_assignment() {
        assert_eq!(residue().desired(None).generation, Generation(4));
        assert_eq!(residue().desired(Some(Generation(9))).generation, Generation(9));
        assert_eq!(residue().desired(Some(Generation(2))).generation, Generation(4));
    }

    proptest! {
        /// Whatever is seen in whatever order: the owner is held back until the shard said, of this
        /// change of owner, that it gave the namespace up, and nothing is removed before its time.
        #[test]
        fn nobody_runs_it_before_the_fence_was_seen(
            seen in proptest::collection::vec((0usize..6, 0i64..8, 0i64..200), 0..30)
        ) {
            let mut residue = residue();
            let mut was_fenced = false;
            for (role, generation, now_us) in seen {
                let role = Role::ALL[role];
                was_fenced |= generation >= 4 && matches!(role, Role::Retired | Role::Absent);
                match residue.step(observed(role, generation), now_us) {
                    ResidueStep::Keep => {}
                    ResidueStep::Write(next) => {
                        prop_assert!(next.role == residue.role || now_us >= residue.purge_at_us);
                        residue = *next;
                    }
                    ResidueStep::Remove => {
                        prop_assert!(was_fenced && residue.role == Role::Absent);
                        return Ok(());
                    }
                }
                prop_assert_eq!(owner_role([&residue]) == Role::Active, was_fenced);
            }
        }
    }
}
