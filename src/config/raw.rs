//! The settings as they come: one optional text for each variable.

use std::env;

use serde::Deserialize;

use super::ConfigError;

/// Declares [`RawEnv`] and [`VARIABLES`] from one list, so that they cannot differ.
macro_rules! variables {
    ($($field:ident = $variable:literal,)*) => {
        /// The environment variables that are read, in the order in which README explains them.
        pub const VARIABLES: &[&str] = &[$($variable),*];

        /// One text for each variable. Flat, because `envy` reads no numbers through `#[serde(flatten)]`.
        #[derive(Default, Deserialize)]
        pub(super) struct RawEnv {
            $(pub(super) $field: Option<String>,)*
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
    refresh_interval_secs = "REFRESH_INTERVAL_SECS",
    max_staleness_secs = "MAX_STALENESS_SECS",
    index_push_url = "INDEX_PUSH_URL",
    tls_cert = "TLS_CERT",
    tls_key = "TLS_KEY",
    contact = "CONTACT",
    log_format = "LOG_FORMAT",
    rust_log = "RUST_LOG",
}

impl RawEnv {
    /// Reads the environment of this process.
    pub(super) fn from_environment() -> Result<Self, ConfigError> {
        let mut pairs = Vec::new();
        for variable in VARIABLES {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the one place that reads the environment"
            )]
            let value = env::var_os(variable);
            if let Some(value) = value {
                let value = value.into_string().map_err(|value| {
                    ConfigError::new(variable, &value.to_string_lossy(), "a text in UTF-8")
                })?;
                pairs.push(((*variable).to_owned(), value));
            }
        }
        Self::from_pairs(pairs)
    }

    /// Takes what is in [`VARIABLES`] from the pairs; an empty value counts as not set.
    pub(super) fn from_pairs(
        pairs: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        // envy matches names without regard to case, and stops at two of one name: give it ours only.
        let ours = pairs
            .into_iter()
            .filter(|(name, value)| VARIABLES.contains(&name.as_str()) && !value.is_empty());
        envy::from_iter(ours).map_err(|error| {
            ConfigError::new("the environment", &error.to_string(), "each variable once")
        })
    }
}
