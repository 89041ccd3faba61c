//! The settings of the index: which one to follow, what it lists, and where it is pushed to.

use super::{ConfigError, DownloadMode, PublicUrl};
use crate::index::RemoteUrl;

/// Which versions the index lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexListing {
    /// All that the upstream lists.
    Everything,
    /// Those whose crate file is stored.
    HeldOnly,
}

/// `GIT_REPO_URL` and `ADVISORY_DB_URL`, and the form of `INDEX_PUSH_URL`.
pub(super) fn git_url(variable: &'static str, text: &str) -> Result<RemoteUrl, ConfigError> {
    RemoteUrl::parse(text).map_err(|error| ConfigError::new(variable, text, error.to_string()))
}

/// `INDEX_PUSH_URL`.
pub(super) fn push_url(
    text: &str,
    upstream: &RemoteUrl,
    public_url: Option<&PublicUrl>,
    mode: DownloadMode,
) -> Result<RemoteUrl, ConfigError> {
    let url = git_url("INDEX_PUSH_URL", text)?;
    let remedy = if public_url.is_none() {
        // The pushed index contains the mirror's URL, and no request can provide it.
        "PUBLIC_URL to be set, too"
    } else if url.address().contains('?') {
        // git would show it to all users on its command line.
        "a URL without a `?`"
    } else if url.is_same_place_as(upstream) {
        // The mirror would follow its own pushes, and lose the upstream.
        "another repository than that of GIT_REPO_URL"
    } else if mode == DownloadMode::Offline && !url.is_local() {
        // An offline mirror sends nothing to other machines.
        let remedy = "a path on this machine, since DOWNLOAD_MODE is offline";
        return Err(ConfigError::new("INDEX_PUSH_URL", &url.to_string(), remedy));
    } else {
        return Ok(url);
    };
    Err(ConfigError::new("INDEX_PUSH_URL", text, remedy))
}

/// `INDEX_PRUNED`.
pub(super) fn listing(text: &str, mode: DownloadMode) -> Result<IndexListing, ConfigError> {
    let remedy = match (text, mode) {
        ("false" | "0", _) => return Ok(IndexListing::Everything),
        ("true" | "1", DownloadMode::Offline) => return Ok(IndexListing::HeldOnly),
        // In other modes it would hide versions that the mirror can serve.
        ("true" | "1", _) => "DOWNLOAD_MODE=offline to be set, too",
        _ => "`true` or `false`",
    };
    Err(ConfigError::new("INDEX_PRUNED", text, remedy))
}
