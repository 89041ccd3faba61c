//! Keeps a clone small over weeks. Every fetch adds a pack, and every state of the git index adds a few loose objects.
//!
//! The mirror copies the clone and rolls up the small packs in the copy. Large packs are shared through hard links.
//! Then the copy replaces the clone, as a new clone would. So the mirror never removes a file that is being read, and
//! after a crash either the clone or its replacement is complete. Packs keep objects that no longer belong to the
//! index. When these are about as large as the index itself, a new clone replaces the old one. Everything here blocks.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::{Indexer, Odb, OdbLookupFlags, PackBuilder, PackBuilderStage, Repository};

use super::clone_dir::{self, is_leftover, remove_tree};
use super::libgit2::{MemoryLimit, with_memory_limit};
use crate::index::limits::WriteError;
use crate::index::stop::StopFlag;

/// The limits at which the mirror makes the clone smaller.
#[derive(Clone, Copy, Debug)]
pub struct UpkeepLimits {
    /// The number of packs at which small packs are rolled up. libgit2 keeps each pack open that it has read from, until
    /// the handle of the repository is closed.
    pub packs_max: usize,
    /// A new clone replaces a clone that has this many bytes more than twice its largest pack.
    pub slack_bytes: u64,
}

impl Default for UpkeepLimits {
    fn default() -> Self {
        Self {
            packs_max: 64,
            slack_bytes: 64 * 1024 * 1024,
        }
    }
}

/// The pause after an attempt to replace a clone that is full of old history.
pub(crate) const RENEWAL_PAUSE: Duration = Duration::from_secs(6 * 3_600);

/// The pause after another failure to make a clone smaller. More packs arrive meanwhile, and each takes a file descriptor
/// while it is read.
pub(crate) const FAILURE_PAUSE: Duration = Duration::from_secs(30 * 60);

/// The largest pack that is rolled up. libgit2 compares all its objects again, which takes a minute for this size.
const ROLLED_PACK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A pack up to this size is small: what a refresh brings, and a few refreshes together.
const SMALL_PACK_BYTES_MAX: u64 = 1024 * 1024;

/// Limits the memory for comparing objects and for deltas. libgit2 compares each object with fewer others then. With 32 MB
/// the packs of 28 refreshes took 0.5 s in place of 0.3 s, and became only 3 % smaller.
const PACKING_SETTINGS: [(&str, i64); 2] = [
    ("pack.windowMemory", 512 * 1024),
    ("pack.deltaCacheSize", 16 * 1024 * 1024),
];

/// The bytes of a file that are copied between two checks of the stop flag.
const COPIED_BYTES: u64 = 16 * 1024 * 1024;

/// Read-only, because packs never change.
const PACK_MODE: u32 = 0o444;

/// The directory inside the copy for the objects that are being rolled up.
const ROLLING: &str = "rolling";

/// The maintenance that a clone needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Roll up small packs, because there are many packs.
    RollUp,
    /// Make a new clone, because many objects no longer belong to the index.
    Renewal,
}

/// A pack on disk.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) path: PathBuf,
    bytes: u64,
}

/// The bytes of all files below a directory. Unreadable files and directories do not count.
pub(crate) fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_gone) => 0,
    });
    bytes.sum()
}

/// Decides which maintenance a clone needs.
pub(crate) fn due(clone: &Path, limits: &UpkeepLimits) -> io::Result<Due> {
    let packs = packs_in(clone)?;
    let bytes: u64 = packs.iter().map(|pack| pack.bytes).sum();
    let largest = packs.iter().map(|pack| pack.bytes).max().unwrap_or(0);
    Ok(if packs.len() >= limits.packs_max {
        Due::RollUp
    } else if bytes > largest.saturating_mul(2).saturating_add(limits.slack_bytes) {
        Due::Renewal
    } else {
        Due::Nothing
    })
}

/// Copies a clone to `target` and rolls up the small packs there. A stop ends it with an error, and the copy is
/// incomplete.
pub(crate) fn roll_up(clone: &Path, target: &Path, stop: &StopFlag) -> Result<(), WriteError> {
    copy(clone, target, false, stop)?;
    with_memory_limit(MemoryLimit::PACKING, || {
        pack(target, stop)?;
        let served = clone_dir::git_index_path(target);
        if served.exists() {
            pack(&served, stop)?;
        }
        Ok(())
    })
}

/// Copies a repository. Object files never change, so they are hard-linked where the file system supports that.
pub(crate) fn copy(from: &Path, to: &Path, are_objects: bool, stop: &StopFlag) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        stop.check().map_err(io::Error::other)?;
        let entry = entry?;
        let name = entry.file_name();
        let (source, target) = (entry.path(), to.join(&name));
        if name.to_str().is_none_or(is_leftover) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            let below_objects = are_objects || name == "objects";
            copy(&source, &target, below_objects && name != "info", stop)?;
        } else if are_objects {
            fs::hard_link(&source, &target)
                .or_else(|_unsupported| copy_in_parts(&source, &target, stop))?;
        } else {
            fs::copy(&source, &target)?;
            // References and settings. They are small, and the copy is useless without them, so they must survive a
            // power failure.
            File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}

/// Copies a large file. Unlike `fs::copy` it checks the stop flag.
fn copy_in_parts(from: &Path, to: &Path, stop: &StopFlag) -> io::Result<()> {
    let (from, mut to) = (File::open(from)?, File::create(to)?);
    while io::copy(&mut (&from).take(COPIED_BYTES), &mut to)? > 0 {
        stop.check().map_err(io::Error::other)?;
    }
    // Flushed, because the copy will replace the clone.
    to.sync_all()
}

/// Rolls up the small packs of a repository.
fn pack(repository: &Path, stop: &StopFlag) -> Result<(), WriteError> {
    let rolling = repository.join(ROLLING);
    set_apart(repository, &rolling)?;
    let git = Repository::open_bare(repository)?;
    let mut config = git.config()?;
    for (name, value) in PACKING_SETTINGS {
        config.set_i64(name, value)?;
    }
    // Two object databases: the objects to pack, and the objects that remain. A fetch brings copies of existing
    // objects, and these are not packed again.
    let (loose, kept) = (Odb::new()?, Odb::new()?);
    add_alternate(&loose, &rolling)?;
    add_alternate(&kept, &repository.join("objects"))?;
    add_alternate(&git.odb()?, &rolling)?;

    let mut builder = git.packbuilder()?;
    builder.set_threads(1);
    let mut inserted = Ok(());
    loose.foreach(|&id| {
        if !kept.exists_ext(id, OdbLookupFlags::NO_REFRESH) {
            inserted = builder.insert_object(id, None);
        }
        inserted.is_ok() && !stop.is_set()
    })?;
    inserted?;
    // libgit2 reports no error if the callback ends the listing among loose objects, so the list may be incomplete.
    stop.check().map_err(io::Error::other)?;
    if builder.object_count() > 0 {
        write_pack(
            &mut builder,
            &git.odb()?,
            &clone_dir::pack_directory(repository),
            stop,
        )?;
    }
    remove_tree(&rolling)?;
    Ok(())
}

/// Packs the objects of `builder` into a file in `directory`. Ends with an error once `stop` is set.
///
/// `PackBuilder::write` does the same, but a stop cannot interrupt it while it compresses and writes.
fn write_pack<'b>(
    builder: &mut PackBuilder<'b>,
    odb: &Odb<'_>,
    directory: &Path,
    stop: &'b StopFlag,
) -> Result<(), git2::Error> {
    // libgit2 calls this while it compares objects, which takes seconds.
    builder.set_progress_callback(|_stage: PackBuilderStage, _done, _all| !stop.is_set())?;
    let mut indexer = Indexer::new(Some(odb), directory, PACK_MODE, false)?;
    indexer.progress(|_indexed| !stop.is_set());
    let mut failure = None;
    let written = builder.foreach(|part| {
        failure = indexer.write_all(part).err();
        failure.is_none() && !stop.is_set()
    });
    builder.unset_progress_callback()?;
    match (written, failure) {
        (Err(_), Some(refused)) => Err(reason(refused)),
        (Err(error), None) => Err(error),
        (Ok(()), _) => indexer.commit().map(drop),
    }
}

/// Moves the small packs and the loose objects out of a repository. No process may read the repository yet.
fn set_apart(repository: &Path, rolling: &Path) -> io::Result<()> {
    let rolled_packs = rolling.join("pack");
    fs::create_dir_all(&rolled_packs)?;
    for pack in small_ones(packs_in(repository)?) {
        for extension in ["pack", "idx", "rev"] {
            let file = pack.path.with_extension(extension);
            if let Some(name) = file.file_name().filter(|_| file.exists()) {
                fs::rename(&file, rolled_packs.join(name))?;
            }
        }
    }
    for entry in fs::read_dir(repository.join("objects"))? {
        let entry = entry?;
        // The directories of loose objects have two characters: the first two digits of the ids.
        if entry.file_name().len() == 2 {
            fs::rename(entry.path(), rolling.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Chooses the packs to roll up: the smallest ones, until each remaining pack is at least twice as large as all smaller
/// packs together. So an object is packed a few times in its life and not at every roll-up.
///
/// Larger packs are left alone while half of the packs are small. A fetched pack brings copies of objects, so it is large
/// for what it adds: the packs of 31 refreshes took the 13,000 objects of a first view along each time (7 s in place of
/// 0.3 s).
fn small_ones(mut packs: Vec<Pack>) -> Vec<Pack> {
    let is_small = |pack: &Pack| pack.bytes <= SMALL_PACK_BYTES_MAX;
    let most_are_small = packs.iter().filter(|pack| is_small(pack)).count() >= packs.len() / 2;
    packs.retain(|pack| is_small(pack) || !most_are_small && pack.bytes <= ROLLED_PACK_BYTES_MAX);
    packs.sort_by_key(|pack| pack.bytes);
    let mut together = 0_u64;
    let mut rolled = 0;
    for (number, pack) in packs.iter().enumerate() {
        if pack.bytes < together.saturating_mul(2) {
            rolled = number + 1;
        }
        together += pack.bytes;
    }
    packs.truncate(rolled);
    packs
}

/// Lists the packs of a repository.
pub(crate) fn packs_in(repository: &Path) -> io::Result<Vec<Pack>> {
    let mut packs = Vec::new();
    for entry in fs::read_dir(clone_dir::pack_directory(repository))? {
        let entry = entry?;
        let path = entry.path();
        if path.extension() == Some(OsStr::new("pack")) {
            let bytes = entry.metadata()?.len();
            packs.push(Pack { path, bytes });
        }
    }
    Ok(packs)
}

/// The error of libgit2 that an `Indexer` has put into this one. It says whether the system refused.
fn reason(error: io::Error) -> git2::Error {
    let other = |error: io::Error| git2::Error::from_str(&error.to_string());
    error.downcast().unwrap_or_else(other)
}

fn add_alternate(odb: &Odb<'_>, objects: &Path) -> Result<(), WriteError> {
    let path = objects
        .to_str()
        .ok_or_else(|| io::Error::other("the path of DATA_DIR is not UTF-8"))?;
    Ok(odb.add_disk_alternate(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::limits::ReadError;
    use crate::index::stop::assert_ends_at_every_check;

    /// A bare repository whose objects are all loose, and their number.
    fn loose_repository(path: &Path) -> usize {
        let git = Repository::init_bare(path).unwrap();
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..100 {
            let content: String = (0..500).map(|_| random.alphanumeric()).collect();
            git.blob(content.as_bytes()).unwrap();
        }
        100
    }

    #[test]
    fn a_roll_up_ends_at_every_check_and_checks_at_every_file_and_every_packed_object() {
        let directory = tempfile::TempDir::new().unwrap();
        let (clone, copies) = (directory.path().join("clone"), std::cell::Cell::new(0));
        let objects = loose_repository(&clone);
        // One check for the file, one in the list of objects, and two while it is packed: head and content.
        assert_ends_at_every_check(4 * objects, |stop| {
            copies.set(copies.get() + 1);
            let target = directory.path().join(format!("copy-{}", copies.get()));
            let rolled_up = roll_up(&clone, &target, stop);
            if stop.is_set() {
                assert!(rolled_up.is_err());
                return Err(ReadError::Stopped);
            }
            rolled_up.unwrap();
            assert_eq!(packs_in(&target).unwrap().len(), 1);
            Ok(())
        });
        let loose = fs::read_dir(clone.join("objects")).unwrap();
        assert!(loose.count() > 10, "the clone stays as it was");
    }

    #[test]
    fn a_large_file_that_cannot_be_linked_is_copied_in_parts_and_a_stop_ends_the_copy() {
        let directory = tempfile::TempDir::new().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let length = 3 * COPIED_BYTES + 5;
        let mut file = File::create(&from).unwrap();
        io::copy(&mut io::repeat(7).take(length), &mut file).unwrap();
        copy_in_parts(&from, &to, &StopFlag::new()).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().len(), length);
        copy_in_parts(&from, &to, &StopFlag::at_check(2)).unwrap_err();
        assert_eq!(fs::metadata(&to).unwrap().len(), 2 * COPIED_BYTES);
    }

    #[test]
    fn packs_are_rolled_up_until_each_is_twice_as_large_as_all_smaller_ones_together() {
        let rolled = |sizes: &[u64]| {
            let packs = sizes.iter().map(|&bytes| Pack {
                path: PathBuf::new(),
                bytes,
            });
            let rolled = small_ones(packs.collect());
            rolled.iter().map(|pack| pack.bytes).collect::<Vec<_>>()
        };
        assert!(rolled(&[]).is_empty());
        assert_eq!(rolled(&[8, 1, 4, 2]), [1, 2, 4, 8]);
        assert_eq!(rolled(&[1, 1, 5, 20]), [1, 1]);
        assert!(rolled(&[1, 3, 9, 27]).is_empty());
        assert_eq!(rolled(&[5, 5, 5, 100]), [5, 5, 5]);
        let large = ROLLED_PACK_BYTES_MAX + 1;
        assert_eq!(rolled(&[1, 1, large, large]), [1, 1]);
    }

    #[test]
    fn larger_packs_are_left_alone_while_half_of_the_packs_are_small() {
        let rolled = |small: usize, larger: usize| {
            let sizes = [(small, 100_000), (larger, SMALL_PACK_BYTES_MAX + 1)];
            let packs = sizes.into_iter().flat_map(|(number, bytes)| {
                (0..number).map(move |_| Pack {
                    path: PathBuf::new(),
                    bytes,
                })
            });
            small_ones(packs.collect()).len()
        };
        assert_eq!(rolled(40, 24), 40);
        assert_eq!(rolled(32, 32), 32);
        assert_eq!(rolled(31, 33), 64);
    }

    #[test]
    fn the_error_of_a_failed_write_keeps_its_reason() {
        let directory = tempfile::TempDir::new().unwrap();
        let mut indexer = Indexer::new(None, directory.path(), PACK_MODE, false).unwrap();
        let error = reason(indexer.write_all(&[b'x'; 100]).unwrap_err());
        assert_eq!(error.class(), git2::ErrorClass::Indexer, "{error}");
        // A full disk is not damage, and no reason to refuse the upstream.
        let full = git2::Error::new(
            git2::ErrorCode::GenericError,
            git2::ErrorClass::Os,
            "disk full",
        );
        let kept = reason(io::Error::other(full));
        assert_eq!(kept.class(), git2::ErrorClass::Os);
    }
}
