//! Files that are being written, and the incomplete files of a crash.

use std::path::Path;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use crate::store::location::DiskUse;

/// The directory of unfinished files. Their names begin with a checksum and end in a random number.
pub(crate) const UPLOADS: &str = "uploads";

/// The age at which an incomplete file counts as a leftover, if other mirrors may be writing.
const LEFTOVER_AGE: Duration = Duration::from_secs(3_600);

/// How far the time of writing, as a disk notes it, may be behind the clock.
const DISK_TIME_LAG: Duration = Duration::from_millis(20);

/// The length of a checksum in hexadecimal.
const CHECKSUM_DIGITS: usize = 64;

/// Removes unfinished files of a crash, and returns their number. Blocking.
pub(super) fn remove_leftovers(
    root: &Path,
    use_of: DiskUse,
    opened_at: SystemTime,
    now: SystemTime,
) -> io::Result<u64> {
    let entries = match fs::read_dir(root.join(UPLOADS)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name.as_encoded_bytes().get(..CHECKSUM_DIGITS);
        let is_ours = digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        // A file without a time was removed meanwhile.
        let Ok(written_at) = entry.metadata().and_then(|metadata| metadata.modified()) else {
            continue;
        };
        let is_leftover = is_leftover(written_at, use_of, opened_at, now);
        if is_ours && is_leftover && fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_leftover(
    written_at: SystemTime,
    use_of: DiskUse,
    opened_at: SystemTime,
    now: SystemTime,
) -> bool {
    match (now.duration_since(written_at), use_of) {
        // A time so far in the future means that the clock was set back. The writer has ended long ago.
        (Err(ahead), _) if ahead.duration() > LEFTOVER_AGE => true,
        // This process may already be writing. Another process that writes loses one fetch.
        (_, DiskUse::Alone) => written_at + DISK_TIME_LAG < opened_at,
        (age, DiskUse::Shared) => age.is_ok_and(|age| age > LEFTOVER_AGE),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use tempfile::TempDir;

    use super::*;
    use crate::clock::Clock;

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
    fn leftovers_are_removed_and_files_that_are_being_written_are_not() {
        let now = Clock::system().now();
        let seconds = Duration::from_secs;
        for (use_of, begun, leftovers) in [
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
            let others = ["ab/cd/abcd.crate", "ab/cd/abcd.crate#1", "uploads/note#1"];
            write(root.path(), &staged(), begun);
            for other in others {
                write(root.path(), other, now - seconds(7_200));
            }
            let removed = remove_leftovers(root.path(), use_of, now, now);
            assert_eq!(removed.unwrap(), leftovers, "{use_of:?}");
            assert_eq!(root.path().join(staged()).exists(), leftovers == 0);
            for other in others {
                assert!(root.path().join(other).exists());
            }
        }
    }
}
