//! Creating, reading and changing single entries.

use airfleet_proto::common::v1 as common;
use airfleet_proto::registry::v1::*;
use tonic::Code;

use crate::support::*;

on_both_engines!(
    what_is_created_is_read_back_whole,
    everything_wrong_is_named_at_once,
    a_name_is_registered_once,
    a_repeated_call_answers_as_the_first,
    a_request_id_is_for_one_call,
    validate_only_changes_nothing,
    only_masked_fields_change,
    an_etag_that_is_not_current_is_refused_with_the_current_one,
    an_update_that_changes_nothing_leaves_no_trace,
    what_is_not_there_is_not_found,
    shards_are_kept_the_same_way,
);

fn everything(name: &str) -> Namespace {
    Namespace {
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        description: "pays — \u{1F4B8}".to_owned(),
        owners: vec!["payments".to_owned(), "finance".to_owned()],
        prefixes: vec![format!("{name}__"), format!("{name}.")],
        demand: Some(common::Resources { dags: 3, metadata_bytes: 1 << 40, ..Default::default() }),
        placement: Some(PlacementRules {
            selector: vec![common::SelectorRequirement {
                key: "zone".to_owned(),
                operator: common::SelectorOperator::In.into(),
                values: vec!["a".to_owned(), "b".to_owned()],
            }],
            tolerations: vec![common::Toleration { key: "gpu".to_owned(), value: String::new() }],
            airflow_version: ">=3.0, <4".to_owned(),
            region: "eu".to_owned(),
            spread_group: "core".to_owned(),
        }),
        guardrails: Some(common::Guardrails { queues: vec!["q".to_owned()], ..Default::default() }),
        source: Some(common::DagSource {
            uri: "git+https://git.example.net/x".to_owned(),
            r#ref: "main".to_owned(),
            path: "dags".to_owned(),
        }),
        pools: vec![common::Pool { name: format!("{name}_pool"), slots: 8, ..Default::default() }],
        retention: Some(common::Retention { keep_days: 90, schedule: String::new() }),
        ..namespace(name)
    }
}

async fn what_is_created_is_read_back_whole(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let wanted = everything("payments");
    let created = client.create_namespace(create(wanted.clone())).await.unwrap().into_inner();
    assert_eq!(created.uid.len(), 36);
    assert!(!created.etag.is_empty() && created.revision > 0);
    let seconds = created.create_time.unwrap().seconds;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    assert!((now - 60..=now + 1).contains(&seconds), "{seconds} is about {now}");
    assert_eq!(created.create_time, created.update_time);
    let bare = Namespace {
        uid: String::new(),
        etag: String::new(),
        revision: 0,
        create_time: None,
        update_time: None,
        ..created.clone()
    };
    assert_eq!(bare, wanted);
    let read = client.get_namespace(get("payments")).await.unwrap().into_inner();
    assert_eq!(read, created);

    // It is still there for the next process.
    registry.stop().await;
    let registry = database.start().await;
    let read = registry.client().get_namespace(get("payments")).await.unwrap().into_inner();
    assert_eq!(read, created);
    let told = async || registry.metric("airfleet_registry_revision") as i64;
    eventually(async || told().await == created.revision).await;
    assert!((registry.metric("airfleet_registry_namespaces") - 1.0).abs() < 0.1);
}

async fn everything_wrong_is_named_at_once(database: Database) {
    let registry = database.start().await;
    let wrong = Namespace {
        name: "No Good".to_owned(),
        owners: vec![],
        prefixes: vec!["a b".to_owned(), "fine__".to_owned(), "fine__".to_owned()],
        labels: [("?".to_owned(), "x".to_owned())].into(),
        ..Namespace::default()
    };
    let problem = refused(
        registry.client().create_namespace(create(wrong)).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
    let fields: Vec<&str> = problem.violations.iter().map(|v| v.field.as_str()).collect();
    for field in [
        "namespace.name",
        "namespace.owners",
        "namespace.prefixes[0]",
        "namespace.prefixes[2]",
        "namespace.labels[?]",
    ] {
        assert!(fields.contains(&field), "{field} is not in {fields:?}");
    }
    // Nothing to read it from.
    let empty = CreateNamespaceRequest::default();
    let problem = problem_of(registry.client().create_namespace(empty).await);
    assert_eq!(problem.violations[0].field, "namespace");
}

fn problem_of<T>(
    answer: Result<tonic::Response<T>, tonic::Status>,
) -> airfleet_runtime::status::Problem {
    refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT")
}

async fn a_name_is_registered_once(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    client.create_namespace(create(namespace("payments"))).await.unwrap();
    let again = Namespace { prefixes: vec!["other__".to_owned()], ..namespace("payments") };
    let problem = refused(
        client.create_namespace(create(again)).await,
        Code::AlreadyExists,
        "ALREADY_EXISTS",
    );
    assert_eq!(problem.resource, Some(("namespace".to_owned(), "payments".to_owned())));
    // A shard of that name is something else.
    client.create_shard(create_shard(shard("payments"))).await.unwrap();
}

async fn a_repeated_call_answers_as_the_first(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let request = CreateNamespaceRequest {
        request_id: "8c5f0c1e".to_owned(),
        ..create(namespace("payments"))
    };
    let first = client.create_namespace(request.clone()).await.unwrap().into_inner();
    let changed = Namespace { description: "changed".to_owned(), ..namespace("payments") };
    client.update_namespace(update(changed, &["description"])).await.unwrap();
    let again = client.create_namespace(request.clone()).await.unwrap().into_inner();
    assert_eq!(again, first, "as it was then, not as it is now");

    // Another replica, or the next process, knows it too.
    registry.stop().await;
    let registry = database.start().await;
    let again = registry.client().create_namespace(request).await.unwrap().into_inner();
    assert_eq!(again, first);
    let mut client = registry.client();

    let mut request = update(
        Namespace { description: "once more".to_owned(), ..namespace("payments") },
        &["description"],
    );
    request.request_id = "update-1".to_owned();
    let first = client.update_namespace(request.clone()).await.unwrap().into_inner();
    let other = Namespace { description: "and again".to_owned(), ..namespace("payments") };
    client.update_namespace(update(other, &["description"])).await.unwrap();
    assert_eq!(client.update_namespace(request).await.unwrap().into_inner(), first);
    let now = client.get_namespace(get("payments")).await.unwrap().into_inner();
    assert_eq!(now.description, "and again");
}

async fn a_request_id_is_for_one_call(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let with_id = |namespace, id: &str| CreateNamespaceRequest {
        request_id: id.to_owned(),
        ..create(namespace)
    };
    client.create_namespace(with_id(namespace("one"), "same")).await.unwrap();
    let problem = refused(
        client.create_namespace(with_id(namespace("two"), "same")).await,
        Code::InvalidArgument,
        "REQUEST_ID_REUSED",
    );
    assert_eq!(problem.violations[0].field, "request_id");
    // Neither for another method.
    let mut other = update(namespace("one"), &[]);
    other.request_id = "same".to_owned();
    refused(client.update_namespace(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    for hostile in ["with space", "ümlaut", "\n", &"x".repeat(129)] {
        let answer = client.create_namespace(with_id(namespace("three"), hostile)).await;
        assert_eq!(problem_of(answer).violations[0].field, "request_id");
    }
    // A call that was refused is not remembered, so it may be mended and sent again.
    let wrong = Namespace { owners: vec![], ..namespace("three") };
    problem_of(client.create_namespace(with_id(wrong, "third")).await);
    client.create_namespace(with_id(namespace("three"), "third")).await.unwrap();
}

async fn validate_only_changes_nothing(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    client.create_namespace(create(namespace("taken"))).await.unwrap();
    let request = CreateNamespaceRequest {
        validate_only: true,
        request_id: "dry".to_owned(),
        ..create(namespace("payments"))
    };
    let would_be = client.create_namespace(request.clone()).await.unwrap().into_inner();
    assert_eq!(would_be.name, "payments");
    assert_eq!(client.get_namespace(get("payments")).await.unwrap_err().code(), Code::NotFound);
    // Everything is checked all the same.
    let overlapping = Namespace { prefixes: vec!["taken__x".to_owned()], ..namespace("other") };
    let request = CreateNamespaceRequest { validate_only: true, ..create(overlapping) };
    refused(client.create_namespace(request).await, Code::FailedPrecondition, "PREFIX_OVERLAP");
    // And the request id of a rehearsal is free for the call.
    let request =
        CreateNamespaceRequest { request_id: "dry".to_owned(), ..create(namespace("payments")) };
    client.create_namespace(request).await.unwrap();
    let mut request = update(Namespace { description: "x".into(), ..namespace("payments") }, &[]);
    request.validate_only = true;
    let would_be = client.update_namespace(request).await.unwrap().into_inner();
    assert_eq!(would_be.description, "x");
    assert_eq!(client.get_namespace(get("payments")).await.unwrap().into_inner().description, "");
}

async fn only_masked_fields_change(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let before =
        client.create_namespace(create(everything("payments"))).await.unwrap().into_inner();
    let wanted = Namespace {
        description: "new".to_owned(),
        placement: Some(PlacementRules { region: "us".to_owned(), ..Default::default() }),
        ..namespace("payments")
    };
    let request = update(wanted, &["description", "placement.region"]);
    let after = client.update_namespace(request).await.unwrap().into_inner();
    let mut expected = before.clone();
    expected.description = "new".to_owned();
    expected.placement.as_mut().unwrap().region = "us".to_owned();
    expected.etag = after.etag.clone();
    expected.revision = after.revision;
    expected.update_time = after.update_time;
    assert_eq!(after, expected);
    assert_ne!(after.etag, before.etag);
    assert_eq!(after.revision, before.revision + 1);

    let problem = problem_of(
        client.update_namespace(update(namespace("payments"), &["ownerz", "uid"])).await,
    );
    assert_eq!(problem.violations.len(), 1);
    assert_eq!(problem.violations[0].field, "update_mask.paths[0]");
    // What results is validated as a whole.
    let empty = Namespace { name: "payments".to_owned(), ..Namespace::default() };
    let problem = problem_of(client.update_namespace(update(empty.clone(), &["owners"])).await);
    assert_eq!(problem.violations[0].field, "namespace.owners");
    // Without a mask everything is replaced.
    let all =
        UpdateNamespaceRequest { namespace: Some(namespace("payments")), ..Default::default() };
    let after = client.update_namespace(all).await.unwrap().into_inner();
    assert!(after.placement.is_none() && after.labels.is_empty());
}

async fn an_etag_that_is_not_current_is_refused_with_the_current_one(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let first = client.create_namespace(create(namespace("payments"))).await.unwrap().into_inner();
    let with = |description: &str, etag: &str| {
        let namespace = Namespace {
            description: description.to_owned(),
            etag: etag.to_owned(),
            ..namespace("payments")
        };
        update(namespace, &["description"])
    };
    let second = client.update_namespace(with("two", &first.etag)).await.unwrap().into_inner();
    let problem = refused(
        client.update_namespace(with("three", &first.etag)).await,
        Code::Aborted,
        "ETAG_MISMATCH",
    );
    assert_eq!(problem.etag(), Some(second.etag.as_str()));
    client.update_namespace(with("three", &second.etag)).await.unwrap();
}

async fn an_update_that_changes_nothing_leaves_no_trace(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let first = client.create_namespace(create(namespace("payments"))).await.unwrap().into_inner();
    let again =
        client.update_namespace(update(namespace("payments"), &[])).await.unwrap().into_inner();
    assert_eq!(again, first);
    let audit = client.list_audit_events(ListAuditEventsRequest::default()).await.unwrap();
    assert_eq!(audit.into_inner().events.len(), 1);
}

async fn what_is_not_there_is_not_found(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let problem = refused(client.get_namespace(get("missing")).await, Code::NotFound, "NOT_FOUND");
    assert_eq!(problem.resource, Some(("namespace".to_owned(), "missing".to_owned())));
    let answer = client.update_namespace(update(namespace("missing"), &[])).await;
    refused(answer, Code::NotFound, "NOT_FOUND");
    let answer = client.get_shard(GetShardRequest { name: "missing".to_owned() }).await;
    refused(answer, Code::NotFound, "NOT_FOUND");
    problem_of(client.get_namespace(get("not a name")).await);
}

async fn shards_are_kept_the_same_way(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let wanted = Shard {
        region: "eu".to_owned(),
        failure_domain: "eu-1".to_owned(),
        taints: vec![common::Taint { key: "gpu".to_owned(), value: "only".to_owned() }],
        airflow_version: "3.3.2".to_owned(),
        size: "2xlarge".to_owned(),
        capacity: Some(common::Resources { dags: 9, ..Default::default() }),
        url: "https://airflow.example.net".to_owned(),
        ..shard("shard-a")
    };
    let created = client.create_shard(create_shard(wanted.clone())).await.unwrap().into_inner();
    assert_eq!((&created.size, &created.taints), (&wanted.size, &wanted.taints));
    let request = UpdateShardRequest {
        shard: Some(Shard { size: "small".to_owned(), ..shard("shard-a") }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["size".to_owned()] }),
        ..Default::default()
    };
    let updated = client.update_shard(request).await.unwrap().into_inner();
    assert_eq!((updated.size.as_str(), updated.region.as_str()), ("small", "eu"));
    let read = client.get_shard(GetShardRequest { name: "shard-a".to_owned() }).await.unwrap();
    assert_eq!(read.into_inner(), updated);
    let huge = Shard { size: "huge".to_owned(), ..shard("shard-b") };
    let problem = problem_of(client.create_shard(create_shard(huge)).await);
    assert_eq!(problem.violations[0].field, "shard.size");
}
