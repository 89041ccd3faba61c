//! The settings of crate files: where they come from, who sends them, and where they are stored.

use std::path::Path;

use super::{ConfigError, value};
use crate::store::StorageLocation;
use crate::upstream::DownloadTemplates;

/// The directory in `DATA_DIR` with the crate files, unless `STORAGE_URL` names another place.
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
pub(super) fn mode(text: &str) -> Result<DownloadMode, ConfigError> {
    let modes = [
        ("redirect", DownloadMode::Redirect),
        ("cache", DownloadMode::Cache),
        ("offline", DownloadMode::Offline),
    ];
    let remedy = "`redirect`, `cache` or `offline`";
    value::choice("DOWNLOAD_MODE", text, remedy, &modes)
}

/// `DOWNLOAD_URL`.
pub(super) fn downloads(urls: &str, mode: DownloadMode) -> Result<DownloadTemplates, ConfigError> {
    let templates = DownloadTemplates::parse(urls)
        .map_err(|(url, error)| ConfigError::new("DOWNLOAD_URL", &url, error.to_string()))?;
    let has_credentials = templates.iter().any(|template| template.has_credentials);
    if mode == DownloadMode::Redirect && has_credentials {
        let remedy = "no user and password: in the mode redirect every client would see them";
        return Err(ConfigError::new("DOWNLOAD_URL", urls, remedy));
    }
    Ok(templates)
}

/// `STORAGE_URL`, and the clouds' own variables.
pub(super) fn storage(
    text: Option<String>,
    data_dir: &Path,
    cloud: Vec<(String, String)>,
) -> Result<StorageLocation, ConfigError> {
    let Some(text) = text else {
        return Ok(StorageLocation::within(data_dir.join(CRATES_DIR)));
    };
    StorageLocation::parse(&text, cloud)
        .map_err(|error| ConfigError::new("STORAGE_URL", &text, error.to_string()))
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
                "a path in STORAGE_URL: clouds have rules of their own for old files",
            ));
        }
        bytes(&text)
            .ok_or_else(|| bad("a whole number of bytes, or of KiB, MiB, GiB or TiB, like 10GiB"))
    };
    text.map(parse).transpose()
}

/// A number of bytes, plain or directly followed by a unit.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 4] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    let with_unit = |(unit, size): &(&str, u64)| Some((text.strip_suffix(unit)?, *size));
    let (digits, size) = UNITS.iter().find_map(with_unit).unwrap_or((text, 1));
    // `parse` also accepts a sign.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    number.checked_mul(size)
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
