//! The entries in order of namespace: a persistent B+ tree.
//!
//! It serves pages of a listing and walks over the whole table; lookups go by hash. A change copies
//! one node on each level, some 25 pointers apiece.
//!
//! Nodes that empty are removed; others are not merged. Fleets grow more than they shrink, a
//! thinly filled node costs only room, and half of a textbook B-tree is merging.
//!
//! Invariant: every leaf is equally deep and, but for an empty tree's, has an entry. The key of a
//! node's second and later children is at most the child's first namespace and above all of the
//! child before it; a first child takes what is below, whatever its key.

use triomphe::Arc;

use super::entry::Entry;

/// Most entries or children of a node.
const WIDTH: usize = 32;

/// Entries or children of a node that is built in bulk: room for some inserts before it splits.
const BUILT_WIDTH: usize = 26;

#[derive(Clone)]
enum Node {
    Leaf(Vec<Entry>),
    Branch(Vec<Child>),
}

#[derive(Clone)]
struct Child {
    key: Arc<str>,
    node: Arc<Node>,
}

#[derive(Clone)]
pub(super) struct Order {
    root: Arc<Node>,
    len: usize,
}

impl Default for Order {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), len: 0 }
    }
}

impl Order {
    /// Entries in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The tree of entries whose namespaces strictly ascend.
    pub(super) fn build(entries: Vec<Entry>) -> Self {
        let len = entries.len();
        let mut level: Vec<Child> = chunks(entries)
            .map(|chunk| Child {
                key: Arc::from(chunk[0].namespace()),
                node: Arc::new(Node::Leaf(chunk)),
            })
            .collect();
        while level.len() > 1 {
            level = chunks(level)
                .map(|chunk| Child {
                    key: chunk[0].key.clone(),
                    node: Arc::new(Node::Branch(chunk)),
                })
                .collect();
        }
        level.pop().map_or_else(Self::default, |top| Self { root: top.node, len })
    }

    /// Puts an entry in, in place of the one of the same namespace.
    pub(super) fn insert(&mut self, entry: Entry) {
        let root = Arc::make_mut(&mut self.root);
        match root.insert(entry) {
            Inserted::Replaced => return,
            Inserted::Added => {}
            Inserted::Split(right) => {
                let left = std::mem::replace(root, Node::Leaf(Vec::new()));
                // Nothing is ever looked for before a first child, so its key may be any.
                let left = Child { key: Arc::from(""), node: Arc::new(left) };
                *root = Node::Branch(vec![left, right]);
            }
        }
        self.len += 1;
    }

    /// Takes out the entry of a namespace that is in the tree.
    pub(super) fn remove(&mut self, namespace: &str) {
        let root = Arc::make_mut(&mut self.root);
        if root.remove(namespace) {
            self.len -= 1;
        }
        loop {
            match root {
                Node::Branch(children) if children.is_empty() => *root = Node::Leaf(Vec::new()),
                Node::Branch(children) if children.len() == 1 => {
                    self.root = children.remove(0).node;
                    return;
                }
                _ => return,
            }
        }
    }

    /// All entries.
    pub(super) fn iter(&self) -> Iter<'_> {
        let mut iter = Iter { branches: Vec::new(), leaf: [].iter() };
        iter.descend(&self.root, |_| 0);
        iter
    }

    /// Entries whose namespace is greater than the one given.
    pub(super) fn iter_after(&self, namespace: &str) -> Iter<'_> {
        let mut iter = Iter { branches: Vec::new(), leaf: [].iter() };
        iter.descend(&self.root, |children| child_of(children, namespace));
        let skipped = iter.leaf.as_slice().partition_point(|entry| entry.namespace() <= namespace);
        iter.leaf = iter.leaf.as_slice()[skipped..].iter();
        iter
    }
}

enum Inserted {
    Replaced,
    Added,
    /// Added, and the node split: this is the new one on its right.
    Split(Child),
}

impl Node {
    fn insert(&mut self, entry: Entry) -> Inserted {
        match self {
            Node::Leaf(entries) => {
                match entries.binary_search_by(|other| other.namespace().cmp(entry.namespace())) {
                    Ok(at) => {
                        entries[at] = entry;
                        return Inserted::Replaced;
                    }
                    Err(at) => entries.insert(at, entry),
                }
                if entries.len() <= WIDTH {
                    return Inserted::Added;
                }
                let right = entries.split_off(entries.len() / 2);
                Inserted::Split(Child {
                    key: Arc::from(right[0].namespace()),
                    node: Arc::new(Node::Leaf(right)),
                })
            }
            Node::Branch(children) => {
                let at = child_of(children, entry.namespace());
                let right = match Arc::make_mut(&mut children[at].node).insert(entry) {
                    Inserted::Split(right) => right,
                    other => return other,
                };
                children.insert(at + 1, right);
                if children.len() <= WIDTH {
                    return Inserted::Added;
                }
                let right = children.split_off(children.len() / 2);
                Inserted::Split(Child {
                    key: right[0].key.clone(),
                    node: Arc::new(Node::Branch(right)),
                })
            }
        }
    }

    /// Whether it was there.
    fn remove(&mut self, namespace: &str) -> bool {
        match self {
            Node::Leaf(entries) => {
                let found = entries.binary_search_by(|other| other.namespace().cmp(namespace));
                if let Ok(at) = found {
                    entries.remove(at);
                }
                found.is_ok()
            }
            Node::Branch(children) => {
                let at = child_of(children, namespace);
                let child = Arc::make_mut(&mut children[at].node);
                let removed = child.remove(namespace);
                if child.is_empty() {
                    children.remove(at);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Leaf(entries) => entries.is_empty(),
            Node::Branch(children) => children.is_empty(),
        }
    }
}

/// The child in which a namespace is or would be.
fn child_of(children: &[Child], namespace: &str) -> usize {
    children.partition_point(|child| *child.key <= *namespace).saturating_sub(1)
}

/// Cuts a level into nodes of even width.
fn chunks<T>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<T> = items.by_ref().take(BUILT_WIDTH).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Entries in order of namespace.
#[derive(Clone)]
pub struct Iter<'a> {
    /// What is left of each branch on the way down.
    branches: Vec<std::slice::Iter<'a, Child>>,
    leaf: std::slice::Iter<'a, Entry>,
}

impl<'a> Iter<'a> {
    /// Goes down to a leaf by the children that `choose` names.
    fn descend(&mut self, mut node: &'a Node, choose: impl Fn(&[Child]) -> usize) {
        loop {
            match node {
                Node::Leaf(entries) => {
                    self.leaf = entries.iter();
                    return;
                }
                Node::Branch(children) => {
                    let at = choose(children);
                    self.branches.push(children[at + 1..].iter());
                    node = &children[at].node;
                }
            }
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Entry;

    fn next(&mut self) -> Option<&'a Entry> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            match self.branches.last_mut()?.next() {
                Some(child) => self.descend(&child.node, |_| 0),
                None => {
                    self.branches.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
