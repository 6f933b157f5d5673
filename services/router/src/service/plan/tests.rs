//! Plans from being made to being carried out, with a mover that only does what a test says: it
//! stands for live moves, which take minutes and two Airflow shards each.

use std::{collections::BTreeMap, sync::Mutex};

use airfleet_domain::placement::history::Hysteresis;
use airfleet_proto::registry::v1 as registry;
use airfleet_runtime::status::{Failure, Kind};
use futures::{FutureExt as _, future::BoxFuture};

use super::*;
use crate::{
    leader::{Tools, election::Leadership},
    mover::{Look, Mover, Order as MoveOrder},
    store::Record,
    testing::{World, change, declared, name, world_of},
};

/// Does what a test says, and remembers what it was asked.
#[derive(Debug, Default)]
struct Scripted {
    moves: Mutex<BTreeMap<String, (MoveOrder, Look)>>,
    begun: Mutex<Vec<String>>,
}

impl Scripted {
    fn running(&self) -> Vec<MoveOrder> {
        let moves = self.moves.lock().unwrap();
        moves.values().filter(|(_, look)| *look == Look::Running).map(|(o, _)| o.clone()).collect()
    }

    fn end(&self, key: &str, look: Look) {
        self.moves.lock().unwrap().get_mut(key).unwrap().1 = look;
    }
}

impl Mover for Scripted {
    fn begin(&self, order: MoveOrder) -> BoxFuture<'_, Result<(), String>> {
        self.begun.lock().unwrap().push(order.key.clone());
        let mut moves = self.moves.lock().unwrap();
        moves.entry(order.key.clone()).or_insert((order, Look::Running));
        async { Ok(()) }.boxed()
    }

    fn look(&self, key: &str) -> BoxFuture<'_, Look> {
        let look = self.moves.lock().unwrap().get(key).map_or(Look::Unknown, |(_, l)| l.clone());
        async { look }.boxed()
    }

    fn under_way(&self) -> Vec<(ShardName, ShardName)> {
        let ends = self.running().into_iter();
        ends.map(|order| (order.from.unwrap(), order.to)).collect()
    }
}

/// Twelve namespaces on one shard, and an empty one beside it.
struct Lopsided {
    world: World,
    service: Service,
    mover: Arc<Scripted>,
    sessions: Vec<crate::agents::Session>,
}

const NAMESPACES: [&str; 12] =
    ["n01", "n02", "n03", "n04", "n05", "n06", "n07", "n08", "n09", "n10", "n11", "n12"];

fn service(world: &World) -> Service {
    let leadership = Leadership::new(world.tools.clone());
    leadership.install(world.leader.clone());
    Service {
        live: world.tools.live.clone(),
        hub: world.tools.hub.clone(),
        metrics: world.tools.metrics.clone(),
        leadership: Arc::new(leadership),
        replica: "test".into(),
        address: "test".into(),
    }
}

async fn lopsided() -> Lopsided {
    lopsided_with(|_| {}).await
}

async fn lopsided_with(equip: impl FnOnce(&mut Tools)) -> Lopsided {
    let mover = Arc::new(Scripted::default());
    let manifest = [&["shard-a", "shard-b"][..], &NAMESPACES[..]].concat();
    let own = mover.clone();
    let world = world_of(
        &manifest,
        |_| {},
        |tools| {
            tools.mover = Some(own);
            equip(tools);
        },
    )
    .await;
    let mut sessions = world.open(&["shard-a"]).await;
    sessions.extend(world.open(&["shard-b"]).await);
    let service = service(&world);
    let on_a = NAMESPACES.iter().filter(|n| world.owner(n).0.as_deref() == Some("shard-a"));
    assert_eq!(on_a.count(), 12);
    Lopsided { world, service, mover, sessions }
}

fn ask(name: &str, purpose: Purpose) -> CreatePlan {
    CreatePlan {
        name: name.into(),
        purpose,
        cost_max: 0,
        moves_max: 0,
        seed: 1,
        time_limit: None,
        actor: "token:op".into(),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (Kind, String, String) {
    let failure = Failure::from(result.unwrap_err());
    (failure.kind(), failure.reason().to_owned(), failure.message().to_owned())
}

impl Lopsided {
    /// A move ends well: the namespace has its new owner.
    async fn flip(&self, leader: &Leader, order: &MoveOrder) {
        let mut turn = leader.turn().await.unwrap();
        let stamp = turn.stamp();
        let known = leader.fleet().member(order.namespace.as_str()).unwrap().record.clone();
        let mut assignment = known.entry.assignment();
        stamp.give(&mut assignment, Some(order.to.clone()), "moved by a test");
        let record = Record { entry: (&assignment).into(), ..known };
        turn.commit(Batch { records: vec![record], ..Batch::default() }).await.unwrap();
        drop(turn);
        self.mover.end(&order.key, Look::Done);
    }

    async fn state(&self, plan: &str) -> (PlanState, Vec<Stage>) {
        let (kept, stages) = self.service.plan(plan).await.unwrap();
        (kept.state, stages)
    }
}

#[tokio::test]
async fn a_plan_is_made_looked_at_and_carried_out_within_its_limits() {
    let stage = lopsided().await;
    let (kept, _) = stage.service.create_plan(ask("even", Purpose::Rebalance)).await.unwrap();
    assert_eq!((kept.moves, kept.plan.before.peak, kept.plan.after.peak), (6, 600_000, 300_000));
    assert_eq!(kept.plan.digest(), kept.plan.hash);
    assert!(stage.mover.running().is_empty(), "making a plan moves nothing");
    let (listed, _) = stage.service.plan("even").await.unwrap();
    assert_eq!(listed, kept, "what is kept is what was made");
    let again = stage.service.create_plan(ask("even", Purpose::Rebalance)).await;
    assert_eq!(refused(again).1, "PLAN_EXISTS");
    let other_hash = stage.service.apply_plan("even", "00ff", false, "op").await;
    assert_eq!(refused(other_hash).1, "PLAN_HASH_MISMATCH");

    let leader = stage.world.leader.clone();
    stage.service.apply_plan("even", &kept.plan.hash, true, "op").await.unwrap();
    assert_eq!(stage.state("even").await.0, PlanState::Ready, "a dry run starts nothing");
    stage.service.apply_plan("even", &kept.plan.hash, false, "op").await.unwrap();
    let mut most = 0;
    for _ in 0..50 {
        leader.drive_plan().await.unwrap();
        let running = stage.mover.running();
        most = most.max(running.len());
        if let Some(order) = running.first() {
            stage.flip(&leader, order).await;
        }
        if stage.state("even").await.0 == PlanState::Done {
            break;
        }
    }
    let (state, stages) = stage.state("even").await;
    assert_eq!(state, PlanState::Done);
    assert!(stages.iter().all(|stage| *stage == Stage::Done));
    assert_eq!(most, 2, "two off one shard at once");
    for planned in &kept.plan.moves {
        let owner = stage.world.owner(planned.namespace.as_str()).0;
        assert_eq!(owner.as_deref(), Some(planned.to.as_str()));
    }
    let done = stage.service.apply_plan("even", "", false, "op").await;
    assert_eq!(refused(done).1, "PLAN_DONE");
    // What was moved cools down, and nothing is left to gain.
    let (kept, _) = stage.service.create_plan(ask("again", Purpose::Rebalance)).await.unwrap();
    assert_eq!(kept.moves, 0);
    stage.world.check().await;
}

#[tokio::test]
async fn it_stops_when_moves_fail_and_goes_on_when_applied_again() {
    let stage = lopsided().await;
    stage.service.create_plan(ask("even", Purpose::Rebalance)).await.unwrap();
    stage.service.apply_plan("even", "", false, "op").await.unwrap();
    let leader = stage.world.leader.clone();
    for _ in 0..20 {
        leader.drive_plan().await.unwrap();
        for order in stage.mover.running() {
            stage.mover.end(&order.key, Look::Failed("no checkpoint".into()));
        }
    }
    let (kept, stages) = stage.service.plan("even").await.unwrap();
    assert_eq!(kept.state, PlanState::Stopped);
    assert!(
        kept.state_reason.contains("moves failed, the last one: no checkpoint"),
        "{}",
        kept.state_reason
    );
    let failed = stages.iter().filter(|stage| matches!(stage, Stage::Failed(_))).count();
    assert!((3..=4).contains(&failed), "{stages:?}");
    assert!(stages.contains(&Stage::Waiting), "the rest was not begun");

    stage.service.apply_plan("even", "", false, "op").await.unwrap();
    leader.drive_plan().await.unwrap();
    let again = stage.mover.running();
    assert_eq!(again.len(), 2, "what failed is tried again");
    assert!(again.iter().all(|order| order.key.ends_with("/2")), "{again:?}");
    // The leader dies between noting the next try and beginning it: the next one must not take the
    // try that failed for it.
    stage.mover.moves.lock().unwrap().remove(&again[0].key);
    let next = Leader::begin(stage.world.tools.clone(), leader.term).await.unwrap();
    next.absorb();
    next.drive_plan().await.unwrap();
    assert_eq!(stage.mover.running(), again);
    let (_, stages) = stage.state("even").await;
    let failed = stages.iter().filter(|stage| matches!(stage, Stage::Failed(_))).count();
    assert_eq!(failed, 0, "{stages:?}");
}

#[tokio::test]
async fn it_stops_when_a_shard_is_down_and_when_it_is_frozen() {
    let mut stage = lopsided().await;
    let leader = stage.world.leader.clone();
    stage.service.create_plan(ask("even", Purpose::Rebalance)).await.unwrap();
    stage.service.apply_plan("even", "", false, "op").await.unwrap();
    leader.drive_plan().await.unwrap();
    assert_eq!(stage.mover.running().len(), 2);
    // The agent of one shard falls silent.
    stage.sessions.pop();
    stage.world.clock.advance(Duration::from_mins(1));
    stage.world.report(&stage.sessions[0], 2, &[]);
    leader.tidy().await;
    leader.drive_plan().await.unwrap();
    let (kept, _) = stage.service.plan("even").await.unwrap();
    assert_eq!(kept.state, PlanState::Stopped);
    assert!(
        kept.state_reason.contains("shard-b is in trouble: SHARD_HEALTH_UNKNOWN"),
        "{}",
        kept.state_reason
    );
    let stale = refused(stage.service.apply_plan("even", "", false, "op").await);
    assert_eq!(stale.1, "PLAN_STALE", "a shard that is down takes nothing");
    assert!(stage.service.check_plan("even").await.unwrap()[0].contains("shard-b no longer takes"));

    let stage = lopsided().await;
    let leader = stage.world.leader.clone();
    stage.service.create_plan(ask("even", Purpose::Rebalance)).await.unwrap();
    let who = |reason: &str| Who { actor: "ann".into(), reason: reason.into() };
    let unsaid = stage.service.set_freeze(Some(who(""))).await;
    assert_eq!(refused(unsaid).0, Kind::Invalid);
    stage.service.apply_plan("even", "", false, "op").await.unwrap();
    stage.service.set_freeze(Some(who("audit"))).await.unwrap();
    leader.drive_plan().await.unwrap();
    let (kept, _) = stage.service.plan("even").await.unwrap();
    assert_eq!(kept.state_reason, "rebalancing was frozen: audit");
    let frozen = refused(stage.service.apply_plan("even", "", false, "op").await);
    assert_eq!(frozen.1, "REBALANCING_FROZEN");
    // Another leader knows of it too.
    let next = Leader::begin(stage.world.tools.clone(), stage.world.leader.term).await.unwrap();
    assert_eq!(next.frozen().unwrap().reason, "audit");
    let told = stage.service.explain("n01").unwrap();
    assert!(told.not_moved.contains("frozen: by ann: audit"), "{}", told.not_moved);
    stage.service.set_freeze(None).await.unwrap();
    stage.service.apply_plan("even", "", false, "op").await.unwrap();
}

#[tokio::test]
async fn another_leader_goes_on_where_the_last_one_stopped() {
    let stage = lopsided().await;
    stage.service.create_plan(ask("even", Purpose::Rebalance)).await.unwrap();
    stage.service.apply_plan("even", "", false, "op").await.unwrap();
    stage.world.leader.drive_plan().await.unwrap();
    let before = stage.mover.running();
    assert_eq!(before.len(), 2);
    // One was noted as running and never reached the mover: as if killed in between.
    stage.mover.moves.lock().unwrap().remove(&before[0].key);
    let next = Leader::begin(stage.world.tools.clone(), stage.world.leader.term).await.unwrap();
    next.absorb();
    next.drive_plan().await.unwrap();
    assert_eq!(stage.mover.running(), before, "both, and no third");
    let begun = stage.mover.begun.lock().unwrap().clone();
    assert_eq!(
        begun.iter().filter(|key| **key == before[0].key).count(),
        2,
        "begun again by its key"
    );
    assert_eq!(begun.iter().filter(|key| **key == before[1].key).count(), 1);
    stage.flip(&next, &before[0]).await;
    next.drive_plan().await.unwrap();
    let (_, stages) = stage.state("even").await;
    assert_eq!(stages.iter().filter(|stage| **stage == Stage::Done).count(), 1);
}

#[tokio::test]
async fn a_plan_that_no_longer_fits_is_refused_with_what_changed() {
    let stage = lopsided().await;
    let (kept, _) = stage.service.create_plan(ask("even", Purpose::Rebalance)).await.unwrap();
    let first = kept.plan.moves[0].clone();
    let order = MoveOrder {
        key: "other".into(),
        namespace: first.namespace.clone(),
        from: first.from.clone(),
        to: first.to.clone(),
        reason: String::new(),
    };
    stage.mover.moves.lock().unwrap().insert("other".into(), (order.clone(), Look::Running));
    stage.flip(&stage.world.leader, &order).await;
    let changes = stage.service.check_plan("even").await.unwrap();
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert!(
        changes[0].contains("was on shard-a at generation 1, is on shard-b at generation 2"),
        "{changes:?}"
    );
    let stale = refused(stage.service.apply_plan("even", "", false, "op").await);
    assert_eq!(stale.1, "PLAN_STALE");
}

#[tokio::test]
async fn draining_cordons_and_one_plan_is_carried_out_at_a_time() {
    let stage = lopsided().await;
    let drain = Purpose::Drain(name("shard-a"));
    let (kept, _) = stage.service.create_plan(ask("drain", drain)).await.unwrap();
    assert_eq!(kept.moves, 12);
    assert!(kept.plan.moves.iter().all(|m| m.from == Some(name("shard-a"))));
    stage.service.create_plan(ask("even", Purpose::Rebalance)).await.unwrap();
    stage.service.apply_plan("drain", "", false, "op").await.unwrap();
    let cordon = stage.world.leader.fleet().shard("shard-a").unwrap().record.cordon.clone();
    assert_eq!(cordon.unwrap().reason, "plan drain drains it");
    let second = refused(stage.service.apply_plan("even", "", false, "op").await);
    assert_eq!(second.1, "PLAN_IN_PROGRESS");
    let who = Who { actor: "ann".into(), reason: "wrong shard".into() };
    let (kept, _) = stage.service.cancel_plan("drain", &who).await.unwrap();
    assert_eq!(
        (kept.state, kept.state_reason.as_str()),
        (PlanState::Cancelled, "cancelled by ann: wrong shard")
    );
    stage.world.leader.drive_plan().await.unwrap();
    assert!(stage.mover.running().is_empty());
    assert_eq!(refused(stage.service.plan("no-such").await).0, Kind::NotFound);
}

#[tokio::test]
async fn what_if_a_shard_were_lost_is_told_and_never_applied() {
    let stage = lopsided().await;
    let lose = Purpose::Lose { shards: vec![name("shard-a")], failure_domains: vec![] };
    let (kept, _) = stage.service.create_plan(ask("lost", lose)).await.unwrap();
    assert_eq!(kept.moves, 12);
    assert!(kept.plan.moves.iter().all(|m| m.from.is_none() && m.to.as_str() == "shard-b"));
    let applied = refused(stage.service.apply_plan("lost", "", false, "op").await);
    assert_eq!(applied.1, "PLAN_HYPOTHETICAL");
    let nowhere = Purpose::Lose { shards: vec![], failure_domains: vec!["zone-x".into()] };
    let unknown = refused(stage.service.create_plan(ask("nowhere", nowhere)).await);
    assert_eq!(unknown.0, Kind::Invalid);
}

#[tokio::test]
async fn a_dump_is_replayed_to_the_same_plan() {
    let stage = lopsided().await;
    let (kept, _) = stage.service.create_plan(ask("even", Purpose::Rebalance)).await.unwrap();
    let dump: Dump =
        serde_json::from_slice(&stage.service.dump_plan("even").await.unwrap()).unwrap();
    assert_eq!(dump.replay(1).unwrap(), kept.plan);
    for other in ["one-more", "and-one"] {
        stage.service.create_plan(ask(other, Purpose::Rebalance)).await.unwrap();
    }
    let gone = refused(stage.service.dump_plan("even").await);
    assert_eq!(gone.0, Kind::NotFound, "only the latest are kept");
}

#[tokio::test]
async fn headroom_and_explanations_are_of_the_fleet_as_it_stands() {
    let stage = lopsided().await;
    let told = stage.service.explain("n01").unwrap();
    assert_eq!(told.current.as_ref().unwrap().shard, "shard-a");
    assert_eq!(told.best.as_ref().unwrap().shard, "shard-b");
    assert_eq!(told.verdict, airfleet_domain::placement::explain::Verdict::CouldMove);
    assert_eq!(refused(stage.service.explain("nobody")).0, Kind::NotFound);
    let room = stage.service.headroom().await.unwrap();
    assert_eq!(room.headroom.rooms[0].fits, 8 + 20);
    assert!(room.headroom.is_certified());
    assert!(room.growth_days == 0.0);
    stage.world.check().await;
}

#[tokio::test]
async fn moves_of_one_tenant_wait_for_each_other() {
    let stage = lopsided_with(|tools| tools.plans.moves_of_tenant = 1).await;
    let owned = NAMESPACES.map(|namespace| {
        let mut entry = declared(namespace, 2);
        if let Some(registry::manifest_entry::Kind::Namespace(namespace)) = &mut entry.kind {
            namespace.owners = vec!["team".into()];
        }
        entry
    });
    let leader = stage.world.leader.clone();
    leader.take_in(vec![change(2, owned, &[])]).await.unwrap();
    stage.service.create_plan(ask("even", Purpose::Rebalance)).await.unwrap();
    stage.service.apply_plan("even", "", false, "op").await.unwrap();
    leader.drive_plan().await.unwrap();
    assert_eq!(stage.mover.running().len(), 1);
}

#[tokio::test]
async fn an_imbalance_that_lasts_is_proposed_for_once() {
    let stage = lopsided().await;
    let mut hysteresis = Hysteresis::new(3);
    for _ in 0..2 {
        assert_eq!(
            stage.service.look(&mut hysteresis).await.unwrap(),
            None,
            "it may pass by itself"
        );
    }
    let name = stage.service.look(&mut hysteresis).await.unwrap().expect("it lasted");
    let (kept, _) = stage.service.plan(&name).await.unwrap();
    assert_eq!((kept.state, kept.moves, kept.actor.as_str()), (PlanState::Ready, 6, "airfleet"));
    assert!(stage.mover.running().is_empty(), "proposing moves nothing");
    for _ in 0..5 {
        assert_eq!(stage.service.look(&mut hysteresis).await.unwrap(), None, "one is open");
    }
    let who = Who { actor: "ann".into(), reason: String::new() };
    stage.service.cancel_plan(&name, &who).await.unwrap();
    let mut proposed = 0;
    for _ in 0..3 {
        proposed += usize::from(stage.service.look(&mut hysteresis).await.unwrap().is_some());
    }
    assert_eq!(proposed, 1);
}
