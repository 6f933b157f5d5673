//! Bundles that somebody got wrong, or made to do harm: refused with what is wrong and where, while
//! what runs stays, other namespaces are delivered, and a mended bundle is.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use airfleet_delivery::{Blame, Code, Error, Limits, Step, Watch};
use airfleet_domain::{ids::NamespaceName, manifest::Source};

use crate::{git::Repository, rig::Rig};

const FILES_MAX: usize = 200;
const BYTES_MAX: u64 = 1 << 20;
const FILE_BYTES_MAX: u64 = 256 << 10;
const SECRET: &str = "the secret of somebody else";

/// A rig with small limits, a secret beside the source, and a release that runs.
async fn rig() -> Rig {
    let rig = Rig::with(|settings| {
        settings.limits = Limits {
            files: FILES_MAX,
            bytes: BYTES_MAX,
            file_bytes: FILE_BYTES_MAX,
            free_bytes: 0,
        };
    });
    fs::write(rig.root.path().join("secret.py"), SECRET).expect("is written");
    rig.put("good.py", "import airflow # dag 1");
    rig.sync().await.expect("is delivered");
    rig
}

/// Checks that `result` is the refusal that is due, and that nothing else happened.
async fn check(rig: &Rig, what: &str, result: Result<(), Error>, code: Code, words: &[&str]) {
    let error = result.expect_err(what);
    assert_eq!(error.code(), code, "{what}: {error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{what}: {word:?} is not in {text:?}");
    }
    assert!(!text.contains(SECRET) && text.len() < 600, "{what}: {text}");
    assert_eq!(rig.seen().into_values().collect::<Vec<_>>(), ["import airflow # dag 1"], "{what}");

    let other: NamespaceName = "risk".parse().expect("is a name");
    let folder = rig.root.path().join("other");
    fs::create_dir_all(&folder).expect("is made");
    fs::write(folder.join("risk.py"), format!("import airflow # dag {what}")).expect("is written");
    let source = Source { uri: folder.display().to_string(), ..Source::default() };
    let synced = rig.roller.sync(&other, &source).await.expect("another one's are delivered");
    assert!(synced.switched, "{what}");
}

#[tokio::test]
async fn a_bundle_that_breaks_a_rule_is_refused_and_the_rest_goes_on() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, Code, &[&str]); 16] = [
        (
            "an absolute link to a file",
            |at| symlink(at.join("../secret.py"), at.join("bad.py")).expect("is made"),
            Code::SymlinkOutside,
            &["bad.py", "links out of the bundle"],
        ),
        (
            "a link that climbs out",
            |at| symlink("../secret.py", at.join("bad.py")).expect("is made"),
            Code::SymlinkOutside,
            &["bad.py", "copy the file"],
        ),
        (
            "a link to a folder outside",
            |at| symlink("/etc", at.join("bad")).expect("is made"),
            Code::SymlinkOutside,
            &["bad"],
        ),
        (
            "a link to its own folder",
            |at| symlink(".", at.join("again")).expect("is made"),
            Code::SymlinkFolder,
            &["again", "links to a folder"],
        ),
        (
            "a link to itself",
            |at| symlink("bad.py", at.join("bad.py")).expect("is made"),
            Code::SymlinkBroken,
            &["bad.py", "links to itself"],
        ),
        (
            "a link to nothing",
            |at| symlink("nothing.py", at.join("bad.py")).expect("is made"),
            Code::SymlinkBroken,
            &["bad.py", "links to nothing"],
        ),
        (
            "a pipe that would hang whoever reads it",
            |at| pipe(&at.join("bad.py")),
            Code::NotAFile,
            &["bad.py", "remove it"],
        ),
        (
            "a link to a device without an end",
            |at| symlink("/dev/zero", at.join("bad.py")).expect("is made"),
            Code::SymlinkOutside,
            &["bad.py"],
        ),
        (
            "a huge file that takes no space",
            |at| {
                let file = fs::File::create(at.join("bad.py")).expect("is made");
                file.set_len(1 << 40).expect("is sparse");
            },
            Code::FileTooLarge,
            &["bad.py", "1099511627776 bytes", "may have 262144"],
        ),
        (
            "too many files",
            |at| {
                for number in 0..=FILES_MAX {
                    fs::write(at.join(format!("bad{number}.py")), "x").expect("is written");
                }
            },
            Code::TooManyFiles,
            &["more than 200 files"],
        ),
        (
            "too many folders",
            |at| {
                for number in 0..10 * FILES_MAX {
                    fs::create_dir(at.join(format!("bad{number}"))).expect("is made");
                }
            },
            Code::TooManyFiles,
            &["more than"],
        ),
        (
            "too many bytes",
            |at| {
                for number in 0..5 {
                    let file = fs::File::create(at.join(format!("bad{number}"))).expect("is made");
                    file.set_len(FILE_BYTES_MAX).expect("is sparse");
                }
            },
            Code::BundleTooLarge,
            &["more than 1048576 bytes"],
        ),
        (
            "a name that other systems take for a path",
            |at| fs::write(at.join("..\\..\\bad.py"), "x").expect("is written"),
            Code::PathUnsafe,
            &["backslash", "rename it"],
        ),
        (
            "a name that writes into logs",
            |at| fs::write(at.join("bad\n\u{1b}[2J.py"), "x").expect("is written"),
            Code::PathUnsafe,
            &["bad\\n\\u{1b}[2J.py", "rename it"],
        ),
        (
            "a name that is no text",
            |at| fs::write(at.join(OsStr::from_bytes(b"bad\xff.py")), "x").expect("is written"),
            Code::PathUnsafe,
            &["not UTF-8"],
        ),
        (
            "folders without an end",
            |at| fs::create_dir_all(at.join("d/".repeat(40))).expect("are made"),
            Code::PathUnsafe,
            &["nested deeper than 32"],
        ),
    ];
    let rig = rig().await;
    let at = rig.source_folder();
    for (what, spoil, code, words) in cases {
        spoil(&at);
        check(&rig, what, rig.sync().await.map(drop), code, words).await;
        assert_eq!(rig.sync().await.expect_err(what).code(), code, "the same again");
        for entry in fs::read_dir(&at).expect("is there") {
            let path = entry.expect("is read").path();
            let is_folder = path.symlink_metadata().expect("is there").is_dir();
            if is_folder {
                fs::remove_dir_all(path).expect("is removed");
            } else if !path.ends_with("good.py") {
                fs::remove_file(path).expect("is removed");
            }
        }
        let mended = rig.sync().await.expect(what);
        assert!(!mended.switched && mended.repaired == 0, "{what}");
    }
    rig.put("good.py", "import airflow # dag 2");
    assert!(rig.sync().await.expect("is delivered").switched);
}

fn pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
    assert!(made.success());
}

/// Does `act` when files are about to be fetched.
fn at_fetch(act: impl Fn() + Send + Sync + 'static) -> Watch {
    Arc::new(move |step| {
        if matches!(step, Step::Fetching { .. }) {
            act();
        }
    })
}

#[tokio::test]
async fn a_source_that_turns_while_it_is_read_gives_nothing_away() {
    type Turn = fn(&Path);
    let cases: [(&str, Turn, &[Code]); 6] = [
        (
            "a file becomes a link to a secret",
            |at| {
                fs::remove_file(at.join("good.py")).expect("is removed");
                symlink("../secret.py", at.join("good.py")).expect("is made");
            },
            &[Code::SourceDenied, Code::SourceChanging],
        ),
        (
            "its folder becomes a link out of the bundle",
            |at| {
                fs::remove_dir_all(at.join("in")).expect("is removed");
                symlink("..", at.join("in")).expect("is made");
            },
            &[Code::SourceDenied, Code::SourceChanging],
        ),
        (
            "a file becomes a pipe",
            |at| {
                fs::remove_file(at.join("good.py")).expect("is removed");
                pipe(&at.join("good.py"));
            },
            &[Code::NotAFile, Code::SourceChanging],
        ),
        (
            "a file grows without an end",
            |at| {
                let file = fs::File::options().append(true).open(at.join("good.py"));
                file.expect("opens").set_len(1 << 40).expect("is sparse");
            },
            &[Code::SourceChanging, Code::SourceCorrupt, Code::FileTooLarge],
        ),
        (
            "a file is cut short",
            |at| fs::write(at.join("good.py"), "import").expect("is written"),
            &[Code::SourceChanging, Code::SourceCorrupt, Code::FileTooLarge],
        ),
        (
            "all of it is gone",
            |at| fs::remove_dir_all(at).expect("is removed"),
            &[Code::SourceNotFound, Code::SourceChanging],
        ),
    ];
    for (what, turn, codes) in cases {
        let rig = rig().await;
        rig.put("good.py", "import airflow # dag 2");
        rig.put("in/secret.py", "import airflow # dag 2");
        let at = rig.source_folder();
        let watch = at_fetch(move || turn(&at));
        let result = rig.roller.sync_watched(&rig.namespace, &rig.source(), watch).await;
        let code = result.as_ref().expect_err(what).code();
        assert!(codes.contains(&code), "{what}: {code}");
        check(&rig, what, result.map(drop), code, &[]).await;
        let delivered = crate::rig::files(&rig.dags());
        assert!(delivered.values().all(|text| !text.contains(SECRET)), "{what}");

        let _ = fs::remove_dir_all(rig.source_folder());
        rig.put("good.py", "import airflow # dag 3");
        assert!(rig.sync().await.expect(what).switched);
        assert_eq!(rig.seen()["good.py"], "import airflow # dag 3");
    }
}

#[tokio::test]
async fn a_source_that_is_gone_or_empty_takes_nothing_away() {
    let rig = rig().await;
    rig.take("good.py");
    check(&rig, "empty", rig.sync().await.map(drop), Code::SourceEmpty, &["holds no files"]).await;
    fs::remove_dir(rig.source_folder()).expect("is removed");
    check(&rig, "gone", rig.sync().await.map(drop), Code::SourceNotFound, &["cannot be opened"])
        .await;
    fs::write(rig.source_folder(), "a file").expect("is written");
    check(&rig, "a file", rig.sync().await.map(drop), Code::SourceInvalid, &["cannot be opened"])
        .await;
}

#[tokio::test]
async fn a_full_disk_is_told_before_anything_is_fetched() {
    let rig = Rig::with(|settings| settings.limits.free_bytes = 1 << 60);
    rig.put("good.py", "import airflow # dag 1");
    let error = rig.sync().await.expect_err("there is no such disk");
    assert_eq!((error.code(), error.code().blame()), (Code::DiskLow, Blame::Operator));
    assert!(error.to_string().contains("delivery.free_bytes"), "{error}");
    assert!(rig.seen().is_empty());
}

/// The tree with one entry, as no `git add` would make it.
fn tree(rig: &Rig, mode: &str, name: &str, object: &str) -> String {
    use std::io::Write as _;

    let mut bytes = format!("{mode} {name}\0").into_bytes();
    for pair in object.as_bytes().chunks_exact(2) {
        let text = std::str::from_utf8(pair).expect("is hexadecimal");
        bytes.push(u8::from_str_radix(text, 16).expect("is hexadecimal"));
    }
    let mut git = Command::new("git")
        .args(["hash-object", "-t", "tree", "--literally", "-w", "--stdin"])
        .current_dir(rig.source_folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git runs");
    git.stdin.take().expect("is piped").write_all(&bytes).expect("is read");
    let output = git.wait_with_output().expect("git ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("is text").trim().to_owned()
}

#[tokio::test]
async fn a_repository_made_to_do_harm_is_refused() {
    let rig = rig().await;
    fs::remove_file(rig.source_folder().join("good.py")).expect("is removed");
    let repository = Repository::new(&rig);
    rig.put("good.py", "import airflow # dag 1");
    repository.commit();
    repository.sync("", "").await.expect("is delivered");
    let blob = repository.git(&["rev-parse", "HEAD:good.py"]);
    let inner = tree(&rig, "100644", "bad.py", &blob);
    let commit = repository.git(&["rev-parse", "HEAD"]);
    let cases: [(&str, String, &[Code]); 6] = [
        ("climbs out", tree(&rig, "40000", "..", &inner), &[Code::PathUnsafe, Code::SourceCorrupt]),
        (
            "is a path",
            tree(&rig, "100644", "../../bad.py", &blob),
            &[Code::PathUnsafe, Code::SourceCorrupt],
        ),
        (
            "is absolute",
            tree(&rig, "100644", "/tmp/bad.py", &blob),
            &[Code::PathUnsafe, Code::SourceCorrupt],
        ),
        ("has a submodule", tree(&rig, "160000", "sub", &commit), &[Code::Submodule]),
        (
            "has a link out",
            tree(&rig, "120000", "bad.py", &{
                fs::write(rig.root.path().join("target"), "../secret.py").expect("is written");
                repository.git(&["hash-object", "-w", "../target"])
            }),
            &[Code::SymlinkOutside],
        ),
        (
            "has a huge file",
            tree(&rig, "100644", "bad.py", &{
                let file = fs::File::create(rig.root.path().join("huge")).expect("is made");
                file.set_len(4 << 20).expect("is sparse");
                repository.git(&["hash-object", "-w", "../huge"])
            }),
            &[Code::FileTooLarge],
        ),
    ];
    for (what, tree, codes) in cases {
        let commit = repository.git(&["commit-tree", &tree, "-m", what]);
        repository.git(&["update-ref", "refs/heads/main", &commit]);
        let result = repository.sync("main", "").await;
        let code = result.as_ref().expect_err(what).code();
        assert!(codes.contains(&code), "{what}: {code}: {result:?}");
        check(&rig, what, result.map(drop), code, &[]).await;
    }
    // A bomb: a few objects that stand for a thousand million files.
    let mut bomb = blob;
    for level in 0..9 {
        let mode = if level == 0 { "100644 blob" } else { "040000 tree" };
        let lines: Vec<String> = (0..10).map(|n| format!("{mode} {bomb}\tf{n}")).collect();
        fs::write(rig.root.path().join("lines"), lines.join("\n") + "\n").expect("is written");
        let input = fs::File::open(rig.root.path().join("lines")).expect("opens");
        let output = Command::new("git")
            .arg("mktree")
            .current_dir(rig.source_folder())
            .stdin(input)
            .output()
            .expect("git runs");
        bomb = String::from_utf8(output.stdout).expect("is text").trim().to_owned();
    }
    let commit = repository.git(&["commit-tree", &bomb, "-m", "a bomb"]);
    repository.git(&["update-ref", "refs/heads/main", &commit]);
    let result = repository.sync("main", "").await.map(drop);
    check(&rig, "a bomb", result, Code::TooManyFiles, &["split the repository"]).await;
}
