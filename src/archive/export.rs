//! Writing the index and the store into an archive, or only what is new since an earlier archive.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::blocking_store::BlockingStore;
use super::checksum_list::ChecksumList;
use super::earlier::{Earlier, EarlierError};
use super::error::{FORMAT, IndexError};
use super::event::ArchiveEvent;
use super::manifest::{End, Manifest, TOOL, commit_id, past_seconds};
use super::output::Output;
use super::write::{Contents, WriteError, write_archive};
use crate::clock::Clock;
use crate::index::{self, IndexExport, ServedIndex, export_all, export_since};
use crate::store::{CrateStore, StoreError};

/// What to export, and where to.
pub(crate) struct ExportJob {
    /// The archive; `-` is standard output.
    pub(crate) archive: PathBuf,
    /// The archive to build on.
    pub(crate) since: Option<PathBuf>,
    /// The index. It is exported as the upstream has it, and decides which crate files are denied.
    pub(crate) index: ServedIndex,
    /// The crate files.
    pub(crate) store: Arc<CrateStore>,
    /// A directory for temporary files.
    pub(crate) scratch: PathBuf,
    /// Tells whether the time of the last fetch can be true.
    pub(crate) clock: Clock,
    /// Stops the export.
    pub(crate) stop: CancellationToken,
}

/// What was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exported {
    /// What is in the archive.
    pub(crate) end: End,
    /// How many stored files were left out because the policy denies them.
    pub(crate) denied: u64,
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    #[error("--since {}: {why}", path.display())]
    Earlier {
        path: PathBuf,
        #[source]
        why: EarlierError,
    },
    #[error("the index cannot be exported: {0}")]
    Index(#[source] IndexError),
    #[error("the store cannot be listed: {0}")]
    Store(#[source] StoreError),
    #[error("cannot write {}: {source}", path.display())]
    Output { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes an archive. Blocking.
pub(crate) fn export(
    job: &ExportJob,
    report: &mut dyn FnMut(ArchiveEvent),
) -> Result<Exported, ExportError> {
    let earlier = match &job.since {
        Some(path) => Some(Earlier::read(path, &job.archive).map_err(refused(path))?),
        None => None,
    };
    let store = BlockingStore::new(&job.store, &job.stop);
    let (contents, denied) = gather(job, earlier, &store)?;
    let failed = |source| ExportError::Output {
        path: job.archive.clone(),
        source,
    };
    let mut output = Output::create(&job.archive).map_err(failed)?;
    let end = write_archive(&contents, &store, &mut output, report, &job.stop)?;
    output.complete().map_err(failed)?;
    Ok(Exported { end, denied })
}

/// Decides about the content of the archive. The store is listed first: a file that comes later is in the next archive.
fn gather(
    job: &ExportJob,
    earlier: Option<Earlier>,
    store: &BlockingStore,
) -> Result<(Contents, u64), ExportError> {
    let stored = store.checksums().map_err(ExportError::Store)?;
    let denied = job
        .index
        .denied_files(|checksum| stored.contains(checksum))
        .map_err(|error| ExportError::Index(IndexError::new(error)))?;
    let denied = ChecksumList::from(denied.into_keys().collect::<Vec<_>>());
    let stored = stored.without(&denied);
    let base = earlier.as_ref().map(Earlier::base);
    let since = base.as_ref().map(|base| base.index_commit.as_str());
    let (index, index_base) = export_index(job, since).map_err(ExportError::Index)?;
    let upstream = index.upstream.clone().ok_or_else(|| {
        let why = "DATA_DIR does not say which upstream its index is of";
        ExportError::Index(IndexError::new(why))
    })?;
    let (new, all) = match earlier {
        None => (stored.clone(), stored),
        Some(earlier) => {
            let same_index = earlier.check_upstream(&upstream);
            same_index.map_err(refused(&earlier.path))?;
            let before = &earlier.beginning.files;
            (stored.without(before), stored.with(before))
        }
    };
    let manifest = Manifest {
        format: FORMAT,
        tool: TOOL.to_owned(),
        upstream,
        index_commit: index.commit.to_string(),
        index_base: index_base.map(|base| base.to_string()),
        index_fetched: index
            .fetched
            .and_then(|time| past_seconds(time, &job.clock)),
        index_files: u64::try_from(index.packs.len()).unwrap_or(u64::MAX),
        crate_files: new.count(),
        held_files: all.count(),
        base,
    };
    let contents = Contents {
        manifest,
        index,
        new,
        all,
    };
    Ok((contents, denied.count()))
}

/// Exports what is new since a commit, or everything if the clone does not know the commit.
fn export_index(
    job: &ExportJob,
    since: Option<&str>,
) -> Result<(IndexExport, Option<index::CommitId>), IndexError> {
    if let Some(since) = since {
        let since = commit_id(since)?;
        match export_since(&job.index.source, since, &job.scratch) {
            Ok(export) => return Ok((export, Some(since))),
            Err(index::ExportError::BaseMissing) => {}
            Err(error) => return Err(IndexError::new(error)),
        }
    }
    let export = export_all(&job.index.source, &job.scratch).map_err(IndexError::new)?;
    Ok((export, None))
}

fn refused(path: &Path) -> impl FnOnce(EarlierError) -> ExportError {
    let path = path.to_owned();
    |why| ExportError::Earlier { path, why }
}
