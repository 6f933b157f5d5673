use airfleet_domain::placement::{Policy, generate::*, problem::*, search::*};
use std::time::Instant;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let n: usize = args[1].parse().unwrap();
    let s: usize = args[2].parse().unwrap();
    let kind = args.get(3).map(String::as_str).unwrap_or("log");
    let tol: i64 = args.get(4).map(|t| t.parse().unwrap()).unwrap_or(5000);
    let threads: usize = args.get(5).map(|t| t.parse().unwrap()).unwrap_or(2);
    let weights = match kind {
        "log" => Weights::Lognormal(150),
        "ratio" => Weights::Ratio(20),
        _ => Weights::PowerLaw(20),
    };
    let recipe = Recipe {
        namespaces: n,
        shards: s,
        weights,
        flat_cost: 1,
        bound_to_region: if kind == "log" { 300_000 } else { 0 },
        policy: Policy { tolerance: tol, resilience: true, ..Policy::default() },
        ..Recipe::default()
    };
    let t = Instant::now();
    let p = recipe.generate();
    println!("generate {:?}", t.elapsed());
    if let Some(file) = args.get(6) {
        let snap = airfleet_domain::placement::dump::Snapshot::of(&p, 0, &|_| 0);
        serde_json::to_writer(std::io::BufWriter::new(std::fs::File::create(file).unwrap()), &snap).unwrap();
    }
    let t = Instant::now();
    let o = p.rebalance(&Settings::default(), threads, &|| false);
    println!(
        "rebalance {:?} moves {} peak {} -> {} target {} bounds {:?} stop {:?} steps {}",
        t.elapsed(),
        o.steps.len(),
        o.peak_before,
        o.peak_after,
        o.target,
        o.bounds,
        o.stop,
        o.steps_done
    );
    println!("before {:?}\nafter {:?}", o.before, o.after);
    println!("gap {:.3}%", (o.peak_after as f64 / o.bounds.peak() as f64 - 1.0) * 100.0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().filter(|l| l.starts_with("VmHWM")).collect::<String>());
}
