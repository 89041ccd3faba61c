//! The settings of crate files: where they come from, who sends them, and where they are kept.

use std::path::Path;

use super::{ConfigError, IndexListing};
use crate::store::{LocationError, StorageLocation};
use crate::upstream::{DownloadTemplate, DownloadTemplates, TemplateError};

pub(super) const DEFAULT_DOWNLOAD_URL: &str =
    "https://crates-io.s3.us-west-1.amazonaws.com/crates/{crate}/{crate}-{version}.crate";

/// The directory in `DATA_DIR` in which crate files are kept unless another place is named.
const CRATES_DIR: &str = "crates";

/// Who sends crate files to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DownloadMode {
    /// The upstream: clients are sent there.
    Redirect,
    /// The mirror, which fetches each file once.
    Cache,
    /// The mirror, which fetches nothing.
    Offline,
}

/// `DOWNLOAD_MODE`.
pub(super) fn mode(text: Option<String>) -> Result<DownloadMode, ConfigError> {
    match text.as_deref() {
        None | Some("redirect") => Ok(DownloadMode::Redirect),
        Some("cache") => Ok(DownloadMode::Cache),
        Some("offline") => Ok(DownloadMode::Offline),
        Some(other) => Err(ConfigError::new(
            "DOWNLOAD_MODE",
            other,
            "`redirect`, `cache` or `offline`",
        )),
    }
}

/// `DOWNLOAD_URL`.
pub(super) fn downloads(
    urls: Option<String>,
    mode: DownloadMode,
) -> Result<DownloadTemplates, ConfigError> {
    let urls = urls.unwrap_or_else(|| DEFAULT_DOWNLOAD_URL.to_owned());
    let templates = DownloadTemplates::parse(&urls).map_err(|(url, error)| {
        let remedy = match error {
            TemplateError::NotAUrl => "a URL like https://host/{crate}/{version}",
            TemplateError::Scheme => "an http or https URL",
            TemplateError::Character => "a URL in ASCII without control characters",
        };
        ConfigError::new("DOWNLOAD_URL", &url, remedy)
    })?;
    let has_credentials = templates.iter().any(DownloadTemplate::has_credentials);
    if mode == DownloadMode::Redirect && has_credentials {
        let remedy = "no user and password: in the mode redirect every client would see them";
        return Err(ConfigError::new("DOWNLOAD_URL", &urls, remedy));
    }
    Ok(templates)
}

/// `STORAGE_URL`, and what the clouds' own variables say.
pub(super) fn storage(
    text: Option<String>,
    data_dir: &Path,
    cloud: Vec<(String, String)>,
) -> Result<StorageLocation, ConfigError> {
    let Some(text) = text else {
        return Ok(StorageLocation::within(data_dir.join(CRATES_DIR)));
    };
    StorageLocation::parse(&text, cloud).map_err(|error| {
        let remedy = match error {
            LocationError::Scheme => {
                "a path, or a URL that begins with s3://, gs://, az:// or memory://"
            }
            LocationError::Credentials => {
                "no user and password: AWS_ACCESS_KEY_ID and the like are for those"
            }
            LocationError::NotAUrl => "a path, or a URL like s3://bucket/prefix",
            LocationError::NoCertificates => {
                "CA certificates on this machine: install the package ca-certificates, or set SSL_CERT_FILE to a file that \
                 has them"
            }
            LocationError::Incomplete => {
                "a bucket, and the cloud's own variables (AWS_REGION, AZURE_STORAGE_ACCOUNT_NAME and the like) with \
                 values that it understands"
            }
        };
        ConfigError::new("STORAGE_URL", &text, remedy)
    })
}

/// `STORAGE_MAX_BYTES`.
pub(super) fn bytes_max(
    text: Option<String>,
    storage: &StorageLocation,
) -> Result<Option<u64>, ConfigError> {
    let parse = |text: String| {
        let bad = |remedy| ConfigError::new("STORAGE_MAX_BYTES", &text, remedy);
        if !storage.is_disk() {
            return Err(bad(
                "a path in STORAGE_URL: clouds have rules of their own for what is old",
            ));
        }
        text.parse()
            .map_err(|_not_a_number| bad("a whole number of bytes"))
    };
    text.map(parse).transpose()
}

/// `INDEX_PRUNED`.
pub(super) fn index_listing(
    text: Option<String>,
    mode: DownloadMode,
) -> Result<IndexListing, ConfigError> {
    match (text.as_deref(), mode) {
        (None | Some("false" | "0"), _) => Ok(IndexListing::Everything),
        (Some("true" | "1"), DownloadMode::Offline) => Ok(IndexListing::HeldOnly),
        // Elsewhere it would hide what the mirror could serve.
        (Some(text @ ("true" | "1")), _) => Err(ConfigError::new(
            "INDEX_PRUNED",
            text,
            "DOWNLOAD_MODE=offline to be set, too",
        )),
        (Some(text), _) => Err(ConfigError::new("INDEX_PRUNED", text, "`true` or `false`")),
    }
}
