//! What a sandbox promises: nothing is left behind, whatever happens.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use airfleet_local::{Error, Keep, Postgres, Redis, Sandbox, Spec};

/// Processes that carry `marker` in their environment or whose working folder
/// lies in `folder`: servers may have overwritten the first.
fn remains(marker: &str, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        let marked =
            environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes());
        let inside = std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if marked || inside {
            let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_mins(3), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that owns a sandbox: this test program once more, running [`owner`].
struct Owner {
    process: Child,
    folder: PathBuf,
    marker: String,
    shared_memory: String,
}

impl Owner {
    fn spawn(root: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "owner", "--ignored", "--nocapture"])
            .env("OWNER_ROOT", root)
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut fields = Vec::new();
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, field)) = line.split_once("OWNER: ") {
                fields.push(field.to_owned());
            }
            if fields.len() == 3 {
                break;
            }
        }
        let [folder, marker, shared_memory] = fields.try_into().unwrap();
        Self { process, folder: folder.into(), marker, shared_memory }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    fn assert_everything_runs(&self) {
        for part in ["sleep 1000", "sleep 2000", "postgres", "redis-server"] {
            // More than once, for a process that just becomes another program
            // shows neither its command nor its environment.
            eventually(part, || {
                let remains = remains(&self.marker, &self.folder);
                remains.iter().any(|command| command.contains(part))
            });
        }
        assert!(has_shared_memory(&self.shared_memory));
    }

    fn assert_nothing_remains(&self) {
        eventually("the folder is removed", || !self.folder.exists());
        assert_eq!(remains(&self.marker, &self.folder), Vec::<String>::new());
        assert!(!has_shared_memory(&self.shared_memory));
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn has_shared_memory(id: &str) -> bool {
    let segments = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    segments.lines().any(|line| line.split_whitespace().nth(1) == Some(id))
}

/// The guardian of the sandbox at `folder`.
fn guardian_of(folder: &Path) -> Pid {
    let pid = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            let command = std::fs::read(entry.path().join("cmdline")).ok()?;
            let mut words = command.split(|byte| *byte == 0);
            let guards = words.any(|word| word == b"airfleet-guardian")
                && words.next() == Some(folder.as_os_str().as_encoded_bytes());
            guards.then(|| entry.file_name().to_str().unwrap().parse().unwrap())
        })
        .unwrap();
    Pid::from_raw(pid).unwrap()
}

/// Not a test: what [`Owner`] runs.
#[tokio::test]
#[ignore = "run by the other tests as a process to be killed"]
async fn owner() {
    let Some(root) = std::env::var_os("OWNER_ROOT").map(PathBuf::from) else {
        return;
    };
    let sandbox = Sandbox::create_at(root.join("owned"), Keep::Nothing).await.unwrap();
    let postgres = Postgres::options().sandbox(&sandbox).start().await.unwrap();
    // A session of its own, which shows in no process group of ours.
    let connected = postgres.query("postgres", "SELECT pg_sleep(3000)");
    let _redis = Redis::start_in(&sandbox).await.unwrap();
    let _plain = sandbox.spawn(&Spec::new("plain", "sleep").arg("1000")).unwrap();
    // Leaves its process group and its parent, as daemons do.
    let _daemon =
        sandbox.spawn(&Spec::new("daemon", "sh").args(["-c", "setsid sleep 2000 &"])).unwrap();
    let marker = sandbox.marker();
    eventually("the daemon runs", || {
        remains(&marker, sandbox.folder()).iter().any(|command| command == "sleep 2000 ")
    });
    let lock = std::fs::read_to_string(sandbox.folder().join("postgres/postmaster.pid")).unwrap();
    let shared_memory = lock.lines().nth(6).unwrap().split_whitespace().nth(1);
    println!("OWNER: {}", sandbox.folder().display());
    println!("OWNER: {marker}");
    println!("OWNER: {}", shared_memory.unwrap());
    connected.await.unwrap();
}

#[tokio::test]
async fn nothing_remains_of_an_owner_that_was_killed() {
    let root = Sandbox::create("killed").await.unwrap();
    let mut owner = Owner::spawn(root.folder());
    owner.assert_everything_runs();
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    owner.assert_nothing_remains();
}

#[tokio::test]
async fn nothing_remains_of_an_owner_that_was_interrupted_at_the_terminal() {
    let root = Sandbox::create("interrupted").await.unwrap();
    let mut owner = Owner::spawn(root.folder());
    owner.assert_everything_runs();
    // What Ctrl-C does: to the whole group in the foreground.
    kill_process_group(owner.pid(), Signal::INT).unwrap();
    owner.process.wait().unwrap();
    owner.assert_nothing_remains();
}

#[tokio::test]
async fn the_next_sandbox_cleans_up_where_the_guardian_was_killed_too() {
    let root = Sandbox::create("unguarded").await.unwrap();
    let mut owner = Owner::spawn(root.folder());
    owner.assert_everything_runs();
    kill_process(guardian_of(&owner.folder), Signal::KILL).unwrap();
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    assert!(owner.folder.exists());
    assert!(!remains(&owner.marker, &owner.folder).is_empty());

    let neighbour = Sandbox::create_at(root.folder().join("next"), Keep::Nothing).await.unwrap();
    owner.assert_nothing_remains();
    neighbour.close().await;
    assert!(!neighbour.folder().exists());
}

#[tokio::test]
async fn closing_ends_what_left_its_group_and_a_closed_sandbox_starts_nothing() {
    let sandbox = Sandbox::create("closing").await.unwrap();
    let daemon = Spec::new("daemon", "sh").args(["-c", "setsid sleep 3000 &"]);
    sandbox.run(&daemon, Duration::from_secs(30)).await.unwrap();
    eventually("the daemon runs", || sandbox.has_processes());
    sandbox.close().await;
    assert!(!sandbox.has_processes());
    assert!(!sandbox.folder().exists());
    sandbox.close().await;
    assert!(matches!(sandbox.spawn(&daemon), Err(Error::Closed { .. })));
}

#[tokio::test]
async fn a_folder_has_one_owner_at_a_time() {
    let first = Sandbox::create("single").await.unwrap();
    let error = Sandbox::create_at(first.folder(), Keep::Nothing).await.unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    let folder = first.folder().to_owned();
    drop(first);
    Sandbox::create_at(folder, Keep::Nothing).await.unwrap();
}

#[tokio::test]
async fn logs_are_kept_where_asked_and_removed_by_the_next_owner() {
    let root = Sandbox::create("logs").await.unwrap();
    let folder = root.folder().join("kept");
    let sandbox = Sandbox::create_at(&folder, Keep::Logs).await.unwrap();
    let speak = Spec::new("speak", "echo").arg("words");
    let output = sandbox.run(&speak, Duration::from_secs(30)).await.unwrap();
    assert_eq!(output, "words\n");
    std::fs::write(folder.join("data"), "").unwrap();
    sandbox.close().await;
    assert!(!folder.join("data").exists());
    assert_eq!(std::fs::read_to_string(folder.join("logs/speak.log")).unwrap(), "words\n");

    let next = Sandbox::create_at(&folder, Keep::Nothing).await.unwrap();
    assert!(!folder.join("logs/speak.log").exists());
    next.close().await;
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_folder_with_files_of_somebody_else_is_refused() {
    let root = Sandbox::create("foreign").await.unwrap();
    let folder = root.folder().join("home");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("letter"), "dear").unwrap();
    let error = Sandbox::create_at(&folder, Keep::Nothing).await.unwrap_err();
    assert!(error.to_string().contains("choose an empty folder"), "{error}");
    assert!(folder.join("letter").exists());
}

#[tokio::test]
async fn processes_stop_politely_or_are_killed_with_their_children() {
    let sandbox = Sandbox::create("stopping").await.unwrap();
    let polite = Spec::new("polite", "sh")
        .args(["-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.02; done"]);
    let process = sandbox.spawn(&polite).unwrap();
    eventually("it is up", || process.output().contains("up"));
    process.stop(Duration::from_secs(30)).await;
    assert_eq!(process.status().unwrap().code(), Some(3));
    assert!(process.output().ends_with("bye\n"));

    let stubborn = Spec::new("stubborn", "sh")
        .args(["-c", "trap '' TERM; echo up; sleep 1000 & setsid sleep 1000 & wait"]);
    let process = sandbox.spawn(&stubborn).unwrap();
    eventually("it is up", || process.output().contains("up"));
    process.stop(Duration::from_millis(50)).await;
    assert!(!process.is_running());
    eventually("its children are gone", || !sandbox.has_processes());
}

#[tokio::test]
async fn a_failed_command_is_told_with_its_last_words_and_without_our_environment() {
    let sandbox = Sandbox::create("failing").await.unwrap();
    let failing = Spec::new("failing", "sh")
        .args(["-c", "echo \"cargo is ${CARGO-absent}, $GIVEN\"; exit 7"])
        .env("GIVEN", "given");
    let error = sandbox.run(&failing, Duration::from_secs(30)).await.unwrap_err().to_string();
    assert!(error.contains("failing ended with exit status: 7"), "{error}");
    assert!(error.contains("cargo is absent, given"), "{error}");

    let missing = Spec::new("missing", "no-such-program");
    let error = sandbox.run(&missing, Duration::from_secs(30)).await.unwrap_err();
    assert!(error.to_string().contains("no-such-program"), "{error}");

    let slow = Spec::new("slow", "sleep").arg("1000");
    let error = sandbox.run(&slow, Duration::from_millis(50)).await;
    assert!(matches!(error, Err(Error::Timeout { .. })));
    assert!(!sandbox.has_processes());
}
