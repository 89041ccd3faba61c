//! Builds the git tree of a view: the upstream's index files, as the rules show them.
//!
//! The tree contains the shown index files, and the top-level files such as `config.json`. It has no empty directories.
//! A tree built from all files equals a tree built from an earlier one and the changed files. It is written into the
//! clone. A clone without it builds it again.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use git2::{FileMode, ObjectType};
use parking_lot::Mutex;

use super::changes::for_each_change;
use crate::index::ids::{BlobId, ObjectId};
use crate::index::limits::{ReadError, WriteError};
use crate::index::source::directory::Directory;
use crate::index::source::pack_writer::{PackWriter, TreeChange, write_packed};
use crate::index::source::snapshot::Source;
use crate::index::source::trees::Entries;
use crate::index::source::visit_files::{Entry, entries_of, visit_entries};
use crate::index::status::ProgressCell;
use crate::package::{CrateName, IndexPath};
use crate::policy::{Counts, Facts, FileState, Rules, ShownFile, States, apply};

/// The largest number of threads that read index files. The mirror serves requests at the same time.
const THREADS_MAX: usize = 4;

/// The number of edited index files that wait for the writer. Small, because the largest files have megabytes.
const WAITING_MAX: usize = 4;

/// Why the tree could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("stopped")]
    Stopped,
}

/// Some index files of one state of the upstream's index.
#[derive(Debug)]
pub(crate) struct ListedFiles {
    /// That state.
    pub(crate) source: Arc<Source>,
    /// The names of the crates, in lower case.
    pub(crate) names: BTreeSet<String>,
}

/// An earlier state, built with the same rules.
#[derive(Debug)]
pub(crate) struct Earlier {
    /// The upstream's directories at that time.
    pub(crate) source: Arc<Directory>,
    /// The directories that were shown.
    pub(crate) shown: Arc<Directory>,
    /// What the policy had found.
    pub(crate) states: Arc<States>,
    /// The files about which the rules may decide differently, because the facts have changed since.
    pub(crate) affected: Vec<ListedFiles>,
}

impl Earlier {
    /// The crates whose index files the change of the facts may affect.
    fn affected<'a>(&'a self, source: &'a Source) -> BTreeSet<&'a str> {
        let mut names = BTreeSet::new();
        for affected in &self.affected {
            names.extend(affected.names.iter().map(String::as_str));
            // They were found in another state of the index. What is different there says nothing about this one.
            let (before, after) = (affected.source.root(), source.root());
            let Ok(()) = for_each_change(Some(&**before), Some(&**after), &mut |change| {
                names.insert(change.name);
                Ok::<(), std::convert::Infallible>(())
            });
        }
        names
    }
}

/// A tree, and what was done to build it.
#[derive(Debug)]
pub(crate) struct Built {
    /// The tree.
    pub(crate) tree: ObjectId,
    /// The number of index files that were read.
    pub(crate) files_read: usize,
    /// The number of lines that the rules have changed in them.
    pub(crate) counts: Counts,
    /// What the policy has found in all files.
    pub(crate) states: Arc<States>,
    /// The names of the files whose state differs from the earlier one. `None` if there was no earlier one.
    pub(crate) changed_states: Option<Vec<String>>,
}

/// Builds the tree of `source` through rules, and writes it into the clone. With an `earlier` state it reads only the
/// files that have changed since or are affected by a change of the facts, otherwise all files. Blocking.
pub(crate) fn build(
    source: &Source,
    earlier: Option<&Earlier>,
    (rules, facts): (&Rules, &Facts),
    progress: &ProgressCell,
) -> Result<Built, BuildError> {
    let built = match try_build(source, earlier, (rules, facts), progress) {
        // The earlier tree may have become unreadable: its directories are in memory, so nobody else would notice.
        Err(BuildError::Write(WriteError::Git(_))) if earlier.is_some() => {
            try_build(source, None, (rules, facts), progress)
        }
        built => built,
    };
    // A stop can cause any error.
    if progress.is_stopped() {
        return Err(BuildError::Stopped);
    }
    built
}

fn try_build(
    source: &Source,
    earlier: Option<&Earlier>,
    (rules, facts): (&Rules, &Facts),
    progress: &ProgressCell,
) -> Result<Built, BuildError> {
    let mut work = Work {
        entries: Vec::new(),
        gone: Vec::new(),
        changes: top_changes(source, earlier)?,
    };
    match earlier {
        None => work.entries = entries_of(source.root()),
        Some(earlier) => {
            let mut unchanged = earlier.affected(source);
            for_each_change(
                Some(&earlier.source),
                Some(source.root().as_ref()),
                &mut |change| {
                    unchanged.remove(change.name);
                    match change.after {
                        Some(blob) => work.entries.push(Entry::new(change.name, blob)),
                        None => {
                            work.gone.push(change.name.to_owned());
                            work.hide(change.name, Some(earlier));
                        }
                    }
                    progress.stop_flag().check()
                },
            )?;
            let entry = |name| Some(Entry::new(name, find(source, name)?));
            work.entries.extend(unchanged.into_iter().filter_map(entry));
        }
    }
    let files_read = work.entries.len();
    let mut states = earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.states));
    let mut changed_states = Vec::new();
    for name in std::mem::take(&mut work.gone) {
        if set_state(&mut states, &name, None) {
            changed_states.push(name);
        }
    }
    let clone = source.repository().path();
    let base = earlier.map(|earlier| earlier.shown.tree);
    let (counts, tree) = std::thread::scope(|scope| {
        let (send, contents) = sync_channel(WAITING_MAX);
        let (send_changes, changes) = sync_channel(1);
        // Small contents and the trees share a pack, so that a refresh adds one pack instead of two.
        let writer = std::thread::Builder::new()
            .spawn_scoped(scope, move || {
                write_packed(clone, progress, |writer| {
                    write_contents(writer, &contents)?;
                    match changes.recv() {
                        Ok(changes) => Ok(Some(writer.update_tree(base, changes)?)),
                        Err(_nothing_to_change) => Ok::<_, BuildError>(None),
                    }
                })
            })
            .map_err(WriteError::Disk)?;
        let entries = std::mem::take(&mut work.entries);
        let shown = show(source, entries, (rules, facts), &send, progress);
        drop(send);
        let counts = shown.map(|(shown, counts)| {
            for (name, blob, state) in shown {
                match blob {
                    Some(blob) => work.changes.extend(change(&name, Some(blob))),
                    None => work.hide(&name, earlier),
                }
                if set_state(&mut states, &name, Some(state)) {
                    changed_states.push(name);
                }
            }
            if !rules.only_watch() {
                // Fails if the writer has ended with an error, which is returned below.
                let _sent = send_changes.send(work.changes);
            }
            counts
        });
        drop(send_changes);
        // The writer's error first: if writing failed, `show` failed only because its channel was closed.
        let tree = writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok::<_, BuildError>((counts?, tree))
    })?;
    Ok(Built {
        tree: tree.unwrap_or(source.root().tree),
        files_read,
        counts,
        states,
        changed_states: earlier.map(|_| changed_states),
    })
}

/// Replaces the state of a file, and returns whether it has changed. Most files have no state before and after. For these
/// nothing is copied.
fn set_state(states: &mut Arc<States>, name: &str, state: Option<FileState>) -> bool {
    let state = state.filter(|state| *state != FileState::default());
    let is_new = states.of(name) != state.as_ref();
    if is_new {
        Arc::make_mut(states).set(name, state);
    }
    is_new
}

/// The work that remains.
struct Work<'a> {
    /// The index files to read.
    entries: Vec<Entry<'a>>,
    /// Files that the upstream has removed.
    gone: Vec<String>,
    /// The changes of the earlier tree, or of an empty one.
    changes: Vec<TreeChange>,
}

impl Work<'_> {
    /// Removes a file from the earlier tree, if it is there.
    fn hide(&mut self, name: &str, earlier: Option<&Earlier>) {
        let path = CrateName::try_from(name.to_owned()).map(|name| IndexPath::from(&name));
        let is_shown = |path: &IndexPath| {
            earlier.is_some_and(|earlier| earlier.shown.find_exactly(path).is_some())
        };
        if path.is_ok_and(|path| is_shown(&path)) {
            self.changes.extend(change(name, None));
        }
    }
}

/// The index file of the crate with this name in lower case.
fn find(source: &Source, name: &str) -> Option<ObjectId> {
    let name = CrateName::try_from(name.to_owned()).ok()?;
    source.root().find_exactly(&IndexPath::from(&name))
}

/// The tree change for a crate's index file.
fn change(name: &str, blob: Option<ObjectId>) -> Option<TreeChange> {
    // Never `None`: a directory lists only files with a crate's name.
    let name = CrateName::try_from(name.to_owned()).ok()?;
    let path = IndexPath::from(&name).as_str().as_bytes().to_vec();
    Some((path, blob.map(|blob| (blob, FileMode::Blob))))
}

fn write_contents(
    writer: &mut PackWriter<'_>,
    contents: &Receiver<Vec<u8>>,
) -> Result<(), BuildError> {
    for content in contents {
        writer.write(ObjectType::Blob, content)?;
    }
    Ok(())
}

/// The crate's name in lower case, its index file (`None` hides it), and what the policy has found in it.
type ShownEntry = (String, Option<ObjectId>, FileState);

/// Applies the rules to these index files, and sends the new contents to the writer.
fn show(
    source: &Source,
    entries: Vec<Entry<'_>>,
    (rules, facts): (&Rules, &Facts),
    contents: &SyncSender<Vec<u8>>,
    progress: &ProgressCell,
) -> Result<(Vec<ShownEntry>, Counts), BuildError> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = threads.min(NonZeroUsize::new(THREADS_MAX).unwrap_or(NonZeroUsize::MIN));
    let shown = Mutex::new((Vec::with_capacity(entries.len()), Counts::default()));
    let repository = source.repository();
    visit_entries(
        repository,
        entries,
        threads,
        progress.stop_flag(),
        |name, blob| {
            let mut counts = Counts::default();
            let read = repository.read_blob(blob, |content| {
                apply(rules, facts, name, content, &mut counts)
            });
            let unread = |file| {
                let state = FileState {
                    is_unread: rules.policy().is_some(),
                    ..FileState::default()
                };
                (file, state)
            };
            let (file, state) = match read {
                // A file that is too large is listed without changes. A request for it gets 503 with the reason. Under a
                // policy it is hidden: git clients would get it as it is.
                Err(ReadError::TooLarge(_)) if rules.policy().is_none() || rules.only_watch() => {
                    unread(ShownFile::AsIs)
                }
                Err(error @ ReadError::TooLarge(_)) => {
                    tracing::warn!(crate.name = name, error = %error, "an index file is too large for the policy and is hidden");
                    counts.left_out += 1;
                    unread(ShownFile::Hidden)
                }
                // Without rules only requests for this crate would fail. Nothing is known of its lines, so it is hidden.
                Err(error @ (ReadError::Git(_) | ReadError::Refused(_)))
                    if !error.is_the_systems() =>
                {
                    tracing::warn!(crate.name = name, error = %error, "an index file cannot be read and is hidden");
                    counts.left_out += 1;
                    unread(ShownFile::Hidden)
                }
                read => read?,
            };
            let blob = match file {
                ShownFile::Hidden => None,
                ShownFile::AsIs => Some(blob),
                ShownFile::Edited(content) => {
                    let blob = BlobId::of(&content).into();
                    // Fails if the writer has ended with an error, which `try_build` returns.
                    contents
                        .send(content)
                        .map_err(|_no_receiver| BuildError::Stopped)?;
                    Some(blob)
                }
            };
            let mut shown = shown.lock();
            shown.0.push((name.to_owned(), blob, state));
            shown.1.add(counts);
            Ok::<(), BuildError>(())
        },
    )?;
    Ok(shown.into_inner())
}

/// The changes of the top-level files, which rules do not change.
fn top_changes(source: &Source, earlier: Option<&Earlier>) -> Result<Vec<TreeChange>, ReadError> {
    source.repository().with(|git| {
        let odb = git.odb()?;
        // A tree from upstream can contain names that no tree should have, such as `.git`. A tree builder finds them.
        let mut acceptable = git.treebuilder(None)?;
        let mut changes: Vec<TreeChange> = Vec::new();
        for entry in Entries(odb.read(source.root().tree.to_oid()?)?.data()) {
            let entry = entry?;
            let Some(mode) = entry.file_mode() else {
                continue;
            };
            // A tree of an upstream can have a file and a directory of one name. The index files win.
            let is_directory = std::str::from_utf8(entry.name)
                .is_ok_and(|name| source.root().directory(name).is_some());
            let id = entry.id.to_oid()?;
            if !is_directory && acceptable.insert(entry.name, id, mode.into()).is_ok() {
                changes.push((entry.name.to_vec(), Some((entry.id, mode))));
            }
        }
        if let Some(earlier) = earlier {
            let there: HashSet<Vec<u8>> = changes.iter().map(|(path, _)| path.clone()).collect();
            for entry in Entries(odb.read(earlier.shown.tree.to_oid()?)?.data()) {
                let entry = entry?;
                if entry.file_mode().is_some() && !there.contains(entry.name) {
                    changes.push((entry.name.to_vec(), None));
                }
            }
        }
        Ok(changes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::source::fetch::UPSTREAM_HEAD;
    use crate::index::testing::{TestIndex, checksum, line};
    use crate::policy::Rule;

    fn facts(stored: &[u8]) -> Facts {
        Facts::of_stored_files(stored.iter().map(|number| checksum(*number)).collect())
    }

    fn stored_only() -> Rules {
        Rules::new(vec![Rule::StoredOnly])
    }

    fn build_anew(source: &Source, stored: &[u8]) -> Built {
        let facts = facts(stored);
        let progress = ProgressCell::default();
        build(source, None, (&stored_only(), &facts), &progress).unwrap()
    }

    fn index_of(files: &[(&str, String)]) -> TestIndex {
        let files = files.iter().map(|(path, text)| (*path, text.as_str()));
        let mut index = TestIndex::new(&files.collect::<Vec<_>>());
        index.refresh();
        index
    }

    fn source_of(index: &TestIndex) -> Arc<Source> {
        Arc::clone(index.handle.view().unwrap().source())
    }

    #[test]
    fn the_tree_is_what_git_would_make_of_the_same_files() {
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
        let index = index_of(&files);
        let source = source_of(&index);
        let stored = [2, 3, 4, 6, 7, 8];
        let built = build_anew(&source, &stored);
        assert_eq!(built.files_read, 8);
        assert_eq!(built.counts.not_stored, 3);
        assert_eq!(build_anew(&source, &stored).tree, built.tree);

        let mut expected = files.to_vec();
        expected.retain(|(path, _)| {
            ![".github/workflows/x", "se/rd/serde", "to/ki/tokio"].contains(path)
        });
        for (path, text) in &mut expected {
            if *path == "1/a" {
                *text = format!("{two}\n");
            }
        }
        assert_eq!(built.tree, source_of(&index_of(&expected)).root().tree);
    }

    #[test]
    fn only_files_that_differ_from_the_earlier_source_are_read() {
        let state = |changed: u8| {
            let mut files: Vec<(String, String)> = (0..50)
                .map(|number| format!("abcd{number}"))
                .map(|name| (format!("ab/cd/{name}"), line(&name, 1)))
                .collect();
            files.push(("1/a".to_owned(), line("a", changed)));
            files
        };
        fn pairs(files: &[(String, String)]) -> Vec<(&str, &str)> {
            let pairs = files.iter();
            pairs
                .map(|(path, text)| (path.as_str(), text.as_str()))
                .collect()
        }
        let (first, second) = (state(1), state(2));
        let mut index = TestIndex::new(&pairs(&first));
        index.refresh();
        let before = source_of(&index);
        let built = build_anew(&before, &[1, 2]);
        assert_eq!(built.files_read, 51);
        let progress = ProgressCell::default();
        let read =
            |source: &Source, tree| source.read_tree(tree, None, progress.stop_flag()).unwrap();
        let earlier = Earlier {
            source: Arc::clone(before.root()),
            shown: read(&before, built.tree),
            states: Arc::default(),
            affected: Vec::new(),
        };
        index.commit(&pairs(&second));
        index.refresh();
        let after = source_of(&index);
        let facts = facts(&[1, 2]);
        let followed = build(&after, Some(&earlier), (&stored_only(), &facts), &progress).unwrap();
        assert_eq!(followed.files_read, 1);
        assert_eq!(followed.tree, build_anew(&after, &[1, 2]).tree);
    }

    /// A tree as an upstream can make it: nobody has checked it.
    fn raw_tree(git: &git2::Repository, entries: &[(&str, &str, git2::Oid)]) -> git2::Oid {
        let mut content = Vec::new();
        for (mode, name, id) in entries {
            content.extend(format!("{mode} {name}\0").as_bytes());
            content.extend(id.as_bytes());
        }
        let odb = git.odb().unwrap();
        odb.write(ObjectType::Tree, &content).unwrap()
    }

    #[test]
    fn names_that_occur_twice_in_a_tree_of_the_upstream_do_not_keep_a_view_from_being_made() {
        let index = index_of(&[("1/a", line("a", 1))]);
        let repository = Arc::clone(source_of(&index).repository());
        let git = git2::Repository::open_bare(repository.path()).unwrap();
        let lines = |name: &str| git.blob((line(name, 1) + "\n").as_bytes()).unwrap();
        let abcd = raw_tree(&git, &[("100644", "abcd", lines("abcd"))]);
        let ab = raw_tree(&git, &[("40000", "cd", abcd)]);
        let text = git.blob(b"{}").unwrap();
        let root = raw_tree(
            &git,
            &[
                ("40000", ".git", ab),
                ("100644", ".git", text),
                ("100644", "ab", text),
                ("40000", "ab", ab),
                ("40000", "ab", ab),
                ("100644", "config.json", text),
                ("100644", "config.json", text),
            ],
        );
        let tree = git.find_tree(root).unwrap();
        let who = git2::Signature::now("index", "index@example.invalid").unwrap();
        let commit = git.commit(None, &who, &who, "hostile", &tree, &[]).unwrap();
        git.reference(UPSTREAM_HEAD, commit, true, "fetched")
            .unwrap();
        let progress = ProgressCell::default();
        let source = Source::read(&repository, None, progress.stop_flag()).unwrap();
        let built = build_anew(&source, &[1]);
        let shown = source
            .read_tree(built.tree, None, progress.stop_flag())
            .unwrap();
        assert_eq!(shown.count, 1);
        let top: Vec<String> = git
            .find_tree(built.tree.to_oid().unwrap())
            .unwrap()
            .iter()
            .map(|entry| String::from_utf8(entry.name_bytes().to_vec()).unwrap())
            .collect();
        assert_eq!(top, ["ab", "config.json"]);
        let earlier = Earlier {
            source: Arc::clone(source.root()),
            shown,
            states: Arc::default(),
            affected: Vec::new(),
        };
        let rules = (&stored_only(), &facts(&[1]));
        let again = build(&source, Some(&earlier), rules, &progress).unwrap();
        assert_eq!(again.tree, built.tree);
    }

    #[test]
    fn of_two_index_files_with_one_name_the_first_one_counts_for_everything() {
        let index = index_of(&[("1/a", line("a", 1))]);
        let repository = Arc::clone(source_of(&index).repository());
        let git = git2::Repository::open_bare(repository.path()).unwrap();
        let blob = |number: u8| git.blob((line("abcd", number) + "\n").as_bytes()).unwrap();
        let (first, second) = (blob(1), blob(2));
        let cd = raw_tree(
            &git,
            &[("100644", "abcd", first), ("100644", "abcd", second)],
        );
        let other = raw_tree(&git, &[("100644", "abcd", second)]);
        let ab = raw_tree(&git, &[("40000", "cd", cd), ("40000", "cd", other)]);
        let root = raw_tree(&git, &[("40000", "ab", ab)]);
        let tree = git.find_tree(root).unwrap();
        let who = git2::Signature::now("index", "index@example.invalid").unwrap();
        let commit = git.commit(None, &who, &who, "hostile", &tree, &[]).unwrap();
        git.reference(UPSTREAM_HEAD, commit, true, "fetched")
            .unwrap();
        let progress = ProgressCell::default();
        let source = Source::read(&repository, None, progress.stop_flag()).unwrap();
        assert_eq!(source.root().count, 1);
        // The first file has a denied version, the second one has none.
        let rules = Rules::new(vec![Rule::Policy(crate::policy::testing::settings())]);
        let file = crate::policy::PolicyFile::parse("bans.deny = [\"abcd@0.1.0\"]").unwrap();
        let facts = Facts {
            file: Arc::new(file),
            ..Facts::default()
        };
        let built = build(&source, None, (&rules, &facts), &progress).unwrap();
        assert_eq!((built.files_read, built.states.totals.denied), (1, 1));
        let shown = source
            .read_tree(built.tree, None, progress.stop_flag())
            .unwrap();
        let name = CrateName::try_from("abcd".to_owned()).unwrap();
        let shown = shown.find(&IndexPath::from(&name)).unwrap();
        let yanked = line("abcd", 1).replace("\"yanked\":false", "\"yanked\":true") + "\n";
        assert_eq!(BlobId(shown), BlobId::of(yanked.as_bytes()));
    }

    #[test]
    fn a_build_checks_for_a_stop_at_every_file_and_every_object() {
        let contents: Vec<(String, String)> = (0..100)
            .map(|number| {
                let name = format!("abcd{number}");
                let lines = format!("{}\n{}\n", line(&name, 1), line(&name, 2));
                (format!("ab/cd/{name}"), lines)
            })
            .collect();
        let files = contents
            .iter()
            .map(|(path, content)| (path.as_str(), content.clone()))
            .collect::<Vec<_>>();
        let index = index_of(&files);
        let source = source_of(&index);
        let progress = ProgressCell::default();
        let facts = facts(&[1]);
        build(&source, None, (&stored_only(), &facts), &progress).unwrap();
        // One check each: at the read, at the write into memory, and in the pack.
        let checks = progress.stop_flag().checks();
        assert!(checks >= 3 * contents.len(), "{checks}");
    }

    #[test]
    fn a_stop_ends_a_build() {
        let index = index_of(&[("1/a", "one".to_owned())]);
        let source = source_of(&index);
        let progress = ProgressCell::default();
        progress.stop();
        let result = build(&source, None, (&stored_only(), &facts(&[])), &progress);
        assert!(matches!(result, Err(BuildError::Stopped)));
    }
}
