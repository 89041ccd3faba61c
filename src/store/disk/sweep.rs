//! Removing what a crash left of files that were being written.

use std::time::{Duration, SystemTime};
use std::{fs, io};

use super::Disk;
use crate::store::location::DiskUse;

/// Where files are put together. Their names begin with a checksum, and end in a number that nobody else makes up.
pub(crate) const UPLOADS: &str = "uploads";

/// How long nobody must have written to an unfinished file before it counts as left behind, where other mirrors may be
/// writing.
const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(3_600);

/// How far the time of writing, as a disk notes it, may be behind the clock.
const DISK_TIME_LAG: Duration = Duration::from_millis(20);

/// The length of a checksum in hexadecimal.
const CHECKSUM_DIGITS: usize = 64;

impl Disk {
    /// Removes unfinished files, and returns their number. Blocking.
    pub(crate) fn sweep(&self) -> io::Result<u64> {
        let entries = match fs::read_dir(self.root.join(UPLOADS)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut swept = 0;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let digits = name.as_encoded_bytes().get(..CHECKSUM_DIGITS);
            let is_ours = digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
            // Removed meanwhile, if it has no time.
            let Ok(written_at) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            if is_ours && self.is_left_behind(written_at) && fs::remove_file(entry.path()).is_ok() {
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn is_left_behind(&self, written_at: SystemTime) -> bool {
        let age = self.now().duration_since(written_at);
        // So far ahead, the clock was set back since, and whoever wrote it is long gone.
        if age
            .as_ref()
            .is_err_and(|ahead| ahead.duration() > LEFT_BEHIND_AFTER)
        {
            return true;
        }
        match self.use_of {
            // This process may have begun to write by now. Another one that does loses a fetch, and nothing else.
            DiskUse::Alone => written_at + DISK_TIME_LAG < self.opened_at,
            DiskUse::Shared => age.is_ok_and(|age| age > LEFT_BEHIND_AFTER),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::clock::Clock;
    use crate::store::DamagedFiles;

    /// Of a checksum that is all `a`.
    fn staged() -> String {
        format!("uploads/{}-0123456789abcdef#1", "a".repeat(64))
    }

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
            // The clock was set back by a day.
            (DiskUse::Alone, now + seconds(86_400), 1),
            (DiskUse::Shared, now + seconds(86_400), 1),
        ] {
            let root = TempDir::new().unwrap();
            let leave = DamagedFiles::Leave;
            let disk = Disk::new(root.path().to_owned(), use_of, None, leave, clock.clone());
            let others = ["ab/cd/abcd.crate", "ab/cd/abcd.crate#1", "uploads/note#1"];
            write(root.path(), &staged(), begun);
            for other in others {
                write(root.path(), other, now - seconds(7_200));
            }
            assert_eq!(disk.sweep().unwrap(), swept, "{use_of:?}");
            assert_eq!(root.path().join(staged()).exists(), swept == 0);
            for other in others {
                assert!(root.path().join(other).exists());
            }
        }
    }
}
