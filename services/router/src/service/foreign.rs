//! Whose DAGs those are that a shard has without having been told of.
//!
//! A shard's fence must deny every dag_id that is registered in the fleet and not active there, also
//! of namespaces that never were there. Telling each shard all prefixes of the fleet would be a
//! million texts a shard, so its agent asks about the DAGs that it has, and is told of the prefixes
//! that matter to it. Nothing is kept between two questions.

use std::collections::BTreeMap;

use airfleet_domain::{ids::ShardName, routing::Table};

/// Most dag_ids of one question.
const ASKED_MAX: usize = 1000;

/// A prefix whose DAGs must not run on the shard that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign<'a> {
    /// The prefix.
    pub(crate) prefix: &'a str,
    /// The namespace that owns it.
    pub(crate) namespace: &'a str,
    /// The shard that owns the namespace, if one does.
    pub(crate) shard: Option<&'a str>,
}

/// The prefixes that the first [`ASKED_MAX`] of these dag_ids start with and that are not those of
/// the shard's own namespaces. Sorted, each once.
pub(crate) fn foreign<'a>(
    table: &'a Table,
    shard: &ShardName,
    dag_ids: &'a [String],
) -> Vec<Foreign<'a>> {
    let dag_ids = dag_ids.iter().take(ASKED_MAX).map(String::as_str);
    let entries = table.resolve_dags(dag_ids.clone());
    let mut found = BTreeMap::new();
    for (dag_id, entry) in dag_ids.zip(entries) {
        let Some(entry) = entry.filter(|entry| entry.shard() != Some(shard.as_str())) else {
            continue;
        };
        let longest = entry
            .prefixes()
            .filter(|prefix| dag_id.starts_with(prefix))
            .max_by_key(|prefix| prefix.len());
        if let Some(prefix) = longest {
            found.insert(
                prefix,
                Foreign { prefix, namespace: entry.namespace(), shard: entry.shard() },
            );
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use airfleet_domain::ids::Revision;

    use super::*;
    use crate::testing::{name, record};

    #[test]
    fn only_what_others_own_is_foreign() {
        let table = Table::build(
            [
                record("mine").on("shard-a", 1).at(1).entry,
                record("theirs").prefixes(&["pay.", "pay.eu."]).on("shard-b", 1).at(1).entry,
                record("waits").at(1).entry,
            ],
            Revision(1),
        );
        let ask = ["mine.x", "pay.x", "pay.y", "pay.eu.x", "waits.x", "nobody", "pay"];
        let ask: Vec<String> = ask.map(str::to_owned).to_vec();
        let found = foreign(&table, &name("shard-a"), &ask);
        let told: Vec<_> = found.iter().map(|f| (f.prefix, f.namespace, f.shard)).collect();
        let theirs = Some("shard-b");
        assert_eq!(
            told,
            [("pay.", "theirs", theirs), ("pay.eu.", "theirs", theirs), ("waits.", "waits", None)]
        );
    }

    #[test]
    fn a_question_is_bounded() {
        let table = Table::build([record("theirs").at(1).entry], Revision(1));
        let mut ask = vec!["nobody".to_owned(); ASKED_MAX];
        ask.push("theirs.x".into());
        assert!(foreign(&table, &name("shard-a"), &ask).is_empty());
        assert_eq!(foreign(&table, &name("shard-a"), &ask[1..]).len(), 1);
    }
}
