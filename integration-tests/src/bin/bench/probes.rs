//! What an agent costs a large metadata database of Airflow, and what it takes itself.
//!
//! The database is one that Airflow 3.3.2 migrated, with 2,000 DAGs, 200,000 runs and 1,000,000
//! task instances up to now. Times are those of the agent's own probes, with the way to the server
//! and back; what is read now and then counts for the reports in between.

use std::time::{Duration, Instant};

use airfleet_integration_tests::{
    bench::report::{Figure, Goal, Report},
    eventually,
    process::binary,
};
use airfleet_local::{AirflowShard, AirflowVersion, Port, Spec};
use airfleet_runtime::config::ConnectionUrl;
use airfleet_shard_agent::{AgentConfig, airflow::Reader};
use anyhow::{Context as _, Result, ensure};

use crate::{
    progress,
    rig::{Rig, cpu_time, median, memory_mb},
};

const FILL: &str = include_str!("../../../../services/shard-agent/tests/sql/large-3.3.sql");
const ROUNDS: usize = 10;
const TIMEOUT: Duration = Duration::from_mins(1);
/// How long the agent runs. It looks far more often than by default meanwhile.
const SPAN: Duration = Duration::from_secs(30);

pub(crate) async fn run(rig: &Rig, report: &mut Report) -> Result<()> {
    let shard = AirflowShard::builder("large")
        .version(AirflowVersion::V3_3_2)
        .database_only()
        .boot()
        .await?;
    let begun = Instant::now();
    let database = shard.metadata_url();
    let name = database.rsplit('/').next().context("the URL names a database")?;
    let postgres = shard.postgres().context("probes are measured on PostgreSQL; install it")?;
    postgres.query(name, FILL).await?;
    let rows = postgres.query(name, "SELECT count(*) FROM task_instance").await?;
    ensure!(rows == "1000000", "{rows} task instances");
    progress(&format!("a million task instances in {:.0?}", begun.elapsed()));

    report.add(database_time(&database).await?)?;
    agent(rig, &database, report).await?;
    shard.stop().await;
    Ok(())
}

/// Milliseconds per report, each part at its median.
async fn database_time(database: &str) -> Result<Figure> {
    let settings = AgentConfig::default();
    let file_interval = settings.airflow.file_process_interval;
    let mut reader = Reader::new(&ConnectionUrl::new(database)?, TIMEOUT)?;
    let (mut pulse, mut activity, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms the server's caches.
    for number in 0..=ROUNDS {
        let mut lap = Instant::now();
        let mut took = || {
            let millis = lap.elapsed().as_secs_f64() * 1e3;
            lap = Instant::now();
            millis
        };
        let seen = reader.pulse().await?;
        let of_pulse = took();
        ensure!(seen.dags.len() == 2_000, "{} DAGs", seen.dags.len());
        reader.activity(file_interval).await?;
        let of_activity = took();
        reader.sizes().await?;
        let of_sizes = took();
        if number > 0 {
            pulse.push(of_pulse);
            activity.push(of_activity);
            sizes.push(of_sizes);
        }
    }
    let (pulse, activity, sizes) = (median(pulse), median(activity), median(sizes));
    progress(&format!(
        "pulse {pulse:.1} ms, activity {activity:.1} ms, sizes {sizes:.1} ms at their medians"
    ));
    let share = |every: Duration| settings.report.interval.div_duration_f64(every);
    let per_report = pulse
        + activity * share(settings.airflow.activity_interval)
        + sizes * share(settings.airflow.size_interval);
    Ok(Figure::alone("probes.database_time_per_report", per_report, "ms", Goal::AtMost(100.0)))
}

/// The agent's process, looking as often as it can be told to sensibly.
async fn agent(rig: &Rig, database: &str, report: &mut Report) -> Result<()> {
    let router = rig.serving(crate::agents::NAMESPACES).await?;
    let port = Port::claim()?;
    let spec = Spec::new("agent", binary("airfleet-agent")?)
        .args(["--shard", "sim-0000", "--router", &router.url()])
        .args(["--set", &format!("airflow.metadata_url={database}")])
        .args(["--set", "airflow.activity_interval=5s", "--set", "airflow.size_interval=10s"])
        .args(["--set", &format!("server.listen=127.0.0.1:{}", port.number())]);
    let agent = rig.sandbox.spawn(&spec)?;
    let ready = format!("http://127.0.0.1:{}/readyz", port.number());
    eventually(TIMEOUT, async || {
        let answer = reqwest::get(&ready).await?;
        ensure!(answer.status().is_success(), "{}: {}", answer.status(), agent.output());
        Ok(())
    })
    .await?;
    let before = cpu_time(agent.pid())?;
    tokio::time::sleep(SPAN).await;
    ensure!(agent.is_running(), "the agent ended: {}", agent.output());
    let cores = cpu_time(agent.pid())?.saturating_sub(before).div_duration_f64(SPAN);
    let peak = memory_mb(agent.pid(), "VmHWM")?;
    report.add(Figure::alone("probes.agent_memory_peak", peak, "MB", Goal::AtMost(40.0)))?;
    report.add(Figure::alone("probes.agent_cpu", cores, "cores", Goal::None))?;
    Ok(())
}
