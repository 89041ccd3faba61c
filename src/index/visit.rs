//! Reading every index file of a snapshot, by several threads: for work that needs them all and no look-up, like finding
//! which version a checksum belongs to. A quarter of a million files take about 40 s of processor time.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::directory::{Directory, ObjectId};
use super::repository::ReadError;
use super::snapshot::Snapshot;
use crate::package::CrateName;

impl Snapshot {
    /// Gives every index file to `visit`, in no order, from so many threads: the crate's name in lower case, and the
    /// content. Ends with the first error of a read or of `visit`. Blocking.
    pub(crate) fn for_each_index_file<E>(
        &self,
        threads: NonZeroUsize,
        visit: impl Fn(&CrateName, &[u8]) -> Result<(), E> + Sync,
    ) -> Result<(), E>
    where
        E: From<ReadError> + Send,
    {
        self.for_each_entry(threads, |name, blob| {
            // The snapshot lists nothing else than what has a crate's name.
            let Ok(name) = CrateName::try_from(name.to_owned()) else {
                return Ok(());
            };
            self.repository()
                .read_blob(blob, |content| visit(&name, content))?
        })
    }

    /// Gives the name and the blob of every index file to `visit`.
    pub(super) fn for_each_entry<E: Send>(
        &self,
        threads: NonZeroUsize,
        visit: impl Fn(&str, ObjectId) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let mut directories = Vec::new();
        collect(self.root(), &mut directories);
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let work = || {
            while let Some(directory) = directories.get(next.fetch_add(1, Ordering::Relaxed)) {
                for (name, blob) in directory.files() {
                    if let Err(error) = visit(name, blob) {
                        // Nothing is left to do for the others.
                        next.store(directories.len(), Ordering::Relaxed);
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            // One of the threads is this one.
            for _ in 1..threads.get() {
                // Without a further thread the others do its share.
                let _refused = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(()), Err)
    }
}

fn collect<'a>(directory: &'a Directory, found: &mut Vec<&'a Directory>) {
    found.push(directory);
    for (_name, below) in directory.directories() {
        collect(below, found);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::testing::TestIndex;
    use super::*;

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
        let snapshot = index.handle.snapshot().unwrap();
        snapshot
            .for_each_index_file(THREADS, |name, content| {
                let content = String::from_utf8(content.to_vec()).unwrap();
                let mut visited = visited.lock().unwrap();
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
        assert_eq!(visited.into_inner().unwrap(), BTreeMap::from(expected));
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
        let result = index.handle.snapshot().unwrap().for_each_index_file(
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
