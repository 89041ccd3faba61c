//! Writes many git objects into packs. Single files for each object would take a hundred times as long, because each
//! file would be flushed to the disk.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use git2::build::TreeUpdateBuilder;
use git2::{
    Config, ConfigLevel, ErrorClass, ErrorCode, FileMode, Indexer, Mempack, ObjectType, Odb,
    OdbLookupFlags, Oid, PackBuilder, PackBuilderStage, Repository, Tree,
};

use super::clone_dir::{self, write_atomically};
use crate::index::ids::ObjectId;
use crate::index::status::ProgressCell;
use crate::index::stop::StopFlag;

/// The file with the settings for packs, in the repository. Only this module reads it.
const PACKING: &str = "packing.config";

/// libgit2 1.9 takes this as the size from which objects have no deltas, and not as the size of a cache.
const NO_DELTAS: &str = "[pack]\n\tdeltaCacheSize = 1\n";

/// The bytes of objects that are collected in memory before they become a pack.
const GATHERED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The bytes of contents that wait in memory for the trees, to become one pack with them.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// Read-only, because packs never change.
const PACK_MODE: u32 = 0o444;

/// The priority of the memory backend: higher than the backends of the repository, so libgit2 writes to memory.
const FIRST: i32 = 1_000;

/// Collects objects and writes them into packs.
pub(crate) struct PackWriter<'r> {
    git: &'r Repository,
    odb: &'r Odb<'r>,
    /// The same objects without those that are only in memory.
    written: Odb<'r>,
    gathered: Mempack<'r>,
    ids: Vec<Oid>,
    bytes: usize,
    progress: &'r ProgressCell,
}

/// Runs `work`, and writes its objects into packs of the repository at this path. After an error at most unreachable
/// objects remain.
pub(crate) fn write_packed<T, E: From<git2::Error>>(
    repository: &Path,
    progress: &ProgressCell,
    work: impl FnOnce(&mut PackWriter<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let git = Repository::open_bare(repository)?;
    git.set_config(&without_deltas(repository)?)?;
    let plain = Repository::open_bare(repository)?;
    let odb = git.odb()?;
    let mut writer = PackWriter {
        git: &git,
        odb: &odb,
        written: plain.odb()?,
        gathered: odb.add_new_mempack_backend(FIRST)?,
        ids: Vec::new(),
        bytes: 0,
        progress,
    };
    let made = work(&mut writer)?;
    writer.flush()?;
    Ok(made)
}

/// Settings for a repository whose packs are written without deltas. The search for deltas took 200 s of the 220 s of a
/// view with 250,000 edited files (`benches/compare/view.sh`).
fn without_deltas(repository: &Path) -> Result<Config, git2::Error> {
    let file = repository.join(PACKING);
    // Writing the same again would flush it at every refresh. It is read only if it is a file of this length: in a prepared data
    // directory there could be anything, even a device.
    let is_ours = |found: fs::Metadata| found.is_file() && found.len() == NO_DELTAS.len() as u64;
    if !fs::symlink_metadata(&file).is_ok_and(is_ours)
        || !fs::read(&file).is_ok_and(|content| content == NO_DELTAS.as_bytes())
    {
        write_atomically(repository, PACKING, NO_DELTAS.as_bytes()).map_err(|error| {
            git2::Error::new(ErrorCode::GenericError, ErrorClass::Os, error.to_string())
        })?;
    }
    let mut config = Config::new()?;
    config.add_file(&file, ConfigLevel::Local, false)?;
    Ok(config)
}

/// Packs the objects of `builder` into a file in `directory`, and returns the name of the pack. Ends with an error once
/// `stop` is set.
///
/// `PackBuilder::write` does the same, but a stop cannot interrupt it while it compresses and writes.
pub(crate) fn write_pack<'b>(
    builder: &mut PackBuilder<'b>,
    odb: &Odb<'_>,
    directory: &Path,
    stop: &'b StopFlag,
) -> Result<String, git2::Error> {
    // libgit2 calls this while it compares objects, which takes seconds.
    builder.set_progress_callback(|_stage: PackBuilderStage, _done, _all| !stop.is_set())?;
    let mut indexer = Indexer::new(Some(odb), directory, PACK_MODE, false)?;
    indexer.progress(|_indexed| !stop.is_set());
    let mut failure = None;
    let written = builder.foreach(|part| {
        failure = indexer.write_all(part).err();
        failure.is_none() && !stop.is_set()
    });
    builder.unset_progress_callback()?;
    match (written, failure) {
        // The indexer failed. `io::Error` hides the reason, but libgit2 keeps it as its last error.
        (Err(_), Some(_refused)) => Err(git2::Error::last_error(-1)),
        (Err(error), None) => Err(error),
        (Ok(()), _) => indexer.commit(),
    }
}

/// A change of a tree: a path, and the file that is there afterwards; `None` removes the file.
pub(crate) type TreeChange = (Vec<u8>, Option<(ObjectId, FileMode)>);

impl PackWriter<'_> {
    /// Applies changes to the tree `base`, or to an empty tree, and writes the result. Directories without files
    /// vanish. Trees that `alike` has at the same path are not written again.
    pub(crate) fn update_tree(
        &mut self,
        base: Option<ObjectId>,
        alike: ObjectId,
        mut changes: Vec<TreeChange>,
    ) -> Result<ObjectId, git2::Error> {
        // Frees large contents before the trees are made.
        if self.bytes > KEPT_BYTES_MAX {
            self.flush()?;
        }
        let base = match base {
            Some(base) => base.to_oid()?,
            // libgit2 needs a base, so an empty tree is written first.
            None => self.git.treebuilder(None)?.write()?,
        };
        // libgit2 inserts each change into a sorted list. In sorted order each insertion is at the end, which is fast.
        changes.sort_by(|(left, _), (right, _)| left.cmp(right));
        // A tree of an upstream can list a name twice, and libgit2 refuses two changes of one path.
        changes.dedup_by(|(later, _), (first, _)| later == first);
        let mut updates = TreeUpdateBuilder::new();
        for (path, file) in changes {
            match file {
                Some((id, mode)) => updates.upsert(path, id.to_oid()?, mode),
                None => updates.remove(path),
            };
        }
        let base = self.git.find_tree(base)?;
        let updated = updates.create_updated(self.git, &base)?;
        let updated = self.git.find_tree(updated)?;
        let alike = self.git.find_tree(alike.to_oid()?)?;
        self.note_trees(&updated, Some(&alike))?;
        Ok(updated.id().into())
    }

    /// Collects the trees that `alike` does not have at the same path, for the next pack. libgit2 does not report which
    /// trees it wrote.
    fn note_trees(&mut self, tree: &Tree<'_>, alike: Option<&Tree<'_>>) -> Result<(), git2::Error> {
        // NO_REFRESH: libgit2 would read the directory of packs again, and nothing else writes trees now.
        let is_written = |id| self.written.exists_ext(id, OdbLookupFlags::NO_REFRESH);
        if alike.is_some_and(|alike| alike.id() == tree.id()) || is_written(tree.id()) {
            return Ok(());
        }
        self.ids.push(tree.id());
        for entry in tree {
            if entry.kind() != Some(ObjectType::Tree) {
                continue;
            }
            let before = alike.and_then(|alike| alike.get_name_bytes(entry.name_bytes()));
            // Most are the same. Nothing of them is read: the root has more than a thousand.
            if before
                .as_ref()
                .is_some_and(|before| before.id() == entry.id())
            {
                continue;
            }
            let before = before.and_then(|before| self.git.find_tree(before.id()).ok());
            let below = self.git.find_tree(entry.id())?;
            self.note_trees(&below, before.as_ref())?;
        }
        Ok(())
    }

    /// Writes an object unless it exists already, and returns its id.
    pub(crate) fn write(
        &mut self,
        kind: ObjectType,
        content: &[u8],
    ) -> Result<ObjectId, git2::Error> {
        if self.progress.is_stopped() {
            return Err(git2::Error::from_str("stopped"));
        }
        let id = Oid::hash_object(kind, content)?;
        // Without a refresh: for each new object libgit2 would otherwise read the pack directory again.
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
        // One thread, because the mirror serves requests at the same time.
        builder.set_threads(1);
        for id in self.ids.drain(..) {
            builder.insert_object(id, None)?;
        }
        let directory = clone_dir::pack_directory(self.git.path());
        write_pack(
            &mut builder,
            self.odb,
            &directory,
            self.progress.stop_flag(),
        )?;
        // The objects are on disk now. The builder borrows them, so it goes before they are freed.
        drop(builder);
        self.gathered.reset()?;
        self.bytes = 0;
        self.odb.refresh()
    }
}
