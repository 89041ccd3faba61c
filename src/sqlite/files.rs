//! The files of a database: the lock on their directory, their removal, and what counts as damage.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use crate::index::refuses_for_good;

/// The name of the lock file in the directory of a database.
const LOCK: &str = "lock";

/// The outcome of locking the directory of a database.
#[derive(Debug)]
pub(crate) enum DirectoryLock {
    /// It is ours. Closing the file releases the lock, and so does a crash.
    Ours(File),
    /// Another mirror uses it. It may be about to end.
    InUse,
    /// It cannot be written.
    NotWritable,
}

/// Makes a directory, and locks it. Blocking.
///
/// # Errors
/// Those that may pass, like a full disk.
pub(crate) fn lock_directory(path: &Path) -> io::Result<DirectoryLock> {
    let lock = fs::create_dir_all(path).and_then(|()| File::create(path.join(LOCK)));
    let lock = match lock {
        Ok(lock) => lock,
        Err(error) if refuses_for_good(&error) => return Ok(DirectoryLock::NotWritable),
        Err(error) => return Err(error),
    };
    Ok(match lock.try_lock() {
        Err(TryLockError::WouldBlock) => DirectoryLock::InUse,
        // A file system without locks. Mirrors that share it were warned of that by the index.
        Ok(()) | Err(TryLockError::Error(_)) => DirectoryLock::Ours(lock),
    })
}

/// Removes a database that nobody writes to. Its log goes last: without its database it means nothing. Blocking.
///
/// # Errors
/// The system's, unless a file is not there.
pub(crate) fn remove_database(database: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        remove_file(Path::new(&path))?;
    }
    Ok(())
}

/// Removes a file, if it is there. Blocking.
///
/// # Errors
/// The system's.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether an error means that the file is damaged, or was made by another version of the mirror. Otherwise the system
/// refused something, or the work was interrupted, and the file is kept.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OperationInterrupted, OutOfMemory,
        PermissionDenied, ReadOnly, SystemIoFailure,
    };
    let is_cut = |code| code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ;
    match error {
        rusqlite::Error::SqliteFailure(error, _) => match error.code {
            SystemIoFailure => is_cut(error.extended_code),
            CannotOpen | DatabaseBusy | DatabaseLocked | DiskFull | OperationInterrupted
            | OutOfMemory | PermissionDenied | ReadOnly => false,
            _ => true,
        },
        // A value of another type than the statement expects, or no state at all.
        _ => true,
    }
}

/// The error of a database with another schema, which counts as damage: it is made again.
pub(crate) fn of_another_version() -> rusqlite::Error {
    // Of all errors of the library, this one shows only the text.
    rusqlite::Error::ToSqlConversionFailure(
        "it was made by another version of the mirror, and is made again".into(),
    )
}
