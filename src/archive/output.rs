//! Writing an archive to a file, which appears when it is complete, or to standard output.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes that are written at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// An archive during writing. If it is dropped before [`Output::complete`], it leaves nothing behind.
pub(super) struct Output {
    /// The open file. For standard output: without the line buffer of `std`.
    writer: BufWriter<File>,
    /// The temporary file beside the target, and the target; `None` for standard output and for a complete archive.
    partial: Option<(PathBuf, PathBuf)>,
}

/// Opens the temporary file for this process only. A leftover of a killed export is overwritten.
fn open_partial(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            // Without locks, this cannot be known.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another export is writing it"));
            }
        }
        // Another export may have renamed or removed it just before the lock.
        let is_still_there = path
            .metadata()
            .is_ok_and(|there| file.metadata().is_ok_and(|own| own.ino() == there.ino()));
        if is_still_there {
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

/// Makes the name survive a crash of the machine. Not every file system supports this.
fn sync_directory_of(path: &Path) {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    drop(File::open(directory).and_then(|directory| directory.sync_all()));
}

impl Output {
    /// Begins an archive at this path; `-` is standard output.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        if target == Path::new("-") {
            let stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(io::Error::other("standard output is a terminal"));
            }
            let file = File::from(stdout.as_fd().try_clone_to_owned()?);
            return Ok(Self::new(file, None));
        }
        let name = target
            .file_name()
            .ok_or_else(|| io::Error::other("it is not the path of a file"))?;
        if target.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut partial = OsString::from(".");
        partial.push(name);
        partial.push(".partial");
        let partial = target.with_file_name(partial);
        let file = open_partial(&partial)?;
        Ok(Self::new(file, Some((partial, target.to_owned()))))
    }

    fn new(file: File, partial: Option<(PathBuf, PathBuf)>) -> Self {
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        Self { writer, partial }
    }

    /// Gives the archive its name.
    pub(super) fn complete(mut self) -> io::Result<()> {
        self.writer.flush()?;
        if let Some((partial, target)) = &self.partial {
            self.writer.get_ref().sync_all()?;
            fs::rename(partial, target)?;
            sync_directory_of(target);
        }
        self.partial = None;
        Ok(())
    }
}

impl Drop for Output {
    /// Removes the temporary file while it is still locked: until then no other export begins again.
    fn drop(&mut self) {
        if let Some((partial, _target)) = &self.partial {
            drop(fs::remove_file(partial));
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = directory.read_dir().unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn an_archive_gets_its_name_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.tar");
        let mut output = Output::create(&target).unwrap();
        output.write_all(b"content").unwrap();
        assert!(!target.exists());
        output.complete().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"content");
        assert_eq!(names(directory.path()), ["a.tar"]);
    }

    #[test]
    fn an_unfinished_archive_leaves_nothing_behind_and_the_old_one_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.tar");
        fs::write(&target, "old").unwrap();
        let mut output = Output::create(&target).unwrap();
        output.write_all(b"new").unwrap();
        drop(output);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["a.tar"]);
    }

    #[test]
    fn a_leftover_is_overwritten_and_the_file_of_a_running_export_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("a.tar");
        fs::write(
            directory.path().join(".a.tar.partial"),
            "much that was left",
        )
        .unwrap();
        let mut output = Output::create(&target).unwrap();
        assert!(Output::create(&target).is_err());
        output.write_all(b"content").unwrap();
        output.complete().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"content");
        assert_eq!(names(directory.path()), ["a.tar"]);
    }

    #[test]
    fn a_directory_cannot_be_the_target() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Output::create(directory.path()).is_err());
        assert!(Output::create(Path::new("/")).is_err());
    }
}
