//! All that is known of a namespace: declared, assigned, the shard, what it uses, what happened.

use std::fmt::Write as _;

use airfleet_domain::{
    labels::{Requirement, Toleration},
    manifest::{Entry, Namespace},
};
use airfleet_proto::{registry::v1::AuditEvent, router::v1::GetShardStatusRequest};
use jiff::Timestamp;
use prost_types::{Struct, Value, value::Kind as ValueKind};

use super::{Row, assignment, brings, events, known, roles, show};
use crate::{
    args::TextOrJson,
    document::{
        self, Assignment, Document, Kept, NamespaceStatus, ShardState,
        roles::{Event, ShardRole},
    },
    error::{Exit, Result},
    human,
    screen::{Paint, Tone},
    session::Session,
    shard::health_cell,
    table::{Cell, Fields, Table, or_none},
};

/// Most events shown.
const EVENTS: i32 = 10;

/// Everything that a description is made of.
#[derive(Debug)]
struct Facts {
    namespace: Namespace,
    kept: Kept,
    /// `Err` with why it is not known.
    assignment: Result<Option<Assignment>, String>,
    shard: Result<Option<ShardState>, String>,
    /// What the shards are for it; none until the router has seen it.
    roles: Result<Option<Vec<ShardRole>>, String>,
    events: Result<Vec<Event>, String>,
    orphaned: bool,
}

/// All of it, for scripts.
#[derive(Debug, serde::Serialize)]
struct Described {
    #[serde(flatten)]
    document: Document<NamespaceStatus>,
    /// What happened lately, oldest first.
    events: Vec<Event>,
}

pub(super) async fn run(
    session: &mut Session<'_>,
    names: &[String],
    form: TextOrJson,
) -> Result<Exit> {
    for (index, name) in names.iter().enumerate() {
        let facts = gather(session, name).await?;
        if form == TextOrJson::Json {
            session.screen.print(&document::json(&facts.into_described()?)?)?;
            continue;
        }
        let separator = if index == 0 { "" } else { "\n\n" };
        let text = describe(&facts, session.screen.paint(), Timestamp::now());
        session.screen.print(&format!("{separator}{text}"))?;
    }
    Ok(Exit::Ok)
}

/// Asks both services. That one is away, or does not let this caller see something, only leaves
/// that part out.
async fn gather(session: &Session<'_>, name: &str) -> Result<Facts> {
    let Row { namespace, kept, orphaned, .. } = known(session, name).await?;
    let assignment = assignment(session, name).await.map_err(|error| error.to_string());
    let shard = match &assignment {
        Ok(Some(assignment)) if !assignment.shard.is_empty() => {
            let request = GetShardStatusRequest { shard: assignment.shard.clone() };
            session
                .router
                .call("cannot read the state of the shard", async |mut client| {
                    client.get_shard_status(request.clone()).await
                })
                .await
                .map(|status| Some(status.into()))
                .map_err(|error| error.to_string())
        }
        _ => Ok(None),
    };
    let roles = roles::of(session, name).await.map_err(|error| error.to_string());
    let events = events::past(session, name, EVENTS).await;
    let events = events.map(|past| past.events).map_err(|error| error.to_string());
    Ok(Facts { namespace, kept, assignment, shard, roles, events, orphaned })
}

impl Facts {
    /// A script must not take "not known" for "not so".
    fn into_described(self) -> Result<Described> {
        let known = |error: String| crate::error::Error::new(error);
        let status = NamespaceStatus {
            kept: self.kept,
            assignment: self.assignment.map_err(known)?,
            orphaned: self.orphaned,
            roles: self.roles.map_err(known)?,
        };
        let entry = Entry::Namespace(self.namespace);
        let document = Document { entry, status };
        Ok(Described { document, events: self.events.map_err(known)? })
    }
}

fn describe(facts: &Facts, paint: Paint, now: Timestamp) -> String {
    let mut text = declared_fields(facts, now).render(paint, "");
    let mut section = |name: &str, body: String| {
        let _ = write!(text, "\n{}\n{body}", paint.tone(Tone::Strong, name));
    };
    if !facts.orphaned {
        section("Brings", brings::describe(&facts.namespace.spec, paint));
    }
    section("Assignment", assignment_fields(facts, now).render(paint, "  "));
    match &facts.roles {
        Ok(Some(found)) => section("Roles", roles::describe(found, paint, now)),
        Ok(None) => {}
        Err(error) => section("Roles", format!("  not known: {error}\n")),
    }
    if let Ok(Some(shard)) = &facts.shard {
        section("Usage", usage_fields(shard, &facts.namespace.metadata.name).render(paint, "  "));
    }
    let events = match &facts.events {
        Ok(events) if events.is_empty() => "  <none>\n".to_owned(),
        Ok(found) => events::table(found, now).render(paint, "  "),
        Err(error) => format!("  not known: {error}\n"),
    };
    section("Events", events);
    text
}

fn declared_fields(facts: &Facts, now: Timestamp) -> Fields {
    let Facts { namespace: Namespace { metadata, spec }, kept, .. } = facts;
    let placement = &spec.placement;
    let mut fields = Fields::default();
    fields.add("Name", metadata.name.as_str());
    if facts.orphaned {
        fields.add(
            "Manifest",
            Cell::toned(
                Tone::Bad,
                "no longer has it; apply its YAML again to keep or to delete it",
            ),
        );
    }
    fields.add_some("Description", metadata.description.as_str());
    fields.add_lines(
        "Labels",
        metadata.labels.iter().map(|(key, value)| format!("{key}={value}").into()),
    );
    fields.add("Owners", or_none(&spec.owners.join(", ")));
    fields.add_lines("Prefixes", spec.prefixes.iter().map(|prefix| prefix.as_str().into()));
    fields.add("Demand", or_none(&human::resources(&spec.demand)));
    fields.add_some("Selector", joined(placement.selector.iter().map(Requirement::to_string)));
    fields.add_some("Tolerations", joined(placement.tolerations.iter().map(toleration)));
    fields.add_some("Airflow version", placement.airflow_version.as_str());
    fields.add_some("Region", placement.region.as_str());
    fields.add_some("Spread group", placement.spread_group.as_str());
    let when = |time: Option<Timestamp>| {
        time.map(|time| human::time_and_age(time, now)).unwrap_or_default()
    };
    fields.add_some("Registered", when(kept.create_time));
    if kept.update_time != kept.create_time {
        fields.add_some("Changed", when(kept.update_time));
    }
    if !facts.orphaned {
        fields.add("Revision", kept.revision.to_string());
    }
    fields
}

fn assignment_fields(facts: &Facts, now: Timestamp) -> Fields {
    let mut fields = Fields::default();
    let assignment = match &facts.assignment {
        Ok(Some(assignment)) => assignment,
        Ok(None) => {
            fields.add("State", Cell::toned(Tone::Warn, "Pending: the router has not seen it yet"));
            return fields;
        }
        Err(error) => {
            fields.add("State", Cell::toned(Tone::Warn, format!("not known: {error}")));
            return fields;
        }
    };
    fields.add("State", show::state(Some(assignment)));
    fields.add("Shard", or_none(&assignment.shard));
    match &facts.shard {
        Ok(Some(shard)) => {
            fields.add("Shard health", health_cell(shard));
            fields.add_lines_some(
                "",
                shard.health.reasons.iter().map(|reason| reason.message.as_str().into()),
            );
        }
        Ok(None) => {}
        Err(error) => {
            fields.add("Shard health", Cell::toned(Tone::Warn, format!("not known: {error}")));
        }
    }
    fields.add("Generation", assignment.generation.to_string());
    fields.add_some("Pinned to", assignment.pinned_shard.as_str());
    fields.add_some("Reason", assignment.reason.as_str());
    if let Some(time) = assignment.update_time {
        fields.add("Since", human::time_and_age(time, now));
    }
    fields
}

fn usage_fields(shard: &ShardState, name: &str) -> Fields {
    let mut fields = Fields::default();
    match shard.namespace_usage.iter().find(|usage| usage.namespace == name) {
        Some(usage) => {
            fields.add("Measured", or_none(&human::resources(&usage.usage.into())));
            fields.add("Unpaused DAGs", usage.unpaused_dags.to_string());
            fields.add("Active runs", usage.active_runs.to_string());
            fields.add("Active tasks", usage.active_task_instances.to_string());
        }
        None => fields.add("Measured", Cell::toned(Tone::Dim, "nothing reported yet")),
    }
    fields
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}

fn toleration(toleration: &Toleration) -> String {
    let Toleration { key, value } = toleration;
    if value.is_empty() { key.clone() } else { format!("{key}={value}") }
}

/// What happened, newest first.
pub(crate) fn events_table(events: &[AuditEvent], now: Timestamp) -> Table {
    let mut table = Table::new(["AGE", "REVISION ", "ACTION", "BY", "WHAT"]);
    for event in events {
        let time = event.time.and_then(document::timestamp);
        let changed = changed_fields(event.before.as_ref(), event.after.as_ref());
        let what = match (event.reason.is_empty(), changed.is_empty()) {
            (false, _) => event.reason.clone(),
            (true, false) => human::list(&changed, 5),
            (true, true) => String::new(),
        };
        table.row([
            time.map(|time| human::age(time, now)).unwrap_or_default().into(),
            event.revision.to_string().into(),
            event.action.as_str().into(),
            or_none(&event.actor),
            what.into(),
        ]);
    }
    table
}

/// Dotted paths of what differs, where there is a before and an after.
pub(super) fn changed_fields(before: Option<&Struct>, after: Option<&Struct>) -> Vec<String> {
    let mut paths = Vec::new();
    if let (Some(before), Some(after)) = (before, after) {
        compare(before, after, "", &mut paths);
    }
    paths.retain(|path| {
        !matches!(path.as_str(), "etag" | "revision" | "update_time" | "updateTime")
    });
    paths
}

fn compare(before: &Struct, after: &Struct, path: &str, paths: &mut Vec<String>) {
    let keys = before.fields.keys().chain(after.fields.keys());
    let keys: std::collections::BTreeSet<&String> = keys.collect();
    for key in keys {
        let (old, new) = (before.fields.get(key), after.fields.get(key));
        if old == new {
            continue;
        }
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (old.and_then(table_of), new.and_then(table_of)) {
            (Some(old), Some(new)) => compare(old, new, &path, paths),
            _ => paths.push(path),
        }
    }
}

fn table_of(value: &Value) -> Option<&Struct> {
    match &value.kind {
        Some(ValueKind::StructValue(table)) => Some(table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use airfleet_domain::manifest;

    use super::*;

    fn facts() -> Facts {
        let text = "apiVersion: airfleet.dev/v1\nkind: Namespace\nmetadata: {name: payments, labels: {tier: gold}}\n\
                    spec:\n  owners: [team]\n  prefixes: [pay., pay__]\n  demand: {dags: 12}\n  \
                    placement: {selector: [{key: tier, operator: In, values: [a, b]}], tolerations: [{key: gpu}]}\n  \
                    source: {uri: 'git+https://git.example.net/x', ref: main, path: dags}\n  \
                    pools: [{name: pay_etl, slots: 4}]\n  variables: [{key: rate, secret: rate}]\n  \
                    connections: [{id: lake}]\n  retention: {keepDays: 30}\n  drift: warn\n  \
                    guardrails: {mode: warn, modes: {AF107: enforce}, queues: [cpu, io], \
                    operators: {deny: [BashOperator]}, executionTimeout: {maxSeconds: 3600}, \
                    retries: {default: 1, max: 3}, requiredTags: [tier]}\n";
        let Entry::Namespace(namespace) = manifest::parse(text).unwrap().remove(0).entry else {
            panic!("it is a namespace")
        };
        let time = Timestamp::from_second(1_000_000).ok();
        let kept = Kept {
            uid: String::new(),
            etag: String::new(),
            revision: 3,
            create_time: time,
            update_time: time,
        };
        let event = Event {
            time,
            source: "registry".into(),
            code: "MANIFEST_UPDATED".into(),
            message: "changed by alice: demand.dags".into(),
            ..Event::default()
        };
        let role = ShardRole {
            shard: "shard-a".into(),
            desired_role: "Active",
            role: "Active",
            reached: true,
            connected: true,
            ..ShardRole::default()
        };
        let assignment = Assignment {
            namespace: "payments".into(),
            state: document::ASSIGNED,
            shard: "shard-a".into(),
            generation: 2,
            reason: "most room".into(),
            update_time: time,
            ..Assignment::default()
        };
        Facts {
            namespace,
            kept,
            assignment: Ok(Some(assignment)),
            shard: Err("cannot read it: no replica leads".into()),
            roles: Ok(Some(vec![role])),
            events: Ok(vec![event]),
            orphaned: false,
        }
    }

    #[test]
    fn a_description_joins_everything() {
        let now = Timestamp::from_second(1_000_042).unwrap();
        assert_eq!(
            describe(&facts(), Paint::PLAIN, now),
            "\
Name:         payments
Labels:       tier=gold
Owners:       team
Prefixes:     pay.
              pay__
Demand:       12 DAGs
Selector:     tier in (a, b)
Tolerations:  gpu
Registered:   1970-01-12 13:46:40 UTC (42s ago)
Revision:     3

Brings
  DAG files:       git+https://git.example.net/x at main, folder dags
  Variables:       rate from the agent's secret file rate
  Connections:     lake from the shard's secrets backend
  Retention:       30 days, cleaned once a day
  Drift:           only told (warn)
  Guardrails:      warn, but AF107 enforce
    Queues:        cpu, io
    No operators:  BashOperator
    Task timeout:  at most 60m
    Retries:       1 where not set, at most 3
    Tags:          tier
    POOL      SLOTS   DEFERRED   DESCRIPTION
    pay_etl       4   free       <none>

Assignment
  State:         Assigned
  Shard:         shard-a
  Shard health:  not known: cannot read it: no replica leads
  Generation:    2
  Reason:        most room
  Since:         1970-01-12 13:46:40 UTC (42s ago)

Roles
  Shard:  shard-a
  Role:   Active

Events
  AGE   FROM       SHARD    EVENT              WHAT
  42s   registry   <none>   MANIFEST_UPDATED   changed by alice: demand.dags
"
        );
    }

    #[test]
    fn what_is_not_known_is_said() {
        let mut facts = facts();
        facts.assignment = Ok(None);
        facts.shard = Ok(None);
        facts.events = Ok(Vec::new());
        let text = describe(&facts, Paint::PLAIN, Timestamp::UNIX_EPOCH);
        assert!(text.contains("Pending"), "{text}");
        assert!(text.ends_with("Events\n  <none>\n"), "{text}");
    }
}
