//! Moves in words.

use std::fmt::Write as _;

use airfleet_proto::moves::v1::{
    Move, MoveFinding, MovePhase, MoveProgress, MoveProof, MoveProofLine, MoveSeverity, MoveTable,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    document::timestamp,
    human,
    screen::{Paint, Tone},
    table::{Cell, Table, or_none},
};

/// The last word of an enum's value.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

fn phase(phase: MovePhase) -> String {
    word(phase.as_str_name(), "MOVE_PHASE_")
}

fn severity(severity: MoveSeverity) -> String {
    word(severity.as_str_name(), "MOVE_SEVERITY_")
}

fn when(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    time.and_then(timestamp)
}

/// A finding in one line.
pub(super) fn finding(one: &MoveFinding) -> String {
    let MoveFinding { code, message, remedy, .. } = one;
    format!("{} {code}: {message}; {remedy}", severity(one.severity()))
}

/// A finding for scripts.
pub(super) fn finding_value(one: &MoveFinding) -> Value {
    json!({
        "code": one.code,
        "severity": severity(one.severity()),
        "message": one.message,
        "remedy": one.remedy,
    })
}

/// A move in one line: where it is and what it waits for.
pub(super) fn line(one: &Move) -> String {
    let mut text = format!(
        "move/{} {} {} -> {}: {}",
        one.id,
        one.namespace,
        one.source_shard,
        one.target_shard,
        phase(one.phase())
    );
    if !one.waiting.is_empty() {
        let _ = write!(text, ", {}", one.waiting);
    }
    if let Some(progress) = &one.progress {
        if let Some(rows) = rows(progress) {
            let _ = write!(text, ", {rows}");
        }
        if let Some(left) = time_left(progress, Timestamp::now()) {
            let _ = write!(text, ", {left}");
        }
    }
    if let Some(blackout) = blackout(one) {
        let _ = write!(text, ", blackout {blackout}");
    }
    if let Some(error) = &one.last_error
        && one.finish_time.is_none_or(|_| one.phase() == MovePhase::Aborted)
    {
        let _ = write!(text, " ({}: {})", error.code, error.message);
    }
    if let Some(proof) = one.proof.as_ref().filter(|proof| proof.differing > 0) {
        let _ =
            write!(text, " [other runs than expected of {}]", human::count(proof.differing, "DAG"));
    }
    if one.alarming {
        text.push_str(" [needs a look]");
    }
    text
}

/// All of a move, for people.
pub(super) fn text(one: &Move) -> String {
    let now = Timestamp::now();
    let mut text = String::new();
    let mut tell = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "{:<14} {value}", format!("{name}:"));
        }
    };
    let at = |time| when(time).map(|time| human::time_and_age(time, now)).unwrap_or_default();
    tell("Move", one.id.clone());
    tell("Namespace", format!("{} (generation {} as it began)", one.namespace, one.generation));
    tell("From", one.source_shard.clone());
    tell("To", one.target_shard.clone());
    let alarm = if one.alarming { ", needs a look" } else { "" };
    tell("Phase", format!("{}, try {}{alarm}", phase(one.phase()), one.attempt));
    tell("Since", at(one.phase_time));
    tell("Waiting", one.waiting.clone());
    if let Some(error) = &one.last_error {
        let during = phase(error.phase());
        tell("Last error", format!("{}: {} (in {during})", error.code, error.message));
    }
    if let Some(cancel) = &one.cancel {
        tell("Aborted by", format!("{}: {}", cancel.actor, cancel.reason));
    }
    if let Some(progress) = &one.progress {
        let counts = [
            ("running", progress.running),
            ("queued", progress.queued),
            ("deferred", progress.deferred),
        ];
        let counts = counts.map(|(what, count)| format!("{count} {what}")).join(", ");
        tell("Tasks", counts);
        tell("Rows", rows(progress).unwrap_or_default());
        if progress.copied_bytes > 0 {
            tell("Copied", copied(progress, now));
        }
        for table in &progress.tables {
            let of = if table.total_rows > 0 {
                format!(" of {}", table.total_rows)
            } else {
                String::new()
            };
            let bytes = human::bytes(table.bytes);
            tell("  Table", format!("{}: {}{of} rows, {bytes}", table.table, table.rows));
        }
        let there = |connected: bool| if connected { "connected" } else { "away" };
        let (source, target) = (there(progress.source_connected), there(progress.target_connected));
        tell("Agents", format!("source {source}, target {target}"));
        if progress.ahead > 0 {
            tell("Ahead", human::count(progress.ahead, "move"));
        }
    }
    tell("Asked by", format!("{} {}", one.requested_by, one.reason).trim().to_owned());
    tell("Begun", at(one.create_time));
    tell("Quiesced", at(one.quiesce_time));
    tell("Flipped", at(one.flip_time));
    tell("Ended", at(one.finish_time));
    tell("Blackout", blackout(one).unwrap_or_default());
    if let Some(proof) = &one.proof {
        tell("Proof", proof_line(proof));
        for line in proof.lines.iter().filter(|line| line.differs) {
            let MoveProofLine { dag_id, runs_expected, runs_found, runs_inserted, .. } = line;
            let newest = |time| {
                when(time).map_or_else(|| "none".to_owned(), |time: Timestamp| time.to_string())
            };
            tell(
                "  Differs",
                format!(
                    "{dag_id}: {runs_expected} runs and {runs_inserted} inserted expected, \
                     {runs_found} found; newest {} expected, {} found",
                    newest(line.newest_expected),
                    newest(line.newest_found)
                ),
            );
        }
    }
    text
}

/// How many rows the target has of all that travel; none where no table is on its way.
fn rows(progress: &MoveProgress) -> Option<String> {
    let tables = &progress.tables;
    let sum = |of: fn(&MoveTable) -> i64| tables.iter().map(of).sum::<i64>();
    let (rows, total) = (sum(|table| table.rows), sum(|table| table.total_rows));
    let of = if total > 0 { format!(" of {total}") } else { String::new() };
    (!tables.is_empty()).then(|| format!("{rows}{of} rows"))
}

/// How long the transfer that is on will still take; none where that is not known.
fn time_left(progress: &MoveProgress, now: Timestamp) -> Option<String> {
    let end = when(progress.estimated_end_time)?;
    let left = end.duration_since(now).as_secs().max(0);
    Some(format!("about {left} s left"))
}

/// How much was copied, of how much, and until when.
fn copied(progress: &MoveProgress, now: Timestamp) -> String {
    let mut text = human::bytes(progress.copied_bytes);
    if progress.total_bytes > 0 {
        let _ = write!(text, " of {}", human::bytes(progress.total_bytes));
    }
    if let Some(left) = time_left(progress, now) {
        let _ = write!(text, ", {left}");
    }
    text
}

/// For how long no shard could make runs.
fn blackout(one: &Move) -> Option<String> {
    let seconds = one.blackout_ms as f64 / 1000.0;
    let so_far = if one.progress.is_some() && one.proof.is_none() { " so far" } else { "" };
    (one.blackout_ms > 0).then(|| format!("{seconds:.1} s{so_far}"))
}

fn proof_line(proof: &MoveProof) -> String {
    let MoveProof { dags, runs_expected, runs_found, runs_inserted, differing, .. } = proof;
    let verdict = match differing {
        0 => "holds".to_owned(),
        count => format!("DOES NOT HOLD for {}", human::count(*count, "DAG")),
    };
    format!(
        "{verdict}: {}, {runs_expected} runs and {runs_inserted} inserted expected, {runs_found} \
         found",
        human::count(*dags, "DAG")
    )
}

fn proof_value(proof: &MoveProof) -> Value {
    let time = |time| when(time).map(|time| time.to_string());
    let line = |line: &MoveProofLine| {
        json!({
            "dagId": line.dag_id,
            "runsExpected": line.runs_expected,
            "runsFound": line.runs_found,
            "runsInserted": line.runs_inserted,
            "newestExpected": time(line.newest_expected),
            "newestFound": time(line.newest_found),
            "differs": line.differs,
        })
    };
    json!({
        "holds": proof.differing == 0,
        "dags": proof.dags,
        "differing": proof.differing,
        "runsExpected": proof.runs_expected,
        "runsFound": proof.runs_found,
        "runsInserted": proof.runs_inserted,
        "lines": proof.lines.iter().map(line).collect::<Vec<_>>(),
    })
}

/// Moves as a table.
pub(super) fn table(moves: &[Move], paint: Paint) -> String {
    let now = Timestamp::now();
    let mut table =
        Table::new(["MOVE", "NAMESPACE", "FROM", "TO", "PHASE", "AGE", "BLACKOUT", "WAITING"]);
    for one in moves {
        let tone = match one.phase() {
            MovePhase::Done => Tone::Good,
            MovePhase::Aborted | MovePhase::Aborting => Tone::Warn,
            _ if one.alarming => Tone::Bad,
            _ => Tone::Plain,
        };
        table.row([
            one.id.as_str().into(),
            one.namespace.as_str().into(),
            one.source_shard.as_str().into(),
            one.target_shard.as_str().into(),
            Cell::toned(tone, phase(one.phase())),
            when(one.create_time).map(|time| human::age(time, now)).unwrap_or_default().into(),
            or_none(&blackout(one).unwrap_or_default()),
            or_none(&one.waiting),
        ]);
    }
    table.render(paint, "")
}

/// A move for scripts.
pub(super) fn value(one: &Move) -> Value {
    let time = |time| when(time).map(|time| time.to_string());
    json!({
        "id": one.id,
        "namespace": one.namespace,
        "sourceShard": one.source_shard,
        "targetShard": one.target_shard,
        "generation": one.generation,
        "phase": phase(one.phase()),
        "phaseTime": time(one.phase_time),
        "deadlineTime": time(one.deadline_time),
        "attempt": one.attempt,
        "waiting": one.waiting,
        "alarming": one.alarming,
        "lastError": one.last_error.as_ref().map(|error| json!({
            "code": error.code,
            "message": error.message,
            "phase": phase(error.phase()),
            "time": time(error.time),
        })),
        "cancel": one.cancel.as_ref().map(|cancel| json!({
            "actor": cancel.actor,
            "reason": cancel.reason,
            "time": time(cancel.time),
        })),
        "forceLostSource": one.options.as_ref().is_some_and(|options| options.force_lost_source),
        "requestedBy": one.requested_by,
        "reason": one.reason,
        "createTime": time(one.create_time),
        "quiesceTime": time(one.quiesce_time),
        "flipTime": time(one.flip_time),
        "finishTime": time(one.finish_time),
        "progress": one.progress.as_ref().map(|progress| json!({
            "running": progress.running,
            "queued": progress.queued,
            "deferred": progress.deferred,
            "copiedBytes": progress.copied_bytes,
            "totalBytes": progress.total_bytes,
            "estimatedEndTime": time(progress.estimated_end_time),
            "tables": progress.tables.iter().map(|table| json!({
                "table": table.table,
                "rows": table.rows,
                "totalRows": table.total_rows,
                "bytes": table.bytes,
            })).collect::<Vec<_>>(),
            "sourceConnected": progress.source_connected,
            "targetConnected": progress.target_connected,
            "ahead": progress.ahead,
        })),
        "blackoutMs": one.blackout_ms,
        "proof": one.proof.as_ref().map(proof_value),
    })
}

#[cfg(test)]
mod tests {
    use airfleet_proto::moves::v1::MoveFailure;

    use super::*;

    fn one() -> Move {
        Move {
            id: "m-1".into(),
            namespace: "payments".into(),
            source_shard: "shard-a".into(),
            target_shard: "shard-b".into(),
            phase: MovePhase::Quiescing.into(),
            waiting: "waits for tasks to finish: 2 running, 0 queued, 0 deferred".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_line_says_where_it_is_and_what_it_waits_for() {
        assert_eq!(
            line(&one()),
            "move/m-1 payments shard-a -> shard-b: QUIESCING, waits for tasks to finish: 2 \
             running, 0 queued, 0 deferred"
        );
        let error = MoveFailure {
            code: "NOT_DRAINED".into(),
            message: "slow".into(),
            ..Default::default()
        };
        let aborted = Move {
            phase: MovePhase::Aborted.into(),
            waiting: String::new(),
            last_error: Some(error),
            finish_time: Some(prost_types::Timestamp::default()),
            ..one()
        };
        assert!(line(&aborted).ends_with("ABORTED (NOT_DRAINED: slow)"), "{}", line(&aborted));
        let done = Move { phase: MovePhase::Done.into(), ..aborted };
        assert!(line(&done).ends_with("DONE"), "what was overcome is not told: {}", line(&done));
    }

    #[test]
    fn a_proof_that_does_not_hold_is_seen_in_every_form() {
        let lines = vec![MoveProofLine {
            dag_id: "pay.daily".into(),
            runs_expected: 5,
            runs_found: 4,
            differs: true,
            ..Default::default()
        }];
        let proof = MoveProof {
            dags: 2,
            runs_expected: 9,
            runs_found: 8,
            differing: 1,
            lines,
            ..Default::default()
        };
        let bad = Move { proof: Some(proof), blackout_ms: 4_200, ..one() };
        assert!(line(&bad).ends_with("[other runs than expected of 1 DAG]"), "{}", line(&bad));
        assert!(text(&bad).contains("DOES NOT HOLD for 1 DAG: 2 DAGs, 9 runs"), "{}", text(&bad));
        assert!(text(&bad).contains("pay.daily: 5 runs and 0 inserted expected, 4 found"));
        assert!(text(&bad).contains("Blackout:      4.2 s\n"), "{}", text(&bad));
        assert_eq!(value(&bad)["proof"]["holds"], false);
    }

    #[test]
    fn while_rows_travel_it_says_how_many_there_are_and_for_how_long_nothing_runs() {
        let table = |table: &str, rows, total_rows| MoveTable {
            table: table.into(),
            rows,
            total_rows,
            bytes: 100,
        };
        let in_a_minute = Timestamp::now().as_second() + 60;
        let progress = MoveProgress {
            copied_bytes: 2048,
            total_bytes: 4096,
            estimated_end_time: Some(prost_types::Timestamp { seconds: in_a_minute, nanos: 0 }),
            tables: vec![table("dag_run", 100, 100), table("xcom", 20, 400)],
            ..Default::default()
        };
        let copying = Move {
            phase: MovePhase::Copying.into(),
            waiting: "copies (rest part), 2048 bytes so far".into(),
            progress: Some(progress),
            blackout_ms: 4_200,
            ..one()
        };
        let line = line(&copying);
        let (before, after) = line.split_once(", about ").unwrap();
        assert_eq!(
            before,
            "move/m-1 payments shard-a -> shard-b: COPYING, copies (rest part), 2048 bytes so \
             far, 120 of 500 rows"
        );
        assert!(after.ends_with(" s left, blackout 4.2 s so far"), "{line}");
        let text = text(&copying);
        assert!(text.contains("Rows:          120 of 500 rows\n"), "{text}");
        assert!(text.contains("Copied:        2.0 KiB of 4.0 KiB, about "), "{text}");
        assert!(text.contains("Table:       xcom: 20 of 400 rows, 100 B\n"), "{text}");
        // A source of an earlier version does not tell how many there are.
        let progress = MoveProgress { tables: vec![table("xcom", 20, 0)], ..Default::default() };
        let copying = Move { progress: Some(progress), ..copying };
        assert!(super::line(&copying).contains("far, 20 rows, blackout"));
        assert_eq!(rows(&MoveProgress::default()), None);
    }

    #[test]
    fn every_form_names_the_phase() {
        assert_eq!(value(&one())["phase"], "QUIESCING");
        assert!(text(&one()).contains("QUIESCING, try 0"));
    }
}
