//! Writing many git objects into packs. As files of their own they would take a hundred times as long, since each would be
//! flushed to the disk.

use std::path::Path;

use git2::{Mempack, ObjectType, Odb, OdbLookupFlags, Oid, PackBuilderStage, Repository};

use super::directory::ObjectId;
use super::status::ProgressCell;
use super::upkeep;

/// So many bytes of objects are gathered in memory before they become a pack.
const GATHERED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Before the packs and the loose objects of the repository, so that what is written comes here.
const FIRST: i32 = 1_000;

/// What objects are written to.
pub(super) struct PackWriter<'r> {
    git: &'r Repository,
    odb: &'r Odb<'r>,
    gathered: Mempack<'r>,
    ids: Vec<Oid>,
    bytes: usize,
    progress: &'r ProgressCell,
}

/// Writes what `work` does into packs of the repository at this path. Whatever has an error leaves objects at most that
/// nothing leads to.
pub(super) fn write_packed<T, E: From<git2::Error>>(
    repository: &Path,
    progress: &ProgressCell,
    work: impl FnOnce(&mut PackWriter<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let git = Repository::open_bare(repository)?;
    let odb = git.odb()?;
    let mut writer = PackWriter {
        git: &git,
        odb: &odb,
        gathered: odb.add_new_mempack_backend(FIRST)?,
        ids: Vec::new(),
        bytes: 0,
        progress,
    };
    let made = work(&mut writer)?;
    writer.flush()?;
    Ok(made)
}

impl PackWriter<'_> {
    /// Writes an object, unless it is there already, and returns its id.
    pub(super) fn write(
        &mut self,
        kind: ObjectType,
        content: &[u8],
    ) -> Result<ObjectId, git2::Error> {
        let id = Oid::hash_object(kind, content)?;
        if !self.odb.exists_ext(id, OdbLookupFlags::NO_REFRESH) {
            self.ids.push(self.odb.write(kind, content)?);
            self.bytes += content.len();
            if self.bytes > GATHERED_BYTES_MAX {
                self.flush()?;
            }
        }
        Ok(id.into())
    }

    fn flush(&mut self) -> Result<(), git2::Error> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let mut builder = self.git.packbuilder()?;
        builder.set_threads(1);
        let progress = self.progress;
        // Comparing objects takes seconds.
        builder.set_progress_callback(move |_stage: PackBuilderStage, _done, _all| {
            !progress.is_stopped()
        })?;
        for id in self.ids.drain(..) {
            builder.insert_object(id, None)?;
        }
        builder.write(&upkeep::pack_directory(self.git.path()), 0o444)?;
        drop(builder);
        self.gathered.reset()?;
        self.bytes = 0;
        self.odb.refresh()
    }
}
