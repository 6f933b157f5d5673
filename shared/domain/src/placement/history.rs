//! Moves that were made, for as long as they matter: cool-down and thrash.
//!
//! A namespace that was moved is left alone for a while. One that comes back to a shard that it
//! left within the window has *thrashed*: somebody decides on noise, and the count says so.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use crate::ids::{NamespaceName, ShardName};

/// Moves that are remembered; the oldest are forgotten first.
pub const REMEMBERED_MAX: usize = 100_000;

/// Moves that were made.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// How long a move matters for thrash. Microseconds.
    window_us: i64,
    /// How long a namespace is left alone. Microseconds.
    cooldown_us: i64,
    moves: VecDeque<(NamespaceName, ShardName, i64)>,
    last: HashMap<NamespaceName, i64, FixedState>,
    thrashed: u64,
}

impl History {
    /// No moves yet.
    pub fn new(window_us: i64, cooldown_us: i64) -> Self {
        Self { window_us, cooldown_us, ..Self::default() }
    }

    /// A move was made. Answers whether it brought the namespace back.
    pub fn note(
        &mut self,
        namespace: &NamespaceName,
        from: &ShardName,
        to: &ShardName,
        now_us: i64,
    ) -> bool {
        self.forget(now_us);
        let left =
            |(moved, shard, _): &(NamespaceName, ShardName, i64)| moved == namespace && shard == to;
        let back = self.last.contains_key(namespace) && self.moves.iter().any(left);
        self.thrashed += u64::from(back);
        self.moves.push_back((namespace.clone(), from.clone(), now_us));
        self.last.insert(namespace.clone(), now_us);
        back
    }

    fn forget(&mut self, now_us: i64) {
        let kept = self.window_us.max(self.cooldown_us);
        while self.moves.len() >= REMEMBERED_MAX
            || self.moves.front().is_some_and(|(.., at)| now_us.saturating_sub(*at) > kept)
        {
            let Some((namespace, _, at)) = self.moves.pop_front() else { return };
            if self.last.get(&namespace) == Some(&at) {
                self.last.remove(&namespace);
            }
        }
    }

    /// Whether a namespace was moved so recently that it is left alone.
    pub fn cools_down(&self, namespace: &NamespaceName, now_us: i64) -> bool {
        self.last.get(namespace).is_some_and(|at| now_us.saturating_sub(*at) < self.cooldown_us)
    }

    /// How often a namespace was moved back.
    pub fn thrashed(&self) -> u64 {
        self.thrashed
    }
}

/// Whether an imbalance has lasted: it has to be there in this many windows one after another
/// before anything is moved for it, and be gone in one to start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hysteresis {
    needed: u32,
    seen: u32,
}

impl Hysteresis {
    /// So many windows are needed.
    pub fn new(needed: u32) -> Self {
        Self { needed: needed.max(1), seen: 0 }
    }

    /// One more window, with or without imbalance. Answers whether it has lasted.
    pub fn look(&mut self, imbalanced: bool) -> bool {
        self.seen = if imbalanced { self.seen.saturating_add(1) } else { 0 };
        self.seen >= self.needed
    }

    /// Something was done about it.
    pub fn reset(&mut self) {
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    #[test]
    fn coming_back_within_the_window_is_thrash() {
        let mut history = History::new(100, 10);
        let (one, other) = (name("one"), name("other"));
        let (a, b, c) = (name("shard-a"), name("shard-b"), name("shard-c"));
        assert!(!history.note(&one, &a, &b, 0));
        assert!(!history.note(&other, &b, &a, 1), "another one");
        assert!(!history.note(&one, &b, &c, 20), "on to a third");
        assert!(history.note(&one, &c, &a, 50), "back to the first");
        assert_eq!(history.thrashed(), 1);
        assert!(!history.note(&other, &a, &b, 200), "that was long ago");
    }

    #[test]
    fn what_was_moved_cools_down() {
        let mut history = History::new(100, 10);
        let one = name("one");
        history.note(&one, &name("shard-a"), &name("shard-b"), 5);
        assert!(history.cools_down(&one, 14));
        assert!(!history.cools_down(&one, 15));
        assert!(!history.cools_down(&name("two"), 5));
    }

    #[test]
    fn it_is_bounded() {
        let mut history = History::new(i64::MAX, 10);
        for at in 0..REMEMBERED_MAX as i64 + 10 {
            let one = name(&format!("ns-{at}"));
            history.note(&one, &name("shard-a"), &name("shard-b"), at);
        }
        assert!(history.moves.len() <= REMEMBERED_MAX && history.last.len() <= REMEMBERED_MAX);
    }

    #[test]
    fn an_imbalance_has_to_last() {
        let mut hysteresis = Hysteresis::new(3);
        let seen = [true, true, false, true, true, true, true];
        let told: Vec<bool> = seen.into_iter().map(|seen| hysteresis.look(seen)).collect();
        assert_eq!(told, [false, false, false, false, false, true, true]);
    }
}
