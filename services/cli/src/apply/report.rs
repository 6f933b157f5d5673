//! What an apply did, for people and for scripts.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use airfleet_domain::manifest::{API_VERSION, Entry};
use serde::Serialize;

use super::{
    Applied, Outcome,
    wait::{Waited, by_shard},
};
use crate::{
    document::{AnyStatus, Assignment, Document, NamespaceStatus, ShardStatus},
    human,
    namespace::state_cell,
    screen::{Paint, Tone},
    table::Table,
};

/// Most namespaces without a shard that are listed.
const UNASSIGNED_MAX: usize = 50;

pub(super) fn line(id: &str, outcome: Outcome, dry_run: bool) -> String {
    format!("{id} {}{}", outcome.name(), if dry_run { " (dry run)" } else { "" })
}

fn count(applied: &[Applied], outcome: Outcome) -> usize {
    applied.iter().filter(|one| one.outcome == outcome).count()
}

/// `55 namespaces and 2 shards: 50 created, 2 configured, 5 unchanged`
pub(super) fn summary(applied: &[Applied], dry_run: bool) -> String {
    let namespaces = applied.iter().filter(|one| matches!(one.after, Entry::Namespace(_))).count();
    let kinds: Vec<String> = [(namespaces, "namespace"), (applied.len() - namespaces, "shard")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| human::count(number as i64, noun))
        .collect();
    let outcomes: Vec<String> = [Outcome::Created, Outcome::Configured, Outcome::Unchanged]
        .into_iter()
        .map(|outcome| (count(applied, outcome), outcome.name()))
        .filter(|(number, _)| *number > 0)
        .map(|(number, name)| format!("{number} {name}"))
        .collect();
    let nothing = if dry_run { "; nothing was changed (dry run)" } else { "" };
    format!("{}: {}{nothing}", kinds.join(" and "), outcomes.join(", "))
}

/// Where the namespaces are now, and which have no shard and why.
pub(super) fn assigned(waited: &[Waited], timeout: Duration, paint: Paint) -> String {
    let without: Vec<&Waited> = waited.iter().filter(|one| !one.is_assigned()).collect();
    let with = waited.len() - without.len();
    let mut text = format!("{with} of {} assigned", human::count(waited.len() as i64, "namespace"));
    if with > 0 {
        let _ = write!(text, ": {}", by_shard(waited));
    }
    text.push('\n');
    if without.is_empty() {
        return text;
    }
    let number = human::count(without.len() as i64, "namespace");
    let headline = format!("{number} without a shard after {}:", human::span(timeout));
    let _ = writeln!(text, "{}", paint.tone(Tone::Bad, &headline));
    let mut table = Table::new(["NAMESPACE", "STATE", "WHY"]);
    for one in without.iter().take(UNASSIGNED_MAX) {
        let assignment = one.assignment.as_ref();
        let why = assignment.map_or("the router has not seen it yet", |a| a.reason.as_str());
        table.row([one.namespace.as_str().into(), state_cell(assignment), why.into()]);
    }
    text.push_str(&table.render(paint, "  "));
    if without.len() > UNASSIGNED_MAX {
        let _ = writeln!(text, "  and {} more", without.len() - UNASSIGNED_MAX);
    }
    text.push_str(
        "They are tried again whenever the fleet changes; `airfleet shard list` shows the room.\n",
    );
    text
}

/// The outcome for scripts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    api_version: &'static str,
    kind: &'static str,
    dry_run: bool,
    revision: i64,
    summary: Summary,
    items: Vec<Line>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    created: usize,
    configured: usize,
    unchanged: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    outcome: Outcome,
    object: Document<AnyStatus>,
}

impl Report {
    pub(super) fn new(
        applied: Vec<Applied>,
        waited: Vec<Waited>,
        revision: i64,
        dry_run: bool,
    ) -> Self {
        let mut assignments: HashMap<String, Assignment> =
            waited.into_iter().filter_map(|one| Some((one.namespace, one.assignment?))).collect();
        let summary = Summary {
            created: count(&applied, Outcome::Created),
            configured: count(&applied, Outcome::Configured),
            unchanged: count(&applied, Outcome::Unchanged),
        };
        let items = applied
            .into_iter()
            .map(|Applied { outcome, after, kept, .. }| {
                let status = match &after {
                    Entry::Namespace(_) => AnyStatus::Namespace(Box::new(NamespaceStatus {
                        assignment: assignments.remove(after.name()),
                        kept,
                        orphaned: false,
                        roles: None,
                    })),
                    Entry::Shard(_) => {
                        AnyStatus::Shard(Box::new(ShardStatus { kept, state: None }))
                    }
                };
                Line { outcome, object: Document { entry: after, status } }
            })
            .collect();
        Self { api_version: API_VERSION, kind: "ApplyReport", dry_run, revision, summary, items }
    }
}
