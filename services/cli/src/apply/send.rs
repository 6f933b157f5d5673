//! Sends entries to the registry in batches.

use std::ops::Range;

use airfleet_domain::manifest::Entry;
use airfleet_proto::registry::v1::{
    ApplyManifestRequest, ApplyOutcome, ApplyResult, ManifestEntry,
};
use airfleet_runtime::status::Problem;
use indicatif::{ProgressBar, ProgressStyle};
use prost::Message as _;
use serde::Serialize;

use crate::{
    client,
    document::{self, Kept},
    error::{self, Error, Result},
    files::Manifest,
    session::Session,
};

/// Most entries of a batch.
const BATCH_MAX: usize = 500;
/// Largest batch; services take 4 MiB.
const BATCH_MAX_BYTES: usize = 2 * 1024 * 1024;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    /// It is new.
    Created,
    /// It was changed.
    Configured,
    /// It was so already.
    Unchanged,
}

impl Outcome {
    /// As it is shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// An entry that was applied, or would be.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    /// Index into the items of the manifest.
    pub(crate) item: usize,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// As it was.
    pub(crate) before: Option<Entry>,
    /// As it is.
    pub(crate) after: Entry,
    /// What the registry keeps with it.
    pub(crate) kept: Kept,
}

/// Sends all entries and tells `sink` of each batch. Answers the revision of the manifest.
pub(crate) async fn send(
    session: &mut Session<'_>,
    manifest: &Manifest,
    dry_run: bool,
    mut sink: impl FnMut(&mut Session<'_>, Vec<Applied>) -> Result<()>,
) -> Result<i64> {
    let entries: Vec<ManifestEntry> =
        manifest.items.iter().map(|item| item.entry.clone().into()).collect();
    let batches = batches(&entries);
    let progress = progress(session, entries.len(), batches.len());
    let mut revision = 0;
    for batch in batches {
        let request = ApplyManifestRequest {
            entries: entries[batch.clone()].to_vec(),
            request_id: client::request_id(),
            validate_only: dry_run,
        };
        let answer = session
            .registry
            .try_call(async |mut client| client.apply_manifest(request.clone()).await)
            .await
            .map_err(|problem| {
                progress.finish_and_clear();
                refused(session, manifest, &batch, dry_run, &problem)
            })?;
        if answer.results.len() != batch.len() {
            return Err(Error::new(format!(
                "the registry answered {} results for {} entries",
                answer.results.len(),
                batch.len()
            )));
        }
        revision = answer.revision;
        let applied = answer.results.into_iter().zip(batch.clone());
        let applied = applied.map(|(result, item)| read(result, item)).collect::<Result<_>>()?;
        progress.suspend(|| sink(session, applied))?;
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    Ok(revision)
}

fn read(result: ApplyResult, item: usize) -> Result<Applied> {
    let outcome = match result.outcome() {
        ApplyOutcome::Created => Outcome::Created,
        ApplyOutcome::Updated => Outcome::Configured,
        ApplyOutcome::Unchanged | ApplyOutcome::Unspecified => Outcome::Unchanged,
    };
    let (after, kept) = document::entry(result.entry.unwrap_or_default())?;
    let before = result.before.map(|before| document::entry(before).map(|(entry, _)| entry));
    Ok(Applied { item, outcome, before: before.transpose()?, after, kept })
}

/// Ranges of entries that go together.
fn batches(entries: &[ManifestEntry]) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, entry) in entries.iter().enumerate() {
        let own = entry.encoded_len() + 8;
        if index > start && (index - start == BATCH_MAX || bytes + own > BATCH_MAX_BYTES) {
            batches.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += own;
    }
    if start < entries.len() {
        batches.push(start..entries.len());
    }
    batches
}

/// A bar on a terminal where there is more than one batch to wait for.
fn progress(session: &Session<'_>, entries: usize, batches: usize) -> ProgressBar {
    if batches < 2 || !session.screen.shows_progress() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} entries, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(entries as u64).with_style(style)
}

/// The registry's refusal in the words of the files.
fn refused(
    session: &Session<'_>,
    manifest: &Manifest,
    batch: &Range<usize>,
    dry_run: bool,
    problem: &Problem,
) -> Error {
    let what = if dry_run { "cannot check the manifest" } else { "cannot apply the manifest" };
    let mut lines = Vec::new();
    for violation in &problem.violations {
        lines.push(in_the_files(manifest, batch, &violation.field, &violation.message));
    }
    for condition in &problem.preconditions {
        lines.push(about_an_entry(manifest, batch, &condition.subject, &condition.description));
    }
    lines.extend(error::omitted(problem));
    let mut refusal = session.registry.refused(what, problem);
    let is_about_entries = !lines.is_empty();
    if is_about_entries {
        refusal = refusal
            .with_what(format!("{what}: the registry refused it ({})", problem.reason))
            .with_details(lines);
    }
    if batch.start > 0 && !dry_run {
        refusal = refusal.detail(format!(
            "{} of {} entries were applied before; apply the same files again to go on",
            batch.start,
            manifest.items.len()
        ));
    } else if !dry_run && is_about_entries {
        refusal = refusal.or_hint("nothing was changed");
    }
    refusal
}

/// A violation of `entries[3].namespace.prefixes[0]` at the place where the entry was read.
fn in_the_files(manifest: &Manifest, batch: &Range<usize>, field: &str, message: &str) -> String {
    let parsed = field
        .strip_prefix("entries[")
        .and_then(|rest| rest.split_once(']'))
        .and_then(|(index, path)| Some((index.parse::<usize>().ok()?, path)));
    let item = parsed.and_then(|(index, path)| {
        Some((manifest.items.get(batch.start.checked_add(index)?)?, path))
    });
    let Some((item, path)) = item else { return format!("{field}: {message}") };
    let path = path.trim_start_matches('.');
    let path = ["namespace", "shard"]
        .into_iter()
        .find_map(|kind| {
            path.strip_prefix(kind).filter(|rest| rest.is_empty() || rest.starts_with('.'))
        })
        .unwrap_or(path)
        .trim_start_matches('.');
    if path.is_empty() {
        format!("{}: {}: {message}", manifest.place(item), item.id())
    } else {
        manifest.complaint(item, path, message)
    }
}

/// A condition on `namespaces/payments` at the place where that was read: at the prefix that the
/// message quotes, if it does.
fn about_an_entry(
    manifest: &Manifest,
    batch: &Range<usize>,
    subject: &str,
    message: &str,
) -> String {
    let item = subject.split_once('/').and_then(|(kind, name)| {
        let kind = kind.strip_suffix('s')?;
        let mut items = manifest.items[batch.clone()].iter();
        items.find(|item| item.entry.kind() == kind && item.entry.name() == name)
    });
    let Some(item) = item else { return format!("{subject}: {message}") };
    let quoted = match &item.entry {
        Entry::Namespace(namespace) => {
            let mut prefixes = namespace.spec.prefixes.iter();
            prefixes.position(|prefix| message.contains(&format!("{prefix:?}")))
        }
        Entry::Shard(_) => None,
    };
    match quoted {
        Some(index) => manifest.complaint(item, &format!("prefixes[{index}]"), message),
        None => format!("{}: {}: {message}", manifest.place(item), item.id()),
    }
}

#[cfg(test)]
mod tests {
    use airfleet_proto::registry::v1::{Namespace, manifest_entry::Kind};

    use super::*;

    fn entry(description: &str) -> ManifestEntry {
        let namespace = Namespace { description: description.into(), ..Namespace::default() };
        ManifestEntry { kind: Some(Kind::Namespace(namespace)) }
    }

    #[test]
    fn batches_are_bounded_by_count_and_size() {
        assert!(batches(&[]).is_empty());
        assert_eq!(batches(&vec![entry("x"); 500]).len(), 1);
        assert_eq!(batches(&vec![entry("x"); 1001]), [0..500, 500..1000, 1000..1001]);
        let large = entry(&"x".repeat(BATCH_MAX_BYTES / 2));
        assert_eq!(batches(&vec![large; 3]), [0..1, 1..2, 2..3]);
        let huge = entry(&"x".repeat(BATCH_MAX_BYTES * 2));
        assert_eq!(batches(&[entry("x"), huge, entry("x")]), [0..1, 1..2, 2..3]);
    }

    #[test]
    fn a_refusal_is_told_at_its_place_in_the_files() {
        let text = "apiVersion: airfleet.dev/v1\nkind: Shard\nmetadata: {name: shard-a}\n---\n\
                    apiVersion: airfleet.dev/v1\nkind: Namespace\nmetadata: {name: pay}\n\
                    spec: {owners: [team], prefixes: [pay.]}\n";
        let manifest = crate::files::read(&["-".to_owned()], true, text.as_bytes()).unwrap();
        let told = |field: &str| in_the_files(&manifest, &(1..2), field, "is taken");
        assert_eq!(
            told("entries[0].namespace.prefixes[0]"),
            "<stdin>:8:35: namespace/pay: spec.prefixes[0]: is taken"
        );
        assert_eq!(
            told("entries[0].prefixes[0]"),
            "<stdin>:8:35: namespace/pay: spec.prefixes[0]: is taken"
        );
        assert_eq!(told("entries[0].namespace"), "<stdin>:5: namespace/pay: is taken");
        assert_eq!(told("entries[0]"), "<stdin>:5: namespace/pay: is taken");
        assert_eq!(told("entries[7].namespace"), "entries[7].namespace: is taken");
        assert_eq!(told("request_id"), "request_id: is taken");
        let about =
            |subject: &str, message: &str| about_an_entry(&manifest, &(0..2), subject, message);
        assert_eq!(
            about("namespaces/pay", "prefix \"pay.\" is taken"),
            "<stdin>:8:35: namespace/pay: spec.prefixes[0]: prefix \"pay.\" is taken"
        );
        assert_eq!(about("namespaces/pay", "is old"), "<stdin>:5: namespace/pay: is old");
        assert_eq!(about("shards/ghost", "is gone"), "shards/ghost: is gone");
    }
}
