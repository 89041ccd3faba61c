//! Why a try to bring the index up to date failed.

use std::io;

use super::clone_dir::DataDirError;
use super::fetch::FetchError;
use super::repository::ReadError;
use super::upkeep::UpkeepError;

/// Why a try brought no snapshot.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot use DATA_DIR: {0}")]
    Disk(#[from] io::Error),
    #[error("cannot use DATA_DIR: another mirror is using this DATA_DIR")]
    Held,
    #[error("DATA_DIR holds no index, and DOWNLOAD_MODE=offline fetches none: import one")]
    NoIndex,
    #[error("which crate files are held cannot be told: {0}")]
    Holdings(String),
    #[error("the clone on disk is damaged: {0}")]
    Damaged(String),
}

impl From<DataDirError> for RefreshError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::Held => Self::Held,
            DataDirError::Disk(error) => Self::Disk(error),
        }
    }
}

impl From<UpkeepError> for RefreshError {
    fn from(error: UpkeepError) -> Self {
        match error {
            UpkeepError::Disk(error) => Self::Disk(error),
            UpkeepError::Git(error) => Self::Damaged(error.message().to_owned()),
        }
    }
}

impl From<ReadError> for RefreshError {
    fn from(error: ReadError) -> Self {
        Self::Damaged(
            std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string),
        )
    }
}
