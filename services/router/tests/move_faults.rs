//! Moves over the wire while things break: routers that are killed, agents that are cut off, sources
//! that are lost. The agents are scripted: they do at once what they are told, and say so. There is
//! no Airflow behind them.

#[path = "support/scripted.rs"]
mod scripted;
mod support;

use airfleet_proto::{
    common::v1 as common,
    moves::v1 as wire,
    placement::v1::{self as placement, placement_service_client::PlacementServiceClient},
    router::v1 as router,
};
use scripted::{Kept, channel, get, moves, obedient, ready, reason, settings, to_b, until};
use support::{Replica, eventually, sqlite};
use tokio::task::JoinHandle;
use tonic::Code;

fn both(replica: &Replica, kept: &Kept) -> Vec<JoinHandle<()>> {
    ["shard-a", "shard-b"].map(|shard| obedient(replica, shard, kept)).into()
}

/// The move stands still before the effect of a phase is told; the router that leads is killed
/// there, and so are the streams of both agents. Another one takes over, which was there before.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_is_killed_in_every_phase() {
    let store = support::postgres().await;
    let mut leader = Replica::leading(settings(&store)).await;
    let kept = Kept::default();
    let mut agents = ready(&leader, &kept).await;
    let standing = [
        (common::Role::Staged, wire::MovePhase::Staging),
        (common::Role::Quiesced, wire::MovePhase::Quiescing),
        (common::Role::Sealed, wire::MovePhase::Sealing),
        (common::Role::Active, wire::MovePhase::Activating),
        (common::Role::Retired, wire::MovePhase::Retiring),
    ];
    kept.lock().unwrap().stuck_in = Some(standing[0].0);
    let id = moves(&leader).start_move(to_b()).await.unwrap().into_inner().r#move.unwrap().id;
    for (at, (_, phase)) in standing.iter().enumerate() {
        until(&leader, *phase).await;
        let next = Replica::ready(settings(&store)).await;
        leader.kill();
        agents.iter().for_each(JoinHandle::abort);
        next.until_leading().await;
        let found = get(&next).await.unwrap();
        assert_eq!((found.phase(), found.id.as_str()), (*phase, id.as_str()), "as it was");
        let one = next.get("one").await.unwrap();
        let flipped = *phase as i32 >= wire::MovePhase::Activating as i32;
        let owner = if flipped { ("shard-b", 2) } else { ("shard-a", 1) };
        assert_eq!((one.shard.as_str(), one.generation), owner);
        kept.lock().unwrap().stuck_in = standing.get(at + 1).map(|(role, _)| *role);
        agents = both(&next, &kept);
        leader = next;
    }
    let done = until(&leader, wire::MovePhase::Done).await;
    assert_eq!(done.id, id);
    let roles = &kept.lock().unwrap().roles;
    assert_eq!(roles["shard-a"], (common::Role::Retired, 2));
    assert_eq!(roles["shard-b"], (common::Role::Active, 2));
}

/// One agent is cut off at a time; the move waits for it and goes on when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_cut_off_and_comes_back() {
    let (_folder, store) = sqlite();
    let replica = Replica::leading(settings(&store)).await;
    let kept = Kept::default();
    let mut agents = ready(&replica, &kept).await;
    kept.lock().unwrap().stuck_in = Some(common::Role::Sealed);
    moves(&replica).start_move(to_b()).await.unwrap();
    until(&replica, wire::MovePhase::Sealing).await;
    let waits = async |side: &str| {
        let wanted = format!("waits for the agent of the {side}");
        eventually("it says whom it waits for", async || {
            get(&replica).await.filter(|found| found.waiting == wanted).map(drop)
        })
        .await;
    };
    agents.remove(0).abort();
    waits("source").await;
    agents.remove(0).abort();
    kept.lock().unwrap().stuck_in = None;
    let _source = obedient(&replica, "shard-a", &kept);
    until(&replica, wire::MovePhase::Copying).await;
    waits("target").await;
    let _target = obedient(&replica, "shard-b", &kept);
    until(&replica, wire::MovePhase::Done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_lost_is_fenced_when_it_is_back() {
    let (_folder, store) = sqlite();
    let replica = Replica::leading(settings(&store)).await;
    let kept = Kept::default();
    let agents = ready(&replica, &kept).await;
    eventually("shard-a runs it", async || {
        let roles = &kept.lock().unwrap().roles;
        (roles.get("shard-a") == Some(&(common::Role::Active, 1))).then_some(())
    })
    .await;
    let lost = wire::MoveOptions { force_lost_source: true, ..Default::default() };
    let lost = wire::StartMoveRequest { options: Some(lost), ..to_b() };
    let alive = moves(&replica).start_move(lost.clone()).await.unwrap_err();
    assert_eq!(reason(&alive), "MOVE_BLOCKED");
    assert!(alive.message().contains("the agent of shard-a is connected"), "{}", alive.message());

    agents[0].abort();
    kept.lock().unwrap().lost.push("shard-a");
    let look = wire::StartMoveRequest { validate_only: true, ..lost.clone() };
    let ahead = eventually("the agent is away", async || {
        let found = moves(&replica).start_move(look.clone()).await.ok()?.into_inner().findings;
        found.iter().all(|one| one.severity() != wire::MoveSeverity::Blocks).then_some(found)
    })
    .await;
    let told = ahead.iter().find(|one| one.code == "NOTHING_COPIED").unwrap();
    assert!(told.remedy.contains("runs again") && told.remedy.contains("miss"), "{}", told.remedy);
    moves(&replica).start_move(lost).await.unwrap();
    until(&replica, wire::MovePhase::Done).await;
    let ask = router::ListNamespaceEventsRequest { namespace: "one".into(), ..Default::default() };
    let events = replica.client.clone().list_namespace_events(ask).await.unwrap().into_inner();
    let forced = events.events.iter().find(|event| event.code == "MOVE_FORCED").unwrap();
    assert!(forced.message.contains(": test"), "who and why are kept: {}", forced.message);

    // As long as it was not seen to be fenced, nothing is moved to it.
    let back = wire::StartMoveRequest {
        target_shard: "shard-a".into(),
        request_id: "back".into(),
        ..to_b()
    };
    let refused = moves(&replica).start_move(back.clone()).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, "SHARD_UNFENCED".into())
    );
    assert_eq!(kept.lock().unwrap().roles["shard-a"], (common::Role::Active, 1));
    let _back = obedient(&replica, "shard-a", &kept);
    eventually("it is fenced as soon as it is back", async || {
        let roles = &kept.lock().unwrap().roles;
        (roles["shard-a"] == (common::Role::Retired, 2)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_carried_out_by_moves() {
    let (_folder, store) = sqlite();
    let replica = Replica::leading(settings(&store)).await;
    let kept = Kept::default();
    let _agents = ready(&replica, &kept).await;
    let mut plans = PlacementServiceClient::new(channel(&replica));
    let ask = placement::CreatePlanRequest {
        name: "empty-a".into(),
        purpose: Some(placement::create_plan_request::Purpose::DrainShard("shard-a".into())),
        ..Default::default()
    };
    let plan = plans.create_plan(ask).await.unwrap().into_inner();
    assert_eq!(plan.moves.len(), 1, "{plan:?}");
    let ask = placement::ApplyPlanRequest { name: plan.name.clone(), ..Default::default() };
    plans.apply_plan(ask).await.unwrap();
    let moved = until(&replica, wire::MovePhase::Done).await;
    assert_eq!(moved.requested_by, "plan");
    eventually("the plan is done", async || {
        let ask = placement::GetPlanRequest { name: plan.name.clone(), ..Default::default() };
        let plan = plans.clone().get_plan(ask).await.ok()?.into_inner();
        (plan.state() == placement::PlanState::Done).then_some(())
    })
    .await;
    let one = replica.get("one").await.unwrap();
    assert_eq!((one.shard.as_str(), one.generation), ("shard-b", 2));
}
