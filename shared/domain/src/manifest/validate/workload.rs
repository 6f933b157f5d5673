//! What is wrong with the workload of a namespace.

use std::str::FromStr as _;

use super::{Check, DESCRIPTION_MAX, LIST_MAX, URI_MAX, has_password};
use crate::manifest::{Connection, Guardrails, NamespaceSpec, Pool, Retention, Source, Variable};

const SECRETS_MAX: usize = 256;
/// Airflow's columns: `slot_pool.pool` is `varchar(256)`, `variable.key` and
/// `connection.conn_id` are `varchar(250)`.
const NAME_MAX: usize = 250;
const SLOTS_MAX: i64 = 1_000_000;
const SECONDS_MAX: i64 = 366 * 24 * 3600;
const RETRIES_MAX: i64 = 1000;
const RUNS_MAX: i64 = 100_000;
const KEEP_DAYS_MAX: i64 = 36_500;
/// The pool that every Airflow has; it belongs to nobody.
const DEFAULT_POOL: &str = "default_pool";

impl Check {
    pub(super) fn workload(&mut self, spec: &NamespaceSpec) {
        self.guardrails(&spec.guardrails);
        if let Some(source) = &spec.source {
            self.source(source);
        }
        self.pools(&spec.pools);
        self.variables(&spec.variables);
        self.connections(&spec.connections);
        if let Some(retention) = &spec.retention {
            self.retention(retention);
        }
    }

    fn guardrails(&mut self, rules: &Guardrails) {
        self.modes(rules);
        self.words("guardrails.queues", &rules.queues, LIST_MAX);
        self.words("guardrails.pools", &rules.pools, LIST_MAX);
        self.words("guardrails.kubernetes_namespaces", &rules.kubernetes_namespaces, LIST_MAX);
        self.words("guardrails.kubernetes_clusters", &rules.kubernetes_clusters, LIST_MAX);
        self.words("guardrails.operators.allow", &rules.operators.allow, LIST_MAX);
        self.words("guardrails.operators.deny", &rules.operators.deny, LIST_MAX);
        let timeout = &rules.execution_timeout;
        let most = if timeout.max_seconds > 0 { timeout.max_seconds } else { SECONDS_MAX };
        let field = "guardrails.execution_timeout.default_seconds";
        self.within(field, timeout.default_seconds, 0, most.min(SECONDS_MAX));
        let field = "guardrails.execution_timeout.max_seconds";
        self.within(field, timeout.max_seconds, 0, SECONDS_MAX);
        if let Some(max) = rules.retries.max {
            self.within("guardrails.retries.max", max, 0, RETRIES_MAX);
        }
        if let Some(default) = rules.retries.default {
            let most = rules.retries.max.unwrap_or(RETRIES_MAX).clamp(0, RETRIES_MAX);
            self.within("guardrails.retries.default", default, 0, most);
        }
        self.within("guardrails.max_active_runs.max", rules.max_active_runs.max, 0, RUNS_MAX);
        self.words("guardrails.required_tags", &rules.required_tags, LIST_MAX);
        self.words("guardrails.allowed_owners", &rules.allowed_owners, LIST_MAX);
    }

    fn modes(&mut self, rules: &Guardrails) {
        self.at_most("guardrails.modes", rules.modes.len(), LIST_MAX);
        for code in rules.modes.keys().take(LIST_MAX) {
            let digits = code.strip_prefix("AF").unwrap_or_default();
            if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                let field =
                    format!("guardrails.modes[{}]", code.chars().take(80).collect::<String>());
                self.fail(field, "INVALID_CODE", "must be the code of a rule, such as AF107");
            }
        }
    }

    fn source(&mut self, source: &Source) {
        const SCHEMES: [&str; 7] = ["s3", "gs", "az", "file", "git+https", "git+ssh", "git+file"];
        self.length("source.uri", &source.uri, URI_MAX);
        self.length("source.ref", &source.reference, NAME_MAX);
        let scheme = source.uri.split_once("://").map(|(scheme, _)| scheme);
        let is_git = scheme.is_some_and(|scheme| scheme.starts_with("git+"));
        let known = scheme.map_or(source.uri.starts_with('/'), |scheme| SCHEMES.contains(&scheme));
        if !known {
            let rule =
                format!("must be an absolute folder path or a URL of {}", SCHEMES.join(", "));
            self.fail("source.uri", "INVALID_URI", rule);
        }
        if has_password(&source.uri) {
            let rule = "must not hold a password; credentials belong to the agent's own secrets";
            self.fail("source.uri", "SECRET", rule);
        }
        if !source.reference.is_empty() && !is_git {
            self.fail("source.ref", "NOT_ALLOWED", "only git sources have a ref");
        }
        // A leading dash would be an option to git.
        if source.reference.starts_with('-') || source.reference.chars().any(char::is_whitespace) {
            self.fail("source.ref", "INVALID_TEXT", "must be a branch, tag or commit");
        }
        if !source.path.is_empty() {
            self.relative("source.path", &source.path);
        }
    }

    /// A path that leads downwards only.
    fn relative(&mut self, field: &str, path: &str) {
        self.length(field, path, URI_MAX);
        let good = path.split('/').all(|part| !matches!(part, "" | "." | ".."))
            && !path.contains(['\\', '\0'])
            && !path.chars().any(char::is_control);
        if !good {
            let rule = "must be a relative path such as a/b, without . or .. in it";
            self.fail(field, "INVALID_PATH", rule);
        }
    }

    fn pools(&mut self, pools: &[Pool]) {
        self.at_most("pools", pools.len(), LIST_MAX);
        for (index, pool) in pools.iter().take(LIST_MAX).enumerate() {
            let field = format!("pools[{index}]");
            self.name(&format!("{field}.name"), &pool.name);
            if pool.name == DEFAULT_POOL {
                let rule = "every Airflow has default_pool, and no namespace owns it";
                self.fail(format!("{field}.name"), "NOT_ALLOWED", rule);
            }
            self.within(&format!("{field}.slots"), pool.slots, -1, SLOTS_MAX);
            self.length(&format!("{field}.description"), &pool.description, DESCRIPTION_MAX);
        }
        self.distinct("pools", pools.iter().take(LIST_MAX).map(|pool| pool.name.as_str()));
    }

    fn variables(&mut self, variables: &[Variable]) {
        self.at_most("variables", variables.len(), SECRETS_MAX);
        for (index, variable) in variables.iter().take(SECRETS_MAX).enumerate() {
            self.name(&format!("variables[{index}].key"), &variable.key);
            self.secret(&format!("variables[{index}].secret"), &variable.secret);
        }
        let keys = variables.iter().take(SECRETS_MAX).map(|variable| variable.key.as_str());
        self.distinct("variables", keys);
    }

    fn connections(&mut self, connections: &[Connection]) {
        self.at_most("connections", connections.len(), SECRETS_MAX);
        for (index, connection) in connections.iter().take(SECRETS_MAX).enumerate() {
            self.name(&format!("connections[{index}].id"), &connection.id);
            self.secret(&format!("connections[{index}].secret"), &connection.secret);
        }
        let ids = connections.iter().take(SECRETS_MAX).map(|connection| connection.id.as_str());
        self.distinct("connections", ids);
    }

    fn retention(&mut self, retention: &Retention) {
        self.within("retention.keep_days", retention.keep_days, 1, KEEP_DAYS_MAX);
        if !retention.schedule.is_empty()
            && let Err(error) = croner::Cron::from_str(&retention.schedule)
        {
            let rule = format!("must be a cron expression such as \"0 3 * * *\": {error}");
            self.fail("retention.schedule", "INVALID_CRON", rule);
        }
    }

    /// What Airflow takes as a name of a pool, variable or connection.
    fn name(&mut self, field: &str, name: &str) {
        let good = (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !good {
            let rule = format!("must be 1 to {NAME_MAX} characters of A-Z a-z 0-9 . _ -");
            self.fail(field, "INVALID_NAME", rule);
        }
    }

    /// The name of a secret file: never a path that leads elsewhere, nor the secret itself.
    fn secret(&mut self, field: &str, name: &str) {
        if !name.is_empty() && !name.contains("://") {
            self.relative(field, name);
        } else if name.contains("://") {
            let rule = "must name a file of the agent, not hold the value itself";
            self.fail(field, "SECRET", rule);
        }
    }

    fn within(&mut self, field: &str, value: i64, least: i64, most: i64) {
        if !(least..=most).contains(&value) {
            let rule = format!("is {value}; must be between {least} and {most}");
            self.fail(field, "OUT_OF_RANGE", rule);
        }
    }
}
