//! Reading the trees of a commit into directories. An upstream can describe more entries in a few bytes than any memory
//! holds, so everything here is counted.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use git2::{ObjectType, Odb, Oid, Repository};

use super::directory::{Directory, ObjectId};
use super::limits::{
    DIRECTORIES_MAX, ENTRIES_READ_MAX, FILES_MAX, ReadError, TREE_BYTES_MAX, TREES_READ_BYTES_MAX,
    check_size,
};
use crate::package::{CrateName, IndexPath};

/// Modes of ordinary files. Symlinks and submodules have others, and are not followed.
const MODES_OF_FILES: [&[u8]; 2] = [b"100644", b"100755"];

/// Mode of directories; old versions of git wrote a zero before it.
const MODES_OF_TREES: [&[u8]; 2] = [b"40000", b"040000"];

/// Bytes of trees that are kept because they occur more than once.
const REPEATED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How often it is looked whether to stop, in entries.
const ENTRIES_BETWEEN_LOOKS: usize = 4_096;

/// Reads the index of this root tree. What `previous` has unchanged is shared with it instead of being read again.
pub(super) fn read(
    repository: &Repository,
    root: ObjectId,
    previous: Option<&Arc<Directory>>,
    stop: &AtomicBool,
) -> Result<Arc<Directory>, ReadError> {
    let odb = repository.odb()?;
    let mut reader = Reader {
        odb: &odb,
        stop,
        entries: 0,
        bytes: 0,
        files: 0,
        directories: 0,
        seen: HashMap::new(),
        kept_bytes: 0,
    };
    reader.directory(root, "", previous)
}

struct Reader<'r> {
    odb: &'r Odb<'r>,
    stop: &'r AtomicBool,
    /// Entries that were looked at, of a repeated tree each time.
    entries: usize,
    /// Bytes that were read.
    bytes: usize,
    files: usize,
    directories: usize,
    /// Every tree that was read. In a real index no tree with files occurs twice, since its names tell where it lies; so
    /// the content is kept only from the second time on.
    seen: HashMap<Oid, Option<Rc<[u8]>>>,
    kept_bytes: usize,
}

impl<'r> Reader<'r> {
    fn directory(
        &mut self,
        tree: ObjectId,
        path: &str,
        previous: Option<&Arc<Directory>>,
    ) -> Result<Arc<Directory>, ReadError> {
        if let Some(previous) = previous.filter(|previous| previous.tree() == tree) {
            self.count(previous.count(), previous.directory_count())?;
            return Ok(Arc::clone(previous));
        }
        let content = self.content(tree.to_oid()?)?;
        let mut files = Vec::new();
        let mut below = Vec::new();
        for entry in Entries(content.bytes()) {
            let entry = entry?;
            self.note_entry()?;
            // No crate has a name that is not UTF-8.
            let Ok(name) = std::str::from_utf8(entry.name) else {
                continue;
            };
            if MODES_OF_FILES.contains(&entry.mode) && belongs_at(name, path) {
                files.push((name.to_owned(), entry.id));
            } else if MODES_OF_TREES.contains(&entry.mode) && may_lead_to_files(name, path) {
                below.push((name.to_owned(), entry.id));
            }
        }
        drop(content);
        self.count(files.len(), 0)?;
        let mut directories = Vec::with_capacity(below.len());
        for (name, tree) in below {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}/{name}")
            };
            let before = previous.and_then(|previous| previous.directory(&name));
            let directory = self.directory(tree, &path, before)?;
            // Two trees can describe millions of empty directories.
            if directory.count() > 0 {
                self.count(0, 1)?;
                directories.push((Box::from(name), directory));
            }
        }
        Ok(Arc::new(Directory::new(tree, files, directories)))
    }

    /// The content of a tree. What occurs again and again is read twice at most.
    fn content(&mut self, tree: Oid) -> Result<Content<'r>, ReadError> {
        if let Some(Some(kept)) = self.seen.get(&tree) {
            return Ok(Content::Kept(Rc::clone(kept)));
        }
        check_size(self.odb, tree, ObjectType::Tree, TREE_BYTES_MAX)?;
        let object = self.odb.read(tree)?;
        let length = object.data().len();
        self.bytes += length;
        if self.bytes > TREES_READ_BYTES_MAX {
            return Err(ReadError::Refused(format!(
                "its directories have more than {TREES_READ_BYTES_MAX} bytes"
            )));
        }
        let is_repeated = self.seen.contains_key(&tree);
        let keep = is_repeated && self.kept_bytes + length <= REPEATED_BYTES_MAX;
        if keep {
            self.kept_bytes += length;
        }
        let kept = keep.then(|| Rc::from(object.data()));
        self.seen.insert(tree, kept);
        Ok(Content::Read(object))
    }

    fn note_entry(&mut self) -> Result<(), ReadError> {
        self.entries += 1;
        if self.entries > ENTRIES_READ_MAX {
            return Err(ReadError::Refused(format!(
                "its directories have more than {ENTRIES_READ_MAX} entries"
            )));
        }
        if self.entries.is_multiple_of(ENTRIES_BETWEEN_LOOKS) && self.stop.load(Ordering::Relaxed) {
            return Err(ReadError::Stopped);
        }
        Ok(())
    }

    fn count(&mut self, files: usize, directories: usize) -> Result<(), ReadError> {
        self.files += files;
        self.directories += directories;
        let (what, max) = if self.files > FILES_MAX {
            ("index files", FILES_MAX)
        } else if self.directories > DIRECTORIES_MAX {
            ("directories", DIRECTORIES_MAX)
        } else {
            return Ok(());
        };
        Err(ReadError::Refused(format!("it has more than {max} {what}")))
    }
}

/// A tree as git stores it.
enum Content<'r> {
    Read(git2::OdbObject<'r>),
    Kept(Rc<[u8]>),
}

impl Content<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Read(object) => object.data(),
            Self::Kept(kept) => kept,
        }
    }
}

/// An entry of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawEntry<'a> {
    pub(super) mode: &'a [u8],
    name: &'a [u8],
    pub(super) id: ObjectId,
}

impl RawEntry<'_> {
    /// Whether it is a commit of another repository.
    pub(super) fn is_submodule(&self) -> bool {
        self.mode == b"160000"
    }

    /// Whether it is a directory.
    pub(super) fn is_tree(&self) -> bool {
        MODES_OF_TREES.contains(&self.mode)
    }
}

/// The entries of a tree: mode, space, name, a zero byte, and 20 bytes of id. libgit2 would first make a list of its own
/// of them.
pub(super) struct Entries<'a>(pub(super) &'a [u8]);

impl<'a> Entries<'a> {
    fn take(&mut self) -> Option<RawEntry<'a>> {
        let (mode, rest) = split_at_byte(self.0, b' ')?;
        let (name, rest) = split_at_byte(rest, 0)?;
        let (id, rest) = rest.split_at_checked(20)?;
        self.0 = rest;
        Some(RawEntry {
            mode,
            name,
            id: ObjectId::from_bytes(id)?,
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<RawEntry<'a>, git2::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.take();
        if entry.is_none() {
            self.0 = &[];
        }
        Some(entry.ok_or_else(|| git2::Error::from_str("a tree is malformed")))
    }
}

fn split_at_byte(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == separator)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn belongs_at(name: &str, path: &str) -> bool {
    CrateName::try_from(name.to_owned()).is_ok_and(|name| {
        let expected = IndexPath::from(&name);
        expected.prefix() == path && expected.file() == name.as_str()
    })
}

/// Whether index files can lie in the directory `name` of `path`, or below it: `1`, `2`, `3/a`, `ab/cd`. So the depth is
/// limited, too.
fn may_lead_to_files(name: &str, path: &str) -> bool {
    let length = match path {
        "" if ["1", "2", "3"].contains(&name) => return true,
        "" => 2,
        "3" => 1,
        _ if path.len() == 2 => 2,
        _ => return false,
    };
    let is_of_names =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    name.len() == length && name.bytes().all(is_of_names)
}
