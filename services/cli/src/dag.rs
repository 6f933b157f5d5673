//! `airfleet dag`: trigger, clear, pause and unpause, wherever the DAG is.
//!
//! While its namespace is between two shards the command waits and asks again: nothing is done in
//! between, so nothing is left behind.

use std::time::{Duration, Instant};

use airfleet_proto::dags::v1::{
    ClearDagRunRequest, PauseDagRequest, Place, TriggerDagRequest, UnpauseDagRequest,
};
use airfleet_runtime::{client::Retry, status::Problem};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use tonic::{Code, Response, Status};

use crate::{
    args::{TextOrJson, duration},
    client::DagClient,
    document,
    error::{Exit, Result},
    human,
    session::Session,
};

/// Shortest pause before it is asked again.
const PAUSE_SHORTEST: Duration = Duration::from_millis(200);

/// Reason of a change that may have been made.
const IN_DOUBT: &str = "CHANGE_IN_DOUBT";

/// What to do with DAGs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trigger a run
    #[command(after_help = "Examples:
  airfleet dag trigger payments.daily
  airfleet dag trigger payments.daily --conf '{\"day\": \"2026-01-31\"}' --note 'late file'
  airfleet dag trigger payments.daily --run-id backfill-2026-01-31   again it is the same run

While the namespace is moved to another shard, the command waits for it.")]
    Trigger(TriggerArgs),
    /// Have tasks of a run run again
    #[command(after_help = "Examples:
  airfleet dag clear payments.daily manual__2026-01-31 --only-failed
  airfleet dag clear payments.daily manual__2026-01-31 --task load --task check")]
    Clear {
        /// The DAG
        #[arg(value_name = "DAG_ID")]
        dag_id: String,
        /// The run
        #[arg(value_name = "RUN_ID")]
        run_id: String,
        /// Only tasks that failed
        #[arg(long)]
        only_failed: bool,
        /// Only this task; may be given several times
        #[arg(long, value_name = "TASK_ID")]
        task: Vec<String>,
        /// How it is said and waited for
        #[command(flatten)]
        how: How,
    },
    /// Pause DAGs: no more runs are made, and nothing more started of those there are
    #[command(after_help = "Examples:
  airfleet dag pause payments.daily payments.hourly")]
    Pause {
        /// The DAGs
        #[arg(value_name = "DAG_ID", required = true)]
        dag_ids: Vec<String>,
        /// How it is said and waited for
        #[command(flatten)]
        how: How,
    },
    /// Lift that
    #[command(after_help = "Examples:
  airfleet dag unpause payments.daily")]
    Unpause {
        /// The DAGs
        #[arg(value_name = "DAG_ID", required = true)]
        dag_ids: Vec<String>,
        /// How it is said and waited for
        #[command(flatten)]
        how: How,
    },
}

/// How it is said, and how long it is waited for.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct How {
    /// How long to wait while the namespace is between two shards, or its shard does not answer; 0
    /// to be told at once
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    timeout: Duration,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: TextOrJson,
}

/// Arguments of `dag trigger`.
#[derive(Debug, clap::Args)]
pub struct TriggerArgs {
    /// The DAG
    #[arg(value_name = "DAG_ID")]
    dag_id: String,
    /// Id of the run; one that is there already is shown, and none is made [default: a new one]
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// What the run is given: a JSON object
    #[arg(long, value_name = "JSON", default_value = "", hide_default_value = true)]
    conf: String,
    /// Its logical date, such as 2026-01-31T00:00:00Z [default: none]
    #[arg(long, value_name = "TIME")]
    logical_date: Option<Timestamp>,
    /// Why; kept with the run
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    /// How it is said and waited for
    #[command(flatten)]
    how: How,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, command: Command) -> Result<Exit> {
    match command {
        Command::Trigger(args) => trigger(session, args).await,
        Command::Clear { dag_id, run_id, only_failed, task, how } => {
            let request = ClearDagRunRequest {
                dag_id: dag_id.clone(),
                run_id: run_id.clone(),
                only_failed,
                task_ids: task,
            };
            let what = format!("cannot clear run {run_id} of dag/{dag_id}");
            // Done twice, tasks would run twice.
            let cleared = until_taken(session, &what, how.timeout, false, async |mut client| {
                client.clear_dag_run(request.clone()).await
            })
            .await?;
            let place = cleared.place.unwrap_or_default();
            let count = human::count(cleared.cleared, "task instance");
            let text = format!("dag/{dag_id} run {run_id}: {count} cleared on {}", place.shard);
            let value = json!({ "dagId": dag_id, "runId": run_id, "cleared": cleared.cleared });
            say(session, how.output, &text, value, &place)?;
            Ok(Exit::Ok)
        }
        Command::Pause { dag_ids, how } => pause(session, dag_ids, true, how).await,
        Command::Unpause { dag_ids, how } => pause(session, dag_ids, false, how).await,
    }
}

async fn trigger(session: &mut Session<'_>, args: TriggerArgs) -> Result<Exit> {
    let TriggerArgs { dag_id, how, .. } = args;
    let logical_date = args.logical_date.map(|at| prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    });
    let request = TriggerDagRequest {
        dag_id: dag_id.clone(),
        // Of its own, so that asking again asks for the same run.
        run_id: args.run_id.unwrap_or_else(|| format!("manual__{}", uuid::Uuid::now_v7())),
        conf_json: args.conf,
        logical_date,
        note: args.note,
    };
    let what = format!("cannot trigger dag/{dag_id}");
    let run = until_taken(session, &what, how.timeout, true, async |mut client| {
        client.trigger_dag(request.clone()).await
    })
    .await?;
    let place = run.place.unwrap_or_default();
    let there = if run.existed { "was there before" } else { "triggered" };
    let text = format!("dag/{dag_id} run {} {there} on {}, {}", run.run_id, place.shard, run.state);
    let value = json!({
        "dagId": dag_id,
        "runId": run.run_id,
        "state": run.state,
        "existed": run.existed,
    });
    say(session, how.output, &text, value, &place)?;
    Ok(Exit::Ok)
}

async fn pause(
    session: &mut Session<'_>,
    dag_ids: Vec<String>,
    paused: bool,
    how: How,
) -> Result<Exit> {
    for dag_id in dag_ids {
        let (verb, done) = if paused { ("pause", "paused") } else { ("unpause", "unpaused") };
        let what = format!("cannot {verb} dag/{dag_id}");
        let place = until_taken(session, &what, how.timeout, true, async |mut client| {
            let dag_id = dag_id.clone();
            Ok(Response::new(if paused {
                client.pause_dag(PauseDagRequest { dag_id }).await?.into_inner().place
            } else {
                client.unpause_dag(UnpauseDagRequest { dag_id }).await?.into_inner().place
            }))
        });
        let place = place.await?.unwrap_or_default();
        let text = format!("dag/{dag_id} {done} on {}", place.shard);
        say(session, how.output, &text, json!({ "dagId": dag_id, "paused": paused }), &place)?;
    }
    Ok(Exit::Ok)
}

fn say(
    session: &mut Session<'_>,
    output: TextOrJson,
    text: &str,
    mut value: Value,
    place: &Place,
) -> Result<()> {
    match output {
        TextOrJson::Text => session.screen.line(text),
        TextOrJson::Json => {
            value["namespace"] = place.namespace.clone().into();
            value["shard"] = place.shard.clone().into();
            value["generation"] = place.generation.into();
            session.screen.line(&document::json_line(&value)?)
        }
    }
}

/// Asks until the change is taken on, or refused for a reason that does not pass, for at most
/// `limit`. One that is in doubt is repeated only where that makes no difference.
async fn until_taken<T>(
    session: &mut Session<'_>,
    what: &str,
    limit: Duration,
    may_repeat: bool,
    call: impl AsyncFn(DagClient) -> Result<Response<T>, Status>,
) -> Result<T> {
    let until = Instant::now() + limit;
    let retry = if may_repeat { Retry::Idempotent } else { Retry::NotLeader };
    let mut told = String::new();
    loop {
        let problem = match session.dags.ask(retry, &call).await {
            Ok(answer) => return Ok(answer),
            Err(problem) => problem,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || !passes(&problem, may_repeat) {
            return Err(session.dags.refused(what, &problem));
        }
        // Once for each reason: somebody may be looking.
        if told != problem.reason {
            session.screen.note(&format!(
                "{}; waiting for up to {}",
                problem.message,
                human::span(left)
            ));
            told.clone_from(&problem.reason);
        }
        let pause = problem.retry_after.unwrap_or_default().max(PAUSE_SHORTEST);
        tokio::time::sleep(pause.min(left)).await;
    }
}

/// Whether it is worth asking again.
fn passes(problem: &Problem, may_repeat: bool) -> bool {
    match problem.code {
        // With when to ask again comes the word that nothing was done.
        Code::Unavailable => problem.retry_after.is_some(),
        Code::DeadlineExceeded => may_repeat && problem.reason == IN_DOUBT,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(code: Code, retry_after: Option<Duration>) -> Problem {
        let mut problem = Problem::from(&Status::new(code, "why"));
        problem.retry_after = retry_after;
        problem
    }

    #[test]
    fn what_may_have_been_done_is_repeated_only_where_that_is_the_same() {
        let soon = Some(Duration::from_secs(1));
        for may_repeat in [false, true] {
            assert!(passes(&problem(Code::Unavailable, soon), may_repeat));
            assert!(!passes(&problem(Code::Unavailable, None), may_repeat), "nobody is there");
            assert!(!passes(&problem(Code::DeadlineExceeded, None), may_repeat));
            let in_doubt =
                Problem { reason: IN_DOUBT.to_owned(), ..problem(Code::DeadlineExceeded, None) };
            assert_eq!(passes(&in_doubt, may_repeat), may_repeat);
            for lasting in [Code::NotFound, Code::InvalidArgument, Code::FailedPrecondition] {
                assert!(!passes(&problem(lasting, soon), may_repeat));
            }
        }
    }
}
