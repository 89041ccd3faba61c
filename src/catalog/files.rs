//! Where the database lies.
//!
//! ```text
//! {DATA_DIR}/catalog/
//!   lock               locked by the mirror that uses this directory
//!   building           a database that is being built; useless after a crash
//!   catalog-7.sqlite   the database, complete; with its log and the index of the log beside it
//! ```
//!
//! A new database gets its name by a rename when it is complete. Its number is new, because the log of a database is found
//! by its name, and must never be applied to another one.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::sqlite::{remove_database, remove_file};

const BUILDING: &str = "building";
const PREFIX: &str = "catalog-";
const SUFFIX: &str = ".sqlite";

/// The directory of the database. Everything here blocks.
#[derive(Debug)]
pub(super) struct CatalogDir {
    pub(super) path: PathBuf,
    /// Closing the file releases the lock, and so does a crash. `None` in a temporary directory.
    pub(super) lock: Option<File>,
}

impl CatalogDir {
    /// Makes a directory that is removed at the end.
    pub(super) fn temporary(temp_dir: &Path) -> io::Result<Self> {
        // Other users share the place, so the name cannot be guessed.
        let name = format!("crates-io-mirror-catalog-{:016x}", fastrand::u64(..));
        let path = temp_dir.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, lock: None })
    }

    /// Whether it is removed at the end.
    pub(super) fn is_temporary(&self) -> bool {
        self.lock.is_none()
    }

    /// The complete database, if there is one.
    pub(super) fn newest(&self) -> io::Result<Option<PathBuf>> {
        Ok(self.highest()?.map(|number| self.database(number)))
    }

    /// The path for a database that is to be built. Removes an unfinished one.
    pub(super) fn building(&self) -> io::Result<PathBuf> {
        let path = self.path.join(BUILDING);
        remove_file(&path)?;
        Ok(path)
    }

    /// Makes the built database the one in use, and returns its path.
    pub(super) fn activate(&self) -> io::Result<PathBuf> {
        let building = self.path.join(BUILDING);
        // Nothing of it was flushed so far.
        File::open(&building)?.sync_all()?;
        let path = self.database(self.highest()?.map_or(1, |number| number.saturating_add(1)));
        // A log without a database is what an operator may leave who removes only the database.
        remove_database(&path)?;
        fs::rename(building, &path)?;
        // Without this a power failure can undo the rename: the name is in the directory, which is written separately.
        File::open(&self.path)?.sync_all()?;
        Ok(path)
    }

    /// Removes everything of ours except for this database and its log.
    pub(super) fn sweep(&self, keep: &Path) -> io::Result<()> {
        let kept = keep.file_name().unwrap_or_default();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let is_kept = name.as_encoded_bytes().starts_with(kept.as_encoded_bytes());
            let is_ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
            if is_ours && !is_kept {
                remove_file(&self.path.join(name))?;
            }
        }
        remove_file(&self.path.join(BUILDING))
    }

    fn database(&self, number: u64) -> PathBuf {
        self.path.join(format!("{PREFIX}{number}{SUFFIX}"))
    }

    fn highest(&self) -> io::Result<Option<u64>> {
        let mut highest = None;
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| {
                let number = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
                number.parse().ok()
            });
            highest = highest.max(number);
        }
        Ok(highest)
    }
}

impl Drop for CatalogDir {
    fn drop(&mut self) {
        if self.is_temporary()
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::debug!(error = %error, path = %self.path.display(), "the temporary catalog could not be removed");
        }
    }
}
