//! `airfleet-agent sync`: DAG files brought into a folder, once or as long as it runs, without a
//! router. For the nodes of a cluster, whose Airflow processes read a copy of their own, and for
//! people who want to see what would be delivered.
//!
//! Namespaces do not wait for each other: one whose source hangs, or is refused, costs nobody else
//! anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use airfleet_delivery::{Error, Roller, Synced};
use airfleet_domain::{
    ids::NamespaceName,
    manifest::{self, Entry, Source},
};
use airfleet_runtime::{health::Condition, lifecycle::Shutdown, node::Node, server::Server};
use airfleet_shard_agent::{AgentConfig, DeliveryMetrics};
use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use rand::Rng as _;
use tokio::{task::JoinSet, time::sleep_until};

/// Exit code where some namespaces were not delivered.
const NOT_DELIVERED: u8 = 2;
/// Longest time until a namespace that fails is tried again, in intervals.
const BACKOFF_MAX: u32 = 8;

pub(crate) const EXAMPLES: &str = "\
Examples:
  # What a node's init container does: all files there before Airflow starts
  airfleet-agent sync --once --dags-folder /opt/airflow/dags \\
    --from-manifest /etc/airfleet/namespaces.yaml

  # And its sidecar or DaemonSet: followed as long as it runs
  airfleet-agent sync --watch --interval 10s --dags-folder /opt/airflow/dags \\
    --namespace 'payments=git+https://git.example.net/dags.git@main#teams/payments' \\
    --namespace risk=s3://dags/risk

  # On call: back to the release before, and held there until the source moves on
  airfleet-agent sync --dags-folder /opt/airflow/dags --list
  airfleet-agent sync --dags-folder /opt/airflow/dags --rollback payments=3f2a9c1b2d4e

Exit codes: 0 all delivered, 1 error, 2 some namespaces were not delivered and keep what they have.";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    mode: Mode,
    /// A namespace and its source: NAME=URI, with @REF and #FOLDER behind the URI where it is a git
    /// repository. May be given several times.
    #[arg(short, long, value_name = "NAME=URI[@REF][#FOLDER]", value_parser = Target::parse)]
    namespace: Vec<Target>,
    /// Manifest of which the namespaces that have a source are delivered: a YAML or JSON file. May
    /// be given several times. With --watch it is read again at every interval.
    #[arg(long, value_name = "FILE")]
    from_manifest: Vec<PathBuf>,
    /// The folder that Airflow reads (core.dags_folder) [setting: delivery.dags_folder].
    #[arg(long, value_name = "FOLDER")]
    dags_folder: Option<PathBuf>,
    /// With --watch: how often sources are asked [setting: delivery.interval].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    interval: Option<Duration>,
    /// Take away the DAG files of namespaces that are not named any more.
    #[arg(long)]
    prune: bool,
    /// How to print what happens.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Mode {
    /// Deliver once, and exit.
    #[arg(long)]
    once: bool,
    /// Deliver whenever a source changes, until stopped.
    #[arg(long)]
    watch: bool,
    /// Print the releases that are here, and exit.
    #[arg(long)]
    list: bool,
    /// Show an earlier release, and hold it until the source holds another one than now.
    #[arg(long, value_name = "NAME=RELEASE", value_parser = parse_rollback)]
    rollback: Option<(NamespaceName, String)>,
    /// Let the source lead again at once after --rollback.
    #[arg(long, value_name = "NAME")]
    follow: Option<NamespaceName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line for each change, for people.
    Text,
    /// A JSON object for each sync, one a line.
    Json,
}

/// A namespace and where its files come from.
#[derive(Debug, Clone, PartialEq)]
struct Target {
    namespace: NamespaceName,
    source: Source,
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, uri) = text.split_once('=').ok_or("write NAME=URI")?;
        let namespace = name.parse().map_err(|error| format!("{name:?}: {error}"))?;
        let mut source = Source { uri: uri.to_owned(), ..Source::default() };
        if uri.starts_with("git+") {
            if let Some((rest, folder)) = uri.split_once('#') {
                (source.uri, source.path) = (rest.to_owned(), folder.to_owned());
            }
            // Behind the host only: git+ssh://git@host/x.git has a user.
            let path = source.uri.find("://").map_or(0, |at| at + 3);
            let path = source.uri[path..].find('/').map_or(source.uri.len(), |at| path + at);
            if let Some(at) = source.uri[path..].find('@') {
                source.reference = source.uri[path + at + 1..].to_owned();
                source.uri.truncate(path + at);
            }
        }
        Ok(Self { namespace, source })
    }
}

fn parse_rollback(text: &str) -> Result<(NamespaceName, String), String> {
    let (name, release) = text.split_once('=').ok_or("write NAME=RELEASE")?;
    let namespace = name.parse().map_err(|error| format!("{name:?}: {error}"))?;
    Ok((namespace, release.to_owned()))
}

/// What is to be delivered, by namespace.
type Targets = BTreeMap<NamespaceName, Source>;

impl Arguments {
    async fn targets(&self) -> anyhow::Result<Targets> {
        let mut targets = Targets::new();
        let mut add = |namespace: NamespaceName, source: Source| {
            let other = targets.insert(namespace.clone(), source);
            ensure!(other.is_none(), "namespace {namespace} is named twice; leave one out");
            Ok(())
        };
        for target in &self.namespace {
            add(target.namespace.clone(), target.source.clone())?;
        }
        for file in &self.from_manifest {
            for entry in read_manifest(file).await? {
                if let Some(source) = entry.spec.source {
                    add(entry.metadata.name.parse()?, source)?;
                }
            }
        }
        Ok(targets)
    }
}

async fn read_manifest(file: &Path) -> anyhow::Result<Vec<manifest::Namespace>> {
    let shown = file.display();
    let text = tokio::fs::read_to_string(file)
        .await
        .with_context(|| format!("cannot read the manifest {shown}"))?;
    let located = manifest::parse(&text).map_err(|problems| {
        let lines: Vec<String> = problems
            .iter()
            .map(|p| format!("{shown}:{}:{}: {}", p.line, p.column, p.message))
            .collect();
        anyhow::anyhow!("the manifest cannot be read:\n{}", lines.join("\n"))
    })?;
    let mut namespaces = Vec::new();
    for entry in located {
        if let Entry::Namespace(namespace) = entry.entry {
            if let Some(violation) = namespace.validate().into_iter().next() {
                bail!("{shown}:{}: {}: {}", entry.line, violation.field, violation.message);
            }
            namespaces.push(namespace);
        }
    }
    Ok(namespaces)
}

/// The command.
pub(crate) async fn sync(
    mut config: AgentConfig,
    arguments: Arguments,
    listens: bool,
) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &arguments.dags_folder {
        config.delivery.dags_folder = Some(folder.clone());
    }
    if let Some(interval) = arguments.interval {
        config.delivery.interval = interval;
    }
    let folder = config.delivery.dags_folder.clone().context(
        "no folder to deliver to; set delivery.dags_folder (--dags-folder) to Airflow's \
         core.dags_folder",
    )?;
    let mut settings = config.delivery.settings();
    if config.delivery.source_folders.is_empty() && arguments.from_manifest.is_empty() {
        // Whoever names a folder on this command line can read it anyway.
        settings.source_folders = None;
    }
    let roller = Roller::new(folder, settings);
    let printer = Printer { output: arguments.output, quiet: arguments.mode.watch };
    if arguments.mode.list {
        return list(&roller, arguments.output).await;
    }
    if let Some((namespace, release)) = &arguments.mode.rollback {
        return roll_back(&roller, namespace, release, &printer).await;
    }
    if let Some(namespace) = &arguments.mode.follow {
        roller.follow(namespace).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let named = !arguments.namespace.is_empty() || !arguments.from_manifest.is_empty();
    ensure!(named, "nothing to deliver; name namespaces by --namespace or --from-manifest");
    if arguments.mode.once {
        return once(&roller, &arguments, &printer).await;
    }
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("cannot listen for signals")?;
    let node = Node::new("agent", shutdown);
    if listens {
        let listener = airfleet_runtime::server::bind(&config.server).await?;
        Server::new(&config.server, &node).serve(listener)?;
    }
    let watch = Watch {
        roller,
        metrics: DeliveryMetrics::new(&node.metrics),
        ready: node.readiness.condition("delivery"),
        interval: config.delivery.interval,
        printer,
        arguments,
        tracked: BTreeMap::new(),
    };
    let stop = node.shutdown().clone();
    node.tasks.spawn_critical("delivery", watch.run(stop));
    node.tasks.clone().run_until_stopped(config.server.drain_deadline).await?;
    Ok(ExitCode::SUCCESS)
}

async fn once(
    roller: &Roller,
    arguments: &Arguments,
    printer: &Printer,
) -> anyhow::Result<ExitCode> {
    let targets = arguments.targets().await?;
    let mut running = JoinSet::new();
    for (namespace, source) in targets.clone() {
        running.spawn(sync_one(roller.clone(), namespace, source));
    }
    let mut all = true;
    while let Some(done) = running.join_next().await {
        let done = done.context("a sync ended unexpectedly")?;
        all &= done.result.is_ok();
        printer.synced(&done);
    }
    if arguments.prune {
        prune(roller, &targets, printer).await?;
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(NOT_DELIVERED) })
}

/// Takes away what is delivered and not named.
async fn prune(roller: &Roller, targets: &Targets, printer: &Printer) -> anyhow::Result<()> {
    for namespace in roller.namespaces().await? {
        if !targets.contains_key(&namespace) {
            roller.remove(&namespace).await?;
            printer.removed(&namespace);
        }
    }
    Ok(())
}

/// A sync that ended.
struct Done {
    namespace: NamespaceName,
    took: Duration,
    result: Result<Synced, Error>,
}

async fn sync_one(roller: Roller, namespace: NamespaceName, source: Source) -> Done {
    let start = Instant::now();
    let result = roller.sync(&namespace, &source).await;
    Done { namespace, took: start.elapsed(), result }
}

/// Follows sources until it is stopped.
struct Watch {
    roller: Roller,
    metrics: DeliveryMetrics,
    ready: Condition,
    interval: Duration,
    printer: Printer,
    arguments: Arguments,
    tracked: BTreeMap<NamespaceName, Tracked>,
}

/// A namespace that is followed.
struct Tracked {
    source: Source,
    due: tokio::time::Instant,
    running: bool,
    failures: u32,
    /// Whether Airflow has files of it, of whatever age.
    delivered: bool,
}

impl Watch {
    async fn run(mut self, stop: Shutdown) -> anyhow::Result<()> {
        // A manifest that cannot be read at the start is a mistake; later, what was read holds.
        let targets = self.arguments.targets().await?;
        self.take(targets).await?;
        let mut running = JoinSet::new();
        let mut reload = tokio::time::Instant::now() + self.interval;
        loop {
            self.start_due(&mut running);
            self.tell_ready();
            let next = self.tracked.values().filter(|t| !t.running).map(|t| t.due).min();
            let next = next.map_or(reload, |due| due.min(reload));
            tokio::select! {
                () = stop.triggered() => break,
                Some(done) = running.join_next(), if !running.is_empty() => {
                    self.finish(&done.context("a sync ended unexpectedly")?);
                }
                () = sleep_until(next) => {}
            }
            if tokio::time::Instant::now() >= reload {
                reload = tokio::time::Instant::now() + self.interval;
                match self.arguments.targets().await {
                    Ok(targets) => self.take(targets).await?,
                    Err(error) => {
                        tracing::warn!("the manifest is not used: {error:#}; the last one holds");
                    }
                }
            }
        }
        // Each step leaves what can be gone on from; what is being fetched is not waited for.
        running.shutdown().await;
        Ok(())
    }

    async fn take(&mut self, targets: Targets) -> anyhow::Result<()> {
        self.tracked.retain(|namespace, _| targets.contains_key(namespace));
        for (namespace, source) in &targets {
            let now = tokio::time::Instant::now();
            match self.tracked.get_mut(namespace) {
                Some(tracked) if tracked.source == *source => {}
                Some(tracked) => {
                    tracked.source = source.clone();
                    tracked.due = now;
                }
                None => {
                    let delivered = matches!(self.roller.current(namespace).await, Ok(Some(_)));
                    let source = source.clone();
                    let fresh =
                        Tracked { source, due: now, running: false, failures: 0, delivered };
                    self.tracked.insert(namespace.clone(), fresh);
                }
            }
        }
        // A manifest without a namespace is a mistake more often than a wish.
        if self.arguments.prune && !targets.is_empty() {
            prune(&self.roller, &targets, &self.printer).await?;
        }
        Ok(())
    }

    fn start_due(&mut self, running: &mut JoinSet<Done>) {
        let now = tokio::time::Instant::now();
        for (namespace, tracked) in &mut self.tracked {
            if !tracked.running && tracked.due <= now {
                tracked.running = true;
                let (roller, source) = (self.roller.clone(), tracked.source.clone());
                running.spawn(sync_one(roller, namespace.clone(), source));
            }
        }
    }

    fn finish(&mut self, done: &Done) {
        self.metrics.synced(&done.result, done.took);
        self.printer.synced(done);
        let Some(tracked) = self.tracked.get_mut(&done.namespace) else { return };
        tracked.running = false;
        tracked.delivered |= done.result.is_ok();
        tracked.failures = if done.result.is_ok() { 0 } else { tracked.failures + 1 };
        let factor = 2u32.saturating_pow(tracked.failures.saturating_sub(1)).min(BACKOFF_MAX);
        // Nodes of a cluster start together and must not ask together for ever.
        let jitter = rand::rng().random_range(0.9..1.1);
        tracked.due = tokio::time::Instant::now() + (self.interval * factor).mul_f64(jitter);
        let behind = self.tracked.values().filter(|t| t.failures > 0).count();
        self.metrics.behind.set(behind as i64);
    }

    fn tell_ready(&self) {
        let missing: BTreeSet<&str> =
            self.tracked.iter().filter(|(_, t)| !t.delivered).map(|(n, _)| n.as_str()).collect();
        if missing.is_empty() {
            self.ready.met();
        } else {
            let names: Vec<&str> = missing.into_iter().take(5).collect();
            self.ready.unmet(format!("not delivered yet: {}", names.join(", ")));
        }
    }
}

async fn list(roller: &Roller, output: Output) -> anyhow::Result<ExitCode> {
    for namespace in roller.namespaces().await? {
        let current = roller.current(&namespace).await?;
        for release in roller.releases(&namespace).await? {
            let runs = current.as_ref().is_some_and(|current| current.id == release.id);
            if output == Output::Json {
                let mut value = serde_json::to_value(&release)?;
                value["current"] = runs.into();
                println!("{value}");
            } else {
                println!(
                    "{} {namespace}  {}  {}  {} files, {}",
                    if runs { "*" } else { " " },
                    release.id.short(),
                    release.fetched_at.strftime("%Y-%m-%d %H:%M:%SZ"),
                    release.files,
                    size(release.bytes),
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn roll_back(
    roller: &Roller,
    namespace: &NamespaceName,
    wanted: &str,
    printer: &Printer,
) -> anyhow::Result<ExitCode> {
    let releases = roller.releases(namespace).await?;
    let mut found = releases.iter().filter(|release| release.id.as_str().starts_with(wanted));
    let id = match (found.next(), found.next()) {
        (Some(release), None) => release.id.clone(),
        (Some(_), Some(_)) => bail!("several releases of {namespace} begin with {wanted:?}"),
        (None, _) => {
            let here: Vec<&str> = releases.iter().map(|release| release.id.short()).collect();
            bail!("{namespace} has no release {wanted:?} here; it has: {}", here.join(", "));
        }
    };
    let start = Instant::now();
    let result = Ok(roller.switch(namespace, &id).await?);
    printer.synced(&Done { namespace: namespace.clone(), took: start.elapsed(), result });
    Ok(ExitCode::SUCCESS)
}

/// Tells what happens on standard output.
struct Printer {
    output: Output,
    /// Leaves out what did not change.
    quiet: bool,
}

impl Printer {
    fn synced(&self, done: &Done) {
        match self.output {
            Output::Json => println!("{}", as_json(done)),
            Output::Text => {
                if let Some(line) = as_text(done, self.quiet) {
                    println!("{line}");
                }
            }
        }
    }

    fn removed(&self, namespace: &NamespaceName) {
        match self.output {
            Output::Json => {
                println!("{}", serde_json::json!({"namespace": namespace, "removed": true}));
            }
            Output::Text => println!("{namespace}  removed"),
        }
    }
}

fn as_json(done: &Done) -> serde_json::Value {
    let mut value = match &done.result {
        Ok(synced) => {
            let mut value = serde_json::to_value(synced).unwrap_or_default();
            value["ok"] = true.into();
            value
        }
        Err(error) => serde_json::json!({
            "ok": false,
            "code": error.code().as_str(),
            "message": chain(error),
        }),
    };
    value["namespace"] = done.namespace.as_str().into();
    value["seconds"] = ((done.took.as_secs_f64() * 1e3).round() / 1e3).into();
    value
}

fn as_text(done: &Done, quiet: bool) -> Option<String> {
    let name = &done.namespace;
    let synced = match &done.result {
        Ok(synced) => synced,
        Err(error) => return Some(format!("{name}  {}: {}", error.code(), chain(error))),
    };
    let release = synced.release.id.short();
    let repaired = synced.repaired;
    if synced.switched {
        let changes = &synced.changes;
        return Some(format!(
            "{name}  {release}  +{} ~{} -{}, {} fetched in {:.2} s{}",
            changes.added,
            changes.changed,
            changes.removed,
            size(synced.fetched_bytes),
            done.took.as_secs_f64(),
            if synced.held { ", held there" } else { "" },
        ));
    }
    if repaired > 0 {
        return Some(format!("{name}  {release}  {repaired} files had been changed; put right"));
    }
    let state =
        if synced.held { "held; its source's release was rolled back" } else { "unchanged" };
    (!quiet).then(|| format!("{name}  {release}  {state}"))
}

/// An error with its causes, in a line.
fn chain(error: &Error) -> String {
    let parts: Vec<String> = anyhow::Chain::new(error).map(ToString::to_string).collect();
    parts.join(": ")
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_written() {
        let parts = |text: &str| {
            let target = Target::parse(text).unwrap();
            let Source { uri, reference, path } = target.source;
            (target.namespace.to_string(), uri, reference, path)
        };
        let own = |a: &str, b: &str, c: &str, d: &str| {
            (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned())
        };
        for (text, expected) in [
            ("pay=/srv/x@y#z", own("pay", "/srv/x@y#z", "", "")),
            ("pay=s3://b/p", own("pay", "s3://b/p", "", "")),
            ("pay=git+https://h/r.git", own("pay", "git+https://h/r.git", "", "")),
            ("pay=git+https://h/r.git@a/b", own("pay", "git+https://h/r.git", "a/b", "")),
            ("pay=git+ssh://git@h/r.git", own("pay", "git+ssh://git@h/r.git", "", "")),
            ("pay=git+ssh://git@h/r@v1#d/e", own("pay", "git+ssh://git@h/r", "v1", "d/e")),
        ] {
            assert_eq!(parts(text), expected, "{text}");
        }
        assert!(Target::parse("nothing").is_err());
        assert!(Target::parse("No=/x").is_err());
    }

    #[test]
    fn sizes_are_told_for_people() {
        assert_eq!([size(7), size(1536), size(3 << 30)], ["7 B", "1.5 KiB", "3.0 GiB"]);
    }
}
