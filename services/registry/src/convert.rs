//! Between the wire and what the service speaks. Wire types end here.

use std::sync::Arc;

use airfleet_domain::ids::Revision;
use airfleet_domain::labels::Requirement;
use airfleet_domain::manifest::{Entry, Namespace, Shard};
use airfleet_proto::common::v1 as common;
use airfleet_proto::convert::{Unreadable, requirements, timestamp};
use airfleet_proto::registry::v1 as wire;
use airfleet_runtime::status::{Failure, FieldViolation};
use prost_types::{Struct, value};

use crate::service::Wanted;
use crate::store::{Action, AuditEvent, Item, Key, Kind, Outcome, Stored};
use crate::watch::Event;

/// The entry of a request; `field` is where it stands there.
pub(crate) fn wanted_namespace(namespace: Option<wire::Namespace>) -> Result<Wanted, Failure> {
    let namespace = namespace.ok_or_else(|| required("namespace"))?;
    let etag = namespace.etag.clone();
    let read = Namespace::try_from(namespace).map_err(|error| unreadable("namespace.", error))?;
    Ok(Wanted { field: String::new(), entry: Entry::Namespace(read), etag })
}

/// The entry of a request.
pub(crate) fn wanted_shard(shard: Option<wire::Shard>) -> Result<Wanted, Failure> {
    let shard = shard.ok_or_else(|| required("shard"))?;
    let etag = shard.etag.clone();
    let read = Shard::try_from(shard).map_err(|error| unreadable("shard.", error))?;
    Ok(Wanted { field: String::new(), entry: Entry::Shard(read), etag })
}

/// The entries of an apply. Names every one that cannot be read.
pub(crate) fn wanted_entries(entries: Vec<wire::ManifestEntry>) -> Result<Vec<Wanted>, Failure> {
    let mut violations = Vec::new();
    let mut wanted = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        use wire::manifest_entry::Kind as Of;
        let field = format!("entries[{index}].");
        let (kind, etag) = match &entry.kind {
            Some(Of::Namespace(namespace)) => ("namespace.", namespace.etag.clone()),
            Some(Of::Shard(shard)) => ("shard.", shard.etag.clone()),
            None => ("", String::new()),
        };
        match Entry::try_from(entry) {
            Ok(entry) => wanted.push(Wanted { field, entry, etag }),
            Err(error) => violations.push(violation(&format!("{field}{kind}"), error)),
        }
    }
    if violations.is_empty() { Ok(wanted) } else { Err(Failure::invalid(violations)) }
}

/// The selector of a list.
pub(crate) fn selector(
    wire: Vec<common::SelectorRequirement>,
) -> Result<Vec<Requirement>, Failure> {
    requirements("selector", wire).map_err(|error| unreadable("", error))
}

fn required(field: &str) -> Failure {
    Failure::invalid_field(field, "REQUIRED", "must be given")
}

fn violation(start: &str, Unreadable { field, message }: Unreadable) -> FieldViolation {
    FieldViolation::new(format!("{start}{field}"), "UNREADABLE", message)
}

fn unreadable(start: &str, error: Unreadable) -> Failure {
    Failure::invalid(vec![violation(start, error)])
}

/// A namespace, where it is known to be one.
pub(crate) fn namespace(stored: Stored) -> Result<wire::Namespace, Failure> {
    use wire::manifest_entry::Kind as Of;
    match entry(stored).kind {
        Some(Of::Namespace(namespace)) => Ok(namespace),
        _ => Err(Failure::internal("a namespace was asked for and something else was found")),
    }
}

/// A shard, where it is known to be one.
pub(crate) fn shard(stored: Stored) -> Result<wire::Shard, Failure> {
    use wire::manifest_entry::Kind as Of;
    match entry(stored).kind {
        Some(Of::Shard(shard)) => Ok(shard),
        _ => Err(Failure::internal("a shard was asked for and something else was found")),
    }
}

/// An entry with what the registry knows of it.
pub(crate) fn entry(stored: Stored) -> wire::ManifestEntry {
    use wire::manifest_entry::Kind as Of;
    let etag = stored.etag();
    let Stored { entry, uid, revision: Revision(revision), created_at, updated_at } = stored;
    let (create_time, update_time) = (Some(timestamp(created_at)), Some(timestamp(updated_at)));
    let kind = match entry {
        Entry::Namespace(namespace) => Of::Namespace(wire::Namespace {
            uid,
            etag,
            revision,
            create_time,
            update_time,
            ..namespace.into()
        }),
        Entry::Shard(shard) => {
            Of::Shard(wire::Shard { uid, etag, revision, create_time, update_time, ..shard.into() })
        }
    };
    wire::ManifestEntry { kind: Some(kind) }
}

/// What an apply did.
pub(crate) fn applied(outcome: Outcome) -> wire::ApplyManifestResponse {
    let result = |Item { action, before, after, .. }: Item| {
        let outcome = match action {
            Action::Created => wire::ApplyOutcome::Created,
            Action::Updated => wire::ApplyOutcome::Updated,
            Action::Unchanged | Action::Deleted => wire::ApplyOutcome::Unchanged,
        };
        wire::ApplyResult {
            outcome: outcome.into(),
            entry: after.map(entry),
            before: before.map(entry),
        }
    };
    wire::ApplyManifestResponse {
        results: outcome.items.into_iter().map(result).collect(),
        revision: outcome.revision.0,
    }
}

/// What a watcher is told.
pub(crate) fn watch_response(event: Event) -> wire::WatchManifestResponse {
    use wire::watch_manifest_response::Event as Of;
    let (Revision(revision), event) = match event {
        Event::Piece { revision, entries, is_first, is_last } => {
            let entries = entries.into_iter().map(entry).collect();
            let piece = wire::ManifestSnapshot { entries, first: is_first, last: is_last };
            (revision, Of::Snapshot(piece))
        }
        Event::Change { previous, revision, upserts, deleted } => {
            let names = |kind: Kind| {
                let of_kind = deleted.iter().filter(|key| key.kind == kind);
                of_kind.map(|Key { name, .. }| name.clone()).collect()
            };
            let change = wire::ManifestChange {
                previous_revision: previous.0,
                upserts: upserts.into_iter().map(Arc::unwrap_or_clone).map(entry).collect(),
                deleted_namespaces: names(Kind::Namespace),
                deleted_shards: names(Kind::Shard),
            };
            (revision, Of::Change(change))
        }
        Event::Progress { revision } => (revision, Of::Progress(wire::ProgressMark {})),
    };
    wire::WatchManifestResponse { revision, event: Some(event) }
}

/// An event of the audit.
pub(crate) fn audit_event(event: AuditEvent) -> wire::AuditEvent {
    wire::AuditEvent {
        revision: event.revision.0,
        time: Some(timestamp(event.happened_at)),
        actor: event.actor,
        action: event.action,
        kind: event.key.kind.as_str().to_owned(),
        name: event.key.name,
        before: event.before.as_ref().map(document),
        after: event.after.as_ref().map(document),
        request_id: event.request_id,
        reason: event.reason,
    }
}

/// An entry as people write it, and its uid.
fn document(stored: &Stored) -> Struct {
    let declared = match &stored.entry {
        Entry::Namespace(namespace) => serde_json::to_value(namespace),
        Entry::Shard(shard) => serde_json::to_value(shard),
    };
    let Ok(serde_json::Value::Object(fields)) = declared else { return Struct::default() };
    let mut document = object(fields);
    let uid = value::Kind::StringValue(stored.uid.clone());
    document.fields.insert("uid".to_owned(), prost_types::Value { kind: Some(uid) });
    document
}

fn object(fields: serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, field)| (name, json(field))).collect() }
}

fn json(from: serde_json::Value) -> prost_types::Value {
    use serde_json::Value as Json;
    let kind = match from {
        Json::Null => value::Kind::NullValue(0),
        Json::Bool(flag) => value::Kind::BoolValue(flag),
        // Amounts are below 2^53, so they come through as they are.
        Json::Number(number) => value::Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => value::Kind::StringValue(text),
        Json::Array(list) => value::Kind::ListValue(prost_types::ListValue {
            values: list.into_iter().map(json).collect(),
        }),
        Json::Object(fields) => value::Kind::StructValue(object(fields)),
    };
    prost_types::Value { kind: Some(kind) }
}
