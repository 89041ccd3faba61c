//! The crates of a view, and both contents of their index files: the upstream's, and the one that is shown. A catalog is
//! made of them. The difference of two shown states, for the change journal.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::Serialize;

use super::View;
use super::changes::{FileChange, for_each_change};
use crate::index::ids::{BlobId, ObjectId};
use crate::index::limits::ReadError;
use crate::index::source::directory::Directory;
use crate::index::source::repository::Repository;
use crate::index::source::visit_files::{Entry, visit_entries};
use crate::index::stop::StopFlag;
use crate::package::{CrateName, IndexPath, Timestamp};
use crate::policy::{DecidedVersion, FileState, PolicyState};

/// The directories of a view, without its clone.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    source: Arc<Directory>,
    shown: Arc<Directory>,
}

/// A crate that the upstream lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedCrate<'a> {
    /// Its name in lower case.
    pub(crate) name: &'a str,
    /// The upstream's index file.
    pub(crate) source: BlobId,
}

/// A crate with its index files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CrateContent<'a> {
    /// Its name in lower case.
    pub(crate) name: &'a str,
    /// The id of the upstream's index file.
    pub(crate) source: BlobId,
    /// The id of the index file that is shown; `None` if it is hidden.
    pub(crate) shown: Option<BlobId>,
    /// The content of both. `None` if one of them is too large to be read.
    pub(crate) files: Option<CrateFiles<'a>>,
}

/// The content of the index files of a crate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CrateFiles<'a> {
    /// The upstream's.
    pub(crate) source: &'a [u8],
    /// The one that is shown; `None` if it is hidden.
    pub(crate) shown: Option<&'a [u8]>,
}

/// One state of the shown index, to be compared with a later one. It keeps its clone on the disk.
#[derive(Clone, Debug)]
pub(crate) struct ShownIndex {
    root: Arc<Directory>,
    repository: Arc<Repository>,
}

/// What the rules have made of a version that is shown as yanked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ShownFlag {
    /// It is held until this time; `None` if nothing but another index line ends that.
    HeldUntil(Option<Timestamp>),
    /// It is denied: always `true`.
    Denied(bool),
}

impl ShownIndex {
    /// The git tree of the state. Equal trees mean equal states.
    pub(crate) fn tree(&self) -> BlobId {
        BlobId(self.root.tree)
    }

    /// The index files that differ from an earlier state, by name. The cost is proportional to the directories that
    /// differ.
    pub(crate) fn changes_since<'a>(&'a self, earlier: &'a Self) -> Vec<FileChange<'a>> {
        let mut changes = Vec::new();
        let (before, after) = (Some(&*earlier.root), Some(&*self.root));
        let Ok(()) = for_each_change(before, after, &mut |change| {
            changes.push(change);
            Ok::<(), std::convert::Infallible>(())
        });
        changes.sort_unstable_by_key(|change| change.name);
        changes
    }

    /// Reads an index file of this state. `None` if its clone does not have the file any more: a clone need not have
    /// all of an earlier state. Blocking.
    pub(crate) fn read<T>(
        &self,
        blob: BlobId,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, ReadError> {
        // A failed read would count as damage of the clone.
        let id = blob.0;
        let is_there = |git: &git2::Repository| Ok(git.odb()?.exists(id.to_oid()?));
        if !self.repository.with(is_there)? {
            return Ok(None);
        }
        self.repository.read_blob(id, read).map(Some)
    }
}

impl Listing {
    /// The git trees of the upstream's index and of the one that is shown. Equal trees mean equal listings.
    pub(crate) fn trees(&self) -> (BlobId, BlobId) {
        (BlobId(self.source.tree), BlobId(self.shown.tree))
    }

    /// The number of crates that the upstream lists.
    pub(crate) fn count(&self) -> usize {
        self.source.count
    }

    /// All crates that the upstream lists, by name.
    pub(crate) fn crates(&self) -> Vec<ListedCrate<'_>> {
        let mut crates = Vec::with_capacity(self.source.count);
        self.source.visit_files(&mut |name, blob| {
            let source = BlobId(blob);
            crates.push(ListedCrate { name, source });
        });
        crates.sort_unstable_by_key(|listed| listed.name);
        crates
    }

    /// The crate with this name in lower case.
    pub(crate) fn find<'a>(&self, name: &'a str) -> Option<ListedCrate<'a>> {
        let source = BlobId(find(&self.source, name)?);
        Some(ListedCrate { name, source })
    }

    /// The index file that is shown of a crate.
    pub(crate) fn shown(&self, listed: ListedCrate<'_>) -> Option<BlobId> {
        // Without rules both are the same directories.
        if Arc::ptr_eq(&self.source, &self.shown) {
            return Some(listed.source);
        }
        find(&self.shown, listed.name).map(BlobId)
    }

    /// The crates that differ from an earlier listing, gone ones included: names in lower case. The cost is proportional
    /// to the directories that differ.
    pub(crate) fn changes_since<'a>(&'a self, earlier: &'a Self) -> BTreeSet<&'a str> {
        let mut names = BTreeSet::new();
        for (before, after) in [
            (&earlier.source, &self.source),
            (&earlier.shown, &self.shown),
        ] {
            let Ok(()) = for_each_change(Some(&**before), Some(&**after), &mut |change| {
                names.insert(change.name);
                Ok::<(), std::convert::Infallible>(())
            });
        }
        names
    }
}

fn find(directory: &Directory, name: &str) -> Option<ObjectId> {
    let name = CrateName::try_from(name.to_owned()).ok()?;
    directory.find_exactly(&IndexPath::from(&name))
}

impl View {
    /// The crates of this view.
    pub(crate) fn listing(&self) -> Listing {
        Listing {
            source: Arc::clone(self.source.root()),
            shown: Arc::clone(&self.root),
        }
    }

    /// What is shown, without the rest of the view.
    pub(crate) fn shown(&self) -> ShownIndex {
        ShownIndex {
            root: Arc::clone(&self.root),
            repository: Arc::clone(self.source.repository()),
        }
    }

    /// The state with this git tree, if the clone of this view still has it. Blocking.
    pub(crate) fn find_shown(
        &self,
        tree: &[u8],
        stop: &StopFlag,
    ) -> Result<Option<ShownIndex>, ReadError> {
        let repository = self.source.repository();
        let tree = ObjectId::from_bytes(tree).filter(|tree| repository.has(*tree));
        let Some(tree) = tree else {
            return Ok(None);
        };
        match self.source.read_tree(tree, Some(&self.root), stop) {
            // A part of it is missing.
            Err(error) if error.may_be_damage() && !error.is_the_systems() => Ok(None),
            root => Ok(Some(ShownIndex {
                root: root?,
                repository: Arc::clone(repository),
            })),
        }
    }

    /// The versions of a crate that are shown as yanked because of the policy. The name of the crate is in lower case.
    /// Blocking: it reads the upstream's index file, if the policy has decided anything about it.
    pub(crate) fn flags_of(
        &self,
        crate_name: &str,
    ) -> Result<HashMap<String, ShownFlag>, ReadError> {
        let state = self.policy_state(crate_name);
        let blob = find(self.source.root(), crate_name);
        let (Some(blob), true) = (blob, state.is_some_and(FileState::has_decisions)) else {
            return Ok(HashMap::new());
        };
        let decided = self.read_blob(BlobId(blob), |file| self.decisions(crate_name, file))?;
        let flag = |version: DecidedVersion| {
            let reason = version.reason.as_ref()?;
            let flag = match reason.state() {
                // The upstream's own flag stays when a hold ends.
                _ if version.upstream_yanked || version.served_yanked != Some(true) => return None,
                PolicyState::Held => {
                    ShownFlag::HeldUntil(reason.until().and_then(Timestamp::from_unix_seconds))
                }
                PolicyState::Denied => ShownFlag::Denied(true),
                PolicyState::Allowed | PolicyState::Frozen => return None,
            };
            Some((version.version, flag))
        };
        Ok(decided.into_iter().filter_map(flag).collect())
    }

    /// Closes the unused handles of the clone. Each keeps what it has seen.
    pub(crate) fn close_idle_handles(&self) {
        self.source.repository().close_idle_handles();
    }

    /// Calls `visit` with the content of these crates, in any order, from this many threads. Ends with the first error of
    /// a read or of `visit`. Blocking.
    pub(crate) fn visit_crates<E>(
        &self,
        crates: Vec<ListedCrate<'_>>,
        threads: NonZeroUsize,
        stop: &StopFlag,
        visit: impl Fn(CrateContent<'_>) -> Result<(), E> + Sync,
    ) -> Result<(), E>
    where
        E: From<ReadError> + Send,
    {
        let listing = self.listing();
        let entries = crates
            .into_iter()
            .map(|listed| Entry::new(listed.name, listed.source.0))
            .collect();
        let repository = self.source.repository();
        visit_entries(repository, entries, threads, stop, |name, source| {
            let source = BlobId(source);
            let shown = listing.shown(ListedCrate { name, source });
            let visit = |files: Option<CrateFiles<'_>>| {
                visit(CrateContent {
                    name,
                    source,
                    shown,
                    files,
                })
            };
            let both = |source_file: &[u8]| {
                let visit = |shown: Option<&[u8]>| {
                    visit(Some(CrateFiles {
                        source: source_file,
                        shown,
                    }))
                };
                match shown {
                    Some(shown) if shown != source => {
                        self.read_blob(shown, |shown| visit(Some(shown)))
                    }
                    shown => Ok(visit(shown.map(|_same| source_file))),
                }
            };
            match self.read_blob(source, both).flatten() {
                Err(ReadError::TooLarge(_)) => visit(None),
                visited => visited?,
            }
        })
    }
}
