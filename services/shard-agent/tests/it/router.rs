//! The stream to the router, when all goes well and when it does not.

use airfleet_runtime::status::Failure;
use tonic::Status;

use crate::{
    RunningAgent, eventually,
    scripted::{ScriptedRouter, roles, welcome},
};

#[tokio::test]
async fn hello_reports_and_roles_go_their_way() {
    let router = ScriptedRouter::start().await;
    router.tell(roles(1, 1, &[("pay", "pay__")]));
    let mut config = router.agent();
    config.capacity.dags = 50;
    let agent = RunningAgent::start(config);

    // Nothing to look at is not knowing, and said so.
    let seen = router.when("reports", |report| report.sequence > 5).await;
    let health = seen.health.unwrap();
    assert_eq!(health.reasons[0].code, "METADATA_DB_NOT_CONFIGURED");
    assert!(health.observe_time.is_some());
    assert_eq!(seen.usage, None);
    assert_eq!(seen.capacity.unwrap().dags, 50);
    assert!(seen.namespaces.is_empty());
    assert_eq!(seen.signals.unwrap().live_workers, -1);

    let [hello] = <[_; 1]>::try_from(router.hellos()).unwrap();
    assert_eq!(hello.shard, "shard-a");
    assert_eq!(hello.agent_version, env!("CARGO_PKG_VERSION"));
    assert!(!hello.hostname.is_empty());
    let incarnation: uuid::Uuid = hello.incarnation.parse().unwrap();
    assert_eq!(incarnation.get_version_num(), 7);

    let reports = router.reports();
    assert!(reports.iter().enumerate().all(|(index, report)| report.sequence == index as i64 + 1));
    assert!(reports[0].full && reports[1..].iter().all(|report| !report.full));

    agent.stop().await;
    eventually("a stream that ends in good order", async || (router.goodbyes() == 1).then_some(()))
        .await;
}

#[tokio::test]
async fn a_full_report_comes_when_the_router_asks_for_it() {
    let router = ScriptedRouter::start().await;
    let agent = RunningAgent::start(router.agent());
    router.when("changes", |report| report.sequence > 2).await;
    router.ask_full();
    eventually("a second full report", async || {
        (router.reports().iter().filter(|report| report.full).count() == 2).then_some(())
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_goes_to_the_leader_that_it_is_told() {
    let (leader, follower) = (ScriptedRouter::start().await, ScriptedRouter::start().await);
    let address = leader.address();
    follower.receive(move |_| Err(Failure::not_leader(Some(&address)).into()));
    let agent = RunningAgent::start(follower.agent());
    leader.when("a report", |_| true).await;
    assert_eq!(follower.hellos().len(), 1);

    // The leader changes: reports go on where they were, with a full one.
    follower.receive(|_| Ok(welcome(2, 100)));
    let sequence = leader.reports().last().unwrap().sequence;
    leader.hang_up(&Failure::not_leader(Some(&follower.address())).into());
    let first = follower.when("a report", |_| true).await;
    assert!(follower.reports()[0].full && first.sequence > sequence);
    assert_eq!(leader.hellos()[0].incarnation, follower.hellos()[1].incarnation);
    agent.stop().await;
}

#[tokio::test]
async fn routers_that_name_each_other_are_not_asked_in_a_rage() {
    let (one, two) = (ScriptedRouter::start().await, ScriptedRouter::start().await);
    for (here, there) in [(&one, &two), (&two, &one)] {
        let address = there.address();
        here.receive(move |_| Err(Failure::not_leader(Some(&address)).into()));
    }
    let agent = RunningAgent::start(one.agent());
    eventually("several attempts", async || (one.hellos().len() > 4).then_some(())).await;
    let before = one.hellos().len() + two.hellos().len();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let asked = one.hellos().len() + two.hellos().len() - before;
    assert!(asked < 40, "{asked} attempts in a second");
    agent.stop().await;
}

#[tokio::test]
async fn a_stream_that_breaks_is_opened_again() {
    let router = ScriptedRouter::start().await;
    let agent = RunningAgent::start(router.agent());
    for stream in 1..=3 {
        eventually("a stream with a full report", async || {
            let full = router.reports().iter().filter(|report| report.full).count();
            (router.hellos().len() == stream && full == stream).then_some(())
        })
        .await;
        router.hang_up(&Status::unavailable("restarting"));
    }
    let sequences: Vec<_> = router.reports().iter().map(|report| report.sequence).collect();
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequences:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_router_of_a_lower_term_is_not_obeyed_not_even_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let router = ScriptedRouter::start().await;
    router.receive(|_| Ok(welcome(7, 100)));
    router.tell(roles(7, 1, &[("pay", "pay__")]));
    let mut config = router.agent();
    config.state_dir = Some(folder.path().to_owned());
    let agent = RunningAgent::start(config.clone());
    router.when("a report", |_| true).await;
    let remembered = folder.path().join("roles-shard-a.json");
    eventually("roles on disk", async || {
        std::fs::read_to_string(&remembered).ok()?.contains("pay__").then_some(())
    })
    .await;
    agent.stop().await;

    let stale = ScriptedRouter::start().await;
    stale.receive(|_| Ok(welcome(6, 100)));
    config.router = stale.client();
    let agent = RunningAgent::start(config);
    eventually("attempts", async || (stale.hellos().len() > 2).then_some(())).await;
    assert!(stale.reports().is_empty());
    stale.receive(|_| Ok(welcome(8, 100)));
    stale.when("a report", |_| true).await;
    agent.stop().await;
}

#[tokio::test]
async fn what_an_agent_is_refused_for_good_it_asks_seldom() {
    let router = ScriptedRouter::start().await;
    router.receive(|_| Err(Failure::denied("token of another shard").into()));
    let agent = RunningAgent::start(router.agent());
    eventually("an attempt", async || (!router.hellos().is_empty()).then_some(())).await;
    // The wait is drawn up to ten seconds: more than a few attempts in two are not possible with
    // any likelihood.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(router.hellos().len() < 8, "{} attempts", router.hellos().len());
    agent.stop().await;
}

#[tokio::test]
async fn a_silent_router_is_left() {
    let router = ScriptedRouter::start().await;
    router.be_silent();
    let agent = RunningAgent::start(router.agent());
    eventually("a second stream", async || (router.hellos().len() > 1).then_some(())).await;
    agent.stop().await;
}

#[tokio::test]
async fn readiness_tells_what_is_missing() {
    let router = ScriptedRouter::start().await;
    let mut config = router.agent();
    config.router = airfleet_runtime::config::ClientConfig::plain("http://127.0.0.1:9");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    airfleet_runtime::tls::install_crypto_provider();
    let shutdown = airfleet_runtime::lifecycle::Shutdown::new();
    let agent = tokio::spawn(airfleet_shard_agent::run(config, Some(listener), shutdown.clone()));
    let page = async |path: &str| {
        reqwest::get(format!("http://{address}{path}")).await.ok()?.text().await.ok()
    };
    eventually("a reason", async || {
        page("/readyz").await.filter(|text| text.contains("router: not attached")).map(drop)
    })
    .await;
    eventually("metrics", async || {
        let text = page("/metrics").await?;
        let all = [
            "airfleet_agent_connected 0",
            "airfleet_agent_verdict{verdict=\"unknown\"} 1",
            "airfleet_agent_connects_total",
        ];
        all.iter().all(|metric| text.contains(metric)).then_some(())
    })
    .await;
    shutdown.trigger();
    agent.await.unwrap().unwrap();
}
