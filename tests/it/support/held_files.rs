//! A look into the directory in which a mirror keeps crate files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::content::checksum;

/// What lies in a store at one moment.
#[derive(Debug, Default)]
pub(crate) struct HeldFiles {
    /// The checksums of the crate files; each was verified.
    pub(crate) checksums: BTreeSet<String>,
    /// Files that are being written, or were when the mirror ended.
    pub(crate) staged: Vec<PathBuf>,
    /// The length of all files together.
    pub(crate) bytes: u64,
}

impl HeldFiles {
    /// Looks through a directory, and fails if any crate file is not what its name says. One that is not there holds
    /// nothing.
    #[track_caller]
    pub(crate) fn look(store: &Path) -> Self {
        let mut held = Self::default();
        held.look_below(store, &[]);
        held
    }

    #[track_caller]
    fn look_below(&mut self, directory: &Path, names: &[String]) {
        // Directories and files come and go meanwhile.
        let Ok(entries) = std::fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if path.is_dir() {
                self.look_below(&path, &[names, &[name]].concat());
            } else if name.contains('#') {
                self.staged.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                let found = checksum(&bytes);
                assert_eq!(name, format!("{found}.crate"), "in {}", path.display());
                let expected = [found[..2].to_owned(), found[2..4].to_owned()];
                assert_eq!(names, expected, "{}", path.display());
                self.bytes += u64::try_from(bytes.len()).unwrap();
                self.checksums.insert(found);
            }
        }
    }
}

/// Where a store keeps the file with this checksum.
pub(crate) fn held_path(store: &Path, checksum: &str) -> PathBuf {
    let (first, second) = (&checksum[..2], &checksum[2..4]);
    store
        .join(first)
        .join(second)
        .join(format!("{checksum}.crate"))
}
