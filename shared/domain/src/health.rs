//! The health of a shard: a verdict with its reasons, never a single boolean.
//!
//! The agent gathers [`Signals`] and [`assess`] turns them into [`Health`]. A probe that gave no
//! number is never read as a good one: it is `None`, and the failed probe is a reason of its own.

use serde::{Deserialize, Serialize};

/// What the health of a shard comes down to, best first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is wrong. On a reason: worth knowing, no more.
    #[default]
    Healthy,
    /// It works, but something needs attention; takes no new namespaces.
    Degraded,
    /// Not enough is known to say.
    Unknown,
    /// It does not schedule or run tasks.
    Unhealthy,
}

impl Verdict {
    /// Every verdict, best first.
    pub const ALL: [Verdict; 4] =
        [Verdict::Healthy, Verdict::Degraded, Verdict::Unknown, Verdict::Unhealthy];

    /// In words and as label value of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Degraded => "degraded",
            Verdict::Unknown => "unknown",
            Verdict::Unhealthy => "unhealthy",
        }
    }
}

/// One finding that leads to a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// Stable code in UPPER_SNAKE_CASE.
    pub code: String,
    /// The verdict that this finding alone leads to.
    pub verdict: Verdict,
    /// One line for people: what was seen and what to look at.
    pub message: String,
    /// What was observed, in `unit`.
    pub observed: i64,
    /// The limit that it crossed, in `unit`.
    pub threshold: i64,
    /// Unit of both; empty where there is no number.
    pub unit: String,
}

impl Reason {
    /// A finding without a number.
    pub fn plain(code: &str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            verdict,
            message: message.into(),
            observed: 0,
            threshold: 0,
            unit: String::new(),
        }
    }
}

/// A verdict and everything that led to it, worst first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The worst of all reasons.
    pub verdict: Verdict,
    /// Findings, worst first.
    pub reasons: Vec<Reason>,
}

impl Health {
    /// The verdict that these findings lead to.
    pub fn from_reasons(mut reasons: Vec<Reason>) -> Self {
        reasons.sort_by(|a, b| b.verdict.cmp(&a.verdict).then_with(|| a.code.cmp(&b.code)));
        let verdict = reasons.first().map(|r| r.verdict).unwrap_or_default();
        Self { verdict, reasons }
    }
}

/// How a probe went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Probe {
    /// There is nothing to probe: a shard without a broker, say.
    #[default]
    NotConfigured,
    /// It answered, in so many milliseconds.
    Ok(i64),
    /// It failed or timed out; in words, without secrets.
    Failed(String),
    /// It answered, but this version does not know what it found: an Alembic revision, say.
    Unsupported(String),
}

/// What the probes saw. Ages and delays in milliseconds; `None` where nothing was found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signals {
    /// Metadata database.
    pub metadata: Probe,
    /// Broker.
    pub broker: Probe,
    /// Web server.
    pub api: Probe,
    /// Age of the youngest scheduler heartbeat.
    pub scheduler_heartbeat_age_ms: Option<i64>,
    /// Age of the youngest DAG processor heartbeat.
    pub dag_processor_heartbeat_age_ms: Option<i64>,
    /// Age of the youngest triggerer heartbeat; `None` where the shard has no triggerer.
    pub triggerer_heartbeat_age_ms: Option<i64>,
    /// Workers heard of lately.
    pub live_workers: Option<i64>,
    /// Messages waiting in the broker's queues.
    pub queued_messages: Option<i64>,
    /// Messages handed to workers and not acknowledged.
    pub unacked_messages: Option<i64>,
    /// 95th percentile of the time from scheduled to started, in the last hour.
    pub scheduling_delay_p95_ms: Option<i64>,
    /// DAGs that are due but have no run yet.
    pub late_dags: Option<i64>,
    /// How late the latest of them is.
    pub lateness_max_ms: Option<i64>,
    /// DAG files that do not import.
    pub import_errors: Option<i64>,
    /// Age of the oldest task instance that is queued or scheduled.
    pub oldest_waiting_ms: Option<i64>,
    /// Task instances that failed in the last hour.
    pub failures_last_hour: Option<i64>,
    /// Running or queued pool slots.
    pub occupied_slots: Option<i64>,
    /// Slots of all pools.
    pub pool_slots: Option<i64>,
    /// Components that the web server's own health check calls unhealthy, by its names.
    pub api_unhealthy: Vec<String>,
}

/// Limits behind the verdict. The defaults follow Airflow's own: a scheduler and a triggerer count
/// as dead after 30 s without a heartbeat (`scheduler_health_check_threshold`), a DAG processor
/// too (`dag_processor.health_check_threshold`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Age from which the schedulers count as dead. Milliseconds.
    pub scheduler_heartbeat_age_ms: i64,
    /// Age from which the DAG processors count as dead. Milliseconds.
    pub dag_processor_heartbeat_age_ms: i64,
    /// Age from which the triggerers count as dead. Milliseconds.
    pub triggerer_heartbeat_age_ms: i64,
    /// Time from scheduled to started, at the 95th percentile, that needs attention. Milliseconds.
    pub scheduling_delay_p95_ms: i64,
    /// Lateness of a due run that needs attention. Milliseconds.
    pub lateness_max_ms: i64,
    /// Broken DAG files from which the whole shard needs attention; fewer are only named. Count.
    pub import_errors: i64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            scheduler_heartbeat_age_ms: 30_000,
            dag_processor_heartbeat_age_ms: 30_000,
            triggerer_heartbeat_age_ms: 30_000,
            scheduling_delay_p95_ms: 300_000,
            lateness_max_ms: 120_000,
            import_errors: 100,
        }
    }
}

/// The verdict on a shard.
pub fn assess(signals: &Signals, limits: &Thresholds) -> Health {
    let mut reasons = Vec::new();
    metadata(signals, limits, &mut reasons);
    broker(signals, &mut reasons);
    if let Probe::Failed(why) = &signals.api {
        reasons.push(Reason::plain(
            "API_UNREACHABLE",
            Verdict::Degraded,
            format!("the web server does not answer: {why}; look at the api-server"),
        ));
    }
    if !signals.api_unhealthy.is_empty() {
        let message = format!(
            "Airflow's own health check calls unhealthy: {}",
            signals.api_unhealthy.join(", ")
        );
        reasons.push(Reason::plain("API_REPORTS_UNHEALTHY", Verdict::Degraded, message));
    }
    Health::from_reasons(reasons)
}

fn metadata(signals: &Signals, limits: &Thresholds, reasons: &mut Vec<Reason>) {
    match &signals.metadata {
        Probe::Failed(why) => {
            let message = format!("the metadata database does not answer: {why}");
            reasons.push(Reason::plain("METADATA_DB_UNREACHABLE", Verdict::Unhealthy, message));
            return;
        }
        Probe::Unsupported(what) => {
            let message = format!(
                "{what}; nothing is read from this metadata database until the agent is upgraded"
            );
            reasons.push(Reason::plain("SCHEMA_UNSUPPORTED", Verdict::Unknown, message));
            return;
        }
        Probe::NotConfigured => {
            let message = "the agent has no metadata database to look at; set airflow.metadata_url";
            reasons.push(Reason::plain("METADATA_DB_NOT_CONFIGURED", Verdict::Unknown, message));
            return;
        }
        Probe::Ok(_) => {}
    }
    heartbeat(
        "SCHEDULER",
        "scheduler",
        Verdict::Unhealthy,
        signals.scheduler_heartbeat_age_ms,
        limits.scheduler_heartbeat_age_ms,
        reasons,
    );
    heartbeat(
        "DAG_PROCESSOR",
        "DAG processor",
        Verdict::Degraded,
        signals.dag_processor_heartbeat_age_ms,
        limits.dag_processor_heartbeat_age_ms,
        reasons,
    );
    if signals.triggerer_heartbeat_age_ms.is_some() {
        heartbeat(
            "TRIGGERER",
            "triggerer",
            Verdict::Degraded,
            signals.triggerer_heartbeat_age_ms,
            limits.triggerer_heartbeat_age_ms,
            reasons,
        );
    }
    if let Some(delay) = signals.scheduling_delay_p95_ms
        && delay > limits.scheduling_delay_p95_ms
    {
        reasons.push(seconds(
            "SCHEDULING_DELAY_HIGH",
            Verdict::Degraded,
            "tasks wait too long to start (95th percentile of the last hour); look at slots and workers",
            delay,
            limits.scheduling_delay_p95_ms,
        ));
    }
    if let Some(late) = signals.lateness_max_ms
        && late > limits.lateness_max_ms
    {
        let count = signals.late_dags.unwrap_or(1);
        let message = format!("{count} DAGs are due and have no run; look at the scheduler's load");
        reasons.push(seconds(
            "DAGS_LATE",
            Verdict::Degraded,
            &message,
            late,
            limits.lateness_max_ms,
        ));
    }
    if let Some(errors) = signals.import_errors.filter(|errors| *errors > 0) {
        let verdict =
            if errors >= limits.import_errors { Verdict::Degraded } else { Verdict::Healthy };
        reasons.push(Reason {
            code: "IMPORT_ERRORS".into(),
            verdict,
            message: format!("{errors} DAG files do not import; their owners see why in Airflow"),
            observed: errors,
            threshold: limits.import_errors,
            unit: "count".into(),
        });
    }
}

fn heartbeat(
    code: &str,
    who: &str,
    verdict: Verdict,
    age_ms: Option<i64>,
    limit_ms: i64,
    reasons: &mut Vec<Reason>,
) {
    match age_ms {
        None => reasons.push(Reason::plain(
            &format!("{code}_MISSING"),
            verdict,
            format!("no {who} is running, as far as the metadata database knows; start one"),
        )),
        Some(age) if age > limit_ms => reasons.push(seconds(
            &format!("{code}_HEARTBEAT_OLD"),
            verdict,
            &format!("the last {who} heartbeat is old; is the {who} running?"),
            age,
            limit_ms,
        )),
        Some(_) => {}
    }
}

fn seconds(code: &str, verdict: Verdict, message: &str, observed_ms: i64, limit_ms: i64) -> Reason {
    let (observed, threshold) = (observed_ms / 1000, limit_ms / 1000);
    Reason {
        code: code.into(),
        verdict,
        message: format!("{message} ({observed} s, limit {threshold} s)"),
        observed,
        threshold,
        unit: "seconds".into(),
    }
}

fn broker(signals: &Signals, reasons: &mut Vec<Reason>) {
    match &signals.broker {
        Probe::Failed(why) => reasons.push(Reason::plain(
            "BROKER_UNREACHABLE",
            Verdict::Unhealthy,
            format!("the broker does not answer: {why}; tasks can neither be queued nor picked up"),
        )),
        Probe::Unsupported(what) => {
            reasons.push(Reason::plain("BROKER_UNSUPPORTED", Verdict::Unknown, what.clone()));
        }
        Probe::Ok(_) if signals.live_workers == Some(0) => {
            let waiting = signals.queued_messages.unwrap_or(0);
            reasons.push(Reason::plain(
                "NO_LIVE_WORKERS",
                Verdict::Unhealthy,
                format!("no worker was heard of lately and {waiting} messages wait; start workers"),
            ));
        }
        Probe::Ok(_) | Probe::NotConfigured => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Signals {
        Signals {
            metadata: Probe::Ok(12),
            broker: Probe::Ok(1),
            api: Probe::Ok(8),
            scheduler_heartbeat_age_ms: Some(3_000),
            dag_processor_heartbeat_age_ms: Some(4_000),
            live_workers: Some(2),
            lateness_max_ms: Some(0),
            import_errors: Some(0),
            ..Signals::default()
        }
    }

    fn codes(change: impl FnOnce(&mut Signals)) -> (Verdict, Vec<String>) {
        let mut signals = good();
        change(&mut signals);
        let health = assess(&signals, &Thresholds::default());
        (health.verdict, health.reasons.into_iter().map(|r| r.code).collect())
    }

    #[test]
    fn nothing_wrong_gives_no_reason() {
        assert_eq!(codes(|_| {}), (Verdict::Healthy, vec![]));
    }

    #[test]
    fn each_signal_has_its_reason_and_the_worst_comes_first() {
        let (verdict, codes) = codes(|s| {
            s.scheduler_heartbeat_age_ms = Some(31_000);
            s.dag_processor_heartbeat_age_ms = None;
            s.triggerer_heartbeat_age_ms = Some(60_000);
            s.live_workers = Some(0);
            s.api = Probe::Failed("timed out after 2 s".into());
            s.scheduling_delay_p95_ms = Some(301_000);
            s.lateness_max_ms = Some(121_000);
            s.import_errors = Some(1);
        });
        assert_eq!(verdict, Verdict::Unhealthy);
        assert_eq!(
            codes,
            [
                "NO_LIVE_WORKERS",
                "SCHEDULER_HEARTBEAT_OLD",
                "API_UNREACHABLE",
                "DAGS_LATE",
                "DAG_PROCESSOR_MISSING",
                "SCHEDULING_DELAY_HIGH",
                "TRIGGERER_HEARTBEAT_OLD",
                "IMPORT_ERRORS",
            ]
        );
    }

    #[test]
    fn a_few_import_errors_do_not_close_the_shard() {
        assert_eq!(codes(|s| s.import_errors = Some(99)).0, Verdict::Healthy);
        assert_eq!(codes(|s| s.import_errors = Some(100)).0, Verdict::Degraded);
    }

    #[test]
    fn what_could_not_be_read_is_never_taken_for_good() {
        let lost = codes(|s| s.metadata = Probe::Failed("refused".into()));
        assert_eq!(lost, (Verdict::Unhealthy, vec!["METADATA_DB_UNREACHABLE".into()]));
        let foreign = codes(|s| s.metadata = Probe::Unsupported("alembic revision abc".into()));
        assert_eq!(foreign, (Verdict::Unknown, vec!["SCHEMA_UNSUPPORTED".into()]));
        assert_eq!(codes(|s| s.metadata = Probe::NotConfigured).0, Verdict::Unknown);
        assert_eq!(codes(|s| s.broker = Probe::Failed("refused".into())).0, Verdict::Unhealthy);
    }

    #[test]
    fn what_airflow_itself_complains_of_is_passed_on() {
        let health = codes(|s| s.api_unhealthy = vec!["triggerer".into(), "scheduler".into()]);
        assert_eq!(health, (Verdict::Degraded, vec!["API_REPORTS_UNHEALTHY".into()]));
    }

    #[test]
    fn a_shard_without_broker_is_judged_without_one() {
        let local_executor = codes(|s| {
            s.broker = Probe::NotConfigured;
            s.live_workers = None;
        });
        assert_eq!(local_executor, (Verdict::Healthy, vec![]));
    }
}
