use super::*;
use crate::labels::Operator;

const PAYMENTS: &str = r#"# a comment
apiVersion: airfleet.dev/v1
kind: Namespace
metadata:
  name: payments
  labels: {tier: gold}
spec:
  owners: [team-payments]
  prefixes: ["payments.", payments__]
  demand: {dags: 12, taskStartsPerHour: 40}
  placement:
    selector:
      - {key: tier, operator: In, values: [gold, silver]}
    airflowVersion: ">=3.0, <4"
  source: {uri: "git+https://git.example.net/dags.git", ref: main}
---
apiVersion: airfleet.dev/v1
kind: Shard
metadata: {name: shard-a}
---
"#;

fn namespace(change: impl FnOnce(&mut Namespace)) -> Namespace {
    let mut namespace = Namespace {
        metadata: Metadata { name: "payments".into(), ..Metadata::default() },
        spec: NamespaceSpec {
            owners: vec!["team".into()],
            prefixes: vec!["payments.".into()],
            ..NamespaceSpec::default()
        },
    };
    change(&mut namespace);
    namespace
}

fn problem(text: &str) -> Problem {
    let mut problems = parse(text).expect_err("the text is wrong");
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn documents_are_read_and_written_back() {
    let entries = parse(PAYMENTS).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].line, 1);
    assert_eq!(entries[1].line, 17);
    let Entry::Namespace(payments) = &entries[0].entry else { panic!("a namespace comes first") };
    assert_eq!(payments.validate(), []);
    assert_eq!(payments.spec.placement.selector[0].operator, Operator::In);
    for located in &entries {
        let again = parse(&to_yaml(&located.entry)).unwrap();
        assert_eq!(again[0].entry, located.entry);
    }
}

#[test]
fn a_status_is_passed_over() {
    for shard in [
        "apiVersion: airfleet.dev/v1\nkind: Shard\nmetadata: {name: shard-a}\n",
        "apiVersion: airfleet.dev/v1\nkind: Namespace\nmetadata: {name: pay}\nspec: {owners: [a], prefixes: [pay.]}\n",
    ] {
        let with = format!("{shard}status: {{uid: x, state: {{health: [1, 2]}}}}\n");
        assert_eq!(parse(&with).unwrap(), parse(shard).unwrap());
    }
}

#[test]
fn separators_in_every_place_are_understood() {
    let shard = "apiVersion: airfleet.dev/v1\nkind: Shard\nmetadata: {name: shard-a}\n";
    for (text, count) in [
        (String::new(), 0),
        ("---\n".to_owned(), 0),
        ("---".to_owned(), 0),
        (format!("---\n{shard}"), 1),
        (format!("{shard}---"), 1),
        (format!("{shard}--- # next\n{shard}---\n---\n{shard}"), 3),
        (format!("{shard}  # --- not a marker\n"), 1),
    ] {
        assert_eq!(parse(&text).unwrap().len(), count, "{text:?}");
    }
}

#[test]
fn unknown_fields_are_refused_with_their_place() {
    let text = PAYMENTS.replace("  demand:", "  demands:");
    let problem = problem(&text);
    assert_eq!((problem.line, problem.column), (10, 3), "{problem}");
    assert!(problem.message.contains("demands"), "{problem}");
    assert!(problem.message.contains("demand"), "{problem}");
}

#[test]
fn places_count_from_the_start_of_the_file() {
    let text = format!(
        "{PAYMENTS}apiVersion: airfleet.dev/v1\nkind: Shard\nmetadata:\n  name: shard-b\n  lables: {{}}\n"
    );
    let problem = problem(&text);
    assert_eq!((problem.line, problem.column), (25, 3), "{problem}");
}

#[test]
fn wrong_headers_say_what_is_right() {
    assert!(problem("kind: Namespace\n").message.contains("apiVersion: airfleet.dev/v1"));
    assert!(problem("apiVersion: v2\nkind: Shard\n").message.contains("airfleet.dev/v1"));
    assert!(
        problem("apiVersion: airfleet.dev/v1\nkind: Pod\n").message.contains("Namespace or Shard")
    );
    assert!(problem("apiVersion: airfleet.dev/v1\n").message.contains("kind is missing"));
    assert!(problem("just text\n").line >= 1);
    assert!(problem("a: [1\n").line >= 1);
}

#[test]
fn every_document_with_a_problem_is_named() {
    let text = "kind: Shard\n---\napiVersion: x\n---\n".to_owned() + PAYMENTS;
    let lines: Vec<u64> = parse(&text).unwrap_err().iter().map(|p| p.line).collect();
    assert_eq!(lines, [1, 3]);
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let level =
        |n: usize| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "));
    let text = format!("a0: &a0 [x]\n{}", (1..12).map(level).collect::<String>());
    assert!(parse(&text).is_err());
}

#[test]
fn a_good_namespace_has_no_violation() {
    assert_eq!(namespace(|_| {}).validate(), []);
}

#[test]
fn all_violations_are_found_at_once() {
    let bad = namespace(|n| {
        n.metadata.name = "No".into();
        n.metadata.labels.insert("bad key".into(), "bad value!".into());
        n.spec.owners.clear();
        n.spec.prefixes = vec!["ok.".into(), "a b".into(), "ok.".into()];
        n.spec.demand.dags = -1;
        n.spec.placement.airflow_version = "newest".into();
        n.spec.source =
            Some(Source { uri: "ftp://x".into(), reference: "main".into(), ..Source::default() });
    });
    let found: Vec<(String, &str)> =
        bad.validate().into_iter().map(|v| (v.field, v.code)).collect();
    let expected = [
        ("name", "INVALID_NAME"),
        ("labels[bad key]", "INVALID_LABEL_KEY"),
        ("labels[bad key]", "INVALID_LABEL_VALUE"),
        ("owners", "REQUIRED"),
        ("prefixes[1]", "INVALID_PREFIX"),
        ("prefixes[2]", "DUPLICATE"),
        ("demand.dags", "OUT_OF_RANGE"),
        ("placement.airflow_version", "INVALID_VERSION_RANGE"),
        ("source.uri", "INVALID_URI"),
        ("source.ref", "NOT_ALLOWED"),
    ];
    assert_eq!(found, expected.map(|(field, code)| (field.to_owned(), code)));
}

#[test]
fn selectors_must_make_sense() {
    use crate::labels::Requirement;
    let requirement = |operator, values: &[&str]| Requirement {
        key: "zone".into(),
        operator,
        values: values.iter().map(ToString::to_string).collect(),
    };
    let codes = |r: Requirement| -> Vec<&'static str> {
        namespace(|n| n.spec.placement.selector = vec![r])
            .validate()
            .iter()
            .map(|v| v.code)
            .collect()
    };
    assert_eq!(codes(requirement(Operator::In, &["a"])), [""; 0]);
    assert_eq!(codes(requirement(Operator::In, &[])), ["REQUIRED"]);
    assert_eq!(codes(requirement(Operator::Exists, &["a"])), ["NOT_ALLOWED"]);
}

#[test]
fn secrets_do_not_belong_in_the_manifest() {
    let with = namespace(|n| {
        n.spec.source = Some(Source {
            uri: "git+https://bot:hunter2@git.example.net/x".into(),
            reference: String::new(),
            ..Source::default()
        });
    });
    let violations = with.validate();
    assert_eq!(violations[0].code, "SECRET");
    assert!(!violations[0].message.contains("hunter2"));
}

#[test]
fn sizes_are_bounded_before_they_are_looked_at() {
    let bad = namespace(|n| {
        n.spec.prefixes = (0..100_000).map(|i| format!("p{i}__")).collect();
        n.spec.owners = (0..17).map(|i| format!("team-{i}")).collect();
        n.metadata.description = "x".repeat(1001);
    });
    let codes: Vec<&str> = bad.validate().iter().map(|v| v.code).collect();
    assert_eq!(codes, ["TOO_LONG", "TOO_MANY", "TOO_MANY"]);
}

#[test]
fn a_shard_states_its_capacity_by_class_or_number() {
    let mut shard = Shard::default();
    shard.metadata.name = "shard-a".into();
    assert_eq!(shard.validate(), []);
    assert_eq!(shard.spec.capacity().dags, 200);
    shard.spec.size = Some(Size::XXLarge);
    shard.spec.capacity.dags = 300;
    assert_eq!((shard.spec.capacity().dags, shard.spec.capacity().running_slots), (300, 80));
    shard.spec.url = "ftp://x".into();
    shard.spec.airflow_version = "3".into();
    let codes: Vec<&str> = shard.validate().iter().map(|v| v.code).collect();
    assert_eq!(codes, ["INVALID_VERSION", "INVALID_URI"]);
}

#[test]
fn a_workload_that_is_wrong_is_told_field_by_field() {
    let wrong = namespace(|namespace| {
        let spec = &mut namespace.spec;
        spec.guardrails.modes.insert("AF1".into(), Enforcement::Warn);
        spec.guardrails.retries = RetriesRule { default: Some(9), max: Some(5) };
        spec.guardrails.execution_timeout =
            ExecutionTimeoutRule { default_seconds: 7200, max_seconds: 3600 };
        spec.source = Some(Source {
            uri: "git+https://git.example.net/x".into(),
            reference: "--upload-pack=x".into(),
            path: "../x".into(),
        });
        spec.pools = vec![
            Pool { name: "default_pool".into(), slots: 4, ..Pool::default() },
            Pool { name: "a b".into(), slots: -2, ..Pool::default() },
        ];
        spec.variables = vec![Variable { key: "k".into(), secret: "../../etc/passwd".into() }];
        let secret = "postgres://u:p@db/x".into();
        spec.connections = vec![Connection { id: "c".into(), secret }];
        spec.retention = Some(Retention { keep_days: 0, schedule: "soon".into() });
    });
    let found: Vec<_> = wrong.validate().into_iter().map(|v| (v.field, v.code)).collect();
    let found: Vec<_> = found.iter().map(|(field, code)| (field.as_str(), *code)).collect();
    assert_eq!(
        found,
        [
            ("guardrails.modes[AF1]", "INVALID_CODE"),
            ("guardrails.execution_timeout.default_seconds", "OUT_OF_RANGE"),
            ("guardrails.retries.default", "OUT_OF_RANGE"),
            ("source.ref", "INVALID_TEXT"),
            ("source.path", "INVALID_PATH"),
            ("pools[0].name", "NOT_ALLOWED"),
            ("pools[1].name", "INVALID_NAME"),
            ("pools[1].slots", "OUT_OF_RANGE"),
            ("variables[0].secret", "INVALID_PATH"),
            ("connections[0].secret", "SECRET"),
            ("retention.keep_days", "OUT_OF_RANGE"),
            ("retention.schedule", "INVALID_CRON"),
        ]
    );
}
