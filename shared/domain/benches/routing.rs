//! Figures of the routing table at a million namespaces: time to resolve, to change and to build,
//! and memory.
//!
//! `cargo bench -p airfleet-domain --bench routing -- [--namespaces N] [--json]`. Without
//! `--bench`, as under `cargo test --all-targets`, a small table only shows that it runs.
//!
//! Names come in three conventions and orders are random, so at a million namespaces each resolve
//! goes to memory that no cache holds. Memory is what the process holds resident (so with what the
//! allocator adds), less the bytes of namespaces and prefixes themselves.

use std::{
    env, fs,
    hint::black_box,
    time::{Duration, Instant},
};

use airfleet_domain::{
    ids::{Generation, Revision},
    routing::{Assignment, Change, Entry, State, Table},
};

const SHARDS: u64 = 200;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let namespaces = arguments
        .iter()
        .position(|argument| argument == "--namespaces")
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(if has("--bench") { 1_000_000 } else { 1_000 });
    let report = Report { json: has("--json"), namespaces };
    run(namespaces, &report);
}

fn run(namespaces: u64, report: &Report) {
    let before = resident_bytes();
    let start = Instant::now();
    let entries: Vec<Entry> = (0..namespaces).map(|n| Entry::new(&assignment(n, 1))).collect();
    report.line("routing_pack", millis(start.elapsed()), "ms", None);
    let start = Instant::now();
    let table = Table::build(entries, Revision(1));
    report.line("routing_build", millis(start.elapsed()), "ms", Some(2_000.0));
    let held = resident_bytes().saturating_sub(before) as f64 / namespaces as f64;
    let names: usize = table
        .iter()
        .map(|entry| entry.namespace().len() + entry.prefixes().map(str::len).sum::<usize>())
        .sum();
    let names = names as f64 / namespaces as f64;
    report.line("routing_names", names, "bytes/namespace", None);
    report.line("routing_memory_beyond_names", held - names, "bytes/namespace", Some(300.0));

    report.line("memory_access", memory_access(), "ns", None);
    let mut random = Random(7);
    let count = (2 * namespaces).clamp(10_000, 2_000_000);
    let mut ids = |choose: &dyn Fn(&mut Random) -> u64, absent_in_ten: u64| {
        Texts::collect((0..count).map(|_| {
            let id = dag_id(choose(&mut random), random.next());
            // Of the same form as the others, so that only the table can tell.
            if random.below(10) < absent_in_ten { absent(&id) } else { id }
        }))
    };
    // Two of three conventions have names that fit the index, as most projects' do.
    let short = |random: &mut Random| random.below(namespaces / 3) * 3 + random.below(2);
    let hits = ids(&short, 0);
    let misses = ids(&short, 10);
    let mixed = ids(&|random| random.below(namespaces), 1);
    let long = ids(&|random| random.below(namespaces / 3) * 3 + 2, 0);
    let dag = |id: &str| table.resolve_dag(id);
    let goal = Some(200.0);
    report.line("resolve_dag_hit", each(&hits, dag), "ns", goal);
    report.line("resolve_dag_hit_long_names", each(&long, dag), "ns", None);
    report.line("resolve_dag_batch", batch(&hits, &table), "ns", goal);
    report.line("resolve_dag_miss", each(&misses, dag), "ns", goal);
    report.line("resolve_dag_mixed_with_long_names", each(&mixed, dag), "ns", goal);
    report.line("resolve_dag_and_read", each_read(&hits, dag, false), "ns", None);
    report.line("resolve_dag_and_read_in_sequence", each_read(&hits, dag, true), "ns", None);
    let names = Texts::collect((0..count).map(|_| namespace(random.below(namespaces))));
    let by_name = |name: &str| table.resolve_namespace(name);
    report.line("resolve_namespace", each(&names, by_name), "ns", goal);
    report.line("resolve_namespace_and_read", each_read(&names, by_name, false), "ns", None);

    change(&table, namespaces, report);

    let start = Instant::now();
    let listed = table.iter().filter(|entry| entry.shard().is_some()).count();
    let walk = millis(start.elapsed());
    assert_eq!(listed, table.len());
    report.line("routing_walk_in_order", walk, "ms", None);
}

/// Changes one at a time, each snapshot replacing the one before as it would be swapped in: half
/// of them new assignments, a quarter each new and deleted namespaces.
fn change(table: &Table, namespaces: u64, report: &Report) {
    let mut random = Random(11);
    let mut current = table.clone();
    let mut times: Vec<Duration> = Vec::new();
    for step in 0..20_000_u32.min(namespaces as u32) {
        let revision = Revision(i64::from(step) + 2);
        let change = match step % 4 {
            0 | 2 => Change::Upsert(Entry::new(&assignment(random.below(namespaces), revision.0))),
            1 => Change::Upsert(Entry::new(&assignment(namespaces + u64::from(step), revision.0))),
            _ => {
                let name = namespace(namespaces + u64::from(step) - 2);
                Change::Delete(name.parse().expect("made to be a name"))
            }
        };
        let start = Instant::now();
        let next = current.apply([&change], revision);
        drop(std::mem::replace(&mut current, next));
        times.push(start.elapsed());
    }
    assert_eq!(current.len(), table.len());
    times.sort_unstable();
    let at = |share: f64| micros(times[((times.len() - 1) as f64 * share) as usize]);
    report.line("routing_change_p50", at(0.5), "us", Some(1_000.0));
    report.line("routing_change_p99", at(0.99), "us", Some(1_000.0));
    report.line("routing_change_max", at(1.0), "us", None);
}

/// Nanoseconds of one resolve. The processor overlaps what it can, as with many callers or a batch.
fn each<'t>(texts: &Texts, resolve: impl Fn(&str) -> Option<&'t Entry>) -> f64 {
    let mut at = 0;
    median_each(texts.len(), |count| {
        let found = texts.run(at, count).filter(|text| resolve(text).is_some()).count();
        at += count;
        found as i64
    })
}

/// Nanoseconds of one resolve in batches.
fn batch(texts: &Texts, table: &Table) -> f64 {
    let mut at = 0;
    median_each(texts.len(), |count| {
        let answers = table.resolve_dags(texts.run(at, count));
        at += count;
        answers.iter().flatten().count() as i64
    })
}

/// As [`each`], with the read of the answer: shard, generation and state. In sequence, each waits
/// for the answer before it, as a lone caller does.
fn each_read<'t>(
    texts: &Texts,
    resolve: impl Fn(&str) -> Option<&'t Entry>,
    sequence: bool,
) -> f64 {
    let mut at = 0;
    median_each(texts.len(), |count| {
        let mut sum = 0_i64;
        for _ in 0..count {
            let answer = resolve(texts.get(at)).map_or(0, |entry| {
                let shard = entry.shard().map_or(0, |shard| i64::from(shard.as_bytes()[0]));
                shard + entry.generation().0 + entry.state() as i64
            });
            sum = sum.wrapping_add(answer);
            // Answers are never negative, but the processor cannot know before it has one.
            at += 1 + if sequence { (answer as u64 >> 63) as usize } else { 0 };
        }
        sum
    })
}

/// Nanoseconds of one access to memory that depends on the one before, anywhere in 256 MiB: what
/// the figures of resolving are made of on this machine.
fn memory_access() -> f64 {
    let mut random = Random(3);
    let cells = (256 << 20) / 64;
    let mut order: Vec<u32> = (0..cells as u32).collect();
    for at in (1..cells).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    // One cell to a cache line, each naming the next in a single cycle through all.
    let mut lines = vec![[0_u32; 16]; cells];
    for (at, cell) in order.iter().enumerate() {
        lines[*cell as usize][0] = order[(at + 1) % cells];
    }
    let mut at = 0;
    median_each(1_000_000, |accesses| {
        for _ in 0..accesses {
            at = lines[at as usize][0];
        }
        i64::from(at)
    })
}

/// Nanoseconds of an operation: the median over short runs of it, in the best of five rounds. So
/// neither a run that the machine interrupted counts, nor a round in which others used its memory.
fn median_each(count: usize, mut run: impl FnMut(usize) -> i64) -> f64 {
    const RUN: usize = 500;
    let mut times: Vec<Duration> = (0..count / RUN)
        .map(|_| {
            let start = Instant::now();
            black_box(run(RUN));
            start.elapsed()
        })
        .collect();
    let rounds = times.chunks_mut((count / RUN).div_ceil(5)).map(|round| {
        round.sort_unstable();
        round[round.len() / 2]
    });
    rounds.min().map_or(0.0, |best| best.as_secs_f64() * 1e9 / RUN as f64)
}

fn namespace(n: u64) -> String {
    match n % 3 {
        0 => format!("team-{n:06}"),
        1 => format!("ns{n:06}"),
        _ => format!("data-{}-{n}", WORDS[n as usize / 3 % WORDS.len()]),
    }
}

fn prefix(n: u64) -> String {
    match n % 3 {
        0 => format!("team-{n:06}."),
        1 => format!("ns{n:06}__"),
        _ => format!("data_{}_{n}__", WORDS[n as usize / 3 % WORDS.len()]),
    }
}

fn dag_id(n: u64, random: u64) -> String {
    let words = |shift: u64| WORDS[(random >> shift) as usize % WORDS.len()];
    format!("{}{}_{}_{}", prefix(n), words(3), words(17), random % 100)
}

/// A dag_id of no namespace: no convention starts with this letter.
fn absent(dag_id: &str) -> String {
    format!("x{}", &dag_id[1..])
}

const WORDS: [&str; 11] = [
    "eu",
    "load",
    "daily",
    "orders",
    "hourly",
    "export",
    "revenue",
    "customer",
    "warehouse",
    "settlement",
    "reconciliation",
];

fn assignment(n: u64, revision: i64) -> Assignment {
    let parsed = "made to be valid";
    Assignment {
        namespace: namespace(n).parse().expect(parsed),
        namespace_uid: format!("0198c2c0-0000-7000-8000-{n:012x}"),
        prefixes: vec![prefix(n).parse().expect(parsed)],
        shard: Some(format!("shard-{:03}", n % SHARDS).parse().expect(parsed)),
        generation: Generation(1),
        state: State::Assigned,
        pinned_shard: None,
        reason: "most room of the shards that fit".into(),
        revision: Revision(revision),
        update_time_us: 1_760_000_000_000_000 + revision,
    }
}

/// Many texts one after another, so that reading them in order costs next to nothing.
struct Texts {
    text: String,
    ends: Vec<u32>,
}

impl Texts {
    fn collect(texts: impl Iterator<Item = String>) -> Self {
        let mut all = Self { text: String::new(), ends: vec![0] };
        for text in texts {
            all.text.push_str(&text);
            all.ends.push(all.text.len() as u32);
        }
        all
    }

    fn len(&self) -> usize {
        self.ends.len() - 1
    }

    fn get(&self, at: usize) -> &str {
        &self.text[self.ends[at] as usize..self.ends[at + 1] as usize]
    }

    /// So many texts from one on.
    fn run(&self, at: usize, count: usize) -> impl Iterator<Item = &str> {
        let bounds = self.ends[at..=at + count].array_windows();
        bounds.map(|[start, end]| &self.text[*start as usize..*end as usize])
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

struct Report {
    json: bool,
    namespaces: u64,
}

impl Report {
    /// Prints a figure; the goal is the most it may be, and is for a million namespaces.
    fn line(&self, name: &str, value: f64, unit: &str, goal: Option<f64>) {
        let goal = goal.filter(|_| self.namespaces == 1_000_000);
        let ok = goal.map(|goal| value <= goal);
        if self.json {
            let line = serde_json::json!({
                "name": name, "value": value, "unit": unit, "goal": goal, "ok": ok,
            });
            println!("{line}");
            return;
        }
        let verdict = match (goal, ok) {
            (Some(goal), Some(true)) => format!("goal {goal}: ok"),
            (Some(goal), _) => format!("goal {goal}: MISSED"),
            _ => String::new(),
        };
        println!("{name:<34} {value:>10.1} {unit:<16} {verdict}");
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Memory that the process holds, from the kernel's count of its pages.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux counts a process's pages");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("the second figure of statm is the resident pages");
    pages * 4096
}
