//! The states, what may happen in each, and what must hold in all of them.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Mutex,
};

use airfleet_domain::{
    ids::Revision,
    moves::{Part, Phase},
    roles::{Fence, Role},
};
use stateright::{Model, Property};

use crate::{
    Mutation, SHARDS,
    control::Contents,
    shard::{Shard, Told},
};

pub(crate) const ONE_ACTIVE: &str = "at most one shard is active";
pub(crate) const FENCED_FIRST: &str = "nobody is told to be active before the others are fenced";
pub(crate) const SEEN_IS_FENCED: &str = "what was seen to be fenced is fenced";
const ORDER_GROWS: &str = "the place of a fence never falls";
pub(crate) const GENERATION_GROWS: &str = "generations and revisions never fall";
pub(crate) const COMES_ALONG: &str = "what is activated has all that was copied";
const ENDS: &str = "every move can end";
const ENDS_ALONE: &str = "a move can end without the shard that is away";

/// How much happens.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) shards: u8,
    /// Moves and reassignments that are asked for, at most.
    pub(crate) asks: u8,
    /// Leaders one after the other, at most.
    pub(crate) terms: u8,
    /// Shards that go away, at most.
    pub(crate) losses: u8,
    /// Whether the namespace is given to others without a move, too.
    pub(crate) reassigns: bool,
    /// Whether it goes from each shard to the next one only.
    pub(crate) in_turn: bool,
    /// Whether routers know at once what shards say, so that more can happen in as many states.
    pub(crate) prompt: bool,
    pub(crate) mutation: Mutation,
    /// What was found to settle, by hash.
    pub(crate) settles: Mutex<HashSet<u64>>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            shards: 2,
            asks: 1,
            terms: 1,
            losses: 0,
            reassigns: true,
            in_turn: false,
            prompt: true,
            mutation: Mutation::None,
            settles: Mutex::default(),
        }
    }
}

/// A router that believes to lead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Router {
    term: u8,
    known: Contents,
    /// What it heard last of each shard: that shard as it was then.
    heard: [Option<Shard>; SHARDS],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) contents: Contents,
    term: u8,
    /// The one that leads, and the one before: further ones are no different.
    routers: [Option<Router>; 2],
    pub(crate) shards: [Shard; SHARDS],
    /// Orders that may arrive yet. What its shard refuses for ever is left out.
    told: BTreeSet<Told>,
    losses: u8,
    /// Something that only a step shows.
    broken: Option<&'static str>,
}

/// What may happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Another router leads.
    TakeOver,
    /// A router hears of a shard.
    Hear { router: usize, shard: u8 },
    /// A router looks at the move, before its deadline or after.
    Look { router: usize, late: bool },
    /// A router looks at what is left on a shard, before its time is over or after.
    Settle { router: usize, shard: u8, late: bool },
    /// Somebody asks for a move.
    Begin { router: usize, target: u8, is_lost: bool },
    /// Somebody asks to give the move up.
    Cancel { router: usize },
    /// Somebody binds the namespace to another shard.
    Reassign { router: usize, target: u8 },
    /// Somebody does not wait for shards that had it.
    Waive { router: usize },
    /// An agent acts on an order, whenever that was given: one durable step.
    Obey(Told),
    /// Rows arrive.
    Take(Told),
    /// What ran on a shard has ended.
    Drain(u8),
    /// A shard is cut off, with all that runs on it.
    Lose(u8),
    /// It is back.
    Return(u8),
}

impl State {
    fn away(&self) -> [bool; SHARDS] {
        self.shards.map(|shard| shard.away)
    }

    /// A router writes what it decided, if it may.
    fn commit(&mut self, router: usize, after: Contents, mutation: Mutation) {
        let writer = self.routers[router].as_mut().expect("it decided");
        let stale = writer.term != self.term || writer.known.revision != self.contents.revision;
        if stale && mutation != Mutation::StaleLeaderWrites {
            self.routers[router] = None;
            return;
        }
        writer.known = after.clone();
        let before = std::mem::replace(&mut self.contents, after);
        let now = &self.contents;
        if now.generation < before.generation || now.revision <= before.revision {
            self.broken = Some(GENERATION_GROWS);
        }
        for (at, shard) in (0u8..).zip(&mut self.shards) {
            let left = now.left[usize::from(at)].filter(|left| left.fence == Fence::Waived);
            if let Some(left) = left.filter(|left| shard.place().generation < left.generation) {
                shard.waived = Some(left.generation);
            }
        }
        let orders = self.contents.orders();
        self.told.extend(orders);
    }

    /// Leaves out what no longer matters and numbers revisions anew, in their order.
    fn settle(&mut self, mutation: Mutation) {
        let shards = &self.shards;
        self.told.retain(|told| !shards[usize::from(told.shard)].is_past(told, mutation));
        let mut all = BTreeSet::new();
        self.revisions(&mut |revision| {
            all.insert(*revision);
        });
        let ranks: Vec<Revision> = all.into_iter().collect();
        self.revisions(&mut |revision| {
            let rank = ranks.binary_search(revision).expect("each was collected");
            *revision = Revision(rank as i64);
        });
    }

    fn revisions(&mut self, visit: &mut dyn FnMut(&mut Revision)) {
        fn contents(contents: &mut Contents, visit: &mut dyn FnMut(&mut Revision)) {
            visit(&mut contents.revision);
            contents.row.iter_mut().for_each(|row| visit(&mut row.began));
            contents.left.iter_mut().flatten().for_each(|left| visit(&mut left.revision));
        }
        fn shard(shard: &mut Shard, visit: &mut dyn FnMut(&mut Revision)) {
            shard.found.fence.iter_mut().for_each(|fence| visit(&mut fence.place.revision));
        }
        contents(&mut self.contents, visit);
        for router in self.routers.iter_mut().flatten() {
            contents(&mut router.known, visit);
            router.heard.iter_mut().flatten().for_each(|heard| shard(heard, visit));
        }
        self.shards.iter_mut().for_each(|one| shard(one, visit));
        let told = std::mem::take(&mut self.told).into_iter();
        self.told = told
            .map(|mut told| {
                visit(&mut told.revision);
                told
            })
            .collect();
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let contents = Contents::new();
        let told = contents.orders();
        let mut shards = [Shard::NEW; SHARDS];
        // The owner runs the namespace when all begins.
        while let Some(next) = shards[0].act(&told[0], Mutation::None) {
            shards[0] = next;
        }
        let first = Router { term: 1, known: contents.clone(), heard: [None; SHARDS] };
        let routers = [Some(first), None];
        let told = told.into_iter().collect();
        vec![State { contents, term: 1, routers, shards, told, losses: 0, broken: None }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.term < self.terms {
            actions.push(Action::TakeOver);
        }
        for (at, router) in state.routers.iter().enumerate() {
            let Some(router) = router else { continue };
            let known = &router.known;
            for shard in 0..self.shards {
                if !self.prompt {
                    actions.push(Action::Hear { router: at, shard });
                }
                for late in [false, true] {
                    actions.push(Action::Settle { router: at, shard, late });
                }
                let next = (known.owner + 1) % self.shards == shard;
                if known.asked < self.asks && (next || !self.in_turn) {
                    for is_lost in [false, true] {
                        actions.push(Action::Begin { router: at, target: shard, is_lost });
                    }
                    if self.reassigns {
                        actions.push(Action::Reassign { router: at, target: shard });
                    }
                }
            }
            for late in [false, true] {
                actions.push(Action::Look { router: at, late });
            }
            actions.push(Action::Cancel { router: at });
            actions.push(Action::Waive { router: at });
        }
        for told in &state.told {
            actions.push(Action::Obey(*told));
            actions.push(Action::Take(*told));
        }
        for shard in 0..self.shards {
            actions.push(Action::Drain(shard));
            if state.losses < self.losses {
                actions.push(Action::Lose(shard));
            }
            actions.push(Action::Return(shard));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mutation = self.mutation;
        let mut next = last.clone();
        let router = |at: usize| last.routers[at].as_ref();
        let known = |at: usize| router(at).map(|router| &router.known);
        match action {
            Action::TakeOver => {
                next.term += 1;
                let known = next.contents.clone();
                let new = Router { term: next.term, known, heard: [None; SHARDS] };
                next.routers = [Some(new), next.routers[0].take()];
            }
            Action::Hear { router: at, shard } => {
                let shard = usize::from(shard);
                let seen = last.shards[shard];
                let router = next.routers[at].as_mut()?;
                // A stream that breaks takes with it what was said on it.
                let heard = (!seen.away).then_some(Shard { waived: None, ..seen });
                if router.heard[shard] == heard {
                    return None;
                }
                router.heard[shard] = heard;
            }
            Action::Look { router: at, late } => {
                let said = self.heard(last, at)?.map(|heard| heard?.evidence());
                let after = known(at)?.look(&said, last.away(), late, mutation)?;
                next.commit(at, after, mutation);
            }
            Action::Settle { router: at, shard, late } => {
                let said = self.heard(last, at)?[usize::from(shard)].and_then(|one| one.evidence());
                let after = known(at)?.settle(shard, said.as_ref(), late)?;
                next.commit(at, after, mutation);
            }
            Action::Begin { router: at, target, is_lost } => {
                let away = last.shards[usize::from(known(at)?.owner)].away;
                // Asked for a source that is there it is refused; one that is not blocks the other.
                if is_lost != away {
                    return None;
                }
                let after = known(at)?.begin(target, is_lost, mutation)?;
                next.commit(at, after, mutation);
            }
            Action::Cancel { router: at } => {
                let after = known(at)?.cancel()?;
                next.commit(at, after, mutation);
            }
            Action::Reassign { router: at, target } => {
                let after = known(at)?.reassign(target, mutation)?;
                next.commit(at, after, mutation);
            }
            Action::Waive { router: at } => {
                let after = known(at)?.waive()?;
                next.commit(at, after, mutation);
            }
            Action::Obey(told) => {
                let shard = &mut next.shards[usize::from(told.shard)];
                if shard.away {
                    return None;
                }
                let after = shard.act(&told, mutation)?;
                let fell = after.place() < shard.place();
                *shard = after;
                if fell {
                    next.broken = Some(ORDER_GROWS);
                }
                if !last.shards[usize::from(told.shard)].is_open() && after.is_open() {
                    next.note_copy(last, &told);
                }
            }
            Action::Take(told) => {
                let row = last.contents.row.as_ref()?;
                let source = &last.shards[usize::from(row.source)];
                let shard = &mut next.shards[usize::from(told.shard)];
                if shard.away || source.away || row.target != told.shard {
                    return None;
                }
                *shard = shard.take(&told, source)?;
            }
            Action::Drain(shard) => next.shards[usize::from(shard)].drain()?,
            Action::Lose(shard) => {
                let shard = &mut next.shards[usize::from(shard)];
                if shard.away {
                    return None;
                }
                shard.away = true;
                next.losses += 1;
            }
            Action::Return(shard) => {
                let shard = &mut next.shards[usize::from(shard)];
                if !std::mem::take(&mut shard.away) {
                    return None;
                }
            }
        }
        next.settle(mutation);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_ACTIVE, |_, state: &State| {
                state.shards.iter().filter(|shard| shard.is_active()).count() <= 1
            }),
            Property::always(FENCED_FIRST, |_, state: &State| {
                let orders = state.contents.orders();
                orders.iter().filter(|told| told.role == Role::Active).all(|told| {
                    (0u8..)
                        .zip(&state.shards)
                        .all(|(at, shard)| at == told.shard || !shard.is_active())
                })
            }),
            Property::always(SEEN_IS_FENCED, |_, state: &State| {
                state.shards.iter().zip(&state.contents.left).all(|(shard, left)| {
                    left.is_none_or(|left| left.fence != Fence::Seen) || !shard.is_open()
                })
            }),
            Property::always(ORDER_GROWS, |_, state: &State| state.broken != Some(ORDER_GROWS)),
            Property::always(GENERATION_GROWS, |_, state: &State| {
                state.broken != Some(GENERATION_GROWS)
            }),
            Property::always(COMES_ALONG, |_, state: &State| state.broken != Some(COMES_ALONG)),
            Property::always(ENDS, |world: &World, state: &State| world.can_end(state, false)),
            Property::always(ENDS_ALONE, |world: &World, state: &State| world.can_end(state, true)),
            Property::sometimes("a move is done", |_, state: &State| {
                state.contents.ended == Some(Phase::Done)
            }),
            Property::sometimes("a move is given up", |_, state: &State| {
                state.contents.ended == Some(Phase::Aborted)
            }),
        ]
    }
}

impl State {
    /// What a target is activated with.
    fn note_copy(&mut self, before: &State, told: &Told) {
        let (Some(task), Some(row)) = (told.task, &before.contents.row) else { return };
        let is_flip = task.takes && row.number == task.number && !row.is_lost;
        let taken = before.shards[usize::from(told.shard)].taken;
        if is_flip && taken != Some((task.number, Part::Rest)) {
            self.broken = Some(COMES_ALONG);
        }
    }

    /// One round in which everybody does what there is to do. Answers whether anything was.
    fn round(&mut self, late: bool, mutation: Mutation) -> bool {
        let before = (self.contents.clone(), self.shards);
        for told in self.contents.orders() {
            let at = usize::from(told.shard);
            while let Some(next) = self.shards[at].act(&told, mutation).filter(|next| !next.away) {
                self.shards[at] = next;
            }
            self.shards[at].drain();
            if let Some(row) = &self.contents.row
                && row.target == told.shard
                && let source = self.shards[usize::from(row.source)]
                && !source.away
                && let Some(next) = self.shards[at].take(&told, &source).filter(|next| !next.away)
            {
                self.shards[at] = next;
            }
        }
        let said = self.shards.map(|shard| if shard.away { None } else { shard.evidence() });
        for shard in 0..SHARDS as u8 {
            let said = said[usize::from(shard)].as_ref();
            if let Some(next) = self.contents.settle(shard, said, true) {
                self.contents = next;
            }
        }
        if let Some(next) = self.contents.look(&said, self.away(), late, mutation) {
            self.contents = next;
        }
        self.told.clear();
        self.settle(mutation);
        before != (self.contents.clone(), self.shards)
    }
}

impl World {
    /// What a router knows of the shards.
    fn heard(&self, state: &State, router: usize) -> Option<[Option<Shard>; SHARDS]> {
        let router = state.routers[router].as_ref()?;
        let now = state.shards.map(|shard| (!shard.away).then_some(shard));
        Some(if self.prompt { now } else { router.heard })
    }

    /// Whether all comes to rest once nothing goes wrong any more: with every shard there, or
    /// without the one that the move has to do without.
    fn can_end(&self, state: &State, alone: bool) -> bool {
        if self.mutation != Mutation::None {
            return true;
        }
        let (missing, late) = match &state.contents.row {
            _ if !alone => (None, false),
            Some(row) if row.is_lost => (Some(row.source), false),
            Some(row) if !row.phase.is_past_flip() => (Some(row.target), true),
            _ => return true,
        };
        let mut now = state.clone();
        now.routers = [None, None];
        now.told.clear();
        for (at, shard) in (0..).zip(&mut now.shards) {
            shard.away = missing == Some(at);
        }
        now.settle(self.mutation);
        let mut visited = Vec::new();
        loop {
            let mut hasher = DefaultHasher::new();
            (&now.contents, &now.shards, alone).hash(&mut hasher);
            let hash = hasher.finish();
            if self.settles.lock().expect("nobody panics with it").contains(&hash) {
                break;
            }
            visited.push(hash);
            if !now.round(late, self.mutation) {
                if !now.is_at_rest(alone) {
                    return false;
                }
                break;
            }
        }
        self.settles.lock().expect("nobody panics with it").extend(visited);
        true
    }
}

impl State {
    fn is_at_rest(&self, alone: bool) -> bool {
        if self.contents.row.is_some() {
            return false;
        }
        alone
            || (self.contents.left.iter().all(Option::is_none)
                && (0..)
                    .zip(&self.shards)
                    .all(|(at, shard)| shard.is_open() == (at == self.contents.owner)))
    }
}
