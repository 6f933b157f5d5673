//! Agents over the wire.

mod support;

use std::time::Duration;

use airfleet_proto::{
    agent::v1::{
        DesiredRole, Event, ObservedRole, Obstacle, PolicyViolation, Release, Report,
        attach_response::Message,
    },
    common::v1 as common,
    registry::v1 as registry,
    router::v1 as wire,
};
use airfleet_runtime::status::Problem;
use support::{Agent, Replica, config, eventually, sqlite};
use tonic::Code;

async fn leading() -> (tempfile::TempDir, Replica) {
    let (folder, store) = sqlite();
    let mut settings = config(&store);
    settings.placement.require_report = true;
    settings.agents.report_interval = Duration::from_millis(20);
    let replica = Replica::leading(settings).await;
    (folder, replica)
}

async fn status(replica: &Replica, shard: &str) -> wire::ShardStatus {
    let ask = wire::GetShardStatusRequest { shard: shard.into() };
    replica.client.clone().get_shard_status(ask).await.unwrap().into_inner()
}

/// Hears the welcome and the first roles.
async fn welcomed(agent: &mut Agent) -> Vec<(String, i64)> {
    let Message::Welcome(welcome) = agent.hear().await.unwrap() else { panic!("Welcome is first") };
    assert!(welcome.term > 0 && welcome.report_interval_ms == 20);
    let (full, roles, removed) = roles(agent).await;
    assert!(full && removed.is_empty());
    roles
}

/// The next roles: whether all, those that are ACTIVE with their generation, and those removed.
async fn roles(agent: &mut Agent) -> (bool, Vec<(String, i64)>, Vec<String>) {
    loop {
        match agent.hear().await.unwrap() {
            Message::DesiredRoles(desired) => {
                let mut roles: Vec<_> = desired
                    .roles
                    .into_iter()
                    .map(|role| {
                        assert_eq!(role.role(), common::Role::Active);
                        assert_eq!(role.prefixes, [format!("{}.", role.namespace)]);
                        (role.namespace, role.generation)
                    })
                    .collect();
                roles.sort();
                return (desired.full, roles, desired.removed);
            }
            Message::ReportAck(_)
            | Message::OwnersAnswer(_)
            | Message::Inspect(_)
            | Message::DagChange(_) => {}
            Message::Welcome(_) => panic!("Welcome is said once"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_makes_its_shard_usable_and_is_told_what_to_do() {
    let (_folder, replica) = leading().await;
    replica.declare(1, &["shard-a", "one"]).await;
    replica.until_declared(1).await;
    assert_eq!(replica.get("one").await.unwrap().state(), wire::AssignmentState::Unplaced);
    let before = status(&replica, "shard-a").await;
    assert_eq!(before.health.unwrap().reasons[0].code, "AGENT_NEVER_CONNECTED");

    let mut agent = replica.attach("shard-a").await.unwrap();
    assert_eq!(welcomed(&mut agent).await, []);
    agent.report(&[]).await;
    let Message::ReportAck(ack) = agent.hear().await.unwrap() else { panic!("an ack") };
    assert_eq!((ack.sequence, ack.send_full), (1, false));
    assert_eq!(roles(&mut agent).await, (false, vec![("one".into(), 1)], vec![]));
    replica.until_assigned("one").await;

    agent.report(&[("one", 40, 3)]).await;
    let seen = eventually("the usage shows", async || {
        Some(status(&replica, "shard-a").await).filter(|s| s.namespace_usage.len() == 1)
    })
    .await;
    assert!(seen.connected && seen.not_placeable.is_empty());
    assert_eq!(seen.airflow_version, "3.3.2");
    assert_eq!((seen.usage.unwrap().dags, seen.reserved.unwrap().dags), (7, 40));
    assert_eq!(seen.room.unwrap().dags, 100_000 - 40);
    assert_eq!(seen.namespace_usage[0].active_runs, 3);

    // A gap: it is asked for everything.
    agent.send_report(Report { sequence: 9, ..Default::default() }).await;
    let Message::ReportAck(ack) = agent.hear().await.unwrap() else { panic!("an ack") };
    assert_eq!((ack.sequence, ack.send_full), (2, false));
    let Message::ReportAck(ack) = agent.hear().await.unwrap() else { panic!("an ack") };
    assert_eq!((ack.sequence, ack.send_full), (9, true));

    drop(agent);
    eventually("it is gone", async || (!status(&replica, "shard-a").await.connected).then_some(()))
        .await;
    let mut again = replica.attach("shard-a").await.unwrap();
    assert_eq!(welcomed(&mut again).await, [("one".to_owned(), 1)]);
    replica.stop().await;
    let ended = loop {
        if let Err(status) = again.hear().await {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
}

/// The next role of a namespace that the agent is told.
async fn role_of(agent: &mut Agent, namespace: &str) -> DesiredRole {
    loop {
        if let Message::DesiredRoles(desired) = agent.hear().await.unwrap() {
            assert!(!desired.removed.contains(&namespace.to_owned()), "it is told a role");
            if let Some(role) = desired.roles.into_iter().find(|role| role.namespace == namespace) {
                return role;
            }
        }
    }
}

/// What an agent says that it reached.
fn reached(namespace: &str, role: common::Role, generation: i64) -> ObservedRole {
    ObservedRole {
        namespace: namespace.into(),
        role: role.into(),
        generation,
        target_role: role.into(),
        target_generation: generation,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_owner_runs_nothing_before_the_old_one_said_that_it_is_fenced() {
    let (folder, store) = sqlite();
    let mut settings = config(&store);
    settings.placement.require_report = true;
    settings.agents.report_interval = Duration::from_millis(20);
    settings.agents.keep_retired = Duration::ZERO;
    let replica = Replica::leading(settings.clone()).await;
    replica.declare(1, &["shard-a"]).await;
    let mut old = replica.attach("shard-a").await.unwrap();
    welcomed(&mut old).await;
    old.report(&[]).await;
    let one = with_pool("one", 4);
    replica.change(2, vec![one], &[]).await;
    replica.until_assigned("one").await;
    let told = role_of(&mut old, "one").await;
    assert_eq!((told.role(), told.generation), (common::Role::Active, 1));
    let workload = told.workload.unwrap();
    assert_eq!((workload.pools[0].slots, told.manifest_revision), (4, 2));
    // A change of the workload alone is told, as a later word.
    replica.change(3, vec![with_pool("one", 9)], &[]).await;
    let again = role_of(&mut old, "one").await;
    assert_eq!((again.role(), again.generation), (common::Role::Active, 1));
    assert_eq!((again.workload.unwrap().pools[0].slots, again.manifest_revision), (9, 3));
    assert!(again.revision > told.revision);

    replica.declare(4, &["shard-b"]).await;
    let mut new = replica.attach("shard-b").await.unwrap();
    welcomed(&mut new).await;
    let pin = wire::PinNamespaceRequest {
        namespace: "one".into(),
        shard: "shard-b".into(),
        reason: "test".into(),
        ..Default::default()
    };
    let mut client = replica.client.clone();
    // Reports are repeated, as agents do: one that crosses the news of a namespace says nothing of it.
    eventually("shard-b is usable, and one is busy", async || {
        new.report(&[]).await;
        old.report(&[("one", 3, 1)]).await;
        let problem = Problem::from(client.pin_namespace(pin.clone()).await.unwrap_err());
        let busy = problem.preconditions.iter().any(|why| why.kind == "ACTIVE_RUNS");
        (problem.reason == "NOT_DRAINED" && busy).then_some(())
    })
    .await;
    let moved = eventually("it is drained", async || {
        old.report(&[("one", 3, 0)]).await;
        client.pin_namespace(pin.clone()).await.ok().map(tonic::Response::into_inner)
    })
    .await;
    assert_eq!((moved.shard.as_str(), moved.generation), ("shard-b", 2));
    let gives_up = role_of(&mut old, "one").await;
    assert_eq!((gives_up.role(), gives_up.generation), (common::Role::Retired, 2));
    assert_eq!((gives_up.prefixes, gives_up.workload), (vec!["one.".to_owned()], None));
    let staged = role_of(&mut new, "one").await;
    assert_eq!((staged.role(), staged.generation), (common::Role::Staged, 2));
    assert_eq!(staged.workload.unwrap().pools[0].slots, 9);

    // All of it is remembered by whoever leads next.
    replica.kill();
    let replica = Replica::leading(settings).await;
    let mut new = replica.attach("shard-b").await.unwrap();
    let mut old = replica.attach("shard-a").await.unwrap();
    assert_eq!(role_of(&mut new, "one").await.role(), common::Role::Staged);
    let gives_up = role_of(&mut old, "one").await;
    assert_eq!((gives_up.role(), gives_up.generation), (common::Role::Retired, 2));
    // What it was before it was told to give it up proves nothing.
    old.report_roles(&[reached("one", common::Role::Retired, 1)]).await;
    old.report_roles(&[reached("one", common::Role::Retired, 2)]).await;
    let active = role_of(&mut new, "one").await;
    assert_eq!((active.role(), active.generation), (common::Role::Active, 2));
    assert!(active.revision > staged.revision);
    // Its rows' time is over, so they go, and then the record of them.
    while role_of(&mut old, "one").await.role() != common::Role::Absent {}
    old.report_roles(&[reached("one", common::Role::Absent, 2)]).await;
    let removed = loop {
        if let Message::DesiredRoles(desired) = old.hear().await.unwrap()
            && !desired.removed.is_empty()
        {
            break desired.removed;
        }
    };
    assert_eq!(removed, ["one"]);
    replica.stop().await;
    drop(folder);
}

fn with_pool(name: &str, slots: i64) -> registry::ManifestEntry {
    let mut entry = support::entry(name);
    if let Some(registry::manifest_entry::Kind::Namespace(namespace)) = &mut entry.kind {
        let name = format!("{name}-pool");
        namespace.pools = vec![common::Pool { name, slots, ..Default::default() }];
    }
    entry
}

#[tokio::test(flavor = "multi_thread")]
async fn all_there_is_comes_in_pieces_and_is_complete() {
    let (_folder, replica) = leading().await;
    replica.declare(1, &["shard-a"]).await;
    let mut agent = replica.attach("shard-a").await.unwrap();
    welcomed(&mut agent).await;
    agent.report(&[]).await;
    let names: Vec<String> = (0..450).map(|number| format!("team-{number:03}")).collect();
    // Workloads of some 7 KB each, so that pieces end by size too.
    let declared = names.iter().map(|name| {
        let mut entry = with_pool(name, 1);
        if let Some(registry::manifest_entry::Kind::Namespace(namespace)) = &mut entry.kind {
            let pool = |n| common::Pool {
                name: format!("{name}-{n}"),
                slots: 1,
                description: "x".repeat(1000),
                ..Default::default()
            };
            namespace.pools = (0..7).map(pool).collect();
        }
        entry
    });
    replica.change(2, declared.collect(), &[]).await;
    replica.until_assigned("team-449").await;
    let mut again = replica.attach("shard-a").await.unwrap();
    let mut told = Vec::new();
    let mut pieces = 0;
    let mut last_sequence = 0;
    loop {
        let Message::DesiredRoles(piece) = again.hear().await.unwrap() else { continue };
        assert_eq!((piece.full, piece.sequence), (pieces == 0, last_sequence + 1));
        last_sequence = piece.sequence;
        pieces += 1;
        assert!(piece.roles.iter().all(|role| role.workload.as_ref().unwrap().pools.len() == 7));
        told.extend(piece.roles.into_iter().map(|role| role.namespace));
        if !piece.more {
            break;
        }
    }
    assert!(pieces >= 4, "{pieces}");
    assert_eq!(told, names);
    drop((agent, again));
    replica.stop().await;
}

/// Codes and messages of a namespace's events, newest first.
async fn events(replica: &Replica, namespace: &str) -> Vec<(String, String)> {
    let ask =
        wire::ListNamespaceEventsRequest { namespace: namespace.into(), ..Default::default() };
    let page = replica.client.clone().list_namespace_events(ask).await.unwrap().into_inner();
    page.events.into_iter().map(|event| (event.code, event.message)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_say_of_roles_is_told_and_what_happened_is_kept() {
    let (folder, store) = sqlite();
    let mut settings = config(&store);
    settings.placement.require_report = true;
    settings.agents.report_interval = Duration::from_millis(20);
    let replica = Replica::leading(settings.clone()).await;
    replica.declare(1, &["shard-a", "one"]).await;
    replica.until_declared(1).await;
    let mut agent = replica.attach("shard-a").await.unwrap();
    welcomed(&mut agent).await;
    agent.report(&[]).await;
    replica.until_assigned("one").await;
    let mut client = replica.client.clone();
    let watch = wire::WatchNamespaceEventsRequest { namespace: "one".into(), resume_sequence: 0 };
    let mut watched = client.watch_namespace_events(watch).await.unwrap().into_inner();

    let mut seen = reached("one", common::Role::Staged, 1);
    seen.target_role = common::Role::Active.into();
    seen.obstacle = Some(Obstacle {
        code: "SOURCE_UNREACHABLE".into(),
        message: "cannot list s3://dags; check the credentials".into(),
        ..Default::default()
    });
    seen.violations = vec![PolicyViolation {
        code: "AF107".into(),
        mode: common::Enforcement::Warn.into(),
        dag_id: "one.daily".into(),
        task_id: "load".into(),
        message: "queue gpu is not allowed; use one of cpu".into(),
        ..Default::default()
    }];
    seen.violation_count = 1;
    let event = Event {
        namespace: "one".into(),
        code: "RELEASE_SWITCHED".into(),
        message: "to 4f2a".into(),
        id: uuid::Uuid::now_v7().to_string(),
        ..Default::default()
    };
    let stranger = Event { namespace: "unheard-of".into(), ..event.clone() };
    let report = |sequence, roles| Report {
        sequence,
        full: true,
        roles,
        events: vec![event.clone(), stranger.clone()],
        ..Default::default()
    };
    let acknowledged = async |agent: &mut Agent, sequence| loop {
        if let Message::ReportAck(ack) = agent.hear().await.unwrap()
            && ack.sequence == sequence
        {
            assert!(!ack.keep_events && !ack.send_full);
            break;
        }
    };
    agent.send_report(report(2, vec![seen.clone()])).await;
    acknowledged(&mut agent, 2).await;
    let told = events(&replica, "one").await;
    let codes: Vec<_> = told.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(codes, ["RELEASE_SWITCHED", "AF107", "SOURCE_UNREACHABLE", "ASSIGNED", "UNPLACED"]);
    assert!(told[1].1.contains("warned of task load of DAG one.daily: queue gpu"), "{told:?}");
    for code in ["SOURCE_UNREACHABLE", "AF107", "RELEASE_SWITCHED"] {
        let event = watched.message().await.unwrap().unwrap();
        assert_eq!((event.code.as_str(), event.shard.as_str()), (code, "shard-a"));
    }

    let ask = wire::GetNamespaceStatusRequest { namespace: "one".into() };
    let found = client.get_namespace_status(ask.clone()).await.unwrap().into_inner();
    let [role] = found.roles.as_slice() else { panic!("{found:?}") };
    assert_eq!(role.desired_role(), common::Role::Active);
    assert!(!role.reached && role.connected);
    let observed = role.observed.as_ref().unwrap();
    assert_eq!(observed.obstacle.as_ref().unwrap().code, "SOURCE_UNREACHABLE");
    assert_eq!(observed.violations[0].message, seen.violations[0].message);
    let attention = wire::ListNamespaceStatusesRequest { attention: true, ..Default::default() };
    let page = client.list_namespace_statuses(attention.clone()).await.unwrap().into_inner();
    assert_eq!((page.roles.len(), page.roles[0].violations), (1, 1));
    let shard = status(&replica, "shard-a").await;
    let totals = shard.role_totals.unwrap();
    assert_eq!((totals.desired, totals.unreached, totals.obstacles), (1, 1, 1));
    assert_eq!(shard.roles[0].obstacle, "SOURCE_UNREACHABLE");
    let metrics = replica.metrics().await;
    for line in ["roles_unreached", "obstacles", "policy_violations"] {
        let line = format!("airfleet_router_shard_{line}{{shard=\"shard-a\"}} 1");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }

    // A new leader that sees and hears the same again keeps it once.
    replica.kill();
    let replica = Replica::leading(settings).await;
    let mut agent = replica.attach("shard-a").await.unwrap();
    agent.send_report(report(1, vec![seen])).await;
    acknowledged(&mut agent, 1).await;
    assert_eq!(events(&replica, "one").await, told);
    let mut done = reached("one", common::Role::Active, 1);
    done.release = Some(Release { id: "4f2a".into(), ..Default::default() });
    agent.send_report(report(2, vec![done])).await;
    acknowledged(&mut agent, 2).await;
    let mut client = replica.client.clone();
    let found = client.get_namespace_status(ask).await.unwrap().into_inner();
    assert!(found.roles[0].reached);
    let page = client.list_namespace_statuses(attention).await.unwrap().into_inner();
    assert!(page.roles.is_empty(), "{page:?}");
    let all = wire::ListNamespaceStatusesRequest::default();
    let page = client.list_namespace_statuses(all).await.unwrap().into_inner();
    assert_eq!(page.roles[0].release, "4f2a");

    let unknown =
        wire::ListNamespaceEventsRequest { namespace: "unheard-of".into(), ..Default::default() };
    let refused = client.list_namespace_events(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    drop((agent, watched));
    replica.stop().await;
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_learns_whose_dags_it_must_not_run() {
    let (_folder, replica) = leading().await;
    replica.declare(1, &["shard-a", "one", "two"]).await;
    replica.until_declared(1).await;
    let mut agent = replica.attach("shard-a").await.unwrap();
    welcomed(&mut agent).await;
    let two = async |agent: &mut Agent, number| {
        agent.ask(number, &["two.daily", "two.hourly", "nobody.x"]).await;
        loop {
            if let Message::OwnersAnswer(answer) = agent.hear().await.unwrap() {
                assert_eq!(answer.number, number);
                let told = answer.prefixes.into_iter();
                let told = told.map(|f| (f.prefix, f.namespace, f.shard)).collect::<Vec<_>>();
                return (answer.revision, told);
            }
        }
    };
    // It has no shard yet, and is registered all the same.
    let foreign = [("two.".to_owned(), "two".to_owned(), String::new())];
    assert_eq!(two(&mut agent, 1).await.1, foreign);
    agent.report(&[]).await;
    replica.until_assigned("two").await;
    let (revision, told) = two(&mut agent, 2).await;
    assert_eq!(told, [], "it came to this shard");
    // A namespace that is registered later is told of by the revision of the next acknowledgement.
    replica.declare(2, &["three"]).await;
    eventually("the acknowledgement tells", async || {
        agent.report(&[]).await;
        loop {
            if let Message::ReportAck(ack) = agent.hear().await.unwrap() {
                return (ack.prefixes_revision > revision).then_some(());
            }
        }
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_agents_stays() {
    let (_folder, replica) = leading().await;
    let [older, newer] = [uuid::Uuid::now_v7(), uuid::Uuid::now_v7()];
    let mut first = replica.attach_as("shard-a", older).await.unwrap();
    welcomed(&mut first).await;
    let mut second = replica.attach_as("shard-a", newer).await.unwrap();
    let ended = first.hear().await.unwrap_err();
    assert_eq!(
        (ended.code(), Problem::from(ended).reason.as_str()),
        (Code::AlreadyExists, "SUPERSEDED")
    );
    let refused = replica.attach_as("shard-a", older).await.err().unwrap();
    assert_eq!(refused.code(), Code::AlreadyExists);
    welcomed(&mut second).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_introduce_itself_is_refused() {
    let (_folder, replica) = leading().await;
    let mut client = airfleet_proto::agent::v1::agent_service_client::AgentServiceClient::connect(
        format!("http://{}", replica.address),
    )
    .await
    .unwrap();
    let report = airfleet_proto::agent::v1::AttachRequest {
        message: Some(
            airfleet_proto::agent::v1::attach_request::Message::Report(Report::default()),
        ),
    };
    let refused = client.attach(tokio_stream::iter([report])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let empty = client.attach(tokio_stream::iter([])).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument);
    let hello = airfleet_proto::agent::v1::Hello {
        shard: "NO".into(),
        incarnation: "yesterday".into(),
        ..Default::default()
    };
    let hello = airfleet_proto::agent::v1::AttachRequest {
        message: Some(airfleet_proto::agent::v1::attach_request::Message::Hello(hello)),
    };
    let problem = Problem::from(client.attach(tokio_stream::iter([hello])).await.unwrap_err());
    let fields: Vec<_> = problem.violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["hello.shard", "hello.incarnation"]);
    replica.stop().await;
}
