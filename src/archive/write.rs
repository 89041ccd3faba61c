//! Writing an archive to a stream.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tar::Builder;
use tokio_util::sync::CancellationToken;

use super::blocking_store::BlockingStore;
use super::checked_reader::{CheckedReader, ReadState};
use super::checksum_list::ChecksumList;
use super::entry::{EntryName, is_index_name};
use super::event::ArchiveEvent;
use super::manifest::{End, Manifest};
use crate::index::IndexExport;
use crate::package::Checksum;

/// The content of an archive.
pub(super) struct Contents {
    /// The description of the rest.
    pub(super) manifest: Manifest,
    /// The index.
    pub(super) index: IndexExport,
    /// The crate files of this archive.
    pub(super) new: ChecksumList,
    /// All files that the target will have.
    pub(super) all: ChecksumList,
}

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the archive cannot be written: {0}")]
    Target(#[source] io::Error),
    #[error("the index cannot be exported: {0}")]
    Index(String),
    #[error("the crate file {checksum} cannot be read: {why}")]
    Store { checksum: Checksum, why: String },
    #[error("the crate file {0} is damaged; `crates-io-mirror verify --repair` fetches it again")]
    Damaged(Checksum),
    #[error("stopped; there is no archive")]
    Stopped,
}

/// Writes an archive from its first to its last entry.
pub(super) fn write_archive(
    contents: &Contents,
    store: &BlockingStore,
    to: impl Write,
    report: &mut dyn FnMut(ArchiveEvent),
    stop: &CancellationToken,
) -> Result<End, WriteError> {
    let mut tar = Builder::new(to);
    report(ArchiveEvent::Begun {
        crate_files: contents.manifest.crate_files,
    });
    write_json(&mut tar, &EntryName::Manifest, &contents.manifest)?;
    let (list, bytes) = (contents.all.reader(), contents.all.bytes());
    EntryName::Checksums
        .write(&mut tar, bytes, list)
        .map_err(WriteError::Target)?;
    let mut end = End::default();
    for pack in &contents.index.packs {
        end.bytes += write_index_file(&mut tar, pack, stop)?;
        end.index_files += 1;
    }
    for checksum in contents.new.iter() {
        let bytes = write_crate_file(&mut tar, *checksum, store, stop)?;
        report(ArchiveEvent::Passed { bytes });
        end.bytes += bytes;
        end.crate_files += 1;
    }
    write_json(&mut tar, &EntryName::End, &end)?;
    let mut to = tar.into_inner().map_err(WriteError::Target)?;
    to.flush().map_err(WriteError::Target)?;
    Ok(end)
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
    pack: &Path,
    stop: &CancellationToken,
) -> Result<u64, WriteError> {
    let name = pack.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    if !is_index_name(&name) {
        return Err(WriteError::Index(format!("a file is called `{name}`")));
    }
    let unreadable = |error: io::Error| WriteError::Index(format!("`{name}`: {error}"));
    let file = File::open(pack).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let mut content = CheckedReader::new(file, bytes, None, stop);
    let written = EntryName::Index(name.clone()).write(tar, bytes, &mut content);
    match (content.state, written) {
        (ReadState::Stopped, _) => Err(WriteError::Stopped),
        (ReadState::Intact, Ok(())) => Ok(bytes),
        (ReadState::Intact | ReadState::Unfinished, Err(error)) => Err(WriteError::Target(error)),
        _ => Err(WriteError::Index(format!("`{name}` has changed its size"))),
    }
}

fn write_crate_file(
    tar: &mut Builder<impl Write>,
    checksum: Checksum,
    store: &BlockingStore,
    stop: &CancellationToken,
) -> Result<u64, WriteError> {
    let not_read = |why: String| WriteError::Store { checksum, why };
    let opened = store
        .open(&checksum)
        .map_err(|error| not_read(error.to_string()))?;
    let file = opened.ok_or_else(|| not_read("it was removed meanwhile".to_owned()))?;
    let bytes = file.bytes;
    let mut content = CheckedReader::new(file, bytes, Some(checksum), stop);
    let written = EntryName::Crate(checksum).write(tar, bytes, &mut content);
    match (content.state, content.failure, written) {
        (ReadState::Stopped, _, _) => Err(WriteError::Stopped),
        (ReadState::Intact, _, Ok(())) => Ok(bytes),
        (ReadState::Intact | ReadState::Unfinished, Some(why), _) => Err(not_read(why)),
        (ReadState::Intact | ReadState::Unfinished, None, Err(error)) => {
            Err(WriteError::Target(error))
        }
        _ => Err(WriteError::Damaged(checksum)),
    }
}
