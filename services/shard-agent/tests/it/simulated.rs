//! Simulated agents through the real stream.

use airfleet_runtime::{lifecycle::Shutdown, metrics::Metrics};
use airfleet_shard_agent::simulate::{Simulation, VERSION};

use crate::{
    eventually,
    scripted::{ScriptedRouter, roles},
};

#[tokio::test]
async fn simulated_agents_say_so_and_speak_of_what_they_are_told() {
    airfleet_runtime::tls::install_crypto_provider();
    let router = ScriptedRouter::start().await;
    router.tell(roles(1, 1, &[("pay", "pay__"), ("ads", "ads__")]));
    let simulation = Simulation { router: router.client(), agents: 20, ..Simulation::default() };
    let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
    let agents = tokio::spawn({
        let (metrics, shutdown) = (metrics.clone(), shutdown.clone());
        async move { simulation.run(&metrics, &shutdown).await }
    });

    eventually("all agents", async || (router.hellos().len() == 20).then_some(())).await;
    let mut shards: Vec<_> = router.hellos().into_iter().map(|hello| hello.shard).collect();
    shards.sort_unstable();
    assert_eq!((shards[0].as_str(), shards[19].as_str()), ("sim-0000", "sim-0019"));
    assert!(router.hellos().iter().all(|hello| hello.agent_version == VERSION));
    assert!(VERSION.ends_with("+simulated"));

    eventually("usage of both namespaces", async || {
        let reports = router.reports();
        let report = reports.iter().find(|report| report.namespaces.len() == 2)?;
        let total: i64 =
            report.namespaces.iter().filter_map(|seen| seen.usage).map(|usage| usage.dags).sum();
        assert_eq!(report.usage?.dags, total);
        assert!(total > 0);
        Some(())
    })
    .await;
    eventually("all to be counted", async || {
        metrics.render().unwrap().contains("airfleet_agent_connected 20\n").then_some(())
    })
    .await;
    shutdown.trigger();
    agents.await.unwrap().unwrap();
    eventually("all streams to end", async || (router.goodbyes() == 20).then_some(())).await;
}
