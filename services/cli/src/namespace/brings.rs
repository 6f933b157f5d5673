//! What a namespace brings to its shard, in words: files, pools, variables, connections, rules.

use std::fmt::Display;

use airfleet_domain::manifest::{Enforcement, Guardrails, NamespaceSpec};

use crate::{
    human,
    screen::Paint,
    table::{Fields, Table, or_none},
};

/// Everything; empty where it brings nothing.
pub(super) fn describe(spec: &NamespaceSpec, paint: Paint) -> String {
    let mut text = fields(spec).render(paint, "  ");
    if !spec.pools.is_empty() {
        let mut table = Table::new(["POOL", "SLOTS ", "DEFERRED", "DESCRIPTION"]);
        for pool in &spec.pools {
            let slots = if pool.slots < 0 { "no limit".to_owned() } else { pool.slots.to_string() };
            table.row([
                pool.name.as_str().into(),
                slots.into(),
                if pool.include_deferred { "counted" } else { "free" }.into(),
                or_none(&pool.description),
            ]);
        }
        text.push_str(&table.render(paint, "    "));
    }
    text
}

fn fields(spec: &NamespaceSpec) -> Fields {
    let mut fields = Fields::default();
    if let Some(source) = &spec.source {
        let mut what = source.uri.clone();
        if !source.reference.is_empty() {
            what = format!("{what} at {}", source.reference);
        }
        if !source.path.is_empty() {
            what = format!("{what}, folder {}", source.path);
        }
        fields.add("DAG files", what);
    }
    let from = |secret: &str| {
        if secret.is_empty() { "the shard's secrets backend" } else { "the agent's secret file " }
            .to_owned()
            + secret
    };
    fields.add_lines_some(
        "Variables",
        spec.variables.iter().map(|one| format!("{} from {}", one.key, from(&one.secret)).into()),
    );
    fields.add_lines_some(
        "Connections",
        spec.connections.iter().map(|one| format!("{} from {}", one.id, from(&one.secret)).into()),
    );
    if let Some(retention) = &spec.retention {
        let when = match retention.schedule.as_str() {
            "" => "once a day".to_owned(),
            schedule => format!("at {schedule:?} UTC"),
        };
        let days = human::count(retention.keep_days, "day");
        fields.add("Retention", format!("{days}, cleaned {when}"));
    }
    fields.add(
        "Drift",
        match spec.drift {
            Enforcement::Enforce => "put right (enforce)",
            Enforcement::Warn => "only told (warn)",
        },
    );
    guardrail_fields(&spec.guardrails, &mut fields);
    fields
}

fn guardrail_fields(rules: &Guardrails, fields: &mut Fields) {
    if rules.is_empty() {
        return;
    }
    let modes: Vec<String> =
        rules.modes.iter().map(|(code, mode)| format!("{code} {}", mode.name())).collect();
    let but = if modes.is_empty() { String::new() } else { format!(", but {}", modes.join(", ")) };
    fields.add("Guardrails", format!("{}{but}", rules.mode.name()));
    fields.add_some("  Queues", rules.queues.join(", "));
    fields.add_some("  Pools", rules.pools.join(", "));
    fields.add_some("  Kubernetes", rules.kubernetes_namespaces.join(", "));
    fields.add_some("  Clusters", rules.kubernetes_clusters.join(", "));
    fields.add_some("  Operators", rules.operators.allow.join(", "));
    fields.add_some("  No operators", rules.operators.deny.join(", "));
    let limit = |default: Option<String>, most: Option<String>| {
        let default = default.map(|n| format!("{n} where not set"));
        let most = most.map(|n| format!("at most {n}"));
        default.into_iter().chain(most).collect::<Vec<_>>().join(", ")
    };
    let seconds = |n: i64| (n > 0).then(|| human::short_span(n.saturating_mul(1000)));
    let timeout = &rules.execution_timeout;
    fields.add_some(
        "  Task timeout",
        limit(seconds(timeout.default_seconds), seconds(timeout.max_seconds)),
    );
    let count = |n: Option<i64>| n.map(|n| n.to_string());
    fields.add_some("  Retries", limit(count(rules.retries.default), count(rules.retries.max)));
    let runs = rules.max_active_runs.max;
    fields.add_some("  Active runs", limit(None, (runs > 0).then(|| runs.to_string())));
    fields.add_some("  Tags", all_of(&rules.required_tags));
    fields.add_some("  DAG owners", any_of(&rules.allowed_owners));
}

fn all_of(texts: &[impl Display]) -> String {
    let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
    texts.join(" and ")
}

fn any_of(texts: &[impl Display]) -> String {
    let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
    texts.join(" or ")
}
