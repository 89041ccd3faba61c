//! Where an archive is written to: a file that appears when it is complete, or standard output.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Bytes that are written at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// An archive that is being written. Dropped before [`Output::complete`], it leaves nothing behind.
pub(super) enum Output {
    /// A file beside the one that it will be.
    File {
        writer: BufWriter<File>,
        partial: Partial,
        target: PathBuf,
    },
    /// Standard output.
    Standard(io::Stdout),
}

/// Removes its file when it is dropped.
pub(super) struct Partial(PathBuf);

impl Output {
    /// Begins an archive at this path; `-` is standard output.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        if target == Path::new("-") {
            let stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(io::Error::other("standard output is a terminal"));
            }
            return Ok(Self::Standard(stdout));
        }
        let name = target
            .file_name()
            .ok_or_else(|| io::Error::other("it is not the path of a file"))?;
        if target.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut partial = OsString::from(".");
        partial.push(name);
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = target.with_file_name(partial);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&partial)?;
        Ok(Self::File {
            writer: BufWriter::with_capacity(BUFFER_BYTES, file),
            partial: Partial(partial),
            target: target.to_owned(),
        })
    }

    /// Gives the archive its name.
    pub(super) fn complete(self) -> io::Result<()> {
        match self {
            Self::File {
                writer,
                partial,
                target,
            } => {
                let file = writer
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)?;
                file.sync_all()?;
                fs::rename(&partial.0, &target)
            }
            Self::Standard(mut stdout) => stdout.flush(),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the renaming there is nothing to remove.
        drop(fs::remove_file(&self.0));
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { writer, .. } => writer.write(bytes),
            Self::Standard(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { writer, .. } => writer.flush(),
            Self::Standard(stdout) => stdout.flush(),
        }
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
    fn an_archive_has_its_name_only_when_it_is_complete() {
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
    fn one_that_is_given_up_leaves_nothing_behind_and_the_old_one_in_place() {
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
    fn a_directory_is_no_target() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Output::create(directory.path()).is_err());
        assert!(Output::create(Path::new("/")).is_err());
    }
}
