//! The demo, as `make demo` runs it once everything is built: two real Airflow shards.

mod common;

use std::process::Command;

use airfleet_local::Stack;
use common::repository;

#[test]
fn the_demo_shows_what_it_promises_and_leaves_nothing_behind() {
    let output = Command::new(repository("scripts/demo.sh"))
        .env("AIRFLEET_BIN", env!("CARGO_BIN_EXE_airfleet"))
        .env("AIRFLEET_DEMO_PACE", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let told = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    let (_, summary) = text.split_once("== Summary").unwrap_or_else(|| panic!("{told}"));
    let figure = |name: &str| -> u64 {
        let line = summary.lines().find_map(|line| line.trim().strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name}: {told}"))
    };
    assert_eq!(figure("namespaces registered and assigned"), 57, "{told}");
    assert_eq!(figure("dag_ids resolved"), 305, "{told}");
    assert_eq!(figure("assignment changes seen by the watch"), 2, "{told}");
    assert_eq!(figure("processes left running"), 0, "{told}");
    if Stack::installed() == Stack::Celery {
        let moved = "the namespace moved                              from shard-";
        assert!(summary.contains(moved), "{told}");
    }
}
