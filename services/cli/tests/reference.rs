//! `docs/cli.md` is what the command line says of itself. `make docs` writes it anew.

use std::{fmt::Write as _, fs, path::Path};

use airfleet_cli::{args::Cli, config::Config};
use airfleet_runtime::config::reference_markdown;
use clap::{Command, CommandFactory as _};

const INTRODUCTION: &str = include_str!("reference.md");

/// One section for each command that does something, in the order of the help.
fn sections(command: &Command, page: &mut String) {
    if !command.has_subcommands() {
        let mut command = command.clone();
        let name = command.get_bin_name().expect("build() names every command").to_owned();
        let help = command.render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        let help = without_connection(&help).join("\n");
        let _ = writeln!(page, "### `{name}`\n\n```text\n{}\n```\n", help.trim());
    }
    for inner in command.get_subcommands() {
        sections(inner, page);
    }
}

/// The flags that every command has are shown once.
fn without_connection<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let mut kept = Vec::new();
    let mut inside = false;
    for line in lines {
        if *line == "Connection:" {
            inside = true;
        } else if inside && !line.is_empty() && !line.starts_with(' ') {
            inside = false;
        }
        if !inside {
            kept.push(*line);
        }
    }
    kept
}

fn page() -> String {
    // Without a terminal, and with a width, the help is the same everywhere.
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut page = INTRODUCTION.to_owned();
    let whole = command.render_long_help().to_string();
    let whole: Vec<&str> = whole.lines().map(str::trim_end).collect();
    let _ = writeln!(page, "## Commands\n\n```text\n{}\n```\n", whole.join("\n").trim());
    sections(&command, &mut page);
    page.push_str(
        "## Settings\n\nDefaults < `~/.config/airfleet/config.toml` < `.airfleet/config.toml` < \
         environment < flags. `--config FILE` takes the place of both files. `airfleet config view \
         --show-origin` says where each value comes from.\n\n",
    );
    page.push_str(&reference_markdown::<Config>("airfleet").replacen("## ", "### ", 1));
    page
}

#[test]
fn the_page_is_what_the_command_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let page = page();
    if std::env::var_os("AIRFLEET_DOCS_WRITE").is_some() {
        fs::write(&file, &page).expect("docs/ can be written to");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == page, "docs/cli.md is not what the command says; run `make docs`");
}
