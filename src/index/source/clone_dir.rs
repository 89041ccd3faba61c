//! The layout of the clones on disk, and the locks on them.
//!
//! ```text
//! {DATA_DIR}/index/, and {DATA_DIR}/advisory-db/ for the advisory database
//!   lock          locked by the mirror that uses this directory
//!   current       the name of the clone in use; replaced by a rename, so it always names a complete clone
//!   clone-7/      a bare git repository
//!     mirror.json the upstream of the clone, and the time of the last fetch
//!     readers     locked (shared) by every process that reads the clone
//!     served/     the git index, a repository that borrows the objects of the clone
//!   set-aside/    a damaged clone, until its replacement is in use
//! ```
//!
//! `current` names a clone only when the clone is complete. After a crash the mirror removes all other clones.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::remote_url::RemoteUrl;

const LOCK: &str = "lock";
const CURRENT: &str = "current";
const RECORD: &str = "mirror.json";
const READERS: &str = "readers";
const SET_ASIDE: &str = "set-aside";
pub(crate) const CONFIG_FILE: &str = "config";

/// Files that none of our repositories needs, and that can name programs, contain settings, or point to another
/// repository.
const NOT_OURS: [&str; 7] = [
    "hooks",
    "info",
    "commondir",
    "gitdir",
    "config.worktree",
    "worktrees",
    "modules",
];
const CLONE_PREFIX: &str = "clone-";

/// The git index, inside a clone.
const GIT_INDEX: &str = "served";

/// The directory of the clones. Everything here blocks.
#[derive(Debug)]
pub(crate) struct CloneDir {
    root: PathBuf,
    /// Closing the file releases the lock, and so does a crash. `None` if the directory is not writable: then it is
    /// read without a lock.
    lock: Option<File>,
    /// The highest number of a clone so far. No number is used twice, because the thread of an abandoned transfer may
    /// still write to its clone.
    highest: u64,
}

/// The record of a clone: its upstream, and the last fetch.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct CloneRecord {
    /// The URL of the upstream, without credentials. For display only.
    pub(crate) upstream: String,
    /// Differs between upstreams that look the same without their secrets.
    fingerprint: String,
    /// Seconds from 1970 to the last successful fetch; 0 if unknown.
    last_success: u64,
}

/// Why the directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Another process has locked it.
    #[error("another mirror is using this DATA_DIR")]
    Locked,
    /// The operating system refused.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

impl CloneRecord {
    /// Whether this is a clone of that upstream.
    pub(crate) fn is_of(&self, upstream: &RemoteUrl) -> bool {
        self.fingerprint == upstream.fingerprint()
    }

    /// The time of the last successful fetch, if known. It may be ahead of the clock.
    pub(crate) fn last_success(&self) -> Option<SystemTime> {
        let since_1970 = Some(self.last_success).filter(|seconds| *seconds > 0)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(since_1970))
    }
}

impl CloneDir {
    /// Locks this directory. Creates it if it is missing.
    pub(crate) fn open(root: PathBuf) -> Result<Self, DataDirError> {
        fs::create_dir_all(&root)?;
        let lock = File::create(root.join(LOCK))?;
        if !is_locked(lock.try_lock())? {
            WITHOUT_LOCKS.call_once(|| {
                tracing::warn!(
                    "the file system of DATA_DIR has no locks: make sure that no other mirror uses this DATA_DIR"
                );
            });
        }
        Ok(Self {
            root,
            lock: Some(lock),
            highest: 0,
        })
    }

    /// Uses this directory without a lock, for reading only.
    pub(crate) fn read_only(root: PathBuf) -> Self {
        Self {
            root,
            lock: None,
            highest: 0,
        }
    }

    /// Whether the directory is used for reading only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.lock.is_none()
    }

    /// Whether the directory is still the one that was opened. Another process may have removed or replaced it.
    pub(crate) fn still_exists(&self) -> bool {
        let Some(lock) = &self.lock else {
            return self.root.is_dir();
        };
        let ours = lock.metadata().ok().map(|lock| file_id(&lock));
        ours.is_some() && ours == id_at(&self.root.join(LOCK))
    }

    /// The clone in use, if there is a complete one.
    pub(crate) fn current(&self) -> Option<PathBuf> {
        current(&self.root)
    }

    /// Returns the path for a new clone. Nothing exists there yet.
    pub(crate) fn next(&mut self) -> io::Result<PathBuf> {
        let mut highest = self.highest;
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            highest = highest.max(name.to_str().and_then(number_of).unwrap_or(0));
        }
        self.highest = highest.saturating_add(1);
        Ok(self.root.join(format!("{CLONE_PREFIX}{}", self.highest)))
    }

    /// Makes a complete clone the clone in use.
    pub(crate) fn activate(&self, clone: &Path) -> io::Result<()> {
        let name = clone
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        write_atomically(&self.root, CURRENT, name.as_bytes())
    }

    /// Moves a damaged clone to `set-aside`. Only the last one is kept.
    pub(crate) fn set_aside(&self, clone: &Path) -> io::Result<()> {
        let aside = self.root.join(SET_ASIDE);
        remove_tree(&aside)?;
        fs::rename(clone, aside)
    }

    /// Removes every clone except those in `keep`.
    pub(crate) fn sweep(&self, keep: &[PathBuf]) -> io::Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let path = entry.path();
            // Only our own names: the operator may have chosen a directory with other content.
            let ours = entry
                .file_name()
                .to_str()
                .is_some_and(|name| name == SET_ASIDE || number_of(name).is_some());
            if ours
                && path.is_dir()
                && !keep.contains(&path)
                // The exclusive lock is held during the removal, so no process can begin to read.
                && let Readers::None(_exclusive) = readers_of(&path)
            {
                remove_tree(&path)?;
            }
        }
        Ok(())
    }

    /// Like [`CloneDir::sweep`], but also keeps the clone that was set aside.
    pub(crate) fn sweep_leftovers(&self, mut keep: Vec<PathBuf>) -> io::Result<()> {
        keep.push(self.root.join(SET_ASIDE));
        self.sweep(&keep)
    }
}

/// Checks that the index can write to the data directory. Blocking. Creates the lock file.
pub(crate) fn check_writable(data_dir: &Path) -> io::Result<()> {
    let root = root(data_dir);
    fs::create_dir_all(&root)?;
    open_or_create(&root.join(LOCK)).map(drop)
}

/// Whether the reason of a failed write is permanent. A full disk is not: it can recover by itself.
pub(crate) fn refuses_for_good(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem,
    };
    matches!(
        error.kind(),
        IsADirectory | NotADirectory | PermissionDenied | ReadOnlyFilesystem | AlreadyExists
    )
}

/// Limits the warning to one per process. An offline mirror opens the directory again and again.
static WITHOUT_LOCKS: Once = Once::new();

/// Whether an attempt to lock a file has locked it. `false` if the file system has no locks.
fn is_locked(tried: Result<(), TryLockError>) -> Result<bool, DataDirError> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Err(DataDirError::Locked),
        Err(TryLockError::Error(error)) => match error.raw_os_error() {
            Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS) => Ok(false),
            _ => Err(error.into()),
        },
    }
}

/// Device and inode. They differ between two files or directories that have the same path one after the other.
pub(super) type FileId = (u64, u64);

fn file_id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// The id of what is at this path now.
pub(super) fn id_at(path: &Path) -> Option<FileId> {
    fs::metadata(path).ok().map(|found| file_id(&found))
}

/// Whether there is a clone to serve.
pub(crate) fn has_clone(data_dir: &Path) -> bool {
    current_in(data_dir).is_some()
}

/// The clone in use in this data directory. Needs no lock.
pub(crate) fn current_in(data_dir: &Path) -> Option<PathBuf> {
    current(&root(data_dir))
}

/// The directory of the clones of the index.
pub(crate) fn root(data_dir: &Path) -> PathBuf {
    data_dir.join("index")
}

/// The clone in use in a directory of clones. Needs no lock.
pub(crate) fn current(root: &Path) -> Option<PathBuf> {
    let name = fs::read_to_string(root.join(CURRENT)).ok()?;
    let name = name.trim();
    // A damaged or foreign file must not point to a path outside.
    number_of(name)?;
    Some(root.join(name)).filter(|path| path.is_dir())
}

/// How a clone may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// For reading and writing.
    Full,
    /// For reading only, even if the file system allows writes: the mirror has no lock on the data directory.
    ReadOnly,
}

/// Locks a clone for reading. No process removes the clone until the returned file is closed. Returns `None` if there
/// is no file to lock, or if the file system has no locks: then other processes may remove the clone.
pub(super) fn read_lock(clone: &Path, access: Access) -> Option<File> {
    let file = clone.join(READERS);
    let readers = match access {
        // On most file systems a file that is open for reading can be locked, too.
        Access::Full => open_or_create(&file).or_else(|_| File::open(&file)),
        Access::ReadOnly => File::open(&file),
    };
    let locked = readers.and_then(|readers| {
        readers.try_lock_shared()?;
        Ok(readers)
    });
    locked.inspect_err(|error| {
        tracing::debug!(error = %error, clone = %clone.display(), "the clone could not be locked for reading");
    })
    .ok()
}

/// Whether any process reads a clone.
enum Readers {
    Some,
    /// None. The exclusive lock keeps new readers out; it is missing where the file system has no locks.
    None(Option<File>),
}

fn readers_of(clone: &Path) -> Readers {
    let unknown = |error: io::Error| {
        tracing::debug!(error = %error, clone = %clone.display(), "the readers of the clone are unknown");
        Readers::None(None)
    };
    let readers = match open_or_create(&clone.join(READERS)) {
        Ok(readers) => readers,
        Err(error) => return unknown(error),
    };
    match readers.try_lock() {
        Ok(()) => Readers::None(Some(readers)),
        Err(TryLockError::WouldBlock) => Readers::Some,
        Err(TryLockError::Error(error)) => unknown(error),
    }
}

/// Opens a file for reading and writing: over NFS a shared lock needs read access and an exclusive lock write access.
fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path)
}

/// The path of the git index inside a clone.
pub(crate) fn git_index_path(clone: &Path) -> PathBuf {
    clone.join(GIT_INDEX)
}

/// The number in the name of a clone's directory; `None` for other names.
fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(CLONE_PREFIX)?.parse().ok()
}

pub(super) fn pack_directory(repository: &Path) -> PathBuf {
    repository.join("objects").join("pack")
}

/// Reads the record of a clone.
pub(crate) fn read_record(clone: &Path) -> io::Result<CloneRecord> {
    let text = fs::read_to_string(clone.join(RECORD))?;
    Ok(serde_json::from_str(&text)?)
}

/// Writes the record of a clone.
pub(crate) fn write_record(
    clone: &Path,
    upstream: &RemoteUrl,
    last_success: Option<SystemTime>,
) -> io::Result<()> {
    let since_1970 = last_success.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let record = CloneRecord {
        upstream: upstream.to_string(),
        fingerprint: upstream.fingerprint(),
        last_success: since_1970.map_or(0, |since_1970| since_1970.as_secs()),
    };
    write_atomically(clone, RECORD, &serde_json::to_vec(&record)?)
}

/// Removes what a killed fetch leaves in a clone: stale lock files, and incomplete files.
pub(crate) fn tidy(repository: &Path) -> io::Result<()> {
    for entry in fs::read_dir(repository)? {
        let entry = entry?;
        let leftover = entry.file_name().to_str().is_some_and(is_leftover);
        match (leftover, entry.file_type()?.is_dir()) {
            (true, true) => remove_tree(&entry.path())?,
            (true, false) => fs::remove_file(entry.path())?,
            (false, true) => tidy(&entry.path())?,
            (false, false) => {}
        }
    }
    Ok(())
}

/// The configuration of our repositories. Git and libgit2 write the same by default.
pub(super) const CONFIG: &str =
    "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n";

/// Removes everything from a repository that could make git start programs or use other repositories. An attacker may
/// have prepared the data directory. Objects and references stay.
pub(crate) fn disarm(repository: &Path) -> io::Result<()> {
    for name in NOT_OURS {
        let path = repository.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => remove_tree(&path)?,
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let path = repository.join(CONFIG_FILE);
    let is_ours = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file())
        && fs::read(&path).is_ok_and(|content| content == CONFIG.as_bytes());
    if is_ours {
        return Ok(());
    }
    write_atomically(repository, CONFIG_FILE, CONFIG.as_bytes())
}

/// Whether a repository contains files that could make libgit2 use another repository.
pub(crate) fn leads_elsewhere(repository: &Path) -> bool {
    ["commondir", "gitdir", "config.worktree"]
        .iter()
        .any(|name| fs::symlink_metadata(repository.join(name)).is_ok())
}

/// Whether a file or directory with this name, in a repository, is still being written, or is left over from a crash.
pub(super) fn is_leftover(name: &str) -> bool {
    name.starts_with("pack_git2_")
        || name.starts_with("tmp_")
        || name.ends_with(".lock")
        || name.ends_with(".new")
}

/// Removes a directory with its content. Succeeds if there is none.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a temporary file, flushes it to the disk, then renames it. A reader finds the old content or the new content,
/// and never a part. A failure leaves no temporary file: on a full disk each would take what is left.
pub(crate) fn write_atomically(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let aside = directory.join(format!("{name}.new"));
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&aside, directory.join(name))
    };
    if let Err(error) = write() {
        drop(fs::remove_file(&aside));
        return Err(error);
    }
    // Without this a power failure can undo the rename: the name is in the directory, which is written separately.
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_locks_can_be_used() {
        let system = |code| Err(TryLockError::Error(io::Error::from_raw_os_error(code)));
        for code in [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS] {
            assert!(!is_locked(system(code)).unwrap());
        }
        assert!(is_locked(Ok(())).unwrap());
        let locked = is_locked(Err(TryLockError::WouldBlock));
        assert!(matches!(locked, Err(DataDirError::Locked)));
        let broken = is_locked(system(libc::EIO));
        assert!(matches!(broken, Err(DataDirError::Disk(_))));
    }

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let directory = tempfile::TempDir::new().unwrap();
        // A file cannot take the place of a directory.
        fs::create_dir(directory.path().join("name")).unwrap();
        assert!(write_atomically(directory.path(), "name", b"content").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
