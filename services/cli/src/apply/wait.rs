//! Waits until a shard owns each namespace that was applied.

use std::{collections::HashMap, time::Duration};

use airfleet_domain::manifest::Entry;
use indicatif::ProgressBar;

use super::Applied;
use crate::{
    document::Assignment,
    error::Result,
    follow::{Follower, News, Table},
    human,
    session::Session,
};

/// A namespace that was waited for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waited {
    pub(super) namespace: String,
    /// The assignment as it was seen last; `None` where the router has not seen the namespace.
    pub(super) assignment: Option<Assignment>,
}

impl Waited {
    pub(super) fn is_assigned(&self) -> bool {
        self.assignment.as_ref().is_some_and(Assignment::is_assigned)
    }
}

/// Waits for the namespaces among `applied`, in their order, at most for `timeout`.
pub(super) async fn wait(
    session: &mut Session<'_>,
    applied: &[Applied],
    timeout: Duration,
) -> Result<Vec<Waited>> {
    let wanted: Vec<(&str, &str)> = applied
        .iter()
        .filter_map(|one| match &one.after {
            Entry::Namespace(_) => Some((one.after.name(), one.kept.uid.as_str())),
            Entry::Shard(_) => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let deadline = tokio::time::Instant::now() + timeout;
    let mut missing: HashMap<&str, &str> = wanted.iter().copied().collect();
    let mut follower = Follower::start(&session.router).await?;
    let progress = spinner(session);
    loop {
        missing.retain(|name, uid| {
            !current(follower.table(), name, uid).is_some_and(Assignment::is_assigned)
        });
        if missing.is_empty() {
            break;
        }
        progress.set_message(format!(
            "{} of {} namespaces are assigned",
            wanted.len() - missing.len(),
            wanted.len()
        ));
        match tokio::time::timeout_at(deadline, follower.next()).await {
            Ok(Ok(News::Events(_))) => {}
            Ok(Ok(News::Interrupted(why))) => {
                progress
                    .suspend(|| session.screen.warn(&format!("lost the router: {why}; going on")));
            }
            Ok(Err(error)) => {
                progress.finish_and_clear();
                return Err(error);
            }
            Err(_) => break,
        }
    }
    progress.finish_and_clear();
    let table = follower.table();
    Ok(wanted
        .into_iter()
        .map(|(name, uid)| Waited {
            namespace: name.to_owned(),
            assignment: current(table, name, uid).cloned(),
        })
        .collect())
}

/// The assignment of that very namespace, not of an earlier one of its name.
fn current<'a>(table: &'a Table, name: &str, uid: &str) -> Option<&'a Assignment> {
    table.assignments().get(name).filter(|found| found.namespace_uid == uid)
}

fn spinner(session: &Session<'_>) -> ProgressBar {
    if !session.screen.shows_progress() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// How many namespaces each shard got, by shard.
pub(super) fn by_shard(waited: &[Waited]) -> String {
    let mut counts: std::collections::BTreeMap<&str, i64> = std::collections::BTreeMap::new();
    for assignment in
        waited.iter().filter(|one| one.is_assigned()).filter_map(|w| w.assignment.as_ref())
    {
        *counts.entry(&assignment.shard).or_default() += 1;
    }
    let parts: Vec<String> =
        counts.into_iter().map(|(shard, count)| format!("{count} to {shard}")).collect();
    human::list(&parts, 10).replace(',', ", ")
}
