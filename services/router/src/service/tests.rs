use std::{sync::Arc, time::Duration};

use airfleet_domain::{ids::Revision, routing::State};
use airfleet_runtime::status::{Failure, Kind};

use super::{Error, Pin, ReleaseNamespace, ReleaseShard, Service, Who};
use crate::{
    leader::election::Leadership,
    testing::{World, name, world, world_with},
};

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

fn who(reason: &str) -> Who {
    Who { actor: "token:op".into(), reason: reason.into() }
}

fn pin(namespace: &str, shard: &str) -> Pin {
    Pin {
        namespace: name(namespace),
        shard: name(shard),
        who: who("test"),
        expected_generation: 0,
        validate_only: false,
        force: false,
    }
}

fn release(namespace: &str) -> ReleaseNamespace {
    ReleaseNamespace {
        namespace: name(namespace),
        uid: format!("uid-{namespace}"),
        who: who(""),
        force: false,
        validate_only: false,
        manifest_revision: Revision(0),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> (Kind, String, String) {
    let failure = Failure::from(result.unwrap_err());
    (failure.kind(), failure.reason().to_owned(), failure.message().to_owned())
}

async fn overrides(world: &World) -> Vec<(String, String, String, String)> {
    world.tools.store.overrides().await
}

#[tokio::test]
async fn a_cordoned_shard_keeps_what_it_has_and_takes_nothing() {
    let world = world(&["shard-a", "one"]).await;
    let _agents = world.open(&["shard-a"]).await;
    let service = service(&world);
    let status = service.cordon(&name("shard-a"), who("disk is failing")).await.unwrap();
    assert_eq!(status.not_placeable, ["CORDONED: cordoned by token:op: disk is failing"]);
    assert_eq!((status.cordon.unwrap().actor.as_str(), status.namespaces), ("token:op", 1));
    world.declare(2, &["two"]).await;
    assert_eq!(world.owner("two").0, None);
    world.check().await;

    let status = service.uncordon(&name("shard-a")).await.unwrap();
    assert!(status.cordon.is_none() && status.not_placeable.is_empty());
    let before = world.tools.live.view().table.revision();
    service.uncordon(&name("shard-a")).await.unwrap();
    assert_eq!(world.tools.live.view().table.revision(), before, "there was nothing to lift");
    world.leader.place_waiting().await.unwrap();
    assert_eq!(world.owner("two").0.as_deref(), Some("shard-a"));
    let (kind, _, message) = refused(service.cordon(&name("shard-x"), who("")).await);
    assert_eq!(kind, Kind::NotFound);
    assert!(message.contains("shard-x"), "{message}");
}

#[tokio::test]
async fn a_pin_moves_only_what_was_seen_to_be_drained() {
    let world = world(&["shard-a", "one"]).await;
    let mut agents = world.open(&["shard-a"]).await;
    world.declare(2, &["shard-b"]).await;
    agents.extend(world.open(&["shard-b"]).await);
    let service = service(&world);

    agents[0].told_all();
    world.report(&agents[0], 2, &[("one", 3, 2)]);
    let failure = Failure::from(service.pin(pin("one", "shard-b")).await.unwrap_err());
    assert_eq!((failure.kind(), failure.reason()), (Kind::Precondition, "NOT_DRAINED"));
    assert!(failure.message().contains("2 runs are queued or running on shard-a"), "{failure}");
    assert_eq!(world.owner("one"), (Some("shard-a".into()), 1), "nothing was recorded");
    assert_eq!(world.entry("one").unwrap().pinned_shard(), None);

    world.report(&agents[0], 3, &[("one", 3, 0)]);
    let dry = service.pin(Pin { validate_only: true, ..pin("one", "shard-b") }).await.unwrap();
    assert_eq!((dry.shard(), dry.generation().0), (Some("shard-b"), 2));
    assert_eq!(world.owner("one"), (Some("shard-a".into()), 1));
    let moved = service.pin(pin("one", "shard-b")).await.unwrap();
    assert_eq!((moved.shard(), moved.pinned_shard()), (Some("shard-b"), Some("shard-b")));
    assert_eq!(world.owner("one"), (Some("shard-b".into()), 2));
    assert_eq!(world.entry("one").unwrap().reason(), "pinned to shard-b by token:op: test");
    assert!(overrides(&world).await.is_empty());
    world.check().await;

    // Where it is already, a pin binds and moves nothing; lifting it neither.
    service.pin(pin("one", "shard-b")).await.unwrap();
    service.unpin(&name("one"), who("")).await.unwrap();
    assert_eq!(world.owner("one"), (Some("shard-b".into()), 2));
    assert_eq!(world.entry("one").unwrap().pinned_shard(), None);
    world.check().await;
}

#[tokio::test]
async fn a_pin_is_checked_against_the_shard_and_what_the_caller_saw() {
    let world = world(&["shard-a", "shard-b", "one"]).await;
    let agents = world.open(&["shard-a"]).await;
    agents[0].told_all();
    world.report(&agents[0], 2, &[("one", 3, 0)]);
    let service = service(&world);
    let (kind, reason, message) = refused(service.pin(pin("one", "shard-b")).await);
    assert_eq!((kind, reason.as_str()), (Kind::Precondition, "SHARD_UNFIT"));
    assert!(message.contains("AGENT_NEVER_CONNECTED"), "{message}");
    let seen = Pin { expected_generation: 9, ..pin("one", "shard-a") };
    assert_eq!(refused(service.pin(seen).await).1, "GENERATION_MISMATCH");
    assert_eq!(refused(service.pin(pin("one", "shard-x")).await).0, Kind::NotFound);
    assert_eq!(refused(service.pin(pin("nobody", "shard-a")).await).0, Kind::NotFound);
    let silent = Pin { force: true, who: who(" "), ..pin("one", "shard-a") };
    assert_eq!(refused(service.pin(silent).await).0, Kind::Invalid);
}

#[tokio::test]
async fn a_forced_pin_is_recorded() {
    let world = world(&["shard-a", "one"]).await;
    let agents = world.open(&["shard-a"]).await;
    world.declare(2, &["shard-b"]).await;
    let _other = world.open(&["shard-b"]).await;
    drop(agents);
    let service = service(&world);
    let (_, reason, message) = refused(service.pin(pin("one", "shard-b")).await);
    assert_eq!(reason, "NOT_DRAINED");
    assert!(message.contains("not connected"), "{message}");
    let forced = Pin { force: true, who: who("shard-a burnt down"), ..pin("one", "shard-b") };
    service.pin(forced).await.unwrap();
    assert_eq!(world.owner("one"), (Some("shard-b".into()), 2));
    let kept = ["force-pin", "one", "token:op", "shard-a burnt down"].map(str::to_owned);
    assert_eq!(overrides(&world).await, [kept.into()]);
    world.check().await;
}

#[tokio::test]
async fn a_pin_of_what_waits_says_where_to_wait() {
    let world = world(&["shard-a", "shard-b", "one"]).await;
    let service = service(&world);
    let waits = service.pin(pin("one", "shard-b")).await.unwrap();
    assert_eq!((waits.state(), waits.pinned_shard()), (State::Unplaced, Some("shard-b")));
    let _a = world.open(&["shard-a"]).await;
    assert_eq!(world.owner("one").0, None, "shard-a is not its shard");
    let _b = world.open(&["shard-b"]).await;
    assert_eq!(world.owner("one").0.as_deref(), Some("shard-b"));
    world.check().await;
}

#[tokio::test]
async fn a_release_needs_the_namespace_drained_and_is_remembered() {
    let world = world(&["shard-a", "one"]).await;
    let agents = world.open(&["shard-a"]).await;
    agents[0].told_all();
    world.report(&agents[0], 2, &[("one", 3, 1)]);
    let service = service(&world);
    assert_eq!(refused(service.release(release("one")).await).1, "NOT_DRAINED");
    let other = ReleaseNamespace { uid: "another".into(), ..release("one") };
    assert_eq!(refused(service.release(other).await).1, "UID_MISMATCH");
    let nameless = ReleaseNamespace { uid: String::new(), force: true, ..release("one") };
    let failure = Failure::from(service.release(nameless).await.unwrap_err());
    assert_eq!(failure.violations().len(), 2, "both are told");

    world.report(&agents[0], 3, &[("one", 3, 0)]);
    let dry = ReleaseNamespace { validate_only: true, ..release("one") };
    assert_eq!(service.release(dry).await.unwrap().state(), State::Released);
    assert_eq!(world.owner("one"), (Some("shard-a".into()), 1));
    let acted_on = ReleaseNamespace { manifest_revision: Revision(5), ..release("one") };
    let released = service.release(acted_on).await.unwrap();
    assert_eq!((released.state(), released.shard()), (State::Released, None));
    assert_eq!(released.generation().0, 2);
    // The registry's change at 5 arrives only now; it knew of it when it asked.
    world.declare(5, &["one"]).await;
    assert_eq!(world.entry("one").unwrap().state(), State::Released);
    world.forget(6, &["one"]).await;
    assert!(world.entry("one").is_none());
    world.check().await;
}

#[tokio::test]
async fn a_release_may_be_forced_and_repeated() {
    let world = world(&["shard-a", "one"]).await;
    drop(world.open(&["shard-a"]).await);
    let service = service(&world);
    let forced = || ReleaseNamespace { force: true, who: who("gone for good"), ..release("one") };
    service.release(forced()).await.unwrap();
    let revision = world.tools.live.view().table.revision();
    assert_eq!(service.release(forced()).await.unwrap().state(), State::Released);
    assert_eq!(world.tools.live.view().table.revision(), revision, "it was released already");
    assert_eq!(overrides(&world).await.len(), 1);
    // By its operator it may be placed again.
    let _agents = world.open(&["shard-a"]).await;
    service.pin(pin("one", "shard-a")).await.unwrap();
    assert_eq!(world.owner("one"), (Some("shard-a".into()), 3));
}

#[tokio::test]
async fn an_orphan_goes_with_its_release() {
    let world = world(&["shard-a", "one"]).await;
    let agents = world.open(&["shard-a"]).await;
    world.forget(2, &["one", "shard-a"]).await;
    agents[0].told_all();
    world.report(&agents[0], 2, &[("one", 0, 0)]);
    service(&world).release(release("one")).await.unwrap();
    world.leader.tidy().await;
    assert!(world.entry("one").is_none());
    world.leader.tidy().await;
    assert!(world.leader.fleet().shard("shard-a").is_none(), "nobody needs it any more");
    world.check().await;
}

#[tokio::test]
async fn nothing_unknown_is_released_while_the_manifest_may_bring_it() {
    let world = world(&["shard-a"]).await;
    let service = service(&world);
    assert_eq!(refused(service.release(release("one")).await).0, Kind::NotFound);
    let ahead = ReleaseNamespace { manifest_revision: Revision(9), ..release("one") };
    let (kind, reason, _) = refused(service.release(ahead).await);
    assert_eq!((kind, reason.as_str()), (Kind::Unavailable, "MANIFEST_LAG"));
}

#[tokio::test]
async fn a_shard_is_released_when_it_owns_nothing_and_then_takes_nothing() {
    let world = world(&["shard-a", "shard-b", "one"]).await;
    let _agents = world.open(&["shard-a", "shard-b"]).await;
    let service = service(&world);
    let (full, empty) = match world.owner("one").0.as_deref() {
        Some("shard-a") => ("shard-a", "shard-b"),
        _ => ("shard-b", "shard-a"),
    };
    let ask = |shard: &str| ReleaseShard {
        shard: name(shard),
        validate_only: false,
        manifest_revision: Revision(0),
    };
    let (_, reason, message) = refused(service.release_shard(ask(full)).await);
    assert_eq!(reason, "SHARD_OCCUPIED");
    assert!(message.contains("1 namespaces (one)"), "{message}");
    service.release_shard(ask(empty)).await.unwrap();
    let status = service.shard_status(empty).unwrap();
    assert!(status.not_placeable[0].starts_with("BEING_REMOVED"), "{:?}", status.not_placeable);
    // The same word of the manifest again changes nothing, a later one takes it back.
    world.declare(1, &[empty]).await;
    assert!(!service.shard_status(empty).unwrap().not_placeable.is_empty());
    world.declare(2, &[empty]).await;
    assert!(service.shard_status(empty).unwrap().not_placeable.is_empty());
    service.release_shard(ask(empty)).await.unwrap();
    world.forget(3, &[empty]).await;
    assert!(world.leader.fleet().shard(empty).is_none());
    let status = service.shard_status(empty).unwrap();
    assert!(status.not_placeable[0].starts_with("NOT_REGISTERED"), "its agent still runs");
}

#[tokio::test]
async fn without_agents_nothing_has_to_be_drained_where_none_are_asked_for() {
    let world = world_with(&["shard-a", "one"], |limits| limits.require_report = false).await;
    let service = service(&world);
    service.release(release("one")).await.unwrap();
    world.declare(2, &["one"]).await;
    assert_eq!(world.owner("one").0.as_deref(), Some("shard-a"));
    // Once an agent was there, its word is needed, also after everything was started anew.
    drop(world.connect("shard-a"));
    world.leader.tidy().await;
    assert!(world.leader.fleet().shard("shard-a").unwrap().record.agent_seen_at_us.is_some());
    assert_eq!(refused(service.release(release("one")).await).1, "NOT_DRAINED");
}

#[tokio::test]
async fn statuses_come_in_pages_and_show_agents_that_nobody_registered() {
    let world = world(&["shard-a", "shard-c"]).await;
    let _agents = world.open(&["shard-b", "shard-c"]).await;
    let service = service(&world);
    let (page, more) = service.shard_statuses("", 2).unwrap();
    let names: Vec<_> = page.iter().map(|status| status.name.as_str()).collect();
    assert_eq!((names, more), (vec!["shard-a", "shard-b"], true));
    assert!(page[1].not_placeable[0].starts_with("NOT_REGISTERED"));
    let (page, more) = service.shard_statuses("shard-b", 2).unwrap();
    assert_eq!((page.len(), more), (1, false));
    assert!(page[0].seen.connected && page[0].not_placeable.is_empty());
    world.clock.advance(Duration::from_secs(31));
    let stale = service.shard_status("shard-c").unwrap();
    assert_eq!(stale.seen.health.reasons[0].code, "REPORT_STALE");
}
