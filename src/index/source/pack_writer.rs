//! Writes many git objects into packs. Single files for each object would take a hundred times as long, because each
//! file would be flushed to the disk.
//!
//! libgit2's `PackBuilder` can do this, too. It searches for deltas unless settings of the repository prevent that (200 s
//! of the 220 s of a view with 250,000 edited files), and compresses at zlib's usual level. The pack of a refresh takes
//! 4 ms here, and took 8 (`benches/compare/view.sh`). The roll-up in `upkeep.rs` compresses small packs again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use git2::build::TreeUpdateBuilder;
use git2::{
    ErrorCode, FileMode, Indexer, Mempack, ObjectType, Odb, OdbLookupFlags, Oid, Repository,
};
use sha1::{Digest as _, Sha1};

use super::clone_dir;
use crate::index::ids::ObjectId;
use crate::index::status::ProgressCell;

/// The bytes of objects that are collected in memory before they become a pack.
const GATHERED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The bytes of contents that wait in memory for the trees, to become one pack with them.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// Read-only, because packs never change.
pub(super) const PACK_MODE: u32 = 0o444;

/// The priority of the memory backend: higher than the backends of the repository, so libgit2 writes to memory.
const FIRST: i32 = 1_000;

/// Collects objects and writes them into packs.
pub(crate) struct PackWriter<'r> {
    git: &'r Repository,
    odb: &'r Odb<'r>,
    /// The same objects without those that are only in memory.
    written: Odb<'r>,
    gathered: Mempack<'r>,
    ids: Vec<Oid>,
    bytes: usize,
    progress: &'r ProgressCell,
}

/// Runs `work`, and writes its objects into packs of the repository at this path. After an error at most unreachable
/// objects remain.
pub(crate) fn write_packed<T, E: From<git2::Error>>(
    repository: &Path,
    progress: &ProgressCell,
    work: impl FnOnce(&mut PackWriter<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let git = Repository::open_bare(repository)?;
    let plain = Repository::open_bare(repository)?;
    let odb = git.odb()?;
    let mut writer = PackWriter {
        git: &git,
        odb: &odb,
        written: plain.odb()?,
        gathered: odb.add_new_mempack_backend(FIRST)?,
        ids: Vec::new(),
        bytes: 0,
        progress,
    };
    let made = work(&mut writer)?;
    writer.flush()?;
    Ok(made)
}

/// A change of a tree: a path, and the file that is there afterwards; `None` removes the file.
pub(crate) type TreeChange = (Vec<u8>, Option<(ObjectId, FileMode)>);

impl PackWriter<'_> {
    /// Applies changes to the tree `base`, or to an empty tree, and writes the result. Directories without files
    /// vanish.
    pub(crate) fn update_tree(
        &mut self,
        base: Option<ObjectId>,
        mut changes: Vec<TreeChange>,
    ) -> Result<ObjectId, git2::Error> {
        // Frees large contents before the trees are made.
        if self.bytes > KEPT_BYTES_MAX {
            self.flush()?;
        }
        let base = match base {
            Some(base) => base.to_oid()?,
            // libgit2 needs a base, so an empty tree is written first.
            None => self.git.treebuilder(None)?.write()?,
        };
        // libgit2 inserts each change into a sorted list. In sorted order each insertion is at the end, which is fast.
        changes.sort_by(|(left, _), (right, _)| left.cmp(right));
        // A tree of an upstream can list a name twice, and libgit2 refuses two changes of one path.
        changes.dedup_by(|(later, _), (first, _)| later == first);
        let mut updates = TreeUpdateBuilder::new();
        for (path, file) in &changes {
            match file {
                Some((id, mode)) => updates.upsert(&**path, id.to_oid()?, *mode),
                None => updates.remove(&**path),
            };
        }
        let base = self.git.find_tree(base)?;
        let updated = updates.create_updated(self.git, &base)?;
        let root = self.git.find_tree(updated)?;
        self.note_tree(updated);
        // The other new trees are on the way to a changed file. libgit2 does not report which trees it wrote.
        let directories = changes.iter().flat_map(|(path, _)| directories_of(path));
        for directory in directories.collect::<BTreeSet<_>>() {
            match root.get_path(Path::new(OsStr::from_bytes(directory))) {
                Ok(tree) => self.note_tree(tree.id()),
                // It has become empty.
                Err(error) if error.code() == ErrorCode::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(updated.into())
    }

    /// Collects a tree for the next pack, unless the repository has it.
    fn note_tree(&mut self, tree: Oid) {
        // NO_REFRESH: libgit2 would read the directory of packs again, and nothing else writes trees now.
        if !self.written.exists_ext(tree, OdbLookupFlags::NO_REFRESH) {
            self.ids.push(tree);
        }
    }

    /// Writes an object unless it exists already, and returns its id.
    pub(crate) fn write(
        &mut self,
        kind: ObjectType,
        content: &[u8],
    ) -> Result<ObjectId, git2::Error> {
        if self.progress.is_stopped() {
            return Err(git2::Error::from_str("stopped"));
        }
        let id = Oid::hash_object(kind, content)?;
        // Without a refresh: for each new object libgit2 would otherwise read the pack directory again.
        if !self.odb.exists_ext(id, OdbLookupFlags::NO_REFRESH) {
            self.ids.push(self.odb.write(kind, content)?);
            self.bytes += content.len();
            if self.bytes > GATHERED_BYTES_MAX {
                self.flush()?;
            }
        }
        Ok(id.into())
    }

    /// Writes the collected objects into a pack, and frees them.
    fn flush(&mut self) -> Result<(), git2::Error> {
        if self.ids.is_empty() {
            return Ok(());
        }
        // A tree that stands at two paths was noted twice, and a pack must not have an object twice.
        self.ids.sort_unstable();
        self.ids.dedup();
        let directory = clone_dir::pack_directory(self.git.path());
        let mut indexer = Indexer::new(Some(self.odb), &directory, PACK_MODE, false)?;
        self.write_pack(&mut indexer)?;
        indexer.commit()?;
        self.ids.clear();
        self.gathered.reset()?;
        self.bytes = 0;
        self.odb.refresh()
    }

    /// Writes the collected objects in the format of git's `gitformat-pack`, without deltas.
    fn write_pack(&self, indexer: &mut Indexer<'_>) -> Result<(), git2::Error> {
        let mut hash = Sha1::new();
        let mut write = |part: &[u8]| {
            hash.update(part);
            indexer.write_all(part).map_err(reason)
        };
        let count = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        // One for all: its tables take longer to make than most objects take to compress.
        // A large pack stays as it is, and git clients get its bytes.
        let level = if self.bytes > KEPT_BYTES_MAX {
            Compression::default()
        } else {
            Compression::fast()
        };
        let mut encoder = ZlibEncoder::new(Vec::new(), level);
        write(b"PACK\0\0\0\x02")?;
        write(&count.to_be_bytes())?;
        for id in &self.ids {
            if self.progress.is_stopped() {
                return Err(git2::Error::from_str("stopped"));
            }
            let object = self.odb.read(*id)?;
            let head = head_of(object.kind(), object.data().len());
            let packed = encoder.reset(head).and_then(|_empty| {
                encoder.write_all(object.data())?;
                encoder.reset(Vec::new())
            });
            write(&packed.map_err(reason)?)?;
        }
        indexer.write_all(&hash.finalize()).map_err(reason)
    }
}

/// The error of libgit2 that an `Indexer` has put into this one. It says whether the system refused.
pub(super) fn reason(error: io::Error) -> git2::Error {
    let other = |error: io::Error| git2::Error::from_str(&error.to_string());
    error.downcast().unwrap_or_else(other)
}

/// The directories above the file at this path: `se` and `se/rd` for `se/rd/serde`.
fn directories_of(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    ends.filter_map(|(end, _)| path.get(..end))
}

/// The head of an object in a pack: the kind in three bits, and the length in four bits, then seven bits in each byte. The
/// lowest come first, and the highest bit of a byte says that another byte follows.
fn head_of(kind: ObjectType, length: usize) -> Vec<u8> {
    let lowest_byte = |number: usize| number.to_le_bytes()[0];
    let kind = match kind {
        ObjectType::Tree => 2,
        // Nothing but trees and contents is written here.
        _ => 3,
    };
    let mut head = vec![kind << 4 | lowest_byte(length & 0x0f)];
    let mut rest = length >> 4;
    while rest > 0 {
        if let Some(last) = head.last_mut() {
            *last |= 0x80;
        }
        head.push(lowest_byte(rest & 0x7f));
        rest >>= 7;
    }
    head
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn objects_of_every_length_can_be_read_from_the_pack() {
        let directory = TempDir::new().unwrap();
        drop(Repository::init_bare(directory.path()).unwrap());
        // At each limit the head of an object gets a byte more.
        let contents: Vec<Vec<u8>> = [0, 1, 15, 16, 2_047, 2_048, 262_143, 262_144, 3_000_000]
            .map(|length| {
                (0..length)
                    .map(|n: usize| (n * n / 7).to_le_bytes()[0])
                    .collect()
            })
            .into();
        let progress = ProgressCell::default();
        let ids = write_packed::<_, git2::Error>(directory.path(), &progress, |writer| {
            let write = |content: &Vec<u8>| writer.write(ObjectType::Blob, content);
            contents.iter().map(write).collect::<Result<Vec<_>, _>>()
        })
        .unwrap();
        let git = Repository::open_bare(directory.path()).unwrap();
        for (id, content) in ids.iter().zip(&contents) {
            let blob = git.find_blob(id.to_oid().unwrap()).unwrap();
            assert_eq!(blob.content(), content, "{} bytes", content.len());
        }
        let check = std::process::Command::new("git")
            .args(["fsck", "--strict", "--no-dangling"])
            .current_dir(directory.path())
            .status();
        assert!(check.unwrap().success());
    }

    #[test]
    fn a_tree_at_two_paths_is_in_the_pack_once() {
        let directory = TempDir::new().unwrap();
        drop(Repository::init_bare(directory.path()).unwrap());
        let progress = ProgressCell::default();
        let tree = write_packed::<_, git2::Error>(directory.path(), &progress, |writer| {
            let blob = writer.write(ObjectType::Blob, b"content")?;
            let file = |path: &str| (path.into(), Some((blob, FileMode::Blob)));
            writer.update_tree(None, vec![file("one/file"), file("two/file")])
        })
        .unwrap();
        let git = Repository::open_bare(directory.path()).unwrap();
        let tree = git.find_tree(tree.to_oid().unwrap()).unwrap();
        let id = |name| tree.get_name(name).unwrap().id();
        assert_eq!(id("one"), id("two"));
        assert!(git.find_tree(id("one")).is_ok());
    }

    #[test]
    fn the_error_of_a_failed_write_keeps_its_reason() {
        let directory = TempDir::new().unwrap();
        let mut indexer = Indexer::new(None, directory.path(), PACK_MODE, false).unwrap();
        let error = reason(indexer.write_all(&[b'x'; 100]).unwrap_err());
        assert_eq!(error.class(), git2::ErrorClass::Indexer, "{error}");
        // A full disk is not damage, and no reason to refuse the upstream.
        let full = git2::Error::new(ErrorCode::GenericError, git2::ErrorClass::Os, "disk full");
        let kept = reason(io::Error::other(full));
        assert_eq!(kept.class(), git2::ErrorClass::Os);
    }
}
