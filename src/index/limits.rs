//! How large an upstream may make things. What is larger is refused before it is read: an upstream, or an archive, can
//! describe objects of any size in a few bytes.

use git2::{ErrorClass, ObjectType, Odb, Oid};

use super::source::libgit2::read_header;

/// The largest index file that is read. The largest real one has 5 MB.
pub(crate) const INDEX_FILE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The largest tree that is read: about 200,000 entries.
pub(crate) const TREE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The largest commit that is read.
pub(crate) const COMMIT_BYTES_MAX: usize = 1024 * 1024;

/// Tree entries that are looked at for one snapshot. An index of a million crates has about 1.5 million.
pub(crate) const ENTRIES_READ_MAX: usize = 4_000_000;

/// Bytes of trees that are read for one snapshot. An index of a million crates has about 60 MB.
pub(crate) const TREES_READ_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Index files in one snapshot, of about 50 bytes of memory each.
pub(crate) const FILES_MAX: usize = 2_000_000;

/// Directories in one snapshot, of about 150 bytes of memory each.
pub(crate) const DIRECTORIES_MAX: usize = 500_000;

/// Different trees that are read for one snapshot, of about 40 bytes of memory each while they are read.
pub(crate) const TREES_MAX: usize = 600_000;

/// Objects in one pack. An index of a million crates has about 1.5 million.
pub(crate) const PACK_OBJECTS_MAX: usize = 4_000_000;

/// Bytes of one transfer. A full index has 230 MB.
pub(crate) const TRANSFER_BYTES_MAX: usize = 4 * 1024 * 1024 * 1024;

/// Why something cannot be read from a clone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// Something that the snapshot lists is missing or damaged, or the system refuses.
    #[error("the clone of the index cannot be read")]
    Git(#[source] git2::Error),
    /// An object is too large. The clone is sound.
    #[error("{0}")]
    TooLarge(String),
    /// The index as a whole is too large. The clone is sound.
    #[error("the upstream index is refused: {0}")]
    Refused(String),
    /// The mirror ends.
    #[error("stopped")]
    Stopped,
}

impl ReadError {
    /// Whether the clone may be damaged. An object that is too large, or a stop, does not mean damage.
    pub(crate) fn may_be_damage(&self) -> bool {
        matches!(self, Self::Git(_))
    }

    /// Whether the system refused, most often for want of file descriptors, which says nothing of the clone.
    pub(crate) fn is_the_systems(&self) -> bool {
        matches!(self, Self::Git(error) if error.class() == ErrorClass::Os)
    }
}

impl From<git2::Error> for ReadError {
    fn from(error: git2::Error) -> Self {
        match error.class() {
            // The allocator has refused it (`libgit2`): the object, or one that it is a difference to, is too large.
            ErrorClass::NoMemory => {
                Self::TooLarge("an object needs more memory than the mirror allows".to_owned())
            }
            _ => Self::Git(error),
        }
    }
}

/// Looks at an object's kind and size without unpacking it, and returns the size.
pub(crate) fn check_size(
    odb: &Odb<'_>,
    id: Oid,
    kind: ObjectType,
    bytes_max: usize,
) -> Result<usize, ReadError> {
    let (bytes, found) = read_header(odb, id)?;
    let Some(found) = found else {
        return Err(git2::Error::from_str("an object has no known kind").into());
    };
    if found != kind {
        // Whoever made the tree can name any object in it.
        return Err(ReadError::Refused(format!(
            "the object {id} is a {found}, not a {kind}"
        )));
    }
    if bytes > bytes_max {
        return Err(ReadError::TooLarge(format!(
            "the {kind} {id} has {bytes} bytes, and the mirror reads {bytes_max} at most"
        )));
    }
    Ok(bytes)
}
