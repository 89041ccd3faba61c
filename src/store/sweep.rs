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
            let age = now.duration_since(file.written_at).unwrap_or_default();
            let is_left = self.use_of == DiskUse::Alone || age > LEFT_BEHIND_AFTER;
            if is_left && fs::remove_file(&file.path).is_ok() {
                swept += 1;
            }
        })?;
        Ok(swept)
    }
}
