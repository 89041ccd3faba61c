//! A repository in the temporary directory that replaces a read-only clone.
//!
//! It copies the clone's references and borrows its objects, so it is small. The mirror writes trees and the git index
//! here. Its configuration is our own, even if an attacker prepared the clone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::clone_dir::{self, Access, CONFIG, CONFIG_FILE, remove_tree};
use super::upkeep;
use crate::index::stop::StopFlag;

/// The files that are copied from the clone, beside its references.
const FILES: [&str; 6] = [
    "HEAD",
    "packed-refs",
    "shallow",
    "pruned.json",
    "pruned-checksums",
    "policy-states.json",
];

/// The repository. Dropping it removes the directory.
#[derive(Debug)]
pub(crate) struct BorrowedClone {
    /// The directory of the repository.
    pub(crate) path: PathBuf,
    /// The clone whose objects are borrowed.
    pub(super) original: PathBuf,
    /// Keeps other processes from removing the original, if the file system has locks.
    _read_lock: Option<File>,
}

impl BorrowedClone {
    /// Makes a repository for this clone. Blocking.
    pub(crate) fn make(clone: &Path, temp_dir: &Path) -> io::Result<Self> {
        // Other users share the temporary directory. A predictable name could be taken by an attacker or another
        // mirror.
        let name = format!("crates-io-mirror-{:016x}", fastrand::u64(..));
        let path = temp_dir.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let borrowed = Self {
            path,
            original: clone.to_owned(),
            _read_lock: clone_dir::read_lock(clone, Access::ReadOnly),
        };
        borrowed.fill()?;
        Ok(borrowed)
    }

    fn fill(&self) -> io::Result<()> {
        let (from, to) = (&self.original, &self.path);
        for file in FILES {
            match fs::copy(from.join(file), to.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        upkeep::copy(
            &from.join("refs"),
            &to.join("refs"),
            false,
            &StopFlag::new(),
        )?;
        fs::write(to.join(CONFIG_FILE), CONFIG)?;
        fs::create_dir_all(to.join("objects/pack"))?;
        fs::create_dir_all(to.join("objects/info"))?;
        // Absolute, because git resolves a relative path against the borrowing repository.
        let objects = from.join("objects").canonicalize()?;
        let line = format!(
            "{}\n",
            objects.to_str().ok_or(io::ErrorKind::InvalidFilename)?
        );
        fs::write(to.join("objects/info/alternates"), line)
    }
}

impl Drop for BorrowedClone {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::debug!(error = %error, path = %self.path.display(), "a temporary repository could not be removed");
        }
    }
}
