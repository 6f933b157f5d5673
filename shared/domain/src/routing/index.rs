//! A persistent hash index from names to entries, made for few cache misses.
//!
//! Thirteen bits of a name's hash lead through three levels of nodes to a page, the next 32 bits
//! are the name's tag and say where in the page it lies. Nodes, with the lengths of their pages,
//! stay in a core's second-level cache; slots hold the names themselves up to 20 bytes. So a lookup
//! of such a name goes to slow memory once; a longer name is compared in its entry.
//!
//! A change copies one node on each level and one page: at a million names some 70 pointers and 120
//! slots. Pages are rebuilt whole, so there are no tombstones. The depth is fixed: at ten million
//! names pages hold 1,200 slots and a change copies 60 KB, which is still well below a millisecond.
//! More and smaller pages would be cheaper to copy, but push the nodes out of the cache.
//!
//! Slots of a page are sorted by tag and lie at or soon after the place that their tag has in
//! proportion. Of several entries with the same name the one that [`precedence`] puts first comes
//! first, and is the one that is found.
//!
//! The index knows hashes and entries, not what its names mean or who hashed them.

use std::cmp::{Ordering, Reverse};

use triomphe::Arc;

use super::entry::{Entry, NamePlace};
use crate::ids::Revision;

const FANOUT: usize = 32;

/// Bits of the hash that choose a child on each level.
const LEVEL_BITS: [u32; 3] = [3, 5, 5];
const PAGE_BITS: u32 = LEVEL_BITS[0] + LEVEL_BITS[1] + LEVEL_BITS[2];

/// Places that a lookup takes in at once: two cache lines, wherever it starts.
const WINDOW: usize = 3;

/// Part of a page that is in use. Per cent. At 60, one slot in seventeen lies outside its window.
const FILL: usize = 60;

/// Longest name that a slot holds. Bytes.
const INLINE: usize = 20;

/// A name, zeros behind; or, of a longer one, its place in the entry.
type Key = [u8; INLINE];

/// In place of a length, says that the name is longer than a slot holds.
const LONG: u8 = u8::MAX;

/// A place in a page: one name of one entry, or free. Never across two cache lines.
#[derive(Clone, Default)]
#[repr(align(32))]
struct Slot {
    entry: Option<Entry>,
    /// 0 where the place is free.
    tag: u32,
    key: Key,
}

const _: () = assert!(size_of::<Slot>() == 32, "half a cache line");

type Page = Arc<[Slot]>;

#[derive(Clone)]
struct Node<T>([Option<T>; FANOUT]);

type Leaf = Node<Page>;
type Branch = Node<Arc<Leaf>>;
type Root = Node<Arc<Branch>>;

#[derive(Clone, Default)]
pub(super) struct Index {
    root: Arc<Root>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self([const { None }; FANOUT])
    }
}

/// Where a hash leads: the child to take on each level, then the tag.
struct Path {
    root: usize,
    branch: usize,
    leaf: usize,
    tag: u32,
}

impl Path {
    #[inline]
    fn of(hash: u64, name: &[u8]) -> Self {
        let [root, branch, leaf] = LEVEL_BITS;
        let child = |end: u32, bits: u32| (hash >> (u64::BITS - end)) as usize % (1 << bits);
        Self {
            root: child(root, root),
            branch: child(root + branch, branch),
            leaf: child(root + branch + leaf, leaf),
            tag: (hash >> (u64::BITS - PAGE_BITS - u32::BITS)) as u32 & !0xff | length(name),
        }
    }
}

/// What a tag ends with: the length of its name, never 0, or [`LONG`].
#[inline]
fn length(name: &[u8]) -> u32 {
    if name.len() <= INLINE { name.len() as u32 } else { u32::from(LONG) }
}

impl Index {
    /// The entry that has this name under this hash.
    #[expect(clippy::inline_always, reason = "a call here costs a tenth of a resolve")]
    #[inline(always)]
    pub(super) fn get(&self, hash: u64, name: &[u8]) -> Option<&Entry> {
        let probe = self.probe(hash, name)?;
        probe.finish(probe.candidates(), name)
    }

    /// Where a name leads, without a look at it.
    #[inline]
    pub(super) fn probe(&self, hash: u64, name: &[u8]) -> Option<Probe<'_>> {
        let path = Path::of(hash, name);
        let branch = self.root.0[path.root].as_ref()?;
        let leaf = branch.0[path.branch].as_ref()?;
        let page = leaf.0[path.leaf].as_ref()?;
        let (window, after) = page[home(path.tag, page.len())..].split_first_chunk()?;
        Some(Probe { window, after, tag: path.tag })
    }

    /// Takes an entry away from under a name, puts one there, or both in one copy. What is put
    /// comes with the place of the name in it.
    pub(super) fn replace(
        &mut self,
        hash: u64,
        name: &[u8],
        remove: Option<&Entry>,
        add: Option<(NamePlace, &Entry)>,
    ) {
        let path = Path::of(hash, name);
        let root = Arc::make_mut(&mut self.root);
        let branch = Arc::make_mut(root.0[path.root].get_or_insert_default());
        let leaf = Arc::make_mut(branch.0[path.branch].get_or_insert_default());
        let page = &mut leaf.0[path.leaf];
        let is_removed = |slot: &Slot| {
            let is = |(gone, entry): (&Entry, &Entry)| gone.is(entry);
            slot.tag == path.tag
                && remove.zip(slot.entry.as_ref()).is_some_and(is)
                && slot.has_name(name)
        };
        let mut slots: Vec<Slot> = page
            .iter()
            .flat_map(|page| page.iter())
            .filter(|slot| slot.tag != 0 && !is_removed(slot))
            .cloned()
            .collect();
        if let Some((place, entry)) = add {
            let (tag, key) = (path.tag, key(name, place));
            let slot = Slot { entry: Some(entry.clone()), tag, key };
            let at = slots.partition_point(|other| precedence(other, &slot).is_lt());
            slots.insert(at, slot);
        }
        *page = lay_out(slots);
    }

    /// The index of all names given: each with its hash and its place in the entry.
    pub(super) fn build(mut names: Vec<(u64, NamePlace, Entry)>) -> Self {
        let page_of = |hash: u64| hash >> (u64::BITS - PAGE_BITS);
        names.sort_unstable_by_key(|(hash, ..)| *hash);
        let mut root = Root::default();
        let mut names = names.into_iter().peekable();
        while let Some((hash, ..)) = names.peek() {
            let (path, number) = (Path::of(*hash, &[]), page_of(*hash));
            let mut slots = Vec::new();
            while let Some((hash, place, entry)) =
                names.next_if(|(hash, ..)| page_of(*hash) == number)
            {
                let name = entry.name_at(place);
                let (tag, key) = (Path::of(hash, name).tag, key(name, place));
                slots.push(Slot { entry: Some(entry), tag, key });
            }
            slots.sort_by(precedence);
            let branch = Arc::make_mut(root.0[path.root].get_or_insert_default());
            let leaf = Arc::make_mut(branch.0[path.branch].get_or_insert_default());
            leaf.0[path.leaf] = lay_out(slots);
        }
        Self { root: Arc::new(root) }
    }
}

/// A look-up that knows its place. It goes in steps, so that many can ask memory for theirs before
/// the first of them waits.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    window: &'a [Slot; WINDOW],
    /// The rest of the page.
    after: &'a [Slot],
    tag: u32,
}

impl<'a> Probe<'a> {
    /// The slots of the window that may have the name, a bit for each.
    ///
    /// Which has it is anybody's guess, and a processor that guesses wrong stands still until the
    /// slots have come from memory. So they are compared without a branch.
    #[inline]
    pub(super) fn candidates(&self) -> u32 {
        self.window
            .iter()
            .enumerate()
            .fold(0, |matching, (at, slot)| matching | u32::from(slot.tag == self.tag) << at)
    }

    /// The entry that has the name.
    #[inline]
    pub(super) fn finish(&self, candidates: u32, name: &[u8]) -> Option<&'a Entry> {
        if let Some(slot) = self.window.get(candidates.trailing_zeros() as usize)
            && slot.has_name(name)
        {
            return slot.entry.as_ref();
        }
        let last = self.window[WINDOW - 1].tag;
        if candidates == 0 && (last == 0 || last > self.tag) {
            return None;
        }
        self.search(name)
    }

    /// Finds a slot that its neighbours pushed out of the window, or whose tag another name has too.
    #[cold]
    fn search(&self, name: &[u8]) -> Option<&'a Entry> {
        self.window
            .iter()
            .chain(self.after)
            .take_while(|slot| slot.tag != 0 && slot.tag <= self.tag)
            .find(|slot| slot.tag == self.tag && slot.has_name(name))?
            .entry
            .as_ref()
    }
}

impl Slot {
    /// Whether the slot's name is this one, given that their tags, and so their lengths, agree.
    #[inline]
    fn has_name(&self, name: &[u8]) -> bool {
        match self.key.get(..name.len()) {
            Some(key) => same(key, name),
            None => self.has_long_name(name),
        }
    }

    fn has_long_name(&self, name: &[u8]) -> bool {
        let [p0, p1, p2, p3, ..] = self.key;
        let place = NamePlace::from_le_bytes([p0, p1, p2, p3]);
        self.entry.as_ref().is_some_and(|entry| entry.name_at(place) == name)
    }
}

fn key(name: &[u8], place: NamePlace) -> Key {
    let mut key = Key::default();
    match key.get_mut(..name.len()) {
        Some(short) => short.copy_from_slice(name),
        None => key[..size_of::<NamePlace>()].copy_from_slice(&place.to_le_bytes()),
    }
    key
}

/// Whether two names of one length, at most [`INLINE`], are equal: with a few loads in place.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    match (a.first_chunk::<8>(), b.first_chunk::<8>(), a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(first), Some(other_first), Some(last), Some(other_last)) => {
            first == other_first
                && last == other_last
                && (a.len() <= 16 || a[8..a.len() - 8] == b[8..b.len() - 8])
        }
        _ => a == b,
    }
}

/// Order of slots in a page. Of entries that claim the same name the latest comes first; claims of
/// one revision go by the name of the namespace, so that every replica decides alike.
fn precedence(a: &Slot, b: &Slot) -> Ordering {
    fn claim(slot: &Slot) -> Option<(Reverse<Revision>, &str)> {
        slot.entry.as_ref().map(|entry| (Reverse(entry.revision()), entry.namespace()))
    }
    a.tag.cmp(&b.tag).then_with(|| claim(a).cmp(&claim(b)))
}

/// The place at or after which a tag lies in a page of so many. The last places are nobody's home:
/// they complete the windows before them and take what crowds there. As they grow with the page,
/// every crowd fits some page, also one of names that were chosen to collide.
#[inline]
fn home(tag: u32, length: usize) -> usize {
    let homes = length - length / 32 - (WINDOW - 1);
    ((u64::from(tag) * homes as u64) >> u32::BITS) as usize
}

/// A page of sorted slots, no page if there are none.
fn lay_out(slots: Vec<Slot>) -> Option<Page> {
    if slots.is_empty() {
        return None;
    }
    let mut length = (slots.len() * 100).div_ceil(FILL) + WINDOW - 1;
    while end_of(&slots, length) > length {
        length += length / 8 + 1;
    }
    let mut page = Vec::with_capacity(length);
    for slot in slots {
        let place = home(slot.tag, length).max(page.len());
        page.resize(place, Slot::default());
        page.push(slot);
    }
    page.resize(length, Slot::default());
    Some(Arc::from(page))
}

/// One past the last place taken when the slots are laid out over so many places.
fn end_of(slots: &[Slot], length: usize) -> usize {
    slots.iter().fold(0, |next, slot| home(slot.tag, length).max(next) + 1)
}

#[cfg(test)]
mod tests;
