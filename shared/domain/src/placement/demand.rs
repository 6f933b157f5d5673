//! What a namespace is taken to need, from what it was measured to use.
//!
//! Declared demand counts until an hour was measured. From then on the measured one does: in each
//! dimension the larger of the 95th percentile of the last hour, by minutes, and of the coming hour
//! a week ago, so that Monday's peak is expected on Monday. It follows upwards by half and
//! downwards by a tenth each hour, and what is told only changes when it is off by more than an
//! eighth: noise moves nothing.
//!
//! Many estimators have to fit into memory. Of the hour under way only the four largest minutes are
//! kept, of which the last is the 95th percentile of sixty; amounts of past hours are kept in 16
//! bits, rounded up by at most 0.1 %. A week of five dimensions takes 1.7 kB; without a week (see
//! [`Estimator::new`]) it is a tenth of that.

use super::amount::DIMENSIONS_MAX;

const WEEK_HOURS: i64 = 7 * 24;
/// Minutes of an hour that are kept: the largest.
const KEPT: usize = 4;
/// An hour of which fewer minutes were measured says nothing.
const MINUTES_MIN: usize = 30;

/// An amount in 16 bits: six of exponent, ten of mantissa; the smallest that is not below it.
fn pack(amount: i64) -> u16 {
    let amount = amount.max(0) as u64;
    if amount < 1 << 10 {
        return amount as u16;
    }
    let shift = u64::BITS - amount.leading_zeros() - 11;
    let mantissa = amount.div_ceil(1 << shift);
    // Rounding up may reach the next power of two.
    let (shift, mantissa) =
        if mantissa == 1 << 11 { (shift + 1, 1 << 10) } else { (shift, mantissa) };
    ((shift + 1) << 10) as u16 | (mantissa & 0x3ff) as u16
}

fn unpack(packed: u16) -> i64 {
    let (exponent, mantissa) = (u32::from(packed >> 10), i128::from(packed & 0x3ff));
    let amount = if exponent == 0 { mantissa } else { (mantissa | 0x400) << (exponent - 1) };
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// Follows what one namespace uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimator {
    width: usize,
    /// The hour under way, in hours since 1970.
    hour: i64,
    minutes: usize,
    largest: [[i64; KEPT]; DIMENSIONS_MAX],
    /// By hour of the week and dimension; empty where no week is kept.
    week: Vec<u16>,
    smoothed: [i64; DIMENSIONS_MAX],
    told: Option<[i64; DIMENSIONS_MAX]>,
}

impl Estimator {
    /// Nothing is measured yet. `week` says whether past hours are kept for a week.
    pub fn new(width: usize, week: bool) -> Self {
        let width = width.min(DIMENSIONS_MAX);
        Self {
            width,
            hour: i64::MIN,
            minutes: 0,
            largest: [[0; KEPT]; DIMENSIONS_MAX],
            week: if week { vec![0; width * WEEK_HOURS as usize] } else { Vec::new() },
            smoothed: [0; DIMENSIONS_MAX],
            told: None,
        }
    }

    /// What was used in a minute, by minutes since 1970. Minutes come in order; one that comes
    /// again, or late, is left out of account. Answers whether what is told changed.
    pub fn observe(&mut self, minute: i64, usage: &[i64]) -> bool {
        let hour = minute.div_euclid(60);
        if hour < self.hour {
            return false;
        }
        let changed = hour > self.hour && self.end_hour(hour);
        self.minutes += 1;
        for (largest, used) in self.largest.iter_mut().zip(usage).take(self.width) {
            let place = largest.partition_point(|kept| kept >= used);
            if place < KEPT {
                largest[place..].rotate_right(1);
                largest[place] = *used;
            }
        }
        changed
    }

    /// What it is taken to need; none until an hour was measured.
    pub fn demand(&self) -> Option<&[i64]> {
        self.told.as_ref().map(|told| &told[..self.width])
    }

    fn slot(&self, hour: i64) -> usize {
        hour.rem_euclid(WEEK_HOURS) as usize * self.width
    }

    fn end_hour(&mut self, next: i64) -> bool {
        let (ended, minutes) = (self.hour, self.minutes);
        self.hour = next;
        self.minutes = 0;
        let largest = std::mem::replace(&mut self.largest, [[0; KEPT]; DIMENSIONS_MAX]);
        if ended == i64::MIN {
            return false;
        }
        // The 95th percentile: one in twenty minutes may be above it.
        let rank = (minutes / 20).min(KEPT - 1);
        let measured = minutes >= MINUTES_MIN;
        let expected: Vec<i64> = (0..self.width)
            .map(|d| self.week.get(self.slot(next) + d).copied().map_or(0, unpack))
            .collect();
        if !self.week.is_empty() {
            // Hours that nobody measured are not known to be as a week before.
            for hour in ended..next.min(ended.saturating_add(WEEK_HOURS)) {
                let slot = self.slot(hour);
                for (d, largest) in largest.iter().enumerate().take(self.width) {
                    let known = hour == ended && measured;
                    self.week[slot + d] = if known { pack(largest[rank]) } else { 0 };
                }
            }
        }
        if !measured {
            return false;
        }
        for d in 0..self.width {
            let now = largest[d][rank].max(expected[d]).max(0);
            let before = self.smoothed[d];
            self.smoothed[d] = match self.told {
                None => now,
                Some(_) if now > before => {
                    before + (now - before).div_euclid(2) + (now - before) % 2
                }
                Some(_) => before - (before - now) / 10,
            };
        }
        let told = self.told.get_or_insert([-1; DIMENSIONS_MAX]);
        let mut changed = false;
        for (told, smoothed) in told.iter_mut().zip(self.smoothed).take(self.width) {
            let off = i128::from(smoothed) - i128::from(*told);
            if *told < 0 || off.abs() * 8 > i128::from(*told) {
                changed |= *told != smoothed;
                *told = smoothed;
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hour(estimator: &mut Estimator, hour: i64, usage: impl Fn(i64) -> i64) {
        for minute in 0..60 {
            estimator.observe(hour * 60 + minute, &[usage(minute)]);
        }
    }

    #[test]
    fn nothing_is_told_before_an_hour_was_measured() {
        let mut one = Estimator::new(1, true);
        for minute in 0..60 {
            assert!(!one.observe(minute, &[40]));
            assert_eq!(one.demand(), None);
        }
        assert!(one.observe(60, &[40]));
        assert_eq!(one.demand(), Some(&[40][..]));
    }

    #[test]
    fn three_minutes_of_an_hour_may_be_above_what_is_told() {
        let mut one = Estimator::new(1, false);
        hour(&mut one, 0, |minute| if minute % 20 == 7 { 1000 } else { 40 });
        hour(&mut one, 1, |_| 40);
        assert_eq!(one.demand(), Some(&[40][..]));
        let mut one = Estimator::new(1, false);
        hour(&mut one, 0, |minute| if minute % 15 == 7 { 1000 } else { 40 });
        hour(&mut one, 1, |_| 40);
        assert_eq!(one.demand(), Some(&[1000][..]));
    }

    #[test]
    fn noise_changes_nothing_and_a_trend_does() {
        let mut one = Estimator::new(1, true);
        for at in 0..48 {
            hour(&mut one, at, |minute| 100 + (minute + at) % 9);
        }
        let told = one.demand().unwrap()[0];
        assert!((100..=108).contains(&told), "{told}");
        hour(&mut one, 48, |_| 200);
        hour(&mut one, 49, |_| 200);
        assert!(one.demand().unwrap()[0] > 150, "upwards by half");
        for at in 50..53 {
            hour(&mut one, at, |_| 100);
        }
        assert!(one.demand().unwrap()[0] > 130, "downwards slowly");
    }

    #[test]
    fn mondays_peak_is_expected_on_monday() {
        let mut one = Estimator::new(1, true);
        let week = WEEK_HOURS;
        let peak = |at: i64| if at % week == 9 { 5_000 } else { 100 };
        for at in 0..week + 9 {
            hour(&mut one, at, |_| peak(at));
        }
        assert!(one.demand().unwrap()[0] < 150);
        one.observe((week + 9) * 60, &[100]);
        assert!(one.demand().unwrap()[0] > 2_000, "before anything was measured of it");
        let mut forgetful = Estimator::new(1, false);
        for at in 0..week + 9 {
            hour(&mut forgetful, at, |_| peak(at));
        }
        forgetful.observe((week + 9) * 60, &[100]);
        assert!(forgetful.demand().unwrap()[0] < 150);
    }

    #[test]
    fn an_hour_that_was_hardly_measured_says_nothing() {
        let mut one = Estimator::new(1, true);
        hour(&mut one, 0, |_| 100);
        hour(&mut one, 1, |_| 100);
        for minute in 0..29 {
            one.observe(120 + minute, &[9_000]);
        }
        one.observe(60 * 60, &[100]);
        assert_eq!(one.demand(), Some(&[100][..]));
    }

    proptest! {
        #[test]
        fn packing_rounds_up_by_little(amount in any::<i64>()) {
            let back = unpack(pack(amount));
            prop_assert!(back >= amount.max(0));
            prop_assert!(i128::from(back) <= i128::from(amount.max(0)) * 1002 / 1000 + 1);
        }

        #[test]
        fn whatever_comes_it_never_panics(
            steps in prop::collection::vec((any::<i32>(), any::<i64>()), 0..300),
        ) {
            let mut one = Estimator::new(1, true);
            for (minute, used) in steps {
                one.observe(i64::from(minute), &[used]);
                prop_assert!(one.demand().is_none_or(|told| told[0] >= 0));
            }
        }
    }
}
