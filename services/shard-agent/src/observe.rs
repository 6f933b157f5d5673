//! From what the probes see to what is reported.
//!
//! Responsible for running all probes side by side and for putting their last outcomes together:
//! signals, verdict, usage. Invariant: an observation waits for no probe longer than it is told
//! to, and what a probe could not see now is never given as seen now: the signal is missing and
//! the verdict says why. Usage alone stays as it was last seen, because a shard whose database is
//! away is not empty. It must not know how reports travel.

mod looks;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use airfleet_domain::{
    health::{Probe, Signals, Thresholds, assess},
    resources::Resources,
};
use airfleet_proto::agent::v1 as wire;
use jiff::Timestamp;
use tokio::{sync::watch, time::timeout};

pub(crate) use self::looks::SetUpError;
use self::looks::{ApiLook, BrokerLook, MetadataLook};
use crate::{
    airflow::{Activity, Pulse, Sizes, api::ApiHealth},
    broker::Load,
    config::AgentConfig,
    metrics::AgentMetrics,
    owners::Owners,
    probe::{Look, Observe, Outcome, Runner, Ticket},
    report::State,
    usage::{Peaks, Usage, attribute},
};

/// A sample that was not renewed for so many of its intervals is no longer used.
const SAMPLE_AGE_MAX: u32 = 3;

/// A failed sample is tried again after this time, or its interval if that is shorter.
const SAMPLE_RETRY: Duration = Duration::from_mins(1);

/// What is reported comes from here.
pub(crate) trait Source: Send + 'static {
    /// Looks, for at most about `patience`.
    fn observe(&mut self, patience: Duration) -> impl Future<Output = State> + Send;
}

/// Everything that was seen, for reports and for people.
#[derive(Debug)]
pub(crate) struct Sighting {
    pub(crate) state: State,
    pub(crate) signals: Signals,
}

/// All probes of one shard.
#[derive(Debug)]
pub(crate) struct Observer {
    metadata: Runner<Pulse>,
    broker: Runner<Load>,
    api: Runner<ApiHealth>,
    activity: Rarely<Activity>,
    sizes: Rarely<Sizes>,
    /// As found, known to this version or not.
    revision: watch::Receiver<String>,
    owners: watch::Receiver<Arc<Owners>>,
    peaks: Peaks,
    thresholds: Thresholds,
    capacity: Option<Resources>,
    airflow_version: String,
    /// Whether every probe looked once.
    looked: bool,
}

impl Observer {
    /// Starts the probes that `config` asks for. Must be called within a runtime.
    pub(crate) fn start(
        config: &AgentConfig,
        owners: watch::Receiver<Arc<Owners>>,
        metrics: &AgentMetrics,
    ) -> Result<Self, SetUpError> {
        let (revision, revision_seen) = watch::channel(String::new());
        let airflow = &config.airflow;
        let start = Instant::now();
        let metadata = MetadataLook::new(config, revision)?;
        let (activity, sizes) = looks::samples(config)?;
        let broker = BrokerLook::new(config)?;
        let api = ApiLook::new(config)?;
        Ok(Self {
            metadata: runner(metadata, airflow.metadata_timeout, metrics, "metadata"),
            broker: runner(broker, config.broker.timeout, metrics, "broker"),
            api: runner(api, airflow.api_timeout, metrics, "api"),
            activity: Rarely::new(
                runner(activity, airflow.sample_timeout, metrics, "activity"),
                airflow.activity_interval,
            ),
            sizes: Rarely::new(
                runner(sizes, airflow.sample_timeout, metrics, "sizes"),
                airflow.size_interval,
            ),
            revision: revision_seen,
            owners,
            peaks: Peaks::new(config.report.peak_window, start),
            thresholds: Thresholds::from(&config.thresholds),
            capacity: config.capacity.resources(),
            airflow_version: String::new(),
            looked: false,
        })
    }

    /// Looks at everything once and waits for all of it, samples too.
    pub(crate) async fn observe_all(&mut self) -> Sighting {
        self.look(Wait::ForAll).await;
        self.put_together()
    }

    /// Asks all probes to look and waits.
    async fn look(&mut self, wait: Wait) {
        let now = Instant::now();
        let samples = (self.activity.ask_if_due(now), self.sizes.ask_if_due(now));
        let (metadata, broker, api) = (self.metadata.ask(), self.broker.ask(), self.api.ask());
        let every_report = async {
            tokio::join!(
                self.metadata.served(metadata),
                self.broker.served(broker),
                self.api.served(api)
            )
        };
        match wait {
            // What does not answer in time fails at its own limit; until then its last outcome
            // stands.
            Wait::AtMost(patience) => drop(timeout(patience, every_report).await),
            Wait::ForEveryReport => drop(every_report.await),
            Wait::ForAll => {
                let rare = async {
                    if let Some(ticket) = samples.0 {
                        self.activity.runner.served(ticket).await;
                    }
                    if let Some(ticket) = samples.1 {
                        self.sizes.runner.served(ticket).await;
                    }
                };
                tokio::join!(every_report, rare);
            }
        }
    }

    fn put_together(&mut self) -> Sighting {
        let now = Instant::now();
        let metadata = self.metadata.outcome();
        let broker = self.broker.outcome();
        let api = self.api.outcome();
        let activity = self.activity.fresh(now);
        let sizes = self.sizes.fresh(now);

        let usage = metadata.sight.as_ref().map(|pulse| {
            let owners = self.owners.borrow().clone();
            let mut usage = attribute(&owners, pulse, activity.as_deref(), sizes.as_deref());
            self.peaks.apply(&mut usage, now);
            usage
        });
        if let Some(version) = api.sight.as_ref().and_then(|seen| seen.version.as_ref()) {
            self.airflow_version.clone_from(version);
        }

        let signals = signals(&metadata, &broker, &api, activity.as_deref(), usage.as_ref());
        let state = State {
            observed_at: Timestamp::now(),
            health: assess(&signals, &self.thresholds),
            usage: usage.as_ref().map(|usage| usage.shard),
            capacity: self.capacity,
            signals: wire_signals(&signals, &metadata, &broker, &api),
            unowned_dags: usage.as_ref().map_or(0, |usage| usage.unowned_dags),
            namespaces: usage.map(|usage| Arc::new(usage.namespaces)).unwrap_or_default(),
            airflow_version: self.airflow_version.clone(),
            schema_revision: self.revision.borrow().clone(),
            ..State::default()
        };
        Sighting { state, signals }
    }
}

/// What an observation waits for. Each look ends by a limit of its own.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// The probes of every report, for so long.
    AtMost(Duration),
    /// The probes of every report.
    ForEveryReport,
    /// These and the samples.
    ForAll,
}

impl Source for Observer {
    async fn observe(&mut self, patience: Duration) -> State {
        // The first report waits, within the limits of the probes: what was not looked at yet is
        // not known to be bad.
        let wait = if self.looked { Wait::AtMost(patience) } else { Wait::ForEveryReport };
        self.look(wait).await;
        self.looked = true;
        self.put_together().state
    }
}

fn runner<L: Look>(
    look: Option<L>,
    limit: Duration,
    metrics: &AgentMetrics,
    name: &'static str,
) -> Runner<L::Sight> {
    match look {
        Some(look) => Runner::start(look, limit, watch_probe(metrics, name)),
        None => Runner::not_configured(),
    }
}

/// Counts the looks of a probe, and logs when what comes of them changes: not every failure of an
/// outage.
fn watch_probe(metrics: &AgentMetrics, name: &'static str) -> Observe {
    let count = metrics.probe(name);
    let complaint = Mutex::new(None::<String>);
    Arc::new(move |probe: &Probe, took: Duration| {
        count(probe, took);
        let now = match probe {
            Probe::Failed(why) | Probe::Unsupported(why) => Some(why.clone()),
            Probe::Ok(_) | Probe::NotConfigured => None,
        };
        let mut before = complaint.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*before, &now) {
            (_, Some(why)) if *before != now => {
                tracing::warn!(probe = name, why, "cannot look at the shard");
            }
            (Some(_), None) => tracing::info!(probe = name, "can look at the shard again"),
            _ => {}
        }
        *before = now;
    })
}

/// A probe that costs too much for every report.
#[derive(Debug)]
struct Rarely<T> {
    runner: Runner<T>,
    interval: Duration,
    due: Option<Instant>,
}

impl<T: Send + Sync + 'static> Rarely<T> {
    fn new(runner: Runner<T>, interval: Duration) -> Self {
        Self { runner, interval, due: None }
    }

    fn ask_if_due(&mut self, now: Instant) -> Option<Ticket> {
        if self.due.is_some_and(|due| now < due) {
            return None;
        }
        // Spread, so that agents of shards on one database server do not look together.
        let failed = self.due.is_some() && self.runner.outcome().current().is_none();
        let pause = if failed { self.interval.min(SAMPLE_RETRY) } else { self.interval };
        self.due = Some(now + pause.mul_f64(rand::random_range(0.9..=1.1)));
        Some(self.runner.ask())
    }

    fn fresh(&self, now: Instant) -> Option<Arc<T>> {
        let outcome = self.runner.outcome();
        let seen_at = outcome.seen_at?;
        outcome.sight.filter(|_| now.duration_since(seen_at) < self.interval * SAMPLE_AGE_MAX)
    }
}

fn signals(
    metadata: &Outcome<Pulse>,
    broker: &Outcome<Load>,
    api: &Outcome<ApiHealth>,
    activity: Option<&Activity>,
    usage: Option<&Usage>,
) -> Signals {
    let pulse = metadata.current();
    let load = broker.current();
    let told = api.current();
    // Where the database cannot be read the web server knows a little.
    let age = |read: fn(&Pulse) -> Option<i64>, told_age: fn(&ApiHealth) -> Option<i64>| match pulse
    {
        Some(pulse) => read(pulse),
        None => told.and_then(|told| told_age(told)),
    };
    Signals {
        metadata: metadata.probe.clone(),
        broker: broker.probe.clone(),
        api: api.probe.clone(),
        scheduler_heartbeat_age_ms: age(
            |pulse| pulse.scheduler_heartbeat_age_ms,
            |told| told.scheduler_heartbeat_age_ms,
        ),
        dag_processor_heartbeat_age_ms: age(
            |pulse| pulse.dag_processor_heartbeat_age_ms,
            |told| told.dag_processor_heartbeat_age_ms,
        ),
        triggerer_heartbeat_age_ms: age(
            |pulse| pulse.triggerer_heartbeat_age_ms,
            |told| told.triggerer_heartbeat_age_ms,
        ),
        live_workers: load.and_then(|load| load.live_workers),
        queued_messages: load.map(|load| load.queued_messages),
        unacked_messages: load.and_then(|load| load.unacked_messages),
        scheduling_delay_p95_ms: activity.and_then(|activity| activity.scheduling_delay_p95_ms),
        late_dags: pulse.map(|pulse| pulse.late_dags),
        lateness_max_ms: pulse.map(|pulse| pulse.lateness_max_ms),
        import_errors: pulse.map(|pulse| pulse.import_errors),
        oldest_waiting_ms: pulse.map(|pulse| pulse.oldest_waiting_ms),
        failures_last_hour: activity.map(|activity| activity.failures),
        occupied_slots: pulse.and(usage).map(|usage| usage.occupied_slots),
        pool_slots: pulse.and_then(|pulse| pulse.pool_slots),
        api_unhealthy: told
            .map(|told| told.unhealthy.iter().map(|name| (*name).to_owned()).collect())
            .unwrap_or_default(),
    }
}

fn wire_signals(
    signals: &Signals,
    metadata: &Outcome<Pulse>,
    broker: &Outcome<Load>,
    api: &Outcome<ApiHealth>,
) -> wire::Signals {
    let known = |signal: Option<i64>| signal.unwrap_or(-1);
    wire::Signals {
        scheduler_heartbeat_age_ms: known(signals.scheduler_heartbeat_age_ms),
        dag_processor_heartbeat_age_ms: known(signals.dag_processor_heartbeat_age_ms),
        triggerer_heartbeat_age_ms: known(signals.triggerer_heartbeat_age_ms),
        live_workers: known(signals.live_workers),
        queued_messages: known(signals.queued_messages),
        unacked_messages: known(signals.unacked_messages),
        scheduling_delay_p95_ms: known(signals.scheduling_delay_p95_ms),
        late_dags: known(signals.late_dags),
        lateness_max_ms: known(signals.lateness_max_ms),
        import_errors: known(signals.import_errors),
        oldest_waiting_ms: known(signals.oldest_waiting_ms),
        failures_last_hour: known(signals.failures_last_hour),
        metadata_probe_ms: known(metadata.took_ms),
        broker_probe_ms: known(broker.took_ms),
        api_probe_ms: known(api.took_ms),
        occupied_slots: known(signals.occupied_slots),
        pool_slots: known(signals.pool_slots),
    }
}

/// Whether something was looked at and is well, for people.
pub(crate) fn probe_text(probe: &Probe) -> String {
    match probe {
        Probe::NotConfigured => "not configured".to_owned(),
        Probe::Ok(ms) => format!("ok, {ms} ms"),
        Probe::Failed(why) => format!("failed: {why}"),
        Probe::Unsupported(what) => format!("unsupported: {what}"),
    }
}
