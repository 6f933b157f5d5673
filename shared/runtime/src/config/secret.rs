//! Settings that must not be seen.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// A text that is never printed: `Debug`, `Display` and `Serialize` hide it. Defaults must not
/// hold one that is not empty, because defaults are serialised when settings are loaded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Name it where it is used, so that uses can be found.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.0.is_empty() { "" } else { REDACTED }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "secret" })
    }
}

/// A URL whose password is never printed, such as `postgres://airfleet:…@db/airfleet`.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionUrl {
    text: String,
    shown: String,
}

/// A text that is no URL.
#[derive(Debug, thiserror::Error)]
#[error("not a URL; write scheme:address, such as sqlite:airfleet.db or postgres://host/database")]
pub struct InvalidUrl;

impl ConnectionUrl {
    /// Parses a URL.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidUrl> {
        let text = text.into();
        let (scheme, _) = text.split_once(':').ok_or(InvalidUrl)?;
        let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if !valid {
            return Err(InvalidUrl);
        }
        let shown = redact(&text);
        Ok(Self { text, shown })
    }

    /// The URL with its password.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The scheme, such as `sqlite`.
    pub fn scheme(&self) -> &str {
        self.text.split_once(':').map_or("", |(scheme, _)| scheme)
    }
}

/// Hides the password before the host, and the values of query parameters that hold one.
fn redact(url: &str) -> String {
    let (rest, query) = match url.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (url, None),
    };
    let mut shown = match rest.split_once("://") {
        Some((scheme, rest)) => {
            // A password may hold a slash by mistake: take everything up to the last at sign.
            match rest.rsplit_once('@') {
                Some((login, host)) => match login.split_once(':') {
                    Some((user, _)) => format!("{scheme}://{user}:{REDACTED}@{host}"),
                    None => rest_of(scheme, rest),
                },
                None => rest_of(scheme, rest),
            }
        }
        None => rest.to_owned(),
    };
    if let Some(query) = query {
        let hidden: Vec<_> = query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some((key, _)) if key.contains("password") || key.contains("token") => {
                    format!("{key}={REDACTED}")
                }
                _ => pair.to_owned(),
            })
            .collect();
        shown.push('?');
        shown.push_str(&hidden.join("&"));
    }
    shown
}

fn rest_of(scheme: &str, rest: &str) -> String {
    format!("{scheme}://{rest}")
}

impl FromStr for ConnectionUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        Self::new(text)
    }
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Serialize for ConnectionUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown)
    }
}

impl<'de> Deserialize<'de> for ConnectionUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ConnectionUrl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ConnectionUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "URL" })
    }
}
