//! `soak`: moves a namespace between two real Airflows, there and back, while it runs and while
//! things break, and decides whether a run was lost or doubled.

use std::{process::ExitCode, time::Duration};

use airfleet_integration_tests::soak::{
    Soak,
    fault::{Fault, PHASES, VICTIMS},
};
use airfleet_proto::moves::v1::MovePhase;
use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

/// Moves a namespace of six kinds of DAG between two real Airflows while it runs and things break,
/// and decides from both databases and from what tasks left outside of Airflow whether a run was
/// lost or doubled.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  soak --moves 50                       fifty moves in a row, nothing breaks
  soak --moves 140 --faults all         each victim in each phase, before and after its effect
  soak --moves 20 --faults all --seed 7 twenty of these, another choice
  soak --moves 4 --faults all --only \"target's database killed\"
                                        four of these, of one victim")]
struct Arguments {
    /// How many moves, one after another.
    #[arg(long, default_value_t = 50)]
    moves: usize,
    /// What breaks.
    #[arg(long, value_enum, default_value_t = Faults::None)]
    faults: Faults,
    /// Order of what breaks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of what breaks only that of which the words, as each move tells them, have this among them.
    #[arg(long, default_value = "")]
    only: String,
    /// How long a task of the long DAG takes. Seconds.
    #[arg(long, default_value_t = 15)]
    long_task: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Faults {
    /// Nothing.
    None,
    /// Something in each move.
    All,
}

/// All faults that are called so, in an order of the seed.
fn faults(seed: u64, only: &str) -> Result<Vec<Fault>> {
    let mut faults = Fault::all();
    faults.retain(|fault| fault.to_string().contains(only));
    let first = Fault::all()[0];
    ensure!(!faults.is_empty(), "no fault is called {only:?}; one is called \"{first}\"");
    faults.shuffle(&mut StdRng::seed_from_u64(seed));
    Ok(faults)
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let faults = match arguments.faults {
        Faults::None => vec![],
        Faults::All => faults(arguments.seed, &arguments.only)?,
    };
    println!(
        "{} moves; {} victims, {} phases, {} faults in turn, seed {}",
        arguments.moves,
        VICTIMS.len(),
        PHASES.len(),
        faults.len(),
        arguments.seed
    );
    let mut soak = Soak::boot(Duration::from_secs(arguments.long_task)).await?;
    let (mut done, mut given_up) = (0, 0);
    let mut dark_ms = Histogram::<u64>::new(3)?;
    for number in 0..arguments.moves {
        let fault = faults.get(number % faults.len().max(1)).copied();
        let moved = soak.move_over(fault).await?;
        if moved.last.phase() == MovePhase::Done {
            done += 1;
            dark_ms.record(moved.beyond_drain().as_millis() as u64)?;
        } else {
            given_up += 1;
        }
    }
    let evidence = soak.finish().await?;
    let mut findings = soak.judge(&evidence);
    for shard in [0, 1] {
        let neighbour = soak.neighbour(shard, evidence.until_us).await?;
        findings.extend(soak.judge(&neighbour));
    }
    let runs = evidence.runs[&evidence.owner].len();
    println!(
        "{done} moves done, {given_up} given up; {runs} runs, {} of them asked for, {} effects",
        evidence.asked.len(),
        evidence.effects.len()
    );
    let refusals = soak.refusals();
    let refusals: Vec<_> = refusals.iter().map(|(why, count)| format!("{why} {count}")).collect();
    println!("users were told to ask again: {}", refusals.join(", "));
    if !dark_ms.is_empty() {
        let at = |quantile| dark_ms.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "without an owner that could make runs, beyond the drain: p50 {:.2} s, p95 {:.2} s",
            at(0.5),
            at(0.95)
        );
    }
    for finding in &findings {
        println!("{finding}");
    }
    println!("{} findings", findings.len());
    soak.stop().await;
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
