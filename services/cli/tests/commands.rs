//! The commands against a control plane: what they print, what they change, how they exit.

mod common;

use common::{Bench, Fleet, Lines, namespace, repository};

#[test]
fn the_example_fleet_is_applied_listed_and_resolved() {
    let fleet = Fleet::with_shards();
    let examples = repository("examples/fleet/namespaces");
    let examples = examples.to_str().unwrap();
    let text = fleet.run(&["apply", "-f", examples, "--wait", "--timeout", "60"]).expect(0);
    assert!(text.contains("55 namespaces: 55 created\n"), "{text}");
    assert!(text.contains("55 of 55 namespaces assigned: "), "{text}");
    let again = fleet.run(&["apply", "-f", examples]).expect(0);
    assert!(again.ends_with("55 namespaces: 55 unchanged\n"), "{again}");

    let names = fleet.run(&["ns", "list", "-o", "name"]).expect(0);
    assert_eq!(names.lines().count(), 55);
    let name = names.lines().next().unwrap().strip_prefix("namespace/").unwrap().to_owned();
    let list = fleet.run(&["namespace", "list", "-o", "json"]).json(0);
    assert_eq!(list["kind"], "NamespaceList");
    let placed = |item: &serde_json::Value| item["status"]["assignment"]["shard"].is_string();
    assert!(list["items"].as_array().unwrap().iter().all(placed));

    let dag_id = format!("{name}.some-dag");
    let one = fleet.run(&["resolve", &dag_id, "-o", "json"]).json(0);
    assert_eq!(one["namespace"], name.as_str());
    assert_eq!(one["state"], "Assigned");
    let by_shard =
        fleet.run(&["ns", "list", "--shard", one["shard"].as_str().unwrap(), "-o", "name"]);
    assert!(by_shard.expect(0).contains(&format!("namespace/{name}\n")));
}

#[test]
fn what_happened_and_what_runs_where_is_shown() {
    let fleet = Fleet::with_shards();
    fleet.bench.write("pay.yaml", &namespace("pay"));
    fleet.run(&["apply", "-f", "pay.yaml", "--wait"]).expect(0);
    let events = fleet.run(&["ns", "events", "pay", "-o", "json"]).json(0);
    let codes: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|event| &event["code"]).collect();
    assert_eq!(codes, ["MANIFEST_CREATED", "ASSIGNED"]);
    let shard = events["items"][1]["shard"].as_str().unwrap();
    let table = fleet.run(&["ns", "events", "pay"]).expect(0);
    assert!(table.contains("registered by") && table.contains(shard), "{table}");
    let warnings = fleet.run(&["ns", "events", "pay", "--warnings"]);
    assert!(warnings.stderr.contains("Nothing is known to have happened"), "{}", warnings.stderr);

    // No agent says anything, so nothing is reached.
    let json = fleet.run(&["ns", "get", "pay", "-o", "json"]).json(0);
    let role = &json["status"]["roles"][0];
    assert_eq!((&role["desiredRole"], &role["reached"]), (&"Active".into(), &false.into()));
    let described = fleet.run(&["ns", "describe", "pay", "-o", "json"]).json(0);
    assert_eq!(described["status"]["roles"][0]["shard"], shard);
    assert_eq!(described["events"][1]["code"], "ASSIGNED");
    let text = fleet.run(&["ns", "describe", "pay"]).expect(0);
    assert!(text.contains("\nRoles\n  Shard:  ") && text.contains("?→Active"), "{text}");
    let wide = fleet.run(&["ns", "list", "-o", "wide"]).expect(0);
    assert!(wide.contains("RELEASE") && wide.contains("?→Active"), "{wide}");
    let releases = fleet.run(&["ns", "releases", "--attention", "-o", "json"]).json(0);
    assert_eq!(releases["items"][0]["namespace"], "pay");
    let elsewhere = if shard == "shard-a" { "shard-b" } else { "shard-a" };
    let none = fleet.run(&["ns", "releases", "--shard", elsewhere]);
    assert!(none.stderr.contains("No shard has a namespace"), "{}", none.stderr);
    let shown = fleet.run(&["shard", "describe", shard]).expect(0);
    assert!(shown.contains("0 of 1 reached") && shown.contains("agent away"), "{shown}");
    let refusal = fleet.run(&["ns", "events", "never"]).refusal();
    assert!(refusal.contains("airfleet namespace list"), "{refusal}");
}

#[test]
fn lists_are_filtered_by_label_and_owner() {
    let fleet = Fleet::with_shards();
    let other = namespace("search").replace("kind: test", "kind: other");
    let text = [namespace("pay"), other].join("---\n");
    fleet.bench.write("all.yaml", &text);
    fleet.run(&["apply", "-f", "all.yaml"]).expect(0);
    let listed = |arguments: &[&str]| {
        let all = [&["ns", "list", "-o", "name"], arguments].concat();
        fleet.run(&all).expect(0)
    };
    assert_eq!(listed(&["-l", "kind=test"]), "namespace/pay\n");
    assert_eq!(listed(&["-l", "kind in (other,more),!missing"]), "namespace/search\n");
    assert_eq!(listed(&["-l", "kind!=test"]), "namespace/search\n");
    assert_eq!(listed(&["--owner", "team-pay"]), "namespace/pay\n");
    let none = fleet.run(&["ns", "list", "--owner", "nobody"]);
    assert!(none.stderr.contains("No namespaces match"), "{}", none.stderr);
    none.expect(0);
}

#[test]
fn a_dry_run_changes_nothing_and_diff_tells_by_its_exit_code() {
    let fleet = Fleet::with_shards();
    let file = fleet.bench.write("pay.yaml", &namespace("pay"));
    let dry = fleet.run(&["apply", "-f", &file, "--dry-run"]).expect(0);
    assert_eq!(dry, "namespace/pay created (dry run)\n");
    assert_eq!(fleet.run(&["ns", "list", "-o", "name"]).expect(0), "");

    let new = fleet.run(&["diff", "-f", &file]).expect(2);
    assert!(new.starts_with("--- /dev/null\n+++ pay.yaml:1 namespace/pay\n"), "{new}");
    fleet.run(&["apply", "-f", &file]).expect(0);
    assert_eq!(fleet.run(&["diff", "-f", &file]).expect(0), "");

    fleet.bench.write("pay.yaml", &namespace("pay").replace("dags: 3", "dags: 4"));
    let changed = fleet.run(&["diff", "-f", &file]).expect(2);
    assert!(changed.contains("\n-    dags: 3\n+    dags: 4\n"), "{changed}");
    assert_eq!(fleet.run(&["apply", "-f", &file]).expect(0), "namespace/pay configured\n");
}

#[test]
fn what_is_printed_can_be_applied_again() {
    let fleet = Fleet::with_shards();
    let both = [namespace("pay"), namespace("search")].join("---\n");
    assert_eq!(
        fleet.bench.run_with(&["apply", "-f", "-", "--wait"], &both).expect(0).lines().count(),
        4
    );
    let yaml = fleet.run(&["ns", "list", "-o", "yaml"]).expect(0);
    assert!(yaml.contains("assignment:"), "{yaml}");
    let again = fleet.bench.run_with(&["apply", "-f", "-", "-o", "json"], &yaml).json(0);
    assert_eq!(again["summary"]["unchanged"], 2);
}

#[test]
fn wrong_input_is_told_at_its_place_before_anything_is_sent() {
    let bench = Bench::new();
    bench.write("a.yaml", &namespace("pay").replace("owners", "owner"));
    bench.write("b.yaml", &namespace("search").replace("search.", "se arch"));
    let refusal = bench.run(&["apply", "-f", "."]).refusal();
    assert!(refusal.contains("./a.yaml:5:3: "), "{refusal}");
    assert!(refusal.contains("owner"), "{refusal}");
    // Nobody listens here, so it cannot have been sent.
    assert!(refusal.contains("nothing was sent"), "{refusal}");
    bench.write("a.yaml", &namespace("pay"));
    let refusal = bench.run(&["apply", "-f", "a.yaml", "-f", "b.yaml"]).refusal();
    assert!(refusal.contains("b.yaml:6:14: namespace/search: spec.prefixes[0]: "), "{refusal}");
}

#[test]
fn what_the_registry_refuses_is_told_at_its_place() {
    let fleet = Fleet::with_shards();
    fleet.bench.write("pay.yaml", &namespace("pay"));
    fleet.run(&["apply", "-f", "pay.yaml"]).expect(0);
    let text = [namespace("other"), namespace("pay-eu").replace("pay-eu.]", "ok.x, pay.eu.]")];
    fleet.bench.write("more.yaml", &text.join("---\n"));
    let refusal = fleet.run(&["apply", "-f", "more.yaml"]).refusal();
    assert!(refusal.contains("more.yaml:14:20: namespace/pay-eu: spec.prefixes[1]: "), "{refusal}");
    assert!(refusal.contains("\"pay\""), "the owner of the prefix is named: {refusal}");
    assert!(refusal.contains("request id: "), "{refusal}");
    assert_eq!(fleet.run(&["ns", "list", "-o", "name"]).expect(0), "namespace/pay\n");
}

#[test]
fn nobody_there_says_how_to_start_one() {
    let bench = Bench::new();
    let away = ["--registry", "http://127.0.0.1:1", "--router", "http://127.0.0.1:1"];
    let refusal = bench.run(&[&["ns", "list"], &away[..]].concat()).refusal();
    assert!(refusal.starts_with("error: cannot list namespaces: "), "{refusal}");
    assert!(refusal.contains("airfleet dev"), "{refusal}");
    assert!(refusal.contains("http://127.0.0.1:1"), "{refusal}");
    let status = bench.run(&[&["status"], &away[..]].concat());
    assert!(status.stdout.contains("not reachable"), "{}", status.stdout);
    status.refusal();
}

#[test]
fn names_that_do_not_exist_get_the_name_that_was_meant() {
    let fleet = Fleet::with_shards();
    fleet.bench.write("pay.yaml", &namespace("payments"));
    fleet.run(&["apply", "-f", "pay.yaml"]).expect(0);
    for (arguments, meant) in [
        (["ns", "get", "paymnets"], "did you mean \"payments\"?"),
        (["ns", "delete", "pay"], "did you mean \"payments\"?"),
        (["shard", "cordon", "shard-aa"], "did you mean \"shard-a\"?"),
        (["shard", "describe", "nothing"], "`airfleet shard list`"),
    ] {
        let refusal = fleet.run(&arguments).refusal();
        assert!(refusal.contains(meant), "{arguments:?}: {refusal}");
    }
}

#[test]
fn what_no_shard_owns_exits_with_two() {
    let fleet = Fleet::with_shards();
    let demanding = namespace("huge").replace("dags: 3", "dags: 5000");
    fleet.bench.write("all.yaml", &[namespace("pay"), demanding].join("---\n"));
    let text = fleet.run(&["apply", "-f", "all.yaml", "--wait", "--timeout", "2s"]).expect(2);
    assert!(text.contains("1 of 2 namespaces assigned"), "{text}");
    assert!(text.contains("huge"), "{text}");

    let names = fleet.run(&["resolve", "pay.a", "pay.b", "ghost.c", "-o", "name"]).expect(2);
    assert_eq!(names.lines().last(), Some("<none>"));
    assert!(names.starts_with("shard/shard-"), "{names}");
    let table = fleet.run(&["resolve", "huge.x"]).expect(2);
    assert!(table.contains("Unplaced"), "{table}");
    let from_stdin =
        fleet.bench.run_with(&["resolve", "-f", "-"], "pay.a\n\n# no\npay.b\n").expect(0);
    assert_eq!(from_stdin.lines().count(), 3);
    let by_namespace = fleet.run(&["resolve", "--namespace", "pay", "-o", "json"]).json(0);
    assert_eq!(by_namespace["namespace"], "pay");
    let unplaced = fleet.run(&["ns", "list", "--unplaced", "-o", "name"]).expect(0);
    assert_eq!(unplaced, "namespace/huge\n");
}

#[test]
fn a_watch_sees_changes_and_outlives_the_control_plane() {
    let mut fleet = Fleet::with_shards();
    fleet.bench.write("pay.yaml", &namespace("pay"));
    let watch = Lines::of(fleet.bench.command(&["watch", "-o", "json", "--count", "3"]));
    let snapshot = watch.next_json();
    assert_eq!((&snapshot["type"], &snapshot["namespaces"]), (&"snapshot".into(), &0.into()));
    fleet.run(&["apply", "-f", "pay.yaml", "--wait"]).expect(0);
    let change = watch.next_json();
    assert_eq!(change["type"], "change");
    assert_eq!(change["namespace"], "pay");
    assert!(change["before"].is_null());
    let shard = change["after"]["shard"].as_str().unwrap().to_owned();

    fleet.run(&["ns", "pin", "pay", &shard, "--reason", "stays"]).expect(0);
    assert_eq!(watch.next_json()["after"]["pinnedShard"], shard.as_str());

    fleet.kill();
    fleet.restart();
    fleet.run(&["ns", "unpin", "pay"]).expect(0);
    let change = watch.next_json();
    assert_eq!(change["before"]["pinnedShard"], shard.as_str());
    assert!(change["after"]["pinnedShard"].is_null());
    assert!(watch.end().success());
}

#[test]
fn watches_end_by_themselves_when_they_are_told_to() {
    let fleet = Fleet::with_shards();
    let text = fleet.run(&["watch", "--until-idle=200ms"]).expect(0);
    assert!(text.starts_with("At revision "), "{text}");
    let refusal = fleet.run(&["watch", "--count", "1", "--timeout", "1s"]).refusal();
    assert!(refusal.contains("saw 0 of 1 changes within 1s"), "{refusal}");
}

#[test]
fn shards_are_cordoned_described_and_deleted() {
    let fleet = Fleet::with_shards();
    let done = fleet.run(&["shard", "cordon", "shard-a", "--reason", "upgrade"]).expect(0);
    assert_eq!(done, "shard/shard-a cordoned\n");
    let described = fleet.run(&["shard", "describe", "shard-a"]).expect(0);
    assert!(described.contains("upgrade"), "{described}");
    fleet.bench.write("pay.yaml", &namespace("pay"));
    fleet.run(&["apply", "-f", "pay.yaml", "--wait"]).expect(0);
    assert_eq!(fleet.run(&["resolve", "pay.x", "-o", "name"]).expect(0), "shard/shard-b\n");
    let refusal = fleet.run(&["shard", "delete", "shard-b"]).refusal();
    assert!(refusal.contains("shard-b"), "{refusal}");
    assert!(refusal.contains("hint: "), "{refusal}");
    assert_eq!(
        fleet.run(&["shard", "uncordon", "shard-a"]).expect(0),
        "shard/shard-a uncordoned\n"
    );
    assert_eq!(fleet.run(&["shard", "delete", "shard-a"]).expect(0), "shard/shard-a deleted\n");
    let list = fleet.run(&["shard", "list", "-o", "json"]).json(0);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["status"]["state"]["namespaces"], 1);
}

#[test]
fn namespaces_are_described_and_deleted() {
    let fleet = Fleet::with_shards();
    fleet.bench.write("pay.yaml", &namespace("pay"));
    fleet.run(&["apply", "-f", "pay.yaml", "--wait"]).expect(0);
    let described = fleet.run(&["ns", "describe", "pay"]).expect(0);
    for part in ["Prefixes:", "pay.", "Assigned", "Events", "MANIFEST_CREATED"] {
        assert!(described.contains(part), "{part}: {described}");
    }
    let without_reason = fleet.run(&["ns", "delete", "pay", "--force"]).refusal();
    assert!(without_reason.contains("--reason"), "{without_reason}");
    let dry = fleet.run(&["ns", "delete", "pay", "--dry-run"]).expect(0);
    assert_eq!(dry, "namespace/pay deleted (dry run)\n");
    fleet.run(&["resolve", "pay.x"]).expect(0);
    assert_eq!(fleet.run(&["ns", "delete", "pay"]).expect(0), "namespace/pay deleted\n");
    fleet.run(&["ns", "delete", "pay", "--ignore-not-found"]).expect(0);
    fleet.run(&["resolve", "pay.x"]).expect(2);
}

#[test]
fn what_the_manifest_forgot_is_shown_as_long_as_a_shard_owns_it() {
    let mut fleet = Fleet::with_shards();
    let file = fleet.bench.write("pay.yaml", &namespace("pay"));
    fleet.run(&["apply", "-f", &file, "--wait", "--timeout", "60"]).expect(0);
    let orphans = |fleet: &Fleet| fleet.run(&["ns", "list", "--orphaned", "-o", "name"]).expect(0);
    assert_eq!(orphans(&fleet), "");

    // The registry's database is lost, as after a restore of an older one.
    assert!(fleet.stop().success());
    for entry in std::fs::read_dir(fleet.bench.path(".airfleet")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("registry.db") {
            std::fs::remove_file(path).unwrap();
        }
    }
    fleet.restart();
    let deadline = std::time::Instant::now() + common::LIMIT;
    while orphans(&fleet) != "namespace/pay\n" {
        assert!(std::time::Instant::now() < deadline, "it is not shown");
    }
    let table = fleet.run(&["ns", "list"]).expect(0);
    assert!(table.contains("Orphaned"), "{table}");
    let text = fleet.run(&["ns", "describe", "pay"]).expect(0);
    assert!(text.contains("no longer has it; apply its YAML"), "{text}");
    let document = fleet.run(&["ns", "get", "pay", "-o", "json"]).json(0);
    assert_eq!(document["status"]["orphaned"], true);
    assert_eq!(document["spec"]["prefixes"][0], "pay.");
    let shard = document["status"]["assignment"]["shard"].as_str().unwrap();

    // Declared again, it is where it was.
    fleet.run(&["apply", "-f", &file, "--wait", "--timeout", "60"]).expect(0);
    assert_eq!(orphans(&fleet), "");
    let again = fleet.run(&["ns", "get", "pay", "-o", "json"]).json(0);
    assert_eq!(again["status"]["assignment"]["shard"], shard);
    assert_eq!(again["status"]["assignment"]["generation"], 1);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let bench = Bench::new();
    let mut command = bench.command(&[]);
    let program = command.get_program().to_owned();
    command = std::process::Command::new("bash");
    let script = "\"$0\" completion bash | head -1 >/dev/null; echo ${PIPESTATUS[0]}";
    let output = command.args(["-c", script]).arg(program).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn usage_is_explained_and_other_habits_are_met() {
    let bench = Bench::new();
    let help = bench.run(&[]);
    assert_eq!(help.code, 0);
    assert!(format!("{}{}", help.stdout, help.stderr).contains("Examples:"));
    let refusal = bench.run(&["get", "namespaces"]).refusal();
    assert!(refusal.contains("airfleet namespace list"), "{refusal}");
    let refusal = bench.run(&["ns", "list", "--selektor", "x"]).refusal();
    assert!(refusal.contains("--selector"), "{refusal}");
}

#[test]
fn settings_say_where_they_come_from() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path(".airfleet")).unwrap();
    bench.write(".airfleet/config.toml", "[router]\nendpoints = [\"http://127.0.0.1:9\"]\n");
    let mut command = bench.command(&["config", "view", "--show-origin", "--ca", "ca.pem"]);
    let output = command.env("AIRFLEET__TOKEN", "hunter2").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("# file .airfleet/config.toml"), "{text}");
    assert!(text.contains("# env AIRFLEET__TOKEN"), "{text}");
    assert!(text.contains("# flag --ca"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let wrong = bench.command(&["status"]).env("AIRFLEET__REGISTY__CA", "x").output().unwrap();
    let text = String::from_utf8_lossy(&wrong.stderr);
    assert!(text.contains("did you mean registry"), "{text}");
}
