//! What the router tells of what it decides, and of what it sees of roles: events in words.
//!
//! Events of what is seen have ids that follow from what they say, so that a new leader which sees
//! it again does not tell it again.

use airfleet_domain::{
    ids::{NamespaceName, ShardName},
    manifest::Enforcement,
    moves::{Move, Phase},
    roles::{Fence, Residue, ResidueStep},
    routing::State,
};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    agents::{Drift, PolicyViolation, RoleChange, SeenRole},
    store::{Event, Override, Record, Source},
};

/// Events made of one role's lists at a time; the rest is summed up.
const SEEN_MAX: usize = 5;

fn event(
    namespace: NamespaceName,
    shard: Option<&str>,
    code: &str,
    message: String,
    now_us: i64,
) -> Event {
    Event {
        id: Uuid::now_v7(),
        namespace,
        shard: shard.unwrap_or_default().to_owned(),
        source: Source::Router,
        code: code.to_owned(),
        message,
        warning: false,
        happened_at_us: now_us,
    }
}

/// What a record that is about to be written tells, by how it differs from the one before.
pub(super) fn record(
    old: Option<&Record>,
    new: &Record,
    forced: Option<&Override>,
    now_us: i64,
    events: &mut Vec<Event>,
) {
    let entry = &new.entry;
    let reason = entry.reason();
    let (from, to) = (old.and_then(|old| old.entry.shard()), entry.shard());
    let generation = entry.generation();
    let tell = |shard, code: &str, message| event(new.namespace(), shard, code, message, now_us);
    let mut told = None;
    if from != to {
        told = Some(match (from, to) {
            (Some(from), Some(to)) => tell(
                Some(to),
                "REASSIGNED",
                format!("from {from} to {to}, generation {generation}: {reason}"),
            ),
            (None, Some(to)) => {
                tell(Some(to), "ASSIGNED", format!("to {to}, generation {generation}: {reason}"))
            }
            (Some(from), None) => tell(
                Some(from),
                "GIVEN_UP",
                format!("by {from}, generation {generation}: {reason}"),
            ),
            (None, None) => unreachable!("they differ"),
        });
    } else if old.is_none_or(|old| old.entry.state() != entry.state()) {
        told = match entry.state() {
            State::Unplaced => Some(Event {
                warning: true,
                ..tell(None, "UNPLACED", format!("no shard takes it: {reason}"))
            }),
            State::Released => Some(tell(None, "RELEASED", reason.to_owned())),
            // A move tells of itself.
            State::Assigned | State::Moving => None,
        };
    }
    if let Some(event) = told {
        let forced = forced.map(|forced| {
            format!(
                "; forced by {}, although it was not seen to be drained: {}",
                forced.actor, forced.reason
            )
        });
        events.push(Event {
            warning: event.warning || forced.is_some(),
            message: event.message.clone() + &forced.unwrap_or_default(),
            ..event
        });
    }
    match (old.and_then(|old| old.entry.pinned_shard()), entry.pinned_shard()) {
        (before, Some(now)) if before != Some(now) => {
            events.push(tell(Some(now), "PINNED", reason.to_owned()));
        }
        (Some(before), None) => events.push(tell(Some(before), "UNPINNED", reason.to_owned())),
        _ => {}
    }
    match (old.is_some_and(|old| old.orphaned), new.orphaned) {
        (false, true) => {
            events.push(Event { warning: true, ..tell(to, "ORPHANED", reason.to_owned()) });
        }
        (true, false) => events.push(tell(to, "REGISTERED_AGAIN", reason.to_owned())),
        _ => {}
    }
}

/// What a change of a move tells: a phase that begins, or a try that failed.
pub(super) fn moved(before: &Move, after: &Move, now_us: i64) -> Vec<Event> {
    phase(before, after, now_us).into_iter().chain(unproven(before, after, now_us)).collect()
}

/// A move is asked for.
pub(crate) fn begun(row: &Move, now_us: i64) -> Event {
    let Move { source, target, requested_by, reason, .. } = row;
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let (code, message) = if row.options.source_is_lost {
        let message = format!(
            "{requested_by} gave {source} up as lost and moves it to {target}; what ran there may \
             be lost, or run again{why}"
        );
        ("MOVE_FORCED", message)
    } else {
        ("MOVE_PLANNED", format!("{requested_by} moves it from {source} to {target}{why}"))
    };
    let event = event(row.namespace.clone(), Some(source.as_str()), code, message, now_us);
    Event { warning: row.options.source_is_lost, ..event }
}

/// A target does not have what was expected.
fn unproven(before: &Move, after: &Move, now_us: i64) -> Option<Event> {
    let proof = after.proof.as_deref().filter(|proof| before.proof.is_none() && !proof.holds())?;
    let named: Vec<&str> =
        proof.lines.iter().filter(|line| line.differs).take(SEEN_MAX).map(|l| &*l.dag_id).collect();
    let message = format!(
        "{} has other runs of {} DAGs than {} had: {}; see airfleet move describe {}",
        after.target,
        proof.differing,
        after.source,
        named.join(", "),
        after.id
    );
    let event = event(
        after.namespace.clone(),
        Some(after.target.as_str()),
        "MOVE_UNPROVEN",
        message,
        now_us,
    );
    Some(Event { warning: true, ..event })
}

fn phase(before: &Move, after: &Move, now_us: i64) -> Option<Event> {
    let Move { source, target, phase, .. } = after;
    let why = after.last_error.as_ref().filter(|_| after.last_error != before.last_error);
    let why = why.map(|error| format!("{}: {}", error.code, error.message));
    let (code, message) = if phase != &before.phase {
        let because = why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let code = format!("MOVE_{}", phase.name().to_uppercase());
        (code, format!("its move from {source} to {target} is {phase}{because}"))
    } else if let Some(why) = &why {
        let attempt = after.attempt;
        ("MOVE_RETRY".to_owned(), format!("try {attempt} of {phase} failed: {why}"))
    } else if after.cancel != before.cancel {
        let cancel = after.cancel.as_ref()?;
        ("MOVE_ABORT_REQUESTED".to_owned(), format!("by {}: {}", cancel.actor, cancel.reason))
    } else {
        return None;
    };
    let shard = if phase.is_past_flip() { target } else { source };
    let warning = why.is_some() || *phase == Phase::Aborted;
    let event = event(after.namespace.clone(), Some(shard.as_str()), &code, message, now_us);
    Some(Event { warning, ..event })
}

/// A namespace is removed from the table.
pub(super) fn removed(old: &Record, now_us: i64) -> Event {
    let message = "the manifest no longer has it, and no shard owns it".to_owned();
    event(old.namespace(), None, "REMOVED", message, now_us)
}

/// What a shard that has to give a namespace up got to.
pub(super) fn residue(old: &Residue, step: &ResidueStep, now_us: i64) -> Event {
    let shard = &old.shard;
    let (code, message) = match step {
        ResidueStep::Remove => ("PURGED", format!("{shard} removed what it had kept of it")),
        ResidueStep::Write(next) if next.role != old.role => (
            "PURGING",
            format!("the time is over for which {shard} kept its rows; it removes them"),
        ),
        ResidueStep::Write(_) | ResidueStep::Keep => {
            let before = match old.fence {
                Fence::Awaited => "; its new owner may run it now",
                Fence::Waived | Fence::Seen => "",
            };
            (
                "RETIRED",
                format!("{shard} said that it is fenced there and its files are gone{before}"),
            )
        }
    };
    event(old.namespace.clone(), Some(shard.as_str()), code, message, now_us)
}

/// What is news of a role: violations and drifts that were not there before, and an obstacle that
/// came or went.
pub(super) fn seen(shard: &ShardName, change: &RoleChange, now_us: i64) -> Vec<Event> {
    let Some(after) = &change.after else { return Vec::new() };
    let nothing = SeenRole::default();
    let before = change.before.as_ref().unwrap_or(&nothing);
    let mut events = Vec::new();
    let namespace = &change.namespace;
    let mut tell = |code: &str, message: String, warning, marks: &[&str]| {
        let event = event(namespace.clone(), Some(shard.as_str()), code, message, now_us);
        events.push(Event { id: derived(namespace, shard, code, marks), warning, ..event });
    };
    if let Some(obstacle) = after.obstacle.as_ref()
        && before.obstacle.as_ref().is_none_or(|known| known.code != obstacle.code)
    {
        let role = after.target.map_or("", |target| target.role.name());
        let since = obstacle.since_us.to_string();
        let is_there =
            after.observed.zip(after.target).is_some_and(|(observed, target)| observed.is(target));
        let how = if is_there { "is, and stays," } else { "cannot yet be" };
        let message = format!("{shard} {how} {role} for it: {}", obstacle.message);
        tell(&obstacle.code, message, true, &["obstacle", &since]);
    }
    let same = |a: &PolicyViolation, b: &PolicyViolation| {
        (&a.code, &a.dag_id, &a.task_id) == (&b.code, &b.dag_id, &b.task_id)
    };
    let new = |one: &&PolicyViolation| !before.violations.iter().any(|known| same(known, one));
    let new: Vec<_> = after.violations.iter().filter(new).collect();
    for one in new.iter().take(SEEN_MAX) {
        let PolicyViolation { code, dag_id, task_id, message, first_us, .. } = one;
        let what = if task_id.is_empty() {
            format!("DAG {dag_id}")
        } else {
            format!("task {task_id} of DAG {dag_id}")
        };
        let done = match one.mode {
            Enforcement::Enforce => "refused",
            Enforcement::Warn => "warned of",
        };
        let first = first_us.to_string();
        tell(code, format!("{done} {what}: {message}"), true, &[dag_id, task_id, &first]);
    }
    if let Some(more) = new.len().checked_sub(SEEN_MAX).filter(|more| *more > 0) {
        let message = format!("{more} more violations of its rules; see its status");
        let latest = new[0].first_us.to_string();
        tell("MORE_VIOLATIONS", message, true, &[&latest]);
    }
    let same = |a: &Drift, b: &Drift| (&a.code, &a.kind, &a.name) == (&b.code, &b.kind, &b.name);
    let new: Vec<_> = after
        .drift
        .iter()
        .filter(|one| !before.drift.iter().any(|known| same(known, one)))
        .collect();
    for Drift { code, kind, name, message, tolerated } in new.iter().take(SEEN_MAX) {
        let told = if *tolerated { "; it is left so" } else { "" };
        // The same drift may come back after it was put right: by the minute it is another one.
        let minute = (now_us / 60_000_000).to_string();
        tell(code, format!("{message}{told}"), *tolerated, &[kind, name, &minute]);
    }
    events
}

fn derived(namespace: &NamespaceName, shard: &ShardName, code: &str, marks: &[&str]) -> Uuid {
    let mut text = format!("{namespace}\0{shard}\0{code}");
    for mark in marks {
        text.push('\0');
        text.push_str(mark);
    }
    uuid::Builder::from_custom_bytes(xxh3_128(text.as_bytes()).to_be_bytes()).into_uuid()
}
