//! A clone on disk, open for reading by many threads.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use git2::{ObjectType, Oid};

use super::borrowed_clone::BorrowedClone;
use super::clone_dir::{self, Access};
use crate::index::ids::{CommitId, ObjectId};
use crate::index::limits::{COMMIT_BYTES_MAX, INDEX_FILE_BYTES_MAX, ReadError, check_size};

/// How many open handles are kept for the next reader. More readers than this at a time open and close their own.
const IDLE_HANDLES_MAX: usize = 8;

/// A bare git repository in the data directory.
///
/// `git2::Repository` may move between threads but not be shared, so readers borrow one of several handles. Every method
/// is blocking.
pub(crate) struct Repository {
    path: PathBuf,
    idle: Mutex<Vec<git2::Repository>>,
    suspect: AtomicBool,
    /// The object that could not be read, if that is what raised the suspicion.
    unreadable: Mutex<Option<ObjectId>>,
    /// Keeps other processes from removing the clone.
    _read_lock: Option<File>,
    access: Access,
    directory_id: Option<DirectoryId>,
    /// Last, since it is removed with this: the temporary repository that is read instead of a clone.
    borrowed: Option<BorrowedClone>,
}

/// What tells directories apart that had the same path one after the other.
type DirectoryId = (u64, u64);

fn directory_id(path: &Path) -> Option<DirectoryId> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Repository {
    /// Opens the clone at `path`.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, ReadError> {
        let read_lock = clone_dir::read_lock(path, access);
        // After the hold: from here on it is there, or it was gone before.
        let handle = git2::Repository::open_bare(path)?;
        Ok(Self {
            path: path.to_owned(),
            idle: Mutex::new(vec![handle]),
            suspect: AtomicBool::new(false),
            unreadable: Mutex::new(None),
            _read_lock: read_lock,
            access,
            directory_id: directory_id(path),
            borrowed: None,
        })
    }

    /// Opens the clone that a temporary repository stands for.
    pub(crate) fn open_borrowed(borrowed: BorrowedClone) -> Result<Self, ReadError> {
        let opened = Self::open(borrowed.path(), Access::Full)?;
        Ok(Self {
            borrowed: Some(borrowed),
            ..opened
        })
    }

    /// The clone in the data directory whose state this is.
    pub(crate) fn stands_for(&self) -> &Path {
        let original = self.borrowed.as_ref().map(BorrowedClone::original);
        original.unwrap_or(&self.path)
    }

    /// Whether something may be made of it, and put there.
    pub(crate) fn is_writable(&self) -> bool {
        self.access == Access::Full
    }

    /// Where the clone lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory at the path is still the one that was opened.
    pub(crate) fn is_still_there(&self) -> bool {
        directory_id(&self.path) == self.directory_id
    }

    /// Whether a read has failed.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Asks for a look at this clone.
    pub(crate) fn suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// Settles a suspicion: whether `everything`, which was just read anew, or the object that could not be read fails
    /// again, and for another reason than the system's.
    pub(super) fn confirm_damage(&self, everything: Result<(), ReadError>) -> bool {
        let unreadable = self.unreadable().take();
        let object = unreadable.map_or(Ok(()), |id| self.read_object(id));
        let damaged = [object, everything]
            .into_iter()
            .any(|read| read.is_err_and(|error| error.may_be_damage() && !error.is_the_systems()));
        self.suspect.store(damaged, Ordering::Relaxed);
        damaged
    }

    /// Closes the handles that nobody uses. Each keeps objects and packs that it has seen: after 200 refreshes that made
    /// 40 MB.
    pub(crate) fn close_idle_handles(&self) {
        self.handles().clear();
    }

    /// Does something with a handle of this repository. A failure makes the clone suspect.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&git2::Repository) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        // The lock is released at once: handles are only put in and taken out under it.
        let idle = self.handles().pop();
        let result = match idle {
            Some(handle) => Ok(handle),
            None => git2::Repository::open_bare(&self.path).map_err(ReadError::from),
        }
        .and_then(|handle| {
            let result = work(&handle);
            let mut handles = self.handles();
            if handles.len() < IDLE_HANDLES_MAX {
                handles.push(handle);
            }
            result
        });
        if let Err(error) = &result
            && error.may_be_damage()
        {
            self.suspect();
        }
        result
    }

    /// The upstream commit that the clone holds, and its tree.
    pub(crate) fn upstream(&self) -> Result<(CommitId, ObjectId), ReadError> {
        self.with(|git| {
            let reference = git.find_reference(super::fetch::UPSTREAM_HEAD)?;
            let id = reference.target().unwrap_or(Oid::ZERO_SHA1);
            check_size(&git.odb()?, id, ObjectType::Commit, COMMIT_BYTES_MAX)?;
            let commit = git.find_commit(id)?;
            Ok((CommitId(commit.id().into()), commit.tree_id().into()))
        })
    }

    /// Makes the branch name another commit that the clone has.
    pub(crate) fn reset_to(&self, commit: CommitId) -> Result<(), ReadError> {
        self.with(|git| {
            let id = commit.0.to_oid()?;
            git.reference(super::fetch::UPSTREAM_HEAD, id, true, "refused")?;
            Ok(())
        })
    }

    /// The tree of this id, if the clone has it.
    pub(crate) fn find_tree(&self, id: &str) -> Option<ObjectId> {
        let id = Oid::from_str(id).ok()?;
        let exists = self.with(|git| Ok(git.odb()?.exists(id)));
        exists.is_ok_and(|exists| exists).then(|| id.into())
    }

    /// How many bytes a blob has.
    ///
    /// # Errors
    /// [`ReadError::TooLarge`] for more than are ever read.
    pub(crate) fn blob_bytes(&self, id: ObjectId) -> Result<u64, ReadError> {
        let bytes = self.with(|git| {
            let oid = id.to_oid()?;
            check_size(&git.odb()?, oid, ObjectType::Blob, INDEX_FILE_BYTES_MAX)
        });
        if bytes.as_ref().is_err_and(ReadError::may_be_damage) {
            self.note_unreadable(id);
        }
        Ok(bytes? as u64)
    }

    /// Gives the content of a blob to `read`. The content is not copied: the largest ones have megabytes.
    pub(crate) fn read_blob<T>(
        &self,
        id: ObjectId,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ReadError> {
        let content = self.with(|git| {
            let (odb, id) = (git.odb()?, id.to_oid()?);
            check_size(&odb, id, ObjectType::Blob, INDEX_FILE_BYTES_MAX)?;
            Ok(read(odb.read(id)?.data()))
        });
        if content.as_ref().is_err_and(ReadError::may_be_damage) {
            self.note_unreadable(id);
        }
        content
    }

    /// Notes that this object could not be read.
    pub(crate) fn note_unreadable(&self, id: ObjectId) {
        *self.unreadable() = Some(id);
    }

    fn read_object(&self, id: ObjectId) -> Result<(), ReadError> {
        self.with(|git| Ok(git.odb()?.read(id.to_oid()?).map(drop)?))
    }

    fn unreadable(&self) -> MutexGuard<'_, Option<ObjectId>> {
        self.unreadable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn handles(&self) -> MutexGuard<'_, Vec<git2::Repository>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Repository")
            .field(&self.path)
            .finish()
    }
}
