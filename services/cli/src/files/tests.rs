use std::fs;

use super::*;
use crate::screen::Paint;

const SHARD: &str = "apiVersion: airfleet.dev/v1\nkind: Shard\nmetadata: {name: shard-a}\n";

fn namespace(name: &str, prefixes: &str) -> String {
    format!(
        "apiVersion: airfleet.dev/v1\nkind: Namespace\nmetadata: {{name: {name}}}\nspec:\n  \
         owners: [team]\n  prefixes: {prefixes}\n"
    )
}

fn from_stdin(text: &str) -> Result<Manifest> {
    read(&["-".to_owned()], true, text.as_bytes())
}

fn refusal(text: &str) -> String {
    from_stdin(text).expect_err("the text is wrong").render(Paint::PLAIN)
}

fn ids(manifest: &Manifest) -> Vec<String> {
    manifest.items.iter().map(Item::id).collect()
}

#[test]
fn folders_are_read_in_order_with_shards_first() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("b.yaml", &namespace("bbb", "[b__.]"));
    write("a.yml", &namespace("aaa", "[a__.]"));
    write("deep/er/shard.YAML", SHARD);
    write(
        "deep/c.json",
        r#"{"apiVersion": "airfleet.dev/v1", "kind": "Namespace", "metadata": {"name": "ccc"},
            "spec": {"owners": ["team"], "prefixes": ["c__."]}}"#,
    );
    write("notes.txt", "not: [a manifest");
    write(".hidden.yaml", "not: [a manifest");
    write(".git/x.yaml", "not: [a manifest");
    let names = [folder.path().display().to_string()];
    let all = read(&names, true, io::empty()).unwrap();
    assert_eq!(ids(&all), ["shard/shard-a", "namespace/aaa", "namespace/bbb", "namespace/ccc"]);
    let flat = read(&names, false, io::empty()).unwrap();
    assert_eq!(ids(&flat), ["namespace/aaa", "namespace/bbb"]);
}

#[test]
fn every_yaml_problem_has_its_place() {
    let text = format!("{SHARD}  lables: {{}}\n---\nkind: Shard\n---\n{SHARD}");
    let refusal = refusal(&text);
    assert!(refusal.contains("<stdin>:4:"), "{refusal}");
    assert!(refusal.contains("<stdin>:6:1: apiVersion is missing"), "{refusal}");
    assert!(refusal.contains("nothing was sent"), "{refusal}");
}

#[test]
fn violations_point_at_the_field_in_the_words_of_the_file() {
    let text = format!("{SHARD}---\n{}", namespace("pay", "[pay.ments, 'a b']"));
    let refusal = refusal(&text);
    assert!(
        refusal.contains(
            "<stdin>:10:25: namespace/pay: spec.prefixes[1]: prefix \"a b\" is not valid"
        ),
        "{refusal}"
    );
}

#[test]
fn an_entry_given_twice_names_both_places() {
    let refusal = refusal(&format!("{SHARD}---\n{SHARD}"));
    assert!(refusal.contains("<stdin>:7:18: shard/shard-a: metadata.name"), "{refusal}");
    assert!(refusal.contains("first at <stdin>:1"), "{refusal}");
}

#[test]
fn overlapping_prefixes_name_the_other_namespace() {
    let text = [
        namespace("pay", "[pay., other.]"),
        namespace("pay-eu", "[zzz., pay.eu.]"),
        namespace("pay-us", "[pay__us.]"),
    ]
    .join("---\n");
    let refusal = refusal(&text);
    assert!(
        refusal.contains("namespace/pay-eu: spec.prefixes[1]: \"pay.eu.\" starts with \"pay.\""),
        "{refusal}"
    );
    assert!(refusal.contains("namespace/pay at <stdin>:1"), "{refusal}");
    assert!(!refusal.contains("pay-us"), "{refusal}");
}

#[test]
fn one_namespace_may_nest_its_own_prefixes() {
    assert!(from_stdin(&namespace("pay", "[pay., pay.eu.]")).is_ok());
}

#[test]
fn paths_of_the_api_become_paths_of_the_file() {
    for (field, path) in [
        ("name", "metadata.name"),
        ("labels[a_b/c_d]", "metadata.labels[a_b/c_d]"),
        ("demand.task_starts_per_hour", "spec.demand.taskStartsPerHour"),
        ("placement.selector[0].key", "spec.placement.selector[0].key"),
        ("failure_domain", "spec.failureDomain"),
    ] {
        assert_eq!(yaml_path(field), path);
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let message = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        read(&names, true, io::empty()).expect_err("nothing to read").render(Paint::PLAIN)
    };
    assert!(
        message(&["/nonexistent.yaml"]).contains("cannot read /nonexistent.yaml: No such file")
    );
    assert!(message(&["https://x.example/f.yaml"]).contains("curl -fsS"));
    assert!(message(&["-", "-"]).contains("once"));
    assert!(message(&["-"]).contains("no manifest entries"));
    let invalid = read(&["-".into()], true, &b"a: 1\n\xff"[..]).unwrap_err();
    assert_eq!(invalid.to_string(), "standard input:2: is not UTF-8 text");
}
