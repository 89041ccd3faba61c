//! Keeping a directory of crate files within its bound: what was not used for longest goes first.
//!
//! The time of last use is the files' access time, which the mirror sets itself. So the order outlives a restart, and
//! several mirrors with one directory agree on it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use tokio::sync::Mutex;

use super::Disk;
use super::walk::{path_of, walk};
use crate::package::Checksum;

/// Above this bound a little more room is made than is needed, because looking at all files takes a while.
const SLACK_FROM_BYTES: u64 = 1024 * 1024 * 1024;

/// How much more: one part in so many.
const SLACK_PART: u64 = 64;

/// The bound of a directory, and about how much lies there.
#[derive(Debug)]
pub(crate) struct Bound {
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

impl Bound {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: AtomicU64::new(0),
            look: Mutex::new(Looked::Never),
        }
    }

    /// How many bytes may lie there.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
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
    pub(crate) async fn make_room(&self, newest: Option<(&Checksum, u64)>) -> io::Result<u64> {
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
            .map_err(io::Error::other)?;
        bound.bytes.store(cleared.bytes_left, Ordering::Relaxed);
        *looked = Looked::Before;
        for checksum in &cleared.removed {
            self.forget(checksum);
        }
        cleared.failure?;
        Ok(cleared.removed.len() as u64)
    }
}

struct Cleared {
    bytes_left: u64,
    removed: Vec<Checksum>,
    failure: io::Result<()>,
}

/// Blocking. What cannot be read or removed does not keep others from making room.
fn clear(root: &Path, bytes_max: u64, target: u64, newest: Option<Checksum>) -> Cleared {
    let mut files = Vec::new();
    let mut failure = walk(root, &mut |file| files.push(file));
    let mut left: u64 = files.iter().map(|file| file.size).sum();
    let mut removed = Vec::new();
    if left > bytes_max {
        files.sort_by_key(|file| file.used_at);
        for file in files {
            if left <= target {
                break;
            }
            if Some(file.checksum) == newest {
                continue;
            }
            match fs::remove_file(root.join(path_of(&file.checksum))) {
                Ok(()) => removed.push(file.checksum),
                // Another mirror was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    failure = failure.and(Err(error));
                    continue;
                }
            }
            left = left.saturating_sub(file.size);
        }
    }
    Cleared {
        bytes_left: left,
        removed,
        failure,
    }
}
