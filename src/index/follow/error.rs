//! Why a refresh of the index failed.

use std::io;

use git2::ErrorClass;

use crate::index::limits::{ReadError, WriteError};
use crate::index::source::clone_dir::{DataDirError, refuses_for_good};
use crate::index::source::fetch::FetchError;
use crate::index::view::build::BuildError;

/// Why a refresh failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot use DATA_DIR: {0}")]
    Disk(#[from] io::Error),
    #[error("cannot use DATA_DIR: another mirror is using this DATA_DIR")]
    Locked,
    #[error("DATA_DIR contains no index, and DOWNLOAD_MODE=offline fetches none: import one")]
    NoIndex,
    /// The upstream is a directory on this machine that cannot be cloned.
    #[error("GIT_REPO_URL: {0}")]
    Upstream(String),
    #[error("the stored crate files are unknown: {0}")]
    StoredFiles(String),
    #[error(
        "INDEX_PRUNED needs a place to write to: neither DATA_DIR nor the temporary directory can be written to"
    )]
    NowhereToBuild,
    #[error("the clone on disk is damaged: {0}")]
    Damaged(String),
    /// The index is too large. The clone is not damaged.
    #[error("{0}")]
    Refused(String),
}

impl RefreshError {
    /// Whether the failure is permanent, so an operator must act.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Locked | Self::NoIndex | Self::NowhereToBuild | Self::Upstream(_) => true,
            Self::Disk(error) => refuses_for_good(error),
            Self::Fetch(error) => matches!(error, FetchError::Unsupported(_)),
            Self::StoredFiles(_) | Self::Damaged(_) | Self::Refused(_) => false,
        }
    }
}

impl From<DataDirError> for RefreshError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::Locked => Self::Locked,
            DataDirError::Disk(error) => Self::Disk(error),
        }
    }
}

impl From<WriteError> for RefreshError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Disk(error) => Self::Disk(error),
            WriteError::Git(error) if error.class() == ErrorClass::NoMemory => {
                Self::Refused("an object is too large to be packed again".to_owned())
            }
            WriteError::Git(error) => Self::Damaged(error.message().to_owned()),
        }
    }
}

impl From<ReadError> for RefreshError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Git(error) => Self::Damaged(error.message().to_owned()),
            ReadError::TooLarge(why) => {
                Self::Refused(format!("the upstream index is refused: {why}"))
            }
            ReadError::Refused(_) => Self::Refused(error.to_string()),
            ReadError::Stopped => Self::Fetch(FetchError::Stopped),
        }
    }
}

impl From<BuildError> for RefreshError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Read(error) => error.into(),
            BuildError::Write(WriteError::Git(error)) if error.class() == ErrorClass::Os => {
                Self::Disk(io::Error::other(error.message().to_owned()))
            }
            // The clone can be read, and a new clone would be the same.
            BuildError::Write(WriteError::Git(error)) => Self::Refused(format!(
                "the index cannot be shown through rules: {}",
                error.message()
            )),
            BuildError::Write(WriteError::Disk(error)) => Self::Disk(error),
            BuildError::Stopped => Self::Fetch(FetchError::Stopped),
        }
    }
}
