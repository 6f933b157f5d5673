//! Changes to DAGs: what whoever asks is told.

use airfleet_domain::{
    dags::{Change, Done, Failure as Unchanged, Trouble},
    ids::Generation,
};
use airfleet_runtime::status::{Failure, Kind};

use super::{refused, service};
use crate::{
    service::{Changed, Error, Service},
    testing::world,
};

fn pause(service: &Service) -> impl Future<Output = Result<Changed, Error>> + use<'_> {
    let place = service.place_of("one.daily");
    async move { service.change(place?, "one.daily", Change::Pause(true)).await }
}

#[tokio::test]
async fn whoever_asks_for_a_change_is_told_what_is_certain() {
    let world = world(&["shard-a", "one", "two"]).await;
    let mut agents = world.open(&["shard-a"]).await;
    let service = service(&world);
    let answer = |outcome: Result<Done, Unchanged>| {
        let agent = &agents[0];
        async move {
            agent.woken().await;
            let [(number, ask)] = &agent.take_changes()[..] else { panic!("one is asked") };
            assert_eq!((ask.generation, &*ask.dag_id), (Generation(1), "one.daily"));
            assert!(agent.take_changes().is_empty(), "once");
            agent.changed(number + 1, Ok(Done::default()));
            agent.changed(*number, outcome.clone());
            agent.changed(*number, outcome);
        }
    };
    let done = Done { cleared: 3, ..Done::default() };
    let (changed, ()) = tokio::join!(pause(&service), answer(Ok(done.clone())));
    let changed = changed.unwrap();
    assert_eq!((changed.done, &*changed.place.shard), (done, "shard-a"));
    for (trouble, kind, reason) in [
        (Trouble::NotActive, Kind::Unavailable, "NAMESPACE_NOT_READY"),
        (Trouble::Busy, Kind::Unavailable, "AGENT_BUSY"),
        (Trouble::Away, Kind::Unavailable, "AIRFLOW_AWAY"),
        (Trouble::NotSetUp, Kind::Precondition, "CHANGES_NOT_SET_UP"),
        (Trouble::NotFound, Kind::NotFound, "NOT_FOUND"),
        (Trouble::Refused, Kind::Invalid, "AIRFLOW_REFUSED"),
        (Trouble::InDoubt, Kind::DeadlineExceeded, "CHANGE_IN_DOUBT"),
    ] {
        let failure = Unchanged::new(trouble, "so it is");
        let (changed, ()) = tokio::join!(pause(&service), answer(Err(failure)));
        let (found, code, message) = refused(changed);
        assert_eq!((found, code.as_str()), (kind, reason));
        assert!(message.contains("one.daily on shard-a: so it is"), "{message}");
    }

    let failure = Failure::from(service.place_of("nobodys.daily").unwrap_err());
    assert_eq!(failure.kind(), Kind::NotFound);
    // The agent goes, before it was asked and after.
    let leave = async {
        tokio::task::yield_now().await;
        agents.clear();
    };
    let (changed, ()) = tokio::join!(pause(&service), leave);
    assert_eq!(refused(changed).1, "AIRFLOW_AWAY");
    let mut agents = vec![world.connect("shard-a")];
    let leave = async {
        agents[0].woken().await;
        assert_eq!(agents[0].take_changes().len(), 1);
        agents.clear();
    };
    let (changed, ()) = tokio::join!(pause(&service), leave);
    assert_eq!(refused(changed).1, "CHANGE_IN_DOUBT");
    assert_eq!(refused(pause(&service).await).1, "AGENT_AWAY");
}

#[tokio::test]
async fn no_more_changes_wait_than_may() {
    let world = world(&["shard-a", "one"]).await;
    let agents = world.open(&["shard-a"]).await;
    let service = service(&world);
    let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(pause(&service))).collect();
    for one in &mut waiting {
        assert!(futures::poll!(one.as_mut()).is_pending());
    }
    assert_eq!(refused(pause(&service).await).1, "AGENT_BUSY");
    // Those who go make room, and are not asked for any more.
    waiting.truncate(1);
    let asked = async {
        while agents[0].take_changes().len() != 2 {
            agents[0].woken().await;
        }
    };
    tokio::select! {
        // It is asked for before it is looked.
        biased;
        changed = pause(&service) => panic!("nobody answers: {changed:?}"),
        () = asked => {}
    }
}
