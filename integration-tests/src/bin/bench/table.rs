//! The routing table in process, at a million namespaces: time to resolve, memory, and what a
//! change costs until readers see it.
//!
//! Measured in a process that holds nothing else, so that what the kernel counts as resident is
//! the table and what the allocator adds to it. Order is random: at this size each resolve goes to
//! memory that no cache holds. The bench `routing` of the domain takes the table further apart.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use airfleet_domain::{
    ids::{Generation, Revision},
    routing::{Assignment, Change, Entry, State, Table},
};
use airfleet_integration_tests::bench::report::{Figure, Goal, Report};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::rig::{MILLION, median, memory_mb};

const SHARDS: u64 = 200;
/// Resolves that are timed together, so that reading the clock does not count.
const RUN: usize = 500;
const RESOLVES: u64 = 1_000_000;
const CHANGES: u64 = 5_000;

#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    resolve_ns: f64,
    resolve_absent_ns: f64,
    resolve_many_ns: f64,
    bytes_beyond_names: f64,
    change_p50_ms: f64,
    change_p99_ms: f64,
}

pub(crate) async fn run(report: &mut Report) -> Result<()> {
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .arg("measure-table")
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Measured = serde_json::from_slice(&output.stdout)?;
    let under_200 = Goal::AtMost(200.0);
    for (name, value, unit, goal) in [
        ("table.resolve", found.resolve_ns, "ns", under_200),
        ("table.resolve_absent", found.resolve_absent_ns, "ns", Goal::None),
        ("table.resolve_many", found.resolve_many_ns, "ns", Goal::None),
        ("table.memory_beyond_names", found.bytes_beyond_names, "bytes", Goal::AtMost(300.0)),
        ("table.change_visible_p50", found.change_p50_ms, "ms", Goal::None),
        ("table.change_visible_p99", found.change_p99_ms, "ms", Goal::AtMost(1.0)),
    ] {
        report.add(Figure::alone(name, value, unit, goal))?;
    }
    Ok(())
}

pub(crate) fn measure_and_print() -> Result<()> {
    let before = resident()?;
    let entries = (0..MILLION).map(|n| Entry::new(&assignment(n, 1)));
    let table = Table::build(entries, Revision(1));
    let held = (resident()? - before) / MILLION as f64;
    let names: usize = table
        .iter()
        .map(|entry| entry.namespace().len() + entry.prefixes().map(str::len).sum::<usize>())
        .sum();

    let mut random = Random(7);
    let present = dag_ids(|| random.below(MILLION));
    let mut random = Random(8);
    let absent = dag_ids(|| MILLION + random.below(MILLION));
    let found = |ids: &[String]| ids.iter().filter(|id| table.resolve_dag(id).is_some()).count();
    ensure!(found(&present) == present.len() && found(&absent) == 0, "the table is wrong");
    let many = |ids: &[String]| {
        table.resolve_dags(ids.iter().map(String::as_str)).iter().flatten().count()
    };
    let (change_p50_ms, change_p99_ms) = change(&table);
    let measured = Measured {
        resolve_ns: nanos_each(&present, found),
        resolve_absent_ns: nanos_each(&absent, found),
        resolve_many_ns: nanos_each(&present, many),
        bytes_beyond_names: held - names as f64 / MILLION as f64,
        change_p50_ms,
        change_p99_ms,
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

fn resident() -> Result<f64> {
    Ok(memory_mb(std::process::id(), "VmRSS").context("memory cannot be measured")? * 1e6)
}

/// Median nanoseconds of one resolve.
fn nanos_each(ids: &[String], resolve: impl Fn(&[String]) -> usize) -> f64 {
    let runs = ids.chunks_exact(RUN).map(|run| {
        let begun = Instant::now();
        black_box(resolve(run));
        begun.elapsed().as_nanos() as f64 / RUN as f64
    });
    median(runs.collect())
}

/// Milliseconds from having a change to a reader seeing it, median and 99th percentile: the next
/// table is made, takes the present one's place, and the one before is let go. Half of the changes
/// are new assignments of known namespaces, half are new namespaces.
fn change(table: &Table) -> (f64, f64) {
    let mut random = Random(11);
    let (present, seen) = watch::channel(table.clone());
    let mut times: Vec<Duration> = (0..CHANGES)
        .map(|step| {
            let revision = Revision(step as i64 + 2);
            let n = if step % 2 == 0 { random.below(MILLION) } else { MILLION + step };
            let change = Change::Upsert(Entry::new(&assignment(n, revision.0)));
            let begun = Instant::now();
            let next = seen.borrow().apply([&change], revision);
            present.send_replace(next);
            assert_eq!(seen.borrow().revision(), revision);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    (at(0.5), at(0.99))
}

fn dag_ids(mut choose: impl FnMut() -> u64) -> Vec<String> {
    (0..RESOLVES).map(|_| format!("{}daily_load", prefix(choose()))).collect()
}

/// Namespaces are called after teams, numbers and what they do, a third each.
fn namespace(n: u64) -> String {
    match n % 3 {
        0 => format!("team-{n:06}"),
        1 => format!("ns{n:06}"),
        _ => format!("data-settlement-{n}"),
    }
}

fn prefix(n: u64) -> String {
    match n % 3 {
        0 => format!("team-{n:06}."),
        1 => format!("ns{n:06}__"),
        _ => format!("data_settlement_{n}__"),
    }
}

fn assignment(n: u64, revision: i64) -> Assignment {
    let valid = "made to be valid";
    Assignment {
        namespace: namespace(n).parse().expect(valid),
        namespace_uid: format!("0198c2c0-0000-7000-8000-{n:012x}"),
        prefixes: vec![prefix(n).parse().expect(valid)],
        shard: Some(format!("shard-{:03}", n % SHARDS).parse().expect(valid)),
        generation: Generation(1),
        state: State::Assigned,
        pinned_shard: None,
        reason: "most room of the shards that fit".into(),
        revision: Revision(revision),
        update_time_us: 1_760_000_000_000_000 + revision,
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
