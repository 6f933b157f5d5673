//! `airfleet-router`: one replica of the router.

use std::{path::PathBuf, process::ExitCode};

use airfleet_router::Config;
use airfleet_runtime::{
    config::{Loaded, Loader},
    lifecycle::Shutdown,
    server, telemetry, tls,
};
use anyhow::Context as _;
use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  Try it out, with SQLite in the current folder and a registry on this machine:
    airfleet-router --set registry.endpoints=http://127.0.0.1:7401

  One of several replicas on PostgreSQL, configured by file:
    airfleet-router --config /etc/airfleet/router.toml

  The same by environment:
    AIRFLEET__STORE__URL=postgres://airfleet@db/airfleet airfleet-router

  Show every setting, its value and where it comes from:
    airfleet-router --config /etc/airfleet/router.toml --show-config";

/// Decides and remembers which Airflow shard owns which namespace, resolves dag_ids, and talks to
/// the shards' agents.
#[derive(Debug, Parser)]
#[command(name = "airfleet-router", version, after_help = EXAMPLES)]
struct Arguments {
    /// TOML file of settings. May be given several times; later ones win.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Sets one setting, as key=value. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Listen beyond loopback although traffic is not encrypted or callers are not known.
    #[arg(long)]
    insecure: bool,
    /// Print the settings and where each comes from, and exit.
    #[arg(long)]
    show_config: bool,
}

fn load(arguments: &Arguments) -> anyhow::Result<Loaded<Config>> {
    let mut loader = Loader::new();
    for path in &arguments.config {
        loader = loader.file(path);
    }
    for assignment in &arguments.assignments {
        loader = loader.assignment(assignment)?;
    }
    if let Some(listen) = &arguments.listen {
        loader = loader.flag("server.listen", listen, "--listen");
    }
    if arguments.insecure {
        loader = loader.flag("server.insecure", true, "--insecure");
    }
    Ok(loader.load()?)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let telemetry = telemetry::init(&config.telemetry, "airfleet-router")
        .context("telemetry cannot be set up")?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("signals cannot be listened to")?;
    let listener = server::bind(&config.server).await?;
    let served = airfleet_router::run(config, listener, shutdown).await;
    telemetry.flush().await;
    Ok(served?)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tls::install_crypto_provider();
    let outcome = load(&arguments).and_then(|loaded| {
        if arguments.show_config {
            print!("{}", loaded.render(true));
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("the runtime cannot be started")?;
        runtime.block_on(serve(loaded.value))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("airfleet-router: {error:#}");
            ExitCode::FAILURE
        }
    }
}
