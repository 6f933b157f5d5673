//! What can be asked of the registry: who may, whether it makes sense, and what is to change.
//!
//! Each use-case loads, decides and writes in one transaction of the [`Store`]; what is decided
//! here is pure. The one exception is deletion, which first asks the router to give up what is to
//! be deleted, and then deletes exactly what it asked about.
//!
//! Invariant: nothing is written before the caller was found to be allowed and the input to be
//! valid. It must not know the wire types nor SQL.

mod delete;
mod mask;
mod refusal;
mod token;

use std::sync::Arc;

use airfleet_domain::ids::{NamespaceName, Revision, ShardName};
use airfleet_domain::labels::Requirement;
use airfleet_domain::manifest::{Entry, Violation};
use airfleet_runtime::auth::{Principal, Role};
use airfleet_runtime::clock::SharedClock;
use airfleet_runtime::lifecycle::Tasks;
use airfleet_runtime::status::{Failure, FieldViolation};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

pub(crate) use self::delete::Deletion;
pub(crate) use self::refusal::store_failure;
use self::token::PageToken;
use crate::metrics::Metrics;
use crate::router::Router;
use crate::store::{
    AuditEvent, AuditFilter, Filter, Idempotency, Key, Kind, Outcome, Store, Stored, Write,
    WriteError,
};
use crate::watch::Tail;

/// Most entries of one apply.
pub(crate) const APPLY_MAX: usize = 1000;
/// Entries of a page where the caller does not say.
const PAGE_DEFAULT: usize = 100;
/// Most entries of a page.
const PAGE_MAX: usize = 1000;
/// About how much one answer holds; clients decode 4 MiB unless told otherwise.
pub(crate) const ANSWER_MAX_BYTES: usize = 3 * 1024 * 1024;
/// What an entry is on the wire beyond what was declared: uid, etag, revision, times.
const ENTRY_OVERHEAD_BYTES: usize = 160;
/// Most requirements of a filter.
const SELECTOR_MAX: usize = 32;
/// Most values of a requirement.
const SELECTOR_VALUES_MAX: usize = 64;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The principal.
    pub(crate) principal: Arc<Principal>,
    /// Id of the call in logs and traces.
    pub(crate) call_id: String,
}

/// What every change may carry.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Chosen by the client so that the call can be repeated; empty for none.
    pub(crate) request_id: String,
    /// Check everything, change nothing.
    pub(crate) validate_only: bool,
}

/// An entry as a client wants it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Wanted {
    /// Where it stands in the request, for errors: empty, or `entries[3].`.
    #[serde(skip)]
    pub(crate) field: String,
    /// What it is to be.
    #[serde(serialize_with = "serialize_entry")]
    pub(crate) entry: Entry,
    /// Where set, must be the current one.
    pub(crate) etag: String,
}

fn serialize_entry<S: serde::Serializer>(entry: &Entry, to: S) -> Result<S::Ok, S::Error> {
    match entry {
        Entry::Namespace(namespace) => ("namespace", namespace).serialize(to),
        Entry::Shard(shard) => ("shard", shard).serialize(to),
    }
}

/// A page of something.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    /// What is on it.
    pub(crate) items: Vec<T>,
    /// For the next page; empty on the last.
    pub(crate) next_page_token: String,
    /// Revision that it was read at.
    pub(crate) revision: Revision,
}

/// Which page.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageRequest {
    /// 0 for the default.
    pub(crate) size: i32,
    /// Empty for the first.
    pub(crate) token: String,
}

/// The registry.
#[derive(Debug)]
pub(crate) struct Service {
    store: Arc<Store>,
    tail: Arc<Tail>,
    router: Option<Router>,
    clock: SharedClock,
    tasks: Tasks,
    metrics: Metrics,
}

impl Service {
    /// A registry over `store`. `tail` is told when something changed; `router` is asked before
    /// something is deleted.
    pub(crate) fn new(
        store: Arc<Store>,
        tail: Arc<Tail>,
        router: Option<Router>,
        node: &airfleet_runtime::node::Node,
        metrics: Metrics,
    ) -> Self {
        let (clock, tasks) = (node.clock.clone(), node.tasks.clone());
        Self { store, tail, router, clock, tasks, metrics }
    }

    /// Registers an entry.
    pub(crate) async fn create(
        &self,
        caller: &Caller,
        wanted: Wanted,
        options: &Options,
    ) -> Result<Stored, Failure> {
        let key = Key::of(&wanted.entry);
        authorize(caller, &key)?;
        self.valid(&wanted)?;
        let write = self.write_of(caller, vec![key.clone()], options, "create", &wanted)?;
        let outcome = self
            .write("create", &write, |before| match &before[0] {
                Some(_) => Err(refusal::already_exists(&key)),
                None => Ok(vec![Some(wanted.entry.clone())]),
            })
            .await?;
        only(outcome)
    }

    /// Changes the fields of `mask` of an entry, all of them where it is empty.
    pub(crate) async fn update(
        &self,
        caller: &Caller,
        wanted: Wanted,
        mask: &[String],
        options: &Options,
    ) -> Result<Stored, Failure> {
        let key = Key::of(&wanted.entry);
        authorize(caller, &key)?;
        valid_name("name", &key)?;
        let write =
            self.write_of(caller, vec![key.clone()], options, "update", &(&wanted, mask))?;
        let outcome = self
            .write("update", &write, |before| {
                let now = before[0].as_ref().ok_or_else(|| refusal::not_found(&key))?;
                check_etag(now, &wanted.etag)?;
                let entry = mask::merge(&now.entry, &wanted.entry, mask)?;
                let merged = Wanted { entry, ..wanted.clone() };
                self.valid(&merged)?;
                Ok(vec![Some(merged.entry)])
            })
            .await?;
        only(outcome)
    }

    /// Makes entries be as given, all or none.
    pub(crate) async fn apply(
        &self,
        caller: &Caller,
        wanted: Vec<Wanted>,
        options: &Options,
    ) -> Result<Outcome, Failure> {
        if wanted.len() > APPLY_MAX {
            let rule = format!("has {} entries; at most {APPLY_MAX} are allowed", wanted.len());
            return Err(Failure::invalid_field("entries", "TOO_MANY", rule));
        }
        let keys: Vec<Key> = wanted.iter().map(|wanted| Key::of(&wanted.entry)).collect();
        for key in &keys {
            authorize(caller, key)?;
        }
        let mut violations: Vec<FieldViolation> = wanted.iter().flat_map(violations).collect();
        let mut seen = std::collections::HashMap::new();
        for (index, key) in keys.iter().enumerate() {
            if let Some(first) = seen.insert(key, index) {
                let rule = format!("{} {:?} is entries[{first}] too", key.kind.as_str(), key.name);
                violations.push(FieldViolation::new(
                    format!("entries[{index}]"),
                    "DUPLICATE",
                    rule,
                ));
            }
        }
        if !violations.is_empty() {
            return Err(Failure::invalid(violations));
        }
        let write = self.write_of(caller, keys, options, "apply", &wanted)?;
        self.write("apply", &write, |before| {
            let mut bytes = 0;
            let mut decisions = Vec::with_capacity(wanted.len());
            for (wanted, now) in wanted.iter().zip(before) {
                match now {
                    Some(now) => check_etag(now, &wanted.etag)?,
                    None if !wanted.etag.is_empty() => {
                        return Err(refusal::not_found(&Key::of(&wanted.entry)));
                    }
                    None => {}
                }
                bytes += size(&wanted.entry) + now.as_ref().map_or(0, |now| size(&now.entry));
                decisions.push(Some(wanted.entry.clone()));
            }
            if bytes > ANSWER_MAX_BYTES { Err(refusal::too_large(bytes)) } else { Ok(decisions) }
        })
        .await
    }

    /// One entry.
    pub(crate) async fn get(&self, caller: &Caller, key: &Key) -> Result<Stored, Failure> {
        caller.principal.require_role(Role::Viewer)?;
        valid_name("name", key)?;
        let found = self.metrics.timed("get", self.store.get(key)).await;
        found.map_err(store_failure)?.ok_or_else(|| refusal::not_found(key))
    }

    /// A page of entries in order of name.
    pub(crate) async fn list(
        &self,
        caller: &Caller,
        filter: &Filter,
        page: &PageRequest,
    ) -> Result<Listed<Stored>, Failure> {
        caller.principal.require_role(Role::Viewer)?;
        let mut violations = selector_violations(&filter.selector);
        if !is_plain(&filter.owner, 250) {
            violations.push(FieldViolation::new("owner", "INVALID", "is not the name of an owner"));
        }
        let limit = page_size(page, &mut violations);
        let token = PageToken::bound_to(&(filter.kind, &filter.selector, &filter.owner));
        let after = token.read_name(&page.token, &mut violations);
        if !violations.is_empty() {
            return Err(Failure::invalid(violations));
        }
        let list = self.store.list(filter, &after, limit, ANSWER_MAX_BYTES);
        let (page, head) = self.metrics.timed("list", list).await.map_err(store_failure)?;
        Ok(Listed {
            next_page_token: page.next.map_or_else(String::new, |name| token.at_name(&name)),
            items: page.entries,
            revision: head.revision,
        })
    }

    /// A page of the audit, newest first.
    pub(crate) async fn audit(
        &self,
        caller: &Caller,
        kind: &str,
        name: &str,
        page: &PageRequest,
    ) -> Result<Listed<AuditEvent>, Failure> {
        caller.principal.require_role(Role::Viewer)?;
        let mut violations = Vec::new();
        let known = Kind::from_word(kind);
        if known.is_none() && !kind.is_empty() {
            let rule = "must be \"namespace\", \"shard\" or empty";
            violations.push(FieldViolation::new("kind", "INVALID", rule));
        }
        if !is_plain(name, 50) {
            violations.push(FieldViolation::new("name", "INVALID_NAME", "is not a name"));
        }
        let limit = page_size(page, &mut violations);
        let token = PageToken::bound_to(&(kind, name));
        let before = token.read_number(&page.token, &mut violations);
        if !violations.is_empty() {
            return Err(Failure::invalid(violations));
        }
        let filter = AuditFilter { kind: known, name: (!name.is_empty()).then(|| name.to_owned()) };
        let audit = self.store.audit(&filter, before, limit, ANSWER_MAX_BYTES);
        let (items, more) = self.metrics.timed("audit", audit).await.map_err(store_failure)?;
        let next = items.last().filter(|_| more).map(|last| token.at_number(last.sequence));
        Ok(Listed {
            next_page_token: next.unwrap_or_default(),
            revision: items.first().map(|first| first.revision).unwrap_or_default(),
            items,
        })
    }

    /// What all writes of `method` have in common. `asked` is all that tells one call from
    /// another.
    fn write_of(
        &self,
        caller: &Caller,
        keys: Vec<Key>,
        options: &Options,
        method: &str,
        asked: &impl Serialize,
    ) -> Result<Write, Failure> {
        if options.request_id.len() > 128
            || !options.request_id.bytes().all(|b| b.is_ascii_graphic())
        {
            let rule = "has at most 128 visible ASCII characters; a UUID is best";
            return Err(Failure::invalid_field("request_id", "INVALID_REQUEST_ID", rule));
        }
        let repeatable = !options.request_id.is_empty() && !options.validate_only;
        let idempotency = repeatable.then(|| {
            let asked = serde_json::to_vec(&(method, asked)).expect("text keys only");
            Idempotency {
                request_id: options.request_id.clone(),
                fingerprint: format!("{:032x}", xxh3_128(&asked)),
            }
        });
        Ok(Write {
            keys,
            actor: caller.principal.subject.clone(),
            call_id: caller.call_id.clone(),
            reason: String::new(),
            at: self.clock.unix_micros(),
            idempotency,
            dry_run: options.validate_only,
        })
    }

    async fn write(
        &self,
        method: &'static str,
        write: &Write,
        decide: impl Fn(&[Option<Stored>]) -> Result<Vec<Option<Entry>>, Failure>,
    ) -> Result<Outcome, Failure> {
        let result = self.metrics.timed("write", self.store.write(write, decide)).await;
        let result = result.map_err(|error| match error {
            WriteError::Refused(failure) => failure,
            WriteError::Store(error) => store_failure(error),
            WriteError::Overlap(overlaps) => refusal::overlap(&overlaps),
            WriteError::Taken(taken) => refusal::taken(&taken),
            WriteError::RequestReused => refusal::request_reused(),
        });
        self.metrics.written(method, write.dry_run, &result);
        if result.is_ok() {
            self.tail.wake();
        }
        result
    }

    /// Refuses an entry that breaks rules, naming all of them.
    #[allow(clippy::unused_self, reason = "reads like the other steps")]
    fn valid(&self, wanted: &Wanted) -> Result<(), Failure> {
        let violations: Vec<FieldViolation> = violations(wanted).collect();
        if violations.is_empty() { Ok(()) } else { Err(Failure::invalid(violations)) }
    }
}

fn violations(wanted: &Wanted) -> impl Iterator<Item = FieldViolation> {
    let start = format!("{}{}.", wanted.field, wanted.entry.kind());
    wanted.entry.validate().into_iter().map(move |Violation { field, code, message }| {
        FieldViolation::new(format!("{start}{field}"), code, message)
    })
}

/// Operators change shards, tenants their own namespaces.
fn authorize(caller: &Caller, key: &Key) -> Result<(), Failure> {
    match key.kind {
        Kind::Namespace => caller.principal.require_write_namespace(&key.name),
        Kind::Shard => caller.principal.require_role(Role::Operator),
    }
}

fn valid_name(field: &str, key: &Key) -> Result<(), Failure> {
    let parsed = match key.kind {
        Kind::Namespace => key.name.parse::<NamespaceName>().map(drop),
        Kind::Shard => key.name.parse::<ShardName>().map(drop),
    };
    parsed.map_err(|error| Failure::invalid_field(field, "INVALID_NAME", error.to_string()))
}

fn check_etag(now: &Stored, etag: &str) -> Result<(), Failure> {
    if etag.is_empty() || etag == now.etag() { Ok(()) } else { Err(refusal::conflict(now)) }
}

/// About how many bytes the entry is in an answer.
fn size(entry: &Entry) -> usize {
    let declared = match entry {
        Entry::Namespace(namespace) => serde_json::to_vec(namespace),
        Entry::Shard(shard) => serde_json::to_vec(shard),
    };
    declared.map_or(0, |json| json.len()) + ENTRY_OVERHEAD_BYTES
}

/// The entry of an outcome about one.
fn only(outcome: Outcome) -> Result<Stored, Failure> {
    let entry = outcome.items.into_iter().next().and_then(|item| item.after);
    entry.ok_or_else(|| Failure::internal("a write of one entry answered none"))
}

fn page_size(page: &PageRequest, violations: &mut Vec<FieldViolation>) -> usize {
    match usize::try_from(page.size) {
        Ok(0) => PAGE_DEFAULT,
        Ok(size) => size.min(PAGE_MAX),
        Err(_) => {
            let rule = "must not be negative";
            violations.push(FieldViolation::new("page_size", "OUT_OF_RANGE", rule));
            PAGE_DEFAULT
        }
    }
}

/// Whether a text can be looked for: not too long, and without what no stored text has.
fn is_plain(text: &str, max_chars: usize) -> bool {
    text.chars().count() <= max_chars && !text.chars().any(char::is_control)
}

fn selector_violations(selector: &[Requirement]) -> Vec<FieldViolation> {
    let mut violations = Vec::new();
    let mut fail = |field: String, code, rule: &str| {
        violations.push(FieldViolation::new(field, code, rule));
    };
    if selector.len() > SELECTOR_MAX {
        fail("selector".to_owned(), "TOO_MANY", "has more than 32 requirements");
    }
    for (index, Requirement { key, operator, values }) in
        selector.iter().enumerate().take(SELECTOR_MAX)
    {
        use airfleet_domain::labels::Operator::{DoesNotExist, Exists, In, NotIn};
        if key.is_empty() || !is_plain(key, 63) {
            fail(format!("selector[{index}].key"), "INVALID_LABEL_KEY", "is not a label key");
        }
        let field = format!("selector[{index}].values");
        match (operator, values.len()) {
            (In | NotIn, 0) => fail(field, "REQUIRED", "IN and NOT_IN need at least one value"),
            (Exists | DoesNotExist, 1..) => {
                fail(field, "NOT_ALLOWED", "EXISTS and DOES_NOT_EXIST take no values");
            }
            (_, count) if count > SELECTOR_VALUES_MAX => {
                fail(field, "TOO_MANY", "has more than 64 values");
            }
            _ if !values.iter().all(|value| is_plain(value, 63)) => {
                fail(field, "INVALID_LABEL_VALUE", "holds what is no label value");
            }
            _ => {}
        }
    }
    violations
}
