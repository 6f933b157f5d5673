//! Plans, explanations, room and simulation, with the real command against a real control plane.

mod common;

use common::{Bench, Fleet, namespace, repository};

/// A shard that is tainted, and one that is too small for anything.
const SPARE: &str = "\
apiVersion: airfleet.dev/v1
kind: Shard
metadata: {name: shard-c}
spec: {size: large}
";

const MORE: &str = "\
apiVersion: airfleet.dev/v1
kind: Shard
metadata: {name: shard-gpu}
spec:
  size: large
  taints: [{key: gpu}]
---
apiVersion: airfleet.dev/v1
kind: Shard
metadata: {name: shard-tiny}
spec:
  capacity: {dags: 1, runningSlots: 1}
";

#[test]
fn a_plan_is_made_shown_checked_cancelled_and_replayed() {
    let fleet = Fleet::with_shards();
    // Room for what leaves the shard that is drained.
    fleet.bench.write("spare.yaml", SPARE);
    fleet.run(&["apply", "-f", "spare.yaml"]).expect(0);
    let examples = repository("examples/fleet/namespaces");
    fleet.run(&["apply", "-f", examples.to_str().unwrap(), "--wait", "--timeout", "60"]).expect(0);

    let shards = fleet.run(&["shard", "list", "-o", "name"]).expect(0);
    let shard = shards.lines().next().unwrap().strip_prefix("shard/").unwrap().to_owned();
    let made = fleet.run(&["plan", "create", "drain-it", "--drain", &shard, "-o", "json"]);
    let plan = made.json(0);
    assert_eq!(
        (plan["state"].as_str(), plan["purpose"].as_str()),
        (Some("ready"), Some(&*format!("drain {shard}")))
    );
    let moves = plan["moves"].as_array().unwrap();
    assert!(!moves.is_empty() && moves.iter().all(|m| m["from"] == shard.as_str()));
    assert_eq!(plan["hash"].as_str().unwrap().len(), 64);
    let shown = fleet.run(&["plan", "show", "drain-it"]).expect(0);
    assert!(shown.contains("draining residue") && shown.contains("is being drained"), "{shown}");
    assert!(fleet.run(&["plan", "list"]).expect(0).contains("drain-it"));
    assert_eq!(fleet.run(&["plan", "diff", "drain-it"]).expect(0), "");
    let again = fleet.run(&["plan", "create", "drain-it"]).refusal();
    assert!(again.contains("names are used once"), "{again}");

    let dump = fleet.run(&["plan", "dump", "drain-it"]).expect(0);
    fleet.bench.write("plan.json", &dump);
    let replayed = fleet.run(&["simulate", "--replay", "plan.json"]).expect(0);
    assert!(replayed.contains("the same plan"), "{replayed}");
    assert!(replayed.contains(plan["hash"].as_str().unwrap()));
    fleet.bench.write("forged.json", &dump.replace("\"hash\":\"", "\"hash\":\"0"));
    assert!(fleet.run(&["simulate", "--replay", "forged.json"]).expect(2).contains("ANOTHER plan"));

    // Nobody can be asked here, so it has to be said.
    let unasked = fleet.run(&["plan", "apply", "drain-it"]).refusal();
    assert!(unasked.contains("--yes"), "{unasked}");
    let wrong = fleet.run(&["plan", "apply", "drain-it", "--hash", "00", "--yes"]).refusal();
    assert!(wrong.contains("look at it again"), "{wrong}");
    let cancelled = fleet.run(&["plan", "cancel", "drain-it", "--reason", "a test"]).expect(0);
    assert!(cancelled.starts_with("plan/drain-it cancelled: cancelled by"), "{cancelled}");
    let gone = fleet.run(&["plan", "apply", "drain-it", "--yes"]).refusal();
    assert!(gone.contains("cancelled"), "{gone}");
    let unknown = fleet.run(&["plan", "show", "no-such-plan"]).refusal();
    assert!(unknown.contains("airfleet plan list"), "{unknown}");

    // What would happen if half of the fleet were gone.
    let lost = fleet.run(&["plan", "create", "gone", "--what-if-lose", &shard, "-o", "json"]);
    let lost = serde_json::from_str::<serde_json::Value>(&lost.stdout).unwrap();
    assert_eq!(lost["hypothetical"], true);
    let applied = fleet.run(&["plan", "apply", "gone", "--yes"]).refusal();
    assert!(applied.contains("only says what would happen"), "{applied}");
    let one = fleet.run(&["plan", "diff", "gone", "drain-it"]);
    assert!(one.stdout.contains("peak after"), "{}", one.stdout);

    let frozen = fleet.run(&["rebalance", "freeze", "--reason", "audit"]).expect(0);
    assert!(frozen.contains("frozen by") && frozen.contains("audit"), "{frozen}");
    assert_eq!(fleet.run(&["rebalance", "status", "-o", "json"]).json(0)["frozen"], true);
    fleet.run(&["rebalance", "unfreeze"]).expect(0);
    assert_eq!(fleet.run(&["rebalance", "status", "-o", "json"]).json(0)["frozen"], false);
}

#[test]
fn why_a_namespace_is_where_it_is_and_what_would_help() {
    let fleet = Fleet::with_shards();
    fleet.bench.write("more.yaml", MORE);
    fleet.run(&["apply", "-f", "more.yaml"]).expect(0);
    let lonely = namespace("lonely").replace("spec:\n", "spec:\n  placement: {region: mars}\n");
    fleet.bench.write("all.yaml", &[namespace("pay"), lonely].join("---\n"));
    fleet.run(&["apply", "-f", "all.yaml"]).expect(0);

    let told = fleet.run(&["explain", "pay"]).expect(0);
    assert!(told.contains("pay is on ") && told.contains("that is best"), "{told}");
    assert!(told.contains("TAINT_NOT_TOLERATED") && told.contains("NO_ROOM"), "{told}");
    let told = fleet.run(&["explain", "lonely"]).expect(2);
    assert!(told.contains("lonely has no shard"), "{told}");
    assert!(told.contains("Binding: REGION_MISMATCH alone keeps out"), "{told}");
    assert!(told.contains("Without the region mars: "), "{told}");
    let json = fleet.run(&["explain", "lonely", "-o", "json"]).json(2);
    assert_eq!((json["verdict"].as_str(), json["eligible"].as_i64()), (Some("UNPLACED"), Some(0)));
    assert_eq!(json["obstacles"][0]["code"], "REGION_MISMATCH");
    assert!(!json["obstacles"][0]["fix"].as_str().unwrap().is_empty());
    assert!(fleet.run(&["explain", "nobody"]).refusal().contains("nobody"));

    let room = fleet.run(&["capacity", "-o", "json"]);
    let room = serde_json::from_str::<serde_json::Value>(&room.stdout).unwrap();
    let any = room["rooms"].as_array().unwrap().iter().find(|room| room["asks"] == "any").unwrap();
    assert!(any["fits"].as_i64().unwrap() > 0);
    let text = fleet.run(&["capacity"]).stdout;
    assert!(text.contains("IF LOST") && text.contains("N+1: "), "{text}");
}

#[test]
fn a_simulation_needs_no_fleet_and_gives_the_same_each_time() {
    let bench = Bench::new();
    let arguments = [
        "simulate",
        "--namespaces",
        "2000",
        "--shards",
        "20",
        "--days",
        "4",
        "--add-shards",
        "1:2",
        "--lose-zone",
        "2:region-0-zone-0",
        "--seed",
        "7",
        "-o",
        "json",
    ];
    let mut one = bench.run(&arguments).json(0);
    let mut other = bench.run(&[&arguments[..], &["--threads", "1"]].concat()).json(0);
    for days in [&mut one, &mut other] {
        for day in days.as_array_mut().unwrap() {
            day.as_object_mut().unwrap().remove("tookUs");
        }
    }
    assert_eq!(one, other);
    assert_eq!(one.as_array().unwrap().len(), 4);
    assert_eq!(one[2]["mode"], "emergency", "a zone was lost");
    assert_eq!(one[2]["after"][0], 0, "all of it was placed elsewhere");
    let text = bench.run(&["simulate", "--namespaces", "500", "--shards", "10"]).expect(0);
    assert!(text.contains("moves in 7 days"), "{text}");
}
