//! Why a refresh of the advisory database failed.

use std::io;

use git2::ErrorClass;

use crate::index::limits::{ReadError, WriteError};
use crate::index::source::clone_dir::DataDirError;
use crate::index::source::fetch::FetchError;

/// Why a refresh failed. Without secrets, on one line.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot use DATA_DIR: {0}")]
    Disk(#[from] io::Error),
    #[error("cannot use DATA_DIR: another mirror is using this DATA_DIR")]
    Locked,
    #[error(
        "DATA_DIR contains no advisory database, and DOWNLOAD_MODE=offline fetches one only from a path on this machine"
    )]
    NoCopy,
    /// The upstream is a directory on this machine that cannot be cloned.
    #[error("ADVISORY_DB_URL: {0}")]
    Upstream(String),
    #[error("the copy of the advisory database on disk is damaged: {0}")]
    Damaged(String),
    /// It is too large, or no advisory database. The clone is not damaged.
    #[error("the advisory database is refused: {0}")]
    Refused(String),
}

impl DatabaseError {
    fn of_git(error: &git2::Error) -> Self {
        let why = error.message().to_owned();
        match error.class() {
            ErrorClass::Os => Self::Disk(io::Error::other(why)),
            _ => Self::Damaged(why),
        }
    }
}

impl From<DataDirError> for DatabaseError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::Locked => Self::Locked,
            DataDirError::Disk(error) => Self::Disk(error),
        }
    }
}

impl From<ReadError> for DatabaseError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Git(error) => Self::of_git(&error),
            ReadError::TooLarge(why) | ReadError::Refused(why) => Self::Refused(why),
            ReadError::Stopped => Self::Fetch(FetchError::Stopped),
        }
    }
}

impl From<WriteError> for DatabaseError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Disk(error) => Self::Disk(error),
            WriteError::Git(error) => Self::of_git(&error),
        }
    }
}
