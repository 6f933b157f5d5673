//! `airfleet dev`: registry, router, agents and local Airflow shards in one process.
//!
//! Everything lives in one folder, which one process holds at a time. Services run as they run
//! elsewhere, on listeners that are handed in; shards are real ones. Invariant: nothing that was
//! started outlives this process, also when it is killed (the shards' guardians see to that), and
//! what the services stored is there at the next start.

mod folder;
mod logs;
mod page;
mod plane;
mod shards;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use airfleet_domain::manifest::Size;
use airfleet_runtime::lifecycle::Shutdown;
use clap::ValueHint;
use tokio::{net::TcpListener, time::Instant};

use self::{
    folder::{Folder, Held},
    page::{Page, Steps},
    plane::{Addresses, Plane},
    shards::Shards,
};
use crate::{
    client,
    config::{Config, REGISTRY_PORT, ROUTER_PORT},
    error::{Error, Exit, Result},
    screen::Screen,
};

/// Most shards: each takes about a gigabyte of memory.
const SHARDS_MAX: u8 = 16;

/// Arguments of `dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  airfleet dev                       two Airflow shards
  airfleet dev --shards 0            the control plane alone; shards that are applied count as healthy
  airfleet dev --clean               forget all that an earlier run left
  airfleet dev --dir /tmp/fleet --registry-port 0 --router-port 0 --ready-file ready.json

Other commands find it by the file .airfleet/config.toml, which it writes for as long as it runs.
Ctrl-C stops all of it in good order, a second one at once.")]
pub struct Args {
    /// Airflow shards to run, at most 16; each takes about 1 GB of memory
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u8).range(..=i64::from(SHARDS_MAX)))]
    shards: u8,
    /// Capacity class that the shards are registered with
    #[arg(long, value_name = "SIZE", default_value = "large", value_parser = size)]
    size: Size,
    /// Folder for databases, shards and logs
    #[arg(long, value_name = "DIR", default_value = ".airfleet", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Port of the registry; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = REGISTRY_PORT)]
    registry_port: u16,
    /// Port of the router; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = ROUTER_PORT)]
    router_port: u16,
    /// Folder below which sources of DAG files may lie, beside the one that this is started in. May
    /// be given several times
    #[arg(long = "sources", value_name = "DIR", value_hint = ValueHint::DirPath)]
    source_folders: Vec<PathBuf>,
    /// The Python package of guardrails, to install into the shards; deploy/airflow of a checkout is
    /// found by itself
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    guardrails: Option<PathBuf>,
    /// Start over: remove what earlier runs left in the folder
    #[arg(long)]
    clean: bool,
    /// Write a JSON file with all addresses once everything is up; it is removed at the end
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ready_file: Option<PathBuf>,
    /// Show what the services log; without it, only warnings
    #[arg(short, long)]
    verbose: bool,
}

fn size(text: &str) -> Result<Size, String> {
    Size::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Size::ALL.iter().map(|(_, name)| *name).collect();
        format!("use one of {}", names.join(", "))
    })
}

/// The package of guardrails: as told, or that of the checkout that this is started in.
fn guardrails(args: &Args) -> Result<Option<PathBuf>> {
    let found = Path::new("deploy/airflow");
    let Some(given) = &args.guardrails else {
        return Ok(found.join("pyproject.toml").is_file().then(|| found.to_owned()));
    };
    if given.join("pyproject.toml").is_file() {
        return Ok(Some(given.clone()));
    }
    let what = format!("{} is no Python package; give the folder deploy/airflow", given.display());
    Err(Error::new(what))
}

/// Where sources may lie: what this machine's own user starts may read what he may.
fn source_folders(args: &Args) -> Result<Vec<PathBuf>> {
    let here = std::env::current_dir()
        .map_err(|error| Error::caused("cannot find the current folder", &error))?;
    let mut folders = vec![here];
    for folder in &args.source_folders {
        let found = std::fs::canonicalize(folder);
        let what = || format!("cannot deliver from {}", folder.display());
        folders.push(found.map_err(|error| Error::caused(what(), &error))?);
    }
    Ok(folders)
}

/// Does it.
pub async fn run(screen: &mut Screen, args: Args) -> Result<Exit> {
    let started = Instant::now();
    let folder = Folder::take(&args.dir)?;
    if args.clean {
        folder.clean().await?;
    }
    logs::start(&folder.log_file(), args.verbose, screen.paint_errors().is_colored())?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().map_err(|error| Error::caused("cannot listen for signals", &error))?;
    let steps = Steps::new(started, screen.paint_errors());

    let registry = bind("registry", args.registry_port).await?;
    let router = bind("router", args.router_port).await?;
    let mut plane = Plane::start(&folder, registry, router, args.shards == 0, &shutdown)?;
    let addresses = plane.addresses();
    folder.hold(&Held::now(&addresses))?;
    let mut shards = Shards::none();
    let result = tokio::select! {
        // First: services that end because they were asked to end well.
        biased;
        () = shutdown.triggered() => Ok(()),
        result = serve(screen, &args, &folder, &addresses, &mut shards, &steps, &shutdown) => result,
        ended = plane.ended() => Err(ended),
    };
    folder.withdraw(args.ready_file.as_deref());
    steps.note("stopping; press Ctrl-C again to stop at once");
    shutdown.trigger();
    let stopped = tokio::select! {
        stopped = stop(&mut plane, &mut shards) => stopped,
        () = shutdown.forced() => {
            // What is dropped is killed.
            drop(shards);
            Err(Error::new("stopped at once, as asked by a second signal"))
        }
    };
    result?;
    stopped?;
    steps.note(&format!("stopped; what was registered stays in {}", folder.path().display()));
    Ok(Exit::Ok)
}

/// Brings everything up, tells how to use it, and waits until it is to stop.
async fn serve(
    screen: &mut Screen,
    args: &Args,
    folder: &Folder,
    plane: &Addresses,
    shards: &mut Shards,
    steps: &Steps,
    shutdown: &Shutdown,
) -> Result<()> {
    let config = Config::plain(&plane.registry_url(), &plane.router_url());
    let registry = client::registry(&config.registry(), Duration::from_secs(10))?;
    let router = client::router(&config.router(), Duration::from_secs(10))?;
    plane::ready(&registry, &router, steps, plane).await?;
    shards.declare(&registry, args.shards, args.size, steps).await?;
    folder.publish(&config)?;
    shards.boot(folder, guardrails(args)?, steps).await?;
    let sources = source_folders(args)?;
    shards.attach(folder, &registry, plane, &sources, steps, shutdown).await?;
    shards.healthy(&router, steps).await?;
    let page = Page::new(folder, plane, shards);
    if let Some(file) = &args.ready_file {
        page.write(file)?;
    }
    screen.print(&page.text(screen.paint()))?;
    screen.flush()?;
    shards.ended().await
}

async fn stop(plane: &mut Plane, shards: &mut Shards) -> Result<()> {
    // Agents before the router, so that it does not take them for lost; shards beside both.
    let (plane, ()) = tokio::join!(plane.stopped(), shards.stop());
    plane
}

async fn bind(service: &str, port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        let flag = format!("--{service}-port");
        Error::caused(format!("the {service} cannot listen on 127.0.0.1:{port}"), &error)
            .hint(format!("stop what listens there, or give {flag} 0 to take any free port"))
    })
}
