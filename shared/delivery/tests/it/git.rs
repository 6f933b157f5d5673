//! Releases from a repository.

use std::{path::Path, process::Command};

use airfleet_delivery::{Code, Error, Synced};
use airfleet_domain::manifest::Source;

use crate::rig::Rig;

pub(crate) struct Repository<'a> {
    rig: &'a Rig,
}

impl<'a> Repository<'a> {
    pub(crate) fn new(rig: &'a Rig) -> Self {
        let repository = Self::of(rig);
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        // As hosting services allow it.
        repository.git(&["config", "uploadpack.allowFilter", "true"]);
        repository.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
        repository
    }

    /// The one that is there.
    pub(crate) fn of(rig: &'a Rig) -> Self {
        Self { rig }
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        git(&self.rig.source_folder(), arguments)
    }

    pub(crate) fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "a change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) async fn sync(&self, reference: &str, path: &str) -> Result<Synced, Error> {
        let source = Source {
            uri: format!("git+file://{}", self.rig.source_folder().display()),
            reference: reference.to_owned(),
            path: path.to_owned(),
        };
        self.rig.roller.sync(&self.rig.namespace, &source).await
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=somebody", "-c", "user.email=somebody@example.net"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("is text").trim().to_owned()
}

#[tokio::test]
async fn a_commit_is_a_release() {
    let rig = Rig::new();
    let repository = Repository::new(&rig);
    rig.put("dags/a.py", "import airflow # dag 1");
    rig.put("dags/b.py", "import airflow # dag");
    rig.put("lib/helper.py", "x = 1");
    let first = repository.commit();
    let synced = repository.sync("", "").await.expect("is delivered");
    assert_eq!(synced.release.id.as_str(), first);
    assert_eq!(synced.release.commit.as_deref(), Some(first.as_str()));
    assert_eq!(rig.seen().len(), 3);

    rig.put("dags/a.py", "import airflow # dag 2");
    rig.take("dags/b.py");
    let second = repository.commit();
    let synced = repository.sync("main", "").await.expect("is delivered");
    assert_eq!(synced.release.id.as_str(), second);
    assert_eq!((synced.changes.changed, synced.changes.removed), (1, 1));
    assert_eq!(synced.fetched_bytes, 22, "only what changed is read");
    assert_eq!(rig.seen()["dags/a.py"], "import airflow # dag 2");

    let again = repository.sync("main", "").await.expect("is there");
    assert!(!again.switched && again.fetched_bytes == 0);

    // By a tag, and by itself: back, and forward.
    repository.git(&["tag", "--annotate", "v1", "--message", "one", &first]);
    let tagged = repository.sync("v1", "").await.expect("is delivered");
    assert_eq!(tagged.release.id.as_str(), first);
    assert_eq!(rig.seen()["dags/a.py"], "import airflow # dag 1");
    let pinned = repository.sync(&second, "").await.expect("is delivered");
    assert_eq!(pinned.release.id.as_str(), second);
}

#[tokio::test]
async fn a_folder_of_a_repository_is_a_bundle() {
    let rig = Rig::new();
    let repository = Repository::new(&rig);
    rig.put("teams/payments/a.py", "import airflow # dag");
    rig.put("teams/payments/sql/q.sql", "select 1");
    rig.put("teams/risk/r.py", &"x = 1\n".repeat(10_000));
    let commit = repository.commit();
    let synced = repository.sync("main", "teams/payments/").await.expect("is delivered");
    let names: Vec<String> = rig.seen().into_keys().collect();
    assert_eq!(names, ["a.py", "sql/q.sql"]);
    assert_eq!(synced.release.commit.as_deref(), Some(commit.as_str()));
    assert_ne!(synced.release.id.as_str(), commit, "another folder is another release");
    // The other team's files did not come here.
    let kept = rig.dags().join(".airfleet/git/payments");
    let kept = std::fs::read_dir(kept).expect("is there").next().expect("one").expect("is read");
    let objects = git(&kept.path(), &["rev-list", "--objects", "--all", "--missing=print"]);
    assert_eq!(objects.lines().filter(|line| line.starts_with('?')).count(), 1, "{objects}");

    rig.put("teams/risk/r.py", "x = 2");
    rig.put("teams/payments/b.py", "import airflow # dag");
    repository.commit();
    let synced = repository.sync("main", "teams/payments").await.expect("is delivered");
    assert_eq!((synced.changes.added, synced.changes.kept), (1, 2));
    let whole = repository.sync("main", "").await.expect("is delivered");
    assert_eq!(whole.release.files, 4);
    let none = repository.sync("main", "teams/nobody").await.expect_err("is not there");
    assert_eq!(none.code(), Code::SourceNotFound);
    assert_eq!(rig.seen().len(), 4);
}

#[tokio::test]
async fn refs_that_are_not_there_are_told() {
    let rig = Rig::new();
    let repository = Repository::new(&rig);
    rig.put("a.py", "1");
    let error = repository.sync("", "").await.expect_err("has no commit");
    assert_eq!(error.code(), Code::RefNotFound);
    let first = repository.commit();
    let error = repository.sync("nowhere", "").await.expect_err("is not there");
    assert_eq!(error.code(), Code::RefNotFound);
    let error = repository.sync(&"0".repeat(40), "").await.expect_err("is not there");
    assert_eq!(error.code(), Code::SourceUnreachable);
    rig.put("a.py", "2");
    repository.commit();
    repository.git(&["tag", "main", &first]);
    let error = repository.sync("main", "").await.expect_err("is two things");
    assert_eq!(error.code(), Code::RefAmbiguous);
    repository.sync("refs/heads/main", "").await.expect("is one");
    assert_eq!(rig.seen()["a.py"], "2");
}

#[tokio::test]
async fn damage_is_mended_from_the_repository() {
    let rig = Rig::new();
    let repository = Repository::new(&rig);
    rig.put("a.py", "import airflow # dag");
    repository.commit();
    repository.sync("", "").await.expect("is delivered");
    let live = rig.dags().join("payments/a.py");
    std::fs::write(&live, "import airflow # bad").expect("is written");
    // Also where what was fetched is gone.
    std::fs::remove_dir_all(rig.dags().join(".airfleet/git/payments")).expect("is removed");
    let synced = repository.sync("", "").await.expect("is mended");
    assert_eq!(synced.repaired, 1);
    assert_eq!(rig.seen()["a.py"], "import airflow # dag");
}

#[tokio::test]
async fn links_and_modes_of_a_repository_are_taken_as_files() {
    let rig = Rig::new();
    let repository = Repository::new(&rig);
    rig.put("lib/a.py", "import airflow # dag");
    std::os::unix::fs::symlink("lib/a.py", rig.source_folder().join("b.py")).expect("is made");
    repository.commit();
    repository.sync("", "").await.expect("is delivered");
    assert_eq!(rig.seen()["b.py"], "import airflow # dag");
    assert!(rig.dags().join("payments/b.py").symlink_metadata().expect("is there").is_file());

    std::os::unix::fs::symlink("../../secret", rig.source_folder().join("c.py")).expect("is made");
    repository.commit();
    let error = repository.sync("", "").await.expect_err("leads out");
    assert_eq!(error.code(), Code::SymlinkOutside);
    assert!(!rig.seen().contains_key("c.py"));
}
