//! The reference page of a service's settings, written from the code.

use std::fmt::Write as _;

use serde_json::Value;

use super::{ENV_PREFIX, ENV_SEPARATOR, Settings, schema::Shape, toml_text};

/// A Markdown section that lists every key of the settings `T` of `service`: its type, default,
/// environment variable and description.
pub fn reference_markdown<T: Settings>(service: &str) -> String {
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    let mut page = format!(
        "## {service}\n\n| Key | Type | Default | Environment | Meaning |\n|---|---|---|---|---|\n"
    );
    rows(&Shape::of::<T>(), &defaults, &mut Vec::new(), "", &mut page);
    page
}

fn rows(
    shape: &Shape,
    default: &Value,
    path: &mut Vec<String>,
    description: &str,
    page: &mut String,
) {
    match shape {
        Shape::Table(fields) => {
            for (name, field) in fields {
                path.push(name.clone());
                let default = default.get(name).unwrap_or(&Value::Null);
                rows(&field.shape, default, path, &field.description, page);
                path.pop();
            }
        }
        Shape::Map(inner) => match &**inner {
            Shape::Table(_) => {
                path.push("<name>".to_owned());
                rows(inner, &Value::Null, path, description, page);
                path.pop();
            }
            _ => row(path, "table", default, description, page),
        },
        Shape::Leaf(leaf) => row(path, &leaf.name(), default, description, page),
    }
}

fn row(path: &[String], kind: &str, default: &Value, description: &str, page: &mut String) {
    let default = match default {
        Value::Null => "not set".to_owned(),
        value => format!("`{}`", toml_text(value)),
    };
    let key = path.join(".");
    let variable = format!("{ENV_PREFIX}{}", path.join(ENV_SEPARATOR).to_uppercase());
    let description = description.replace('|', "\\|");
    let _ = writeln!(page, "| `{key}` | {kind} | {default} | `{variable}` | {description} |");
}
