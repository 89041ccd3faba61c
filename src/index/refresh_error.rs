//! Why a try to bring the index up to date failed.

use std::io;

use git2::ErrorClass;

use super::clone_dir::DataDirError;
use super::fetch::FetchError;
use super::limits::ReadError;
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
    /// Too large to be served. The clone is sound.
    #[error("{0}")]
    Refused(String),
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
            UpkeepError::Git(error) if error.class() == ErrorClass::NoMemory => {
                Self::Refused("an object is too large to be packed anew".to_owned())
            }
            UpkeepError::Git(error) => Self::Damaged(error.message().to_owned()),
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
