//! The command line: what can be said, with its help.
//!
//! Commands that take more than a name have their arguments beside their code.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::{
    apply, capacity, dag, dev, diff, explain, moves, namespace, plan, rebalance, resolve,
    screen::Color, shard, simulate, watch,
};

/// Control a fleet of Airflow clusters: say which namespaces there are, see which shard owns them.
///
/// A namespace is a tenant's share of the fleet and owns the dag_ids that start with its prefixes.
/// A shard is one Airflow cluster. Namespaces and shards are declared in YAML and applied; the
/// router assigns each namespace to a shard.
#[derive(Debug, Parser)]
#[command(
    name = "airfleet",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Examples:
  airfleet dev --shards 2                  a control plane and two Airflow shards on this machine
  airfleet apply -f examples/fleet -R      register what the files declare
  airfleet namespace list                  what there is, and where
  airfleet resolve payments.daily          which shard runs this DAG
  airfleet watch                           see assignments change

Exit codes: 0 done, 1 failed, 2 a difference was found or something has no shard.
`airfleet COMMAND --help` shows examples of each command."
)]
pub struct Cli {
    /// Where the services are.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the services are and how to speak to them.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Settings file, instead of ~/.config/airfleet/config.toml and .airfleet/config.toml
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Registry to speak to; give it for each replica [default: http://127.0.0.1:7401]
    #[arg(long, global = true, value_name = "URL", value_hint = ValueHint::Url)]
    pub registry: Vec<String>,
    /// Router to speak to; give it for each replica [default: http://127.0.0.1:7402]
    #[arg(long, global = true, value_name = "URL", value_hint = ValueHint::Url)]
    pub router: Vec<String>,
    /// File with the bearer token
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
    /// Authority that signs the services' certificates, PEM [default: the system's]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
    /// Client certificate, PEM
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// How long one request may take [default: 30s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    pub request_timeout: Option<Duration>,
    /// When to colour the output
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "auto|always|never"
    )]
    pub color: Color,
}

impl Connection {
    /// How long one request may take.
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout.unwrap_or(Duration::from_secs(30))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create or change namespaces and shards so that they are as files declare
    Apply(apply::Args),
    /// Show what apply would change
    Diff(diff::Args),
    /// List, show, delete and pin namespaces
    #[command(
        subcommand,
        visible_alias = "ns",
        alias = "namespaces",
        arg_required_else_help = true
    )]
    Namespace(namespace::Command),
    /// List, show, cordon and delete shards
    #[command(subcommand, alias = "shards", arg_required_else_help = true)]
    Shard(shard::Command),
    /// Say which shard owns a DAG or a namespace
    Resolve(resolve::Args),
    /// Say why a namespace is where it is
    Explain(explain::Args),
    /// Trigger, clear, pause and unpause DAGs, wherever they are
    #[command(subcommand, alias = "dags", arg_required_else_help = true)]
    Dag(dag::Command),
    /// Move a namespace to another shard, live
    #[command(subcommand, alias = "moves", arg_required_else_help = true)]
    Move(moves::Command),
    /// Plan moves, look at them, carry them out
    #[command(subcommand, alias = "plans", arg_required_else_help = true)]
    Plan(plan::Command),
    /// Freeze rebalancing, or lift that
    #[command(subcommand, arg_required_else_help = true)]
    Rebalance(rebalance::Command),
    /// Say how much room is left, and what the loss of a failure domain would mean
    Capacity(capacity::Args),
    /// Run the placement engine on generated or recorded fleets, here
    Simulate(simulate::Args),
    /// Follow assignments as they change
    Watch(watch::Args),
    /// Show the state of the control plane
    #[command(after_help = "Examples:
  airfleet status
  airfleet status -o json | jq .router.leader

Exit code 1 where a service cannot be reached.")]
    Status(StatusArgs),
    /// Show the settings of this command
    #[command(subcommand, arg_required_else_help = true)]
    Config(ConfigCommand),
    /// Run registry, router, agents and local Airflow shards in one process
    Dev(dev::Args),
    /// Print a shell's completion script
    #[command(after_help = "Examples:
  source <(airfleet completion bash)
  airfleet completion zsh > ~/.zfunc/_airfleet
  airfleet completion fish > ~/.config/fish/completions/airfleet.fish")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version of this command
    Version {
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Output form
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: TextOrJson,
}

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print all settings
    #[command(after_help = "Examples:
  airfleet config view
  airfleet config view --show-origin     which file, variable or flag each value comes from

Settings: defaults < ~/.config/airfleet/config.toml < .airfleet/config.toml < AIRFLEET__SECTION__KEY
< flags. Secrets are not shown.")]
    View {
        /// Say where each value comes from
        #[arg(long)]
        show_origin: bool,
        /// Output form
        #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
        output: TextOrJson,
    },
}

/// Forms of commands that print one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TextOrJson {
    /// For people
    #[default]
    Text,
    /// For scripts
    Json,
}

/// Forms of lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people
    #[default]
    Table,
    /// For people, with more columns
    Wide,
    /// For scripts
    Json,
    /// As in a manifest file
    Yaml,
    /// `kind/name`, one a line
    Name,
}

impl Form {
    /// Whether people read it.
    pub fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// Forms of what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DoneForm {
    /// A line for each object
    #[default]
    Text,
    /// `kind/name`, one a line
    Name,
    /// For scripts, an object a line
    Json,
}

/// Files with manifest entries.
#[derive(Clone, Debug, Args)]
pub struct Files {
    /// File or folder with manifest entries, or - for standard input; may be given several times
    #[arg(short, long = "filename", value_name = "FILE", required = true,
          value_hint = ValueHint::AnyPath)]
    pub filename: Vec<String>,
    /// Take the folders in folders too
    #[arg(short = 'R', long, value_name = "true|false", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set,
          hide_possible_values = true)]
    pub recursive: bool,
}

/// Reads a time span such as `90s`, `5m` or `1h30m`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 30s, 5m or 1h30m"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples_or_commands() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.has_subcommands() {
                command.get_subcommands().for_each(|inner| check(inner, &path));
            } else if !matches!(command.get_name(), "version") {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("airfleet "), "{path} shows no example");
            }
            assert!(command.get_about().is_some(), "{path} says nothing of itself");
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn habits_of_kubectl_are_understood() {
        for line in [
            "airfleet apply -f a -f b -R --wait --timeout 90 -o name",
            "airfleet apply -f a --dry-run -o json",
            "airfleet apply -f - --recursive=false",
            "airfleet diff -f a",
            "airfleet ns list -l a=b,!c -o wide --owner team",
            "airfleet namespaces get payments search -o json --registry http://x:1",
            "airfleet --router http://y:1 ns pin payments shard-a --reason because",
            "airfleet shard cordon a-shard b-shard --reason why",
            "airfleet resolve a.b c.d -o name",
            "airfleet resolve -f -",
            "airfleet watch --until-idle --timeout 1m",
            "airfleet explain payments --shards 100 -o json",
            "airfleet plan create --drain shard-a --budget 5000",
            "airfleet plan create --what-if-lose shard-a --what-if-lose zone=a",
            "airfleet plan diff one another",
            "airfleet plan apply one --yes --wait",
            "airfleet move start payments --to shard-b --dry-run -o json",
            "airfleet move start payments --to shard-b --force-lost-source --reason burnt --wait",
            "airfleet move list --all --shard shard-a",
            "airfleet move describe payments",
            "airfleet move watch payments",
            "airfleet move abort payments --reason why",
            "airfleet dag trigger pay.daily --run-id r --conf {} --logical-date 2026-01-31T00:00:00Z",
            "airfleet dag clear pay.daily r --only-failed --task a --task b --timeout 0",
            "airfleet dag pause pay.daily pay.hourly -o json",
            "airfleet dag unpause pay.daily",
            "airfleet rebalance freeze --reason audit",
            "airfleet capacity -o json",
            "airfleet simulate --namespaces 1000 --shards 10 --days 3 --lose-zone 1:region-0-zone-0",
            "airfleet watch --until-idle=5s --count 3 -o json",
            "airfleet dev --shards 0 --registry-port 0",
        ] {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn mistakes_are_met_with_what_was_meant() {
        let error = Cli::try_parse_from(["airfleet", "namepsace"]).unwrap_err().to_string();
        assert!(error.contains("'namespace'"), "{error}");
        let error = Cli::try_parse_from(["airfleet", "ns", "list", "-o", "jsn"]).unwrap_err();
        assert!(error.to_string().contains("'json'"), "{error}");
    }

    #[test]
    fn spans_are_seconds_or_say_their_unit() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").unwrap_err().contains("30s"));
    }
}
