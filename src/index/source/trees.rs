//! Reads the trees of a commit into directories. A few bytes from an upstream can describe more entries than fit into
//! memory, so this counts everything against the limits.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use git2::{FileMode, ObjectType, Odb, Oid, Repository};

use crate::index::ids::ObjectId;
use crate::index::limits::{
    DIRECTORIES_MAX, ENTRIES_READ_MAX, FILES_MAX, ReadError, TREE_BYTES_MAX, TREES_MAX,
    TREES_READ_BYTES_MAX,
};
use crate::index::source::directory::{Directory, Files};
use crate::index::source::libgit2::check_size;
use crate::index::stop::StopFlag;
use crate::package::IndexPath;

/// The modes of ordinary files. Symlinks and submodules have other modes, and are not followed.
const MODES_OF_FILES: [&[u8]; 2] = [b"100644", b"100755"];

/// The modes of directories. Old versions of git wrote the leading zero.
const MODES_OF_TREES: [&[u8]; 2] = [b"40000", b"040000"];

/// The bytes of repeated trees that are kept in memory.
const REPEATED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Reads the index from this root tree. Shares unchanged directories with `previous` instead of reading them again.
pub(crate) fn read(
    repository: &Repository,
    root: ObjectId,
    previous: Option<&Arc<Directory>>,
    stop: &StopFlag,
) -> Result<Arc<Directory>, ReadError> {
    let odb = repository.odb()?;
    Reader::new(&odb, stop, ReadLimits::default()).directory(root, "", previous)
}

/// The limits for one source. Tests use smaller ones.
#[derive(Clone, Copy, Debug)]
struct ReadLimits {
    entries: usize,
    bytes: usize,
    files: usize,
    directories: usize,
    trees: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            entries: ENTRIES_READ_MAX,
            bytes: TREES_READ_BYTES_MAX,
            files: FILES_MAX,
            directories: DIRECTORIES_MAX,
            trees: TREES_MAX,
        }
    }
}

struct Reader<'r> {
    odb: &'r Odb<'r>,
    stop: &'r StopFlag,
    limits: ReadLimits,
    /// Entries read so far. The entries of a repeated tree count each time.
    entries: usize,
    /// Bytes of trees read so far.
    bytes: usize,
    files: usize,
    directories: usize,
    /// Every tree that was read. The content is kept only from the second time on: in a real index no tree with files
    /// occurs twice, because its names belong to one path.
    seen: HashMap<Oid, Option<Rc<[u8]>>>,
    kept_bytes: usize,
}

impl<'r> Reader<'r> {
    fn new(odb: &'r Odb<'r>, stop: &'r StopFlag, limits: ReadLimits) -> Self {
        Self {
            odb,
            stop,
            limits,
            entries: 0,
            bytes: 0,
            files: 0,
            directories: 0,
            seen: HashMap::new(),
            kept_bytes: 0,
        }
    }

    fn directory(
        &mut self,
        tree: ObjectId,
        path: impl fmt::Display,
        previous: Option<&Arc<Directory>>,
    ) -> Result<Arc<Directory>, ReadError> {
        if let Some(previous) = previous.filter(|previous| previous.tree == tree) {
            // Shared, but counted: otherwise many small commits could grow an index beyond the limits.
            self.count(previous.count, previous.directory_count)?;
            return Ok(Arc::clone(previous));
        }
        // Not before: most directories are shared.
        let path = &*path.to_string();
        let content = self.content(tree.to_oid()?)?;
        let mut files = Files::default();
        let mut below: Vec<(Box<str>, ObjectId)> = Vec::new();
        for entry in Entries(content.bytes()) {
            let entry = entry?;
            self.note_entry()?;
            // Not a crate: crate names are ASCII.
            let Ok(name) = std::str::from_utf8(entry.name) else {
                continue;
            };
            if entry.is_file() && IndexPath::is_path(path, name) {
                files.push(name, entry.id);
            } else if entry.is_tree() && may_lead_to_files(name, path) {
                below.push((Box::from(name), entry.id));
            }
        }
        // Freed before the recursion, or a deep path would keep all its trees in memory.
        drop(content);
        self.count(files.len(), 0)?;
        let mut directories = Vec::with_capacity(below.len());
        let mut next = 0;
        for (name, tree) in below {
            let before = previous.and_then(|previous| previous.directory_from(&name, &mut next));
            let separator = if path.is_empty() { "" } else { "/" };
            let path = format_args!("{path}{separator}{name}");
            let directory = self.directory(tree, path, before)?;
            // Drops empty directories: two trees can describe millions of them.
            if directory.count > 0 {
                self.count(0, 1)?;
                directories.push((name, directory));
            }
        }
        Ok(Arc::new(Directory::new(tree, files, directories)))
    }

    /// The content of a tree. A tree is read from the repository twice at most, however often it occurs.
    fn content(&mut self, tree: Oid) -> Result<TreeContent<'r>, ReadError> {
        if let Some(Some(kept)) = self.seen.get(&tree) {
            return Ok(TreeContent::Kept(Rc::clone(kept)));
        }
        let is_new = !self.seen.contains_key(&tree);
        if is_new {
            let what = "directories, empty ones included";
            ReadError::if_more(self.seen.len() + 1, self.limits.trees, "it has", what)?;
        }
        check_size(self.odb, tree, ObjectType::Tree, TREE_BYTES_MAX)?;
        let object = self.odb.read(tree)?;
        let length = object.data().len();
        self.bytes += length;
        ReadError::if_more(
            self.bytes,
            self.limits.bytes,
            "its directories have",
            "bytes",
        )?;
        let keep = !is_new && self.kept_bytes + length <= REPEATED_BYTES_MAX;
        if keep {
            self.kept_bytes += length;
        }
        let kept = keep.then(|| Rc::from(object.data()));
        self.seen.insert(tree, kept);
        Ok(TreeContent::Read(object))
    }

    fn note_entry(&mut self) -> Result<(), ReadError> {
        self.entries += 1;
        ReadError::if_more(
            self.entries,
            self.limits.entries,
            "its directories have",
            "entries",
        )?;
        self.stop.check()
    }

    fn count(&mut self, files: usize, directories: usize) -> Result<(), ReadError> {
        self.files += files;
        self.directories += directories;
        ReadError::if_more(self.files, self.limits.files, "it has", "index files")?;
        ReadError::if_more(
            self.directories,
            self.limits.directories,
            "it has",
            "directories",
        )
    }
}

/// A tree as git stores it.
enum TreeContent<'r> {
    Read(git2::OdbObject<'r>),
    Kept(Rc<[u8]>),
}

impl TreeContent<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Read(object) => object.data(),
            Self::Kept(kept) => kept,
        }
    }
}

/// An entry of a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawEntry<'a> {
    pub(crate) mode: &'a [u8],
    pub(crate) name: &'a [u8],
    pub(crate) id: ObjectId,
}

impl RawEntry<'_> {
    /// Whether it is a commit of another repository.
    pub(crate) fn is_submodule(&self) -> bool {
        self.mode == b"160000"
    }

    /// Whether it is a directory.
    pub(crate) fn is_tree(&self) -> bool {
        MODES_OF_TREES.contains(&self.mode)
    }

    /// The mode of a file or of a link, as git writes it today. `None` for anything else.
    pub(crate) fn file_mode(&self) -> Option<FileMode> {
        match self.mode {
            _ if self.is_tree() || self.is_submodule() => None,
            b"100755" => Some(FileMode::BlobExecutable),
            b"120000" => Some(FileMode::Link),
            _ => Some(FileMode::Blob),
        }
    }

    /// Whether it is an ordinary file.
    pub(crate) fn is_file(&self) -> bool {
        MODES_OF_FILES.contains(&self.mode)
    }
}

/// Iterates over the entries of a tree: mode, space, name, a zero byte, and 20 bytes of id. Parsed here because libgit2
/// would first allocate a list of all entries.
pub(crate) struct Entries<'a>(pub(crate) &'a [u8]);

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
            // Malformed: end after this error.
            self.0 = &[];
        }
        Some(entry.ok_or_else(|| git2::Error::from_str("a tree is malformed")))
    }
}

fn split_at_byte(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == separator)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Whether index files can be in the directory `name` of `path`, or below it: `1`, `2`, `3/a`, `ab/cd`. This also
/// limits the depth.
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    static GO_ON: StopFlag = StopFlag::new();

    struct Scene {
        _directory: TempDir,
        git: Repository,
    }

    impl Scene {
        fn new() -> Self {
            let directory = TempDir::new().unwrap();
            let git = Repository::init_bare(directory.path()).unwrap();
            Self {
                _directory: directory,
                git,
            }
        }

        fn blob(&self) -> Oid {
            self.git.blob(b"content").unwrap()
        }

        /// Writes a tree of these entries, in the given order, which is not checked.
        fn tree(&self, entries: impl IntoIterator<Item = (&'static str, String, Oid)>) -> Oid {
            let mut content = Vec::new();
            for (mode, name, id) in entries {
                content.extend_from_slice(format!("{mode} {name}\0").as_bytes());
                content.extend_from_slice(id.as_bytes());
            }
            let odb = self.git.odb().unwrap();
            odb.write(ObjectType::Tree, &content).unwrap()
        }

        fn directories(&self, names: impl IntoIterator<Item = String>, tree: Oid) -> Oid {
            self.tree(names.into_iter().map(|name| ("40000", name, tree)))
        }

        fn read(&self, root: Oid) -> Result<Arc<Directory>, ReadError> {
            read(&self.git, root.into(), None, &GO_ON)
        }
    }

    /// All directory names for crates with four letters and more.
    fn prefixes() -> impl Iterator<Item = String> {
        let letters = || "abcdefghijklmnopqrstuvwxyz0123456789-_".chars();
        letters().flat_map(move |first| letters().map(move |second| format!("{first}{second}")))
    }

    #[test]
    fn an_index_file_in_a_repeated_tree_is_found_only_at_its_own_path() {
        let scene = Scene::new();
        let files = ["serde", "tokio", "syn", "a", "README"];
        let leaf = scene.tree(files.map(|name| ("100644", name.to_owned(), scene.blob())));
        let names = || ["se", "rd", "to", "ki", "3", "1", "s"].map(str::to_owned);
        let middle = scene.tree(
            names()
                .map(|name| ("40000", name, leaf))
                .into_iter()
                .chain(files.map(|name| ("100644", name.to_owned(), scene.blob()))),
        );
        let root = scene.read(scene.directories(names(), middle)).unwrap();
        let path = |path: &str| IndexPath::parse(path).unwrap();
        for found in ["se/rd/serde", "to/ki/tokio", "3/s/syn", "1/a"] {
            assert!(root.find_exactly(&path(found)).is_some(), "{found}");
        }
        assert_eq!((root.count, root.directory_count), (4, 8));
    }

    #[test]
    fn equal_trees_are_read_twice_at_most_and_empty_directories_are_dropped() {
        let scene = Scene::new();
        let leaf = scene.tree([("100644", "never-at-home".to_owned(), scene.blob())]);
        let middle = scene.directories(prefixes().take(300), leaf);
        let root = scene.directories(prefixes().take(300), middle);
        let odb = scene.git.odb().unwrap();
        let mut reader = Reader::new(&odb, &GO_ON, ReadLimits::default());
        let directory = reader.directory(root.into(), "", None).unwrap();
        assert_eq!((directory.count, directory.directory_count), (0, 1));
        let bytes = [leaf, middle, root].map(|tree| odb.read_header(tree).unwrap().0);
        assert!(reader.bytes <= 2 * bytes.iter().sum::<usize>());
        assert_eq!(reader.entries, 300 + 300 * 300 + 300 * 300);
    }

    #[test]
    fn too_many_entries_and_too_large_trees_are_refused() {
        let scene = Scene::new();
        let files = (0..400).map(|number| ("100644", format!("file-{number}"), scene.blob()));
        let leaf = scene.tree(files.collect::<Vec<_>>());
        let middle = scene.directories(prefixes().take(200), leaf);
        let root = scene.directories(prefixes().take(200), middle);
        let refused = scene.read(root).unwrap_err();
        assert!(matches!(refused, ReadError::Refused(_)), "{refused}");
        assert!(!refused.may_be_damage());
        let long = "x".repeat(TREE_BYTES_MAX);
        let large = scene.tree([("100644", long, scene.blob())]);
        let refused = scene.read(large).unwrap_err();
        assert!(matches!(refused, ReadError::TooLarge(_)), "{refused}");
    }

    #[test]
    fn each_limit_of_a_source_admits_its_own_value_and_refuses_one_more() {
        let scene = Scene::new();
        let blob = scene.blob();
        let files = |names: &[&str]| {
            let files = names
                .iter()
                .map(|name| ("100644", (*name).to_owned(), blob));
            scene.tree(files.collect::<Vec<_>>())
        };
        // Five trees, seven entries and three index files in four directories.
        let serde = files(&["serde", "serde-json"]);
        let tokio = files(&["tokio"]);
        let se = scene.directories(["rd".to_owned()], serde);
        let to = scene.directories(["ki".to_owned()], tokio);
        let root = scene.tree([
            ("40000", "se".to_owned(), se),
            ("40000", "to".to_owned(), to),
        ]);
        let odb = scene.git.odb().unwrap();
        let trees = [serde, tokio, se, to, root];
        let bytes = trees.map(|tree| odb.read_header(tree).unwrap().0);
        let exact = ReadLimits {
            entries: 7,
            bytes: bytes.iter().sum(),
            files: 3,
            directories: 4,
            trees: 5,
        };
        let read = |limits| Reader::new(&odb, &GO_ON, limits).directory(root.into(), "", None);
        let whole = read(exact).unwrap();
        assert_eq!(whole.count, 3);
        let (entries, bytes) = (exact.entries - 1, exact.bytes - 1);
        for (limits, why) in [
            (ReadLimits { entries, ..exact }, "more than 6 entries"),
            (ReadLimits { bytes, ..exact }, " bytes"),
            (ReadLimits { files: 2, ..exact }, "more than 2 index files"),
            (
                ReadLimits {
                    directories: 3,
                    ..exact
                },
                "more than 3 directories",
            ),
            (
                ReadLimits { trees: 4, ..exact },
                "more than 4 directories, empty ones",
            ),
        ] {
            let refused = read(limits).unwrap_err();
            assert!(matches!(refused, ReadError::Refused(_)), "{refused}");
            assert!(refused.to_string().contains(why), "{refused}");
        }
        // Directories that are shared with the previous source count, too.
        for limits in [
            ReadLimits { files: 2, ..exact },
            ReadLimits {
                directories: 3,
                ..exact
            },
        ] {
            let mut reader = Reader::new(&odb, &GO_ON, limits);
            assert!(reader.directory(root.into(), "", Some(&whole)).is_err());
        }
    }

    #[test]
    fn a_malformed_or_missing_tree_is_damage_and_an_object_of_another_kind_is_not() {
        let scene = Scene::new();
        let as_tree = scene.directories(["se".to_owned()], scene.blob());
        assert!(!scene.read(as_tree).unwrap_err().may_be_damage());
        let odb = scene.git.odb().unwrap();
        for malformed in [&b"100644"[..], b"100644 name", b"100644 name\0short"] {
            let tree = odb.write(ObjectType::Tree, malformed).unwrap();
            assert!(scene.read(tree).unwrap_err().may_be_damage());
        }
        let missing = Oid::hash_object(ObjectType::Tree, b"missing").unwrap();
        assert!(scene.read(missing).unwrap_err().may_be_damage());
    }

    #[test]
    fn a_stop_ends_reading_at_the_next_entry() {
        let scene = Scene::new();
        let leaf = scene.tree([("100644", "never-at-home".to_owned(), scene.blob())]);
        let middle = scene.directories(prefixes(), leaf);
        let root = scene.directories(prefixes(), middle);
        let odb = scene.git.odb().unwrap();
        for number in [1, 2, 1_000, 20_000] {
            let stop = StopFlag::at_check(number);
            let mut reader = Reader::new(&odb, &stop, ReadLimits::default());
            let ended = reader.directory(root.into(), "", None);
            assert!(matches!(ended, Err(ReadError::Stopped)));
            assert_eq!(reader.entries, number);
        }
    }
}
