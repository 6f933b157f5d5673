//! Steps 3 and 4: hot shards one by one, by single moves, groups, swaps and chains.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use foldhash::fast::FixedState;

use super::{
    super::{amount::millionths, random::Random, state::NONE},
    Mode,
    work::Work,
};

/// Namespaces of a hot shard that are tried.
const TRIED: usize = 48;
/// Shards that each is tried with.
const PARTNERS: usize = 48;
/// Namespaces of a partner that are looked at for one swap.
const LOOKED_AT: usize = 24;
/// Improvements of one hot shard before the next has its turn.
const PER_SHARD: usize = 400;
/// How often the ceilings are put between target and peak.
const HALVINGS: usize = 7;
/// Fleets of up to so many namespaces are searched without leaving anything out.
const SMALL: usize = 2_500;
/// In fleets of up to so many, up to two are exchanged for up to two: with few namespaces a shard,
/// single swaps are too coarse.
const TINY: usize = 200;

/// Members of shards in order of demand in one dimension, as of a stamp.
#[derive(Default)]
struct Sorted(HashMap<(u32, usize), Members, FixedState>);

/// A stamp, and demands with their namespaces.
type Members = (u32, Vec<(i64, u32)>);

impl Sorted {
    fn get(&mut self, work: &Work<'_>, shard: u32, dimension: usize) -> &[(i64, u32)] {
        let stamp = work.stamp[shard as usize];
        let known = self.0.entry((shard, dimension)).or_default();
        if known.0 != stamp || known.1.len() != work.members[shard as usize].len() {
            let members = work.members[shard as usize].iter();
            let own = |namespace: &u32| work.problem.demand_of(*namespace)[dimension];
            let mut members: Vec<(i64, u32)> = members.map(|n| (own(n), *n)).collect();
            members.sort_unstable();
            *known = (stamp, members);
        }
        &known.1
    }
}

/// Up to two namespaces of a shard, and what they take together.
#[derive(Clone)]
struct Handful {
    members: Vec<u32>,
    demand: Vec<i128>,
}

/// A hot shard, and who may help.
struct Look {
    shard: u32,
    /// By how much it is above its ceiling, by dimension; and where that is most.
    need: Vec<i128>,
    worst: usize,
    /// Its namespaces that help most, the most useful first.
    candidates: Vec<u32>,
    /// Shards to try, by rule.
    partners: HashMap<u32, Rc<[u32]>, FixedState>,
}

impl Look {
    fn partners(&mut self, work: &Work<'_>, namespace: u32, cool: &[u32]) -> Rc<[u32]> {
        let rule = work.problem.rule[namespace as usize];
        self.partners.entry(rule).or_insert_with(|| work.partners(rule, cool).into()).clone()
    }
}

impl Work<'_> {
    /// Looks at every hot shard until it is cool or nothing helps.
    pub(super) fn cool_down(&mut self) {
        let mut sorted = Sorted::default();
        for _ in 0..3 {
            let hot = self.hot();
            if hot.is_empty() {
                return;
            }
            let mut helped = false;
            let mut cool = self.coolest();
            for (turn, shard) in hot.into_iter().enumerate() {
                if turn % 64 == 63 {
                    cool = self.coolest();
                }
                for turn in 0..PER_SHARD {
                    if self.excess(shard) == 0 {
                        break;
                    }
                    if self.is_out() {
                        return;
                    }
                    self.steps_done += 1;
                    let mut look = self.look_at(shard);
                    // What is plain was offered to every shard before, so once is enough.
                    let better = (turn == 0
                        && (self.try_single(&mut look, &cool) || self.try_group(shard)))
                        || self.try_swap(&mut look, &cool, &mut sorted)
                        || self.try_chain(&mut look, &cool, &mut sorted)
                        || self.try_exchange(&look, &cool);
                    if !better {
                        break;
                    }
                    helped = true;
                }
            }
            if !helped {
                return;
            }
        }
    }

    /// Lowers the peak towards the target where it cannot be reached.
    pub(super) fn lower_peak(&mut self) {
        let mut low = self.target;
        let mut high = self.peak();
        for _ in 0..HALVINGS {
            if high <= low + (low / 2_000).max(1) || self.is_out() {
                break;
            }
            let middle = low + (high - low) / 2;
            self.set_ceiling(middle);
            self.cool_down();
            let peak = self.peak();
            if peak <= middle {
                high = peak;
            } else {
                (low, high) = (middle, high.min(peak));
            }
        }
        self.set_ceiling(self.target);
    }

    /// Shards that take something, coolest first.
    fn coolest(&self) -> Vec<u32> {
        let scorer = self.scorer();
        let peak = |shard: u32| scorer.millionths(shard).max().unwrap_or(0);
        let mut cool: Vec<(i64, u32)> =
            self.shape.open().iter().map(|shard| (peak(shard), shard)).collect();
        cool.sort_unstable();
        cool.into_iter().map(|(_, shard)| shard).collect()
    }

    /// What there is to know of a hot shard before something is tried.
    fn look_at(&self, shard: u32) -> Look {
        let need = self.need(shard);
        let ratios = self.shape.ratio_of(shard);
        let worst = (0..need.len()).max_by_key(|d| (ratios[*d].millionths(need[*d]), need[*d]));
        let mut by_use: Vec<(i64, u32)> = self.members[shard as usize]
            .iter()
            .map(|namespace| (-self.usefulness(*namespace, shard, &need), *namespace))
            .filter(|(usefulness, namespace)| *usefulness < 0 && self.affords(*namespace))
            .collect();
        if by_use.len() > TRIED && self.problem.len() > SMALL {
            // The most useful, and some of all sizes.
            by_use.select_nth_unstable(TRIED / 2);
            by_use[TRIED / 2..].sort_unstable();
            let mut random = Random::of(self.settings.seed, self.steps_done);
            for at in TRIED / 2..TRIED {
                let other = at + random.position(by_use.len() - at);
                by_use.swap(at, other);
            }
            by_use.truncate(TRIED);
            by_use[..TRIED / 2].sort_unstable();
        } else {
            by_use.sort_unstable();
        }
        let candidates = by_use.into_iter().map(|(_, namespace)| namespace).collect();
        Look { shard, worst: worst.unwrap_or(0), need, candidates, partners: HashMap::default() }
    }

    /// Some shards that namespaces of a rule may go to: the coolest, and a few others.
    fn partners(&self, rule: u32, cool: &[u32]) -> Vec<u32> {
        let admitted = self.shape.admitted(rule);
        let mut will_do = cool.iter().filter(|shard| admitted.has(**shard)).copied();
        if self.problem.len() <= SMALL {
            return will_do.collect();
        }
        let mut some: Vec<u32> = will_do.by_ref().take(PARTNERS / 2).collect();
        let rest: Vec<u32> = will_do.collect();
        let mut random = Random::of(self.settings.seed ^ u64::from(rule), self.steps_done);
        if !rest.is_empty() {
            some.extend((0..PARTNERS / 2).map(|_| rest[random.position(rest.len())]));
        }
        some
    }

    fn try_single(&mut self, look: &mut Look, cool: &[u32]) -> bool {
        for namespace in look.candidates.clone() {
            let fitting: Vec<u32> = look
                .partners(self, namespace, cool)
                .iter()
                .filter(|to| **to != look.shard && self.is_cool_with(namespace, **to))
                .take(4)
                .copied()
                .collect();
            for to in fitting {
                if self.try_moves(&[(namespace, to)]) {
                    return true;
                }
            }
        }
        false
    }

    /// Moves an affinity group that is on the shard as a whole.
    fn try_group(&mut self, shard: u32) -> bool {
        let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for namespace in &self.members[shard as usize] {
            let affinity = self.problem.affinity[*namespace as usize];
            if affinity != NONE {
                groups.entry(affinity).or_default().push(*namespace);
            }
        }
        let whole = groups.into_values().filter(|group| group.len() > 1).take(TRIED);
        for group in whole.collect::<Vec<_>>() {
            let mut cool = self.coolest();
            cool.retain(|to| *to != shard && group.iter().all(|n| self.takes(*n, *to)));
            for to in cool.into_iter().take(PARTNERS) {
                let load = self.state.load_of(to).to_vec();
                let fits = (0..self.problem.width).all(|d| {
                    let sum: i128 =
                        group.iter().map(|n| i128::from(self.problem.demand_of(*n)[d])).sum();
                    sum == 0 || load[d] + sum <= self.ceiling_of(to)[d]
                });
                let moves: Vec<(u32, u32)> = group.iter().map(|n| (*n, to)).collect();
                if fits && self.try_moves(&moves) {
                    return true;
                }
            }
        }
        false
    }

    /// One namespace of the hot shard for a smaller one of a cooler shard.
    fn try_swap(&mut self, look: &mut Look, cool: &[u32], sorted: &mut Sorted) -> bool {
        for namespace in look.candidates.clone() {
            let mut best: Option<(i128, u32, u32)> = None;
            for partner in &*look.partners(self, namespace, cool) {
                if *partner == look.shard {
                    continue;
                }
                let found = self.swap_with(namespace, *partner, (&look.need, look.worst), sorted);
                if let Some((over, other)) = found {
                    if best.is_none_or(|(least, ..)| over < least) {
                        best = Some((over, *partner, other));
                    }
                    if over <= 0 {
                        break;
                    }
                }
            }
            if let Some((_, partner, other)) = best
                && self.try_moves(&[(namespace, partner), (other, look.shard)])
            {
                return true;
            }
        }
        false
    }

    /// The namespace of `partner` that leaves the hot shard least above its ceiling in its worst
    /// dimension, with the partner below its own; and how far above that is.
    fn swap_with(
        &self,
        namespace: u32,
        partner: u32,
        (need, worst): (&[i128], usize),
        sorted: &mut Sorted,
    ) -> Option<(i128, u32)> {
        let shard = self.shard[namespace as usize];
        let demand = self.problem.demand_of(namespace);
        let (load, ceiling) = (self.state.load_of(partner), self.ceiling_of(partner));
        // The other one has to free at least this much on the partner.
        let free = |d: usize| load[d] + i128::from(demand[d]) - ceiling[d];
        let members = sorted.get(self, partner, worst);
        let from = members.partition_point(|(own, _)| i128::from(*own) < free(worst));
        // Within reach: it gives less than it gets in the worst dimension.
        let reach = members[from..].iter().take_while(|(own, _)| *own < demand[worst]);
        let limit = if self.problem.len() <= SMALL { usize::MAX } else { LOOKED_AT };
        let mut best: Option<(i128, u32)> = None;
        for (_, other) in reach.take(limit) {
            let given = self.problem.demand_of(*other);
            let frees = (0..given.len()).all(|d| demand[d] == 0 || i128::from(given[d]) >= free(d));
            if !frees || !self.shape.admitted(self.problem.rule[*other as usize]).has(shard) {
                continue;
            }
            let after = |d: usize| need[d] - i128::from(demand[d]) + i128::from(given[d]);
            // It must not become hot in another dimension.
            if (0..given.len()).any(|d| d != worst && after(d) > need[d].max(0)) {
                continue;
            }
            let over = (0..given.len()).map(after).max().unwrap_or(0);
            if best.is_none_or(|(least, _)| over < least) {
                best = Some((over, *other));
            }
            if over <= 0 {
                break;
            }
        }
        best.filter(|(_, other)| self.shape.open().has(shard) && self.affords(*other))
    }

    /// One namespace of the hot shard to where another makes room by going on to a third shard.
    fn try_chain(&mut self, look: &mut Look, cool: &[u32], sorted: &mut Sorted) -> bool {
        for namespace in look.candidates.clone() {
            for middle in &*look.partners(self, namespace, cool) {
                if *middle != look.shard
                    && let Some((other, to)) = self.room_on(namespace, *middle, look, cool, sorted)
                    && self.try_moves(&[(other, to), (namespace, *middle)])
                {
                    return true;
                }
            }
        }
        false
    }

    fn room_on(
        &self,
        namespace: u32,
        middle: u32,
        look: &mut Look,
        cool: &[u32],
        sorted: &mut Sorted,
    ) -> Option<(u32, u32)> {
        let demand = self.problem.demand_of(namespace);
        let (load, ceiling) = (self.state.load_of(middle), self.ceiling_of(middle));
        let short: Vec<i128> = (0..demand.len())
            .map(|d| if demand[d] == 0 { 0 } else { load[d] + i128::from(demand[d]) - ceiling[d] })
            .collect();
        let dimension = (0..short.len()).max_by_key(|d| {
            millionths(short[*d], i128::from(self.shape.capacity_of(middle)[*d]))
        })?;
        let members = sorted.get(self, middle, dimension);
        let from = members.partition_point(|(own, _)| i128::from(*own) < short[dimension]);
        for (_, other) in members[from..].iter().take(LOOKED_AT / 4) {
            let given = self.problem.demand_of(*other);
            if !given.iter().zip(&short).all(|(own, short)| i128::from(*own) >= *short)
                || !self.affords(*other)
            {
                continue;
            }
            let shard = look.shard;
            let thirds = look.partners(self, *other, cool);
            let to = thirds
                .iter()
                .find(|to| **to != shard && **to != middle && self.is_cool_with(*other, **to));
            if let Some(to) = to {
                return Some((*other, *to));
            }
        }
        None
    }

    /// Up to two namespaces of the hot shard for up to two of another.
    fn try_exchange(&mut self, look: &Look, cool: &[u32]) -> bool {
        if self.problem.len() > TINY || !self.shape.open().has(look.shard) {
            return false;
        }
        let given = self.handfuls(look.shard);
        let mut best: Option<(i128, u32, Handful, Handful)> = None;
        for partner in cool.iter().filter(|partner| **partner != look.shard) {
            let room: Vec<i128> = self.need(*partner).into_iter().map(|over| -over).collect();
            let taken = self.handfuls(*partner);
            for own in &given {
                for other in &taken {
                    // What the hot shard loses and the partner gets.
                    let change = |d: usize| own.demand[d] - other.demand[d];
                    let fits = (0..room.len()).all(|d| change(d) <= room[d].max(0));
                    let over = (0..room.len()).map(|d| look.need[d] - change(d)).max();
                    let over = over.unwrap_or(0);
                    if fits
                        && over < look.need[look.worst]
                        && best.as_ref().is_none_or(|(least, ..)| over < *least)
                        && self.may_exchange(own, *partner)
                        && self.may_exchange(other, look.shard)
                    {
                        best = Some((over, *partner, own.clone(), other.clone()));
                    }
                }
            }
            if best.as_ref().is_some_and(|(over, ..)| *over <= 0) {
                break;
            }
        }
        let Some((_, partner, own, other)) = best else { return false };
        let mut moves: Vec<(u32, u32)> = own.members.iter().map(|n| (*n, partner)).collect();
        moves.extend(other.members.iter().map(|n| (*n, look.shard)));
        self.try_moves(&moves)
    }

    fn may_exchange(&self, handful: &Handful, to: u32) -> bool {
        handful.members.iter().all(|namespace| {
            self.shape.admitted(self.problem.rule[*namespace as usize]).has(to)
                && self.affords(*namespace)
        })
    }

    /// None, each one and each two of a shard's namespaces.
    fn handfuls(&self, shard: u32) -> Vec<Handful> {
        let members = &self.members[shard as usize];
        let demand = |of: &[u32]| -> Vec<i128> {
            let own = |d: usize| of.iter().map(|n| i128::from(self.problem.demand_of(*n)[d])).sum();
            (0..self.problem.width).map(own).collect()
        };
        let mut all = vec![Handful { members: Vec::new(), demand: demand(&[]) }];
        for (at, one) in members.iter().enumerate() {
            all.push(Handful { members: vec![*one], demand: demand(&[*one]) });
            for other in &members[at + 1..] {
                let pair = vec![*one, *other];
                all.push(Handful { demand: demand(&pair), members: pair });
            }
        }
        all
    }

    /// Whether it was looked for as long as it may. Asked right before each step and nowhere else
    /// where it matters, so that a search that ran out of time is made again by its steps.
    fn is_out(&self) -> bool {
        self.steps_done >= self.settings.steps_max || (self.stop)()
    }

    /// Whether what is below level 1 counts.
    pub(super) fn is_periodic(&self) -> bool {
        self.settings.mode == Mode::Periodic
    }
}
