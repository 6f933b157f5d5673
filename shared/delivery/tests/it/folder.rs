//! Releases from a folder.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::SystemTime,
};

use airfleet_delivery::{Changes, Code, Release, Synced};

use crate::rig::{Rig, files};

#[tokio::test]
async fn a_release_is_what_the_source_holds() {
    let rig = Rig::new();
    rig.put("a.py", "from airflow import DAG # 1");
    rig.put("sql/q.sql", "select 1");
    rig.put(".git/HEAD", "not this");
    rig.put("__pycache__/a.pyc", "nor this");
    let run = rig.source_folder().join("run.sh");
    fs::write(&run, "#!/bin/sh").expect("is written");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).expect("is changed");

    let first = rig.sync().await.expect("is delivered");
    assert!(first.switched && first.previous.is_none());
    assert_eq!(first.changes, Changes { added: 3, ..Changes::default() });
    assert_eq!(first.release.files, 3);
    assert_eq!(first.release.bytes, first.fetched_bytes);
    let names: Vec<String> = rig.seen().into_keys().collect();
    assert_eq!(names, ["a.py", "run.sh", "sql/q.sql"]);
    let mode = |name: &str| {
        let path = rig.dags().join("payments").join(name);
        fs::metadata(path).expect("is there").permissions().mode() & 0o777
    };
    assert_eq!((mode("run.sh"), mode("a.py"), mode("sql")), (0o755, 0o644, 0o755));

    rig.put("a.py", "from airflow import DAG # 2");
    rig.put("b.py", "from airflow import DAG");
    rig.take("sql/q.sql");
    let second = rig.sync().await.expect("is delivered");
    assert_eq!(second.changes, Changes { added: 1, changed: 1, removed: 1, kept: 1 });
    assert_eq!(second.previous, Some(first.release.id.clone()));
    assert_eq!(rig.seen()["a.py"], "from airflow import DAG # 2");
    let names: Vec<String> = rig.seen().into_keys().collect();
    assert_eq!(names, ["a.py", "b.py", "run.sh"]);
    let current = rig.roller.current(&rig.namespace).await.expect("is known");
    assert_eq!(current, Some(second.release.clone()));

    let third = rig.sync().await.expect("is there");
    assert!(!third.switched);
    assert_eq!((third.fetched_bytes, third.repaired), (0, 0));
    assert_eq!(third.release, second.release);
}

#[tokio::test]
async fn the_same_content_has_the_same_id_wherever_it_is() {
    let (one, other) = (Rig::new(), Rig::new());
    for rig in [&one, &other] {
        rig.put("x/a.py", "1");
        rig.put("b.py", "2");
    }
    let first = one.sync().await.expect("is delivered").release;
    assert_eq!(first.id, other.sync().await.expect("is delivered").release.id);
    // Touched, not changed: read again, and found to be the same.
    one.put("b.py", "2");
    let again = one.sync().await.expect("is there");
    assert!(!again.switched && again.fetched_bytes == 1);
    assert_eq!(one.sync().await.expect("is there").fetched_bytes, 0);
}

#[tokio::test]
async fn unchanged_files_are_shared_and_changed_ones_are_dated_anew() {
    let rig = Rig::new();
    rig.put("a.py", "import airflow # a dag");
    rig.put("b.py", "import airflow # a dag");
    rig.sync().await.expect("is delivered");
    let stat = |name: &str| fs::metadata(rig.dags().join("payments").join(name)).expect("is there");
    let (a, b) = (stat("a.py"), stat("b.py"));
    rig.put("b.py", "import airflow # a dag, changed");
    let before = SystemTime::now();
    rig.sync().await.expect("is delivered");
    assert_eq!((stat("a.py").ino(), stat("a.py").modified().ok()), (a.ino(), a.modified().ok()));
    assert_ne!(stat("b.py").ino(), b.ino());
    assert!(stat("b.py").modified().expect("is told") > before);

    // A helper: whoever imports it must be parsed again.
    rig.put("helper.py", "x = 1");
    let before = SystemTime::now();
    rig.sync().await.expect("is delivered");
    assert!(stat("a.py").modified().expect("is told") >= before);
    assert_eq!(stat("a.py").ino(), a.ino());
}

#[tokio::test]
async fn releases_are_kept_and_pruned_and_rolled_back_to() {
    let rig = Rig::new();
    let mut made: Vec<Release> = Vec::new();
    for number in 0..5 {
        rig.put("a.py", &format!("import airflow # dag {number}"));
        rig.put("same.py", "x = 1");
        made.push(rig.sync().await.expect("is delivered").release);
    }
    let kept = rig.roller.releases(&rig.namespace).await.expect("are listed");
    let newest: Vec<Release> = made.iter().rev().take(3).cloned().collect();
    assert_eq!(kept, newest);
    let folders = fs::read_dir(rig.dags().join(".airfleet/releases/payments")).expect("is there");
    assert_eq!(folders.count(), 3);

    // Back: fresh dates, and the source's release is held back.
    let before = SystemTime::now();
    let back = rig.roller.switch(&rig.namespace, &made[3].id).await.expect("is kept");
    assert!(back.switched && back.held);
    assert_eq!(rig.seen()["a.py"], "import airflow # dag 3");
    let file = fs::metadata(rig.dags().join("payments/a.py")).expect("is there");
    assert!(file.modified().expect("is told") > before);
    let held = rig.sync().await.expect("is held");
    assert!(held.held && !held.switched);
    assert_eq!(held.release.id, made[3].id);

    // Forward with what comes next.
    rig.put("a.py", "import airflow # dag 5");
    let next = rig.sync().await.expect("is delivered");
    assert!(next.switched && !next.held);
    assert_eq!(rig.seen()["a.py"], "import airflow # dag 5");

    // Or because somebody said so.
    let back = rig.roller.switch(&rig.namespace, &made[3].id).await.expect("is kept");
    assert!(back.held);
    rig.roller.follow(&rig.namespace).await.expect("is noted");
    let next = rig.sync().await.expect("is there");
    assert!(next.switched && next.fetched_bytes == 0);
    assert_eq!(rig.seen()["a.py"], "import airflow # dag 5");

    let gone = rig.roller.switch(&rig.namespace, &made[0].id).await.expect_err("was pruned");
    assert_eq!(gone.code(), Code::ReleaseUnknown);
    assert!(gone.to_string().contains(made[3].id.short()), "{gone}");
}

#[tokio::test]
async fn what_somebody_changed_in_sight_is_put_right() {
    let rig = Rig::new();
    rig.put("a.py", "import airflow # dag");
    rig.put("x/b.py", "import airflow # dag");
    rig.sync().await.expect("is delivered");
    let live = rig.dags().join("payments");
    let good = rig.seen();
    // In place, replaced, removed, added.
    fs::write(live.join("a.py"), "import airflow # bad").expect("is written");
    fs::remove_dir_all(live.join("x")).expect("is removed");
    fs::write(live.join("evil.py"), "import airflow # dag").expect("is written");
    std::os::unix::fs::symlink("/etc/passwd", live.join("link.py")).expect("is made");
    let repaired = rig.sync().await.expect("is delivered");
    assert_eq!((repaired.repaired, repaired.switched), (4, false));
    assert_eq!(rig.seen(), good);
    assert_eq!(rig.sync().await.expect("is there").repaired, 0);

    // Also together with a change of the source, and not carried into the next release.
    fs::write(live.join("a.py"), "import airflow # bad").expect("is written");
    rig.put("c.py", "import airflow # dag");
    rig.sync().await.expect("is delivered");
    assert_eq!(rig.seen()["a.py"], good["a.py"]);

    // Python's own files are none of ours.
    fs::create_dir(live.join("__pycache__")).expect("is made");
    fs::write(live.join("__pycache__/a.cpython-311.pyc"), "x").expect("is written");
    assert_eq!(rig.sync().await.expect("is there").repaired, 0);
    rig.put("d.py", "import airflow # dag");
    rig.sync().await.expect("is delivered");
    assert!(!rig.seen().contains_key("__pycache__/a.cpython-311.pyc"));
}

#[tokio::test]
async fn a_release_that_was_changed_is_not_rolled_back_to() {
    let rig = Rig::new();
    rig.put("a.py", "import airflow # dag 1");
    let first = rig.sync().await.expect("is delivered").release;
    rig.put("a.py", "import airflow # dag 2");
    rig.sync().await.expect("is delivered");
    let old = rig.dags().join(".airfleet/releases/payments").join(first.id.as_str());
    fs::write(old.join("a.py"), "import airflow # dag x").expect("is written");
    let error = rig.roller.switch(&rig.namespace, &first.id).await.expect_err("is damaged");
    assert_eq!(error.code(), Code::ReleaseDamaged);
    assert_eq!(rig.seen()["a.py"], "import airflow # dag 2");
    // The source goes back to it: made anew.
    rig.put("a.py", "import airflow # dag 1");
    assert_eq!(rig.sync().await.expect("is delivered").release.id, first.id);
    assert_eq!(rig.seen()["a.py"], "import airflow # dag 1");
}

#[tokio::test]
async fn what_others_put_there_is_left_alone() {
    let rig = Rig::new();
    rig.put("a.py", "1");
    let theirs = rig.dags().join("payments");
    fs::create_dir(&theirs).expect("is made");
    fs::write(theirs.join("mine.py"), "mine").expect("is written");
    fs::write(rig.dags().join(".airflowignore"), "scratch").expect("is written");
    let error = rig.sync().await.expect_err("is in the way");
    assert_eq!(error.code(), Code::FolderInTheWay);
    rig.roller.remove(&rig.namespace).await.expect_err("is in the way");
    assert_eq!(rig.seen()["mine.py"], "mine");
    fs::remove_dir_all(&theirs).expect("is removed");

    std::os::unix::fs::symlink("/etc", &theirs).expect("is made");
    assert_eq!(rig.sync().await.expect_err("is in the way").code(), Code::FolderInTheWay);
    fs::remove_file(&theirs).expect("is removed");

    rig.sync().await.expect("is delivered");
    rig.sync().await.expect("is delivered");
    let ignored = fs::read_to_string(rig.dags().join(".airflowignore")).expect("is there");
    let lines: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, ["scratch", "[.]airfleet"]);
}

#[tokio::test]
async fn a_namespace_is_removed_and_comes_back() {
    let rig = Rig::new();
    rig.put("a.py", "1");
    rig.sync().await.expect("is delivered");
    let delivered = rig.roller.namespaces().await.expect("are listed");
    assert_eq!(delivered, std::slice::from_ref(&rig.namespace));
    rig.roller.remove(&rig.namespace).await.expect("is removed");
    assert_eq!(rig.roller.namespaces().await.expect("are listed"), []);
    assert_eq!(rig.roller.current(&rig.namespace).await.expect("is known"), None);
    let left = files(&rig.dags().join(".airfleet"));
    assert!(left.keys().all(|name| name.starts_with("locks/")), "{left:?}");
    rig.roller.remove(&rig.namespace).await.expect("is gone already");
    rig.sync().await.expect("is delivered");
    assert_eq!(rig.seen().len(), 1);
}

#[tokio::test]
async fn two_at_once_do_not_disturb_each_other() {
    let rig = Rig::new();
    for number in 0..200 {
        rig.put(&format!("f{number}.py"), &number.to_string());
    }
    let other = airfleet_delivery::Roller::new(rig.dags(), crate::rig::settings());
    let source = rig.source();
    let (one, two) = tokio::join!(rig.sync(), other.sync(&rig.namespace, &source));
    let (one, two) = (one.expect("is delivered"), two.expect("is delivered"));
    assert_eq!(one.release.id, two.release.id);
    assert!(one.switched != two.switched, "one did it, the other found it done");
    assert_eq!(rig.seen().len(), 200);
}

/// The folder of the oldest release becomes the next one: what others did to it since it was sealed
/// must not come into sight, though only its folders are looked at.
#[tokio::test]
async fn a_release_that_others_changed_is_not_shown_again_by_making_the_next_one_of_it() {
    let rig = Rig::with(|settings| settings.keep = 2);
    let deliver = async |version: usize| {
        rig.put("a/one.py", &format!("import airflow # dag {version}"));
        rig.sync().await.expect("is delivered")
    };
    for path in ["a/b/two.py", "a/b/three.py", "c/four.py", "d/e/five.py", "top.py"] {
        rig.put(path, "import airflow # dag");
    }
    let first = deliver(1).await;
    let hidden = |synced: &Synced| {
        let releases = rig.dags().join(".airfleet/releases/payments");
        releases.join(synced.release.id.as_str())
    };
    deliver(2).await;

    let old = hidden(&first);
    // Written in place, which the release in sight shares; another file under a name, a name more,
    // a name less, another folder, a link out.
    fs::write(old.join("a/b/three.py"), "import airflow # DAG").expect("is written");
    fs::remove_file(old.join("a/b/two.py")).expect("was there");
    fs::write(old.join("a/b/two.py"), "import airflow # DAG").expect("is written");
    fs::write(old.join("c/more.py"), "import airflow # dag").expect("is written");
    fs::remove_file(old.join("top.py")).expect("was there");
    fs::create_dir_all(old.join("new/deep")).expect("is made");
    fs::write(old.join("new/deep/six.py"), "import airflow # dag").expect("is written");
    let outside = rig.root.path().join("outside");
    fs::create_dir_all(outside.join("e")).expect("is made");
    fs::write(outside.join("e/five.py"), "import airflow # dag").expect("is written");
    fs::remove_dir_all(old.join("d")).expect("was there");
    std::os::unix::fs::symlink(&outside, old.join("d")).expect("is made");

    let third = deliver(3).await;
    assert!(!old.exists(), "the third is made of the first");
    assert_eq!((third.fetched_bytes, third.changes.kept), (22 + 20, 5));
    assert_eq!(rig.seen(), files(&rig.source_folder()));
    assert!(!rig.dags().join("payments/d").is_symlink());
    assert_eq!(files(&outside).len(), 1, "what a link led to is left alone");
}
