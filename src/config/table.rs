//! The settings of the mirror, one row each.
//!
//! Parsing, `check-config` and `--help` read this table. Tests compare the table in docs/configuration.md with it. A new setting needs a
//! row here, a field in [`Config`](super::Config), and its validation.

use serde::Deserialize;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variable {
    /// The environment variable. It is the name of the field of [`RawEnv`] in capitals.
    pub(super) name: &'static str,
    /// What applies while the variable is not set.
    pub(super) unset: Unset,
    /// Whether the value can contain a secret.
    pub(super) secrets: Secrets,
    /// What the variable sets. docs/configuration.md begins with the same words.
    pub(super) meaning: &'static str,
}

/// What applies while a variable is not set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unset {
    /// This value, parsed like one that is set.
    Default(&'static str),
    /// Something that no value can express.
    Means(&'static str),
}

/// Whether a value can contain a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    /// A URL that may carry a user, a password or a token. They are never shown.
    Possible,
    /// No secret is expected. Text that looks like a secret is hidden, because it can be in the wrong variable.
    Unexpected,
    /// The value is public. An error shows it with its query, because the query can be the cause.
    Public,
}

use Secrets::{Possible, Public, Unexpected};
use Unset::{Default, Means};

/// Declares [`TABLE`], [`VARIABLES`] and [`RawEnv`] from the same rows. A field is a `String` if the row has a default.
macro_rules! settings {
    ($($field:ident: $type:ty = $name:literal, $unset:expr, $secrets:expr, $meaning:literal;)*) => {
        /// All settings, in the order in which docs/configuration.md explains them.
        pub(super) const TABLE: &[Variable] = &[$(Variable {
            name: $name,
            unset: $unset,
            secrets: $secrets,
            meaning: $meaning,
        }),*];

        /// The names of all settings, in the order in which docs/configuration.md explains them.
        pub const VARIABLES: &[&str] = &[$($name),*];

        /// One text for each setting. Flat, because `envy` reads no numbers through `#[serde(flatten)]`.
        #[derive(Deserialize)]
        pub(super) struct RawEnv {
            $(pub(super) $field: $type,)*
        }
    };
}

settings! {
    git_repo_url: String = "GIT_REPO_URL", Default("https://github.com/rust-lang/crates.io-index.git"), Possible,
        "the index to follow";
    port: String = "PORT", Default("8080"), Unexpected,
        "port to listen on";
    bind_address: String = "BIND_ADDRESS", Default("0.0.0.0"), Unexpected,
        "IP address to listen on";
    public_url: Option<String> = "PUBLIC_URL", Means("taken from each request, and no git index"), Public,
        "the mirror's own base URL";
    data_dir: String = "DATA_DIR", Default("data"), Unexpected,
        "directory for the clone and the crate files";
    download_url: String = "DOWNLOAD_URL",
        Default("https://crates-io.s3.us-west-1.amazonaws.com/crates/{crate}/{crate}-{version}.crate"), Possible,
        "where crate files are";
    download_mode: String = "DOWNLOAD_MODE", Default("redirect"), Unexpected,
        "who sends crate files";
    storage_url: Option<String> = "STORAGE_URL", Means("the directory `crates` in DATA_DIR"), Unexpected,
        "where crate files are stored";
    storage_max_bytes: Option<String> = "STORAGE_MAX_BYTES", Means("no limit"), Unexpected,
        "maximum size of all crate files on a local disk";
    index_pruned: String = "INDEX_PRUNED", Default("false"), Unexpected,
        "with `true`, in the mode `offline`, the index lists only versions whose file is stored";
    refresh_interval_secs: String = "REFRESH_INTERVAL_SECS", Default("60"), Unexpected,
        "pause between fetches of the index";
    max_staleness_secs: String = "MAX_STALENESS_SECS", Default("3600"), Unexpected,
        "`/readyz` fails when the last successful fetch is older";
    changes_retention: String = "CHANGES_RETENTION", Default("7 days"), Unexpected,
        "how long the change feed reaches back";
    index_push_url: Option<String> = "INDEX_PUSH_URL", Means("the index is not pushed"), Possible,
        "git repository to push the rewritten index to";
    min_publish_age: String = "MIN_PUBLISH_AGE", Default("0"), Unexpected,
        "minimum age of a version";
    min_publish_age_unknown: String = "MIN_PUBLISH_AGE_UNKNOWN", Default("allow"), Unexpected,
        "versions without a publish time: `allow` or `hold`";
    held_downloads: String = "HELD_DOWNLOADS", Default("allow"), Unexpected,
        "downloads of held versions: `allow` or `deny`";
    policy_mode: String = "POLICY_MODE", Default("enforce"), Unexpected,
        "`enforce` or `audit`";
    policy_file: Option<String> = "POLICY_FILE", Means("no crate is denied or exempt"), Unexpected,
        "TOML file that denies, allows and exempts crates";
    yank_guard: String = "YANK_GUARD", Default("0"), Unexpected,
        "how long a suspicious mass yank is kept back";
    advisory_db_url: Option<String> = "ADVISORY_DB_URL", Means("no advisories are used"), Possible,
        "git repository with a RustSec advisory database";
    tls_cert: Option<String> = "TLS_CERT", Means("no TLS"), Unexpected,
        "PEM file with a certificate and the chain behind it";
    tls_key: Option<String> = "TLS_KEY", Means("no TLS"), Unexpected,
        "PEM file with the private key of that certificate";
    hsts_max_age_secs: Option<String> = "HSTS_MAX_AGE_SECS", Means("no Strict-Transport-Security"), Unexpected,
        "`max-age` of the header `Strict-Transport-Security`, in seconds";
    trusted_proxies: Option<String> = "TRUSTED_PROXIES",
        Means("each client is known by the address it connects from"), Unexpected,
        "addresses and ranges, such as `10.0.0.0/8`, of proxies in front";
    contact: Option<String> = "CONTACT", Means("upstreams are not told who runs this"), Unexpected,
        "who runs the mirror";
    log_format: String = "LOG_FORMAT", Default("text"), Unexpected,
        "`text` or `json`";
    rust_log: String = "RUST_LOG", Default("info"), Unexpected,
        "which events are logged";
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/configuration.md");

    #[test]
    fn the_table_in_the_documents_has_the_same_rows() {
        let (_, table) = DOCUMENT
            .split_once("| variable | default | meaning |\n| --- | --- | --- |\n")
            .unwrap();
        let rows: Vec<&str> = table
            .lines()
            .take_while(|line| line.starts_with('|'))
            .collect();
        assert_eq!(rows.len(), TABLE.len());
        for (row, variable) in rows.into_iter().zip(TABLE) {
            let default = match variable.unset {
                Default(value) => format!("`{value}`"),
                Means(_) => "none".to_owned(),
            };
            let begin = format!("| `{}` | {default} | {}", variable.name, variable.meaning);
            assert!(row.starts_with(&begin), "{row}\n{begin}");
        }
    }

    #[test]
    fn the_documents_name_the_settings_that_may_contain_secrets() {
        let possible: Vec<String> = TABLE
            .iter()
            .filter(|variable| variable.secrets == Possible)
            .map(|variable| format!("`{}`", variable.name))
            .collect();
        let [index, files, push, advisories] = &possible[..] else {
            panic!("{possible:?}");
        };
        let sentence = format!(
            "{index}, {push}, {advisories} and, except in the mode `redirect`, {files} may carry credentials"
        );
        // The lines of the document are wrapped.
        let document = DOCUMENT.replace('\n', " ");
        assert!(document.contains(&sentence), "{sentence}");
    }
}
