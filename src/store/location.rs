//! Where crate files are stored: `STORAGE_URL`, and the clouds' own variables.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::SpawnedReqwestConnector;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use tokio::runtime::Handle;
use url::Url;

use crate::outgoing::{Proxies, certificates, use_ring};

/// How long to wait for a connection to a cloud.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a cloud may send nothing. A whole transfer has no limit, because a large file takes its time.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often a request to a cloud is repeated, and for how long. A client waits for it.
const RETRIES_MAX: usize = 3;
const RETRY_TIME_MAX: Duration = Duration::from_secs(15);

/// Where crate files are stored.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum StorageLocation {
    /// A directory.
    Disk { path: PathBuf, use_of: DiskUse },
    /// A bucket or container, with a prefix.
    Cloud(CloudPlace),
    /// The memory of this process. For tests and trials.
    Memory,
}

/// Whether other processes may write to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskUse {
    /// No: it is in `DATA_DIR`, which belongs to one mirror.
    Alone,
    /// Yes: several mirrors may share it.
    Shared,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CloudPlace {
    provider: Provider,
    url: Url,
    /// The prefix of each key.
    prefix: Path,
    /// The clouds' variables. Secrets are among them.
    variables: Vec<(String, String)>,
    /// Boxed, because the other places have no proxies.
    proxies: Box<Proxies>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    Amazon,
    Google,
    Microsoft,
}

/// Why a text is no place for crate files. Shown as what is expected instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LocationError {
    #[error("a path, or a URL like s3://bucket/prefix")]
    NotAUrl,
    #[error("a path, or a URL that begins with s3://, gs://, az:// or memory://")]
    Scheme,
    #[error("no user and password: AWS_ACCESS_KEY_ID and the like are for those")]
    Credentials,
    #[error(
        "a bucket, and the cloud's own variables (AWS_REGION, AZURE_STORAGE_ACCOUNT_NAME and the like) with values that it \
         understands"
    )]
    Incomplete,
    #[error(
        "CA certificates on this machine: install the package ca-certificates, or set SSL_CERT_FILE to a file that has them"
    )]
    NoCertificates,
}

impl StorageLocation {
    /// A directory that no other process uses.
    pub(crate) fn within(path: PathBuf) -> Self {
        Self::Disk {
            path,
            use_of: DiskUse::Alone,
        }
    }

    /// Reads `STORAGE_URL`: a path, or a URL with the scheme `file`, `s3`, `gs`, `az` (and its older names) or
    /// `memory`. `variables` are the clouds' own, like `AWS_REGION`.
    pub(crate) fn parse(
        text: &str,
        variables: Vec<(String, String)>,
    ) -> Result<Self, LocationError> {
        let disk = |path| Self::Disk {
            path,
            use_of: DiskUse::Shared,
        };
        if !text.contains("://") {
            // A URL with one slash missing must not count as a directory.
            let looks_like_a_url = text
                .split_once(':')
                .is_some_and(|(scheme, _)| is_scheme(scheme));
            return if looks_like_a_url {
                Err(LocationError::NotAUrl)
            } else {
                Ok(disk(PathBuf::from(text)))
            };
        }
        let url = Url::parse(text).map_err(|_not_a_url| LocationError::NotAUrl)?;
        // In `abfss://container@account…` the first part is no user.
        let names_a_container = url.scheme().starts_with("abfs") && url.password().is_none();
        if (!url.username().is_empty() || url.password().is_some()) && !names_a_container {
            return Err(LocationError::Credentials);
        }
        let provider = match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| LocationError::NotAUrl)?;
                return Ok(disk(path));
            }
            "memory" => return Ok(Self::Memory),
            "s3" | "s3a" => Provider::Amazon,
            "gs" => Provider::Google,
            "az" | "azure" | "abfs" | "abfss" | "adl" => Provider::Microsoft,
            _ => return Err(LocationError::Scheme),
        };
        let prefix = Path::from_url_path(url.path()).map_err(|_no_path| LocationError::NotAUrl)?;
        let cloud = CloudPlace {
            provider,
            prefix,
            url,
            variables,
            proxies: Box::default(),
        };
        // Errors must be known before the port is bound.
        cloud.open(None).map_err(|_its_text_may_hold_secrets| {
            if !cloud.speaks_plain_http() && certificates::are_missing() {
                LocationError::NoCertificates
            } else {
                LocationError::Incomplete
            }
        })?;
        Ok(Self::Cloud(cloud))
    }

    /// The same place, with these proxies on the way to a cloud.
    pub(crate) fn through(mut self, proxies: Proxies) -> Self {
        if let Self::Cloud(cloud) = &mut self {
            *cloud.proxies = proxies;
        }
        self
    }

    /// Whether crate files are on a disk of this machine.
    pub(crate) fn is_disk(&self) -> bool {
        matches!(self, Self::Disk { .. })
    }

    /// Whether a removal is a bulk request, which S3 has and not every store that speaks S3.
    pub(crate) fn deletes_in_bulk(&self) -> bool {
        let Self::Cloud(cloud) = self else {
            return false;
        };
        let mut names = cloud.variables.iter().map(|(name, _value)| name);
        cloud.provider == Provider::Amazon && !names.any(|name| name == "AWS_DISABLE_BULK_DELETE")
    }

    /// Whether crate files are gone when this process ends.
    pub(crate) fn is_memory(&self) -> bool {
        *self == Self::Memory
    }

    /// The clouds' variables that the store uses, with secrets hidden.
    pub(crate) fn used_variables(&self) -> Vec<(&str, String)> {
        let Self::Cloud(cloud) = self else {
            return Vec::new();
        };
        let used = cloud.variables.iter().filter(|(name, _)| cloud.uses(name));
        used.map(|(name, value)| (name.as_str(), shown_of(name, value)))
            .collect()
    }

    /// A text on one line without the clouds' secrets, which a cloud may repeat.
    pub(crate) fn redact(&self, text: &str) -> String {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let Self::Cloud(cloud) = self else {
            return text;
        };
        let hidden = cloud.variables.iter().flat_map(|(name, value)| {
            let shown = shown_of(name, value);
            if shown == HIDDEN {
                return vec![value.clone()];
            }
            // An address is shown without its secrets. A text can contain them alone, and as given or encoded.
            let Some(url) = Url::parse(value).ok().filter(|_| is_address(name)) else {
                return Vec::new();
            };
            let secrets = [Some(url.username()), url.password(), url.query()];
            let parsed = secrets.into_iter().flatten().flat_map(|secret| {
                let plain = percent_encoding::percent_decode_str(secret).decode_utf8_lossy();
                [secret.to_owned(), plain.into_owned()]
            });
            parsed.collect()
        });
        // A value of a few letters is a part of many words, and hiding those words would reveal it.
        let mut hidden: Vec<_> = hidden.filter(|value| value.len() > 3).collect();
        hidden.sort_by_key(|value| std::cmp::Reverse(value.len()));
        hidden
            .iter()
            .fold(text, |text, value| text.replace(value, HIDDEN))
    }
}

impl fmt::Display for StorageLocation {
    /// Without secrets: a URL with credentials is refused.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { path, .. } => path.display().fmt(formatter),
            Self::Cloud(cloud) => formatter.write_str(&shown(&cloud.url)),
            Self::Memory => formatter.write_str("memory://"),
        }
    }
}

impl fmt::Debug for StorageLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Without the query and the fragment: they have no meaning here, but may hold a token.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Replaces a secret.
const HIDDEN: &str = "***";

/// The harmless part of a cloud's variable.
fn shown_of(name: &str, value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_shown =
        (name.contains("REGION") || name.ends_with("ALLOW_HTTP")) && value.bytes().all(is_plain);
    match Url::parse(value) {
        Ok(mut url) if is_address(name) => {
            let hidden = url.set_username("").and_then(|()| url.set_password(None));
            hidden.map_or_else(|()| HIDDEN.to_owned(), |()| shown(&url))
        }
        _ if is_shown => value.to_owned(),
        _ => HIDDEN.to_owned(),
    }
}

impl CloudPlace {
    /// Whether the cloud's client uses a variable of this name.
    fn uses(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        match self.provider {
            Provider::Amazon => name.parse::<AmazonS3ConfigKey>().is_ok(),
            Provider::Google => name.parse::<GoogleConfigKey>().is_ok(),
            Provider::Microsoft => name.parse::<AzureConfigKey>().is_ok(),
        }
    }

    /// Opens no connection yet. Connections belong to `runtime`, because the runtime of the first request may end first.
    pub(super) fn open(
        &self,
        runtime: Option<&Handle>,
    ) -> object_store::Result<Arc<dyn ObjectStore>> {
        use_ring();
        let is_plain = self.speaks_plain_http();
        let (proxy, exceptions) = self
            .proxies
            .for_scheme(if is_plain { "http" } else { "https" });
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_read_timeout(SILENCE_TIMEOUT)
            .with_allow_http(is_plain)
            .with_proxy_url(proxy)
            .with_proxy_excludes(exceptions)
            // Otherwise the library fails without certificates, even if it never uses them.
            .with_no_system_certificates(is_plain && certificates::are_missing());
        let retries = RetryConfig {
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIME_MAX,
            ..RetryConfig::default()
        };
        macro_rules! build {
            ($builder:ty) => {{
                let mut builder = <$builder>::new()
                    .with_client_options(client)
                    .with_retry(retries);
                if let Some(runtime) = runtime {
                    builder =
                        builder.with_http_connector(SpawnedReqwestConnector::new(runtime.clone()));
                }
                for (name, value) in &self.variables {
                    // Variables of other tools mean nothing here.
                    if let Ok(key) = name.to_ascii_lowercase().parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                let bucket = builder.with_url(self.url.as_str()).build()?;
                Ok(Arc::new(PrefixStore::new(bucket, self.prefix.clone())) as Arc<dyn ObjectStore>)
            }};
        }
        match self.provider {
            Provider::Amazon => build!(AmazonS3Builder),
            Provider::Google => build!(GoogleCloudStorageBuilder),
            Provider::Microsoft => build!(MicrosoftAzureBuilder),
        }
    }

    /// Whether the endpoint is a plain `http://` URL.
    fn speaks_plain_http(&self) -> bool {
        self.variables
            .iter()
            .any(|(name, value)| is_address(name) && value.starts_with("http://"))
    }
}

/// Whether this is the scheme of a place, or of a URL that people take for one.
fn is_scheme(text: &str) -> bool {
    [
        "file", "memory", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https",
    ]
    .contains(&text)
}

/// Whether a cloud's variable is an address.
fn is_address(name: &str) -> bool {
    name.contains("ENDPOINT") || name.ends_with("BASE_URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StorageLocation, LocationError> {
        let variables = [
            ("AWS_REGION", "eu-west-1"),
            ("AWS_SECRET_ACCESS_KEY", "s3cret"),
            ("AWS_ACCESS_KEY_ID", "b0b"),
            ("AWS_PAGER", "less"),
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        StorageLocation::parse(text, variables.into())
    }

    #[test]
    fn paths_and_the_schemes_of_three_clouds_are_places() {
        for (text, shown) in [
            ("crates", "crates"),
            ("/srv/crates", "/srv/crates"),
            ("file:///srv/crates", "/srv/crates"),
            ("memory://", "memory://"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b?token=s3cret", "s3://bucket/a/b"),
            ("gs://bucket/a", "gs://bucket/a"),
            ("az://container/a", "az://container/a"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn other_places_are_refused() {
        for (text, error) in [
            ("ftp://host/x", LocationError::Scheme),
            ("https://bucket.example/x", LocationError::Scheme),
            ("s3://b0b:s3cret@bucket/x", LocationError::Credentials),
            ("://", LocationError::NotAUrl),
            ("file://host/x", LocationError::NotAUrl),
            ("s3://", LocationError::Incomplete),
            ("s3://bucket/a//b", LocationError::NotAUrl),
            ("s3:/bucket", LocationError::NotAUrl),
            ("file:/srv", LocationError::NotAUrl),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn only_used_variables_without_secrets_are_shown() {
        let variables = [
            ("AWS_REGION", "eu-west-1"),
            ("AWS_DEFAULT_REGION", "s3cret/with+other signs"),
            (
                "AWS_ENDPOINT",
                "https://b0b:s3cret@s3.example:9000/a?token=s3cret",
            ),
            ("AWS_ENDPOINT_URL", "s3cret without a scheme"),
            ("AWS_SECRET_ACCESS_KEY", "s3cret"),
            ("AWS_ACCESS_KEY_ID", "b0bs-key"),
            ("AWS_PAGER", "less"),
            ("GOOGLE_BASE_URL", "http://other.example"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let place = StorageLocation::parse("s3://bucket", variables.into()).unwrap();
        let used = place.used_variables();
        let used: Vec<(&str, &str)> = used
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(
            used,
            [
                ("AWS_REGION", "eu-west-1"),
                ("AWS_DEFAULT_REGION", "***"),
                ("AWS_ENDPOINT", "https://s3.example:9000/a"),
                ("AWS_ENDPOINT_URL", "***"),
                ("AWS_SECRET_ACCESS_KEY", "***"),
                ("AWS_ACCESS_KEY_ID", "***"),
            ]
        );
        assert_eq!(
            place.redact("no key\n  b0bs-key\tin eu-west-1"),
            "no key *** in eu-west-1"
        );
        assert_eq!(
            place.redact("GET https://b0b:s3cret@s3.example:9000/a?token=s3cret failed"),
            "GET https://b0b:***@s3.example:9000/a?*** failed"
        );
        assert!(parse("memory://").unwrap().used_variables().is_empty());
    }

    #[test]
    fn variables_of_clouds_are_used_and_never_shown() {
        let place = parse("s3://bucket/a").unwrap();
        assert!(!format!("{place:?}").contains("s3cret"));
        let StorageLocation::Cloud(cloud) = &place else {
            panic!("not a cloud");
        };
        let opened = format!("{:?}", cloud.open(None).unwrap());
        assert!(opened.contains("eu-west-1"), "{opened}");
        assert_eq!(cloud.prefix.as_ref(), "a");
    }
}
