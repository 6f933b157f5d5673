//! `airfleet simulate`: the placement engine on generated or recorded fleets, on this machine.

use std::{fmt::Write as _, fs::File, io::BufReader, path::PathBuf, time::Instant};

use airfleet_domain::placement::{
    Policy,
    amount::percent,
    dump::{Dump, Snapshot},
    generate::{Recipe, Start, Weights},
    objective::{LEVEL_NAMES, level_text},
    search::Mode,
    simulate::{self, Day, Event, Scenario},
};
use clap::ValueEnum;

use crate::{
    args::TextOrJson,
    document,
    error::{Error, Exit, Result},
    human,
    screen::{Paint, Screen, Tone},
    table::{Cell, Table},
};

/// How heavy namespaces are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// Most are small, few are large
    #[default]
    Lognormal,
    /// Evenly up to twenty times the smallest
    Ratio,
    /// One in n is n times the smallest
    PowerLaw,
}

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  airfleet simulate --namespaces 100000 --shards 500
  airfleet simulate --days 30 --drift 5 --add-shards 10:4 --lose-zone 20:region-0-zone-1
  airfleet plan dump rebalance-7 > r7.json && airfleet simulate --replay r7.json
  airfleet simulate --fleet r7.json --days 14          what becomes of the recorded fleet

Needs no fleet. The same seed gives the same fleet and the same answer on every machine. Exit code 2
where a replay gives another answer than was recorded.")]
pub struct Args {
    /// Make a recorded decision again and compare
    #[arg(long, value_name = "FILE", conflicts_with = "fleet")]
    replay: Option<PathBuf>,
    /// Begin with the fleet of this dump instead of a generated one
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// Namespaces
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    namespaces: usize,
    /// Shards
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    shards: usize,
    /// Dimensions
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    dimensions: usize,
    /// How heavy namespaces are
    #[arg(long, value_enum, default_value_t, value_name = "SHAPE")]
    weights: Shape,
    /// All demand over all capacity, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 65,
          value_parser = clap::value_parser!(i64).range(1..=100))]
    fill: i64,
    /// Namespaces that are bound to a region, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(0..=100))]
    bound: u32,
    /// Regions
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    regions: usize,
    /// Failure domains in each region
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    zones: usize,
    /// How far above the best possible peak a shard may stand, in tenths of a percent
    #[arg(long, value_name = "PERMILLE", default_value_t = 50,
          value_parser = clap::value_parser!(i64).range(0..=10_000))]
    tolerance: i64,
    /// Days
    #[arg(long, value_name = "COUNT", default_value_t = 7)]
    days: u32,
    /// By how much demands change a day, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 3)]
    drift: u32,
    /// Add shards on a day; may be given several times
    #[arg(long, value_name = "DAY:COUNT", value_parser = pair)]
    add_shards: Vec<(u32, String)>,
    /// Lose a failure domain on a day; may be given several times
    #[arg(long, value_name = "DAY:ZONE", value_parser = pair)]
    lose_zone: Vec<(u32, String)>,
    /// Drain a shard from a day on; may be given several times
    #[arg(long, value_name = "DAY:SHARD", value_parser = pair)]
    drain: Vec<(u32, String)>,
    /// Decides the fleet
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Threads; 0 means all there are. The answer does not depend on it
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    threads: usize,
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: TextOrJson,
}

fn pair(text: &str) -> Result<(u32, String), String> {
    let (day, what) = text.split_once(':').ok_or("write the day first: 3:NAME")?;
    let day = day.parse().map_err(|_| format!("{day:?} is no day; write the day first: 3:NAME"))?;
    Ok((day, what.to_owned()))
}

impl Args {
    fn threads(&self) -> usize {
        let there = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.threads == 0 { there() } else { self.threads }
    }

    fn scenario(&self) -> Result<Scenario> {
        let mut events = Vec::new();
        for (day, count) in &self.add_shards {
            let count = count.parse().map_err(|_| {
                Error::new(format!("--add-shards: {count:?} is no count")).hint("write 3:10")
            })?;
            events.push((*day, Event::AddShards(count)));
        }
        events.extend(self.lose_zone.iter().map(|(d, zone)| (*d, Event::LoseDomain(zone.clone()))));
        events.extend(self.drain.iter().map(|(d, shard)| (*d, Event::Drain(shard.clone()))));
        Ok(Scenario {
            recipe: Recipe {
                namespaces: self.namespaces,
                shards: self.shards,
                dimensions: self.dimensions,
                weights: match self.weights {
                    Shape::Lognormal => Weights::Lognormal(150),
                    Shape::Ratio => Weights::Ratio(20),
                    Shape::PowerLaw => Weights::PowerLaw(20),
                },
                fill: self.fill * 10_000,
                bound_to_region: self.bound * 10_000,
                regions: self.regions.max(1),
                zones: self.zones.max(1),
                policy: Policy { tolerance: self.tolerance * 1_000, ..Policy::default() },
                start: Start::Skewed(500_000),
                seed: self.seed,
                ..Recipe::default()
            },
            days: self.days,
            drift_percent: self.drift,
            events,
            ..Scenario::default()
        })
    }
}

/// Does it.
pub fn run(screen: &mut Screen, args: &Args) -> Result<Exit> {
    if let Some(file) = &args.replay {
        return replay(screen, args, file);
    }
    let scenario = args.scenario()?;
    let begun = Instant::now();
    let now_us = || u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let days = match &args.fleet {
        Some(file) => simulate::run_from(fleet(file)?, &scenario, args.threads(), &now_us),
        None => simulate::run(&scenario, args.threads(), &now_us),
    };
    let days = days.map_err(|error| Error::caused("cannot simulate this fleet", &error))?;
    match args.output {
        TextOrJson::Text => screen.print(&text(&days, screen.paint()))?,
        TextOrJson::Json => screen.print(&document::json(&days)?)?,
    }
    Ok(Exit::Ok)
}

fn read<T: serde::de::DeserializeOwned>(file: &PathBuf) -> Result<T> {
    let what = || format!("cannot read {}", file.display());
    let opened = File::open(file).map_err(|error| Error::caused(what(), &error))?;
    serde_json::from_reader(BufReader::new(opened)).map_err(|error| {
        Error::caused(what(), &error).hint("`airfleet plan dump PLAN > FILE` writes one")
    })
}

fn fleet(file: &PathBuf) -> Result<Snapshot> {
    Ok(read::<Dump>(file)?.snapshot)
}

fn replay(screen: &mut Screen, args: &Args, file: &PathBuf) -> Result<Exit> {
    let dump: Dump = read(file)?;
    let begun = Instant::now();
    let plan = dump.replay(args.threads());
    let plan = plan.map_err(|error| Error::caused("cannot replay this dump", &error))?;
    let took = begun.elapsed();
    let same = plan.hash == dump.hash;
    match args.output {
        TextOrJson::Text => {
            let verdict = if same { "the same plan" } else { "ANOTHER plan" };
            screen.line(&format!(
                "plan/{}: {verdict} ({} namespaces, {} moves, peak {} -> {}, {} ms)",
                plan.name,
                dump.snapshot.namespaces.len(),
                plan.moves.len(),
                percent(plan.before.peak),
                percent(plan.after.peak),
                took.as_millis(),
            ))?;
            screen.line(&format!("recorded {}", dump.hash))?;
            screen.line(&format!("replayed {}", plan.hash))?;
        }
        TextOrJson::Json => {
            let value = serde_json::json!({
                "same": same, "recorded": dump.hash, "plan": plan,
            });
            screen.print(&document::json(&value)?)?;
        }
    }
    Ok(if same { Exit::Ok } else { Exit::Negative })
}

fn text(days: &[Day], paint: Paint) -> String {
    let mut table = Table::new([
        "DAY ",
        "HAPPENED",
        "MODE",
        "MOVES ",
        "THRASHED ",
        "PEAK ",
        "BOUND ",
        "TOOK ",
        "WORST LEFT",
    ]);
    for day in days {
        let happened: Vec<String> = day.events.iter().map(event).collect();
        let worst = (0..7).find(|level| day.after.0[*level] != 0);
        let left = worst.map_or_else(
            || Cell::toned(Tone::Dim, "<nothing>"),
            |level| {
                let tone = if level < 2 { Tone::Bad } else { Tone::Plain };
                let value = level_text(level, day.after.0[level]);
                Cell::toned(tone, format!("{}: {value}", LEVEL_NAMES[level]))
            },
        );
        let mode = match day.mode {
            None => "none",
            Some(Mode::Emergency) => "emergency",
            Some(Mode::Periodic) => "periodic",
        };
        table.row([
            day.day.to_string().into(),
            happened.join(", ").into(),
            mode.into(),
            day.moves.to_string().into(),
            day.thrashed.to_string().into(),
            percent(day.peak).into(),
            percent(day.bound).into(),
            human::short_span(i64::try_from(day.took_us / 1000).unwrap_or(i64::MAX)).into(),
            left,
        ]);
    }
    let mut text = table.render(paint, "");
    let moves: usize = days.iter().map(|day| day.moves).sum();
    let thrashed = days.last().map_or(0, |day| day.thrashed);
    let _ = writeln!(text, "{moves} moves in {} days; {thrashed} came back", days.len());
    text
}

fn event(event: &Event) -> String {
    match event {
        Event::AddShards(count) => format!("{count} shards added"),
        Event::LoseDomain(domain) => format!("{domain} lost"),
        Event::RestoreDomain(domain) => format!("{domain} back"),
        Event::Drain(shard) => format!("drains {shard}"),
    }
}
