//! `airfleet watch`: assignments as they change.

use std::{fmt::Write as _, time::Duration};

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::{
    args::{TextOrJson, duration},
    document::{self, Assignment},
    error::{Error, Exit, Result},
    follow::{Change, Event, Follower, News, Table},
    human,
    screen::{Paint, Screen, Tone},
    session::Session,
};

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  airfleet watch
  airfleet watch payments search
  airfleet watch --shard shard-a -o json | jq -c 'select(.type == \"change\")'
  airfleet watch --count 1 --timeout 1m            wait for the next change
  airfleet watch --until-idle                      wait until nothing changes any more

Changes are shown in the order of their revisions. A lost connection is resumed without a gap.")]
pub struct Args {
    /// Only these namespaces
    #[arg(value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// Only what comes to or leaves this shard
    #[arg(long, value_name = "SHARD")]
    shard: Option<String>,
    /// List what there is before showing changes
    #[arg(long)]
    initial: bool,
    /// End after so many changes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End once nothing has changed for so long
    #[arg(long, value_name = "DURATION", value_parser = duration, num_args = 0..=1,
          require_equals = true, default_missing_value = "2s")]
    until_idle: Option<Duration>,
    /// Fail if it has not ended by itself after so long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Output form; json prints an object a line
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: TextOrJson,
}

impl Args {
    fn wants(&self, change: &Change) -> bool {
        let on_shard = |assignment: &Option<Assignment>, shard: &str| {
            assignment.as_ref().is_some_and(|assignment| assignment.shard == shard)
        };
        let by_shard =
            |shard: &String| on_shard(&change.before, shard) || on_shard(&change.after, shard);
        (self.namespaces.is_empty() || self.namespaces.contains(&change.namespace))
            && self.shard.as_ref().is_none_or(by_shard)
    }
}

/// Does it.
pub async fn run(session: &mut Session<'_>, args: Args) -> Result<Exit> {
    let started = Instant::now();
    let deadline = args.timeout.map(|timeout| started + timeout);
    let mut follower = Follower::start(&session.router).await?;
    let screen = &mut *session.screen;
    let mut seen = 0;
    let mut last_change = started;
    let mut width = 0;
    loop {
        if screen.is_closed() {
            return Ok(Exit::Ok);
        }
        let is_ready = width > 0;
        let idle = args.until_idle.filter(|_| is_ready).map(|idle| last_change + idle);
        let ends = [deadline, idle].into_iter().flatten().min();
        let news = match ends {
            Some(end) => timeout_at(end, follower.next()).await,
            None => Ok(follower.next().await),
        };
        let events = match news {
            Ok(news) => match news? {
                News::Events(events) => events,
                News::Interrupted(why) => {
                    let at = follower.table().revision();
                    screen.warn(&format!("lost the router: {why}; resuming after revision {at}"));
                    continue;
                }
            },
            Err(_) if idle.is_some() && ends == idle => return Ok(Exit::Ok),
            Err(_) => return Err(timed_out(&args, seen)),
        };
        for event in events {
            match event {
                Event::Ready { revision } => {
                    width = name_width(follower.table());
                    begin(screen, &args, follower.table(), revision, width)?;
                    last_change = Instant::now();
                }
                Event::Changed(change) if args.wants(&change) => {
                    show(screen, &args, &change, width)?;
                    last_change = Instant::now();
                    seen += 1;
                    if args.count == Some(seen) {
                        return Ok(Exit::Ok);
                    }
                }
                Event::Changed(_) => {}
            }
        }
        screen.flush()?;
    }
}

fn timed_out(args: &Args, seen: u64) -> Error {
    let span = human::span(args.timeout.unwrap_or_default());
    match args.count {
        Some(count) => Error::new(format!("saw {seen} of {count} changes within {span}")),
        None => Error::new(format!(
            "assignments were followed for {span}; {}",
            human::count(seen as i64, "change")
        )),
    }
}

/// Room for the names that there are, within reason.
fn name_width(table: &Table) -> usize {
    table.assignments().keys().map(String::len).max().unwrap_or(0).clamp(12, 32)
}

/// What there is before the first change.
fn begin(
    screen: &mut Screen,
    args: &Args,
    table: &Table,
    revision: i64,
    width: usize,
) -> Result<()> {
    let all = table.assignments().values();
    match args.output {
        TextOrJson::Json => screen.line(&document::json_line(&Snapshot::of(table, revision))?)?,
        TextOrJson::Text => {
            let text = summary(table, revision);
            screen.line(&screen.paint().tone(Tone::Dim, &text))?;
        }
    }
    if args.initial {
        for assignment in all {
            let change = Change {
                revision: assignment.revision,
                namespace: assignment.namespace.clone(),
                before: None,
                after: Some(assignment.clone()),
            };
            if !args.wants(&change) {
                continue;
            }
            match args.output {
                TextOrJson::Json => {
                    let line = Existing { r#type: "existing", assignment };
                    screen.line(&document::json_line(&line)?)?;
                }
                TextOrJson::Text => {
                    let (time, paint) =
                        (assignment.update_time.unwrap_or_default(), screen.paint());
                    screen.line(&line(&change, time, width, paint))?;
                }
            }
        }
    }
    Ok(())
}

fn show(screen: &mut Screen, args: &Args, change: &Change, width: usize) -> Result<()> {
    let text = match args.output {
        TextOrJson::Text => line(change, Timestamp::now(), width, screen.paint()),
        TextOrJson::Json => document::json_line(&Changed::of(change))?,
    };
    screen.line(&text)
}

/// `At revision 57: 55 namespaces, 54 assigned (27 to shard-a, 27 to shard-b), 1 unplaced.`
fn summary(table: &Table, revision: i64) -> String {
    let Snapshot { namespaces, assigned, .. } = Snapshot::of(table, revision);
    let mut shards: std::collections::BTreeMap<&str, i64> = std::collections::BTreeMap::new();
    for assignment in table.assignments().values().filter(|a| a.is_assigned()) {
        *shards.entry(&assignment.shard).or_default() += 1;
    }
    let count = shards.len();
    let mut shards: Vec<String> =
        shards.into_iter().map(|(shard, count)| format!("{count} to {shard}")).take(8).collect();
    if count > shards.len() {
        shards.push(format!("the rest to {} more shards", count - shards.len()));
    }
    let shards =
        if shards.is_empty() { String::new() } else { format!(" ({})", shards.join(", ")) };
    let unassigned = namespaces - assigned;
    let unassigned =
        if unassigned > 0 { format!(", {unassigned} without a shard") } else { String::new() };
    let namespaces = human::count(namespaces, "namespace");
    format!(
        "At revision {revision}: {namespaces}, {assigned} assigned{shards}{unassigned}. Watching for changes."
    )
}

/// A change as a line: time, revision, namespace, old -> new, why.
fn line(change: &Change, time: Timestamp, width: usize, paint: Paint) -> String {
    let Change { revision, namespace, before, after } = change;
    let place = |assignment: &Option<Assignment>| match assignment {
        None => "<none>".to_owned(),
        Some(assignment) if assignment.shard.is_empty() => assignment.state.to_owned(),
        Some(assignment) => assignment.shard.clone(),
    };
    let (old, new) = (place(before), place(after));
    let mut what = match (before, after) {
        (Some(_), None) => format!("{old} -> {}", paint.tone(Tone::Bad, "deleted")),
        (Some(_), Some(_)) if old == new => {
            format!("{new} ({})", details(before.as_ref(), after.as_ref()))
        }
        (_, Some(after)) => {
            let tone = if after.is_assigned() { Tone::Good } else { Tone::Warn };
            format!("{old} -> {}", paint.tone(tone, &new))
        }
        (None, None) => old,
    };
    if let Some(after) = after {
        let _ = write!(what, "  generation {}", after.generation);
        if !after.reason.is_empty() {
            let _ = write!(what, "  {}", paint.tone(Tone::Dim, &after.reason));
        }
    }
    let time = time.strftime("%H:%M:%S").to_string();
    let revision = format!("r{revision}");
    format!(
        "{time}  {}  {namespace:width$}  {what}",
        paint.tone(Tone::Dim, &format!("{revision:<6}"))
    )
}

/// What differs where the shard is the same.
fn details(before: Option<&Assignment>, after: Option<&Assignment>) -> String {
    let (Some(before), Some(after)) = (before, after) else { return String::new() };
    let mut parts = Vec::new();
    if before.state != after.state {
        parts.push(format!("{} -> {}", before.state, after.state));
    }
    match (before.pinned_shard.as_str(), after.pinned_shard.as_str()) {
        (old, new) if old == new => {}
        (_, "") => parts.push("unpinned".to_owned()),
        (_, new) => parts.push(format!("pinned to {new}")),
    }
    if before.namespace_uid != after.namespace_uid {
        parts.push("registered anew".to_owned());
    }
    if parts.is_empty() {
        parts.push("updated".to_owned());
    }
    parts.join(", ")
}

#[derive(Serialize)]
struct Snapshot {
    r#type: &'static str,
    revision: i64,
    namespaces: usize,
    assigned: usize,
    unplaced: usize,
}

impl Snapshot {
    fn of(table: &Table, revision: i64) -> Self {
        let all = table.assignments();
        let in_state = |state: &str| all.values().filter(|a| a.state == state).count();
        Self {
            r#type: "snapshot",
            revision,
            namespaces: all.len(),
            assigned: in_state(document::ASSIGNED),
            unplaced: in_state(document::state_name(
                airfleet_proto::router::v1::AssignmentState::Unplaced,
            )),
        }
    }
}

#[derive(Serialize)]
struct Existing<'a> {
    r#type: &'static str,
    assignment: &'a Assignment,
}

#[derive(Serialize)]
struct Changed<'a> {
    r#type: &'static str,
    revision: i64,
    namespace: &'a str,
    before: Option<&'a Assignment>,
    after: Option<&'a Assignment>,
}

impl<'a> Changed<'a> {
    fn of(change: &'a Change) -> Self {
        Self {
            r#type: "change",
            revision: change.revision,
            namespace: &change.namespace,
            before: change.before.as_ref(),
            after: change.after.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::state_name;
    use airfleet_proto::router::v1::AssignmentState;

    fn at(shard: &str, generation: i64) -> Assignment {
        let state =
            if shard.is_empty() { AssignmentState::Unplaced } else { AssignmentState::Assigned };
        Assignment {
            namespace: "payments".into(),
            state: state_name(state),
            shard: shard.into(),
            generation,
            ..Assignment::default()
        }
    }

    fn shown(before: Option<Assignment>, after: Option<Assignment>) -> String {
        let change = Change { revision: 57, namespace: "payments".into(), before, after };
        let time = Timestamp::from_second(3661).unwrap();
        line(&change, time, 12, Paint::PLAIN)
    }

    #[test]
    fn a_line_tells_old_and_new() {
        assert_eq!(
            shown(None, Some(at("shard-a", 1))),
            "01:01:01  r57     payments      <none> -> shard-a  generation 1"
        );
        let moved = Assignment { reason: "pinned".into(), ..at("shard-b", 2) };
        assert!(
            shown(Some(at("shard-a", 1)), Some(moved))
                .ends_with("shard-a -> shard-b  generation 2  pinned")
        );
        assert!(shown(Some(at("", 0)), Some(at("shard-a", 1))).contains("Unplaced -> shard-a"));
        assert!(shown(Some(at("shard-a", 1)), None).ends_with("shard-a -> deleted"));
        let pinned = Assignment { pinned_shard: "shard-a".into(), ..at("shard-a", 1) };
        assert!(
            shown(Some(at("shard-a", 1)), Some(pinned)).contains("shard-a (pinned to shard-a)")
        );
        assert!(shown(Some(at("shard-a", 1)), Some(at("shard-a", 1))).contains("(updated)"));
    }

    #[test]
    fn filters_look_at_both_ends() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let change = Change {
            revision: 1,
            namespace: "payments".into(),
            before: Some(at("shard-a", 1)),
            after: Some(at("shard-b", 2)),
        };
        for (line, wanted) in [
            ("watch", true),
            ("watch payments", true),
            ("watch search", false),
            ("watch --shard shard-a", true),
            ("watch --shard shard-b", true),
            ("watch --shard shard-c", false),
        ] {
            let args = Line::parse_from(line.split(' ')).args;
            assert_eq!(args.wants(&change), wanted, "{line}");
        }
    }
}
