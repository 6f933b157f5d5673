//! Which namespace a DAG belongs to, as the router last said.
//!
//! Responsible for the table of prefixes and for finding the owner of a dag_id: the namespace of
//! the longest prefix that the dag_id starts with. Comparison is by bytes, here and nowhere else:
//! no query compares dag_ids, so the collation of the metadata database cannot change an answer.
//!
//! It must not know where the table comes from nor what is counted by it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use airfleet_domain::ids::NamespaceName;

/// The namespaces that the router named, with their prefixes. Immutable; a change makes a new one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Owners {
    names: Vec<NamespaceName>,
    /// Sorted by prefix.
    prefixes: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    prefix: Box<str>,
    /// Index into `names`.
    owner: u32,
    /// Index of the longest other prefix that this one starts with.
    parent: Option<u32>,
}

impl Owners {
    /// The table of these namespaces. Where two claim the same prefix, which the registry
    /// refuses, the first by name has it.
    pub(crate) fn new<'a>(
        namespaces: impl IntoIterator<Item = (&'a NamespaceName, &'a [String])>,
    ) -> Self {
        let mut names = Vec::new();
        let mut sorted: BTreeMap<&str, u32> = BTreeMap::new();
        let by_name: BTreeMap<_, _> = namespaces.into_iter().collect();
        for (name, prefixes) in by_name {
            let owner = names.len() as u32;
            names.push(name.clone());
            for prefix in prefixes.iter().filter(|prefix| !prefix.is_empty()) {
                sorted.entry(prefix).or_insert(owner);
            }
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(sorted.len());
        for (prefix, owner) in sorted {
            // What this prefix starts with is the entry before it or an ancestor of that one.
            let mut parent = entries.len().checked_sub(1).map(|index| index as u32);
            while let Some(index) = parent
                && !prefix.starts_with(&*entries[index as usize].prefix)
            {
                parent = entries[index as usize].parent;
            }
            entries.push(Entry { prefix: prefix.into(), owner, parent });
        }
        Self { names, prefixes: entries }
    }

    /// The namespaces in the order of their names.
    pub(crate) fn names(&self) -> &[NamespaceName] {
        &self.names
    }

    /// Position in [`Owners::names`] of the namespace that owns `dag_id`, if one does.
    pub(crate) fn owner_of(&self, dag_id: &str) -> Option<usize> {
        // Every text between a prefix and a text that starts with it starts with it too. So the
        // longest match is the greatest entry that is not above the dag_id, or an ancestor of it.
        let above = self.prefixes.partition_point(|entry| *entry.prefix <= *dag_id);
        let mut candidate = above.checked_sub(1);
        while let Some(index) = candidate {
            let entry = &self.prefixes[index];
            if dag_id.starts_with(&*entry.prefix) {
                return Some(entry.owner as usize);
            }
            candidate = entry.parent.map(|parent| parent as usize);
        }
        None
    }
}
