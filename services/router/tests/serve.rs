//! One replica on SQLite, over the wire.

mod support;

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use airfleet_proto::{moves::v1 as moves, registry::v1::manifest_entry::Kind, router::v1 as wire};
use airfleet_runtime::status::Problem;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sha2::Digest as _;
use support::{Replica, config, entry, sqlite};
use tonic::Code;

fn by_dag(dag_id: &str) -> wire::ResolveRequest {
    wire::ResolveRequest { target: Some(wire::resolve_request::Target::DagId(dag_id.into())) }
}

#[tokio::test(flavor = "multi_thread")]
async fn resolves_one_and_many() {
    let (_folder, store) = sqlite();
    let replica = Replica::leading(config(&store)).await;
    replica.declare(1, &["shard-a", "payments", "billing"]).await;
    replica.until_assigned("payments").await;
    replica.until_assigned("billing").await;
    let mut client = replica.client.clone();

    let answer = client.resolve(by_dag("payments.daily.report")).await.unwrap().into_inner();
    assert_eq!((answer.namespace.as_str(), answer.shard.as_str()), ("payments", "shard-a"));
    assert_eq!(answer.endpoints.as_ref().unwrap().url, "http://shard-a.example.net");
    assert_eq!((answer.generation, answer.state()), (1, wire::AssignmentState::Assigned));
    assert!(answer.revision > 0 && answer.age_ms < 60_000);
    let target = Some(wire::resolve_request::Target::Namespace("billing".into()));
    let answer = client.resolve(wire::ResolveRequest { target }).await.unwrap().into_inner();
    assert_eq!(answer.shard, "shard-a");

    let missing = Problem::from(client.resolve(by_dag("nobodys.dag")).await.unwrap_err());
    assert_eq!((missing.code, missing.reason.as_str()), (Code::NotFound, "NOT_FOUND"));
    assert!(missing.message.contains("register a namespace"), "{}", missing.message);
    let empty = client.resolve(wire::ResolveRequest { target: None }).await.unwrap_err();
    assert_eq!(Problem::from(empty).violations[0].field, "target");

    let dag_ids = ["payments.a", "nobodys.dag", "billing.x", "payments.b"];
    let ask = wire::BatchResolveRequest { dag_ids: dag_ids.map(String::from).to_vec() };
    let batch = client.batch_resolve(ask).await.unwrap().into_inner();
    assert_eq!(batch.route_numbers, [1, 0, 2, 1]);
    let routes: Vec<_> =
        batch.routes.iter().map(|r| (r.namespace.as_str(), r.shard_number)).collect();
    assert_eq!(routes, [("payments", 1), ("billing", 1)]);
    assert_eq!(batch.shards[0].shard, "shard-a");
    let many = wire::BatchResolveRequest { dag_ids: vec!["payments.a".into(); 10_001] };
    let problem = Problem::from(client.batch_resolve(many).await.unwrap_err());
    assert_eq!(
        (problem.code, problem.violations[0].field.as_str()),
        (Code::InvalidArgument, "dag_ids")
    );

    let metrics = replica.metrics().await;
    for line in [
        "airfleet_router_resolved_total{result=\"assigned\"} 5",
        "airfleet_router_resolved_total{result=\"not_found\"} 2",
        "airfleet_router_assignments{state=\"assigned\"} 2",
        "airfleet_router_shard_namespaces{shard=\"shard-a\"} 2",
        "airfleet_router_shard_reserved{dimension=\"dags\",shard=\"shard-a\"} 20",
        "airfleet_router_shard_health{shard=\"shard-a\",verdict=\"unknown\"} 1",
        "airfleet_router_leader 1",
        "airfleet_router_manifest_lag_revisions 0",
        "airfleet_ready 1",
    ] {
        assert!(metrics.contains(line), "{line}\nis not in\n{metrics}");
    }
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_in_pages_and_by_filter() {
    let (_folder, store) = sqlite();
    let replica = Replica::leading(config(&store)).await;
    replica.declare(1, &["shard-a", "shard-b"]).await;
    let names: Vec<String> = (0..25).map(|number| format!("ns-{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    replica.declare(2, &names).await;
    replica.until_declared(2).await;
    for page_size in [1, 7, 25, 1000] {
        let listed = replica.list(page_size).await;
        let listed: Vec<_> = listed.iter().map(|a| a.namespace.as_str()).collect();
        assert_eq!(listed, names, "in pages of {page_size}");
    }
    let mut client = replica.client.clone();
    let mut ask = wire::ListAssignmentsRequest {
        shard: "shard-a".into(),
        state: wire::AssignmentState::Assigned.into(),
        page_size: 3,
        ..Default::default()
    };
    let page = client.list_assignments(ask.clone()).await.unwrap().into_inner();
    assert!(page.assignments.iter().all(|a| a.shard == "shard-a"));
    assert_eq!(page.assignments.len(), 3);
    ask.page_token = page.next_page_token;
    assert!(client.list_assignments(ask.clone()).await.is_ok());
    ask.shard = "shard-b".into();
    ask.page_size = -1;
    let problem = Problem::from(client.list_assignments(ask).await.unwrap_err());
    let fields: Vec<_> = problem.violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["page_size", "page_token"], "all at once");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_every_revision_in_order_whatever_happens() {
    let (_folder, store) = sqlite();
    let mut settings = config(&store);
    settings.table.history = 50;
    settings.table.progress_interval = Duration::from_millis(100);
    let replica = Replica::leading(settings).await;
    replica.declare(1, &["shard-a", "shard-b"]).await;
    let mut early = replica.watch(0).await;
    early.next().await.unwrap();
    assert!(early.snapshots == 1 && early.table.is_empty(), "an empty table is told too");

    let mut random = StdRng::seed_from_u64(7);
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    let mut late = None;
    for revision in 2..300 {
        let name = format!("ns-{}", random.random_range(0..40));
        if random.random_bool(0.3) && expected.contains_key(&name) {
            // Owned, so it stays; but its row changes.
            replica.change(revision, vec![], &[&name]).await;
        } else {
            replica.declare(revision, &[&name]).await;
            expected.insert(name, revision);
        }
        if revision == 150 {
            late = Some(replica.watch(early.revision).await);
        }
    }
    replica.until_declared(299).await;
    let table = replica.list(1000).await;
    assert_eq!(table.len(), expected.len());
    let revision = replica.status().await.unwrap().revision;
    let mut late = late.unwrap();
    for watcher in [&mut early, &mut late] {
        watcher.until(revision).await;
        let seen: Vec<_> = watcher.table.values().cloned().collect();
        assert_eq!(seen, table);
    }
    // One that is ahead belongs to another history: it starts over.
    let mut ahead = replica.watch(revision + 1000).await;
    ahead.until(1).await;
    while ahead.snapshots == 0 {
        ahead.next().await.unwrap();
    }
    assert_eq!((ahead.revision, ahead.table.len()), (revision, table.len()));
    // Nothing happens, and that is told.
    early.next().await.unwrap();
    replica.stop().await;
    while early.next().await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_go_on_after_a_restart() {
    let (_folder, store) = sqlite();
    let mut settings = config(&store);
    let replica = Replica::leading(settings.clone()).await;
    settings.server.listen = replica.address;
    replica.declare(1, &["shard-a", "one", "two"]).await;
    replica.until_assigned("two").await;
    let mut watcher = replica.watch(0).await;
    let revision = replica.status().await.unwrap().revision;
    watcher.until(revision).await;
    replica.declare(2, &["three"]).await;
    replica.until_assigned("three").await;
    replica.kill();

    let replica = support::eventually("the port is free again", async || {
        std::net::TcpListener::bind(settings.server.listen).ok().map(drop)
    })
    .await;
    let () = replica;
    let replica = Replica::leading(settings).await;
    let mut resumed = replica.watch(watcher.revision).await;
    resumed.table = watcher.table;
    replica.declare(3, &["four"]).await;
    replica.until_assigned("four").await;
    resumed.until(replica.status().await.unwrap().revision).await;
    assert_eq!(resumed.snapshots, 0, "it goes on where it was");
    let names: Vec<_> = resumed.table.keys().map(String::as_str).collect();
    assert_eq!(names, ["four", "one", "three", "two"]);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_change_comes_in_pieces_that_clients_can_take() {
    let (_folder, store) = sqlite();
    let replica = Replica::leading(config(&store)).await;
    replica.declare(1, &["shard-a"]).await;
    replica.until_declared(1).await;
    let mut watcher = replica.watch(0).await;
    watcher.next().await.unwrap();
    // 900 namespaces of 40 prefixes of 200 characters: 7 MB.
    let mut entries = Vec::new();
    for number in 0..900 {
        let mut wide = entry(&format!("ns-{number:03}"));
        let Some(Kind::Namespace(namespace)) = &mut wide.kind else { panic!() };
        namespace.prefixes =
            (0..40).map(|p| format!("ns{number:03}_{p:02}_{:x<190}", "")).collect();
        entries.push(wide);
    }
    replica.change(2, entries, &[]).await;
    replica.until_declared(2).await;
    let revision = replica.status().await.unwrap().revision;
    watcher.until(revision).await;
    assert_eq!((watcher.table.len(), watcher.snapshots), (900, 1));
    let mut fresh = replica.watch(0).await;
    fresh.until(revision).await;
    assert_eq!(fresh.table, watcher.table);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_watchers_than_allowed() {
    let (_folder, store) = sqlite();
    let mut settings = config(&store);
    settings.table.max_watchers = 2;
    let replica = Replica::ready(settings).await;
    let one = replica.watch(0).await;
    let _two = replica.watch(0).await;
    let ask = wire::WatchAssignmentsRequest { resume_revision: 0 };
    let refused = replica.client.clone().watch_assignments(ask).await.unwrap_err();
    let problem = Problem::from(&refused);
    assert_eq!(
        (problem.code, problem.reason.as_str()),
        (Code::ResourceExhausted, "TOO_MANY_STREAMS")
    );
    assert!(problem.is_transient());
    drop(one);
    support::eventually("a place is free", async || {
        replica.client.clone().watch_assignments(ask).await.ok().map(drop)
    })
    .await;
    replica.stop().await;
}

/// Settings with a token for each role, `secret-of-` and its name.
fn with_tokens(folder: &tempfile::TempDir, store: &str) -> airfleet_router::Config {
    let tokens = folder.path().join("tokens.toml");
    let mut file = String::new();
    for role in ["viewer", "tenant", "operator", "agent"] {
        let sum = sha2::Sha256::digest(format!("secret-of-{role}"));
        let sum = sum.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let more = match role {
            "tenant" => "namespaces = [\"*\"]\n",
            "agent" => "shard = \"shard-a\"\n",
            _ => "",
        };
        writeln!(file, "[[token]]\nname = \"{role}\"\nsha256 = \"{sum}\"\nrole = \"{role}\"")
            .unwrap();
        file.push_str(more);
    }
    std::fs::write(&tokens, file).unwrap();
    let mut settings = config(store);
    settings.server.tokens_file = Some(tokens);
    settings
}

fn channel(replica: &Replica) -> tonic::transport::Channel {
    let endpoint = tonic::transport::Endpoint::new(format!("http://{}", replica.address));
    endpoint.unwrap().connect_lazy()
}

/// Says whose request it is.
fn bearer(
    role: &str,
) -> impl FnMut(tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> + Clone + use<> {
    let token: tonic::metadata::MetadataValue<_> =
        format!("Bearer secret-of-{role}").parse().unwrap();
    move |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("authorization", token.clone());
        Ok(request)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_do_only_what_their_role_allows() {
    let (folder, store) = sqlite();
    let replica = Replica::start(with_tokens(&folder, &store));
    let as_role = |role: &str| {
        wire::router_service_client::RouterServiceClient::with_interceptor(
            channel(&replica),
            bearer(role),
        )
    };
    let mut operator = as_role("operator");
    support::eventually("it leads", async || {
        let status = operator.get_router_status(wire::GetRouterStatusRequest {}).await.ok()?;
        status.get_ref().leader.then_some(())
    })
    .await;
    replica.declare(1, &["shard-a", "one"]).await;
    support::eventually("it is assigned", async || {
        operator.resolve(by_dag("one.x")).await.ok().filter(|a| !a.get_ref().shard.is_empty())
    })
    .await;
    let cordon = wire::CordonShardRequest { shard: "shard-a".into(), reason: "test".into() };
    for role in ["viewer", "tenant"] {
        let mut client = as_role(role);
        assert!(client.resolve(by_dag("one.x")).await.is_ok(), "{role} reads");
        let refused = client.cordon_shard(cordon.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{role} changes nothing");
    }
    assert_eq!(
        as_role("agent").resolve(by_dag("one.x")).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(
        as_role("nobody").resolve(by_dag("one.x")).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let status = operator.cordon_shard(cordon).await.unwrap().into_inner();
    assert_eq!(status.cordon.unwrap().actor, "token:operator");
    let bad = wire::CordonShardRequest { shard: "No Such!".into(), reason: "x".repeat(501) };
    let problem = Problem::from(operator.cordon_shard(bad).await.unwrap_err());
    let fields: Vec<_> = problem.violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["shard", "reason"]);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_given_up_only_by_an_operator_who_says_why() {
    let (folder, store) = sqlite();
    let replica = Replica::start(with_tokens(&folder, &store));
    let as_role = |role: &str| {
        moves::move_service_client::MoveServiceClient::with_interceptor(
            channel(&replica),
            bearer(role),
        )
    };
    let lost = moves::StartMoveRequest {
        namespace: "one".into(),
        target_shard: "shard-b".into(),
        options: Some(moves::MoveOptions { force_lost_source: true, ..Default::default() }),
        reason: "its disk burnt".into(),
        ..Default::default()
    };
    for role in ["viewer", "tenant", "agent"] {
        let refused = as_role(role).start_move(lost.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{role}: {}", refused.message());
        let look = moves::StartMoveRequest { validate_only: true, ..lost.clone() };
        let refused = as_role(role).start_move(look).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{role}: {}", refused.message());
    }
    for reason in ["", "  "] {
        let silent = moves::StartMoveRequest { reason: reason.into(), ..lost.clone() };
        let refused = as_role("operator").start_move(silent).await.unwrap_err();
        let problem = Problem::from(&refused);
        assert_eq!(refused.code(), Code::InvalidArgument);
        let why: Vec<_> =
            problem.violations.iter().map(|v| (v.field.as_str(), v.code.as_str())).collect();
        assert_eq!(why, [("reason", "REQUIRED")]);
    }
    replica.stop().await;
}
