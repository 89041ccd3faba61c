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
            TemplateError::Placeholder => {
                "no placeholder but {crate}, {version}, {prefix}, {lowerprefix} and {sha256-checksum}"
            }
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
        bytes(&text)
            .ok_or_else(|| bad("a whole number of bytes, or of KiB, MiB, GiB or TiB, like 10GiB"))
    };
    text.map(parse).transpose()
}

/// A number of bytes, plain or with a unit right behind it.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 4] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    let with_unit = |(unit, size): &(&str, u64)| Some((text.strip_suffix(unit)?, *size));
    let (digits, size) = UNITS.iter().find_map(with_unit).unwrap_or((text, 1));
    // A sign would be read, too.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    number.checked_mul(size)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_bytes_may_have_a_unit() {
        for (text, expected) in [
            ("0", Some(0)),
            ("10737418240", Some(10 << 30)),
            ("1KiB", Some(1 << 10)),
            ("500MiB", Some(500 << 20)),
            ("10GiB", Some(10 << 30)),
            ("2TiB", Some(2 << 40)),
            ("16777215TiB", Some(16_777_215 << 40)),
            ("16777216TiB", None),
            ("18446744073709551616", None),
            ("GiB", None),
            ("10GB", None),
            ("10G", None),
            ("10gib", None),
            ("10 GiB", None),
            ("1.5GiB", None),
            ("+10GiB", None),
            ("-1", None),
            ("10GiBKiB", None),
            ("1PiB", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
