//! Writes many git objects into packs. Single files for each object would take a hundred times as long, because each
//! file would be flushed to the disk.
//!
//! libgit2's `PackBuilder` can do this, too. It searches for deltas unless settings of the repository prevent that (200 s
//! of the 220 s of a view with 250,000 edited files), and compresses at zlib's usual level. Its `Indexer` unpacks and
//! hashes each object again to make the index of a pack. The pack of a refresh takes 3 ms here, and took 8 with both
//! (`benches/compare/view.sh`). The roll-up in `upkeep.rs` compresses small packs again.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use git2::{FileMode, ObjectType, Odb, OdbLookupFlags, OdbObject, Repository};
use sha1::{Digest as _, Sha1};

use super::clone_dir;
use super::tree_edit::{EntryChange, edited};
use super::trees::{Entries, RawEntry};
use crate::index::ids::ObjectId;
use crate::index::limits::WriteError;
use crate::index::status::ProgressCell;
use crate::package::write_hex;

/// The bytes of objects that are collected in memory before they become a pack.
const GATHERED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The bytes of contents that wait in memory for the trees, to become one pack with them.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// Collects objects and writes them into packs.
pub(crate) struct PackWriter<'r> {
    repository: &'r Repository,
    odb: &'r Odb<'r>,
    gathered: BTreeMap<ObjectId, (ObjectType, Vec<u8>)>,
    bytes: usize,
    progress: &'r ProgressCell,
}

/// Runs `work`, and writes its objects into packs of the repository at this path. After an error at most unreachable
/// objects remain.
pub(crate) fn write_packed<T, E: From<WriteError>>(
    repository: &Path,
    progress: &ProgressCell,
    work: impl FnOnce(&mut PackWriter<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let repository = Repository::open_bare(repository).map_err(WriteError::from)?;
    let odb = repository.odb().map_err(WriteError::from)?;
    let mut writer = PackWriter {
        repository: &repository,
        odb: &odb,
        gathered: BTreeMap::new(),
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
    /// Applies changes to the tree `base` of the repository, or to an empty tree, and writes the result. Directories
    /// without files vanish.
    pub(crate) fn update_tree(
        &mut self,
        base: Option<ObjectId>,
        mut changes: Vec<TreeChange>,
    ) -> Result<ObjectId, WriteError> {
        // Frees large contents before the trees are made.
        if self.bytes > KEPT_BYTES_MAX {
            self.flush()?;
        }
        changes.sort_by(|(left, _), (right, _)| left.cmp(right));
        // An upstream's tree can list a name twice, so there can be two changes of one path. The first one counts.
        changes.dedup_by(|(later, _), (first, _)| later == first);
        let content = self.updated(base, &changes, 0)?;
        self.write(ObjectType::Tree, content)
    }

    /// The content of a directory after these changes. `start` is where the names of its entries start in the paths.
    fn updated(
        &mut self,
        base: Option<ObjectId>,
        changes: &[TreeChange],
        start: usize,
    ) -> Result<Vec<u8>, WriteError> {
        let odb = self.odb;
        let base = base.map(|base| odb.read(base.to_oid()?)).transpose()?;
        let base = base.as_ref().map_or(&[][..], OdbObject::data);
        // Once for all changes: an upstream's root can have many other entries.
        let below: HashMap<&[u8], ObjectId> =
            if changes.iter().any(|(path, _)| entry_at(path, start).1) {
                let trees = Entries(base).flatten().filter(RawEntry::is_tree);
                trees.map(|tree| (tree.name, tree.id)).collect()
            } else {
                HashMap::new()
            };
        let mut entries = Vec::new();
        // Sorted by path, so the changes of an entry follow each other.
        for group in changes
            .chunk_by(|(left, _), (right, _)| entry_at(left, start) == entry_at(right, start))
        {
            let Some((path, file)) = group.first() else {
                continue;
            };
            let (name, is_tree) = entry_at(path, start);
            let (mode, id) = match file {
                _ if is_tree => {
                    let before = below.get(name).copied();
                    let content = self.updated(before, group, start + name.len() + 1)?;
                    let id = if content.is_empty() {
                        None
                    } else {
                        Some(self.write(ObjectType::Tree, content)?)
                    };
                    (FileMode::Tree, id)
                }
                Some((id, mode)) => (*mode, Some(*id)),
                None => (FileMode::Blob, None),
            };
            entries.push(EntryChange { name, mode, id });
        }
        Ok(edited(base, &entries)?)
    }

    /// Writes an object unless it exists already, and returns its id.
    pub(crate) fn write(
        &mut self,
        kind: ObjectType,
        mut content: Vec<u8>,
    ) -> Result<ObjectId, WriteError> {
        if self.progress.is_stopped() {
            return Err(git2::Error::from_str("stopped").into());
        }
        let id = ObjectId::of(kind, &content);
        // NO_REFRESH: for each new object libgit2 would otherwise read the directory of packs again.
        let exists = |id: ObjectId| {
            Ok::<_, git2::Error>(
                self.odb
                    .exists_ext(id.to_oid()?, OdbLookupFlags::NO_REFRESH),
            )
        };
        if !self.gathered.contains_key(&id) && !exists(id)? {
            content.shrink_to_fit();
            self.bytes += content.len();
            self.gathered.insert(id, (kind, content));
            if self.bytes > GATHERED_BYTES_MAX {
                self.flush()?;
            }
        }
        Ok(id)
    }

    /// Writes the collected objects into a pack, and frees them.
    fn flush(&mut self) -> Result<(), WriteError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let packed = self.pack()?;
        // Freed before the pack is written: the objects can be as large again.
        self.gathered.clear();
        self.bytes = 0;
        let directory = clone_dir::pack_directory(self.repository.path());
        let name = packed.name();
        // git and libgit2 look for the index, so the pack comes first.
        let pack = format!("{name}.pack");
        clone_dir::write_atomically(&directory, &pack, &packed.pack)?;
        let index = packed.index();
        if let Err(error) = clone_dir::write_atomically(&directory, &format!("{name}.idx"), &index)
        {
            // Without an index nobody reads it.
            drop(fs::remove_file(directory.join(pack)));
            return Err(error.into());
        }
        Ok(self.odb.refresh()?)
    }

    /// The collected objects in the format of git's `gitformat-pack`, without deltas.
    fn pack(&self) -> Result<Packed, WriteError> {
        let count = u32::try_from(self.gathered.len()).unwrap_or(u32::MAX);
        // git clients get the bytes of a large pack, so it is compressed well. A roll-up compresses small ones again.
        let level = if self.bytes > KEPT_BYTES_MAX {
            Compression::default()
        } else {
            Compression::fast()
        };
        // One for all objects: its tables take longer to make than most objects take to compress.
        let mut encoder = ZlibEncoder::new(Vec::new(), level);
        let mut pack = b"PACK\0\0\0\x02".to_vec();
        pack.extend(count.to_be_bytes());
        let mut objects = Vec::with_capacity(self.gathered.len());
        for (id, (kind, content)) in &self.gathered {
            if self.progress.is_stopped() {
                return Err(git2::Error::from_str("stopped").into());
            }
            let start = pack.len();
            pack.extend(object_header(*kind, content.len()));
            drop(encoder.reset(pack)?);
            encoder.write_all(content)?;
            pack = encoder.reset(Vec::new())?;
            let mut crc32 = Crc::new();
            crc32.update(pack.get(start..).unwrap_or_default());
            objects.push(PackedObject {
                id: *id,
                crc32: crc32.sum(),
                // A pack has some ten megabytes, see `GATHERED_BYTES_MAX`.
                offset: u32::try_from(start).unwrap_or(u32::MAX),
            });
        }
        let hash = Sha1::digest(&pack);
        pack.extend(hash);
        Ok(Packed {
            pack,
            objects,
            hash: hash.into(),
        })
    }
}

/// A pack in memory.
struct Packed {
    pack: Vec<u8>,
    /// Sorted by id.
    objects: Vec<PackedObject>,
    /// The checksum at the end of the pack.
    hash: [u8; 20],
}

struct PackedObject {
    id: ObjectId,
    /// CRC-32 of the packed object.
    crc32: u32,
    /// The offset of the object in the pack.
    offset: u32,
}

impl Packed {
    /// The name of its files.
    fn name(&self) -> String {
        let mut hex = [0; 40];
        write_hex(&self.hash, &mut hex);
        format!("pack-{}", String::from_utf8_lossy(&hex))
    }

    /// The index of the pack, version 2: the fan-out table, the ids, the CRCs and the offsets.
    fn index(&self) -> Vec<u8> {
        let mut index = b"\xfftOc\0\0\0\x02".to_vec();
        for first in 0..=u8::MAX {
            let is_up_to = |object: &PackedObject| object.id.as_bytes().first() <= Some(&first);
            let count = self.objects.partition_point(is_up_to);
            index.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
        }
        for object in &self.objects {
            index.extend(object.id.as_bytes());
        }
        for object in &self.objects {
            index.extend(object.crc32.to_be_bytes());
        }
        for object in &self.objects {
            index.extend(object.offset.to_be_bytes());
        }
        index.extend(self.hash);
        index.extend(Sha1::digest(&index));
        index
    }
}

/// The entry on this path in a directory whose names start at `start`: its name, and whether it is a directory.
fn entry_at(path: &[u8], start: usize) -> (&[u8], bool) {
    let rest = path.get(start..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == b'/');
    (
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default(),
        end.is_some(),
    )
}

/// The header of a packed object: the type in three bits and the lowest four bits of the length, then seven bits of the
/// length in each byte, lowest first. The highest bit of a byte says that another byte follows.
fn object_header(kind: ObjectType, length: usize) -> Vec<u8> {
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
    use std::collections::BTreeSet;

    use git2::Oid;
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
        let ids = write_packed::<_, WriteError>(directory.path(), &progress, |writer| {
            let write = |content: &Vec<u8>| writer.write(ObjectType::Blob, content.clone());
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

    /// The tree that libgit2 makes of these files.
    fn tree_of(git: &Repository, files: &BTreeSet<String>, blob: Oid) -> Oid {
        let mut index = git2::Index::new().unwrap();
        for path in files {
            let entry = git2::IndexEntry {
                ctime: git2::IndexTime::new(0, 0),
                mtime: git2::IndexTime::new(0, 0),
                dev: 0,
                ino: 0,
                mode: 0o100_644,
                uid: 0,
                gid: 0,
                file_size: 0,
                id: blob,
                flags: 0,
                flags_extended: 0,
                path: path.clone().into_bytes(),
            };
            index.add(&entry).unwrap();
        }
        index.write_tree_to(git).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn a_changed_tree_is_the_tree_of_the_files_that_it_has(
            before in proptest::collection::btree_set("[ab]/[a.0-]{1,2}(/[a-]{1,2})?|[c.-]{3}", 0..12),
            after in proptest::collection::btree_set("[ab]/[a.0-]{1,2}(/[a-]{1,2})?|[c.-]{3}", 0..12),
        ) {
            // No file has the name of a directory.
            let is_possible = |files: &BTreeSet<String>| {
                let above = |path: &String| Some(path.rsplit_once('/')?.0.to_owned());
                !files.iter().filter_map(above).any(|directory| files.contains(&directory))
                    && !files.iter().any(|path| path.split('/').any(|name| name == "." || name == ".."))
            };
            proptest::prop_assume!(is_possible(&before) && is_possible(&after));
            let directory = TempDir::new().unwrap();
            let git = Repository::init_bare(directory.path()).unwrap();
            let blob = git.blob(b"content").unwrap();
            let progress = ProgressCell::default();
            let update = |base, changes| {
                write_packed::<_, WriteError>(directory.path(), &progress, |writer| {
                    writer.update_tree(base, changes)
                })
                .unwrap()
            };
            let file = Some((blob.into(), FileMode::Blob));
            let added = |path: &String| (path.clone().into_bytes(), file);
            let removed = |path: &String| (path.clone().into_bytes(), None);
            let first = update(None, before.iter().map(added).collect());
            proptest::prop_assert_eq!(first, tree_of(&git, &before, blob).into());
            let changes = after.iter().map(added).chain(before.difference(&after).map(removed));
            let second = update(Some(first), changes.collect());
            proptest::prop_assert_eq!(second, tree_of(&git, &after, blob).into());
        }
    }

    #[test]
    fn a_tree_at_two_paths_is_in_the_pack_once() {
        let directory = TempDir::new().unwrap();
        drop(Repository::init_bare(directory.path()).unwrap());
        let progress = ProgressCell::default();
        let tree = write_packed::<_, WriteError>(directory.path(), &progress, |writer| {
            let blob = writer.write(ObjectType::Blob, b"content".to_vec())?;
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
    fn a_pack_whose_index_cannot_be_written_is_removed() {
        let progress = ProgressCell::default();
        let write_into = |repository: &Path| {
            write_packed::<_, WriteError>(repository, &progress, |writer| {
                writer.write(ObjectType::Blob, b"content".to_vec())
            })
        };
        let packs_in = |repository: &Path| {
            let entries = fs::read_dir(clone_dir::pack_directory(repository)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let [intact, broken] = [(); 2].map(|()| TempDir::new().unwrap());
        for repository in [&intact, &broken] {
            drop(Repository::init_bare(repository.path()).unwrap());
        }
        write_into(intact.path()).unwrap();
        let names = packs_in(intact.path());
        let [index, _pack] = &*names else {
            panic!("{names:?}");
        };
        // The same object makes the same names, and a file cannot take the place of a directory.
        fs::create_dir(clone_dir::pack_directory(broken.path()).join(index)).unwrap();
        assert!(write_into(broken.path()).is_err());
        assert_eq!(packs_in(broken.path()), std::slice::from_ref(index));
    }
}
