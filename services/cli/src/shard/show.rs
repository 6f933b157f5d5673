//! Shards as rows of a table, as documents, and described.

use std::fmt::Write as _;

use airfleet_domain::{
    manifest::{Entry, Shard},
    resources::Resources,
};
use airfleet_proto::registry::v1::AuditEvent;
use jiff::Timestamp;

use crate::{
    document::{Document, Kept, ShardState, ShardStatus},
    human,
    namespace::{events_table, labels, roles},
    screen::{Paint, Tone},
    table::{Cell, Fields, Table, or_none},
};

/// Most namespaces listed in a description.
const NAMESPACES_MAX: usize = 50;

/// A shard and what the router knows of it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) shard: Shard,
    pub(super) kept: Kept,
    pub(super) state: Option<ShardState>,
}

impl From<Row> for Document<ShardStatus> {
    fn from(row: Row) -> Self {
        Document {
            entry: Entry::Shard(row.shard),
            status: ShardStatus { kept: row.kept, state: row.state },
        }
    }
}

/// The verdict, and whether it is cordoned.
pub fn health_cell(state: &ShardState) -> Cell {
    let tone = match state.health.verdict {
        "Healthy" if state.cordon.is_none() => Tone::Good,
        "Unhealthy" => Tone::Bad,
        _ => Tone::Warn,
    };
    let verdict = if state.health.verdict.is_empty() { "Unknown" } else { state.health.verdict };
    let cordoned = if state.cordon.is_some() { ",Cordoned" } else { "" };
    Cell::toned(tone, format!("{verdict}{cordoned}"))
}

fn agent_cell(state: &ShardState) -> Cell {
    match (state.connected, state.report_time) {
        (true, _) => "connected".into(),
        (false, Some(_)) => Cell::toned(Tone::Warn, "away"),
        (false, None) => Cell::toned(Tone::Dim, "never seen"),
    }
}

const COLUMNS: [&str; 8] =
    ["NAME", "STATUS", "AGENT", "AIRFLOW", "NAMESPACES ", "DAGS ", "SLOTS ", "STARTS/H "];

/// The columns that come from the router; `declared` is the version that the manifest states.
fn state_cells(name: &str, state: Option<&ShardState>, declared: &str) -> Vec<Cell> {
    let unknown = || Cell::toned(Tone::Dim, "?");
    let Some(state) = state else {
        let mut cells = vec![name.into(), Cell::toned(Tone::Warn, "Pending"), unknown()];
        cells.push(or_none(declared));
        cells.resize_with(COLUMNS.len(), unknown);
        return cells;
    };
    let of = |taken: i64, capacity: i64| Cell::from(human::of_capacity(taken, capacity));
    let (reserved, capacity) = (&state.reserved, &state.capacity);
    let version = if state.airflow_version.is_empty() { declared } else { &state.airflow_version };
    vec![
        name.into(),
        health_cell(state),
        agent_cell(state),
        or_none(version),
        state.namespaces.to_string().into(),
        of(reserved.dags, capacity.dags),
        of(reserved.running_slots, capacity.running_slots),
        of(reserved.task_starts_per_hour, capacity.task_starts_per_hour),
    ]
}

/// A short table of what the router knows of shards.
pub fn summary_table<'a>(states: impl IntoIterator<Item = &'a ShardState>) -> Table {
    let mut table = Table::new(COLUMNS);
    for state in states {
        table.row(state_cells(&state.shard, Some(state), ""));
    }
    table
}

pub(super) fn table(rows: &[Row], wide: bool, now: Timestamp) -> Table {
    let mut header = COLUMNS.to_vec();
    header.push("AGE");
    if wide {
        header.extend([
            "METADATA ",
            "PARSING ",
            "SIZE",
            "REGION",
            "DOMAIN",
            "URL",
            "LABELS",
            "TAINTS",
        ]);
    }
    let mut table = Table::new(header);
    for Row { shard, kept, state } in rows {
        let (metadata, spec) = (&shard.metadata, &shard.spec);
        let state = state.as_ref();
        let mut cells = state_cells(&metadata.name, state, &spec.airflow_version);
        cells.push(kept.create_time.map(|time| human::age(time, now)).unwrap_or_default().into());
        if wide {
            let taints: Vec<String> = spec.taints.iter().map(taint).collect();
            let usage = state.map(|state| state.usage);
            cells.extend([
                usage.map_or("?".into(), |usage| human::bytes(usage.metadata_bytes).into()),
                usage.map_or("?".into(), |usage| {
                    human::parse_time(usage.parse_ms_per_minute).into()
                }),
                spec.size.unwrap_or_default().name().into(),
                or_none(&spec.region),
                or_none(&spec.failure_domain),
                or_none(&spec.url),
                or_none(&labels(&metadata.labels)),
                or_none(&taints.join(",")),
            ]);
        }
        table.row(cells);
    }
    table
}

fn taint(taint: &airfleet_domain::labels::Taint) -> String {
    if taint.value.is_empty() {
        taint.key.clone()
    } else {
        format!("{}={}", taint.key, taint.value)
    }
}

/// Everything that a description is made of; what is not known says why.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) row: Row,
    pub(super) state_error: Option<String>,
    pub(super) assigned: Result<Vec<String>, String>,
    pub(super) events: Result<Vec<AuditEvent>, String>,
}

pub(super) fn describe(facts: &Facts, paint: Paint, now: Timestamp) -> String {
    let state = &facts.row.state;
    let mut text = declared_fields(&facts.row, now).render(paint, "");
    let mut section = |name: &str, body: String| {
        let _ = write!(text, "\n{}\n{body}", paint.tone(Tone::Strong, name));
    };
    let unknown = |error: &str| format!("  not known: {error}\n");
    match (state, &facts.state_error) {
        (Some(state), _) => {
            section("State", state_fields(state, now).render(paint, "  "));
            section("Room", room_table(state).render(paint, "  "));
        }
        (None, Some(error)) => section("State", unknown(error)),
        (None, None) => section("State", "  Pending: the router has not seen it yet\n".into()),
    }
    let namespaces = match &facts.assigned {
        Ok(names) if names.is_empty() => "  <none>\n".into(),
        Ok(names) => namespaces_table(names, state.as_ref(), paint),
        Err(error) => unknown(error),
    };
    section("Namespaces", namespaces);
    if let Some(state) = state.as_ref().filter(|state| !state.roles.is_empty()) {
        section("Roles", roles_table(state, paint, now));
    }
    let events = match &facts.events {
        Ok(events) if events.is_empty() => "  <none>\n".into(),
        Ok(events) => events_table(events, now).render(paint, "  "),
        Err(error) => unknown(error),
    };
    section("Events", events);
    text
}

fn declared_fields(Row { shard, kept, .. }: &Row, now: Timestamp) -> Fields {
    let (metadata, spec) = (&shard.metadata, &shard.spec);
    let mut fields = Fields::default();
    fields.add("Name", metadata.name.as_str());
    fields.add_some("Description", metadata.description.as_str());
    fields.add_lines(
        "Labels",
        metadata.labels.iter().map(|(key, value)| format!("{key}={value}").into()),
    );
    fields.add_some("Region", spec.region.as_str());
    fields.add_some("Failure domain", spec.failure_domain.as_str());
    fields.add_lines("Taints", spec.taints.iter().map(|own| taint(own).into()));
    fields.add("Size", spec.size.unwrap_or_default().name());
    fields.add("Capacity", human::resources(&spec.capacity()));
    fields.add_some("Airflow version", spec.airflow_version.as_str());
    fields.add("URL", or_none(&spec.url));
    if let Some(time) = kept.create_time {
        fields.add("Registered", human::time_and_age(time, now));
    }
    fields.add("Revision", kept.revision.to_string());
    fields
}

fn state_fields(state: &ShardState, now: Timestamp) -> Fields {
    let mut fields = Fields::default();
    fields.add("Health", health_cell(state));
    fields.add_lines_some(
        "Findings",
        state.health.reasons.iter().map(|reason| {
            let tone = if reason.verdict == "Unhealthy" { Tone::Bad } else { Tone::Warn };
            Cell::toned(tone, format!("{} ({})", reason.message, reason.code))
        }),
    );
    if let Some(cordon) = &state.cordon {
        let since = cordon.time.map(|time| format!(", {} ago", human::age(time, now)));
        let reason = if cordon.reason.is_empty() { "no reason given" } else { &cordon.reason };
        let by = if cordon.actor.is_empty() { "somebody" } else { &cordon.actor };
        fields.add("Cordoned", format!("by {by}{}: {reason}", since.unwrap_or_default()));
    }
    fields.add_lines_some(
        "Takes no more",
        state.not_placeable.iter().map(|why| Cell::toned(Tone::Warn, why.as_str())),
    );
    fields.add("Agent", agent_cell(state));
    fields.add_some("Agent version", state.agent_version.as_str());
    fields.add_some("Airflow", state.airflow_version.as_str());
    fields.add_some("Schema", state.schema_revision.as_str());
    if let Some(time) = state.report_time {
        fields.add("Last report", human::time_and_age(time, now));
    }
    let totals = &state.role_totals;
    if totals.desired > 0 {
        let reached = totals.desired - totals.unreached;
        let tone = if totals.unreached == 0 { Tone::Good } else { Tone::Warn };
        let text = format!("{reached} of {} reached", totals.desired);
        fields.add("Roles", Cell::toned(tone, text));
        let count = |count: i64, what: &str| (count > 0).then(|| human::count(count, what));
        let found = [
            count(totals.obstacles, "obstacle"),
            count(totals.drift, "drift"),
            count(totals.violations, "broken rule"),
        ];
        let found: Vec<String> = found.into_iter().flatten().collect();
        fields.add_some("Attention", Cell::toned(Tone::Warn, found.join(", ")));
        let gives_up = count(totals.giving_up, "namespace").unwrap_or_default();
        fields.add_some("Gives up", gives_up);
        fields.add_some("Fenced", count(totals.fenced_dags, "DAG").unwrap_or_default());
    }
    if state.unowned_dags > 0 {
        fields.add("Unowned DAGs", Cell::toned(Tone::Warn, state.unowned_dags.to_string()));
    }
    fields
}

/// Name of a dimension, its amount, and how that is shown.
type Dimension = (&'static str, fn(&Resources) -> i64, fn(i64) -> String);

fn room_table(state: &ShardState) -> Table {
    let mut table = Table::new(["", "CAPACITY ", "RESERVED ", "ROOM ", "USED "]);
    let plain = |amount: i64| amount.to_string();
    let rows: [Dimension; 5] = [
        ("DAGs", |r| r.dags, plain),
        ("Running slots", |r| r.running_slots, plain),
        ("Task starts/h", |r| r.task_starts_per_hour, plain),
        ("Metadata", |r| r.metadata_bytes, human::bytes),
        ("Parsing", |r| r.parse_ms_per_minute, human::parse_time),
    ];
    let [capacity, reserved, room, usage]: [Resources; 4] =
        [state.capacity.into(), state.reserved.into(), state.room.into(), state.usage.into()];
    for (name, amount, shown) in rows {
        let is_limited = amount(&capacity) != 0;
        let left = amount(&room);
        let limited = |text: String| {
            if is_limited { text.into() } else { Cell::toned(Tone::Dim, "no limit") }
        };
        table.row([
            name.into(),
            limited(shown(amount(&capacity))),
            shown(amount(&reserved)).into(),
            if is_limited && left <= 0 {
                Cell::toned(Tone::Bad, shown(left))
            } else {
                limited(shown(left))
            },
            shown(amount(&usage)).into(),
        ]);
    }
    table
}

fn namespaces_table(names: &[String], state: Option<&ShardState>, paint: Paint) -> String {
    let mut table =
        Table::new(["NAME", "DAGS ", "UNPAUSED ", "SLOTS ", "STARTS/H ", "RUNS ", "TASKS "]);
    for name in names.iter().take(NAMESPACES_MAX) {
        let usage = state
            .and_then(|state| state.namespace_usage.iter().find(|usage| usage.namespace == *name));
        let shown =
            |amount: Option<i64>| amount.map_or_else(|| "-".into(), |n| n.to_string().into());
        table.row([
            name.as_str().into(),
            shown(usage.map(|u| u.usage.dags)),
            shown(usage.map(|u| u.unpaused_dags)),
            shown(usage.map(|u| u.usage.running_slots)),
            shown(usage.map(|u| u.usage.task_starts_per_hour)),
            shown(usage.map(|u| u.active_runs)),
            shown(usage.map(|u| u.active_task_instances)),
        ]);
    }
    let mut text = table.render(paint, "  ");
    if names.len() > NAMESPACES_MAX {
        let _ = writeln!(
            text,
            "  and {} more; `airfleet namespace list --shard …` shows all",
            names.len() - NAMESPACES_MAX
        );
    }
    text
}

/// What it is for its namespaces, those that need attention first.
fn roles_table(state: &ShardState, paint: Paint, now: Timestamp) -> String {
    let shown = &state.roles[..state.roles.len().min(NAMESPACES_MAX)];
    let mut text = roles::table(shown, false, now).render(paint, "  ");
    if state.roles.len() > NAMESPACES_MAX {
        let _ = writeln!(
            text,
            "  and {} more; `airfleet namespace releases --shard {}` shows all",
            state.roles.len() - NAMESPACES_MAX,
            state.shard
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Amounts, Cordon, Health, HealthReason};

    fn row() -> Row {
        let text = "apiVersion: airfleet.dev/v1\nkind: Shard\nmetadata: {name: shard-a}\n\
                    spec: {size: large, taints: [{key: gpu}], url: 'http://127.0.0.1:8080'}\n";
        let Entry::Shard(shard) = airfleet_domain::manifest::parse(text).unwrap().remove(0).entry
        else {
            panic!("it is a shard")
        };
        let kept = Kept {
            uid: String::new(),
            etag: String::new(),
            revision: 1,
            create_time: Timestamp::from_second(1000).ok(),
            update_time: None,
        };
        let amounts = |dags, running_slots| Amounts { dags, running_slots, ..Amounts::default() };
        let state = ShardState {
            shard: "shard-a".into(),
            connected: true,
            airflow_version: "3.3.2".into(),
            health: Health { verdict: "Healthy", ..Health::default() },
            capacity: amounts(1000, 20),
            reserved: amounts(120, 21),
            room: amounts(880, -1),
            usage: amounts(100, 3),
            namespaces: 28,
            ..ShardState::default()
        };
        Row { shard, kept, state: Some(state) }
    }

    #[test]
    fn rows_tell_health_and_room() {
        let mut cordoned = row();
        if let Some(state) = &mut cordoned.state {
            state.cordon = Some(Cordon { actor: String::new(), reason: String::new(), time: None });
            state.connected = false;
        }
        let unseen = Row { state: None, ..row() };
        let now = Timestamp::from_second(1042).unwrap();
        assert_eq!(
            table(&[row(), cordoned, unseen], false, now).render(Paint::PLAIN, ""),
            "\
NAME      STATUS             AGENT        AIRFLOW   NAMESPACES       DAGS   SLOTS   STARTS/H   AGE
shard-a   Healthy            connected    3.3.2             28   120/1000   21/20          0   42s
shard-a   Healthy,Cordoned   never seen   3.3.2             28   120/1000   21/20          0   42s
shard-a   Pending            ?            <none>             ?          ?       ?          ?   42s
"
        );
    }

    #[test]
    fn a_description_shows_findings_and_what_is_full() {
        let mut row = row();
        if let Some(state) = &mut row.state {
            state.health = Health {
                verdict: "Degraded",
                reasons: vec![HealthReason {
                    code: "WORKERS_FEW".into(),
                    verdict: "Degraded",
                    message: "1 of 2 workers is alive".into(),
                }],
                observe_time: None,
            };
        }
        let facts = Facts {
            row,
            state_error: None,
            assigned: Ok(vec!["payments".into()]),
            events: Ok(Vec::new()),
        };
        let text = describe(&facts, Paint::PLAIN, Timestamp::UNIX_EPOCH);
        assert!(text.contains("Findings:  1 of 2 workers is alive (WORKERS_FEW)"), "{text}");
        assert!(
            text.contains("  Running slots         20         21         -1         3\n"),
            "{text}"
        );
        assert!(
            text.contains("  Task starts/h   no limit          0   no limit         0\n"),
            "{text}"
        );
        assert!(text.contains("  payments      -          -"), "{text}");
    }
}
