//! `airfleet shard`: list, show, cordon and delete shards.

mod show;

use airfleet_proto::{
    registry::v1::{
        DeleteShardRequest, GetShardRequest, ListAuditEventsRequest, ListShardsRequest,
    },
    router::v1::{
        CordonShardRequest, GetShardStatusRequest, ListAssignmentsRequest,
        ListShardStatusesRequest, UncordonShardRequest,
    },
};
use clap::Subcommand;
use jiff::Timestamp;

use self::show::{Facts, Row};
pub use self::show::{health_cell, summary_table};
use crate::{
    args::{DoneForm, Form},
    document::{self, Document, Kept, List, ShardState, ShardStatus},
    error::{Error, Exit, Result},
    pages::{self, PAGE},
    selector::Selector,
    session::Session,
};

/// What to do with shards.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List shards with their health and room
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  airfleet shard list
  airfleet shard list -l region=eu -o wide
  airfleet shard list -o json | jq '.items[].status.state.room'

DAGS, SLOTS and STARTS/H are what placement counts for the namespaces, of what the shard can take."
    )]
    List(ListArgs),
    /// Show shards by name
    #[command(after_help = "Examples:
  airfleet shard get shard-a -o yaml")]
    Get(GetArgs),
    /// Show all that is known of a shard
    #[command(after_help = "Examples:
  airfleet shard describe shard-a")]
    Describe {
        /// Shards to describe
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Keep new namespaces away from shards; what they have stays
    #[command(after_help = "Examples:
  airfleet shard cordon shard-a --reason 'database upgrade'")]
    Cordon {
        /// Shards to cordon
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Why; shown with the shard
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: DoneForm,
    },
    /// Lift a cordon
    #[command(after_help = "Examples:
  airfleet shard uncordon shard-a")]
    Uncordon {
        /// Shards to uncordon
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: DoneForm,
    },
    /// Remove shards that own no namespaces
    #[command(after_help = "Examples:
  airfleet shard delete shard-a
  airfleet shard delete shard-a --dry-run")]
    Delete(DeleteArgs),
}

/// Arguments of `shard list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those whose labels satisfy this, such as tier=gold,!legacy or 'region in (eu,us)'
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<Selector>,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// Arguments of `shard get`.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// Shards to show
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// Arguments of `shard delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Shards to delete
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on where a shard does not exist
    #[arg(long)]
    ignore_not_found: bool,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: DoneForm,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, command: Command) -> Result<Exit> {
    match command {
        Command::List(args) => list(session, args).await,
        Command::Get(args) => get(session, args).await,
        Command::Describe { names } => describe(session, &names).await,
        Command::Cordon { names, reason, output } => cordon(session, &names, reason, output).await,
        Command::Uncordon { names, output } => uncordon(session, &names, output).await,
        Command::Delete(args) => delete(session, args).await,
    }
}

async fn list(session: &mut Session<'_>, args: ListArgs) -> Result<Exit> {
    let selector = args.selector.unwrap_or_default();
    let selector: Vec<_> = selector.0.into_iter().map(Into::into).collect();
    let registry = &session.registry;
    let shards = pages::all(async |page_token| {
        let request = ListShardsRequest { page_size: PAGE, page_token, selector: selector.clone() };
        let answer = registry
            .call("cannot list shards", async |mut client| {
                client.list_shards(request.clone()).await
            })
            .await?;
        Ok((answer.shards, answer.next_page_token))
    })
    .await?;
    if shards.is_empty() && args.output.is_table() {
        session.screen.note(if selector.is_empty() {
            "No shards yet. Register some with `airfleet apply -f FILE`."
        } else {
            "No shards match."
        });
        return Ok(Exit::Ok);
    }
    let mut states = known(session, states(session).await, args.output)?;
    let mut rows = Vec::with_capacity(shards.len());
    for wire in shards {
        let (shard, kept) = document::shard(wire)?;
        let state = states.remove(&shard.metadata.name);
        rows.push(Row { shard, kept, state });
    }
    print(session, rows, args.output, true)
}

type States = std::collections::HashMap<String, ShardState>;

/// People get what was declared where the rest is not known; a script must not take "not known"
/// for "nothing there".
fn known(session: &mut Session<'_>, states: Result<States>, form: Form) -> Result<States> {
    match states {
        Err(error) if form.is_table() => {
            session.screen.warn(&format!("{error}; showing what was declared"));
            Ok(States::new())
        }
        states => states,
    }
}

/// What the router knows of all shards.
pub(crate) async fn states(session: &Session<'_>) -> Result<States> {
    let router = &session.router;
    let states = pages::all(async |page_token| {
        let request = ListShardStatusesRequest { page_size: PAGE, page_token };
        let answer = router
            .call("cannot list the state of shards", async |mut client| {
                client.list_shard_statuses(request.clone()).await
            })
            .await?;
        Ok((answer.shards, answer.next_page_token))
    })
    .await?;
    Ok(states.into_iter().map(|state| (state.shard.clone(), state.into())).collect())
}

/// One shard as the registry has it.
async fn declared(
    session: &Session<'_>,
    name: &str,
) -> Result<(airfleet_domain::manifest::Shard, Kept)> {
    let request = GetShardRequest { name: name.to_owned() };
    let answer = session
        .registry
        .call(&format!("cannot read shard {name:?}"), async |mut client| {
            client.get_shard(request.clone()).await
        })
        .await;
    match answer {
        Ok(wire) => document::shard(wire),
        Err(error) if error.is_not_found() => Err(suggest(session, error, name).await),
        Err(error) => Err(error),
    }
}

/// What the router knows of a shard; `None` until it has seen it.
async fn state(session: &Session<'_>, name: &str) -> Result<Option<ShardState>> {
    let request = GetShardStatusRequest { shard: name.to_owned() };
    let answer = session
        .router
        .call(&format!("cannot read the state of shard {name:?}"), async |mut client| {
            client.get_shard_status(request.clone()).await
        })
        .await;
    match answer {
        Ok(wire) => Ok(Some(wire.into())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Adds the name that was probably meant.
async fn suggest(session: &Session<'_>, error: Error, name: &str) -> Error {
    let request = ListShardsRequest { page_size: PAGE, ..Default::default() };
    let answer = session
        .registry
        .call("cannot list shards", async |mut client| client.list_shards(request.clone()).await)
        .await;
    let Ok(answer) = answer else { return error };
    match crate::nearest::nearest(name, answer.shards.iter().map(|s| s.name.as_str())) {
        Some(meant) => error.hint(format!("did you mean {meant:?}?")),
        None => error.hint("`airfleet shard list` shows all names"),
    }
}

async fn get(session: &mut Session<'_>, args: GetArgs) -> Result<Exit> {
    let mut rows = Vec::with_capacity(args.names.len());
    for name in &args.names {
        let (shard, kept) = declared(session, name).await?;
        let found = state(session, name).await;
        let found = found.map(|state| state.map(|s| (name.clone(), s)).into_iter().collect());
        let state = known(session, found, args.output)?.remove(name);
        rows.push(Row { shard, kept, state });
    }
    let is_list = args.names.len() > 1;
    print(session, rows, args.output, is_list)
}

fn print(session: &mut Session<'_>, rows: Vec<Row>, form: Form, is_list: bool) -> Result<Exit> {
    let screen = &mut *session.screen;
    match form {
        Form::Table | Form::Wide => {
            let table = show::table(&rows, form == Form::Wide, Timestamp::now());
            screen.print(&table.render(screen.paint(), ""))?;
        }
        Form::Name => {
            for row in &rows {
                screen.line(&format!("shard/{}", row.shard.metadata.name))?;
            }
        }
        Form::Json | Form::Yaml => {
            let mut documents: Vec<Document<ShardStatus>> =
                rows.into_iter().map(Into::into).collect();
            let text = match documents.pop() {
                Some(only) if form == Form::Json && !is_list => document::json(&only)?,
                last => {
                    documents.extend(last);
                    if form == Form::Json {
                        document::json(&List::new("ShardList", documents))?
                    } else {
                        document::yaml_documents(&documents)?
                    }
                }
            };
            screen.print(&text)?;
        }
    }
    Ok(Exit::Ok)
}

async fn describe(session: &mut Session<'_>, names: &[String]) -> Result<Exit> {
    for (index, name) in names.iter().enumerate() {
        let (shard, kept) = declared(session, name).await?;
        let state = state(session, name).await.map_err(|error| error.to_string());
        let router = &session.router;
        let assigned = pages::all(async |page_token| {
            let request = ListAssignmentsRequest {
                page_size: PAGE,
                page_token,
                shard: name.clone(),
                ..Default::default()
            };
            let answer = router
                .call("cannot list assignments", async |mut client| {
                    client.list_assignments(request.clone()).await
                })
                .await?;
            Ok((answer.assignments, answer.next_page_token))
        })
        .await
        .map_err(|error| error.to_string());
        let request = ListAuditEventsRequest {
            page_size: 10,
            kind: "shard".into(),
            name: name.clone(),
            ..Default::default()
        };
        let events = session
            .registry
            .call("cannot read the audit", async |mut client| {
                client.list_audit_events(request.clone()).await
            })
            .await
            .map(|answer| answer.events)
            .map_err(|error| error.to_string());
        let facts = Facts {
            row: Row { shard, kept, state: state.clone().ok().flatten() },
            state_error: state.err(),
            assigned: assigned.map(|all| all.into_iter().map(|a| a.namespace).collect()),
            events,
        };
        let separator = if index == 0 { "" } else { "\n\n" };
        let text = show::describe(&facts, session.screen.paint(), Timestamp::now());
        session.screen.print(&format!("{separator}{text}"))?;
    }
    Ok(Exit::Ok)
}

async fn cordon(
    session: &mut Session<'_>,
    names: &[String],
    reason: String,
    output: DoneForm,
) -> Result<Exit> {
    for name in names {
        let request = CordonShardRequest { shard: name.clone(), reason: reason.clone() };
        let answer = session
            .router
            .call(&format!("cannot cordon shard {name:?}"), async |mut client| {
                client.cordon_shard(request.clone()).await
            })
            .await;
        let state: ShardState = named(session, answer, name).await?.into();
        session.done(&format!("shard/{name}"), "cordoned", false, output, &state)?;
    }
    Ok(Exit::Ok)
}

async fn uncordon(session: &mut Session<'_>, names: &[String], output: DoneForm) -> Result<Exit> {
    for name in names {
        let request = UncordonShardRequest { shard: name.clone() };
        let answer = session
            .router
            .call(&format!("cannot uncordon shard {name:?}"), async |mut client| {
                client.uncordon_shard(request.clone()).await
            })
            .await;
        let state: ShardState = named(session, answer, name).await?.into();
        session.done(&format!("shard/{name}"), "uncordoned", false, output, &state)?;
    }
    Ok(Exit::Ok)
}

/// Adds the name that was probably meant where there is none of that name.
async fn named<T>(session: &Session<'_>, answer: Result<T>, name: &str) -> Result<T> {
    match answer {
        Err(error) if error.is_not_found() => Err(suggest(session, error, name).await),
        answer => answer,
    }
}

async fn delete(session: &mut Session<'_>, args: DeleteArgs) -> Result<Exit> {
    for name in &args.names {
        let request = DeleteShardRequest {
            name: name.clone(),
            etag: String::new(),
            request_id: crate::client::request_id(),
            validate_only: args.dry_run,
        };
        let answer = session
            .registry
            .call(&format!("cannot delete shard {name:?}"), async |mut client| {
                client.delete_shard(request.clone()).await
            })
            .await;
        match named(session, answer, name).await {
            Ok(_) => {
                let result = serde_json::json!({
                    "kind": "Shard", "name": name, "outcome": "deleted", "dryRun": args.dry_run,
                });
                let id = format!("shard/{name}");
                session.done(&id, "deleted", args.dry_run, args.output, &result)?;
            }
            Err(error) if error.is_not_found() && args.ignore_not_found => {}
            Err(error) if error.is_refused() => {
                return Err(error.or_hint(
                    "`airfleet shard describe` lists its namespaces; cordon it, then pin them to \
                     other shards",
                ));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Exit::Ok)
}
