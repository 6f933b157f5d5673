//! No dag_id belongs to two namespaces.

use airfleet_proto::registry::v1::*;
use tonic::Code;

use crate::support::*;

on_both_engines!(
    overlaps_are_refused_and_the_other_is_named,
    a_prefix_may_pass_from_one_to_another_in_one_apply,
    of_many_that_claim_one_prefix_at_once_one_gets_it,
);

fn with_prefixes(name: &str, prefixes: &[&str]) -> Namespace {
    Namespace {
        prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
        ..namespace(name)
    }
}

async fn overlaps_are_refused_and_the_other_is_named(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let owner = with_prefixes("owner", &["pay.eu.", "pay.eu.cards", "météo_", "zzz"]);
    client.create_namespace(create(owner)).await.unwrap();
    // Neighbours in the order of bytes that have nothing to do with it.
    let noise = ["pay.a", "pay.eu", "pay.et", "pay.ev.", "payments__", "mét", "metéo_x", "zz_"];
    for (index, prefix) in noise.iter().enumerate().filter(|(_, p)| **p != "pay.eu" && **p != "mét")
    {
        let other = with_prefixes(&format!("noise-{index}"), &[prefix]);
        client.create_namespace(create(other)).await.unwrap();
    }
    for (prefix, other) in [
        ("pay.eu.", "pay.eu."),
        ("pay.eu.x", "pay.eu."),
        ("pay.eu.cards.visa", "pay.eu."),
        ("pay.eu", "pay.eu."),
        ("météo_paris", "météo_"),
        ("mét", "météo_"),
        ("zzzz", "zzz"),
    ] {
        let wanted = with_prefixes("wanting", &["harmless__", prefix]);
        let problem = refused(
            client.create_namespace(create(wanted)).await,
            Code::FailedPrecondition,
            "PREFIX_OVERLAP",
        );
        assert_eq!(problem.metadata["namespace"], "owner", "{prefix}");
        let [condition] = problem.preconditions.as_slice() else { panic!("{problem:?}") };
        assert_eq!(condition.kind, "PREFIX_OVERLAP");
        let text = &condition.description;
        let names = [format!("{prefix:?}"), "\"owner\"".to_owned(), other.to_owned()];
        assert!(names.iter().all(|name| text.contains(name)), "{prefix}: {text}");
    }
    assert_eq!(client.get_namespace(get("wanting")).await.unwrap_err().code(), Code::NotFound);

    // What was refused left nothing behind; and its own prefixes are in nobody's way.
    client.create_namespace(create(with_prefixes("wanting", &["harmless__"]))).await.unwrap();
    let nested = with_prefixes("owner", &["pay.eu.", "pay.eu.x", "zzz"]);
    client.update_namespace(update(nested, &["prefixes"])).await.unwrap();
    // What was given up is free.
    client.create_namespace(create(with_prefixes("weather", &["météo_"]))).await.unwrap();
    // An update is checked as a creation is.
    let greedy = with_prefixes("weather", &["météo_", "pay"]);
    let problem = refused(
        client.update_namespace(update(greedy, &["prefixes"])).await,
        Code::FailedPrecondition,
        "PREFIX_OVERLAP",
    );
    assert!(!problem.preconditions.is_empty());
}

async fn a_prefix_may_pass_from_one_to_another_in_one_apply(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    client.create_namespace(create(with_prefixes("old", &["a__", "b__"]))).await.unwrap();
    client.create_namespace(create(with_prefixes("new", &["c__"]))).await.unwrap();
    let moved =
        vec![entry(with_prefixes("new", &["c__", "b__"])), entry(with_prefixes("old", &["a__"]))];
    client.apply_manifest(apply(moved)).await.unwrap();
    // Two new ones that claim the same are refused, whichever comes first.
    let both = vec![
        entry(with_prefixes("one", &["d__x"])),
        entry(with_prefixes("two", &["d__"])),
        entry(with_prefixes("three", &["b__y"])),
    ];
    let problem = refused(
        client.apply_manifest(apply(both)).await,
        Code::FailedPrecondition,
        "PREFIX_OVERLAP",
    );
    assert_eq!(problem.preconditions.len(), 2, "{problem:?}");
    assert_eq!(client.get_namespace(get("two")).await.unwrap_err().code(), Code::NotFound);
}

async fn of_many_that_claim_one_prefix_at_once_one_gets_it(database: Database) {
    // Two replicas where there can be two.
    let first = database.start().await;
    let second = if database.is_postgres { Some(database.start().await) } else { None };
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..16 {
        let replica = second.as_ref().filter(|_| index % 2 == 1).unwrap_or(&first);
        let mut client = replica.client();
        // Each overlaps with all others, none equals another.
        let prefix = format!("shared{}", "_".repeat(index));
        tasks.spawn(async move {
            let wanted = with_prefixes(&format!("claimant-{index}"), &[&prefix]);
            client.create_namespace(create(wanted)).await
        });
    }
    let mut won = 0;
    while let Some(answer) = tasks.join_next().await {
        match answer.unwrap() {
            Ok(_) => won += 1,
            answer => {
                refused(answer, Code::FailedPrecondition, "PREFIX_OVERLAP");
            }
        }
    }
    assert_eq!(won, 1);
}
