mod changes;

use std::{sync::Arc, time::Duration};

use airfleet_domain::{
    health::Health,
    ids::{Generation, Revision},
    moves::{Options, preflight::Inspection},
    roles::{Desired, Observed, Role},
    routing::State,
};
use airfleet_runtime::status::{Failure, Kind};

use super::{Error, Pin, ReleaseNamespace, ReleaseShard, Service, StartMove, Who};
use crate::{
    agents::{Report, SeenRole, Session},
    leader::{Leader, election::Leadership},
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

/// What a shard is to be for a namespace.
fn desired(world: &World, shard: &str, namespace: &str) -> Option<(Role, i64)> {
    let role = world.leader.desired(shard, namespace)?;
    Some((role.desired.role, role.desired.generation.0))
}

/// Codes of what happened to a namespace, in order.
async fn happened(world: &World, namespace: &str) -> Vec<String> {
    let events = world.tools.store.events_after(&name(namespace), 0, 100).await.unwrap();
    events.into_iter().map(|recorded| recorded.event.code).collect()
}

/// The agent of a shard says that it is in a role.
fn says(world: &World, session: &Session, sequence: i64, role: Role, generation: i64) {
    let generation = Generation(generation);
    let seen = SeenRole {
        observed: Some(Observed { role, generation }),
        target: Some(Desired { role, generation }),
        ..SeenRole::default()
    };
    let report = Report {
        sequence,
        full: true,
        health: Some(Health::default()),
        roles: vec![(name("one"), seen)],
        ..Report::default()
    };
    let shard = session.shard().clone();
    assert!(!session.report(report, |observation, taken| {
        world.leader.observed(&shard, observation, taken);
    }));
}

#[tokio::test]
async fn what_is_given_up_is_retired_before_another_runs_it() {
    let world = world(&["shard-a", "one"]).await;
    let mut agents = world.open(&["shard-a"]).await;
    world.declare(2, &["shard-b"]).await;
    agents.extend(world.open(&["shard-b"]).await);
    world.leader.tidy().await;
    let service = service(&world);
    agents[0].told_all();
    world.report(&agents[0], 2, &[("one", 3, 0)]);
    service.pin(pin("one", "shard-b")).await.unwrap();
    assert_eq!(desired(&world, "shard-b", "one"), Some((Role::Staged, 2)));
    assert_eq!(desired(&world, "shard-a", "one"), Some((Role::Retired, 2)));
    assert_eq!(desired(&world, "shard-c", "one"), None);
    let status = service.namespace_status("one").await.unwrap();
    let [owner, former] = status.roles.as_slice() else { panic!("{status:?}") };
    assert!(owner.waits_for.contains("before shard-a says that it is fenced"), "{owner:?}");
    assert!((owner.reached, former.reached) == (false, false) && former.purge_at_us.is_some());
    // A second leader finds the same, and what was seen before proves nothing.
    let second = Leader::begin(world.tools.clone(), world.leader.term).await.unwrap();
    assert_eq!(second.desired("shard-b", "one"), world.leader.desired("shard-b", "one"));
    assert_eq!(second.desired("shard-a", "one"), world.leader.desired("shard-a", "one"));
    says(&world, &agents[0], 3, Role::Retired, 1);
    assert_eq!(world.leader.settle_residues().await.unwrap(), 0);

    says(&world, &agents[0], 4, Role::Retired, 2);
    assert_eq!(world.leader.settle_residues().await.unwrap(), 1);
    assert_eq!(desired(&world, "shard-b", "one"), Some((Role::Active, 2)));
    assert_eq!(world.leader.settle_residues().await.unwrap(), 0, "its rows are kept");
    world.clock.advance(Duration::from_hours(25));
    assert_eq!(world.leader.settle_residues().await.unwrap(), 1);
    assert_eq!(desired(&world, "shard-a", "one"), Some((Role::Absent, 2)));
    says(&world, &agents[0], 5, Role::Absent, 2);
    assert_eq!(world.leader.settle_residues().await.unwrap(), 1);
    assert_eq!(desired(&world, "shard-a", "one"), None);
    assert!(world.tools.store.residues().await.unwrap().is_empty());
    let told = happened(&world, "one").await;
    assert_eq!(
        told,
        ["UNPLACED", "ASSIGNED", "REASSIGNED", "PINNED", "RETIRED", "PURGING", "PURGED"]
    );
    world.check().await;
}

#[tokio::test]
async fn what_a_shard_has_without_the_routers_word_is_shown() {
    let world = world(&["shard-a", "shard-b", "one"]).await;
    let agents = world.open(&["shard-a", "shard-b"]).await;
    let service = service(&world);
    let (owner, _) = world.owner("one");
    let stray = usize::from(owner.as_deref() == Some("shard-a"));
    says(&world, &agents[stray], 2, Role::Quiesced, 7);
    let shard = agents[stray].shard().as_str();
    let status = service.shard_status(shard).unwrap();
    let [role] = status.roles.as_slice() else { panic!("{:?}", status.roles) };
    assert_eq!((role.desired, role.reached), (None, false));
    assert!(role.needs_attention());
    assert_eq!(role.observed, Some((Role::Quiesced, Generation(7))));
    // Once nothing is left, there is nothing to show.
    says(&world, &agents[stray], 3, Role::Absent, 7);
    assert!(service.shard_status(shard).unwrap().roles.is_empty());
}

#[tokio::test]
async fn a_shard_that_gets_a_namespace_back_no_longer_gives_it_up() {
    let world = world(&["shard-a", "one"]).await;
    let mut agents = world.open(&["shard-a"]).await;
    world.declare(2, &["shard-b"]).await;
    agents.extend(world.open(&["shard-b"]).await);
    let service = service(&world);
    let forced = |shard: &str| Pin { force: true, ..pin("one", shard) };
    service.pin(forced("shard-b")).await.unwrap();
    // An operator took it on that both may run it.
    assert_eq!(desired(&world, "shard-b", "one"), Some((Role::Active, 2)));
    assert_eq!(desired(&world, "shard-a", "one"), Some((Role::Retired, 2)));
    let status = service.namespace_status("one").await.unwrap();
    assert!(status.roles[1].waits_for.contains("it may run it too"), "{status:?}");
    assert_eq!(world.leader.residues().counts().waived, 1);
    service.pin(forced("shard-a")).await.unwrap();
    assert_eq!(desired(&world, "shard-a", "one"), Some((Role::Active, 3)));
    assert_eq!(desired(&world, "shard-b", "one"), Some((Role::Retired, 3)));
    assert_eq!(world.tools.store.residues().await.unwrap().len(), 1);
    world.check().await;
}

#[tokio::test]
async fn an_operator_may_let_the_owner_run_what_another_holds_back() {
    let world = world(&["shard-a", "one"]).await;
    let mut agents = world.open(&["shard-a"]).await;
    world.declare(2, &["shard-b"]).await;
    agents.extend(world.open(&["shard-b"]).await);
    let service = service(&world);
    agents[0].told_all();
    world.report(&agents[0], 2, &[("one", 3, 0)]);
    service.pin(pin("one", "shard-b")).await.unwrap();
    service.pin(pin("one", "shard-b")).await.unwrap();
    assert_eq!(desired(&world, "shard-b", "one"), Some((Role::Staged, 2)), "not by itself");
    let before = world.entry("one").unwrap().revision();
    service.pin(Pin { force: true, ..pin("one", "shard-b") }).await.unwrap();
    assert_eq!(desired(&world, "shard-b", "one"), Some((Role::Active, 2)));
    assert!(world.entry("one").unwrap().revision() > before, "it is a later word");
    assert_eq!(overrides(&world).await[0].0, "force-activate");
    world.check().await;
}

#[tokio::test]
async fn what_was_released_and_removed_is_still_given_up() {
    let world = world(&["shard-a", "one"]).await;
    let agents = world.open(&["shard-a"]).await;
    let service = service(&world);
    agents[0].told_all();
    world.report(&agents[0], 2, &[("one", 3, 0)]);
    service.release(release("one")).await.unwrap();
    world.forget(3, &["one"]).await;
    assert!(world.entry("one").is_none());
    assert_eq!(desired(&world, "shard-a", "one"), Some((Role::Retired, 2)));
    let status = service.namespace_status("one").await.unwrap();
    assert!(status.entry.is_none() && status.roles.len() == 1);
    assert!(world.tools.store.workloads(&[name("one")]).await.unwrap().is_empty());
    // Registered anew it may go anywhere, and runs only once the first shard is fenced.
    world.declare(4, &["shard-b"]).await;
    service.cordon(&name("shard-a"), who("")).await.unwrap();
    let _other = world.open(&["shard-b"]).await;
    world.declare(5, &["one"]).await;
    assert_eq!(world.owner("one"), (Some("shard-b".into()), 3));
    assert_eq!(desired(&world, "shard-b", "one"), Some((Role::Staged, 3)));
    assert_eq!(desired(&world, "shard-a", "one"), Some((Role::Retired, 3)));
    // A shard that is no longer declared may be up all the same.
    let ask = ReleaseShard {
        shard: name("shard-a"),
        validate_only: false,
        manifest_revision: Revision(0),
    };
    let (kind, reason, message) = refused(service.release_shard(ask).await);
    assert_eq!((kind, reason.as_str()), (Kind::Precondition, "SHARD_UNFENCED"));
    assert!(message.contains("(one)"), "{message}");
    world.forget(6, &["shard-a"]).await;
    assert_eq!(desired(&world, "shard-b", "one"), Some((Role::Staged, 3)));
    says(&world, &agents[0], 3, Role::Retired, 3);
    assert_eq!(world.leader.settle_residues().await.unwrap(), 1);
    assert_eq!(desired(&world, "shard-b", "one"), Some((Role::Active, 3)));
    world.check().await;
}

#[tokio::test]
async fn a_source_that_is_given_up_is_recorded_with_who_and_why() {
    let world = world(&["shard-a", "one"]).await;
    let agents = world.open(&["shard-a"]).await;
    world.declare(2, &["shard-b"]).await;
    let target = world.connect("shard-b");
    drop(agents);
    let service = service(&world);
    let lost = |reason: &str, validate_only: bool| StartMove {
        namespace: name("one"),
        target: name("shard-b"),
        options: Options { source_is_lost: true, ..Options::default() },
        who: who(reason),
        validate_only,
        request_id: String::new(),
        expected_generation: 0,
    };
    // The agent that is there says what it finds.
    let answering = async {
        loop {
            for question in target.take_questions() {
                let found = Inspection {
                    airflow_version: "3.3.2".into(),
                    schema_revision: "r".into(),
                    schema_digest: "d".into(),
                    database: "postgresql".into(),
                    ..Inspection::default()
                };
                target.inspected(question.namespace, question.number, found);
            }
            target.woken().await;
        }
    };
    let asking = async {
        for silent in ["", " "] {
            let refused = service.start_move(lost(silent, false)).await;
            assert_eq!(Failure::from(refused.unwrap_err()).kind(), Kind::Invalid);
        }
        service.start_move(lost("its disk burnt", true)).await.unwrap();
        assert!(overrides(&world).await.is_empty(), "it was only looked");
        service.start_move(lost("its disk burnt", false)).await.unwrap().0.row
    };
    let row = tokio::select! {
        row = asking => row,
        () = answering => unreachable!("it goes on without end"),
    };
    assert_eq!((row.requested_by.as_str(), row.reason.as_str()), ("token:op", "its disk burnt"));
    let kept = ["force-lost-source", "one", "token:op", "its disk burnt"].map(str::to_owned);
    assert_eq!(overrides(&world).await, [kept.into()]);
    let events = world.tools.store.events_after(&name("one"), 0, 100).await.unwrap();
    let forced = events.into_iter().find(|one| one.event.code == "MOVE_FORCED").unwrap().event;
    let who_and_why =
        |text: &str| text.starts_with("token:op gave") && text.ends_with(": its disk burnt");
    assert!(forced.warning && who_and_why(&forced.message), "{forced:?}");
}
