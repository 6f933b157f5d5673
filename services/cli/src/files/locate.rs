//! Where in a YAML document a field stands, so that a violation points at its line.
//!
//! Only asked once something is wrong. A path whose end is missing (a required field, say) is
//! found as far as it goes.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Line, from 1.
    pub(super) line: u64,
    /// Column, from 1.
    pub(super) column: u64,
}

/// The place of `path` (`spec.prefixes[1]`) in the text of one document, whose first line is
/// `first_line` of its file. `None` where the text is not YAML or nothing of the path is there.
pub(super) fn locate(document: &str, first_line: u64, path: &str) -> Option<Position> {
    let root: Spanned<Node> = serde_saphyr::from_str(document).ok()?;
    let mut here = &root;
    for step in steps(path) {
        let next = match (&here.value, step) {
            (Node::Map(entries), Step::Key(key)) => entries.get(key),
            (Node::List(items), Step::Index(index)) => items.get(index),
            _ => None,
        };
        match next {
            Some(next) => here = next,
            None => break,
        }
    }
    let (line, column) = (here.referenced.line(), here.referenced.column());
    (line > 0).then(|| Position { line: first_line - 1 + line, column: column.max(1) })
}

/// One part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Takes a path apart: `a.b[3].c`. What is in brackets and is no number is a key: `labels[x]`.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            // Label keys have dots, never brackets.
            let (index, after) = inner.split_once(']').unwrap_or((inner, ""));
            steps.push(index.parse().map_or(Step::Key(index), Step::Index));
            rest = after.strip_prefix('.').unwrap_or(after);
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(Step::Key(&rest[..end]));
            rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
        }
    }
    steps
}

/// Any YAML, with places.
enum Node {
    Leaf,
    List(Vec<Spanned<Node>>),
    Map(HashMap<String, Spanned<Node>>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

macro_rules! leaf {
    ($($visit:ident($type:ty)),* $(,)?) => {
        $(fn $visit<E>(self, _: $type) -> Result<Node, E> { Ok(Node::Leaf) })*
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    leaf!(
        visit_bool(bool),
        visit_i64(i64),
        visit_u64(u64),
        visit_i128(i128),
        visit_u128(u128),
        visit_f64(f64),
        visit_str(&str),
        visit_bytes(&[u8]),
    );

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = HashMap::new();
        while let Some((key, value)) = access.next_entry()? {
            entries.insert(key, value);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "apiVersion: airfleet.dev/v1
kind: Namespace
metadata:
  name: payments
  labels: {a.b/c: gold, tier: silver}
spec:
  owners: [team]
  prefixes:
    - payments.
    - 'pay ments'
  placement:
    selector:
      - {key: tier, operator: In, values: [x, 'y z']}
";

    fn at(path: &str) -> (u64, u64) {
        let position = locate(DOCUMENT, 101, path).unwrap();
        (position.line - 100, position.column)
    }

    #[test]
    fn fields_items_and_labels_are_found() {
        assert_eq!(at("metadata.name"), (4, 9));
        assert_eq!(at("metadata.labels[a.b/c]"), (5, 19));
        assert_eq!(at("spec.owners[0]"), (7, 12));
        assert_eq!(at("spec.prefixes[1]"), (10, 7));
        assert_eq!(at("spec.placement.selector[0].values[1]"), (13, 47));
    }

    #[test]
    fn what_is_missing_is_found_as_far_as_it_goes() {
        assert_eq!(at("spec.prefixes[7]").0, 9);
        assert_eq!(at("metadata.nothing.more").0, 4);
        assert_eq!(locate("a: [", 1, "a"), None);
    }
}
