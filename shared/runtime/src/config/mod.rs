//! Where settings come from: defaults < file < environment < flags.
//!
//! Responsible for merging the layers, for naming the origin of every value, and for refusing what
//! is not known with the name that was probably meant. A service declares a struct that implements
//! `Default`, `Serialize`, `Deserialize` (with `#[serde(default, deny_unknown_fields)]`) and
//! `JsonSchema`; keys, types, environment variables and the reference page follow from it.
//!
//! Values of the environment and of flags are read by the type that the schema gives the key:
//! `8080` stays text where text is wanted, such as a token of digits. That, and the origin of each
//! key, is why the layers are merged here and not by a library.
//!
//! It must not know any service's settings beyond the sections that all share.

mod reference;
mod schema;
mod secret;
mod sections;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use self::schema::Shape;
pub use self::{
    reference::reference_markdown,
    secret::{ConnectionUrl, InvalidUrl, REDACTED, Secret},
    sections::{
        ClientConfig, DurationText, Exposure, Limits, LogFormat, ServerConfig, StoreConfig,
        TelemetryConfig, TlsConfig,
    },
};

/// What every environment variable that sets a key begins with.
pub const ENV_PREFIX: &str = "AIRFLEET__";

/// What stands between the parts of a key in an environment variable.
const ENV_SEPARATOR: &str = "__";

/// What a service's settings must be.
pub trait Settings: Default + Serialize + DeserializeOwned + JsonSchema {}

impl<T: Default + Serialize + DeserializeOwned + JsonSchema> Settings for T {}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The program.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A flag on the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Why settings could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not valid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// Keys or values are wrong; all that were found.
    #[error("the configuration is wrong: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// Collects the layers and loads them.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    files: Vec<(PathBuf, bool)>,
    env: Vec<(String, String)>,
    flags: Vec<Flag>,
}

#[derive(Clone, Debug)]
struct Flag {
    key: String,
    value: String,
    name: String,
}

impl Loader {
    /// The environment of the process, without a file.
    pub fn new() -> Self {
        Self::without_env().env(std::env::vars_os())
    }

    /// The defaults alone.
    pub fn without_env() -> Self {
        Self::default()
    }

    /// Reads `path`, which must exist. Of several files, later ones win.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push((path.into(), true));
        self
    }

    /// Reads `path` if it exists.
    pub fn optional_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push((path.into(), false));
        self
    }

    /// Replaces the environment. Only variables that begin with [`ENV_PREFIX`] matter.
    pub fn env<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.env = variables
            .into_iter()
            .filter_map(|(name, value)| {
                let name = name.into().into_string().ok()?;
                let value = value.into().to_string_lossy().into_owned();
                name.starts_with(ENV_PREFIX).then_some((name, value))
            })
            .collect();
        self.env.sort();
        self
    }

    /// Sets `key` (dotted) to `value`, as the flag `name` said.
    #[expect(clippy::needless_pass_by_value, reason = "callers have numbers and paths at hand")]
    pub fn flag(
        mut self,
        key: impl Into<String>,
        value: impl ToString,
        name: impl Into<String>,
    ) -> Self {
        self.flags.push(Flag { key: key.into(), value: value.to_string(), name: name.into() });
        self
    }

    /// Sets what `assignment` (`key=value`) says, as `--set` offers it.
    pub fn assignment(self, assignment: &str) -> Result<Self, Error> {
        match assignment.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(self.flag(key.trim(), value, "--set"))
            }
            _ => Err(Error::Invalid(vec![format!(
                "{assignment:?} is not an assignment; write key=value"
            )])),
        }
    }

    /// Merges the layers.
    pub fn load<T: Settings>(&self) -> Result<Loaded<T>, Error> {
        let shape = Shape::of::<T>();
        let defaults = serde_json::to_value(T::default())
            .map_err(|error| Error::Invalid(vec![format!("the defaults: {error}")]))?;
        let mut layers = Vec::new();
        let mut problems = Vec::new();

        for (path, required) in &self.files {
            layers.extend(read_file(path, *required, &shape, &mut problems)?);
        }
        for (name, value) in &self.env {
            let path: Vec<String> = name[ENV_PREFIX.len()..]
                .split(ENV_SEPARATOR)
                .map(str::to_ascii_lowercase)
                .collect();
            let origin = Origin::Env(name.clone());
            layers.extend(parse(&shape, path, value, origin, &mut problems));
        }
        for Flag { key, value, name } in &self.flags {
            let path = key.split('.').map(str::to_owned).collect();
            let origin = Origin::Flag(name.clone());
            layers.extend(parse(&shape, path, value, origin, &mut problems));
        }
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }

        let mut merged = defaults.clone();
        let mut origins = BTreeMap::new();
        for setting in &layers {
            insert(&mut merged, &setting.path, setting.value.clone());
            origins.insert(setting.path.join("."), setting.origin.clone());
        }
        match serde_json::from_value::<T>(merged) {
            Ok(value) => Ok(Loaded { value, origins }),
            Err(error) => Err(Error::Invalid(blame::<T>(&defaults, &layers, &error))),
        }
    }
}

/// One value that a layer sets.
#[derive(Clone, Debug)]
struct Setting {
    path: Vec<String>,
    value: Value,
    origin: Origin,
}

fn read_file(
    path: &Path,
    required: bool,
    shape: &Shape,
    problems: &mut Vec<String>,
) -> Result<Vec<Setting>, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            return Ok(Vec::new());
        }
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    let syntax = |message: String| Error::Syntax { path: path.to_owned(), message };
    let table: toml::Table =
        toml::from_str(&text).map_err(|error| syntax(error.to_string().trim().to_owned()))?;
    let value = serde_json::to_value(table).map_err(|error| syntax(error.to_string()))?;
    let mut settings = Vec::new();
    let origin = Origin::File(path.to_owned());
    shape.split(value, &mut Vec::new(), &mut |path, value| match value {
        Ok(value) => settings.push(Setting { path, value, origin: origin.clone() }),
        Err(problem) => problems.push(format!("{problem} (from {origin})")),
    });
    Ok(settings)
}

fn parse(
    shape: &Shape,
    path: Vec<String>,
    text: &str,
    origin: Origin,
    problems: &mut Vec<String>,
) -> Option<Setting> {
    match shape.parse(&path, text) {
        Ok(value) => Some(Setting { path, value, origin }),
        Err(problem) => {
            problems.push(format!("{problem} (from {origin})"));
            None
        }
    }
}

fn insert(tree: &mut Value, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *tree = value;
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    if let Value::Object(table) = tree {
        insert(table.entry(first.clone()).or_insert(Value::Null), rest, value);
    }
}

/// Finds the settings that make the whole unreadable, by trying each alone on the defaults.
fn blame<T: Settings>(
    defaults: &Value,
    layers: &[Setting],
    whole: &serde_json::Error,
) -> Vec<String> {
    let mut problems = Vec::new();
    for setting in layers {
        let mut tree = defaults.clone();
        insert(&mut tree, &setting.path, setting.value.clone());
        if let Err(error) = serde_json::from_value::<T>(tree) {
            // The value is not repeated: it may be a secret in the wrong place.
            problems.push(format!("{}: {error} (from {})", setting.path.join("."), setting.origin));
        }
    }
    if problems.is_empty() {
        // Each is right alone; together they are not.
        problems.push(whole.to_string());
    }
    problems
}

/// Settings and where they came from.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The settings.
    pub value: T,
    origins: BTreeMap<String, Origin>,
}

/// One key of loaded settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, dotted.
    pub key: String,
    /// The value as TOML, secrets hidden; `None` where it is not set.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

impl<T: Settings> Loaded<T> {
    /// Settings that nobody changed.
    pub fn defaults() -> Self {
        Self { value: T::default(), origins: BTreeMap::new() }
    }

    /// Where `key` (dotted) comes from.
    pub fn origin(&self, key: &str) -> Origin {
        let mut prefix = key;
        loop {
            if let Some(origin) = self.origins.get(prefix) {
                return origin.clone();
            }
            match prefix.rsplit_once('.') {
                Some((parent, _)) => prefix = parent,
                None => return Origin::Default,
            }
        }
    }

    /// All keys in alphabetical order.
    pub fn entries(&self) -> Vec<Entry> {
        let tree = serde_json::to_value(&self.value).unwrap_or_default();
        let mut leaves = BTreeMap::new();
        flatten(&tree, String::new(), &mut leaves);
        leaves
            .into_iter()
            .map(|(key, value)| Entry { origin: self.origin(&key), value, key })
            .collect()
    }

    /// The settings as TOML, one dotted key a line, each with its origin if `show_origin`. Keys
    /// that are not set are comments.
    pub fn render(&self, show_origin: bool) -> String {
        let entries = self.entries();
        let lines: Vec<_> = entries
            .iter()
            .map(|entry| match &entry.value {
                Some(value) => format!("{} = {value}", entry.key),
                None => format!("# {} is not set", entry.key),
            })
            .collect();
        let width = lines.iter().map(String::len).max().unwrap_or(0).min(60);
        let mut text = String::new();
        for (line, entry) in lines.iter().zip(&entries) {
            let _ = if show_origin {
                writeln!(text, "{line:width$}  # {}", entry.origin)
            } else {
                writeln!(text, "{line}")
            };
        }
        text
    }

    /// Keys that somebody set, with their origins.
    pub fn changed(&self) -> BTreeSet<(&str, String)> {
        self.origins.iter().map(|(key, origin)| (key.as_str(), origin.to_string())).collect()
    }
}

/// Dotted keys of all values that are not tables. An empty table stands for itself.
fn flatten(tree: &Value, key: String, leaves: &mut BTreeMap<String, Option<String>>) {
    match tree {
        Value::Object(table) if !table.is_empty() || key.is_empty() => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(value, key, leaves);
            }
        }
        Value::Null => {
            leaves.insert(key, None);
        }
        value => {
            leaves.insert(key, Some(toml_text(value)));
        }
    }
}

/// A value as it would stand in a TOML file.
fn toml_text(value: &Value) -> String {
    match toml::Value::try_from(value) {
        Ok(value) => value.to_string(),
        Err(_) => value.to_string(),
    }
}
