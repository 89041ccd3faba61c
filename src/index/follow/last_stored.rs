//! The stored files that the last tree through rules was made with. The next tree is made from that one and from what has
//! changed since.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::index::source::clone_dir::write_atomically;
use crate::package::Checksum;

/// The file in a clone, beside the record of the tree: the checksums as bytes, one after the other.
///
/// It can be older or newer than that record. The fingerprint in the record says whether both belong together.
const FILE: &str = "pruned-checksums";

/// Reads the set. `None` if there is none, or no complete one.
pub(super) fn read(clone: &Path) -> Option<HashSet<Checksum>> {
    let content = std::fs::read(clone.join(FILE)).ok()?;
    let (checksums, rest) = content.as_chunks::<32>();
    let checksums = checksums.iter().copied().map(Checksum::from);
    rest.is_empty().then(|| checksums.collect())
}

/// Writes the set.
///
/// # Errors
/// The system's. The next change of the stored files then costs as much as a first view.
pub(super) fn write(clone: &Path, stored: &HashSet<Checksum>) -> io::Result<()> {
    let content: Vec<u8> = stored.iter().flat_map(|found| *found.as_bytes()).collect();
    write_atomically(clone, FILE, &content)
}
