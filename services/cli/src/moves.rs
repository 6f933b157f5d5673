//! `airfleet move`: move a namespace to another shard, live.

mod show;

use std::time::Duration;

use airfleet_proto::moves::v1::{
    AbortMoveRequest, GetMoveRequest, ListMovesRequest, Move, MoveOptions, MovePhase, MoveSeverity,
    StartMoveRequest, WatchMoveRequest,
};
use clap::{Subcommand, ValueEnum};

use crate::{
    args::{TextOrJson, duration},
    client, document,
    error::{Error, Exit, Result},
    session::Session,
};

/// Moves of one page.
const PAGE: i32 = 500;
/// Pause before a watch that broke is opened again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Times in a row that a watch may break before it is given up.
const BREAKS_MAX: u32 = 30;

/// What to do with moves.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Move a namespace to another shard, live
    #[command(after_help = "Examples:
  airfleet move start payments --to shard-b
  airfleet move start payments --to shard-b --dry-run       only look whether it can be
  airfleet move start payments --to shard-b --wait          and follow it to its end
  airfleet move start payments --to shard-b --drain-timeout 0   give it up if anything runs
  airfleet move start payments --to shard-b --force-lost-source --reason 'its disk burnt'

Exit code 2 where a dry run finds something that blocks it, or the move was given up.")]
    Start(StartArgs),
    /// List moves, the latest first
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  airfleet move list
  airfleet move list --all --namespace payments
  airfleet move list --shard shard-a -o json"
    )]
    List {
        /// Also those that have ended
        #[arg(short, long)]
        all: bool,
        /// Only of this namespace
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        namespace: String,
        /// Only with this shard at either end
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        shard: String,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
    /// Show a move: how far it is, what it waits for, what went wrong
    #[command(
        aliases = ["get", "show"],
        after_help = "Examples:
  airfleet move describe payments               the latest of this namespace
  airfleet move describe 0199b7c2-… -o json"
    )]
    Describe {
        /// The move, or a namespace for its latest
        #[arg(value_name = "MOVE|NAMESPACE")]
        name: String,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
    /// Follow a move to its end
    #[command(after_help = "Examples:
  airfleet move watch payments
  airfleet move watch payments -o json | jq -r .phase

Exit code 2 where it was given up.")]
    Watch {
        /// The move, or a namespace for its latest
        #[arg(value_name = "MOVE|NAMESPACE")]
        name: String,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
    /// Give a move up; its source runs the namespace again
    #[command(after_help = "Examples:
  airfleet move abort payments --reason 'month-end close'

Refused once the target owns the namespace: move it back then.")]
    Abort {
        /// The move, or a namespace for its latest
        #[arg(value_name = "MOVE|NAMESPACE")]
        name: String,
        /// Why; kept with the move
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
}

/// How much of what happened goes along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum History {
    /// All runs
    #[default]
    Full,
    /// Of each DAG the newest scheduled run, and every run that has not ended
    Minimal,
}

/// Arguments of `move start`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct StartArgs {
    /// The namespace
    namespace: String,
    /// The shard to move it to
    #[arg(long, value_name = "SHARD")]
    to: String,
    /// Only look whether it can be
    #[arg(long)]
    dry_run: bool,
    /// How much of what happened goes along
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    history: History,
    /// How long to let running tasks finish; 0 gives the move up if anything runs [default: 30m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    drain_timeout: Option<Duration>,
    /// Though assets tie DAGs of it to DAGs that stay
    #[arg(long)]
    allow_asset_crossings: bool,
    /// The source is gone for good: nothing of it is waited for, and nothing comes along
    #[arg(long, requires = "reason")]
    force_lost_source: bool,
    /// Why; kept with the move
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Follow it to its end
    #[arg(short, long, conflicts_with = "dry_run")]
    wait: bool,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: TextOrJson,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, command: Command) -> Result<Exit> {
    match command {
        Command::Start(args) => start(session, args).await,
        Command::List { all, namespace, shard, output } => {
            let ask = ListMovesRequest {
                page_size: PAGE,
                namespace,
                shard,
                include_ended: all,
                ..Default::default()
            };
            list(session, ask, output).await
        }
        Command::Describe { name, output } => {
            let request = GetMoveRequest { name: name.clone() };
            let found = session
                .moves
                .call(&format!("cannot show move/{name}"), async |mut client| {
                    client.get_move(request.clone()).await
                })
                .await?;
            match output {
                TextOrJson::Text => session.screen.print(&show::text(&found))?,
                TextOrJson::Json => session.screen.print(&document::json(&show::value(&found))?)?,
            }
            Ok(Exit::Ok)
        }
        Command::Watch { name, output } => watch(session, &name, output).await,
        Command::Abort { name, reason, output } => {
            let request = AbortMoveRequest { name: name.clone(), reason };
            let found = session
                .moves
                .call(&format!("cannot abort move/{name}"), async |mut client| {
                    client.abort_move(request.clone()).await
                })
                .await?;
            match output {
                TextOrJson::Text => session.screen.line(&show::line(&found))?,
                TextOrJson::Json => session.screen.print(&document::json(&show::value(&found))?)?,
            }
            Ok(Exit::Ok)
        }
    }
}

async fn start(session: &mut Session<'_>, args: StartArgs) -> Result<Exit> {
    let drain_timeout = match args.drain_timeout.map(prost_types::Duration::try_from) {
        None => None,
        Some(Ok(timeout)) => Some(timeout),
        Some(Err(_)) => return Err(Error::new("--drain-timeout is too long")),
    };
    let history = match args.history {
        History::Full => airfleet_proto::common::v1::MoveHistory::Full,
        History::Minimal => airfleet_proto::common::v1::MoveHistory::Minimal,
    };
    let request = StartMoveRequest {
        namespace: args.namespace.clone(),
        target_shard: args.to,
        options: Some(MoveOptions {
            history: history.into(),
            drain_timeout,
            allow_asset_crossings: args.allow_asset_crossings,
            force_lost_source: args.force_lost_source,
        }),
        reason: args.reason.unwrap_or_default(),
        validate_only: args.dry_run,
        request_id: client::request_id(),
        expected_generation: 0,
    };
    let what = format!("cannot move namespace/{}", args.namespace);
    let answer =
        session.moves.call(&what, async |mut client| client.start_move(request.clone()).await);
    let answer = answer.await?;
    let blocked = answer.findings.iter().any(|one| one.severity() == MoveSeverity::Blocks);
    let begun = answer.r#move.clone().unwrap_or_default();
    match args.output {
        TextOrJson::Text => {
            for finding in &answer.findings {
                session.screen.line(&show::finding(finding))?;
            }
            let said = match (args.dry_run, blocked) {
                (true, true) => format!("namespace/{} cannot be moved (dry run)", args.namespace),
                (true, false) => format!("namespace/{} can be moved (dry run)", args.namespace),
                (false, _) => show::line(&begun),
            };
            session.screen.line(&said)?;
        }
        TextOrJson::Json => {
            let value = serde_json::json!({
                "move": show::value(&begun),
                "findings": answer.findings.iter().map(show::finding_value).collect::<Vec<_>>(),
            });
            session.screen.print(&document::json(&value)?)?;
        }
    }
    if args.wait {
        return watch(session, &begun.id, args.output).await;
    }
    Ok(if blocked { Exit::Negative } else { Exit::Ok })
}

async fn list(
    session: &mut Session<'_>,
    mut ask: ListMovesRequest,
    output: TextOrJson,
) -> Result<Exit> {
    let mut moves: Vec<Move> = Vec::new();
    loop {
        let page = session
            .moves
            .call("cannot list moves", async |mut client| client.list_moves(ask.clone()).await)
            .await?;
        moves.extend(page.moves);
        ask.page_token = page.next_page_token;
        if ask.page_token.is_empty() {
            break;
        }
    }
    match output {
        TextOrJson::Text if moves.is_empty() => {
            let hint = if ask.include_ended { "" } else { "; --all shows those that have ended" };
            session.screen.note(&format!("No moves{hint}."));
        }
        TextOrJson::Text => {
            let text = show::table(&moves, session.screen.paint());
            session.screen.print(&text)?;
        }
        TextOrJson::Json => {
            let items = moves.iter().map(show::value).collect();
            session.screen.print(&document::json(&document::List::new("MoveList", items))?)?;
        }
    }
    Ok(Exit::Ok)
}

/// Follows a move to its end, over changes of the router's leader too.
async fn watch(session: &mut Session<'_>, name: &str, output: TextOrJson) -> Result<Exit> {
    let what = format!("cannot watch move/{name}");
    let mut name = name.to_owned();
    let mut told = String::new();
    let mut breaks = 0;
    loop {
        let request = WatchMoveRequest { name: name.clone() };
        let mut stream = session
            .moves
            .open(&what, async |mut client| client.watch_move(request.clone()).await)
            .await?;
        loop {
            match stream.message().await {
                Ok(Some(now)) => {
                    breaks = 0;
                    // A later move of the namespace is another one.
                    name.clone_from(&now.id);
                    let line = match output {
                        TextOrJson::Text => show::line(&now),
                        TextOrJson::Json => document::json_line(&show::value(&now))?,
                    };
                    if line != told {
                        session.screen.line(&line)?;
                        session.screen.flush()?;
                        told = line;
                    }
                    match now.phase() {
                        MovePhase::Done => return Ok(Exit::Ok),
                        MovePhase::Aborted => return Ok(Exit::Negative),
                        _ => {}
                    }
                }
                Ok(None) => break,
                Err(status) => {
                    session.moves.stream_ended(&status);
                    breaks += 1;
                    if breaks > BREAKS_MAX {
                        return Err(Error::caused(what, &status));
                    }
                    break;
                }
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
