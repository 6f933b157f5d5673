//! One pass over a namespace: look, do the next step, look again, until nothing is left to do.

use std::{collections::BTreeMap, path::Path, time::Duration};

use airfleet_delivery::{Blame, Release, Synced};
use airfleet_domain::{
    ids::{Generation, NamespaceName, Revision},
    moves::Seen,
    roles::{Desired, FenceFound, Found, Observed, Presence, Role, Step, next_step},
};
use airfleet_proto::agent::v1 as wire;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::{Shard, moving::SeenOfMove, rules::Entry};
use crate::{
    airflow::{
        fence::{
            self, TriggerState,
            gate::{self, GateError, Place, Sight},
        },
        metadata::{self, Metadata},
        objects::{self, Change, Declared, Difference, Key, Kind, Value, judge},
    },
    link::Order,
    report::timestamp,
    secrets::{Cipher, parse_connection},
};

/// Most steps of one pass; more means that somebody undoes what is done.
const STEPS_MAX: usize = 16;

/// Time for what is asked of the metadata database at once, with waiting for a turn.
pub(super) const METADATA_LIMIT: Duration = Duration::from_secs(30);

/// How long a pass waits for transactions that began before the fence closed.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

const SETTLE_PAUSE: Duration = Duration::from_millis(25);

/// Pause between two looks at how far a namespace is drained.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);

/// What is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Stable code.
    pub(super) code: String,
    /// One line: what is wrong and what to do.
    pub(super) message: String,
    /// Whether trying again soon is no use.
    pub(super) is_lasting: bool,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing is left to do.
    Settled,
    /// Something takes its time, or is in the way; look again after this.
    Waiting(Duration),
}

/// What came of a pass.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ending: Ending,
    /// None where the shard could not be looked at.
    pub(super) sight: Option<Sight>,
    pub(super) obstacle: Option<Problem>,
    pub(super) drift: Vec<wire::Drift>,
    /// The role was reached in this pass, and so many DAGs run.
    pub(super) reached_now: Option<i64>,
    /// What was seen of the move that the order names.
    pub(super) seen_of_move: Option<SeenOfMove>,
    /// Code, message and whether somebody should look.
    pub(super) events: Vec<(&'static str, String, bool)>,
}

/// What is known from one pass to the next. Losing it loses nothing but words.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) release: Option<wire::Release>,
    /// Of the manifest that the shard was last brought to.
    pub(super) manifest_revision: i64,
    delivery_failed: bool,
    /// The first look in this role at which nothing of the namespace ran, as far as that was so since.
    pub(super) quiet: Option<(Role, airfleet_transfer::drain::Look)>,
    /// When its source was last asked.
    brought_at: Option<Instant>,
}

/// One pass.
pub(super) struct Pass<'a> {
    pub(super) shard: &'a Shard,
    pub(super) name: &'a NamespaceName,
    pub(super) order: &'a Order,
}

/// What was looked at.
struct Look {
    sight: Sight,
    found: Found,
    changes: Vec<Change>,
    differences: Vec<Difference>,
    trigger: TriggerState,
    release: Option<Release>,
}

impl Pass<'_> {
    /// Brings the namespace as far as it goes. `is_let_go` says that its traces are to go too.
    pub(super) async fn run(&self, memory: &mut Memory, is_let_go: bool) -> Outcome {
        let mut outcome = Outcome {
            ending: Ending::Settled,
            sight: None,
            obstacle: None,
            drift: Vec::new(),
            reached_now: None,
            seen_of_move: None,
            events: Vec::new(),
        };
        if let Err(problem) = self.converge(memory, &mut outcome, is_let_go).await {
            outcome.obstacle = Some(problem);
            outcome.ending = Ending::Waiting(DRAIN_PAUSE);
        }
        match self.see(memory, &outcome).await {
            Ok(seen) => outcome.seen_of_move = seen,
            Err(problem) => {
                outcome.obstacle.get_or_insert(problem);
            }
        }
        outcome
    }

    async fn converge(
        &self,
        memory: &mut Memory,
        outcome: &mut Outcome,
        is_let_go: bool,
    ) -> Result<(), Problem> {
        let metadata = self.shard.metadata.as_ref().ok_or_else(|| Problem {
            code: "METADATA_OFF".to_owned(),
            message: "the agent has no airflow.metadata_url, so nothing can be fenced; set it"
                .to_owned(),
            is_lasting: true,
        })?;
        let desired = self.order.effective();
        let place = self.order.place();
        let (declared, unknown) = self.declared(desired.role).await;
        let mut excused = (false, false);
        let started = Instant::now();
        let mut fenced_anew = false;
        let mut rows_are_gone = false;
        let mut steps = 0;
        while steps < STEPS_MAX {
            let mut look = self.look(metadata, desired, &declared, memory).await?;
            if look.trigger != TriggerState::Works && !fenced_anew {
                fenced_anew = true;
                let installed = fence::install(metadata, None);
                limited(installed).await.map_err(|error| metadata_problem(&error))?;
                continue;
            }
            if excused.0 {
                look.found.settings = Presence::Right;
            }
            if excused.1 {
                look.found.files = Presence::Right;
            }
            note(&look, outcome);
            let runs = look.sight.is_open() && desired.role == Role::Active;
            let step = next_step(desired, place, &look.found).map_err(|overtaken| Problem {
                code: "ORDER_OVERTAKEN".to_owned(),
                message: format!(
                    "{overtaken}; what the router says is older (generation {}, revision {}): was \
                     its store restored from a backup?",
                    place.generation.0, place.revision.0
                ),
                is_lasting: true,
            })?;
            tracing::debug!(namespace = %self.name, ?step, "next");
            steps += 1;
            match step {
                None => {
                    self.maintain(desired.role, &look, &unknown, memory, outcome).await;
                    if is_let_go {
                        self.forget(metadata).await?;
                    }
                    return Ok(());
                }
                Some(Step::Close) => {
                    if self.is_waiting_for_others(&look, place) {
                        if started.elapsed() > SETTLE_LIMIT {
                            return Err(Problem {
                                code: "FENCE_WAITS".to_owned(),
                                message:
                                    "a transaction of the metadata database that began before \
                                          the fence was closed is still open and could unpause a \
                                          DAG; look for idle transactions"
                                        .to_owned(),
                                is_lasting: false,
                            });
                        }
                        steps -= 1;
                        // Closing again would begin the wait anew.
                        sleep(SETTLE_PAUSE).await;
                        continue;
                    }
                    self.close(metadata, desired, &look, outcome).await?;
                }
                Some(Step::Settle) => {
                    let settled = self.settle(metadata, desired.role, &declared, outcome).await;
                    match settled.and(unknown.first().cloned().map_or(Ok(()), Err)) {
                        Ok(()) => {}
                        // What runs goes on running.
                        Err(problem) if runs => {
                            excused.0 = true;
                            outcome.obstacle = Some(problem);
                        }
                        Err(problem) => return Err(problem),
                    }
                }
                Some(Step::Unsettle) => {
                    self.settle(metadata, desired.role, &declared, outcome).await?;
                }
                Some(Step::Bring) => match self.bring(memory, outcome).await {
                    Ok(()) => excused.1 = true,
                    Err(problem) if runs => {
                        excused.1 = true;
                        outcome.obstacle = Some(problem);
                    }
                    Err(problem) => return Err(problem),
                },
                Some(Step::Remove) => self.remove(memory, outcome).await?,
                Some(Step::Drain) => {
                    outcome.ending = Ending::Waiting(DRAIN_PAUSE);
                    return Ok(());
                }
                Some(Step::Open) => {
                    self.open(metadata, desired, &look).await?;
                }
                Some(Step::Reach) if desired.role == Role::Absent && !rows_are_gone => {
                    rows_are_gone = self.remove_rows(outcome).await?;
                    if !rows_are_gone {
                        outcome.ending = Ending::Waiting(DRAIN_PAUSE);
                        return Ok(());
                    }
                }
                Some(Step::Reach) => {
                    self.reach(metadata, desired).await?;
                    outcome.reached_now = Some(look.sight.listed.min(look.sight.unpaused));
                }
            }
        }
        Err(Problem {
            code: "NOT_CONVERGING".to_owned(),
            message:
                "what the agent does is undone at once; is a second agent, or a tool, at work \
                      on this shard?"
                    .to_owned(),
            is_lasting: false,
        })
    }

    fn gate_order(&self, desired: Desired) -> gate::Order<'_> {
        gate::Order {
            namespace: self.name.as_str(),
            prefixes: &self.order.prefixes,
            role: desired.role,
            place: Place { generation: desired.generation.0, revision: self.order.revision.0 },
        }
    }

    /// Whether the fence is closed as it should be and only older transactions are to end.
    fn is_waiting_for_others(&self, look: &Look, place: Seen) -> bool {
        let is_placed = look.found.fence.is_some_and(|fence| fence.place == place);
        let sight = &look.sight;
        is_placed
            && !sight.is_settled
            && sight.unpaused == 0
            && sight.has(&self.order.prefixes, false)
    }

    /// What is to be there of pools, variables and connections, and what of it cannot be known.
    async fn declared(&self, role: Role) -> (BTreeMap<Key, Declared>, Vec<Problem>) {
        let (mut declared, mut problems) = (BTreeMap::new(), Vec::new());
        if !role.has_workload() {
            return (declared, problems);
        }
        let workload = &self.order.workload;
        let cipher = &self.shard.cipher;
        for pool in &workload.pools {
            let (slots, deferred) = (pool.slots.to_string(), pool.include_deferred.to_string());
            let digest = cipher.digest(&["pool", &slots, &pool.description, &deferred]);
            let value = Value::Pool {
                slots: pool.slots,
                description: pool.description.clone(),
                include_deferred: pool.include_deferred,
            };
            declared.insert((Kind::Pool, pool.name.clone()), Declared { value, digest });
        }
        let variables = workload.variables.iter().map(|v| (Kind::Variable, &v.key, &v.secret));
        let connections = workload.connections.iter().map(|c| (Kind::Connection, &c.id, &c.secret));
        // The shard's secrets backend has those that name no file.
        let by_file = variables.chain(connections).filter(|(_, _, file)| !file.is_empty());
        let by_file: Vec<_> =
            by_file.map(|(kind, name, file)| (kind, name.clone(), file.clone())).collect();
        if by_file.is_empty() {
            return (declared, problems);
        }
        let (files, cipher) = (self.shard.secrets.clone(), cipher.clone());
        let namespace = self.name.to_string();
        let read = tokio::task::spawn_blocking(move || {
            let one = |(kind, name, file): (Kind, String, String)| {
                let value = secret(&files, &cipher, &namespace, kind, &name, &file);
                ((kind, name), value)
            };
            by_file.into_iter().map(one).collect::<Vec<_>>()
        });
        for (key, value) in read.await.unwrap_or_default() {
            match value {
                Ok(value) => drop(declared.insert(key, value)),
                Err(message) => problems.push(Problem {
                    code: "SECRET_UNREADABLE".to_owned(),
                    message,
                    is_lasting: true,
                }),
            }
        }
        (declared, problems)
    }

    async fn look(
        &self,
        metadata: &Metadata,
        desired: Desired,
        declared: &BTreeMap<Key, Declared>,
        memory: &mut Memory,
    ) -> Result<Look, Problem> {
        let namespace = self.name.as_str();
        let prefixes = &self.order.prefixes;
        let seen = limited(async {
            let mut tx = metadata.begin().await?;
            let trigger = fence::trigger_state(&mut tx).await?;
            if trigger == TriggerState::Missing {
                // Its tables may be missing too.
                tx.rollback().await;
                return Ok((trigger, Sight::default(), objects::Found::default()));
            }
            let sight = gate::look(&mut tx, namespace, prefixes).await?;
            let objects = objects::look(&mut tx, &self.shard.cipher, namespace, declared).await?;
            tx.rollback().await;
            Ok((trigger, sight, objects))
        });
        let (trigger, sight, objects) = seen.await.map_err(|error| metadata_problem(&error))?;
        let (changes, differences) =
            judge(namespace, declared, &objects, self.order.workload.drift);
        let of_objects = match (changes.is_empty(), objects.owned.is_empty()) {
            (true, _) if desired.role.has_workload() => Presence::Right,
            (true, true) => Presence::Nothing,
            _ => Presence::Different,
        };
        let of_rules = self.rules_presence(desired.role).await?;
        let release = self.current().await?;
        let is_sealed = sight
            .reached
            .is_some_and(|(role, at, _)| role == desired.role && at == desired.generation.0);
        let is_drained =
            desired.role == Role::Sealed && (is_sealed || self.is_drained(memory).await?);
        let found = Found {
            fence: sight.order.map(|(_, at)| FenceFound {
                place: Seen {
                    generation: Generation(at.generation),
                    revision: Revision(at.revision),
                },
                is_open: sight.is_open(),
                is_settled: if sight.is_open() {
                    sight.has(prefixes, true) && sight.noted == 0
                } else {
                    sight.has(prefixes, false) && sight.is_settled && sight.unpaused == 0
                },
            }),
            settings: together(of_objects, of_rules),
            files: self.files_presence(desired.role, release.as_ref()),
            is_drained,
            reached: sight
                .reached
                .map(|(role, generation, _)| Observed { role, generation: Generation(generation) }),
        };
        memory.release = release.as_ref().map(|release| self.wire_release(release));
        Ok(Look { sight, found, changes, differences, trigger, release })
    }

    async fn rules_presence(&self, role: Role) -> Result<Presence, Problem> {
        let is_wanted = role.has_workload();
        let Some(rules) = &self.shard.rules else {
            return Ok(if is_wanted { Presence::Right } else { Presence::Nothing });
        };
        let entry = is_wanted.then(|| Entry::of(self.order));
        let presence = rules.presence(self.name.as_str(), entry.as_ref()).await;
        presence.map_err(|error| local(&error))
    }

    async fn current(&self) -> Result<Option<Release>, Problem> {
        let Some(roller) = &self.shard.roller else { return Ok(None) };
        roller.current(self.name).await.map_err(|error| delivery_problem(&error))
    }

    fn files_presence(&self, role: Role, release: Option<&Release>) -> Presence {
        let source = self.order.workload.source.as_ref();
        match (release, source) {
            _ if self.shard.roller.is_none() => {
                if role.has_workload() {
                    Presence::Right
                } else {
                    Presence::Nothing
                }
            }
            (None, None) if role.has_workload() => Presence::Right,
            (None, _) => Presence::Nothing,
            // What is there is what its tasks began with.
            (Some(_), _) if matches!(role, Role::Quiesced | Role::Sealed) => Presence::Right,
            (Some(release), Some(source)) if release.source == *source => Presence::Right,
            (Some(_), _) => Presence::Different,
        }
    }

    fn wire_release(&self, release: &Release) -> wire::Release {
        let dags = self.shard.dags_folder();
        let switched = dags
            .and_then(|dags| switched_at(&dags.join(self.name.as_str())))
            .unwrap_or(release.fetched_at);
        wire::Release {
            id: release.commit.clone().unwrap_or_else(|| release.id.to_string()),
            switch_time: Some(timestamp(switched)),
            files: release.files as i64,
            bytes: release.bytes as i64,
        }
    }

    async fn close(
        &self,
        metadata: &Metadata,
        desired: Desired,
        look: &Look,
        outcome: &mut Outcome,
    ) -> Result<(), Problem> {
        let order = self.gate_order(desired);
        let moving = self.moving().await?.filter(|_| look.sight.is_open());
        let paused = limited_step(async {
            let mut tx = begin(metadata).await?;
            let paused = gate::close(&mut tx, order).await.map_err(gate_problem)?;
            if let Some(moving) = &moving {
                moving.note_stop(&mut tx).await?;
            }
            commit(tx).await?;
            Ok(paused)
        })
        .await?;
        if paused > 0 {
            let message =
                format!("paused {}; the pause state of each is remembered", counted(paused, "DAG"));
            outcome.events.push(("FENCED", message, false));
        }
        Ok(())
    }

    /// Lifts the fence. In a move, what came due while it was closed is made up for.
    async fn open(
        &self,
        metadata: &Metadata,
        desired: Desired,
        look: &Look,
    ) -> Result<(), Problem> {
        let order = self.gate_order(desired);
        let moving = self.moving().await?.filter(|_| !look.sight.is_open());
        limited_step(async {
            let mut tx = begin(metadata).await?;
            gate::open(&mut tx, order).await.map_err(gate_problem)?;
            if let Some(moving) = &moving {
                moving.start(&mut tx).await?;
            }
            commit(tx).await
        })
        .await
    }

    /// Records that the role is reached, and with SEALED up to where the namespace came.
    async fn reach(&self, metadata: &Metadata, desired: Desired) -> Result<(), Problem> {
        let order = self.gate_order(desired);
        let moving = self.moving().await?.filter(|_| desired.role == Role::Sealed);
        limited_step(async {
            let mut tx = begin(metadata).await?;
            gate::reached(&mut tx, order).await.map_err(gate_problem)?;
            if let Some(moving) = &moving {
                moving.seal(&mut tx).await?;
            }
            commit(tx).await
        })
        .await
    }

    /// Rules, pools, variables and connections, as far as they are known.
    async fn settle(
        &self,
        metadata: &Metadata,
        role: Role,
        declared: &BTreeMap<Key, Declared>,
        outcome: &mut Outcome,
    ) -> Result<(), Problem> {
        let namespace = self.name.as_str();
        if let Some(rules) = &self.shard.rules {
            let entry = role.has_workload().then(|| Entry::of(self.order));
            let written = rules.set(namespace, entry, self.order.manifest_revision).await;
            written.map_err(|error| local(&error))?;
        }
        let done = limited(async {
            let mut tx = metadata.begin().await?;
            let found = objects::look(&mut tx, &self.shard.cipher, namespace, declared).await?;
            let (changes, _) = judge(namespace, declared, &found, self.order.workload.drift);
            objects::apply(&mut tx, &self.shard.cipher, namespace, &changes).await?;
            tx.commit().await?;
            Ok(changes)
        });
        let changes = done.await.map_err(|error| Problem {
            code: "SETTINGS_FAILED".to_owned(),
            ..metadata_problem(&error)
        })?;
        let words: Vec<_> = changes.iter().filter_map(Change::words).collect();
        if !words.is_empty() {
            outcome.events.push(("SETTINGS_APPLIED", words.join(", "), false));
        }
        Ok(())
    }

    /// Delivers what the source holds; takes files away where there is no source.
    async fn bring(&self, memory: &mut Memory, outcome: &mut Outcome) -> Result<(), Problem> {
        let Some(roller) = &self.shard.roller else { return Ok(()) };
        let Some(source) = &self.order.workload.source else {
            return self.remove(memory, outcome).await;
        };
        let _slow = if memory.delivery_failed {
            self.shard.slow_deliveries.acquire().await.ok()
        } else {
            None
        };
        let started = Instant::now();
        memory.brought_at = Some(started);
        // Until it is known to have gone well, also where it is interrupted.
        memory.delivery_failed = true;
        let synced = roller.sync(self.name, source).await;
        self.shard.delivery_metrics.synced(&synced, started.elapsed());
        let synced = synced.map_err(|error| delivery_problem(&error))?;
        memory.delivery_failed = false;
        memory.release = Some(self.wire_release(&synced.release));
        if synced.held {
            outcome.drift.push(wire::Drift {
                kind: "file".to_owned(),
                name: self.name.to_string(),
                code: "RELEASE_HELD".to_owned(),
                message:
                    "somebody rolled back on this shard; the source is followed again once it \
                          changes, or by airfleet-agent sync --follow"
                        .to_owned(),
                tolerated: true,
            });
        }
        if synced.switched {
            outcome.events.push(("RELEASE_SWITCHED", words_of_release(&synced, source), false));
        } else if synced.repaired > 0 {
            outcome.drift.push(wire::Drift {
                kind: "file".to_owned(),
                name: self.name.to_string(),
                code: "FILE_CHANGED".to_owned(),
                message: format!(
                    "{} was not as delivered, and was put right",
                    counted(synced.repaired as i64, "file")
                ),
                tolerated: false,
            });
        }
        Ok(())
    }

    async fn remove(&self, memory: &mut Memory, outcome: &mut Outcome) -> Result<(), Problem> {
        let Some(roller) = &self.shard.roller else { return Ok(()) };
        roller.remove(self.name).await.map_err(|error| delivery_problem(&error))?;
        memory.release = None;
        outcome.events.push(("FILES_REMOVED", "its DAG files were taken away".to_owned(), false));
        Ok(())
    }

    /// What is done again and again where a namespace is what it is to be.
    async fn maintain(
        &self,
        role: Role,
        look: &Look,
        unknown: &[Problem],
        memory: &mut Memory,
        outcome: &mut Outcome,
    ) {
        if let Some(problem) = unknown.first() {
            outcome.obstacle.get_or_insert_with(|| problem.clone());
        }
        let follows = matches!(role, Role::Active | Role::Staged)
            && (look.release.is_some() || self.order.workload.source.is_some());
        // While it is moved it is looked at more often than sources are asked.
        let is_early = self.order.task().is_some()
            && memory.brought_at.is_some_and(|at| at.elapsed() < self.shard.interval);
        let is_due =
            follows && !is_early && outcome.obstacle.is_none() && outcome.reached_now.is_none();
        if is_due && let Err(problem) = self.bring(memory, outcome).await {
            outcome.obstacle = Some(problem);
        }
        if outcome.obstacle.is_none() {
            memory.manifest_revision = self.order.manifest_revision;
        }
        debug_assert!(look.changes.is_empty() || outcome.obstacle.is_some());
    }

    /// Takes away what the fence knows of a namespace that is absent and no longer named.
    async fn forget(&self, metadata: &Metadata) -> Result<(), Problem> {
        let order = self.gate_order(self.order.desired);
        limited_gate(async {
            let mut tx = metadata.begin().await?;
            gate::let_go(&mut tx, order).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}

fn note(look: &Look, outcome: &mut Outcome) {
    let first = outcome.sight.is_none();
    outcome.sight = Some(look.sight.clone());
    // What was found at first, or is left as it is: what was repaired is told once.
    if first {
        let drift = look.differences.iter().map(wire_drift);
        outcome.drift = drift.take(100).collect();
    }
}

fn together(one: Presence, other: Presence) -> Presence {
    match (one, other) {
        (Presence::Right, Presence::Right) => Presence::Right,
        (Presence::Nothing, Presence::Nothing) => Presence::Nothing,
        _ => Presence::Different,
    }
}

/// The value that a secret file gives. The error is for people and never holds it.
fn secret(
    files: &crate::secrets::SecretFiles,
    cipher: &Cipher,
    namespace: &str,
    kind: Kind,
    name: &str,
    file: &str,
) -> Result<Declared, String> {
    let what = format!("{} {name}", kind.name());
    let (path, text) = files.read(namespace, file, &what).map_err(|error| error.to_string())?;
    let digest = cipher.digest(&[kind.name(), &text]);
    let value = match kind {
        Kind::Connection => {
            let connection = parse_connection(&text).map_err(|why| {
                crate::secrets::SecretError::Malformed { what, path, why }.to_string()
            })?;
            Value::Connection(Box::new(connection))
        }
        Kind::Variable | Kind::Pool => Value::Variable(text),
    };
    Ok(Declared { value, digest })
}

fn switched_at(link: &Path) -> Option<Timestamp> {
    let changed = std::fs::symlink_metadata(link).ok()?.modified().ok()?;
    Timestamp::try_from(changed).ok()
}

fn words_of_release(synced: &Synced, source: &airfleet_domain::manifest::Source) -> String {
    let id = synced.release.commit.as_deref().unwrap_or(synced.release.id.as_str());
    let id = id.get(..12).unwrap_or(id);
    let changes = synced.changes;
    let before = match &synced.previous {
        Some(previous) => format!(", before it {}", previous.short()),
        None => String::new(),
    };
    format!(
        "release {id} of {}: {}, {} new, {} changed, {} gone{before}",
        source.uri,
        counted(synced.release.files as i64, "file"),
        changes.added,
        changes.changed,
        changes.removed
    )
}

/// "1 file", "2 files".
pub(super) fn counted(count: i64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn wire_drift(difference: &Difference) -> wire::Drift {
    wire::Drift {
        kind: difference.key.0.name().to_owned(),
        name: difference.key.1.clone(),
        code: difference.code.clone(),
        message: difference.message.clone(),
        tolerated: difference.tolerated,
    }
}

fn local(error: &std::io::Error) -> Problem {
    Problem { code: "LOCAL_IO".to_owned(), message: error.to_string(), is_lasting: false }
}

fn delivery_problem(error: &airfleet_delivery::Error) -> Problem {
    Problem {
        code: error.code().as_str().to_owned(),
        message: crate::words::chain(error),
        // Asking a source is cheap, and its owners wait for what they mended.
        is_lasting: error.code().blame() == Blame::Operator,
    }
}

/// Runs what needs the metadata database, within a limit.
async fn limited<T>(
    work: impl Future<Output = Result<T, metadata::Error>>,
) -> Result<T, metadata::Error> {
    let late = metadata::Error::Late(METADATA_LIMIT);
    timeout(METADATA_LIMIT, work).await.unwrap_or(Err(late))
}

async fn limited_gate<T>(work: impl Future<Output = Result<T, GateError>>) -> Result<T, Problem> {
    let late = GateError::Metadata(metadata::Error::Late(METADATA_LIMIT));
    let done = timeout(METADATA_LIMIT, work).await.unwrap_or(Err(late));
    done.map_err(gate_problem)
}

/// Runs what changes more than the fence, within a limit.
async fn limited_step<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let late = || metadata_problem(&metadata::Error::Late(METADATA_LIMIT));
    timeout(METADATA_LIMIT, work).await.unwrap_or_else(|_| Err(late()))
}

async fn begin(metadata: &Metadata) -> Result<metadata::Transaction, Problem> {
    metadata.begin().await.map_err(|error| metadata_problem(&error))
}

async fn commit(tx: metadata::Transaction) -> Result<(), Problem> {
    tx.commit().await.map_err(|error| metadata_problem(&error))
}

fn gate_problem(error: GateError) -> Problem {
    match error {
        GateError::Metadata(error) => metadata_problem(&error),
        GateError::Overtaken { .. } => Problem {
            code: "ORDER_OVERTAKEN".to_owned(),
            message: error.to_string(),
            is_lasting: true,
        },
        GateError::NotKept { .. } => Problem {
            code: "FENCE_NOT_KEPT".to_owned(),
            message: error.to_string(),
            is_lasting: true,
        },
    }
}

pub(super) fn metadata_problem(error: &metadata::Error) -> Problem {
    let (code, is_lasting) = match error {
        metadata::Error::Unsupported => ("METADATA_UNSUPPORTED", true),
        metadata::Error::UnknownRevision(_) => ("SCHEMA_UNKNOWN", true),
        metadata::Error::NotAirflow => ("METADATA_NOT_AIRFLOW", true),
        metadata::Error::NotAllowed { .. } => ("METADATA_NOT_ALLOWED", true),
        metadata::Error::Late(_) | metadata::Error::Database { .. } => ("METADATA_FAILED", false),
    };
    Problem { code: code.to_owned(), message: crate::words::chain(error), is_lasting }
}
