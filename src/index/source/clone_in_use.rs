//! Reads the clone in use, even if a mirror is running on it: without its lock, and without a write.

use std::path::Path;
use std::sync::Arc;

use super::clone_dir::{self, Access};
use super::repository::Repository;
use crate::index::limits::ReadError;

/// The number of attempts to open the clone in use, if the mirror replaces and removes it meanwhile.
const ATTEMPTS_MAX: u32 = 5;

/// Opens the clone in use in a directory of clones, and passes it to `read`. Returns `None` if there is no clone. The
/// mirror does not remove the clone as long as the repository exists. Blocking.
pub(crate) fn read_clone_in_use<T>(
    root: &Path,
    read: impl Fn(&Path, Arc<Repository>) -> Result<T, ReadError>,
) -> Result<Option<T>, ReadError> {
    let mut attempts = 1;
    loop {
        let Some(path) = clone_dir::current(root) else {
            return Ok(None);
        };
        // The mirror removes such files from its clones. Here they would take effect.
        if clone_dir::leads_elsewhere(&path) {
            let why = "the clone on disk points to another repository";
            return Err(ReadError::Refused(why.to_owned()));
        }
        let opened = Repository::open(&path, Access::ReadOnly);
        match opened.and_then(|repository| read(&path, Arc::new(repository))) {
            Ok(content) => return Ok(Some(content)),
            // The mirror may have replaced and removed the clone before the read lock.
            Err(_removed)
                if attempts < ATTEMPTS_MAX && clone_dir::current(root).as_ref() != Some(&path) =>
            {
                attempts += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
