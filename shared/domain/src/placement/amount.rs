//! Amounts and how full they make something. Integers only.
//!
//! An amount is an `i64` that is not negative; sums of amounts are `i128`, so that a million
//! namespaces of 10^18 each add up without overflow. How full something is is told in millionths
//! of its capacity and capped at [`MILLIONTHS_MAX`], so that squares of it add up as well.

/// All of a capacity, in millionths of it.
pub const FULL: i64 = 1_000_000;

/// Most dimensions that a fleet can have.
pub const DIMENSIONS_MAX: usize = 8;

/// Fuller than this (more than 500 times full) is told as this.
pub const MILLIONTHS_MAX: i64 = 1 << 29;

/// How much one unit of a capacity is in millionths of it, as a factor: dividing costs more than
/// all the rest of a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    factor: u64,
    shift: u32,
}

impl Ratio {
    /// Of something without limit: nothing fills it.
    pub const UNLIMITED: Ratio = Ratio { factor: 0, shift: 0 };

    /// Of a capacity; one that is not positive is no limit.
    pub fn of(capacity: i64) -> Self {
        let Ok(capacity @ 1..) = u64::try_from(capacity) else { return Self::UNLIMITED };
        // At most 2^20 × 2^shift / 2^(bits - 1) = 2^61, whatever the capacity. Rounded up, so that
        // a full shard is at exactly a million; the error is far below one millionth.
        let shift = 40 + (u64::BITS - capacity.leading_zeros());
        let factor = ((FULL as u128) << shift).div_ceil(u128::from(capacity));
        Self { factor: factor as u64, shift }
    }

    /// How full `load` makes it. Millionths, from 0 to [`MILLIONTHS_MAX`].
    #[inline]
    pub fn millionths(self, load: i128) -> i64 {
        if load <= 0 {
            return 0;
        }
        let (mut load, mut shift) = (load as u128, self.shift);
        if load >> 63 != 0 {
            // More than an `i64`: what falls off the end is far below one millionth.
            let excess = u128::BITS - load.leading_zeros() - 63;
            if excess > shift {
                return if self.factor == 0 { 0 } else { MILLIONTHS_MAX };
            }
            (load, shift) = (load >> excess, shift - excess);
        }
        let product = load * u128::from(self.factor);
        (product >> shift).min(MILLIONTHS_MAX as u128) as i64
    }
}

/// `part / whole` in millionths, rounded up, capped; zero where there is no whole.
pub fn millionths(part: i128, whole: i128) -> i64 {
    if part <= 0 || whole <= 0 {
        return 0;
    }
    let scaled = part.checked_mul(i128::from(FULL)).map_or(i128::MAX, |p| p.div_euclid(whole));
    let exact = part.checked_mul(i128::from(FULL)).is_some_and(|p| p % whole == 0);
    (scaled.saturating_add(i128::from(!exact))).min(i128::from(MILLIONTHS_MAX)) as i64
}

/// `12.3 %`, from millionths.
pub fn percent(millionths: i64) -> String {
    format!("{}.{} %", millionths / 10_000, millionths / 1_000 % 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_one_is_at_a_million_and_nothing_overflows() {
        for capacity in [1, 2, 3, 7, 1000, 999_999_937, i64::MAX / 3, i64::MAX] {
            assert_eq!(Ratio::of(capacity).millionths(i128::from(capacity)), FULL, "{capacity}");
        }
        assert_eq!(Ratio::of(1).millionths(i128::MAX), MILLIONTHS_MAX);
        assert_eq!(Ratio::of(0).millionths(i128::MAX), 0);
        assert_eq!(Ratio::of(-5).millionths(7), 0);
        assert_eq!(Ratio::of(5).millionths(-7), 0);
        let huge = i64::MAX / 2;
        assert_eq!(Ratio::of(huge).millionths(i128::from(huge) * 300), 300 * FULL);
        assert_eq!(millionths(i128::MAX, 1), MILLIONTHS_MAX);
        assert_eq!((millionths(1, 3), millionths(1, 0), millionths(3, 3)), (333_334, 0, FULL));
    }

    proptest! {
        #[test]
        fn the_factor_is_as_good_as_a_division(capacity in 1..i64::MAX, load in 0..i64::MAX) {
            let exact = i128::from(load) * i128::from(FULL) / i128::from(capacity);
            let told = i128::from(Ratio::of(capacity).millionths(i128::from(load)));
            prop_assert!(told == exact.min(i128::from(MILLIONTHS_MAX)) || told == exact + 1);
        }
    }
}
