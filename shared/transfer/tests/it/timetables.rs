//! Schedules, beside what Airflow itself makes of them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use airfleet_local::{AirflowVersion, Environment, Sandbox};
use airfleet_transfer::cursor::Timetable;
use serde_json::Value;

#[derive(serde::Deserialize)]
struct Answer {
    schedules: Vec<Schedule>,
    others: BTreeMap<String, Value>,
    catchup: [Option<bool>; 2],
    start: [f64; 2],
}

#[derive(serde::Deserialize)]
struct Schedule {
    name: String,
    timetable: Value,
    /// From each start: logical date, run after, end of the interval.
    runs: Vec<Vec<[i64; 3]>>,
}

#[tokio::test]
async fn timetables_give_the_runs_that_airflow_gives_them() {
    let sandbox = Sandbox::create("timetables").await.unwrap();
    let airflow = Environment::ensure(AirflowVersion::V3_3_2, &sandbox).await.unwrap();
    let file = sandbox.folder().join("answer.json");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/timetables.py");
    let spec = airflow.python("timetables").args(["-W", "ignore"]).arg(script).arg(&file);
    sandbox.run(&spec, Duration::from_mins(3)).await.unwrap();
    let answer: Answer = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();

    for Schedule { name, timetable, runs } in &answer.schedules {
        let timetable = Timetable::parse(&timetable.to_string());
        assert!(timetable.is_known(), "{name}");
        for runs in runs {
            let [logical, _, ended] = runs[0];
            let last = runs.last().unwrap()[1];
            // Stopped at any time, also on a tick and just before one.
            for stop in [1, runs.len() / 3, runs.len() - 2] {
                for stopped_at in [runs[stop][1] - 1, runs[stop][1], runs[stop][1] + 1] {
                    let found =
                        timetable.ticks(Some((logical, ended)), stopped_at, last, 10_000).unwrap();
                    let found: Vec<_> =
                        found.iter().map(|t| (t.logical_date_us, t.run_after_us)).collect();
                    let all: Vec<_> =
                        runs[1..].iter().map(|[logical, after, _]| (*logical, *after)).collect();
                    let during = all.partition_point(|(_, after)| *after <= stopped_at);
                    // Those that came due since, and the one before.
                    let wanted = &all[during.saturating_sub(1)..];
                    assert!(
                        found.ends_with(wanted),
                        "{name}, stopped at {stopped_at}: {found:?} {wanted:?}"
                    );
                    assert!(
                        all.ends_with(&found),
                        "{name}: more than Airflow has: {found:?} {all:?}"
                    );
                }
            }
        }
    }
    for (name, timetable) in &answer.others {
        let timetable = Timetable::parse(&timetable.to_string());
        let ticks = timetable.ticks(None, 0, 4_000_000_000_000_000, 10);
        match name.as_str() {
            "six fields" | "months" => assert!(ticks.is_none(), "{name}"),
            _ => assert_eq!(ticks, Some(Vec::new()), "{name}"),
        }
    }
    // What is left out is false, and dates are seconds.
    assert_eq!((answer.catchup[0].unwrap_or(false), answer.catchup[1]), (false, Some(true)));
    let [seconds, micros] = answer.start;
    assert!((seconds * 1e6 - micros).abs() < 1.0, "{seconds} {micros}");
}
