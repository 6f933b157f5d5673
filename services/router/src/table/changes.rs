//! The history that watchers follow: how it goes on, and what it is after a table was read whole.

use airfleet_domain::{
    ids::{NamespaceName, Revision},
    routing::{Change, Table, history::History},
};

/// Adds changes, in order of revision, up to `revision`, which may have none.
pub(super) fn record(history: &mut History, changes: Vec<(Revision, Change)>, revision: Revision) {
    let mut changes = changes.into_iter().peekable();
    while let Some((at, _)) = changes.peek() {
        let at = *at;
        let same = std::iter::from_fn(|| changes.next_if(|(other, _)| *other == at));
        let recorded = history.record(same.map(|(_, change)| change).collect::<Vec<_>>(), at);
        debug_assert!(recorded.is_ok(), "only what is newer is recorded, in order");
    }
    if history.revision() < revision {
        let recorded = history.record([], revision);
        debug_assert!(recorded.is_ok(), "it was just seen to be newer");
    }
}

/// What leads from one table to a later one of the same store, all at the later one's revision.
pub(super) fn difference(from: &Table, to: &Table) -> Vec<(Revision, Change)> {
    let mut old = from.iter().peekable();
    let mut new = to.iter().peekable();
    let mut changes = Vec::new();
    let at = to.revision();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => old.namespace().cmp(new.namespace()),
        };
        let before = old.next_if(|_| order.is_le());
        let after = new.next_if(|_| order.is_ge());
        match (before, after) {
            (Some(before), None) => changes.push((at, Change::Delete(before.namespace_name()))),
            (Some(before), Some(after)) if before == after => {}
            (_, Some(after)) => changes.push((at, Change::Upsert(after.clone()))),
            (None, None) => return changes,
        }
    }
}

/// The history that the rows themselves tell: each was last changed at its own revision. So a
/// watcher that was connected before a restart goes on where it was.
pub(super) fn remembered(
    table: &Table,
    removals_floor: Revision,
    removals: Vec<(Revision, NamespaceName)>,
    limit: usize,
) -> History {
    let mut revisions: Vec<i64> = table.iter().map(|entry| entry.revision().0).collect();
    // The revision after which at most `limit` entries changed.
    let cut = match revisions.len().checked_sub(limit) {
        Some(skipped) if skipped > 0 => *revisions.select_nth_unstable(skipped - 1).1,
        _ => 0,
    };
    let floor = Revision(cut).max(removals_floor).min(table.revision());
    let upserts = table
        .iter()
        .filter(|entry| entry.revision() > floor)
        .map(|entry| (entry.revision(), Change::Upsert(entry.clone())));
    let deletions = removals
        .into_iter()
        .filter(|(revision, _)| *revision > floor)
        // One that came back is known by its entry.
        .filter(|(_, name)| table.resolve_namespace(name.as_str()).is_none())
        .map(|(revision, name)| (revision, Change::Delete(name)));
    let mut changes: Vec<_> = upserts.chain(deletions).collect();
    changes.sort_by_key(|(revision, _)| *revision);
    let mut history = History::new(floor, limit);
    record(&mut history, changes, table.revision());
    history
}
