//! The `airfleet` command: declare namespaces and shards, see where they are, and run a whole
//! control plane on one machine.
//!
//! Each command lives in its own module and takes a [`session::Session`]; what is shown is made by
//! pure functions, so that it is tested without a fleet. Invariant: standard output carries
//! results only, everything else goes to standard error; exit codes are those of [`error::Exit`],
//! or 1 with an [`error::Error`].

pub mod apply;
pub mod args;
pub mod capacity;
pub mod client;
pub mod config;
pub mod dag;
pub mod dev;
pub mod diff;
pub mod document;
pub mod error;
pub mod explain;
pub mod files;
pub mod follow;
pub mod human;
pub mod moves;
pub mod namespace;
pub mod nearest;
pub mod pages;
pub mod plan;
pub mod rebalance;
pub mod resolve;
pub mod screen;
pub mod selector;
pub mod session;
pub mod shard;
pub mod simulate;
pub mod status;
pub mod table;
pub mod watch;

use std::process::ExitCode;

use airfleet_runtime::config::Loaded;
use clap::{
    CommandFactory as _, Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    args::{Cli, Command, ConfigCommand, TextOrJson},
    config::Config,
    error::{Exit, Result},
    screen::Screen,
    session::Session,
};

/// Exit code of every failure.
const FAILED: u8 = 1;

/// Reads the command line and does what it says.
pub async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error),
    };
    let mut screen = Screen::standard(cli.connection.color);
    let result = run(cli, &mut screen).await;
    let result = result.and_then(|exit| screen.flush().map(|()| exit));
    match result {
        Ok(exit) => exit.code().into(),
        Err(error) => {
            // What came before the failure is a result too.
            let _ = screen.flush();
            eprint_quietly(&error.render(screen.paint_errors()));
            FAILED.into()
        }
    }
}

async fn run(cli: Cli, screen: &mut Screen) -> Result<Exit> {
    let flags = &cli.connection;
    match cli.command {
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "airfleet", &mut script);
            screen.print(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Ok)
        }
        Command::Version { output } => version(screen, output),
        Command::Config(ConfigCommand::View { show_origin, output }) => {
            view(screen, &config::load(flags)?, show_origin, output)
        }
        Command::Dev(args) => dev::run(screen, args).await,
        Command::Apply(args) => apply::run(&mut Session::start(screen, flags)?, args).await,
        Command::Diff(args) => diff::run(&mut Session::start(screen, flags)?, args).await,
        Command::Namespace(command) => {
            namespace::run(&mut Session::start(screen, flags)?, command).await
        }
        Command::Shard(command) => shard::run(&mut Session::start(screen, flags)?, command).await,
        Command::Resolve(args) => resolve::run(&mut Session::start(screen, flags)?, args).await,
        Command::Explain(args) => explain::run(&mut Session::start(screen, flags)?, args).await,
        Command::Dag(command) => dag::run(&mut Session::start(screen, flags)?, command).await,
        Command::Move(command) => moves::run(&mut Session::start(screen, flags)?, command).await,
        Command::Plan(command) => plan::run(&mut Session::start(screen, flags)?, command).await,
        Command::Rebalance(command) => {
            rebalance::run(&mut Session::start(screen, flags)?, command).await
        }
        Command::Capacity(args) => capacity::run(&mut Session::start(screen, flags)?, args).await,
        Command::Simulate(args) => simulate::run(screen, &args),
        Command::Watch(args) => watch::run(&mut Session::start(screen, flags)?, args).await,
        Command::Status(args) => status::run(&mut Session::start(screen, flags)?, args).await,
    }
}

fn version(screen: &mut Screen, output: TextOrJson) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    let api = airfleet_domain::manifest::API_VERSION;
    match output {
        TextOrJson::Text => screen.line(&format!("airfleet {version} (manifest {api})"))?,
        TextOrJson::Json => {
            let value = serde_json::json!({ "version": version, "manifestVersion": api });
            screen.print(&document::json(&value)?)?;
        }
    }
    Ok(Exit::Ok)
}

fn view(
    screen: &mut Screen,
    settings: &Loaded<Config>,
    show_origin: bool,
    output: TextOrJson,
) -> Result<Exit> {
    match output {
        TextOrJson::Text => screen.print(&settings.render(show_origin))?,
        TextOrJson::Json => {
            let entries = settings.entries().into_iter().map(|entry| {
                let mut value = serde_json::json!({ "key": entry.key, "value": entry.value });
                if show_origin {
                    value["origin"] = entry.origin.to_string().into();
                }
                value
            });
            let list = document::List::new("SettingList", entries.collect());
            screen.print(&document::json(&list)?)?;
        }
    }
    Ok(Exit::Ok)
}

/// Shows help where it was asked for or nothing was, and what is wrong otherwise.
fn not_understood(error: &clap::Error) -> ExitCode {
    // Where the terminal has gone there is nobody to tell.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Exit::Ok.code().into(),
        kind => {
            if let (ErrorKind::InvalidSubcommand, Some(ContextValue::String(word))) =
                (kind, error.get(ContextKind::InvalidSubcommand))
                && let Some(tip) = other_habit(word)
            {
                eprint_quietly(&format!("\n  tip: {tip}\n"));
            }
            FAILED.into()
        }
    }
}

/// What a word means to those who come from other tools.
fn other_habit(word: &str) -> Option<&'static str> {
    Some(match word {
        "get" | "list" | "ls" => "`airfleet namespace list` or `airfleet shard list`",
        "describe" => "`airfleet namespace describe NAME` or `airfleet shard describe NAME`",
        "delete" | "remove" => "`airfleet namespace delete NAME` or `airfleet shard delete NAME`",
        "create" | "register" | "replace" | "edit" => "`airfleet apply -f FILE`",
        "pin" | "unpin" => "`airfleet namespace pin NAME SHARD`",
        "cordon" | "uncordon" => "`airfleet shard cordon NAME`",
        "drain" => "`airfleet plan create --drain SHARD`",
        "trigger" | "clear" | "pause" | "unpause" => "`airfleet dag trigger DAG_ID`",
        "why" => "`airfleet explain NAMESPACE`",
        "up" | "start" | "serve" | "run" => "`airfleet dev`",
        _ => return None,
    })
}

/// Writes to standard error; where that is gone there is nobody to tell.
pub(crate) fn eprint_quietly(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(text.as_bytes());
}
