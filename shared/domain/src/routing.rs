//! The routing table: which namespace owns a dag_id, and which shard owns the namespace.
//!
//! A [`Table`] is immutable and stamped with its revision. A writer derives the next one with
//! [`Table::apply`], which shares all that did not change, and swaps it in whole; readers hold the
//! one that they started with. [`history`] keeps the recent changes for those who follow the table.
//!
//! Invariant: the answer depends on the entries alone, never on the order in which they came. The
//! registry lets no two namespaces own overlapping prefixes, but changes of two namespaces may
//! arrive in any order, so for a while two may claim the same: every claim is kept, the longest
//! prefix wins, and among equal prefixes the claim of the latest revision.
//!
//! The module must not know where entries come from, who is asking, or what time it is.
//!
//! # How it is laid out
//!
//! At a million namespaces a table is some 300 MB, far more than caches hold, so what counts is how
//! often a lookup goes to memory and how much else it does meanwhile: a processor looks ahead a few
//! hundred instructions, so short lookups wait for memory together, long ones one by one.
//!
//! 1. [`ends`] rules out nearly all starts of the dag_id, eight bytes at a time, from the first-level
//!    cache.
//! 2. [`index`], a persistent hash index, finds the slot of a start: one access, the only one for a
//!    name of up to 20 bytes, since the slot holds it. A longer name is confirmed in its entry.
//! 3. The [`entry`], numbers and texts in one block, is what the caller then reads.
//!
//! The same index, keyed by name, finds a namespace. [`order`] lists them.
//!
//! # What was weighed
//!
//! - *Predecessor search in a persistent B-tree.* Prefixes that do not overlap have exactly one
//!   candidate, the greatest prefix that is not above the dag_id. It needs no hashing and no
//!   filter, but twenty comparisons and four to six dependent accesses, and overlap breaks it.
//! - *A radix tree over the bytes* walks as many nodes as a name has branchings, each an access.
//! - *Binary search over prefix lengths* (markers at the halves) bounds the lookups by the logarithm
//!   of the number of lengths; with the endings known there is one lookup as a rule, and markers
//!   would have to be counted and kept in step.
//! - *Slots of a tag and a pointer* are half as large, but every name is then confirmed in its
//!   entry: a second access that has to wait for the first. That took twice as long.
//! - *Cells of four slots* instead of windows that slide: one name in six overflowed its cell, and
//!   each of those is a guess that the processor gets wrong only after memory has answered.
//! - *A hash alone, without the name,* would be exact only until someone finds a collision.
//! - *A mutable map behind a lock*, or two maps of which one is written while the other serves:
//!   readers would see half a batch, wait for the writer, or it for them, and memory doubles.
//! - *General persistent maps* (hash array mapped tries) reach a value through five or six nodes.
//! - *An extendible directory* would keep pages at one size; a fixed depth is simpler and costs only
//!   longer page copies at sizes beyond ten million.

mod ends;
mod entry;
pub mod history;
mod index;
mod order;

use std::{
    cmp::Ordering,
    hash::{BuildHasher, Hasher},
};

use foldhash::quality::RandomState;

use self::{
    ends::{Ends, Starts},
    entry::{NAMESPACE, NamePlace},
    index::Index,
    order::Order,
};
pub use self::{
    entry::{Assignment, Entry, State},
    order::Iter,
};
use crate::ids::{NamespaceName, Revision};

/// dag_ids that wait for memory together: about as many accesses as a core keeps in flight.
const GROUP: usize = 16;

/// What happened to one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new, or its assignment changed.
    Upsert(Entry),
    /// It is no longer in the table.
    Delete(NamespaceName),
}

impl Change {
    /// Name of the namespace that it is about.
    pub fn namespace(&self) -> &str {
        match self {
            Change::Upsert(entry) => entry.namespace(),
            Change::Delete(name) => name.as_str(),
        }
    }
}

/// All assignments as of one revision. A clone shares everything.
#[derive(Clone)]
pub struct Table {
    revision: Revision,
    /// Seeded anew for each table that is not derived from another, so that nobody can choose names
    /// that collide. It decides where entries lie, not what is answered.
    hashing: RandomState,
    ends: Ends,
    by_prefix: Index,
    by_namespace: Index,
    in_order: Order,
}

impl Table {
    /// A table without entries, at revision 0.
    pub fn empty() -> Self {
        Self::build([], Revision(0))
    }

    /// The table of all entries given. Of several for one namespace the last counts. Entries that
    /// come in order of namespace, by bytes, are taken in faster.
    pub fn build(entries: impl IntoIterator<Item = Entry>, revision: Revision) -> Self {
        let entries = in_order_of_namespace(entries.into_iter().collect());
        let hashing = RandomState::default();
        let mut ends = Ends::default();
        let mut prefixes = Vec::with_capacity(entries.len());
        for entry in &entries {
            for (place, prefix) in entry.prefix_places() {
                ends.add(prefix);
                prefixes.push((hash(&hashing, prefix), place, entry.clone()));
            }
        }
        let by_prefix = Index::build(prefixes);
        let by_namespace = Index::build(
            entries
                .iter()
                .map(|entry| {
                    let hash = hash(&hashing, entry.namespace().as_bytes());
                    (hash, NAMESPACE, entry.clone())
                })
                .collect(),
        );
        Self { revision, hashing, ends, by_prefix, by_namespace, in_order: Order::build(entries) }
    }

    /// The table after these changes, in their order. This one stays as it is.
    pub fn apply<'a>(
        &self,
        changes: impl IntoIterator<Item = &'a Change>,
        revision: Revision,
    ) -> Self {
        let mut next = self.clone();
        next.revision = revision;
        for change in changes {
            match change {
                Change::Upsert(entry) => next.upsert(entry),
                Change::Delete(namespace) => next.delete(namespace.as_str()),
            }
        }
        next
    }

    /// The entry of the namespace that owns a dag_id: the one with the longest prefix of it.
    #[inline]
    pub fn resolve_dag(&self, dag_id: &str) -> Option<&Entry> {
        self.first_prefix(self.ends.starts(dag_id.as_bytes()))
    }

    #[inline]
    fn first_prefix(&self, mut starts: Starts<'_>) -> Option<&Entry> {
        starts.find_map(|start| self.by_prefix.get(self.hash(start), start))
    }

    /// [`resolve_dag`](Self::resolve_dag) of many dag_ids, in their order, several times as fast:
    /// a group of them waits for memory together instead of each for itself.
    pub fn resolve_dags<'t, 'd>(
        &'t self,
        dag_ids: impl IntoIterator<Item = &'d str>,
    ) -> Vec<Option<&'t Entry>> {
        let mut dag_ids = dag_ids.into_iter();
        let mut answers = Vec::with_capacity(dag_ids.size_hint().0);
        let mut group = [const { None }; GROUP];
        loop {
            let mut size = 0;
            for dag_id in dag_ids.by_ref().take(GROUP) {
                let mut starts = self.ends.starts(dag_id.as_bytes());
                group[size] = starts
                    .next()
                    .map(|start| (starts, start, self.by_prefix.probe(self.hash(start), start)));
                size += 1;
            }
            if size == 0 {
                return answers;
            }
            let group = &mut group[..size];
            let mut candidates = [0; GROUP];
            for (candidates, first) in candidates.iter_mut().zip(&*group) {
                if let Some((_, _, Some(probe))) = first {
                    *candidates = probe.candidates();
                }
            }
            for (candidates, first) in candidates.into_iter().zip(group) {
                answers.push(first.take().and_then(|(starts, start, probe)| {
                    probe
                        .and_then(|probe| probe.finish(candidates, start))
                        .or_else(|| self.first_prefix(starts))
                }));
            }
        }
    }

    /// The entry of a namespace.
    #[inline]
    pub fn resolve_namespace(&self, namespace: &str) -> Option<&Entry> {
        let name = namespace.as_bytes();
        self.by_namespace.get(self.hash(name), name)
    }

    /// Revision that the table is as of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Namespaces in it.
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Whether there is no namespace in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries in order of namespace.
    pub fn iter(&self) -> Iter<'_> {
        self.in_order.iter()
    }

    /// The entries whose namespace comes after the one given, in order: for the next page of a
    /// listing. The namespace need not exist.
    pub fn iter_after(&self, namespace: &str) -> Iter<'_> {
        self.in_order.iter_after(namespace)
    }

    #[inline]
    fn hash(&self, name: &[u8]) -> u64 {
        hash(&self.hashing, name)
    }

    fn upsert(&mut self, entry: &Entry) {
        let old = self.resolve_namespace(entry.namespace()).cloned();
        self.replace_name(old.as_ref(), Some(entry));
        self.replace_prefixes(old.as_ref(), Some(entry));
        self.in_order.insert(entry.clone());
    }

    fn delete(&mut self, namespace: &str) {
        let Some(old) = self.resolve_namespace(namespace).cloned() else { return };
        self.replace_name(Some(&old), None);
        self.replace_prefixes(Some(&old), None);
        self.in_order.remove(namespace);
    }

    fn replace_name(&mut self, old: Option<&Entry>, new: Option<&Entry>) {
        let Some(name) = old.or(new).map(|entry| entry.namespace().as_bytes()) else { return };
        let new = new.map(|entry| (NAMESPACE, entry));
        self.by_namespace.replace(self.hash(name), name, old, new);
    }

    /// Takes the old entry's prefixes out and puts the new one's in; what both have is replaced in
    /// one go. Both come sorted.
    fn replace_prefixes(&mut self, old: Option<&Entry>, new: Option<&Entry>) {
        let mut removed = places(old).peekable();
        let mut added = places(new).peekable();
        loop {
            let order = match (removed.peek(), added.peek()) {
                (Some((_, gone)), Some((_, come))) => gone.cmp(come),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            let gone = removed.next_if(|_| order.is_le());
            let come = added.next_if(|_| order.is_ge());
            let prefix = match (gone, come) {
                (Some((_, prefix)), Some(_)) => prefix,
                (Some((_, prefix)), None) => {
                    self.ends.remove(prefix);
                    prefix
                }
                (None, Some((_, prefix))) => {
                    self.ends.add(prefix);
                    prefix
                }
                (None, None) => return,
            };
            self.by_prefix.replace(
                self.hash(prefix),
                prefix,
                old.filter(|_| gone.is_some()),
                new.zip(come).map(|(entry, (place, _))| (place, entry)),
            );
        }
    }
}

impl<'a> IntoIterator for &'a Table {
    type Item = &'a Entry;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { revision, .. } = self;
        f.debug_struct("Table")
            .field("revision", revision)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[inline]
fn hash(hashing: &RandomState, name: &[u8]) -> u64 {
    let mut hasher = hashing.build_hasher();
    hasher.write(name);
    hasher.finish()
}

fn places(entry: Option<&Entry>) -> impl Iterator<Item = (NamePlace, &[u8])> {
    entry.into_iter().flat_map(Entry::prefix_places)
}

/// Sorts by namespace and keeps the last entry of each.
fn in_order_of_namespace(entries: Vec<Entry>) -> Vec<Entry> {
    if entries.is_sorted_by(|a, b| a.namespace() < b.namespace()) {
        return entries;
    }
    // Most comparisons are decided by the first bytes, without a walk to two entries.
    let mut keyed: Vec<(u128, Entry)> =
        entries.into_iter().map(|entry| (head(entry.namespace()), entry)).collect();
    keyed.sort_by(|(head, entry), (other_head, other)| {
        head.cmp(other_head).then_with(|| entry.namespace().cmp(other.namespace()))
    });
    let mut sorted: Vec<Entry> = Vec::with_capacity(keyed.len());
    for (_, entry) in keyed {
        match sorted.last_mut() {
            Some(last) if last.namespace() == entry.namespace() => *last = entry,
            _ => sorted.push(entry),
        }
    }
    sorted
}

/// The first bytes of a name as a number that orders alike. Names have no zero bytes.
fn head(name: &str) -> u128 {
    let mut bytes = [0; size_of::<u128>()];
    let length = name.len().min(bytes.len());
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    u128::from_be_bytes(bytes)
}
