//! The crates of a view, and both contents of their index files: the upstream's, and the one that is shown. A catalog is
//! made of them.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::View;
use super::changes::for_each_change;
use crate::index::ids::{BlobId, ObjectId};
use crate::index::limits::ReadError;
use crate::index::source::directory::Directory;
use crate::index::source::visit_files::{Entry, visit_entries};
use crate::index::stop::StopFlag;
use crate::package::{CrateName, IndexPath};

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

impl Listing {
    /// The git trees of the upstream's index and of the one that is shown. Equal trees mean equal listings.
    pub(crate) fn trees(&self) -> (BlobId, BlobId) {
        (BlobId(self.source.tree()), BlobId(self.shown.tree()))
    }

    /// The number of crates that the upstream lists.
    pub(crate) fn count(&self) -> usize {
        self.source.count()
    }

    /// All crates that the upstream lists, by name.
    pub(crate) fn crates(&self) -> Vec<ListedCrate<'_>> {
        let mut crates = Vec::with_capacity(self.source.count());
        collect(&self.source, &mut crates);
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

fn collect<'a>(directory: &'a Directory, found: &mut Vec<ListedCrate<'a>>) {
    found.extend(directory.files().map(|(name, blob)| ListedCrate {
        name,
        source: BlobId(blob),
    }));
    for (_name, below) in directory.directories() {
        collect(below, found);
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
