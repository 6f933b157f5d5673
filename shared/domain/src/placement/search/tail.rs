//! Steps 3 and 4: hot shards one by one, by single moves, groups, swaps and chains.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;

use super::{
    super::{
        amount::millionths,
        state::NONE,
    },
    Mode,
    deal::Draw,
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

/// Members of shards in order of demand in one dimension, as of a stamp.
#[derive(Default)]
struct Sorted(HashMap<(u32, usize), (u32, Vec<(i64, u32)>), FixedState>);

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
                for _ in 0..PER_SHARD {
                    if self.excess(shard) == 0 {
                        break;
                    }
                    if self.steps_done >= self.settings.steps_max || (self.stop)() {
                        return;
                    }
                    self.steps_done += 1;
                    let better = self.try_single(shard, &cool)
                        || self.try_group(shard)
                        || self.try_swap(shard, &cool, &mut sorted)
                        || self.try_chain(shard, &cool, &mut sorted);
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
            if high <= low + (low / 2_000).max(1) || (self.stop)() {
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

    /// The namespaces of a hot shard that help most, the most useful first.
    fn candidates(&self, shard: u32) -> Vec<u32> {
        let need = self.need(shard);
        let mut by_use: Vec<(i64, u32)> = self.members[shard as usize]
            .iter()
            .map(|namespace| (-self.usefulness(*namespace, shard, &need), *namespace))
            .filter(|(usefulness, namespace)| *usefulness < 0 && self.affords(*namespace))
            .collect();
        by_use.sort_unstable();
        let mut all: Vec<u32> = by_use.into_iter().map(|(_, namespace)| namespace).collect();
        if all.len() > TRIED && self.problem.len() > SMALL {
            // The most useful, and some of all sizes.
            let mut draw = Draw::new(self.settings.seed, self.steps_done);
            for at in TRIED / 2..TRIED {
                let other = at + draw.below(all.len() - at);
                all.swap(at, other);
            }
            all.truncate(TRIED);
        }
        all
    }

    /// Some shards that a namespace may go to: the coolest, and a few others.
    fn partners(&self, namespace: u32, cool: &[u32], salt: u64) -> Vec<u32> {
        let admitted = self.shape.admitted(self.problem.rule[namespace as usize]);
        let own = self.shard[namespace as usize];
        let will_do = |shard: &&u32| admitted.has(**shard) && **shard != own;
        if self.problem.len() <= SMALL {
            return cool.iter().filter(will_do).copied().collect();
        }
        let mut some: Vec<u32> = cool.iter().filter(will_do).take(PARTNERS / 2).copied().collect();
        let mut draw = Draw::new(self.settings.seed ^ salt, u64::from(namespace));
        for _ in 0..PARTNERS {
            let shard = cool[draw.below(cool.len())];
            if some.len() >= PARTNERS {
                break;
            }
            if will_do(&&shard) && !some.contains(&shard) {
                some.push(shard);
            }
        }
        some
    }

    fn try_single(&mut self, shard: u32, cool: &[u32]) -> bool {
        for namespace in self.candidates(shard) {
            let fitting = self
                .partners(namespace, cool, 1)
                .into_iter()
                .filter(|to| self.is_cool_with(namespace, *to))
                .take(4)
                .collect::<Vec<u32>>();
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

    /// The dimension in which a shard is most above its ceiling.
    fn worst_dimension(&self, need: &[i128], shard: u32) -> usize {
        let ratios = self.shape.ratio_of(shard);
        let worst = (0..need.len()).max_by_key(|d| (ratios[*d].millionths(need[*d]), need[*d]));
        worst.unwrap_or(0)
    }

    /// One namespace of the hot shard for a smaller one of a cooler shard.
    fn try_swap(&mut self, shard: u32, cool: &[u32], sorted: &mut Sorted) -> bool {
        let need = self.need(shard);
        let worst = self.worst_dimension(&need, shard);
        for namespace in self.candidates(shard) {
            let mut best: Option<(i128, u32, u32)> = None;
            for partner in self.partners(namespace, cool, 2) {
                if let Some((over, other)) =
                    self.swap_with(namespace, partner, &need, worst, sorted)
                {
                    if best.is_none_or(|(least, ..)| over < least) {
                        best = Some((over, partner, other));
                    }
                    if over <= 0 {
                        break;
                    }
                }
            }
            if let Some((_, partner, other)) = best
                && self.try_moves(&[(namespace, partner), (other, shard)])
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
        need: &[i128],
        worst: usize,
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
    fn try_chain(&mut self, shard: u32, cool: &[u32], sorted: &mut Sorted) -> bool {
        for namespace in self.candidates(shard) {
            for middle in self.partners(namespace, cool, 3) {
                if let Some((other, to)) = self.room_on(namespace, middle, shard, cool, sorted)
                    && self.try_moves(&[(other, to), (namespace, middle)])
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
        shard: u32,
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
            let to = self
                .partners(*other, cool, 4)
                .into_iter()
                .find(|to| *to != shard && *to != middle && self.is_cool_with(*other, *to));
            if let Some(to) = to {
                return Some((*other, to));
            }
        }
        None
    }

    /// Whether what is below level 1 counts.
    pub(super) fn is_periodic(&self) -> bool {
        self.settings.mode == Mode::Periodic
    }
}
