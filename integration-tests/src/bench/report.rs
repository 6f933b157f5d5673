//! What a benchmark run says: a printed line and a JSON entry a figure.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Which way a figure is better, and where its goal lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Good from here up.
    AtLeast(f64),
    /// Good up to here.
    AtMost(f64),
    /// Told for comparison; nothing is asked of it.
    None,
}

/// One figure. With a peer, the goal is on the ratio; without one, on the value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Stable name: `group.what`.
    pub name: String,
    /// What was measured, in `unit`.
    pub value: f64,
    /// Unit of `value` and `peer_value`.
    pub unit: String,
    /// What it is compared with, measured in the same run.
    pub peer: Option<String>,
    /// What the peer reached.
    pub peer_value: Option<f64>,
    /// `value / peer_value`.
    pub ratio: Option<f64>,
    /// What is asked of the ratio, or of the value where there is no peer.
    pub goal: Goal,
    /// Whether it is reached.
    pub ok: bool,
}

impl Figure {
    /// A figure that stands alone.
    pub fn alone(name: &str, value: f64, unit: &str, goal: Goal) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.into(),
            peer: None,
            peer_value: None,
            ratio: None,
            goal,
            ok: reached(value, goal),
        }
    }

    /// A figure beside a peer's.
    pub fn beside(
        name: &str,
        value: f64,
        unit: &str,
        (peer, peer_value): (&str, f64),
        goal: Goal,
    ) -> Self {
        let ratio = value / peer_value;
        Self {
            peer: Some(peer.into()),
            peer_value: Some(peer_value),
            ratio: Some(ratio),
            ok: reached(ratio, goal),
            ..Self::alone(name, value, unit, goal)
        }
    }
}

fn reached(value: f64, goal: Goal) -> bool {
    match goal {
        Goal::AtLeast(least) => value >= least,
        Goal::AtMost(most) => value <= most,
        Goal::None => value.is_finite(),
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = if self.ok { "ok  " } else { "MISS" };
        write!(f, "{mark} {:<44} {:>12} {}", self.name, short(self.value), self.unit)?;
        if let (Some(peer), Some(value), Some(ratio)) = (&self.peer, self.peer_value, self.ratio) {
            write!(f, "  ({peer}: {}, ratio {ratio:.2})", short(value))?;
        }
        match self.goal {
            Goal::AtLeast(least) => write!(f, "  goal >= {}", short(least)),
            Goal::AtMost(most) => write!(f, "  goal <= {}", short(most)),
            Goal::None => Ok(()),
        }
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1_000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// All figures of a run. Figures of groups that did not run stay as the last run left them.
#[derive(Debug)]
pub struct Report {
    path: PathBuf,
    figures: Vec<Figure>,
    fresh: Vec<String>,
}

impl Report {
    /// Goes on with the report at `path`, or begins one.
    pub fn open(path: &Path) -> Self {
        let figures = fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { path: path.into(), figures, fresh: Vec::new() }
    }

    /// Prints a figure and writes the report, so that a later crash loses nothing.
    pub fn add(&mut self, figure: Figure) -> io::Result<()> {
        println!("{figure}");
        self.fresh.push(figure.name.clone());
        self.figures.retain(|old| old.name != figure.name);
        self.figures.push(figure);
        self.figures.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(&self.figures).map_err(io::Error::other)?;
        fs::write(&self.path, text + "\n")
    }

    /// Figures of this run that missed their goal.
    pub fn missed(&self) -> Vec<&Figure> {
        self.figures.iter().filter(|f| !f.ok && self.fresh.contains(&f.name)).collect()
    }

    /// Figures of this run.
    pub fn count(&self) -> usize {
        self.fresh.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_on_the_ratio_where_there_is_a_peer() {
        let figure = Figure::beside("a.b", 90.0, "1/s", ("echo", 100.0), Goal::AtLeast(0.9));
        assert!(figure.ok);
        assert!(!Figure::beside("a.b", 89.0, "1/s", ("echo", 100.0), Goal::AtLeast(0.9)).ok);
        assert!(!Figure::alone("a.b", 201.0, "ns", Goal::AtMost(200.0)).ok);
        assert!(!Figure::alone("a.b", f64::NAN, "ns", Goal::AtMost(200.0)).ok);
    }

    #[test]
    fn a_second_run_of_one_group_keeps_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let mut first = Report::open(&path);
        first.add(Figure::alone("a.x", 1.0, "s", Goal::None)).unwrap();
        first.add(Figure::alone("b.x", 1.0, "s", Goal::AtMost(0.5))).unwrap();
        assert_eq!(first.missed().len(), 1);
        let mut second = Report::open(&path);
        second.add(Figure::alone("a.x", 2.0, "s", Goal::None)).unwrap();
        assert_eq!((second.count(), second.missed().len()), (1, 0));
        let names: Vec<String> = Report::open(&path).figures.into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["a.x", "b.x"]);
    }
}
