//! Applying many entries at once.

use airfleet_proto::common::v1 as common;
use airfleet_proto::registry::v1::*;
use tonic::Code;

use crate::support::*;

on_both_engines!(
    entries_become_as_given_and_each_outcome_is_told,
    all_or_nothing,
    repeating_answers_as_the_first_time,
    a_rehearsal_tells_what_would_change,
    what_is_wrong_is_named_by_entry,
    etags_in_entries_are_honoured,
    a_thousand_entries_are_one_revision,
);

fn described(name: &str, description: &str) -> ManifestEntry {
    entry(Namespace { description: description.to_owned(), ..namespace(name) })
}

fn outcomes(answer: &ApplyManifestResponse) -> Vec<(String, ApplyOutcome)> {
    let one = |result: &ApplyResult| {
        (name_of(result.entry.as_ref().unwrap()).to_owned(), result.outcome())
    };
    answer.results.iter().map(one).collect()
}

async fn entries_become_as_given_and_each_outcome_is_told(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let first = vec![described("one", ""), described("two", ""), shard_entry(shard("shard-a"))];
    let answer = client.apply_manifest(apply(first)).await.unwrap().into_inner();
    assert!(answer.results.iter().all(|result| result.before.is_none()));
    let revision = answer.revision;
    let second = vec![
        shard_entry(Shard { region: "eu".to_owned(), ..shard("shard-a") }),
        described("three", ""),
        described("one", ""),
        described("two", "changed"),
    ];
    let answer = client.apply_manifest(apply(second)).await.unwrap().into_inner();
    assert_eq!(answer.revision, revision + 1);
    let expected = [
        ("shard-a", ApplyOutcome::Updated),
        ("three", ApplyOutcome::Created),
        ("one", ApplyOutcome::Unchanged),
        ("two", ApplyOutcome::Updated),
    ];
    assert_eq!(outcomes(&answer), expected.map(|(name, outcome)| (name.to_owned(), outcome)));
    let Some(manifest_entry::Kind::Namespace(before)) =
        answer.results[3].before.clone().unwrap().kind
    else {
        panic!("a namespace")
    };
    assert_eq!((before.description.as_str(), before.revision), ("", revision));
    assert_eq!(answer.results[2].before, answer.results[2].entry);
    // Nothing at all is fine too, and changes nothing.
    let nothing = client.apply_manifest(apply(vec![])).await.unwrap().into_inner();
    assert_eq!((nothing.results.len(), nothing.revision), (0, revision + 1));
}

async fn all_or_nothing(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    client.create_namespace(create(namespace("taken"))).await.unwrap();
    let overlapping = Namespace { prefixes: vec!["taken__x".to_owned()], ..namespace("third") };
    let wanted = vec![described("first", ""), described("taken", "changed"), entry(overlapping)];
    refused(client.apply_manifest(apply(wanted)).await, Code::FailedPrecondition, "PREFIX_OVERLAP");
    assert_eq!(client.get_namespace(get("first")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.get_namespace(get("taken")).await.unwrap().into_inner().description, "");
}

async fn repeating_answers_as_the_first_time(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let before = vec![described("updated", "old"), described("unchanged", "same")];
    client.apply_manifest(apply(before)).await.unwrap();
    let wanted = ApplyManifestRequest {
        request_id: "run-1".to_owned(),
        ..apply(vec![
            described("created", ""),
            described("updated", "new"),
            described("unchanged", "same"),
        ])
    };
    let first = client.apply_manifest(wanted.clone()).await.unwrap().into_inner();
    // Everything moves on.
    let later = vec![
        described("created", "later"),
        described("updated", "later"),
        described("unchanged", "later"),
    ];
    client.apply_manifest(apply(later.clone())).await.unwrap();
    let again = client.apply_manifest(wanted.clone()).await.unwrap().into_inner();
    assert_eq!(again, first);
    let now = client.get_namespace(get("updated")).await.unwrap().into_inner();
    assert_eq!(now.description, "later", "it was not done a second time");
    let other = ApplyManifestRequest { entries: later, ..wanted };
    refused(client.apply_manifest(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

async fn a_rehearsal_tells_what_would_change(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    client.apply_manifest(apply(vec![described("there", "")])).await.unwrap();
    let wanted = ApplyManifestRequest {
        validate_only: true,
        ..apply(vec![described("there", "new"), described("fresh", "")])
    };
    let answer = client.apply_manifest(wanted).await.unwrap().into_inner();
    let expected = [("there", ApplyOutcome::Updated), ("fresh", ApplyOutcome::Created)];
    assert_eq!(outcomes(&answer), expected.map(|(name, outcome)| (name.to_owned(), outcome)));
    assert_eq!(client.get_namespace(get("there")).await.unwrap().into_inner().description, "");
    assert_eq!(client.get_namespace(get("fresh")).await.unwrap_err().code(), Code::NotFound);
}

async fn what_is_wrong_is_named_by_entry(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let wanted = vec![
        described("fine", ""),
        entry(Namespace { owners: vec![], ..namespace("no-owner") }),
        shard_entry(Shard { url: "ftp://x".to_owned(), ..shard("shard-a") }),
        described("fine", "twice"),
    ];
    let problem = refused(
        client.apply_manifest(apply(wanted)).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
    let fields: Vec<&str> = problem.violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["entries[1].namespace.owners", "entries[2].shard.url", "entries[3]"]);

    let unreadable = Namespace {
        placement: Some(PlacementRules {
            selector: vec![common::SelectorRequirement::default()],
            ..Default::default()
        }),
        ..namespace("unreadable")
    };
    let wanted = vec![
        ManifestEntry { kind: None },
        entry(unreadable),
        shard_entry(Shard { size: "huge".to_owned(), ..shard("shard-b") }),
    ];
    let problem = refused(
        client.apply_manifest(apply(wanted)).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
    let fields: Vec<&str> = problem.violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "entries[0].kind",
            "entries[1].namespace.placement.selector[0].operator",
            "entries[2].shard.size"
        ]
    );
}

async fn etags_in_entries_are_honoured(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let created =
        client.create_namespace(create(namespace("payments"))).await.unwrap().into_inner();
    let with = |description: &str, etag: &str| {
        entry(Namespace {
            description: description.to_owned(),
            etag: etag.to_owned(),
            ..namespace("payments")
        })
    };
    client.apply_manifest(apply(vec![with("one", &created.etag)])).await.unwrap();
    let answer = client.apply_manifest(apply(vec![with("two", &created.etag)])).await;
    let problem = refused(answer, Code::Aborted, "ETAG_MISMATCH");
    let now = client.get_namespace(get("payments")).await.unwrap().into_inner();
    assert_eq!(problem.etag(), Some(now.etag.as_str()));
}

async fn a_thousand_entries_are_one_revision(database: Database) {
    let registry = database.start().await;
    let mut client = registry.client();
    let wanted: Vec<_> = (0..1000).map(|n| described(&format!("team-{n:04}"), "")).collect();
    let first = client.apply_manifest(apply(wanted.clone())).await.unwrap().into_inner();
    assert_eq!(first.results.len(), 1000);
    let again = client.apply_manifest(apply(wanted.clone())).await.unwrap().into_inner();
    assert_eq!(again.revision, first.revision);
    let head = client.list_namespaces(ListNamespacesRequest::default()).await.unwrap();
    assert_eq!(head.into_inner().revision, first.revision);
    let mut more = wanted;
    more.push(described("one-too-many", ""));
    let problem = refused(
        client.apply_manifest(apply(more)).await,
        Code::InvalidArgument,
        "INVALID_ARGUMENT",
    );
    assert_eq!(problem.violations[0].field, "entries");

    // What would not fit the answer is refused, not done.
    let heavy: Vec<_> = (0..400)
        .map(|n| {
            let labels = (0..64).map(|l| (format!("label-{l}-{}", "k".repeat(50)), "v".repeat(63)));
            entry(Namespace { labels: labels.collect(), ..namespace(&format!("heavy-{n:04}")) })
        })
        .collect();
    refused(
        client.apply_manifest(apply(heavy)).await,
        Code::ResourceExhausted,
        "MESSAGE_TOO_LARGE",
    );
    assert_eq!(client.get_namespace(get("heavy-0000")).await.unwrap_err().code(), Code::NotFound);
}
