//! The settings as a person reads them back: each variable, what it is set to, and what holds where it is not set.
//!
//! A table beside the raw settings: tests hold it against [`VARIABLES`] and against what [`Config`] really does.

use super::error::without_any_secrets;
use super::raw::RawEnv;
use super::{Config, ConfigError, DownloadMode, VARIABLES};
use crate::outgoing::PROXY_VARIABLES;

/// One variable and what holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The name of the variable.
    pub(crate) name: &'static str,
    /// Its value on one line, without secrets.
    pub(crate) value: String,
    /// Where the value comes from.
    pub(crate) origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The variable is set.
    Environment,
    /// The variable is not set, and this is its default.
    Default,
    /// The variable is not set and has no default: the value is a remark on what that means.
    NotSet,
}

/// What holds where a variable is not set.
#[derive(Clone, Copy)]
enum Unset {
    /// The same as if it were set to this.
    Like(&'static str),
    /// Something that cannot be said as a value.
    Means(&'static str),
}

/// In the order of [`VARIABLES`].
const UNSET: &[(&str, Unset)] = &[
    ("GIT_REPO_URL", Unset::Like(super::DEFAULT_GIT_REPO_URL)),
    ("PORT", Unset::Like("8080")),
    ("BIND_ADDRESS", Unset::Like("0.0.0.0")),
    (
        "PUBLIC_URL",
        Unset::Means("taken from each request, and no git index"),
    ),
    ("DATA_DIR", Unset::Like("data")),
    (
        "DOWNLOAD_URL",
        Unset::Like(super::crate_files::DEFAULT_DOWNLOAD_URL),
    ),
    ("DOWNLOAD_MODE", Unset::Like("redirect")),
    (
        "STORAGE_URL",
        Unset::Means("the directory `crates` in DATA_DIR"),
    ),
    ("STORAGE_MAX_BYTES", Unset::Means("no bound")),
    ("INDEX_PRUNED", Unset::Like("false")),
    ("REFRESH_INTERVAL_SECS", Unset::Like("60")),
    ("MAX_STALENESS_SECS", Unset::Like("3600")),
    ("INDEX_PUSH_URL", Unset::Means("the index is not pushed")),
    ("TLS_CERT", Unset::Means("no TLS")),
    ("TLS_KEY", Unset::Means("no TLS")),
    (
        "HSTS_MAX_AGE_SECS",
        Unset::Means("no Strict-Transport-Security"),
    ),
    (
        "TRUSTED_PROXIES",
        Unset::Means("each client is known by the address it connects from"),
    ),
    (
        "CONTACT",
        Unset::Means("upstreams are not told who runs this"),
    ),
    ("LOG_FORMAT", Unset::Like("text")),
    ("RUST_LOG", Unset::Like("info")),
];

impl Config {
    /// Every variable with what the environment of this process says of it, in the order of [`VARIABLES`].
    pub(crate) fn describe_environment() -> Result<Vec<Setting>, ConfigError> {
        Ok(describe(&RawEnv::from_environment()?))
    }

    /// Like [`Config::describe_environment`], for these pairs.
    #[cfg(test)]
    pub(crate) fn describe_pairs(
        pairs: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Vec<Setting>, ConfigError> {
        Ok(describe(&RawEnv::from_pairs(pairs)?))
    }

    /// Whether the index grows too old before it is fetched again, so that the mirror is unready between fetches.
    fn is_always_stale(&self) -> bool {
        let mut interval = self.refresh_interval.iter();
        self.follows_the_index() && interval.any(|interval| *interval >= self.max_staleness)
    }

    /// What works, but hardly as it was meant.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let public_url = self.public_url.as_ref().map(ToString::to_string);
        let is_plain = |url: &String| url.starts_with("http://");
        let cases = [
            (
                self.ignores_http_proxy,
                "HTTP_PROXY is ignored, as by curl: http_proxy, in lower case, is the proxy for http URLs",
            ),
            (
                self.is_always_stale(),
                "MAX_STALENESS_SECS is not longer than REFRESH_INTERVAL_SECS: /readyz will fail between fetches",
            ),
            (
                self.tls.is_some() && public_url.as_ref().is_some_and(is_plain),
                "PUBLIC_URL begins with http://, and TLS_CERT turns TLS on: cargo will not be answered there",
            ),
            (
                self.download_mode == DownloadMode::Redirect && self.downloads.first().has_query(),
                "DOWNLOAD_URL has a query string or a fragment, and DOWNLOAD_MODE is redirect: every client sees it",
            ),
        ];
        let applying = cases.into_iter().filter(|(applies, _)| *applies);
        let misspelt = self.misspelt.iter().map(|(name, meant)| {
            format!("{name} is set and is no setting of the mirror: perhaps {meant} is meant")
        });
        let applying = applying.map(|(_, warning)| warning.to_owned());
        applying.chain(misspelt).collect()
    }

    /// Whether the index is fetched at all: offline, only one on this machine is.
    pub(crate) fn follows_the_index(&self) -> bool {
        self.download_mode != DownloadMode::Offline || self.git_repo_url.is_local()
    }
}

fn describe(raw: &RawEnv) -> Vec<Setting> {
    let texts = raw.texts();
    let variables = VARIABLES.iter().zip(texts);
    let proxies = PROXY_VARIABLES.iter().filter_map(|name| {
        Some(Setting {
            name,
            value: without_any_secrets(raw.proxy_variable(name)?),
            origin: Origin::Environment,
        })
    });
    variables
        .map(|(name, text)| {
            let (value, origin) = match text {
                Some(text) => (without_any_secrets(text), Origin::Environment),
                None => unset(name),
            };
            Setting {
                name,
                value,
                origin,
            }
        })
        .chain(proxies)
        .collect()
}

fn unset(name: &str) -> (String, Origin) {
    match UNSET.iter().find(|(variable, _)| *variable == name) {
        Some((_, Unset::Like(value))) => ((*value).to_owned(), Origin::Default),
        Some((_, Unset::Means(remark))) => ((*remark).to_owned(), Origin::NotSet),
        // A test sees to it that every variable is in the table.
        None => (String::new(), Origin::NotSet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn no_variable_is_forgotten() {
        let described: Vec<&str> = UNSET.iter().map(|(name, _)| *name).collect();
        assert_eq!(described, VARIABLES);
    }

    #[test]
    fn a_default_that_is_set_changes_nothing() {
        let untouched = format!("{:?}", Config::from_pairs(pairs(&[])).unwrap());
        for (name, unset) in UNSET {
            if let Unset::Like(value) = unset {
                let config = Config::from_pairs(pairs(&[(name, value)])).unwrap();
                assert_eq!(format!("{config:?}"), untouched, "{name}");
            }
        }
    }

    #[test]
    fn what_is_set_is_told_from_what_is_not() {
        let settings = Config::describe_pairs(pairs(&[("PORT", "8080"), ("CONTACT", "")])).unwrap();
        let of = |name: &str| {
            settings
                .iter()
                .find(|setting| setting.name == name)
                .unwrap()
        };
        assert_eq!(of("PORT").origin, Origin::Environment);
        assert_eq!(of("BIND_ADDRESS").origin, Origin::Default);
        assert_eq!(of("CONTACT").origin, Origin::NotSet);
        assert_eq!(settings.len(), VARIABLES.len());
    }

    #[test]
    fn no_secret_of_any_variable_is_shown() {
        for name in VARIABLES {
            for value in [
                "https://b0b:s3cret@h.example/i",
                "https://h.example/a?token=s3cret",
                "https://h.example/a https://h.example/b?token=s3cret@h",
                "s3cret@h.example:path",
            ] {
                let settings = Config::describe_pairs(pairs(&[(name, value)])).unwrap();
                let shown = format!("{settings:?}");
                assert!(!shown.contains("s3cret") && shown.contains("h"), "{shown}");
            }
        }
    }
}
