//! `bench`: the figures that Airfleet is held to, measured on the services as they run.
//!
//! Each group starts what it needs as processes, puts load on it from this one, and adds figures to
//! the report. A peer is measured in the same run. A missed goal fails the run, after all groups
//! had their turn. The services are the binaries beside this one; build them with it:
//! `cargo build --release --workspace --bins`, or `make bench`.

mod agents;
mod batch;
mod blackout;
mod moves;
mod placement;
mod policy;
mod probes;
mod release;
mod resolve;
mod restart;
mod rig;
mod sync;
mod table;
mod watch;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use airfleet_integration_tests::bench::report::Report;
use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};

use self::rig::Rig;

/// Measures Airfleet and compares the figures with their goals.
#[derive(Debug, Parser)]
struct Arguments {
    /// Groups to run, separated by commas; all but placement-peers unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Group>,
    /// Print the groups, and exit.
    #[arg(long)]
    list: bool,
    /// Where the report is written. Figures of groups that do not run stay in it.
    #[arg(long, value_name = "FILE", default_value = "target/bench/report.json")]
    report: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program does in processes of its own.
#[derive(Debug, Subcommand)]
enum Part {
    /// Serves the peer of resolve.
    #[command(hide = true)]
    ServeEcho {
        /// Port on loopback.
        port: u16,
    },
    /// Measures the table in a process that holds nothing else, and prints what it found.
    #[command(hide = true)]
    MeasureTable,
    /// Rebalances a generated fleet in a process that holds nothing else, and prints what it found.
    #[command(hide = true)]
    MeasurePlacement(placement::Size),
    /// Places single namespaces and loses a shard, and prints how long that took.
    #[command(hide = true)]
    MeasurePlacing,
    /// Copies a namespace's rows and prints how long that took.
    #[command(hide = true)]
    MeasureCopy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The routing table in process: time to resolve and to change, memory.
    Table,
    /// Resolve over gRPC beside a bare server.
    Resolve,
    /// Many dag_ids in a call.
    Batch,
    /// A change on its way to a thousand watchers.
    Watch,
    /// From start to ready.
    Restart,
    /// What agents cost the router.
    Agents,
    /// What an agent costs the metadata database, and itself.
    Probes,
    /// Delivery of a bundle beside `rclone sync`; takes minutes.
    Sync,
    /// From a new release in the source to a DAG that a real shard can schedule.
    Release,
    /// What the guardrails cost a DAG and a task while Airflow parses.
    Policy,
    /// One of many generated DAGs, as a worker parses it.
    Parsing,
    /// Real cron schedules, smoothed.
    Smoothing,
    /// A namespace's rows from one metadata database to another, beside pg_dump and psql.
    MoveCopy,
    /// Whole moves between two running Airflows: for how long nobody could make runs. Takes minutes.
    Move,
    /// The placement engine in process: whole fleets, single namespaces, the loss of a shard.
    Placement,
    /// The placement engine beside Meta's Rebalancer and a MIP solver; installs them, takes minutes.
    PlacementPeers,
}

impl Group {
    async fn run(self, rig: &Rig, report: &mut Report) -> Result<()> {
        match self {
            Self::Table => table::run(report).await,
            Self::Resolve => resolve::run(rig, report).await,
            Self::Batch => batch::run(rig, report).await,
            Self::Watch => watch::run(rig, report).await,
            Self::Restart => restart::run(rig, report).await,
            Self::Agents => agents::run(rig, report).await,
            Self::Probes => probes::run(rig, report).await,
            Self::Sync => sync::run(rig, report).await,
            Self::Release => release::run(report).await,
            Self::Policy => policy::cost(rig, report).await,
            Self::Parsing => policy::parsing(rig, report).await,
            Self::Smoothing => policy::smoothing(rig, report).await,
            Self::MoveCopy => moves::run(report).await,
            Self::Move => blackout::run(report).await,
            Self::Placement => placement::run(report).await,
            Self::PlacementPeers => placement::run_peers(report).await,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().expect("no group is skipped").get_name().to_owned()
    }
}

async fn run_groups(arguments: &Arguments) -> Result<bool> {
    let mut groups = arguments.only.clone();
    if groups.is_empty() {
        groups.extend(Group::value_variants().iter().filter(|g| **g != Group::PlacementPeers));
    }
    let rig = Rig::new().await?;
    let mut report = Report::open(&arguments.report);
    let mut failed = Vec::new();
    for group in &groups {
        let begun = Instant::now();
        progress(&format!("{}: begins", group.name()));
        if let Err(error) = group.run(&rig, &mut report).await {
            progress(&format!("{}: failed: {error:#}", group.name()));
            failed.push(group.name());
        }
        progress(&format!("{}: took {:.0?}", group.name(), rounded(begun.elapsed())));
    }
    let missed = report.missed();
    println!(
        "{} figures in {}; {} missed their goal; groups that failed: {}",
        report.count(),
        arguments.report.display(),
        missed.len(),
        if failed.is_empty() { "none".to_owned() } else { failed.join(", ") },
    );
    Ok(missed.is_empty() && failed.is_empty())
}

/// What goes on, for whoever waits. Figures go to standard output, this does not.
fn progress(text: &str) {
    eprintln!("     {text}");
}

fn rounded(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match execute(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for group in Group::value_variants() {
            println!("{}", group.name());
        }
        return Ok(true);
    }
    if let Some(Part::MeasureTable) = arguments.part {
        table::measure_and_print()?;
        return Ok(true);
    }
    if let Some(Part::MeasurePlacement(size)) = arguments.part {
        placement::measure(size)?;
        return Ok(true);
    }
    if let Some(Part::MeasurePlacing) = arguments.part {
        placement::measure_single()?;
        return Ok(true);
    }
    airfleet_runtime::tls::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(async {
        match arguments.part {
            Some(Part::MeasureCopy) => moves::measure_and_print().await.map(|()| true),
            Some(Part::ServeEcho { port }) => resolve::serve_echo(port).await.map(|()| true),
            _ => run_groups(arguments).await,
        }
    })
}
