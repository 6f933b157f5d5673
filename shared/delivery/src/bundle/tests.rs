use proptest::{collection::btree_map, prelude::*};

use super::*;

fn path(text: &str) -> BundlePath {
    BundlePath::parse(text).expect("is plain")
}

fn listed(text: &str, size_bytes: u64, tag: &str) -> Listed {
    Listed { path: path(text), size_bytes, tag: tag.into(), executable: false }
}

fn listing(files: Vec<Listed>) -> Result<Listing, Refusal> {
    Listing::new(files, &Limits::default())
}

fn entry(text: &str, content: u8) -> Entry {
    Entry {
        path: path(text),
        size_bytes: 1,
        hash: ContentHash([content; 32]),
        tag: content.to_string().into(),
        executable: false,
        holds_dags: path(text).is_python(),
        inode: 0,
    }
}

#[test]
fn a_listing_is_sorted_and_holds_files_only() {
    let files = vec![
        listed("b/c.py", 1, "1"),
        listed("a.py", 1, "1"),
        listed("b", 0, "1"),
        listed("b/__pycache__/c.pyc", 1, "1"),
        listed(".git/HEAD", 1, "1"),
    ];
    let listing = listing(files).expect("is plain");
    let names: Vec<&str> = listing.files().iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["a.py", "b/c.py"]);
}

#[test]
fn what_cannot_be_delivered_is_refused_by_its_rule() {
    let code = |files| listing(files).expect_err("is refused").code;
    assert_eq!(code(vec![]), Code::SourceEmpty);
    assert_eq!(code(vec![listed(".git/HEAD", 1, "1")]), Code::SourceEmpty);
    assert_eq!(code(vec![listed("a", 1, "1"), listed("a/b", 1, "1")]), Code::PathConflict);
    let between = vec![listed("a", 1, "1"), listed("a-b", 1, "1"), listed("a/b", 1, "1")];
    assert_eq!(code(between), Code::PathConflict);
    assert_eq!(code(vec![listed("a", 1, "1"), listed("a", 1, "2")]), Code::PathConflict);

    let limits = Limits { files: 2, bytes: 10, file_bytes: 6, free_bytes: 0 };
    let code = |sizes: &[u64]| {
        let files = sizes.iter().enumerate();
        let files = files.map(|(n, size)| listed(&format!("f{n}"), *size, "1")).collect();
        Listing::new(files, &limits).map_err(|refusal| refusal.code)
    };
    assert_eq!(code(&[7]), Err(Code::FileTooLarge));
    assert_eq!(code(&[6, 5]), Err(Code::BundleTooLarge));
    assert_eq!(code(&[1, 1, 1]), Err(Code::TooManyFiles));
    assert_eq!(code(&[u64::MAX, u64::MAX]), Err(Code::FileTooLarge));
    assert!(code(&[6, 4]).is_ok());
}

#[test]
fn only_what_differs_is_fetched() {
    let listing = listing(vec![
        listed("a.py", 1, "1"),
        listed("b.py", 1, "9"),
        listed("c.py", 2, "3"),
        listed("e.py", 1, "5"),
        Listed { executable: true, ..listed("f.py", 1, "6") },
    ])
    .expect("is plain");
    let base =
        [entry("a.py", 1), entry("b.py", 2), entry("c.py", 3), entry("d.py", 4), entry("f.py", 6)];
    let plan = Plan::new(&listing, &base, &HashSet::new());
    assert_eq!(plan.kept, [entry("a.py", 1)]);
    let names: Vec<&str> = plan.fetch.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["b.py", "c.py", "e.py", "f.py"]);
    let plan = Plan::new(&listing, &base, &HashSet::from([path("a.py")]));
    assert_eq!(plan.kept, []);
}

#[test]
fn airflow_looks_at_what_changed_and_at_all_where_a_helper_did() {
    let old = [entry("a.py", 1), entry("b.py", 2), entry("c.py", 3)];
    let new = [entry("a.py", 1), entry("b.py", 9), entry("d.py", 4)];
    let fresh = freshen(&old, &new);
    assert_eq!(fresh.changes, Changes { added: 1, changed: 1, removed: 1, kept: 1 });
    assert_eq!(fresh.first, [path("b.py"), path("d.py")]);
    assert!(!fresh.others);

    let with_helper = [entry("a.py", 1), entry("q.sql", 1)];
    assert!(freshen(&old, &with_helper).others, "a new helper");
    assert!(freshen(&with_helper, &old).others, "a helper is gone");
    assert!(!freshen(&with_helper, &with_helper).others);
}

#[test]
fn links_lead_to_files_of_the_bundle_or_nowhere() {
    let files: HashMap<BundlePath, &str> =
        [(path("dags/a.py"), "a"), (path("lib/b.py"), "b")].into();
    let follow = |from: &str, target: &str| {
        let links = HashMap::from([
            (path(from), target.to_owned()),
            (path("hop"), "lib/b.py".to_owned()),
            (path("round"), "round".to_owned()),
        ]);
        follow_link(&path(from), &links, &files).copied().map_err(|refusal| refusal.code)
    };
    assert_eq!(follow("x.py", "dags/a.py"), Ok("a"));
    assert_eq!(follow("dags/x.py", "../lib/./b.py"), Ok("b"));
    assert_eq!(follow("dags/x.py", "../hop"), Ok("b"));
    assert_eq!(follow("x.py", "../x.py"), Err(Code::SymlinkOutside));
    assert_eq!(follow("dags/x.py", "../../etc/passwd"), Err(Code::SymlinkOutside));
    assert_eq!(follow("x.py", "/etc/passwd"), Err(Code::SymlinkOutside));
    assert_eq!(follow("x.py", "dags"), Err(Code::SymlinkFolder));
    assert_eq!(follow("x.py", "."), Err(Code::SymlinkFolder));
    assert_eq!(follow("x.py", "gone.py"), Err(Code::SymlinkBroken));
    assert_eq!(follow("x.py", "round"), Err(Code::SymlinkBroken));
}

/// Small bundles: path to content.
fn bundles() -> impl Strategy<Value = Vec<Entry>> {
    btree_map("[a-c]/[a-d]{1,2}\\.(py|sql)", 0u8..4, 0..12)
        .prop_map(|files| files.iter().map(|(name, content)| entry(name, *content)).collect())
}

proptest! {
    #[test]
    fn a_plan_names_every_file_once(old in bundles(), new in bundles()) {
        let files = new.iter().map(|e| listed(e.path.as_str(), e.size_bytes, &e.tag)).collect();
        let Ok(listing) = listing(files) else { return Ok(()) };
        let plan = Plan::new(&listing, &old, &HashSet::new());
        for kept in &plan.kept {
            prop_assert!(old.contains(kept));
        }
        for file in &plan.fetch {
            let same = find(&old, file.path.as_str()).is_some_and(|entry| entry.tag == file.tag);
            prop_assert!(!same, "{} is there", file.path);
        }
        let fetched = plan.fetch.iter().map(|file| {
            find(&new, file.path.as_str()).expect("was listed").clone()
        });
        prop_assert_eq!(merge(plan.kept.clone(), fetched.collect()), new);
    }

    #[test]
    fn an_id_stands_for_one_content(old in bundles(), new in bundles()) {
        let same = old.len() == new.len()
            && old.iter().zip(&new).all(|(a, b)| a.path == b.path && a.is_same_file(b));
        prop_assert_eq!(content_id(&old) == content_id(&new), same);
        prop_assert_eq!(freshen(&old, &new).changes.is_none(), same);
    }
}
