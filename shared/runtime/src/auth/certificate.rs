//! Who a client certificate names.
//!
//! The authority that signs client certificates decides who is who: a certificate is taken at its
//! word once its signature and dates were verified by TLS. The first of these that it holds counts:
//!
//! - URI name `airfleet://shard/<name>`: the agent of that shard;
//! - URI name `airfleet://user/<name>?role=<role>`: a person or program with that role, and for a
//!   tenant `&namespaces=<name>,<prefix>*`;
//! - common name `shard:<name>`: the agent of that shard, for authorities that cannot sign URIs.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use x509_parser::{extensions::GeneralName, prelude::*};

use super::{NamePattern, Principal, Role};
use crate::status::{Failure, reason};

const URI_SCHEME: &str = "airfleet://";
const SHARD_COMMON_NAME: &str = "shard:";

/// The principal that the certificate `der` names. The certificate must have been verified.
pub fn principal(der: &[u8]) -> Result<Principal, Failure> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|_| refused("it is not a certificate"))?;
    let mut principal = match uri(&certificate) {
        Some(uri) => from_uri(uri)?,
        None => from_common_name(&certificate)?,
    };
    // TLS looks at the dates once, when the connection begins; connections live long.
    principal.expires_at =
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok();
    Ok(principal)
}

fn uri<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(URI_SCHEME),
        _ => None,
    })
}

fn from_common_name(certificate: &X509Certificate<'_>) -> Result<Principal, Failure> {
    let shard = certificate
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .find_map(|name| name.strip_prefix(SHARD_COMMON_NAME))
        .ok_or_else(|| refused("it has neither an airfleet:// URI nor a shard: common name"))?;
    agent(shard)
}

fn from_uri(uri: &str) -> Result<Principal, Failure> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    match path.split_once('/') {
        Some(("shard", name)) if query.is_empty() => agent(name),
        Some(("user", name)) => user(name, query),
        _ => Err(refused("its URI is neither airfleet://shard/ nor airfleet://user/")),
    }
}

fn agent(shard: &str) -> Result<Principal, Failure> {
    if !is_name(shard) {
        return Err(refused("the name of its shard is not a name"));
    }
    let pattern = NamePattern::new(shard).map_err(|error| refused(&error.to_string()))?;
    Ok(Principal::agent(format!("shard:{shard}"), pattern))
}

fn user(name: &str, query: &str) -> Result<Principal, Failure> {
    if !is_name(name) {
        return Err(refused("the name of its user is not a name"));
    }
    let mut role = None;
    let mut namespaces = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("role", text)) => {
                role = Some(text.parse::<Role>().map_err(|error| refused(&error.to_string()))?);
            }
            Some(("namespaces", text)) => {
                for text in text.split(',') {
                    let pattern =
                        NamePattern::new(text).map_err(|error| refused(&error.to_string()))?;
                    namespaces.push(pattern);
                }
            }
            _ => return Err(refused("its URI has a parameter other than role and namespaces")),
        }
    }
    match role {
        Some(Role::Agent) => Err(refused("an agent is named by airfleet://shard/")),
        Some(role) if (role == Role::Tenant) == namespaces.is_empty() => {
            Err(refused("a tenant has namespaces, and nobody else has"))
        }
        Some(role) => Ok(Principal { namespaces, ..Principal::new(format!("user:{name}"), role) }),
        None => Err(refused("its URI has no role")),
    }
}

fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
}

fn refused(why: &str) -> Failure {
    Failure::unauthenticated(
        reason::CERTIFICATE_UNKNOWN,
        format!("the client certificate names nobody: {why}"),
    )
}
