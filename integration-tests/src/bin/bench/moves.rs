//! Moving a namespace's rows between two metadata databases of Airflow 3.3.2, beside
//! `pg_dump | psql` of the same tables.
//!
//! Both ends and both ways are on one server of this machine, so reader, writer and server share
//! its cores. Each round starts with a target that is empty. The move checks every row and reads
//! back what it wrote, inside the same time; the peer does not.

use std::{
    path::PathBuf,
    process::Stdio,
    str::FromStr as _,
    sync::Arc,
    time::{Duration, Instant},
};

use airfleet_domain::{
    ids::{Generation, Revision},
    moves::{History, Part, Seen},
    roles::Role,
};
use airfleet_integration_tests::bench::report::{Figure, Goal, Report};
use airfleet_local::{AirflowShard, Postgres};
use airfleet_runtime::config::ConnectionUrl;
use airfleet_shard_agent::airflow::{
    fence::{
        self,
        gate::{self, Order, Place},
    },
    metadata::Metadata,
};
use airfleet_transfer::{
    Ahead, Catalog, Database, Export, ExportOptions, Import, ImportOrder, Installed, Opened, Piece,
    Scope,
};
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;

use crate::{
    progress,
    rig::{median, memory_mb},
};

const FILL: &str = include_str!("../../../../shared/transfer/tests/sql/rows.sql");
const PREFIX: &str = "pay__";
/// DAGs, runs of each, task instances of each run.
const SIZE: [u32; 3] = [10, 1_000, 10];
const ROUNDS: usize = 3;
const TIMEOUT: Duration = Duration::from_mins(5);

/// Where the process that copies finds its ends: URLs hold a password, which arguments would show.
const ENDS: [&str; 2] = ["AIRFLEET_BENCH_SOURCE", "AIRFLEET_BENCH_TARGET"];

/// What a process that copied prints.
#[derive(Debug, Serialize, Deserialize)]
struct Copied {
    seconds: f64,
    /// Of these, under seal.
    sealed_seconds: f64,
    /// Ahead, and under seal.
    installing_seconds: [f64; 2],
    task_instances: i64,
    rows: i64,
    bytes: [i64; 2],
    memory_mb: f64,
}

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    let shard = AirflowShard::builder("moves").database_only().boot().await?;
    let postgres = shard.postgres().context("moves are measured on PostgreSQL; install it")?;
    let migrated = shard.metadata_url().rsplit('/').next().context("no database")?.to_owned();
    let begun = Instant::now();
    let source = end(postgres, &migrated, "source", Role::Sealed).await?;
    let [dags, runs, tasks] = SIZE;
    let fill = FILL
        .replace("PREFIX", PREFIX)
        .replace("SALT", PREFIX)
        .replace("DAGS", &dags.to_string())
        .replace("RUNS", &runs.to_string())
        .replace("TASKS", &tasks.to_string());
    postgres.query("source", &fill).await?;
    postgres.query("source", "VACUUM ANALYZE").await?;
    progress(&format!("rows filled in {:.0?}", begun.elapsed()));

    let (mut ours, mut theirs, mut memory) = (Vec::new(), Vec::new(), 0.0_f64);
    let mut sealed = Vec::new();
    let mut rows = 0;
    for round in 0..ROUNDS {
        let name = format!("ours_{round}");
        let target = end(postgres, &migrated, &name, Role::Staged).await?;
        let assets = "INSERT INTO asset (name, uri, \"group\", extra, created_at, updated_at) \
             SELECT 'pay__asset' || n, 's3://pay__/' || n, 'asset', '{}', now(), now() \
             FROM generate_series(1, 3) n";
        postgres.query(&name, assets).await?;
        let found = copied(&source, &target).await?;
        ensure!(found.task_instances == 100_000, "{found:?}");
        progress(&format!("{found:?}"));
        rows = found.rows;
        ours.push(found.seconds);
        sealed.push(found.sealed_seconds);
        memory = memory.max(found.memory_mb);

        let name = format!("theirs_{round}");
        let target = end(postgres, &migrated, &name, Role::Staged).await?;
        let catalog = Catalog::read(&database(&source)?).await?;
        let tables: Vec<&str> = catalog.tables().chain(["asset"]).collect();
        theirs.push(dumped(&source, &target, &tables).await?);
        let there = postgres.query(&name, "SELECT count(*) FROM task_instance").await?;
        ensure!(there == "100000", "the peer copied {there} task instances");
        for name in [format!("ours_{round}"), name] {
            postgres.query("postgres", &format!("DROP DATABASE {name} WITH (FORCE)")).await?;
        }
    }
    let speed = |seconds: Vec<f64>| rows as f64 / median(seconds);
    report.add(Figure::beside(
        "move_copy.rows_per_second",
        speed(ours),
        "1/s",
        ("pg_dump | psql", speed(theirs)),
        Goal::AtLeast(0.5),
    ))?;
    report.add(Figure::alone("move_copy.under_seal", median(sealed), "s", Goal::None))?;
    report.add(Figure::alone("move_copy.peak_memory", memory, "MB", Goal::AtMost(64.0)))?;
    shard.stop().await;
    Ok(())
}

/// A migrated database, fenced for the namespace; its URL.
async fn end(postgres: &Postgres, migrated: &str, name: &str, role: Role) -> Result<String> {
    let make = format!("CREATE DATABASE {name} TEMPLATE \"{migrated}\"");
    postgres.query("postgres", &make).await?;
    let url = postgres.url(name);
    let metadata = Metadata::new(&ConnectionUrl::new(url.clone())?, TIMEOUT)?;
    fence::install(&metadata, None).await?;
    let mut tx = metadata.begin().await?;
    let prefixes = [PREFIX.to_owned()];
    let place = Place { generation: 1, revision: 1 };
    gate::close(&mut tx, Order { namespace: "payments", prefixes: &prefixes, role, place }).await?;
    tx.commit().await?;
    Ok(url)
}

fn database(url: &str) -> Result<Database> {
    Ok(Database::new(PgConnectOptions::from_str(url)?))
}

/// Copies in a process that does nothing else.
async fn copied(source: &str, target: &str) -> Result<Copied> {
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .arg("measure-copy")
        .envs(ENDS.into_iter().zip([source, target]))
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The process that copies: both ends, as two agents would be, with nothing between them. What has
/// ended goes ahead, the rest as under seal.
pub(crate) async fn measure_and_print() -> Result<()> {
    let [source, target] = ENDS.map(std::env::var);
    let (source, target) = (database(&source?)?, database(&target?)?);
    let scope = Scope::new("payments".parse()?, vec![PREFIX.to_owned()])?;
    let begun = Instant::now();
    let ahead = transfer((&source, &target), &scope, Part::Ahead, None).await?;
    let sealed = Instant::now();
    let rest = transfer((&source, &target), &scope, Part::Rest, ahead.ahead).await?;
    let count = |table: &str| rest.installed.tables.iter().find(|sum| &*sum.table == table);
    let copied = Copied {
        seconds: begun.elapsed().as_secs_f64(),
        sealed_seconds: sealed.elapsed().as_secs_f64(),
        installing_seconds: [ahead.installing_seconds, rest.installing_seconds],
        task_instances: count("task_instance").map_or(0, |sum| sum.rows),
        rows: rest.installed.tables.iter().map(|sum| sum.rows).sum(),
        bytes: [ahead.bytes, rest.bytes],
        memory_mb: memory_mb(std::process::id(), "VmHWM")?,
    };
    println!("{}", serde_json::to_string(&copied)?);
    Ok(())
}

/// A part that was transferred.
struct Transferred {
    installed: Installed,
    ahead: Option<Ahead>,
    installing_seconds: f64,
    bytes: i64,
}

async fn transfer(
    (source, target): (&Database, &Database),
    scope: &Scope,
    part: Part,
    ahead: Option<Ahead>,
) -> Result<Transferred> {
    let catalog = Catalog::read(target).await?;
    let order = ImportOrder {
        move_id: "bench".parse()?,
        part,
        attempt: 1,
        place: Seen { generation: Generation(1), revision: Revision(1) },
    };
    let ahead = ahead.map(Arc::new);
    let options = ExportOptions { part, history: History::Full, kept: None, ahead };
    let Opened::Import(mut import) = Import::open(target, &catalog, scope, order).await? else {
        bail!("it was done before");
    };
    let mut export = Export::begin(source, &Catalog::read(source).await?, scope, options).await?;
    while let Some(piece) = export.next().await? {
        let Piece::Trailer(trailer) = piece else {
            import.take(piece).await?;
            continue;
        };
        let bytes = import.bytes();
        let installing = Instant::now();
        let installed = import.install(trailer).await?;
        let installing_seconds = installing.elapsed().as_secs_f64();
        return Ok(Transferred { installed, ahead: export.ahead(), installing_seconds, bytes });
    }
    bail!("rows without a trailer")
}

/// Seconds that the peer takes.
async fn dumped(source: &str, target: &str, tables: &[&str]) -> Result<f64> {
    let bin = programs()?;
    let begun = Instant::now();
    let mut dump = tokio::process::Command::new(bin.join("pg_dump"))
        .args(["--data-only", "--dbname", source])
        .args(tables.iter().map(|table| format!("--table=public.{table}")))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let rows: Stdio = dump.stdout.take().context("it has no output")?.try_into()?;
    let load = tokio::process::Command::new(bin.join("psql"))
        .args(["-X", "-q", "--single-transaction", "-v", "ON_ERROR_STOP=1", "--dbname", target])
        .stdin(rows)
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    ensure!(dump.wait().await?.success(), "pg_dump failed");
    Ok(begun.elapsed().as_secs_f64())
}

/// Where PostgreSQL's own programs are: the newest release of Debian's packages, else in `PATH`.
fn programs() -> Result<PathBuf> {
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = packaged.map(|entry| entry.path().join("bin")).collect();
    found.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    found.retain(|folder| folder.join("pg_dump").is_file() && folder.join("psql").is_file());
    found.into_iter().next().context("pg_dump is not installed")
}
