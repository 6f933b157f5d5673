use airfleet_domain::health::Reason;
use airfleet_proto::common::v1 as common;
use proptest::prelude::*;

use super::*;
use std::time::{Duration, Instant};

const FULL_INTERVAL: Duration = Duration::from_mins(1);

/// What a router keeps: merges as the protocol says, and refuses what does not follow.
#[derive(Debug, Default)]
struct Router {
    sequence: i64,
    health: Option<common::Health>,
    usage: Option<common::Resources>,
    capacity: Option<common::Resources>,
    namespaces: BTreeMap<String, wire::NamespaceReport>,
    signals: Option<wire::Signals>,
    unowned_dags: i64,
    airflow_version: String,
    schema_revision: String,
    roles: BTreeMap<String, wire::ObservedRole>,
}

impl Router {
    fn take(&mut self, report: wire::Report) -> wire::ReportAck {
        let sequence = report.sequence;
        if !report.full && sequence != self.sequence + 1 {
            return wire::ReportAck { sequence, send_full: true, ..Default::default() };
        }
        if report.full {
            assert!(report.removed_namespaces.is_empty());
            *self = Self::default();
        }
        self.sequence = sequence;
        self.health = report.health.or(self.health.take());
        self.usage = report.usage.or(self.usage.take());
        self.capacity = report.capacity.or(self.capacity.take());
        self.signals = report.signals.or(self.signals.take());
        for name in report.removed_namespaces {
            assert!(self.namespaces.remove(&name).is_some(), "{name} was not there");
        }
        for namespace in report.namespaces {
            self.namespaces.insert(namespace.namespace.clone(), namespace);
        }
        for name in report.removed_roles {
            assert!(self.roles.remove(&name).is_some(), "{name} was not there");
        }
        for role in report.roles {
            self.roles.insert(role.namespace.clone(), role);
        }
        self.unowned_dags = report.unowned_dags;
        if !report.airflow_version.is_empty() {
            self.airflow_version = report.airflow_version;
        }
        if !report.schema_revision.is_empty() {
            self.schema_revision = report.schema_revision;
        }
        wire::ReportAck { sequence, send_full: false, ..Default::default() }
    }

    fn assert_knows(&self, state: &State) {
        let mut health = self.health.clone().expect("health is in every full report");
        health.observe_time = None;
        assert_eq!(health, state.health.clone().into());
        assert_eq!(self.usage, state.usage.map(Into::into));
        assert_eq!(self.capacity, state.capacity.map(Into::into));
        assert_eq!(self.signals, Some(state.signals));
        assert_eq!(self.unowned_dags, state.unowned_dags);
        assert_eq!(self.airflow_version, state.airflow_version);
        assert_eq!(self.schema_revision, state.schema_revision);
        let expected: BTreeMap<_, _> = state
            .namespaces
            .iter()
            .map(|(name, seen)| (name.to_string(), wire_namespace(name, seen)))
            .collect();
        assert_eq!(self.namespaces, expected);
        let expected: BTreeMap<_, _> =
            state.roles.iter().map(|(name, role)| (name.to_string(), (**role).clone())).collect();
        assert_eq!(self.roles, expected);
    }
}

fn resources() -> impl Strategy<Value = Resources> {
    prop::array::uniform5(0..3_i64).prop_map(Resources::from_values)
}

prop_compose! {
    fn states()(
        observed_at in 0..1_000_000_i64,
        reasons in prop::collection::vec((0..3_usize, 0..2_i64), 0..3),
        usage in prop::option::of(resources()),
        capacity in prop::option::of(resources()),
        namespaces in prop::collection::btree_map("[a-c]{3}", (resources(), 0..2_i64), 0..6),
        signal in -1..3_i64,
        unowned_dags in 0..2_i64,
        versions in prop::array::uniform2("(|3.3.1|3.3.2)"),
        roles in prop::collection::btree_map("[abc]{3}", 0..3_i64, 0..5),
    ) -> State {
        let [airflow_version, schema_revision] = versions;
        let reason = |(code, observed): (usize, i64)| Reason {
            observed,
            ..Reason::plain(["A", "B", "C"][code], Verdict::Degraded, "why")
        };
        State {
            observed_at: Timestamp::from_second(observed_at).unwrap(),
            health: Health::from_reasons(reasons.into_iter().map(reason).collect()),
            usage,
            capacity,
            namespaces: Arc::new(
                namespaces
                    .into_iter()
                    .map(|(name, (usage, active_runs))| {
                        let seen = NamespaceUsage { usage, active_runs, ..Default::default() };
                        (name.parse().unwrap(), seen)
                    })
                    .collect(),
            ),
            signals: wire::Signals { live_workers: signal, ..Default::default() },
            unowned_dags,
            airflow_version,
            schema_revision,
            roles: Arc::new(roles.iter().map(|(name, generation)| role(name, *generation)).collect()),
        }
    }
}

/// What happens between two reports.
#[derive(Debug, Clone)]
enum Event {
    /// A state is reported; the time that passed before it.
    Report(Box<State>, u64),
    /// The same state is reported again.
    Again,
    /// The router loses what it knew, and says so at the next report.
    Amnesia,
    /// The stream breaks, and with it what the router knew.
    Reconnect,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (states(), 0..30_u64).prop_map(|(state, after)| Event::Report(Box::new(state), after)),
        2 => Just(Event::Again),
        1 => Just(Event::Amnesia),
        1 => Just(Event::Reconnect),
    ];
    prop::collection::vec(event, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn reports_add_up_to_the_state(events in events()) {
        let mut tracker = Tracker::new(FULL_INTERVAL);
        let mut router = Router::default();
        let mut last = None;
        let mut now = Instant::now();
        for event in events {
            match event {
                Event::Reconnect => {
                    tracker.restart(FULL_INTERVAL);
                    router = Router::default();
                    continue;
                }
                Event::Amnesia => {
                    router = Router { sequence: -7, ..Router::default() };
                    continue;
                }
                Event::Again => {}
                Event::Report(state, seconds) => {
                    now += Duration::from_secs(seconds);
                    last = Some(state);
                }
            }
            let Some(state) = &last else { continue };
            let ack = router.take(tracker.next(state, now));
            tracker.acknowledge(&ack, now);
            if ack.send_full {
                let report = tracker.next(state, now);
                prop_assert!(report.full);
                let ack = router.take(report);
                prop_assert!(!ack.send_full);
                tracker.acknowledge(&ack, now);
            }
            router.assert_knows(state);
            prop_assert_eq!(tracker.waited(now), Duration::ZERO);
        }
    }
}

fn role(namespace: &str, generation: i64) -> (NamespaceName, Arc<wire::ObservedRole>) {
    let role = wire::ObservedRole {
        namespace: namespace.to_owned(),
        generation,
        ..wire::ObservedRole::default()
    };
    (namespace.parse().unwrap(), Arc::new(role))
}

#[test]
fn roles_that_do_not_fit_follow() {
    let obstacle = wire::Obstacle { message: "x".repeat(100_000), ..Default::default() };
    let large = |number: usize| {
        let (name, role) = role(&format!("ns-{number:06}"), 1);
        let role = wire::ObservedRole { obstacle: Some(obstacle.clone()), ..(*role).clone() };
        (name, Arc::new(role))
    };
    let state = State { roles: Arc::new((0..25).map(large).collect()), ..State::default() };
    let (mut tracker, mut router) = (Tracker::new(FULL_INTERVAL), Router::default());
    let now = Instant::now();
    for expected in [10, 20, 25] {
        let report = tracker.next(&state, now);
        assert!(report.encoded_len() <= super::ROLES_BYTES_MAX + 10_000);
        router.take(report);
        assert_eq!(router.roles.len(), expected);
    }
}

fn state(namespaces: impl IntoIterator<Item = (usize, i64)>) -> State {
    let namespaces = namespaces.into_iter().map(|(number, active_runs)| {
        let seen = NamespaceUsage { active_runs, ..NamespaceUsage::default() };
        (format!("ns-{number:06}").parse().unwrap(), seen)
    });
    State { namespaces: Arc::new(namespaces.collect()), ..State::default() }
}

#[test]
fn nothing_new_is_a_report_without_content() {
    let mut tracker = Tracker::new(FULL_INTERVAL);
    let start = Instant::now();
    let mut state = state([(1, 1)]);
    assert!(tracker.next(&state, start).full);
    state.observed_at = Timestamp::from_second(7).unwrap();
    let report = tracker.next(&state, start + Duration::from_secs(59));
    let expected = wire::Report {
        sequence: 2,
        observe_time: Some(prost_types::Timestamp { seconds: 7, nanos: 0 }),
        ..wire::Report::default()
    };
    assert_eq!(report, expected);
    assert!(tracker.next(&state, start + FULL_INTERVAL).full);
}

#[test]
fn what_does_not_fit_follows() {
    let count = 2 * NAMESPACES_MAX + 10;
    let (mut tracker, mut router) = (Tracker::new(FULL_INTERVAL), Router::default());
    let now = Instant::now();
    let all = state((0..count).map(|number| (number, 1)));
    let first = tracker.next(&all, now);
    assert_eq!((first.full, first.namespaces.len()), (true, NAMESPACES_MAX));
    // Far below the 4 MiB that a router reads at once.
    assert!(prost::Message::encoded_len(&first) < 2 << 20);
    router.take(first);
    for expected in [NAMESPACES_MAX, 10, 0] {
        let report = tracker.next(&all, now);
        assert_eq!((report.full, report.namespaces.len()), (false, expected));
        router.take(report);
    }
    router.assert_knows(&all);

    // All change and half go away: two reports for the one, one for the other.
    let half = state((count / 2..count).map(|number| (number, 2)));
    for expected in [(NAMESPACES_MAX, NAMESPACES_MAX), (5, 5), (0, 0)] {
        let report = tracker.next(&half, now);
        assert_eq!((report.removed_namespaces.len(), report.namespaces.len()), expected);
        router.take(report);
    }
    router.assert_knows(&half);
}

#[test]
fn a_router_that_owes_an_answer_is_noticed() {
    let mut tracker = Tracker::new(FULL_INTERVAL);
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let state = state([]);
    let first = tracker.next(&state, start);
    tracker.next(&state, at(5));
    assert_eq!(tracker.waited(at(7)), Duration::from_secs(7));
    let ack = |sequence| wire::ReportAck { sequence, send_full: false, ..Default::default() };
    tracker.acknowledge(&ack(first.sequence), at(8));
    assert_eq!(tracker.waited(at(9)), Duration::from_secs(1));
    tracker.acknowledge(&ack(2), at(9));
    assert_eq!(tracker.waited(at(100)), Duration::ZERO);
    tracker.next(&state, at(100));
    tracker.restart(FULL_INTERVAL);
    assert_eq!(tracker.waited(at(200)), Duration::ZERO);
}

#[test]
fn times_before_the_epoch_keep_their_nanoseconds_positive() {
    let at = timestamp(Timestamp::from_nanosecond(-1).unwrap());
    assert_eq!((at.seconds, at.nanos), (-1, 999_999_999));
}
