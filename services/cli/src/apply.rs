//! `airfleet apply`: makes namespaces and shards be as files declare.
//!
//! Everything is checked locally before anything is sent. What is sent goes in batches, each of
//! them all or nothing and known by a request id, so that a batch whose answer was lost is asked
//! for again without harm.

mod report;
mod send;
#[cfg(test)]
mod tests;
mod wait;

use std::{io, time::Duration};

use clap::ValueEnum;

use self::report::Report;
pub(crate) use self::send::{Applied, Outcome, send};
use crate::{
    args::{Files, duration},
    document,
    error::{Exit, Result},
    files,
    session::Session,
};

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  airfleet apply -f payments.yaml
  airfleet apply -f fleet/ -f shards.yaml          folders are read with all that is in them
  airfleet apply -f fleet/ --dry-run               check with the registry, change nothing
  airfleet apply -f fleet/ --wait --timeout 2m     wait until each namespace has a shard
  generate-namespaces | airfleet apply -f -

Applying the same files again changes nothing. Entries that the files do not name stay as they are.
Up to 500 entries go at once, all or none of them; shards go before namespaces.

Exit codes: 0 applied, 1 failed, 2 with --wait: some namespaces have no shard.")]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// Let the registry check everything and say what would change; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until a shard owns each namespace
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s",
          requires = "wait")]
    timeout: Duration,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// Forms of the outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A line for each entry, and a summary
    #[default]
    Text,
    /// `kind/name`, one a line
    Name,
    /// For scripts
    Json,
    /// For scripts
    Yaml,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, args: Args) -> Result<Exit> {
    let manifest = files::read(&args.files.filename, args.files.recursive, io::stdin())?;
    let mut all = Vec::with_capacity(manifest.items.len());
    let revision = send(session, &manifest, args.dry_run, |session, applied| {
        for one in &applied {
            let id = manifest.items[one.item].id();
            match args.output {
                Form::Text => session.screen.line(&report::line(&id, one.outcome, args.dry_run))?,
                Form::Name => session.screen.line(&id)?,
                Form::Json | Form::Yaml => {}
            }
        }
        all.extend(applied);
        session.screen.flush()
    })
    .await?;
    let is_text = args.output == Form::Text;
    if is_text && all.len() > 1 {
        session.screen.line(&report::summary(&all, args.dry_run))?;
        session.screen.flush()?;
    }
    let waited = if args.wait {
        let waited = wait::wait(session, &all, args.timeout).await?;
        if is_text && !waited.is_empty() {
            let text = report::assigned(&waited, args.timeout, session.screen.paint());
            session.screen.print(&text)?;
        }
        waited
    } else {
        Vec::new()
    };
    let exit = if waited.iter().all(wait::Waited::is_assigned) { Exit::Ok } else { Exit::Negative };
    match args.output {
        Form::Text | Form::Name => {}
        Form::Json => {
            let report = Report::new(all, waited, revision, args.dry_run);
            session.screen.print(&document::json(&report)?)?;
        }
        Form::Yaml => {
            let report = Report::new(all, waited, revision, args.dry_run);
            session.screen.print(&document::yaml(&report)?)?;
        }
    }
    Ok(exit)
}
