//! Deleting and pinning namespaces: what a shard's agent may have to vouch for first.

use std::time::Duration;

use airfleet_proto::{
    registry::v1::DeleteNamespaceRequest,
    router::v1::{PinNamespaceRequest, UnpinNamespaceRequest},
};

use super::{assignment, suggest};
use crate::{
    args::{DoneForm, duration},
    client::request_id,
    document::Assignment,
    error::{Exit, Result},
    session::Session,
};

/// Arguments of `namespace delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Namespaces to delete
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Delete although the shard is not seen to be drained
    #[arg(long, requires = "reason")]
    force: bool,
    /// Why; needed with --force
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Go on where a namespace does not exist
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    patience: Patience,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: DoneForm,
}

/// Arguments of `namespace pin`.
#[derive(Debug, clap::Args)]
pub struct PinArgs {
    /// The namespace
    name: String,
    /// The shard to bind it to
    shard: String,
    /// Why; kept with the assignment
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Check and say what would happen, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Reassign although the present shard is not seen to be drained; needs --reason
    #[arg(long, requires = "reason")]
    force: bool,
    #[command(flatten)]
    patience: Patience,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: DoneForm,
}

/// Whether to wait for a shard to be drained.
#[derive(Clone, Debug, clap::Args)]
struct Patience {
    /// Wait until the shard is seen to be drained of the namespace
    #[arg(long, conflicts_with_all = ["force", "dry_run"])]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s",
          requires = "wait")]
    timeout: Duration,
}

impl Patience {
    /// Asks again as long as the answer is that the shard is not drained yet.
    async fn ask<T>(&self, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let deadline = tokio::time::Instant::now() + self.timeout;
        loop {
            let answer = ask().await;
            let is_draining = answer.as_ref().is_err_and(|error| error.reason() == NOT_DRAINED);
            if !(self.wait && is_draining && tokio::time::Instant::now() < deadline) {
                return answer;
            }
            tokio::time::sleep(BETWEEN_ASKS).await;
        }
    }
}

/// The router's reason where a shard still has, or may have, something of a namespace.
const NOT_DRAINED: &str = "NOT_DRAINED";
/// Agents report every few seconds; asking more often tells nothing new.
const BETWEEN_ASKS: Duration = Duration::from_millis(500);

pub(super) async fn delete(session: &mut Session<'_>, args: DeleteArgs) -> Result<Exit> {
    for name in &args.names {
        let request = DeleteNamespaceRequest {
            name: name.clone(),
            etag: String::new(),
            request_id: String::new(),
            validate_only: args.dry_run,
            force: args.force,
            reason: args.reason.clone().unwrap_or_default(),
        };
        let (registry, what) = (&session.registry, format!("cannot delete namespace {name:?}"));
        let ask = async || {
            let request = DeleteNamespaceRequest { request_id: request_id(), ..request.clone() };
            registry
                .call(&what, async |mut client| client.delete_namespace(request.clone()).await)
                .await
        };
        let answer = args.patience.ask(ask).await;
        match answer {
            Ok(_) => {
                let id = format!("namespace/{name}");
                session.done(&id, "deleted", args.dry_run, args.output, &serde_json::json!({
                    "kind": "Namespace", "name": name, "outcome": "deleted", "dryRun": args.dry_run,
                }))?;
            }
            Err(error) if error.is_not_found() && args.ignore_not_found => {}
            Err(error) if error.is_not_found() => return Err(suggest(session, error, name).await),
            Err(error) if error.is_refused() => {
                return Err(error.or_hint(
                    "--wait waits for it; --force --reason TEXT deletes it all the same",
                ));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Exit::Ok)
}

pub(super) async fn pin(session: &mut Session<'_>, args: PinArgs) -> Result<Exit> {
    let before = assignment(session, &args.name).await?;
    let request = PinNamespaceRequest {
        namespace: args.name.clone(),
        shard: args.shard.clone(),
        reason: args.reason.unwrap_or_default(),
        expected_generation: before.as_ref().map_or(0, |before| before.generation),
        validate_only: args.dry_run,
        force: args.force,
    };
    let what = format!("cannot pin namespace {:?} to shard {:?}", args.name, args.shard);
    let router = &session.router;
    let ask = async || {
        router
            .call_once(&what, async |mut client| client.pin_namespace(request.clone()).await)
            .await
    };
    let after: Assignment = match args.patience.ask(ask).await {
        Ok(after) => after.into(),
        Err(error) if error.is_refused() => {
            return Err(error
                .or_hint("--wait waits for it; --force --reason TEXT reassigns it all the same"));
        }
        Err(error) => return Err(error),
    };
    let moved = before.filter(|before| !before.shard.is_empty() && before.shard != after.shard);
    let done = match moved {
        Some(before) => format!("pinned to {}, moved from {}", after.pinned_shard, before.shard),
        None => format!("pinned to {}", after.pinned_shard),
    };
    let id = format!("namespace/{}", args.name);
    session.done(&id, &done, args.dry_run, args.output, &after)?;
    Ok(Exit::Ok)
}

pub(super) async fn unpin(
    session: &mut Session<'_>,
    name: String,
    output: DoneForm,
) -> Result<Exit> {
    let request = UnpinNamespaceRequest { namespace: name.clone() };
    let what = format!("cannot unpin namespace {name:?}");
    let after: Assignment = session
        .router
        .call(&what, async |mut client| client.unpin_namespace(request.clone()).await)
        .await?
        .into();
    session.done(&format!("namespace/{name}"), "unpinned", false, output, &after)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use airfleet_runtime::status::{Failure, Precondition, Problem};
    use tonic::Status;

    use super::*;
    use crate::error::Error;

    fn not_drained() -> Error {
        let condition = Precondition::new(NOT_DRAINED, "namespaces/pay", "2 runs are active");
        let status: Status = Failure::precondition(vec![condition]).with_reason(NOT_DRAINED).into();
        Error::answered("cannot pin", "http://x", &Problem::from(&status))
    }

    async fn asked(wait: bool, mut answers: Vec<Result<()>>) -> (usize, Result<()>) {
        let patience = Patience { wait, timeout: Duration::from_mins(1) };
        let mut count = 0;
        let answer = patience
            .ask(async || {
                count += 1;
                answers.remove(0)
            })
            .await;
        (count, answer)
    }

    #[tokio::test(start_paused = true)]
    async fn patience_asks_until_it_is_drained() {
        let refusals = || vec![Err(not_drained()), Err(not_drained()), Ok(())];
        assert_eq!(asked(true, refusals()).await, (3, Ok(())));
        assert_eq!(asked(false, refusals()).await, (1, Err(not_drained())));
        let other = vec![Err(Error::new("no such shard"))];
        assert_eq!(asked(true, other).await, (1, Err(Error::new("no such shard"))));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let answers = (0..1000).map(|_| Err(not_drained())).collect();
        let (count, answer) = asked(true, answers).await;
        assert_eq!(answer, Err(not_drained()));
        assert_eq!(count, 121);
    }
}
