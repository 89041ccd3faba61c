//! Writing an archive to a stream.

use std::io::{self, Read, Write};

use tar::Builder;
use tokio_util::sync::CancellationToken;

use super::checked::{Checked, Verdict};
use super::entry::{EntryName, is_index_name};
use super::held::HeldList;
use super::manifest::{Base, End, FORMAT, Manifest};
use super::ports::{CrateSource, IndexExport, OpenFile, PortError};
use crate::cli::watch::Watch;
use crate::package::Checksum;

/// Who writes archives.
const TOOL: &str = concat!("crates-io-mirror ", env!("CARGO_PKG_VERSION"));

/// What goes into an archive.
pub(crate) struct Contents {
    /// The index.
    pub(crate) index: IndexExport,
    /// The crate files of this archive.
    pub(crate) new: HeldList,
    /// All that the target will hold.
    pub(crate) held: HeldList,
    /// What this archive builds on.
    pub(crate) base: Option<Base>,
}

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Its target does not take it.
    #[error("the archive cannot be written: {0}")]
    Target(#[source] io::Error),
    /// A file of the index is not what it was said to be.
    #[error("the index cannot be exported: {0}")]
    Index(String),
    /// The store does not give a file that it listed.
    #[error("the crate file {checksum} cannot be read: {source}")]
    Store {
        /// The file.
        checksum: Checksum,
        /// What the store said.
        source: PortError,
    },
    /// The store has something else under this checksum.
    #[error("the crate file {0} is damaged; `crates-io-mirror verify --repair` fetches it again")]
    Damaged(Checksum),
    /// Somebody stopped it.
    #[error("stopped; there is no archive")]
    Stopped,
}

/// Writes an archive from its first to its last entry.
pub(crate) fn write_archive(
    contents: Contents,
    store: &impl CrateSource,
    to: impl Write,
    watch: &mut Watch,
    stop: &CancellationToken,
) -> Result<End, WriteError> {
    let mut tar = Builder::new(to);
    let manifest = contents.manifest();
    watch.expect(manifest.crate_files);
    write_json(&mut tar, &EntryName::Manifest, &manifest)?;
    let (held, bytes) = (contents.held.reader(), contents.held.bytes());
    EntryName::Held
        .write(&mut tar, bytes, held)
        .map_err(WriteError::Target)?;
    let mut end = End::default();
    for (name, file) in contents.index.files {
        end.bytes += write_index_file(&mut tar, name, file, stop)?;
        end.index_files += 1;
    }
    for checksum in contents.new.iter() {
        let bytes = write_crate_file(&mut tar, *checksum, store, stop)?;
        watch.passed(bytes);
        end.bytes += bytes;
        end.crate_files += 1;
    }
    write_json(&mut tar, &EntryName::End, &end)?;
    let mut to = tar.into_inner().map_err(WriteError::Target)?;
    to.flush().map_err(WriteError::Target)?;
    Ok(end)
}

impl Contents {
    fn manifest(&self) -> Manifest {
        Manifest {
            format: FORMAT,
            tool: TOOL.to_owned(),
            upstream: self.index.upstream.clone(),
            index_commit: self.index.commit.clone(),
            index_base: self.index.base.clone(),
            index_fetched: self.index.fetched,
            index_files: u64::try_from(self.index.files.len()).unwrap_or(u64::MAX),
            crate_files: self.new.count(),
            held_files: self.held.count(),
            base: self.base.clone(),
        }
    }
}

fn write_json(
    tar: &mut Builder<impl Write>,
    name: &EntryName,
    value: &impl serde::Serialize,
) -> Result<(), WriteError> {
    let target = |error: serde_json::Error| WriteError::Target(error.into());
    let mut text = serde_json::to_vec_pretty(value).map_err(target)?;
    text.push(b'\n');
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    name.write(tar, bytes, text.as_slice())
        .map_err(WriteError::Target)
}

fn write_index_file(
    tar: &mut Builder<impl Write>,
    name: String,
    file: OpenFile,
    stop: &CancellationToken,
) -> Result<u64, WriteError> {
    if !is_index_name(&name) {
        return Err(WriteError::Index(format!("a file is called `{name}`")));
    }
    let mut content = Checked::sized(file.content, file.bytes, stop);
    let written = EntryName::Index(name.clone()).write(tar, file.bytes, &mut content);
    match (content.verdict(), written) {
        (Verdict::Stopped, _) => Err(WriteError::Stopped),
        (Verdict::Good, Ok(())) => Ok(file.bytes),
        (Verdict::Good | Verdict::Unfinished, Err(error)) => Err(WriteError::Target(error)),
        _ => Err(WriteError::Index(format!("`{name}` has changed its size"))),
    }
}

fn write_crate_file(
    tar: &mut Builder<impl Write>,
    checksum: Checksum,
    store: &impl CrateSource,
    stop: &CancellationToken,
) -> Result<u64, WriteError> {
    let opened = store.open(&checksum);
    let file = opened.map_err(|source| WriteError::Store { checksum, source })?;
    let mut content = Checked::hashed(file.content, file.bytes, checksum, stop);
    let mut failure = None;
    let noting = Noting {
        inner: &mut content,
        failure: &mut failure,
    };
    let written = EntryName::Crate(checksum).write(tar, file.bytes, noting);
    match (content.verdict(), written) {
        (Verdict::Stopped, _) => Err(WriteError::Stopped),
        (Verdict::Good, Ok(())) => Ok(file.bytes),
        (Verdict::Good | Verdict::Unfinished, written) => {
            let source = failure.map(|said| PortError(said.into()));
            Err(match (source, written) {
                (Some(source), _) => WriteError::Store { checksum, source },
                (None, Err(error)) => WriteError::Target(error),
                (None, Ok(())) => WriteError::Damaged(checksum),
            })
        }
        (Verdict::TooShort | Verdict::TooLong | Verdict::WrongChecksum, _) => {
            Err(WriteError::Damaged(checksum))
        }
    }
}

/// Remembers that it was reading that failed: a copy tells reading and writing not apart.
struct Noting<'n, R> {
    inner: R,
    failure: &'n mut Option<String>,
}

impl<R: Read> Read for Noting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner
            .read(buffer)
            .inspect_err(|error| *self.failure = Some(error.to_string()))
    }
}
