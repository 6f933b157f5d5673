use airfleet_domain::manifest::{self, Entry};
use airfleet_proto::router::v1::AssignmentState;

use super::{report::Report, wait::Waited, *};
use crate::{
    document::{Assignment, Kept, state_name},
    screen::Paint,
};

fn applied(name: &str, outcome: Outcome) -> Applied {
    let kind = if name.starts_with("shard") { "Shard" } else { "Namespace" };
    let spec = if kind == "Shard" { "{}" } else { "{owners: [team], prefixes: [pay.]}" };
    let text = format!(
        "apiVersion: airfleet.dev/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    );
    let after: Entry = manifest::parse(&text).unwrap().remove(0).entry;
    let kept = Kept {
        uid: "u1".into(),
        etag: "e1".into(),
        revision: 4,
        create_time: None,
        update_time: None,
    };
    Applied { item: 0, outcome, before: None, after, kept }
}

fn waited(namespace: &str, shard: &str, reason: &str) -> Waited {
    let state =
        if shard.is_empty() { AssignmentState::Unplaced } else { AssignmentState::Assigned };
    let assignment = Assignment {
        namespace: namespace.into(),
        shard: shard.into(),
        state: state_name(state),
        reason: reason.into(),
        ..Assignment::default()
    };
    Waited { namespace: namespace.into(), assignment: Some(assignment) }
}

#[test]
fn the_summary_counts_kinds_and_outcomes() {
    let all = [
        applied("shard-a", Outcome::Created),
        applied("pay", Outcome::Created),
        applied("search", Outcome::Unchanged),
    ];
    assert_eq!(report::summary(&all, false), "2 namespaces and 1 shard: 2 created, 1 unchanged");
    assert_eq!(
        report::summary(&all[1..2], true),
        "1 namespace: 1 created; nothing was changed (dry run)"
    );
    assert_eq!(
        report::line("namespace/pay", Outcome::Configured, true),
        "namespace/pay configured (dry run)"
    );
}

#[test]
fn where_namespaces_went_and_why_some_did_not() {
    let timeout = Duration::from_mins(1);
    let all =
        [waited("aaa", "shard-a", ""), waited("bbb", "shard-b", ""), waited("ccc", "shard-a", "")];
    assert_eq!(
        report::assigned(&all, timeout, Paint::PLAIN),
        "3 of 3 namespaces assigned: 2 to shard-a, 1 to shard-b\n"
    );
    let some = [
        waited("aaa", "shard-a", ""),
        waited("bbb", "", "no shard has room for 900 DAGs"),
        Waited { namespace: "ccc".into(), assignment: None },
    ];
    assert_eq!(
        report::assigned(&some, timeout, Paint::PLAIN),
        "\
1 of 3 namespaces assigned: 1 to shard-a
2 namespaces without a shard after 60s:
  NAMESPACE   STATE      WHY
  bbb         Unplaced   no shard has room for 900 DAGs
  ccc         Pending    the router has not seen it yet
They are tried again whenever the fleet changes; `airfleet shard list` shows the room.
"
    );
}

#[test]
fn scripts_get_the_documents() {
    let report = Report::new(
        vec![applied("pay", Outcome::Created)],
        vec![waited("pay", "shard-a", "")],
        9,
        false,
    );
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["kind"], "ApplyReport");
    assert_eq!(value["summary"]["created"], 1);
    assert_eq!(value["items"][0]["outcome"], "created");
    assert_eq!(value["items"][0]["object"]["metadata"]["name"], "pay");
    assert_eq!(value["items"][0]["object"]["status"]["assignment"]["shard"], "shard-a");
}
