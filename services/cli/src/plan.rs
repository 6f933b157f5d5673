//! `airfleet plan`: plan moves, look at them, carry them out.

mod show;

use std::time::Duration;

use airfleet_proto::placement::v1::{
    ApplyPlanRequest, CancelPlanRequest, CheckPlanRequest, CreatePlanRequest, DumpPlanRequest,
    Emergency, GetPlanRequest, ListPlansRequest, Loss, Plan, PlanState,
    create_plan_request::Purpose,
};
use clap::Subcommand;

use crate::{
    args::{TextOrJson, duration},
    document,
    error::{Error, Exit, Result},
    human,
    session::Session,
};

/// How often a plan that is being carried out is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What to do with plans.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look for moves that are worth it and keep them as a plan; moves nothing
    #[command(after_help = "Examples:
  airfleet plan create
  airfleet plan create --emergency                 only what is broken or overloaded
  airfleet plan create --drain shard-a             empty a shard
  airfleet plan create --fill shard-new            put something onto a new shard
  airfleet plan create --what-if-lose zone=eu-1a   what would happen; cannot be applied
  airfleet plan create --budget 5000 -o json

Any move costs 100, and one more for each MiB of history and ten for each running slot. Exit code 2
where something could not be helped.")]
    Create(CreateArgs),
    /// List plans, the newest first
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  airfleet plan list
  airfleet plan list -o json"
    )]
    List {
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
    /// Show a plan: what it changes, its moves and how far they are
    #[command(
        alias = "get",
        after_help = "Examples:
  airfleet plan show rebalance-7
  airfleet plan show rebalance-7 --moves 1000
  airfleet plan show rebalance-7 -o json | jq '.moves[] | select(.state == \"FAILED\")'"
    )]
    Show {
        /// The plan
        name: String,
        /// Moves to show
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        moves: usize,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
    /// Show what changed since a plan was made, or where another plan differs
    #[command(after_help = "Examples:
  airfleet plan diff rebalance-7                 is it stale, and why
  airfleet plan diff rebalance-7 rebalance-8     which moves differ

Exit code 2 where there is a difference.")]
    Diff {
        /// The plan
        name: String,
        /// Another plan
        other: Option<String>,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
    /// Carry a plan out
    #[command(after_help = "Examples:
  airfleet plan apply rebalance-7
  airfleet plan apply rebalance-7 --hash 5f3a… --yes --wait
  airfleet plan apply rebalance-7 --dry-run

A plan that stopped goes on where it stopped. One that no longer fits the fleet is refused, with
what changed.")]
    Apply(ApplyArgs),
    /// Stop a plan that is being carried out, or drop one that is not
    #[command(after_help = "Examples:
  airfleet plan cancel rebalance-7 --reason 'wrong shard'

Moves under way end; what was moved stays where it is.")]
    Cancel {
        /// The plan
        name: String,
        /// Why; kept with the plan
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
    /// Write all that a plan was made of into a file, to be replayed
    #[command(after_help = "Examples:
  airfleet plan dump rebalance-7 > rebalance-7.json
  airfleet simulate --replay rebalance-7.json

Kept for the latest plans only, and by the leader that made them.")]
    Dump {
        /// The plan
        name: String,
    },
}

/// Arguments of `plan create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Name of the plan; made up unless given
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Mend what has no shard, sits on a forbidden one or overloads its shard, and nothing else
    #[arg(long, group = "purpose")]
    emergency: bool,
    /// Empty this shard
    #[arg(long, group = "purpose", value_name = "SHARD")]
    drain: Option<String>,
    /// Put something onto this shard
    #[arg(long, group = "purpose", value_name = "SHARD")]
    fill: Option<String>,
    /// Find out what the loss of a shard or a failure domain would mean; may be given several times
    #[arg(long, group = "purpose", value_name = "SHARD|zone=ZONE")]
    what_if_lose: Vec<String>,
    /// Most that all moves may cost together
    #[arg(long, value_name = "COST", default_value_t = 0, hide_default_value = true,
          value_parser = clap::value_parser!(i64).range(0..))]
    budget: i64,
    /// Most moves
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true,
          value_parser = clap::value_parser!(i64).range(0..))]
    max_moves: i64,
    /// Decides between what is equally good
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Longest time to look for moves [default: the router's setting]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    time_limit: Option<Duration>,
    /// Moves to show
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    moves: usize,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: TextOrJson,
}

/// Arguments of `plan apply`.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// The plan
    name: String,
    /// The hash that was looked at; a plan with another one is refused
    #[arg(long, value_name = "SHA256", default_value = "", hide_default_value = true)]
    hash: String,
    /// Check everything, start nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until it is carried out or stops
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    timeout: Duration,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: TextOrJson,
}

/// Does it.
pub async fn run(session: &mut Session<'_>, command: Command) -> Result<Exit> {
    match command {
        Command::Create(args) => create(session, args).await,
        Command::List { output } => list(session, output).await,
        Command::Show { name, moves, output } => {
            let plan = get(session, &name).await?;
            print(session, &plan, moves, output)?;
            Ok(Exit::Ok)
        }
        Command::Diff { name, other: None, output } => changes(session, &name, output).await,
        Command::Diff { name, other: Some(other), output } => {
            let (one, other) = (get(session, &name).await?, get(session, &other).await?);
            let (text, value, differ) = show::differences(&one, &other);
            match output {
                TextOrJson::Text => session.screen.print(&text)?,
                TextOrJson::Json => session.screen.print(&document::json(&value)?)?,
            }
            Ok(if differ { Exit::Negative } else { Exit::Ok })
        }
        Command::Apply(args) => apply(session, args).await,
        Command::Cancel { name, reason, output } => {
            let request = CancelPlanRequest { name: name.clone(), reason };
            let plan = session
                .placement
                .call(&format!("cannot cancel plan/{name}"), async |mut client| {
                    client.cancel_plan(request.clone()).await
                })
                .await?;
            said(session, &plan, output)
        }
        Command::Dump { name } => dump(session, &name).await,
    }
}

async fn create(session: &mut Session<'_>, args: CreateArgs) -> Result<Exit> {
    let purpose = if args.emergency {
        Some(Purpose::Emergency(Emergency {}))
    } else if let Some(shard) = args.drain {
        Some(Purpose::DrainShard(shard))
    } else if let Some(shard) = args.fill {
        Some(Purpose::FillShard(shard))
    } else if args.what_if_lose.is_empty() {
        None
    } else {
        let mut loss = Loss::default();
        for lost in args.what_if_lose {
            match lost.split_once('=') {
                Some(("zone" | "domain" | "failure-domain", domain)) => {
                    loss.failure_domains.push(domain.to_owned());
                }
                Some((key, _)) => {
                    return Err(Error::new(format!("{key}= is nothing that can be lost"))
                        .hint("write a shard's name, or zone=NAME for a failure domain"));
                }
                None => loss.shards.push(lost),
            }
        }
        Some(Purpose::Lose(loss))
    };
    let request = CreatePlanRequest {
        name: args.name.unwrap_or_default(),
        cost_max: args.budget,
        moves_max: args.max_moves,
        seed: args.seed,
        time_limit_ms: args
            .time_limit
            .map_or(0, |limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX)),
        purpose,
    };
    let plan = session
        .placement
        .call_once("cannot make a plan", async |mut client| {
            client.create_plan(request.clone()).await
        })
        .await?;
    print(session, &plan, args.moves, args.output)?;
    if args.output == TextOrJson::Text && plan.move_count > 0 && !plan.hypothetical {
        session.screen.note(&format!("carry it out with: airfleet plan apply {}", plan.name));
    }
    Ok(if plan.unsolved_count > 0 { Exit::Negative } else { Exit::Ok })
}

async fn get(session: &Session<'_>, name: &str) -> Result<Plan> {
    let request = GetPlanRequest { name: name.to_owned(), summary_only: false };
    session
        .placement
        .call(&format!("cannot show plan/{name}"), async |mut client| {
            client.get_plan(request.clone()).await
        })
        .await
}

fn print(session: &mut Session<'_>, plan: &Plan, moves: usize, form: TextOrJson) -> Result<()> {
    match form {
        TextOrJson::Text => {
            let text = show::text(plan, moves, session.screen.paint());
            session.screen.print(&text)
        }
        TextOrJson::Json => session.screen.print(&document::json(&show::value(plan))?),
    }
}

async fn list(session: &mut Session<'_>, output: TextOrJson) -> Result<Exit> {
    let answer = session
        .placement
        .call("cannot list plans", async |mut client| {
            client.list_plans(ListPlansRequest { page_size: 1000 }).await
        })
        .await?;
    match output {
        TextOrJson::Text if answer.plans.is_empty() => {
            session.screen.note("No plans; airfleet plan create makes one.");
        }
        TextOrJson::Text => {
            let text = show::table(&answer.plans, session.screen.paint());
            session.screen.print(&text)?;
        }
        TextOrJson::Json => {
            let items = answer.plans.iter().map(show::value).collect();
            session.screen.print(&document::json(&document::List::new("PlanList", items))?)?;
        }
    }
    Ok(Exit::Ok)
}

async fn changes(session: &mut Session<'_>, name: &str, output: TextOrJson) -> Result<Exit> {
    let request = CheckPlanRequest { name: name.to_owned() };
    let answer = session
        .placement
        .call(&format!("cannot check plan/{name}"), async |mut client| {
            client.check_plan(request.clone()).await
        })
        .await?;
    match output {
        TextOrJson::Text => {
            for change in &answer.changes {
                session.screen.line(change)?;
            }
            if answer.changes.is_empty() {
                session.screen.note("Nothing changed that the plan stands on.");
            }
        }
        TextOrJson::Json => {
            let value = serde_json::json!({ "changes": answer.changes });
            session.screen.print(&document::json(&value)?)?;
        }
    }
    Ok(if answer.changes.is_empty() { Exit::Ok } else { Exit::Negative })
}

async fn apply(session: &mut Session<'_>, args: ApplyArgs) -> Result<Exit> {
    let mut hash = args.hash.clone();
    if !args.yes && !args.dry_run {
        let plan = get(session, &args.name).await?;
        // What was looked at is what is applied.
        hash = if hash.is_empty() { plan.hash.clone() } else { hash };
        if !confirmed(&plan) {
            return Err(Error::new(format!("plan/{} was not applied", args.name))
                .hint("say y, or give --yes where nobody can be asked"));
        }
    }
    let request = ApplyPlanRequest {
        name: args.name.clone(),
        expected_hash: hash,
        validate_only: args.dry_run,
    };
    let mut plan = session
        .placement
        .call(&format!("cannot apply plan/{}", args.name), async |mut client| {
            client.apply_plan(request.clone()).await
        })
        .await?;
    if args.dry_run {
        session.screen.line(&format!("plan/{} can be applied (dry run)", args.name))?;
        return Ok(Exit::Ok);
    }
    let begun = std::time::Instant::now();
    let mut told = -1;
    while args.wait && plan.state() == PlanState::Applying {
        if begun.elapsed() > args.timeout {
            return Err(Error::new(format!(
                "plan/{} is still being carried out after {}",
                args.name,
                human::span(args.timeout)
            ))
            .hint("it goes on; airfleet plan show says how far it is"));
        }
        if told != plan.done_count {
            told = plan.done_count;
            session.screen.note(&format!("{} of {} moves made", plan.done_count, plan.move_count));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        plan = get(session, &args.name).await?;
    }
    said(session, &plan, args.output)
}

/// Asks on the terminal; where there is none, the answer is no.
fn confirmed(plan: &Plan) -> bool {
    use std::io::{IsTerminal as _, Write as _};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return false;
    }
    let moves = human::count(plan.move_count, "move");
    eprint!(
        "apply plan/{} ({}, {moves}, about {})? [y/N] ",
        plan.name,
        plan.purpose,
        show::eta(plan)
    );
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}

fn said(session: &mut Session<'_>, plan: &Plan, output: TextOrJson) -> Result<Exit> {
    let state = show::state_name(plan.state());
    match output {
        TextOrJson::Text => {
            let why = match plan.state_reason.as_str() {
                "" => String::new(),
                why => format!(": {why}"),
            };
            let done = format!("{} of {} moves made", plan.done_count, plan.move_count);
            session.screen.line(&format!("plan/{} {state}{why} ({done})", plan.name))?;
        }
        TextOrJson::Json => session.screen.print(&document::json(&show::value(plan))?)?,
    }
    let bad = plan.state() == PlanState::Stopped || plan.failed_count > 0;
    Ok(if bad { Exit::Negative } else { Exit::Ok })
}

async fn dump(session: &mut Session<'_>, name: &str) -> Result<Exit> {
    let what = format!("cannot dump plan/{name}");
    let request = DumpPlanRequest { name: name.to_owned() };
    let mut stream = session
        .placement
        .open(&what, async |mut client| client.dump_plan(request.clone()).await)
        .await?;
    loop {
        match stream.message().await {
            Ok(Some(piece)) => {
                let text = String::from_utf8_lossy(&piece.chunk);
                session.screen.print(&text)?;
            }
            Ok(None) => return Ok(Exit::Ok),
            Err(status) => {
                session.placement.stream_ended(&status);
                return Err(Error::caused(what, &status));
            }
        }
    }
}
