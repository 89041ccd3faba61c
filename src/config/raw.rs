//! The settings as they come: one optional text for each variable.

use std::env;

use serde::Deserialize;

use super::ConfigError;
use super::misspelt::meant_by;
use crate::outgoing::{NotAProxy, PROXY_VARIABLES, Proxies};

/// Declares [`RawEnv`] and [`VARIABLES`] from one list, so that they cannot differ.
macro_rules! variables {
    ($($field:ident = $variable:literal,)*) => {
        /// The environment variables that are read, in the order in which README explains them.
        pub const VARIABLES: &[&str] = &[$($variable),*];

        /// One text for each variable. Flat, because `envy` reads no numbers through `#[serde(flatten)]`.
        #[derive(Default, Deserialize)]
        pub(super) struct RawEnv {
            $(pub(super) $field: Option<String>,)*
            /// What the clouds' own variables say, by name: `AWS_REGION` and the like.
            #[serde(skip)]
            pub(super) cloud: Vec<(String, String)>,
            /// What is set under a name that is nearly one of these, and which one that is.
            #[serde(skip)]
            pub(super) misspelt: Vec<(String, &'static str)>,
            /// What the variables of proxies say, by name.
            #[serde(skip)]
            pub(super) proxies: Vec<(String, String)>,
        }

        impl RawEnv {
            /// What is set, in the order of [`VARIABLES`].
            pub(super) fn texts(&self) -> Vec<Option<&str>> {
                vec![$(self.$field.as_deref()),*]
            }
        }
    };
}

variables! {
    git_repo_url = "GIT_REPO_URL",
    port = "PORT",
    bind_address = "BIND_ADDRESS",
    public_url = "PUBLIC_URL",
    data_dir = "DATA_DIR",
    download_url = "DOWNLOAD_URL",
    download_mode = "DOWNLOAD_MODE",
    storage_url = "STORAGE_URL",
    storage_max_bytes = "STORAGE_MAX_BYTES",
    index_pruned = "INDEX_PRUNED",
    refresh_interval_secs = "REFRESH_INTERVAL_SECS",
    max_staleness_secs = "MAX_STALENESS_SECS",
    index_push_url = "INDEX_PUSH_URL",
    tls_cert = "TLS_CERT",
    tls_key = "TLS_KEY",
    hsts_max_age_secs = "HSTS_MAX_AGE_SECS",
    trusted_proxies = "TRUSTED_PROXIES",
    contact = "CONTACT",
    log_format = "LOG_FORMAT",
    rust_log = "RUST_LOG",
}

/// Ignored, as by curl: where a web server starts programs, a client can set it with a header.
pub(super) const IGNORED_PROXY_VARIABLE: &str = "HTTP_PROXY";

/// All names that are read, but for the clouds' own.
fn known_variables() -> impl Iterator<Item = &'static str> {
    let proxies = PROXY_VARIABLES.iter().chain(&[IGNORED_PROXY_VARIABLE]);
    VARIABLES.iter().chain(proxies).copied()
}

fn is_of_a_proxy(name: &str) -> bool {
    PROXY_VARIABLES.contains(&name) || name == IGNORED_PROXY_VARIABLE
}

impl RawEnv {
    /// Which proxies are set.
    pub(super) fn read_proxies(&self) -> Result<Proxies, ConfigError> {
        let read = Proxies::read(|name| self.proxy_variable(name));
        read.map_err(|NotAProxy(name)| {
            let value = self.proxy_variable(name).unwrap_or_default();
            ConfigError::new(
                name,
                value,
                "a proxy like http://host:3128: an http or https URL",
            )
        })
    }

    /// What a variable of proxies is set to.
    pub(super) fn proxy_variable(&self, name: &str) -> Option<&str> {
        let mut found = self.proxies.iter().filter(|(variable, _)| variable == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Reads the environment of this process.
    pub(super) fn from_environment() -> Result<Self, ConfigError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that reads the environment"
        )]
        let all = env::vars_os();
        let mut pairs = Vec::new();
        for (name, value) in all {
            // Others' variables may be anything; one of ours that is no text is a mistake, and may be a secret.
            let Ok(name) = name.into_string() else {
                continue;
            };
            let value = match value.into_string() {
                Ok(value) => value,
                Err(value) => {
                    if let Some(variable) = known_variables().find(|variable| *variable == name) {
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
        // The system has no order of its own, and two runs should warn alike.
        pairs.sort();
        Self::from_pairs(pairs)
    }

    /// Takes what is in [`VARIABLES`] from the pairs; an empty value counts as not set.
    pub(super) fn from_pairs(
        pairs: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (cloud, pairs): (Vec<_>, Vec<_>) = pairs
            .into_iter()
            .filter(|(_name, value)| !value.is_empty())
            .partition(|(name, _value)| is_of_a_cloud(name));
        let (proxies, pairs): (Vec<_>, Vec<_>) = pairs
            .into_iter()
            .partition(|(name, _value)| is_of_a_proxy(name));
        // envy matches names without regard to case, and stops at two of one name: give it ours only.
        let (ours, others): (Vec<_>, Vec<_>) = pairs
            .into_iter()
            .partition(|(name, _value)| VARIABLES.contains(&name.as_str()));
        let raw: Self = envy::from_iter(ours).map_err(|error| {
            ConfigError::new("the environment", &error.to_string(), "each variable once")
        })?;
        let misspelt = others.into_iter().filter_map(|(name, _value)| {
            let meant = meant_by(&name)?;
            Some((name, meant))
        });
        Ok(Self {
            cloud,
            proxies,
            misspelt: misspelt.collect(),
            ..raw
        })
    }
}

/// Whether a variable is set that no setting has.
#[cfg(feature = "bench-rules")]
pub(super) fn is_set(name: &str) -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "only this file reads the environment"
    )]
    env::var_os(name).is_some()
}

/// How the names of variables begin that the tools of Amazon, Google and Microsoft read, too.
const CLOUD_PREFIXES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

fn is_of_a_cloud(name: &str) -> bool {
    CLOUD_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
