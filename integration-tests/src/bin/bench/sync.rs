//! Delivery of a bundle of 10,000 files beside `rclone sync` on the same source: a folder, and an
//! object store that speaks S3 (moto, which is an emulator). Both start anew for every sync, as a
//! timer would start them; rclone keeps its default flags.
//!
//! Each begins on a disk with nothing left to write. The agent makes what it delivers survive a
//! power cut, keeps earlier releases, and switches in one step; rclone leaves the rest to the kernel.
//! The emulator's requests cost processor time of this machine instead of a way over a network.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use airfleet_integration_tests::{
    bench::report::{Figure, Goal, Report},
    process::binary,
};
use airfleet_local::ObjectStore;
use anyhow::{Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::{
    progress,
    rig::{Rig, median},
};

/// Files of the bundle, and bytes of each.
const FILES: usize = 10_000;
const BYTES: usize = 1_000;

/// Files that change from one release to the next.
const CHANGED: usize = 10;

/// Rounds until the agent keeps as many releases as it will ever keep.
const WARM: usize = 3;

const BUCKET: &str = "dags";

/// Runs a command and tells how long it took and how much memory its process held at most: nothing
/// in Rust's own library does.
const WATCH: &str = "
import json, os, subprocess, sys, time
begun = time.monotonic()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
took = time.monotonic() - begun
print(json.dumps({'seconds': took, 'kb': usage.ru_maxrss, 'status': status}))
";

#[derive(Debug, Clone, Copy, Deserialize)]
struct Took {
    seconds: f64,
    kb: f64,
    status: i32,
}

/// One source, and where each of the two brings it.
struct Race<'a> {
    what: &'a str,
    /// As the agent names it, and as rclone does.
    source: (String, String),
    home: PathBuf,
    /// Of first syncs, the last one.
    round: Cell<usize>,
    variables: Vec<(String, String)>,
}

impl Race<'_> {
    async fn ours(&self) -> Result<Took> {
        let agent = binary("airfleet-agent")?.display().to_string();
        let dags = self.dags().display().to_string();
        let namespace = format!("pay={}", self.source.0);
        let arguments =
            [&*agent, "sync", "--once", "--dags-folder", &dags, "--namespace", &namespace];
        self.run(&arguments).await
    }

    async fn rclone(&self) -> Result<Took> {
        let copy = self.copy().display().to_string();
        self.run(&["rclone", "sync", &self.source.1, &copy]).await
    }

    async fn run(&self, command: &[&str]) -> Result<Took> {
        // What others left to be written belongs to nobody's time.
        ensure!(Command::new("sync").status().await?.success());
        let output = Command::new("python3")
            .args(["-c", WATCH])
            .args(command)
            // Of no use to a server without TLS, and rclone stumbles over it.
            .env_remove("AWS_CA_BUNDLE")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stderr(Stdio::inherit())
            .output()
            .await?;
        let took: Took = serde_json::from_slice(&output.stdout)?;
        ensure!(took.status == 0, "{command:?} failed");
        Ok(took)
    }

    /// Both, the one that begins changing from round to round.
    async fn both(&self, round: usize) -> Result<(Took, Took)> {
        if round.is_multiple_of(2) {
            let ours = self.ours().await?;
            return Ok((ours, self.rclone().await?));
        }
        let rclone = self.rclone().await?;
        Ok((self.ours().await?, rclone))
    }

    /// `rounds` times, after `warm` ones that do not count: `prepare`, then both. Adds how many times
    /// as fast as rclone it is, by the medians, and gives the most memory that the agent took, in MB.
    async fn measure(
        &self,
        report: &mut Report,
        (name, goal): (&str, Goal),
        (warm, rounds): (usize, usize),
        mut prepare: impl AsyncFnMut(usize) -> Result<()>,
    ) -> Result<f64> {
        let (mut ours, mut peer, mut peak) = (Vec::new(), Vec::new(), 0_f64);
        for round in 0..warm + rounds {
            prepare(round).await?;
            let (one, other) = self.both(round).await?;
            peak = peak.max(one.kb * 1024.0 / 1e6);
            if round < warm {
                continue;
            }
            ours.push(one.seconds);
            peer.push(other.seconds);
        }
        let speed = |times: Vec<f64>| 1.0 / median(times);
        let beside = ("rclone sync", speed(peer));
        let name = format!("sync.{}_{name}", self.what);
        report.add(Figure::beside(&name, speed(ours), "/s", beside, goal))?;
        Ok(peak)
    }

    /// From now on both bring it to folders that were never there. Those before are left: a file
    /// system is slow to make files just after it removed as many (ext4 passes over inodes that were
    /// in use a few seconds ago), and that is not what is measured.
    fn begin_anew(&self, round: usize) -> Result<()> {
        self.round.set(round);
        for folder in [self.dags(), self.copy()] {
            fs::create_dir_all(folder)?;
        }
        Ok(())
    }

    fn dags(&self) -> PathBuf {
        self.home.join(format!("dags-{}", self.round.get()))
    }

    fn copy(&self) -> PathBuf {
        self.home.join(format!("copy-{}", self.round.get()))
    }
}

/// Which file is which, and what it says in a round.
fn file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("part_{:03}/dag_{number:05}.py", number / 100))
}

fn text(number: usize, round: usize) -> String {
    let mut text = format!("# airflow dag {number}, {round}\n");
    text.extend(std::iter::repeat_n('x', BYTES.saturating_sub(text.len())));
    text
}

/// Changes some files, others each round.
fn change(folder: &Path, round: usize) -> Result<()> {
    for index in 0..CHANGED {
        let number = (index * (FILES / CHANGED) + round) % FILES;
        fs::write(file(folder, number), text(number, round + 1))?;
    }
    Ok(())
}

pub(crate) async fn run(rig: &Rig, report: &mut Report) -> Result<()> {
    ensure_rclone().await?;
    let source = rig.file("sync-source");
    for part in 0..FILES / 100 {
        fs::create_dir_all(source.join(format!("part_{part:03}")))?;
    }
    for number in 0..FILES {
        fs::write(file(&source, number), text(number, 0))?;
    }
    let of_folder = folder(rig, report, &source).await?;
    let of_store = object_store(rig, report, &source).await?;
    let peak = of_folder.max(of_store);
    report.add(Figure::alone("sync.memory_peak", peak, "MB", Goal::AtMost(64.0)))?;
    Ok(())
}

/// Installs Debian's package where the program is missing.
async fn ensure_rclone() -> Result<()> {
    const INSTALL: &str = "export DEBIAN_FRONTEND=noninteractive; as=; \
        [ \"$(id -u)\" = 0 ] || as='sudo -n'; \
        $as apt-get update -qq && $as apt-get install -qq --yes --no-install-recommends rclone";
    let is_there = async || {
        let found = Command::new("rclone").arg("version").stdout(Stdio::null()).status().await;
        found.is_ok_and(|status| status.success())
    };
    if !is_there().await {
        progress("installing rclone");
        Command::new("sh").args(["-c", INSTALL]).stdout(Stdio::null()).status().await?;
    }
    ensure!(is_there().await, "rclone is missing; as root, run: apt-get install rclone");
    Ok(())
}

async fn folder(rig: &Rig, report: &mut Report, source: &Path) -> Result<f64> {
    let shown = source.display().to_string();
    let race = Race {
        what: "folder",
        source: (shown.clone(), shown),
        home: rig.file("sync-folder"),
        round: Cell::new(0),
        variables: Vec::new(),
    };
    let first = ("first", Goal::AtLeast(1.0));
    let first = race.measure(report, first, (0, 5), async |round| race.begin_anew(round)).await?;
    let changed = ("changed", Goal::AtLeast(3.0));
    let changed =
        race.measure(report, changed, (WARM, 9), async |round| change(source, round)).await?;
    Ok(first.max(changed))
}

async fn object_store(rig: &Rig, report: &mut Report, source: &Path) -> Result<f64> {
    let store = ObjectStore::start_new(BUCKET).await?;
    let endpoint = store.base_url();
    let pairs = [
        ("AWS_ACCESS_KEY_ID", "bench"),
        ("AWS_SECRET_ACCESS_KEY", "bench-secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", &endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("RCLONE_CONFIG_STORE_TYPE", "s3"),
        ("RCLONE_CONFIG_STORE_PROVIDER", "Other"),
        ("RCLONE_CONFIG_STORE_ENV_AUTH", "true"),
        ("RCLONE_CONFIG_STORE_REGION", "us-east-1"),
        ("RCLONE_CONFIG_STORE_ENDPOINT", &endpoint),
        ("NO_PROXY", "127.0.0.1"),
    ];
    let race = Race {
        what: "s3",
        source: (format!("s3://{BUCKET}/bundle"), format!("store:{BUCKET}/bundle")),
        home: rig.file("sync-s3"),
        round: Cell::new(0),
        variables: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    let shown = source.display().to_string();
    let upload = async || {
        let store = &race.source.1;
        race.run(&["rclone", "sync", "--transfers", "16", &shown, store]).await
    };
    upload().await?;
    let first = ("first", Goal::AtLeast(1.0));
    let first = race.measure(report, first, (0, 3), async |round| race.begin_anew(round)).await?;
    let changed = ("changed", Goal::AtLeast(3.0));
    let changed = race
        .measure(report, changed, (WARM, 3), async |round| {
            change(source, 100 + round)?;
            upload().await?;
            Ok(())
        })
        .await?;
    store.kill().await;
    Ok(first.max(changed))
}
