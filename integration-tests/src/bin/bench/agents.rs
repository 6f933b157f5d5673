//! What two thousand agents cost the router that they report to.

use std::time::{Duration, Instant};

use airfleet_integration_tests::{
    bench::report::{Figure, Goal, Report},
    eventually,
    process::binary,
};
use airfleet_local::{Port, Spec};
use anyhow::{Context as _, Result, ensure};

use crate::{
    progress,
    rig::{Rig, SHARDS, cpu_time, memory_mb, status},
};

/// Fifty to a shard.
pub(crate) const NAMESPACES: u64 = 100_000;
const SPAN: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_mins(1);

pub(crate) async fn run(rig: &Rig, report: &mut Report) -> Result<()> {
    let router = rig.serving(NAMESPACES).await?;
    let port = Port::claim()?;
    let agents = Spec::new("agents", binary("airfleet-agent")?)
        .args(["--simulate", "--agents", &SHARDS.to_string(), "--shard", "sim-"])
        .args(["--router", &router.url()])
        .args(["--set", &format!("server.listen=127.0.0.1:{}", port.number())]);
    let _agents = rig.sandbox.spawn(&agents)?;
    let mut client = router.router();
    eventually(LIMIT, async || {
        let connected = status(&mut client.clone()).await?.agents;
        ensure!(connected as u64 == SHARDS, "{connected} of {SHARDS} agents are connected");
        Ok(())
    })
    .await?;
    progress("all agents are connected");
    // The first report of each agent is a full one, and more come as it hears of its roles; that is
    // not what is measured.
    eventually(LIMIT, async || {
        let taken = reports_taken(&router.url()).await?;
        ensure!(taken >= 3.0 * SHARDS as f64, "{taken} reports of {SHARDS} agents came");
        Ok(())
    })
    .await?;

    let pid = router.pid().context("the router ended")?;
    let (reports, used, begun) =
        (reports_taken(&router.url()).await?, cpu_time(pid)?, Instant::now());
    tokio::time::sleep(SPAN).await;
    let (used, span) = (cpu_time(pid)?.saturating_sub(used), begun.elapsed().as_secs_f64());
    let reports = (reports_taken(&router.url()).await? - reports) / span;
    ensure!(status(&mut client).await?.agents as u64 == SHARDS, "agents were lost");
    // Every agent every five seconds; less would make the figure look better than it is.
    let expected = SHARDS as f64 / 5.0;
    ensure!(reports > 0.95 * expected, "{reports:.0} of {expected:.0} reports a second came");
    let cores = used.as_secs_f64() / span;
    report.add(Figure::alone("agents.router_cpu", cores, "cores", Goal::AtMost(0.25)))?;
    report.add(Figure::alone("agents.reports_taken", reports, "1/s", Goal::None))?;
    report.add(Figure::alone(
        "agents.router_memory",
        memory_mb(pid, "VmRSS")?,
        "MB",
        Goal::None,
    ))?;
    Ok(())
}

/// Reports that the router has taken in, by its own count.
async fn reports_taken(url: &str) -> Result<f64> {
    let text = reqwest::get(format!("{url}/metrics")).await?.error_for_status()?.text().await?;
    let line = text
        .lines()
        .find(|line| line.contains("router_reports_total") && line.contains("\"taken\""))
        .context("the router counts no reports")?;
    Ok(line.rsplit(' ').next().context("a metric has a value")?.parse()?)
}
