//! Airflow's own timetables, computed as Airflow does.
//!
//! Responsible for those that a serialized DAG describes completely: cron expressions and fixed
//! intervals. What somebody wrote himself is [`Timetable::Unknown`]; only Airflow can compute it.

use std::str::FromStr as _;

use airfleet_domain::moves::cursor::Tick;
use croner::Cron;
use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, Offset, TimeZone},
};
use serde_json::Value;

/// When a DAG gets runs.
#[derive(Debug, Clone)]
pub enum Timetable {
    /// At the times of cron expressions.
    Cron {
        /// The expressions.
        crons: Vec<CronRule>,
        /// Where their clock hangs.
        zone: TimeZone,
        /// How long before its time a run's interval begins; none where the interval is what lies
        /// between two times, and the run comes at its end. Microseconds.
        trigger: Option<i64>,
    },
    /// So long after one another.
    Delta {
        /// Between two runs. Microseconds.
        step_us: i64,
        /// As above.
        trigger: Option<i64>,
    },
    /// Not by the clock.
    Never,
    /// As only Airflow knows: the name of its class.
    Unknown(String),
}

/// A cron expression, and whether it has a time in every hour.
#[derive(Debug, Clone)]
pub struct CronRule {
    cron: Cron,
    /// Airflow counts such a rule by the time that passes, not by the clock, so that it goes on
    /// through an hour that comes twice.
    every_hour: bool,
}

impl Timetable {
    /// From `dag.timetable` of a serialized DAG.
    pub fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let class = value["__type"].as_str().unwrap_or_default();
        let unknown = || Self::Unknown(class.to_owned());
        let var = &value["__var"];
        let name = match class.strip_prefix("airflow.timetables.") {
            Some(rest) => rest.rsplit('.').next().unwrap_or_default(),
            None => return unknown(),
        };
        let seconds = |value: &Value| value.as_f64().map(|seconds| (seconds * 1e6).round() as i64);
        let parsed = match name {
            "NullTimetable"
            | "OnceTimetable"
            | "ContinuousTimetable"
            | "AssetTriggeredTimetable" => Some(Self::Never),
            "CronTriggerTimetable" | "MultipleCronTriggerTimetable" => {
                let one = var["expression"].as_str().into_iter();
                let more = var["expressions"].as_array().into_iter().flatten();
                let all: Vec<&str> = one.chain(more.filter_map(Value::as_str)).collect();
                seconds(&var["interval"]).and_then(|lead| cron(&all, &var["timezone"], Some(lead)))
            }
            "CronDataIntervalTimetable" => {
                let one: Vec<&str> = var["expression"].as_str().into_iter().collect();
                cron(&one, &var["timezone"], None)
            }
            "DeltaTriggerTimetable" => seconds(&var["delta"])
                .zip(seconds(&var["interval"]))
                .map(|(step_us, lead)| Self::Delta { step_us, trigger: Some(lead) }),
            "DeltaDataIntervalTimetable" => {
                seconds(&var["delta"]).map(|step_us| Self::Delta { step_us, trigger: None })
            }
            _ => None,
        };
        let possible =
            |timetable: &Self| !matches!(timetable, Self::Delta { step_us, .. } if *step_us <= 0);
        parsed.filter(possible).unwrap_or_else(unknown)
    }

    /// Whether its times can be computed.
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }

    /// Its times after the newest run, from the last that was due at `stopped_at_us` on to `now_us`,
    /// at most so many, the latest; none where they cannot be computed. `newest` is the logical date
    /// of the newest run, and the end of its interval.
    pub fn ticks(
        &self,
        newest: Option<(i64, i64)>,
        stopped_at_us: i64,
        now_us: i64,
        at_most: usize,
    ) -> Option<Vec<Tick>> {
        let mut due = match self {
            Self::Unknown(_) => return None,
            Self::Never => Vec::new(),
            Self::Delta { step_us, trigger } => {
                // Without a run there is nothing to count from.
                let Some((_, ended)) = newest else { return Some(Vec::new()) };
                let lead = trigger.unwrap_or(*step_us);
                let first = ((stopped_at_us - ended) / step_us).max(1);
                (first..=(now_us - ended) / step_us)
                    .map(|n| ended + n * step_us)
                    .map(|run_after_us| Tick { logical_date_us: run_after_us - lead, run_after_us })
                    .collect()
            }
            Self::Cron { crons, zone, trigger } => {
                let mut due: Vec<Tick> = crons
                    .iter()
                    .flat_map(|rule| rule.ticks(zone, *trigger, stopped_at_us, now_us))
                    .collect();
                due.sort_unstable();
                due.dedup();
                due
            }
        };
        let after = |tick: &Tick| newest.is_none_or(|(logical, _)| tick.logical_date_us > logical);
        due.retain(after);
        // Of what was due before, each rule looked back as far as it pleased.
        let during = due.partition_point(|tick| tick.run_after_us <= stopped_at_us);
        due.drain(..during.saturating_sub(1));
        due.drain(..due.len().saturating_sub(at_most));
        Some(due)
    }
}

fn cron(expressions: &[&str], zone: &Value, trigger: Option<i64>) -> Option<Timetable> {
    let zone = match zone {
        Value::String(name) => TimeZone::get(name).ok()?,
        Value::Number(offset) => {
            TimeZone::fixed(Offset::from_seconds(i32::try_from(offset.as_i64()?).ok()?).ok()?)
        }
        _ => return None,
    };
    let crons: Option<Vec<CronRule>> =
        expressions.iter().map(|text| CronRule::parse(text)).collect();
    let crons = crons.filter(|crons| !crons.is_empty())?;
    Some(Timetable::Cron { crons, zone, trigger })
}

impl CronRule {
    fn parse(text: &str) -> Option<Self> {
        let text = match text {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@quarterly" => "0 0 1 */3 *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        // With seconds, or with hashes, it means another thing to each who reads it.
        if fields.len() != 5 || text.contains(['H', 'R', 'W', '?']) {
            return None;
        }
        let every_hour = matches!(fields[1], "*" | "*/1" | "0-23");
        Some(Self { cron: Cron::from_str(text).ok()?, every_hour })
    }

    /// The first time after `at_us`.
    fn next(&self, zone: &TimeZone, at_us: i64) -> Option<i64> {
        let at = Timestamp::from_microsecond(at_us).ok()?;
        let clock: DateTime = zone.to_datetime(at);
        let next = self.cron.find_next_occurrence(&clock, false).ok()?;
        if self.every_hour {
            let passed = next.duration_since(clock).as_micros();
            return i64::try_from(passed).ok()?.checked_add(at_us);
        }
        // A time that is skipped comes as much later, one that comes twice counts when it comes for
        // the second time: as Airflow does.
        let ambiguous = zone.to_ambiguous_timestamp(next);
        let twice = matches!(ambiguous.offset(), AmbiguousOffset::Fold { .. });
        let time = if twice { ambiguous.later() } else { ambiguous.compatible() };
        Some(time.ok()?.as_microsecond())
    }

    /// Times whose run is due up to `now_us`, from two before the one that was due at `from_us`.
    fn ticks(&self, zone: &TimeZone, trigger: Option<i64>, from_us: i64, now_us: i64) -> Vec<Tick> {
        // Far enough back to find times before: doubling, up to eight years.
        let mut back = 3_600_000_000_i64;
        let before = loop {
            let begin = from_us - back;
            let mut times = Vec::new();
            let mut at = begin;
            while let Some(next) = self.next(zone, at).filter(|next| *next <= from_us && *next > at)
            {
                times.push(next);
                at = next;
                if times.len() > 64 {
                    times.drain(..32);
                }
            }
            if times.len() >= 3 || back > 8 * 366 * 86_400_000_000 {
                break times;
            }
            back *= 2;
        };
        let mut times = before;
        let mut at = times.last().copied().unwrap_or(from_us);
        while let Some(next) = self.next(zone, at).filter(|next| *next <= now_us && *next > at) {
            times.push(next);
            at = next;
        }
        match trigger {
            Some(lead) => times
                .iter()
                .map(|time| Tick { logical_date_us: time - lead, run_after_us: *time })
                .collect(),
            None => times
                .windows(2)
                .map(|pair| Tick { logical_date_us: pair[0], run_after_us: pair[1] })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn times(timetable: &Timetable, newest: Option<(i64, i64)>, from: i64, now: i64) -> Vec<i64> {
        let ticks = timetable.ticks(newest, from, now, 1_000).unwrap();
        ticks.into_iter().map(|tick| tick.run_after_us / MINUTE).collect()
    }

    fn cron(class: &str, expression: &str, zone: &str) -> Timetable {
        Timetable::parse(&format!(
            r#"{{"__type": "airflow.timetables.{class}", "__var": {{"expression": "{expression}",
                 "timezone": "{zone}", "interval": 0.0, "run_immediately": false}}}}"#
        ))
    }

    #[test]
    fn what_came_due_since_the_newest_run_is_found() {
        let every = cron("trigger.CronTriggerTimetable", "*/10 * * * *", "UTC");
        let newest = Some((20 * MINUTE, 20 * MINUTE));
        assert_eq!(times(&every, newest, 25 * MINUTE, 51 * MINUTE), [30, 40, 50]);
        let interval = cron("interval.CronDataIntervalTimetable", "*/10 * * * *", "UTC");
        // Its interval from 20 to 30 ended at 30.
        let newest = Some((10 * MINUTE, 20 * MINUTE));
        assert_eq!(times(&interval, newest, 25 * MINUTE, 51 * MINUTE), [30, 40, 50]);
    }

    #[test]
    fn intervals_go_on_from_the_newest_run() {
        let delta = Timetable::parse(
            r#"{"__type": "airflow.timetables.interval.DeltaDataIntervalTimetable",
                "__var": {"delta": 600.0}}"#,
        );
        let newest = Some((13 * MINUTE, 23 * MINUTE));
        let ticks = delta.ticks(newest, 30 * MINUTE, 55 * MINUTE, 100).unwrap();
        let found: Vec<_> =
            ticks.iter().map(|t| (t.logical_date_us / MINUTE, t.run_after_us / MINUTE)).collect();
        assert_eq!(found, [(23, 33), (33, 43), (43, 53)]);
    }

    #[test]
    fn what_airflow_alone_can_compute_is_unknown() {
        for class in ["acme.WorkdayTimetable", "airflow.timetables.events.EventsTimetable"] {
            let text = format!(r#"{{"__type": "{class}", "__var": {{}}}}"#);
            assert!(!Timetable::parse(&text).is_known(), "{class}");
        }
        assert!(!cron("trigger.CronTriggerTimetable", "H * * * *", "UTC").is_known());
        assert!(!cron("trigger.CronTriggerTimetable", "0 0 * * *", "Middle/Earth").is_known());
    }
}
