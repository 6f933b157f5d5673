//! Replicas with clocks of their own, over a lease row that is an atomic variable.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const TIMING: Timing = Timing {
    ttl: Duration::from_secs(6),
    margin: Duration::from_secs(1),
    interval: Duration::from_secs(1),
};

fn secs(value: u64) -> Duration {
    Duration::from_secs(value)
}

fn candidate(name: &str) -> Candidate {
    Candidate { holder: name.to_owned(), address: format!("{name}:7400") }
}

/// One replica: looks at `row` and does as decided, all at once.
struct Replica {
    me: Candidate,
    memory: Memory,
}

impl Replica {
    fn new(name: &str) -> Self {
        Self { me: candidate(name), memory: Memory::default() }
    }

    fn tick(&mut self, row: &mut Option<Entry>, now: Duration) -> Standing {
        self.look(row, now);
        self.memory.standing(&TIMING, now)
    }

    fn look(&mut self, row: &mut Option<Entry>, now: Duration) -> Step {
        let (step, before) = self.touch(row, now);
        self.memory.record(&self.me, &step, before.as_ref(), now, now);
        step
    }

    /// The transaction alone: its outcome is not yet known to the replica.
    fn touch(&self, row: &mut Option<Entry>, now: Duration) -> (Step, Option<Entry>) {
        let before = row.clone();
        let step = decide(&self.memory, &self.me, &TIMING, row.as_ref(), now);
        match &step {
            Step::Watch => {}
            Step::TakeOver { term } => {
                *row = Some(Entry {
                    holder: self.me.holder.clone(),
                    address: self.me.address.clone(),
                    term: *term,
                    beat: 0,
                });
            }
            Step::Renew { beat } => row.as_mut().expect("read before").beat = *beat,
        }
        (step, before)
    }
}

#[test]
fn the_first_to_look_leads_and_the_second_follows() {
    let mut row = None;
    let (mut a, mut b) = (Replica::new("a"), Replica::new("b"));
    assert_eq!(a.tick(&mut row, secs(1)), Standing::Leader { term: 1, left: secs(5) });
    assert_eq!(
        b.tick(&mut row, secs(1)),
        Standing::Follower { holder: "a".to_owned(), address: "a:7400".to_owned(), term: 1 }
    );
}

#[test]
fn a_leader_that_renews_is_never_replaced() {
    let mut row = None;
    let (mut a, mut b) = (Replica::new("a"), Replica::new("b"));
    for second in 0..100 {
        assert!(matches!(a.tick(&mut row, secs(second)), Standing::Leader { term: 1, .. }));
        assert!(matches!(b.tick(&mut row, secs(second)), Standing::Follower { .. }));
    }
}

#[test]
fn a_silent_leader_is_replaced_after_the_ttl_and_not_before() {
    let mut row = None;
    let (mut a, mut b) = (Replica::new("a"), Replica::new("b"));
    a.tick(&mut row, secs(0));
    b.tick(&mut row, secs(1));
    // a is dead from here on.
    for second in 2..7 {
        assert_eq!(b.look(&mut row, secs(second)), Step::Watch, "at {second} s");
    }
    assert_eq!(b.look(&mut row, secs(7)), Step::TakeOver { term: 2 });
    // a wakes up: out by its own clock, and finds the new term.
    assert_eq!(a.memory.standing(&TIMING, secs(7)), Standing::Vacant);
    assert_eq!(a.look(&mut row, secs(8)), Step::Watch);
}

#[test]
fn a_leader_counts_itself_out_a_margin_before_others_may_take_over() {
    let mut row = None;
    let mut a = Replica::new("a");
    a.tick(&mut row, secs(10));
    let just_before = Duration::from_millis(14_999);
    assert_eq!(
        a.memory.standing(&TIMING, just_before),
        Standing::Leader { term: 1, left: Duration::from_millis(1) }
    );
    assert_eq!(a.memory.standing(&TIMING, secs(15)), Standing::Vacant);
}

#[test]
fn a_leader_that_comes_back_late_but_unreplaced_starts_a_new_term() {
    let mut row = None;
    let mut a = Replica::new("a");
    a.tick(&mut row, secs(0));
    assert_eq!(a.look(&mut row, secs(20)), Step::TakeOver { term: 2 });
}

#[test]
fn a_lease_that_was_given_up_is_taken_at_once_and_the_term_grows() {
    let mut row =
        Some(Entry { holder: String::new(), address: "a:7400".to_owned(), term: 41, beat: 9 });
    let mut b = Replica::new("b");
    assert_eq!(b.look(&mut row, secs(0)), Step::TakeOver { term: 42 });
}

#[test]
fn a_restarted_replica_takes_its_own_lease_again_at_once() {
    let mut row = None;
    Replica::new("a").tick(&mut row, secs(0));
    assert_eq!(Replica::new("a").look(&mut row, secs(1)), Step::TakeOver { term: 2 });
    // The same name elsewhere is another replica.
    let mut elsewhere = Replica::new("a");
    elsewhere.me.address = "b:7400".to_owned();
    assert_eq!(elsewhere.look(&mut row, secs(1)), Step::Watch);
}

#[test]
fn a_renewal_between_two_looks_starts_the_watch_anew() {
    let mut row = None;
    let (mut a, mut b) = (Replica::new("a"), Replica::new("b"));
    a.tick(&mut row, secs(0));
    b.look(&mut row, secs(0));
    a.tick(&mut row, secs(4));
    assert_eq!(b.look(&mut row, secs(7)), Step::Watch);
    assert_eq!(b.look(&mut row, secs(12)), Step::Watch);
    assert_eq!(b.look(&mut row, secs(13)), Step::TakeOver { term: 2 });
}

/// Four replicas whose clocks start anywhere and run up to 5 % fast or slow, whose transactions
/// take long, whose answers come late, and which stop for a while, over an hour: never do two
/// believe that they lead, terms only grow, and somebody leads most of the time.
#[test]
fn never_two_leaders_whatever_pauses_and_delays() {
    for seed in 0..40 {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    struct Player {
        replica: Replica,
        offset: f64,
        rate: f64,
        /// True time of its next event, and what is then to happen.
        next: f64,
        pending: Pending,
    }
    enum Pending {
        Ask,
        Touch { asked: Duration },
        Answer { asked: Duration, seen: Duration, step: Step, before: Option<Entry> },
    }
    let clock =
        |player: &Player, at: f64| Duration::from_secs_f64(player.offset + at * player.rate);
    let mut random = StdRng::seed_from_u64(seed);
    let mut players: Vec<Player> = ["a", "b", "c", "d"]
        .into_iter()
        .map(|name| Player {
            replica: Replica::new(name),
            offset: random.random_range(0.0..1000.0),
            rate: random.random_range(0.95..1.05),
            next: random.random_range(0.0..1.0),
            pending: Pending::Ask,
        })
        .collect();
    let mut row: Option<Entry> = None;
    let (mut term, mut led, mut looks) = (0, 0, 0);
    loop {
        let at = (0..players.len())
            .min_by(|a, b| players[*a].next.total_cmp(&players[*b].next))
            .expect("four players");
        let now = players[at].next;
        if now > 3600.0 {
            break;
        }
        let mine = clock(&players[at], now);
        let player = &mut players[at];
        let pending = std::mem::replace(&mut player.pending, Pending::Ask);
        let delay = match pending {
            Pending::Ask => {
                player.pending = Pending::Touch { asked: mine };
                random.random_range(0.0..0.5)
            }
            Pending::Touch { asked } => {
                let (step, before) = player.replica.touch(&mut row, mine);
                player.pending = Pending::Answer { asked, seen: mine, step, before };
                // Now and then the machine stands still, or the database does.
                if random.random_bool(0.01) { random.random_range(0.0..30.0) } else { 0.1 }
            }
            Pending::Answer { asked, seen, step, before } => {
                let me = player.replica.me.clone();
                player.replica.memory.record(&me, &step, before.as_ref(), asked, seen);
                if random.random_bool(0.01) { random.random_range(0.0..30.0) } else { 1.0 }
            }
        };
        player.next = now + delay;

        let leaders: Vec<&str> = players
            .iter()
            .filter(|player| {
                let mine = clock(player, now);
                let standing = player.replica.memory.standing(&TIMING, mine);
                matches!(standing, Standing::Leader { .. })
            })
            .map(|player| player.replica.me.holder.as_str())
            .collect();
        assert!(leaders.len() <= 1, "seed {seed}: {leaders:?} at {now} s");
        looks += 1;
        led += leaders.len();
        let current = row.as_ref().map_or(0, |entry| entry.term);
        assert!(current >= term, "seed {seed}: term fell from {term} to {current}");
        term = current;
    }
    assert!(term > 1, "seed {seed}: nothing ever happened");
    assert!(led * 10 > looks * 7, "seed {seed}: led {led} of {looks} looks");
}
