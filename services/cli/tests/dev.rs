//! `airfleet dev` itself: it keeps its state, holds its folder, and stops when asked.

mod common;

use common::{Fleet, namespace};

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut fleet = Fleet::with_shards();
    fleet.bench.write("pay.yaml", &namespace("pay"));
    fleet.run(&["apply", "-f", "pay.yaml", "--wait"]).expect(0);
    let before = fleet.run(&["resolve", "pay.x", "-o", "json"]).json(0);
    fleet.kill();
    fleet.restart();
    let after = fleet.run(&["resolve", "pay.x", "-o", "json"]).json(0);
    for field in ["namespace", "shard", "generation"] {
        assert_eq!(before[field], after[field]);
    }
    assert_eq!(fleet.run(&["apply", "-f", "pay.yaml"]).expect(0), "namespace/pay unchanged\n");
}

#[test]
fn a_folder_has_one_fleet_at_a_time() {
    let mut fleet = Fleet::start();
    let second = ["dev", "--shards", "0", "--registry-port", "0", "--router-port", "0"];
    let refusal = fleet.run(&second).refusal();
    assert!(refusal.contains("is held by another `airfleet dev` (process "), "{refusal}");
    assert!(refusal.contains("--dir"), "{refusal}");
    assert!(fleet.stop().success());
    // Nothing is left that would mislead the next command.
    assert!(!fleet.bench.path("ready.json").exists());
    assert!(!fleet.bench.path(".airfleet/config.toml").exists());
    assert!(fleet.bench.path(".airfleet/registry.db").exists());
}

#[test]
fn a_port_in_use_is_told_with_the_flag_that_helps() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let bench = common::Bench::new();
    let refusal = bench.run(&["dev", "--shards", "0", "--registry-port", &port]).refusal();
    assert!(refusal.contains(&format!("127.0.0.1:{port}")), "{refusal}");
    assert!(refusal.contains("--registry-port 0"), "{refusal}");
}
