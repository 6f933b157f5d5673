//! No pool, variable or connection is two namespaces'.

use airfleet_proto::{
    common::v1::{Connection, Pool, Variable},
    registry::v1::*,
};
use tonic::Code;

use crate::support::*;

on_both_engines!(
    what_another_has_is_refused_and_the_other_is_named,
    a_pool_may_pass_from_one_to_another_in_one_apply,
    of_many_that_claim_one_pool_at_once_one_gets_it,
);

fn with_pools(name: &str, pools: &[&str]) -> Namespace {
    let pool = |name: &&str| Pool { name: (*name).to_owned(), slots: 1, ..Default::default() };
    Namespace { pools: pools.iter().map(pool).collect(), ..namespace(name) }
}

fn variable(key: &str, secret: &str) -> Variable {
    Variable { key: key.to_owned(), secret: secret.to_owned() }
}

fn connection(id: &str, secret: &str) -> Connection {
    Connection { id: id.to_owned(), secret: secret.to_owned() }
}

async fn what_another_has_is_refused_and_the_other_is_named(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let owner = Namespace {
        variables: vec![variable("rate", "rate"), variable("shared", "")],
        connections: vec![connection("warehouse", "warehouse.uri"), connection("lake", "")],
        ..with_pools("owner", &["etl", "grosse"])
    };
    client.create_namespace(create(owner)).await.unwrap();
    for (wanted, code, what) in [
        (with_pools("wanting", &["fine", "grosse"]), "POOL_TAKEN", "pool \"grosse\""),
        (
            Namespace { variables: vec![variable("rate", "x")], ..namespace("wanting") },
            "VARIABLE_TAKEN",
            "variable \"rate\"",
        ),
        (
            Namespace { connections: vec![connection("warehouse", "x")], ..namespace("wanting") },
            "CONNECTION_TAKEN",
            "connection \"warehouse\"",
        ),
    ] {
        let answer = client.create_namespace(create(wanted)).await;
        let problem = refused(answer, Code::FailedPrecondition, code);
        assert_eq!(problem.metadata["namespace"], "owner");
        let [condition] = problem.preconditions.as_slice() else { panic!("{problem:?}") };
        assert_eq!(condition.kind, code);
        assert!(condition.description.starts_with(what), "{}", condition.description);
        assert!(condition.description.contains("\"owner\""), "{}", condition.description);
    }
    // What was refused left nothing behind. What a shard's secrets backend has is nobody's, and
    // the names of pools, variables and connections have nothing to do with one another.
    let fine = Namespace {
        variables: vec![variable("shared", ""), variable("etl", "x"), variable("rate", "")],
        connections: vec![connection("lake", ""), connection("rate", "x")],
        ..with_pools("wanting", &["fine", "rate"])
    };
    client.create_namespace(create(fine)).await.unwrap();
    // An update is checked as a creation is, and its own names are in nobody's way.
    let resized = with_pools("wanting", &["rate", "fine", "other"]);
    client.update_namespace(update(resized, &["pools"])).await.unwrap();
    let greedy = with_pools("wanting", &["etl"]);
    refused(
        client.update_namespace(update(greedy.clone(), &["pools"])).await,
        Code::FailedPrecondition,
        "POOL_TAKEN",
    );
    // What was given up is free.
    client.update_namespace(update(with_pools("owner", &["grosse"]), &["pools"])).await.unwrap();
    client.update_namespace(update(greedy, &["pools"])).await.unwrap();
    client.update_namespace(update(with_pools("owner", &[]), &["pools"])).await.unwrap();
    client.create_namespace(create(with_pools("third", &["grosse"]))).await.unwrap();
}

async fn a_pool_may_pass_from_one_to_another_in_one_apply(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    client.create_namespace(create(with_pools("old", &["one", "two"]))).await.unwrap();
    client.create_namespace(create(with_pools("new", &["three"]))).await.unwrap();
    let moved =
        vec![entry(with_pools("new", &["three", "two"])), entry(with_pools("old", &["one"]))];
    client.apply_manifest(apply(moved)).await.unwrap();
    // Two new ones that claim the same are refused, and so is what is another's already.
    let both = vec![
        entry(with_pools("aaa", &["four"])),
        entry(with_pools("bbb", &["four"])),
        entry(with_pools("ccc", &["two"])),
    ];
    let problem =
        refused(client.apply_manifest(apply(both)).await, Code::FailedPrecondition, "POOL_TAKEN");
    assert_eq!(problem.preconditions.len(), 2, "{problem:?}");
    assert_eq!(client.get_namespace(get("aaa")).await.unwrap_err().code(), Code::NotFound);
}

async fn of_many_that_claim_one_pool_at_once_one_gets_it(database: Database) {
    // Two replicas where there can be two.
    let first = database.start().await;
    let second = if database.is_postgres { Some(database.start().await) } else { None };
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..12 {
        let replica = second.as_ref().filter(|_| index % 2 == 1).unwrap_or(&first);
        let mut client = replica.client();
        tasks.spawn(async move {
            let wanted = with_pools(&format!("claimant-{index}"), &["shared"]);
            client.create_namespace(create(wanted)).await
        });
    }
    let mut won = 0;
    while let Some(answer) = tasks.join_next().await {
        match answer.unwrap() {
            Ok(_) => won += 1,
            answer => {
                refused(answer, Code::FailedPrecondition, "POOL_TAKEN");
            }
        }
    }
    assert_eq!(won, 1);
}
