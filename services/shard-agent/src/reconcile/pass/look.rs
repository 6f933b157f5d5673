//! What is there of a namespace, and what is to be there.

use std::path::Path;

use airfleet_delivery::Release;
use airfleet_domain::{
    ids::{Generation, Revision},
    moves::Seen,
    roles::{Desired, FenceFound, Found, Observed, Presence, Role},
};
use airfleet_proto::agent::v1 as wire;
use jiff::Timestamp;

use super::{
    super::{
        problem::{Problem, limited},
        rules::Entry,
    },
    Memory, Pass,
};
use crate::{
    airflow::{
        fence::{
            self, TriggerState,
            gate::{self, Sight},
        },
        metadata::{self, Metadata},
        objects::{self, Change, Declarations, Declared, Difference, Kind, Value, judge},
    },
    report::timestamp,
    secrets::{Cipher, SecretError, SecretFiles, parse_connection},
};

/// What was looked at.
pub(super) struct Look {
    pub(super) sight: Sight,
    pub(super) found: Found,
    pub(super) changes: Vec<Change>,
    pub(super) differences: Vec<Difference>,
    pub(super) trigger: TriggerState,
    pub(super) release: Option<Release>,
}

impl Pass<'_> {
    /// What is to be there of pools, variables and connections, and what of it cannot be known.
    pub(super) async fn declared(&self, role: Role) -> (Declarations, Vec<Problem>) {
        let (mut declared, mut problems) = (Declarations::new(), Vec::new());
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
            declared.insert((Kind::Pool, pool.name.clone()), Some(Declared { value, digest }));
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
        for (key, value) in read.await.expect("reading files does not panic") {
            let value = value.map_err(|error| {
                problems.push(Problem::lasting("SECRET_UNREADABLE", error.to_string()));
            });
            declared.insert(key, value.ok());
        }
        (declared, problems)
    }

    pub(super) async fn look(
        &self,
        metadata: &Metadata,
        desired: Desired,
        declared: &Declarations,
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
            Ok::<_, metadata::Error>((trigger, sight, objects))
        });
        let (trigger, sight, mut objects) = seen.await?;
        if !desired.role.has_workload() {
            // What still runs does not look at its pool, and nothing of it is scheduled any more.
            objects.busy_pools.clear();
        }
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
        if sight.is_open() || sight.unpaused > 0 {
            memory.quiet = None;
        }
        let is_drained = desired.role == Role::Sealed
            && (is_sealed || (!sight.is_open() && self.is_drained(memory).await?));
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
        Ok(rules.presence(self.name.as_str(), entry.as_ref()).await?)
    }

    async fn current(&self) -> Result<Option<Release>, Problem> {
        let Some(roller) = &self.shard.roller else { return Ok(None) };
        Ok(roller.current(self.name).await?)
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

    pub(super) fn wire_release(&self, release: &Release) -> wire::Release {
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
    files: &SecretFiles,
    cipher: &Cipher,
    namespace: &str,
    kind: Kind,
    name: &str,
    file: &str,
) -> Result<Declared, SecretError> {
    let what = format!("{} {name}", kind.name());
    let (path, text) = files.read(namespace, file, &what)?;
    let digest = cipher.digest(&[kind.name(), &text]);
    let value = match kind {
        Kind::Connection => {
            let connection = parse_connection(&text).map_err(|why| SecretError::Malformed {
                what,
                path,
                why,
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
