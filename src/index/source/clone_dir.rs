//! Where clones lie on disk, and which one is in use.
//!
//! ```text
//! {DATA_DIR}/index/
//!   lock          held by the mirror that owns this directory
//!   current       the name of the clone in use; replaced by rename, so it names an old clone or a new one, whole
//!   clone-7/      a bare git repository …
//!     mirror.json … and what it is a clone of
//!     readers     locked, shared, by every process that reads from it
//!   set-aside/    a damaged clone, until its replacement is in use
//! ```
//!
//! A clone gets its name into `current` only when it is complete. Whatever else lies there after a crash is removed.

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

/// What no repository of ours needs, and what can name programs, hold further settings, or lead to another repository.
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

/// The directory that holds the clones. Everything here is blocking.
#[derive(Debug)]
pub(crate) struct CloneDir {
    root: PathBuf,
    /// The lock is released when the file is closed, also by a crash. `None` where the directory cannot be written to:
    /// it is read without a lock then.
    lock: Option<File>,
    /// The highest number that a clone has had; none is used twice, since a thread that was left behind may still write
    /// to the one it was made for.
    highest: u64,
}

/// What a clone remembers of itself.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct CloneRecord {
    /// The upstream it was cloned from, without credentials; for people.
    upstream: String,
    /// Tells upstreams apart that look the same without their secrets.
    fingerprint: String,
    /// Seconds since 1970 at the last successful fetch; 0 if that is not known.
    last_success: u64,
}

/// Why the directory cannot be taken possession of.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Somebody else has it.
    #[error("another mirror is using this DATA_DIR")]
    Locked,
    /// The system refuses.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

impl CloneRecord {
    pub(crate) fn new(upstream: &RemoteUrl, last_success: Option<SystemTime>) -> Self {
        let since_1970 = last_success.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            upstream: upstream.to_string(),
            fingerprint: upstream.fingerprint(),
            last_success: since_1970.map_or(0, |since_1970| since_1970.as_secs()),
        }
    }

    /// The upstream it was cloned from, without credentials.
    pub(crate) fn upstream(&self) -> &str {
        &self.upstream
    }

    /// Whether this is a clone of that upstream.
    pub(crate) fn is_of(&self, upstream: &RemoteUrl) -> bool {
        self.fingerprint == upstream.fingerprint()
    }

    /// When its upstream was last asked with success, if that is known. It may be ahead of the clock.
    pub(crate) fn last_success(&self) -> Option<SystemTime> {
        let since_1970 = Some(self.last_success).filter(|seconds| *seconds > 0)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(since_1970))
    }
}

impl CloneDir {
    /// Takes possession of the directory, creating it if needed.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, DataDirError> {
        let root = root(data_dir);
        fs::create_dir_all(&root)?;
        let lock = File::create(root.join(LOCK))?;
        let locked = judge_lock(lock.try_lock())?;
        if locked == LockOutcome::Unsupported {
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

    /// The directory for reading only, without its lock. Nothing is ever written there.
    pub(crate) fn read_only(data_dir: &Path) -> Self {
        Self {
            root: root(data_dir),
            lock: None,
            highest: 0,
        }
    }

    /// Whether nothing may be written there.
    pub(crate) fn is_read_only(&self) -> bool {
        self.lock.is_none()
    }

    /// Whether the directory is still the one that was opened: somebody may have removed it.
    pub(crate) fn still_exists(&self) -> bool {
        let same = |ours: Metadata, theirs: Metadata| {
            (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
        };
        let Some(lock) = &self.lock else {
            return self.root.is_dir();
        };
        match (lock.metadata(), fs::metadata(self.root.join(LOCK))) {
            (Ok(ours), Ok(theirs)) => same(ours, theirs),
            _ => false,
        }
    }

    /// The clone in use, if one was ever completed.
    pub(crate) fn current(&self) -> Option<PathBuf> {
        current(&self.root)
    }

    /// A path for a new clone, not yet existing.
    pub(crate) fn next(&mut self) -> io::Result<PathBuf> {
        let mut highest = self.highest;
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            highest = highest.max(name.to_str().and_then(number_of).unwrap_or(0));
        }
        self.highest = highest.saturating_add(1);
        Ok(self.root.join(format!("{CLONE_PREFIX}{}", self.highest)))
    }

    /// Makes a complete clone the one in use.
    pub(crate) fn activate(&self, clone: &Path) -> io::Result<()> {
        let name = clone
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        write_atomically(&self.root, CURRENT, name.as_bytes())
    }

    /// Moves a damaged clone out of the way. Only the last one is kept.
    pub(crate) fn set_aside(&self, clone: &Path) -> io::Result<()> {
        let aside = self.root.join(SET_ASIDE);
        remove_tree(&aside)?;
        fs::rename(clone, aside)
    }

    /// Removes every clone but those named.
    pub(crate) fn sweep(&self, keep: &[&Path]) -> io::Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let path = entry.path();
            // Somebody may have chosen a directory in which other things lie, too.
            let ours = entry
                .file_name()
                .to_str()
                .is_some_and(|name| name == SET_ASIDE || number_of(name).is_some());
            if ours
                && path.is_dir()
                && !keep.contains(&path.as_path())
                && let Readers::None(_kept_out) = readers_of(&path)
            {
                remove_tree(&path)?;
            }
        }
        Ok(())
    }

    /// Like [`CloneDir::sweep`], but leaves the clone that was set aside.
    pub(crate) fn sweep_leftovers(&self, keep: &[&Path]) -> io::Result<()> {
        let aside = self.root.join(SET_ASIDE);
        self.sweep(&[keep, &[aside.as_path()]].concat())
    }
}

/// Whether the data directory can be written to as far as the index needs that. Blocking; leaves the lock file behind.
pub(crate) fn check_writable(data_dir: &Path) -> io::Result<()> {
    let root = root(data_dir);
    fs::create_dir_all(&root)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join(LOCK));
    lock.map(drop)
}

/// Whether a disk refuses writes for a reason that does not go away by itself, as a full disk may.
pub(crate) fn refuses_for_good(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem,
    };
    matches!(
        error.kind(),
        IsADirectory | NotADirectory | PermissionDenied | ReadOnlyFilesystem | AlreadyExists
    )
}

/// That is said once, not at each of many looks.
static WITHOUT_LOCKS: Once = Once::new();

/// What came of an attempt to lock a file, where it is no failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LockOutcome {
    Locked,
    /// The file system has no locks.
    Unsupported,
}

fn judge_lock(tried: Result<(), TryLockError>) -> Result<LockOutcome, DataDirError> {
    match tried {
        Ok(()) => Ok(LockOutcome::Locked),
        Err(TryLockError::WouldBlock) => Err(DataDirError::Locked),
        Err(TryLockError::Error(error)) => match error.raw_os_error() {
            Some(libc::ENOLCK | libc::EOPNOTSUPP | libc::ENOSYS) => Ok(LockOutcome::Unsupported),
            _ => Err(error.into()),
        },
    }
}

/// Whether there is a clone to serve.
pub(crate) fn has_clone(data_dir: &Path) -> bool {
    current_in(data_dir).is_some()
}

/// The clone in use below this data directory, whoever has possession of it.
pub(crate) fn current_in(data_dir: &Path) -> Option<PathBuf> {
    current(&root(data_dir))
}

fn root(data_dir: &Path) -> PathBuf {
    data_dir.join("index")
}

fn current(root: &Path) -> Option<PathBuf> {
    let name = fs::read_to_string(root.join(CURRENT)).ok()?;
    let name = name.trim();
    // A torn or foreign file must not lead anywhere else.
    number_of(name)?;
    Some(root.join(name)).filter(|path| path.is_dir())
}

/// What may be done with a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is the mirror's own, or a subcommand's that looks at the mirror's.
    Full,
    /// Nothing is written there, even where the system would allow it: the mirror does not have the data directory's lock.
    ReadOnly,
}

/// Keeps a clone from being removed by other processes for as long as this is held. `None` where there is no file to
/// lock, or the file system knows no locks: then there is no such promise.
pub(crate) fn read_lock(clone: &Path, access: Access) -> Option<File> {
    let readers = match access {
        // A lock on a file that can only be read works all the same on most file systems.
        Access::Full => readers_file(clone).or_else(|_| File::open(clone.join(READERS))),
        Access::ReadOnly => File::open(clone.join(READERS)),
    };
    let held = readers.and_then(|readers| {
        readers.try_lock_shared()?;
        Ok(readers)
    });
    held.inspect_err(|error| {
        tracing::debug!(error = %error, clone = %clone.display(), "the clone cannot be kept from being removed");
    })
    .ok()
}

/// Who reads from a clone, in this process or in another one.
enum Readers {
    Some,
    /// Nobody, and nobody can begin for as long as this is held.
    None(Option<File>),
}

fn readers_of(clone: &Path) -> Readers {
    let unknown = |error: io::Error| {
        tracing::debug!(error = %error, clone = %clone.display(), "who reads from the clone cannot be told");
        Readers::None(None)
    };
    let readers = match readers_file(clone) {
        Ok(readers) => readers,
        Err(error) => return unknown(error),
    };
    match readers.try_lock() {
        Ok(()) => Readers::None(Some(readers)),
        Err(TryLockError::WouldBlock) => Readers::Some,
        Err(TryLockError::Error(error)) => unknown(error),
    }
}

/// Open for both: over NFS a shared lock needs the one, an exclusive lock the other.
fn readers_file(clone: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .create(true)
        .truncate(false)
        .write(true)
        .open(clone.join(READERS))
}

/// The number in the name of a clone's directory; `None` for other names.
fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(CLONE_PREFIX)?.parse().ok()
}

pub(crate) fn pack_directory(repository: &Path) -> PathBuf {
    pack_directory_of(&repository.join("objects"))
}

pub(super) fn pack_directory_of(objects: &Path) -> PathBuf {
    objects.join("pack")
}

/// Reads what a clone remembers of itself.
pub(crate) fn read_record(clone: &Path) -> io::Result<CloneRecord> {
    let text = fs::read_to_string(clone.join(RECORD))?;
    Ok(serde_json::from_str(&text)?)
}

/// Writes what a clone shall remember of itself.
pub(crate) fn write_record(clone: &Path, record: &CloneRecord) -> io::Result<()> {
    write_atomically(clone, RECORD, &serde_json::to_vec(record)?)
}

/// Removes what a killed fetch leaves in a clone: locks that nobody holds, and files without an end.
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

/// The configuration of our repositories. What git and libgit2 write themselves says no more.
pub(crate) const CONFIG: &str =
    "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n";

/// Takes away from a repository what could make git start programs or look elsewhere: somebody else may have prepared the
/// data directory. Its objects and references stay.
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

/// Whether a repository has what could make libgit2 look elsewhere.
pub(crate) fn leads_elsewhere(repository: &Path) -> bool {
    ["commondir", "gitdir", "config.worktree"]
        .iter()
        .any(|name| fs::symlink_metadata(repository.join(name)).is_ok())
}

/// Whether a file or directory of this name, in a repository, is one that is still being written, or that a crash left.
pub(crate) fn is_leftover(name: &str) -> bool {
    name.starts_with("pack_git2_")
        || name.starts_with("tmp_")
        || name.ends_with(".lock")
        || name.ends_with(".new")
}

/// Removes a directory with all that is in it; nothing there is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes aside, flushes to the disk, then renames: a reader finds the old content or the new one, never a part.
pub(crate) fn write_atomically(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let aside = directory.join(format!("{name}.new"));
    let mut file = File::create(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(aside, directory.join(name))?;
    // The new name, too, is only there after a failure of power if the directory was written.
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_locks_is_used_all_the_same() {
        let system = |code| Err(TryLockError::Error(io::Error::from_raw_os_error(code)));
        for code in [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS] {
            assert_eq!(judge_lock(system(code)).unwrap(), LockOutcome::Unsupported);
        }
        assert_eq!(judge_lock(Ok(())).unwrap(), LockOutcome::Locked);
        let held = judge_lock(Err(TryLockError::WouldBlock));
        assert!(matches!(held, Err(DataDirError::Locked)));
        let broken = judge_lock(system(libc::EIO));
        assert!(matches!(broken, Err(DataDirError::Disk(_))));
    }
}
