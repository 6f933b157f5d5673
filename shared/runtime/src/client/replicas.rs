//! Finds the replica that answers.
//!
//! Any replica may be asked. One that does not lead names the leader, and is not asked again until
//! the leader fails. What a caller sees is one service.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tonic::{Code, Status};

use super::{Backoff, Connector, Error, Transport};
use crate::{config::ClientConfig, status::Problem};

/// Most addresses that are remembered, so that wrong answers cannot fill the memory.
const ADDRESSES_MAX: usize = 64;

const PAUSE_SHORTEST: Duration = Duration::from_millis(50);
const PAUSE_LONGEST: Duration = Duration::from_secs(2);

/// What may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Whatever failed for a passing reason: reads, and writes with a `request_id`.
    Idempotent,
    /// Only what was certainly not carried out: refused because the replica does not lead.
    NotLeader,
}

/// The replicas of one service. Clones share what they learn.
#[derive(Clone, Debug)]
pub struct Replicas(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Connector,
    configured: Vec<String>,
    scheme: &'static str,
    attempts: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    current: String,
    next: usize,
    transports: HashMap<String, Transport>,
}

impl Replicas {
    /// The replicas that `config` names. Nothing is connected yet.
    pub fn new(config: &ClientConfig) -> Result<Self, Error> {
        let connector = Connector::new(config)?;
        let first = config.endpoints.first().ok_or(Error::NoEndpoint)?.clone();
        let mut transports = HashMap::new();
        for endpoint in &config.endpoints {
            transports.insert(endpoint.clone(), connector.transport(endpoint)?);
        }
        let scheme = if first.starts_with("https:") { "https" } else { "http" };
        Ok(Self(Arc::new(Inner {
            connector,
            configured: config.endpoints.clone(),
            scheme,
            // Each replica once, the leader it names, and one more for a change of leader.
            attempts: (config.endpoints.len() as u32 + 2).max(4),
            state: Mutex::new(State { current: first, next: 1, transports }),
        })))
    }

    /// The replica that answered last, or the first one. For streams, whose callers report with
    /// [`Replicas::failed`] how they ended.
    pub fn current(&self) -> Transport {
        self.current_with_address().1
    }

    /// Address of the replica that [`Replicas::current`] reaches.
    pub fn current_address(&self) -> String {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).current.clone()
    }

    fn current_with_address(&self) -> (String, Transport) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let address = state.current.clone();
        if let Some(transport) = state.transports.get(&address) {
            return (address, transport.clone());
        }
        // Unreachable as `current` is always an address with a transport, but cheap to mend.
        state.current.clone_from(&self.0.configured[0]);
        let address = state.current.clone();
        let transport = state.transports[&address].clone();
        (address, transport)
    }

    /// Calls the service: `call` is given a transport and answers what the method answers. Goes to
    /// the leader where a replica names it, and to another replica where one is away; waits a
    /// little in between. Gives up after a few attempts, with the last answer.
    pub async fn call<T, F, Fut>(&self, retry: Retry, mut call: F) -> Result<T, Status>
    where
        F: FnMut(Transport) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let mut backoff = Backoff::new(PAUSE_SHORTEST, PAUSE_LONGEST);
        let mut reloaded = false;
        loop {
            let (address, transport) = self.current_with_address();
            let status = match call(transport).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            if status.code() == Code::Unauthenticated && !reloaded {
                // The token may have been replaced.
                reloaded = true;
                if let Ok(true) = self.0.connector.credentials().reload() {
                    continue;
                }
            }
            let problem = Problem::from(&status);
            let again = match retry {
                Retry::Idempotent => problem.is_transient(),
                Retry::NotLeader => problem.is_not_leader(),
            };
            let redirected = self.redirect(&address, &problem);
            if !again || backoff.failures() + 1 >= self.0.attempts {
                return Err(status);
            }
            let pause = backoff.next_pause(problem.retry_after);
            if !(redirected && problem.leader().is_some()) {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Learns from the end of a stream over [`Replicas::current`]. Whether another replica is the
    /// current one now, so that connecting at once makes sense.
    pub fn failed(&self, status: &Status) -> bool {
        let address = self.current_address();
        if status.code() == Code::Unauthenticated {
            return self.0.connector.credentials().reload().unwrap_or(false);
        }
        self.redirect(&address, &Problem::from(status))
    }

    /// Makes another replica the current one if `problem`, the answer of the one at `address`,
    /// calls for it. Whether the current one is another one now.
    fn redirect(&self, address: &str, problem: &Problem) -> bool {
        let leader = problem.leader().filter(|_| problem.is_not_leader());
        if leader.is_none() && problem.code != Code::Unavailable {
            return false;
        }
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.current != address {
            // Another caller was told before.
            return true;
        }
        if let Some(leader) = leader
            && let Some(leader) = self.known(&mut state, leader)
        {
            let changed = leader != state.current;
            state.current = leader;
            return changed;
        }
        let next = state.next % self.0.configured.len();
        state.next = next + 1;
        let changed = self.0.configured[next] != state.current;
        state.current.clone_from(&self.0.configured[next]);
        changed
    }

    /// The address of `leader` (host:port or URL), with a transport. `None` where it cannot be
    /// reached as safely as the replicas that were configured.
    fn known(&self, state: &mut State, leader: &str) -> Option<String> {
        let address = match leader.split_once("://") {
            Some((scheme, _)) if scheme == self.0.scheme => leader.to_owned(),
            Some(_) => return None,
            None => format!("{}://{leader}", self.0.scheme),
        };
        if state.transports.contains_key(&address) {
            return Some(address);
        }
        if state.transports.len() >= ADDRESSES_MAX {
            let configured = &self.0.configured;
            state.transports.retain(|address, _| configured.contains(address));
        }
        let transport = self.0.connector.transport(&address).ok()?;
        state.transports.insert(address.clone(), transport);
        Some(address)
    }
}
