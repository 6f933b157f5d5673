//! A persistent hash index from names to entries, made for few cache misses.
//!
//! Thirteen bits of a name's hash lead through three levels of nodes to a page, the next 32 bits
//! are the name's tag and say in which cell of the page it lies. Nodes, with the lengths of their
//! pages, stay in a core's second-level cache; a cell is two neighbouring cache lines and holds the
//! names themselves up to 19 bytes. So a lookup of such a name goes to slow memory once; a longer
//! name is compared in its entry.
//!
//! A change copies one node on each level and one page: at a million names some 70 pointers and 120
//! slots. Pages are rebuilt whole, so there are no tombstones. The depth is fixed: at ten million
//! names pages hold 1,200 slots and a change copies 55 KB, which is still well below a millisecond.
//! More and smaller pages would be cheaper to copy, but push the nodes out of the cache.
//!
//! Slots of a page are sorted by tag and lie in or after the cell that their tag has in proportion.
//! Of several entries with the same name the one that [`precedence`] puts first comes first, and is
//! the one that is found.
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

/// Slots of a cell.
const WIDTH: usize = 4;

/// Longest name that a slot holds. Bytes.
const INLINE: usize = 19;

/// The start of a name's slot: its length and bytes, zeros behind; or [`LONG`] and its place in the
/// entry.
type Key = [u8; INLINE + 1];

/// In place of the length, says that the name is longer than a slot holds.
const LONG: u8 = u8::MAX;

/// Slots with neighbouring tags. Every tag in use is odd; 0 marks a free slot. Free ones come last.
#[derive(Clone, Default)]
#[repr(align(64))]
struct Cell {
    tags: [u32; WIDTH],
    entries: [Option<Entry>; WIDTH],
    keys: [Key; WIDTH],
}

const _: () = assert!(size_of::<Cell>() == 128, "two cache lines");

type Page = Arc<[Cell]>;

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
    fn of(hash: u64) -> Self {
        let [root, branch, leaf] = LEVEL_BITS;
        let child = |end: u32, bits: u32| (hash >> (u64::BITS - end)) as usize % (1 << bits);
        Self {
            root: child(root, root),
            branch: child(root + branch, branch),
            leaf: child(root + branch + leaf, leaf),
            tag: (hash >> (u64::BITS - PAGE_BITS - u32::BITS)) as u32 | 1,
        }
    }
}

impl Index {
    /// The entry that has this name under this hash.
    #[inline]
    pub(super) fn get(&self, hash: u64, name: &[u8]) -> Option<&Entry> {
        let probe = self.probe(hash)?;
        probe.finish(probe.candidates(name), name)
    }

    /// Where a hash leads, without a look at it.
    #[inline]
    pub(super) fn probe(&self, hash: u64) -> Option<Probe<'_>> {
        let path = Path::of(hash);
        let branch = self.root.0[path.root].as_ref()?;
        let leaf = branch.0[path.branch].as_ref()?;
        let page = leaf.0[path.leaf].as_ref()?;
        let (home, after) = page[home(path.tag, page.len())..].split_first()?;
        Some(Probe { home, after, tag: path.tag })
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
        let path = Path::of(hash);
        let root = Arc::make_mut(&mut self.root);
        let branch = Arc::make_mut(root.0[path.root].get_or_insert_default());
        let leaf = Arc::make_mut(branch.0[path.branch].get_or_insert_default());
        let page = &mut leaf.0[path.leaf];
        let mut slots = Vec::new();
        for cell in page.iter().flat_map(|page| page.iter()) {
            for (at, entry) in cell.entries.iter().enumerate() {
                let Some(entry) = entry else { break };
                if !(remove.is_some_and(|gone| gone.is(entry)) && cell.has_name(at, name)) {
                    let (tag, key) = (cell.tags[at], cell.keys[at]);
                    slots.push(Slot { tag, key, entry: entry.clone() });
                }
            }
        }
        if let Some((place, entry)) = add {
            let slot = Slot { tag: path.tag, key: key(name, place), entry: entry.clone() };
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
            let (path, number) = (Path::of(*hash), page_of(*hash));
            let mut slots = Vec::new();
            while let Some((hash, place, entry)) =
                names.next_if(|(hash, ..)| page_of(*hash) == number)
            {
                let key = key(entry.name_at(place), place);
                slots.push(Slot { tag: Path::of(hash).tag, key, entry });
            }
            slots.sort_by(precedence);
            let branch = Arc::make_mut(root.0[path.root].get_or_insert_default());
            let leaf = Arc::make_mut(branch.0[path.branch].get_or_insert_default());
            leaf.0[path.leaf] = lay_out(slots);
        }
        Self { root: Arc::new(root) }
    }
}

/// A look-up that knows its cell. It goes in steps, so that many can ask for their cells before the
/// first of them waits for one.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    home: &'a Cell,
    /// The rest of the page.
    after: &'a [Cell],
    tag: u32,
}

impl<'a> Probe<'a> {
    /// The slots of the cell that may have the name, a bit for each.
    ///
    /// Which has it is anybody's guess, and a processor that guesses wrong stands still until the
    /// cell has come from memory. So the slots are compared without a branch, and with the lengths
    /// of their names the cell's second line is asked for at once too.
    #[inline]
    pub(super) fn candidates(&self, name: &[u8]) -> u32 {
        let length = key_length(name);
        let slots = self.home.tags.iter().zip(&self.home.keys).enumerate();
        slots.fold(0, |matching, (at, (tag, key))| {
            matching | (u32::from(*tag == self.tag) & u32::from(key[0] == length)) << at
        })
    }

    /// The entry that has the name.
    #[inline]
    pub(super) fn finish(&self, candidates: u32, name: &[u8]) -> Option<&'a Entry> {
        let at = candidates.trailing_zeros() as usize;
        if at < WIDTH && self.home.has_name(at, name) {
            return self.home.entries[at].as_ref();
        }
        if candidates != 0 {
            return search(std::slice::from_ref(self.home), self.tag, name)
                .or_else(|| self.search_after(name));
        }
        self.search_after(name)
    }

    #[inline]
    fn search_after(&self, name: &[u8]) -> Option<&'a Entry> {
        let last = self.home.tags[WIDTH - 1];
        if last == 0 || last > self.tag { None } else { search(self.after, self.tag, name) }
    }
}

impl Cell {
    /// Whether a slot in use has this name.
    #[inline]
    fn has_name(&self, at: usize, name: &[u8]) -> bool {
        // The length of the name is at hand, that of the key is on its way from memory.
        if name.len() > INLINE {
            return self.has_long_name(at, name);
        }
        let [length, key @ ..] = &self.keys[at];
        usize::from(*length) == name.len() && key[..name.len()] == *name
    }

    fn has_long_name(&self, at: usize, name: &[u8]) -> bool {
        let [length, p0, p1, p2, p3, ..] = self.keys[at];
        let place = NamePlace::from_le_bytes([p0, p1, p2, p3]);
        length == LONG
            && self.entries[at].as_ref().is_some_and(|entry| entry.name_at(place) == name)
    }
}

/// What is not where it belongs first: a slot that its full cell pushed on, or one whose tag is
/// also another name's.
#[cold]
fn search<'a>(cells: &'a [Cell], tag: u32, name: &[u8]) -> Option<&'a Entry> {
    for cell in cells {
        for at in 0..WIDTH {
            if cell.tags[at] == 0 || cell.tags[at] > tag {
                return None;
            }
            if cell.tags[at] == tag && cell.has_name(at, name) {
                return cell.entries[at].as_ref();
            }
        }
    }
    None
}

/// A slot on its way into a page.
struct Slot {
    tag: u32,
    key: Key,
    entry: Entry,
}

fn key(name: &[u8], place: NamePlace) -> Key {
    let mut key = Key::default();
    key[0] = key_length(name);
    if key[0] == LONG {
        key[1..=size_of::<NamePlace>()].copy_from_slice(&place.to_le_bytes());
    } else {
        key[1..=name.len()].copy_from_slice(name);
    }
    key
}

/// First byte of the key of a name.
#[inline]
fn key_length(name: &[u8]) -> u8 {
    if name.len() <= INLINE { name.len() as u8 } else { LONG }
}

/// Order of slots in a page. Of entries that claim the same name the latest comes first; claims of
/// one revision go by the name of the namespace, so that every replica decides alike.
fn precedence(a: &Slot, b: &Slot) -> Ordering {
    fn claim(slot: &Slot) -> (Reverse<Revision>, &str) {
        (Reverse(slot.entry.revision()), slot.entry.namespace())
    }
    a.tag.cmp(&b.tag).then_with(|| claim(a).cmp(&claim(b)))
}

/// The cell in or after which a tag lies in a page of so many. The last part of a large page is
/// nobody's home: it takes what crowds before it. As it grows with the page, every crowd fits some
/// page, also one of names that were chosen to collide.
#[inline]
fn home(tag: u32, cells: usize) -> usize {
    let homes = cells - cells / 32;
    ((u64::from(tag) * homes as u64) >> u32::BITS) as usize
}

/// A page of sorted slots, no page if there are none.
fn lay_out(slots: Vec<Slot>) -> Option<Page> {
    if slots.is_empty() {
        return None;
    }
    // Full to 70 %: then one slot in twenty is pushed out of its cell.
    let mut cells = (slots.len() * 10).div_ceil(WIDTH * 7);
    while slots_end(&slots, cells) > cells * WIDTH {
        cells += cells / 8 + 1;
    }
    let mut page = vec![Cell::default(); cells];
    let mut next = 0;
    for slot in slots {
        next = next.max(home(slot.tag, cells) * WIDTH);
        let (cell, at) = (&mut page[next / WIDTH], next % WIDTH);
        cell.tags[at] = slot.tag;
        cell.keys[at] = slot.key;
        cell.entries[at] = Some(slot.entry);
        next += 1;
    }
    Some(Arc::from(page))
}

/// One past the last slot taken when the slots are laid out over so many cells.
fn slots_end(slots: &[Slot], cells: usize) -> usize {
    slots.iter().fold(0, |next, slot| next.max(home(slot.tag, cells) * WIDTH) + 1)
}

#[cfg(test)]
mod tests;
