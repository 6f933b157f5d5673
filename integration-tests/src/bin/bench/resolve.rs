//! Resolve over gRPC at a million namespaces, beside a bare tonic server that answers the same
//! messages from nothing. Rounds alternate between the two, so that what else happens on the
//! machine happens to both; figures are medians over rounds.

use std::time::Duration;

use airfleet_integration_tests::{
    bench::{
        echo::Echo,
        load::{connect, paced, saturate},
        report::{Figure, Goal, Report},
    },
    eventually,
};
use airfleet_local::{Port, Spec};
use anyhow::{Context as _, Result};
use tonic::transport::Server;

use crate::{
    progress,
    rig::{MILLION, Rig, median},
};

const ROUNDS: usize = 5;
const IN_FLIGHT: usize = 64;
const WARM_UP: Duration = Duration::from_millis(500);
const SATURATED: Duration = Duration::from_secs(2);
const PACED: Duration = Duration::from_secs(3);

pub(crate) async fn serve_echo(port: u16) -> Result<()> {
    let address = ([127, 0, 0, 1], port).into();
    Ok(Server::builder().tcp_nodelay(true).add_service(Echo).serve(address).await?)
}

/// Medians over rounds of what both reached.
struct Round {
    per_second: [f64; 2],
    p99_us: [f64; 2],
}

pub(crate) async fn run(rig: &Rig, report: &mut Report) -> Result<()> {
    let router = rig.serving(MILLION).await?;
    let port = Port::claim()?;
    let echo = Spec::new("echo", std::env::current_exe()?)
        .arg("serve-echo")
        .arg(port.number().to_string());
    let _echo = rig.sandbox.spawn(&echo)?;
    let echo_url = format!("http://127.0.0.1:{}", port.number());
    let peers = [
        connect(&router.url()).await?,
        eventually(Duration::from_secs(10), || connect(&echo_url)).await?,
    ];

    for clients in &peers {
        saturate(clients, IN_FLIGHT, MILLION, WARM_UP).await?;
    }
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        let mut per_second = [0.0; 2];
        for (reached, clients) in per_second.iter_mut().zip(&peers) {
            *reached = saturate(clients, IN_FLIGHT, MILLION, SATURATED).await?;
        }
        // Both get the same rate: half of what the slower of them bears.
        let rate = per_second[0].min(per_second[1]) / 2.0;
        let mut p99_us = [0.0; 2];
        for (reached, clients) in p99_us.iter_mut().zip(&peers) {
            *reached = paced(clients, rate, MILLION, PACED).await?.value_at_quantile(0.99) as f64;
        }
        progress(&format!(
            "round {number}: {:.0} and {:.0} calls a second; p99 {:.0} and {:.0} us",
            per_second[0], per_second[1], p99_us[0], p99_us[1]
        ));
        rounds.push(Round { per_second, p99_us });
    }
    report.add(compared(
        "resolve.unary_64_in_flight",
        "1/s",
        rounds.iter().map(|round| round.per_second),
        Goal::AtLeast(0.9),
    ))?;
    report.add(compared(
        "resolve.p99_at_half_of_saturation",
        "us",
        rounds.iter().map(|round| round.p99_us),
        Goal::AtMost(1.2),
    ))?;
    let pid = router.pid().context("the router ended")?;
    report.add(Figure::alone(
        "resolve.router_memory",
        crate::rig::memory_mb(pid, "VmRSS")?,
        "MB",
        Goal::None,
    ))?;
    Ok(())
}

/// The round whose ratio is the median: what it found of both.
fn compared(
    name: &str,
    unit: &str,
    rounds: impl Iterator<Item = [f64; 2]> + Clone,
    goal: Goal,
) -> Figure {
    let ratio = median(rounds.clone().map(|[own, echo]| own / echo).collect());
    let [own, echo] = rounds
        .min_by(|a, b| (a[0] / a[1] - ratio).abs().total_cmp(&(b[0] / b[1] - ratio).abs()))
        .expect("there are rounds");
    Figure::beside(name, own, unit, ("bare tonic", echo), goal)
}
