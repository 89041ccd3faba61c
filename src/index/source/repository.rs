//! A clone on disk that many threads read.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use git2::{ErrorClass, ErrorCode, ObjectType, Odb, Oid};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::borrowed_clone::BorrowedClone;
use super::clone_dir::{self, Access, FileId, id_at};
use super::libgit2::check_size;
use crate::index::ids::{CommitId, ObjectId};
use crate::index::limits::{COMMIT_BYTES_MAX, INDEX_FILE_BYTES_MAX, ReadError};

/// How many open handles are kept. If more readers work at the same time, the others open and close handles of their
/// own.
const IDLE_HANDLES_MAX: usize = 8;

/// A bare git repository in the data directory.
///
/// `git2::Repository` is `Send` but not `Sync`, so each reader borrows one of several handles. Every method blocks.
pub(crate) struct Repository {
    path: PathBuf,
    idle: Mutex<Vec<git2::Repository>>,
    /// Whether a read has failed since the last damage check.
    suspect: AtomicBool,
    /// The last object that could not be read.
    unreadable: Mutex<Option<ObjectId>>,
    /// Keeps other processes from removing the clone.
    _read_lock: Option<File>,
    access: Access,
    directory_id: Option<FileId>,
    /// The temporary repository that replaces a read-only clone. The last field, because dropping it removes the
    /// directory, and fields are dropped in order: the handles close first.
    borrowed: Option<BorrowedClone>,
}

impl Repository {
    /// Opens the clone at `path`.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, ReadError> {
        let read_lock = clone_dir::read_lock(path, access);
        // After the lock: now no other process removes the clone. If one has removed it before, this fails.
        let handle = git2::Repository::open_bare(path)?;
        Ok(Self {
            path: path.to_owned(),
            idle: Mutex::new(vec![handle]),
            suspect: AtomicBool::new(false),
            unreadable: Mutex::new(None),
            _read_lock: read_lock,
            access,
            directory_id: id_at(path),
            borrowed: None,
        })
    }

    /// Opens a temporary repository that borrows the objects of a clone.
    pub(crate) fn open_borrowed(borrowed: BorrowedClone) -> Result<Self, ReadError> {
        let opened = Self::open(&borrowed.path, Access::Full)?;
        Ok(Self {
            borrowed: Some(borrowed),
            ..opened
        })
    }

    /// The clone in the data directory whose objects this repository shows.
    pub(crate) fn stands_for(&self) -> &Path {
        let original = self.borrowed.as_ref().map(|borrowed| &borrowed.original);
        original.unwrap_or(&self.path)
    }

    /// Whether the mirror may write trees and the git index into it.
    pub(crate) fn is_writable(&self) -> bool {
        self.access == Access::Full
    }

    /// Whether the mirror has the lock on the data directory, and may write there.
    pub(crate) fn has_data_dir(&self) -> bool {
        self.is_writable() && self.borrowed.is_none()
    }

    /// The directory of the clone.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory at the path is still the one that was opened.
    pub(crate) fn is_still_there(&self) -> bool {
        id_at(&self.path) == self.directory_id
    }

    /// Whether a read has failed.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Marks the clone as possibly damaged.
    pub(crate) fn suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// Decides whether a suspect clone is damaged, and clears the suspicion if it is not. `everything` is the result of
    /// reading all trees once more; this also reads the unreadable object once more. The clone is damaged if one of the
    /// two fails, unless the operating system refused.
    pub(crate) fn confirm_damage(&self, everything: Result<(), ReadError>) -> bool {
        let unreadable = self.unreadable.lock().take();
        let object = unreadable.map_or(Ok(()), |id| self.read_object(id));
        let damaged = [object, everything]
            .into_iter()
            .any(|read| read.is_err_and(|error| error.may_be_damage() && !error.is_the_systems()));
        self.suspect.store(damaged, Ordering::Relaxed);
        damaged
    }

    /// Closes the unused handles. Each handle keeps objects and packs that it has seen, which took 40 MB after 200
    /// refreshes.
    pub(crate) fn close_idle_handles(&self) {
        self.idle.lock().clear();
    }

    /// Lends a handle to `work`. A failure marks the clone as suspect.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&git2::Repository) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        // The lock is held only to take out a handle or to put it back, never during `work`.
        let idle = self.idle.lock().pop();
        let result = match idle {
            Some(handle) => Ok(handle),
            None => git2::Repository::open_bare(&self.path).map_err(ReadError::from),
        }
        .and_then(|handle| {
            let result = work(&handle);
            let mut handles = self.idle.lock();
            // Also after an error: the handle itself is not broken. A surplus handle is closed here.
            if handles.len() < IDLE_HANDLES_MAX {
                handles.push(handle);
            }
            result
        });
        let result = result.map_err(|error| match error {
            ReadError::Git(error)
                if error.code() == ErrorCode::NotFound && is_out_of_file_descriptors() =>
            {
                ReadError::Git(git2::Error::new(
                    ErrorCode::GenericError,
                    ErrorClass::Os,
                    "too many open files",
                ))
            }
            error => error,
        });
        if let Err(error) = &result
            && error.may_be_damage()
        {
            self.suspect();
        }
        result
    }

    /// The upstream commit of the clone, its tree, and when it was made.
    pub(crate) fn upstream(&self) -> Result<(CommitId, ObjectId, SystemTime), ReadError> {
        self.with(|git| {
            let reference = git.find_reference(super::fetch::UPSTREAM_HEAD)?;
            // A symbolic reference has no target. The zero id is never found, which counts as damage.
            let id = reference.target().unwrap_or(Oid::ZERO_SHA1);
            check_size(&git.odb()?, id, ObjectType::Commit, COMMIT_BYTES_MAX)?;
            let commit = git.find_commit(id)?;
            let time = time_of(commit.time());
            Ok((CommitId(commit.id().into()), commit.tree_id().into(), time))
        })
    }

    /// Points the branch to another commit of the clone.
    pub(crate) fn reset_to(&self, commit: CommitId) -> Result<(), ReadError> {
        self.with(|git| {
            let id = commit.0.to_oid()?;
            git.reference(super::fetch::UPSTREAM_HEAD, id, true, "refused")?;
            Ok(())
        })
    }

    /// Whether the clone has this object.
    pub(crate) fn has(&self, id: ObjectId) -> bool {
        let exists = self.with(|git| Ok(git.odb()?.exists(id.to_oid()?)));
        exists.is_ok_and(|exists| exists)
    }

    /// The size of a blob in bytes.
    ///
    /// # Errors
    /// [`ReadError::TooLarge`] above the limit for index files.
    pub(crate) fn blob_bytes(&self, id: ObjectId) -> Result<u64, ReadError> {
        self.with_blob(id, |_odb, _id, bytes| Ok(bytes as u64))
    }

    /// Passes the content of a blob to `read`. The content is not copied, because the largest blobs have megabytes.
    pub(crate) fn read_blob<T>(
        &self,
        id: ObjectId,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ReadError> {
        self.with_blob(id, |odb, id, _bytes| Ok(read(odb.read(id)?.data())))
    }

    fn with_blob<T>(
        &self,
        id: ObjectId,
        work: impl FnOnce(&Odb<'_>, Oid, usize) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let done = self.with(|git| {
            let (odb, id) = (git.odb()?, id.to_oid()?);
            let bytes = check_size(&odb, id, ObjectType::Blob, INDEX_FILE_BYTES_MAX)?;
            work(&odb, id, bytes)
        });
        if done.as_ref().is_err_and(ReadError::may_be_damage) {
            self.note_unreadable(id);
        }
        done
    }

    /// Notes that this object could not be read. The next damage check reads it again.
    pub(crate) fn note_unreadable(&self, id: ObjectId) {
        *self.unreadable.lock() = Some(id);
    }

    fn read_object(&self, id: ObjectId) -> Result<(), ReadError> {
        self.with(|git| Ok(git.odb()?.read(id.to_oid()?).map(drop)?))
    }
}

/// Whether the system gives this process no more file descriptors. libgit2 then does not find the objects of packs that it
/// cannot open.
fn is_out_of_file_descriptors() -> bool {
    let opened = File::open("/dev/null");
    opened.is_err_and(|error| {
        let errno = Errno::from_io_error(&error);
        errno.is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE))
    })
}

/// A commit's time in the type of the clock. A commit can claim any time: one before 1970 counts as 1970.
fn time_of(time: git2::Time) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds().try_into().unwrap_or(0));
    let epoch = SystemTime::UNIX_EPOCH;
    epoch.checked_add(seconds).unwrap_or(epoch)
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Repository")
            .field(&self.path)
            .finish()
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn open_packs(repository: &Path) -> usize {
        let opened = std::fs::read_dir("/proc/self/fd").unwrap();
        opened
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|path| path.starts_with(repository))
            .count()
    }

    #[test]
    fn readers_share_the_open_packs_and_idle_handles_keep_none() {
        const PACKS: usize = 12;
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().canonicalize().unwrap();
        let git = git2::Repository::init_bare(&path).unwrap();
        let ids: Vec<Oid> = (0..PACKS)
            .map(|number| {
                let id = git.blob(format!("content {number}").as_bytes()).unwrap();
                let mut pack = git.packbuilder().unwrap();
                pack.insert_object(id, None).unwrap();
                pack.write(&path.join("objects/pack"), 0o644).unwrap();
                let name = id.to_string();
                let (directory, file) = name.split_at(2);
                std::fs::remove_file(path.join("objects").join(directory).join(file)).unwrap();
                id
            })
            .collect();
        drop(git);
        let repository = Repository::open(&path, Access::ReadOnly).unwrap();
        let read_all = || {
            for &id in &ids {
                repository.read_object(id.into()).unwrap();
            }
        };
        std::thread::scope(|scope| {
            // A second handle: the first one is lent.
            let lent = repository.with(|_| Ok(scope.spawn(read_all).join()));
            lent.unwrap().unwrap();
            read_all();
        });
        assert_eq!(open_packs(&path), PACKS);
        repository.close_idle_handles();
        assert_eq!(open_packs(&path), 0);
    }
}
