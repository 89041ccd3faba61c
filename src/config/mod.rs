//! The settings: environment variables, read once and validated in one step into [`Config`].
//!
//! `table` has one row for each setting. `environment` reads the process's environment. The other files validate values,
//! grouped by subject, and describe them to people. Limits that no operator can change are constants beside the code that
//! they limit.

mod clients;
mod crate_files;
mod describe;
mod environment;
mod error;
mod index;
mod log;
mod misspelt;
mod policy;
mod table;
#[cfg(feature = "otlp")]
mod traces;
mod value;
mod warnings;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use clients::PublicUrl;
pub(crate) use crate_files::DownloadMode;
pub(crate) use describe::{Origin, Setting, settings_help};
use environment::Environment;
pub use error::ConfigError;
pub(crate) use index::IndexListing;
pub(crate) use policy::PolicyConfig;
use table::RawEnv;
pub use table::VARIABLES;

use crate::index::{PushEnvironment, RemoteUrl, UpkeepLimits};
use crate::observability::LogFormat;
#[cfg(feature = "otlp")]
use crate::observability::traces::TraceSettings;
use crate::outgoing::Proxies;
use crate::policy::Age;
use crate::server::{TlsCertificate, TrustedProxies};
use crate::store::StorageLocation;
use crate::upstream::{DownloadTemplates, FetchLimits, Resolver};

/// How long to wait for a TCP connection to the upstream index.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait for another process to unlock the data directory: in a rolling restart the old one is still stopping.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long the mirror remembers that no upstream has a crate file.
const MISSING_REMEMBERED: Duration = Duration::from_secs(30);

/// How long a request waits for a crate file. Cargo, and Heroku's router, give up after 30 s without a byte.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(25);

/// The pause between fetches of the advisory database.
const ADVISORY_INTERVAL: Duration = Duration::from_secs(600);

/// How long an upstream may send nothing at all. git hosts send a sign of life every five seconds while they prepare.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything that can be set, validated. Made by [`Config::from_environment`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The index to follow (`GIT_REPO_URL`).
    pub(crate) git_repo_url: RemoteUrl,
    /// The address and port to listen on (`BIND_ADDRESS`, `PORT`).
    pub(crate) listen: SocketAddr,
    /// The mirror's own base URL (`PUBLIC_URL`); without it, it is taken from each request.
    pub(crate) public_url: Option<PublicUrl>,
    /// The directory of the clone (`DATA_DIR`).
    pub(crate) data_dir: PathBuf,
    /// Where crate files come from (`DOWNLOAD_URL`).
    pub(crate) downloads: DownloadTemplates,
    /// Who sends crate files to clients (`DOWNLOAD_MODE`).
    pub(crate) download_mode: DownloadMode,
    /// Where crate files are stored (`STORAGE_URL`). The mode `redirect` stores none.
    pub(crate) storage: StorageLocation,
    /// How many bytes of crate files the local disk may hold (`STORAGE_MAX_BYTES`); `None` for any number.
    pub(crate) storage_bytes_max: Option<u64>,
    /// Whether the index lists only versions whose file is stored (`INDEX_PRUNED`).
    pub(crate) index_listing: IndexListing,
    /// The pause between fetches (`REFRESH_INTERVAL_SECS`); `None` never fetches after the first clone.
    pub refresh_interval: Option<Duration>,
    /// The age of the last successful fetch at which the mirror is no longer ready (`MAX_STALENESS_SECS`).
    pub(crate) max_staleness: Duration,
    /// How long the change feed reaches back (`CHANGES_RETENTION`).
    pub(crate) changes_retention: Age,
    /// Where the rewritten index is pushed to after each refresh (`INDEX_PUSH_URL`).
    pub(crate) index_push_url: Option<RemoteUrl>,
    /// What a company may use (`MIN_PUBLISH_AGE` and the like, `POLICY_FILE`).
    pub(crate) policy: PolicyConfig,
    /// The advisory database to follow (`ADVISORY_DB_URL`).
    pub(crate) advisory_db_url: Option<RemoteUrl>,
    /// The pause between fetches of the advisory database. No variable: it is for tests.
    pub advisory_interval: Duration,
    /// The certificate and key that turn on TLS (`TLS_CERT`, `TLS_KEY`), read from their files.
    pub(crate) tls: Option<TlsCertificate>,
    /// How long browsers use nothing but TLS (`HSTS_MAX_AGE_SECS`); `None` sends no `Strict-Transport-Security`.
    pub(crate) hsts_max_age_secs: Option<u32>,
    /// Proxies that are trusted to name the client (`TRUSTED_PROXIES`).
    pub(crate) trusted_proxies: TrustedProxies,
    /// Who runs the mirror, for upstreams to see (`CONTACT`).
    pub(crate) contact: Option<String>,
    /// How log events are written (`LOG_FORMAT`).
    pub(crate) log_format: LogFormat,
    /// Which log events are written (`RUST_LOG`), in the syntax of `tracing_subscriber`'s `EnvFilter`.
    pub(crate) log_filter: String,
    /// Where traces are sent (`OTEL_EXPORTER_OTLP_ENDPOINT`); `None` makes none.
    #[cfg(feature = "otlp")]
    pub(crate) traces: Option<TraceSettings>,
    /// Where programs are found (`PATH`); the git index needs `git`.
    pub search_path: OsString,
    /// The variables that a `git` that pushes gets. It gets no others, because there are secrets among them.
    pub(crate) push_environment: PushEnvironment,
    /// Variables that are probably misspelt, each with the name that was meant.
    pub(crate) misspelt: Vec<(String, &'static str)>,
    /// The proxies to other machines (`http_proxy` and the like).
    pub(crate) proxies: Proxies,
    /// Whether `HTTP_PROXY` is set, which is ignored, and `http_proxy` is not.
    pub(crate) ignores_http_proxy: bool,
    /// Looks up the addresses of upstreams. No variable: it is for tests.
    pub resolver: Resolver,
    /// When packs are rolled up and the clone is replaced. No variable: it is for tests.
    pub upkeep: UpkeepLimits,
    /// Whether every third version is shown as yanked. For tests and benchmarks.
    #[cfg(feature = "bench-rules")]
    pub every_third_yanked: bool,
    /// How long to wait for a TCP connection to the upstream index. No variable: it is for tests.
    pub connect_timeout: Duration,
    /// How long the upstream of the index may send nothing. No variable: it is for tests.
    pub silence_timeout: Duration,
    /// How long to wait for an upstream of crate files. No variable: it is for tests.
    pub fetch_limits: FetchLimits,
    /// How long to wait for another process to free the data directory. No variable: it is for tests.
    pub lock_wait_max: Duration,
    /// Where temporary files go (`TMPDIR`).
    pub(crate) temp_dir: PathBuf,
    /// How long a crate file that no upstream has is known to be missing. No variable: it is for tests.
    pub missing_remembered: Duration,
    /// How long a request waits for a crate file that is being fetched. No variable: it is for tests.
    pub fetch_wait_max: Duration,
}

/// How a subcommand reaches the server with the same settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnServer {
    /// The address and port that it listens on (`BIND_ADDRESS`, `PORT`).
    pub(crate) listen: SocketAddr,
    /// Whether it speaks TLS (`TLS_CERT`).
    pub(crate) tls: bool,
}

impl OwnServer {
    /// Reads only these settings from the environment of this process. The files of TLS may be unreadable or half
    /// replaced while the server works.
    ///
    /// # Errors
    /// [`ConfigError`] for the first of them that has a bad value.
    pub(crate) fn from_environment() -> Result<Self, ConfigError> {
        let raw = Environment::of_process()?.raw()?;
        Ok(Self {
            listen: listen(&raw)?,
            tls: raw.tls_cert.is_some(),
        })
    }
}

impl Config {
    /// Reads the settings from the environment of this process, and the files that `TLS_CERT`, `TLS_KEY` and `POLICY_FILE`
    /// name.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that has a bad value.
    pub fn from_environment() -> Result<Self, ConfigError> {
        let config = Self::validate(Environment::of_process()?)?;
        #[cfg(feature = "bench-rules")]
        let config = Self {
            every_third_yanked: environment::system_variable("BENCH_EVERY_THIRD_YANKED").is_some(),
            ..config
        };
        Ok(config)
    }

    /// Reads the settings from pairs of variable name and value. Other names than [`VARIABLES`] are ignored.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that has a bad value.
    pub fn from_pairs(
        pairs: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::validate(Environment::from_pairs(pairs))
    }

    fn validate(environment: Environment) -> Result<Self, ConfigError> {
        let raw = environment.raw()?;
        let proxies = environment.proxies()?;
        let ignores_http_proxy = environment.ignores_http_proxy();
        #[cfg(feature = "otlp")]
        let traces = traces::settings(|name| environment.get(name))?;
        let listen = listen(&raw)?;
        let interval = value::seconds("REFRESH_INTERVAL_SECS", &raw.refresh_interval_secs)?;
        let public_url = raw
            .public_url
            .as_deref()
            .map(PublicUrl::parse)
            .transpose()?;
        let git_repo_url = index::git_url("GIT_REPO_URL", &raw.git_repo_url)?;
        let policy = PolicyConfig::validate(&raw)?;
        let data_dir = PathBuf::from(raw.data_dir);
        let download_mode = crate_files::mode(&raw.download_mode)?;
        let storage = crate_files::storage(raw.storage_url, &data_dir, environment.cloud)?
            .through(proxies.clone());
        let push_url =
            |text: &str| index::push_url(text, &git_repo_url, public_url.as_ref(), download_mode);
        let advisory_url = |text: &str| index::git_url("ADVISORY_DB_URL", text);
        let hsts = |text: &str| clients::hsts(text, raw.tls_cert.is_some());
        Ok(Self {
            listen,
            index_push_url: raw.index_push_url.as_deref().map(push_url).transpose()?,
            advisory_db_url: raw
                .advisory_db_url
                .as_deref()
                .map(advisory_url)
                .transpose()?,
            advisory_interval: ADVISORY_INTERVAL,
            git_repo_url,
            public_url,
            policy,
            downloads: crate_files::downloads(&raw.download_url, download_mode)?,
            storage_bytes_max: crate_files::bytes_max(raw.storage_max_bytes, &storage)?,
            storage,
            index_listing: index::listing(&raw.index_pruned, download_mode)?,
            download_mode,
            data_dir,
            refresh_interval: (!interval.is_zero()).then_some(interval),
            max_staleness: value::seconds("MAX_STALENESS_SECS", &raw.max_staleness_secs)?,
            changes_retention: value::age("CHANGES_RETENTION", &raw.changes_retention)?,
            hsts_max_age_secs: raw.hsts_max_age_secs.as_deref().map(hsts).transpose()?,
            tls: clients::tls(raw.tls_cert, raw.tls_key)?,
            trusted_proxies: value::parse(
                "TRUSTED_PROXIES",
                &raw.trusted_proxies.unwrap_or_default(),
                "addresses or ranges like 10.0.0.0/8, with commas between them",
            )?,
            contact: raw.contact.map(contact).transpose()?,
            log_format: log::format(&raw.log_format)?,
            log_filter: log::filter(raw.rust_log)?,
            #[cfg(feature = "otlp")]
            traces,
            search_path: environment::system_variable("PATH").unwrap_or_default(),
            push_environment: environment::push_environment(),
            misspelt: environment.misspelt,
            proxies,
            ignores_http_proxy,
            resolver: Resolver::system(),
            upkeep: UpkeepLimits::default(),
            #[cfg(feature = "bench-rules")]
            every_third_yanked: false,
            connect_timeout: CONNECT_TIMEOUT,
            silence_timeout: SILENCE_TIMEOUT,
            fetch_limits: FetchLimits::default(),
            lock_wait_max: LOCK_WAIT_MAX,
            temp_dir: environment::temp_dir(),
            missing_remembered: MISSING_REMEMBERED,
            fetch_wait_max: FETCH_WAIT_MAX,
        })
    }

    /// Whether the mirror fetches an advisory database. In the mode `offline` it follows only one on this machine.
    pub(crate) fn follows_advisories(&self) -> bool {
        let url = self.advisory_db_url.as_ref();
        url.is_some_and(|url| self.download_mode != DownloadMode::Offline || url.is_local())
    }

    /// Whether the mirror fetches the index at all. In the mode `offline` it follows only an index on this machine.
    pub(crate) fn follows_the_index(&self) -> bool {
        self.download_mode != DownloadMode::Offline || self.git_repo_url.is_local()
    }
}

/// `BIND_ADDRESS` and `PORT`.
fn listen(raw: &RawEnv) -> Result<SocketAddr, ConfigError> {
    let address: IpAddr = value::parse(
        "BIND_ADDRESS",
        &raw.bind_address,
        "an IP address, like 0.0.0.0 or ::1",
    )?;
    let port = value::parse("PORT", &raw.port, "a port number, 0 to 65535")?;
    Ok(SocketAddr::new(address, port))
}

/// `CONTACT`. It is sent in brackets, in a header.
fn contact(text: String) -> Result<String, ConfigError> {
    let fits_a_header = text
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if fits_a_header && !text.contains(['(', ')', '\\']) {
        Ok(text)
    } else {
        Err(ConfigError::new(
            "CONTACT",
            &text,
            "an address in ASCII without brackets",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::LogFormat;

    fn config(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_pairs(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn every_setting_has_a_default_and_an_empty_value_counts_as_not_set() {
        let empty: Vec<(&str, &str)> = VARIABLES.iter().map(|name| (*name, "")).collect();
        for config in [config(&[]).unwrap(), config(&empty).unwrap()] {
            assert_eq!(
                config.git_repo_url.to_string(),
                "https://github.com/rust-lang/crates.io-index.git"
            );
            assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
            assert_eq!(config.data_dir, PathBuf::from("data"));
            assert_eq!(
                &config.downloads.first.base,
                "https://crates-io.s3.us-west-1.amazonaws.com"
            );
            assert_eq!(config.refresh_interval, Some(Duration::from_secs(60)));
            assert_eq!(config.max_staleness, Duration::from_secs(3600));
            assert_eq!(
                (config.log_format, config.log_filter.as_str()),
                (LogFormat::Text, "info")
            );
            assert!(config.public_url.is_none() && config.contact.is_none());
            assert!(config.tls.is_none());
        }
    }

    #[test]
    fn names_are_matched_in_capitals_only() {
        let config = config(&[("port", "9"), ("PORT", "10"), ("Port", "x")]).unwrap();
        assert_eq!(config.listen.port(), 10);
    }

    #[test]
    fn a_bad_value_is_one_line_with_variable_value_and_remedy() {
        for (variable, value) in [
            ("PORT", "http"),
            ("PORT", "65536"),
            ("PORT", "-1"),
            ("BIND_ADDRESS", "localhost"),
            ("REFRESH_INTERVAL_SECS", "1m"),
            ("REFRESH_INTERVAL_SECS", "18446744073709551615"),
            ("MAX_STALENESS_SECS", "-5"),
            ("PUBLIC_URL", "mirror.example"),
            ("PUBLIC_URL", "ftp://mirror.example"),
            ("PUBLIC_URL", "https://mirror.example/?a=b"),
            ("GIT_REPO_URL", "ftp://mirror.example/index"),
            ("ADVISORY_DB_URL", "ftp://mirror.example/advisories"),
            ("ADVISORY_DB_URL", "advisories"),
            ("DOWNLOAD_URL", "s3://bucket/{crate}"),
            ("DOWNLOAD_URL", "https://good.example/{crate} bad"),
            ("DOWNLOAD_URL", "https://h.example/{name}"),
            ("DOWNLOAD_MODE", "sometimes"),
            ("STORAGE_URL", "ftp://host/crates"),
            ("STORAGE_MAX_BYTES", "10GB"),
            ("CHANGES_RETENTION", "7d"),
            ("CHANGES_RETENTION", "forever"),
            ("INDEX_PRUNED", "maybe"),
            ("INDEX_PRUNED", "true"),
            ("MIN_PUBLISH_AGE", "7d"),
            ("MIN_PUBLISH_AGE", "7"),
            ("MIN_PUBLISH_AGE_UNKNOWN", "deny"),
            ("HELD_DOWNLOADS", "hold"),
            ("POLICY_MODE", "off"),
            ("POLICY_FILE", "/dev/null/policy.toml"),
            ("YANK_GUARD", "-1 days"),
            ("LOG_FORMAT", "xml"),
            ("RUST_LOG", "a=b=c"),
            ("CONTACT", "a\nb"),
            ("HSTS_MAX_AGE_SECS", "1y"),
            ("HSTS_MAX_AGE_SECS", "-1"),
            ("HSTS_MAX_AGE_SECS", "31536000"),
            ("HSTS_MAX_AGE_SECS", "0"),
            ("TRUSTED_PROXIES", "10.0.0.0/99"),
            ("TRUSTED_PROXIES", "proxy.example"),
        ] {
            let message = config(&[(variable, value)]).unwrap_err().to_string();
            assert!(message.starts_with(variable), "{message}");
            let shown = if value.starts_with("https://good") {
                "bad"
            } else {
                value.lines().next().unwrap()
            };
            assert!(message.contains(shown), "{message}");
            assert!(
                message.contains("expected ") && !message.contains('\n'),
                "{message}"
            );
        }
    }

    #[test]
    fn the_index_is_pushed_only_with_a_public_url_and_not_onto_the_upstream() {
        let upstream = ("GIT_REPO_URL", "https://git.example/upstream");
        let public = ("PUBLIC_URL", "https://mirror.example");
        let push = ("INDEX_PUSH_URL", "https://b0b:s3cret@git.example/copy");
        let same = ("INDEX_PUSH_URL", "https://b0b:s3cret@git.example/upstream");
        let pushed_to = config(&[upstream, public, push]).unwrap().index_push_url;
        assert_eq!(pushed_to.unwrap().to_string(), "https://git.example/copy");
        for (settings, remedy) in [
            ([upstream, push].as_slice(), "PUBLIC_URL"),
            (
                &[upstream, public, ("INDEX_PUSH_URL", "https://h/i?token=x")],
                "without",
            ),
            (&[upstream, public, same], "another repository"),
            (
                &[upstream, public, ("INDEX_PUSH_URL", "ftp://x/y")],
                "an https",
            ),
        ] {
            let message = config(settings).unwrap_err().to_string();
            assert!(
                message.starts_with("INDEX_PUSH_URL") && message.contains(remedy),
                "{message}"
            );
            assert!(!message.contains("s3cret") && !message.contains("b0b"));
        }
    }

    #[test]
    fn no_secret_is_shown_in_any_error_or_debug_output() {
        for (variable, value) in [
            ("GIT_REPO_URL", "ftp://b0b:s3cret@h.example/i"),
            ("GIT_REPO_URL", "https://b0b:s3cret@"),
            ("GIT_REPO_URL", "https://b0b:12/s3cret@h/x"),
            ("GIT_REPO_URL", "https://b0b:pa/s3cret@h/x"),
            ("GIT_REPO_URL", "https:/b0b:s3cret@h/x"),
            ("GIT_REPO_URL", "b0b:s3cret@h.example/x"),
            ("ADVISORY_DB_URL", "ftp://b0b:s3cret@h.example/i"),
            ("ADVISORY_DB_URL", "https://b0b:12/s3cret@h/x"),
            ("DOWNLOAD_URL", "ftp://b0b:s3cret@h.example/{crate}"),
            ("DOWNLOAD_URL", "https://b0b:s3cret@h.example/\u{1}{crate}"),
            ("DOWNLOAD_URL", "https://b0b:s3cret@h.example/{crate}"),
            ("DOWNLOAD_URL", "https://s3cret@h.example/{crate}"),
            (
                "DOWNLOAD_URL",
                "https://b0b:%733cret@h.example/{crate}?x=s3cret",
            ),
            (
                "DOWNLOAD_URL",
                "https://h.example/ https://{crate}:s3cret@h.example/#s3cret",
            ),
            ("PUBLIC_URL", "ftp://b0b:s3cret@h.example"),
            ("PUBLIC_URL", "https://b0b:s3cret@h.example"),
            ("STORAGE_URL", "s3://b0b:s3cret@bucket/crates"),
        ] {
            let message = config(&[(variable, value)]).unwrap_err().to_string();
            assert!(
                !message.contains("s3cret") && !message.contains("b0b"),
                "{message}"
            );
        }
        let good = config(&[
            ("GIT_REPO_URL", "https://b0b:s3cret@h.example/i"),
            ("ADVISORY_DB_URL", "https://b0b:s3cret@h.example/i"),
            ("DOWNLOAD_URL", "https://b0b:s3cret@h.example/{crate}"),
            ("DOWNLOAD_MODE", "cache"),
        ]);
        assert!(!format!("{:?}", good.unwrap()).contains("s3cret"));
    }
}
