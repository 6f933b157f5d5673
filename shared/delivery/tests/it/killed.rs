//! Killed (SIGKILL) at every step and at any moment: Airflow sees one whole release, and the next
//! sync ends right.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use airfleet_delivery::{Roller, Settings, Step};
use airfleet_domain::manifest::Source;
use rustix::process::{Signal, getpid, kill_process};

use crate::{
    git::Repository,
    rig::{Files, Rig, files, settings},
};

const ROOT: &str = "AIRFLEET_TEST_ROOT";
const SOURCE: &str = "AIRFLEET_TEST_SOURCE";
const DIE_AT: &str = "AIRFLEET_TEST_DIE_AT";
/// More than what the journal of a fetch may lose.
const FILES: usize = 80;

fn few_releases() -> Settings {
    Settings { keep: 2, ..settings() }
}

/// Not a test: the process that is killed, which other tests start.
#[tokio::test]
#[ignore = "is started by other tests, to be killed"]
async fn victim() {
    let Ok(root) = env::var(ROOT) else { return };
    let source = env::var(SOURCE).expect("is told with it");
    let die_at = env::var(DIE_AT).unwrap_or_default();
    let roller = Roller::new(Path::new(&root).join("dags"), few_releases());
    let namespace = "payments".parse().expect("is a name");
    println!("begins");
    let watch = Arc::new(move |step: &Step| {
        if name(step) == die_at {
            kill_process(getpid(), Signal::KILL).expect("is its own");
        }
    });
    if source.is_empty() {
        roller.remove_watched(&namespace, watch).await.expect("is removed");
    } else {
        let source = Source { uri: source, ..Source::default() };
        roller.sync_watched(&namespace, &source, watch).await.expect("is delivered");
    }
}

/// The step's name without its numbers.
fn name(step: &Step) -> String {
    let text = format!("{step:?}");
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn start(rig: &Rig, source: &str, die_at: &str) -> Child {
    Command::new(env::current_exe().expect("is known"))
        .args(["--exact", "killed::victim", "--ignored", "--nocapture"])
        .env(ROOT, rig.root.path())
        .env(SOURCE, source)
        .env(DIE_AT, die_at)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts")
}

fn killed_at(rig: &Rig, source: &str, step: &str) {
    let output = start(rig, source, step).wait_with_output().expect("ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(9), "{step} is never told:\n{text}");
}

fn put(rig: &Rig, version: usize) {
    for number in 0..FILES {
        rig.put(&format!("d{number}.py"), &format!("import airflow # dag, version {version}"));
    }
    rig.put("helper.py", &format!("VERSION = {version}"));
    rig.put(&format!("only_in_{version}.py"), "import airflow # dag");
    let _ = fs::remove_file(rig.source_folder().join(format!("only_in_{}.py", version - 1)));
}

fn expected(version: usize) -> Files {
    let mut files = Files::new();
    for number in 0..FILES {
        files.insert(format!("d{number}.py"), format!("import airflow # dag, version {version}"));
    }
    files.insert("helper.py".into(), format!("VERSION = {version}"));
    files.insert(format!("only_in_{version}.py"), "import airflow # dag".into());
    files
}

/// What holds after a sync, whatever was before.
async fn check_settled(rig: &Rig, source: &Source, version: usize, what: &str) {
    assert_eq!(rig.seen(), expected(version), "{what}");
    let again = rig.roller.sync(&rig.namespace, source).await.expect(what);
    assert_eq!((again.switched, again.repaired, again.fetched_bytes), (false, 0, 0), "{what}");
    let current = rig.roller.current(&rig.namespace).await.expect(what);
    assert_eq!(current.as_ref(), Some(&again.release), "{what}");
    let releases = rig.roller.releases(&rig.namespace).await.expect(what);
    assert!(releases.len() <= 2, "{what}: {} are kept", releases.len());
    let home = rig.dags().join(".airfleet");
    let folders = fs::read_dir(home.join("releases/payments")).expect(what).count();
    assert_eq!(folders, releases.len(), "{what}");
    assert_eq!(files(&home.join("staging")), Files::new(), "{what}");
}

const STEPS: [&str; 11] = [
    "Begun",
    "Asked",
    "Fetching",
    "Fetched",
    "Staged",
    "Assembled",
    "Sealed",
    "Switched",
    "Freshened",
    "Pruned",
    "Settled",
];

/// Two releases are there, so that the third one is made of the first one's folder.
async fn die_at_each_step(source: impl Fn(&Rig) -> Source, publish: impl Fn(&Rig)) {
    for (index, step) in STEPS.into_iter().enumerate() {
        let rig = Rig::with(|settings| *settings = few_releases());
        let source = source(&rig);
        for version in 1..=2 {
            put(&rig, version);
            publish(&rig);
            rig.roller.sync(&rig.namespace, &source).await.expect("is delivered");
        }
        put(&rig, 3);
        publish(&rig);
        let begun = SystemTime::now();
        killed_at(&rig, &source.uri, step);
        let version = if index < 7 { 2 } else { 3 };
        assert_eq!(rig.seen(), expected(version), "killed at {step}");

        let synced = rig.roller.sync(&rig.namespace, &source).await.expect(step);
        assert_eq!(synced.switched, index < 7, "killed at {step}");
        if index >= 3 {
            assert_eq!(synced.fetched_bytes, 0, "what was fetched by {step} is not fetched again");
        }
        check_settled(&rig, &source, 3, step).await;
        for name in ["d0.py", "d79.py", "helper.py"] {
            let file = fs::metadata(rig.dags().join("payments").join(name)).expect("is there");
            let modified = file.modified().expect("is told");
            assert!(modified > begun, "{step}: Airflow would not look at {name}");
        }
    }
}

#[tokio::test]
async fn killed_at_each_step_of_a_sync_from_a_folder() {
    die_at_each_step(Rig::source, |_| {}).await;
}

#[tokio::test]
async fn killed_at_each_step_of_a_sync_from_a_repository() {
    let source = |rig: &Rig| {
        Repository::new(rig);
        let uri = format!("git+file://{}", rig.source_folder().display());
        Source { uri, ..Source::default() }
    };
    die_at_each_step(source, |rig| {
        Repository::of(rig).commit();
    })
    .await;
}

#[tokio::test]
async fn killed_again_and_again_at_any_moment() {
    let rig = Rig::with(|settings| *settings = few_releases());
    put(&rig, 1);
    rig.sync().await.expect("is delivered");
    let uri = rig.source().uri;
    let (mut died, mut shown) = (0, 1);
    for round in 0..40_u64 {
        let version = 2 + round as usize / 4;
        if round % 4 == 0 {
            put(&rig, version);
        }
        let mut child = start(&rig, &uri, "");
        let mut lines = BufReader::new(child.stdout.take().expect("is piped"));
        let mut line = String::new();
        while !line.contains("begins") {
            line.clear();
            assert!(lines.read_line(&mut line).expect("is text") > 0, "ended early");
        }
        // Moments over the whole of a sync, the same in each run.
        std::thread::sleep(Duration::from_micros((round * 7_919) % 30_000));
        child.kill().expect("is there");
        died += usize::from(child.wait().expect("ends").signal() == Some(9));

        let seen = rig.seen();
        let now = (shown..=version).find(|version| seen == expected(*version));
        shown = now.unwrap_or_else(|| panic!("round {round}: a mix is seen: {seen:?}"));
        if round % 4 == 3 {
            rig.sync().await.expect("is delivered");
            check_settled(&rig, &rig.source(), version, &format!("round {round}")).await;
        }
    }
    assert!(died >= 10, "only {died} were killed before they had done");
}

#[tokio::test]
async fn killed_while_a_namespace_is_removed() {
    let rig = Rig::with(|settings| *settings = few_releases());
    put(&rig, 1);
    rig.sync().await.expect("is delivered");
    killed_at(&rig, "", "Switched");
    assert_eq!(rig.seen(), Files::new());
    rig.roller.remove(&rig.namespace).await.expect("is removed");
    let left = files(&rig.dags().join(".airfleet"));
    assert!(left.keys().all(|name| name.starts_with("locks/")), "{left:?}");
    rig.sync().await.expect("comes back");
    check_settled(&rig, &rig.source(), 1, "back").await;
}
