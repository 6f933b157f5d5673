//! Asks a Prometheus.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// A Prometheus to ask.
#[derive(Debug)]
pub(crate) struct Prometheus {
    base_url: String,
    http: reqwest::Client,
}

impl Prometheus {
    /// The one at `base_url`.
    pub(crate) fn at(base_url: String) -> Self {
        Self { base_url, http: reqwest::Client::new() }
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut url = url::Url::parse(&format!("{}/api/v1/{path}", self.base_url))?;
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        let answer: Value = self.http.get(url).send().await?.json().await?;
        if answer["status"] != "success" {
            bail!("{}", answer["error"].as_str().unwrap_or("no reason given"));
        }
        Ok(answer["data"].clone())
    }

    /// The samples that an expression gives now; an error where it cannot be read.
    pub(crate) async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let data = self.get("query", &[("query", expression)]).await?;
        ensure!(data["resultType"] == "vector", "{expression} gives {}", data["resultType"]);
        Ok(data["result"].as_array().context("no list of samples")?.clone())
    }

    /// The values that a label of a metric has.
    pub(crate) async fn label_values(&self, metric: &str, label: &str) -> Result<Vec<String>> {
        let data = self.get(&format!("label/{label}/values"), &[("match[]", metric)]).await?;
        Ok(serde_json::from_value(data)?)
    }

    /// The groups of rules, with how their evaluation went.
    pub(crate) async fn rules(&self) -> Result<Vec<Value>> {
        let data = self.get("rules", &[]).await?;
        Ok(data["groups"].as_array().context("no list of groups")?.clone())
    }

    /// Why targets cannot be scraped, by URL; empty where all can.
    pub(crate) async fn failing_targets(&self) -> Result<Vec<String>> {
        let data = self.get("targets", &[("state", "active")]).await?;
        let targets = data["activeTargets"].as_array().context("no list of targets")?;
        if targets.is_empty() {
            return Ok(vec!["no target is known yet".to_owned()]);
        }
        Ok(targets
            .iter()
            .filter(|target| target["health"] != "up")
            .map(|target| format!("{}: {}", target["scrapeUrl"], target["lastError"]))
            .collect())
    }
}
