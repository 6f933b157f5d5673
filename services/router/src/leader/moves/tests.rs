//! Whole moves with scripted agents: they do at once what they are told, and say so. No Airflow.

use std::collections::BTreeMap;

use airfleet_domain::{
    ids::{Generation, Revision, Term},
    moves::{
        Cancel, Drain, Evidence, Mark, Options, Side, TableSum, Transfer, TransferState,
        preflight::Inspection,
    },
    roles::{Observed, Role},
};

use super::*;
use crate::{
    agents::{Hub, Session},
    leader::Tools,
    testing::{Database, World, hello, name, world_on},
};

macro_rules! on_both_engines {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(crate::testing::sqlite()).await; })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(crate::testing::postgres().await).await; })*
        }
    };
}

on_both_engines!(
    a_move_goes_on_whoever_leads_and_whenever_the_leader_dies,
    a_move_can_be_given_up_in_every_phase_before_the_flip,
    a_source_that_is_lost_is_fenced_when_it_is_back,
    a_target_that_lacks_runs_is_told_of,
    a_source_that_is_back_in_time_is_not_given_up,
    one_namespace_is_moved_by_one_move,
);

const NAMESPACE: &str = "payments";

/// What a shard of the test keeps, whoever asks.
#[derive(Debug, Default)]
struct Shard {
    observed: Option<Observed>,
    highest: Generation,
    imported: bool,
    /// Runs of its DAG that are missing as it starts.
    lacks: i64,
}

struct Fleet {
    world: World,
    term: Term,
    shards: BTreeMap<&'static str, Shard>,
    silent: Option<&'static str>,
}

fn marks() -> Arc<[Mark]> {
    Arc::from([Mark {
        dag_id: "payments.daily".into(),
        newest_logical_date_us: Some(7),
        runs: 3,
        unfinished_runs: 1,
        paused: false,
    }])
}

/// What an agent that did all it was told says.
fn obey(shard: &mut Shard, role: &crate::leader::roles::DesiredRole) -> Option<Evidence> {
    assert!(role.desired.generation >= shard.highest, "generations never go back");
    shard.highest = role.desired.generation;
    let desired = role.desired;
    shard.observed = Some(Observed { role: desired.role, generation: desired.generation });
    let task = role.task.as_ref()?;
    let source = task.side == Side::Source;
    let transfer = task.transfer.map(|ordered| {
        shard.imported |= !source && ordered.part == moves::Part::Rest;
        let sum = TableSum { table: "dag_run".into(), rows: 3, checksum: "x".into() };
        let (part, attempt) = (ordered.part, task.attempt);
        Transfer {
            part,
            attempt,
            state: TransferState::Done,
            tables: Arc::from([sum]),
            total_bytes: 0,
            running: Arc::default(),
        }
    });
    Some(Evidence {
        move_id: task.move_id.clone(),
        revision: role.revision,
        attempt: task.attempt,
        observed: shard.observed,
        obstacle: None,
        dag_ids: Some(Arc::from(["payments.daily".into()])),
        drain: Some(Drain { confirmed: true, ..Drain::default() }),
        marks: (desired.role == Role::Sealed || shard.imported).then(marks),
        transfer,
        stopped_at_us: source.then_some(1_000_000),
        started_at_us: (!source).then_some(5_500_000),
        start_marks: Some(
            marks().iter().map(|m| Mark { runs: m.runs - shard.lacks, ..m.clone() }).collect(),
        ),
        inserted: Arc::default(),
    })
}

impl Fleet {
    async fn new(database: Database) -> Self {
        let world = world_on(database, &["shard-a", NAMESPACE], |_| {}, |_| {}).await;
        let agents = world.open(&["shard-a"]).await;
        assert_eq!(world.owner(NAMESPACE), (Some("shard-a".into()), 1));
        world.declare(2, &["shard-b"]).await;
        drop(agents);
        let term = world.leader.term;
        Self { world, term, shards: BTreeMap::new(), silent: None }
    }

    /// Another leader, of another router: it has only the store.
    async fn begin(&self) -> (Arc<Leader>, Vec<(&'static str, Session)>) {
        let tools = &self.world.tools;
        let tools = Tools {
            hub: Arc::new(Hub::new(tools.hub.limits().clone(), tools.clock.clone())),
            live: Arc::new(crate::table::Live::new(1000, tools.clock.clone())),
            ..tools.clone()
        };
        let leader = Leader::begin(tools, self.term).await.unwrap();
        let shards = ["shard-a", "shard-b"].into_iter().filter(|s| Some(*s) != self.silent);
        let sessions: Vec<_> =
            shards.map(|s| (s, leader.tools.hub.attach(hello(s)).unwrap())).collect();
        for (shard, session) in &sessions {
            let report = crate::agents::Report {
                sequence: 1,
                full: true,
                health: Some(airfleet_domain::health::Health::default()),
                ..Default::default()
            };
            let shard = name(shard);
            session.report(report, |seen, taken| {
                leader.observed(&shard, seen, taken);
            });
        }
        (leader, sessions)
    }

    async fn start(&self, options: Options) -> Move {
        let (leader, _) = self.begin().await;
        let mut turn = leader.turn().await.unwrap();
        let stamp = turn.stamp();
        let row = Move::begin(
            name("m-1"),
            name(NAMESPACE),
            (name("shard-a"), name("shard-b")),
            Generation(1),
            stamp.revision,
            options,
            ("token:op".into(), "test".into()),
            &leader.moves_policy(),
            stamp.now_us,
        );
        let keep = Change { row: row.clone(), ownership: Ownership::Keep, left: Left::AsIs };
        turn.commit(leader.batch_of(&row, keep, &stamp).unwrap()).await.unwrap();
        row
    }

    /// All agents do what they are told, and answer what they are asked. Answers who was told to
    /// run the namespace.
    fn work(&mut self, leader: &Leader, sessions: &[(&'static str, Session)]) -> Vec<String> {
        let mut active = Vec::new();
        for (shard, session) in sessions {
            if let Some(role) = leader.desired(shard, NAMESPACE) {
                if role.desired.role == Role::Active {
                    active.push((*shard).to_owned());
                }
                let evidence = obey(self.shards.entry(shard).or_default(), &role);
                if let Some(said) = evidence {
                    session.evidence(name(NAMESPACE), said);
                }
            }
            for question in session.take_questions() {
                let found = Inspection {
                    airflow_version: "3.3.2".into(),
                    schema_revision: "abc".into(),
                    schema_digest: "def".into(),
                    database: "postgresql".into(),
                    dags_folder: "/dags".into(),
                    fernet_digest: "key".into(),
                    dags: i64::from(question.side == Side::Source),
                    ..Inspection::default()
                };
                assert!(session.inspected(name(NAMESPACE), question.number, found));
            }
        }
        active
    }

    /// One look by a leader that dies before it writes (where `before`), or after it wrote and
    /// before it told anybody.
    async fn look(&mut self, before: bool) -> Phase {
        let (leader, sessions) = self.begin().await;
        let active = self.work(&leader, &sessions);
        assert!(active.len() <= 1, "two shards are told to run it: {active:?}");
        let Some(row) = leader.moves().of(NAMESPACE).cloned() else {
            return self.world.tools.store.move_named("m-1").await.unwrap().unwrap().phase;
        };
        let mut step = leader.next_step(&row);
        if let Step::Effect(Effect::Inspect { source, target }) = step {
            leader.inspect(&row, source, target);
            self.work(&leader, &sessions);
            step = leader.next_step(&row);
        }
        if before {
            return row.phase;
        }
        let Some(change) = step.into_change() else { return row.phase };
        let phase = change.row.phase;
        let turn = leader.turn().await.unwrap();
        let stamp = turn.stamp();
        let mut batch = leader.batch_of(&row, change.at(stamp.revision), &stamp).unwrap();
        leader.add_consequences(&mut batch, &stamp);
        let expected = Revision(stamp.revision.0 - 1);
        let store = &leader.tools.store;
        store.commit(leader.term, expected, &batch, stamp.now_us).await.unwrap();
        // The same again, late, as by a leader that does not know that it worked.
        assert!(store.commit(leader.term, expected, &batch, stamp.now_us).await.is_err());
        phase
    }

    async fn until(&mut self, wanted: Phase) {
        for _ in 0..50 {
            self.look(true).await;
            let phase = self.look(false).await;
            if phase == wanted {
                return;
            }
            assert!(!phase.is_final(), "ended {phase}: {:?}", self.row().await.last_error);
        }
        let (leader, _) = self.begin().await;
        let row = self.row().await;
        panic!("still {}, which {:?}", row.phase, leader.waiting(&row));
    }

    async fn row(&self) -> Move {
        self.world.tools.store.move_named(NAMESPACE).await.unwrap().unwrap()
    }

    async fn owner(&self) -> (String, i64, State) {
        let (leader, _) = self.begin().await;
        let fleet = leader.fleet();
        let entry = &fleet.member(NAMESPACE).unwrap().record.entry;
        (entry.shard().unwrap().to_owned(), entry.generation().0, entry.state())
    }
}

async fn a_move_goes_on_whoever_leads_and_whenever_the_leader_dies(database: Database) {
    let mut fleet = Fleet::new(database).await;
    let row = fleet.start(Options::default()).await;
    fleet.until(Phase::Sealing).await;
    assert_eq!(fleet.owner().await, ("shard-a".into(), 1, State::Moving));
    fleet.until(Phase::Done).await;
    assert_eq!(fleet.owner().await, ("shard-b".into(), 2, State::Assigned));
    let phases = fleet.world.tools.store.move_phases(&row.id).await;
    let phases: Vec<&str> = phases.iter().map(|(phase, ..)| phase.as_str()).collect();
    let all = [
        "planned",
        "staging",
        "quiescing",
        "sealing",
        "copying",
        "flipped",
        "activating",
        "retiring",
        "done",
    ];
    assert_eq!(phases, all);
    let row = fleet.row().await;
    assert_eq!(row.blackout_us(i64::MAX), Some(4_500_000), "as the agents told it");
    let proof = row.proof.unwrap();
    assert!(proof.holds(), "{proof:?}");
    assert_eq!((proof.dags, proof.runs_expected, proof.runs_found), (1, 3, 3));
    let (leader, sessions) = fleet.begin().await;
    assert_eq!(fleet.work(&leader, &sessions), ["shard-b"]);
    let left = leader.desired("shard-a", NAMESPACE).unwrap();
    assert_eq!(left.desired.role, Role::Retired, "its rows are kept, fenced");
    assert_eq!(leader.residues().at(NAMESPACE, "shard-a").unwrap().fence, Fence::Seen);
    let store = &leader.tools.store;
    assert_eq!(store.forget_moves(leader.term, 10, 0).await.unwrap(), 0, "it is neither old");
    assert_eq!(
        store.forget_moves(leader.term, 10, i64::MAX).await.unwrap(),
        1,
        "nor kept for ever"
    );
    assert!(store.move_named("m-1").await.unwrap().is_none());
}

async fn a_move_can_be_given_up_in_every_phase_before_the_flip(database: Database) {
    let phases = Phase::ALL.into_iter().filter(|phase| phase.is_abortable());
    let url = database.url.clone();
    for phase in phases {
        let each = if url.starts_with("sqlite") {
            crate::testing::sqlite()
        } else {
            crate::testing::postgres().await
        };
        let mut fleet = Fleet::new(each).await;
        let row = fleet.start(Options::default()).await;
        if phase != Phase::Planned {
            fleet.until(phase).await;
        }
        {
            let (leader, _) = fleet.begin().await;
            let before = leader.moves().of(NAMESPACE).unwrap().clone();
            let mut turn = leader.turn().await.unwrap();
            let stamp = turn.stamp();
            let cancel = Cancel { actor: "token:op".into(), reason: "no".into(), at_us: 1 };
            let row = Move { cancel: Some(cancel), revision: stamp.revision, ..(*before).clone() };
            let keep = Change { row, ownership: Ownership::Keep, left: Left::AsIs };
            turn.commit(leader.batch_of(&before, keep, &stamp).unwrap()).await.unwrap();
        }
        for _ in 0..10 {
            if fleet.look(false).await == Phase::Aborted {
                break;
            }
        }
        assert_eq!(fleet.row().await.phase, Phase::Aborted, "given up in {phase}");
        assert_eq!(fleet.owner().await, ("shard-a".into(), 2, State::Assigned), "in {phase}");
        let (leader, sessions) = fleet.begin().await;
        assert_eq!(fleet.work(&leader, &sessions), ["shard-a"]);
        let left = leader.desired("shard-b", NAMESPACE).map(|role| role.desired.role);
        let staged = phase != Phase::Planned;
        assert_eq!(left, staged.then_some(Role::Absent), "given up in {phase}");
        assert_eq!(fleet.row().await.id, row.id);
    }
}

async fn a_source_that_is_lost_is_fenced_when_it_is_back(database: Database) {
    let mut fleet = Fleet::new(database).await;
    fleet.silent = Some("shard-a");
    fleet.start(Options { source_is_lost: true, ..Options::default() }).await;
    fleet.until(Phase::Done).await;
    assert_eq!(fleet.owner().await, ("shard-b".into(), 2, State::Assigned));
    fleet.silent = None;
    let (leader, sessions) = fleet.begin().await;
    assert_eq!(leader.residues().at(NAMESPACE, "shard-a").unwrap().fence, Fence::Waived);
    assert_eq!(fleet.work(&leader, &sessions), ["shard-b"]);
    assert_eq!(fleet.shards["shard-a"].observed.unwrap().role, Role::Retired);
}

async fn a_target_that_lacks_runs_is_told_of(database: Database) {
    let mut fleet = Fleet::new(database).await;
    fleet.start(Options::default()).await;
    fleet.until(Phase::Activating).await;
    fleet.shards.get_mut("shard-b").unwrap().lacks = 1;
    fleet.until(Phase::Done).await;
    let proof = fleet.row().await.proof.unwrap();
    assert_eq!((proof.differing, proof.runs_expected, proof.runs_found), (1, 3, 2));
    assert!(proof.lines[0].differs);
    let events = fleet.world.tools.store.events_after(&name(NAMESPACE), 0, 100).await;
    let events = events.unwrap().into_iter().map(|recorded| recorded.event);
    let told = events.into_iter().find(|event| event.code == "MOVE_UNPROVEN").unwrap();
    assert!(told.warning && told.message.contains("payments.daily"), "{}", told.message);
}

async fn a_source_that_is_back_in_time_is_not_given_up(database: Database) {
    let mut fleet = Fleet::new(database).await;
    fleet.silent = Some("shard-a");
    fleet.start(Options { source_is_lost: true, ..Options::default() }).await;
    fleet.until(Phase::Staging).await;
    fleet.silent = None;
    for _ in 0..10 {
        if fleet.look(false).await == Phase::Aborted {
            break;
        }
    }
    let row = fleet.row().await;
    assert_eq!(row.last_error.map(|error| error.code).as_deref(), Some("SOURCE_ALIVE"));
    assert_eq!(row.phase, Phase::Aborted);
    assert_eq!(fleet.owner().await, ("shard-a".into(), 2, State::Assigned));
}

async fn one_namespace_is_moved_by_one_move(database: Database) {
    let fleet = Fleet::new(database).await;
    let row = fleet.start(Options::default()).await;
    let (leader, _) = fleet.begin().await;
    let stamp = leader.turn().await.unwrap().stamp();
    let another = Move { id: name("m-2"), revision: stamp.revision, ..row.clone() };
    let write = |row: Move| Batch {
        moves: vec![Moved { row, request_id: String::new() }],
        ..Batch::default()
    };
    let expected = Revision(stamp.revision.0 - 1);
    let store = &leader.tools.store;
    let refused = store.commit(leader.term, expected, &write(another), 1).await;
    assert!(refused.is_err(), "it is moved already");

    // Nobody but a move that is given up gives an owner that stays another generation.
    let known = leader.fleet().member(NAMESPACE).unwrap().record.clone();
    let mut assignment = known.entry.assignment();
    assignment.generation = assignment.generation.next();
    assignment.revision = stamp.revision;
    let record = Record { entry: (&assignment).into(), ..known };
    let staging = Move { phase: Phase::Staging, revision: stamp.revision, ..row.clone() };
    let batch = Batch { records: vec![record], ..write(staging) };
    let refused = store.commit(leader.term, expected, &batch, 1).await;
    assert!(matches!(refused, Err(Error::Rule { .. })), "{refused:?}");

    // A leader of an older term writes nothing of a move.
    let stale = Move { phase: Phase::Staging, revision: stamp.revision, ..row };
    let refused = store.commit(Term(leader.term.0 - 1), expected, &write(stale), 1).await;
    assert!(refused.unwrap_err().is_stale_term());
    assert_eq!(fleet.row().await.phase, Phase::Planned);
}
