//! One directory of the index, held in memory: names and blob ids, shared between snapshots by tree id.

use std::cmp::Ordering;
use std::str::Split;
use std::sync::Arc;

use crate::index::ids::ObjectId;
use crate::package::{IndexPath, canonical_order};

/// A directory of the index. Only what can be an index file is in it: ordinary files with a crate's name in lower case,
/// at the place that belongs to the name, and directories on the way to such files.
///
/// A quarter of a million crates live here, so names share one text and entries are small.
#[derive(Debug)]
pub(crate) struct Directory {
    tree: ObjectId,
    /// All file names, one behind the other.
    names: Box<str>,
    /// In canonical order, so that every spelling of a name is found by one binary search.
    files: Box<[File]>,
    /// In canonical order, too: `a-` and `a_` are neighbours.
    directories: Box<[Subdirectory]>,
    /// Files here and below.
    count: usize,
    /// Directories here and below, this one included.
    directory_count: usize,
}

/// A name and what it names.
pub(crate) type Subdirectory = (Box<str>, Arc<Directory>);

#[derive(Debug)]
struct File {
    start: u32,
    length: u8,
    blob: ObjectId,
}

impl Directory {
    /// A directory of these files and directories.
    pub(crate) fn new(
        tree: ObjectId,
        mut found: Vec<(String, ObjectId)>,
        mut directories: Vec<Subdirectory>,
    ) -> Self {
        directories.sort_unstable_by(|(left, _), (right, _)| {
            canonical_order(left, right).then(left.cmp(right))
        });
        found.sort_unstable_by(|(left, _), (right, _)| {
            canonical_order(left, right).then_with(|| left.cmp(right))
        });
        let mut names = String::with_capacity(found.iter().map(|(name, _)| name.len()).sum());
        let mut files = Vec::with_capacity(found.len());
        for (name, blob) in found {
            // No git tree of crate names has 4 GiB of them, and no crate name 256 bytes.
            let (Ok(start), Ok(length)) = (u32::try_from(names.len()), u8::try_from(name.len()))
            else {
                continue;
            };
            names.push_str(&name);
            files.push(File {
                start,
                length,
                blob,
            });
        }
        let below = || directories.iter().map(|(_, directory)| directory);
        Self {
            tree,
            count: files.len() + below().map(|directory| directory.count).sum::<usize>(),
            directory_count: 1 + below()
                .map(|directory| directory.directory_count)
                .sum::<usize>(),
            names: names.into(),
            files: files.into(),
            directories: directories.into(),
        }
    }

    /// How many index files are here and below.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many directories are here and below, this one included.
    pub(crate) fn directory_count(&self) -> usize {
        self.directory_count
    }

    /// The index files of this directory itself: name, which is the crate's in lower case, and content.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, ObjectId)> {
        self.files.iter().map(|file| (self.name(file), file.blob))
    }

    /// The directories directly below this one.
    pub(crate) fn directories(&self) -> impl Iterator<Item = (&str, &Arc<Self>)> {
        self.directories
            .iter()
            .map(|(name, directory)| (name.as_ref(), directory))
    }

    /// The git tree that this was read from.
    pub(crate) fn tree(&self) -> ObjectId {
        self.tree
    }

    /// The index file of a crate, whichever spelling its name is given in. Where an index has several spellings of one
    /// name, which crates.io never has, the one given wins.
    pub(crate) fn find(&self, path: &IndexPath) -> Option<ObjectId> {
        self.find_exactly(path)
            .or_else(|| self.find_below(path.directories(), path.file(), &|_any_spelling| true))
    }

    /// The index file at exactly this path. A file's name tells its directories, so that the name alone must be equal.
    pub(crate) fn find_exactly(&self, path: &IndexPath) -> Option<ObjectId> {
        self.find_below(path.directories(), path.file(), &|name| name == path.file())
    }

    fn find_below(
        &self,
        mut directories: Split<'_, char>,
        file: &str,
        accept: &dyn Fn(&str) -> bool,
    ) -> Option<ObjectId> {
        let Some(first) = directories.next() else {
            return equal_run(&self.files, |candidate| {
                canonical_order(self.name(candidate), file)
            })
            .iter()
            .find(|candidate| accept(self.name(candidate)))
            .map(|found| found.blob);
        };
        // Spellings with `-` and with `_` lie in different directories, at most four of them for two letters.
        equal_run(&self.directories, |(name, _)| canonical_order(name, first))
            .iter()
            .find_map(|(_, directory)| directory.find_below(directories.clone(), file, accept))
    }

    /// The file of exactly this name in this directory itself.
    pub(crate) fn file(&self, name: &str) -> Option<ObjectId> {
        equal_run(&self.files, |candidate| {
            canonical_order(self.name(candidate), name)
        })
        .iter()
        .find(|candidate| self.name(candidate) == name)
        .map(|file| file.blob)
    }

    pub(crate) fn directory(&self, name: &str) -> Option<&Arc<Self>> {
        equal_run(&self.directories, |(candidate, _)| {
            canonical_order(candidate, name)
        })
        .iter()
        .find(|(candidate, _)| candidate.as_ref() == name)
        .map(|(_, directory)| directory)
    }

    fn name(&self, file: &File) -> &str {
        let start = file.start as usize;
        self.names
            .get(start..start + usize::from(file.length))
            .unwrap_or_default()
    }
}

/// The items that are equal to what is looked for, in a slice that is sorted by this order.
fn equal_run<T>(items: &[T], order: impl Fn(&T) -> Ordering) -> &[T] {
    let start = items.partition_point(|item| order(item).is_lt());
    let end = items.partition_point(|item| order(item).is_le());
    items.get(start..end).unwrap_or_default()
}
