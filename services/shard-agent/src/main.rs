//! The command `airfleet-agent`.

mod sync;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use airfleet_runtime::{
    config::{Loaded, Loader},
    lifecycle::Shutdown,
    server, telemetry, tls,
};
use airfleet_shard_agent::{
    AgentConfig, VERSION, fence_command, probe_once, run, run_simulated, simulate::Simulation,
};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Exit code of `probe` where the shard is not healthy, and of `fence status` where there is no
/// fence or it does not hold.
const NOT_HEALTHY: u8 = 2;

/// Stands beside one Airflow cluster, looks at it and reports to the router.
#[derive(Debug, Parser)]
#[command(name = "airfleet-agent", version = VERSION, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    run: RunArguments,
}

const EXAMPLES: &str = "\
Examples:
  # Run beside a shard (the default command)
  airfleet-agent --shard shard-a --router http://127.0.0.1:7402 \\
    --set airflow.metadata_url=postgres://reader@db/airflow --set broker.url=redis://redis/0

  # With settings from a file; passwords from the environment
  AIRFLEET__AIRFLOW__METADATA_URL=postgres://reader:...@db/airflow \\
    airfleet-agent --config /etc/airfleet/agent.toml

  # On call: is this shard well, and if not, why?
  airfleet-agent probe --config /etc/airfleet/agent.toml

  # What does the fence hold, and does it?
  airfleet-agent fence status --config /etc/airfleet/agent.toml

Exit codes: 0 done or healthy, 1 error, 2 the probed shard is not healthy or not fenced.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Look and report until stopped (what happens without a command).
    Run(RunArguments),
    /// Look once with every probe and print what is seen. Exit code 0 if healthy, 2 if not.
    Probe {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Seconds to listen for workers.
        #[arg(long, value_name = "SECONDS", default_value_t = 5)]
        listen_seconds: u64,
    },
    /// The fence in the metadata database, which keeps DAGs paused that this shard does not own.
    #[command(subcommand)]
    Fence(FenceCommand),
    /// Bring DAG files from their sources into a folder, without a router.
    #[command(after_help = sync::EXAMPLES)]
    Sync(sync::Arguments),
}

#[derive(Debug, Subcommand)]
enum FenceCommand {
    /// Print what the fence holds. Exit code 0 if it works, 2 if not.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Install the fence, upgrade an older one, or put right what was altered. An agent that may
    /// does it by itself.
    Install {
        /// Let this role of the database do what an agent does. Needs the owner of Airflow's tables.
        #[arg(long, value_name = "ROLE")]
        grant_to: Option<String>,
    },
    /// Remove the fence with all that it remembers. Stop the agent first, or set fence.enabled =
    /// false: an agent installs it again.
    Remove {
        /// Also where DAGs are fenced or pause states remembered.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

#[derive(Debug, Args)]
struct Settings {
    /// TOML file of settings. May be given several times; later ones win, the environment
    /// (AIRFLEET__SECTION__KEY) wins over files and flags over all.
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Name of the shard, as in the manifest.
    #[arg(long, global = true, value_name = "NAME")]
    shard: Option<String>,
    /// URLs of the routers.
    #[arg(long, global = true, value_name = "URL", value_delimiter = ',')]
    router: Vec<String>,
    /// Address of the agent's own listener, for /metrics, /healthz and /readyz.
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Listen beyond loopback although traffic is not encrypted or callers are not known.
    #[arg(long, global = true)]
    insecure: bool,
    /// Set one setting, as key=value. May be given several times.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the settings and where each comes from, and exit.
    #[arg(long, global = true)]
    show_config: bool,
}

#[derive(Debug, Args, Clone)]
struct RunArguments {
    /// Pretend: report invented numbers for a shard that does not exist. For measuring routers.
    #[arg(long)]
    simulate: bool,
    /// With --simulate: how many agents, for shards named `<shard>0000` and so on.
    #[arg(long, requires = "simulate", value_name = "COUNT", default_value_t = 1)]
    agents: usize,
}

impl Settings {
    fn load(&self) -> anyhow::Result<Loaded<AgentConfig>> {
        let mut loader = Loader::new();
        for file in &self.config {
            loader = loader.file(file);
        }
        for assignment in &self.set {
            loader = loader.assignment(assignment)?;
        }
        if let Some(shard) = &self.shard {
            loader = loader.flag("shard", shard, "--shard");
        }
        if !self.router.is_empty() {
            loader = loader.flag("router.endpoints", self.router.join(","), "--router");
        }
        if let Some(listen) = &self.listen {
            loader = loader.flag("server.listen", listen, "--listen");
        }
        if self.insecure {
            loader = loader.flag("server.insecure", true, "--insecure");
        }
        Ok(loader.load()?)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tls::install_crypto_provider();
    match execute(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let loaded = arguments.settings.load()?;
    if arguments.settings.show_config {
        print!("{}", loaded.render(true));
        return Ok(ExitCode::SUCCESS);
    }
    match arguments.command {
        Some(Command::Probe { output, listen_seconds }) => {
            look(&loaded.value, output, Duration::from_secs(listen_seconds)).await
        }
        Some(Command::Fence(command)) => fence(&loaded.value, command).await,
        Some(Command::Sync(sync)) => {
            let listens = arguments.settings.listen.is_some();
            sync::sync(loaded.value, sync, listens).await
        }
        Some(Command::Run(run)) => stay(loaded.value, run).await,
        None => stay(loaded.value, arguments.run).await,
    }
}

async fn look(config: &AgentConfig, output: Output, listen: Duration) -> anyhow::Result<ExitCode> {
    let summary = probe_once(config, listen).await?;
    match output {
        Output::Table => print!("{summary}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&summary)?),
    }
    let healthy = summary.is_healthy();
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(NOT_HEALTHY) })
}

async fn fence(config: &AgentConfig, command: FenceCommand) -> anyhow::Result<ExitCode> {
    match command {
        FenceCommand::Status { output } => {
            let status = fence_command::status(config).await?;
            match output {
                Output::Table => print!("{}", fence_command::table(&status)),
                Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
            }
            let works = status.works();
            return Ok(if works { ExitCode::SUCCESS } else { ExitCode::from(NOT_HEALTHY) });
        }
        FenceCommand::Install { grant_to } => {
            println!("{}", fence_command::install(config, grant_to.as_deref()).await?);
        }
        FenceCommand::Remove { force } => {
            println!("{}", fence_command::remove(config, force).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn stay(config: AgentConfig, arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::init(&config.telemetry, "agent")?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("cannot listen for signals")?;
    let listener = Some(server::bind(&config.server).await?);
    let ended = if arguments.simulate {
        let simulation = Simulation {
            router: config.router.clone(),
            agents: arguments.agents,
            interval: config.report.interval,
            ..Simulation::default()
        };
        let simulation = if config.shard.is_empty() {
            simulation
        } else {
            Simulation { shard_prefix: config.shard.clone(), ..simulation }
        };
        run_simulated(config, simulation, listener, shutdown).await
    } else {
        run(config, listener, shutdown).await
    };
    telemetry.flush().await;
    ended?;
    Ok(ExitCode::SUCCESS)
}
