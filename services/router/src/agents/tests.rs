use std::{sync::Arc, time::Duration};

use airfleet_domain::{
    health::{Health, Reason, Verdict},
    ids::Generation,
    resources::Resources,
    roles::{Desired, Observed, Role},
};
use airfleet_runtime::clock::ManualClock;
use uuid::Uuid;

use super::{
    Evidence, Hello, Hub, Limits, NamespaceUsage, Obstacle, PolicyViolation, Refusal, Report,
    SeenRole, Session,
    report::{Merge, Merged, Taken, merge},
};
use crate::testing::name;

fn hub(change: impl FnOnce(&mut Limits)) -> (Arc<Hub>, ManualClock) {
    let mut limits = Limits {
        max_agents: 10,
        max_namespaces: 100,
        stale_after: Duration::from_secs(30),
        settle_after: Duration::from_secs(10),
        require_report: true,
    };
    change(&mut limits);
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    (Arc::new(Hub::new(limits, Arc::new(clock.clone()))), clock)
}

/// The `number`th start of an agent.
fn hello(shard: &str, number: u128) -> Hello {
    Hello {
        shard: name(shard),
        incarnation: Uuid::from_u128(number),
        agent_version: "1".into(),
        airflow_version: "3.3.2".into(),
        schema_revision: "abc".into(),
    }
}

fn usage(dags: i64, active_runs: i64) -> NamespaceUsage {
    let usage = Resources { dags, ..Resources::ZERO };
    NamespaceUsage { usage, active_runs, ..NamespaceUsage::default() }
}

fn full(sequence: i64, namespaces: &[(&str, NamespaceUsage)]) -> Report {
    Report {
        full: true,
        health: Some(Health::default()),
        usage: Some(Resources::ZERO),
        capacity: Some(Resources::ZERO),
        ..changes(sequence, namespaces)
    }
}

fn changes(sequence: i64, namespaces: &[(&str, NamespaceUsage)]) -> Report {
    let namespaces = namespaces.iter().map(|(namespace, usage)| (name(namespace), *usage));
    Report { sequence, namespaces: namespaces.collect(), ..Report::default() }
}

fn send(session: &Session, report: Report) -> bool {
    session.report(report, |_, _| {})
}

#[test]
fn changes_are_added_to_the_report_that_they_follow_only() {
    let mut known = None;
    let mut add = |report| merge(&mut known, report, 10);
    assert_eq!(add(changes(1, &[])), Merge::NeedFull, "there is nothing to add to");
    let all = full(2, &[("aaa", usage(1, 0)), ("bbb", usage(2, 0))]);
    let Merge::Added(changed) = add(all) else { panic!("a full one is taken") };
    assert_eq!(changed.usage.len(), 2);

    let mut next = changes(3, &[("bbb", usage(5, 0)), ("ccc", usage(3, 0))]);
    next.removed = vec![name("aaa"), name("never-seen")];
    let Merge::Added(changed) = add(next) else { panic!("it follows") };
    assert_eq!(
        changed.usage,
        [(name("aaa"), None), (name("bbb"), Some(usage(5, 0))), (name("ccc"), Some(usage(3, 0)))]
    );
    for gap in [3, 5, 1, -1] {
        assert_eq!(add(changes(gap, &[])), Merge::NeedFull, "{gap} does not follow 3");
    }
    assert!(matches!(add(changes(4, &[])), Merge::Added(changed) if changed == Taken::default()));
    // A full one may come at any time, and says what is gone.
    let Merge::Added(changed) = add(full(9, &[("ccc", usage(3, 0))])) else { panic!() };
    assert_eq!(changed.usage, [(name("bbb"), None)]);
}

#[test]
fn what_is_unset_stays_and_what_a_full_report_leaves_out_does_not() {
    let mut known: Option<Merged> = None;
    let mut first = full(1, &[]);
    first.usage = Some(Resources { dags: 4, ..Resources::ZERO });
    merge(&mut known, first, 10);
    merge(&mut known, changes(2, &[]), 10);
    assert_eq!(known.as_ref().unwrap().usage.dags, 4);
    assert_eq!(known.as_ref().unwrap().health.verdict, Verdict::Healthy);
    merge(&mut known, Report { full: true, sequence: 3, ..Report::default() }, 10);
    let known = known.unwrap();
    assert_eq!(known.usage.dags, 0);
    assert_eq!(known.health.verdict, Verdict::Unknown, "silence is not health");
}

#[test]
fn no_more_namespaces_are_kept_than_allowed_and_that_is_told() {
    let mut known = None;
    merge(&mut known, full(1, &[("aaa", usage(1, 0)), ("bbb", usage(1, 0))]), 2);
    merge(&mut known, changes(2, &[("ccc", usage(1, 0)), ("aaa", usage(9, 0))]), 2);
    let merged = known.unwrap();
    assert_eq!((merged.namespaces.len(), merged.dropped), (2, 1));
    assert_eq!(merged.namespaces["aaa"], usage(9, 0));
}

#[tokio::test]
async fn the_newer_incarnation_stays() {
    let (hub, _) = hub(|_| {});
    let second = hub.attach(hello("shard-a", 2)).unwrap();
    let refused = hub.attach(hello("shard-a", 1)).unwrap_err();
    assert!(matches!(refused, Refusal::Superseded { newer, .. } if newer == Uuid::from_u128(2)));
    // The same one comes back before its old stream was seen to be gone.
    let again = hub.attach(hello("shard-a", 2)).unwrap();
    second.replaced().await;
    let third = hub.attach(hello("shard-a", 3)).unwrap();
    again.replaced().await;
    drop((second, again));
    assert_eq!(hub.connected(), 1, "the end of a replaced stream is not that of its successor");
    drop(third);
    assert_eq!(hub.connected(), 0);
    // It is not connected any more, so an older one is better than none.
    assert!(hub.attach(hello("shard-a", 1)).is_ok());
}

#[test]
fn reports_go_on_after_a_reconnect_but_not_after_a_restart() {
    let (hub, _) = hub(|_| {});
    let session = hub.attach(hello("shard-a", 1)).unwrap();
    assert!(send(&session, changes(1, &[])), "nothing to add to");
    assert!(!send(&session, full(2, &[])));
    let again = hub.attach(hello("shard-a", 1)).unwrap();
    assert!(send(&session, changes(3, &[])), "a replaced session is not listened to");
    assert!(!send(&again, changes(3, &[])));
    let restarted = hub.attach(hello("shard-a", 2)).unwrap();
    assert!(send(&restarted, changes(4, &[])), "another process counts anew");
}

#[test]
fn silence_is_not_health() {
    let (hub, clock) = hub(|_| {});
    let says = || {
        let health = hub.seen("shard-a").health;
        (health.verdict, health.reasons.first().map(|reason| reason.code.clone()))
    };
    let unknown = |code: &str| (Verdict::Unknown, Some(code.to_owned()));
    assert_eq!(says(), unknown("AGENT_NEVER_CONNECTED"));
    let session = hub.attach(hello("shard-a", 1)).unwrap();
    assert_eq!(says(), unknown("NO_FULL_REPORT"));
    let mut report = full(1, &[]);
    report.health = Some(Health::from_reasons(vec![Reason::plain("X", Verdict::Degraded, "x")]));
    send(&session, report);
    assert_eq!(says(), (Verdict::Degraded, Some("X".into())));
    clock.advance(Duration::from_secs(30));
    assert_eq!(says().0, Verdict::Degraded);
    clock.advance(Duration::from_millis(1));
    assert_eq!(says(), unknown("REPORT_STALE"));
    send(&session, changes(2, &[]));
    assert_eq!(says().0, Verdict::Degraded);
    // Gone, but not long enough to say anything else.
    drop(session);
    assert_eq!(says().0, Verdict::Degraded);
    assert!(!hub.seen("shard-a").connected);
}

#[test]
fn shards_without_agents_count_only_where_none_are_asked_for() {
    let (strict, _) = hub(|_| {});
    assert_eq!(strict.observation("shard-a").verdict, Some(Verdict::Unknown));
    let (lax, _) = hub(|limits| limits.require_report = false);
    assert_eq!(lax.observation("shard-a").verdict, None);
    let session = lax.attach(hello("shard-a", 1)).unwrap();
    assert_eq!(lax.observation("shard-a").verdict, Some(Verdict::Unknown));
    drop(session);
    assert_eq!(lax.observation("shard-a").verdict, Some(Verdict::Unknown), "it was heard of");
}

#[test]
fn drained_is_what_a_fresh_report_of_a_connected_agent_shows() {
    let (hub, clock) = hub(|_| {});
    let evidence = || hub.evidence("shard-a", "pay", Generation(1));
    assert_eq!(evidence(), Evidence::NeverConnected);
    let session = hub.attach(hello("shard-a", 1)).unwrap();
    assert!(matches!(evidence(), Evidence::Unknown(_)), "nothing reported");
    session.told_all();
    send(&session, full(1, &[("pay", usage(3, 2))]));
    assert_eq!(evidence(), Evidence::Busy(usage(3, 2)));
    send(&session, changes(2, &[("pay", usage(3, 0))]));
    assert_eq!(evidence(), Evidence::Drained, "paused DAGs may stay");
    clock.advance(Duration::from_secs(31));
    assert!(matches!(evidence(), Evidence::Unknown(_)), "stale");
    send(&session, changes(3, &[]));
    assert_eq!(evidence(), Evidence::Drained);
    drop(session);
    assert!(matches!(evidence(), Evidence::Unknown(_)), "gone");
}

#[test]
fn what_is_not_in_a_report_is_drained_only_if_the_agent_knew_what_to_look_for() {
    let (hub, clock) = hub(|_| {});
    let evidence = || hub.evidence("shard-a", "pay", Generation(1));
    let session = hub.attach(hello("shard-a", 1)).unwrap();
    send(&session, full(1, &[]));
    assert!(matches!(evidence(), Evidence::Unknown(_)), "it was not told of anything");
    session.told_all();
    clock.advance(Duration::from_secs(9));
    send(&session, changes(2, &[]));
    assert!(matches!(evidence(), Evidence::Unknown(_)), "the report may be from before");
    clock.advance(Duration::from_secs(1));
    assert!(matches!(evidence(), Evidence::Unknown(_)), "no report since");
    send(&session, changes(3, &[]));
    assert_eq!(evidence(), Evidence::Drained);
    // Assigned to it just now.
    session.told([name("pay")]);
    send(&session, changes(4, &[]));
    assert!(matches!(evidence(), Evidence::Unknown(_)));
    clock.advance(Duration::from_secs(10));
    send(&session, changes(5, &[]));
    assert_eq!(evidence(), Evidence::Drained);
}

#[test]
fn a_session_tells_every_name_once_or_everything() {
    let (hub, _) = hub(|_| {});
    let session = hub.attach(hello("shard-a", 1)).unwrap();
    assert!(session.take_pending().full, "at first everything");
    hub.mark("shard-a", &name("one"));
    hub.mark("shard-a", &name("two"));
    hub.mark("shard-a", &name("one"));
    hub.mark("shard-b", &name("other"));
    let pending = session.take_pending();
    assert!(!pending.full);
    assert_eq!(pending.names.len(), 2);
    for number in 0..=10_000 {
        hub.mark("shard-a", &name(&format!("ns-{number}")));
    }
    let pending = session.take_pending();
    assert!(pending.full && pending.names.is_empty(), "so many that all is simpler");
    hub.mark_all();
    assert!(session.take_pending().full);
}

#[test]
fn shards_that_are_gone_make_room_for_others() {
    let (hub, _) = hub(|limits| limits.max_agents = 2);
    let one = hub.attach(hello("shard-a", 1)).unwrap();
    let _two = hub.attach(hello("shard-b", 1)).unwrap();
    let refused = hub.attach(hello("shard-c", 1)).unwrap_err();
    assert_eq!(refused, Refusal::TooMany { max: 2 });
    drop(one);
    assert!(hub.attach(hello("shard-c", 1)).is_ok());
    assert_eq!(hub.shards(), [name("shard-b"), name("shard-c")]);
}

fn role(role: Role, generation: i64) -> SeenRole {
    let generation = Generation(generation);
    SeenRole {
        observed: Some(Observed { role, generation }),
        target: Some(Desired { role, generation }),
        ..SeenRole::default()
    }
}

fn roles(sequence: i64, full: bool, roles: &[(&str, SeenRole)]) -> Report {
    let roles = roles.iter().map(|(namespace, role)| (name(namespace), role.clone()));
    Report { sequence, full, roles: roles.collect(), ..Report::default() }
}

#[test]
fn roles_are_added_to_those_before_and_counted() {
    let mut known = None;
    let mut add = |report| match merge(&mut known, report, 10) {
        Merge::Added(taken) => taken.roles,
        Merge::NeedFull => panic!("it follows"),
    };
    let active = role(Role::Active, 1);
    let mut staged = role(Role::Staged, 1);
    staged.target = active.target;
    staged.obstacle = Some(Obstacle { code: "SOURCE_UNREACHABLE".into(), ..Obstacle::default() });
    assert_eq!(add(roles(1, true, &[("one", active.clone()), ("two", staged.clone())])).len(), 2);
    // Said again, it is no news; and what a change leaves out stays.
    assert_eq!(add(roles(2, false, &[("one", active.clone())])), []);
    let mut gone = roles(3, false, &[("two", active.clone())]);
    gone.removed_roles = vec![name("one"), name("never-seen")];
    let news = add(gone);
    assert_eq!(news.len(), 2);
    assert_eq!((news[0].namespace.as_str(), &news[0].after), ("one", &None));
    assert_eq!((&news[1].before, &news[1].after), (&Some(staged), &Some(active.clone())));
    // What a full report leaves out is gone.
    assert_eq!(add(roles(9, true, &[])).len(), 1);
    let merged = known.unwrap();
    assert_eq!(merged.roles.counts(), Default::default());
}

#[test]
fn what_is_kept_of_roles_is_bounded_and_their_numbers_are_right() {
    let violation = |number: usize| PolicyViolation {
        code: "AF107".into(),
        dag_id: format!("pay.{number}"),
        message: "x".repeat(500),
        ..PolicyViolation::default()
    };
    let mut noisy = role(Role::Active, 1);
    noisy.violations = (0..1000).map(violation).collect();
    noisy.violation_count = 70_000;
    let names: Vec<String> = (0..50).map(|number| format!("ns-{number:02}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), noisy.clone())).collect();
    let mut known = None;
    merge(&mut known, roles(1, true, &all), 40);
    let kept = |known: &Option<Merged>| {
        let roles = &known.as_ref().unwrap().roles;
        let seen = names.iter().filter_map(|name| roles.get(name));
        let lists: Vec<_> = seen.map(|role| (role.violations.len(), role.cut)).collect();
        (lists.len(), lists.iter().map(|(count, _)| count).sum::<usize>(), lists)
    };
    let (count, violations, lists) = kept(&known);
    assert_eq!(count, 40, "no more namespaces than allowed");
    assert!(violations * 500 <= 1 << 20, "{violations}");
    assert!(lists.contains(&(100, false)) && lists.contains(&(0, true)), "cut, and told so");
    assert_eq!(known.as_ref().unwrap().roles.counts().violations, 40 * 70_000);
    // What goes makes room.
    merge(&mut known, roles(2, true, &all[45..]), 40);
    assert_eq!(kept(&known), (5, 500, vec![(100, false); 5]));
}

#[test]
fn a_sealed_shard_proves_it_only_for_the_generation_that_it_is_sealed_at() {
    let (hub, _) = hub(|_| {});
    let session = hub.attach(hello("shard-a", 1)).unwrap();
    let mut report = full(1, &[("pay", usage(3, 2))]);
    report.roles = vec![(name("pay"), role(Role::Sealed, 4))];
    send(&session, report);
    let evidence = |generation| hub.evidence("shard-a", "pay", Generation(generation));
    assert_eq!(evidence(4), Evidence::Drained);
    assert_eq!(evidence(5), Evidence::Busy(usage(3, 2)), "it was told to run it since");
}
