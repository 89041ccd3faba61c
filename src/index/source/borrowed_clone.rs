//! A repository in the temporary directory that stands for a clone which cannot be written to.
//!
//! It has the clone's references and borrows its objects, so it is small. What the mirror makes of an index, a pruned tree
//! or the git index, is written here. Its configuration is our own, whoever prepared the clone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::clone_dir::{self, Access, CONFIG, CONFIG_FILE, remove_tree};
use super::upkeep;
use crate::index::stop::StopFlag;

/// What a bare clone has beside its objects and references. Nothing else is taken from it.
const FILES: [&str; 4] = ["HEAD", "packed-refs", "shallow", "pruned.json"];

/// The repository; removed when this is dropped.
#[derive(Debug)]
pub(crate) struct BorrowedClone {
    path: PathBuf,
    original: PathBuf,
    /// Keeps other processes from removing the original, where that is possible.
    _read_lock: Option<File>,
}

impl BorrowedClone {
    /// Makes one for this clone. Blocking.
    pub(crate) fn make(clone: &Path, temp_dir: &Path) -> io::Result<Self> {
        // Others may use the directory, too: a name that can be guessed could be taken, or belong to another mirror.
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
        let objects = from.join("objects").canonicalize()?;
        let line = format!(
            "{}\n",
            objects.to_str().ok_or(io::ErrorKind::InvalidFilename)?
        );
        fs::write(to.join("objects/info/alternates"), line)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The clone that it stands for.
    pub(crate) fn original(&self) -> &Path {
        &self.original
    }
}

impl Drop for BorrowedClone {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::debug!(error = %error, path = %self.path.display(), "a temporary repository could not be removed");
        }
    }
}
