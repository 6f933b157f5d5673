//! Which rows are of a namespace: those whose dag_id begins with one of its prefixes, by bytes.

use std::fmt::Write as _;

use airfleet_domain::ids::NamespaceName;

use crate::{Error, database::quoted};

/// A namespace and the dag_ids that it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    namespace: NamespaceName,
    /// Sorted; none begins with another.
    prefixes: Vec<String>,
}

impl Scope {
    /// A namespace with its prefixes. An empty prefix would be everybody's.
    pub fn new(namespace: NamespaceName, mut prefixes: Vec<String>) -> Result<Self, Error> {
        if let Some(bad) = prefixes.iter().find(|p| p.is_empty() || p.contains('\0')) {
            return Err(Error::BadPrefix(bad.clone()));
        }
        prefixes.sort_unstable();
        prefixes.dedup_by(|next, kept| next.starts_with(kept.as_str()));
        Ok(Self { namespace, prefixes })
    }

    /// The namespace.
    pub fn namespace(&self) -> &NamespaceName {
        &self.namespace
    }

    /// Its prefixes, sorted, without those that begin with another.
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Whether a dag_id is its own.
    pub fn owns(&self, dag_id: &str) -> bool {
        self.prefixes.iter().any(|prefix| dag_id.starts_with(prefix))
    }

    /// The condition on a column that holds a dag_id, as ranges: `LIKE` reads whole tables where a
    /// database does not sort by bytes, and takes `_` for any character. `by_bytes` is whether the
    /// columns do; otherwise the comparison is forced to, at the price of their indexes.
    pub(crate) fn of(&self, column: &str, by_bytes: bool) -> String {
        if self.prefixes.is_empty() {
            return "false".to_owned();
        }
        let collate = if by_bytes { "" } else { " COLLATE \"C\"" };
        let mut text = String::from("(");
        for (n, prefix) in self.prefixes.iter().enumerate() {
            let or = if n == 0 { "" } else { " OR " };
            let _ = write!(text, "{or}({column}{collate} >= {}", quoted(prefix));
            if let Some(end) = after(prefix) {
                let _ = write!(text, " AND {column}{collate} < {}", quoted(&end));
            }
            text.push(')');
        }
        text.push(')');
        text
    }
}

/// The least text above all that begin with `prefix`; none where there is none. The order of texts
/// in UTF-8 by bytes is that of their code points.
fn after(prefix: &str) -> Option<String> {
    let mut rest: Vec<char> = prefix.chars().collect();
    while let Some(last) = rest.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            _ => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            rest.push(next);
            return Some(rest.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(prefixes: &[&str]) -> Scope {
        let prefixes = prefixes.iter().map(|p| (*p).to_owned()).collect();
        Scope::new("payments".parse().unwrap(), prefixes).unwrap()
    }

    #[test]
    fn ranges_are_by_bytes_and_quoted() {
        let of = scope(&["pay__", "pay__x", "it's"]).of("d.dag_id", true);
        assert_eq!(
            of,
            "((d.dag_id >= 'it''s' AND d.dag_id < 'it''t') \
             OR (d.dag_id >= 'pay__' AND d.dag_id < 'pay_`'))"
        );
        assert!(scope(&["a"]).of("x", false).contains("x COLLATE \"C\" >= 'a'"));
    }

    #[test]
    fn nothing_is_of_a_namespace_without_prefixes_and_no_prefix_is_everybodys() {
        assert_eq!(scope(&[]).of("x", true), "false");
        assert!(Scope::new("payments".parse().unwrap(), vec![String::new()]).is_err());
    }

    proptest! {
        #[test]
        fn a_range_holds_just_what_begins_with_its_prefix(prefix in ".{1,4}", other in ".{0,6}", tail in ".{0,3}") {
            let inside = |text: &str| {
                text >= prefix.as_str() && after(&prefix).is_none_or(|end| text < end.as_str())
            };
            prop_assert_eq!(inside(&other), other.starts_with(&prefix));
            let longer = format!("{prefix}{tail}");
            prop_assert!(inside(&longer));
        }
    }
}
