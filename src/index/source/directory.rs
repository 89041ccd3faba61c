//! One directory of the index in memory: names and blob ids. Sources share directories with equal tree ids.

use std::cmp::Ordering;
use std::str::Split;
use std::sync::Arc;

use crate::index::ids::ObjectId;
use crate::package::{IndexPath, canonical_order};

/// A directory of the index. It lists only ordinary files with a crate's name in lower case, at the path that belongs
/// to the name, and directories that lead to such files.
///
/// An index has a quarter of a million crates. So all names of a directory share one string, and entries are small.
#[derive(Debug)]
pub(crate) struct Directory {
    /// The id of the git tree.
    pub(crate) tree: ObjectId,
    /// All file names, concatenated.
    names: Box<str>,
    /// In canonical order, so one binary search finds every spelling of a name.
    files: Box<[File]>,
    /// Also in canonical order: `a-` and `a_` are neighbours.
    directories: Box<[Subdirectory]>,
    /// Files here and below.
    pub(crate) count: usize,
    /// Directories here and below, this one included.
    pub(super) directory_count: usize,
}

/// A name and its directory.
pub(crate) type Subdirectory = (Box<str>, Arc<Directory>);

#[derive(Clone, Debug)]
struct File {
    start: u32,
    length: u8,
    blob: ObjectId,
}

impl Directory {
    /// Makes a directory of these files and directories.
    pub(super) fn new(tree: ObjectId, files: Files, mut directories: Vec<Subdirectory>) -> Self {
        let Files { names, mut files } = files;
        directories.sort_by(|(left, _), (right, _)| file_order(left, right));
        files.sort_by(|left, right| file_order(left.name(&names), right.name(&names)));
        // A tree of an upstream can list a name twice. The first one counts, for everybody.
        files.dedup_by(|next, first| next.name(&names) == first.name(&names));
        directories.dedup_by(|(next, _), (first, _)| next == first);
        let below = || directories.iter().map(|(_, directory)| directory);
        Self {
            tree,
            count: files.len() + below().map(|directory| directory.count).sum::<usize>(),
            directory_count: 1 + below()
                .map(|directory| directory.directory_count)
                .sum::<usize>(),
            // Copied into blocks of the exact size. Shrinking larger blocks would leave gaps that the allocator cannot use.
            names: names.as_str().into(),
            files: files.as_slice().into(),
            directories: directories.into(),
        }
    }

    /// The index files of this directory itself: the crate's name in lower case, and the blob.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, ObjectId)> {
        self.files.iter().map(|file| (self.name(file), file.blob))
    }

    /// The directories directly below this one.
    pub(crate) fn directories(&self) -> impl Iterator<Item = (&str, &Arc<Self>)> {
        self.directories
            .iter()
            .map(|(name, directory)| (name.as_ref(), directory))
    }

    /// Calls `visit` with every index file here and below.
    pub(crate) fn visit_files<'a>(&'a self, visit: &mut impl FnMut(&'a str, ObjectId)) {
        self.files().for_each(|(name, blob)| visit(name, blob));
        for (_name, below) in self.directories() {
            below.visit_files(visit);
        }
    }

    /// Finds the index file of a crate by any spelling of its name. If an index has several spellings of one name,
    /// which crates.io never has, the given spelling wins.
    pub(crate) fn find(&self, path: &IndexPath) -> Option<ObjectId> {
        self.find_named(path).map(|(_name, blob)| blob)
    }

    /// The same with the name of the file.
    pub(crate) fn find_named(&self, path: &IndexPath) -> Option<(&str, ObjectId)> {
        let find = |accept| self.find_below(path.directories(), path.file(), accept);
        find(&|name| name == path.file()).or_else(|| find(&|_any_spelling| true))
    }

    /// Finds the index file at exactly this path. Only the file names are compared, because a file's name determines
    /// its directories.
    pub(crate) fn find_exactly(&self, path: &IndexPath) -> Option<ObjectId> {
        let is_it = |name: &str| name == path.file();
        let found = self.find_below(path.directories(), path.file(), &is_it);
        found.map(|(_name, blob)| blob)
    }

    fn find_below(
        &self,
        mut directories: Split<'_, char>,
        file: &str,
        accept: &dyn Fn(&str) -> bool,
    ) -> Option<(&str, ObjectId)> {
        let Some(first) = directories.next() else {
            return equal_run(&self.files, |candidate| {
                canonical_order(self.name(candidate), file)
            })
            .iter()
            .find(|candidate| accept(self.name(candidate)))
            .map(|found| (self.name(found), found.blob));
        };
        // Spellings with `-` and with `_` are in different directories: at most four for two letters. So all
        // directories of the run are searched.
        equal_run(&self.directories, |(name, _)| canonical_order(name, first))
            .iter()
            .find_map(|(_, directory)| directory.find_below(directories.clone(), file, accept))
    }

    /// Finds the directory with exactly this name in this directory itself.
    pub(crate) fn directory(&self, name: &str) -> Option<&Arc<Self>> {
        let (_, directory) = self.directories.get(self.position(name)?)?;
        Some(directory)
    }

    /// Like [`Self::directory`], for a caller that asks for many names in nearly the order of this directory. Looks at
    /// position `next` first, and sets it behind the name that was found. This saves most binary searches: each refresh
    /// asks for the hundreds of directories above a change several times.
    pub(crate) fn directory_from(&self, name: &str, next: &mut usize) -> Option<&Arc<Self>> {
        let is_next = |(candidate, _): &&Subdirectory| **candidate == *name;
        let found = match self.directories.get(*next).filter(is_next) {
            Some(_) => *next,
            None => self.position(name)?,
        };
        *next = found + 1;
        self.directories.get(found).map(|(_, directory)| directory)
    }

    fn position(&self, name: &str) -> Option<usize> {
        let found = self
            .directories
            .binary_search_by(|(candidate, _)| file_order(candidate, name));
        found.ok()
    }

    fn name(&self, file: &File) -> &str {
        file.name(&self.names)
    }
}

/// The files of a directory that is being read.
#[derive(Debug, Default)]
pub(super) struct Files {
    names: String,
    files: Vec<File>,
}

impl Files {
    pub(super) fn push(&mut self, name: &str, blob: ObjectId) {
        // This never skips a file: no tree has 4 GiB of crate names, and no crate name has 256 bytes.
        if let (Ok(start), Ok(length)) = (self.names.len().try_into(), name.len().try_into()) {
            self.names.push_str(name);
            self.files.push(File {
                start,
                length,
                blob,
            });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }
}

impl File {
    fn name<'a>(&self, names: &'a str) -> &'a str {
        let start = self.start as usize;
        names
            .get(start..start + usize::from(self.length))
            .unwrap_or_default()
    }
}

/// The order of the files of a directory: canonical, and by spelling among the spellings of one name.
pub(crate) fn file_order(left: &str, right: &str) -> Ordering {
    // Most often both are the same, and equal texts are found much faster.
    if left == right {
        return Ordering::Equal;
    }
    canonical_order(left, right).then_with(|| left.cmp(right))
}

/// The items that compare equal, in a slice that is sorted by `order`.
fn equal_run<T>(items: &[T], order: impl Fn(&T) -> Ordering) -> &[T] {
    let start = items.partition_point(|item| order(item).is_lt());
    let end = items.partition_point(|item| order(item).is_le());
    items.get(start..end).unwrap_or_default()
}
