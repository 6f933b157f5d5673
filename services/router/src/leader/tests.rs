use airfleet_domain::{
    ids::{Generation, Revision},
    routing::{Entry, State},
};
use airfleet_proto::{common::v1 as common, registry::v1 as wire};

use futures::FutureExt as _;

use super::Leader;
use crate::{
    fleet::Placing,
    store::{Batch, Record},
    testing::{change, declared, name, record, snapshot, world, world_with},
};

fn edited(
    mut entry: wire::ManifestEntry,
    edit: impl FnOnce(&mut wire::Namespace),
) -> wire::ManifestEntry {
    let Some(wire::manifest_entry::Kind::Namespace(namespace)) = &mut entry.kind else {
        panic!("a namespace")
    };
    edit(namespace);
    entry
}

#[tokio::test]
async fn a_namespace_is_assigned_when_it_is_registered_and_a_shard_is_healthy() {
    let world = world(&["shard-a", "early"]).await;
    let early = world.entry("early").unwrap();
    assert_eq!((early.state(), early.generation()), (State::Unplaced, Generation(0)));
    assert!(early.reason().contains("SHARD_HEALTH_UNKNOWN"), "{}", early.reason());

    let _agents = world.open(&["shard-a"]).await;
    assert_eq!(world.owner("early"), (Some("shard-a".into()), 1));
    world.declare(2, &["late"]).await;
    assert_eq!(world.owner("late"), (Some("shard-a".into()), 1));
    assert_eq!(world.leader.manifest_revision(), Revision(2));
    world.check().await;
}

#[tokio::test]
async fn room_that_opens_while_a_commit_is_on_its_way_is_not_missed() {
    let world = world(&["shard-a"]).await;
    let leader = &world.leader;
    let is_told = || leader.roomier.notified().now_or_never().is_some();
    assert!(is_told(), "a leader looks at what waits when it begins");

    let mut turn = leader.turn().await.unwrap();
    let stamp = turn.stamp();
    let one = record("one").state(State::Unplaced).at(stamp.revision.0);
    let one = stamp.place(one, &mut leader.fleet(), &mut Placing::default());
    assert_eq!(one.entry.state(), State::Unplaced, "the shard is not known to be healthy");
    let _agent = world.connect("shard-a");
    turn.commit(Batch { records: vec![one], ..Batch::default() }).await.unwrap();
    drop(turn);

    assert!(is_told(), "nothing waited yet when the shard opened");
    assert_eq!(leader.place_waiting().await.unwrap(), 1);
    world.check().await;
}

#[tokio::test]
async fn rooms_are_shared_within_one_transaction() {
    let world = world(&["shard-a", "shard-b"]).await;
    let _agents = world.open(&["shard-a", "shard-b"]).await;
    // A medium shard takes 200 DAGs, so twenty namespaces of ten.
    let names: Vec<String> = (0..41).map(|number| format!("ns-{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    world.declare(2, &names).await;
    let counts = world.tools.live.counts();
    assert_eq!(counts.by_shard.values().copied().collect::<Vec<_>>(), [20, 20]);
    assert_eq!(counts.unplaced, 1);
    let waiting = names.iter().find(|name| world.owner(name).0.is_none()).unwrap();
    assert!(world.entry(waiting).unwrap().reason().contains("NO_ROOM on 2"));

    // One leaves, and the one that waits gets its room.
    let left = names.iter().find(|name| *name != waiting).unwrap();
    let agent = world.connect("shard-a");
    drop(agent);
    let mut turn = world.leader.turn().await.unwrap();
    let released = {
        let known = world.leader.fleet().member(left).unwrap().record.clone();
        let mut assignment = known.entry.assignment();
        turn.stamp().give(&mut assignment, None, "test");
        assignment.state = State::Released;
        Record { entry: (&assignment).into(), ..known }
    };
    turn.commit(Batch { records: vec![released], ..Batch::default() }).await.unwrap();
    drop(turn);
    assert_eq!(world.leader.place_waiting().await.unwrap(), 1);
    world.check().await;
}

#[tokio::test]
async fn taking_in_the_same_again_writes_nothing() {
    let world = world(&["shard-a", "one", "two"]).await;
    let _agents = world.open(&["shard-a"]).await;
    let before = world.tools.live.view().table.revision();
    let entries = || ["shard-a", "one", "two"].map(|name| declared(name, 1));
    world.leader.take_in(vec![snapshot(1, entries(), true, true)]).await.unwrap();
    world.leader.take_in(vec![change(1, entries(), &[])]).await.unwrap();
    assert_eq!(world.tools.live.view().table.revision(), before);
    // A change that does not matter here leaves the row alone, and is remembered as taken in.
    let labelled = edited(declared("one", 5), |one| {
        one.labels = [("tier".to_owned(), "gold".to_owned())].into();
    });
    world.leader.take_in(vec![change(5, [labelled], &[])]).await.unwrap();
    assert_eq!(world.entry("one").unwrap().revision(), before);
    assert_eq!(world.leader.manifest_revision(), Revision(5));
    world.check().await;
}

#[tokio::test]
async fn what_a_namespace_asks_for_may_change_but_it_stays_where_it_is() {
    let world = world(&["shard-a", "shard-b", "one"]).await;
    let _agents = world.open(&["shard-a", "shard-b"]).await;
    let (owner, generation) = world.owner("one");
    let moved = edited(declared("one", 2), |one| {
        one.prefixes = vec!["uno.".into(), "one__".into()];
        one.demand = Some(common::Resources { dags: 150, ..Default::default() });
        one.placement = Some(wire::PlacementRules { region: "mars".into(), ..Default::default() });
    });
    world.leader.take_in(vec![change(2, [moved], &[])]).await.unwrap();
    assert_eq!(world.owner("one"), (owner.clone(), generation));
    let view = world.tools.live.view();
    assert!(view.table.resolve_dag("one.x").is_none());
    assert_eq!(view.table.resolve_dag("uno.x").unwrap().namespace(), "one");
    let reserved = world.leader.fleet().shard(&owner.unwrap()).unwrap().reserved;
    assert_eq!(reserved.dags, 150);
    world.check().await;
}

#[tokio::test]
async fn what_the_manifest_forgets_is_kept_while_it_is_owned() {
    let world = world(&["shard-a", "owned"]).await;
    let _agents = world.open(&["shard-a"]).await;
    world.declare(2, &["shard-b"]).await;
    let picky = edited(declared("waiting", 3), |it| {
        it.placement = Some(wire::PlacementRules { region: "mars".into(), ..Default::default() });
    });
    world.leader.take_in(vec![change(3, [picky], &[])]).await.unwrap();
    world.forget(4, &["owned", "waiting", "shard-a", "shard-b"]).await;
    assert!(world.entry("waiting").is_none(), "nothing runs of it anywhere");
    assert_eq!(world.owner("owned"), (Some("shard-a".into()), 1));
    assert!(world.entry("owned").unwrap().reason().contains("no longer has it"));
    {
        let fleet = world.leader.fleet();
        assert_eq!(fleet.totals().orphans, 1);
        assert_eq!(fleet.totals().unregistered_shards, 1);
        assert!(fleet.shard("shard-b").is_none());
        assert!(!fleet.shard("shard-a").unwrap().record.registered);
    }
    world.check().await;

    // It comes back, also under another uid: it is where it was.
    let again = edited(declared("owned", 5), |it| it.uid = "another".into());
    world.leader.take_in(vec![change(5, [declared("shard-a", 5), again], &[])]).await.unwrap();
    assert_eq!(world.owner("owned"), (Some("shard-a".into()), 1));
    assert_eq!(world.entry("owned").unwrap().namespace_uid(), "another");
    assert_eq!(world.leader.fleet().totals(), Default::default());
    world.check().await;
}

#[tokio::test]
async fn a_snapshot_in_pieces_forgets_what_it_does_not_have() {
    let world = world(&["shard-a", "shard-b", "one", "two", "three"]).await;
    let first = snapshot(9, ["one", "shard-a"].map(|n| declared(n, 1)), true, false);
    let last = snapshot(9, ["two", "new"].map(|n| declared(n, 1)), false, true);
    world.leader.take_in(vec![first]).await.unwrap();
    assert_eq!(world.leader.manifest_revision(), Revision(1), "not before it is complete");
    world.leader.take_in(vec![last, change(10, [declared("newer", 10)], &[])]).await.unwrap();
    assert_eq!(world.leader.manifest_revision(), Revision(10));
    let view = world.tools.live.view();
    let names: Vec<_> = view.table.iter().map(Entry::namespace).collect();
    assert_eq!(names, ["new", "newer", "one", "two"]);
    assert!(world.leader.fleet().shard("shard-b").is_none());
    world.check().await;

    // The rest of a snapshot whose beginning another leader took says nothing of what is missing.
    let rest = snapshot(11, [declared("two", 1)], false, true);
    world.leader.take_in(vec![rest]).await.unwrap();
    assert_eq!(world.tools.live.view().table.len(), 4);
}

#[tokio::test]
async fn a_released_namespace_waits_for_a_later_word_of_the_registry() {
    let world = world(&["shard-a", "one"]).await;
    let _agents = world.open(&["shard-a"]).await;
    let mut turn = world.leader.turn().await.unwrap();
    let known = world.leader.fleet().member("one").unwrap().record.clone();
    let mut assignment = known.entry.assignment();
    turn.stamp().give(&mut assignment, None, "test");
    assignment.state = State::Released;
    let released = Record { entry: (&assignment).into(), manifest_revision: Revision(7), ..known };
    turn.commit(Batch { records: vec![released], ..Batch::default() }).await.unwrap();
    drop(turn);
    for stale in [1, 7] {
        world.declare(stale, &["one"]).await;
        let all = ["one", "shard-a"].map(|n| declared(n, stale));
        world.leader.take_in(vec![snapshot(stale, all, true, true)]).await.unwrap();
        assert_eq!(world.entry("one").unwrap().state(), State::Released, "revision {stale}");
    }
    world.declare(8, &["one"]).await;
    assert_eq!(world.owner("one"), (Some("shard-a".into()), 3), "given up and given again");
    world.check().await;
}

#[tokio::test]
async fn a_name_that_comes_back_has_a_later_generation() {
    let world = world(&["shard-a", "one"]).await;
    world.forget(2, &["one"]).await;
    let _agents = world.open(&["shard-a"]).await;
    world.declare(3, &["one"]).await;
    assert_eq!(world.owner("one").1, 1, "it was never owned before");
    let mut turn = world.leader.turn().await.unwrap();
    let known = world.leader.fleet().member("one").unwrap().record.clone();
    let mut assignment = known.entry.assignment();
    turn.stamp().give(&mut assignment, None, "test");
    let free = Record { entry: (&assignment).into(), ..known };
    turn.commit(Batch { records: vec![free], ..Batch::default() }).await.unwrap();
    drop(turn);
    world.forget(4, &["one"]).await;
    world.declare(5, &["one"]).await;
    assert_eq!(world.owner("one").1, 3);
    world.check().await;
}

#[tokio::test]
async fn one_that_does_not_know_what_became_of_a_commit_finds_out_first() {
    let world = world(&["shard-a", "one"]).await;
    // Another commit of this leader, of which it never heard.
    let revision = world.tools.live.view().table.revision();
    let mut unknown = record("unknown").at(revision.0 + 1);
    unknown.manifest_revision = Revision(2);
    let lost = Batch {
        records: vec![unknown],
        removed: vec![name("one")],
        manifest_revision: Some(Revision(2)),
        ..Batch::default()
    };
    world.tools.store.commit(world.leader.term, revision, &lost, 0).await.unwrap();

    let failed = world.leader.take_in(vec![change(3, [declared("two", 3)], &[])]).await;
    assert!(failed.unwrap_err().is_transient());
    world.leader.take_in(vec![change(3, [declared("two", 3)], &[])]).await.unwrap();
    let view = world.tools.live.view();
    let names: Vec<_> = view.table.iter().map(Entry::namespace).collect();
    assert_eq!(names, ["two", "unknown"]);
    world.check().await;
}

#[tokio::test]
async fn a_leader_whose_term_is_over_ends() {
    let world = world(&["shard-a"]).await;
    world.tools.store.lease().release().await.unwrap();
    world.tools.store.lease().tick().await.unwrap();
    let refused = world.leader.take_in(vec![change(2, [declared("one", 2)], &[])]).await;
    assert!(refused.unwrap_err().is_stale_term());
    assert!(world.leader.has_ended());
    assert!(world.entry("one").is_none());
}

#[tokio::test]
async fn the_next_leader_knows_what_the_last_one_knew() {
    let world = world(&["shard-a", "one", "two"]).await;
    let agents = world.open(&["shard-a"]).await;
    world.report(&agents[0], 2, &[("one", 70, 1)]);
    let next = Leader::begin(world.tools.clone(), world.leader.term).await.unwrap();
    next.absorb();
    let (old, new) = (world.leader.fleet(), next.fleet());
    let of = |fleet: &crate::fleet::Fleet| {
        let shard = fleet.shard("shard-a").unwrap();
        (shard.reserved, shard.observation.clone(), fleet.closures(shard))
    };
    assert_eq!(of(&old), of(&new));
    assert_eq!(of(&new).0.dags, 80);
}

#[tokio::test]
async fn shards_without_agents_may_be_used_where_that_is_asked_for() {
    let world = world_with(&["shard-a", "one"], |limits| limits.require_report = false).await;
    assert_eq!(world.owner("one"), (Some("shard-a".into()), 1));
}

#[tokio::test]
async fn agents_are_told_of_what_concerns_them() {
    let world = world(&["shard-a", "shard-b"]).await;
    let agents = world.open(&["shard-a", "shard-b"]).await;
    for agent in &agents {
        agent.take_pending();
    }
    world.declare(2, &["one"]).await;
    let owner = world.owner("one").0.unwrap();
    for agent in &agents {
        let concerns = agent.shard().as_str() == owner;
        assert_eq!(agent.take_pending().names.contains("one"), concerns);
    }
    // Something that is no business of agents.
    let labelled = edited(declared("one", 3), |one| {
        one.demand = Some(common::Resources { dags: 11, ..Default::default() });
    });
    world.leader.take_in(vec![change(3, [labelled], &[])]).await.unwrap();
    assert!(agents.iter().all(|agent| agent.take_pending().names.is_empty()));
    let prefixed = edited(declared("one", 4), |one| one.prefixes.push("uno.".into()));
    world.leader.take_in(vec![change(4, [prefixed], &[])]).await.unwrap();
    let told = agents.iter().filter(|agent| agent.take_pending().names.contains("one"));
    assert_eq!(told.count(), 1);
}
