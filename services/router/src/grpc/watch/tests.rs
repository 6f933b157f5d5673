use airfleet_domain::routing::{Change, Entry};
use airfleet_runtime::{
    clock::{Clock as _, ManualClock},
    metrics,
};
use futures::{FutureExt as _, StreamExt as _};

use super::*;
use crate::{
    store::{Contents, Head},
    table::{Origin, Update},
    testing::record,
};

struct Replica {
    clock: ManualClock,
    live: Arc<Live>,
    watches: Watches,
}

/// A replica that began from its file, which is of revision 5 and holds `old`.
fn begun_from_file() -> Replica {
    begun_with(Duration::from_secs(5))
}

fn begun_with(progress_interval: Duration) -> Replica {
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let live = Arc::new(Live::new(100, Arc::new(clock.clone())));
    let contents = Contents {
        head: Head { store_id: "s".into(), revision: Revision(5), ..Head::default() },
        namespaces: vec![entry("old", 5)],
        shards: Vec::new(),
        removals: Vec::new(),
    };
    live.replace(contents, Origin::File);
    let metrics = Arc::new(Metrics::new(&metrics::Metrics::new()));
    let watches = Watches::new(live.clone(), metrics, 10, progress_interval);
    Replica { clock, live, watches }
}

impl Replica {
    /// The store was asked, and has this beyond what is known.
    fn look(&self, revision: i64, changes: &[(&str, i64)]) {
        let asked = self.clock.instant();
        self.clock.advance(Duration::from_millis(1));
        let put = |(name, at): &(&str, i64)| (Revision(*at), Change::Upsert(entry(name, *at)));
        self.live.apply(Update {
            changes: changes.iter().map(put).collect(),
            revision: Revision(revision),
            ..Update::default()
        });
        self.live.confirm();
        self.live.mark_current(asked);
    }
}

fn entry(namespace: &str, revision: i64) -> Entry {
    record(namespace).on("shard-a", 1).at(revision).entry
}

fn next(stream: &mut WatchStream) -> Option<WatchAssignmentsResponse> {
    stream.next().now_or_never().map(|next| next.unwrap().unwrap())
}

fn names(assignments: &[wire::Assignment]) -> Vec<&str> {
    assignments.iter().map(|assignment| assignment.namespace.as_str()).collect()
}

#[tokio::test]
async fn one_that_knows_more_than_the_file_goes_on_from_the_store() {
    let replica = begun_from_file();
    let mut stream = replica.watches.open(Revision(7)).unwrap();
    assert_eq!(next(&mut stream), None, "an older table would take back what it knows");
    replica.clock.advance(Duration::from_millis(1));
    replica.look(9, &[("six", 6), ("eight", 8), ("nine", 9)]);
    let change = next(&mut stream).unwrap();
    assert_eq!(change.revision, 9);
    let Some(Event::Change(change)) = change.event else { panic!("{change:?}") };
    assert_eq!(change.previous_revision, 7);
    assert_eq!(names(&change.upserts), ["eight", "nine"]);
}

#[tokio::test]
async fn a_replica_that_lags_behind_the_leader_takes_nothing_back() {
    let replica = begun_from_file();
    replica.look(6, &[("six", 6)]);
    let mut stream = replica.watches.open(Revision(8)).unwrap();
    assert_eq!(next(&mut stream), None);
    // What was read before it came says nothing of what it knows.
    replica
        .live
        .mark_current(replica.clock.instant().checked_sub(Duration::from_millis(1)).unwrap());
    assert_eq!(next(&mut stream), None);
    replica.live.apply(Update { revision: Revision(8), ..Update::default() });
    assert_eq!(next(&mut stream), None, "there is nothing to tell");
    replica.look(9, &[("nine", 9)]);
    let change = next(&mut stream).unwrap();
    let Some(Event::Change(change)) = change.event else { panic!("{change:?}") };
    assert_eq!((change.previous_revision, names(&change.upserts)), (8, vec!["nine"]));
}

#[tokio::test]
async fn while_the_store_is_away_it_hears_that_the_stream_lives() {
    let replica = begun_with(Duration::from_millis(20));
    let mut stream = replica.watches.open(Revision(7)).unwrap();
    let sign = stream.next().await.unwrap().unwrap();
    assert_eq!((sign.revision, sign.event), (7, Some(Event::Progress(wire::ProgressMark {}))));
    assert_eq!(next(&mut stream), None);
}

#[tokio::test]
async fn one_that_knows_more_than_the_store_begins_anew() {
    let replica = begun_from_file();
    let mut stream = replica.watches.open(Revision(7)).unwrap();
    replica.clock.advance(Duration::from_millis(1));
    replica.look(5, &[]);
    let snapshot = next(&mut stream).unwrap();
    assert_eq!(snapshot.revision, 5);
    let Some(Event::Snapshot(snapshot)) = snapshot.event else { panic!("{snapshot:?}") };
    assert!(snapshot.first && snapshot.last);
    assert_eq!(names(&snapshot.assignments), ["old"]);
}
