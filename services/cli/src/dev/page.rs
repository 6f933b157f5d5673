//! What is told while a development fleet comes up, and how to use it once it is there.

use std::{fmt::Write as _, path::Path};

use serde::Serialize;
use tokio::time::Instant;

use super::{
    folder::{Folder, write_whole},
    plane::Addresses,
    shards::Shards,
};
use crate::{
    error::Result,
    screen::{Paint, Tone},
};

/// Tells on standard error how far the start has come. Clones tell the same story.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    started: Instant,
    paint: Paint,
}

impl Steps {
    /// Times count from `started`.
    pub(super) fn new(started: Instant, paint: Paint) -> Self {
        Self { started, paint }
    }

    /// `who` reached `step`.
    pub(super) fn reached(&self, who: &str, step: &str) {
        let seconds = format!("{:6.1}s", self.started.elapsed().as_secs_f64());
        let is_end = matches!(step, "healthy" | "ready") || step.starts_with("leads");
        let tone = if is_end { Tone::Good } else { Tone::Plain };
        let seconds = self.paint.tone(Tone::Dim, &seconds);
        crate::eprint_quietly(&format!("{seconds}  {who:<9} {}\n", self.paint.tone(tone, step)));
    }

    /// Something about all of it.
    pub(super) fn note(&self, text: &str) {
        let text = self.paint.tone(Tone::Strong, text);
        crate::eprint_quietly(&format!("{text}\n"));
    }
}

/// The addresses of everything.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    pid: u32,
    folder: String,
    config_file: String,
    log_file: String,
    registry: String,
    router: String,
    shards: Vec<ShardEntry>,
    #[serde(skip)]
    flag: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShardEntry {
    name: String,
    url: String,
    username: String,
    password: String,
    dags_folder: String,
    /// Where its agent serves /metrics.
    agent: String,
    metadata_url: String,
    broker_url: String,
}

impl Page {
    pub(super) fn new(folder: &Folder, plane: &Addresses, shards: &Shards) -> Self {
        let entries = shards.running().iter().map(|shard| {
            let (username, password) = shard.admin();
            ShardEntry {
                name: shard.name().to_owned(),
                url: shard.api_url(),
                username: username.to_owned(),
                password: password.to_owned(),
                dags_folder: shard.dags_folder().display().to_string(),
                agent: shards.agent_address(shard.name()).unwrap_or_default().to_owned(),
                metadata_url: shard.metadata_url(),
                broker_url: shard.broker_url().unwrap_or_default(),
            }
        });
        let config_file = folder.config_file().display().to_string();
        Self {
            pid: std::process::id(),
            folder: folder.path().display().to_string(),
            log_file: folder.log_file().display().to_string(),
            registry: plane.registry_url(),
            router: plane.router_url(),
            shards: entries.collect(),
            flag: if folder.is_found_from_here() {
                String::new()
            } else {
                format!(" --config {config_file}")
            },
            config_file,
        }
    }

    /// Writes it for scripts.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        write_whole(file, &crate::document::json(self)?)
    }

    /// How to use the fleet.
    pub(super) fn text(&self, paint: Paint) -> String {
        let strong = |text: &str| paint.tone(Tone::Strong, text);
        let mut text =
            format!("\n{}\n\n", strong("The fleet is up. Ctrl-C stops it; its state stays."));
        let mut line = |name: &str, url: &str, more: &str| {
            let line = format!("  {name:<9} {url:<24} {more}");
            text.push_str(line.trim_end());
            text.push('\n');
        };
        line("Registry", &self.registry, "gRPC, /metrics, /readyz");
        line("Router", &self.router, "gRPC, /metrics, /readyz");
        for shard in &self.shards {
            let login = format!("Airflow, log in as {} with {}", shard.username, shard.password);
            line(&shard.name, &shard.url, &login);
            line("", "", &format!("DAG files in {}", shard.dags_folder));
        }
        line("Log", &self.log_file, "");
        let flag = &self.flag;
        let _ = write!(text, "\n{}\n", strong("In another terminal:"));
        let examples = "examples/fleet/namespaces";
        let files = if Path::new(examples).is_dir() { examples } else { "FILE" };
        let mut commands = vec![
            format!("airfleet{flag} status"),
            format!("airfleet{flag} apply -f {files} --wait"),
            format!("airfleet{flag} namespace list"),
            format!("airfleet{flag} watch"),
        ];
        let example_shards = "examples/shards.yaml";
        if self.shards.is_empty() && Path::new(example_shards).exists() {
            commands.insert(1, format!("airfleet{flag} apply -f {example_shards}"));
        }
        for command in commands {
            let _ = writeln!(text, "  {command}");
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_everything_there_is() {
        let page = Page {
            pid: 1,
            folder: "/x".into(),
            config_file: "/x/config.toml".into(),
            log_file: "/x/logs/dev.log".into(),
            registry: "http://127.0.0.1:7401".into(),
            router: "http://127.0.0.1:7402".into(),
            shards: vec![ShardEntry {
                name: "shard-a".into(),
                url: "http://127.0.0.1:15000".into(),
                username: "admin".into(),
                password: "s3cret".into(),
                dags_folder: "/x/shards/shard-a/dags".into(),
                agent: "127.0.0.1:15001".into(),
                metadata_url: String::new(),
                broker_url: String::new(),
            }],
            flag: " --config /x/config.toml".into(),
        };
        let text = page.text(Paint::PLAIN);
        for part in [
            "  Registry  http://127.0.0.1:7401    gRPC",
            "  shard-a   http://127.0.0.1:15000   Airflow, log in as admin with s3cret\n",
            "DAG files in /x/shards/shard-a/dags\n",
            "  airfleet --config /x/config.toml status\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let value = serde_json::to_value(&page).unwrap();
        assert_eq!(value["shards"][0]["dagsFolder"], "/x/shards/shard-a/dags");
        assert!(value.get("flag").is_none());
    }
}
