//! No dag_id may belong to two namespaces: finds prefixes that start with one another.
//!
//! Looks at neighbours only. Because the prefixes that are stored do not overlap between
//! namespaces, the one that sorts directly before a new prefix tells almost everything: if a
//! stored prefix starts the new one, it also starts every stored prefix that sorts between the
//! two. So where the neighbour does not start the new prefix itself, only what both have in common
//! can, and the search goes on from there. That is two or three index lookups a prefix, at any
//! number of namespaces.

use std::fmt::Write as _;

use airfleet_domain::ids::PREFIX_MIN_CHARS;
use airfleet_sql::{Result, Sql, Tx, Value, params};

use super::NAMES_MAX;

/// Two prefixes of which one starts with the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overlap {
    /// The prefix that is wanted.
    pub(crate) prefix: String,
    /// The namespace that wants it.
    pub(crate) namespace: String,
    /// The prefix that is in the way.
    pub(crate) other_prefix: String,
    /// The namespace that owns it.
    pub(crate) other_namespace: String,
}

/// A prefix that a namespace wants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) prefix: String,
    pub(super) namespace: String,
}

/// Which claims overlap with one another or with what is stored. What is stored must not hold the
/// prefixes of the claiming namespaces themselves.
pub(super) async fn find_overlaps(tx: &mut Tx, claims: &[Claim]) -> Result<Vec<Overlap>> {
    let mut overlaps = among(claims);
    for chunk in claims.chunks(NAMES_MAX) {
        overlaps.extend(against_stored(tx, chunk).await?);
    }
    Ok(overlaps)
}

/// Overlaps between claims of different namespaces.
fn among(claims: &[Claim]) -> Vec<Overlap> {
    let mut sorted: Vec<&Claim> = claims.iter().collect();
    sorted.sort_unstable();
    let mut overlaps = Vec::new();
    // Claims that start the present one, shortest first.
    let mut open: Vec<&Claim> = Vec::new();
    for claim in sorted {
        while open.last().is_some_and(|last| !claim.prefix.starts_with(&last.prefix)) {
            open.pop();
        }
        if let Some(other) = open.iter().find(|other| other.namespace != claim.namespace) {
            overlaps.push(overlap(claim, &other.prefix, &other.namespace));
        }
        open.push(claim);
    }
    overlaps
}

fn overlap(claim: &Claim, other_prefix: &str, other_namespace: &str) -> Overlap {
    Overlap {
        prefix: claim.prefix.clone(),
        namespace: claim.namespace.clone(),
        other_prefix: other_prefix.to_owned(),
        other_namespace: other_namespace.to_owned(),
    }
}

async fn against_stored(tx: &mut Tx, claims: &[Claim]) -> Result<Vec<Overlap>> {
    let mut overlaps = Vec::new();
    // The text that is looked up next for each claim that is not settled.
    let mut open: Vec<(&Claim, &str)> =
        claims.iter().map(|claim| (claim, claim.prefix.as_str())).collect();
    let mut first_round = true;
    while !open.is_empty() {
        let texts = open.iter().map(|(_, text)| *text);
        let found = neighbours(tx, texts).await?;
        let mut again = Vec::new();
        for ((claim, text), (before, after)) in open.into_iter().zip(found) {
            if first_round
                && let Some(after) = after
                && after.starts_with(&claim.prefix)
            {
                overlaps.push((claim, after));
                continue;
            }
            let Some(before) = before else { continue };
            if claim.prefix.starts_with(&before) {
                overlaps.push((claim, before));
                continue;
            }
            // Shorter than `text` in every round, so this ends.
            let common = common_start(text, &before);
            if common.chars().count() >= PREFIX_MIN_CHARS {
                again.push((claim, common));
            }
        }
        open = again;
        first_round = false;
    }
    name_owners(tx, overlaps).await
}

/// For each text the stored prefix that sorts at or before it, and the one at or after it.
async fn neighbours(
    tx: &mut Tx,
    texts: impl Iterator<Item = &str>,
) -> Result<Vec<(Option<String>, Option<String>)>> {
    let mut values = String::new();
    let mut binds: Vec<Value> = Vec::new();
    for (index, text) in texts.enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Numbered, because a list of values has no order of its own.
        let bind = index + 1;
        write!(values, "{comma}(CAST({index} AS BIGINT), CAST(${bind} AS TEXT))")
            .expect("a String takes everything");
        binds.push(text.into());
    }
    let sql = format!(
        "SELECT wanted.column1,
            (SELECT p.prefix FROM registry_prefixes p
             WHERE p.prefix <= wanted.column2 ORDER BY p.prefix DESC LIMIT 1),
            (SELECT p.prefix FROM registry_prefixes p
             WHERE p.prefix >= wanted.column2 ORDER BY p.prefix LIMIT 1)
         FROM (VALUES {values}) AS wanted ORDER BY wanted.column1"
    );
    tx.fetch_all(Sql::assembled(sql), binds, |row| Ok((row.get(1)?, row.get(2)?))).await
}

/// What both texts start with.
fn common_start<'a>(text: &'a str, other: &str) -> &'a str {
    let end = text
        .char_indices()
        .zip(other.chars())
        .find(|((_, a), b)| a != b)
        .map_or(text.len().min(other.len()), |((at, _), _)| at);
    &text[..end]
}

async fn name_owners(tx: &mut Tx, found: Vec<(&Claim, String)>) -> Result<Vec<Overlap>> {
    let mut overlaps = Vec::new();
    for (claim, prefix) in found {
        let owner: String = tx
            .fetch_one(
                "SELECT namespace FROM registry_prefixes WHERE prefix = $1",
                params![&prefix],
                |row| row.get(0),
            )
            .await?;
        overlaps.push(overlap(claim, &prefix, &owner));
    }
    Ok(overlaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(list: &[(&str, &str)]) -> Vec<Claim> {
        list.iter()
            .map(|(prefix, namespace)| Claim {
                prefix: (*prefix).to_owned(),
                namespace: (*namespace).to_owned(),
            })
            .collect()
    }

    #[test]
    fn claims_of_one_namespace_may_nest_and_those_of_two_may_not() {
        let list = claims(&[("pay.", "a"), ("pay.x.", "a"), ("payments.", "b"), ("pay.x", "a")]);
        assert!(among(&list).is_empty());
        let list = claims(&[("pay.x.", "b"), ("pay.", "a"), ("pay.x.y.", "a"), ("zzz", "c")]);
        let found = among(&list);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((&*found[0].prefix, &*found[0].other_prefix), ("pay.x.", "pay."));
        assert_eq!((&*found[1].prefix, &*found[1].other_prefix), ("pay.x.y.", "pay.x."));
    }

    #[test]
    fn common_starts_end_at_characters() {
        assert_eq!(common_start("abc", "abd"), "ab");
        assert_eq!(common_start("abc", "abcdef"), "abc");
        assert_eq!(common_start("abcdef", "abc"), "abc");
        assert_eq!(common_start("aé", "aè"), "a");
        assert_eq!(common_start("x", "y"), "");
    }
}
