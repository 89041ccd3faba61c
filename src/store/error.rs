//! What can go wrong with the store, and with getting a file out of it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::Error as ObjectError;

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot use `{}`: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The disk or the cloud failed.
    #[error("{}", without_body(.0))]
    Object(#[from] ObjectError),
    /// An S3 store did not remove a file, perhaps because it has no bulk delete.
    #[error(
        "{}; if it has no bulk delete (`POST ?delete`), set AWS_DISABLE_BULK_DELETE=true",
        without_body(.0)
    )]
    BulkDelete(#[source] ObjectError),
    /// The file is gone, or another one is in its place. The caller has to look it up again.
    #[error("it holds something else than a moment ago")]
    Changed,
    #[error("it did not answer in time")]
    TimedOut,
    #[error("it is larger than STORAGE_MAX_BYTES")]
    TooLarge,
    /// The disk failed.
    #[error("{0}")]
    Disk(#[from] io::Error),
}

/// The error without the body of the cloud's answer, which may repeat keys and tokens of the request.
fn without_body(error: &ObjectError) -> String {
    let text = error.to_string();
    let head = text.split('<').next().unwrap_or_default();
    head.trim_end().to_owned()
}

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GetError {
    /// It is not stored, and nothing may be fetched.
    #[error("it is not stored")]
    NotStored,
    #[error("no upstream has it")]
    Missing,
    /// The bytes of the upstream do not match the checksum of the index.
    #[error("{0}")]
    Corrupt(Arc<str>),
    #[error("an upstream did not answer in time")]
    TimedOut,
    /// An upstream, or this mirror itself, asks for a pause of this length.
    #[error("an upstream or this mirror has too much to do")]
    Busy(Duration),
    /// No upstream can be reached, or all answer with errors.
    #[error("{0}")]
    Failed(Arc<str>),
    #[error("it is still being fetched")]
    Pending,
    #[error("the store failed: {0}")]
    Store(Arc<str>),
    #[error("the mirror is stopping")]
    Stopping,
}

impl From<StoreError> for GetError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string().into())
    }
}
