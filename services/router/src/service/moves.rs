//! Starting, showing and giving up moves.

use std::{sync::Arc, time::Duration};

use airfleet_domain::{
    ids::{MoveId, NamespaceName, ShardName},
    moves::{
        Cancel, Change, End, Left, Move, Options, Ownership, Phase, Waiting,
        preflight::{Finding, Severity, findings},
        unfenced,
    },
};
use airfleet_runtime::status::FieldViolation;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::{Error, Service, Who, pin::known};
use crate::{
    leader::{Leader, begun},
    mover::{Look, Mover, Order},
    store::{Override, Which},
};

/// How long agents are given to say what they find.
const INSPECTION_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether they have.
const INSPECTION_LOOK: Duration = Duration::from_millis(50);

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct StartMove {
    /// The namespace.
    pub(crate) namespace: NamespaceName,
    /// Where to.
    pub(crate) target: ShardName,
    /// How.
    pub(crate) options: Options,
    /// Who asks, and why.
    pub(crate) who: Who,
    /// Only look.
    pub(crate) validate_only: bool,
    /// Chosen by the caller; may be empty.
    pub(crate) request_id: String,
    /// Generation that the caller saw; 0 for any.
    pub(crate) expected_generation: i64,
}

/// A move with what is seen of it now.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// As it was committed, or would be.
    pub(crate) row: Move,
    /// Whether it was.
    pub(crate) durable: bool,
    /// What it waits for.
    pub(crate) waiting: Option<Waiting>,
    /// Whether somebody should look at it.
    pub(crate) alarming: bool,
    /// Moves that have to end first. Count.
    pub(crate) ahead: usize,
    /// What is seen at the source.
    pub(crate) source: End,
    /// What is seen at the target.
    pub(crate) target: End,
    /// When the transfer that is on will be over. Microseconds since 1970-01-01 UTC.
    pub(crate) transfer_end_us: Option<i64>,
    /// For how long no shard could make runs. Microseconds.
    pub(crate) blackout_us: Option<i64>,
}

impl Service {
    /// Begins a move, or only looks whether it can be. Answers it, and what was found.
    pub(crate) async fn start_move(&self, ask: StartMove) -> Result<(Shown, Vec<Finding>), Error> {
        if ask.options.source_is_lost && ask.who.reason.trim().is_empty() {
            let why = "say why the source is given up; it is kept";
            return Err(Error::Invalid(vec![FieldViolation::new("reason", "REQUIRED", why)]));
        }
        let leader = self.leader()?;
        if let Some(known) = asked_before(&leader, &ask).await? {
            return Ok((show(&leader, known), Vec::new()));
        }
        let draft = draft(&leader, &ask)?;
        let found = inspected(&leader, &draft).await;
        let blocked = found.iter().any(|one| one.severity() == Severity::Blocks);
        if ask.validate_only {
            return Ok((Shown { durable: false, ..show(&leader, draft) }, found));
        }
        if blocked {
            return Err(Error::MoveBlocked { namespace: ask.namespace.to_string(), found });
        }
        let row = begin(&leader, &ask).await?;
        Ok((show(&leader, row), found))
    }

    /// The move of that id, else the latest of that namespace.
    pub(crate) async fn find_move(&self, name: &str) -> Result<Shown, Error> {
        let leader = self.leader()?;
        let row = leader.tools.store.move_named(name).await?;
        let row = row.ok_or_else(|| Error::NoMove(name.to_owned()))?;
        Ok(show(&leader, row))
    }

    /// Moves, the latest first.
    pub(crate) async fn list_moves(&self, which: &Which, limit: u32) -> Result<Vec<Shown>, Error> {
        let leader = self.leader()?;
        let rows = leader.tools.store.moves(which, limit).await?;
        Ok(rows.into_iter().map(|row| show(&leader, row)).collect())
    }

    /// Asks for a move to be given up. Asking again changes nothing.
    pub(crate) async fn abort_move(&self, name: &str, who: Who) -> Result<Shown, Error> {
        let leader = self.leader()?;
        let id = self.find_move(name).await?.row.id;
        let mut turn = leader.turn().await?;
        let open = leader.moves().iter().find(|row| row.id == id).map(|row| (**row).clone());
        let Some(before) = open else {
            let why = "it has ended; start another one to move the namespace back".to_owned();
            return Err(Error::MoveState { id: id.to_string(), code: "MOVE_ENDED", why });
        };
        if before.cancel.is_some() || before.phase == Phase::Aborting {
            return Ok(show(&leader, before));
        }
        if !before.phase.is_abortable() {
            let why = format!(
                "{} owns {} already; let it end, then move it back",
                before.target, before.namespace
            );
            return Err(Error::MoveState { id: id.to_string(), code: "MOVE_PAST_FLIP", why });
        }
        let stamp = turn.stamp();
        let cancel = Some(Cancel { actor: who.actor, reason: who.reason, at_us: stamp.now_us });
        let row = Move { cancel, revision: stamp.revision, ..before.clone() };
        let keep = Change { row: row.clone(), ownership: Ownership::Keep, left: Left::AsIs };
        let batch = leader.batch_of(&before, keep, &stamp);
        turn.commit(batch.ok_or_else(|| Error::NoNamespace(row.namespace.to_string()))?).await?;
        drop(turn);
        leader.moves_soon();
        Ok(show(&leader, row))
    }
}

impl Leader {
    /// Refuses what would change the owner of a namespace that is moved.
    pub(super) fn not_moved(&self, namespace: &NamespaceName) -> Result<(), Error> {
        match self.moves().of(namespace.as_str()) {
            None => Ok(()),
            Some(row) => Err(Error::MoveState {
                id: row.id.to_string(),
                code: "MOVE_OPEN",
                why: format!(
                    "it moves {namespace} from {} to {} and is {}; let it end, or abort it",
                    row.source, row.target, row.phase
                ),
            }),
        }
    }
}

fn show(leader: &Leader, row: Move) -> Shown {
    let seen = leader.observations(&row);
    let now_us = leader.tools.clock.unix_micros();
    Shown {
        waiting: leader.waiting(&row),
        alarming: leader.moves_policy().is_alarming(&row, now_us),
        ahead: seen.ahead,
        transfer_end_us: leader
            .tools
            .hub
            .transfer_end_us(row.target.as_str(), row.namespace.as_str()),
        blackout_us: row.blackout_us(now_us),
        source: seen.source,
        target: seen.target,
        durable: true,
        row,
    }
}

async fn asked_before(leader: &Leader, ask: &StartMove) -> Result<Option<Move>, Error> {
    if ask.request_id.is_empty() || ask.validate_only {
        return Ok(None);
    }
    let known = leader.tools.store.move_requested(&ask.request_id).await?;
    match known {
        Some(row) if row.namespace != ask.namespace || row.target != ask.target => {
            let why = "was used for another move; choose a new one";
            Err(Error::Invalid(vec![FieldViolation::new("request_id", "REUSED", why)]))
        }
        known => Ok(known),
    }
}

/// The move that is asked for, if the namespace can be moved at all.
fn draft(leader: &Leader, ask: &StartMove) -> Result<Move, Error> {
    let known = known(leader, &ask.namespace)?;
    let entry = &known.entry;
    if ask.expected_generation != 0 && ask.expected_generation != entry.generation().0 {
        return Err(Error::Generation {
            namespace: ask.namespace.to_string(),
            expected: ask.expected_generation,
            current: entry.generation(),
        });
    }
    if leader.fleet().shard(ask.target.as_str()).is_none() {
        return Err(Error::NoShard(ask.target.to_string()));
    }
    leader.not_moved(&ask.namespace)?;
    let refused =
        |code, why: String| Error::Immovable { namespace: ask.namespace.to_string(), code, why };
    let Some(source) = entry.shard().and_then(|shard| shard.parse::<ShardName>().ok()) else {
        let why = "no shard owns it; it is placed as soon as one fits".to_owned();
        return Err(refused("NOT_ASSIGNED", why));
    };
    if source == ask.target {
        return Err(refused("ALREADY_THERE", format!("{source} owns it already")));
    }
    let awaited = {
        let residues = leader.residues();
        let left = unfenced(&ask.target, residues.of(ask.namespace.as_str()));
        left.map(|left| left.shard.to_string())
    };
    if let Some(shard) = awaited {
        let why = format!("{shard}, which had it, has not said that it is fenced; start its agent");
        return Err(refused("SHARD_UNFENCED", why));
    }
    let id: MoveId = Uuid::now_v7().to_string().parse().expect("a UUID is an id");
    Ok(Move::begin(
        id,
        ask.namespace.clone(),
        (source, ask.target.clone()),
        entry.generation(),
        entry.revision(),
        ask.options,
        (ask.who.actor.clone(), ask.who.reason.clone()),
        &leader.moves_policy(),
        leader.tools.clock.unix_micros(),
    ))
}

/// Makes the move durable, unless it was asked for before.
async fn begin(leader: &Leader, ask: &StartMove) -> Result<Move, Error> {
    let mut turn = leader.turn().await?;
    if let Some(known) = asked_before(leader, ask).await? {
        return Ok(known);
    }
    // Whatever changed since it was looked at.
    let draft = draft(leader, ask)?;
    let stamp = turn.stamp();
    let row = Move { began_revision: stamp.revision, revision: stamp.revision, ..draft };
    let keep = Change { row: row.clone(), ownership: Ownership::Keep, left: Left::AsIs };
    let batch = leader.batch_of(&row, keep, &stamp);
    let mut batch = batch.ok_or_else(|| Error::NoNamespace(ask.namespace.to_string()))?;
    for moved in &mut batch.moves {
        moved.request_id.clone_from(&ask.request_id);
    }
    batch.events.push(begun(&row, stamp.now_us));
    if ask.options.source_is_lost {
        tracing::warn!(
            namespace = %row.namespace,
            source = %row.source,
            actor = ask.who.actor,
            reason = ask.who.reason,
            "a namespace is taken from a shard that is given up: what ran there since may be lost, \
             or run again"
        );
        batch.overrides.push(Override {
            action: "force-lost-source",
            subject: ask.namespace.to_string(),
            actor: ask.who.actor.clone(),
            reason: ask.who.reason.clone(),
        });
    }
    turn.commit(batch).await?;
    drop(turn);
    leader.moves_soon();
    Ok(row)
}

/// Carries the moves of plans out. What speaks against one is found when its turn comes.
impl Mover for Leader {
    fn begin(&self, order: Order) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let ask = StartMove {
                namespace: order.namespace,
                target: order.to,
                options: Options::default(),
                who: Who { actor: "plan".into(), reason: order.reason },
                validate_only: false,
                request_id: order.key,
                expected_generation: 0,
            };
            match begin(self, &ask).await {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn look<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Look> {
        Box::pin(async move {
            match self.tools.store.move_requested(key).await {
                Ok(None) => Look::Unknown,
                Ok(Some(row)) => match row.phase {
                    Phase::Done => Look::Done,
                    Phase::Aborted => {
                        let why = row.last_error.map(|error| (error.code, error.message));
                        let (code, message) = why.unwrap_or_default();
                        Look::Failed(format!("{code}: {message}"))
                    }
                    _ => Look::Running,
                },
                // It is looked again.
                Err(_) => Look::Running,
            }
        })
    }

    fn under_way(&self) -> Vec<(ShardName, ShardName)> {
        let moves = self.moves();
        moves.iter().map(|row| (row.source.clone(), row.target.clone())).collect()
    }
}

/// What both agents find, as far as they answer in time.
async fn inspected(leader: &Arc<Leader>, row: &Move) -> Vec<Finding> {
    let asked_at_us = leader.tools.clock.unix_micros();
    let deadline = tokio::time::Instant::now() + INSPECTION_PATIENCE;
    let missing = |end: &End| {
        let fresh = |at_us: i64| at_us >= asked_at_us;
        end.connected && !end.inspection.as_ref().is_some_and(|found| fresh(found.at_us))
    };
    loop {
        let seen = leader.observations(row);
        let source = !row.options.source_is_lost && missing(&seen.source);
        let target = missing(&seen.target);
        if (!source && !target) || tokio::time::Instant::now() >= deadline {
            return findings(row, &seen);
        }
        leader.inspect(row, source, target);
        tokio::time::sleep(INSPECTION_LOOK).await;
    }
}
