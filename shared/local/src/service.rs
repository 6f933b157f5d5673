//! A server that is started, stopped, killed and started again.
//!
//! Knows one process at a time and waits until it is [`Ready`]; must not know
//! what a particular server says.

use std::time::Duration;

use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::process::{Process, Spec};
use crate::sandbox::Sandbox;

/// Generous: two busy cores take 10 s for what takes 0.3 s on idle ones.
const READY_LIMIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(20);

/// What shows that a server is ready. It is data rather than a function, for
/// futures that hold borrowing async functions cannot be sent between threads.
#[derive(Debug)]
pub(crate) enum Ready {
    /// It runs.
    Started,
    /// To `greeting`, on a new connection to `port`, it answers with `answer`.
    Greets { port: u16, greeting: Vec<u8>, answer: &'static [u8] },
    /// It answers this URL with success.
    Serves { client: reqwest::Client, url: String },
}

impl Ready {
    async fn is_met(&self) -> bool {
        match self {
            Self::Started => true,
            Self::Greets { port, greeting, answer } => {
                greet(*port, greeting, answer.len()).await.as_deref() == Some(*answer)
            }
            Self::Serves { client, url } => {
                let response = client.get(url).send().await;
                response.is_ok_and(|response| response.status().is_success())
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Service {
    // Before the sandbox: it is to be gone when the guardian looks.
    process: Mutex<Option<Process>>,
    spec: Spec,
    ready: Ready,
    grace: Duration,
    sandbox: Sandbox,
}

impl Service {
    /// A service that is not started yet; asked to stop, it is given `grace`.
    pub(crate) fn new(sandbox: Sandbox, spec: Spec, ready: Ready, grace: Duration) -> Self {
        Self { process: Mutex::new(None), spec, ready, grace, sandbox }
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Starts the process and returns when it is ready; nothing happens if
    /// it runs. A process that does not become ready is killed.
    pub(crate) async fn start(&self) -> Result<()> {
        let mut slot = self.process.lock().await;
        if slot.as_ref().is_some_and(Process::is_running) {
            return Ok(());
        }
        // The old one is reaped before its name is used again.
        *slot = None;
        let process = self.sandbox.spawn(&self.spec)?;
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = process.status() {
                return Err(process.ended(status));
            }
            if self.ready.is_met().await {
                *slot = Some(process);
                return Ok(());
            }
            if start.elapsed() > READY_LIMIT {
                return Err(process.timed_out("ready", READY_LIMIT));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Stops the process in good order, or kills it after the grace.
    pub(crate) async fn stop(&self) {
        if let Some(process) = self.process.lock().await.take() {
            process.stop(self.grace).await;
        }
    }

    /// Kills the process and all its descendants with SIGKILL.
    pub(crate) async fn kill(&self) {
        if let Some(process) = self.process.lock().await.take() {
            process.kill().await;
        }
    }

    pub(crate) async fn is_running(&self) -> bool {
        let slot = self.process.lock().await;
        slot.as_ref().is_some_and(Process::is_running)
    }

    /// The error that tells that the process did not reach a state in time.
    pub(crate) async fn timed_out(&self, state: &'static str, waited: Duration) -> Error {
        match self.process.lock().await.as_ref() {
            Some(process) => process.timed_out(state, waited),
            None => Error::Timeout {
                name: "a stopped process".to_owned(),
                state,
                waited,
                detail: String::new(),
            },
        }
    }

    /// Asks the running process something; `Err` if it has ended, `None` if it
    /// was stopped.
    pub(crate) async fn ask<T>(&self, question: impl FnOnce(&Process) -> T) -> Result<Option<T>> {
        let slot = self.process.lock().await;
        let Some(process) = slot.as_ref() else {
            return Ok(None);
        };
        match process.status() {
            Some(status) => Err(process.ended(status)),
            None => Ok(Some(question(process))),
        }
    }
}

/// Connects to `port` on 127.0.0.1, sends `greeting` and returns the first
/// bytes of the answer, as many as `expected`; `None` if that fails or takes
/// longer than two seconds.
async fn greet(port: u16, greeting: &[u8], expected: usize) -> Option<Vec<u8>> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let attempt = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(greeting).await?;
        let mut answer = vec![0; expected];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    tokio::time::timeout(Duration::from_secs(2), attempt).await.ok()?.ok()
}

/// A client for services on loopback: never through a proxy.
pub(crate) fn http_client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .map_err(|source| Error::Invalid(format!("cannot make an HTTP client: {source}")))
}
