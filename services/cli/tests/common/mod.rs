//! A control plane of its own for each test, run by the command itself.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Its standard output, having checked how it ended.
    pub(crate) fn expect(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Its standard error, having checked that it failed.
    pub(crate) fn refusal(self) -> String {
        assert_eq!(self.code, 1, "{}{}", self.stdout, self.stderr);
        self.stderr
    }

    /// Its standard output as JSON.
    pub(crate) fn json(self, code: i32) -> serde_json::Value {
        let text = self.expect(code);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// A folder in which commands are run, with nothing of the machine's own settings.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).expect("the folder can be written to");
        name.to_owned()
    }

    /// A command that can be started here.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_airfleet"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AIRFLEET__")) {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME");
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, "")
    }

    /// Runs a command to its end, with text on its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Done {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command can be started");
        let mut stdin = child.stdin.take().expect("standard input is a pipe");
        // Whoever does not read it may have ended before.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("the command can be waited for");
        Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A control plane in a folder.
pub(crate) struct Fleet {
    pub(crate) bench: Bench,
    child: Child,
    ports: (u16, u16),
}

impl Fleet {
    /// Starts one without shards, on free ports, and waits until it is up.
    pub(crate) fn start() -> Self {
        let bench = Bench::new();
        let child = dev(&bench, (0, 0));
        let mut fleet = Self { bench, child, ports: (0, 0) };
        fleet.wait_ready();
        fleet
    }

    /// One with two shards that take whatever comes.
    pub(crate) fn with_shards() -> Self {
        let fleet = Self::start();
        fleet.bench.write("shards.yaml", SHARDS);
        fleet.run(&["apply", "-f", "shards.yaml"]).expect(0);
        fleet
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.bench.run(arguments)
    }

    fn wait_ready(&mut self) {
        let ready = self.bench.path("ready.json");
        let deadline = Instant::now() + LIMIT;
        while !ready.exists() {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                let mut text = String::new();
                let stderr = self.child.stderr.take();
                stderr.expect("a pipe").read_to_string(&mut text).expect("text");
                panic!("airfleet dev ended with {status}: {text}");
            }
            assert!(Instant::now() < deadline, "the control plane did not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        let text = fs::read_to_string(&ready).expect("the file is there");
        let ready: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let port = |name: &str| {
            let url = ready[name].as_str().expect("a URL");
            url.rsplit(':').next().expect("a port").parse().expect("a number")
        };
        self.ports = (port("registry"), port("router"));
    }

    /// Kills it without a word (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
        fs::remove_file(self.bench.path("ready.json")).expect("it could not remove it");
    }

    /// Starts it again where it was.
    pub(crate) fn restart(&mut self) {
        self.child = dev(&self.bench, self.ports);
        self.wait_ready();
    }

    /// Asks it to stop, as Ctrl-C does, and waits for its end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).expect("it runs");
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dev(bench: &Bench, (registry, router): (u16, u16)) -> Child {
    let (registry, router) = (registry.to_string(), router.to_string());
    bench
        .command(&["dev", "--shards", "0", "--registry-port", &registry, "--router-port", &router])
        .args(["--ready-file", "ready.json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command can be started")
}

/// The lines of a command that goes on.
pub(crate) struct Lines {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Lines {
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command can be started");
        let stdout: ChildStdout = child.stdout.take().expect("a pipe");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line, which must come.
    pub(crate) fn next_line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("another line comes")
    }

    /// The next line as JSON.
    pub(crate) fn next_json(&self) -> serde_json::Value {
        serde_json::from_str(&self.next_line()).expect("it is JSON")
    }

    /// How it ended.
    pub(crate) fn end(mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "it goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two shards with room.
pub(crate) const SHARDS: &str = "\
apiVersion: airfleet.dev/v1
kind: Shard
metadata: {name: shard-a, labels: {tier: gold}}
spec: {size: large, url: 'http://127.0.0.1:8080'}
---
apiVersion: airfleet.dev/v1
kind: Shard
metadata: {name: shard-b}
spec: {size: large}
";

/// A namespace with one prefix, `<name>.`.
pub(crate) fn namespace(name: &str) -> String {
    format!(
        "apiVersion: airfleet.dev/v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{kind: test}}}}\n\
         spec:\n  owners: [team-{name}]\n  prefixes: [{name}.]\n  demand: {{dags: 3}}\n"
    )
}

/// A folder of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
