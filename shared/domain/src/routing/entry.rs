//! An assignment as the table keeps it: packed into one allocation, shared by everything that
//! points to it.
//!
//! A resolve ends here, so it matters how many cache lines an answer takes. Typed fields
//! (`Arc<str>` behind `Arc<str>`) would cost three dependent misses for one name and some 200 bytes
//! more; here the numbers come first and all texts follow them in one block.
//!
//! Invariant: the texts are those of a valid [`Assignment`], so reading them back cannot fail.

use std::{fmt, str};

use triomphe::ThinArc;

use crate::ids::{Generation, NamespaceName, Prefix, Revision, ShardName};

/// Where a namespace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// A shard owns it.
    Assigned,
    /// No shard fits it yet.
    Unplaced,
    /// It was given up so that it can be deleted.
    Released,
    /// A shard owns it, and it is on the way to another: no shard starts runs of it now.
    Moving,
}

/// A namespace and the shard that owns it, in full: what an [`Entry`] is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The namespace.
    pub namespace: NamespaceName,
    /// Its uid in the registry.
    pub namespace_uid: String,
    /// dag_id prefixes that it owns. Kept sorted and without repetition.
    pub prefixes: Vec<Prefix>,
    /// The shard that owns it; none where it is not assigned.
    pub shard: Option<ShardName>,
    /// Grows by one at every change of owner.
    pub generation: Generation,
    /// Where it stands.
    pub state: State,
    /// The shard that it is bound to.
    pub pinned_shard: Option<ShardName>,
    /// Why it is where it is, in one line.
    pub reason: String,
    /// Revision at which it last changed.
    pub revision: Revision,
    /// When it last changed. Microseconds since 1970-01-01 UTC.
    pub update_time_us: i64,
}

/// The numbers of an entry. What is read on every resolve is small and lies next to the texts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Facts {
    generation: Generation,
    revision: Revision,
    update_time_us: i64,
    prefix_count: u32,
    state: State,
}

/// A packed [`Assignment`]. A clone is a pointer and a count, and shares everything.
///
/// Texts lie one after another, each behind its length: namespace, shard, pinned shard, prefixes in
/// order, uid, reason. An absent shard is an empty text. Lengths take seven bits a byte, lowest
/// first, the eighth saying that more follow: one byte, for nearly all.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry(ThinArc<Facts, u8>);

/// Place of a name within the texts of its entry.
pub(super) type NamePlace = u32;

/// Where the namespace's own name lies.
pub(super) const NAMESPACE: NamePlace = 0;

impl Entry {
    /// Packs an assignment.
    pub fn new(assignment: &Assignment) -> Self {
        let mut prefixes: Vec<&str> = assignment.prefixes.iter().map(Prefix::as_str).collect();
        prefixes.sort_unstable();
        prefixes.dedup();

        let mut texts = Vec::with_capacity(256);
        push(&mut texts, assignment.namespace.as_str());
        push(&mut texts, assignment.shard.as_ref().map_or("", ShardName::as_str));
        push(&mut texts, assignment.pinned_shard.as_ref().map_or("", ShardName::as_str));
        for prefix in &prefixes {
            push(&mut texts, prefix);
        }
        push(&mut texts, &assignment.namespace_uid);
        push(&mut texts, &assignment.reason);

        let facts = Facts {
            generation: assignment.generation,
            revision: assignment.revision,
            update_time_us: assignment.update_time_us,
            prefix_count: u32::try_from(prefixes.len()).expect("fewer prefixes than bytes in u32"),
            state: assignment.state,
        };
        Self(ThinArc::from_header_and_slice(facts, &texts))
    }

    /// Unpacks all of it.
    pub fn assignment(&self) -> Assignment {
        let shard = |text: &str| -> ShardName { text.parse().expect("packed from a shard name") };
        Assignment {
            namespace: self.namespace_name(),
            namespace_uid: self.namespace_uid().to_owned(),
            prefixes: self
                .prefixes()
                .map(|prefix| prefix.parse().expect("packed from a prefix"))
                .collect(),
            shard: self.shard().map(shard),
            generation: self.generation(),
            state: self.state(),
            pinned_shard: self.pinned_shard().map(shard),
            reason: self.reason().to_owned(),
            revision: self.revision(),
            update_time_us: self.update_time_us(),
        }
    }

    /// Name of the namespace.
    pub fn namespace(&self) -> &str {
        text(self.name_at(NAMESPACE))
    }

    /// Name of the namespace, as a value of its own.
    pub fn namespace_name(&self) -> NamespaceName {
        self.namespace().parse().expect("packed from a namespace name")
    }

    /// The shard that owns it; none where it is not assigned.
    pub fn shard(&self) -> Option<&str> {
        self.texts_from(NAMESPACE).nth(1).map(text).filter(|name| !name.is_empty())
    }

    /// The shard that it is bound to.
    pub fn pinned_shard(&self) -> Option<&str> {
        self.texts_from(NAMESPACE).nth(2).map(text).filter(|name| !name.is_empty())
    }

    /// dag_id prefixes that it owns, sorted.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.texts_from(NAMESPACE).skip(3).take(self.facts().prefix_count as usize).map(text)
    }

    /// Uid of the namespace in the registry.
    pub fn namespace_uid(&self) -> &str {
        self.texts_after_prefixes().next().map_or("", text)
    }

    /// Why it is where it is, in one line.
    pub fn reason(&self) -> &str {
        self.texts_after_prefixes().nth(1).map_or("", text)
    }

    /// Grows by one at every change of owner.
    pub fn generation(&self) -> Generation {
        self.facts().generation
    }

    /// Where the namespace stands.
    pub fn state(&self) -> State {
        self.facts().state
    }

    /// Revision at which it last changed.
    pub fn revision(&self) -> Revision {
        self.facts().revision
    }

    /// When it last changed. Microseconds since 1970-01-01 UTC.
    pub fn update_time_us(&self) -> i64 {
        self.facts().update_time_us
    }

    /// The name at a place that [`Entry::prefix_places`] gave, or at [`NAMESPACE`].
    pub(super) fn name_at(&self, place: NamePlace) -> &[u8] {
        self.texts_from(place).next().unwrap_or_default()
    }

    /// The prefixes with their places, sorted.
    pub(super) fn prefix_places(&self) -> impl Iterator<Item = (NamePlace, &[u8])> {
        let mut texts = self.texts_from(NAMESPACE);
        texts.nth(2);
        (0..self.facts().prefix_count).map_while(move |_| {
            let place = NamePlace::try_from(texts.place).expect("names end far below 4 GiB");
            Some((place, texts.next()?))
        })
    }

    /// Whether both are the very same allocation.
    pub(super) fn is(&self, other: &Entry) -> bool {
        self.0.ptr() == other.0.ptr()
    }

    fn facts(&self) -> &Facts {
        &self.0.header.header
    }

    fn texts_from(&self, place: NamePlace) -> Texts<'_> {
        Texts { bytes: &self.0.slice, place: place as usize }
    }

    fn texts_after_prefixes(&self) -> impl Iterator<Item = &[u8]> {
        self.texts_from(NAMESPACE).skip(3 + self.facts().prefix_count as usize)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.assignment().fmt(f)
    }
}

impl From<&Assignment> for Entry {
    fn from(assignment: &Assignment) -> Self {
        Self::new(assignment)
    }
}

fn push(texts: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    while length >= usize::from(MORE) {
        texts.push(length as u8 | MORE);
        length >>= 7;
    }
    texts.push(length as u8);
    texts.extend_from_slice(text.as_bytes());
}

/// In a byte of a length, says that another follows.
const MORE: u8 = 0x80;

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("packed from a str")
}

/// The texts from some place on.
struct Texts<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let first = *self.bytes.get(self.place)?;
        let mut length = usize::from(first & !MORE);
        self.place += 1;
        if first & MORE != 0 {
            length |= self.rest_of_length()?;
        }
        let text = self.bytes.get(self.place..)?.get(..length)?;
        self.place += length;
        Some(text)
    }
}

impl Texts<'_> {
    /// The length but for its lowest seven bits.
    fn rest_of_length(&mut self) -> Option<usize> {
        let mut length = 0;
        for shift in (7..usize::BITS).step_by(7) {
            let byte = *self.bytes.get(self.place)?;
            self.place += 1;
            length |= usize::from(byte & !MORE) << shift;
            if byte & MORE == 0 {
                return Some(length);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_everything_and_orders_prefixes() {
        let assignment = Assignment {
            namespace: "payments".parse().unwrap(),
            namespace_uid: "0198c2c0-uid".into(),
            prefixes: ["pay.", "größe__", "pay.", "payments__"]
                .iter()
                .map(|prefix| prefix.parse().unwrap())
                .collect(),
            shard: Some("shard-7".parse().unwrap()),
            generation: Generation(3),
            state: State::Assigned,
            pinned_shard: None,
            reason: "most room — first by name".into(),
            revision: Revision(41),
            update_time_us: -5,
        };
        let entry = Entry::new(&assignment);
        let prefixes = ["größe__", "pay.", "payments__"];
        assert_eq!(entry.prefixes().collect::<Vec<_>>(), prefixes);
        for (place, prefix) in entry.prefix_places() {
            assert_eq!(entry.name_at(place), prefix);
        }
        assert_eq!(entry.prefix_places().count(), 3);
        let back = entry.assignment();
        assert_eq!(Entry::new(&back), entry);
        let expected =
            Assignment { prefixes: prefixes.map(|p| p.parse().unwrap()).to_vec(), ..assignment };
        assert_eq!(back, expected);
    }

    #[test]
    fn an_entry_without_prefixes_or_shard_is_whole() {
        let assignment = Assignment {
            namespace: "abc".parse().unwrap(),
            namespace_uid: String::new(),
            prefixes: Vec::new(),
            shard: None,
            generation: Generation(0),
            state: State::Unplaced,
            pinned_shard: Some("only-here".parse().unwrap()),
            reason: String::new(),
            revision: Revision(1),
            update_time_us: 0,
        };
        let entry = Entry::new(&assignment);
        assert_eq!(entry.prefix_places().count(), 0);
        assert_eq!(entry.shard(), None);
        assert_eq!(entry.pinned_shard(), Some("only-here"));
        assert_eq!(entry.assignment(), assignment);
    }
}
