//! How the prefixes of a table end: which starts of a dag_id are worth looking up.
//!
//! Of a dag_id's many starts nearly none can be a prefix. Prefixes end by convention (`.`, `__`),
//! and a table knows which pairs of length and [`Ending`] it has. That a second underscore is an
//! ending of its own tells `payments__` from the single ones that dag_ids are full of. A table of
//! few conventions looks up one start of most dag_ids.
//!
//! Ruling out comes before every look-up and counts its instructions: the fewer, the more look-ups
//! a processor keeps in flight while memory answers. So it takes eight bytes at a time, and only
//! where prefixes end.
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

/// Bytes that are read together, as a number with the first byte lowest.
const WORD: usize = size_of::<u64>();

/// Bytes of a word that are ruled on. The first is there for what stands before the second, but at
/// the very start.
const STEP: usize = WORD - 1;

/// The lowest bit of each byte of a word.
const LOWEST: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte of a word: what marks the byte.
const HIGHEST: u64 = 0x80 * LOWEST;

/// Where prefixes end within one word: marks by ending.
#[derive(Clone, Copy, Default)]
struct Word {
    /// Place of its first byte: a multiple of [`STEP`].
    from: usize,
    underscore: Marks,
    point: Marks,
    other: u64,
}

/// Marks for a separator that follows another character, and for one that follows a separator.
#[derive(Clone, Copy, Default)]
struct Marks {
    first: u64,
    second: u64,
}

/// The endings of all prefixes, with their number. A clone shares everything.
#[derive(Clone, Default)]
pub(super) struct Ends {
    /// The words in which prefixes end, the last first.
    words: Arc<Vec<Word>>,
    counts: Arc<BTreeMap<(usize, Ending), usize>>,
}

impl Ends {
    /// The starts of a dag_id that may be prefixes, longest first. Starts are of bytes, not of
    /// characters: one that cuts a character equals no prefix.
    #[inline]
    pub(super) fn starts<'a>(&'a self, dag_id: &'a [u8]) -> Starts<'a> {
        Starts { words: self.words.iter(), dag_id, from: 0, marks: 0 }
    }

    /// Takes note of a prefix that was added.
    pub(super) fn add(&mut self, prefix: &[u8]) {
        let counts = Arc::make_mut(&mut self.counts);
        let count = counts.entry((prefix.len(), ending(prefix))).or_default();
        *count += 1;
        if *count == 1 {
            self.words = words(counts.keys());
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
            self.words = words(counts.keys());
        }
    }
}

/// The words of these endings, which come by length.
fn words<'a>(endings: impl DoubleEndedIterator<Item = &'a (usize, Ending)>) -> Arc<Vec<Word>> {
    let mut words: Vec<Word> = Vec::new();
    for (length, ending) in endings.rev() {
        // A prefix is never empty; one that were would be ruled out, not found.
        let Some(last) = length.checked_sub(1) else { continue };
        let from = last.saturating_sub(1) / STEP * STEP;
        if words.last().is_none_or(|word| word.from != from) {
            words.push(Word { from, ..Word::default() });
        }
        let Some(word) = words.last_mut() else { continue };
        let marks = match ending {
            Ending::Underscore => &mut word.underscore.first,
            Ending::SecondUnderscore => &mut word.underscore.second,
            Ending::Point => &mut word.point.first,
            Ending::SecondPoint => &mut word.point.second,
            Ending::Other => &mut word.other,
        };
        *marks |= 0x80 << (8 * (last - from));
    }
    Arc::new(words)
}

/// The starts of a dag_id that may be prefixes, longest first.
pub(super) struct Starts<'a> {
    /// Those that have not been ruled on.
    words: std::slice::Iter<'a, Word>,
    dag_id: &'a [u8],
    /// What is left of the word before those.
    from: usize,
    marks: u64,
}

impl<'a> Iterator for Starts<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            while self.marks == 0 {
                let word = self.words.next()?;
                self.from = word.from;
                self.marks = word.candidates(self.dag_id);
            }
            let mark = self.marks.ilog2();
            self.marks ^= 1 << mark;
            let start = self.dag_id.get(..=self.from + mark as usize / 8);
            // Behind the end of a dag_id bytes may be marked, too.
            if start.is_some() {
                return start;
            }
        }
    }
}

impl Word {
    /// Marks the last bytes of starts that may be prefixes.
    #[inline]
    fn candidates(&self, dag_id: &[u8]) -> u64 {
        let Some(bytes) = dag_id.get(self.from..) else { return 0 };
        let word = match bytes.first_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => part_of_word(dag_id, self.from),
        };
        let Separators { underscores, points } = Separators::of(word);
        let second = (underscores | points) << 8;
        let by_place = |marks: Marks| marks.first ^ (marks.first ^ marks.second) & second;
        underscores & by_place(self.underscore) | points & by_place(self.point) | self.other
    }
}

/// The last word of a dag_id, if it is not full: zeros behind.
fn part_of_word(dag_id: &[u8], from: usize) -> u64 {
    let missing = 8 * (from + WORD - dag_id.len());
    match dag_id.last_chunk() {
        // To read some bytes again is less work than to copy the others.
        Some(last) => u64::from_le_bytes(*last).checked_shr(missing as u32).unwrap_or(0),
        None => dag_id.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Marks of the separators in a word. ASCII that cannot stand in a dag_id, and so not in a prefix,
/// may be marked or not.
struct Separators {
    underscores: u64,
    points: u64,
}

impl Separators {
    /// Without the bits that are cases of letters and signs, `_` is 0x5f, `-` and `.` are below
    /// 0x10, and letters and digits are neither; adding one makes single bits tell that.
    #[inline]
    fn of(word: u64) -> Self {
        let x = (word & (0x5f * LOWEST)) + LOWEST;
        let ascii = !word & HIGHEST;
        Self { underscores: x << 2 & ascii, points: !(x << 1 | x << 3) & ascii }
    }
}

#[inline]
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
        assert!(ends.words.is_empty() && ends.counts.is_empty());
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
        for byte in 0..=u8::MAX {
            let Separators { underscores, points } = Separators::of(u64::from_le_bytes([byte; 8]));
            let all_if = |is: bool| if is { HIGHEST } else { 0 };
            if !byte.is_ascii() || byte.is_ascii_alphanumeric() || is_separator(byte) {
                assert_eq!(underscores, all_if(byte == b'_'), "{byte:#x}");
                assert_eq!(points, all_if(matches!(byte, b'.' | b'-')), "{byte:#x}");
            }
        }
    }

    #[test]
    fn every_start_is_ruled_on_alike_wherever_words_end() {
        let text = "a_b.c-__d..e_.-f".repeat(3);
        for length in 0..text.len() {
            let dag_id = &text[..length];
            for prefix in 1..=text.len() {
                let mut ends = Ends::default();
                add(&mut ends, &[&text[..prefix]]);
                let expected: Vec<&str> = dag_id.get(..prefix).into_iter().collect();
                assert_eq!(starts(&ends, dag_id), expected, "prefix {prefix} of {length}");
                let other = "x".repeat(length);
                let passes = length >= prefix && text.as_bytes()[prefix - 1].is_ascii_alphabetic();
                assert_eq!(starts(&ends, &other).len(), usize::from(passes));
            }
        }
    }
}
