//! Bad input gets a clear error and costs nothing else.

use airfleet_proto::common::v1 as common;
use airfleet_proto::registry::v1::*;
use tonic::Code;

use crate::support::*;

on_both_engines!(hostile_texts_are_refused_or_kept_as_they_are, oversized_messages_are_refused);

async fn hostile_texts_are_refused_or_kept_as_they_are(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let texts = [
        "\0",
        "'; DROP TABLE registry_entries; --",
        "$1",
        "%_\\",
        "\u{202E}evil",
        "\u{FFFF}\u{10FFFF}",
        "../../etc/passwd",
        "{{7*7}}",
        &"x".repeat(100_000),
    ];
    for text in texts {
        let text = text.to_owned();
        // As a name it is refused, whatever is done with it.
        let named = Namespace { name: text.clone(), ..namespace("fine") };
        let invalid = Code::InvalidArgument;
        refused(client.create_namespace(create(named.clone())).await, invalid, "INVALID_ARGUMENT");
        refused(client.update_namespace(update(named, &[])).await, invalid, "INVALID_ARGUMENT");
        refused(client.get_namespace(get(&text)).await, invalid, "INVALID_ARGUMENT");
        let deletion = DeleteNamespaceRequest { name: text.clone(), ..Default::default() };
        refused(client.delete_namespace(deletion).await, invalid, "INVALID_ARGUMENT");
        // As a label, prefix, mask or token too.
        let labelled =
            Namespace { labels: [(text.clone(), text.clone())].into(), ..namespace("fine") };
        refused(client.create_namespace(create(labelled)).await, invalid, "INVALID_ARGUMENT");
        let prefixed = Namespace { prefixes: vec![text.clone()], ..namespace("fine") };
        refused_or_done(client.create_namespace(create(prefixed)).await);
        refused_or_done(client.update_namespace(update(namespace("fine"), &[&text])).await);
        let list = ListNamespacesRequest { page_token: text.clone(), ..Default::default() };
        refused(client.list_namespaces(list).await, invalid, "INVALID_ARGUMENT");
        let list = ListNamespacesRequest {
            selector: vec![common::SelectorRequirement {
                key: text.clone(),
                operator: 99,
                values: vec![text.clone()],
            }],
            ..Default::default()
        };
        refused(client.list_namespaces(list).await, invalid, "INVALID_ARGUMENT");
        // Where any text may stand, it stands as it is.
        let owned = ListNamespacesRequest { owner: text.clone(), ..Default::default() };
        refused_or_done(client.list_namespaces(owned).await);
        let named = ListAuditEventsRequest { name: text.clone(), ..Default::default() };
        refused_or_done(client.list_audit_events(named).await);
        if text.chars().count() <= 1000 {
            let told = entry(Namespace { description: text.clone(), ..namespace("told") });
            client.apply_manifest(apply(vec![told])).await.unwrap();
            let read = client.get_namespace(get("told")).await.unwrap().into_inner();
            assert_eq!(read.description, text);
        }
    }
    let mut watch = Watch::open(&mut client, 0).await;
    watch.next().await;
    assert!(watch.names().contains(&"told"));
}

/// Whatever it is, it is not a fault of the registry.
#[track_caller]
fn refused_or_done<T>(answer: Result<tonic::Response<T>, tonic::Status>) {
    if let Err(status) = answer {
        let known = [Code::InvalidArgument, Code::NotFound, Code::AlreadyExists];
        assert!(known.contains(&status.code()), "{status:?}");
    }
}

async fn oversized_messages_are_refused(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let huge = Namespace { description: "x".repeat(5 * 1024 * 1024), ..namespace("huge") };
    let status = client.create_namespace(create(huge)).await.unwrap_err();
    let known = [Code::ResourceExhausted, Code::OutOfRange];
    assert!(known.contains(&status.code()), "{status:?}");
    // Below the limit of messages, the limits of fields are told.
    let long = Namespace {
        description: "x".repeat(1_000_000),
        prefixes: (0..10_000).map(|n| format!("prefix_{n}__")).collect(),
        owners: (0..10_000).map(|n| format!("owner-{n}")).collect(),
        ..namespace("long")
    };
    let answer = client.create_namespace(create(long)).await;
    let problem = refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert!(problem.violations.len() >= 3, "{problem:?}");
    client.create_namespace(create(namespace("fine"))).await.unwrap();
}
