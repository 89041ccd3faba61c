//! Leaving out of the index what is not held: a git tree like the upstream's, with only those lines whose crate file is
//! there to be served.
//!
//! Index files keep the lines that stay byte for byte and in their order; those without any are left out, and so are
//! directories without files. What lies at the top, like `config.json`, stays as it is. The tree is written into the
//! clone, and made anew wherever it is missing.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use git2::{ErrorClass, ObjectType};
use serde::Deserialize;

use super::directory::ObjectId;
use super::snapshot::{BlobId, Snapshot};
use crate::index::follow::error::RefreshError;
use crate::index::limits::ReadError;
use crate::index::source::fetch::FetchError;
use crate::index::source::pack_writer::{PackWriter, write_packed};
use crate::index::status::ProgressCell;
use crate::package::{Checksum, CrateName, IndexPath};

/// Threads that read the index, on a machine with many processors: it is serving meanwhile.
const THREADS_MAX: usize = 4;

/// Index files that wait for being written. The largest ones have megabytes.
const WAITING_MAX: usize = 16;

const MODE_OF_TREES: i32 = 0o40_000;
const MODE_OF_FILES: i32 = 0o100_644;

/// Why there is no pruned tree.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PruneError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{0}")]
    Git(#[from] git2::Error),
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("stopped")]
    Stopped,
}

impl From<PruneError> for RefreshError {
    fn from(error: PruneError) -> Self {
        match error {
            PruneError::Read(error) => error.into(),
            PruneError::Git(error) if error.class() == ErrorClass::Os => {
                Self::Disk(io::Error::other(error.message().to_owned()))
            }
            PruneError::Git(error) => Self::Damaged(error.message().to_owned()),
            PruneError::System(error) => Self::Disk(error),
            PruneError::Stopped => Self::Fetch(FetchError::Stopped),
        }
    }
}

/// Writes the pruned tree of what `source` shows into its clone, and returns the tree's id. Blocking; reads every index
/// file.
pub(crate) fn prune(
    source: &Snapshot,
    held: &HashSet<Checksum>,
    progress: &ProgressCell,
) -> Result<ObjectId, PruneError> {
    let pruned = try_prune(source, held, progress);
    // What was broken off may have had any error.
    if progress.is_stopped() {
        return Err(PruneError::Stopped);
    }
    pruned
}

fn try_prune(
    source: &Snapshot,
    held: &HashSet<Checksum>,
    progress: &ProgressCell,
) -> Result<ObjectId, PruneError> {
    let clone = source.repository().path();
    let kept = std::thread::scope(|scope| {
        let (send, receive) = sync_channel(WAITING_MAX);
        let writer = std::thread::Builder::new().spawn_scoped(scope, move || {
            write_packed(clone, progress, |writer| write_contents(writer, &receive))
        })?;
        let kept = filter(source, held, &send, progress);
        drop(send);
        // If writing has failed, then filtering has, too, and for no reason of its own.
        writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        kept
    })?;
    let top = top_files(source)?;
    write_packed(clone, progress, |writer| write_trees(writer, top, kept))
}

fn write_contents(
    writer: &mut PackWriter<'_>,
    contents: &Receiver<Vec<u8>>,
) -> Result<(), PruneError> {
    for content in contents {
        writer.write(ObjectType::Blob, &content)?;
    }
    Ok(())
}

/// An index file of the pruned index: the crate's name in lower case, and the blob.
type KeptFile = (String, ObjectId);

/// Finds the index files that stay, and sends the contents that are new.
fn filter(
    source: &Snapshot,
    held: &HashSet<Checksum>,
    contents: &SyncSender<Vec<u8>>,
    progress: &ProgressCell,
) -> Result<Vec<KeptFile>, PruneError> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = threads.min(NonZeroUsize::new(THREADS_MAX).unwrap_or(NonZeroUsize::MIN));
    let kept = Mutex::new(Vec::new());
    source.for_each_entry(threads, progress.stop_flag(), |name, blob| {
        let lines = source
            .repository()
            .read_blob(blob, |content| held_lines(content, held));
        let lines = match lines {
            // It is listed as it is: whoever asks for it hears that it is too large.
            Err(ReadError::TooLarge(_)) => HeldLines::All,
            lines => lines?,
        };
        let blob = match lines {
            HeldLines::None => return Ok::<(), PruneError>(()),
            HeldLines::All => blob,
            HeldLines::Some(content) => {
                let blob = BlobId::of(&content).into();
                // Nobody receives it any more: writing has failed.
                contents
                    .send(content)
                    .map_err(|_no_receiver| PruneError::Stopped)?;
                blob
            }
        };
        kept.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name.to_owned(), blob));
        Ok(())
    })?;
    Ok(kept.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What stays of an index file.
#[derive(Debug, PartialEq, Eq)]
enum HeldLines {
    None,
    All,
    Some(Vec<u8>),
}

/// The one field that counts. Everything else is skipped without being kept.
#[derive(Deserialize)]
struct LineChecksum<'a> {
    #[serde(borrow)]
    cksum: Cow<'a, str>,
}

fn held_lines(content: &[u8], held: &HashSet<Checksum>) -> HeldLines {
    let mut kept = Vec::new();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if is_held(line, held) {
            kept.extend_from_slice(line);
        }
    }
    match kept.len() {
        0 => HeldLines::None,
        length if length == content.len() => HeldLines::All,
        _ => HeldLines::Some(kept),
    }
}

fn is_held(line: &[u8], held: &HashSet<Checksum>) -> bool {
    let line: Result<LineChecksum<'_>, _> = serde_json::from_slice(line);
    line.is_ok_and(|line| {
        line.cksum
            .parse()
            .is_ok_and(|checksum| held.contains(&checksum))
    })
}

/// An entry of a git tree.
struct Entry {
    mode: i32,
    name: Vec<u8>,
    id: ObjectId,
}

impl Entry {
    fn tree(name: &str, id: ObjectId) -> Self {
        Self {
            mode: MODE_OF_TREES,
            name: name.as_bytes().to_vec(),
            id,
        }
    }

    fn file(name: &str, id: ObjectId) -> Self {
        Self {
            mode: MODE_OF_FILES,
            name: name.as_bytes().to_vec(),
            id,
        }
    }

    /// git sorts directories as if their names ended in a slash.
    fn order(&self) -> Vec<u8> {
        let mut name = self.name.clone();
        if self.mode == MODE_OF_TREES {
            name.push(b'/');
        }
        name
    }
}

/// The files at the top of the upstream's tree.
fn top_files(source: &Snapshot) -> Result<Vec<Entry>, ReadError> {
    let tree = source.root().tree();
    source.repository().with(|git| {
        let tree = git.find_tree(tree.to_oid()?)?;
        let files = tree
            .iter()
            .filter(|entry| entry.kind() == Some(ObjectType::Blob));
        Ok(files
            .map(|entry| Entry {
                mode: entry.filemode_raw(),
                name: entry.name_bytes().to_vec(),
                id: entry.id().into(),
            })
            .collect())
    })
}

fn write_trees(
    writer: &mut PackWriter<'_>,
    top: Vec<Entry>,
    kept: Vec<KeptFile>,
) -> Result<ObjectId, PruneError> {
    let mut directories: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for (name, blob) in kept {
        let entry = Entry::file(&name, blob);
        // A snapshot lists nothing else than what has a crate's name.
        if let Ok(name) = CrateName::try_from(name) {
            let prefix = IndexPath::from(&name).prefix().to_owned();
            directories.entry(prefix).or_default().push(entry);
        }
    }
    let mut root = top;
    let mut first_level: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for (prefix, files) in directories {
        let tree = write_tree(writer, files)?;
        match prefix.split_once('/') {
            None => root.push(Entry::tree(&prefix, tree)),
            Some((first, second)) => first_level
                .entry(first.to_owned())
                .or_default()
                .push(Entry::tree(second, tree)),
        }
    }
    for (first, trees) in first_level {
        let tree = write_tree(writer, trees)?;
        root.push(Entry::tree(&first, tree));
    }
    Ok(write_tree(writer, root)?)
}

fn write_tree(
    writer: &mut PackWriter<'_>,
    mut entries: Vec<Entry>,
) -> Result<ObjectId, git2::Error> {
    entries.sort_by_cached_key(Entry::order);
    let mut content = Vec::new();
    for entry in entries {
        content.extend_from_slice(format!("{:o} ", entry.mode).as_bytes());
        content.extend_from_slice(&entry.name);
        content.push(0);
        content.extend_from_slice(entry.id.as_bytes());
    }
    writer.write(ObjectType::Tree, &content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::follow::one_shot::open_current;
    use crate::index::testing::{TestIndex, checksum, line};

    fn held(numbers: &[u8]) -> HashSet<Checksum> {
        numbers.iter().map(|number| checksum(*number)).collect()
    }

    #[test]
    fn lines_stay_byte_for_byte_or_not_at_all() {
        let (one, two, three) = (line("a", 1), line("a", 2), line("a", 3));
        let spaced = format!(
            " {{ \"name\" : \"a\" ,\t\"cksum\"  :\"\\u0030{}\" }} \r",
            checksum(4).to_string().strip_prefix('0').unwrap()
        );
        let text = format!("{one}\n{two}\njunk\n\n{{}}\n{three}\n{spaced}\n");
        let some = |text: String| HeldLines::Some(text.into_bytes());
        for (numbers, expected) in [
            ([].as_slice(), HeldLines::None),
            (&[9], HeldLines::None),
            (&[1], some(format!("{one}\n"))),
            (&[3, 1], some(format!("{one}\n{three}\n"))),
            (&[4], some(format!("{spaced}\n"))),
            (
                &[1, 2, 3, 4],
                some(format!("{one}\n{two}\n{three}\n{spaced}\n")),
            ),
        ] {
            assert_eq!(
                held_lines(text.as_bytes(), &held(numbers)),
                expected,
                "{numbers:?}"
            );
        }
        let without_end = format!("{one}\n{two}");
        let held = held(&[1, 2]);
        assert_eq!(held_lines(without_end.as_bytes(), &held), HeldLines::All);
    }

    #[test]
    fn a_pruned_tree_is_what_git_would_make_of_the_same_files() {
        let (one, two) = (line("a", 1), line("a", 2));
        let files = [
            ("config.json", "{}".to_owned()),
            ("README.md", "text".to_owned()),
            ("@link", "config.json".to_owned()),
            (".github/workflows/x", "text".to_owned()),
            ("1/a", format!("{one}\n{two}\n")),
            ("2/io", line("io", 3)),
            ("3/s/syn", line("syn", 4)),
            ("se/rd/serde", line("serde", 5)),
            ("se/rd/serde-json", line("serde-json", 6)),
            ("se/rd/serde_json_2", line("serde_json_2", 7)),
            ("se/ts/sets", line("sets", 8)),
            ("to/ki/tokio", line("tokio", 9)),
        ];
        let list = |files: &[(&'static str, String)]| {
            TestIndex::new(
                &files
                    .iter()
                    .map(|(path, text)| (*path, text.as_str()))
                    .collect::<Vec<_>>(),
            )
        };
        let mut index = list(&files);
        index.refresh();
        let snapshot = open_current(&index.data_dir()).unwrap().unwrap();
        let held = held(&[2, 3, 4, 6, 7, 8]);
        let tree = prune(&snapshot, &held, &ProgressCell::default()).unwrap();
        assert_eq!(
            prune(&snapshot, &held, &ProgressCell::default()).unwrap(),
            tree
        );

        let mut expected = files.to_vec();
        expected.retain(|(path, _)| {
            ![".github/workflows/x", "se/rd/serde", "to/ki/tokio"].contains(path)
        });
        for (path, text) in &mut expected {
            if *path == "1/a" {
                *text = format!("{two}\n");
            }
        }
        let mut expected = list(&expected);
        expected.refresh();
        assert_eq!(tree, expected.handle.snapshot().unwrap().root().tree());
    }

    #[test]
    fn pruning_looks_for_a_stop_at_every_file_that_it_reads_and_every_object_that_it_writes() {
        let contents: Vec<(String, String)> = (0..100)
            .map(|number| {
                let name = format!("abcd{number}");
                let lines = format!("{}\n{}\n", line(&name, 1), line(&name, 2));
                (format!("ab/cd/{name}"), lines)
            })
            .collect();
        let files = contents
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_str()));
        let mut index = TestIndex::new(&files.collect::<Vec<_>>());
        index.refresh();
        let snapshot = index.handle.snapshot().unwrap();
        let progress = ProgressCell::default();
        prune(&snapshot, &held(&[1]), &progress).unwrap();
        // Sorted, read, written into memory, and packed: head and content.
        let looks = progress.stop_flag().looks();
        assert!(looks >= 5 * contents.len(), "{looks}");
    }

    #[test]
    fn pruning_ends_when_told_to() {
        let mut index = TestIndex::new(&[("1/a", "one")]);
        index.refresh();
        let progress = ProgressCell::default();
        progress.stop();
        let snapshot = index.handle.snapshot().unwrap();
        let result = prune(&snapshot, &HashSet::new(), &progress);
        assert!(matches!(result, Err(PruneError::Stopped)));
    }
}
