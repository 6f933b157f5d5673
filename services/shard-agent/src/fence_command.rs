//! The command `airfleet-agent fence`: for on-call engineers and for whoever owns the database.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, bail};

use crate::{
    AgentConfig,
    airflow::{
        fence::{self, Installed, Removal, Status, TriggerState},
        metadata::Metadata,
    },
};

/// Longest that one statement may run: locking a busy table of DAGs may take a few attempts.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

fn metadata(config: &AgentConfig) -> anyhow::Result<Metadata> {
    let Some(url) = &config.airflow.metadata_url else {
        bail!("airflow.metadata_url is not set: it says where the fence is");
    };
    Metadata::new(url, STATEMENT_TIMEOUT).context("airflow.metadata_url cannot be used")
}

/// Looks at the fence.
pub async fn status(config: &AgentConfig) -> anyhow::Result<Status> {
    Ok(fence::status(&metadata(config)?).await?)
}

/// What [`status`] found, for people.
pub fn table(status: &Status) -> String {
    let mut text = String::new();
    let Some(version) = status.version else {
        return "no fence is installed; airfleet-agent fence install does it\n".to_owned();
    };
    let (at, by) = (status.installed_at.as_deref(), status.installed_by.as_deref());
    let (at, by) = (at.unwrap_or("?"), by.unwrap_or("?"));
    // Writing to a text does not fail.
    let _ = writeln!(text, "fence version {version}, installed {at} by agent {by}");
    let trigger = match status.trigger {
        TriggerState::Works => "works",
        TriggerState::Missing => "is MISSING: nothing is fenced; run airfleet-agent fence install",
        TriggerState::Disabled => {
            "is DISABLED: nothing is fenced; run airfleet-agent fence install"
        }
        TriggerState::Altered => "was ALTERED; run airfleet-agent fence install",
    };
    let _ = writeln!(text, "trigger on dag {trigger}");
    if status.leaks > 0 {
        let _ = writeln!(text, "{} DAGs are fenced and yet NOT PAUSED", status.leaks);
    }
    if status.elsewhere > 0 {
        let _ = writeln!(text, "{} prefixes of namespaces of other shards", status.elsewhere);
    }
    let width = status.namespaces.iter().map(|n| n.namespace.len()).max().unwrap_or(0).max(9);
    let _ = writeln!(
        text,
        "{:width$}  {:8}  {:>10}  {:6}  {:>6}  {:>6}  {:>6}",
        "NAMESPACE", "ROLE", "GENERATION", "FENCE", "DAGS", "PAUSED", "NOTED"
    );
    for n in &status.namespaces {
        let fence = if n.open { "open" } else { "closed" };
        let role = match n.reached_role.as_deref() {
            Some(reached) if reached == n.role => n.role.clone(),
            reached => format!("{}>{}", reached.unwrap_or("-"), n.role),
        };
        let _ = writeln!(
            text,
            "{:width$}  {role:8}  {:>10}  {fence:6}  {:>6}  {:>6}  {:>6}",
            n.namespace, n.generation, n.dags, n.paused, n.noted
        );
    }
    text
}

/// Installs the fence, or puts it right; answers with what was done.
pub async fn install(config: &AgentConfig, grant_to: Option<&str>) -> anyhow::Result<String> {
    let installed = fence::install(&metadata(config)?, grant_to).await?;
    let mut done = match installed {
        Installed::Already => format!("fence version {} is installed already", fence::VERSION),
        Installed::Now => format!("fence version {} is installed", fence::VERSION),
        Installed::Newer(newer) => bail!(
            "fence version {newer} of a later agent is installed, this one brings {}; use that agent",
            fence::VERSION
        ),
    };
    if let Some(role) = grant_to {
        let _ = write!(done, "; {role} may do what an agent does");
    }
    Ok(done)
}

/// Removes the fence; answers with what was done.
pub async fn remove(config: &AgentConfig, force: bool) -> anyhow::Result<String> {
    Ok(match fence::remove(&metadata(config)?, force).await? {
        Removal::Complete => {
            "the fence is removed; DAGs stay paused or not, as they are".to_owned()
        }
        Removal::TriggerLeft => {
            "the fence is removed; a trigger without effect is left, which only \
            the owner of the table may drop: DROP TRIGGER airfleet_keep_paused ON dag; \
            DROP FUNCTION airfleet_keep_paused()"
                .to_owned()
        }
        Removal::Nothing => "there is no fence".to_owned(),
    })
}
