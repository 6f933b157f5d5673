//! Deletion: the router gives up what is to be deleted, then exactly that is deleted.
//!
//! What was released is remembered by the router until a later revision of the entry, so nothing
//! is placed there meanwhile; and what was changed meanwhile is not deleted. A deletion that was
//! begun goes on to its end although its caller goes away.

use std::sync::Arc;

use airfleet_domain::ids::Revision;
use airfleet_runtime::auth::Role;
use airfleet_runtime::request;
use airfleet_runtime::status::{Failure, FieldViolation, Precondition};
use tokio::sync::oneshot;

use super::{Caller, Options, Service, authorize, check_etag, refusal, store_failure, valid_name};
use crate::store::{Key, Kind, Stored, Write, WriteError};

/// Longest reason.
const REASON_MAX_CHARS: usize = 500;

/// What is to be deleted.
#[derive(Debug, Clone)]
pub(crate) struct Deletion {
    /// Which entry.
    pub(crate) key: Key,
    /// Where set, must be the current one.
    pub(crate) etag: String,
    /// Although its shard was not seen to be drained.
    pub(crate) force: bool,
    /// Why it is forced.
    pub(crate) reason: String,
}

impl Service {
    /// Removes an entry; answers the revision of the manifest after it.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        caller: &Caller,
        deletion: Deletion,
        options: &Options,
    ) -> Result<Revision, Failure> {
        authorize(caller, &deletion.key)?;
        valid_name("name", &deletion.key)?;
        if deletion.force {
            caller.principal.require_role(Role::Operator)?;
        }
        valid_reason(&deletion)?;
        let Deletion { key, etag, force, reason } = &deletion;
        let asked = (key, etag, force, reason);
        let write = self.write_of(caller, vec![key.clone()], options, "delete", &asked)?;
        let write = Write { reason: reason.clone(), ..write };

        let (answer, answered) = oneshot::channel();
        let this = Arc::clone(self);
        let work = async move {
            // Nobody may be waiting for it any more.
            let _ = answer.send(this.release_and_delete(&deletion, &write).await);
        };
        match request::current_id() {
            Some(id) => self.tasks.spawn("delete", request::within(id, work)),
            None => self.tasks.spawn("delete", work),
        }
        answered.await.map_err(|_| Failure::internal("a deletion ended without an answer"))?
    }

    async fn release_and_delete(
        &self,
        deletion: &Deletion,
        write: &Write,
    ) -> Result<Revision, Failure> {
        let Deletion { key, etag, .. } = deletion;
        if let Some(idempotency) = &write.idempotency {
            // The first call may have deleted it; then there is nothing to release.
            match self.store.replay(&write.actor, idempotency).await {
                Ok(Some(outcome)) => return Ok(outcome.revision),
                Ok(None) => {}
                Err(WriteError::Store(error)) => return Err(store_failure(error)),
                Err(_) => return Err(refusal::request_reused()),
            }
        }
        let found = self.store.get(key).await.map_err(store_failure)?;
        let seen = found.ok_or_else(|| refusal::not_found(key))?;
        check_etag(&seen, etag)?;
        self.release(deletion, &seen, write.dry_run).await?;
        let outcome = self
            .write("delete", write, |before| match &before[0] {
                None => Err(refusal::not_found(key)),
                Some(now) if (&now.uid, now.revision) == (&seen.uid, seen.revision) => {
                    Ok(vec![None])
                }
                Some(now) => Err(refusal::conflict(now)),
            })
            .await?;
        Ok(outcome.revision)
    }

    /// Has the router give it up.
    async fn release(
        &self,
        deletion: &Deletion,
        seen: &Stored,
        dry_run: bool,
    ) -> Result<(), Failure> {
        let Deletion { key, force, reason, .. } = deletion;
        let Some(router) = &self.router else {
            if *force {
                return Ok(());
            }
            let forced = match key.kind {
                Kind::Namespace => ", or delete with force and a reason",
                Kind::Shard => "",
            };
            let description = format!(
                "this registry knows no router to ask whether it is still in use; set \
                 router.endpoints{forced}"
            );
            let violation =
                Precondition::new("ROUTER_NOT_CONFIGURED", refusal::subject(key), description);
            return Err(Failure::precondition(vec![violation]).with_reason("ROUTER_NOT_CONFIGURED"));
        };
        match key.kind {
            Kind::Namespace => router.release_namespace(seen, *force, reason, dry_run).await,
            Kind::Shard => router.release_shard(seen, dry_run).await,
        }
    }
}

fn valid_reason(deletion: &Deletion) -> Result<(), Failure> {
    let Deletion { force, reason, .. } = deletion;
    let (code, rule) = if *force && reason.trim().is_empty() {
        ("REQUIRED", "say why it is deleted although it may be in use; the audit keeps it")
    } else if reason.chars().count() > REASON_MAX_CHARS {
        ("TOO_LONG", "has more than 500 characters")
    } else if reason.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        ("INVALID", "holds control characters")
    } else {
        return Ok(());
    };
    Err(Failure::invalid(vec![FieldViolation::new("reason", code, rule)]))
}
