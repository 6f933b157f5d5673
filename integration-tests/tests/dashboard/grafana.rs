//! What a Grafana dashboard asks Prometheus, as Grafana would ask it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// One expression of a panel or annotation.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// Title of the panel, and which of its expressions.
    pub(crate) name: String,
    /// The expression, with variables.
    pub(crate) expression: String,
}

/// A dashboard.
#[derive(Debug)]
pub(crate) struct Dashboard {
    json: Value,
}

impl Dashboard {
    /// Reads a dashboard's JSON.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(Self { json: serde_json::from_str(&text)? })
    }

    /// Every panel that shows something: not rows, but what is in collapsed ones.
    pub(crate) fn panels(&self) -> Vec<&Value> {
        fn collect<'a>(list: &'a Value, found: &mut Vec<&'a Value>) {
            for panel in list.as_array().into_iter().flatten() {
                if panel["type"] == "row" {
                    collect(&panel["panels"], found);
                } else {
                    found.push(panel);
                }
            }
        }
        let mut found = Vec::new();
        collect(&self.json["panels"], &mut found);
        found
    }

    /// Every expression of every panel and annotation.
    pub(crate) fn queries(&self) -> Result<Vec<Query>> {
        let mut queries = Vec::new();
        for panel in self.panels() {
            let title = panel["title"].as_str().context("a panel has no title")?;
            let targets = panel["targets"].as_array().context("a panel asks nothing")?;
            ensure!(!targets.is_empty(), "panel {title:?} asks nothing");
            for target in targets {
                let reference = target["refId"].as_str().context("a target has no refId")?;
                let expression = target["expr"].as_str().context("a target has no expression")?;
                queries.push(Query {
                    name: format!("{title} {reference}"),
                    expression: expression.to_owned(),
                });
            }
        }
        for annotation in self.json["annotations"]["list"].as_array().into_iter().flatten() {
            if let Some(expression) = annotation["expr"].as_str() {
                let name = format!("annotation {}", annotation["name"]);
                queries.push(Query { name, expression: expression.to_owned() });
            }
        }
        Ok(queries)
    }

    /// What the variables are read from, as `metric` and `label` of `label_values(metric, label)`,
    /// by the variable's name.
    pub(crate) fn label_variables(&self) -> Result<BTreeMap<String, (String, String)>> {
        let mut variables = BTreeMap::new();
        for variable in self.json["templating"]["list"].as_array().into_iter().flatten() {
            if variable["type"] != "query" {
                continue;
            }
            let name = variable["name"].as_str().context("a variable has no name")?;
            let text = variable["definition"].as_str().context("a variable asks nothing")?;
            let (metric, label) = text
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'))
                .and_then(|rest| rest.split_once(", "))
                .with_context(|| format!("{text:?} is not label_values(metric, label)"))?;
            variables.insert(name.to_owned(), (metric.to_owned(), label.to_owned()));
        }
        Ok(variables)
    }
}

/// Puts values in the place of variables, written `$name` or `${name}`, as Grafana does.
pub(crate) fn substitute(expression: &str, values: &BTreeMap<&str, String>) -> Result<String> {
    let mut result = expression.to_owned();
    // Longer names first: `$shard` must not be taken for the beginning of `$shards`.
    for (name, value) in values.iter().rev() {
        result = result.replace(&format!("${{{name}}}"), value);
        result = result.replace(&format!("${name}"), value);
    }
    ensure!(!result.contains('$'), "{expression:?} has a variable that the test does not know");
    Ok(result)
}
