//! The YAML under `examples/` is what the product accepts, and the example fleet fits the shards
//! that its README promises.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use airfleet_domain::{
    ids::Prefix,
    labels::Labels,
    manifest::{Entry, Namespace, Size, parse},
    placement::{Candidate, Constraints, LeastLoaded, Placer, Request},
    resources::Resources,
};

/// Projects in the table that the fleet is derived from.
const PROJECTS: usize = 55;

/// No namespace is without a shard.
const NOBODY: &[String] = &[];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// Every entry of a file, well formed and without a violation.
fn entries(path: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(path).unwrap();
    let located =
        parse(&text).unwrap_or_else(|problems| panic!("{}: {problems:?}", path.display()));
    let entries: Vec<Entry> = located.into_iter().map(|located| located.entry).collect();
    for entry in &entries {
        assert_eq!(entry.validate(), [], "{}", path.display());
    }
    entries
}

/// The namespaces of the fleet, by name, which is that of the file.
fn fleet() -> BTreeMap<String, Namespace> {
    let mut fleet = BTreeMap::new();
    for file in fs::read_dir(examples().join("fleet/namespaces")).unwrap() {
        let path = file.unwrap().path();
        let [Entry::Namespace(namespace)] = &entries(&path)[..] else {
            panic!("{} holds something else than one namespace", path.display());
        };
        assert_eq!(path.file_stem().unwrap().to_str(), Some(&*namespace.metadata.name));
        fleet.insert(namespace.metadata.name.clone(), namespace.clone());
    }
    assert_eq!(fleet.len(), PROJECTS);
    fleet
}

fn empty_shard(name: &str, capacity: Resources) -> Candidate {
    Candidate {
        name: name.parse().unwrap(),
        labels: Labels::new(),
        taints: Vec::new(),
        region: String::new(),
        failure_domain: String::new(),
        airflow_version: None,
        capacity,
        reserved: Resources::ZERO,
        closed: Vec::new(),
        group_members: 0,
    }
}

/// Places the namespaces one after the other, and gives the names of those that found no shard.
fn place(namespaces: &BTreeMap<String, Namespace>, shards: &mut [Candidate]) -> Vec<String> {
    let mut unplaced = Vec::new();
    for (name, namespace) in namespaces {
        let constraints = Constraints::try_from(&namespace.spec.placement).unwrap();
        let demand = namespace.spec.demand;
        let request = Request { demand, constraints: &constraints, pinned: None };
        let decision = LeastLoaded.place(&request, shards);
        match shards.iter_mut().find(|shard| Some(&shard.name) == decision.shard.as_ref()) {
            Some(shard) => shard.reserved = shard.reserved.plus(demand),
            None => unplaced.push(name.clone()),
        }
    }
    unplaced
}

#[test]
fn prefixes_of_the_fleet_do_not_overlap() {
    let prefixes: Vec<Prefix> = fleet()
        .values()
        .flat_map(|namespace| namespace.spec.prefixes.iter())
        .map(|prefix| prefix.parse().unwrap())
        .collect();
    assert_eq!(prefixes.len(), PROJECTS);
    for (index, one) in prefixes.iter().enumerate() {
        for other in &prefixes[index + 1..] {
            assert!(!one.overlaps(other), "{one} and {other}");
        }
    }
}

#[test]
fn the_fleet_fits_two_large_shards_but_not_one() {
    let fleet = fleet();
    let large = Size::Large.capacity();
    let mut two = [empty_shard("local-1", large), empty_shard("local-2", large)];
    assert_eq!(place(&fleet, &mut two), NOBODY);
    let reserved = two[0].reserved.plus(two[1].reserved);
    assert_eq!((reserved.dags, reserved.running_slots), (305, 28));
    assert!(two.iter().all(|shard| shard.reserved.dags > 0), "both shards are used");

    let mut one = [empty_shard("local-1", large)];
    assert_ne!(place(&fleet, &mut one), NOBODY);
}

#[test]
fn the_other_examples_are_valid_and_fit_together() {
    let [Entry::Namespace(payments)] = &entries(&examples().join("namespace.yaml"))[..] else {
        panic!("namespace.yaml holds one namespace");
    };
    let mut shards: Vec<Candidate> = entries(&examples().join("shards.yaml"))
        .into_iter()
        .map(|entry| {
            let Entry::Shard(shard) = entry else { panic!("shards.yaml holds shards only") };
            let mut candidate = empty_shard(&shard.metadata.name, shard.spec.capacity());
            candidate.labels = shard.metadata.labels;
            candidate.taints = shard.spec.taints;
            candidate.region = shard.spec.region;
            candidate.failure_domain = shard.spec.failure_domain;
            candidate.airflow_version = shard.spec.airflow_version.parse().ok();
            candidate
        })
        .collect();
    assert_eq!(shards.len(), 3);
    let one = BTreeMap::from([(payments.metadata.name.clone(), payments.clone())]);
    assert_eq!(place(&one, &mut shards), NOBODY);
    let taken: Vec<_> = shards.iter().filter(|shard| shard.reserved.dags > 0).collect();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].labels["tier"], "general");
}

#[test]
fn the_files_agree_with_the_table() {
    let output = Command::new("python3")
        .arg(examples().join("fleet/derive.py"))
        .arg("--check")
        .output()
        .expect("python3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
