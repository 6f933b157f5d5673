//! Who may do what.

use airfleet_proto::registry::v1::*;
use tonic::Code;

use crate::support::*;

async fn registry(database: &Database) -> Registry {
    let config = tokens_file(
        database,
        &[
            ("viewer", "viewer", ""),
            ("tenant", "tenant", "namespaces = [\"payments\", \"ml-*\"]"),
            ("operator", "operator", ""),
            ("admin", "admin", ""),
            ("agent", "agent", "shard = \"shard-a\""),
        ],
    );
    Registry::start(&config).await
}

fn code<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn roles_decide_what_may_be_done() {
    let database = sqlite();
    let registry = registry(&database).await;
    registry
        .client_with_token(Some("admin"))
        .create_namespace(create(namespace("payments")))
        .await
        .unwrap();
    let (ok, no) = (Code::Ok, Code::PermissionDenied);
    for (token, read, own, foreign, shards) in [
        ("viewer", ok, no, no, no),
        ("tenant", ok, ok, no, no),
        ("operator", ok, ok, ok, ok),
        ("admin", ok, ok, ok, ok),
        ("agent", no, no, no, no),
    ] {
        let mut client = registry.client_with_token(Some(token));
        assert_eq!(code(client.get_namespace(get("payments")).await), read, "{token}");
        let list = client.list_namespaces(ListNamespacesRequest::default()).await;
        assert_eq!(code(list), read, "{token}");
        let audit = client.list_audit_events(ListAuditEventsRequest::default()).await;
        assert_eq!(code(audit), read, "{token}");
        let watch = client.watch_manifest(WatchManifestRequest::default()).await;
        assert_eq!(code(watch), read, "{token}");

        let name = format!("ml-{token}");
        assert_eq!(code(client.create_namespace(create(namespace(&name))).await), own, "{token}");
        let changed = Namespace { description: token.to_owned(), ..namespace("payments") };
        let answer = client.update_namespace(update(changed, &["description"])).await;
        assert_eq!(code(answer), own, "{token}");
        let name = format!("other-{token}");
        let answer = client.create_namespace(create(namespace(&name))).await;
        assert_eq!(code(answer), foreign, "{token}");
        let both = vec![entry(namespace("payments")), entry(namespace(&name))];
        assert_eq!(code(client.apply_manifest(apply(both)).await), foreign, "{token}");
        let answer = client.create_shard(create_shard(shard(&format!("shard-{token}")))).await;
        assert_eq!(code(answer), shards, "{token}");
        let mixed = vec![entry(namespace("payments")), shard_entry(shard("shard-x"))];
        assert_eq!(code(client.apply_manifest(apply(mixed)).await), shards, "{token}");
    }
}

#[tokio::test]
async fn who_is_not_known_is_refused_whatever_the_call() {
    let database = sqlite();
    let registry = registry(&database).await;
    for token in [None, Some("wrong"), Some("Viewer")] {
        let mut client = registry.client_with_token(token);
        let answer = client.get_namespace(get("payments")).await;
        assert_eq!(code(answer), Code::Unauthenticated, "{token:?}");
        let answer = client.create_namespace(create(namespace("payments"))).await;
        assert_eq!(code(answer), Code::Unauthenticated, "{token:?}");
        let answer = client.watch_manifest(WatchManifestRequest::default()).await;
        assert_eq!(code(answer), Code::Unauthenticated, "{token:?}");
    }
}

#[tokio::test]
async fn a_tenant_cannot_force_and_request_ids_are_ones_own() {
    let database = sqlite();
    let registry = registry(&database).await;
    let mut tenant = registry.client_with_token(Some("tenant"));
    let mut operator = registry.client_with_token(Some("operator"));
    let request =
        CreateNamespaceRequest { request_id: "1".to_owned(), ..create(namespace("payments")) };
    tenant.create_namespace(request.clone()).await.unwrap();
    // The answer to somebody else's call is not given away.
    refused(operator.create_namespace(request).await, Code::AlreadyExists, "ALREADY_EXISTS");
    let deletion = DeleteNamespaceRequest {
        name: "payments".to_owned(),
        force: true,
        reason: "mine".to_owned(),
        ..Default::default()
    };
    refused(
        tenant.delete_namespace(deletion.clone()).await,
        Code::PermissionDenied,
        "PERMISSION_DENIED",
    );
    operator.delete_namespace(deletion).await.unwrap();
}
