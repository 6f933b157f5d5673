//! Who changed what and when.

use airfleet_proto::registry::v1::*;
use prost_types::{Struct, value::Kind};
use tonic::{Code, Request};

use crate::support::*;

on_both_engines!(every_change_is_told_with_before_and_after, the_audit_is_filtered_and_paged);

fn text<'a>(document: &'a Struct, path: &[&str]) -> &'a str {
    let (last, outer) = path.split_last().unwrap();
    let mut fields = &document.fields;
    for name in outer {
        let Some(Kind::StructValue(inner)) = &fields[*name].kind else { panic!("{name}") };
        fields = &inner.fields;
    }
    let Some(Kind::StringValue(text)) = &fields[*last].kind else { panic!("{path:?}") };
    text
}

async fn every_change_is_told_with_before_and_after(database: Database) {
    let config = tokens_file(
        &database,
        &[("ann-token", "operator", ""), ("ci-token", "tenant", "namespaces = [\"pay*\"]")],
    );
    let registry = Registry::start(&config).await;
    let mut ann = registry.client_with_token(Some("ann-token"));
    let mut ci = registry.client_with_token(Some("ci-token"));
    let mut request = Request::new(create(namespace("payments")));
    request.metadata_mut().insert("x-request-id", "from-the-client".parse().unwrap());
    let created = ci.create_namespace(request).await.unwrap().into_inner();
    let changed = Namespace { description: "new".to_owned(), ..namespace("payments") };
    ann.update_namespace(update(changed, &["description"])).await.unwrap();
    let deletion = DeleteNamespaceRequest {
        name: "payments".to_owned(),
        force: true,
        reason: "team is gone".to_owned(),
        ..Default::default()
    };
    ann.delete_namespace(deletion).await.unwrap();

    let audit = ann.list_audit_events(ListAuditEventsRequest::default()).await.unwrap();
    let [deleted, updated, first] = audit.into_inner().events.try_into().unwrap();
    let actions = [&first, &updated, &deleted].map(|event| event.action.as_str());
    assert_eq!(actions, ["create", "update", "delete"]);
    let actors = [&first, &updated, &deleted].map(|event| event.actor.as_str());
    assert!(actors[0].contains("ci-token") && actors[1].contains("ann-token"), "{actors:?}");
    assert_eq!(first.request_id, "from-the-client");
    assert!(!updated.request_id.is_empty() && updated.request_id != deleted.request_id);
    assert_eq!(
        [first.revision, updated.revision, deleted.revision],
        [created.revision, created.revision + 1, created.revision + 2]
    );
    assert!(first.time.is_some() && first.before.is_none());
    assert_eq!((first.kind.as_str(), first.name.as_str()), ("namespace", "payments"));
    let after = first.after.as_ref().unwrap();
    assert_eq!(text(after, &["metadata", "name"]), "payments");
    assert_eq!(text(after, &["uid"]), created.uid);
    assert_eq!(updated.before, first.after);
    let after = updated.after.as_ref().unwrap();
    assert_eq!(text(after, &["metadata", "description"]), "new");
    assert_eq!(deleted.before, updated.after);
    assert_eq!((deleted.after.as_ref(), deleted.reason.as_str()), (None, "team is gone"));
}

async fn the_audit_is_filtered_and_paged(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    for round in 0..6 {
        let wanted = Namespace { description: format!("{round}"), ..namespace("busy") };
        let region = format!("r{round}");
        let entries = vec![entry(wanted), shard_entry(Shard { region, ..shard("busy") })];
        client.apply_manifest(apply(entries)).await.unwrap();
    }
    let mut count = async |kind: &str, name: &str, page_size: i32| {
        let mut request = ListAuditEventsRequest {
            kind: kind.to_owned(),
            name: name.to_owned(),
            page_size,
            ..Default::default()
        };
        let mut events = Vec::new();
        loop {
            let page = client.list_audit_events(request.clone()).await.unwrap().into_inner();
            events.extend(page.events);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert!(events.is_sorted_by_key(|event| std::cmp::Reverse(event.revision)));
        events.len()
    };
    assert_eq!(count("", "", 5).await, 12);
    assert_eq!(count("namespace", "", 4).await, 6);
    assert_eq!(count("shard", "busy", 1).await, 6);
    assert_eq!(count("", "busy", 0).await, 12);
    assert_eq!(count("namespace", "nobody", 0).await, 0);
    for request in [
        ListAuditEventsRequest { kind: "namespaces".to_owned(), ..Default::default() },
        ListAuditEventsRequest { name: "nul\0".to_owned(), ..Default::default() },
        ListAuditEventsRequest { page_token: "AAAA".to_owned(), ..Default::default() },
    ] {
        let answer = registry.client().list_audit_events(request).await;
        refused(answer, Code::InvalidArgument, "INVALID_ARGUMENT");
    }
}
