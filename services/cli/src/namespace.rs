//! `airfleet namespace`: list, show, delete and pin namespaces.
//!
//! The registry knows what was declared, the router where it is; these commands join the two.

mod brings;
mod change;
mod describe;
mod events;
pub(crate) mod roles;
mod show;

use airfleet_proto::{
    common::v1::SelectorRequirement,
    registry::v1::{self as wire, GetNamespaceRequest, ListNamespacesRequest},
    router::v1::{GetAssignmentRequest, ListAssignmentsRequest},
};
use clap::Subcommand;
use jiff::Timestamp;

use self::show::Row;
pub(crate) use self::{
    describe::events_table,
    show::{labels, state as state_cell},
};
use crate::{
    args::{DoneForm, Form, TextOrJson},
    document::{self, Assignment, Document, List, NamespaceStatus},
    error::{Error, Exit, Result},
    pages::{self, PAGE},
    selector::Selector,
    session::Session,
};

/// What to do with namespaces.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List namespaces and the shards that own them
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  airfleet namespace list
  airfleet ns list -l 'tier in (gold,silver),!legacy' --owner payments-team -o wide
  airfleet ns list --shard shard-a -o name
  airfleet ns list --orphaned                        owned by a shard, and in no manifest
  airfleet ns list -o json | jq -r '.items[] | [.metadata.name, .status.assignment.shard] | @tsv'"
    )]
    List(ListArgs),
    /// Show namespaces by name
    #[command(after_help = "Examples:
  airfleet namespace get payments
  airfleet ns get payments -o yaml > payments.yaml     edit it, then airfleet apply -f payments.yaml")]
    Get(GetArgs),
    /// Show all that is known of a namespace
    #[command(after_help = "Examples:
  airfleet namespace describe payments
  airfleet ns describe payments -o json | jq .status.roles")]
    Describe {
        /// Namespaces to describe
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
    /// Show what happened to a namespace and why
    #[command(after_help = "Examples:
  airfleet namespace events payments
  airfleet ns events payments --warnings
  airfleet ns events payments --follow
  airfleet ns events payments --follow -o json | jq -c 'select(.warning)'

Joins what was declared (registry), what was decided (router) and what was seen on the shards
(agent), in the order of time. The router keeps the latest 200 of each namespace.")]
    Events(events::Args),
    /// Show which commit runs where, and what needs attention
    #[command(after_help = "Examples:
  airfleet namespace releases
  airfleet ns releases --shard shard-a
  airfleet ns releases --attention                roles not reached, drift, broken rules, obstacles
  airfleet ns releases -o json | jq -r '.items[] | [.namespace, .shard, .release] | @tsv'")]
    Releases(roles::ReleasesArgs),
    /// Remove namespaces
    #[command(after_help = "Examples:
  airfleet namespace delete payments
  airfleet ns delete payments --dry-run
  airfleet ns delete payments --wait --timeout 10m
  airfleet ns delete payments --force --reason 'shard-a was lost for good'

A namespace that is assigned is deleted only once its shard is seen to be drained of it: all its
DAGs paused, nothing running. --force deletes it all the same; the reason is kept in the audit.")]
    Delete(change::DeleteArgs),
    /// Bind a namespace to a shard
    #[command(after_help = "Examples:
  airfleet namespace pin payments shard-a --reason 'needs the GPU workers'
  airfleet ns pin payments shard-b --dry-run
  airfleet ns pin payments shard-b --wait            once shard-a is drained of it

Where another shard owns the namespace, it changes owner at once if that shard is drained of it, and
is refused otherwise.")]
    Pin(change::PinArgs),
    /// Lift a pin; the namespace stays where it is
    #[command(after_help = "Examples:
  airfleet namespace unpin payments")]
    Unpin {
        /// The namespace
        name: String,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: DoneForm,
    },
}

/// Arguments of `namespace list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those whose labels satisfy this, such as tier=gold,!legacy or 'region in (eu,us)'
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<Selector>,
    /// Only those with this owner
    #[arg(long, value_name = "TEAM")]
    owner: Option<String>,
    /// Only those that this shard owns
    #[arg(long, value_name = "SHARD", conflicts_with = "unplaced")]
    shard: Option<String>,
    /// Only those that no shard owns
    #[arg(long)]
    unplaced: bool,
    /// Only those that a shard owns although the manifest no longer has them
    #[arg(long, conflicts_with_all = ["selector", "owner", "unplaced"])]
    orphaned: bool,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// Arguments of `namespace get`.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// Namespaces to show
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, command: Command) -> Result<Exit> {
    match command {
        Command::List(args) => list(session, args).await,
        Command::Get(args) => get(session, args).await,
        Command::Describe { names, output } => describe::run(session, &names, output).await,
        Command::Events(args) => events::run(session, args).await,
        Command::Releases(args) => roles::releases(session, args).await,
        Command::Delete(args) => change::delete(session, args).await,
        Command::Pin(args) => change::pin(session, args).await,
        Command::Unpin { name, output } => change::unpin(session, name, output).await,
    }
}

async fn list(session: &mut Session<'_>, args: ListArgs) -> Result<Exit> {
    let selector = args.selector.unwrap_or_default();
    let selector: Vec<_> = selector.0.into_iter().map(Into::into).collect();
    let owner = args.owner.unwrap_or_default();
    let namespaces = namespaces(session, &selector, &owner).await?;
    let by_place = args.shard.is_some() || args.unplaced || args.orphaned;
    // What the manifest forgot has neither labels nor owners to be chosen by.
    let with_orphans = selector.is_empty() && owner.is_empty() && !args.unplaced;
    let shard = args.shard.as_deref().unwrap_or_default();
    let names: Vec<&str> = namespaces.iter().map(|n| n.name.as_str()).collect();
    let found = if with_orphans || names.len() > SINGLY_MAX {
        all_assignments(session, shard).await
    } else {
        assignments(session, &names).await
    };
    let mut assignments = match found {
        Ok(assignments) => assignments,
        // People get what is known; a script must not take "not known" for "not assigned".
        Err(error) if args.output.is_table() && !by_place => {
            session.screen.warn(&format!("{error}; showing what was declared"));
            Assignments::default()
        }
        Err(error) => return Err(error),
    };
    let mut rows = Vec::with_capacity(namespaces.len());
    for wire in namespaces {
        let mut row = Row::declared(document::namespace(wire)?);
        row.assignment = assignments.remove(&row.namespace.metadata.name);
        let assignment = row.assignment.as_ref();
        let is_wanted = match (&args.shard, args.unplaced) {
            _ if args.orphaned => false,
            (Some(shard), _) => assignment.is_some_and(|a| a.shard == *shard),
            (None, true) => !assignment.is_some_and(Assignment::is_assigned),
            (None, false) => true,
        };
        if is_wanted {
            rows.push(row);
        }
    }
    if with_orphans {
        rows.extend(orphans(session, assignments).await?);
        rows.sort_by(|a, b| a.namespace.metadata.name.cmp(&b.namespace.metadata.name));
    }
    if rows.is_empty() && args.output.is_table() {
        let filtered = by_place || !selector.is_empty() || !owner.is_empty();
        session.screen.note(if filtered {
            "No namespaces match."
        } else {
            "No namespaces yet. Register some with `airfleet apply -f FILE`."
        });
        return Ok(Exit::Ok);
    }
    if args.output == Form::Wide {
        add_roles(session, &mut rows).await;
    }
    print(session, rows, args.output, true)
}

/// What the owners are for the namespaces. That it is not known leaves only those columns empty.
async fn add_roles(session: &mut Session<'_>, rows: &mut [Row]) {
    let listed = match roles::all(session, "", false).await {
        Ok(listed) => listed,
        Err(error) => return session.screen.warn(&format!("{error}; showing no roles")),
    };
    let mut by_owner: std::collections::HashMap<(String, String), _> = listed
        .into_iter()
        .map(|role| ((role.namespace.clone(), role.shard.clone()), role))
        .collect();
    for row in rows {
        let Some(assignment) = &row.assignment else { continue };
        let key = (assignment.namespace.clone(), assignment.shard.clone());
        row.role = by_owner.remove(&key);
    }
}

/// The namespaces that the manifest has.
async fn namespaces(
    session: &Session<'_>,
    selector: &[SelectorRequirement],
    owner: &str,
) -> Result<Vec<wire::Namespace>> {
    let registry = &session.registry;
    pages::all(async |page_token| {
        let request = ListNamespacesRequest {
            page_size: PAGE,
            page_token,
            selector: selector.to_vec(),
            owner: owner.to_owned(),
        };
        let answer = registry
            .call("cannot list namespaces", async |mut client| {
                client.list_namespaces(request.clone()).await
            })
            .await?;
        Ok((answer.namespaces, answer.next_page_token))
    })
    .await
}

type Assignments = std::collections::HashMap<String, Assignment>;

/// More names than this are faster to look up in the whole list.
const SINGLY_MAX: usize = 16;

/// The assignments of a few namespaces; those that the router has not seen are missing.
async fn assignments(session: &Session<'_>, names: &[&str]) -> Result<Assignments> {
    let mut found = Assignments::new();
    for name in names {
        if let Some(assignment) = assignment(session, name).await? {
            found.insert((*name).to_owned(), assignment);
        }
    }
    Ok(found)
}

/// All assignments, or those of one shard.
async fn all_assignments(session: &Session<'_>, shard: &str) -> Result<Assignments> {
    let router = &session.router;
    let listed = pages::all(async |page_token| {
        let request = ListAssignmentsRequest {
            page_size: PAGE,
            page_token,
            shard: shard.to_owned(),
            ..Default::default()
        };
        let answer = router
            .call("cannot list assignments", async |mut client| {
                client.list_assignments(request.clone()).await
            })
            .await?;
        Ok((answer.assignments, answer.next_page_token))
    })
    .await?;
    Ok(listed.into_iter().map(|wire| (wire.namespace.clone(), wire.into())).collect())
}

/// Of assignments that the manifest did not have: those that it still does not have.
async fn orphans(session: &Session<'_>, unknown: Assignments) -> Result<Vec<Row>> {
    let mut owned: Assignments = unknown.into_iter().filter(|(_, a)| a.is_assigned()).collect();
    if owned.is_empty() {
        return Ok(Vec::new());
    }
    // One may have been registered after the manifest was listed.
    for wire in namespaces(session, &[], "").await? {
        owned.remove(&wire.name);
    }
    Ok(owned.into_values().map(Row::orphan).collect())
}

/// One namespace's assignment; `None` until the router has seen it.
async fn assignment(session: &Session<'_>, name: &str) -> Result<Option<Assignment>> {
    let request = GetAssignmentRequest { namespace: name.to_owned() };
    let answer = session
        .router
        .call(&format!("cannot read the assignment of {name:?}"), async |mut client| {
            client.get_assignment(request.clone()).await
        })
        .await;
    match answer {
        Ok(wire) => Ok(Some(wire.into())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// One namespace: as the registry has it, or as the router remembers it where a shard owns it all
/// the same. Its assignment is known in the latter case only.
async fn known(session: &Session<'_>, name: &str) -> Result<Row> {
    let request = GetNamespaceRequest { name: name.to_owned() };
    let answer = session
        .registry
        .call(&format!("cannot read namespace {name:?}"), async |mut client| {
            client.get_namespace(request.clone()).await
        })
        .await;
    match answer {
        Ok(wire) => document::namespace(wire).map(Row::declared),
        Err(error) if error.is_not_found() => match assignment(session, name).await {
            Ok(Some(assignment)) if assignment.is_assigned() => Ok(Row::orphan(assignment)),
            _ => Err(suggest(session, error, name).await),
        },
        Err(error) => Err(error),
    }
}

/// Adds the name that was probably meant.
async fn suggest(session: &Session<'_>, error: Error, name: &str) -> Error {
    let request = ListNamespacesRequest { page_size: PAGE, ..Default::default() };
    let answer = session
        .registry
        .call("cannot list namespaces", async |mut client| {
            client.list_namespaces(request.clone()).await
        })
        .await;
    let Ok(answer) = answer else { return error };
    match crate::nearest::nearest(name, answer.namespaces.iter().map(|n| n.name.as_str())) {
        Some(meant) => error.hint(format!("did you mean {meant:?}?")),
        None => error.hint("`airfleet namespace list` shows all names"),
    }
}

async fn get(session: &mut Session<'_>, args: GetArgs) -> Result<Exit> {
    let mut rows = Vec::with_capacity(args.names.len());
    for name in &args.names {
        rows.push(known(session, name).await?);
    }
    let names: Vec<&str> = args.names.iter().map(String::as_str).collect();
    match assignments(session, &names).await {
        Ok(mut assignments) => {
            for row in rows.iter_mut().filter(|row| !row.orphaned) {
                row.assignment = assignments.remove(&row.namespace.metadata.name);
            }
        }
        Err(error) if args.output.is_table() => {
            session.screen.warn(&format!("{error}; showing what was declared"));
        }
        Err(error) => return Err(error),
    }
    if !args.output.is_table() {
        for row in &mut rows {
            // Left out where it is not known: the rest is, without a leader.
            row.roles = roles::of(session, &row.namespace.metadata.name).await.ok().flatten();
        }
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
                screen.line(&format!("namespace/{}", row.namespace.metadata.name))?;
            }
        }
        Form::Json | Form::Yaml => {
            let mut documents: Vec<Document<NamespaceStatus>> =
                rows.into_iter().map(Into::into).collect();
            let text = match (form, is_list, documents.pop()) {
                (Form::Json, false, Some(document)) => document::json(&document)?,
                (Form::Json, _, last) => {
                    documents.extend(last);
                    document::json(&List::new("NamespaceList", documents))?
                }
                (_, _, last) => {
                    documents.extend(last);
                    document::yaml_documents(&documents)?
                }
            };
            screen.print(&text)?;
        }
    }
    Ok(Exit::Ok)
}
