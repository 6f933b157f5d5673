//! The Grafana dashboard and the alert rules ask for what the fleet really tells: a real Prometheus
//! scrapes a running fleet, and every expression is evaluated there.

mod fleet;
mod grafana;
mod prometheus;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use self::{
    fleet::{DEADLINE, Fleet},
    grafana::{Dashboard, Query, substitute},
    prometheus::Prometheus,
};

/// Metrics that have no sample as long as nothing goes wrong, with the file that names them.
const SILENT_WHEN_WELL: [(&str, &str); 1] = [(
    "airfleet_router_store_errors_total",
    include_str!("../../../services/router/src/metrics.rs"),
)];

fn deploy(path: &str) -> PathBuf {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    deploy.canonicalize().expect("deploy is beside this crate").join(path)
}

fn dashboard() -> Dashboard {
    Dashboard::read(&deploy("grafana/dashboards/fleet.json")).unwrap()
}

fn configuration(fleet: &Fleet) -> String {
    let mut text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n",
        deploy("prometheus/alerts.yml").display()
    );
    let jobs: BTreeSet<_> = fleet.targets.iter().map(|(job, _)| *job).collect();
    for job in jobs {
        let addresses: Vec<_> = fleet
            .targets
            .iter()
            .filter(|(of, _)| *of == job)
            .map(|(_, address)| format!("\"{address}\""))
            .collect();
        let addresses = addresses.join(", ");
        writeln!(text, "  - job_name: {job}\n    static_configs: [{{targets: [{addresses}]}}]")
            .expect("text can be written to a string");
    }
    text
}

/// Names of metrics in an expression.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| word.starts_with("airfleet_"))
        .map(str::to_owned)
        .collect()
}

/// The expressions of the alerts, by name, as Prometheus reads the rules.
async fn alerts(prometheus: &Prometheus) -> Result<BTreeMap<String, Value>> {
    let groups = prometheus.rules().await?;
    let rules =
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
    let named = rules.map(|rule| (rule["name"].as_str().unwrap_or_default().to_owned(), rule));
    Ok(named.collect())
}

/// What of the queries gives no data now, and why.
async fn without_data(prometheus: &Prometheus, queries: &[Query]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for dimension in ["dags", "running_slots"] {
        let values = BTreeMap::from([
            ("shard", ".*".to_owned()),
            ("dimension", dimension.to_owned()),
            ("__rate_interval", "20s".to_owned()),
        ]);
        for Query { name, expression } in queries {
            let expression = substitute(expression, &values)?;
            // An annotation marks what seldom happens.
            let must_have_data = !name.starts_with("annotation");
            match prometheus.query(&expression).await {
                Err(error) => missing.push(format!("{name}: {expression}\n    {error}")),
                Ok(samples) if must_have_data && !samples.iter().any(is_a_number) => {
                    missing.push(format!("{name}: {expression}\n    {} samples", samples.len()));
                }
                Ok(_) => {}
            }
        }
    }
    Ok(missing)
}

/// Whether a sample's value is one that a panel can draw.
fn is_a_number(sample: &Value) -> bool {
    let text = sample["value"][1].as_str().unwrap_or_default();
    text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Waits until what `look` finds is empty. Looks again every second, as often as is scraped.
async fn until_none<F: Future<Output = Result<Vec<String>>>>(look: impl Fn() -> F) -> Result<()> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let found = look().await?;
        if found.is_empty() {
            return Ok(());
        }
        let passed = tokio::time::Instant::now() > deadline;
        anyhow::ensure!(!passed, "after {DEADLINE:?}:\n  {}", found.join("\n  "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_alert_asks_for_what_a_fleet_tells() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let server = airfleet_local::Prometheus::start_new(&configuration(&fleet)).await?;
    let prometheus = Prometheus::at(server.base_url());
    until_none(|| prometheus.failing_targets()).await.context("targets cannot be scraped")?;

    let dashboard = dashboard();
    let queries = dashboard.queries()?;
    assert!(queries.len() > 40, "only {} expressions were found", queries.len());
    let look = || without_data(&prometheus, &queries);
    until_none(look).await.context("expressions without data")?;

    for (name, (metric, label)) in dashboard.label_variables()? {
        let values = prometheus.label_values(&metric, &label).await?;
        assert!(!values.is_empty(), "the variable {name} has nothing to choose from");
    }

    let alerts = alerts(&prometheus).await?;
    assert!(alerts.len() > 10, "only {} alerts were read", alerts.len());
    let mut named: BTreeSet<String> = BTreeSet::new();
    for (name, rule) in &alerts {
        assert_eq!(rule["lastError"].as_str().unwrap_or_default(), "", "{name}");
        named.extend(metrics_in(rule["query"].as_str().context("a rule has no query")?));
    }
    // The dashboard draws a zero in the place of some that have no sample.
    named.extend(queries.iter().flat_map(|query| metrics_in(&query.expression)));
    for (metric, source) in SILENT_WHEN_WELL {
        assert!(named.remove(metric), "{metric} is asked for nowhere");
        let name = metric.trim_start_matches("airfleet_");
        assert!(source.contains(&format!("\"{name}\"")), "{metric} is told nowhere");
    }
    for metric in named {
        assert_ne!(prometheus.query(&metric).await?, [] as [Value; 0], "nobody tells {metric}");
    }

    fleet.check();
    server.stop().await;
    fleet.stop().await;
    Ok(())
}

#[test]
fn alert_rules_pass_their_tests_and_have_runbooks() {
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(deploy("prometheus"))
            .output()
            .expect("promtool is installed with prometheus");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
    };
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["check", "config", "--syntax-only", "prometheus.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);

    let rules = fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap();
    let tests = fs::read_to_string(deploy("prometheus/alerts_test.yml")).unwrap();
    let after = |line: &str, mark: &str| line.trim().strip_prefix(mark).map(str::to_owned);
    let mut alerts = 0;
    for alert in rules.lines().filter_map(|line| after(line, "- alert: ")) {
        alerts += 1;
        assert!(
            tests.contains(&format!("alertname: {alert}\n        exp_alerts:")),
            "no test sees {alert} fire"
        );
    }
    let mut runbooks = 0;
    for runbook in rules.lines().filter_map(|line| after(line, "runbook_url: ")) {
        runbooks += 1;
        let page = fs::read_to_string(deploy("..").join(&runbook))
            .unwrap_or_else(|error| panic!("{runbook}: {error}"));
        assert!(page.contains("## Look") && page.contains("## Do"), "{runbook} is not complete");
    }
    assert!(alerts > 10 && alerts == runbooks, "{alerts} alerts, {runbooks} runbooks");
}

#[test]
fn panels_do_not_overlap_and_say_what_they_show() {
    let dashboard = dashboard();
    let mut cells = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard.panels() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{title} has another panel's id");
        assert_ne!(panel["description"].as_str().unwrap_or_default(), "", "{title}");
        let at = |key: &str| panel["gridPos"][key].as_i64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title} is wider than the page");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(cells.insert((x, y)), "{title} lies on another panel");
            }
        }
    }
}
