//! Pages and filters.

use airfleet_proto::common::v1::{SelectorOperator, SelectorRequirement};
use airfleet_proto::registry::v1::*;
use tonic::Code;

use crate::support::*;

on_both_engines!(
    pages_are_in_order_and_complete,
    labels_and_owners_select,
    tokens_belong_to_their_list,
    indexes_follow_the_entries,
    a_page_is_no_larger_than_a_message,
);

async fn fill(client: &mut Client) {
    let entries = (0..50).map(|n| {
        let mut wanted = namespace(&format!("team-{n:02}"));
        wanted.labels.insert("parity".to_owned(), ["even", "odd"][n % 2].to_owned());
        if n % 10 == 0 {
            wanted.labels.insert("tens".to_owned(), format!("{}", n / 10));
        }
        wanted.owners = vec![format!("owner-{}", n % 3), "everybody".to_owned()];
        entry(wanted)
    });
    client.apply_manifest(apply(entries.collect())).await.unwrap();
}

async fn all(client: &mut Client, mut request: ListNamespacesRequest) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let page = client.list_namespaces(request.clone()).await.unwrap().into_inner();
        assert!(page.namespaces.len() <= 1000);
        names.extend(page.namespaces.into_iter().map(|namespace| namespace.name));
        if page.next_page_token.is_empty() {
            return names;
        }
        request.page_token = page.next_page_token;
    }
}

async fn pages_are_in_order_and_complete(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    assert!(all(&mut client, ListNamespacesRequest::default()).await.is_empty());
    fill(&mut client).await;
    let expected: Vec<String> = (0..50).map(|n| format!("team-{n:02}")).collect();
    for page_size in [0, 1, 7, 49, 50, 51, 5000] {
        let request = ListNamespacesRequest { page_size, ..Default::default() };
        assert_eq!(all(&mut client, request).await, expected, "in pages of {page_size}");
    }
    let request = ListNamespacesRequest { page_size: 7, ..Default::default() };
    let page = client.list_namespaces(request).await.unwrap().into_inner();
    assert_eq!(page.namespaces.len(), 7);
    let request = ListNamespacesRequest { page_size: -1, ..Default::default() };
    let problem =
        refused(client.list_namespaces(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(problem.violations[0].field, "page_size");

    client.create_shard(create_shard(shard("shard-b"))).await.unwrap();
    client.create_shard(create_shard(shard("shard-a"))).await.unwrap();
    let page = client.list_shards(ListShardsRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = page.shards.iter().map(|shard| shard.name.as_str()).collect();
    assert_eq!(names, ["shard-a", "shard-b"]);
}

fn requirement(key: &str, operator: SelectorOperator, values: &[&str]) -> SelectorRequirement {
    SelectorRequirement {
        key: key.to_owned(),
        operator: operator.into(),
        values: values.iter().map(|&value| value.to_owned()).collect(),
    }
}

/// A selector, an owner, and which of the namespaces satisfy both.
type Case = (Vec<SelectorRequirement>, &'static str, Box<dyn Fn(usize) -> bool>);

async fn labels_and_owners_select(database: Database) {
    use SelectorOperator::{DoesNotExist, Exists, In, NotIn};
    let registry = database.start().await;
    let mut client = registry.client();
    fill(&mut client).await;
    let cases: [Case; 9] = [
        (vec![requirement("parity", In, &["odd"])], "", Box::new(|n| n % 2 == 1)),
        (vec![requirement("parity", NotIn, &["odd"])], "", Box::new(|n| n % 2 == 0)),
        (vec![requirement("tens", Exists, &[])], "", Box::new(|n| n % 10 == 0)),
        (vec![requirement("tens", DoesNotExist, &[])], "", Box::new(|n| n % 10 != 0)),
        (vec![requirement("tens", In, &["1", "3", "9"])], "", Box::new(|n| n == 10 || n == 30)),
        (vec![requirement("tens", NotIn, &["1"])], "", Box::new(|n| n != 10)),
        (vec![], "owner-1", Box::new(|n| n % 3 == 1)),
        (
            vec![requirement("parity", In, &["even"]), requirement("tens", Exists, &[])],
            "owner-2",
            Box::new(|n| n == 20),
        ),
        (vec![], "nobody", Box::new(|_| false)),
    ];
    for (selector, owner, expected) in cases {
        let expected: Vec<String> =
            (0..50).filter(|&n| expected(n)).map(|n| format!("team-{n:02}")).collect();
        for page_size in [3, 1000] {
            let (selector, owner) = (selector.clone(), owner.to_owned());
            let request =
                ListNamespacesRequest { page_size, selector, owner, ..Default::default() };
            assert_eq!(all(&mut client, request.clone()).await, expected, "{request:?}");
        }
    }
    let wrong = vec![
        requirement("parity", In, &[]),
        requirement("", Exists, &[]),
        requirement("tens", Exists, &["x"]),
        requirement("nul\0", In, &["\0"]),
    ];
    let request = ListNamespacesRequest { selector: wrong, ..Default::default() };
    let problem =
        refused(client.list_namespaces(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(problem.violations.len(), 5, "{problem:?}");
}

async fn tokens_belong_to_their_list(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    fill(&mut client).await;
    let request =
        ListNamespacesRequest { page_size: 5, owner: "owner-1".to_owned(), ..Default::default() };
    let page = client.list_namespaces(request.clone()).await.unwrap().into_inner();
    assert!(!page.next_page_token.contains("team"), "opaque: {}", page.next_page_token);
    let other = ListNamespacesRequest {
        page_token: page.next_page_token.clone(),
        owner: "owner-2".to_owned(),
        ..Default::default()
    };
    let problem =
        refused(client.list_namespaces(other).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(problem.violations[0].field, "page_token");
    let shards =
        ListShardsRequest { page_token: page.next_page_token.clone(), ..Default::default() };
    refused(client.list_shards(shards).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    // Another size is no other list; and what came in between does not matter.
    client.create_namespace(create(namespace("aaa-first"))).await.unwrap();
    let next = ListNamespacesRequest { page_token: page.next_page_token, page_size: 1, ..request };
    let page = client.list_namespaces(next).await.unwrap().into_inner();
    assert_eq!(page.namespaces[0].name, "team-16");
}

async fn indexes_follow_the_entries(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let mut wanted = namespace("payments");
    wanted.labels.insert("tier".to_owned(), "gold".to_owned());
    client.create_namespace(create(wanted.clone())).await.unwrap();
    wanted.labels.insert("tier".to_owned(), "silver".to_owned());
    wanted.owners = vec!["other".to_owned()];
    client.update_namespace(update(wanted, &["labels", "owners"])).await.unwrap();
    let mut find = async |tier: &str, owner: &str| {
        let selector = vec![requirement("tier", SelectorOperator::In, &[tier])];
        let owner = owner.to_owned();
        let request = ListNamespacesRequest { selector, owner, ..Default::default() };
        all(&mut client, request).await.len()
    };
    assert_eq!(find("gold", "").await, 0);
    assert_eq!(find("silver", "team").await, 0);
    assert_eq!(find("silver", "other").await, 1);
    let delete = DeleteNamespaceRequest {
        name: "payments".to_owned(),
        force: true,
        reason: "test".to_owned(),
        ..Default::default()
    };
    registry.client().delete_namespace(delete).await.unwrap();
    assert_eq!(find("silver", "other").await, 0);
}

async fn a_page_is_no_larger_than_a_message(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let heavy = |n: usize| {
        let labels = (0..64).map(|l| (format!("label-{l}-{}", "k".repeat(50)), "v".repeat(63)));
        entry(Namespace { labels: labels.collect(), ..namespace(&format!("heavy-{n:04}")) })
    };
    for start in (0..600).step_by(100) {
        let entries = (start..start + 100).map(heavy).collect();
        client.apply_manifest(apply(entries)).await.unwrap();
    }
    // The client decodes 4 MiB; all of them are more.
    let request = ListNamespacesRequest { page_size: 1000, ..Default::default() };
    let page = client.list_namespaces(request.clone()).await.unwrap().into_inner();
    assert!(page.namespaces.len() < 600 && !page.next_page_token.is_empty());
    assert_eq!(all(&mut client, request).await.len(), 600);
    let request = ListAuditEventsRequest { page_size: 1000, ..Default::default() };
    let page = client.list_audit_events(request).await.unwrap().into_inner();
    assert!(page.events.len() < 600 && !page.next_page_token.is_empty());
    let mut watch = Watch::open(&mut client, 0).await;
    watch.until(1).await;
    assert_eq!(watch.known.len(), 600);
}
