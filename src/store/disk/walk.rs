//! The files of a store on a disk, by a walk through its directories.
//!
//! Only files with the name and the place of a crate file count: the directory can be the root of a disk, and contain
//! other files.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use crate::package::Checksum;
use crate::store::objects::{EXTENSION, ListedFile, path_of};

/// Shows every complete file, and when it was last used. Blocking. Skips unreadable files, and returns the first such failure at the end.
pub(super) fn walk(root: &Path, found: &mut dyn FnMut(ListedFile, SystemTime)) -> io::Result<()> {
    let mut failure = Ok(());
    for first in directories(root, &mut failure) {
        for second in directories(&first, &mut failure) {
            let below_root = second.strip_prefix(root).unwrap_or(&second).to_owned();
            for entry in entries(&second, &mut failure) {
                // A file without metadata was removed meanwhile.
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                let Some(checksum) = checksum_of(&entry.file_name()) else {
                    continue;
                };
                let is_in_place =
                    below_root.join(entry.file_name()) == Path::new(&path_of(&checksum));
                if is_in_place && metadata.is_file() {
                    let size = metadata.len();
                    let used_at = metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH);
                    found(ListedFile { checksum, size }, used_at);
                }
            }
        }
    }
    failure
}

/// The directories that can contain crate files.
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
        // It was removed meanwhile.
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::TempDir;

    use super::*;

    fn write(root: &Path, name: &str, size: usize) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![7; size]).unwrap();
    }

    /// The files below a directory, and whether all of it could be read.
    fn found(root: &Path) -> (Vec<(String, u64)>, io::Result<()>) {
        let mut files = Vec::new();
        let walked = walk(root, &mut |file, _used_at| {
            files.push((file.checksum.to_string(), file.size));
        });
        files.sort();
        (files, walked)
    }

    #[test]
    fn files_with_the_name_and_the_place_of_a_crate_file_are_found() {
        let root = TempDir::new().unwrap();
        let sums = ["0", "a", "f"].map(|digit| digit.repeat(64));
        for (size, sum) in sums.iter().enumerate() {
            let place = path_of(&sum.parse().unwrap());
            let digits = sum.split_at(2).0;
            assert_eq!(place, format!("{digits}/{digits}/{sum}.crate"));
            write(root.path(), &place, size);
        }
        let (files, walked) = found(root.path());
        walked.unwrap();
        assert_eq!(files, sums.into_iter().zip(0..).collect::<Vec<_>>());
    }

    #[test]
    fn other_things_in_the_directory_are_not_found() {
        let root = TempDir::new().unwrap();
        let sum = "a".repeat(64);
        for name in [
            format!("backup/aa/aa/{sum}.crate"),
            format!("aa/{sum}.crate"),
            format!("{sum}.crate"),
            format!("aa/bb/{sum}.crate"),
            format!("bb/aa/{sum}.crate"),
            format!("aa/aa/more/{sum}.crate"),
            format!("aa/aa/{sum}"),
            format!("aa/aa/{sum}.crate#1"),
            format!("aa/aa/{}.crate", "a".repeat(63)),
            format!("aa/aa/{}.crate", "A".repeat(64)),
            format!("AA/AA/{}.crate", "A".repeat(64)),
            "aa/aa/notes.crate".to_owned(),
            "bb/cc".to_owned(),
            "cc".to_owned(),
            "notes.crate#old".to_owned(),
            format!("uploads/{sum}-0123456789abcdef"),
        ] {
            write(root.path(), &name, 1);
        }
        // Neither is a directory with such a name, nor what a link leads to.
        let other = "b".repeat(64);
        fs::create_dir_all(root.path().join(format!("bb/bb/{other}.crate"))).unwrap();
        let elsewhere = TempDir::new().unwrap();
        let sum = "d".repeat(64);
        write(elsewhere.path(), &format!("dd/{sum}.crate"), 1);
        symlink(elsewhere.path(), root.path().join("dd")).unwrap();
        let (files, walked) = found(root.path());
        walked.unwrap();
        assert_eq!(files, []);
    }

    #[test]
    fn an_unreadable_directory_hides_nothing_else() {
        let root = TempDir::new().unwrap();
        let sums = ["0", "a", "f"].map(|digit| digit.repeat(64));
        for sum in &sums {
            write(root.path(), &path_of(&sum.parse().unwrap()), 1);
        }
        let closed = root.path().join("aa");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        let (files, walked) = found(root.path());
        let is_root = fs::read_dir(&closed).is_ok();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        // Permissions mean nothing to root.
        assert_eq!(files.len(), if is_root { 3 } else { 2 });
        assert_eq!(walked.is_ok(), is_root);
    }

    #[test]
    fn a_missing_store_is_empty() {
        let root = TempDir::new().unwrap();
        let (files, walked) = found(&root.path().join("nothing"));
        walked.unwrap();
        assert_eq!(files, []);
        // A store that is no directory cannot be read.
        write(root.path(), "file", 1);
        let (files, walked) = found(&root.path().join("file"));
        assert!(files.is_empty() && walked.is_err());
    }
}
