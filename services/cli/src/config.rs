//! Where the services are and how to speak to them.
//!
//! Defaults < `~/.config/airfleet/config.toml` < `.airfleet/config.toml` < environment < flags.
//! `--config FILE` takes the place of both files.

use std::path::PathBuf;

use airfleet_runtime::config::{
    ClientConfig, ENV_PREFIX, Error as LoadError, Loaded, Loader, Secret, Settings,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    args::Connection,
    error::{Error, Result},
};

/// Port of the registry where nothing else is said.
pub const REGISTRY_PORT: u16 = airfleet_registry::DEFAULT_PORT;
/// Port of the router where nothing else is said.
pub const ROUTER_PORT: u16 = airfleet_router::DEFAULT_PORT;
/// The settings file of a folder; `airfleet dev` writes one.
pub const FOLDER_FILE: &str = ".airfleet/config.toml";

/// Settings of the command line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bearer token for both services, where their own section has none. Prefer `token_file`.
    pub token: Option<Secret>,
    /// File that holds the bearer token for both services and nothing else.
    pub token_file: Option<PathBuf>,
    /// PEM file of the authority that signs the services' certificates.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate to show to the services.
    pub cert: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    pub key: Option<PathBuf>,
    /// Where the registry is.
    pub registry: ClientConfig,
    /// Where the router is.
    pub router: ClientConfig,
}

impl Default for Config {
    fn default() -> Self {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        Self::plain(&url(REGISTRY_PORT), &url(ROUTER_PORT))
    }
}

impl Config {
    /// Reaches the services at these URLs, without TLS or a token.
    pub fn plain(registry: &str, router: &str) -> Self {
        Self {
            token: None,
            token_file: None,
            ca: None,
            cert: None,
            key: None,
            registry: ClientConfig::plain(registry),
            router: ClientConfig::plain(router),
        }
    }

    /// The registry's section, completed by what holds for both services.
    pub fn registry(&self) -> ClientConfig {
        self.completed(&self.registry)
    }

    /// The router's section, completed by what holds for both services.
    pub fn router(&self) -> ClientConfig {
        self.completed(&self.router)
    }

    fn completed(&self, section: &ClientConfig) -> ClientConfig {
        let mut section = section.clone();
        if section.token.is_none() && section.token_file.is_none() {
            section.token.clone_from(&self.token);
            section.token_file.clone_from(&self.token_file);
        }
        if section.cert.is_none() && section.key.is_none() {
            section.cert.clone_from(&self.cert);
            section.key.clone_from(&self.key);
        }
        if section.ca.is_none() {
            section.ca.clone_from(&self.ca);
        }
        section
    }
}

/// Loads the settings as the flags ask for.
pub fn load(flags: &Connection) -> Result<Loaded<Config>> {
    let env = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(concerns_us));
    let mut loaded: Loaded<Config> = loader(flags).env(env).load().map_err(refused)?;
    if flags.token_file.is_some() {
        // A flag wins over a token that stands in a file or the environment as well.
        let config = &mut loaded.value;
        (config.token, config.registry.token, config.router.token) = (None, None, None);
    }
    Ok(loaded)
}

fn loader(flags: &Connection) -> Loader {
    let mut loader = Loader::without_env();
    match &flags.config {
        Some(file) => loader = loader.file(file),
        None => {
            if let Some(file) = user_file() {
                loader = loader.optional_file(file);
            }
            loader = loader.optional_file(FOLDER_FILE);
        }
    }
    let Connection { registry, router, token_file, ca, cert, key, .. } = flags;
    let files = [("token_file", token_file), ("ca", ca), ("cert", cert), ("key", key)];
    for (name, file) in files {
        if let Some(file) = file {
            let flag = format!("--{}", name.replace('_', "-"));
            for key in [name.to_owned(), format!("registry.{name}"), format!("router.{name}")] {
                loader = loader.flag(key, file.display(), &flag);
            }
        }
    }
    if !registry.is_empty() {
        loader = loader.flag("registry.endpoints", registry.join(","), "--registry");
    }
    if !router.is_empty() {
        loader = loader.flag("router.endpoints", router.join(","), "--router");
    }
    loader
}

/// The user's own settings file.
fn user_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = folder("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| folder("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(base.join("airfleet").join("config.toml"))
}

/// Whether an environment variable is for this command or is mistyped. Machines that run services
/// too have variables of theirs, which say nothing here.
fn concerns_us(name: &str) -> bool {
    let section = name.strip_prefix(ENV_PREFIX).and_then(|key| key.split("__").next());
    let Some(section) = section.map(str::to_ascii_lowercase) else { return false };
    has_key::<Config>(&section)
        || !(has_key::<airfleet_registry::Config>(&section)
            || has_key::<airfleet_router::Config>(&section)
            || has_key::<airfleet_shard_agent::AgentConfig>(&section))
}

fn has_key<T: Settings>(key: &str) -> bool {
    serde_json::to_value(T::default()).is_ok_and(|settings| settings.get(key).is_some())
}

fn refused(error: LoadError) -> Error {
    let hint =
        "`airfleet config view --show-origin` shows what is set and where, once it can be read";
    match error {
        LoadError::Invalid(problems) => {
            Error::new("the configuration is wrong").with_details(problems).hint(hint)
        }
        error => Error::caused("cannot load the configuration", &error),
    }
}

#[cfg(test)]
mod tests {
    use airfleet_runtime::config::Origin;

    use super::*;

    #[test]
    fn flags_win_and_hold_for_both_services() {
        let flags = Connection {
            registry: vec!["https://r1:1".into(), "https://r2:1".into()],
            ca: Some("ca.pem".into()),
            ..Connection::default()
        };
        let loaded: Loaded<Config> = loader(&flags)
            .env([("AIRFLEET__REGISTRY__CA", "other.pem"), ("AIRFLEET__TOKEN", "secret")])
            .load()
            .unwrap();
        let registry = loaded.value.registry();
        assert_eq!(registry.endpoints, ["https://r1:1", "https://r2:1"]);
        assert_eq!(registry.ca, Some("ca.pem".into()));
        assert_eq!(loaded.value.router().ca, Some("ca.pem".into()));
        assert_eq!(loaded.value.router().token, Some(Secret::new("secret")));
        assert_eq!(loaded.origin("registry.ca"), Origin::Flag("--ca".into()));
    }

    #[test]
    fn a_sections_own_token_is_kept_whole() {
        let config = Config {
            token_file: Some("both".into()),
            registry: ClientConfig { token: Some(Secret::new("own")), ..ClientConfig::default() },
            ..Config::default()
        };
        assert_eq!(config.registry().token_file, None);
        assert_eq!(config.router().token_file, Some("both".into()));
    }

    #[test]
    fn settings_of_services_are_passed_over_and_mistakes_are_not() {
        assert!(!concerns_us("AIRFLEET__STORE__URL"));
        assert!(!concerns_us("AIRFLEET__SHARD"));
        assert!(!concerns_us("PATH"));
        assert!(concerns_us("AIRFLEET__REGISTY__ENDPOINTS"));
        let loaded = Loader::without_env().env([("AIRFLEET__REGISTY__CA", "x")]).load::<Config>();
        let error = refused(loaded.unwrap_err()).render(crate::screen::Paint::PLAIN);
        assert!(error.contains("did you mean registry"), "{error}");
    }
}
