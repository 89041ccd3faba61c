//! A look into the directory of a store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::content::checksum;

/// The files of a store at one moment.
#[derive(Debug, Default)]
pub(crate) struct StoredFiles {
    /// The checksums of the crate files. Each was verified.
    pub(crate) checksums: BTreeSet<String>,
    /// Files that are being written, or that a killed mirror was writing.
    pub(crate) staged: Vec<PathBuf>,
    /// The length of all files together.
    pub(crate) bytes: u64,
}

impl StoredFiles {
    /// Reads a directory, and fails if a crate file is not what its name says. A directory that does not exist has no
    /// files.
    #[track_caller]
    pub(crate) fn look(store: &Path) -> Self {
        let mut held = Self::default();
        held.look_below(store, store);
        held
    }

    #[track_caller]
    fn look_below(&mut self, directory: &Path, store: &Path) {
        // Directories and files can disappear in the meantime.
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if path.is_dir() {
                self.look_below(&path, store);
            } else if name.contains('#') {
                self.staged.push(path);
            } else if name.ends_with(".crate")
                && let Ok(bytes) = std::fs::read(&path)
            {
                let found = checksum(&bytes);
                assert_eq!(path, stored_path(store, &found), "the file has other bytes");
                self.bytes += u64::try_from(bytes.len()).unwrap();
                self.checksums.insert(found);
            }
        }
    }
}

/// The path of the file with this checksum in a store.
pub(crate) fn stored_path(store: &Path, checksum: &str) -> PathBuf {
    let (first, rest) = checksum.split_at(2);
    let (second, _) = rest.split_at(2);
    store
        .join(first)
        .join(second)
        .join(format!("{checksum}.crate"))
}
