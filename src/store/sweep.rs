//! Removing what a crash left of files that were being written.

use std::fs;
use std::io;
use std::time::Duration;

use super::disk::Disk;
use super::eviction::visit;
use super::location::DiskUse;

/// How long nobody must have written to an unfinished file before it counts as left behind, where other mirrors may be
/// writing.
const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(3_600);

/// How far the time of writing, as a disk notes it, may be behind the clock.
const DISK_TIME_LAG: Duration = Duration::from_millis(20);

/// What `object_store` puts between the name of a file and a number while it writes the file.
const STAGING_MARK: char = '#';

impl Disk {
    /// Removes unfinished files, and returns their number. Blocking.
    pub(super) fn sweep(&self) -> io::Result<u64> {
        let now = self.now();
        let mut swept = 0;
        visit(&self.root, &mut |file| {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            if !name.contains(STAGING_MARK) || !name.contains(".crate") {
                return;
            }
            let is_left = match self.use_of {
                // This process may have begun to write by now.
                DiskUse::Alone => file.written_at + DISK_TIME_LAG < self.opened_at,
                DiskUse::Shared => {
                    let age = now.duration_since(file.written_at).unwrap_or_default();
                    age > LEFT_BEHIND_AFTER
                }
            };
            if is_left && fs::remove_file(&file.path).is_ok() {
                swept += 1;
            }
        })?;
        Ok(swept)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::path::Path;
    use std::time::SystemTime;

    use tempfile::TempDir;

    use super::*;
    use crate::clock::Clock;

    const STAGED: &str = "ab/cd/abcd.crate#1";

    fn write(root: &Path, name: &str, written_at: SystemTime) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(path).unwrap();
        file.set_times(FileTimes::new().set_modified(written_at))
            .unwrap();
    }

    #[test]
    fn what_was_begun_before_the_start_is_removed_and_what_is_being_written_is_not() {
        let clock = Clock::system();
        let now = clock.now();
        let seconds = Duration::from_secs;
        for (use_of, begun, swept) in [
            (DiskUse::Alone, now - seconds(1), 1),
            (DiskUse::Alone, now + seconds(1), 0),
            (DiskUse::Shared, now - seconds(2 * 3_600), 1),
            (DiskUse::Shared, now - seconds(60), 0),
            (DiskUse::Shared, now + seconds(1), 0),
        ] {
            let root = TempDir::new().unwrap();
            let disk = Disk::new(root.path().to_owned(), use_of, None, clock.clone());
            write(root.path(), STAGED, begun);
            write(root.path(), "ab/cd/abcd.crate", now - seconds(7_200));
            write(root.path(), "ab/cd/note#1", now - seconds(7_200));
            assert_eq!(disk.sweep().unwrap(), swept, "{use_of:?}");
            assert_eq!(root.path().join(STAGED).exists(), swept == 0);
            assert!(root.path().join("ab/cd/abcd.crate").exists());
            assert!(root.path().join("ab/cd/note#1").exists());
        }
    }
}
