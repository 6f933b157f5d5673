//! What an agent does next to make a shard what it is told to be for a namespace.
//!
//! Made anew from what is found each time, so that it does not matter where an agent was killed or
//! who changed the shard meanwhile. It knows the order of steps and not how one is done.
//!
//! Invariants: a namespace is fenced before any of its files comes, and before any goes; the fence
//! is lifted last, and only for [`Role::Active`]; no order of a lower place is followed
//! ([`Seen::admits`]).

use super::{Desired, Observed, Role};
use crate::moves::Seen;

/// What is found on a shard of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Found {
    /// The order that the fence stands for; none where the fence does not know the namespace.
    pub fence: Option<FenceFound>,
    /// Whether the rules for its DAGs, its pools, variables and connections are as declared.
    pub settings: Presence,
    /// Whether its DAG files are the release that is to be there.
    pub files: Presence,
    /// Whether none of its tasks can still change anything.
    pub is_drained: bool,
    /// The last role that was reached completely, as it was recorded.
    pub reached: Option<Observed>,
}

/// How the fence stands for a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FenceFound {
    /// Place of the order that it was set by.
    pub place: Seen,
    /// Whether DAGs may be unpaused.
    pub is_open: bool,
    /// Whether each DAG is as the fence says: paused where it is closed, as its users want it where
    /// it is open.
    pub is_settled: bool,
}

/// How much of something is on the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// Nothing.
    Nothing,
    /// Something, but not as it is to be.
    Different,
    /// As it is to be.
    Right,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Deny the namespace's DAGs, remembering the pause state of each, and see that all are paused.
    Close,
    /// Write rules, pools, variables and connections.
    Settle,
    /// Bring the files of the release that is to be there.
    Bring,
    /// Wait until no task can change anything any more.
    Drain,
    /// Take the files away.
    Remove,
    /// Take rules and the namespace's own pools, variables and connections away.
    Unsettle,
    /// Allow the namespace's DAGs, give each its pause state back, and see that it has it.
    Open,
    /// Record that the role is reached.
    Reach,
}

/// An order that is not to be obeyed: the shard has seen a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard has seen an order of generation {}, revision {}", seen.generation.0, seen.revision.0)]
pub struct Overtaken {
    /// Place of the later one.
    pub seen: Seen,
}

/// The next step to what is desired; none where nothing is left to do. `place` is that of the
/// order.
///
/// # Errors
/// Where the fence stands for a later order.
pub fn next_step(desired: Desired, place: Seen, found: &Found) -> Result<Option<Step>, Overtaken> {
    if let Some(fence) = found.fence.filter(|fence| !fence.place.admits(place)) {
        return Err(Overtaken { seen: fence.place });
    }
    Ok(step_to(desired, place, found))
}

fn step_to(desired: Desired, place: Seen, found: &Found) -> Option<Step> {
    let is_open = found.fence.is_some_and(|fence| fence.is_open);
    let stands = found.fence.is_some_and(|fence| fence.place == place && fence.is_settled);
    let opens = desired.role.may_schedule();
    // What runs already is not stopped by an order to run.
    if found.fence.is_none() || (!opens && (is_open || !stands)) {
        return Some(Step::Close);
    }
    if desired.role.has_workload() {
        if found.settings != Presence::Right {
            return Some(Step::Settle);
        }
        if found.files != Presence::Right {
            return Some(Step::Bring);
        }
    } else {
        if found.files != Presence::Nothing {
            return Some(Step::Remove);
        }
        if found.settings != Presence::Nothing {
            return Some(Step::Unsettle);
        }
    }
    if desired.role == Role::Sealed && !found.is_drained {
        return Some(Step::Drain);
    }
    if opens && !(is_open && stands) {
        return Some(Step::Open);
    }
    let is_reached = found.reached.is_some_and(|reached| reached.is(desired));
    (!is_reached).then_some(Step::Reach)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{Generation, Revision};

    const NOTHING: Found = Found {
        fence: None,
        settings: Presence::Nothing,
        files: Presence::Nothing,
        is_drained: false,
        reached: None,
    };

    fn order(role: Role, number: i64) -> (Desired, Seen) {
        let generation = Generation(number);
        (Desired { role, generation }, Seen { generation, revision: Revision(number) })
    }

    /// Does a step as an agent would.
    fn apply(step: Step, (desired, place): (Desired, Seen), found: &mut Found) {
        let fence = |is_open| Some(FenceFound { place, is_open, is_settled: true });
        match step {
            Step::Close => found.fence = fence(false),
            Step::Open => found.fence = fence(true),
            Step::Settle => found.settings = Presence::Right,
            Step::Unsettle => found.settings = Presence::Nothing,
            Step::Bring => found.files = Presence::Right,
            Step::Remove => found.files = Presence::Nothing,
            Step::Drain => found.is_drained = true,
            Step::Reach => {
                found.reached =
                    Some(Observed { role: desired.role, generation: desired.generation });
            }
        }
    }

    fn steps(order: (Desired, Seen), found: &mut Found) -> Vec<Step> {
        let mut done = Vec::new();
        while let Some(step) = next_step(order.0, order.1, found).unwrap() {
            apply(step, order, found);
            done.push(step);
            assert!(done.len() <= 8, "it goes in circles: {done:?}");
        }
        done
    }

    #[test]
    fn it_goes_through_a_life() {
        use Step::{Bring, Close, Drain, Open, Reach, Remove, Settle, Unsettle};
        let mut found = NOTHING;
        let life: [(Role, &[Step]); 7] = [
            (Role::Staged, &[Close, Settle, Bring, Reach]),
            (Role::Active, &[Open, Reach]),
            (Role::Active, &[Open, Reach]),
            (Role::Quiesced, &[Close, Reach]),
            (Role::Sealed, &[Close, Drain, Reach]),
            (Role::Retired, &[Close, Remove, Unsettle, Reach]),
            (Role::Active, &[Settle, Bring, Open, Reach]),
        ];
        for (number, (role, expected)) in (1..).zip(life) {
            assert_eq!(steps(order(role, number), &mut found), expected, "{role}");
        }
    }

    #[test]
    fn an_overtaken_order_is_refused() {
        let mut found = NOTHING;
        steps(order(Role::Retired, 5), &mut found);
        let (desired, place) = order(Role::Active, 4);
        let seen = order(Role::Retired, 5).1;
        assert_eq!(next_step(desired, place, &found), Err(Overtaken { seen }));
    }

    fn presence() -> impl Strategy<Value = Presence> {
        prop::sample::select(vec![Presence::Nothing, Presence::Different, Presence::Right])
    }

    proptest! {
        /// Orders in any order, an agent that is killed after any number of steps, a shard that
        /// somebody changes meanwhile: files are never there without a fence that knows them, the
        /// fence is open only for an active namespace with everything in place, and the last order
        /// that counts is reached.
        #[test]
        fn whatever_happens_it_gets_there(
            orders in prop::collection::vec(
                (0usize..6, 0i64..12, 0usize..8, presence(), presence(), any::<bool>(), any::<bool>()),
                1..20,
            )
        ) {
            let mut found = NOTHING;
            for (role, number, killed_after, settings, files, is_settled, is_drained) in orders {
                let order = order(Role::ALL[role], number);
                if found.fence.is_none_or(|fence| fence.place.admits(order.1)) {
                    for _ in 0..killed_after {
                        let was_open = found.fence.is_some_and(|fence| fence.is_open);
                        let Some(step) = next_step(order.0, order.1, &found).unwrap() else { break };
                        if matches!(step, Step::Bring | Step::Remove) {
                            prop_assert!(found.fence.is_some());
                        }
                        if step == Step::Remove {
                            prop_assert!(!was_open || order.0.role.may_schedule());
                        }
                        if step == Step::Open {
                            prop_assert!(order.0.role.may_schedule());
                            prop_assert_eq!(found.files, Presence::Right);
                            prop_assert_eq!(found.settings, Presence::Right);
                        }
                        apply(step, order, &mut found);
                    }
                    // Somebody changes the shard.
                    if let Some(fence) = &mut found.fence {
                        fence.is_settled &= is_settled;
                        (found.settings, found.files) = (settings, files);
                        found.is_drained = is_drained;
                    }
                    steps(order, &mut found);
                    prop_assert!(found.reached.is_some_and(|reached| reached.is(order.0)));
                    let fence = found.fence.unwrap();
                    prop_assert_eq!(fence.is_open, order.0.role.may_schedule());
                    prop_assert!(fence.is_settled);
                } else {
                    let before = found;
                    prop_assert!(next_step(order.0, order.1, &found).is_err());
                    prop_assert_eq!(before, found);
                }
            }
        }
    }
}
