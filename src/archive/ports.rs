//! What archives need of the index and of the store of crate files. All of it blocks.

use std::error::Error;
use std::io::Read;

use super::manifest::Manifest;
use crate::package::Checksum;

/// What went wrong on the other side of one of these traits.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct PortError(#[source] pub(crate) Box<dyn Error + Send + Sync>);

impl PortError {
    /// An error with its causes, each of which is said once.
    pub(crate) fn new(error: &(dyn Error + 'static)) -> Self {
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                said = format!("{said}: {text}");
            }
            cause = error.source();
        }
        Self(said.into())
    }
}

/// A file to be read once.
pub(crate) struct OpenFile {
    /// How large it is.
    pub(crate) bytes: u64,
    /// Its content.
    pub(crate) content: Box<dyn Read + Send>,
}

/// The store, to be exported.
pub(crate) trait CrateSource {
    /// The checksums of all files that are held, in any order.
    fn held(&self) -> Result<Vec<Checksum>, PortError>;

    /// Opens a file that is held. Its bytes are verified by whoever reads them.
    fn open(&self, checksum: &Checksum) -> Result<OpenFile, PortError>;
}

/// The store, to be added to.
pub(crate) trait CrateSink {
    /// The checksums of all files that are held, in any order.
    fn held(&self) -> Result<Vec<Checksum>, PortError>;

    /// Keeps a file. `content` fails at its end if it is not what the checksum says: then, as after every other
    /// failure, nothing must be kept.
    fn put(&self, checksum: &Checksum, bytes: u64, content: &mut dyn Read)
    -> Result<(), PortError>;
}

/// The index as it is now, in files.
pub(crate) struct IndexExport {
    /// The commit that the files lead to, in hexadecimal.
    pub(crate) commit: String,
    /// The commit that must be there already; `None` if the files are enough.
    pub(crate) base: Option<String>,
    /// The URL of the upstream, without secrets.
    pub(crate) upstream: String,
    /// When the upstream was last asked, in seconds since 1970, if that is known.
    pub(crate) fetched: Option<u64>,
    /// The files, by name. A name is letters, digits, `-`, `_` and `.`, and begins with a letter or digit.
    pub(crate) files: Vec<(String, OpenFile)>,
}

/// The index, to be exported.
pub(crate) trait IndexSource {
    /// Hands over the index; where possible, only what is new since this commit.
    fn export(&self, since: Option<&str>) -> Result<IndexExport, PortError>;
}

/// The index that an archive may replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CurrentIndex {
    /// The commit that it shows, in hexadecimal.
    pub(crate) commit: String,
    /// When its upstream was last asked, in seconds since 1970, if that is known.
    pub(crate) fetched: Option<u64>,
}

/// The index, to be replaced.
pub(crate) trait IndexSink {
    /// What is there now; `None` if there is nothing that can be read.
    fn current(&self) -> Result<Option<CurrentIndex>, PortError>;

    /// Whether this commit is there, as the current one or from before.
    fn has(&self, commit: &str) -> Result<bool, PortError>;

    /// Puts a file aside. Nothing may change for readers yet.
    fn receive(&mut self, name: &str, bytes: u64, content: &mut dyn Read) -> Result<(), PortError>;

    /// Makes the commit of the manifest the current one, with the files received. Called when all of the archive was
    /// read, and not at all if that failed.
    fn switch_over(&mut self, manifest: &Manifest) -> Result<(), PortError>;
}
