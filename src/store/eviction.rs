//! Keeping a directory of crate files within its bound: what was not used for longest goes first.
//!
//! The time of last use is the files' access time, which the mirror sets itself. So the order outlives a restart, and
//! several mirrors with one directory agree on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::Mutex;

use super::disk::Disk;
use crate::package::Checksum;

/// Above this bound a little more room is made than is needed, because looking at all files takes a while.
const SLACK_FROM_BYTES: u64 = 1024 * 1024 * 1024;

/// How much more: one part in so many.
const SLACK_PART: u64 = 64;

/// The bound of a directory, and about how much lies there.
#[derive(Debug)]
pub(super) struct Bound {
    bytes_max: u64,
    /// What lay there at the last look, and what came since. Other processes may have added more.
    bytes: AtomicU64,
    /// Whoever holds it looks at all files.
    look: Mutex<Looked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    Never,
    Before,
}

/// A file that may have to go.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    used_at: SystemTime,
    pub(super) written_at: SystemTime,
}

impl Bound {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: AtomicU64::new(0),
            look: Mutex::new(Looked::Never),
        }
    }

    /// What is to be left when room is made.
    fn target(&self) -> u64 {
        if self.bytes_max < SLACK_FROM_BYTES {
            self.bytes_max
        } else {
            self.bytes_max - self.bytes_max / SLACK_PART
        }
    }
}

impl Disk {
    /// Makes room if there is too much, now that a file of so many bytes has come. That one stays. Returns how many went.
    pub(super) async fn make_room(&self, newest: Option<(&Checksum, u64)>) -> io::Result<u64> {
        let Some(bound) = &self.bound else {
            return Ok(0);
        };
        let size = newest.map_or(0, |(_checksum, size)| size);
        bound.bytes.fetch_add(size, Ordering::Relaxed);
        let mut looked = bound.look.lock().await;
        if *looked == Looked::Before && bound.bytes.load(Ordering::Relaxed) <= bound.bytes_max {
            return Ok(0);
        }
        let (root, newest) = (self.root.clone(), newest.map(|(checksum, _size)| *checksum));
        let (bytes_max, target) = (bound.bytes_max, bound.target());
        let work = move || clear(&root, bytes_max, target, newest);
        let cleared = tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)??;
        bound.bytes.store(cleared.bytes_left, Ordering::Relaxed);
        *looked = Looked::Before;
        for checksum in &cleared.removed {
            self.forget(checksum);
        }
        Ok(cleared.removed.len() as u64)
    }
}

struct Cleared {
    bytes_left: u64,
    removed: Vec<Checksum>,
}

/// Blocking.
fn clear(
    root: &Path,
    bytes_max: u64,
    target: u64,
    newest: Option<Checksum>,
) -> io::Result<Cleared> {
    let mut candidates = Vec::new();
    visit(root, &mut |candidate| candidates.push(candidate))?;
    let mut left: u64 = candidates.iter().map(|candidate| candidate.size).sum();
    let mut removed = Vec::new();
    if left > bytes_max {
        candidates.sort_by_key(|candidate| candidate.used_at);
        for candidate in candidates {
            if left <= target {
                break;
            }
            let Some(checksum) = checksum_of(&candidate.path) else {
                continue;
            };
            if Some(checksum) == newest {
                continue;
            }
            match fs::remove_file(&candidate.path) {
                Ok(()) => removed.push(checksum),
                // Another mirror was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            left = left.saturating_sub(candidate.size);
        }
    }
    Ok(Cleared {
        bytes_left: left,
        removed,
    })
}

/// The checksum of a file that is complete.
fn checksum_of(path: &Path) -> Option<Checksum> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".crate")?.parse().ok()
}

/// Visits every file below a directory, two levels down as the keys have it. Blocking.
pub(super) fn visit(root: &Path, found: &mut dyn FnMut(Candidate)) -> io::Result<()> {
    for entry in read_directory(root)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else {
            // Removed meanwhile.
            continue;
        };
        if metadata.is_dir() {
            visit(&entry.path(), found)?;
        } else if metadata.is_file() {
            found(Candidate {
                path: entry.path(),
                size: metadata.len(),
                used_at: metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH),
                written_at: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
    }
    Ok(())
}

fn read_directory(path: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}
