//! The environment of the process. Only this file reads it.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use super::ConfigError;
use super::misspelt::meant_by;
use super::table::{RawEnv, TABLE, Unset, VARIABLES};
#[cfg(feature = "otlp")]
use super::traces;
use crate::index::PushEnvironment;
use crate::outgoing::{NotAProxy, PROXY_VARIABLES, Proxies};

/// Ignored, as by curl: where a web server starts programs, a client can set it with a header.
const IGNORED_PROXY_VARIABLE: &str = "HTTP_PROXY";

/// The prefixes of variables that the tools of Amazon, Google and Microsoft read, too.
const CLOUD_PREFIXES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// The variables that git, and the ssh that it starts, need to reach another host: the user's settings and keys,
/// proxies, and certificates.
const PUSH_VARIABLES: [&str; 20] = [
    "HOME",
    "XDG_CONFIG_HOME",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSH_AUTH_SOCK",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT",
    "GIT_PROXY_COMMAND",
];

/// The variables that concern the mirror, by name, sorted by who defines them. Empty values are left out.
#[derive(Debug)]
pub(super) struct Environment {
    /// The mirror's own settings.
    settings: Vec<(String, String)>,
    /// The clouds' own variables: `AWS_REGION` and the like.
    pub(super) cloud: Vec<(String, String)>,
    /// The variables of proxies.
    proxies: Vec<(String, String)>,
    /// The variables that say where traces go.
    #[cfg(feature = "otlp")]
    pub(super) traces: Vec<(String, String)>,
    /// Names that are nearly settings, each with the setting that is probably meant.
    pub(super) misspelt: Vec<(String, &'static str)>,
}

/// Whether a variable is set that is no setting.
#[cfg(feature = "bench-rules")]
pub(super) fn is_set(name: &str) -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "only this file reads the environment"
    )]
    env::var_os(name).is_some()
}

impl Environment {
    /// Reads the environment of this process.
    pub(super) fn of_process() -> Result<Self, ConfigError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that reads the environment"
        )]
        let all = env::vars_os();
        let mut pairs = Vec::new();
        for (name, value) in all {
            // Variables of other programs may contain anything. In ours, text that is not UTF-8 is a bad value, and may
            // be a secret.
            let Ok(name) = name.into_string() else {
                continue;
            };
            let value = match value.into_string() {
                Ok(value) => value,
                Err(value) => {
                    let mut known = VARIABLES.iter().chain(&PROXY_VARIABLES);
                    let known = known.find(|variable| **variable == name);
                    if let Some(variable) = known.or_else(|| ignored(&name)) {
                        let shown = value.to_string_lossy();
                        return Err(ConfigError::new(variable, &shown, "a text in UTF-8"));
                    }
                    if is_of_a_cloud(&name) {
                        return Err(ConfigError::new("STORAGE_URL", &name, "a text in UTF-8"));
                    }
                    continue;
                }
            };
            pairs.push((name, value));
        }
        // The system has no fixed order, and two runs should give the same warnings.
        pairs.sort();
        Ok(Self::from_pairs(pairs))
    }

    pub(super) fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut environment = Self {
            settings: Vec::new(),
            cloud: Vec::new(),
            proxies: Vec::new(),
            #[cfg(feature = "otlp")]
            traces: Vec::new(),
            misspelt: Vec::new(),
        };
        for (name, value) in pairs {
            if value.is_empty() {
                continue;
            }
            #[cfg(feature = "otlp")]
            if traces::VARIABLES.contains(&name.as_str()) {
                environment.traces.push((name, value));
                continue;
            }
            if is_of_a_cloud(&name) {
                environment.cloud.push((name, value));
            } else if PROXY_VARIABLES.contains(&name.as_str()) || ignored(&name).is_some() {
                environment.proxies.push((name, value));
            } else if VARIABLES.contains(&name.as_str()) {
                environment.settings.push((name, value));
            } else if let Some(meant) = meant_by(&name) {
                environment.misspelt.push((name, meant));
            }
        }
        environment
    }

    /// The settings as texts, with the defaults of the table.
    pub(super) fn raw(&self) -> Result<RawEnv, ConfigError> {
        let defaults = TABLE.iter().filter_map(|variable| match variable.unset {
            Unset::Default(value) if self.setting(variable.name).is_none() => {
                Some((variable.name.to_owned(), value.to_owned()))
            }
            Unset::Default(_) | Unset::Means(_) => None,
        });
        // envy ignores the case of names and stops at a duplicate, so it gets nothing but settings.
        envy::from_iter(self.settings.iter().cloned().chain(defaults)).map_err(|error| {
            ConfigError::new("the environment", &error.to_string(), "each variable once")
        })
    }

    /// The value of a setting, if it is set.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        value_of(&self.settings, name)
    }

    /// The value of a variable of proxies, if it is set.
    pub(super) fn proxy(&self, name: &str) -> Option<&str> {
        value_of(&self.proxies, name)
    }

    /// Which proxies are set.
    pub(super) fn proxies(&self) -> Result<Proxies, ConfigError> {
        Proxies::read(|name| self.proxy(name)).map_err(|NotAProxy(name)| {
            let value = self.proxy(name).unwrap_or_default();
            let remedy = "a proxy like http://host:3128: an http or https URL";
            ConfigError::new(name, value, remedy)
        })
    }

    /// Whether `HTTP_PROXY` is set, which is ignored, and `http_proxy` is not.
    pub(super) fn ignores_http_proxy(&self) -> bool {
        self.proxy(IGNORED_PROXY_VARIABLE).is_some() && self.proxy("http_proxy").is_none()
    }
}

fn value_of<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    let mut found = pairs.iter().filter(|(variable, _)| variable == name);
    found.next().map(|(_, value)| value.as_str())
}

fn ignored(name: &str) -> Option<&'static &'static str> {
    (name == IGNORED_PROXY_VARIABLE).then_some(&IGNORED_PROXY_VARIABLE)
}

fn is_of_a_cloud(name: &str) -> bool {
    CLOUD_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Where the system finds programs.
pub(super) fn search_path() -> OsString {
    system_variable("PATH").unwrap_or_default()
}

/// Where the system wants temporary files.
pub(super) fn temp_dir() -> PathBuf {
    env::temp_dir()
}

/// What a `git` that pushes gets of the environment.
pub(super) fn push_environment() -> PushEnvironment {
    let set = PUSH_VARIABLES
        .iter()
        .filter_map(|name| Some((*name, system_variable(name)?)));
    PushEnvironment::new(set.collect())
}

/// A variable that is no setting of the mirror. Its value need not be UTF-8.
fn system_variable(name: &str) -> Option<OsString> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    env::var_os(name)
}
