//! The settings: environment variables, read once into [`RawEnv`] and validated in one step into [`Config`].
//!
//! Only this room reads the environment. What does not live here: defaults that no operator can change; those are
//! constants beside the code that they limit.

mod crate_files;
mod describe;
mod error;
mod misspelt;
mod public_url;
mod raw;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tracing_subscriber::filter::EnvFilter;

pub(crate) use crate_files::DownloadMode;
pub(crate) use describe::{Origin, Setting};
pub use error::ConfigError;
pub(crate) use public_url::PublicUrl;
use raw::RawEnv;
pub use raw::VARIABLES;

use crate::index::{PushEnvironment, RemoteUrl, RemoteUrlError, UpkeepLimits};
use crate::outgoing::Proxies;
use crate::server::{CertificateError, TlsCertificate, TrustedProxies};
use crate::store::StorageLocation;
use crate::upstream::{DownloadTemplates, FetchLimits, Resolver};

const DEFAULT_GIT_REPO_URL: &str = "https://github.com/rust-lang/crates.io-index.git";

/// How long to wait for a TCP connection to the upstream index.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait for another process to free the data directory: in a rolling restart the old one is still stopping.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a crate file that no upstream has is known to be missing.
const MISSING_REMEMBERED: Duration = Duration::from_secs(30);

/// How long a request waits for a crate file. Cargo, and Heroku's router, give up after 30 s without a byte.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(25);

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
    /// Where the clone lies (`DATA_DIR`).
    pub(crate) data_dir: PathBuf,
    /// Where crate files come from (`DOWNLOAD_URL`).
    pub(crate) downloads: DownloadTemplates,
    /// Who sends crate files to clients (`DOWNLOAD_MODE`).
    pub(crate) download_mode: DownloadMode,
    /// Where crate files are kept (`STORAGE_URL`); a redirecting mirror keeps none.
    pub(crate) storage: StorageLocation,
    /// How many bytes of crate files may lie on the local disk (`STORAGE_MAX_BYTES`); `None` for any number.
    pub(crate) storage_bytes_max: Option<u64>,
    /// Whether the index lists only versions that are held (`INDEX_PRUNED`).
    pub(crate) index_listing: IndexListing,
    /// The pause between fetches (`REFRESH_INTERVAL_SECS`); `None` never fetches after the first clone.
    pub refresh_interval: Option<Duration>,
    /// The age of the last successful fetch at which the mirror is no longer ready (`MAX_STALENESS_SECS`).
    pub(crate) max_staleness: Duration,
    /// Where the rewritten index is pushed to after each refresh (`INDEX_PUSH_URL`).
    pub(crate) index_push_url: Option<RemoteUrl>,
    /// What turns on TLS (`TLS_CERT`, `TLS_KEY`): the content of two PEM files.
    pub(crate) tls: Option<TlsCertificate>,
    /// What browsers are told of TLS in `Strict-Transport-Security` (`HSTS_MAX_AGE_SECS`); `None` for nothing.
    pub(crate) hsts_max_age_secs: Option<u32>,
    /// Proxies that are trusted to name the client (`TRUSTED_PROXIES`).
    pub(crate) trusted_proxies: TrustedProxies,
    /// Who runs the mirror, for upstreams to see (`CONTACT`).
    pub(crate) contact: Option<String>,
    /// How log events are written (`LOG_FORMAT`).
    pub(crate) log_format: LogFormat,
    /// Which log events are written (`RUST_LOG`), in the syntax of `tracing_subscriber`'s `EnvFilter`.
    pub(crate) log_filter: String,
    /// Where programs are found (`PATH`); the git index needs `git`.
    pub search_path: OsString,
    /// What a `git` that pushes gets of the environment: names and values. Nothing else of it, since there are secrets in it.
    pub(crate) push_environment: PushEnvironment,
    /// Variables that are probably misspelt, each with the name that was meant.
    pub(crate) misspelt: Vec<(String, &'static str)>,
    /// How other machines are reached (`http_proxy` and its kin).
    pub(crate) proxies: Proxies,
    /// Whether `HTTP_PROXY` is set, which is ignored, and `http_proxy` is not.
    pub(crate) ignores_http_proxy: bool,
    /// Tells the addresses of upstreams of crate files. No variable: it is for tests.
    pub resolver: Resolver,
    /// When the clone is made smaller. No variable: it is for tests.
    pub upkeep: UpkeepLimits,
    /// Whether every third version is shown as yanked. For tests and benchmarks.
    #[cfg(feature = "bench-rules")]
    pub every_third_yanked: bool,
    /// How long to wait for a TCP connection to the upstream index. No variable: it is for tests.
    pub connect_timeout: Duration,
    /// How long the upstream of the index may be silent. No variable: it is for tests.
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

/// Which versions the index lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexListing {
    /// All that the upstream lists.
    Everything,
    /// Those whose crate file is held.
    HeldOnly,
}

/// How log events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

impl Config {
    /// Reads the settings from the environment of this process, and the files that `TLS_CERT` and `TLS_KEY` name.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that has a bad value.
    pub fn from_environment() -> Result<Self, ConfigError> {
        let config = Self::from_raw(RawEnv::from_environment()?)?;
        #[cfg(feature = "bench-rules")]
        let config = Self {
            every_third_yanked: raw::is_set("BENCH_EVERY_THIRD_YANKED"),
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
        Self::from_raw(RawEnv::from_pairs(pairs)?)
    }

    fn from_raw(raw: RawEnv) -> Result<Self, ConfigError> {
        let proxies = raw.read_proxies()?;
        let ignores_http_proxy = raw.proxy_variable(raw::IGNORED_PROXY_VARIABLE).is_some()
            && raw.proxy_variable("http_proxy").is_none();
        let address: IpAddr = parse_or(
            "BIND_ADDRESS",
            raw.bind_address,
            IpAddr::from([0, 0, 0, 0]),
            "an IP address, like 0.0.0.0 or ::1",
        )?;
        let port = parse_or("PORT", raw.port, 8080, "a port number, 0 to 65535")?;
        let seconds = "a whole number of seconds, at most 31536000";
        let interval = bounded_seconds(
            "REFRESH_INTERVAL_SECS",
            raw.refresh_interval_secs,
            60,
            seconds,
        )?;
        let public_url = raw
            .public_url
            .map(|text| PublicUrl::parse(&text))
            .transpose()?;
        let git_repo_url = git_url(
            "GIT_REPO_URL",
            raw.git_repo_url.as_deref().unwrap_or(DEFAULT_GIT_REPO_URL),
        )?;
        let data_dir = raw
            .data_dir
            .map_or_else(|| PathBuf::from("data"), PathBuf::from);
        let download_mode = crate_files::mode(raw.download_mode)?;
        let storage =
            crate_files::storage(raw.storage_url, &data_dir, raw.cloud)?.through(proxies.clone());
        let index_push_url =
            index_push_url(raw.index_push_url, &git_repo_url, public_url.as_ref())?;
        if let Some(url) = &index_push_url {
            may_push(url, download_mode)?;
        }
        Ok(Self {
            git_repo_url,
            listen: SocketAddr::new(address, port),
            index_push_url,
            public_url,
            downloads: crate_files::downloads(raw.download_url, download_mode)?,
            storage_bytes_max: crate_files::bytes_max(raw.storage_max_bytes, &storage)?,
            storage,
            index_listing: crate_files::index_listing(raw.index_pruned, download_mode)?,
            download_mode,
            data_dir,
            refresh_interval: (!interval.is_zero()).then_some(interval),
            max_staleness: bounded_seconds(
                "MAX_STALENESS_SECS",
                raw.max_staleness_secs,
                3600,
                seconds,
            )?,
            hsts_max_age_secs: hsts(raw.hsts_max_age_secs, raw.tls_cert.is_some())?,
            tls: tls(raw.tls_cert, raw.tls_key)?,
            trusted_proxies: parse_or(
                "TRUSTED_PROXIES",
                raw.trusted_proxies,
                TrustedProxies::default(),
                "addresses or ranges like 10.0.0.0/8, with commas between them",
            )?,
            contact: raw.contact.map(contact).transpose()?,
            log_format: log_format(raw.log_format)?,
            log_filter: log_filter(raw.rust_log)?,
            search_path: search_path(),
            push_environment: push_environment(),
            misspelt: raw.misspelt,
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
            temp_dir: std::env::temp_dir(),
            missing_remembered: MISSING_REMEMBERED,
            fetch_wait_max: FETCH_WAIT_MAX,
        })
    }
}

/// No setting of the mirror, but the system's.
fn search_path() -> OsString {
    #[expect(
        clippy::disallowed_methods,
        reason = "only this room reads the environment"
    )]
    std::env::var_os("PATH").unwrap_or_default()
}

/// What git, and the ssh that it starts, need of the environment to reach another host: the user's settings and keys,
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

/// No settings of the mirror, but the system's.
fn push_environment() -> PushEnvironment {
    #[expect(
        clippy::disallowed_methods,
        reason = "only this room reads the environment"
    )]
    let value = |name: &str| std::env::var_os(name);
    let set = PUSH_VARIABLES
        .iter()
        .filter_map(|name| Some((*name, value(name)?)));
    PushEnvironment::new(set.collect())
}

fn parse_or<T: FromStr>(
    variable: &'static str,
    text: Option<String>,
    default: T,
    remedy: &'static str,
) -> Result<T, ConfigError> {
    text.map_or(Ok(default), |text| {
        text.parse()
            .map_err(|_unparsable| ConfigError::new(variable, &text, remedy))
    })
}

/// A year is far beyond any sensible value, and keeps all sums of times in range.
fn bounded_seconds(
    variable: &'static str,
    text: Option<String>,
    default: u64,
    remedy: &'static str,
) -> Result<Duration, ConfigError> {
    let shown = text.clone().unwrap_or_default();
    match parse_or(variable, text, default, remedy)? {
        seconds @ 0..=31_536_000 => Ok(Duration::from_secs(seconds)),
        _ => Err(ConfigError::new(variable, &shown, remedy)),
    }
}

fn git_url(variable: &'static str, text: &str) -> Result<RemoteUrl, ConfigError> {
    RemoteUrl::parse(text).map_err(|error| {
        let remedy = match error {
            RemoteUrlError::NotAUrl => {
                "a URL like https://host/path.git, user@host:path, or a path that begins with /, ./ or ../"
            }
            RemoteUrlError::StrayAt => {
                "%40 and %2F for an @ and a slash in a user, password or path"
            }
            RemoteUrlError::Scheme => "an https, http, git, ssh or file URL, or a path",
        };
        ConfigError::new(variable, text, remedy)
    })
}

fn index_push_url(
    text: Option<String>,
    upstream: &RemoteUrl,
    public_url: Option<&PublicUrl>,
) -> Result<Option<RemoteUrl>, ConfigError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let url = git_url("INDEX_PUSH_URL", &text)?;
    // What is pushed says where the mirror is, and there is no request that could tell.
    let remedy = if public_url.is_none() {
        "PUBLIC_URL to be set, too"
    } else if url.address().contains('?') {
        // git would show it to everybody on its command line.
        "a URL without a `?`"
    } else if url.is_same_place_as(upstream) {
        // The mirror would follow its own pushes, and the upstream would be lost.
        "another repository than that of GIT_REPO_URL"
    } else {
        return Ok(Some(url));
    };
    Err(ConfigError::new("INDEX_PUSH_URL", &text, remedy))
}

/// Nothing leaves the machine of a mirror that is offline.
fn may_push(url: &RemoteUrl, mode: DownloadMode) -> Result<(), ConfigError> {
    if mode == DownloadMode::Offline && !url.is_local() {
        let remedy = "a path on this machine, since DOWNLOAD_MODE is offline";
        return Err(ConfigError::new("INDEX_PUSH_URL", &url.to_string(), remedy));
    }
    Ok(())
}

/// Both or neither.
fn tls(
    certificate: Option<String>,
    key: Option<String>,
) -> Result<Option<TlsCertificate>, ConfigError> {
    let (certificate, key) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => {
            let remedy = "the file with the private key of TLS_CERT, or neither of the two";
            return Err(ConfigError::new("TLS_KEY", "", remedy));
        }
        (None, Some(_)) => {
            let remedy = "the file with the certificate of TLS_KEY, or neither of the two";
            return Err(ConfigError::new("TLS_CERT", "", remedy));
        }
    };
    let read = TlsCertificate::read(PathBuf::from(&certificate), PathBuf::from(&key));
    read.map(Some).map_err(|error| {
        let (variable, value, remedy) = match error {
            CertificateError::CertificateUnreadable(_) => {
                ("TLS_CERT", &certificate, "a file that can be read")
            }
            CertificateError::NoCertificate => (
                "TLS_CERT",
                &certificate,
                "a PEM file with the certificate of this host, and the chain behind it",
            ),
            CertificateError::KeyUnreadable(_) => ("TLS_KEY", &key, "a file that can be read"),
            CertificateError::NoKey => (
                "TLS_KEY",
                &key,
                "a PEM file with a private key, not encrypted: RSA with 2048 to 4096 bits, P-256, P-384 or Ed25519",
            ),
            CertificateError::KeyOnP521 => (
                "TLS_KEY",
                &key,
                "a key on the curve P-256 or P-384, RSA or Ed25519: the curve P-521 is not supported",
            ),
            CertificateError::KeyOfAnother => {
                ("TLS_KEY", &key, "the key of the certificate in TLS_CERT")
            }
        };
        ConfigError::new(variable, value, remedy)
    })
}

/// Over plain HTTP browsers ignore it, and behind a proxy the domain may be shared: it is for the mirror's own TLS only.
fn hsts(text: Option<String>, has_certificate: bool) -> Result<Option<u32>, ConfigError> {
    let parse = |text: String| {
        let bad = |remedy| ConfigError::new("HSTS_MAX_AGE_SECS", &text, remedy);
        let seconds = text
            .parse()
            .map_err(|_not_a_number| bad("a whole number of seconds, at most 4294967295"))?;
        if has_certificate {
            Ok(seconds)
        } else {
            Err(bad("TLS_CERT to be set, too"))
        }
    };
    text.map(parse).transpose()
}

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

fn log_format(text: Option<String>) -> Result<LogFormat, ConfigError> {
    match text.as_deref() {
        None | Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => Err(ConfigError::new("LOG_FORMAT", other, "`text` or `json`")),
    }
}

fn log_filter(text: Option<String>) -> Result<String, ConfigError> {
    let text = text.unwrap_or_else(|| "info".to_owned());
    match EnvFilter::try_new(&text) {
        Ok(_filter) => Ok(text),
        Err(_unparsable) => Err(ConfigError::new(
            "RUST_LOG",
            &text,
            "a filter like `info` or `crates_io_mirror=debug`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_pairs(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn everything_has_a_default_and_an_empty_value_counts_as_not_set() {
        let empty: Vec<(&str, &str)> = VARIABLES.iter().map(|name| (*name, "")).collect();
        for config in [config(&[]).unwrap(), config(&empty).unwrap()] {
            assert_eq!(config.git_repo_url.to_string(), DEFAULT_GIT_REPO_URL);
            assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
            assert_eq!(config.data_dir, PathBuf::from("data"));
            assert_eq!(
                config.downloads.first().base(),
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
            ("DOWNLOAD_URL", "s3://bucket/{crate}"),
            ("DOWNLOAD_URL", "https://good.example/{crate} bad"),
            ("DOWNLOAD_URL", "https://h.example/{name}"),
            ("DOWNLOAD_MODE", "sometimes"),
            ("STORAGE_URL", "ftp://host/crates"),
            ("STORAGE_MAX_BYTES", "10GB"),
            ("INDEX_PRUNED", "maybe"),
            ("INDEX_PRUNED", "true"),
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
            ("DOWNLOAD_URL", "https://b0b:s3cret@h.example/{crate}"),
            ("DOWNLOAD_MODE", "cache"),
        ]);
        assert!(!format!("{:?}", good.unwrap()).contains("s3cret"));
    }
}
