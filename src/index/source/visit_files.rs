//! Reads many index files with several threads. A quarter of a million files take about 10 s of processor time in the
//! order of the packs, and 40 s in any other order.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::directory::Directory;
use super::repository::Repository;
use super::snapshot::Source;
use crate::index::ids::ObjectId;
use crate::index::limits::ReadError;
use crate::index::stop::StopFlag;
use crate::package::CrateName;

/// The number of index files that a thread takes at a time.
const SHARE: usize = 256;

impl Source {
    /// Calls `visit` with every index file, in any order, from this many threads. The name is in lower case. Ends with
    /// the first error of a read or of `visit`. Blocking.
    pub(crate) fn for_each_index_file<E>(
        &self,
        threads: NonZeroUsize,
        visit: impl Fn(&CrateName, &[u8]) -> Result<(), E> + Sync,
    ) -> Result<(), E>
    where
        E: From<ReadError> + Send,
    {
        // No stop flag: only subcommands visit all files, and they end with their process.
        let entries = entries_of(self.root());
        visit_entries(
            self.repository(),
            entries,
            threads,
            &StopFlag::new(),
            |name, blob| {
                // Never happens: a source lists only files with a crate's name.
                let Ok(name) = CrateName::try_from(name.to_owned()) else {
                    return Ok(());
                };
                let visited = self
                    .repository()
                    .read_blob(blob, |content| visit(&name, content));
                match visited {
                    Err(ReadError::TooLarge(why)) => {
                        tracing::warn!(
                            crate.name = name.as_str(),
                            error = why,
                            "an index file is passed over"
                        );
                        Ok(())
                    }
                    visited => visited?,
                }
            },
        )
    }
}

/// Lists every index file in a directory and below it.
pub(crate) fn entries_of(directory: &Directory) -> Vec<Entry<'_>> {
    let mut entries = Vec::with_capacity(directory.count);
    directory.visit_files(&mut |name, blob| entries.push(Entry::new(name, blob)));
    entries
}

/// Calls `visit` with the name and the blob of every entry, roughly in the order of the packs, from this many threads.
/// Ends with the first error of `visit`, or with [`ReadError::Stopped`]. Blocking.
pub(crate) fn visit_entries<E>(
    repository: &Repository,
    mut entries: Vec<Entry<'_>>,
    threads: NonZeroUsize,
    stop: &StopFlag,
    visit: impl Fn(&str, ObjectId) -> Result<(), E> + Sync,
) -> Result<(), E>
where
    E: From<ReadError> + Send,
{
    sort_as_in_packs(repository, &mut entries, stop)?;
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let work = || {
        while let Some(share) = entries
            .chunks(SHARE)
            .nth(next.fetch_add(1, Ordering::Relaxed))
        {
            for entry in share {
                let visited = stop.check().map_err(E::from);
                if let Err(error) = visited.and_then(|()| visit(entry.name, entry.blob)) {
                    // Ends the other threads: no share is left.
                    next.store(entries.len(), Ordering::Relaxed);
                    *failure.lock() = Some(error);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // This thread is one of them, so one less is started.
        for _ in 1..threads.get() {
            // If a thread cannot be started, the others do its work.
            let _refused = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let failure = failure.into_inner();
    failure.map_or(Ok(()), Err)
}

/// An index file, and its position among all objects.
pub(crate) struct Entry<'a> {
    /// The name of the crate in lower case.
    pub(crate) name: &'a str,
    blob: ObjectId,
    rank: u32,
}

impl<'a> Entry<'a> {
    /// The index file of this crate. The name is in lower case.
    pub(crate) fn new(name: &'a str, blob: ObjectId) -> Self {
        Self {
            name,
            blob,
            rank: u32::MAX,
        }
    }
}

/// Sorts entries in the order of the packs. Most objects are deltas of a nearby object. In this order the nearby object
/// was read just before, and is still cached.
fn sort_as_in_packs(
    repository: &Repository,
    entries: &mut [Entry<'_>],
    stop: &StopFlag,
) -> Result<(), ReadError> {
    // Listing all objects costs more than reading a few in any order.
    if entries.len() < SHARE {
        return Ok(());
    }
    entries.sort_unstable_by(|left, right| left.blob.as_bytes().cmp(right.blob.as_bytes()));
    let mut rank = 0_u32;
    repository.with(|git| {
        // The ranks follow the packs, because libgit2 lists the objects of a pack by their offsets.
        git.odb()?
            .foreach(|id| {
                rank = rank.saturating_add(1);
                let start = entries.partition_point(|entry| entry.blob.as_bytes() < id.as_bytes());
                for entry in entries.iter_mut().skip(start) {
                    if entry.blob.as_bytes() != id.as_bytes() {
                        break;
                    }
                    entry.rank = rank;
                }
                !stop.is_set()
            })
            .or_else(|error| {
                // After a stop libgit2 only reports that the callback ended the loop.
                stop.check()?;
                Err(error.into())
            })
    })?;
    entries.sort_unstable_by_key(|entry| entry.rank);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::index::testing::TestIndex;

    const THREADS: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    #[test]
    fn every_index_file_is_visited_once_and_nothing_else() {
        let mut index = TestIndex::new(&[
            ("config.json", "{}"),
            ("1/a", "one"),
            ("3/s/syn", "three"),
            ("se/rd/serde", "four"),
            ("se/rd/serde_json", "json"),
            ("xx/yy/wrong-place", "no"),
        ]);
        index.refresh();
        let visited = Mutex::new(BTreeMap::new());
        let source = Arc::clone(index.handle.view().unwrap().source());
        source
            .for_each_index_file(THREADS, |name, content| {
                let content = String::from_utf8(content.to_vec()).unwrap();
                let mut visited = visited.lock();
                assert_eq!(visited.insert(name.as_str().to_owned(), content), None);
                Ok::<(), ReadError>(())
            })
            .unwrap();
        let expected = [
            ("a", "one"),
            ("serde", "four"),
            ("serde_json", "json"),
            ("syn", "three"),
        ];
        let expected = expected.map(|(name, content)| (name.to_owned(), content.to_owned()));
        assert_eq!(visited.into_inner(), BTreeMap::from(expected));
    }

    #[test]
    fn the_first_error_of_a_visitor_ends_the_visit() {
        #[derive(Debug)]
        struct Enough;
        impl From<ReadError> for Enough {
            fn from(error: ReadError) -> Self {
                panic!("{error}")
            }
        }
        let mut index = TestIndex::new(&[("1/a", "one"), ("1/b", "two"), ("2/io", "three")]);
        index.refresh();
        let visits = AtomicUsize::new(0);
        let result = index.handle.view().unwrap().source().for_each_index_file(
            NonZeroUsize::MIN,
            |_name, _content| {
                visits.fetch_add(1, Ordering::Relaxed);
                Err(Enough)
            },
        );
        assert!(matches!(result, Err(Enough)));
        assert_eq!(visits.into_inner(), 1);
    }
}
