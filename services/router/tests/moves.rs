//! Whole moves over the wire. The agents are scripted: over the real stream they do at once what
//! they are told, and say so. There is no Airflow behind them.

#[path = "support/scripted.rs"]
mod scripted;
mod support;

use std::time::Duration;

use airfleet_proto::{
    agent::v1::{
        self as agent, TransferRequest, agent_service_client::AgentServiceClient,
        transfer_request::Message as Said, transfer_response::Message as Heard,
    },
    common::v1 as common,
    dags::v1::TriggerDagRequest,
    moves::v1 as wire,
    router::v1 as router,
};
use airfleet_runtime::status::Problem;
use scripted::{
    Kept, channel, dags, get, moves, obedient, ready, reason, settings, to_b, until, until_healthy,
};
use support::{Replica, sqlite};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_moves_and_everybody_can_see_it() {
    let (_folder, store) = sqlite();
    let replica = Replica::leading(settings(&store)).await;
    let kept = Kept::default();
    let agents = ready(&replica, &kept).await;

    kept.lock().unwrap().other_version = true;
    let look = wire::StartMoveRequest { validate_only: true, ..to_b() };
    let found = moves(&replica).start_move(look.clone()).await.unwrap().into_inner();
    assert_eq!(found.r#move.unwrap().id, "");
    assert!(found.findings.iter().any(|one| one.severity() == wire::MoveSeverity::Blocks));
    let refused = moves(&replica).start_move(to_b()).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, "MOVE_BLOCKED".into())
    );
    kept.lock().unwrap().other_version = false;

    let stale = wire::StartMoveRequest { expected_generation: 7, ..to_b() };
    assert_eq!(moves(&replica).start_move(stale).await.unwrap_err().code(), Code::Aborted);
    let lost = wire::MoveOptions { force_lost_source: true, ..Default::default() };
    let lost = wire::StartMoveRequest { options: Some(lost), reason: String::new(), ..to_b() };
    assert_eq!(moves(&replica).start_move(lost).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(get(&replica).await.is_none());

    let trigger = TriggerDagRequest { dag_id: "one.daily".into(), ..Default::default() };
    let run = dags(&replica).trigger_dag(trigger.clone()).await.unwrap().into_inner();
    let place = run.place.unwrap();
    assert_eq!((&*place.namespace, &*place.shard, place.generation), ("one", "shard-a", 1));
    assert_eq!((&*run.state, run.existed), ("queued", false));
    assert!(run.run_id.starts_with("manual__"), "{}", run.run_id);

    // It stays between the shards until it is let go.
    kept.lock().unwrap().stuck_in = Some(common::Role::Quiesced);
    let started = moves(&replica).start_move(to_b()).await.unwrap().into_inner().r#move.unwrap();
    let again = moves(&replica).start_move(to_b()).await.unwrap().into_inner().r#move.unwrap();
    assert_eq!(started.id, again.id, "the same request answers the same move");
    let ask = wire::WatchMoveRequest { name: started.id.clone() };
    let mut watch: Streaming<wire::Move> =
        moves(&replica).watch_move(ask).await.unwrap().into_inner();
    until(&replica, wire::MovePhase::Quiescing).await;
    let ask = router::ResolveRequest {
        target: Some(router::resolve_request::Target::Namespace("one".into())),
    };
    let resolved = replica.client.clone().resolve(ask).await.unwrap().into_inner();
    assert_eq!(resolved.state(), router::AssignmentState::Moving);
    assert_eq!((resolved.shard.as_str(), resolved.generation), ("shard-a", 1), "reads go there");
    assert_eq!(resolved.retry_after_ms, 1000);
    let ask = router::BatchResolveRequest { dag_ids: vec!["one.daily".into()] };
    let many = replica.client.clone().batch_resolve(ask).await.unwrap().into_inner();
    assert_eq!(many.routes[0].state(), router::AssignmentState::Moving);
    assert_eq!(many.routes[0].retry_after_ms, 1000);
    let refused = dags(&replica).trigger_dag(trigger.clone()).await.unwrap_err();
    let problem = Problem::from(&refused);
    assert_eq!((problem.code, &*problem.reason), (Code::Unavailable, "NAMESPACE_MOVING"));
    assert_eq!(problem.retry_after, Some(Duration::from_secs(1)), "by RetryInfo");
    let pin = router::PinNamespaceRequest {
        namespace: "one".into(),
        shard: "shard-b".into(),
        ..Default::default()
    };
    let refused = replica.client.clone().pin_namespace(pin).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::FailedPrecondition, "MOVE_OPEN".into()));
    kept.lock().unwrap().stuck_in = None;
    // An agent that starts anew is told again.
    for agent in &agents {
        agent.abort();
    }
    let _agents = ["shard-a", "shard-b"].map(|shard| obedient(&replica, shard, &kept));

    let mut phases = Vec::new();
    while let Some(now) = watch.message().await.unwrap() {
        phases.push(now.phase());
    }
    assert_eq!(phases.last(), Some(&wire::MovePhase::Done));
    let one = replica.get("one").await.unwrap();
    assert_eq!((one.shard.as_str(), one.generation), ("shard-b", 2));
    assert_eq!(one.state(), router::AssignmentState::Assigned);
    let run = dags(&replica).trigger_dag(trigger).await.unwrap().into_inner();
    let place = run.place.unwrap();
    assert_eq!((&*place.shard, place.generation), ("shard-b", 2));
    let made = kept.lock().unwrap().triggered.clone();
    let on = |shard: &str| (shard.to_owned(), "one.daily".to_owned());
    assert_eq!(made, [on("shard-a"), on("shard-b")], "and none in between");
    let ask = wire::ListMovesRequest { include_ended: true, ..Default::default() };
    let listed = moves(&replica).list_moves(ask).await.unwrap().into_inner().moves;
    assert_eq!(listed.len(), 1);
    let late = wire::AbortMoveRequest { name: started.id, reason: "late".into() };
    let refused = moves(&replica).abort_move(late).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::FailedPrecondition, "MOVE_ENDED".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_given_up_and_made_again_after_a_router_was_killed() {
    let (_folder, store) = sqlite();
    let replica = Replica::leading(settings(&store)).await;
    let kept = Kept::default();
    let agents = ready(&replica, &kept).await;
    kept.lock().unwrap().stuck_in = Some(common::Role::Sealed);
    moves(&replica).start_move(to_b()).await.unwrap();
    until(&replica, wire::MovePhase::Sealing).await;
    replica.kill();
    agents.iter().for_each(JoinHandle::abort);

    let replica = Replica::leading(settings(&store)).await;
    let _agents = ["shard-a", "shard-b"].map(|shard| obedient(&replica, shard, &kept));
    until_healthy(&replica).await;
    assert_eq!(until(&replica, wire::MovePhase::Sealing).await.attempt, 1);
    let give_up = wire::AbortMoveRequest { name: "one".into(), reason: "not now".into() };
    let asked = moves(&replica).abort_move(give_up).await.unwrap().into_inner();
    assert_eq!(asked.cancel.unwrap().reason, "not now");
    until(&replica, wire::MovePhase::Aborted).await;
    let one = replica.get("one").await.unwrap();
    assert_eq!((one.shard.as_str(), one.generation), ("shard-a", 2));

    kept.lock().unwrap().stuck_in = None;
    let again = wire::StartMoveRequest { request_id: "another".into(), ..to_b() };
    moves(&replica).start_move(again).await.unwrap();
    until(&replica, wire::MovePhase::Done).await;
    let one = replica.get("one").await.unwrap();
    assert_eq!((one.shard.as_str(), one.generation), ("shard-b", 3));
}

struct End {
    say: mpsc::Sender<TransferRequest>,
    heard: Streaming<agent::TransferResponse>,
}

impl End {
    async fn open(replica: &Replica, open: agent::TransferOpen) -> Result<Self, tonic::Status> {
        let (say, receive) = mpsc::channel(1);
        say.send(TransferRequest { message: Some(Said::Open(open)) }).await.unwrap();
        let mut client =
            AgentServiceClient::new(channel(replica)).max_decoding_message_size(32 << 20);
        let heard = client.transfer(ReceiverStream::new(receive)).await?.into_inner();
        Ok(Self { say, heard })
    }

    async fn say(&self, said: Said) {
        self.say.send(TransferRequest { message: Some(said) }).await.unwrap();
    }

    async fn hear(&mut self) -> Result<Heard, tonic::Status> {
        let heard = tokio::time::timeout(support::PATIENCE, self.heard.message()).await;
        let heard = heard.expect("something is heard")?;
        heard.and_then(|heard| heard.message).ok_or_else(|| tonic::Status::cancelled("ended"))
    }
}

fn chunk(sequence: i64, bytes: usize) -> Said {
    Said::Chunk(agent::TransferChunk {
        sequence,
        table: "dag_run".into(),
        rows: vec![7; bytes],
        ..Default::default()
    })
}

/// A move whose source is about to be sealed, and stays so.
async fn sealing(replica: &Replica, kept: &Kept) -> wire::Move {
    kept.lock().unwrap().stuck_in = Some(common::Role::Sealed);
    moves(replica).start_move(to_b()).await.unwrap();
    until(replica, wire::MovePhase::Sealing).await
}

fn transfer_of(found: &wire::Move, shard: &str, side: agent::MoveSide) -> agent::TransferOpen {
    agent::TransferOpen {
        shard: shard.into(),
        namespace: "one".into(),
        move_id: found.id.clone(),
        side: side.into(),
        part: agent::TransferPart::Rest.into(),
        attempt: 1,
        kept: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_transfers_than_may_be() {
    let (_folder, store) = sqlite();
    let mut settings = settings(&store);
    settings.moves.transfer_streams_max = 2;
    let replica = Replica::leading(settings).await;
    let kept = Kept::default();
    let _agents = ready(&replica, &kept).await;
    let found = sealing(&replica, &kept).await;
    let open = |shard: &str, side| transfer_of(&found, shard, side);
    let (source, target) = (agent::MoveSide::Source, agent::MoveSide::Target);
    let to = End::open(&replica, open("shard-b", target)).await.unwrap();
    let mut from = End::open(&replica, open("shard-a", source)).await.unwrap();
    assert!(matches!(from.hear().await.unwrap(), Heard::Joined(_)));
    let full = End::open(&replica, open("shard-b", target)).await.err().expect("it is refused");
    assert_eq!(full.code(), Code::ResourceExhausted, "{full:?}");
    assert!(Problem::from(&full).retry_after.is_some(), "it says when to come again");
    // There is room again once one of them has gone.
    drop(to);
    support::eventually("there is room", async || {
        End::open(&replica, open("shard-b", target)).await.ok().map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_handed_on_between_the_ends_of_a_move_only() {
    let (_folder, store) = sqlite();
    let replica = Replica::leading(settings(&store)).await;
    let kept = Kept::default();
    let _agents = ready(&replica, &kept).await;
    let found = sealing(&replica, &kept).await;
    let open = |shard: &str, side| transfer_of(&found, shard, side);
    let (source, target) = (agent::MoveSide::Source, agent::MoveSide::Target);
    let unwanted = [
        open("shard-b", source),
        agent::TransferOpen { attempt: 2, ..open("shard-a", source) },
        agent::TransferOpen { part: agent::TransferPart::Ahead.into(), ..open("shard-a", source) },
        agent::TransferOpen { move_id: "other".into(), ..open("shard-a", source) },
    ];
    for unwanted in unwanted {
        let refused = End::open(&replica, unwanted).await.err().expect("it is refused");
        assert_eq!(reason(&refused), "TRANSFER_NOT_WANTED");
    }

    let position = agent::TransferPosition { sequence: 4, digest: 9 };
    let mut to = End::open(
        &replica,
        agent::TransferOpen { kept: Some(position), ..open("shard-b", target) },
    )
    .await
    .unwrap();
    let mut from = End::open(&replica, open("shard-a", source)).await.unwrap();
    let Heard::Joined(joined) = from.hear().await.unwrap() else { panic!("both are there") };
    assert_eq!(joined.kept, Some(position));
    assert!(matches!(to.hear().await.unwrap(), Heard::Joined(_)));

    // While the target does not read, not much is taken from the source.
    let say = from.say.clone();
    let flood = tokio::spawn(async move {
        let mut said = 0;
        for sequence in 5..500 {
            let message = TransferRequest { message: Some(chunk(sequence, 1 << 20)) };
            match tokio::time::timeout(Duration::from_secs(2), say.send(message)).await {
                Ok(sent) => sent.unwrap(),
                Err(_) => break,
            }
            said += 1;
        }
        said
    });
    let said = flood.await.unwrap();
    assert!(said < 50, "{said} MiB wait somewhere");
    for sequence in 5..5 + said {
        let Heard::Chunk(chunk) = to.hear().await.unwrap() else { panic!("a chunk") };
        assert_eq!((chunk.sequence, chunk.rows.len()), (sequence, 1 << 20));
    }
    from.say(chunk(5 + said, 16 << 20)).await;
    let Heard::Chunk(largest) = to.hear().await.unwrap() else { panic!("a chunk") };
    assert_eq!(largest.rows.len(), 16 << 20);
    to.say(Said::Ack(agent::TransferAck { sequence: 5 + said })).await;
    assert!(matches!(from.hear().await.unwrap(), Heard::Ack(_)));

    // A target that comes again takes the place of the one before; the source has to come again.
    let mut later = End::open(&replica, open("shard-b", target)).await.unwrap();
    assert_eq!(reason(&from.hear().await.unwrap_err()), "PEER_AWAY");
    let mut from = End::open(&replica, open("shard-a", source)).await.unwrap();
    assert!(matches!(from.hear().await.unwrap(), Heard::Joined(_)));
    assert!(matches!(later.hear().await.unwrap(), Heard::Joined(_)));
    later.say(Said::Result(agent::TransferResult::default())).await;
    drop(later.say);
    assert!(matches!(from.hear().await.unwrap(), Heard::Result(_)));

    // What is no longer wanted ends.
    let mut last = End::open(&replica, open("shard-a", source)).await.unwrap();
    let give_up = wire::AbortMoveRequest { name: "one".into(), reason: String::new() };
    moves(&replica).abort_move(give_up).await.unwrap();
    assert_eq!(reason(&last.hear().await.unwrap_err()), "TRANSFER_NOT_WANTED");
}
