//! Everything that is wrong with one entry, found at once.

mod workload;

use std::collections::HashSet;

use semver::VersionReq;

use super::{Metadata, Namespace, Placement, Shard};
use crate::{
    ids::{NamespaceName, Prefix, ShardName},
    labels::{Labels, Operator, Requirement},
    resources::{DIMENSIONS, Resources},
};

/// One field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path in the terms of the API: `prefixes[1]`, `placement.selector[0].key`, `demand.dags`.
    pub field: String,
    /// Stable code in UPPER_SNAKE_CASE.
    pub code: &'static str,
    /// What is wrong and what is right, in one line.
    pub message: String,
}

const LABELS_MAX: usize = 64;
const LIST_MAX: usize = 64;
const OWNERS_MAX: usize = 16;
const RULES_MAX: usize = 32;
const DESCRIPTION_MAX: usize = 1000;
const URI_MAX: usize = 2000;
/// Larger than any real amount, small enough that a million of them add up without saturating.
const AMOUNT_MAX: i64 = 1_000_000_000_000_000;

/// Collects violations under a path.
#[derive(Default)]
struct Check(Vec<Violation>);

impl Check {
    fn fail(&mut self, field: impl Into<String>, code: &'static str, message: impl Into<String>) {
        self.0.push(Violation { field: field.into(), code, message: message.into() });
    }

    fn parsed<T, E: std::fmt::Display>(
        &mut self,
        field: &str,
        code: &'static str,
        value: Result<T, E>,
    ) {
        if let Err(error) = value {
            self.fail(field, code, error.to_string());
        }
    }

    fn at_most(&mut self, field: &str, count: usize, most: usize) {
        if count > most {
            self.fail(
                field,
                "TOO_MANY",
                format!("has {count} entries; at most {most} are allowed"),
            );
        }
    }

    fn length(&mut self, field: &str, text: &str, most: usize) {
        let count = text.chars().count();
        if count > most {
            self.fail(
                field,
                "TOO_LONG",
                format!("has {count} characters; at most {most} are allowed"),
            );
        }
    }

    fn distinct<'a>(&mut self, field: &str, values: impl Iterator<Item = &'a str>) {
        let mut seen = HashSet::new();
        for (index, value) in values.enumerate() {
            if !seen.insert(value) {
                self.fail(
                    format!("{field}[{index}]"),
                    "DUPLICATE",
                    format!("{value:?} is given twice"),
                );
            }
        }
    }

    /// A list of short texts that name things elsewhere: owners, queues, pools.
    fn words(&mut self, field: &str, values: &[String], most: usize) {
        self.at_most(field, values.len(), most);
        for (index, value) in values.iter().take(most).enumerate() {
            let good = !value.trim().is_empty()
                && value.chars().count() <= 250
                && !value.chars().any(char::is_control);
            if !good {
                let rule = "must be 1 to 250 characters, not blank, without control characters";
                self.fail(format!("{field}[{index}]"), "INVALID_TEXT", rule);
            }
        }
        self.distinct(field, values.iter().take(most).map(String::as_str));
    }

    fn labels(&mut self, labels: &Labels) {
        self.at_most("labels", labels.len(), LABELS_MAX);
        for (key, value) in labels.iter().take(LABELS_MAX) {
            let field = format!("labels[{}]", key.chars().take(80).collect::<String>());
            self.label_key(&field, key);
            self.label_value(&field, value);
        }
    }

    fn label_key(&mut self, field: &str, key: &str) {
        let good = (1..=63).contains(&key.len())
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-'))
            && key.as_bytes()[0].is_ascii_alphanumeric();
        if !good {
            let rule = "keys have 1 to 63 characters of A-Z a-z 0-9 . _ / -, starting with a letter or digit";
            self.fail(field, "INVALID_LABEL_KEY", rule);
        }
    }

    fn label_value(&mut self, field: &str, value: &str) {
        let good = value.len() <= 63
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !good {
            let rule = "values have at most 63 characters of A-Z a-z 0-9 . _ -";
            self.fail(field, "INVALID_LABEL_VALUE", rule);
        }
    }

    fn metadata(&mut self, metadata: &Metadata) {
        self.labels(&metadata.labels);
        self.length("description", &metadata.description, DESCRIPTION_MAX);
    }

    fn resources(&mut self, field: &str, amounts: &Resources) {
        for (dimension, amount) in DIMENSIONS.into_iter().zip(amounts.values()) {
            if !(0..=AMOUNT_MAX).contains(&amount) {
                let rule = format!("is {amount}; must be between 0 and {AMOUNT_MAX}");
                self.fail(format!("{field}.{dimension}"), "OUT_OF_RANGE", rule);
            }
        }
    }

    fn requirement(&mut self, field: &str, requirement: &Requirement) {
        self.label_key(&format!("{field}.key"), &requirement.key);
        let values = format!("{field}.values");
        self.at_most(&values, requirement.values.len(), LIST_MAX);
        for (index, value) in requirement.values.iter().take(LIST_MAX).enumerate() {
            self.label_value(&format!("{values}[{index}]"), value);
        }
        match (requirement.operator, requirement.values.is_empty()) {
            (Operator::In | Operator::NotIn, true) => {
                self.fail(values, "REQUIRED", "In and NotIn need at least one value");
            }
            (Operator::Exists | Operator::DoesNotExist, false) => {
                self.fail(values, "NOT_ALLOWED", "Exists and DoesNotExist take no values");
            }
            _ => {}
        }
    }

    fn placement(&mut self, placement: &Placement) {
        let Placement { selector, tolerations, airflow_version, region, spread_group } = placement;
        self.at_most("placement.selector", selector.len(), RULES_MAX);
        for (index, requirement) in selector.iter().take(RULES_MAX).enumerate() {
            self.requirement(&format!("placement.selector[{index}]"), requirement);
        }
        self.at_most("placement.tolerations", tolerations.len(), RULES_MAX);
        for (index, toleration) in tolerations.iter().take(RULES_MAX).enumerate() {
            let field = format!("placement.tolerations[{index}]");
            self.label_key(&format!("{field}.key"), &toleration.key);
            self.label_value(&format!("{field}.value"), &toleration.value);
        }
        self.parsed(
            "placement.airflow_version",
            "INVALID_VERSION_RANGE",
            parse_version_range(airflow_version),
        );
        self.label_value("placement.region", region);
        self.label_value("placement.spread_group", spread_group);
    }
}

/// Whether a URL carries `user:password@`.
fn has_password(uri: &str) -> bool {
    uri.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

/// A range of Airflow versions such as `>=3.0, <4`; an empty text is any version.
pub fn parse_version_range(text: &str) -> Result<VersionReq, String> {
    if text.trim().is_empty() {
        return Ok(VersionReq::STAR);
    }
    VersionReq::parse(text).map_err(|error| {
        let text: String = text.chars().take(80).collect();
        format!("{text:?} is not a version range such as \">=3.0, <4\": {error}")
    })
}

impl Namespace {
    /// Everything that is wrong with it; empty where nothing is.
    pub fn validate(&self) -> Vec<Violation> {
        let mut check = Check::default();
        let spec = &self.spec;
        check.parsed("name", "INVALID_NAME", self.metadata.name.parse::<NamespaceName>());
        check.metadata(&self.metadata);
        if spec.owners.is_empty() {
            check.fail("owners", "REQUIRED", "at least one owner is needed");
        }
        check.words("owners", &spec.owners, OWNERS_MAX);
        if spec.prefixes.is_empty() {
            let hint = format!(
                "at least one dag_id prefix is needed, such as \"{}__\"",
                self.metadata.name
            );
            check.fail("prefixes", "REQUIRED", hint);
        }
        check.at_most("prefixes", spec.prefixes.len(), LIST_MAX);
        for (index, prefix) in spec.prefixes.iter().take(LIST_MAX).enumerate() {
            check.parsed(&format!("prefixes[{index}]"), "INVALID_PREFIX", prefix.parse::<Prefix>());
        }
        check.distinct("prefixes", spec.prefixes.iter().take(LIST_MAX).map(String::as_str));
        check.resources("demand", &spec.demand);
        check.placement(&spec.placement);
        check.workload(spec);
        check.0
    }
}

impl Shard {
    /// Everything that is wrong with it; empty where nothing is.
    pub fn validate(&self) -> Vec<Violation> {
        let mut check = Check::default();
        let spec = &self.spec;
        check.parsed("name", "INVALID_NAME", self.metadata.name.parse::<ShardName>());
        check.metadata(&self.metadata);
        check.label_value("region", &spec.region);
        check.label_value("failure_domain", &spec.failure_domain);
        check.at_most("taints", spec.taints.len(), RULES_MAX);
        for (index, taint) in spec.taints.iter().take(RULES_MAX).enumerate() {
            check.label_key(&format!("taints[{index}].key"), &taint.key);
            check.label_value(&format!("taints[{index}].value"), &taint.value);
        }
        if !spec.airflow_version.is_empty() {
            let version = semver::Version::parse(&spec.airflow_version)
                .map_err(|error| format!("must be a version such as 3.3.2: {error}"));
            check.parsed("airflow_version", "INVALID_VERSION", version);
        }
        check.resources("capacity", &spec.capacity);
        check.length("url", &spec.url, URI_MAX);
        if !spec.url.is_empty() && !["http://", "https://"].iter().any(|s| spec.url.starts_with(s))
        {
            check.fail("url", "INVALID_URI", "must start with http:// or https://");
        }
        if has_password(&spec.url) {
            check.fail("url", "SECRET", "must not hold a password");
        }
        check.0
    }
}
