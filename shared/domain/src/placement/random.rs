//! Numbers that look random and are the same each time (splitmix64).

/// A sequence of them.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self::of(seed, 0)
    }

    /// From a seed, another one for each `part` of what is decided by it.
    pub fn of(seed: u64, part: u64) -> Self {
        let seed = seed ^ 0x6a09_e667_f3bc_c909;
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `count`.
    pub fn below(&mut self, count: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(count)) >> 64) as u64
    }

    /// A position among `count`.
    pub fn position(&mut self, count: usize) -> usize {
        self.below(count as u64) as usize
    }

    /// Whether something happens that happens so often. Millionths.
    pub fn happens(&mut self, millionths: u32) -> bool {
        self.below(1_000_000) < u64::from(millionths)
    }

    /// About normal, with mean 0 and standard deviation 2^16: the sum of twelve uniform ones.
    pub fn normal(&mut self) -> i64 {
        (0..12).map(|_| self.below(1 << 16) as i64).sum::<i64>() - 6 * (1 << 16)
    }
}
