//! The registry's program: settings, telemetry, signals.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use airfleet_registry::Config;
use airfleet_runtime::config::Loader;
use airfleet_runtime::lifecycle::Shutdown;
use airfleet_runtime::{server, telemetry, tls};
use anyhow::Context as _;
use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  airfleet-registry
      Serves on 127.0.0.1:7401 and keeps the manifest in airfleet-registry.db.
  airfleet-registry --store postgres://airfleet@db/airfleet --router http://127.0.0.1:7402
  airfleet-registry --config /etc/airfleet/registry.toml --set watch.history=200000
  AIRFLEET__STORE__URL=sqlite:/var/lib/airfleet/registry.db airfleet-registry

Settings are taken from the file, then the environment (AIRFLEET__SECTION__KEY), then flags.";

/// Keeps the manifest of namespaces and shards of an Airfleet.
#[derive(Debug, Parser)]
#[command(name = "airfleet-registry", version, about, after_help = EXAMPLES)]
struct Args {
    /// TOML file of settings. May be given several times; later ones win.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where to keep the manifest: sqlite:<file> or postgres://user:password@host/database.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// URL of a router, which is asked before something is deleted. May be given several times.
    #[arg(long, value_name = "URL")]
    router: Vec<String>,
    /// Listen beyond loopback although traffic is not encrypted or callers are not known.
    #[arg(long)]
    insecure: bool,
    /// Sets any key, such as server.limits.max_streams=100.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Args {
    fn load(&self) -> anyhow::Result<Config> {
        let mut loader = self.config.iter().fold(Loader::new(), Loader::file);
        if let Some(listen) = self.listen {
            loader = loader.flag("server.listen", listen, "--listen");
        }
        if let Some(store) = &self.store {
            loader = loader.flag("store.url", store, "--store");
        }
        if !self.router.is_empty() {
            loader = loader.flag("router.endpoints", self.router.join(","), "--router");
        }
        if self.insecure {
            loader = loader.flag("server.insecure", true, "--insecure");
        }
        for assignment in &self.set {
            loader = loader.assignment(assignment)?;
        }
        Ok(loader.load::<Config>()?.value)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("airfleet-registry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    tls::install_crypto_provider();
    let config = args.load()?;
    let telemetry = telemetry::init(&config.telemetry, "registry")?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("cannot listen for signals")?;
    let result = async {
        let listener = server::bind(&config.server).await?;
        airfleet_registry::run(config, listener, shutdown).await
    };
    let result = result.await;
    telemetry.flush().await;
    Ok(result?)
}
