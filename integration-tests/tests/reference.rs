//! docs/configuration.md is generated from the services' settings; `make docs` writes it.

use std::{fs, path::Path};

use airfleet_runtime::config::reference_markdown;

const INTRODUCTION: &str = "# Configuration

Every setting of the services. This page is generated from the code.

A value comes from, later ones winning: the default, files (`--config FILE`, TOML, may be given
several times), environment variables (`AIRFLEET__SECTION__KEY`), flags (`--set section.key=value`
and those that a service has of its own). `--show-config` of the router and the agent, and
`airfleet config view --show-origin`, say where each value comes from. Unknown keys are refused.
";

#[test]
fn the_configuration_reference_is_current() {
    let page = [
        INTRODUCTION.to_owned(),
        reference_markdown::<airfleet_registry::Config>("airfleet-registry"),
        reference_markdown::<airfleet_router::Config>("airfleet-router"),
        reference_markdown::<airfleet_shard_agent::AgentConfig>("airfleet-agent"),
    ]
    .join("\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("AIRFLEET_DOCS_WRITE").is_some() {
        fs::write(&path, page).unwrap();
    } else {
        let current = fs::read_to_string(&path).unwrap_or_default();
        assert!(current == page, "docs/configuration.md is stale: run `make docs`");
    }
}
