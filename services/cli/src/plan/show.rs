//! Plans as text and as JSON.

use std::{collections::BTreeMap, fmt::Write as _};

use airfleet_domain::placement::amount::percent;
use airfleet_proto::placement::v1::{Plan, PlanState, PlannedMove, PlannedMoveState};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    document, explain, human,
    screen::{Paint, Tone},
    table::{Cell, Fields, Table, or_none},
};

/// Namespaces that could not be helped, as shown to people.
const UNSOLVED_SHOWN: usize = 20;

/// A plan's state in one word.
pub(super) fn state_name(state: PlanState) -> &'static str {
    match state {
        PlanState::Unspecified => "unknown",
        PlanState::Ready => "ready",
        PlanState::Applying => "applying",
        PlanState::Stopped => "stopped",
        PlanState::Done => "done",
        PlanState::Cancelled => "cancelled",
    }
}

fn state_cell(plan: &Plan) -> Cell {
    let tone = match plan.state() {
        PlanState::Done => Tone::Good,
        PlanState::Stopped => Tone::Bad,
        PlanState::Applying => Tone::Warn,
        _ => Tone::Plain,
    };
    let hypothetical = if plan.hypothetical { " (what if)" } else { "" };
    Cell::toned(tone, format!("{}{hypothetical}", state_name(plan.state())))
}

fn move_state(planned: &PlannedMove) -> &'static str {
    match planned.state() {
        PlannedMoveState::Unspecified => "UNKNOWN",
        PlannedMoveState::Waiting => "WAITING",
        PlannedMoveState::Running => "RUNNING",
        PlannedMoveState::Done => "DONE",
        PlannedMoveState::Failed => "FAILED",
        PlannedMoveState::Skipped => "SKIPPED",
    }
}

/// How long it will take.
pub(super) fn eta(plan: &Plan) -> String {
    human::short_span(plan.eta_ms)
}

fn made(plan: &Plan) -> String {
    let time = plan.create_time.and_then(document::timestamp);
    time.map(|time| human::time_and_age(time, Timestamp::now())).unwrap_or_default()
}

/// Plans as a table.
pub(super) fn table(plans: &[Plan], paint: Paint) -> String {
    let mut table =
        Table::new(["NAME", "PURPOSE", "STATE", "MOVES ", "PEAK ", "AFTER ", "AGE", "BY"]);
    for plan in plans {
        let age = plan.create_time.and_then(document::timestamp);
        table.row([
            plan.name.as_str().into(),
            plan.purpose.as_str().into(),
            state_cell(plan),
            plan.move_count.to_string().into(),
            percent(plan.peak_before).into(),
            percent(plan.peak_after).into(),
            age.map(|time| human::age(time, Timestamp::now())).unwrap_or_default().into(),
            or_none(&plan.actor),
        ]);
    }
    table.render(paint, "")
}

/// A plan for people.
pub(super) fn text(plan: &Plan, moves_shown: usize, paint: Paint) -> String {
    let mut fields = Fields::default();
    fields.add("Plan", plan.name.as_str());
    fields.add("Purpose", plan.purpose.as_str());
    fields.add("State", state_cell(plan));
    if !plan.state_reason.is_empty() {
        fields.add("Because", plan.state_reason.as_str());
    }
    fields.add("Made", format!("{} by {}", made(plan), plan.actor));
    fields.add("Stands on", format!("revision {}, seed {}", plan.revision, plan.seed));
    fields.add("Hash", plan.hash.as_str());
    let moves = human::count(plan.move_count, "move");
    let waves = human::count(plan.wave_count, "wave");
    fields.add("Moves", format!("{moves} in {waves}, cost {}, about {}", plan.cost, eta(plan)));
    if plan.done_count + plan.failed_count > 0 {
        let done = format!("{} made, {} failed", plan.done_count, plan.failed_count);
        fields.add("So far", done);
    }
    fields.add(
        "Peak",
        format!(
            "{} -> {} (no placement is below {}; too full from {})",
            percent(plan.peak_before),
            percent(plan.peak_after),
            percent(plan.peak_bound),
            percent(plan.target),
        ),
    );
    fields.add("Search", search(&plan.stop));
    let mut text = fields.render(paint, "");
    if !plan.levels.is_empty() {
        text.push('\n');
        let mut levels = Table::new(["OBJECTIVE", "BEFORE", "AFTER"]);
        for level in &plan.levels {
            let tone = match level.change {
                ..0 => Tone::Good,
                0 => Tone::Plain,
                // What moves cost is not worse for being paid.
                _ if level.name == "cost of moves" => Tone::Plain,
                _ => Tone::Bad,
            };
            levels.row([
                level.name.as_str().into(),
                level.before.as_str().into(),
                Cell::toned(tone, level.after.as_str()),
            ]);
        }
        text.push_str(&levels.render(paint, ""));
    }
    if !plan.moves.is_empty() {
        text.push('\n');
        text.push_str(&moves_table(plan, moves_shown, paint));
    }
    if plan.unsolved_count > 0 {
        let count = human::count(plan.unsolved_count, "namespace");
        let _ = writeln!(text, "\n{count} could not be helped:");
        for unsolved in plan.unsolved.iter().take(UNSOLVED_SHOWN) {
            let _ = writeln!(text, "  {}: {}", unsolved.namespace, unsolved.reason);
        }
        let more = plan.unsolved_count - plan.unsolved.len().min(UNSOLVED_SHOWN) as i64;
        if more > 0 {
            let _ = writeln!(text, "  … and {more} more");
        }
    }
    text
}

fn moves_table(plan: &Plan, shown: usize, paint: Paint) -> String {
    let mut table = Table::new(["WAVE ", "NAMESPACE", "FROM", "TO", "COST ", "STATE", "WHY"]);
    for planned in plan.moves.iter().take(shown) {
        let state = move_state(planned);
        let tone = match planned.state() {
            PlannedMoveState::Done => Tone::Good,
            PlannedMoveState::Failed => Tone::Bad,
            PlannedMoveState::Running | PlannedMoveState::Skipped => Tone::Warn,
            _ => Tone::Dim,
        };
        let why = if planned.detail.is_empty() { &planned.reason } else { &planned.detail };
        table.row([
            planned.wave.to_string().into(),
            planned.namespace.as_str().into(),
            or_none(&planned.from),
            planned.to.as_str().into(),
            planned.cost.to_string().into(),
            Cell::toned(tone, state),
            why.as_str().into(),
        ]);
    }
    let mut text = table.render(paint, "");
    let more = plan.moves.len().saturating_sub(shown);
    if more > 0 {
        let _ = writeln!(text, "… and {more} more; --moves COUNT shows them");
    }
    text
}

fn search(stop: &str) -> String {
    match stop {
        "REACHED" => "reached all that it looked for".into(),
        "PLATEAU" => "found nothing better".into(),
        "COST" => "stopped at the budget".into(),
        "STEPS" => "ran out of time; a longer --time-limit may find more".into(),
        "NOT_WORTH_IT" => "what it found is not worth its cost".into(),
        other => other.to_owned(),
    }
}

/// A plan for scripts.
pub(super) fn value(plan: &Plan) -> Value {
    json!({
        "name": plan.name,
        "hash": plan.hash,
        "state": state_name(plan.state()),
        "stateReason": plan.state_reason,
        "purpose": plan.purpose,
        "hypothetical": plan.hypothetical,
        "lostShards": plan.lost_shards,
        "revision": plan.revision,
        "seed": plan.seed,
        "actor": plan.actor,
        "createTime": plan.create_time.and_then(document::timestamp).map(|t| t.to_string()),
        "levels": explain::levels(&plan.levels),
        "peakBeforeMillionths": plan.peak_before,
        "peakAfterMillionths": plan.peak_after,
        "peakBoundMillionths": plan.peak_bound,
        "targetMillionths": plan.target,
        "stop": plan.stop,
        "moveCount": plan.move_count,
        "waveCount": plan.wave_count,
        "doneCount": plan.done_count,
        "failedCount": plan.failed_count,
        "cost": plan.cost,
        "etaMs": plan.eta_ms,
        "dimensions": plan.dimensions,
        "moves": plan.moves.iter().map(|planned| json!({
            "namespace": planned.namespace,
            "from": planned.from,
            "to": planned.to,
            "wave": planned.wave,
            "cost": planned.cost,
            "demand": planned.demand,
            "reason": planned.reason,
            "state": move_state(planned),
            "detail": planned.detail,
        })).collect::<Vec<_>>(),
        "unsolvedCount": plan.unsolved_count,
        "unsolved": plan.unsolved.iter().map(|unsolved| json!({
            "namespace": unsolved.namespace,
            "reason": unsolved.reason,
        })).collect::<Vec<_>>(),
    })
}

/// Where two plans send namespaces differently: as text, as JSON, and whether they do.
pub(super) fn differences(one: &Plan, other: &Plan) -> (String, Value, bool) {
    fn ends(plan: &Plan) -> BTreeMap<&str, &str> {
        plan.moves.iter().map(|m| (m.namespace.as_str(), m.to.as_str())).collect()
    }
    let (here, there) = (ends(one), ends(other));
    let mut names: Vec<&str> = here.keys().chain(there.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| here.get(name) != there.get(name));
    let end = |ends: &BTreeMap<&str, &str>, name: &str| {
        ends.get(name).map_or("stays", |shard| *shard).to_owned()
    };
    let mut text = String::new();
    for name in &names {
        let _ = writeln!(text, "{name}: {} -> {}", end(&here, name), end(&there, name));
    }
    let _ = writeln!(
        text,
        "{} moves in {}, {} in {}; {} differ; peak after {} and {}",
        one.move_count,
        one.name,
        other.move_count,
        other.name,
        names.len(),
        percent(one.peak_after),
        percent(other.peak_after),
    );
    let value = json!({
        "differences": names.iter().map(|name| json!({
            "namespace": name, "here": here.get(name), "there": there.get(name),
        })).collect::<Vec<_>>(),
    });
    (text, value, !names.is_empty())
}
