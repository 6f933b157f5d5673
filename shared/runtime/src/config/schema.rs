//! The keys that a settings struct has, as its JSON schema tells.

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};

/// What may stand at a place in the settings.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// A table with these keys and no others.
    Table(BTreeMap<String, Field>),
    /// A table with any keys, all of one shape.
    Map(Box<Shape>),
    /// A value.
    Leaf(Leaf),
}

/// One key of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) shape: Shape,
    pub(super) description: String,
}

/// A kind of value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Leaf {
    Text { format: Option<String> },
    Choice(Vec<String>),
    Integer,
    Number,
    Bool,
    List,
    Any,
}

impl Leaf {
    /// The name that the reference gives this kind.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Text { format: Some(format) } => format.clone(),
            Self::Text { format: None } => "text".to_owned(),
            Self::Choice(values) => {
                values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ")
            }
            Self::Integer => "integer".to_owned(),
            Self::Number => "number".to_owned(),
            Self::Bool => "boolean".to_owned(),
            Self::List => "list".to_owned(),
            Self::Any => "any".to_owned(),
        }
    }
}

impl Shape {
    /// The shape of the settings `T`.
    pub(super) fn of<T: JsonSchema>() -> Self {
        let schema = SchemaSettings::draft2020_12()
            .with(|settings| settings.inline_subschemas = true)
            .into_generator()
            .into_root_schema_for::<T>();
        Self::read(schema.as_value())
    }

    fn read(schema: &Value) -> Self {
        let Some(table) = schema.as_object() else { return Self::Leaf(Leaf::Any) };
        if let Some(inner) = only_alternative(table) {
            return Self::read(inner);
        }
        if let Some(Value::Object(properties)) = table.get("properties") {
            let fields = properties
                .iter()
                .map(|(name, schema)| {
                    let field =
                        Field { shape: Self::read(schema), description: description(schema) };
                    (name.clone(), field)
                })
                .collect();
            return Self::Table(fields);
        }
        if let Some(values) = choices(table) {
            return Self::Leaf(Leaf::Choice(values));
        }
        let format = table.get("format").and_then(Value::as_str).map(str::to_owned);
        Self::Leaf(match type_name(table) {
            Some("string") => Leaf::Text { format },
            Some("integer") => Leaf::Integer,
            Some("number") => Leaf::Number,
            Some("boolean") => Leaf::Bool,
            Some("array") => Leaf::List,
            Some("object") => {
                let values =
                    table.get("additionalProperties").map_or(Self::Leaf(Leaf::Any), Self::read);
                return Self::Map(Box::new(values));
            }
            _ => Leaf::Any,
        })
    }

    /// Takes a tree of values apart into the leaves that it sets. Each goes to `sink` with its
    /// path, or as the description of what is wrong.
    pub(super) fn split(
        &self,
        value: Value,
        path: &mut Vec<String>,
        sink: &mut impl FnMut(Vec<String>, Result<Value, String>),
    ) {
        match (self, value) {
            (Self::Table(fields), Value::Object(values)) => {
                for (name, value) in values {
                    path.push(name.clone());
                    match fields.get(&name) {
                        Some(field) => field.shape.split(value, path, sink),
                        None => sink(path.clone(), Err(self.unknown(path, path.len() - 1))),
                    }
                    path.pop();
                }
            }
            (Self::Map(inner), Value::Object(values)) => {
                for (name, value) in values {
                    path.push(name);
                    inner.split(value, path, sink);
                    path.pop();
                }
            }
            (_, value) => sink(path.clone(), Ok(value)),
        }
    }

    /// Reads `text` as the type of the key at `path`.
    pub(super) fn parse(&self, path: &[String], text: &str) -> Result<Value, String> {
        let mut shape = self;
        for (depth, name) in path.iter().enumerate() {
            shape = match shape {
                Self::Table(fields) => match fields.get(name) {
                    Some(field) => &field.shape,
                    None => return Err(shape.unknown(path, depth)),
                },
                Self::Map(inner) => inner,
                Self::Leaf(_) => return Err(format!("{} is not a table", path[..depth].join("."))),
            };
        }
        let key = path.join(".");
        match shape {
            Self::Leaf(leaf) => leaf.parse(text).map_err(|problem| format!("{key}: {problem}")),
            Self::Table(_) | Self::Map(_) => inline(text)
                .filter(Value::is_object)
                .ok_or_else(|| format!("{key}: expected a table such as {{ key = \"value\" }}")),
        }
    }

    /// Says that the key at `path[..=depth]` does not exist and which one was probably meant. The
    /// shape is the one of the table in which it was looked for.
    fn unknown(&self, path: &[String], depth: usize) -> String {
        let key = path[..=depth].join(".");
        let Self::Table(fields) = self else { return format!("unknown key {key}") };
        let parent = &path[..depth];
        let nearest =
            fields.keys().map(|name| (strsim::damerau_levenshtein(name, &path[depth]), name)).min();
        match nearest {
            Some((distance, name)) if distance <= path[depth].len().max(3) / 2 => {
                let mut meant = parent.to_vec();
                meant.push(name.clone());
                format!("unknown key {key}; did you mean {}?", meant.join("."))
            }
            _ => {
                let known: Vec<_> = fields.keys().map(String::as_str).collect();
                format!("unknown key {key}; known here: {}", known.join(", "))
            }
        }
    }
}

impl Leaf {
    fn parse(&self, text: &str) -> Result<Value, String> {
        let trimmed = text.trim();
        match self {
            Self::Text { .. } | Self::Choice(_) => Ok(Value::String(text.to_owned())),
            Self::Integer => trimmed
                .parse::<i64>()
                .map(Value::from)
                .map_err(|_| "expected a whole number".to_owned()),
            Self::Number => {
                trimmed.parse::<f64>().map(Value::from).map_err(|_| "expected a number".to_owned())
            }
            Self::Bool => trimmed
                .parse::<bool>()
                .map(Value::from)
                .map_err(|_| "expected true or false".to_owned()),
            Self::List if trimmed.starts_with('[') => {
                inline(trimmed).ok_or_else(|| "expected a list such as [\"a\", \"b\"]".to_owned())
            }
            Self::List => Ok(trimmed
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.to_owned()))
                .collect()),
            Self::Any => Ok(inline(trimmed).unwrap_or_else(|| Value::String(text.to_owned()))),
        }
    }
}

/// Reads a TOML value.
fn inline(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    let mut table = table;
    serde_json::to_value(table.remove("value")?).ok()
}

/// The one alternative of an `anyOf` that is not null, which is how an optional value is written.
fn only_alternative(table: &Map<String, Value>) -> Option<&Value> {
    let Some(Value::Array(alternatives)) = table.get("anyOf").or_else(|| table.get("allOf")) else {
        return None;
    };
    let mut others = alternatives
        .iter()
        .filter(|schema| schema.get("type").and_then(Value::as_str) != Some("null"));
    let first = others.next()?;
    others.next().is_none().then_some(first)
}

/// The type, other than null.
fn type_name(table: &Map<String, Value>) -> Option<&str> {
    match table.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

/// The values of a schema that allows only certain texts.
fn choices(table: &Map<String, Value>) -> Option<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(Value::Array(values)) = table.get("enum") {
        return values.iter().filter(|value| !value.is_null()).map(text).collect();
    }
    let Some(Value::Array(alternatives)) = table.get("oneOf") else { return None };
    let mut found = Vec::new();
    for alternative in alternatives {
        let alternative = alternative.as_object()?;
        match alternative.get("const") {
            Some(value) => found.push(text(value)?),
            None => found.extend(choices(alternative)?),
        }
    }
    Some(found)
}

fn description(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    // Lines of a doc comment are one paragraph.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
