//! The files of a store on a disk, by a walk through its directories.
//!
//! Only what has the name and the place of a crate file counts: the directory may be the root of a disk, and hold things
//! of others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::package::Checksum;

/// What ends the name of a file.
pub(super) const EXTENSION: &str = ".crate";

/// A file that is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct WalkedFile {
    pub(super) checksum: Checksum,
    pub(super) size: u64,
    pub(super) used_at: SystemTime,
}

/// Where a file lies below the root of a store: `ab/cd/abcd….crate`, in directories of a size that tools can list.
pub(super) fn path_of(checksum: &Checksum) -> String {
    let name = checksum.to_string();
    let part = |from, to| name.get(from..to).unwrap_or_default();
    format!("{}/{}/{name}{EXTENSION}", part(0, 2), part(2, 4))
}

/// Shows every file. Blocking. What cannot be read is passed over, and the first such failure returned at the end.
pub(super) fn walk(root: &Path, found: &mut dyn FnMut(WalkedFile)) -> io::Result<()> {
    let mut failure = Ok(());
    for first in directories(root, &mut failure) {
        for second in directories(&first, &mut failure) {
            let below_root = second.strip_prefix(root).unwrap_or(&second).to_owned();
            for entry in entries(&second, &mut failure) {
                // Removed meanwhile, if it has none.
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                let Some(checksum) = checksum_of(&entry.file_name()) else {
                    continue;
                };
                let is_in_place = Path::new(&path_of(&checksum)).parent() == Some(&below_root);
                if is_in_place && metadata.is_file() {
                    found(WalkedFile {
                        checksum,
                        size: metadata.len(),
                        used_at: metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH),
                    });
                }
            }
        }
    }
    failure
}

/// The directories in which crate files may lie.
fn directories(path: &Path, failure: &mut io::Result<()>) -> Vec<PathBuf> {
    let is_ours = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        name.len() == 2 && name.iter().all(u8::is_ascii_hexdigit)
    };
    entries(path, failure)
        .into_iter()
        .filter(|entry| is_ours(entry) && entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn entries(path: &Path, failure: &mut io::Result<()>) -> Vec<fs::DirEntry> {
    let listed = fs::read_dir(path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    match listed {
        Ok(entries) => entries,
        // Removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            if failure.is_ok() {
                *failure = Err(error);
            }
            Vec::new()
        }
    }
}

fn checksum_of(name: &std::ffi::OsStr) -> Option<Checksum> {
    name.to_str()?.strip_suffix(EXTENSION)?.parse().ok()
}
