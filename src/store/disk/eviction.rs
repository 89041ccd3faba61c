//! Keeping a directory of crate files within its limit: the least recently used files go first.
//!
//! The time of last use is the files' access time, which the mirror sets itself. So the order outlives a restart, and
//! several mirrors with one directory agree on it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use tokio::sync::Mutex;

use super::walk::walk;
use crate::disk_file::on_a_blocking_thread;
use crate::package::Checksum;
use crate::store::objects::path_of;

/// From this limit on, a little more is removed than necessary, because a walk over all files takes a while.
const SLACK_FROM_BYTES: u64 = 1024 * 1024 * 1024;

/// How much more: this fraction of the limit.
const SLACK_FRACTION: u64 = 64;

/// The limit of a directory, and roughly how many bytes are there.
#[derive(Debug)]
pub(super) struct SizeLimit {
    pub(super) bytes_max: u64,
    /// The bytes at the last look and those that came since. Other processes may have added more. Before the first look
    /// there are too many.
    bytes: AtomicU64,
    /// The lock of the task that walks over all files.
    look: Mutex<()>,
}

/// What was removed.
pub(super) struct Evicted {
    pub(super) files: Vec<Checksum>,
    /// The first failure. It does not end the removal of others.
    pub(super) failure: io::Result<()>,
    bytes_left: u64,
}

impl SizeLimit {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: AtomicU64::new(bytes_max.saturating_add(1)),
            look: Mutex::default(),
        }
    }

    /// How many bytes may stay when files are removed.
    fn target(&self) -> u64 {
        if self.bytes_max < SLACK_FROM_BYTES {
            self.bytes_max
        } else {
            self.bytes_max - self.bytes_max / SLACK_FRACTION
        }
    }

    /// Removes files if there are too many bytes, after a file of this size was added. That file stays.
    pub(super) async fn enforce(
        &self,
        root: &Path,
        newest: Option<(&Checksum, u64)>,
    ) -> io::Result<Evicted> {
        let size = newest.map_or(0, |(_checksum, size)| size);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        let _looking = self.look.lock().await;
        let bytes = self.bytes.load(Ordering::Relaxed);
        if bytes <= self.bytes_max {
            return Ok(Evicted {
                files: Vec::new(),
                failure: Ok(()),
                bytes_left: bytes,
            });
        }
        let (root, newest) = (root.to_owned(), newest.map(|(checksum, _size)| *checksum));
        let (bytes_max, target) = (self.bytes_max, self.target());
        let evict = move || Ok::<_, io::Error>(evict(&root, bytes_max, target, newest));
        let evicted = on_a_blocking_thread(evict).await?;
        self.bytes.store(evicted.bytes_left, Ordering::Relaxed);
        Ok(evicted)
    }
}

/// Blocking. Skips a file that cannot be read or removed.
fn evict(root: &Path, bytes_max: u64, target: u64, newest: Option<Checksum>) -> Evicted {
    let mut files = Vec::new();
    let mut failure = walk(root, &mut |file, used_at| files.push((used_at, file)));
    let mut left: u64 = files.iter().map(|(_used_at, file)| file.size).sum();
    let mut removed = Vec::new();
    if left > bytes_max {
        files.sort_by_key(|(used_at, _file)| *used_at);
        for (_used_at, file) in files {
            if left <= target {
                break;
            }
            if Some(file.checksum) == newest {
                continue;
            }
            match fs::remove_file(root.join(path_of(&file.checksum))) {
                Ok(()) => removed.push(file.checksum),
                // Another mirror has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    failure = failure.and(Err(error));
                    continue;
                }
            }
            left = left.saturating_sub(file.size);
        }
    }
    Evicted {
        files: removed,
        failure,
        bytes_left: left,
    }
}
