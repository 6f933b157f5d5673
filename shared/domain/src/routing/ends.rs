//! How the prefixes of a table end: which starts of a dag_id are worth looking up.
//!
//! Of a dag_id's many starts nearly none can be a prefix. Prefixes end by convention (`.`, `__`),
//! and a table knows which pairs of length and [`Ending`] it has. That a second underscore is an
//! ending of its own tells `payments__` from the single ones that dag_ids are full of. A table of
//! few conventions looks up one start of most dag_ids.
//!
//! Ruling out comes before every look-up and counts its instructions: the fewer, the more look-ups
//! a processor keeps in flight while memory answers. So it takes eight bytes at a time, then all
//! starts at once.
//!
//! Invariant: a prefix in the table is never ruled out. Others may pass; the index decides.

use std::collections::BTreeMap;

use triomphe::Arc;

/// How a prefix ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    /// With an underscore.
    Underscore,
    /// With an underscore after another separator.
    SecondUnderscore,
    /// With a full stop or a hyphen.
    Point,
    /// With a full stop or a hyphen after another separator.
    SecondPoint,
    /// With another character: any start of its length may be such a prefix.
    Other,
}

/// Starts that are ruled on together: a bit for each. The start of length n is bit n - 1.
const BLOCK: usize = u64::BITS as usize;

/// Lengths that prefixes have, by ending.
#[derive(Clone, Copy, Default)]
struct Lengths {
    with: [u64; Ending::Other as usize + 1],
}

/// What a look-up reads.
#[derive(Clone, Default)]
struct Filter {
    /// Length of the longest prefix. Bytes.
    longest: usize,
    /// Up to there, block by block.
    lengths: Vec<Lengths>,
}

/// The endings of all prefixes, with their number. A clone shares everything.
#[derive(Clone, Default)]
pub(super) struct Ends {
    filter: Arc<Filter>,
    counts: Arc<BTreeMap<(usize, Ending), usize>>,
}

impl Ends {
    /// The starts of a dag_id that may be prefixes, longest first. Starts are of bytes, not of
    /// characters: one that cuts a character equals no prefix.
    #[inline]
    pub(super) fn starts<'a>(&'a self, dag_id: &'a [u8]) -> Starts<'a> {
        let filter = &*self.filter;
        // Whole words are less work; no prefix has the lengths that this adds.
        let dag_id = &dag_id[..dag_id.len().min(filter.longest.next_multiple_of(8))];
        Starts { filter, dag_id, blocks: dag_id.len().div_ceil(BLOCK), left: 0 }
    }

    /// Takes note of a prefix that was added.
    pub(super) fn add(&mut self, prefix: &[u8]) {
        let counts = Arc::make_mut(&mut self.counts);
        let count = counts.entry((prefix.len(), ending(prefix))).or_default();
        *count += 1;
        if *count == 1 {
            self.filter = Arc::new(Filter::of(counts.keys()));
        }
    }

    /// Takes note of a prefix that was removed; it was added before.
    pub(super) fn remove(&mut self, prefix: &[u8]) {
        let counts = Arc::make_mut(&mut self.counts);
        let key = (prefix.len(), ending(prefix));
        let count = counts.get_mut(&key).expect("what is removed was added");
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
            self.filter = Arc::new(Filter::of(counts.keys()));
        }
    }
}

impl Filter {
    fn of<'a>(endings: impl Iterator<Item = &'a (usize, Ending)>) -> Self {
        let mut filter = Self::default();
        for (length, ending) in endings {
            // A prefix is never empty; one that were would be ruled out, not found.
            let Some(last) = length.checked_sub(1) else { continue };
            filter.longest = filter.longest.max(*length);
            filter.lengths.resize(filter.longest.div_ceil(BLOCK), Lengths::default());
            filter.lengths[last / BLOCK].with[*ending as usize] |= 1 << (last % BLOCK);
        }
        filter
    }

    /// The starts in a block that may be prefixes.
    #[inline]
    fn candidates(&self, dag_id: &[u8], block: usize) -> u64 {
        let start = block * BLOCK;
        let bytes = &dag_id[start..dag_id.len().min(start + BLOCK)];
        let Marks { underscores, points } = Marks::of(bytes);
        let separators = underscores | points;
        let before = start.checked_sub(1).is_some_and(|before| is_separator(dag_id[before]));
        let second = separators << 1 | u64::from(before);
        let within = u64::MAX >> (BLOCK - bytes.len());
        let [underscore, second_underscore, point, second_point, other] = self.lengths[block].with;
        underscores & (underscore & !second | second_underscore & second)
            | points & (point & !second | second_point & second)
            | other & within
    }
}

/// The starts of a dag_id that may be prefixes, longest first.
pub(super) struct Starts<'a> {
    filter: &'a Filter,
    dag_id: &'a [u8],
    /// Blocks that have not been ruled on.
    blocks: usize,
    /// What is left of the block after those.
    left: u64,
}

impl<'a> Iterator for Starts<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while self.left == 0 {
            self.blocks = self.blocks.checked_sub(1)?;
            self.left = self.filter.candidates(self.dag_id, self.blocks);
        }
        let last = self.left.ilog2();
        self.left ^= 1 << last;
        self.dag_id.get(..=self.blocks * BLOCK + last as usize)
    }
}

/// Where separators are among up to 64 bytes, a bit for each. ASCII that cannot stand in a dag_id,
/// and so not in a prefix, may be marked or not.
struct Marks {
    underscores: u64,
    points: u64,
}

impl Marks {
    #[inline]
    fn of(bytes: &[u8]) -> Self {
        let mut marks = Self { underscores: 0, points: 0 };
        let (words, rest) = bytes.as_chunks();
        for word in words.iter().rev() {
            let Self { underscores, points } = Self::of_word(*word);
            marks.underscores = marks.underscores << 8 | underscores;
            marks.points = marks.points << 8 | points;
        }
        if rest.is_empty() {
            return marks;
        }
        // Where there are eight bytes, to read some of them again is less work than to copy.
        let (last, from) = match bytes.last_chunk() {
            Some(last) => (*last, bytes.len() - 8),
            None => {
                let mut word = [b'a'; 8];
                word[..rest.len()].copy_from_slice(rest);
                (word, 0)
            }
        };
        let Self { underscores, points } = Self::of_word(last);
        marks.underscores |= underscores << from;
        marks.points |= points << from;
        marks
    }

    /// Without the bits that are cases of letters and signs, `_` is 0x5f, `-` and `.` are below
    /// 0x10, and letters and digits are neither; adding one makes single bits tell that.
    #[inline]
    fn of_word(word: [u8; 8]) -> Self {
        const EACH: u64 = 0x0101_0101_0101_0101;
        const HIGHEST: u64 = 0x80 * EACH;
        let word = u64::from_le_bytes(word);
        let x = (word & (0x5f * EACH)) + EACH;
        let ascii = !word & HIGHEST;
        // Brings the highest bits of the bytes together in the highest byte.
        let gather = |marks: u64| ((marks & ascii) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        Self { underscores: gather(x << 2), points: gather(!(x << 1 | x << 3)) }
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'_' | b'.' | b'-')
}

fn ending(prefix: &[u8]) -> Ending {
    let second = matches!(prefix, [.., before, _] if is_separator(*before));
    match prefix.last() {
        Some(b'_') if second => Ending::SecondUnderscore,
        Some(b'_') => Ending::Underscore,
        Some(b'.' | b'-') if second => Ending::SecondPoint,
        Some(b'.' | b'-') => Ending::Point,
        _ => Ending::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts<'a>(ends: &'a Ends, dag_id: &'a str) -> Vec<&'a str> {
        let text = |start| str::from_utf8(start).unwrap_or("cuts a character");
        ends.starts(dag_id.as_bytes()).map(text).collect()
    }

    fn add(ends: &mut Ends, prefixes: &[&str]) {
        for prefix in prefixes {
            ends.add(prefix.as_bytes());
        }
    }

    #[test]
    fn only_starts_that_end_like_a_prefix_are_worth_a_look() {
        let mut ends = Ends::default();
        add(&mut ends, &["payments__", "billing.", "billing_eu.", "größe."]);
        assert_eq!(starts(&ends, "payments__load_all.x"), ["payments__"]);
        assert_eq!(starts(&ends, "shipping.eu.x"), Vec::<&str>::new());
        assert_eq!(starts(&ends, "bill_me.eux.x"), ["bill_me."]);
        assert_eq!(starts(&ends, "bill_me.xx.x"), ["bill_me.xx.", "bill_me."]);
        assert_eq!(starts(&ends, "billing"), Vec::<&str>::new());
        assert_eq!(starts(&ends, ""), Vec::<&str>::new());
    }

    #[test]
    fn an_ending_goes_with_the_last_prefix_that_has_it() {
        let mut ends = Ends::default();
        add(&mut ends, &["abc.", "xyz-", "abc_", "abcde"]);
        let before = ends.clone();
        ends.remove(b"abc.");
        assert_eq!(starts(&ends, "abc.d"), ["abc.d", "abc."]);
        ends.remove(b"xyz-");
        assert_eq!(starts(&ends, "abc.d"), ["abc.d"]);
        ends.remove(b"abcde");
        assert_eq!(starts(&ends, "uvw_d"), ["uvw_"]);
        ends.remove(b"abc_");
        assert!(ends.filter.lengths.is_empty() && ends.counts.is_empty());
        assert_eq!(starts(&before, "abc.d"), ["abc.d", "abc."], "an older snapshot is untouched");
    }

    #[test]
    fn prefixes_may_be_long_and_end_with_anything() {
        let mut ends = Ends::default();
        let long = format!("{}.", "é".repeat(63));
        add(&mut ends, &[&long, "team1", &"x".repeat(64), &format!("{}__", "y".repeat(63))]);
        assert_eq!(starts(&ends, &format!("{long}a.b"))[0], long);
        assert_eq!(starts(&ends, "team2s"), ["team2"]);
        assert_eq!(starts(&ends, "team"), Vec::<&str>::new());
        let lengths = |dag_id: &str| -> Vec<usize> {
            ends.starts(dag_id.as_bytes()).map(<[u8]>::len).collect()
        };
        assert_eq!(lengths(&"x".repeat(250)), [64, 5]);
        assert_eq!(lengths(&format!("{}__", "z".repeat(63))), [65, 64, 5], "over a block's edge");
        assert_eq!(lengths(&format!("{}_", "z".repeat(64))), [64, 5]);
    }

    #[test]
    fn separators_are_marked_and_letters_and_digits_are_not() {
        for length in 0..=BLOCK {
            let id: Vec<u8> = (0..length).map(|at| b"a_Zz.09-A"[at * 7 % 9]).collect();
            let Marks { underscores, points } = Marks::of(&id);
            for at in 0..BLOCK {
                let is = |bytes: &[u8]| id.get(at).is_some_and(|byte| bytes.contains(byte));
                assert_eq!(underscores >> at & 1 == 1, is(b"_"), "{at} of {length}");
                assert_eq!(points >> at & 1 == 1, is(b".-"), "{at} of {length}");
            }
        }
        for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii() || byte.is_ascii_alphanumeric()) {
            let Marks { underscores, points } = Marks::of_word([byte; 8]);
            assert_eq!((underscores, points), (0, 0), "{byte:#x}");
        }
    }
}
