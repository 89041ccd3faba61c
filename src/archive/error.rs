//! Why an archive is refused, and what goes wrong with the index.

use std::error::Error;
use std::io;

/// The format that is written, and the only one that is read.
pub(super) const FORMAT: u32 = 1;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("it is not an archive that `export` wrote")]
    NotAnArchive,
    #[error(
        "the archive has format {0}, and this program reads format {FORMAT}: use the version that wrote it, or a newer one"
    )]
    UnknownFormat(u32),
    #[error("manifest.json cannot be read: {0}")]
    ManifestShape(#[from] serde_json::Error),
    #[error("manifest.json has an impossible {0}")]
    ImpossibleManifest(&'static str),
    #[error("`{entry}`: {what}")]
    Malformed { entry: String, what: &'static str },
    #[error("it ends early: some of it was lost on its way here")]
    Truncated,
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("stopped")]
    Stopped,
}

/// Why the index cannot be exported or imported. The text has all causes.
#[derive(Debug, thiserror::Error)]
#[error("{}", with_causes(.0.as_ref()))]
pub(crate) struct IndexError(#[source] Box<dyn Error + Send + Sync>);

impl IndexError {
    pub(super) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// An error with its causes, each of them once.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
