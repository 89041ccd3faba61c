//! Directories in `DATA_DIR` for files that are only needed while a command runs.
//!
//! Each is locked by the command that made it, so that the next command can tell what a crash left behind.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where they lie.
const SCRATCH: &str = "scratch";

/// How often another name is tried.
const TRIES_MAX: usize = 8;

/// A directory that goes away with this.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    /// Tells others that somebody is here.
    _lock: File,
}

impl Scratch {
    /// Makes a directory, and removes those that nobody uses any more.
    pub(super) fn create(data_dir: &Path) -> io::Result<Self> {
        let root = data_dir.join(SCRATCH);
        fs::create_dir_all(&root)?;
        sweep(&root);
        let mut tries = 1;
        loop {
            let path = root.join(format!("{:016x}", fastrand::u64(..)));
            match Self::at(&path) {
                Ok(Some(scratch)) => return Ok(scratch),
                // Somebody who swept took it for a leftover, in the moment before it was locked.
                Ok(None) if tries < TRIES_MAX => tries += 1,
                Ok(None) => return Err(io::ErrorKind::ResourceBusy.into()),
                Err(error) => return Err(error),
            }
        }
    }

    fn at(path: &Path) -> io::Result<Option<Self>> {
        // Its parent goes when the last one goes.
        fs::create_dir_all(path)?;
        let lock = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // A file system without locks has no leftovers removed, either.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let ours = lock.metadata()?.ino();
        let is_still_there = fs::metadata(path).is_ok_and(|there| there.ino() == ours);
        Ok(is_still_there.then(|| Self {
            path: path.to_owned(),
            _lock: lock,
        }))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now, the next command removes.
        drop(fs::remove_dir_all(&self.path));
        if let Some(root) = self.path.parent() {
            // This works for the last one only.
            drop(fs::remove_dir(root));
        }
    }
}

/// Removes what nobody has locked. What cannot be removed takes up room and does no other harm.
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
    fn it_goes_away_and_leaves_nothing_behind() {
        let data = tempfile::tempdir().unwrap();
        let one = Scratch::create(data.path()).unwrap();
        let two = Scratch::create(data.path()).unwrap();
        fs::write(one.path().join("file"), "x").unwrap();
        assert!(one.path() != two.path() && two.path().is_dir());
        drop(two);
        assert!(one.path().join("file").exists());
        drop(one);
        assert_eq!(data.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_a_crash_left_is_removed_by_the_next_one() {
        let data = tempfile::tempdir().unwrap();
        let left = data.path().join("scratch/0123456789abcdef");
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("pack-1.pack"), "x").unwrap();
        let used = Scratch::create(data.path()).unwrap();
        assert!(!left.exists() && used.path().exists());
    }
}
