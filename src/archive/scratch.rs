//! Directories in `DATA_DIR` for files that are only needed while a command runs.
//!
//! Each is locked by its command, so that the next command can tell which ones a crash left behind.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Their parent in `DATA_DIR`.
const SCRATCH: &str = "scratch";

/// How often another name is tried.
const TRIES_MAX: usize = 8;

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Shows other commands that the directory is in use.
    _lock: File,
}

impl Scratch {
    /// Makes a directory, and removes unused ones.
    pub(crate) fn create(data_dir: &Path) -> io::Result<Self> {
        let root = data_dir.join(SCRATCH);
        fs::create_dir_all(&root)?;
        sweep(&root);
        let mut tries = 1;
        loop {
            let path = root.join(format!("{:016x}", fastrand::u64(..)));
            match Self::at(&path) {
                Ok(Some(scratch)) => return Ok(scratch),
                // Another command removed it as a leftover just before it was locked.
                Ok(None) if tries < TRIES_MAX => tries += 1,
                Ok(None) => return Err(io::ErrorKind::ResourceBusy.into()),
                Err(error) => return Err(error),
            }
        }
    }

    fn at(path: &Path) -> io::Result<Option<Self>> {
        // The parent is removed with the last directory.
        fs::create_dir_all(path)?;
        let lock = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // Without locks, leftovers are not removed, either.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let ours = lock.metadata()?.ino();
        let is_still_there = fs::metadata(path).is_ok_and(|there| there.ino() == ours);
        Ok(is_still_there.then(|| Self {
            path: path.to_owned(),
            _lock: lock,
        }))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If this fails, the next command removes it.
        drop(fs::remove_dir_all(&self.path));
        if let Some(root) = self.path.parent() {
            // This succeeds for the last directory only.
            drop(fs::remove_dir(root));
        }
    }
}

/// Removes directories that are not locked. A failure only costs disk space.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if let Ok(directory) = File::open(&path)
            && directory.try_lock().is_ok()
        {
            drop(fs::remove_dir_all(&path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_removed_with_its_parent() {
        let data = tempfile::tempdir().unwrap();
        let one = Scratch::create(data.path()).unwrap();
        let two = Scratch::create(data.path()).unwrap();
        fs::write(one.path.join("file"), "x").unwrap();
        assert!(one.path != two.path && two.path.is_dir());
        drop(two);
        assert!(one.path.join("file").exists());
        drop(one);
        assert_eq!(data.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_leftover_is_removed_by_the_next_command() {
        let data = tempfile::tempdir().unwrap();
        let left = data.path().join("scratch/0123456789abcdef");
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("pack-1.pack"), "x").unwrap();
        let used = Scratch::create(data.path()).unwrap();
        assert!(!left.exists() && used.path.exists());
    }
}
