//! Identifiers as types of their own, parsed once at the edge.
//!
//! A value of one of these types is always well formed; nothing past the edge checks it again.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a text is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct Invalid {
    /// What it should have been, such as "namespace name".
    pub what: &'static str,
    /// The text, cut to 80 characters.
    pub value: String,
    /// The rule, in words.
    pub rule: &'static str,
}

fn invalid(what: &'static str, value: &str, rule: &'static str) -> Invalid {
    Invalid { what, value: value.chars().take(80).collect(), rule }
}

const NAME_RULE: &str =
    "3 to 50 characters of a-z, 0-9, - and _, starting with a letter or a digit";

/// Names of namespaces and shards share one form: 3–50 of `a-z 0-9 - _`, no leading sign.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (3..=50).contains(&bytes.len())
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        && !matches!(bytes[0], b'-' | b'_')
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text, for holders that keep many.
            pub fn shared(&self) -> &Arc<str> {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                if is_name(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(invalid($what, text, NAME_RULE))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// Name of a namespace.
    NamespaceName,
    "namespace name"
);
name_type!(
    /// Name of a shard.
    ShardName,
    "shard name"
);

/// Most characters of a dag_id in Airflow (`dag.dag_id` is `varchar(250)`).
pub const DAG_ID_MAX_CHARS: usize = 250;

/// Fewest characters of a prefix: a shorter one would take a large part of all dag_ids.
pub const PREFIX_MIN_CHARS: usize = 3;

/// Whether every character may stand in a dag_id: Airflow's `[\w.-]`, where `\w` is Unicode.
pub fn is_dag_id_text(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Start of every dag_id that a namespace owns.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether some dag_id could start with both.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.0.starts_with(&*other.0) || other.0.starts_with(&*self.0)
    }
}

impl FromStr for Prefix {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let count = text.chars().count();
        if (PREFIX_MIN_CHARS..=DAG_ID_MAX_CHARS).contains(&count) && is_dag_id_text(text) {
            Ok(Self(text.into()))
        } else {
            Err(invalid("prefix", text, "3 to 250 characters of letters, digits, _, . and -"))
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.0.as_ref().to_owned()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Tells a move from all others: 1 to 64 of `a-z 0-9 -`. Later ones sort later.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MoveId(Arc<str>);

impl MoveId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MoveId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_id = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(is_id) {
            Ok(Self(text.into()))
        } else {
            Err(invalid("move id", text, "1 to 64 characters of a-z, 0-9 and -"))
        }
    }
}

impl TryFrom<String> for MoveId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<MoveId> for String {
    fn from(id: MoveId) -> String {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

macro_rules! counter_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl $name {
            /// The one after it.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter_type!(
    /// Grows by one at every change of a namespace's owner.
    Generation
);
counter_type!(
    /// A store's change counter.
    Revision
);
counter_type!(
    /// Grows with every leader of the routers.
    Term
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for good in ["abc", "a-b", "0_9", &"x".repeat(50)] {
            assert!(good.parse::<NamespaceName>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "-ab", "_ab", "Abc", "a b", "a.b", "äbc", &"x".repeat(51)] {
            assert!(bad.parse::<ShardName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_count_characters_and_know_overlap() {
        assert!("ä".repeat(250).parse::<Prefix>().is_ok());
        for bad in ["", "ab", "a b", "a/b", "a%__", &"x".repeat(251)] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        assert!(prefix("pay").overlaps(&prefix("payments.")));
        assert!(prefix("payments.").overlaps(&prefix("pay")));
        assert!(!prefix("payments.").overlaps(&prefix("payments__")));
    }

    #[test]
    fn errors_do_not_repeat_a_hostile_text_whole() {
        let error = "X".repeat(10_000).parse::<NamespaceName>().unwrap_err();
        assert!(error.to_string().len() < 250);
    }
}
