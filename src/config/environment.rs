//! The environment of the process. Only this file reads it.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use super::ConfigError;
use super::misspelt::meant_by;
use super::table::{RawEnv, TABLE, Unset, VARIABLES};
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

/// The variables that concern the mirror. Empty values are left out.
#[derive(Debug)]
pub(super) struct Environment {
    /// The mirror's own settings, and the variables of proxies and traces.
    known: Vec<(&'static str, String)>,
    /// The clouds' own variables: `AWS_REGION` and the like.
    pub(super) cloud: Vec<(String, String)>,
    /// Names that are nearly settings, each with the setting that is probably meant.
    pub(super) misspelt: Vec<(String, &'static str)>,
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
                    if let Some(variable) = known(&name) {
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
        // The system has no fixed order. Two runs should give the same warnings, and use the same of two variables that mean
        // the same.
        pairs.sort();
        Ok(Self::from_pairs(pairs))
    }

    /// Takes what concerns the mirror of these pairs.
    pub(super) fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut environment = Self {
            known: Vec::new(),
            cloud: Vec::new(),
            misspelt: Vec::new(),
        };
        for (name, value) in pairs {
            if value.is_empty() {
                continue;
            }
            if is_of_a_cloud(&name) {
                environment.cloud.push((name, value));
            } else if let Some(known) = known(&name) {
                environment.known.push((known, value));
            } else if let Some(meant) = meant_by(&name) {
                environment.misspelt.push((name, meant));
            }
        }
        environment
    }

    /// The settings as texts, with the defaults of the table.
    pub(super) fn raw(&self) -> Result<RawEnv, ConfigError> {
        let defaults = TABLE.iter().filter_map(|variable| match variable.unset {
            Unset::Default(value) if self.get(variable.name).is_none() => {
                Some((variable.name, value.to_owned()))
            }
            Unset::Default(_) | Unset::Means(_) => None,
        });
        let pairs = self.known.iter().cloned().chain(defaults);
        // envy ignores the case of names and stops at a duplicate, so it gets nothing but known names.
        envy::from_iter(pairs.map(|(name, value)| (name.to_owned(), value))).map_err(|error| {
            ConfigError::new("the environment", &error.to_string(), "each variable once")
        })
    }

    /// The value of a known variable, if it is set.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.known.iter().filter(|(known, _)| *known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Which proxies are set.
    pub(super) fn proxies(&self) -> Result<Proxies, ConfigError> {
        Proxies::read(|name| self.get(name)).map_err(|NotAProxy(name)| {
            let value = self.get(name).unwrap_or_default();
            let remedy = "a proxy like http://host:3128: an http or https URL";
            ConfigError::new(name, value, remedy)
        })
    }

    /// Whether `HTTP_PROXY` is set, which is ignored, and `http_proxy` is not.
    pub(super) fn ignores_http_proxy(&self) -> bool {
        self.get(IGNORED_PROXY_VARIABLE).is_some() && self.get("http_proxy").is_none()
    }
}

/// The name of a setting, or of another variable that the mirror reads.
fn known(name: &str) -> Option<&'static str> {
    let mut all = VARIABLES.iter().copied().chain(others());
    all.find(|known| *known == name)
        .or_else(|| (name == IGNORED_PROXY_VARIABLE).then_some(IGNORED_PROXY_VARIABLE))
}

/// The variables that count although they are no rows of the table, except for those of clouds.
pub(super) fn others() -> impl Iterator<Item = &'static str> {
    let others = PROXY_VARIABLES.into_iter();
    #[cfg(feature = "otlp")]
    let others = others.chain(super::traces::VARIABLES);
    others
}

fn is_of_a_cloud(name: &str) -> bool {
    CLOUD_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
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
pub(super) fn system_variable(name: &str) -> Option<OsString> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    env::var_os(name)
}
