//! Reading an archive into the store and the index.
//!
//! Crate files are verified and stored in the order of the archive, so a truncated archive is useful, too. The index is
//! switched over at the very end, so it never lists a file that is not stored yet.

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tar::Archive;
use tokio_util::sync::CancellationToken;

use super::blocking_store::BlockingStore;
use super::checked_reader::ReadState;
use super::checksum_list::ChecksumList;
use super::error::{ArchiveError, IndexError};
use super::event::ArchiveEvent;
use super::index_part::{IndexPart, base_is_here};
use super::index_target::IndexTarget;
use super::input::Input;
use super::manifest::{Base, Manifest, past_seconds};
use super::read::{ArchiveReader, ArchivedFile, ArchivedName, Beginning};
use crate::clock::Clock;
use crate::index::RemoteUrl;
use crate::package::Checksum;
use crate::store::{CrateStore, StoreError};

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// What to import, and where to.
pub(crate) struct ImportJob {
    /// The archive; `-` is standard input.
    pub(crate) archive: PathBuf,
    /// What is done with it.
    pub(crate) action: ImportAction,
    /// Where the index goes.
    pub(crate) data_dir: PathBuf,
    /// The upstream of later fetches.
    pub(crate) upstream: RemoteUrl,
    /// Where the crate files go.
    pub(crate) store: Arc<CrateStore>,
    /// Tells whether the time of the last fetch can be true.
    pub(crate) clock: Clock,
    /// Stops the import.
    pub(crate) stop: CancellationToken,
}

/// What is done with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImportAction {
    /// It is imported.
    Import,
    /// It is read to its end, and nothing changes.
    CheckOnly,
}

/// What was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Imported {
    /// Crate files that were stored.
    pub(crate) stored: u64,
    /// Crate files that were stored before.
    pub(crate) already_stored: u64,
    /// Crate files that did not match their checksum.
    pub(crate) damaged: u64,
    /// Crate files of earlier archives that are missing.
    pub(crate) lost: u64,
    /// What happened to the index.
    pub(crate) index: IndexPart,
}

/// Why an archive was not imported, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// There is no such archive.
    #[error("cannot read {}: {source}", path.display())]
    NotOpened { path: PathBuf, source: io::Error },
    /// Its first bytes cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    NotBegun { path: PathBuf, source: io::Error },
    /// It is no archive, or none that can be imported here. Nothing has changed.
    #[error("the archive is no good: {0}")]
    NotImportable(#[source] ArchiveError),
    /// It is truncated or malformed, or cannot be read.
    #[error("the archive is no good: {0}")]
    Archive(#[from] ArchiveError),
    /// The earlier archive was not imported. Nothing has changed.
    #[error(
        "this archive builds on `{}`, which has the index at {}: import that one first", .0.archive, .0.index_commit
    )]
    BaseMissing(Base),
    #[error("the index cannot be imported: {0}")]
    Index(#[source] IndexError),
    #[error("crate files cannot be stored: {0}")]
    Store(#[from] StoreError),
}

/// Imports an archive. Blocking.
pub(crate) fn import(
    job: &ImportJob,
    report: &mut dyn FnMut(ArchiveEvent),
) -> Result<Imported, ImportError> {
    let path = || job.archive.clone();
    let input = Input::open(&job.archive, &job.stop);
    let input = input.map_err(|source| ImportError::NotOpened {
        path: path(),
        source,
    })?;
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    // A pipe whose other side has failed ends at once. That says nothing against the archive.
    let begun = input.fill_buf().and_then(|bytes| match bytes {
        [] => Err(io::Error::other("there is nothing in it")),
        _ => Ok(()),
    });
    begun.map_err(|source| ImportError::NotBegun {
        path: path(),
        source,
    })?;
    import_from(input, job, report)
}

pub(super) fn import_from(
    from: impl Read,
    job: &ImportJob,
    report: &mut dyn FnMut(ArchiveEvent),
) -> Result<Imported, ImportError> {
    let mut archive = Archive::new(from);
    let mut reader =
        ArchiveReader::begin(&mut archive, &job.stop).map_err(|error| match error {
            // Another try may succeed.
            ArchiveError::Truncated | ArchiveError::Unreadable(_) | ArchiveError::Stopped => {
                ImportError::Archive(error)
            }
            _ => ImportError::NotImportable(error),
        })?;
    let mut importing = Importing::begin(&reader.beginning, job, report)?;
    while let Some(mut file) = reader.next()? {
        let taken = importing.take(&mut file);
        reader.finish(file)?;
        taken?;
    }
    if importing.replaces_the_index() {
        let manifest = &importing.manifest;
        let switched = importing.index.switch_over(manifest);
        switched.map_err(ImportError::Index)?;
    }
    Ok(importing.result(&reader.beginning.files))
}

struct Importing<'i> {
    action: ImportAction,
    /// The manifest, without a time that cannot be true.
    manifest: Manifest,
    index: IndexTarget,
    store: BlockingStore,
    /// The files of the store before the import.
    before: ChecksumList,
    /// The crate files of the archive, in order.
    passed: Vec<Checksum>,
    /// What was imported so far.
    imported: Imported,
    report: &'i mut dyn FnMut(ArchiveEvent),
}

impl<'i> Importing<'i> {
    fn begin(
        beginning: &Beginning,
        job: &ImportJob,
        report: &'i mut dyn FnMut(ArchiveEvent),
    ) -> Result<Self, ImportError> {
        let fetched = beginning.manifest.index_fetched.and_then(|seconds| {
            let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
            past_seconds(time, &job.clock)
        });
        if fetched != beginning.manifest.index_fetched {
            report(ArchiveEvent::FetchedInTheFuture);
        }
        let manifest = Manifest {
            index_fetched: fetched,
            ..beginning.manifest.clone()
        };
        let store = BlockingStore::new(&job.store, &job.stop);
        let before = store.checksums()?;
        let index = IndexTarget::new(&job.data_dir, &job.upstream, &job.stop);
        // Only for these two questions: for as long as it lives the clone stays on the disk.
        let current = index.current();
        let index_part =
            IndexPart::of(&manifest, current.as_deref(), &job.clock).map_err(ImportError::Index)?;
        if index_part == IndexPart::Wanted
            && let Some(base) = &manifest.base
            && !base_is_here(beginning, &before, current.as_deref()).map_err(ImportError::Index)?
        {
            return Err(ImportError::BaseMissing(base.clone()));
        }
        report(ArchiveEvent::Begun {
            crate_files: manifest.crate_files,
        });
        Ok(Self {
            action: job.action,
            manifest,
            index,
            store,
            before,
            passed: Vec::new(),
            imported: Imported {
                stored: 0,
                already_stored: 0,
                damaged: 0,
                lost: 0,
                index: index_part,
            },
            report,
        })
    }

    fn replaces_the_index(&self) -> bool {
        self.imported.index == IndexPart::Wanted && self.action == ImportAction::Import
    }

    fn take<R: Read>(&mut self, file: &mut ArchivedFile<'_, R>) -> Result<(), ImportError> {
        match file.name.clone() {
            ArchivedName::Index(name) if self.replaces_the_index() => {
                let received = self.index.receive(&name, &mut file.content);
                received.map_err(|error| ImportError::Index(IndexError::new(error)))
            }
            ArchivedName::Index(_) => Ok(()),
            ArchivedName::Crate(checksum) => self.take_crate_file(checksum, file),
        }
    }

    fn take_crate_file<R: Read>(
        &mut self,
        checksum: Checksum,
        file: &mut ArchivedFile<'_, R>,
    ) -> Result<(), ImportError> {
        self.passed.push(checksum);
        let (bytes, content) = (file.bytes, &mut file.content);
        let is_here = self.before.contains(&checksum);
        let is_put = !is_here && self.action == ImportAction::Import;
        let put = if is_put {
            self.store.put(&checksum, bytes, &mut *content)
        } else {
            drop(io::copy(content, &mut io::sink()));
            Ok(())
        };
        (self.report)(ArchiveEvent::Passed { bytes });
        match (content.state, put) {
            (ReadState::WrongChecksum, _) => {
                self.imported.damaged += 1;
                (self.report)(ArchiveEvent::Damaged(checksum));
            }
            // The reader reports a truncated archive.
            (ReadState::TooShort | ReadState::TooLong | ReadState::Stopped, _) => {}
            (_, Err(refused)) => return Err(refused.into()),
            (_, Ok(())) if is_here => self.imported.already_stored += 1,
            (_, Ok(())) => {
                self.imported.stored += 1;
                if is_put {
                    (self.report)(ArchiveEvent::Stored(checksum));
                }
            }
        }
        Ok(())
    }

    fn result(&self, expected: &ChecksumList) -> Imported {
        let is_lost = |checksum: &&Checksum| {
            !self.before.contains(checksum) && self.passed.binary_search(checksum).is_err()
        };
        Imported {
            lost: u64::try_from(expected.iter().filter(is_lost).count()).unwrap_or(u64::MAX),
            ..self.imported
        }
    }
}
