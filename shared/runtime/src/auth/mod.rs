//! Who a caller is and what that allows.
//!
//! Responsible for roles and principals, and for finding the principal of a bearer token
//! ([`Tokens`]) or client certificate ([`certificate`]).
//!
//! Invariant: a credential that is sent and not valid is refused, never downgraded to a lesser
//! identity. It must not know which RPC needs which role: services ask.

pub mod certificate;
mod tokens;

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::tokens::{Table, expired};
pub use self::tokens::{Tokens, TokensError};
use crate::status::Failure;

/// What a principal may do.
///
/// Viewer, tenant, operator and admin form a ladder: each may do what the ones before it may. An
/// agent stands apart: it speaks for one shard and may do nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything, changes nothing.
    Viewer,
    /// Reads everything, changes its own namespaces.
    Tenant,
    /// Changes namespaces and shards, and moves them.
    Operator,
    /// Everything.
    Admin,
    /// Reports for one shard.
    Agent,
}

impl Role {
    /// The name in token files and certificates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Tenant => "tenant",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Agent => "agent",
        }
    }

    const fn rung(self) -> Option<u8> {
        match self {
            Self::Viewer => Some(0),
            Self::Tenant => Some(1),
            Self::Operator => Some(2),
            Self::Admin => Some(3),
            Self::Agent => None,
        }
    }

    /// Whether this role may do all that `other` may.
    pub const fn includes(self, other: Self) -> bool {
        match (self.rung(), other.rung()) {
            (Some(mine), Some(others)) => mine >= others,
            (None, None) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name of a role that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("unknown role {0:?}; use viewer, tenant, operator, admin or agent")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Self::Viewer, Self::Tenant, Self::Operator, Self::Admin, Self::Agent]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// A name, or all names with a prefix (`payments-*`), or all names (`*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

/// A pattern with a star elsewhere than at its end, or without any character.
#[derive(Debug, thiserror::Error)]
#[error("invalid name pattern {0:?}; give a name, or a prefix followed by *")]
pub struct InvalidPattern(String);

impl NamePattern {
    /// Parses a pattern.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidPattern> {
        let text = text.into();
        let fixed = text.strip_suffix('*').unwrap_or(&text);
        if text.is_empty() || fixed.contains('*') {
            return Err(InvalidPattern(text));
        }
        Ok(Self(text))
    }

    /// Whether `name` is one of the names.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.0 == name,
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Somebody who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who it is, for audit and limits: `token:<name>`, `user:<name>`, `shard:<name>` or
    /// `anonymous`.
    pub subject: String,
    /// What it may do.
    pub role: Role,
    /// The namespaces that a tenant may change.
    pub namespaces: Vec<NamePattern>,
    /// The shards that an agent speaks for.
    pub shard: Option<NamePattern>,
    /// When its credential ends.
    pub expires_at: Option<Timestamp>,
}

impl Principal {
    /// A principal without namespaces or shard.
    pub fn new(subject: impl Into<String>, role: Role) -> Self {
        Self {
            subject: subject.into(),
            role,
            namespaces: Vec::new(),
            shard: None,
            expires_at: None,
        }
    }

    /// Everybody, where no authentication is configured: an admin, and an agent of any shard.
    pub fn anonymous() -> Self {
        Self { shard: Some(NamePattern("*".to_owned())), ..Self::new("anonymous", Role::Admin) }
    }

    /// The agent of one shard.
    pub fn agent(subject: impl Into<String>, shard: NamePattern) -> Self {
        Self { shard: Some(shard), ..Self::new(subject, Role::Agent) }
    }

    /// A tenant with its namespaces.
    pub fn tenant(subject: impl Into<String>, namespaces: Vec<NamePattern>) -> Self {
        Self { namespaces, ..Self::new(subject, Role::Tenant) }
    }

    /// Refuses a principal whose role is less than `min`.
    pub fn require_role(&self, min: Role) -> Result<(), Failure> {
        if self.role.includes(min) {
            return Ok(());
        }
        Err(Failure::denied(format!(
            "{} has the role {}; this needs {min}",
            self.subject, self.role
        ))
        .with_metadata("required_role", min.as_str()))
    }

    /// Whether it may change the namespace `name`.
    pub fn may_write_namespace(&self, name: &str) -> bool {
        match self.role {
            Role::Admin | Role::Operator => true,
            Role::Tenant => self.namespaces.iter().any(|pattern| pattern.matches(name)),
            Role::Viewer | Role::Agent => false,
        }
    }

    /// Refuses a principal that may not change the namespace `name`.
    pub fn require_write_namespace(&self, name: &str) -> Result<(), Failure> {
        if self.may_write_namespace(name) {
            return Ok(());
        }
        Err(Failure::denied(format!(
            "{} has the role {} and may not change the namespace {name:?}",
            self.subject, self.role
        ))
        .with_resource("namespace", name))
    }

    /// Whether it speaks for the shard `name`.
    pub fn is_agent_for(&self, name: &str) -> bool {
        self.shard.as_ref().is_some_and(|pattern| pattern.matches(name))
    }

    /// Refuses a principal that does not speak for the shard `name`.
    pub fn require_agent_for(&self, name: &str) -> Result<(), Failure> {
        if self.is_agent_for(name) {
            return Ok(());
        }
        Err(Failure::denied(format!("{} does not speak for the shard {name:?}", self.subject))
            .with_resource("shard", name))
    }

    /// Whether its credential ended before `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// The principal as it can be shared between requests.
    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_form_a_ladder_beside_agents() {
        assert!(Role::Admin.includes(Role::Operator) && Role::Operator.includes(Role::Tenant));
        assert!(Role::Tenant.includes(Role::Viewer) && !Role::Viewer.includes(Role::Tenant));
        assert!(!Role::Agent.includes(Role::Viewer) && !Role::Admin.includes(Role::Agent));
        let error = Principal::new("user:v", Role::Viewer).require_role(Role::Admin).unwrap_err();
        assert_eq!(error.to_string(), "user:v has the role viewer; this needs admin");
    }

    #[test]
    fn a_tenant_writes_only_its_own() {
        let patterns = ["payments", "ml-*"].map(|text| NamePattern::new(text).unwrap());
        let tenant = Principal::tenant("token:t", patterns.to_vec());
        assert!(tenant.may_write_namespace("payments") && tenant.may_write_namespace("ml-ads"));
        assert!(!tenant.may_write_namespace("payments2") && !tenant.may_write_namespace("ml"));
        assert!(tenant.require_write_namespace("other").is_err());
        assert!(!Principal::new("user:v", Role::Viewer).may_write_namespace("payments"));
    }

    #[test]
    fn an_agent_speaks_for_its_shard() {
        let agent = Principal::agent("shard:a", NamePattern::new("shard-a").unwrap());
        assert!(agent.is_agent_for("shard-a") && !agent.is_agent_for("shard-ab"));
        assert!(!Principal::new("user:o", Role::Admin).is_agent_for("shard-a"));
        assert!(Principal::anonymous().is_agent_for("any"));
    }

    #[test]
    fn patterns_have_a_star_at_the_end_only() {
        assert!(NamePattern::new("a*b").is_err() && NamePattern::new("").is_err());
        assert!(NamePattern::new("*").unwrap().matches("anything"));
    }
}
