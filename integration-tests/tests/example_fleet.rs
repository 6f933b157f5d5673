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
    manifest::{Entry, Namespace, Size, parse},
    placement::{Board, Constraints, Policy, Shard},
    resources::{DIMENSIONS, Resources},
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

/// A board of these shards.
fn board(shards: Vec<Shard>) -> Board {
    let mut board = Board::new(&DIMENSIONS, Policy::default());
    for shard in shards {
        board.put_shard(shard);
    }
    board
}

fn empty_shard(name: &str, capacity: Resources) -> Shard {
    Shard::new(name.parse().unwrap(), capacity.values().to_vec())
}

/// What lies on a shard, in the dimension of that name.
fn load(board: &Board, shard: &str, dimension: &str) -> i128 {
    let at = board.shape().number(shard).unwrap();
    let dimension = DIMENSIONS.iter().position(|name| *name == dimension).unwrap();
    board.state().load_of(at)[dimension]
}

/// Places the namespaces one after the other, and gives the names of those that found no shard.
fn place(namespaces: &BTreeMap<String, Namespace>, board: &mut Board) -> Vec<String> {
    let mut unplaced = Vec::new();
    for (name, namespace) in namespaces {
        let constraints = Constraints::try_from(&namespace.spec.placement).unwrap();
        let demand = namespace.spec.demand.values();
        let needs = board.needs(&demand, &constraints, None, "");
        match board.choose(&needs).0 {
            Some((shard, _)) => board.add(&needs, shard),
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
    let mut two = board(vec![empty_shard("local-1", large), empty_shard("local-2", large)]);
    assert_eq!(place(&fleet, &mut two), NOBODY);
    let both = |dimension| load(&two, "local-1", dimension) + load(&two, "local-2", dimension);
    assert_eq!((both("dags"), both("running_slots")), (305, 28));
    let used = ["local-1", "local-2"].iter().all(|shard| load(&two, shard, "dags") > 0);
    assert!(used, "both shards are used");

    let mut one = board(vec![empty_shard("local-1", large)]);
    assert_ne!(place(&fleet, &mut one), NOBODY);
}

#[test]
fn the_other_examples_are_valid_and_fit_together() {
    let [Entry::Namespace(payments)] = &entries(&examples().join("namespace.yaml"))[..] else {
        panic!("namespace.yaml holds one namespace");
    };
    let shards: Vec<Shard> = entries(&examples().join("shards.yaml"))
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
    let mut board = board(shards);
    assert_eq!(place(&one, &mut board), NOBODY);
    let used = |at: u32| board.state().count_of(at) > 0;
    let taken: Vec<_> = board.shape().all().filter(|(at, _)| used(*at)).collect();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].1.labels["tier"], "general");
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
